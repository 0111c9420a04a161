//! `Range` and `Content-Range` in bytes (RFC 9110 section 14).

use std::ops::Range;

use crate::base::chars;
use crate::http::fields::Fields;
use crate::http::list;

/// The parts of a representation that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// All of it: nothing else was asked for, or not in a way that is to be heeded.
    Whole,
    /// This part; never empty, never past the end.
    One(Range<u64>),
    /// These parts, in the order asked for; none empty, none past the end, none overlapping.
    Many(Vec<Range<u64>>),
    /// Well asked for, but nothing of it exists: 416.
    Unsatisfiable,
}

/// What the `Range` of a request means for a representation of this many bytes.
///
/// A doubled field is ignored, as is anything that [`resolve`] does not understand. That the
/// method is GET, and what `If-Range` says, is for the caller to see to.
pub fn of(request: &Fields, length: u64) -> Ranges {
    let mut values = request.get_all("range");
    match (values.next(), values.next()) {
        (Some(value), None) => resolve(value, length),
        _ => Ranges::Whole,
    }
}

/// What a value of `Range` means for a representation of this many bytes.
///
/// Another unit than bytes, bad syntax, more than 16 parts, or parts that overlap (RFC 9110
/// section 14.2 allows to ignore those) mean the whole.
pub fn resolve(value: &[u8], length: u64) -> Ranges {
    let unit = value.get(..UNIT.len()).unwrap_or_default();
    if !chars::eq_ignore_case(unit, UNIT) {
        return Ranges::Whole;
    }
    let specs = value.get(UNIT.len()..).unwrap_or_default();
    let (mut found, mut n_specs) = (Vec::new(), 0);
    for spec in list::members(specs) {
        n_specs += 1;
        match resolve_one(spec, length) {
            _ if n_specs > RANGES_MAX => return Ranges::Whole,
            Resolved::Bad => return Ranges::Whole,
            Resolved::Nothing => {}
            Resolved::Part(range) => found.push(range),
        }
    }
    let overlaps = |(i, one): (usize, &Range<u64>)| {
        found.iter().skip(i + 1).any(|other| one.start < other.end && other.start < one.end)
    };
    if n_specs == 0 || found.iter().enumerate().any(overlaps) {
        return Ranges::Whole;
    }
    match found.as_slice() {
        // Of nothing, the last bytes are nothing: that is the whole, and no part can say it.
        [] if length == 0 && list::members(specs).any(is_some_suffix) => Ranges::Whole,
        [] => Ranges::Unsatisfiable,
        [range] => Ranges::One(range.clone()),
        _ => Ranges::Many(found),
    }
}

/// `Content-Range` of a part; the range must not be empty.
pub fn content_range(range: &Range<u64>, length: u64) -> String {
    debug_assert!(range.start < range.end, "an empty part cannot be said");
    format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1))
}

/// `Content-Range` of a 416.
pub fn content_range_unsatisfied(length: u64) -> String {
    format!("bytes */{length}")
}

enum Resolved {
    Bad,
    /// Good, but beyond the end.
    Nothing,
    Part(Range<u64>),
}

fn resolve_one(spec: &[u8], length: u64) -> Resolved {
    let Some(dash) = memchr::memchr(b'-', spec) else { return Resolved::Bad };
    let (first, last) = spec.split_at_checked(dash).unwrap_or_default();
    let last = last.get(1..).unwrap_or_default();
    let range = match (position(first), position(last)) {
        (Position::At(first), Position::At(last)) if first <= last => {
            first..last.saturating_add(1).min(length)
        }
        (Position::At(first), Position::Empty) => first..length,
        (Position::Empty, Position::At(n_last)) => length.saturating_sub(n_last)..length,
        _ => return Resolved::Bad,
    };
    if range.is_empty() { Resolved::Nothing } else { Resolved::Part(range) }
}

/// `-n` with n over 0.
fn is_some_suffix(spec: &[u8]) -> bool {
    spec.strip_prefix(b"-").is_some_and(|digits| matches!(position(digits), Position::At(1..)))
}

enum Position {
    Empty,
    At(u64),
    Bad,
}

/// A number of any length; beyond what 64 bits hold it is beyond every end, too.
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

/// More parts than anybody has a use for.
const RANGES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_resolved_against_the_length() {
        use Ranges::{Many, One, Unsatisfiable, Whole};
        let table: [(&str, u64, Ranges); 44] = [
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
            ("bytes=0-1,2-3", 10, Many(vec![0..2, 2..4])),
            ("bytes=0-1,20-30", 10, One(0..2)),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=10-20", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=99999999999999999999999-", 10, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=-0", 0, Unsatisfiable),
            ("bytes=-5", 0, Whole),
            ("bytes=0-1,1-2", 10, Whole),
            ("bytes=0-,0-", 10, Whole),
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
    fn too_many_parts_are_the_whole() {
        let parts =
            |n: u64| (0..n).map(|i| format!("{0}-{0}", i * 2)).collect::<Vec<_>>().join(",");
        let resolve = |n| resolve(format!("bytes={}", parts(n)).as_bytes(), 1000);
        assert!(matches!(resolve(16), Ranges::Many(found) if found.len() == 16));
        assert_eq!(resolve(17), Ranges::Whole);
    }

    #[test]
    fn a_doubled_field_says_nothing() {
        let mut request: Fields = [("Range", "bytes=0-1")].into_iter().collect();
        assert_eq!(of(&request, 10), Ranges::One(0..2));
        request.push(b"range", b"bytes=2-3");
        assert_eq!(of(&request, 10), Ranges::Whole);
        assert_eq!(of(&Fields::new(), 10), Ranges::Whole);
    }

    #[test]
    fn parts_say_where_they_are() {
        assert_eq!(content_range(&(0..5), 10), "bytes 0-4/10");
        assert_eq!(content_range_unsatisfied(10), "bytes */10");
    }

    proptest! {
        #[test]
        fn what_is_found_exists(
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
