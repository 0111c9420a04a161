//! The effective configuration: what the text says, in one form, with every default that it leaves out.
//!
//! The result is a configuration of one file that means the same. Short forms are written out, so that
//! two configurations can be compared key by key. Values of fields with secrets are masked.
//! Left out are a default that is not a value (`none`, or what depends on the machine), and one that
//! would have no effect where it stands, which resolving refuses.

use crate::base::units::{format_size, parse_duration, parse_size};
use crate::config::Config;
use crate::config::document::{Entry, Node, Place, Value};
use crate::config::schema::{DIRECTIVES, Directive, Kind};
use crate::config::section::{is_off, is_on};
use crate::config::yaml;

/// The text in the place of a secret.
const MASK: &str = "***";

/// The rows for the rules of a cache, wherever they stand.
const RULES: &str = "sites[].routes[].cache";

/// The key that a single value in the place of a mapping stands for.
const SHORT: &[(&str, &str)] = &[
    ("log", "access"),
    ("log.access", "file"),
    ("log.slow", "file"),
    ("cache", "path"),
    ("listen[]", "address"),
    ("admin", "listen"),
    ("upstream", "servers"),
    ("upstreams.NAME.servers[]", "address"),
];

/// The text of the tree of a configuration, all included files within it, and what it was resolved to.
pub(crate) fn text(root: &Node, config: &Config) -> String {
    let whole = Whole { config };
    yaml::write(&whole.mapping("", entries_of(root), Defaults::Written))
}

/// Whether a mapping gets the defaults of the keys that it leaves out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Defaults {
    Written,
    /// Another mapping has the values.
    Inherited,
}

struct Whole<'c> {
    config: &'c Config,
}

impl Whole<'_> {
    fn mapping(&self, schema: &str, own: &[Entry], defaults: Defaults) -> Node {
        let rows = DIRECTIVES.iter().filter(|row| row.section == schema);
        let entries = rows.filter_map(|row| {
            let node = match own.iter().find(|entry| entry.key == row.key) {
                Some(entry) => Some(self.value(&row.path(), &entry.node)),
                None if defaults == Defaults::Inherited => None,
                None => self.default(row, own),
            };
            Some(entry(row.key, node?))
        });
        map(entries.collect())
    }

    /// A value that is set, at this path of the schema.
    fn value(&self, path: &str, node: &Node) -> Node {
        let short = SHORT.iter().find(|(whole, _)| *whole == path).map(|(_, key)| *key);
        let schema = match path {
            "upstream" | "upstreams[]" => "upstreams.NAME",
            "cache.rules" | "sites[].cache" => RULES,
            path => path,
        };
        let item = format!("{path}[]");
        let defaults = match path {
            "sites[].cache" | RULES => Defaults::Inherited,
            _ => Defaults::Written,
        };
        match &node.value {
            Value::Map(entries) if path == "upstreams" => {
                let named = |it: &Entry| entry(&it.key, self.value("upstreams[]", &it.node));
                map(entries.iter().map(named).collect())
            }
            Value::Map(_) | Value::Scalar(_) if has_rows(&item) => {
                list(vec![self.value(&item, node)])
            }
            Value::List(items) => list(items.iter().map(|it| self.value(&item, it)).collect()),
            Value::Map(entries) if has_rows(schema) => self.mapping(schema, entries, defaults),
            Value::Map(entries)
                if path.ends_with("-fields.set") || path.ends_with("-fields.add") =>
            {
                map(entries.iter().map(masked).collect())
            }
            Value::Empty if has_rows(schema) => self.mapping(schema, &[], defaults),
            Value::Scalar(text) if path == "log" && is_off(text) => {
                self.mapping(path, &[], defaults)
            }
            Value::Scalar(text) if path == "upstream" && self.is_name(text) => node.clone(),
            // TLS with the defaults of its mapping.
            Value::Scalar(text) if path.ends_with("].tls") || path == "upstreams.NAME.tls" => {
                match is_on(text) {
                    true => self.mapping(schema, &[], defaults),
                    false => node.clone(),
                }
            }
            Value::Scalar(text) => match short {
                Some(key) if !is_off(text) => {
                    self.mapping(schema, &[entry(key, node.clone())], defaults)
                }
                _ => node.clone(),
            },
            Value::Map(_) | Value::Empty => node.clone(),
        }
    }

    /// The default of a key, beside those that its mapping sets.
    fn default(&self, row: &Directive, own: &[Entry]) -> Option<Node> {
        let path = row.path();
        let has_cache = self.config.cache.is_some();
        let value = |key: &str| own.iter().find(|entry| entry.key == key).map(|it| &it.node.value);
        let has_word = |key: &str, word: &str| value(key) == Some(&Value::Scalar(word.to_owned()));
        let begins = |key: &str, text: &str| match value(key) {
            Some(Value::Scalar(value)) => value.starts_with(text),
            _ => false,
        };
        let has_effect = match (row.section, row.key) {
            ("listen[]", "permissions") => begins("address", "unix:"),
            ("listen[]", "http2") => value("mode").is_none() || has_word("mode", "http"),
            ("upstreams.NAME", "keep-open" | "requests") => {
                value("proxy-protocol").is_none() || has_word("proxy-protocol", "off")
            }
            ("upstreams.NAME", "tls") => !value("servers").is_some_and(names_https),
            ("upstreams.NAME.check", "method" | "status") => value("path").is_some(),
            ("sites[]", "cache") => has_cache,
            (_, "client-depth") => value("client-ca").is_some(),
            ("", "forward") => self.config.forward.is_some(),
            ("sites[].routes[]", "host") => {
                ["redirect", "answer", "deny"].iter().all(|key| value(key).is_none())
            }
            // No lifetime is longer anyway.
            (RULES, "ttl-max") => false,
            _ => true,
        };
        if !has_effect {
            return None;
        }
        let cache = self.config.cache.as_ref();
        let written = match path.as_str() {
            "pid" => {
                self.config.pid.as_ref().map_or("off".into(), |path| path.display().to_string())
            }
            "cache.free" => format_size(cache?.free_bytes_min),
            "cache.object" => format_size(cache?.object_bytes_max),
            "cache.memory-object" => format_size(cache?.memory_object_bytes_max),
            "log" | "cache.rules" => return Some(self.value(&path, &empty())),
            _ if row.default == "each key's own" => return Some(self.value(&path, &empty())),
            _ => return Some(self.value(&path, &literal(row)?)),
        };
        Some(scalar(&written))
    }

    /// Whether the upstream at the top is the name of another.
    fn is_name(&self, text: &str) -> bool {
        let default = self.config.default_upstream.and_then(|id| self.config.upstreams.get(id.0));
        default.is_some_and(|upstream| upstream.name == text)
    }
}

/// The default of a row as a value; `None` if it is words for the behaviour without the key.
fn literal(row: &Directive) -> Option<Node> {
    let text = row.default;
    let is_words = ["none", "required", "empty", "any", "all"].contains(&text);
    let is_literal = match row.kind {
        Kind::Count(..) => text.parse::<u64>().is_ok(),
        Kind::CountOrAuto(..) => text == "auto" || text.parse::<u64>().is_ok(),
        Kind::Size(..) => parse_size(text).is_ok(),
        Kind::Duration(..) => parse_duration(text).is_ok(),
        Kind::Percent(..) => text.ends_with('%'),
        Kind::Switch => ["on", "off"].contains(&text),
        Kind::Choice(words) => words.contains(&text),
        Kind::Section(_) => ["on", "off"].contains(&text),
        Kind::Text(_) => !is_words && (!text.contains(' ') || text.contains(';')),
        Kind::List(_) => {
            let inner = text.trim_start_matches('[').trim_end_matches(']');
            let items: Vec<_> = inner.split(", ").collect();
            if is_words || items.iter().any(|item| item.contains(' ')) {
                return None;
            }
            return Some(list(items.into_iter().map(scalar).collect()));
        }
    };
    is_literal.then(|| scalar(text))
}

/// Whether a server of the list is spoken to by https, as its address says.
fn names_https(servers: &Value) -> bool {
    match servers {
        Value::Scalar(text) => text.starts_with("https://"),
        Value::List(items) => items.iter().any(|item| names_https(&item.value)),
        Value::Map(entries) => {
            entries.iter().any(|it| it.key == "address" && names_https(&it.node.value))
        }
        Value::Empty => false,
    }
}

/// A field that ktrix sets, without its value if that may let somebody in.
fn masked(field: &Entry) -> Entry {
    let name = field.key.to_ascii_lowercase();
    match SECRET.iter().any(|part| name.contains(part)) {
        true => entry(&field.key, scalar(MASK)),
        false => field.clone(),
    }
}

/// Parts of the names of fields with secrets.
const SECRET: &[&str] = &["auth", "cookie", "key", "password", "secret", "token"];

fn has_rows(schema: &str) -> bool {
    DIRECTIVES.iter().any(|row| row.section == schema)
}

fn entries_of(node: &Node) -> &[Entry] {
    match &node.value {
        Value::Map(entries) => entries,
        _ => &[],
    }
}

fn entry(key: &str, node: Node) -> Entry {
    Entry { key: key.to_owned(), place: Place::default(), node }
}

fn scalar(text: &str) -> Node {
    at_no_place(Value::Scalar(text.to_owned()))
}

const fn map(entries: Vec<Entry>) -> Node {
    at_no_place(Value::Map(entries))
}

const fn list(items: Vec<Node>) -> Node {
    at_no_place(Value::List(items))
}

const fn empty() -> Node {
    at_no_place(Value::Empty)
}

const fn at_no_place(value: Value) -> Node {
    Node { place: Place { line: 0, column: 0, file: 0 }, value }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::document::read;

    const SAMPLE: &str = include_str!("../../etc/ktrix.yaml");

    fn load(text: &str) -> Config {
        Config::load_for(Path::new("k.yaml"), text, 3)
            .unwrap_or_else(|errors| panic!("{text}\n{errors}"))
    }

    /// The effective configuration is one of ktrix, and means the same.
    fn check(text: &str) -> Config {
        let config = load(text);
        assert!(load(&config.effective) == config, "{text}\n{}", config.effective);
        config
    }

    #[test]
    fn it_means_the_same() {
        check(SAMPLE);
        check("log : /l\ncache : /c\nupstream : 192.168.0.1\n");
        for text in [
            "cache: off\nlog: off\nupstream: 10.0.0.1\n",
            "upstream: https://a.example\n",
            "upstream: {servers: [\"https://a.example\"], tls: {name: b}}\n",
            "upstream: {servers: [a], tls: on, proxy-protocol: v1}\n",
            "upstreams: {a: {servers: [{address: \"https://y\"}]}}\nupstream: a\n",
            "upstreams: {a: {servers: x, check: {interval: 1s}, balance: hash, hash: client}}\nupstream: a\n",
            "listen: [\"unix:/s\", 80, {address: 81, mode: tcp, upstream: a}, {address: 82, mode: forward}]\n\
             upstreams: {a: {servers: x}}\nupstream: a\nforward: {clients: [10.0.0.0/8]}\n",
            "listen: [{address: 443, tls: on}]\nsites: [{hosts: a, tls: {certificate: x}, upstream: b}]\n\
             upstreams: {b: {servers: c}}\n",
            "cache: {path: /c, free: 1 B, rules: {ttl-min: 1s, key: {query: off}}}\nupstreams: {a: {servers: b}}\n\
             sites: [{hosts: [x], upstream: a, cache: {ttl-status: {404: 1s, 5xx: 2s}}, routes: [\
             {path: {regex: \"^/a:#\\\"\"}, cache: off}, {path: /y, redirect: {to: \"/{path}\"}}, \
             {path: /z, answer: {body: \"a\\nb\"}}]}]\n",
        ] {
            check(text);
        }
    }

    #[test]
    fn short_forms_and_defaults_are_written_out() {
        let config = check("cache: /c\nupstream: 10.0.0.1\n");
        let tree = read(&config.effective).unwrap();
        let find = |path: &[&str]| {
            path.iter().fold(tree.clone(), |node, key| {
                let entries = entries_of(&node);
                entries
                    .iter()
                    .find(|it| it.key == *key)
                    .unwrap_or_else(|| panic!("{key}"))
                    .node
                    .clone()
            })
        };
        for (path, expected) in [
            (&["cache", "path"][..], "/c"),
            (&["cache", "free"], "21474836 B"),
            (&["cache", "rules", "heuristic-percent"], "10"),
            (&["pid"], "/c/ktrix.pid"),
            (&["timeouts", "connect"], "3s"),
            (&["upstream", "servers"], ""),
            (&["log", "access"], "off"),
        ] {
            let node = find(path);
            match &node.value {
                Value::Scalar(text) => assert_eq!(text, expected, "{path:?}"),
                Value::List(items) => assert_eq!(items.len(), 1, "{path:?}"),
                other => panic!("{path:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn secrets_are_masked() {
        let text = "upstreams: {a: {servers: b}}\nsites: [{hosts: x, routes: [{path: /, upstream: a, \
                    request-fields: {set: {Authorization: Basic s3cret, X-Api-Key: s3cret, X-Team: blue}}}]}]\n";
        let effective = load(text).effective;
        assert!(!effective.contains("s3cret") && effective.contains("blue"), "{effective}");
        load(&effective);
    }
}
