//! Each key of the configuration is a row in four places, and this test counts them: the schema,
//! the code that resolves it, the sample and the manual. Each has the same unit and default. The
//! guide for contributors names these places and others, and the description of the architecture
//! names most files; they have to exist.

use std::collections::BTreeMap;
use std::path::Path;

use ktrix::base::units::{parse_duration, parse_size};
use ktrix::config::Config;
use ktrix::config::document::{Node, Value, read};
use ktrix::config::schema::{DIRECTIVES, Directive, Kind};

const SAMPLE: &str = include_str!("../etc/ktrix.yaml");
const MANUAL: &str = include_str!("../man/ktrix.yaml.5");
const CONTRIBUTING: &str = include_str!("../CONTRIBUTING.md");
const ARCHITECTURE: &str = include_str!("../ARCHITECTURE.md");

#[test]
fn the_sample_is_a_whole_configuration() {
    let config =
        Config::load(Path::new("etc/ktrix.yaml"), SAMPLE).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.upstreams.len(), 2);
    assert_eq!(config.sites.len(), 1);
}

#[test]
fn every_key_is_in_the_sample_with_its_unit_and_default() {
    let found = keys_of_the_sample();
    for row in DIRECTIVES {
        let path = row.path();
        let (line, value) = found.get(&path).unwrap_or_else(|| panic!("{path} is missing"));
        let comment = comment_above(SAMPLE, *line);
        let expected = format!("({}, default: {})", row.kind.unit(), row.default);
        assert!(comment.contains(&expected), "{path}: {comment:?} has no {expected:?}");
        if is_a_value(row) {
            assert_eq!(value.as_deref(), Some(row.default), "{path} is not at its default");
        }
    }
    for path in found.keys() {
        assert!(DIRECTIVES.iter().any(|row| row.path() == *path), "{path} is not in the schema");
    }
}

#[test]
fn every_key_is_in_the_manual_with_its_unit_and_default() {
    let entries = entries_of_the_manual();
    for row in DIRECTIVES {
        let path = row.path();
        let text = entries.get(&path).unwrap_or_else(|| panic!("{path} is not in the manual"));
        let unit = format!("Ar {}", row.kind.unit());
        assert!(text.contains(&unit), "{path}: {text:?} has no {unit:?}");
        let default = format!("Default: {}.", row.default);
        assert!(text.contains(&default), "{path}: {text:?} has no {default:?}");
        if let Kind::Choice(words) = row.kind {
            for word in words {
                assert!(text.contains(word), "{path}: {word} is not in the manual");
            }
        }
    }
    for path in entries.keys() {
        assert!(DIRECTIVES.iter().any(|row| row.path() == *path), "{path} is not in the schema");
    }
}

#[test]
fn the_examples_of_the_manual_are_whole_configurations() {
    let blocks = MANUAL.split(".Bd -literal -offset indent\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split(".Ed").next());
    let is_whole =
        |block: &&str| ["\nupstream: ", "\nsites:"].iter().any(|key| block.contains(key));
    let examples: Vec<&str> = blocks.filter(is_whole).collect();
    assert_eq!(examples.len(), 7);
    for text in examples {
        Config::load(Path::new("example"), text).unwrap_or_else(|e| panic!("{text}\n{e}"));
    }
}

#[test]
fn a_default_with_a_unit_is_within_its_bounds() {
    for row in DIRECTIVES {
        let (value, min, max) = match row.kind {
            Kind::Count(min, max) if is_a_value(row) => (row.default.parse().ok(), min, max),
            Kind::Size(min, max) if is_a_value(row) => (parse_size(row.default).ok(), min, max),
            Kind::Duration(min, max) if is_a_value(row) => {
                let default = parse_duration(row.default);
                (default.ok().and_then(|d| u64::try_from(d.as_millis()).ok()), min, max)
            }
            _ => continue,
        };
        let value = value.unwrap_or_else(|| panic!("{}: {:?}", row.path(), row.default));
        assert!((min..=max).contains(&value), "{}: {}", row.path(), row.default);
    }
}

/// Resolving must read every key: a value of another kind has to be a fault.
#[test]
fn every_key_is_resolved() {
    let found = keys_of_the_sample();
    for row in DIRECTIVES {
        let path = row.path();
        let (line, _) = found.get(&path).unwrap_or_else(|| panic!("{path} is missing"));
        let text = with_a_wrong_value(*line, row.key);
        let errors = Config::load(Path::new("k.yaml"), &text).map(|_| ()).unwrap_err();
        let names_it = |key: &str| {
            let key = key.strip_suffix("[0]").unwrap_or(key);
            key.ends_with(&format!(".{}", row.key)) || key == row.key
        };
        let is_noticed = errors.0.iter().any(|error| names_it(&error.key) && error.line == *line);
        assert!(is_noticed, "{path} takes a list of lists: {errors}");
    }
}

#[test]
fn every_path_in_contributing_exists() {
    let is_part = |char: char| char.is_ascii_alphanumeric() || "._-/".contains(char);
    let words = CONTRIBUTING.split(|char| !is_part(char)).map(|word| word.trim_end_matches('.'));
    let endings = [".md", ".rs", ".toml", ".lock", ".yaml"];
    let is_path = |word: &&str| word.contains('/') || endings.iter().any(|end| word.ends_with(end));
    let paths: Vec<&str> = words.filter(is_path).filter(|it| !it.starts_with("target/")).collect();
    assert!(paths.contains(&"src/config/schema.rs"), "{paths:?}");
    for path in paths {
        assert!(Path::new(path).exists(), "CONTRIBUTING.md names {path}");
    }
}

/// Paths below `src` may stand there without it. `DIR` is the cache directory.
#[test]
fn every_path_in_architecture_exists() {
    let is_part = |char: char| char.is_ascii_alphanumeric() || "._-/".contains(char);
    let spans = ARCHITECTURE.split('`').skip(1).step_by(2);
    let is_path = |span: &&str| {
        span.chars().all(is_part)
            && (span.contains('/') || span.ends_with(".rs"))
            && !span.starts_with('/')
            && !span.starts_with("DIR/")
    };
    let paths: Vec<&str> = spans.filter(is_path).collect();
    assert!(paths.contains(&"proxy/h1/serve.rs"), "{paths:?}");
    for path in paths {
        let exists = Path::new(path).exists() || Path::new("src").join(path).exists();
        assert!(exists, "ARCHITECTURE.md names {path}");
    }
}

/// The sample with a list of lists, which no key accepts, at the key of a line.
fn with_a_wrong_value(line: u32, key: &str) -> String {
    let mut text = String::new();
    let mut skipped_below = None;
    for (n, source) in (1u32..).zip(SAMPLE.lines()) {
        let is_comment = source.trim_start().starts_with('#') || source.trim().is_empty();
        if n == line {
            let before = source.find(&format!("{key}:")).expect("the key stands in its line");
            text.push_str(&format!("{}{key}: [[1]]", &source[..before]));
            skipped_below = Some(before);
        } else if let Some(indent) = skipped_below {
            let own = source.len() - source.trim_start().len();
            let is_list = source[own..].starts_with("- ") && own >= indent;
            if is_comment || own > indent || is_list {
                text.push('\n');
                continue;
            }
            skipped_below = None;
            text.push_str(source);
        } else {
            text.push_str(source);
        }
        text.push('\n');
    }
    text
}

fn is_a_value(row: &Directive) -> bool {
    let is_fixed = ![
        "required",
        "none",
        "half of cache.size",
        "64 MiB, at most a fiftieth of cache.size",
        "1 MiB, at most a sixteenth of cache.memory",
        "a tenth of the free space of their disk",
        "cache.object",
        "off, or required with client-ca",
        "the listener's, or required with client-ca",
        "the upstream's",
        "the site's own",
    ]
    .contains(&row.default);
    let is_another = ["limits.", "timeouts."].iter().any(|key| row.default.starts_with(key));
    let is_plain = !matches!(row.kind, Kind::Section(_) | Kind::List(_) | Kind::Text(_));
    is_fixed && !is_another && is_plain
}

/// The keys of the sample by their path in the schema, with their line and plain value.
fn keys_of_the_sample() -> BTreeMap<String, (u32, Option<String>)> {
    let mut found = BTreeMap::new();
    let root = read(SAMPLE).expect("the sample is YAML");
    collect(&root, "", &mut found);
    found
}

fn collect(node: &Node, path: &str, found: &mut BTreeMap<String, (u32, Option<String>)>) {
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                if path == "upstreams" {
                    collect(&entry.node, "upstreams.NAME", found);
                    continue;
                }
                let below = match path {
                    "" => entry.key.clone(),
                    _ => format!("{path}.{}", entry.key),
                };
                let value = match &entry.node.value {
                    Value::Scalar(text) => Some(text.clone()),
                    _ => None,
                };
                found.insert(below.clone(), (entry.place.line, value));
                // Their keys are of the operator's choice.
                let is_named = (path.ends_with(".routes[]")
                    && ["headers", "query", "error-pages"].contains(&entry.key.as_str()))
                    || below == "listen[].sni"
                    || (path.ends_with("-fields") && ["set", "add"].contains(&entry.key.as_str()));
                if entry.key == "ttl-status" || is_named {
                    continue;
                }
                collect(&entry.node, &below, found);
            }
        }
        Value::List(items) => {
            items.iter().for_each(|item| collect(item, &format!("{path}[]"), found));
        }
        Value::Scalar(_) | Value::Empty => {}
    }
}

/// The comment that ends right above a line, as one line.
fn comment_above(text: &str, line: u32) -> String {
    let lines: Vec<&str> = text.lines().take(line as usize - 1).collect();
    let comment = lines.iter().rev().take_while(|line| line.trim_start().starts_with('#'));
    let mut words: Vec<&str> =
        comment.map(|line| line.trim_start().trim_start_matches('#').trim()).collect();
    words.reverse();
    words.join(" ")
}

/// The items of the manual that describe a key (`.It Ic path : Ar unit`), with their text.
fn entries_of_the_manual() -> BTreeMap<String, String> {
    let mut entries = BTreeMap::new();
    let mut path = None;
    for line in MANUAL.lines() {
        if let Some(header) = line.strip_prefix(".It Ic ") {
            path = header.split(' ').next().map(str::to_owned);
        } else if line.starts_with(".Ss ") || line.starts_with(".Sh ") {
            path = None;
        }
        if let Some(path) = &path {
            let text: &mut String = entries.entry(path.clone()).or_default();
            text.push_str(line);
            text.push('\n');
        }
    }
    entries
}
