//! The differences between two configurations, key by key.

use std::collections::HashMap;

use crate::config::document::{Entry, Node, Value};
use crate::config::yaml;

/// A key with another value in one configuration than in the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The path of the key; an entry of a list has its address, host or path in the place of a number.
    pub(crate) key: String,
    /// Its value in the first; `None` if it is not there.
    pub(crate) first: Option<String>,
    /// Its value in the second.
    pub(crate) second: Option<String>,
}

/// The differences of two effective configurations: in the order of the first, then what only the second has.
pub(crate) fn between(first: &Node, second: &Node) -> Vec<Difference> {
    let (first, second) = (values_of(first), values_of(second));
    let by_key = |values: &[(String, String)]| values.iter().cloned().collect::<HashMap<_, _>>();
    let (firsts, mut seconds) = (by_key(&first), by_key(&second));
    let mut found = Vec::new();
    for (key, value) in first {
        let other = seconds.remove(&key);
        if other.as_ref() != Some(&value) {
            found.push(Difference { key, first: Some(value), second: other });
        }
    }
    let added = second.into_iter().filter(|(key, _)| !firsts.contains_key(key));
    found.extend(added.map(|(key, value)| Difference { key, first: None, second: Some(value) }));
    found
}

/// Each value with the path of its key.
fn values_of(root: &Node) -> Vec<(String, String)> {
    let mut values = Vec::new();
    collect(root, String::new(), &mut values);
    values
}

fn collect(node: &Node, path: String, values: &mut Vec<(String, String)>) {
    match (&node.value, yaml::in_one_line(&node.value)) {
        (_, Some(line)) => values.push((path, line)),
        (Value::Map(entries), None) => {
            for entry in entries {
                let dot = if path.is_empty() { "" } else { "." };
                collect(&entry.node, format!("{path}{dot}{}", entry.key), values);
            }
        }
        (Value::List(items), None) => {
            let mut seen: HashMap<String, usize> = HashMap::new();
            for item in items {
                let name = name_of(item);
                let n = seen.entry(name.clone()).and_modify(|n| *n += 1).or_insert(1);
                let again = if *n > 1 { format!(" #{n}") } else { String::new() };
                collect(item, format!("{path}[{name}{again}]"), values);
            }
        }
        (Value::Scalar(_) | Value::Empty, None) => {}
    }
}

/// The word that an operator knows an entry of a list by; empty if it has none.
fn name_of(item: &Node) -> String {
    let Value::Map(entries) = &item.value else { return String::new() };
    let named = NAMES.iter().find_map(|key| entries.iter().find(|entry| entry.key == *key));
    named.map(|Entry { node, .. }| first_text(node).to_owned()).unwrap_or_default()
}

/// The first scalar of a value.
fn first_text(node: &Node) -> &str {
    match &node.value {
        Value::Scalar(text) => text,
        Value::List(items) => items.first().map_or("", first_text),
        Value::Map(entries) => entries.first().map_or("", |entry| first_text(&entry.node)),
        Value::Empty => "",
    }
}

/// The keys that name an entry of a list.
const NAMES: &[&str] = &["address", "hosts", "path", "certificate"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::read;

    fn differences(first: &str, second: &str) -> Vec<String> {
        let tree = |text: &str| read(text).unwrap();
        let found = between(&tree(first), &tree(second)).into_iter();
        let word = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        found.map(|it| format!("{} {} {}", it.key, word(it.first), word(it.second))).collect()
    }

    #[test]
    fn a_key_is_named_by_its_path_and_an_entry_by_what_people_call_it() {
        let first = "cache: {size: 1 GiB}\nsites:\n- hosts: [a, b]\n  routes: [{path: /x, cache: on}, {path: /y}]\n";
        let second = "cache: {size: 2 GiB, free: 0 B}\nsites:\n- hosts: c\n- hosts: [a, b]\n  routes: [{path: /x, cache: off}]\n";
        assert_eq!(
            differences(first, second),
            [
                "cache.size 1 GiB 2 GiB",
                "sites[a].routes[/x].cache on off",
                "sites[a].routes[/y].path /y -",
                "cache.free - 0 B",
                "sites[c].hosts - c",
            ]
        );
        assert_eq!(differences(first, first), [""; 0]);
    }

    #[test]
    fn entries_of_one_name_stay_apart() {
        let both = "listen: [{address: 80, a: 1}, {address: 80, a: 2}]";
        let found = differences(both, "listen: [{address: 80, a: 1}, {address: 80, a: 3}]");
        assert_eq!(found, ["listen[80 #2].a 2 3"]);
    }
}
