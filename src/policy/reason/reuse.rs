//! Why a stored response answers a request, or has to be validated first.

reasons! {
    /// The rule by which a stored response answers a request, or is validated first.
    ReuseReason {
        /// The section that contains the rule, or one like it where the operator decides.
        section: &'static str,
    }
    StoredNoCache: "stored-no-cache", "the stored response says no-cache",
        "RFC 9111 section 5.2.2.4";
    RequestNoCache: "request-no-cache", "the request says no-cache", "RFC 9111 section 5.2.1.4";
    RefreshIf: "refresh-if", "a condition of the route's refresh-if holds",
        "RFC 9111 section 5.2.1.4";
    MaxAge: "max-age", "it is older than the request's max-age", "RFC 9111 section 5.2.1.1";
    MinFresh: "min-fresh", "it does not stay fresh for the request's min-fresh",
        "RFC 9111 section 5.2.1.3";
    Fresh: "fresh", "it is fresh", "RFC 9111 section 4.2";
    MustRevalidate: "must-revalidate", "it is stale, and the origin forbids serving it stale",
        "RFC 9111 section 5.2.2.2";
    StaleWhileRevalidate: "stale-while-revalidate", "it is stale, within stale-while-revalidate",
        "RFC 5861 section 3";
    MaxStale: "max-stale", "it is stale, within the request's max-stale",
        "RFC 9111 section 5.2.1.2";
    Stale: "stale", "it is stale", "RFC 9111 section 4.2.4";
}
