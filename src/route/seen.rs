//! The references of an origin's answer, as its client sees them: in Location, Content-Location,
//! Refresh, and in the Domain and Path of cookies.
//!
//! A reference to the origin's own address becomes one to the host that the client asked; a path that
//! the origin knows becomes the path that was rewritten to it. Other hosts stay as they are.

use crate::base::chars::{eq_ignore_case, trim_ows};
use crate::http::fields::Fields;
use crate::route::rewrite::{Rewriter, with_one_slash};

/// The view that a client has of an origin.
pub(crate) struct Seen<'a> {
    pub(crate) rewriter: &'a Rewriter,
    /// The authority that the client asked for, in lower case.
    pub(crate) authority: &'a [u8],
    /// The same without its port.
    pub(crate) host: &'a [u8],
    /// The addresses by which the origin may name itself.
    pub(crate) origins: &'a [Box<str>],
}

impl Seen<'_> {
    /// Changes the references of an answer.
    pub(crate) fn apply(&self, fields: &mut Fields) {
        for name in ["location", "content-location"] {
            self.replace(fields, name, |value| self.reference(value));
        }
        self.replace(fields, "refresh", |value| self.refresh(value));
        self.replace(fields, "set-cookie", |value| self.cookie(value));
    }

    fn replace(&self, fields: &mut Fields, name: &str, change: impl Fn(&[u8]) -> Option<Vec<u8>>) {
        if !fields.get_all(name).any(|value| change(value).is_some()) {
            return;
        }
        let mut changed = Fields::with_capacity(fields.len(), fields.wire_len());
        for (own, value) in fields.iter() {
            match change(value).filter(|_| eq_ignore_case(own, name.as_bytes())) {
                Some(value) => changed.push(own, &value),
                None => changed.push(own, value),
            }
        }
        *fields = changed;
    }

    /// A URI reference; `None` where it stays.
    fn reference(&self, value: &[u8]) -> Option<Vec<u8>> {
        let value = trim_ows(value);
        let scheme = [&b"http:"[..], b"https:"].into_iter().find(|scheme| {
            value.get(..scheme.len()).is_some_and(|start| eq_ignore_case(start, scheme))
        });
        let at = scheme.map_or(0, <[u8]>::len);
        let Some(rest) = value.get(at..)?.strip_prefix(b"//") else {
            let is_path = scheme.is_none() && value.starts_with(b"/");
            return is_path.then(|| self.rewriter.seen_by_client(value)).flatten();
        };
        let end = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at_checked(end)?;
        let path = if tail.starts_with(b"/") { tail.to_vec() } else { [b"/", tail].concat() };
        let seen = self.rewriter.seen_by_client(&path);
        match () {
            () if self.is_origin(authority) => Some(seen.unwrap_or_else(|| with_one_slash(&path))),
            () if eq_ignore_case(authority, self.authority) => {
                let start = value.get(..value.len() - tail.len())?;
                Some([start, &seen?].concat())
            }
            () => None,
        }
    }

    fn is_origin(&self, authority: &[u8]) -> bool {
        self.origins.iter().any(|own| {
            let own = own.as_bytes();
            let bare = own.strip_suffix(b":80").or(own.strip_suffix(b":443"));
            eq_ignore_case(authority, own) || bare.is_some_and(|it| eq_ignore_case(authority, it))
        })
    }

    /// `5; url=/x`.
    fn refresh(&self, value: &[u8]) -> Option<Vec<u8>> {
        let at = value.windows(4).position(|part| eq_ignore_case(part, b"url="))? + 4;
        let (start, url) = value.split_at_checked(at)?;
        let quote: &[u8] = match url.first() {
            Some(b'"') => b"\"",
            Some(b'\'') => b"'",
            _ => b"",
        };
        let bare = url.strip_prefix(quote)?;
        let bare = bare.strip_suffix(quote).unwrap_or(bare);
        Some([start, quote, &self.reference(bare)?, quote].concat())
    }

    /// `NAME=VALUE; Domain=D; Path=P`.
    fn cookie(&self, value: &[u8]) -> Option<Vec<u8>> {
        let mut is_changed = false;
        let mut attributes = value.split(|byte| *byte == b';');
        let mut out = attributes.next()?.to_vec();
        for attribute in attributes {
            out.push(b';');
            let at = memchr::memchr(b'=', attribute).unwrap_or(attribute.len());
            let (name, text) = attribute.split_at_checked(at)?;
            let text = trim_ows(text.strip_prefix(b"=").unwrap_or_default());
            let changed = match trim_ows(name) {
                name if eq_ignore_case(name, b"path") => self.rewriter.seen_by_client(text),
                name if eq_ignore_case(name, b"domain") => {
                    let domain = text.strip_prefix(b".").unwrap_or(text);
                    let is_origin = self.origins.iter().any(|own| {
                        let host = own.rsplit_once(':').map_or(&**own, |(host, _)| host);
                        eq_ignore_case(host.as_bytes(), domain)
                    });
                    is_origin.then(|| self.host.to_vec())
                }
                _ => None,
            };
            match changed {
                Some(text) => {
                    is_changed = true;
                    out.extend_from_slice(name);
                    out.push(b'=');
                    out.extend_from_slice(&text);
                }
                None => out.extend_from_slice(attribute),
            }
        }
        is_changed.then_some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(name: &str, value: &str) -> String {
        let rewriter = Rewriter::Prefix { strip: "/up".into(), add: "/v2".into() };
        let origins = ["10.0.0.1:80".into(), "app.lan:8080".into()];
        let (authority, host) = (&b"www.test:81"[..], &b"www.test"[..]);
        let mut fields: Fields = [("A", "/v2/a"), (name, value)].into_iter().collect();
        Seen { rewriter: &rewriter, authority, host, origins: &origins }.apply(&mut fields);
        assert_eq!(fields.get("a"), Some(&b"/v2/a"[..]));
        String::from_utf8(fields.get(name).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn a_client_sees_its_own_references() {
        for (name, value, expected) in [
            ("Location", "/v2/a?b#c", "/up/a?b#c"),
            ("Location", "http://10.0.0.1/v2/a", "/up/a"),
            ("Location", "HTTP://App.lan:8080/v2/a", "/up/a"),
            ("Location", "http://app.lan:8080", "/"),
            ("Location", "http://app.lan/v2/a", "http://app.lan/v2/a"),
            ("Location", "https://www.test:81/v2/a", "https://www.test:81/up/a"),
            ("Location", "//www.test:81/v2/a", "//www.test:81/up/a"),
            ("Location", "http://www.test/v2/a", "http://www.test/v2/a"),
            ("Location", "https://other/v2/a", "https://other/v2/a"),
            ("Location", "next", "next"),
            ("Location", "/v3/a", "/v3/a"),
            ("Location", "/v2x/a", "/v2x/a"),
            ("Location", "http://10.0.0.1//evil.example/a", "/evil.example/a"),
            ("Location", "http://10.0.0.1/\\evil.example/a", "/evil.example/a"),
            ("Set-Cookie", "a=b; Path=/v2x", "a=b; Path=/v2x"),
            ("Content-Location", "/v2/a", "/up/a"),
            ("Refresh", "5; URL=\"/v2/a\"", "5; URL=\"/up/a\""),
            ("Refresh", "5;url=http://10.0.0.1:80/v2/a", "5;url=/up/a"),
            ("Refresh", "5", "5"),
            ("Set-Cookie", "a=/v2/; Path=/v2; Secure", "a=/v2/; Path=/up/; Secure"),
            ("Set-Cookie", "a=b; path=/v2/x;domain=.app.lan", "a=b; path=/up/x;domain=www.test"),
            ("Set-Cookie", "a=b; Domain=test", "a=b; Domain=test"),
        ] {
            assert_eq!(seen(name, value), expected, "{name}: {value}");
        }
    }
}
