//! Answers from a whole stored response: all of it, a range, or a 304.
//!
//! The order is that of RFC 9110 section 13.2.2. Only the origin evaluates If-Match and
//! If-Unmodified-Since (RFC 9111 section 4.3.2): a request with one of them is never looked up
//! ([`crate::policy::decide::may_look_up`]).

use crate::base::chars::eq_ignore_case;
use crate::http::date;
use crate::http::fields::Fields;
use crate::http::head::RequestHead;
use crate::http::method::Method;
use crate::http::range::{self, Ranges};
use crate::http::status::Status;
use crate::http::validator::{self, EntityTag};
use crate::policy::rfc9111::freshness::last_modified_s;

/// An answer from a whole stored response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The stored status, with the whole body unless the request is a HEAD.
    Full,
    /// 304, without body; its fields are [`not_modified_fields`].
    NotModified,
    /// 206, with these ranges of the body: [`Ranges::One`] or [`Ranges::Many`].
    Partial(Ranges),
    /// 416, with `Content-Range: bytes */LENGTH`.
    Unsatisfiable,
}

/// The answer to a request from a whole stored response of `body_len` bytes (RFC 9110 section
/// 13.2.2, RFC 9111 section 4.3.2). Conditions and ranges count only for a stored 200, ranges only
/// for GET (RFC 9110 section 14.2). A 206 answers as it is, or with 304.
pub(crate) fn answer(
    request: &RequestHead,
    status: Status,
    stored: &Fields,
    body_len: u64,
) -> Answer {
    if !matches!(status, Status(200) | Status(206)) {
        return Answer::Full;
    }
    if !is_conditional_or_partial(&request.fields) {
        return Answer::Full;
    }
    let tag = EntityTag::of(stored);
    let date_s = stored.get("date").and_then(date::parse);
    let modified_s = last_modified_s(stored);
    if !is_modified(&request.fields, tag.as_ref(), modified_s.or(date_s)) {
        return Answer::NotModified;
    }
    let is_same = validator::if_range(&request.fields, tag.as_ref(), modified_s, date_s);
    // A 206 is the response to this request, so it has the requested range.
    let is_part = status == Status(206);
    if request.method != Method::Get || is_same == Some(false) || is_part {
        return Answer::Full;
    }
    match range::of(&request.fields, body_len) {
        Ranges::Whole => Answer::Full,
        Ranges::Unsatisfiable => Answer::Unsatisfiable,
        ranges @ (Ranges::One(_) | Ranges::Many(_)) => Answer::Partial(ranges),
    }
}

/// The fields of a 304 from a stored response, RFC 9110 section 15.4.5: without those that describe
/// the content, which the client has.
pub(crate) fn not_modified_fields(stored: &Fields) -> Fields {
    let mut fields = stored.clone();
    let has_tag = fields.contains("etag");
    fields.retain(|name, _| {
        let is = |other: &[u8]| eq_ignore_case(name, other);
        !(is(b"content-type")
            || is(b"content-length")
            || is(b"content-encoding")
            || is(b"content-language")
            || is(b"content-range")
            || has_tag && is(b"last-modified"))
    });
    fields
}

/// Whether a request has a condition or a range, in one pass over its fields: most have none.
fn is_conditional_or_partial(request: &Fields) -> bool {
    request.iter().any(|(name, _)| match name.len() {
        5 => eq_ignore_case(name, b"range"),
        13 => eq_ignore_case(name, b"if-none-match"),
        17 => eq_ignore_case(name, b"if-modified-since"),
        _ => false,
    })
}

/// Steps 3 and 4 of RFC 9110 section 13.2.2: If-None-Match, or else If-Modified-Since. `changed_s`
/// is Last-Modified, or else Date (RFC 9111 section 4.3.2).
fn is_modified(request: &Fields, tag: Option<&EntityTag<'_>>, changed_s: Option<u64>) -> bool {
    validator::if_none_match(request, tag)
        .or_else(|| validator::if_modified_since(request, changed_s))
        .unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample::{NOW_S, date_text, fields, request};

    fn ask(method: &str, list: &[(&str, &str)], stored: &[(&str, &str)]) -> Answer {
        answer(&request(method, list), Status(200), &fields(stored), 100)
    }

    #[test]
    fn conditions_are_evaluated_against_the_stored_response() {
        let (past, now, later) = (date_text(NOW_S - 9), date_text(NOW_S), date_text(NOW_S + 9));
        let both: &[(&str, &str)] = &[("ETag", "\"a\""), ("Last-Modified", &now), ("Date", &later)];
        let weak: &[(&str, &str)] = &[("ETag", "W/\"a\"")];
        let dated: &[(&str, &str)] = &[("Date", &now)];
        type List<'a> = &'a [(&'a str, &'a str)];
        let cases: &[(List<'_>, List<'_>, bool)] = &[
            (&[("if-none-match", "\"a\"")], both, true),
            (&[("if-none-match", "W/\"a\"")], both, true),
            (&[("if-none-match", "\"a\"")], weak, true),
            (&[("If-None-Match", "\"x\", \"a,b\" , \"a\"")], both, true),
            (&[("If-None-Match", "\"x\""), ("if-none-match", "\"a\"")], both, true),
            (&[("if-none-match", "*")], both, true),
            (&[("if-none-match", "*")], &[], true),
            (&[("if-none-match", "a")], both, false),
            (&[("if-none-match", "\"b\"")], both, false),
            (&[("if-none-match", "\"b\""), ("if-modified-since", &now)], both, false),
            (&[("if-none-match", "\"a\""), ("if-modified-since", &past)], both, true),
            (&[("if-modified-since", &now)], both, true),
            (&[("if-modified-since", &later)], both, true),
            (&[("if-modified-since", &past)], both, false),
            (&[("if-modified-since", "now")], both, false),
            (&[("if-modified-since", &now), ("if-modified-since", &now)], both, false),
            (&[("if-modified-since", &now)], dated, true),
            (&[("if-modified-since", &past)], dated, false),
            (&[("if-modified-since", &now)], &[], false),
        ];
        for (list, stored, expected) in cases {
            for method in ["GET", "HEAD"] {
                let found = ask(method, list, stored) == Answer::NotModified;
                assert_eq!(found, *expected, "{method} {list:?} {stored:?}");
            }
        }
    }

    #[test]
    fn only_a_stored_200_is_conditional_or_cut() {
        let list = [("if-none-match", "*"), ("range", "bytes=0-1")];
        let found = answer(&request("GET", &list), Status(404), &fields(&[]), 100);
        assert_eq!(found, Answer::Full);
    }

    #[test]
    fn ranges_are_cut_from_a_get_if_the_validator_still_holds() {
        let (now, later) = (date_text(NOW_S), date_text(NOW_S + 9));
        let both: &[(&str, &str)] = &[("ETag", "\"a\""), ("Last-Modified", &now), ("Date", &later)];
        let part = Answer::Partial(Ranges::One(0..10));
        let range = ("Range", "bytes=0-9");
        assert_eq!(ask("GET", &[range], both), part);
        assert_eq!(ask("HEAD", &[range], both), Answer::Full);
        assert_eq!(ask("GET", &[range, range], both), Answer::Full);
        assert_eq!(ask("GET", &[("range", "bytes=100-")], both), Answer::Unsatisfiable);
        assert_eq!(ask("GET", &[("range", "lines=1-2")], both), Answer::Full);
        assert_eq!(ask("GET", &[range, ("if-none-match", "\"a\"")], both), Answer::NotModified);
        let with = |validator: &str| ask("GET", &[range, ("If-Range", validator)], both);
        assert_eq!(with("\"a\""), part);
        assert_eq!(with("\"b\""), Answer::Full);
        assert_eq!(with("W/\"a\""), Answer::Full);
        assert_eq!(with(&now), part);
        assert_eq!(with(&later), Answer::Full);
        assert_eq!(with("a"), Answer::Full);
        let weak = [("ETag", "W/\"a\"")];
        assert_eq!(ask("GET", &[range, ("If-Range", "W/\"a\"")], &weak), Answer::Full);
        let young = [("Last-Modified", now.as_str()), ("Date", now.as_str())];
        assert_eq!(ask("GET", &[range, ("If-Range", &now)], &young), Answer::Full);
    }

    #[test]
    fn a_304_does_not_describe_the_content() {
        let stored = fields(&[
            ("Date", "x"),
            ("ETag", "\"a\""),
            ("Last-Modified", "y"),
            ("Content-Type", "text/plain"),
            ("content-length", "5"),
            ("Content-Location", "/x"),
            ("Vary", "foo"),
            ("X", "y"),
        ]);
        let expected = fields(&[
            ("Date", "x"),
            ("ETag", "\"a\""),
            ("Content-Location", "/x"),
            ("Vary", "foo"),
            ("X", "y"),
        ]);
        assert_eq!(not_modified_fields(&stored), expected);
    }
}
