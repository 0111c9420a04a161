//! Why a request or a response goes round the cache.

use crate::policy::reason::forward::Fwd;

reasons! {
    /// Why a response was not stored, or a request not answered from the cache.
    PassReason {
        /// The nearest forward reason of RFC 9211 section 2.2 for a request that was passed.
        fwd: Fwd,
        /// Whether the reason lies in the response and not in the one request that led to it. A
        /// hit-for-miss is then stored, so that the next requests do not queue for one fetch.
        is_of_response: bool,
        /// The section that contains the rule, where an RFC does.
        section: Option<&'static str>,
    }
    Off: "off", "the route does not cache", Fwd::Bypass, false, None;
    Upgrade: "upgrade", "the request asks for another protocol",
        Fwd::Bypass, false, Some("RFC 9110 section 7.8");
    PassIf: "pass-if", "a condition of the route's pass-if holds", Fwd::Bypass, false, None;
    Method: "method",
        "only responses to GET are stored, and only GET and HEAD are answered from the cache",
        Fwd::Method, false, Some("RFC 9111 section 3");
    RequestBody: "request-body", "the request has a body, which is not in the key",
        Fwd::Request, false, Some("RFC 9111 section 2");
    Precondition: "precondition",
        "the request has If-Match or If-Unmodified-Since, which only the origin may evaluate",
        Fwd::Request, false, Some("RFC 9111 section 4.3.2");
    RequestNoStore: "request-no-store", "the request says no-store",
        Fwd::Request, false, Some("RFC 9111 section 5.2.1.5");
    NoStore: "no-store", "the response says no-store",
        Fwd::Miss, true, Some("RFC 9111 section 5.2.2.5");
    Private: "private", "the response says private",
        Fwd::Miss, true, Some("RFC 9111 section 5.2.2.7");
    NoCache: "no-cache", "the response says no-cache and has no validator",
        Fwd::Miss, true, Some("RFC 9111 section 5.2.2.4");
    Authorization: "authorization",
        "the request has Authorization, and the response does not let a shared cache store it",
        Fwd::Miss, false, Some("RFC 9111 section 3.5");
    SetCookie: "set-cookie", "the response sets a cookie",
        Fwd::Miss, true, Some("RFC 9111 section 7.3");
    VaryStar: "vary-star", "the response says Vary: *",
        Fwd::Miss, true, Some("RFC 9111 section 4.1");
    VaryOdd: "vary-odd", "Vary names too many fields, or one that cannot choose a variant",
        Fwd::Miss, true, Some("RFC 9111 section 4.1");
    Status: "status", "the response has a status that cannot be stored",
        Fwd::Miss, true, Some("RFC 9111 section 3");
    NoLifetime: "no-lifetime", "the response has no lifetime and no validator",
        Fwd::Miss, true, Some("RFC 9111 section 3");
    Expired: "expired", "the response is stale on arrival and has no validator",
        Fwd::Miss, true, Some("RFC 9111 section 4.2");
    Remembered: "remembered", "the last response could not be stored, which is remembered",
        Fwd::Miss, false, None;
    TooLarge: "too-large", "the response is larger than may be stored", Fwd::Miss, true, None;
    Part: "part", "the response is a part that cannot be stored",
        Fwd::Miss, false, Some("RFC 9110 section 14.4");
    Rare: "rare", "the URL was not requested often enough", Fwd::Miss, false, None;
    Store: "store", "the cache has no room, or its disk refused the write",
        Fwd::Miss, false, None;
    InternalRedirect: "internal-redirect", "the response leads to another route of the site",
        Fwd::Miss, true, None;
    DiskBusy: "disk-busy", "the cache's disk is slower than the origin, or has too much to write",
        Fwd::Miss, false, None;
    ClientIdentity: "client-identity", "the origin is told who the client is",
        Fwd::Bypass, false, Some("RFC 9440 section 3.3");
}

impl PassReason {
    /// Whether the reason lies in the request that led to the response, so that another request may
    /// lead to a response that can be stored.
    pub(crate) const fn is_of_request(self) -> bool {
        matches!(self, Self::RequestNoStore | Self::Authorization)
    }
}
