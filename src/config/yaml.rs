//! Writes a tree of the configuration as YAML that reads as the same tree.
//!
//! Mappings are in block form. A list of plain values is in one line.

use crate::config::document::{Node, Value};

/// The text of a mapping.
pub(crate) fn write(root: &Node) -> String {
    let mut text = String::new();
    block(&mut text, root, 0);
    text
}

/// A value in one line: a scalar, or a list of scalars. `None` for other values.
pub(crate) fn in_one_line(value: &Value) -> Option<String> {
    match value {
        Value::Scalar(text) => Some(scalar(text)),
        Value::Empty => Some(String::new()),
        Value::Map(entries) if entries.is_empty() => Some("{}".to_owned()),
        Value::Map(_) => None,
        Value::List(items) => {
            let is_scalar = |item: &Node| matches!(item.value, Value::Scalar(_));
            let texts =
                items.iter().map(|item| in_one_line(&item.value).filter(|_| is_scalar(item)));
            Some(format!("[{}]", texts.collect::<Option<Vec<_>>>()?.join(", ")))
        }
    }
}

fn block(text: &mut String, node: &Node, indent: usize) {
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                text.push_str(&format!("{:indent$}{}:", "", scalar(&entry.key)));
                match in_one_line(&entry.node.value) {
                    Some(line) if line.is_empty() => text.push('\n'),
                    Some(line) => text.push_str(&format!(" {line}\n")),
                    None => {
                        text.push('\n');
                        block(text, &entry.node, indent + STEP);
                    }
                }
            }
        }
        Value::List(items) => {
            for item in items {
                let mut inner = String::new();
                match in_one_line(&item.value) {
                    Some(line) => inner.push_str(&format!("{:1$}{line}\n", "", indent + STEP)),
                    None => block(&mut inner, item, indent + STEP),
                }
                // The dash stands in the indentation of the first line.
                text.push_str(&format!("{:indent$}- {}", "", inner.trim_start_matches(' ')));
            }
        }
        Value::Scalar(_) | Value::Empty => {}
    }
}

const STEP: usize = 2;

/// A scalar or key, in quotes where YAML could read something else.
fn scalar(text: &str) -> String {
    let is_inner = |char: char| char.is_ascii_alphanumeric() || "/._%+-:; ".contains(char);
    let is_plain = text.starts_with(|char: char| char.is_ascii_alphanumeric() || char == '/')
        && text.chars().all(is_inner)
        && !text.contains(": ")
        && !text.ends_with([':', ' '])
        && !text.eq_ignore_ascii_case("null");
    if is_plain {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            '\n' => quoted.push_str("\\n"),
            _ if char.is_control() || is_break(char) => {
                quoted.push_str(&format!("\\U{:08x}", u32::from(char)));
            }
            _ => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}

/// Whether YAML takes a character for the end of a line, or for a mark of the order of bytes.
const fn is_break(char: char) -> bool {
    matches!(char, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::document::{Entry, Place, read};

    /// The tree without its places.
    fn bare(node: Node) -> Node {
        let value = match node.value {
            Value::List(items) => Value::List(items.into_iter().map(bare).collect()),
            Value::Map(entries) => {
                let entry =
                    |it: Entry| Entry { place: Place::default(), node: bare(it.node), ..it };
                Value::Map(entries.into_iter().map(entry).collect())
            }
            value => value,
        };
        Node { place: Place::default(), value }
    }

    fn node() -> impl Strategy<Value = Node> {
        let of = |value| Node { place: Place::default(), value };
        let leaf = prop_oneof!["\\PC{0,12}", "[a-z0-9:/. -]{0,12}", any::<String>()];
        let leaf = prop_oneof![
            8 => leaf.prop_map(move |text| of(Value::Scalar(text))),
            1 => Just(of(Value::Empty))
        ];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            let key = prop_oneof!["[a-z][a-z-]{0,8}", "\\PC{1,6}"];
            let entries = proptest::collection::btree_map(key, inner.clone(), 0..6);
            let is_item = |node: &Node| node.value != Value::Empty;
            let items = proptest::collection::vec(inner.prop_filter("an item", is_item), 1..6);
            prop_oneof![
                items.prop_map(move |items| of(Value::List(items))),
                entries.prop_map(move |entries| {
                    let entry = |(key, node)| Entry { key, place: Place::default(), node };
                    of(Value::Map(entries.into_iter().map(entry).collect()))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_as_the_same(inner in node()) {
            let entry = Entry { key: "k".to_owned(), place: Place::default(), node: inner };
            let root = Node { place: Place::default(), value: Value::Map(vec![entry]) };
            let text = write(&root);
            let read = read(&text).map_err(|flaw| TestCaseError::fail(format!("{flaw:?}\n{text}")))?;
            prop_assert_eq!(bare(read), root, "{}", text);
        }
    }

    #[test]
    fn words_for_nothing_and_signs_of_yaml_are_quoted() {
        for (text, expected) in [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("64 MiB", "64 MiB"),
            ("null", "\"null\""),
            ("~", "\"~\""),
            ("", "\"\""),
            ("a: b", "\"a: b\""),
            ("*.example", "\"*.example\""),
            ("a\u{1}\"", "\"a\\U00000001\\\"\""),
        ] {
            assert_eq!(scalar(text), expected);
        }
    }
}
