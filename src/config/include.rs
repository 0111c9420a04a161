//! Files and folders that a configuration includes.
//!
//! The keys of an included file are keys of the configuration: its lists (`sites`, `listen`,
//! `trusted-proxies`) follow those that are there, its `upstreams` stand beside the others, and any
//! other key is set in one file alone. A folder stands for its files with the ending `.yaml`, in the
//! order of their names. Depth and number of files are bounded.

use std::path::{Path, PathBuf};

use crate::config::document::{self, Entry, Node, Place, Value};
use crate::config::error::{Faults, quoted};
use crate::config::source;

/// The depth limit of files that include files.
const DEPTH_MAX: usize = 8;

/// The limit of included files.
const FILES_MAX: usize = 4_096;

/// The key.
const KEY: &str = "include";

/// The tree with all that it includes, directly or not. Mistakes are noted in the file that has them.
pub(crate) fn expand(faults: &mut Faults<'_>, root: Node) -> Node {
    let mut all = Included { faults, n_files: 0 };
    let mut node = root;
    all.expand(&mut node, 0);
    node
}

struct Included<'f, 'p> {
    faults: &'f mut Faults<'p>,
    n_files: usize,
}

impl Included<'_, '_> {
    fn expand(&mut self, node: &mut Node, depth: usize) {
        let Value::Map(entries) = &mut node.value else { return };
        let Some(at) = entries.iter().position(|entry| entry.key == KEY) else { return };
        let include = entries.remove(at).node;
        let items = match include.value {
            Value::List(items) => items,
            Value::Empty => Vec::new(),
            value => vec![Node { place: include.place, value }],
        };
        for (number, item) in items.into_iter().enumerate() {
            let key = format!("{KEY}[{number}]");
            let Value::Scalar(text) = &item.value else {
                self.faults.add(item.place, key, "expects the path of a file or folder");
                continue;
            };
            for file in self.files(text, item.place, &key) {
                if let Some(included) = self.read(&file, item.place, &key, depth) {
                    merge(entries, included);
                }
            }
        }
    }

    /// The files that a text names, by the folder of the file that it stands in.
    fn files(&mut self, text: &str, place: Place, key: &str) -> Vec<PathBuf> {
        let folder = self.faults.file_of(place).parent().unwrap_or(Path::new(""));
        let path = folder.join(text);
        match source::yaml_files(&path) {
            Ok(Some(files)) => files,
            Ok(None) => vec![path],
            Err(why) => {
                self.faults.add(place, key.to_owned(), format!("{} {why}", quoted(text)));
                Vec::new()
            }
        }
    }

    fn read(&mut self, file: &Path, place: Place, key: &str, depth: usize) -> Option<Vec<Entry>> {
        let name = quoted(&file.display().to_string());
        self.n_files += 1;
        if depth >= DEPTH_MAX || self.n_files > FILES_MAX {
            let why = match depth >= DEPTH_MAX {
                true => format!("is included more than {DEPTH_MAX} files deep, or in a circle"),
                false => format!("is one of more than {FILES_MAX} included files"),
            };
            self.faults.add(place, key.to_owned(), format!("{name} {why}"));
            return None;
        }
        let read = source::read(file, document::TEXT_BYTES_MAX as u64);
        let text = read.and_then(|bytes| {
            String::from_utf8(bytes).map_err(|_| "is not UTF-8 (save the file as UTF-8)".to_owned())
        });
        let text = match text {
            Ok(text) => text,
            Err(why) => {
                self.faults.add(place, key.to_owned(), format!("{name} {why}"));
                return None;
            }
        };
        let number = self.faults.add_file(file);
        let mut node = match document::read(&text) {
            Ok(node) => node,
            Err(flaw) => {
                let place = Place { file: number, ..flaw.place };
                self.faults.add(place, String::new(), flaw.message);
                return None;
            }
        };
        node.set_file(number);
        self.expand(&mut node, depth + 1);
        match node.value {
            Value::Map(entries) => Some(entries),
            Value::Empty => None,
            _ => {
                self.faults.add(node.place, String::new(), "expects a mapping of keys");
                None
            }
        }
    }
}

/// Adds the keys of an included file to those that are there.
fn merge(entries: &mut Vec<Entry>, included: Vec<Entry>) {
    for entry in included {
        let own = entries.iter_mut().find(|own| own.key == entry.key);
        match (own, entry.key.as_str()) {
            (Some(own), "sites" | "listen" | "trusted-proxies") => {
                let first = std::mem::replace(&mut own.node.value, Value::Empty);
                let mut all = items(Node { place: own.node.place, value: first });
                all.extend(items(entry.node));
                own.node.value = Value::List(all);
            }
            (Some(own), "upstreams") => match (&mut own.node.value, entry.node.value) {
                (Value::Map(all), Value::Map(others)) => all.extend(others),
                (_, value) => {
                    entries.push(Entry { node: Node { value, ..entry.node }, ..entry });
                }
            },
            // Two of one key are a mistake, which reading notes.
            _ => entries.push(entry),
        }
    }
}

/// The entries of a list; a single value is a list of one.
fn items(node: Node) -> Vec<Node> {
    match node.value {
        Value::List(items) => items,
        Value::Empty => Vec::new(),
        value => vec![Node { place: node.place, value }],
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::config::Config;

    fn load(files: &[(&str, &str)]) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let main = dir.path().join("k.yaml");
        let text = fs::read_to_string(&main).unwrap();
        let name = dir.path().display().to_string();
        Config::load(&main, &text).map_err(|errors| errors.to_string().replace(&name, ""))
    }

    #[test]
    fn lists_and_upstreams_of_included_files_are_added() {
        let config = load(&[
            (
                "k.yaml",
                "include: [sites.d, more.yaml]\nupstreams: {a: {servers: [h]}}\nsites: [{hosts: a}]\nupstream: a\n",
            ),
            ("sites.d/20.yaml", "sites: [{hosts: c}]\n"),
            ("sites.d/10.yaml", "sites: {hosts: b}\nupstreams: {b: {servers: [h]}}\n"),
            ("sites.d/note.txt", "not read: [\n"),
            ("more.yaml", "include: deep/x.yaml\n"),
            ("deep/x.yaml", "include: y.yaml\n"),
            ("deep/y.yaml", "sites: [{hosts: d}]\nlimits: {body: 1 MiB}\n"),
        ]);
        let config = config.unwrap();
        let hosts: Vec<_> = config.sites.iter().map(|site| site.hosts[0].to_string()).collect();
        assert_eq!(hosts, ["a", "b", "c", "d"]);
        assert_eq!((config.upstreams.len(), config.limits.route.body_bytes), (2, 1 << 20));
    }

    #[test]
    fn a_mistake_has_the_place_in_its_file() {
        let main = ("k.yaml", "upstream: a\ninclude: x.yaml\nsites: [{hosts: h}]\n");
        for (text, expected) in [
            ("limits: {\n  head: 1}\n", "/x.yaml:2:9: limits.head: \"1\" has no unit"),
            ("a: [\n", "/x.yaml:1:4: "),
            ("- a\n", "/x.yaml:1:1: expects a mapping of keys"),
            ("wrong: 1\n", "/x.yaml:1:1: wrong: is not a known key"),
            ("upstream: b\n", "/x.yaml:1:1: upstream: is set twice (first in line 1 of /k.yaml)"),
            (
                "sites: [{hosts: h}]\n",
                "/x.yaml:1:17: sites[1].hosts: \"h\" is already claimed by sites[0] (line 3 of /k.yaml)",
            ),
            (
                "include: nowhere.yaml\n",
                "/x.yaml:1:10: include[0]: \"/nowhere.yaml\" cannot be read",
            ),
            ("include: x.yaml\n", "/x.yaml:1:10: include[0]: \"/x.yaml\" is included more than 8"),
            ("include: {a: b}\n", "/x.yaml:1:10: include[0]: expects the path of a file or folder"),
        ] {
            let found = load(&[main, ("x.yaml", text)]).unwrap_err();
            assert!(found.starts_with(expected), "{text}: {found}");
        }
    }

    #[test]
    fn the_number_of_files_is_bounded() {
        let main = format!("upstream: a\ninclude: [{}]\n", vec!["x.yaml"; 4_097].join(", "));
        let found = load(&[("k.yaml", &main), ("x.yaml", "")]).unwrap_err();
        assert!(found.contains("\"/x.yaml\" is one of more than 4096 included files"), "{found}");
    }
}
