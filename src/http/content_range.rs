//! Where a part lies in its whole: `Content-Range` in bytes (RFC 9110 section 14.4).

use std::ops::Range;

use crate::base::chars;
use crate::http::fields::Fields;

/// The position of a part in its whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The bytes of the part; never empty, and within the whole as far as its length is known.
    pub range: Range<u64>,
    /// How many bytes the whole has; `None` where it says `*`.
    pub complete: Option<u64>,
}

impl ContentRange {
    /// The value in a 206 with a single part; `None` if it is missing, doubled, of another unit, or
    /// invalid: such a part must not be combined with others (section 14.4).
    pub fn of(response: &Fields) -> Option<Self> {
        let mut values = response.get_all("content-range");
        match (values.next(), values.next()) {
            (Some(value), None) => Self::parse(value),
            _ => None,
        }
    }

    /// Reads `bytes 0-4/10`.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (unit, rest) = value.split_at_checked(UNIT.len())?;
        let (range, complete) = rest.split_at_checked(memchr::memchr(b'/', rest)?)?;
        let (first, last) = range.split_at_checked(memchr::memchr(b'-', range)?)?;
        let first = chars::parse_decimal(first)?;
        let end = chars::parse_decimal(last.get(1..)?)?.checked_add(1)?;
        let complete = match complete.get(1..)? {
            b"*" => None,
            digits => Some(chars::parse_decimal(digits)?),
        };
        let is_valid = chars::eq_ignore_case(unit, UNIT)
            && first < end
            && complete.is_none_or(|complete| end <= complete);
        is_valid.then_some(Self { range: first..end, complete })
    }

    /// The value of the field.
    pub fn text(&self) -> String {
        let (first, last) = (self.range.start, self.range.end.saturating_sub(1));
        match self.complete {
            Some(complete) => format!("bytes {first}-{last}/{complete}"),
            None => format!("bytes {first}-{last}/*"),
        }
    }
}

/// `Content-Range` of a 416: the length of the whole, of which no requested part exists.
pub fn unsatisfied(complete: u64) -> String {
    format!("bytes */{complete}")
}

const UNIT: &[u8] = b"bytes ";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_complete_and_possible_values_are_read() {
        let is = |range, complete| Some(ContentRange { range, complete });
        let table = [
            ("bytes 0-4/10", is(0..5, Some(10))),
            ("bytes 9-9/10", is(9..10, Some(10))),
            ("Bytes 0-4/*", is(0..5, None)),
            ("bytes 0-18446744073709551615/*", None),
            ("bytes 5-4/10", None),
            ("bytes 0-10/10", None),
            ("bytes */10", None),
            ("bytes 0-4", None),
            ("bytes 0-4/", None),
            ("bytes -4/10", None),
            ("bytes 0-/10", None),
            ("bytes=0-4/10", None),
            ("bytes 0-4/10, bytes 5-9/10", None),
            ("bytes 0-4/+10", None),
            ("lines 0-4/10", None),
            ("", None),
        ];
        for (value, expected) in table {
            assert_eq!(ContentRange::parse(value.as_bytes()), expected, "{value}");
        }
        let twice: Fields = [("Content-Range", "bytes 0-4/10"), ("content-range", "bytes 0-4/10")]
            .into_iter()
            .collect();
        assert_eq!(ContentRange::of(&twice), None);
        assert_eq!(unsatisfied(10), "bytes */10");
    }

    proptest! {
        #[test]
        fn written_values_read_back(first in 0..1u64 << 60, len in 1..1u64 << 60, more: Option<u32>) {
            let end = first + len;
            let complete = more.map(|more| end + u64::from(more));
            let part = ContentRange { range: first..end, complete };
            prop_assert_eq!(ContentRange::parse(part.text().as_bytes()), Some(part));
        }

        #[test]
        fn nothing_panics(value in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = ContentRange::parse(&value);
            let _ = ContentRange::parse(&[UNIT, &value].concat());
        }
    }
}
