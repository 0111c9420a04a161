//! Why a request went to the origin, in the words of `Cache-Status` (RFC 9211 section 2.2).

/// Why a request went forward, RFC 9211 section 2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fwd {
    /// The cache is configured not to handle the request.
    Bypass,
    /// The method requires it.
    Method,
    /// Nothing is stored under the URI.
    UriMiss,
    /// Something is stored under the URI, but no variant for this request.
    VaryMiss,
    /// Nothing was stored that could be used.
    Miss,
    /// Something fresh is stored, but the request's directives asked for more.
    Request,
    /// What is stored is stale.
    Stale,
    /// What is stored is a part, and not the part asked for.
    Partial,
}

impl Fwd {
    /// The token of RFC 9211.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}
