//! A mapping of the configuration while it is read by the schema.
//!
//! Each reader takes the value of a key, or the key's default, and notes its faults. An invalid
//! value reads as the default, so that reading continues to the next mistake; none of it is used,
//! since a configuration with a fault is never returned.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::units::{UnitError, format_duration, format_size, parse_duration, parse_size};
use crate::config::document::{Entry, Node, Place, Value};
use crate::config::error::{Faults, quoted};
use crate::config::nearest::nearest;
use crate::config::schema::{self, Directive, Kind};

/// A mapping, or the absence of one, in which every key has its default.
pub(crate) struct Section<'a> {
    /// Its name in the schema: `upstreams.NAME`.
    schema: &'static str,
    /// Its name in messages: `upstreams.app`.
    path: String,
    place: Place,
    entries: &'a [Entry],
}

/// A scalar, its place, and its name in messages.
#[derive(Clone)]
pub(crate) struct Scalar<'a> {
    pub(crate) text: &'a str,
    pub(crate) place: Place,
    pub(crate) path: String,
}

/// An entry of a list, and its name in messages.
pub(crate) struct Item<'a> {
    pub(crate) node: &'a Node,
    pub(crate) path: String,
}

impl<'a> Section<'a> {
    /// A mapping of the keys that the schema knows.
    pub(crate) fn open(
        faults: &mut Faults<'_>,
        schema: &'static str,
        path: String,
        node: &'a Node,
    ) -> Self {
        let section = Self::open_named(faults, schema, path, node);
        let known = schema::keys(schema);
        for entry in section.entries {
            if !known.clone().any(|key| key == entry.key) {
                let below = schema::below(schema, &entry.key);
                let near = if faults.is_full() { None } else { nearest(&entry.key, known.clone()) };
                let hint = match (below, near) {
                    (Some(section), _) => format!("it belongs below {section}"),
                    (None, Some(key)) => format!("did you mean \"{key}\"?"),
                    (None, None) => {
                        format!("known here: {}", known.clone().collect::<Vec<_>>().join(", "))
                    }
                };
                let message = format!("is not a known key ({hint})");
                faults.add(entry.place, section.path_of(&entry.key), message);
            }
        }
        section
    }

    /// A mapping with names as keys, chosen by the operator.
    pub(crate) fn open_named(
        faults: &mut Faults<'_>,
        schema: &'static str,
        path: String,
        node: &'a Node,
    ) -> Self {
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Empty => &[],
            Value::Scalar(_) | Value::List(_) => {
                let message = format!("expects a mapping, not {}", described(&node.value));
                faults.add(node.place, path.clone(), message);
                &[]
            }
        };
        let section = Self { schema, path, place: node.place, entries };
        let mut seen: HashMap<&str, Place> = HashMap::new();
        for entry in entries {
            if let Some(first) = seen.get(entry.key.as_str()) {
                let line = faults.line_of(*first, entry.place);
                let message = format!("is set twice (first in {line})");
                faults.add(entry.place, section.path_of(&entry.key), message);
            } else {
                seen.insert(&entry.key, entry.place);
            }
        }
        section
    }

    /// An absent mapping.
    pub(crate) const fn absent(schema: &'static str, path: String, place: Place) -> Self {
        Self { schema, path, place, entries: &[] }
    }

    /// The mapping of a key of this one; it may be absent.
    pub(crate) fn section(&self, faults: &mut Faults<'_>, schema: &'static str, key: &str) -> Self {
        match self.node(key) {
            Some(node) => Self::open(faults, schema, self.path_of(key), node),
            None => Self::absent(schema, self.path_of(key), self.place),
        }
    }

    pub(crate) const fn schema(&self) -> &'static str {
        self.schema
    }

    pub(crate) const fn place(&self) -> Place {
        self.place
    }

    pub(crate) const fn entries(&self) -> &'a [Entry] {
        self.entries
    }

    /// The name of a key of this mapping in messages.
    pub(crate) fn path_of(&self, key: &str) -> String {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let key = match key.len() <= 64 && !key.is_empty() && key.bytes().all(is_plain) {
            true => key.to_owned(),
            false => quoted(key),
        };
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }

    /// The value of a key, if the key is set.
    pub(crate) fn node(&self, key: &str) -> Option<&'a Node> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// Notes that a required key is missing.
    pub(crate) fn missing(&self, faults: &mut Faults<'_>, key: &str, example: &str) {
        let message = format!("is missing (try {})", quoted(example));
        faults.add(self.place, self.path_of(key), message);
    }

    /// The text of a key, of any kind.
    pub(crate) fn scalar(&self, faults: &mut Faults<'_>, key: &str) -> Option<Scalar<'a>> {
        let node = self.node(key)?;
        let row = schema::directive(self.schema, key);
        scalar_of(faults, node, self.path_of(key), row.kind)
    }

    /// The text of a required key.
    pub(crate) fn required(
        &self,
        faults: &mut Faults<'_>,
        key: &str,
        example: &str,
    ) -> Option<Scalar<'a>> {
        if self.node(key).is_none() {
            self.missing(faults, key, example);
        }
        self.scalar(faults, key)
    }

    /// The text of an entry with a name as key, chosen by the operator.
    pub(crate) fn named_scalar(
        &self,
        faults: &mut Faults<'_>,
        entry: &'a Entry,
        kind: Kind,
    ) -> Option<Scalar<'a>> {
        scalar_of(faults, &entry.node, self.path_of(&entry.key), kind)
    }

    pub(crate) fn count(&self, faults: &mut Faults<'_>, key: &str) -> usize {
        let row = schema::directive(self.schema, key);
        let read = self.count_if_any(faults, key);
        read.or_else(|| row.default.parse().ok()).unwrap_or_default()
    }

    /// A number that has its default elsewhere.
    pub(crate) fn count_if_any(&self, faults: &mut Faults<'_>, key: &str) -> Option<usize> {
        let row = schema::directive(self.schema, key);
        self.scalar(faults, key).and_then(|scalar| scalar.count(faults, row))
    }

    pub(crate) fn size(&self, faults: &mut Faults<'_>, key: &str) -> u64 {
        let row = schema::directive(self.schema, key);
        self.size_if_any(faults, key).or_else(|| parse_size(row.default).ok()).unwrap_or_default()
    }

    /// A size that has its default elsewhere.
    pub(crate) fn size_if_any(&self, faults: &mut Faults<'_>, key: &str) -> Option<u64> {
        let row = schema::directive(self.schema, key);
        let scalar = self.scalar(faults, key)?;
        let Kind::Size(min, max) = row.kind else { return None };
        if min == 0 && is_off(scalar.text) {
            scalar.wrong(faults, "is not a size (try \"0 B\" for none)");
            return None;
        }
        let size = scalar.measured(faults, parse_size(scalar.text))?;
        let bounds = || (format_size(min), format_size(max));
        scalar.bounded(faults, size, (min, max), bounds).then_some(size)
    }

    /// A share in percent.
    pub(crate) fn percent(&self, faults: &mut Faults<'_>, key: &str) -> u32 {
        let row = schema::directive(self.schema, key);
        let number = |text: &str| text.strip_suffix('%')?.trim_end().parse::<u32>().ok();
        let default = number(row.default).unwrap_or_default();
        let Some(scalar) = self.scalar(faults, key) else { return default };
        let Kind::Percent(min, max) = row.kind else { return default };
        match number(scalar.text) {
            Some(percent) if (min..=max).contains(&percent.into()) => percent,
            _ => {
                scalar.wrong(faults, &format!("is not a share from {min}% to {max}%"));
                default
            }
        }
    }

    pub(crate) fn duration(&self, faults: &mut Faults<'_>, key: &str) -> Duration {
        let row = schema::directive(self.schema, key);
        let read = self.duration_if_any(faults, key);
        read.or_else(|| parse_duration(row.default).ok()).unwrap_or_default()
    }

    /// A time that has its default elsewhere.
    pub(crate) fn duration_if_any(&self, faults: &mut Faults<'_>, key: &str) -> Option<Duration> {
        let row = schema::directive(self.schema, key);
        self.scalar(faults, key)?.duration(faults, row.kind)
    }

    /// On or off, if it is set.
    pub(crate) fn switch(&self, faults: &mut Faults<'_>, key: &str) -> Option<bool> {
        let scalar = self.scalar(faults, key)?;
        match scalar.text {
            text if is_on(text) => Some(true),
            text if is_off(text) && !text.eq_ignore_ascii_case("none") => Some(false),
            _ => {
                scalar.wrong(faults, "is neither on nor off");
                None
            }
        }
    }

    /// One of the words that the schema lists for the key.
    pub(crate) fn word(&self, faults: &mut Faults<'_>, key: &str) -> &'static str {
        self.word_if_any(faults, key).unwrap_or(schema::directive(self.schema, key).default)
    }

    /// A word that has its default elsewhere.
    pub(crate) fn word_if_any(&self, faults: &mut Faults<'_>, key: &str) -> Option<&'static str> {
        let Kind::Choice(words) = schema::directive(self.schema, key).kind else { return None };
        let scalar = self.scalar(faults, key)?;
        let is_meant = |word: &&&str| word.eq_ignore_ascii_case(scalar.text) || scalar.is(word);
        let found = words.iter().find(is_meant);
        if found.is_none() {
            scalar.wrong(faults, &format!("is not known (try {})", words.join(", ")));
        }
        found.copied()
    }

    /// The entries of a list; a single value counts as a list of one.
    pub(crate) fn items(&self, faults: &mut Faults<'_>, key: &str) -> Option<Vec<Item<'a>>> {
        let node = self.node(key)?;
        let path = self.path_of(key);
        match &node.value {
            Value::List(items) if !items.is_empty() => {
                let item = |(n, node)| Item { node, path: format!("{path}[{n}]") };
                Some(items.iter().enumerate().map(item).collect())
            }
            Value::List(_) | Value::Empty => {
                faults.add(node.place, path, "is empty (add an entry, or leave the key out)");
                None
            }
            Value::Scalar(_) | Value::Map(_) => Some(vec![Item { node, path }]),
        }
    }
}

impl<'a> Item<'a> {
    /// The entry as text.
    pub(crate) fn scalar(&self, faults: &mut Faults<'_>, kind: Kind) -> Option<Scalar<'a>> {
        scalar_of(faults, self.node, self.path.clone(), kind)
    }
}

impl Scalar<'_> {
    /// Whether it is this word; a switch may be written in each of its forms.
    pub(crate) fn is(&self, word: &str) -> bool {
        self.text.eq_ignore_ascii_case(word)
            || (word == "off" && is_off(self.text))
            || (word == "on" && is_on(self.text))
    }

    /// The text as a path of the file system. A word for a switch is refused, since it hardly names
    /// a file.
    pub(crate) fn file(&self, faults: &mut Faults<'_>) -> Option<PathBuf> {
        if is_off(self.text) || is_on(self.text) {
            let text = quoted(&format!("./{}", self.text));
            self.wrong(
                faults,
                &format!("is a switch, but a path is expected (try a path, or {text})"),
            );
            return None;
        }
        if self.text.is_empty() || self.text.contains('\0') {
            self.wrong(faults, "is not a path");
            return None;
        }
        Some(PathBuf::from(self.text))
    }

    /// Notes a fault of the text.
    pub(crate) fn wrong(&self, faults: &mut Faults<'_>, why: &str) {
        faults.add(self.place, self.path.clone(), format!("{} {why}", quoted(self.text)));
    }

    /// Notes a fault as a whole sentence.
    pub(crate) fn fault(&self, faults: &mut Faults<'_>, message: String) {
        faults.add(self.place, self.path.clone(), message);
    }

    /// The text as a number within the bounds of its row.
    pub(crate) fn count(&self, faults: &mut Faults<'_>, row: &Directive) -> Option<usize> {
        let (Kind::Count(min, max) | Kind::CountOrAuto(min, max)) = row.kind else { return None };
        let is_number = !self.text.is_empty() && self.text.bytes().all(|b| b.is_ascii_digit());
        if !is_number {
            let hint = match row.kind {
                Kind::CountOrAuto(..) => "auto or a number",
                _ => "a number",
            };
            self.wrong(faults, &format!("is not {hint} from {min} to {max}"));
            return None;
        }
        let number = self.text.parse().unwrap_or(u64::MAX);
        let bounds = || (min.to_string(), max.to_string());
        let is_bounded = self.bounded(faults, number, (min, max), bounds);
        usize::try_from(number).ok().filter(|_| is_bounded)
    }

    /// The text as a time within the bounds of its kind.
    pub(crate) fn duration(&self, faults: &mut Faults<'_>, kind: Kind) -> Option<Duration> {
        if matches!(kind, Kind::Duration(0, _)) && is_off(self.text) {
            self.wrong(faults, "is not a time (try \"0s\" for none)");
            return None;
        }
        let duration = self.measured(faults, parse_duration(self.text))?;
        let Kind::Duration(min, max) = kind else { return Some(duration) };
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let bounds = || {
            let text = |ms| format_duration(Duration::from_millis(ms));
            (text(min), text(max))
        };
        self.bounded(faults, ms, (min, max), bounds).then_some(duration)
    }

    /// A value with a unit, or a fault.
    fn measured<T>(&self, faults: &mut Faults<'_>, read: Result<T, UnitError>) -> Option<T> {
        let is_printable = self.text.len() <= 40 && !self.text.contains(char::is_control);
        match read {
            Ok(value) => Some(value),
            Err(why) if is_printable => {
                self.fault(faults, why.to_string());
                None
            }
            Err(_) => {
                self.wrong(faults, "is not a number with its unit");
                None
            }
        }
    }

    /// Whether the value is within its bounds; if not, a fault is noted.
    fn bounded(
        &self,
        faults: &mut Faults<'_>,
        value: u64,
        (min, max): (u64, u64),
        bounds: impl FnOnce() -> (String, String),
    ) -> bool {
        if (min..=max).contains(&value) {
            return true;
        }
        let (least, most) = bounds();
        self.wrong(faults, &format!("is out of range (from {least} to {most})"));
        false
    }
}

/// The text of a node, or a fault if it is not a scalar.
fn scalar_of<'a>(
    faults: &mut Faults<'_>,
    node: &'a Node,
    path: String,
    kind: Kind,
) -> Option<Scalar<'a>> {
    let message = match &node.value {
        Value::Scalar(text) => return Some(Scalar { text, place: node.place, path }),
        Value::Empty => format!("has no value (expects {})", expected(kind)),
        other => format!("expects {}, not {}", expected(kind), described(other)),
    };
    faults.add(node.place, path, message);
    None
}

fn expected(kind: Kind) -> String {
    match kind {
        Kind::Count(min, max) => format!("a number from {min} to {max}"),
        Kind::CountOrAuto(min, max) => format!("auto or a number from {min} to {max}"),
        Kind::Size(..) => "a size such as \"64 MiB\"".to_owned(),
        Kind::Duration(..) => "a time such as \"5s\"".to_owned(),
        Kind::Percent(..) => "a share such as \"20%\"".to_owned(),
        Kind::Switch => "on or off".to_owned(),
        Kind::Choice(words) => format!("one of: {}", words.join(", ")),
        Kind::List("conditions or off") => "conditions such as \"cookie session\"".to_owned(),
        Kind::Section(word) | Kind::List(word) | Kind::Text(word) => word.to_owned(),
    }
}

/// A size that is held in memory.
pub(crate) fn as_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Whether a text turns something on.
pub(crate) fn is_on(text: &str) -> bool {
    ["on", "yes", "true"].iter().any(|on| text.eq_ignore_ascii_case(on))
}

/// Whether a text turns something off.
pub(crate) fn is_off(text: &str) -> bool {
    ["off", "no", "false", "none"].iter().any(|off| text.eq_ignore_ascii_case(off))
}

pub(crate) const fn described(value: &Value) -> &'static str {
    match value {
        Value::Empty => "nothing",
        Value::Scalar(_) => "a single value",
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
    }
}
