//! Why ktrix refuses a request itself, before its route counts.

use crate::http::status::Status;

reasons! {
    /// Why ktrix refuses a request itself. The sentence is for clients.
    OwnReason {
        /// The status of the answer.
        status: Status,
    }
    // `Via` names this instance.
    Loop: "loop", "the request has passed this proxy before", Status::LOOP_DETECTED;
    // The connection has another policy of client certificates than the site.
    Misdirected: "misdirected",
        "this site asks for the certificates of its clients on other connections",
        Status::MISDIRECTED_REQUEST;
    // Workers have crashed while they had such a request in flight; see `limits.crash-guard`.
    CrashGuard: "crash-guard", "this request is not handled for now, try again later", Status(503);
}
