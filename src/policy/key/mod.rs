//! The key of a stored response, RFC 9111 section 2: its text, and the MD5 of the text.
//!
//! The text is stored beside the response and compared, so that two texts with one MD5 are a miss
//! and never a wrong answer. Only the host and the port are normalised (case, default port); paths
//! and queries are compared byte for byte, since an origin may distinguish what RFC 3986 calls
//! equivalent. An operator may leave components out ([`KeyComponents`]). A URL and the components
//! of its route determine the key.

pub mod normalise;
pub mod vary;
pub mod variants;
pub mod pattern;
pub mod components;
pub(crate) mod host;

use md5::{Digest, Md5};

use crate::base::chars::{HEX_DIGITS, hex_value};
use crate::http::authority;
use crate::http::cookie;
use crate::http::fields::Fields;
use crate::http::scheme::Scheme;
use crate::policy::key::components::KeyComponents;
use crate::policy::key::normalise::normalise;
use crate::policy::key::vary::{VaryNames, cookie_of};

/// The MD5 of a key text: the name of its slot and of its file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u8; 16]);

impl Key {
    /// The key that `text`, 32 hex digits of either case, names.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let digits: &[u8; 32] = text.try_into().ok()?;
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let &[high, low] = pair else { return None };
            *byte = hex_value(high)? << 4 | hex_value(low)?;
        }
        Some(Self(bytes))
    }

    /// The key of `text` beside this one: its first half is the same.
    pub fn beside(&self, text: &[u8]) -> Self {
        let mut key = *self;
        let digest: [u8; 16] = Md5::digest(text).into();
        for (byte, other) in key.0.iter_mut().skip(8).zip(digest) {
            *byte ^= other;
        }
        key
    }

    /// The key as 32 lower-case hex digits.
    pub fn hex(&self) -> [u8; 32] {
        let mut text = [0; 32];
        for (pair, &byte) in text.chunks_exact_mut(2).zip(&self.0) {
            if let [high, low] = pair {
                *high = HEX_DIGITS[usize::from(byte >> 4)];
                *low = HEX_DIGITS[usize::from(byte & 15)];
            }
        }
        text
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.hex().iter().try_for_each(|&digit| write!(out, "{}", char::from(digit)))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Key({self})")
    }
}

/// The key of a key text.
pub fn key_of(text: &[u8]) -> Key {
    Key(Md5::digest(text).into())
}

/// Appends the primary key text of a request to `out`: `GET http://host:port/path?query` (RFC 9111
/// section 2). `authority` is the effective host with its port as sent; an empty path is `/` (RFC
/// 9110 section 4.2.3). A HEAD has the key of the GET that answers it (section 9.3.2).
pub fn key_text(
    components: &KeyComponents,
    scheme: Scheme,
    authority: &[u8],
    path_and_query: &[u8],
    out: &mut Vec<u8>,
) {
    out.reserve(scheme.word().len() + authority.len() + path_and_query.len() + 8);
    out.extend_from_slice(b"GET ");
    if components.scheme {
        out.extend_from_slice(scheme.word().as_bytes());
        out.push(b':');
    }
    out.extend_from_slice(b"//");
    out.extend(authority::normalised(scheme, authority));
    components.push(path_and_query, out);
}

/// Appends the text of a variant's key to `out`: the primary key text, then one line for each
/// field that Vary names, with its normalised value in this request (RFC 9111 section 4.1), and
/// for each cookie that the operator names, with all its values: no value of a cookie has a
/// semicolon, or a space at its end. A missing field differs from an empty one. Two different sets
/// of values have different texts, since neither a key text nor a field has a line feed.
pub fn variant_text(primary_text: &[u8], vary: &VaryNames, request: &Fields, out: &mut Vec<u8>) {
    out.extend_from_slice(primary_text);
    for name in vary.names() {
        out.push(b'\n');
        out.extend_from_slice(name.as_bytes());
        if let Some(cookie) = cookie_of(name) {
            for (at, value) in cookie::values(request, cookie.as_bytes()).enumerate() {
                out.push(if at == 0 { b':' } else { b';' });
                out.extend_from_slice(value.unwrap_or(b" "));
            }
            continue;
        }
        let mut values = request.get_all(name).peekable();
        if values.peek().is_some() {
            out.push(b':');
            normalise(name, values, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::key::components::{PathComponent, QueryComponent};
    use proptest::prelude::*;

    fn text(scheme: Scheme, authority: &str, path: &str) -> String {
        let mut out = Vec::new();
        let components = KeyComponents::default();
        key_text(&components, scheme, authority.as_bytes(), path.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn fields(list: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in list {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }

    fn variant(names: &str, request: &[(&str, &str)]) -> String {
        let vary = VaryNames::parse(&fields(&[("vary", names)])).unwrap().unwrap();
        let mut out = Vec::new();
        variant_text(b"GET http://h/", &vary, &fields(request), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn equal_uris_have_equal_texts() {
        let cases = [
            (Scheme::Http, "a.example", "/", "GET http://a.example/"),
            (Scheme::Http, "A.Example:80", "/", "GET http://a.example/"),
            (Scheme::Http, "a.example:", "", "GET http://a.example/"),
            (Scheme::Http, "a.example:443", "/", "GET http://a.example:443/"),
            (Scheme::Http, "a.example:8080", "/", "GET http://a.example:8080/"),
            (Scheme::Https, "a.example:443", "/x?y=Z", "GET https://a.example/x?y=Z"),
            (Scheme::Https, "a.example:80", "?q", "GET https://a.example:80/?q"),
            (Scheme::Http, "[::80]:80", "/", "GET http://[::80]/"),
            (Scheme::Http, "[::80]", "/%7E", "GET http://[::80]/%7E"),
            (Scheme::Http, "", "/", "GET http:///"),
        ];
        for (scheme, authority, path, expected) in cases {
            assert_eq!(text(scheme, authority, path), expected);
        }
    }

    #[test]
    fn the_host_is_in_every_text() {
        let components = KeyComponents {
            scheme: false,
            path: PathComponent::Route("/".into()),
            query: QueryComponent { is_on: false, ..QueryComponent::default() },
            ..KeyComponents::default()
        };
        let mut out = Vec::new();
        key_text(&components, Scheme::Http, b"A.example:80", b"/x?y", &mut out);
        assert_eq!(out, b"GET //a.example/ *");
    }

    #[test]
    fn cookies_of_the_operator_select_a_variant() {
        let names = VaryNames::chosen(["x"].into_iter(), ["tier"].into_iter()).unwrap();
        let text = |request: &[(&str, &str)]| {
            let mut out = Vec::new();
            variant_text(b"GET http://h/", &names, &fields(request), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            text(&[("Cookie", "a=b; tier=gold"), ("X", "1")]),
            "GET http://h/\ncookie=tier:gold\nx:1"
        );
        assert_eq!(text(&[("Cookie", "tier=")]), "GET http://h/\ncookie=tier:\nx");
        assert_eq!(text(&[("Cookie", "Tier=gold")]), "GET http://h/\ncookie=tier\nx");
        let two = text(&[("Cookie", "tier=gold; a=b; tier=silver"), ("Cookie", "tier=")]);
        assert_eq!(two, "GET http://h/\ncookie=tier:gold;silver;\nx");
        assert_eq!(text(&[("Cookie", "tier; tier")]), "GET http://h/\ncookie=tier: ; \nx");
    }

    #[test]
    fn a_key_is_the_md5_in_hex() {
        let key = key_of(b"");
        assert_eq!(key.to_string(), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(Key::from_hex(&key.hex()), Some(key));
        assert_eq!(Key::from_hex(b"D41D8CD98F00B204E9800998ECF8427E"), Some(key));
        assert_eq!(Key::from_hex(b"d41d8cd98f00b204e9800998ecf8427"), None);
        assert_eq!(Key::from_hex(b"d41d8cd98f00b204e9800998ecf8427g"), None);
    }

    #[test]
    fn values_of_fields_select_a_variant() {
        assert_eq!(
            variant("Accept-Encoding, Foo", &[("FOO", "1"), ("accept-encoding", "br, gzip")]),
            "GET http://h/\naccept-encoding:br,gzip\nfoo:1"
        );
        assert_eq!(variant("foo", &[]), "GET http://h/\nfoo");
        assert_eq!(variant("foo", &[("foo", "")]), "GET http://h/\nfoo:");
        assert_eq!(
            variant("foo", &[("foo", "1"), ("bar", "x"), ("foo", "2")]),
            variant("FOO", &[("Foo", "1, 2")])
        );
        assert_ne!(variant("foo", &[("foo", "1")]), variant("foo", &[("foo", "1,")]));
        assert_ne!(variant("foo", &[("foo", "1,2")]), variant("foo", &[("foo", "2,1")]));
        assert_ne!(variant("foo", &[("foo", "a")]), variant("foo", &[("foo", "A")]));
    }

    proptest! {
        #[test]
        fn hex_reads_back(bytes: [u8; 16]) {
            prop_assert_eq!(Key::from_hex(&Key(bytes).hex()), Some(Key(bytes)));
        }
    }
}
