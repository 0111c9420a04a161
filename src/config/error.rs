//! The mistakes of a configuration, each with its place, its key and a correction.
//!
//! A list of errors prints one line each, in the order of the text, in the usual form of compilers:
//! `ktrix.yaml:14:7: timeouts.connect: "5" has no unit (try "5s")`.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::document::Place;

/// The limit of mistakes that are reported of one file; further ones are only counted.
const ERRORS_MAX: usize = 100;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file; empty for the command line.
    pub file: PathBuf,
    /// The line, from 1; 0 for the command line.
    pub line: u32,
    /// The column in characters, from 1; 0 for the command line.
    pub column: u32,
    /// The key's path (`sites[2].routes[0].upstream`) or the flag; empty for the file as a whole.
    pub key: String,
    /// The mistake and its correction, in one line.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}:{}: ", self.file.display(), self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Every mistake of a configuration, at least one, in the order of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The mistakes found so far.
pub(crate) struct Faults<'a> {
    file: &'a Path,
    /// The included files.
    included: Vec<PathBuf>,
    found: Vec<ConfigError>,
    n_more: usize,
}

impl<'a> Faults<'a> {
    pub(crate) const fn of(file: &'a Path) -> Self {
        Self { file, included: Vec::new(), found: Vec::new(), n_more: 0 }
    }

    /// Adds an included file; gives its number.
    pub(crate) fn add_file(&mut self, file: &Path) -> u16 {
        self.included.push(file.to_owned());
        u16::try_from(self.included.len()).unwrap_or(u16::MAX)
    }

    /// The included files, in the order of their numbers.
    pub(crate) fn into_files(self) -> Vec<PathBuf> {
        self.included
    }

    /// The file of a place.
    pub(crate) fn file_of(&self, place: Place) -> &Path {
        let number = usize::from(place.file).checked_sub(1);
        number.and_then(|number| self.included.get(number)).map_or(self.file, PathBuf::as_path)
    }

    /// The words for the line of an earlier place, with its file if that of `place` is another.
    pub(crate) fn line_of(&self, earlier: Place, place: Place) -> String {
        match earlier.file == place.file {
            true => format!("line {}", earlier.line),
            false => format!("line {} of {}", earlier.line, self.file_of(earlier).display()),
        }
    }

    pub(crate) fn add(&mut self, place: Place, key: String, message: impl Into<String>) {
        if self.is_full() {
            self.n_more += 1;
            return;
        }
        self.found.push(ConfigError {
            file: self.file_of(place).to_owned(),
            line: place.line,
            column: place.column,
            key,
            message: message.into(),
        });
    }

    /// Whether further faults are only counted, so that the caller need not describe them.
    pub(crate) const fn is_full(&self) -> bool {
        self.found.len() >= ERRORS_MAX
    }

    /// `value`, if there are no faults; else the list in the order of the text.
    pub(crate) fn or_value<T>(self, value: T) -> Result<T, ConfigErrors> {
        if self.found.is_empty() { Ok(value) } else { Err(self.into_errors()) }
    }

    /// The list in the order of the text.
    pub(crate) fn into_errors(mut self) -> ConfigErrors {
        let number = |file: &Path| self.included.iter().position(|it| it == file);
        self.found.sort_by_key(|error| (number(&error.file), error.line, error.column));
        if self.n_more > 0 {
            let place = self.found.last().map_or((1, 1), |error| (error.line, error.column));
            self.found.push(ConfigError {
                file: self.file.to_owned(),
                line: place.0,
                column: place.1,
                key: String::new(),
                message: format!("and {} more errors like these", self.n_more),
            });
        }
        ConfigErrors(self.found)
    }
}

/// The text in quotes, on one line, cut where it is too long to print.
pub(crate) fn quoted(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    match text.char_indices().nth(CHARS_MAX) {
        Some((cut, _)) => format!("{:?}", format!("{}...", &text[..cut])),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_prints_as_a_compiler_would() {
        let path = PathBuf::from("ktrix.yaml");
        let mut faults = Faults::of(&path);
        faults.add(Place::at(14, 7), "a.b".into(), "is wrong");
        faults.add(Place::at(2, 1), String::new(), "not YAML");
        let text = faults.or_value(()).unwrap_err().to_string();
        assert_eq!(text, "ktrix.yaml:2:1: not YAML\nktrix.yaml:14:7: a.b: is wrong");
        let mut flags = Faults::of(Path::new(""));
        flags.add(Place::default(), "--listen".into(), "is wrong");
        assert_eq!(flags.or_value(()).unwrap_err().to_string(), "--listen: is wrong");
    }

    #[test]
    fn the_list_is_bounded() {
        let path = PathBuf::from("f");
        let mut faults = Faults::of(&path);
        for line in 1..=1_000 {
            faults.add(Place::at(line, 1), String::new(), "x");
        }
        let errors = faults.or_value(()).unwrap_err();
        assert_eq!(errors.0.len(), ERRORS_MAX + 1);
        assert!(errors.0[ERRORS_MAX].message.contains("900 more"));
    }

    #[test]
    fn a_quoted_text_is_short_and_on_one_line() {
        assert_eq!(quoted("a\n\"b"), r#""a\n\"b""#);
        assert!(quoted(&"ä".repeat(500)).chars().count() < 100);
    }
}
