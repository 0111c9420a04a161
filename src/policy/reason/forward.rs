//! Why a request went to the origin, in the words of `Cache-Status`.

reasons! {
    /// Why a request went to the origin (RFC 9211 section 2.2).
    Fwd {}
    Bypass: "bypass", "the cache is configured not to handle the request";
    Method: "method", "the method requires it";
    UriMiss: "uri-miss", "nothing is stored for the URI";
    VaryMiss: "vary-miss", "variants are stored for the URI, but the request selects none of them";
    Miss: "miss", "no stored response can be used";
    Request: "request",
        "a fresh response is stored, but the directives of the request do not allow it";
    Stale: "stale", "the stored response is stale";
    Partial: "partial", "a part is stored, but not all of the requested range";
}
