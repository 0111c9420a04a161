//! `Range` and `Content-Range` in bytes (RFC 9110 section 14).

use std::ops::Range;

use crate::base::chars;
use crate::http::fields::Fields;
use crate::http::list;

/// The parts of a representation that a request selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// All of it: no range was requested, or the field has to be ignored.
    Whole,
    /// This part; never empty, never past the end.
    One(Range<u64>),
    /// These parts, in the order asked for; at least two and at most [`RANGES_MAX`], none empty,
    /// none past the end, no two overlapping or touching.
    Many(Vec<Range<u64>>),
    /// Valid, but no part of it exists: 416.
    Unsatisfiable,
}

/// The parts that the `Range` of a request selects of a representation of this many bytes.
///
/// A doubled field is ignored, as is one that [`resolve`] does not understand. The caller checks
/// that the method is GET, and evaluates `If-Range`.
pub fn of(request: &Fields, length: u64) -> Ranges {
    let mut values = request.get_all("range");
    match (values.next(), values.next()) {
        (Some(value), None) => resolve(value, length),
        _ => Ranges::Whole,
    }
}

/// The parts that a value of `Range` selects of a representation of this many bytes.
///
/// Parts that overlap or touch become one (section 15.3.7.2), so that no byte is sent twice.
/// Another unit than bytes, bad syntax, more than [`SPECS_MAX`] parts, or more than [`RANGES_MAX`]
/// after the joining, select the whole, as section 14.2 allows: an answer never has many more bytes
/// than the representation.
pub fn resolve(value: &[u8], length: u64) -> Ranges {
    let unit = value.get(..UNIT.len()).unwrap_or_default();
    if !chars::eq_ignore_case(unit, UNIT) {
        return Ranges::Whole;
    }
    let specs = value.get(UNIT.len()..).unwrap_or_default();
    let (mut found, mut n_specs) = (Vec::new(), 0);
    for spec in list::members(specs) {
        n_specs += 1;
        let Some(spec) = Spec::parse(spec).filter(|_| n_specs <= SPECS_MAX) else {
            return Ranges::Whole;
        };
        if let Some(range) = spec.within(length) {
            join(&mut found, range);
        }
    }
    if n_specs == 0 || found.len() > RANGES_MAX {
        return Ranges::Whole;
    }
    match found.as_slice() {
        // A suffix of an empty representation is all of it, and no part can express that.
        [] if length == 0 && list::members(specs).any(is_nonempty_suffix) => Ranges::Whole,
        [] => Ranges::Unsatisfiable,
        [range] => Ranges::One(range.clone()),
        _ => Ranges::Many(found),
    }
}

/// One part as a request asks for it, before the length is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spec {
    /// From this position to that one, both included and in this order.
    FromTo(u64, u64),
    /// From this position to the end.
    From(u64),
    /// This many last bytes; may be 0, which no representation satisfies.
    Last(u64),
}

impl Spec {
    /// The part that a request asks for, if it asks for one, in bytes, and in good form.
    pub fn of(request: &Fields) -> Option<Self> {
        let mut values = request.get_all("range");
        let (value, None) = (values.next()?, values.next()) else { return None };
        let (unit, specs) = value.split_at_checked(UNIT.len())?;
        let mut specs = list::members(specs);
        let (spec, None) = (specs.next()?, specs.next()) else { return None };
        Self::parse(spec).filter(|_| chars::eq_ignore_case(unit, UNIT))
    }

    /// The spec that selects these bytes, at least one, of this many.
    pub fn of_missing(range: &Range<u64>, length: u64) -> Self {
        match range.end == length {
            true => Self::From(range.start),
            false => Self::FromTo(range.start, range.end.saturating_sub(1)),
        }
    }

    /// The bytes that it selects of this many.
    pub fn within(self, length: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::FromTo(first, last) => first..last.saturating_add(1).min(length),
            Self::From(first) => first..length,
            Self::Last(n) => length.saturating_sub(n)..length,
        };
        (range.start < range.end).then_some(range)
    }

    /// The value of a `Range` with this spec alone.
    pub fn text(self) -> String {
        match self {
            Self::FromTo(first, last) => format!("bytes={first}-{last}"),
            Self::From(first) => format!("bytes={first}-"),
            Self::Last(n) => format!("bytes=-{n}"),
        }
    }

    fn parse(spec: &[u8]) -> Option<Self> {
        let (first, last) = spec.split_at_checked(memchr::memchr(b'-', spec)?)?;
        match (position(first), position(last.get(1..)?)) {
            (Position::At(first), Position::At(last)) if first <= last => {
                Some(Self::FromTo(first, last))
            }
            (Position::At(first), Position::Empty) => Some(Self::From(first)),
            (Position::Empty, Position::At(n)) => Some(Self::Last(n)),
            _ => None,
        }
    }
}

/// Inserts a part among those found before, joined with all that it overlaps or touches, at the
/// place of the first of them.
fn join(found: &mut Vec<Range<u64>>, mut range: Range<u64>) {
    let mut at = found.len();
    while let Some(other) =
        found.iter().position(|other| range.start <= other.end && other.start <= range.end)
    {
        let old = found.remove(other);
        at = at.min(other).min(found.len());
        range = range.start.min(old.start)..range.end.max(old.end);
    }
    found.insert(at, range);
}

/// `-n` with n over 0.
fn is_nonempty_suffix(spec: &[u8]) -> bool {
    matches!(Spec::parse(spec), Some(Spec::Last(1..)))
}

enum Position {
    Empty,
    At(u64),
    Bad,
}

/// A number of any length; one that does not fit 64 bits is past every end, too.
fn position(digits: &[u8]) -> Position {
    if digits.is_empty() {
        return Position::Empty;
    }
    if !digits.iter().all(u8::is_ascii_digit) {
        return Position::Bad;
    }
    let n_zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    match digits.get(n_zeros..).unwrap_or_default() {
        [] => Position::At(0),
        digits => Position::At(chars::parse_decimal(digits).unwrap_or(u64::MAX)),
    }
}

const UNIT: &[u8] = b"bytes=";

/// The limit of parts in an answer.
pub const RANGES_MAX: usize = 16;

/// The limit of parts in a request, before overlapping ones are joined.
pub const SPECS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_resolved_against_the_length() {
        use Ranges::{Many, One, Unsatisfiable, Whole};
        let table: [(&str, u64, Ranges); 48] = [
            ("bytes=0-0", 10, One(0..1)),
            ("bytes=0-499", 1000, One(0..500)),
            ("bytes=500-", 1000, One(500..1000)),
            ("bytes=-500", 1000, One(500..1000)),
            ("bytes=-5000", 1000, One(0..1000)),
            ("bytes=0-", 10, One(0..10)),
            ("bytes=5-99", 10, One(5..10)),
            ("Bytes=5-6", 10, One(5..7)),
            ("bytes= 5-6 ", 10, One(5..7)),
            ("bytes=,5-6,", 10, One(5..7)),
            ("bytes=0-99999999999999999999999", 10, One(0..10)),
            ("bytes=-99999999999999999999999", 10, One(0..10)),
            ("bytes=0000000000000000000000005-6", 10, One(5..7)),
            ("bytes=0-18446744073709551615", 10, One(0..10)),
            ("bytes=0-0,-1", 10, Many(vec![0..1, 9..10])),
            ("bytes=5-6, 0-1", 10, Many(vec![5..7, 0..2])),
            ("bytes=0-1,2-3", 10, One(0..4)),
            ("bytes=0-1,1-2", 10, One(0..3)),
            ("bytes=0-,0-", 10, One(0..10)),
            ("bytes=0-,-1,5-6", 10, One(0..10)),
            ("bytes=8-9,0-1,4-5,1-4", 10, Many(vec![8..10, 0..6])),
            ("bytes=4-5,0-1,8-9,2-3", 10, Many(vec![0..6, 8..10])),
            ("bytes=0-1,3-4,3-4", 10, Many(vec![0..2, 3..5])),
            ("bytes=0-1,20-30", 10, One(0..2)),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=10-20", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=99999999999999999999999-", 10, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=-0", 0, Unsatisfiable),
            ("bytes=-5", 0, Whole),
            ("bytes=", 10, Whole),
            ("bytes=,", 10, Whole),
            ("bytes", 10, Whole),
            ("bytes 0-1", 10, Whole),
            ("bytes:0-1", 10, Whole),
            ("lines=0-1", 10, Whole),
            ("bytes=5-4", 10, Whole),
            ("bytes=0-1,5-4", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=--5", 10, Whole),
            ("bytes=5", 10, Whole),
            ("bytes=a-b", 10, Whole),
            ("bytes=+1-2", 10, Whole),
            ("bytes=1 - 2", 10, Whole),
            ("bytes=0x1-2", 10, Whole),
            ("bytes=1-2-3", 10, Whole),
            ("", 10, Whole),
        ];
        for (value, length, expected) in table {
            assert_eq!(resolve(value.as_bytes(), length), expected, "{value} of {length}");
        }
    }

    #[test]
    fn too_many_parts_select_the_whole() {
        let parts =
            |n: u64| (0..n).map(|i| format!("{0}-{0}", i * 2)).collect::<Vec<_>>().join(",");
        let resolve = |n| resolve(format!("bytes={}", parts(n)).as_bytes(), 1000);
        assert!(matches!(resolve(16), Ranges::Many(found) if found.len() == 16));
        assert_eq!(resolve(17), Ranges::Whole);
    }

    #[test]
    fn a_request_with_thousands_of_parts_is_not_even_read_to_its_end() {
        let same = |n: usize| format!("bytes={}", vec!["0-"; n].join(","));
        assert_eq!(resolve(same(SPECS_MAX).as_bytes(), 10), Ranges::One(0..10));
        assert_eq!(resolve(same(SPECS_MAX + 1).as_bytes(), 10), Ranges::Whole);
    }

    #[test]
    fn a_doubled_field_is_ignored() {
        let mut request: Fields = [("Range", "bytes=0-1")].into_iter().collect();
        assert_eq!(of(&request, 10), Ranges::One(0..2));
        request.push(b"range", b"bytes=2-3");
        assert_eq!(of(&request, 10), Ranges::Whole);
        assert_eq!(of(&Fields::new(), 10), Ranges::Whole);
    }

    #[test]
    fn a_single_part_is_known_before_the_length() {
        let spec = |value: &str| Spec::of(&[("Range", value)].into_iter().collect());
        assert_eq!(spec("bytes=1-2"), Some(Spec::FromTo(1, 2)));
        assert_eq!(spec("BYTES=1-"), Some(Spec::From(1)));
        assert_eq!(spec("bytes=, -5"), Some(Spec::Last(5)));
        for value in ["bytes=1-2,5-6", "bytes=2-1", "lines=1-2", "bytes=", "bytes", "", "bytes=-"] {
            assert_eq!(spec(value), None, "{value}");
        }
        for text in ["bytes=1-2", "bytes=1-", "bytes=-5"] {
            assert_eq!(spec(text).map(Spec::text).as_deref(), Some(text));
        }
        assert_eq!(Spec::Last(0).within(10), None);
        assert_eq!(Spec::Last(3).within(10), Some(7..10));
    }

    proptest! {
        #[test]
        fn found_parts_exist(
            value in "bytes=[0-9, -]{0,40}",
            length in prop_oneof![0u64..30, any::<u64>()],
        ) {
            let is_good = |range: &Range<u64>| range.start < range.end && range.end <= length;
            match resolve(value.as_bytes(), length) {
                Ranges::One(range) => prop_assert!(is_good(&range)),
                Ranges::Many(found) => {
                    prop_assert!(found.len() > 1 && found.iter().all(is_good));
                    let sum: u64 = found.iter().map(|range| range.end - range.start).sum();
                    prop_assert!(sum <= length);
                    for (at, one) in found.iter().enumerate() {
                        let is_apart =
                            |other: &Range<u64>| one.end < other.start || other.end < one.start;
                        prop_assert!(found.iter().skip(at + 1).all(is_apart), "{:?}", found);
                    }
                }
                Ranges::Whole | Ranges::Unsatisfiable => {}
            }
        }

        #[test]
        fn nothing_panics(value in proptest::collection::vec(any::<u8>(), 0..40), length in any::<u64>()) {
            let _ = resolve(&value, length);
            let _ = resolve(&[UNIT, &value].concat(), length);
        }
    }
}
