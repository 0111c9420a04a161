//! The fields of a head: an ordered list of names and values in one buffer.
//!
//! All lines live in one byte buffer as they go over the wire (`name: value\r\n`), with a small
//! table of where each is: two allocations, a cheap clone, and a write that is one copy as long as
//! nothing was removed. Names keep the case they came in and are compared without regard to it.
//! Nothing that is pushed can break out of its line: CR, LF and NUL become spaces, as RFC 9110
//! section 5.5 asks.

use std::fmt;
use std::ops::Range;

use crate::base::chars;
use crate::http::list;

/// An ordered list of fields.
///
/// At most 4 GiB of lines; fields beyond that are dropped. Heads are limited to a tiny part of that
/// long before.
#[derive(Clone, Default)]
pub struct Fields {
    /// The lines, and gaps where lines were removed.
    bytes: Vec<u8>,
    lines: Vec<Line>,
    /// Whether `bytes` differs from the lines written one after the other.
    is_scattered: bool,
    /// The sum of the lines' lengths.
    wire_len: u32,
}

impl Fields {
    /// No fields; allocates nothing.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), lines: Vec::new(), is_scattered: false, wire_len: 0 }
    }

    /// No fields, but room for this many with this many bytes as written.
    pub fn with_capacity(n_fields: usize, n_bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(n_bytes),
            lines: Vec::with_capacity(n_fields),
            ..Self::new()
        }
    }

    /// Takes fields that were parsed out of `block`: each name and value is a slice of it.
    ///
    /// A block that is already in the stored form is copied in one go.
    pub(crate) fn from_parsed<'a>(
        block: &[u8],
        parsed: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    ) -> Self {
        let mut fields = Self::with_capacity(parsed.len(), block.len());
        if fields.copy_block(block, parsed.clone()).is_none() {
            fields.lines.clear();
            parsed.for_each(|(name, value)| fields.push(name, value));
        }
        fields
    }

    /// Appends a field; the name should be a token.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_parts(name, &[value]);
    }

    /// Appends a field; its value is the concatenation of these parts.
    pub fn push_parts(&mut self, name: &[u8], value: &[&[u8]]) {
        if let Some(line) = self.append(name, value) {
            self.lines.push(line);
            self.wire_len += line.len;
        }
    }

    /// Replaces the fields with a name of `new` by those of `new`.
    pub fn replace_by(&mut self, new: &Self) {
        self.retain(|name, _| !new.iter().any(|(other, _)| chars::eq_ignore_case(name, other)));
        self.append_from(new, |_, _| true);
    }

    /// Appends the fields of another list for which `keep` is true of name and value.
    pub fn append_from(&mut self, other: &Self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        for line in &other.lines {
            let name = part(&other.bytes, line.name());
            if keep(name, other.value(*line)) {
                let Some(new) = Line::of(self.bytes.len(), name.len(), line.value().len()) else {
                    return;
                };
                self.bytes.extend_from_slice(part(&other.bytes, line.all()));
                self.lines.push(new);
                self.wire_len += new.len;
            }
        }
    }

    /// Replaces the first field of this name by this value, and removes the others.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        let place = self.lines.iter().position(|line| self.has_name(*line, name.as_bytes()));
        self.remove(name);
        let Some(line) = self.append(name.as_bytes(), &[value]) else { return };
        let place = place.unwrap_or(self.lines.len()).min(self.lines.len());
        self.is_scattered |= place < self.lines.len();
        self.lines.insert(place, line);
        self.wire_len += line.len;
    }

    /// Removes every field of this name.
    pub fn remove(&mut self, name: &str) {
        if self.contains(name) {
            self.retain(|field, _| !chars::eq_ignore_case(field, name.as_bytes()));
        }
    }

    /// Keeps the fields for which `keep` is true of name and value, in their order.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let n_before = self.lines.len();
        let (bytes, wire_len) = (&self.bytes, &mut self.wire_len);
        self.lines.retain(|line| {
            let keeps = keep(part(bytes, line.name()), part(bytes, line.value()));
            *wire_len -= if keeps { 0 } else { line.len };
            keeps
        });
        self.is_scattered |= self.lines.len() < n_before;
    }

    /// Names and values in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> + Clone {
        self.lines.iter().map(|line| (part(&self.bytes, line.name()), self.value(*line)))
    }

    /// The value of the first field of this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.get_all(name).next()
    }

    /// The values of the fields of this name, in their order.
    pub fn get_all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> + Clone {
        let named = move |line: &&Line| self.has_name(**line, name.as_bytes());
        self.lines.iter().filter(named).map(|line| self.value(*line))
    }

    /// Whether there is a field of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// How many fields have this name.
    pub fn count(&self, name: &str) -> usize {
        self.get_all(name).count()
    }

    /// The members of the comma-separated list that all fields of this name make together
    /// (RFC 9110 section 5.6.1): trimmed, empty ones left out, commas within quotes kept.
    pub fn list<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.get_all(name).flat_map(list::members)
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// How many bytes [`Fields::write_to`] appends.
    pub fn wire_len(&self) -> usize {
        self.wire_len as usize
    }

    /// Appends every field as `name: value\r\n`.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        if !self.is_scattered {
            return out.extend_from_slice(&self.bytes);
        }
        out.reserve(self.wire_len());
        for line in &self.lines {
            out.extend_from_slice(part(&self.bytes, line.all()));
        }
    }

    fn copy_block<'a>(
        &mut self,
        block: &[u8],
        parsed: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Option<()> {
        let mut at = 0usize;
        for (name, value) in parsed {
            let line = Line::of(at, name.len(), value.len())?;
            let all = block.get(line.all())?;
            let is_here = all.as_ptr() == name.as_ptr()
                && all.get(name.len()..)?.as_ptr().wrapping_add(COLON.len()) == value.as_ptr()
                && all.get(name.len()..)?.starts_with(COLON)
                && all.ends_with(CRLF);
            if !is_here {
                return None;
            }
            at += all.len();
            self.lines.push(line);
        }
        if at != block.len() {
            return None;
        }
        self.wire_len = u32::try_from(at).ok()?;
        self.bytes.extend_from_slice(block);
        Some(())
    }

    fn append(&mut self, name: &[u8], value: &[&[u8]]) -> Option<Line> {
        debug_assert!(chars::is_token(name), "a field's name is a token");
        let value_len = value.iter().map(|part| part.len()).sum();
        let line = Line::of(self.bytes.len(), name.len(), value_len)?;
        self.bytes.reserve(line.len as usize);
        let from = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(COLON);
        value.iter().for_each(|part| self.bytes.extend_from_slice(part));
        clean(self.bytes.get_mut(from..).unwrap_or_default());
        self.bytes.extend_from_slice(CRLF);
        Some(line)
    }

    fn has_name(&self, line: Line, name: &[u8]) -> bool {
        line.name_len as usize == name.len()
            && chars::eq_ignore_case(part(&self.bytes, line.name()), name)
    }

    fn value(&self, line: Line) -> &[u8] {
        part(&self.bytes, line.value())
    }
}

/// The same fields in the same order, names in the same case.
impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.wire_len == other.wire_len && self.iter().eq(other.iter())
    }
}

impl Eq for Fields {}

impl fmt::Debug for Fields {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        out.debug_list()
            .entries(self.iter().map(|(name, value)| (text(name), text(value))))
            .finish()
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, V)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut fields = Self::new();
        pairs.into_iter().for_each(|(name, value)| fields.push(name.as_ref(), value.as_ref()));
        fields
    }
}

/// Where a line is in the buffer.
#[derive(Clone, Copy)]
struct Line {
    at: u32,
    name_len: u32,
    /// Of the whole line with its colon, its space and its end.
    len: u32,
}

impl Line {
    fn of(at: usize, name_len: usize, value_len: usize) -> Option<Self> {
        let len = name_len.checked_add(value_len)?.checked_add(COLON.len() + CRLF.len())?;
        u32::try_from(at.checked_add(len)?).ok()?;
        Some(Self { at: at as u32, name_len: name_len as u32, len: len as u32 })
    }

    fn name(self) -> Range<usize> {
        self.at as usize..(self.at + self.name_len) as usize
    }

    fn value(self) -> Range<usize> {
        self.name().end + COLON.len()..self.all().end - CRLF.len()
    }

    fn all(self) -> Range<usize> {
        self.at as usize..(self.at + self.len) as usize
    }
}

fn part(bytes: &[u8], range: Range<usize>) -> &[u8] {
    bytes.get(range).unwrap_or_default()
}

/// Replaces octets that would break out of a line by spaces.
fn clean(line: &mut [u8]) {
    // Without an early end, so that the compiler compares many bytes at once.
    let breaks_line = |octet: u8| matches!(octet, b'\r' | b'\n' | 0);
    if line.iter().fold(false, |found, octet| found | breaks_line(*octet)) {
        line.iter_mut().filter(|octet| breaks_line(**octet)).for_each(|octet| *octet = b' ');
    }
}

const COLON: &[u8] = b": ";
const CRLF: &[u8] = b"\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(fields: &Fields) -> String {
        let mut out = Vec::new();
        fields.write_to(&mut out);
        assert_eq!(out.len(), fields.wire_len());
        String::from_utf8(out).unwrap()
    }

    fn sample() -> Fields {
        [("Host", "a"), ("Accept", "x, y"), ("ACCEPT", "z"), ("Empty", "")].into_iter().collect()
    }

    #[test]
    fn fields_are_found_in_any_case() {
        let fields = sample();
        assert_eq!(fields.get("accept"), Some(&b"x, y"[..]));
        assert_eq!(fields.get_all("Accept").collect::<Vec<_>>(), [&b"x, y"[..], b"z"]);
        assert_eq!(fields.list("accept").collect::<Vec<_>>(), [&b"x"[..], b"y", b"z"]);
        assert_eq!((fields.count("accept"), fields.len()), (2, 4));
        assert_eq!(fields.get("empty"), Some(&b""[..]));
        assert_eq!(fields.get("accep"), None);
    }

    #[test]
    fn fields_are_written_in_order_and_in_their_case() {
        let text = "Host: a\r\nAccept: x, y\r\nACCEPT: z\r\nEmpty: \r\n";
        assert_eq!(written(&sample()), text);
    }

    #[test]
    fn set_takes_the_place_of_the_first() {
        let mut fields = sample();
        fields.set("accept", b"w");
        assert_eq!(written(&fields), "Host: a\r\naccept: w\r\nEmpty: \r\n");
        fields.set("new", b"1");
        assert_eq!(written(&fields), "Host: a\r\naccept: w\r\nEmpty: \r\nnew: 1\r\n");
        fields.set("HOST", b"b");
        assert_eq!(written(&fields), "HOST: b\r\naccept: w\r\nEmpty: \r\nnew: 1\r\n");
    }

    #[test]
    fn no_value_breaks_out_of_its_line() {
        let mut fields = Fields::new();
        fields.push(b"a", b"b\r\nc: d\0");
        assert_eq!(written(&fields), "a: b  c: d \r\n");
    }

    #[test]
    fn a_removed_field_is_gone_for_good() {
        let mut fields = sample();
        fields.remove("ACCEPT");
        assert_eq!(written(&fields), "Host: a\r\nEmpty: \r\n");
        fields.push(b"Last", b"1");
        assert_eq!(written(&fields), "Host: a\r\nEmpty: \r\nLast: 1\r\n");
        assert_eq!(fields.clone(), fields);
        assert_ne!(fields, sample());
    }

    #[test]
    fn fields_are_taken_over_one_by_one() {
        let mut source = sample();
        source.set("host", b"b");
        let mut fields = Fields::new();
        fields.push_parts(b"First", &[b"1", b"", b"2"]);
        fields.append_from(&source, |name, value| name != b"ACCEPT" && !value.is_empty());
        assert_eq!(written(&fields), "First: 12\r\nhost: b\r\nAccept: x, y\r\n");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(u8, Vec<u8>),
        Set(u8, Vec<u8>),
        Remove(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let value = || proptest::collection::vec(0x20u8..0x7f, 0..9);
        prop_oneof![
            (0u8..4, value()).prop_map(|(name, value)| Step::Push(name, value)),
            (0u8..4, value()).prop_map(|(name, value)| Step::Set(name, value)),
            (0u8..4).prop_map(Step::Remove),
        ]
    }

    proptest! {
        /// A plain list of pairs is the model.
        #[test]
        fn fields_behave_as_a_list_of_pairs(steps in proptest::collection::vec(step(), 0..24)) {
            let names = ["a", "bb", "Ab", "c-d"];
            let mut fields = Fields::new();
            let mut model: Vec<(String, Vec<u8>)> = Vec::new();
            for step in steps {
                match step {
                    Step::Push(name, value) => {
                        let name = names[usize::from(name)];
                        fields.push(name.as_bytes(), &value);
                        model.push((name.to_owned(), value));
                    }
                    Step::Set(name, value) => {
                        let name = names[usize::from(name)];
                        fields.set(name, &value);
                        let place = model.iter().position(|(other, _)| other == name);
                        model.retain(|(other, _)| other != name);
                        model.insert(place.unwrap_or(model.len()), (name.to_owned(), value));
                    }
                    Step::Remove(name) => {
                        let name = names[usize::from(name)];
                        fields.remove(name);
                        model.retain(|(other, _)| other != name);
                    }
                }
                let mut expected = Vec::new();
                for (name, value) in &model {
                    expected.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
                }
                let mut out = Vec::new();
                fields.write_to(&mut out);
                prop_assert_eq!(&out, &expected);
                prop_assert_eq!(fields.wire_len(), expected.len());
            }
        }
    }
}
