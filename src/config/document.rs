//! The configuration's text as a tree; every key and value has its place.
//!
//! Only YAML itself is checked here: the tree is as lenient as the language, so that resolving can
//! report every mistake of a file at once, each with its line and column. A scalar stays the text
//! as written (`off` is not yet a switch, `08` not yet a number), and a duplicate key is kept
//! twice.
//!
//! Depth, aliases, nodes and the length of the text are bounded, so that no text takes more than a
//! moment or a few megabytes.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{DefaultMessageFormatter, MessageFormatter, Options, Spanned};

/// The length limit of a configuration, in bytes.
pub const TEXT_BYTES_MAX: usize = 8 << 20;

/// The depth limit of mappings and lists; ktrix's own keys need seven.
const DEPTH_MAX: usize = 24;

/// Nodes of one file, those that aliases repeat included.
const NODES_MAX: usize = 1 << 20;

/// The limit of nodes that aliases repeat.
const ALIAS_NODES_MAX: usize = 1 << 16;

/// A place in the text. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line; 0 where there is no text (the command line).
    pub line: u32,
    /// The column; 0 where there is no text.
    pub column: u32,
    /// The number of the file: 0, or that of an included one.
    pub file: u16,
}

impl Place {
    /// A place in the file that includes all others.
    pub const fn at(line: u32, column: u32) -> Self {
        Self { line, column, file: 0 }
    }
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where the value begins; for an empty value, where its key does.
    pub place: Place,
    /// The value.
    pub value: Value,
}

impl Node {
    /// Sets the file of all places in the tree.
    pub(crate) fn set_file(&mut self, file: u16) {
        self.place.file = file;
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.set_file(file)),
            Value::Map(entries) => entries.iter_mut().for_each(|entry| {
                entry.place.file = file;
                entry.node.set_file(file);
            }),
            Value::Empty | Value::Scalar(_) => {}
        }
    }
}

/// A value of YAML.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing after the colon, `~` or `null`.
    Empty,
    /// Text, a number or a switch, as written (without its quotes).
    Scalar(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the text; a key may occur twice.
    Map(Vec<Entry>),
}

/// A key of a mapping and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The place of the key.
    pub place: Place,
    /// Its value.
    pub node: Node,
}

/// A text that is not YAML, or exceeds a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// The place where the reader gave up.
    pub place: Place,
    /// The reason, in one line.
    pub message: String,
}

/// Reads one YAML document. A text without any is an empty value.
///
/// # Errors
/// The first place at which the text is not YAML, is nested too deeply, or repeats too much through
/// aliases; YAML cannot be read beyond it.
pub fn read(text: &str) -> Result<Node, SyntaxError> {
    let start = Place::at(1, 1);
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("the file is longer than {} MiB", TEXT_BYTES_MAX >> 20);
        return Err(SyntaxError { place: start, message });
    }
    if has_no_document(text) {
        return Ok(Node { place: start, value: Value::Empty });
    }
    // With "last wins", a mapping that is read key by key yields every duplicate, not only the
    // last.
    let mut node = match serde_saphyr::from_str_with_options::<Raw>(
        text,
        options(DuplicateKeyPolicy::LastWins),
    ) {
        Ok(raw) => raw.into_node(text),
        Err(error) => return Err(syntax_error(&error, text)),
    };
    if has_number_key(&node) {
        // After the first key that is a number, the reader yields only the last of each duplicate.
        if let Ok(raw) =
            serde_saphyr::from_str_with_options::<Raw>(text, options(DuplicateKeyPolicy::FirstWins))
        {
            restore(&mut node, raw.into_node(text));
        }
    }
    Ok(node)
}

/// Whether a key of any mapping in the tree begins as numbers do.
fn has_number_key(node: &Node) -> bool {
    let is_number = |key: &str| key.starts_with(|c: char| c.is_ascii_digit() || "+-".contains(c));
    match &node.value {
        Value::Map(entries) => {
            entries.iter().any(|entry| is_number(&entry.key) || has_number_key(&entry.node))
        }
        Value::List(items) => items.iter().any(has_number_key),
        Value::Empty | Value::Scalar(_) => false,
    }
}

/// Restores the first of each duplicate key where only the last one was read.
fn restore(node: &mut Node, first: Node) {
    match (&mut node.value, first.value) {
        (Value::Map(entries), Value::Map(firsts)) => {
            for first in firsts {
                match entries.iter_mut().find(|entry| entry.place == first.place) {
                    Some(entry) => restore(&mut entry.node, first.node),
                    None => {
                        let at = entries.partition_point(|entry| entry.place < first.place);
                        entries.insert(at, first);
                    }
                }
            }
        }
        (Value::List(items), Value::List(firsts)) => {
            items.iter_mut().zip(firsts).for_each(|(item, first)| restore(item, first));
        }
        _ => {}
    }
}

fn options(duplicate_keys: DuplicateKeyPolicy) -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_events: 4 * NODES_MAX,
            max_documents: 2,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: ALIAS_NODES_MAX,
            max_replay_stack_depth: DEPTH_MAX,
        },
        duplicate_keys: duplicate_keys,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        emit_comments: false,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// Whether the text has only white space and comments.
fn has_no_document(text: &str) -> bool {
    text.trim_start_matches('\u{feff}').lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#')
    })
}

fn syntax_error(error: &serde_saphyr::Error, text: &str) -> SyntaxError {
    let error = error.without_snippet();
    let place = error.location().map_or(Place::at(1, 1), place_of);
    let message = match error {
        serde_saphyr::Error::MultipleDocuments { .. } => {
            "a second document begins here, but a configuration has one (remove the \"---\")".into()
        }
        serde_saphyr::Error::Budget { breach, .. } => {
            format!("larger or more deeply nested than allowed ({breach:?})").into()
        }
        other => DefaultMessageFormatter.format_message(other),
    };
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    explained(place, message, text)
}

/// The faults that operators make most, with their own line and the way out; the reader of YAML gives
/// the place where it noticed them, in its own words.
fn explained(place: Place, message: String, text: &str) -> SyntaxError {
    let is_indented_by_tab =
        |line: &str| line.trim_start_matches(' ').starts_with('\t') && !line.trim().is_empty();
    let found = (1..).zip(text.lines()).skip(place.line.saturating_sub(1) as usize).take(2);
    let tab = found.into_iter().find(|(_, line)| is_indented_by_tab(line));
    if let Some((line, _)) = tab.filter(|_| message.contains("tab")) {
        let message = "the line is indented by a tab (use spaces)".to_owned();
        return SyntaxError { place: Place::at(line, 1), message };
    }
    const COLON: &str = "a colon and a space are missing after the key (try \"key: value\")";
    if let Some(place) = keyless_line_before(place, text).filter(|_| message.contains(NO_MAPPING)) {
        return SyntaxError { place, message: COLON.to_owned() };
    }
    let hint = match message.as_str() {
        message if message.contains("expected ':'") => COLON,
        message if message.contains("in multiline quoted scalar") => {
            "the text in quotes that begins before this line is not closed (add the quote)"
        }
        message if message.contains(NO_MAPPING) => {
            "a key does not belong here (is the line indented too far, or does a text with a colon \
             need quotes?)"
        }
        _ => return SyntaxError { place, message },
    };
    SyntaxError { place, message: hint.to_owned() }
}

const NO_MAPPING: &str = "mapping values are not allowed";

/// The line before this place, if it is indented as much and has no colon: YAML reads both as one text.
fn keyless_line_before(place: Place, text: &str) -> Option<Place> {
    let indent = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let line = (place.line as usize).checked_sub(2)?;
    let mut lines = text.lines().skip(line);
    let (before, this) = (lines.next()?, lines.next()?);
    let is_it =
        indent(before) == indent(this) && !before.contains(':') && !before.trim().is_empty();
    let column = u32::try_from(indent(before) + 1).unwrap_or(1);
    is_it.then_some(Place::at(place.line - 1, column))
}

fn place_of(location: serde_saphyr::Location) -> Place {
    let clamp = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).max(1);
    Place::at(clamp(location.line()), clamp(location.column()))
}

/// A node as serde yields it, before its scalars are restored to the text as written.
struct Raw(Spanned<RawValue>);

enum RawValue {
    Empty,
    /// Text, with its escapes resolved.
    Text(String),
    /// A number or a switch of YAML, printed; the source has the text as written.
    Guess(String),
    List(Vec<Raw>),
    Map(Vec<(Spanned<String>, Raw)>),
}

impl Raw {
    fn into_node(self, text: &str) -> Node {
        let Spanned { value, defined, .. } = self.0;
        let value = match value {
            RawValue::Empty => Value::Empty,
            RawValue::Text(written) => Value::Scalar(written),
            RawValue::Guess(printed) => {
                Value::Scalar(written_at(text, defined).map_or(printed, str::to_owned))
            }
            RawValue::List(items) => {
                Value::List(items.into_iter().map(|item| item.into_node(text)).collect())
            }
            RawValue::Map(entries) => {
                Value::Map(entries.into_iter().map(|(key, raw)| entry(key, raw, text)).collect())
            }
        };
        Node { place: place_of(defined), value }
    }
}

fn entry(key: Spanned<String>, raw: Raw, text: &str) -> Entry {
    let place = place_of(key.defined);
    let mut node = raw.into_node(text);
    if node.value == Value::Empty {
        node.place = place;
    }
    Entry { key: key.value, place, node }
}

/// The plain scalar as written in the source, if it is there.
fn written_at(text: &str, location: serde_saphyr::Location) -> Option<&str> {
    let start = usize::try_from(location.span().byte_offset()?).ok()?;
    let len = usize::try_from(location.span().byte_len()?).ok()?;
    let written = text.get(start..start.checked_add(len)?)?.trim();
    let is_plain = !written.is_empty() && !written.starts_with(['"', '\'', '!', '&', '|', '>']);
    is_plain.then_some(written)
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = RawValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<RawValue, E> {
        Ok(RawValue::Empty)
    }

    fn visit_bool<E>(self, value: bool) -> Result<RawValue, E> {
        Ok(RawValue::Guess(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<RawValue, E> {
        Ok(RawValue::Guess(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<RawValue, E> {
        Ok(RawValue::Guess(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<RawValue, E> {
        Ok(RawValue::Guess(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<RawValue, E> {
        Ok(RawValue::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<RawValue, E> {
        Ok(RawValue::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RawValue, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(RawValue::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawValue, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(RawValue::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(line: u32, column: u32) -> Place {
        Place::at(line, column)
    }

    fn map(text: &str) -> Vec<Entry> {
        match read(text).unwrap().value {
            Value::Map(entries) => entries,
            other => panic!("not a mapping: {other:?}"),
        }
    }

    #[test]
    fn keys_and_values_know_their_places() {
        let entries = map("log : /tmp/log\n\ncache:\n  size: 1 GiB\nlist: [a, {b: c}]\n");
        assert_eq!((entries[0].place, entries[0].node.place), (at(1, 1), at(1, 7)));
        assert_eq!(entries[0].node.value, Value::Scalar("/tmp/log".into()));
        let Value::Map(cache) = &entries[1].node.value else { panic!("cache") };
        assert_eq!((cache[0].place, cache[0].node.place), (at(4, 3), at(4, 9)));
        let Value::List(list) = &entries[2].node.value else { panic!("list") };
        assert_eq!((list[0].place, list[1].place), (at(5, 8), at(5, 11)));
    }

    #[test]
    fn a_scalar_keeps_the_text_as_written() {
        for written in [
            "off", "OFF", "no", "08", "0x10", "1e999", ".inf", "-5", "1_000", "10.0.0.1", "5 GiB",
            "1:30", "2026-11-21", "3.10", "[::]:80", "true",
        ] {
            let text = match written.starts_with('[') {
                true => format!("a: {{k: \"{written}\"}}\n"),
                false => format!("a: {{k: {written} }}\n"),
            };
            let entries = map(&text);
            let Value::Map(inner) = &entries[0].node.value else { panic!("{text}") };
            assert_eq!(inner[0].node.value, Value::Scalar(written.into()), "{text}");
        }
        assert_eq!(map("a: \"o\\x66f\"")[0].node.value, Value::Scalar("off".into()));
        assert_eq!(map("a: !!int '5'")[0].node.value, Value::Scalar("5".into()));
    }

    #[test]
    fn a_duplicate_key_is_kept_twice() {
        let entries = map("a: 1\nb: 2\na: 3\n");
        let places: Vec<_> = entries.iter().map(|e| (e.key.as_str(), e.place.line)).collect();
        assert_eq!(places, [("a", 1), ("b", 2), ("a", 3)]);
        for text in ["a: 1\n4: 2\na: 3\n4: 4\n", "x: {b: {a: 1, 4: 2, a: 3, 4: 4}}\n"] {
            let node = read(text).unwrap();
            let mut entries = match node.value {
                Value::Map(entries) => entries,
                other => panic!("not a mapping: {other:?}"),
            };
            while let [Entry { node: Node { value: Value::Map(inner), .. }, .. }] = &entries[..] {
                entries = inner.clone();
            }
            let keys: Vec<_> = entries.iter().map(|e| e.key.as_str()).collect();
            assert_eq!(keys, ["a", "4", "a", "4"], "{text}");
        }
    }

    #[test]
    fn a_merged_key_that_is_set_again_occurs_once() {
        for text in [
            "a: &x {k: v, 4: v}\nc:\n  <<: *x\n  k: w\n  4: w\n",
            "a: &x {k: v, 4: v}\nc:\n  4: w\n  k: w\n  <<: *x\n",
            "a: &x {4: v, k: v}\nc: {5: w, <<: *x, 4: w, k: w}\n",
        ] {
            let entries = map(text);
            let Value::Map(merged) = &entries[1].node.value else { panic!("c") };
            for key in ["k", "4"] {
                let found: Vec<_> = merged.iter().filter(|e| e.key == key).collect();
                assert_eq!(found.len(), 1, "{text}");
                assert_eq!(found[0].node.value, Value::Scalar("w".into()), "{text}");
            }
        }
    }

    #[test]
    fn empty_texts_and_values_are_empty() {
        for text in ["", "\n\n", "# only a comment\n", "\u{feff}", "---\n", "~"] {
            assert_eq!(read(text).map(|n| n.value), Ok(Value::Empty), "{text:?}");
        }
        let entries = map("a:\nb: ~\n");
        assert_eq!(entries[0].node, Node { place: at(1, 1), value: Value::Empty });
        assert_eq!(entries[1].node, Node { place: at(2, 1), value: Value::Empty });
    }

    #[test]
    fn aliases_repeat_their_anchors() {
        let entries = map("a: &x {k: v}\nb: *x\nc:\n  <<: *x\n  l: w\n");
        assert_eq!(entries[0].node.value, entries[1].node.value);
        let Value::Map(merged) = &entries[2].node.value else { panic!("c") };
        assert_eq!(merged.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(), ["l", "k"]);
    }

    #[test]
    fn invalid_yaml_is_reported_with_its_place() {
        for (text, place) in [
            ("a: [1, 2\n", at(1, 4)),
            ("a: b: c\n", at(1, 5)),
            ("a: \"x\nb: 1\n", at(2, 1)),
            ("a:\n\t- b\n", at(2, 1)),
            ("a: *nowhere\n", at(1, 4)),
            ("a: 1\n---\nb: 2\n", at(3, 1)),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.place, place, "{text:?}: {}", error.message);
            assert!(!error.message.is_empty() && !error.message.contains('\n'), "{error:?}");
        }
    }

    #[test]
    fn a_text_cannot_grow_in_the_reader() {
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for n in 1..30 {
            let items = format!("*a{}, ", n - 1).repeat(9);
            laughs.push_str(&format!("a{n}: &a{n} [{items}]\n"));
        }
        assert!(read(&laughs).is_err());
        assert!(read(&"[".repeat(100_000)).is_err());
        assert!(read(&"{a: ".repeat(100_000)).is_err());
        let steps: String = (0..2_000).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        assert!(read(&steps).is_err());
        assert!(read(&"- ".repeat(50_000)).is_err());
        assert!(read(&" ".repeat(TEXT_BYTES_MAX + 1)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,200}") {
            let _ = read(&text);
        }

        #[test]
        fn no_yaml_like_text_panics(text in "[ a-c:\\-\\[\\]{},\n\t'\"#&*!|>%~?0-9.\\\\]{0,120}") {
            let _ = read(&text);
        }
    }
}
