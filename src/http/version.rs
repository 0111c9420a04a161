//! The versions of HTTP that ktrix supports.

/// The version that a head names (RFC 9112 section 2.3). A later minor version counts as 1.1 (RFC
/// 9110 section 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// `HTTP/1.0`: no persistence unless asked for, no transfer codings, `Host` is optional.
    Http10,
    /// `HTTP/1.1`.
    Http11,
    /// `HTTP/2.0`, as logs write it; only of clients.
    Http2,
}

impl Version {
    /// As written in a start line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2.0",
        }
    }

    /// As written in `Via` (RFC 9110 section 7.6.3), where `HTTP/` is implied.
    pub const fn number(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
            Self::Http2 => "2.0",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_long_form_ends_with_the_number() {
        for version in [Version::Http10, Version::Http11, Version::Http2] {
            assert!(version.as_str().ends_with(version.number()));
        }
        assert!(Version::Http10 < Version::Http11 && Version::Http11 < Version::Http2);
    }
}
