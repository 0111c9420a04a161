//! The names of objects for operators, and stored text for a terminal.
//!
//! An object is named by its URL, as a client would ask for it, or by its key: 32 hex digits, or
//! the path of its file.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::base::chars;
use crate::cache::maintenance::reconcile::key_of_path;
use crate::cache::name::Name;
use crate::cli::request::UrlRequest;
use crate::config::Config;
use crate::http::h1::head::HeadLimits;
use crate::http::head::RequestHead;
use crate::policy::key::{Key, KeyComponents};
use crate::route::Router;
use crate::route::asked::Asked;
use crate::route::changed::{Changed, RequestPeer};

/// How URLs become keys: by the routes of a configuration, or by the default.
pub(super) struct Naming {
    router: Option<Router>,
    whole: KeyComponents,
}

impl Naming {
    /// By the routes of a configuration, or by the default without one.
    pub(super) fn of(config: Option<&Config>) -> Self {
        Self { router: config.map(Router::new), whole: KeyComponents::default() }
    }

    /// The key of a URL, 32 hex digits or a file's path.
    ///
    /// # Errors
    ///
    /// When it is none of these, or ktrix would refuse a request for the URL.
    pub(super) fn key(&self, what: &str) -> Result<Key> {
        if what.contains("://") {
            return Ok(self.of_url(what, &[])?.1.key);
        }
        match Key::from_hex(what.as_bytes()).or_else(|| key_of_path(Path::new(what))) {
            Some(key) => Ok(key),
            None => bail!("{what:?} is neither a URL (http://host/path) nor a key (32 hex digits)"),
        }
    }

    /// The name of the object for a request for a URL with these fields, before Vary, the components
    /// that it is made of, and the request.
    ///
    /// # Errors
    ///
    /// When the URL or a field is invalid, or ktrix would refuse the request.
    pub(super) fn of_url(
        &self,
        url: &str,
        fields: &[String],
    ) -> Result<(&KeyComponents, Name, RequestHead)> {
        let asked = UrlRequest::new("GET", url, fields)?;
        let head = asked.head(&HeadLimits::default());
        let head = head.with_context(|| format!("a request for {url:?} would be refused"))?;
        let (mut components, mut head) = (&self.whole, head);
        if let Some(router) = &self.router
            && let Some(route) = router.find(&Asked::of(&head, None))
        {
            components = &router.rules(router.rule(route).rules).key;
            let peer = RequestPeer { client: None, scheme: asked.scheme, id: 0, tls: None };
            if let Some(changes) = router.changes(route) {
                head = Changed::new(changes, &head, peer).asked;
            }
        }
        let name = Name::of_request(components, asked.scheme, &head);
        Ok((components, name, head))
    }
}

/// The contents of a key text: `GET scheme://authority/path?query` (without the components that the
/// route leaves out), and the lines of a variant after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyText<'a> {
    /// The first line, without its `GET `.
    pub(super) url: &'a [u8],
    /// The lines after the first one: one for each part that selects a variant.
    rest: &'a [u8],
}

impl<'a> KeyText<'a> {
    pub(super) fn of(text: &'a [u8]) -> Self {
        let end = memchr::memchr(b'\n', text).unwrap_or(text.len());
        let (line, rest) = text.split_at(end);
        Self { url: line.strip_prefix(b"GET ").unwrap_or(line), rest }
    }

    /// Host and port.
    pub(super) fn authority(&self) -> &'a [u8] {
        self.split().0
    }

    /// The host, without its port.
    pub(super) fn host(&self) -> &'a [u8] {
        let authority = self.authority();
        match memchr::memrchr(b':', authority) {
            // Not a colon within the brackets of an IPv6 address.
            Some(at) if !authority.ends_with(b"]") => authority.get(..at).unwrap_or_default(),
            _ => authority,
        }
    }

    /// Path and query.
    pub(super) fn path(&self) -> &'a [u8] {
        self.split().1
    }

    /// Whether it is the key of the list of a key's variants.
    pub(super) fn is_list(&self) -> bool {
        self.rest.starts_with(b"\n#")
    }

    /// Whether it is the key of a part.
    pub(super) fn is_part(&self) -> bool {
        let last = self.rest.rsplit(|&byte| byte == b'\n').next();
        last.is_some_and(|line| line.starts_with(b"@"))
    }

    /// The fields that select this variant, with their normalised values, `None` for a field that
    /// the request did not have.
    pub(super) fn variant(&self) -> Vec<(String, Option<String>)> {
        let lines = self.rest.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let fields = lines.filter(|line| !line.starts_with(b"#") && !line.starts_with(b"@"));
        let pair = |line: &[u8]| match memchr::memchr(b':', line) {
            Some(at) => (printable(&line[..at]), Some(printable(&line[at + 1..]))),
            None => (printable(line), None),
        };
        fields.map(pair).collect()
    }

    fn split(&self) -> (&'a [u8], &'a [u8]) {
        let from = memchr::memmem::find(self.url, b"//").map_or(0, |at| at + 2);
        let rest = self.url.get(from..).unwrap_or_default();
        rest.split_at(memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len()))
    }
}

/// A variant's fields in one line: `accept-encoding: gzip, dnt missing`.
pub(super) fn variant_line(fields: &[(String, Option<String>)]) -> String {
    let word = |(name, value): &(String, Option<String>)| match value {
        Some(value) => format!("{name}: {value}"),
        None => format!("no {name}"),
    };
    fields.iter().map(word).collect::<Vec<_>>().join("; ")
}

/// Text from outside, without characters that change how a terminal shows it.
pub(super) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if chars::is_unprintable(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::key::key_of;

    #[test]
    fn a_key_text_is_split_into_its_parts() {
        let cases = [
            ("GET http://a.example/b?c=d", "a.example", "a.example", "/b?c=d"),
            ("GET https://a.example:81/", "a.example:81", "a.example", "/"),
            ("GET http://[::1]:81/x:y", "[::1]:81", "[::1]", "/x:y"),
            ("GET http://[::1]/", "[::1]", "[::1]", "/"),
            ("GET //a.example/b//c", "a.example", "a.example", "/b//c"),
            ("nonsense", "nonsense", "nonsense", ""),
            ("", "", "", ""),
        ];
        for (text, authority, host, path) in cases {
            let text = KeyText::of(text.as_bytes());
            let found = (text.authority(), text.host(), text.path());
            assert_eq!(found, (authority.as_bytes(), host.as_bytes(), path.as_bytes()));
            assert!(text.variant().is_empty());
        }
    }

    #[test]
    fn a_variant_names_its_selecting_fields() {
        let text = KeyText::of(b"GET http://a/b\naccept:text/html\ndnt\nx-a:\n#1f\n");
        let fields = text.variant();
        assert_eq!(variant_line(&fields), "accept: text/html; no dnt; x-a: ");
        assert_eq!(text.url, b"http://a/b");
        assert!(!text.is_list());
        assert!(KeyText::of(b"GET http://a/b\n#1f").is_list() && !text.is_part());
        let part = KeyText::of(b"GET http://a/b\ndnt\n#1f\n@2");
        assert!(part.is_part() && !part.is_list() && part.variant().len() == 1);
    }

    #[test]
    fn printed_text_has_no_control_characters() {
        assert_eq!(printable(b"a\x1b[2Jb\r\nc\xff"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\u{fffd}");
    }

    #[test]
    fn an_object_has_three_names() {
        let naming = Naming::of(None);
        let key = naming.key("http://A.example:80#part").unwrap();
        assert_eq!(key, key_of(b"GET http://a.example/"));
        let hex = key.to_string();
        assert_eq!(naming.key(&hex).unwrap(), key);
        assert_eq!(naming.key(&format!("/c/{}/{}", &hex[..2], &hex[2..])).unwrap(), key);
        for (odd, why) in [("page", "neither a URL"), ("http://a b/", "would be refused")] {
            let error = naming.key(odd).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn the_rules_of_a_route_shape_the_key() {
        let text = "cache: /c\nupstreams: {app: {servers: [10.0.0.1]}}\nsites:\n  \
                    - {upstream: app, cache: {key: {scheme: off, query-drop: [x]}}}\n";
        let config = Config::load(Path::new("k.yaml"), text).unwrap_or_else(|it| panic!("{it}"));
        let key = Naming::of(Some(&config)).key("http://a/b?x=1&y").unwrap();
        assert_eq!(key, key_of(b"GET //a/b?y"));
    }
}
