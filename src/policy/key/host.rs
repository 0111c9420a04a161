//! Hosts as a purge or a listing names them, and the names that the host of a stored response has:
//! `HOST`, for all ports, or `HOST:PORT`.
//!
//! The default port of a scheme is not in a key (RFC 9110 section 4.2.3), but a host can be named
//! with it: `a.example:80` names what is stored of `http://a.example/`.

use crate::http::authority::Authority;
use crate::http::scheme::Scheme;

/// A host in a command or a request to purge, with a port or for all ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedHost {
    host: Vec<u8>,
    port: Option<u16>,
}

impl NamedHost {
    /// Reads `HOST[:PORT]`, in any case, with or without a dot at the end of the host; `None` if it
    /// is not a host, or a wildcard.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let authority = Authority::parse(text).ok()?;
        // After a colon there must be a port: the authority is shorter if there is none.
        if authority.host.contains(&b'*') || authority.text.len() < text.len() {
            return None;
        }
        let host = without_dot(authority.host).to_ascii_lowercase();
        Some(Self { host, port: authority.port })
    }

    /// The text that is hashed and shown.
    pub(crate) fn text(&self) -> Vec<u8> {
        let mut text = self.host.clone();
        if let Some(port) = self.port {
            text.extend_from_slice(format!(":{port}").as_bytes());
        }
        text
    }

    /// The port, if it has one.
    pub(crate) const fn port(&self) -> Option<u16> {
        self.port
    }

    /// Whether this names what is stored under the URL of a key.
    pub(crate) fn names(&self, url: &[u8]) -> bool {
        Hosts::of(url).each().any(|(host, port)| host == self.host && port == self.port)
    }
}

/// The names of the host of a stored response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hosts<'a> {
    host: &'a [u8],
    ports: [Option<u16>; 2],
}

impl<'a> Hosts<'a> {
    /// Those of the URL of a key, `http://host:port/...`. Without a scheme it has the default ports
    /// of both.
    pub(crate) fn of(url: &'a [u8]) -> Self {
        let at = memchr::memmem::find(url, b"//");
        let (scheme, rest) = at.and_then(|at| url.split_at_checked(at)).unwrap_or_default();
        let rest = rest.get(2..).unwrap_or_default();
        let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
        // Only an HTTP/1.0 request has no host.
        let authority = Authority::parse(rest.get(..end).unwrap_or_default()).ok();
        let scheme = scheme.strip_suffix(b":").and_then(Scheme::parse);
        let ports = match (authority.and_then(|it| it.port), scheme) {
            (Some(port), _) => [Some(port), None],
            (None, Some(scheme)) => [Some(scheme.default_port()), None],
            (None, None) => [Some(80), Some(443)],
        };
        Self { host: without_dot(authority.map_or(&b""[..], |it| it.host)), ports }
    }

    /// The host for all ports, and with each of its ports.
    pub(crate) fn each(self) -> impl Iterator<Item = (&'a [u8], Option<u16>)> {
        let with_port = self.ports.into_iter().flatten().map(Some);
        std::iter::once(None).chain(with_port).map(move |port| (self.host, port))
    }
}

fn without_dot(host: &[u8]) -> &[u8] {
    host.strip_suffix(b".").unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_named(host: &str, url: &str) -> bool {
        NamedHost::parse(host.as_bytes()).unwrap().names(url.as_bytes())
    }

    #[test]
    fn a_host_is_named_with_its_port_or_for_all_ports() {
        let cases = [
            ("a.example", "http://a.example/x", true),
            ("A.Example.", "https://a.example:81", true),
            ("a.example:80", "http://a.example/x", true),
            ("a.example:0080", "http://a.example./x", true),
            ("a.example:80", "https://a.example/x", false),
            ("a.example:443", "https://a.example?x", true),
            ("a.example:443", "http://a.example:443/", true),
            ("a.example:80", "//a.example/x", true),
            ("a.example:443", "//a.example/x", true),
            ("a.example:81", "//a.example/x", false),
            ("a.example:81", "http://a.example.:81/x", true),
            ("example", "http://a.example/", false),
            ("[::1]", "http://[::1]:8/", true),
            ("[::1]:80", "http://[::1]/", true),
            ("a.example", "http:///x", false),
            ("a.example", "http:/x", false),
        ];
        for (host, url, expected) in cases {
            assert_eq!(is_named(host, url), expected, "{host} {url}");
        }
    }

    #[test]
    fn malformed_hosts_are_refused() {
        for text in [
            "", "*", "*.test", "a.*", "http://a", "a/b", "a b", "a,b", ":80", "a:", "a:x",
            "a:99999", "::1", "u@a", "\u{e4}.example",
        ] {
            assert_eq!(NamedHost::parse(text.as_bytes()), None, "{text}");
        }
        let named = NamedHost::parse(b"A.example.:080").unwrap();
        assert_eq!((named.text(), named.port()), (b"a.example:80".to_vec(), Some(80)));
    }
}
