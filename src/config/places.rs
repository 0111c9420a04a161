//! Finds the line of a configuration that sets a key.

use std::path::{Path, PathBuf};

use crate::config::document::{Node, Place, SyntaxError, Value, read};
use crate::config::error::Faults;
use crate::config::include;

/// A configuration's text with the places of its keys.
#[derive(Debug)]
pub struct Places {
    root: Node,
    file: PathBuf,
    included: Vec<PathBuf>,
}

/// A key that the text sets, and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPlace {
    /// The key, as messages name it: `sites[0].routes[1].cache`.
    pub key: String,
    /// The place of its value.
    pub place: Place,
}

impl Places {
    /// The places of the text of a file, and of the files that it includes.
    ///
    /// # Errors
    /// As [`read`].
    pub fn of(file: &Path, text: &str) -> Result<Self, SyntaxError> {
        let mut faults = Faults::of(file);
        let root = include::expand(&mut faults, read(text)?);
        Ok(Self { root, file: file.to_owned(), included: faults.into_files() })
    }

    /// The file of a place.
    pub fn file_of(&self, place: Place) -> &Path {
        let number = usize::from(place.file).checked_sub(1);
        number.and_then(|number| self.included.get(number)).unwrap_or(&self.file)
    }

    /// The first of these keys that the text sets, as in `sites[0].hosts[1]`. A single value counts
    /// as a list of one, as it does wherever a list is read.
    pub fn first<'k>(&self, keys: impl IntoIterator<Item = &'k str>) -> Option<KeyPlace> {
        keys.into_iter().find_map(|key| {
            let place = self.find(key)?.place;
            Some(KeyPlace { key: key.to_owned(), place })
        })
    }

    /// The text of a key that has a single value.
    pub fn text(&self, key: &str) -> Option<&str> {
        match &self.find(key)?.value {
            Value::Scalar(text) => Some(text),
            Value::Empty | Value::List(_) | Value::Map(_) => None,
        }
    }

    fn find(&self, key: &str) -> Option<&Node> {
        key.split('.').try_fold(&self.root, |node, step| {
            let (name, number) = match step.strip_suffix(']').and_then(|step| step.split_once('['))
            {
                Some((name, number)) => (name, Some(number.parse().ok()?)),
                None => (step, None),
            };
            let Value::Map(entries) = &node.value else { return None };
            let node = &entries.iter().find(|entry| entry.key == name)?.node;
            match (&node.value, number) {
                (Value::List(items), Some(number)) => items.get::<usize>(number),
                (Value::Empty, Some(_)) => None,
                (_, Some(0)) | (_, None) => Some(node),
                (_, Some(_)) => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
cache: /c
sites:
  - hosts: [a.example, b.example]
    cache: {ttl-min: 5s}
    routes:
      - path: /x
        upstream: app
      - {path: /y, cache: off}
  - hosts: c.example
";

    #[test]
    fn a_key_is_found_at_its_place() {
        let places = Places::of(Path::new("k"), TEXT).unwrap();
        let line = |key: &str| places.first([key]).map(|said| said.place.line);
        for (key, expected) in [
            ("cache", Some(1)),
            ("sites[0].hosts[1]", Some(3)),
            ("sites[0].cache.ttl-min", Some(4)),
            ("sites[0].routes[0].upstream", Some(7)),
            ("sites[0].routes[1].cache", Some(8)),
            ("sites[1].hosts[0]", Some(9)),
            ("sites[1].hosts[1]", None),
            ("sites[0].routes[2].path", None),
            ("sites[7].hosts", None),
            ("cache.path", None),
            ("", None),
            ("sites[x]", None),
        ] {
            assert_eq!(line(key), expected, "{key}");
        }
        let said = places.first(["sites[0].routes[0].cache", "sites[0].cache", "cache"]).unwrap();
        assert_eq!((said.key.as_str(), said.place.line), ("sites[0].cache", 4));
    }

    #[test]
    fn invalid_yaml_has_no_places() {
        assert!(Places::of(Path::new("k"), "a: [").is_err());
        assert_eq!(Places::of(Path::new("k"), "").unwrap().first(["a"]), None);
    }
}
