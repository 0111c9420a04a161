//! The request target in its four forms (RFC 9112 section 3.2).

use std::borrow::Cow;
use std::ops::Range;

use crate::base::chars;
use crate::http::authority::Authority;
use crate::http::flaw::Flaw;
use crate::http::method::Method;

/// The target of a request, taken apart.
#[derive(Clone, Debug)]
pub struct Target {
    /// The target as sent; behind it, if they differ, the target for the origin.
    text: Box<[u8]>,
    form: Form,
    /// Length of the target as sent.
    sent_len: usize,
    authority: Range<usize>,
    path: Range<usize>,
    /// From the path to the end of the query.
    path_and_query: Range<usize>,
}

/// The form in which a target was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`.
    Origin,
    /// `http://host/path?query`.
    Absolute,
    /// `host:port`, for CONNECT only.
    Authority,
    /// `*`, for OPTIONS only.
    Asterisk,
}

impl Target {
    /// Takes a target apart.
    ///
    /// # Errors
    /// [`Flaw::BadTarget`] for forbidden octets, a fragment, a form that does not suit the method,
    /// or another scheme than http and https; [`Flaw::BadHost`] for a bad authority.
    pub fn parse(method: Method, text: &[u8]) -> Result<Self, Flaw> {
        if !text.iter().all(|octet| chars::is_target_char(*octet)) {
            return Err(Flaw::BadTarget);
        }
        match text {
            _ if method == Method::Connect => Self::authority_form(text),
            [b'/', ..] => Ok(Self::with_path(text.into(), Form::Origin, 0..0, 0, text.len())),
            b"*" if method == Method::Options => {
                let mut target = Self::with_path(text.into(), Form::Asterisk, 0..0, 0, text.len());
                target.path = 0..text.len();
                Ok(target)
            }
            _ => Self::absolute_form(method, text),
        }
    }

    /// The form it was sent in.
    pub const fn form(&self) -> Form {
        self.form
    }

    /// As it was sent.
    pub fn as_sent(&self) -> &[u8] {
        self.part(0..self.sent_len)
    }

    /// The path, with its percent-encoding as sent; begins with `/`, or is `*`, or is empty for
    /// CONNECT.
    pub fn path(&self) -> &[u8] {
        self.part(self.path.clone())
    }

    /// The part after the first `?`, if there is one.
    pub fn query(&self) -> Option<&[u8]> {
        self.part(self.path.end..self.path_and_query.end).strip_prefix(b"?")
    }

    /// The target for the origin: begins with `/`, or is `*`, or is the authority for CONNECT.
    pub fn path_and_query(&self) -> &[u8] {
        self.part(self.path_and_query.clone())
    }

    /// Host and port of the absolute and the authority form, as sent.
    pub fn authority(&self) -> Option<&[u8]> {
        let authority = self.part(self.authority.clone());
        (!authority.is_empty()).then_some(authority)
    }

    /// `host:port`; unlike elsewhere, the port is required (RFC 9110 section 9.3.6).
    fn authority_form(text: &[u8]) -> Result<Self, Flaw> {
        let authority = Authority::parse(text)?;
        if authority.port.is_none() {
            return Err(Flaw::BadTarget);
        }
        let all = 0..text.len();
        Ok(Self {
            text: text.into(),
            form: Form::Authority,
            sent_len: text.len(),
            authority: all.clone(),
            path: 0..0,
            path_and_query: all,
        })
    }

    fn absolute_form(method: Method, text: &[u8]) -> Result<Self, Flaw> {
        let scheme = SCHEMES.iter().find(|scheme| {
            text.get(..scheme.len()).is_some_and(|start| chars::eq_ignore_case(start, scheme))
        });
        let at = scheme.ok_or(Flaw::BadTarget)?.len();
        let rest = text.get(at..).unwrap_or_default();
        let end = at + memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
        let authority = Authority::parse(text.get(at..end).unwrap_or_default())?;
        let span = at..at + authority.text.len();
        let (sent, path) = (text.len(), text.get(end..).unwrap_or_default());
        let mut target = match path {
            [b'/', ..] => Self::with_path(text.into(), Form::Absolute, span, end, sent),
            // An empty path is "/", but for OPTIONS it is "*" (RFC 9112 section 3.2.4).
            [] if method == Method::Options => {
                let text = [text, b"*"].concat().into();
                Self::with_path(text, Form::Absolute, span, sent, sent)
            }
            _ => {
                let text = [text, b"/", path].concat().into();
                Self::with_path(text, Form::Absolute, span, sent, sent)
            }
        };
        target.sent_len = sent;
        Ok(target)
    }

    fn with_path(
        text: Box<[u8]>,
        form: Form,
        authority: Range<usize>,
        path_at: usize,
        sent_len: usize,
    ) -> Self {
        let path_and_query = path_at..text.len();
        let tail = text.get(path_at..).unwrap_or_default();
        let path = path_at..path_at + memchr::memchr(b'?', tail).unwrap_or(tail.len());
        Self { text, form, sent_len, authority, path, path_and_query }
    }

    fn part(&self, range: Range<usize>) -> &[u8] {
        self.text.get(range).unwrap_or_default()
    }
}

/// Equal if the same bytes were sent in the same form.
impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        self.form == other.form && self.as_sent() == other.as_sent()
    }
}

impl Eq for Target {}

const SCHEMES: [&[u8]; 2] = [b"http://", b"https://"];

/// The normalised path of a request, for choosing a route: its percent-encoding undone, the
/// parameters of its segments (from a semicolon on) left out, its dot segments resolved (RFC 3986
/// section 5.2.4) and empty segments left out. Most paths are that already and are given back as they
/// are.
///
/// `/up/../admin`, `/%61dmin`, `//admin` and `/up/..;/admin` all lead some origin to `/admin`. A
/// route that is chosen by the path as sent could be bypassed, so the normalised path chooses it. The origin gets, and
/// the key holds, the path as sent.
pub fn normalise(path: &[u8]) -> Cow<'_, [u8]> {
    if is_plain(path) {
        return Cow::Borrowed(path);
    }
    let decoded = chars::percent_decoded(path, b'+');
    let segments = decoded.split(|&byte| byte == b'/').skip(1).map(without_parameters);
    Cow::Owned(resolve(segments, decoded.len()))
}

/// A segment of a path up to its first semicolon.
fn without_parameters(segment: &[u8]) -> &[u8] {
    let end = memchr::memchr(b';', segment).unwrap_or(segment.len());
    segment.get(..end).unwrap_or_default()
}

/// The path of these segments, each behind its slash: dot segments are resolved (RFC 3986 section
/// 5.2.4), and empty ones left out. It has at most `n_bytes_max` bytes.
pub(crate) fn resolve<'s>(segments: impl Iterator<Item = &'s [u8]>, n_bytes_max: usize) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(n_bytes_max);
    let mut segments = segments.peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"" | b"." => {}
            b".." => out.truncate(memchr::memrchr(b'/', &out).unwrap_or(0)),
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
        if is_last && matches!(segment, b"" | b"." | b"..") {
            out.push(b'/');
        }
    }
    out
}

fn is_plain(path: &[u8]) -> bool {
    let mut before = b' ';
    // The asterisk of OPTIONS has no segments.
    path.first() != Some(&b'/')
        || path.iter().all(|&byte| {
            let after_slash = std::mem::replace(&mut before, byte) == b'/';
            match byte {
                b'%' | b';' => false,
                b'/' | b'.' => !after_slash,
                _ => true,
            }
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Parts<'a> = (Form, &'a str, Option<&'a str>, &'a str, Option<&'a str>);

    fn check(method: Method, text: &str, expected: Parts<'_>) {
        let target = Target::parse(method, text.as_bytes()).unwrap();
        let str = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (form, path, query, sent, authority) = expected;
        assert_eq!(target.form(), form, "{text}");
        assert_eq!(str(target.path()), path, "{text}");
        assert_eq!(target.query().map(str).as_deref(), query, "{text}");
        assert_eq!(str(target.path_and_query()), sent, "{text}");
        assert_eq!(target.authority().map(str).as_deref(), authority, "{text}");
        assert_eq!(str(target.as_sent()), text);
    }

    #[test]
    fn every_form_is_taken_apart() {
        use Form::{Absolute, Asterisk, Authority, Origin};
        let table: [(Method, &str, Parts<'_>); 14] = [
            (Method::Get, "/", (Origin, "/", None, "/", None)),
            (Method::Get, "/a/b?c=d?e", (Origin, "/a/b", Some("c=d?e"), "/a/b?c=d?e", None)),
            (Method::Get, "/a?", (Origin, "/a", Some(""), "/a?", None)),
            (Method::Get, "//a/b", (Origin, "//a/b", None, "//a/b", None)),
            (Method::Get, "/\"<>\\^`{|}", (Origin, "/\"<>\\^`{|}", None, "/\"<>\\^`{|}", None)),
            (Method::Get, "/%zz", (Origin, "/%zz", None, "/%zz", None)),
            (Method::Get, "http://a", (Absolute, "/", None, "/", Some("a"))),
            (Method::Get, "HTTPS://a:1?q", (Absolute, "/", Some("q"), "/?q", Some("a:1"))),
            (Method::Get, "http://a:/b?c", (Absolute, "/b", Some("c"), "/b?c", Some("a"))),
            (Method::Options, "*", (Asterisk, "*", None, "*", None)),
            (Method::Options, "http://a", (Absolute, "*", None, "*", Some("a"))),
            (Method::Options, "http://a?b", (Absolute, "/", Some("b"), "/?b", Some("a"))),
            (Method::Connect, "a:443", (Authority, "", None, "a:443", Some("a:443"))),
            (Method::Get, "http://[::1]:8/", (Absolute, "/", None, "/", Some("[::1]:8"))),
        ];
        for (method, text, expected) in table {
            check(method, text, expected);
        }
    }

    #[test]
    fn invalid_targets_are_refused() {
        let table: [(Method, &[u8]); 16] = [
            (Method::Get, b""),
            (Method::Get, b"*"),
            (Method::Get, b"a"),
            (Method::Get, b"a:80"),
            (Method::Get, b"?q"),
            (Method::Get, b"/a#b"),
            (Method::Get, b"/a b"),
            (Method::Get, b"/a\tb"),
            (Method::Get, b"/a\0b"),
            (Method::Get, b"/a\x7f"),
            (Method::Get, b"/\xc3\xa4"),
            (Method::Get, b"ftp://a/"),
            (Method::Get, b"http:/a/"),
            (Method::Get, b"http:a"),
            (Method::Options, b"**"),
            (Method::Connect, b"a.example"),
        ];
        for (method, text) in table {
            let found = Target::parse(method, text);
            assert_eq!(found, Err(Flaw::BadTarget), "{}", text.escape_ascii());
        }
        for text in ["http://", "http:///a", "http://u@a/", "http://a:x/", "http://:80/"] {
            assert_eq!(Target::parse(Method::Get, text.as_bytes()), Err(Flaw::BadHost), "{text}");
        }
        for text in ["/", "*", "http://a/", "", ":443", "u@a:443", "a:443/"] {
            assert!(Target::parse(Method::Connect, text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn all_spellings_have_the_same_normal_form() {
        for (sent, means) in [
            ("/up/../admin", "/admin"),
            ("/%61dmin", "/admin"),
            ("//admin", "/admin"),
            ("/up/%2e%2e/admin", "/admin"),
            ("/up%2f..%2fadmin", "/admin"),
            ("/./admin/.", "/admin/"),
            ("/admin/x/..", "/admin/"),
            ("/../../admin", "/admin"),
            ("/a/b/", "/a/b/"),
            ("/", "/"),
            ("/..", "/"),
            ("/a.b/.c", "/a.b/.c"),
            ("/%zz%", "/%zz%"),
            ("/admin;v=1/x;y", "/admin/x"),
            ("/up/..;x/admin", "/admin"),
            ("/up/%3b/admin", "/up/admin"),
            ("*", "*"),
        ] {
            let path = normalise(sent.as_bytes());
            assert_eq!(String::from_utf8_lossy(&path), means, "{sent}");
        }
    }

    proptest! {
        #[test]
        fn a_normalised_path_has_no_dot_segments_and_no_empty_ones(path in "/[a-b./%2e;]{0,24}") {
            let path = normalise(path.as_bytes()).into_owned();
            prop_assert_eq!(path.first(), Some(&b'/'));
            prop_assert!(!path.split(|&byte| byte == b'/').any(|part| part == b".."));
            prop_assert!(memchr::memmem::find(&path, b"//").is_none());
        }
    }
}
