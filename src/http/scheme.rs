//! The scheme of a request's URI, RFC 9110 section 4.2: how the client's connection is secured.

use std::fmt;

use crate::base::chars;

/// A scheme that ktrix serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain TCP, or a Unix socket.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// The scheme that these bytes name, in any case.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let is = |scheme: &Self| chars::eq_ignore_case(text, scheme.word().as_bytes());
        [Self::Http, Self::Https].into_iter().find(is)
    }

    /// Its name in a URI, in lower case.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port of a URI that names none.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_is_named_in_any_case() {
        assert_eq!(Scheme::parse(b"HTTP"), Some(Scheme::Http));
        assert_eq!(Scheme::parse(b"https"), Some(Scheme::Https));
        for other in ["", "http:", "httpss", "ftp", "htt"] {
            assert_eq!(Scheme::parse(other.as_bytes()), None, "{other}");
        }
    }
}
