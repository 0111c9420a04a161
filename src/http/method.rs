//! Request methods and what RFC 9110 section 9 says about them.

/// A method with properties of its own, or [`Method::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// RFC 9110 section 9.3.1.
    Get,
    /// RFC 9110 section 9.3.2.
    Head,
    /// RFC 9110 section 9.3.3.
    Post,
    /// RFC 9110 section 9.3.4.
    Put,
    /// RFC 9110 section 9.3.5.
    Delete,
    /// RFC 9110 section 9.3.7.
    Options,
    /// RFC 9110 section 9.3.8.
    Trace,
    /// RFC 9110 section 9.3.6.
    Connect,
    /// RFC 5789.
    Patch,
    /// Any other token; ktrix assumes that it is neither safe nor idempotent.
    Other,
}

impl Method {
    /// The methods that have a name here.
    pub const KNOWN: [Self; 9] = [
        Self::Get,
        Self::Head,
        Self::Post,
        Self::Put,
        Self::Delete,
        Self::Options,
        Self::Trace,
        Self::Connect,
        Self::Patch,
    ];

    /// The method that these bytes name; names are case-sensitive.
    pub fn from_bytes(text: &[u8]) -> Self {
        match text {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"CONNECT" => Self::Connect,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// The name of a known method; [`Method::Other`] has none.
    pub const fn as_str(self) -> Option<&'static str> {
        Some(match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Connect => "CONNECT",
            Self::Patch => "PATCH",
            Self::Other => return None,
        })
    }

    /// Whether it only reads (RFC 9110 section 9.2.1).
    pub const fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Trace)
    }

    /// Whether doing it twice is doing it once (RFC 9110 section 9.2.2), so that it may be retried.
    pub const fn is_idempotent(self) -> bool {
        self.is_safe() || matches!(self, Self::Put | Self::Delete)
    }

    /// Whether a request without a body says so with `Content-Length: 0` (RFC 9110 section 8.6).
    pub const fn anticipates_body(self) -> bool {
        matches!(self, Self::Post | Self::Put | Self::Patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for method in Method::KNOWN {
            let name = method.as_str().unwrap();
            assert_eq!(Method::from_bytes(name.as_bytes()), method);
            assert_eq!(Method::from_bytes(name.to_lowercase().as_bytes()), Method::Other);
        }
        assert_eq!(Method::Other.as_str(), None);
    }

    #[test]
    fn safe_methods_are_idempotent() {
        assert!(Method::KNOWN.iter().all(|method| !method.is_safe() || method.is_idempotent()));
        for method in [Method::Post, Method::Patch, Method::Connect, Method::Other] {
            assert!(!method.is_idempotent(), "{method:?}");
        }
    }
}
