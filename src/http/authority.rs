//! A host and perhaps a port (RFC 3986 section 3.2), as in `Host` and absolute targets.

use std::net::Ipv6Addr;

use crate::base::chars;
use crate::http::flaw::Flaw;
use crate::http::scheme::Scheme;

/// The components of an authority, as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// A registered name, an IPv4 address, or an IPv6 address in its brackets; never empty.
    pub host: &'a [u8],
    /// The port, if one was sent.
    pub port: Option<u16>,
    /// The whole text, without a colon that has no port behind it.
    pub text: &'a [u8],
}

impl<'a> Authority<'a> {
    /// Takes an authority apart.
    ///
    /// User information is refused (RFC 9110 section 4.2.4), and so are an empty host, zone
    /// identifiers and addresses of future versions: no honest client sends them.
    ///
    /// # Errors
    /// [`Flaw::BadHost`].
    pub fn parse(text: &'a [u8]) -> Result<Self, Flaw> {
        let (host, rest) = if text.first() == Some(&b'[') {
            let close = memchr::memchr(b']', text).ok_or(Flaw::BadHost)?;
            text.split_at_checked(close + 1).ok_or(Flaw::BadHost)?
        } else {
            let colon = memchr::memchr(b':', text).unwrap_or(text.len());
            text.split_at_checked(colon).ok_or(Flaw::BadHost)?
        };
        if !(is_registered_name(host) || is_ipv6_literal(host)) {
            return Err(Flaw::BadHost);
        }
        match rest {
            [] | [b':'] => Ok(Self { host, port: None, text: host }),
            [b':', digits @ ..] => Ok(Self { host, port: Some(parse_port(digits)?), text }),
            _ => Err(Flaw::BadHost),
        }
    }
}

/// The bytes of an authority in lower case, without an empty port or the default port of its scheme
/// (RFC 9110 section 4.2.3).
pub fn normalised(scheme: impl Into<Option<Scheme>>, authority: &[u8]) -> impl Iterator<Item = u8> {
    without_default_port(scheme, authority).iter().map(u8::to_ascii_lowercase)
}

/// An authority without an empty port or the default port of its scheme.
pub fn without_default_port(scheme: impl Into<Option<Scheme>>, authority: &[u8]) -> &[u8] {
    let port: &[u8] = match scheme.into() {
        Some(Scheme::Http) => b":80",
        Some(Scheme::Https) => b":443",
        None => b":",
    };
    let bare = authority.strip_suffix(port).or_else(|| authority.strip_suffix(b":"));
    bare.unwrap_or(authority)
}

fn is_registered_name(host: &[u8]) -> bool {
    let mut rest = host;
    while let Some((first, tail)) = rest.split_first() {
        rest = match (first, tail) {
            (b'%', [high, low, tail @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                tail
            }
            (octet, tail) if chars::is_host_char(*octet) => tail,
            _ => return false,
        };
    }
    !host.is_empty() && host != b"."
}

fn is_ipv6_literal(host: &[u8]) -> bool {
    let inner = host.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
    let text = inner.and_then(|inner| str::from_utf8(inner).ok());
    text.is_some_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

fn parse_port(digits: &[u8]) -> Result<u16, Flaw> {
    if digits.len() > PORT_DIGITS_MAX {
        return Err(Flaw::BadHost);
    }
    let port = chars::parse_decimal(digits).and_then(|port| u16::try_from(port).ok());
    port.ok_or(Flaw::BadHost)
}

const PORT_DIGITS_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_separated() {
        let table: [(&str, &str, Option<u16>); 9] = [
            ("a", "a", None),
            ("a:", "a", None),
            ("www.Example.com:8080", "www.Example.com", Some(8080)),
            ("under_score.example", "under_score.example", None),
            ("127.0.0.1:0", "127.0.0.1", Some(0)),
            ("[::1]", "[::1]", None),
            ("[2001:db8::1]:443", "[2001:db8::1]", Some(443)),
            ("a%2e.b", "a%2e.b", None),
            ("a.:00080", "a.", Some(80)),
        ];
        for (text, host, port) in table {
            let authority = Authority::parse(text.as_bytes()).unwrap();
            assert_eq!((authority.host, authority.port), (host.as_bytes(), port), "{text}");
        }
        assert_eq!(Authority::parse(b"a:").unwrap().text, b"a");
        assert_eq!(Authority::parse(b"a:1").unwrap().text, b"a:1");
    }

    #[test]
    fn ambiguous_hosts_are_refused() {
        let table = [
            "", ":80", ".", "a b", "a,b", "a/b", "a?b", "a#b", "user@a", "a:80:80", "a:x", "a:+80",
            "a:65536", "a:000080", "a: 80", "a\tb", "a\\b", "[", "[]", "[::1", "::1", "[::1]a",
            "[::1]80", "[fe80::1%eth0]", "[v1.a]", "[1.2.3.4]", "a%", "a%2", "a%zz", "ä",
            "a\u{7f}", "\"a\"", "<a>", "a|b",
        ];
        for text in table {
            assert_eq!(Authority::parse(text.as_bytes()), Err(Flaw::BadHost), "{text:?}");
        }
    }
}
