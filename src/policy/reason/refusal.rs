//! Why a forward proxy refuses a request.

use crate::http::status::Status;

reasons! {
    /// Why a forward proxy refuses a request. The sentence is for clients.
    ForwardRefusal {
        /// The status of the answer.
        status: Status,
    }
    // No absolute form, and no CONNECT.
    Form: "forward-form", "this is a proxy: requests have a whole URL, or the method CONNECT",
        Status(400);
    // The client is not in `forward.clients`.
    Client: "forward-client", "this proxy is not for clients of this network", Status(403);
    // A user of `forward.users` must be named.
    Unauthorized: "forward-unauthorized", "this proxy is for users with a password", Status(407);
    // Too many wrong passwords came from the client's address.
    Throttled: "forward-throttled", "too many wrong passwords, try again later", Status(429);
    // The absolute form of a URL that is not of http.
    Scheme: "forward-scheme", "this proxy gets URLs of http; others go through CONNECT", Status(400);
    // The port is not in `forward.ports` or `forward.connect-ports`.
    Port: "forward-port", "this proxy does not connect to this port", Status(403);
    // The host is not in `forward.hosts`.
    Host: "forward-host", "this proxy does not connect to this host", Status(403);
}
