//! A request that is named on the command line, built as the bytes that a client would send.

use anyhow::{Result, bail};

use crate::http::flaw::Flaw;
use crate::http::h1::head::{HeadLimits, parse_request};
use crate::http::head::RequestHead;
use crate::http::scheme::Scheme;

/// A request that a client might send.
#[derive(Debug)]
pub(super) struct UrlRequest {
    pub(super) scheme: Scheme,
    /// The head, as bytes.
    pub(super) bytes: Vec<u8>,
}

impl UrlRequest {
    /// A request for a URL with these fields (`Name: value`). `Host` is the URL's unless it is among
    /// the fields.
    ///
    /// # Errors
    ///
    /// When the URL is invalid, or a field has no colon or contains a line end.
    pub(super) fn new(method: &str, url: &str, fields: &[String]) -> Result<Self> {
        let without_part = url.split('#').next().unwrap_or_default();
        let Some((scheme, rest)) = without_part.split_once("://") else {
            bail!("{url:?} is not a URL (http://host/path)")
        };
        let Some(scheme) = Scheme::parse(scheme.as_bytes()) else {
            bail!("{url:?} is not a URL of http or https")
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let slash = if path.starts_with('/') { "" } else { "/" };
        let mut text = format!("{method} {slash}{path} HTTP/1.1\r\n");
        let is_host = |field: &String| {
            field.split_once(':').is_some_and(|(name, _)| name.eq_ignore_ascii_case("host"))
        };
        if !fields.iter().any(is_host) {
            text.push_str(&format!("Host: {authority}\r\n"));
        }
        for field in fields {
            if !field.contains(':') || field.contains(['\r', '\n']) {
                bail!("{field:?} is not a field (Name: value)");
            }
            text.push_str(field);
            text.push_str("\r\n");
        }
        if [method, url].iter().any(|part| part.contains(['\r', '\n'])) {
            bail!("{method:?} or {url:?} contains a line end");
        }
        text.push_str("\r\n");
        Ok(Self { scheme, bytes: text.into_bytes() })
    }

    /// The request as ktrix reads it.
    ///
    /// # Errors
    ///
    /// Why ktrix refuses it.
    pub(super) fn head(&self, limits: &HeadLimits) -> Result<RequestHead, Flaw> {
        match parse_request(&self.bytes, limits)? {
            Some((head, _)) => Ok(head),
            // The text ends with an empty line, so only one that is too long is incomplete.
            None => Err(Flaw::HeadTooLarge),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(url: &str, fields: &[&str]) -> RequestHead {
        let fields: Vec<String> = fields.iter().map(|&field| field.to_owned()).collect();
        UrlRequest::new("GET", url, &fields).unwrap().head(&HeadLimits::default()).unwrap()
    }

    #[test]
    fn a_url_becomes_the_request_of_a_client() {
        let cases = [
            ("http://a.example", "/", "a.example"),
            ("HTTP://A.example:81/b?c#d", "/b?c", "a.example:81"),
            ("https://a?b", "/?b", "a"),
            ("http://[::1]:80/", "/", "[::1]:80"),
        ];
        for (url, target, authority) in cases {
            let head = head(url, &["Accept: x"]);
            assert_eq!(head.target.as_sent(), target.as_bytes(), "{url}");
            assert_eq!(head.authority(), authority.as_bytes(), "{url}");
            assert_eq!(head.fields.get("accept"), Some(&b"x"[..]));
        }
        assert_eq!(head("http://a/", &["host: b"]).host(), b"b");
    }

    #[test]
    fn invalid_requests_are_refused_here_or_by_the_parser() {
        let field = |text: &str| vec![text.to_owned()];
        for (url, fields) in [
            ("a.example/b", vec![]),
            ("ftp://a/b", vec![]),
            ("http://a/b", field("Accept")),
            ("http://a/b", field("A: b\r\nC: d")),
            ("http://a/\r\nX: y", vec![]),
        ] {
            assert!(UrlRequest::new("GET", url, &fields).is_err(), "{url} {fields:?}");
        }
        let flaw =
            |url: &str| UrlRequest::new("GET", url, &[]).unwrap().head(&HeadLimits::default());
        assert_eq!(flaw("http://a/b c").unwrap_err(), Flaw::BadRequestLine);
        assert!(flaw("http://a b/").is_err());
        assert_eq!(
            flaw(&format!("http://a/{}", "x".repeat(9000))).unwrap_err(),
            Flaw::TargetTooLong
        );
    }
}
