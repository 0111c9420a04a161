//! Why a request went to the origin, in the words of `Cache-Status`.

/// Why a request went to the origin (RFC 9211 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fwd {
    /// The cache is configured not to handle the request.
    Bypass,
    /// The method requires it.
    Method,
    /// Nothing is stored for the URI.
    UriMiss,
    /// Variants are stored for the URI, but this request selects none of them.
    VaryMiss,
    /// No stored response can be used.
    Miss,
    /// A fresh response is stored, but the directives of the request do not allow it.
    Request,
    /// The stored response is stale.
    Stale,
    /// A part is stored, but not all of the requested range.
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
