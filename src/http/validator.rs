//! Entity tags and the conditions of a request (RFC 9110 sections 8.8 and 13.1), each by itself.
//!
//! The caller applies the order of conditions (section 13.2.2). A condition that is present holds
//! or does not; `None` says that the request has no such condition, or one to be ignored.

use crate::base::chars;
use crate::http::date;
use crate::http::fields::Fields;

/// An entity tag (RFC 9110 section 8.8.3).
#[derive(Clone, Copy, Debug)]
pub struct EntityTag<'a> {
    /// Whether it only promises equivalence, not equality octet by octet.
    pub is_weak: bool,
    /// The text between the quotes.
    pub opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    /// The tag that this text is, all of it.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        Self::take(text).and_then(|(tag, rest)| rest.is_empty().then_some(tag))
    }

    /// The tag of a response, if its `ETag` is one.
    pub fn of(fields: &'a Fields) -> Option<Self> {
        Self::parse(fields.get("etag")?)
    }

    /// The same tag, and neither is weak.
    pub fn is_strongly(&self, other: &EntityTag<'_>) -> bool {
        !self.is_weak && !other.is_weak && self.opaque == other.opaque
    }

    /// The same tag, weak or not.
    pub fn is_weakly(&self, other: &EntityTag<'_>) -> bool {
        self.opaque == other.opaque
    }

    /// A tag at the start of the text, and the rest.
    fn take(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (is_weak, quoted) = match text.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, text),
        };
        let inner = quoted.strip_prefix(b"\"")?;
        // There is no escape within a tag: a backslash is an ordinary octet.
        let (opaque, rest) = inner.split_at_checked(memchr::memchr(b'"', inner)?)?;
        let is_tag_char = |octet: &u8| *octet > b' ' && *octet != 0x7f;
        let tag = Self { is_weak, opaque };
        opaque.iter().all(is_tag_char).then_some((tag, rest.get(1..).unwrap_or_default()))
    }
}

/// Whether `If-None-Match` holds for a resource that exists with this tag (RFC 9110 section
/// 13.1.2); if not, a GET is answered with 304.
pub fn if_none_match(request: &Fields, current: Option<&EntityTag<'_>>) -> Option<bool> {
    let mut values = request.get_all("if-none-match").peekable();
    values.peek()?;
    Some(!values.any(|value| any_tag(value, current)))
}

/// Whether `If-Modified-Since` holds (RFC 9110 section 13.1.3); if not, a GET is answered with 304.
pub fn if_modified_since(request: &Fields, last_modified_s: Option<u64>) -> Option<bool> {
    let mut values = request.get_all("if-modified-since");
    // A doubled field has no date.
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    Some(last_modified_s? > date::parse(value)?)
}

/// Whether `If-Range` lets `Range` count (RFC 9110 section 13.1.5): by a strong tag, or by a date
/// equal to the response's `Last-Modified`, if that is old enough to be strong (section 8.8.2.2).
/// `date_s` is the response's `Date`.
pub fn if_range(
    request: &Fields,
    current: Option<&EntityTag<'_>>,
    last_modified_s: Option<u64>,
    date_s: Option<u64>,
) -> Option<bool> {
    let value = request.get("if-range")?;
    if request.count("if-range") > 1 {
        return Some(false);
    }
    if let Some(tag) = EntityTag::parse(value) {
        return Some(current.is_some_and(|current| current.is_strongly(&tag)));
    }
    let is_strong =
        matches!((last_modified_s, date_s), (Some(modified), Some(date)) if modified < date);
    Some(is_strong && date::parse(value).is_some() && date::parse(value) == last_modified_s)
}

/// Whether `*` or any of the tags matches, weakly; the list ends at its first flaw.
fn any_tag(value: &[u8], current: Option<&EntityTag<'_>>) -> bool {
    if chars::trim_ows(value) == b"*" {
        return true;
    }
    let mut rest = value;
    loop {
        rest = skip_separators(rest);
        let Some((tag, tail)) = EntityTag::take(rest) else { return false };
        if !matches!(skip_spaces(tail).first(), None | Some(b',')) {
            return false;
        }
        if current.is_some_and(|current| current.is_weakly(&tag)) {
            return true;
        }
        rest = tail;
    }
}

fn skip_separators(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b',', rest @ ..] = text {
        text = rest;
    }
    text
}

fn skip_spaces(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tags_are_quoted() {
        let table: [(&str, Option<(bool, &str)>); 14] = [
            ("\"a\"", Some((false, "a"))),
            ("W/\"a\"", Some((true, "a"))),
            ("\"\"", Some((false, ""))),
            ("\"a\\\"", Some((false, "a\\"))),
            ("\"a,b\"", Some((false, "a,b"))),
            ("\"\u{e9}\"", Some((false, "\u{e9}"))),
            ("a", None),
            ("", None),
            ("\"a", None),
            ("a\"", None),
            ("w/\"a\"", None),
            ("W/ \"a\"", None),
            ("\"a b\"", None),
            ("\"a\"b", None),
        ];
        for (text, expected) in table {
            let tag = EntityTag::parse(text.as_bytes()).map(|tag| (tag.is_weak, tag.opaque));
            assert_eq!(
                tag,
                expected.map(|(is_weak, opaque)| (is_weak, opaque.as_bytes())),
                "{text}"
            );
        }
    }

    /// RFC 9110 section 8.8.3.2.
    #[test]
    fn comparisons_are_those_of_the_rfc() {
        let table = [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
        ];
        for (left, right, strong, weak) in table {
            let left = EntityTag::parse(left.as_bytes()).unwrap();
            let right = EntityTag::parse(right.as_bytes()).unwrap();
            assert_eq!((left.is_strongly(&right), left.is_weakly(&right)), (strong, weak));
        }
    }

    #[test]
    fn lists_of_tags_match_any() {
        // The result of If-None-Match for the tag "b".
        let table: [(&[&str], bool); 14] = [
            (&["*"], false),
            (&["\"b\""], false),
            (&["W/\"b\""], false),
            (&["\"a\", \"b\""], false),
            (&["\"a\",,\t\"b\" ,"], false),
            (&["\"a\"", "\"b\""], false),
            (&["\"a\""], true),
            (&["\"a,\", \"b\""], false),
            (&["\"a\\\", \"b\""], false),
            (&[""], true),
            (&["b"], true),
            (&["\"a\" \"b\""], true),
            (&["x, \"b\""], true),
            (&["\"a, \"b\""], true),
        ];
        let current = EntityTag::parse(b"\"b\"").unwrap();
        for (values, none_matches) in table {
            let request: Fields = values.iter().map(|value| ("If-None-Match", value)).collect();
            let found = if_none_match(&request, Some(&current));
            assert_eq!(found, Some(none_matches), "{values:?}");
        }
        let any: Fields = [("if-none-match", "*")].into_iter().collect();
        assert_eq!(if_none_match(&any, None), Some(false));
        assert_eq!(if_none_match(&Fields::new(), None), None);
    }

    const AT: u64 = 784_111_777;
    const TEXT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    #[test]
    fn dates_are_compared_by_the_second() {
        let with = |name: &str, value: &str| -> Fields { [(name, value)].into_iter().collect() };
        for (modified, is_newer) in [(AT - 1, false), (AT, false), (AT + 1, true)] {
            let since = with("If-Modified-Since", TEXT);
            assert_eq!(if_modified_since(&since, Some(modified)), Some(is_newer));
        }
        assert_eq!(if_modified_since(&with("If-Modified-Since", "0"), Some(AT)), None);
        assert_eq!(if_modified_since(&with("If-Modified-Since", TEXT), None), None);
        let mut twice = with("If-Modified-Since", TEXT);
        twice.push(b"if-modified-since", TEXT.as_bytes());
        assert_eq!(if_modified_since(&twice, Some(AT)), None);
    }

    #[test]
    fn a_range_counts_only_with_a_strong_validator() {
        let tag = EntityTag::parse(b"\"a\"").unwrap();
        let weak = EntityTag::parse(b"W/\"a\"").unwrap();
        let check = |value: &str, tag: Option<&EntityTag<'_>>, modified, date| {
            let request: Fields = [("If-Range", value)].into_iter().collect();
            if_range(&request, tag, modified, date)
        };
        assert_eq!(check("\"a\"", Some(&tag), None, None), Some(true));
        assert_eq!(check("\"a\"", Some(&weak), None, None), Some(false));
        assert_eq!(check("W/\"a\"", Some(&tag), None, None), Some(false));
        assert_eq!(check("\"b\"", Some(&tag), None, None), Some(false));
        assert_eq!(check("\"a\"", None, None, None), Some(false));
        assert_eq!(check(TEXT, None, Some(AT), Some(AT + 1)), Some(true));
        assert_eq!(check(TEXT, None, Some(AT), Some(AT)), Some(false));
        assert_eq!(check(TEXT, None, Some(AT), None), Some(false));
        assert_eq!(check(TEXT, None, Some(AT - 1), Some(AT + 1)), Some(false));
        assert_eq!(check("x", Some(&tag), Some(AT), Some(AT + 1)), Some(false));
        assert_eq!(if_range(&Fields::new(), Some(&tag), None, None), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(value in proptest::collection::vec(
            prop_oneof![Just(b'"'), Just(b','), Just(b'W'), Just(b'/'), Just(b'*'), any::<u8>()], 0..40,
        )) {
            let pairs = ["if-none-match", "if-range"].map(|name| (name, &value));
            let request: Fields = pairs.into_iter().collect();
            let tag = EntityTag { is_weak: false, opaque: b"" };
            let _ = if_none_match(&request, Some(&tag));
            let _ = if_range(&request, Some(&tag), Some(1), Some(2));
        }
    }
}
