//! The list of the stored parts of a representation (RFC 9111 section 3.3).
//!
//! It is stored itself, as readable text:
//!
//! ```text
//! length 1000
//! 0-499 1f3a
//! 700-999 1f3c
//! ```

use std::io::Write as _;
use std::ops::Range;

use crate::base::chars;
use crate::http::range::Spec;

/// The most stored parts of a representation.
pub const PARTS_MAX: usize = 64;

/// The most bytes that [`PartList::encode`] writes.
pub const LIST_BYTES_MAX: usize = 64 + PARTS_MAX * 64;

/// A stored part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPart {
    /// Its bytes, at least one.
    pub range: Range<u64>,
    /// The unique number of its file.
    pub id: u64,
}

/// The stored parts of a representation: at least one and at most [`PARTS_MAX`], in the order of
/// their first bytes. They may overlap, but none is within another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartList {
    extent: Extent,
    parts: Vec<StoredPart>,
}

/// The end of a representation, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Its length in bytes.
    Length(u64),
    /// The length is not known, but the part runs to the end.
    ToEnd,
    /// Nothing.
    Open,
}

/// A stretch of a requested range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// These bytes are in a stored part.
    Stored {
        /// The bytes of the representation.
        range: Range<u64>,
        /// The number of the file.
        id: u64,
        /// The offset of the first byte in the part.
        at: u64,
    },
    /// These bytes are in no stored part.
    Missing(Range<u64>),
}

impl PartList {
    /// A list of one part.
    pub fn new(extent: Extent, part: StoredPart) -> Self {
        Self { extent, parts: vec![part] }
    }

    /// The length of the representation, if it is known.
    pub fn length(&self) -> Option<u64> {
        match self.extent {
            Extent::Length(length) => Some(length),
            Extent::ToEnd | Extent::Open => None,
        }
    }

    /// The parts, in the order of their first bytes.
    pub fn parts(&self) -> &[StoredPart] {
        &self.parts
    }

    /// Whether the parts have every byte.
    pub fn is_whole(&self) -> bool {
        self.length().is_some_and(|length| self.first_missing(&(0..length)).is_none())
    }

    /// Adds a part, and gives out those that are of no use any longer: parts within the new one, or
    /// the smallest of too many. If the new part is within a stored one, it is given out itself.
    /// All must be parts of the same representation, of known length.
    pub fn add(&mut self, part: StoredPart) -> Vec<StoredPart> {
        let is_within = |inner: &Range<u64>, outer: &Range<u64>| {
            outer.start <= inner.start && inner.end <= outer.end
        };
        if self.parts.iter().any(|old| is_within(&part.range, &old.range)) {
            return vec![part];
        }
        let (mut out, mut rest): (Vec<_>, Vec<_>) =
            self.parts.drain(..).partition(|old| is_within(&old.range, &part.range));
        let at = rest.partition_point(|old| old.range.start < part.range.start);
        rest.insert(at, part);
        while rest.len() > PARTS_MAX
            && let Some((smallest, _)) =
                rest.iter().enumerate().min_by_key(|(_, it)| it.range.end - it.range.start)
        {
            out.push(rest.remove(smallest));
        }
        self.parts = rest;
        out
    }

    /// Removes the part of a file that is gone.
    pub fn remove(&mut self, id: u64) {
        self.parts.retain(|part| part.id != id);
    }

    /// The stretches of this range, in order.
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

    /// The first stretch of a range that is in no stored part.
    pub fn first_missing(&self, range: &Range<u64>) -> Option<Range<u64>> {
        self.missing(range).next()
    }

    /// All that is missing around this byte of a representation of known length.
    pub fn missing_at(&self, at: u64) -> Option<Range<u64>> {
        self.missing(&(0..self.length()?)).find(|missing| missing.contains(&at))
    }

    fn missing(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
        self.stretches(range).into_iter().filter_map(|stretch| match stretch {
            Stretch::Missing(missing) => Some(missing),
            Stretch::Stored { .. } => None,
        })
    }

    /// The range for validating the parts: the beginning of the first part, at most `bytes_max`
    /// bytes and at least one.
    pub fn sample(&self, bytes_max: u64) -> Option<Spec> {
        let Range { start, end } = self.parts.first()?.range;
        let end = end.min(start.saturating_add(bytes_max.max(1)));
        Some(Spec::FromTo(start, end - 1))
    }

    /// The requested range of a representation of unknown length, if its one part has all of it
    /// (RFC 9111 section 3.3).
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

    /// Reads what [`PartList::encode`] writes; `None` for other text.
    pub fn decode(text: &[u8]) -> Option<Self> {
        let mut lines = str::from_utf8(text).ok()?.strip_suffix('\n')?.split('\n');
        let extent = match lines.next()? {
            "to the end" => Extent::ToEnd,
            "open" => Extent::Open,
            line => Extent::Length(chars::parse_decimal(line.strip_prefix("length ")?.as_bytes())?),
        };
        let mut parts: Vec<StoredPart> = Vec::new();
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
            parts.push(StoredPart { range: first..end, id: u64::from_str_radix(id, 16).ok()? });
        }
        let is_right_number = match extent {
            Extent::Length(_) => !parts.is_empty(),
            Extent::ToEnd | Extent::Open => parts.len() == 1,
        };
        is_right_number.then_some(Self { extent, parts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(length: u64, ranges: &[Range<u64>]) -> PartList {
        let mut parts =
            (1..).zip(ranges).map(|(id, range)| StoredPart { range: range.clone(), id });
        let mut list = PartList::new(Extent::Length(length), parts.next().unwrap());
        for part in parts {
            list.add(part);
        }
        list
    }

    #[test]
    fn what_is_missing_is_between_the_parts() {
        let parts = list(100, &[10..20, 40..60]);
        let missing = |range: Range<u64>| parts.first_missing(&range);
        assert_eq!(missing(12..18), None);
        assert_eq!(missing(0..100), Some(0..10));
        assert_eq!(missing(10..100), Some(20..40));
        assert_eq!(missing(15..35), Some(20..35));
        assert_eq!(missing(60..61), Some(60..61));
        assert_eq!(
            parts.stretches(&(15..50)),
            [
                Stretch::Stored { range: 15..20, id: 1, at: 5 },
                Stretch::Missing(20..40),
                Stretch::Stored { range: 40..50, id: 2, at: 0 },
            ]
        );
        assert!(!parts.is_whole());
        assert!(list(60, &[10..60, 0..15]).is_whole());
    }

    #[test]
    fn a_part_within_another_is_given_out() {
        let mut parts = list(100, &[10..20, 30..40]);
        let part = |range, id| StoredPart { range, id };
        assert_eq!(parts.add(part(12..20, 3)), [part(12..20, 3)]);
        assert_eq!(parts.add(part(5..50, 4)), [part(10..20, 1), part(30..40, 2)]);
        assert_eq!(parts.parts(), [part(5..50, 4)]);
        parts.remove(4);
        assert_eq!(parts.first_missing(&(0..9)), Some(0..9));
    }

    #[test]
    fn the_number_of_parts_is_bounded() {
        let ranges: Vec<_> = (0..PARTS_MAX as u64).map(|n| n * 10..n * 10 + 5).collect();
        let mut parts = list(1_000_000, &ranges);
        let out = parts.add(StoredPart { range: 900_000..900_001, id: 999 });
        assert_eq!(out, [StoredPart { range: 900_000..900_001, id: 999 }], "the smallest goes");
        let out = parts.add(StoredPart { range: 900_000..900_010, id: 999 });
        assert_eq!((out.len(), parts.parts().len()), (1, PARTS_MAX));
        let mut text = Vec::new();
        parts.encode(&mut text);
        assert!(text.len() <= LIST_BYTES_MAX);
    }

    #[test]
    fn a_part_of_unknown_length_answers_what_is_within_it() {
        let alone = |extent| PartList::new(extent, StoredPart { range: 4..9, id: 1 });
        let (open, to_end) = (alone(Extent::Open), alone(Extent::ToEnd));
        let cases = [
            (Spec::FromTo(6, 8), Some(6..9), Some(6..9)),
            (Spec::FromTo(4, 8), Some(4..9), Some(4..9)),
            (Spec::FromTo(3, 8), None, None),
            (Spec::FromTo(6, 9), None, Some(6..9)),
            (Spec::FromTo(9, 9), None, None),
            (Spec::From(6), None, Some(6..9)),
            (Spec::From(9), None, None),
            (Spec::Last(1), None, Some(8..9)),
            (Spec::Last(5), None, Some(4..9)),
            (Spec::Last(6), None, None),
            (Spec::Last(0), None, None),
        ];
        for (spec, if_open, if_to_end) in cases {
            assert_eq!(open.within_alone(spec), if_open, "{spec:?}");
            assert_eq!(to_end.within_alone(spec), if_to_end, "{spec:?}");
        }
    }

    #[test]
    fn a_sample_is_stored_and_bounded() {
        let parts = list(100, &[10..20, 30..70]);
        assert_eq!(parts.sample(100), Some(Spec::FromTo(10, 19)));
        assert_eq!(parts.sample(5), Some(Spec::FromTo(10, 14)));
        assert_eq!(parts.sample(0), Some(Spec::FromTo(10, 10)));
        assert_eq!(parts.sample(u64::MAX), Some(Spec::FromTo(10, 19)));
    }

    fn any_ranges() -> impl Strategy<Value = Vec<Range<u64>>> {
        proptest::collection::vec((0..200_u64, 1..30_u64), 1..80)
            .prop_map(|list| list.into_iter().map(|(first, len)| first..first + len).collect())
    }

    proptest! {
        #[test]
        fn bytes_are_stored_if_a_part_had_them(ranges in any_ranges(), asked in (0..230_u64, 1..50_u64)) {
            let mut parts = list(300, &ranges[..1]);
            let mut has_dropped = false;
            for (id, range) in (2..).zip(&ranges[1..]) {
                let n_before = parts.parts().len();
                let out = parts.add(StoredPart { range: range.clone(), id });
                has_dropped |= n_before == PARTS_MAX && out.len() == 1 && parts.parts().len() == PARTS_MAX;
            }
            let asked = asked.0..asked.0 + asked.1;
            let mut at = asked.start;
            for stretch in parts.stretches(&asked) {
                match stretch {
                    Stretch::Stored { range, id, at: offset } => {
                        prop_assert_eq!(range.start, at);
                        let part = parts.parts().iter().find(|part| part.id == id).unwrap();
                        prop_assert_eq!(part.range.start + offset, range.start);
                        prop_assert!(range.end <= part.range.end);
                        let added = &ranges[id as usize - 1];
                        prop_assert_eq!(added, &part.range);
                        at = range.end;
                    }
                    Stretch::Missing(range) => {
                        prop_assert_eq!(range.start, at);
                        for byte in range.clone() {
                            prop_assert!(has_dropped || !ranges.iter().any(|it| it.contains(&byte)));
                        }
                        at = range.end;
                    }
                }
            }
            prop_assert_eq!(at, asked.end);
        }

        #[test]
        fn a_list_reads_back(ranges in any_ranges()) {
            let parts = list(300, &ranges);
            let mut text = Vec::new();
            parts.encode(&mut text);
            prop_assert_eq!(PartList::decode(&text), Some(parts));
            for cut in 0..text.len() {
                if let Some(read) = PartList::decode(&text[..cut]) {
                    prop_assert!(read.parts().len() < ranges.len());
                }
            }
        }

        #[test]
        fn no_text_panics(text in "(length [0-9]{1,21}|open|to the end)?\n([0-9]{0,21}-[0-9]{0,20} ?[0-9a-g]{0,17}\n){0,3}") {
            if let Some(read) = PartList::decode(text.as_bytes()) {
                let _ = (read.is_whole(), read.stretches(&(0..u64::MAX)), read.within_alone(Spec::Last(3)));
            }
        }
    }
}
