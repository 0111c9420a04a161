//! Responses with a part of a representation, and requests for one (RFC 9111 sections 3.3 and 3.4,
//! RFC 9110 section 15.3.7).

use std::iter;
use std::ops::Range;

use crate::http::content_range::ContentRange;
use crate::http::date;
use crate::http::fields::Fields;
use crate::http::head::{BodyLength, RequestHead, ResponseHead};
use crate::http::method::Method;
use crate::http::range::{Ranges, Spec};
use crate::http::status::Status;
use crate::http::validator::EntityTag;
use crate::policy::rfc9111::answer::{self, Answer};
use crate::policy::rfc9111::freshness::last_modified_s;
use crate::policy::rfc9111::parts::{Extent, PartList};
use crate::policy::rfc9111::rules::Rules;

/// The place of the content of a 206.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialContent {
    /// Its bytes.
    pub range: Range<u64>,
    /// The end of the representation, as far as it is known.
    pub extent: Extent,
}

impl PartialContent {
    /// The place of the content of the response to `asked`; `None` if the response is not a single
    /// part, or has no valid Content-Range.
    ///
    /// Content-Range and the length of the content may contradict each other. Then the content
    /// begins where Content-Range says and has its own length, and the length of the representation
    /// is not known. If the last n bytes were requested and the content has n bytes, it runs to the
    /// end. Such a part is never combined with others.
    pub fn of(asked: Spec, response: &ResponseHead) -> Option<Self> {
        if response.status != Status(206) {
            return None;
        }
        let ContentRange { range, complete } = ContentRange::of(&response.fields)?;
        let len = match response.length {
            BodyLength::Known(len) => len,
            _ => range.end - range.start,
        };
        let extent = if complete.is_some() && len == range.end - range.start {
            complete.map_or(Extent::Open, Extent::Length)
        } else if asked == Spec::Last(len) {
            Extent::ToEnd
        } else {
            Extent::Open
        };
        let end = range.start.checked_add(len)?;
        (len > 0).then_some(Self { range: range.start..end, extent })
    }

    /// Whether it is the whole representation.
    pub fn is_whole(&self) -> bool {
        self.range.start == 0 && self.extent == Extent::Length(self.range.end)
    }
}

/// How stored parts answer a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// With 304.
    NotModified,
    /// With 416, for a representation of this length in bytes.
    Unsatisfiable(u64),
    /// With these ranges, in this form.
    Bytes(Form, Vec<Range<u64>>),
    /// The parts do not show how.
    Unknown,
}

/// The form of an answer with ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// 200 with the whole representation.
    Whole,
    /// 206 with one range.
    One,
    /// 206 with several ranges (`multipart/byteranges`).
    Several,
}

/// The range of a request that is fetched as a part if nothing is stored.
pub fn requested_part(request: &RequestHead, rules: &Rules) -> Option<Spec> {
    let fields = &request.fields;
    let has_valid_if_range = fields.count("if-range") <= 1
        && fields.get("if-range").is_none_or(|it| it.len() <= IF_RANGE_BYTES_MAX);
    Spec::of(fields).filter(|_| rules.parts && request.method == Method::Get && has_valid_if_range)
}

/// The most bytes of an If-Range that is forwarded.
const IF_RANGE_BYTES_MAX: usize = 256;

/// How the parts of a list answer a request, stored or missing. Conditions are evaluated as for the
/// whole representation (RFC 9110 section 13.2.2).
pub fn plan(request: &RequestHead, stored: &Fields, list: &PartList) -> Plan {
    let length = list.length();
    let answer = answer::answer(request, Status(200), stored, length.unwrap_or(u64::MAX));
    match (answer, length) {
        (Answer::NotModified, _) => Plan::NotModified,
        (Answer::Full | Answer::Partial(Ranges::Whole), Some(length)) => {
            Plan::Bytes(Form::Whole, iter::once(0..length).collect())
        }
        (Answer::Unsatisfiable | Answer::Partial(Ranges::Unsatisfiable), Some(length)) => {
            Plan::Unsatisfiable(length)
        }
        (Answer::Partial(Ranges::One(range)), Some(_)) => Plan::Bytes(Form::One, vec![range]),
        (Answer::Partial(Ranges::Many(ranges)), Some(_)) => Plan::Bytes(Form::Several, ranges),
        (Answer::Partial(Ranges::One(_)), None) => Spec::of(&request.fields)
            .and_then(|spec| list.within_alone(spec))
            .map_or(Plan::Unknown, |range| Plan::Bytes(Form::One, vec![range])),
        (_, None) => Plan::Unknown,
    }
}

/// The strong validator of a stored response for If-Range: an entity tag, or else a strong date
/// (RFC 9110 sections 8.8.2.2 and 13.1.5).
pub fn strong_validator(stored: &Fields) -> Option<&[u8]> {
    match EntityTag::of(stored) {
        Some(tag) if tag.is_weak => None,
        Some(_) => stored.get("etag"),
        None => has_strong_date(stored).then(|| stored.get("last-modified"))?,
    }
}

/// Whether two responses have the same strong validator, so that their parts may be combined (RFC
/// 9110 section 15.3.7.3).
pub fn is_same(stored: &Fields, fresh: &Fields) -> bool {
    match (EntityTag::of(stored), EntityTag::of(fresh)) {
        (Some(stored), Some(fresh)) => stored.is_strongly(&fresh),
        (None, None) => is_same_date(stored, fresh),
        _ => false,
    }
}

/// Whether two responses have the same Last-Modified, strong in both (RFC 9110 section 8.8.2.2).
pub fn is_same_date(stored: &Fields, fresh: &Fields) -> bool {
    has_strong_date(stored)
        && has_strong_date(fresh)
        && last_modified_s(stored) == last_modified_s(fresh)
}

/// How a received part fits a list of stored parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// The part is added.
    Joins,
    /// The part replaces the stored ones, since they are outdated or of less use.
    Replaces,
    /// The stored parts stay, since they are of more use.
    Useless,
}

/// Whether a part can be combined with a list (RFC 9110 section 15.3.7.3). `extent` is `None` if
/// the place of the part is not known.
///
/// Parts of representations with different lengths are never combined, even with the same
/// validator. A part of a representation of unknown length can answer only requests within it. It
/// does not replace the list, unless it is certainly of another representation.
pub fn fit(
    list: &PartList,
    listed: &Fields,
    is_fresh: bool,
    extent: Option<Extent>,
    part: &Fields,
) -> Fit {
    let is_same = is_same(listed, part);
    let is_other =
        !is_same && strong_validator(listed).is_some() && strong_validator(part).is_some();
    match (list.length(), extent) {
        (Some(length), Some(Extent::Length(other))) if length == other && is_same => Fit::Joins,
        (_, Some(Extent::Length(_))) => Fit::Replaces,
        (Some(_), _) if is_same || is_fresh && !is_other => Fit::Useless,
        (_, Some(_)) => Fit::Replaces,
        (_, None) if is_other => Fit::Replaces,
        (_, None) => Fit::Useless,
    }
}

/// The fields of a part without those that describe the part alone.
pub fn whole_fields(part: &Fields) -> Fields {
    let mut fields = part.clone();
    for name in ["content-range", "content-length", "content-digest", "content-md5"] {
        fields.remove(name);
    }
    fields
}

/// The stored fields after a further part has been received: each field of the part replaces the
/// stored ones of its name (RFC 9111 section 3.4), but not Content-Encoding.
pub fn combine(stored: &Fields, part: &Fields) -> Fields {
    let mut new = whole_fields(part);
    new.remove("content-encoding");
    let mut fields = stored.clone();
    fields.replace_by(&new);
    fields
}

fn has_strong_date(response: &Fields) -> bool {
    let date_s = response.get("date").and_then(date::parse);
    matches!((last_modified_s(response), date_s), (Some(modified_s), Some(date_s)) if modified_s < date_s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rfc9111::parts::StoredPart;
    use crate::policy::sample::{NOW_S, date_text, fields, response};

    #[test]
    fn content_has_the_place_of_its_content_range() {
        let content = |asked, place: &str, len| {
            let mut head = response(206, &[("content-range", place)]);
            head.length = len;
            PartialContent::of(asked, &head).map(|content| (content.range, content.extent))
        };
        let known = BodyLength::Known;
        let any = Spec::From(0);
        assert_eq!(content(any, "bytes 0-4/10", known(5)), Some((0..5, Extent::Length(10))));
        assert_eq!(
            content(any, "bytes 0-4/10", BodyLength::Chunked),
            Some((0..5, Extent::Length(10)))
        );
        assert_eq!(content(any, "bytes 0-4/*", known(5)), Some((0..5, Extent::Open)));
        assert_eq!(content(Spec::Last(5), "bytes 5-9/*", known(5)), Some((5..10, Extent::ToEnd)));
        // Content-Range contradicts the length.
        assert_eq!(content(Spec::Last(5), "bytes 4-9/10", known(5)), Some((4..9, Extent::ToEnd)));
        assert_eq!(content(any, "bytes 4-9/10", known(5)), Some((4..9, Extent::Open)));
        assert_eq!(content(any, "bytes 4-9/10", known(0)), None);
        assert_eq!(content(any, "bytes 4-9/5", known(6)), None);
        assert_eq!(content(any, "lines 0-4/10", known(5)), None);
        assert!(PartialContent { range: 0..5, extent: Extent::Length(5) }.is_whole());
        assert!(!PartialContent { range: 0..5, extent: Extent::ToEnd }.is_whole());
    }

    #[test]
    fn only_the_same_strong_validator_joins() {
        let (old, now) = (date_text(NOW_S - 90), date_text(NOW_S));
        let tag = |tag: &str| fields(&[("etag", tag)]);
        let dated = |modified: &str| fields(&[("last-modified", modified), ("date", &now)]);
        assert!(is_same(&tag("\"a\""), &tag("\"a\"")));
        assert!(!is_same(&tag("\"a\""), &tag("\"b\"")));
        assert!(!is_same(&tag("W/\"a\""), &tag("W/\"a\"")));
        assert!(!is_same(&tag("\"a\""), &dated(&old)));
        assert!(is_same(&dated(&old), &dated(&old)));
        assert!(!is_same(&dated(&now), &dated(&now)), "it could have changed within that second");
        assert!(!is_same(&fields(&[]), &fields(&[])));
        assert_eq!(strong_validator(&tag("\"a\"")), Some(&b"\"a\""[..]));
        assert_eq!(strong_validator(&tag("W/\"a\"")), None);
        assert_eq!(strong_validator(&dated(&old)), Some(old.as_bytes()));
        assert_eq!(strong_validator(&dated(&now)), None);
    }

    #[test]
    fn a_part_joins_replaces_or_is_useless() {
        let stored = |extent| PartList::new(extent, StoredPart { range: 0..5, id: 1 });
        let (known, open) = (stored(Extent::Length(10)), stored(Extent::Open));
        let (a, b, none) =
            (fields(&[("etag", "\"a\"")]), fields(&[("etag", "\"b\"")]), fields(&[]));
        let (ten, nine) = (Some(Extent::Length(10)), Some(Extent::Length(9)));
        let (unknown, to_end) = (Some(Extent::Open), Some(Extent::ToEnd));
        let cases = [
            (&known, &a, true, ten, &a, Fit::Joins),
            (&known, &a, false, ten, &a, Fit::Joins),
            (&known, &a, true, nine, &a, Fit::Replaces),
            (&known, &a, true, ten, &b, Fit::Replaces),
            (&known, &none, true, ten, &none, Fit::Replaces),
            (&open, &a, true, ten, &a, Fit::Replaces),
            (&known, &a, true, unknown, &a, Fit::Useless),
            (&known, &a, true, to_end, &a, Fit::Useless),
            (&known, &a, false, unknown, &a, Fit::Useless),
            (&known, &a, true, unknown, &b, Fit::Replaces),
            (&known, &none, true, unknown, &none, Fit::Useless),
            (&known, &none, false, unknown, &none, Fit::Replaces),
            (&open, &a, true, unknown, &a, Fit::Replaces),
            (&known, &a, false, None, &a, Fit::Useless),
            (&known, &a, true, None, &b, Fit::Replaces),
            (&open, &none, false, None, &none, Fit::Useless),
        ];
        for (list, listed, is_fresh, extent, part, expected) in cases {
            let found = fit(list, listed, is_fresh, extent, part);
            assert_eq!(found, expected, "{list:?} {listed:?} {is_fresh} {extent:?} {part:?}");
        }
    }
}
