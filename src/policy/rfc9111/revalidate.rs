//! Validation of stored responses, RFC 9111 section 4.3.

use crate::base::chars::eq_ignore_case;
use crate::http::fields::Fields;
use crate::http::forward;
use crate::http::head::ResponseHead;
use crate::http::status::Status;
use crate::http::validator::EntityTag;
use crate::policy::rfc9111::freshness::{Lifetimes, Times, last_modified_s};
use crate::policy::rfc9111::partial;
use crate::policy::rfc9111::rules::{Rules, SetCookie};
use crate::policy::rfc9111::storable::{Omit, Storable};

/// Whether a 304 confirms this stored response (RFC 9111 section 4.3.4). A strong tag must be the
/// stored one, or come with a strong date that is stored too. A weak tag or a date must correspond
/// to the stored one. A 304 without a validator confirms. Otherwise, the whole must be fetched.
pub(crate) fn confirms(stored: &Fields, fresh: &ResponseHead) -> bool {
    let (theirs, ours) = (EntityTag::of(&fresh.fields), EntityTag::of(stored));
    if let (Some(theirs), Some(ours)) = (theirs, ours) {
        return if theirs.is_weak { theirs.is_weakly(&ours) } else { theirs.is_strongly(&ours) };
    }
    if theirs.is_some_and(|theirs| !theirs.is_weak) {
        return partial::is_same_date(stored, &fresh.fields);
    }
    match (last_modified_s(&fresh.fields), last_modified_s(stored)) {
        (Some(theirs), Some(ours)) => theirs == ours,
        _ => true,
    }
}

/// Whether the 200 to a HEAD confirms this stored response, or stored parts (RFC 9111 section
/// 4.3.5): the stored status is a success, and each validator and the length in the 200 are the
/// stored ones. `body_len` is `None` if the stored length is not known.
pub(crate) fn confirms_by_head(
    status: Status,
    stored: &Fields,
    body_len: Option<u64>,
    fresh: &ResponseHead,
) -> bool {
    let is_same = |name| match fresh.fields.get(name) {
        Some(theirs) => stored.get(name) == Some(theirs),
        None => true,
    };
    let is_as_long = body_len.zip(fresh.content_length).is_none_or(|(ours, theirs)| ours == theirs);
    let is_success = matches!(status.0, 200 | 203 | 206);
    is_success && is_same("etag") && is_same("last-modified") && is_as_long
}

/// The stored fields, updated by those of a 304 that [`confirms`] them, or of the answer to a HEAD
/// (RFC 9111 sections 3.2, 4.3.4 and 4.3.5). Each new field replaces all stored ones of its name,
/// except
///
/// - fields of the connection and the framing (section 3.1),
/// - Content-Length, Content-Encoding, Content-Range and digests of the content, which describe the
///   stored octets,
/// - Set-Cookie, unless the operator has it stored: it is for the client of the fetch alone.
///
/// The stored Age is removed, and so is the stored Date: a `fresh` from
/// [`crate::http::forward::response_fields`] has a Date.
pub(crate) fn merge(stored: &Fields, fresh: &ResponseHead, rules: &Rules) -> Fields {
    let mut new = fresh.fields.clone();
    forward::strip_hop_by_hop(&mut new);
    new.retain(|name, _| !UNCHANGED.iter().any(|field| eq_ignore_case(name, field)));
    if rules.set_cookie != SetCookie::Store {
        new.remove("set-cookie");
    }
    let mut merged = stored.clone();
    merged.remove("age");
    merged.remove("date");
    merged.replace_by(&new);
    merged
}

/// A stored response after an update by a 304 or the answer to a HEAD.
#[derive(Clone, Debug)]
pub(crate) struct Freshened {
    /// Its fields, without Age.
    pub(crate) fields: Fields,
    /// Until when it may be used now.
    pub(crate) lifetimes: Lifetimes,
    /// Those of `fields` that are not stored.
    pub(crate) omit: Omit,
}

/// Why a response that confirms a stored one does not freshen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfreshened {
    /// The stored response must not answer any request now.
    Outdated,
    /// The response is for one client alone.
    Private,
}

/// Freshens a stored response by one that [`confirms`] it, or [`confirms_by_head`].
///
/// A stored response that was chosen by other request fields than the new Vary names cannot be
/// freshened: the values that it was made for are not known (RFC 9111 section 4.1). A field that
/// Vary no longer names goes on choosing, because many origins leave Vary out of a 304, or a part
/// of it.
pub(crate) fn freshen(
    request: &Fields,
    (status, stored, lifetimes): (Status, &Fields, &Lifetimes),
    fresh: &ResponseHead,
    times: &Times,
    rules: &Rules,
) -> Result<Freshened, Unfreshened> {
    let mut fields = merge(stored, fresh, rules);
    // The lifetimes of parts are those of the whole.
    let status = if status == Status(206) { Status(200) } else { status };
    let storable = Storable::of(request, status, &fields, times, rules);
    let Storable { lifetimes: new, omit } =
        storable.map_err(|reason| match reason.is_of_response() {
            true => Unfreshened::Outdated,
            false => Unfreshened::Private,
        })?;
    let vary = lifetimes.vary.clone();
    let is_chosen = |names| vary.as_ref().is_some_and(|own| own.contains_all(names));
    if !new.vary.as_ref().is_none_or(is_chosen) {
        return Err(Unfreshened::Outdated);
    }
    fields.remove("age");
    Ok(Freshened { fields, lifetimes: Lifetimes { vary, ..new }, omit })
}

/// Fields of a response without content that do not update the stored ones.
const UNCHANGED: [&[u8]; 5] =
    [b"content-length", b"content-encoding", b"content-range", b"content-md5", b"content-digest"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample::{NOW_S, date_text, fields, response};
    use proptest::prelude::*;

    #[test]
    fn a_304_must_have_the_stored_validators() {
        let (one, two) = (date_text(NOW_S), date_text(NOW_S + 1));
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)], bool);
        let cases: &[Case<'_>] = &[
            (&[("etag", "\"a\"")], &[("etag", "\"a\"")], true),
            (&[("etag", "\"a\"")], &[("etag", "\"b\"")], false),
            (&[("etag", "\"a\"")], &[("etag", "W/\"a\"")], true),
            (&[("etag", "W/\"a\"")], &[("etag", "\"a\"")], false),
            (&[("etag", "W/\"a\"")], &[("etag", "W/\"a\"")], true),
            (&[("etag", "\"a\"")], &[], true),
            (&[("last-modified", &one)], &[("last-modified", &one)], true),
            (&[("last-modified", &one)], &[("last-modified", &two)], false),
            (&[("last-modified", &one)], &[("etag", "\"a\"")], false),
            (&[("last-modified", &one)], &[("etag", "W/\"a\"")], true),
            (&[], &[("etag", "\"a\"")], false),
            (
                &[("last-modified", &one), ("date", &two)],
                &[("etag", "\"a\""), ("last-modified", &one), ("date", &two)],
                true,
            ),
            (
                &[("last-modified", &one), ("date", &one)],
                &[("etag", "\"a\""), ("last-modified", &one), ("date", &one)],
                false,
            ),
            (
                &[("etag", "\"a\""), ("last-modified", &one)],
                &[("etag", "\"a\""), ("last-modified", &two)],
                true,
            ),
        ];
        for (stored, fresh, expected) in cases {
            assert_eq!(confirms(&fields(stored), &response(304, fresh)), *expected, "{fresh:?}");
        }
    }

    #[test]
    fn a_head_must_have_the_stored_validators_and_length() {
        let stored = fields(&[("etag", "\"a\""), ("last-modified", "x")]);
        let found = |length, list: &[(&str, &str)]| {
            let mut head = response(200, list);
            head.content_length = length;
            confirms_by_head(Status(200), &stored, Some(5), &head)
        };
        assert!(found(None, &[]));
        assert!(found(Some(5), &[("etag", "\"a\""), ("last-modified", "x")]));
        assert!(!found(Some(6), &[("etag", "\"a\"")]));
        assert!(!found(None, &[("etag", "W/\"a\"")]));
        assert!(!found(None, &[("etag", "\"a\""), ("last-modified", "y")]));
        let fresh = response(200, &[("etag", "\"a\"")]);
        assert!(!confirms_by_head(Status(200), &fields(&[]), Some(5), &fresh));
        for (status, is_success) in
            [(200, true), (203, true), (206, true), (404, false), (301, false)]
        {
            let stored = fields(&[("etag", "\"a\"")]);
            assert_eq!(
                confirms_by_head(Status(status), &stored, None, &fresh),
                is_success,
                "{status}"
            );
        }
    }

    #[test]
    fn new_fields_replace_those_of_their_name() {
        let stored = fields(&[
            ("Date", "then"),
            ("Age", "50"),
            ("Content-Type", "text/plain"),
            ("Content-Length", "5"),
            ("X-A", "1"),
            ("X-A", "2"),
            ("X-B", "1"),
        ]);
        let new = [
            ("x-a", "3"),
            ("Date", "now"),
            ("Content-Type", "text/html"),
            ("Content-Length", "0"),
            ("Content-Encoding", "gzip"),
            ("Content-MD5", "x"),
            ("Set-Cookie", "a=b"),
            ("Connection", "x-hop"),
            ("X-Hop", "1"),
            ("X-C", "1"),
            ("X-C", "2"),
        ];
        let merged = merge(&stored, &response(304, &new), &Rules::default());
        let expected = [
            ("Content-Length", "5"),
            ("X-B", "1"),
            ("x-a", "3"),
            ("Date", "now"),
            ("Content-Type", "text/html"),
            ("X-C", "1"),
            ("X-C", "2"),
        ];
        assert_eq!(merged, fields(&expected));
        let rules = Rules { set_cookie: SetCookie::Store, ..Rules::default() };
        let merged = merge(&stored, &response(304, &new), &rules);
        assert_eq!(merged.get("set-cookie"), Some(&b"a=b"[..]));
    }

    #[test]
    fn a_field_that_is_new_in_vary_leaves_nothing_to_freshen() {
        let vary = |value: &str| fields(&[("etag", "\"a\""), ("vary", value)]);
        let times = Times { requested_s: NOW_S, received_s: NOW_S };
        let found = |old: &str, new: &[(&str, &str)], rules: &Rules| {
            let asked = fields(&[]);
            let old = vary(old);
            let storable = Storable::of(&asked, Status(200), &old, &times, rules).unwrap();
            let old = (Status(200), &old, &storable.lifetimes);
            let freshened = freshen(&asked, old, &response(304, new), &times, rules)?;
            assert_eq!(freshened.lifetimes.vary, storable.lifetimes.vary);
            Ok(freshened.lifetimes.vary.is_some())
        };
        let rules = Rules::default();
        assert_eq!(found("", &[], &rules), Ok(false));
        assert_eq!(found("a, b", &[], &rules), Ok(true));
        assert_eq!(found("a, b", &[("vary", "B")], &rules), Ok(true));
        for (old, new) in [("", "a"), ("a", "b"), ("a", "a, b"), ("a", "*"), ("", "*")] {
            let found = found(old, &[("vary", new)], &rules);
            assert_eq!(found, Err(Unfreshened::Outdated), "{old} {new}");
        }
        let rules = Rules { vary_ignored: vec!["b".into()], ..rules };
        assert_eq!(found("a", &[("vary", "a, b")], &rules), Ok(true));
    }

    fn any_fields() -> impl Strategy<Value = Vec<(String, String)>> {
        let name = prop_oneof![
            Just("Date"),
            Just("Age"),
            Just("ETag"),
            Just("etag"),
            Just("Content-Type"),
            Just("A"),
            Just("a"),
            Just("B"),
            Just("Connection"),
            Just("Set-Cookie"),
        ];
        proptest::collection::vec((name.prop_map(str::to_owned), "[ab]{0,2}"), 0..8)
    }

    proptest! {
        #[test]
        fn merging_twice_changes_nothing(stored in any_fields(), fresh in any_fields()) {
            let list = |fields: &[(String, String)]| {
                let mut list = Fields::new();
                for (name, value) in fields {
                    list.push(name.as_bytes(), value.as_bytes());
                }
                list
            };
            let mut head = response(304, &[]);
            head.fields = list(&fresh);
            let rules = Rules::default();
            let once = merge(&list(&stored), &head, &rules);
            prop_assert_eq!(merge(&once, &head, &rules), once);
        }
    }
}
