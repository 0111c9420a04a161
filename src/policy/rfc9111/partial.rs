//! Parts of a representation that are stored: which bytes are there, what is missing, and what may
//! be put together (RFC 9111 sections 3.3 and 3.4, RFC 9110 section 15.3.7.3).
//!
//! The list of a key's parts is itself stored, as text that a person can read:
//!
//! ```text
//! length 1000
//! 0-499 1f3a
//! 700-999 1f3c
//! ```

use std::io::Write as _;
use std::iter;
use std::ops::Range;

use crate::base::chars;
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
use crate::policy::rfc9111::rules::Rules;

/// The most parts that are kept of a representation.
pub const PARTS_MAX: usize = 64;

/// The most bytes that [`PartList::encode`] writes.
pub const LIST_BYTES_MAX: usize = 64 + PARTS_MAX * 64;

/// A stored part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its bytes, never none.
    pub range: Range<u64>,
    /// The number that tells its file from all others.
    pub id: u64,
}

/// What is stored of a representation that is not stored as a whole: at least one part and at most
/// [`PARTS_MAX`], in the order of their first bytes. They may overlap; none is within another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartList {
    extent: Extent,
    parts: Vec<Stored>,
}

/// What is known of the end of a representation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// It has so many bytes.
    Length(u64),
    /// Nobody knows its length, but the part runs to its end.
    ToEnd,
    /// Nothing.
    Open,
}

/// A stretch of what is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// These bytes are in the part of this file, from this byte of it on.
    Stored {
        /// The bytes of the representation.
        range: Range<u64>,
        /// The part's file.
        id: u64,
        /// The place of the first of them in the part.
        at: u64,
    },
    /// These bytes are not there.
    Missing(Range<u64>),
}

impl PartList {
    /// A list of one part.
    pub fn new(extent: Extent, part: Stored) -> Self {
        Self { extent, parts: vec![part] }
    }

    /// The length of the representation, if it is known.
    pub fn length(&self) -> Option<u64> {
        match self.extent {
            Extent::Length(length) => Some(length),
            Extent::ToEnd | Extent::Open => None,
        }
    }

    /// The parts.
    pub fn parts(&self) -> &[Stored] {
        &self.parts
    }

    /// Whether every byte is there.
    pub fn is_whole(&self) -> bool {
        self.length().is_some_and(|length| self.first_missing(&(0..length)).is_none())
    }

    /// Takes a part in, and gives those out that are of no use any longer: within the new one, or
    /// the smallest when there are too many. The new one itself is given out if all of it is there
    /// already. Only for parts of the same representation whose length is known.
    pub fn add(&mut self, part: Stored) -> Vec<Stored> {
        let is_within = |inner: &Range<u64>, outer: &Range<u64>| {
            outer.start <= inner.start && inner.end <= outer.end
        };
        if self.parts.iter().any(|old| is_within(&part.range, &old.range)) {
            return vec![part];
        }
        let (mut out, mut kept): (Vec<_>, Vec<_>) =
            self.parts.drain(..).partition(|old| is_within(&old.range, &part.range));
        let at = kept.partition_point(|old| old.range.start < part.range.start);
        kept.insert(at, part);
        while kept.len() > PARTS_MAX
            && let Some((smallest, _)) =
                kept.iter().enumerate().min_by_key(|(_, it)| it.range.end - it.range.start)
        {
            out.push(kept.remove(smallest));
        }
        self.parts = kept;
        out
    }

    /// Strikes out the part of a file that is gone.
    pub fn strike(&mut self, id: u64) {
        self.parts.retain(|part| part.id != id);
    }

    /// What is where in this range, from its first byte to its last.
    pub fn stretches(&self, range: &Range<u64>) -> Vec<Stretch> {
        let mut stretches = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let reaches_furthest = self
                .parts
                .iter()
                .filter(|part| part.range.contains(&at))
                .max_by_key(|part| part.range.end);
            let stretch = match reaches_furthest {
                Some(part) => Stretch::Stored {
                    range: at..part.range.end.min(range.end),
                    id: part.id,
                    at: at - part.range.start,
                },
                None => {
                    let starts = self.parts.iter().map(|part| part.range.start);
                    let next = starts.filter(|start| *start > at).min();
                    Stretch::Missing(at..next.map_or(range.end, |next| next.min(range.end)))
                }
            };
            at = match &stretch {
                Stretch::Stored { range, .. } | Stretch::Missing(range) => range.end,
            };
            stretches.push(stretch);
        }
        stretches
    }

    /// The first bytes of a range that are not there.
    pub fn first_missing(&self, range: &Range<u64>) -> Option<Range<u64>> {
        self.stretches(range).into_iter().find_map(|stretch| match stretch {
            Stretch::Missing(missing) => Some(missing),
            Stretch::Stored { .. } => None,
        })
    }

    /// What to ask for to learn whether the parts are still good: bytes that are there, as many of
    /// the first part as are fetched unasked, and at least one.
    pub fn sample(&self, bytes_max: u64) -> Option<Spec> {
        let Range { start, end } = self.parts.first()?.range;
        let end = end.min(start.saturating_add(bytes_max.max(1)));
        Some(Spec::FromTo(start, end - 1))
    }

    /// What a request asks for of a representation of unknown length, as far as the one part of it
    /// holds all of that (RFC 9111 section 3.3).
    pub fn within_alone(&self, spec: Spec) -> Option<Range<u64>> {
        let part = &self.parts.first()?.range;
        let to_end = self.extent == Extent::ToEnd;
        let range = match spec {
            Spec::FromTo(first, last) if last < part.end => first..last.checked_add(1)?,
            Spec::FromTo(first, _) | Spec::From(first) if to_end => first..part.end,
            Spec::Last(n) if to_end => part.end.checked_sub(n)?..part.end,
            _ => return None,
        };
        (part.start <= range.start && range.start < range.end).then_some(range)
    }

    /// Appends the list as text.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let _ = match self.extent {
            Extent::Length(length) => writeln!(out, "length {length}"),
            Extent::ToEnd => writeln!(out, "to the end"),
            Extent::Open => writeln!(out, "open"),
        };
        for part in &self.parts {
            let _ = writeln!(out, "{}-{} {:x}", part.range.start, part.range.end - 1, part.id);
        }
    }

    /// Reads what [`PartList::encode`] writes; `None` for anything else.
    pub fn decode(text: &[u8]) -> Option<Self> {
        let mut lines = str::from_utf8(text).ok()?.strip_suffix('\n')?.split('\n');
        let extent = match lines.next()? {
            "to the end" => Extent::ToEnd,
            "open" => Extent::Open,
            line => Extent::Length(chars::parse_decimal(line.strip_prefix("length ")?.as_bytes())?),
        };
        let mut parts: Vec<Stored> = Vec::new();
        for line in lines {
            let (range, id) = line.split_once(' ')?;
            let (first, last) = range.split_once('-')?;
            let first = chars::parse_decimal(first.as_bytes())?;
            let end = chars::parse_decimal(last.as_bytes())?.checked_add(1)?;
            let last = parts.last().map(|part| &part.range);
            let is_next = last.is_none_or(|last| last.start < first && last.end < end);
            let is_inside = !matches!(extent, Extent::Length(length) if length < end);
            if first >= end || !is_next || !is_inside || parts.len() == PARTS_MAX {
                return None;
            }
            parts.push(Stored { range: first..end, id: u64::from_str_radix(id, 16).ok()? });
        }
        let is_right_number = match extent {
            Extent::Length(_) => !parts.is_empty(),
            Extent::ToEnd | Extent::Open => parts.len() == 1,
        };
        is_right_number.then_some(Self { extent, parts })
    }
}

/// Where the content of a 206 lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its bytes.
    pub range: Range<u64>,
    /// The end of its whole.
    pub extent: Extent,
}

impl Piece {
    /// Where the content of the answer to `asked` lies; `None` if it is no single part, or does not
    /// say where it lies.
    ///
    /// What it says and what comes may contradict each other. Then the content begins where it says
    /// and is as long as it is; an answer to "the last n bytes" of just n bytes runs to the end,
    /// for that is what was asked; and the length is not known. Such a part is never put together
    /// with others.
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

    /// Whether it is all of its representation.
    pub fn is_whole(&self) -> bool {
        self.range.start == 0 && self.extent == Extent::Length(self.range.end)
    }
}

/// What a request is answered from parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// 304.
    NotModified,
    /// 416, of so many bytes.
    Unsatisfiable(u64),
    /// These bytes, in this form.
    Bytes(Form, Vec<Range<u64>>),
    /// It cannot be told from them.
    Unknown,
}

/// The form in which bytes are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// 200, with all there is.
    Whole,
    /// 206 with one part.
    One,
    /// 206 with several parts.
    Several,
}

impl Form {
    /// The status of the answer.
    pub const fn status(self) -> Status {
        match self {
            Self::Whole => Status(200),
            Self::One | Self::Several => Status(206),
        }
    }
}

/// The part that a request asks for, if it is to be fetched as such where nothing is stored.
pub fn asks_for_part(request: &RequestHead, rules: &Rules) -> Option<Spec> {
    let fields = &request.fields;
    let has_one = fields.count("if-range") <= 1
        && fields.get("if-range").is_none_or(|it| it.len() <= IF_RANGE_BYTES_MAX);
    Spec::of(fields).filter(|_| rules.parts && request.method == Method::Get && has_one)
}

/// The most bytes that an If-Range of a client may have to be passed on.
const IF_RANGE_BYTES_MAX: usize = 256;

/// What a request asks of a representation whose parts are stored, whether they are all there or
/// not; conditions are judged as against the whole (RFC 9110 section 13.2.2).
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

/// The strong validator of a stored response, as `If-Range` wants it: an entity tag, or else a
/// date that is strong (RFC 9110 sections 8.8.2.2 and 13.1.5).
pub fn strong_validator(stored: &Fields) -> Option<&[u8]> {
    match EntityTag::of(stored) {
        Some(tag) if tag.is_weak => None,
        Some(_) => stored.get("etag"),
        None => has_strong_date(stored).then(|| stored.get("last-modified"))?,
    }
}

/// Whether two responses have the same strong validator, so that their parts may be put together
/// (RFC 9110 section 15.3.7.3).
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

/// How a part that came goes together with a list of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It is one of them.
    Joins,
    /// It shows that they are no longer true, or is of more use: it takes their place.
    Replaces,
    /// They stay, for they are of more use.
    Useless,
}

/// How a part goes together with what is listed (RFC 9110 section 15.3.7.3); `None` for its extent
/// if it does not even say where it lies.
///
/// Parts whose wholes have different lengths are never put together, whatever their validators
/// say. A part of a whole of unknown length is good for nothing but what lies within it, and does
/// not cost the others their place, unless it is surely of another representation.
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

/// The fields of the whole that a part's fields tell of: without what is true of the part alone.
pub fn whole_fields(part: &Fields) -> Fields {
    let mut fields = part.clone();
    for name in ["content-range", "content-length", "content-digest", "content-md5"] {
        fields.remove(name);
    }
    fields
}

/// The fields of a whole when a further part of it has come: each field of the part replaces the
/// stored ones of its name (RFC 9111 section 3.4), but for those that tell how octets are coded.
pub fn combine(stored: &Fields, part: &Fields) -> Fields {
    let mut news = whole_fields(part);
    news.remove("content-encoding");
    let mut fields = stored.clone();
    fields.retain(|name, _| !news.iter().any(|(new, _)| chars::eq_ignore_case(name, new)));
    fields.append_from(&news, |_, _| true);
    fields
}

fn has_strong_date(response: &Fields) -> bool {
    let date_s = response.get("date").and_then(date::parse);
    matches!((last_modified_s(response), date_s), (Some(modified_s), Some(date_s)) if modified_s < date_s)
}

#[cfg(test)]
#[path = "../tests/partial.rs"]
mod tests;
