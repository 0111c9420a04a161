//! The way from a configuration's text to a [`Config`].

use std::path::Path;

use crate::config::error::{ConfigErrors, Faults};
use crate::config::resolve::Machine;
use crate::config::{Config, document, effective, include, resolve};

impl Config {
    /// Resolves a configuration's text. `path` names the file in errors and is not opened.
    ///
    /// `workers: auto` (the default) is one for each core that this process may use.
    ///
    /// # Errors
    /// Every mistake of the text, with its place, its key and the way out.
    pub fn load(path: &Path, text: &str) -> Result<Self, ConfigErrors> {
        Self::load_as(path, text, false)
    }

    /// As [`Self::load`], for root or another user.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_as(path: &Path, text: &str, is_root: bool) -> Result<Self, ConfigErrors> {
        Self::load_on(path, text, Machine { n_cores: cores(), is_root })
    }

    /// As [`Self::load`] for another user than root, with the number of cores that `workers: auto`
    /// stands for.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_for(path: &Path, text: &str, n_cores: usize) -> Result<Self, ConfigErrors> {
        Self::load_on(path, text, Machine { n_cores, is_root: false })
    }

    fn load_on(path: &Path, text: &str, machine: Machine) -> Result<Self, ConfigErrors> {
        let mut faults = Faults::of(path);
        match document::read(text) {
            Ok(root) => {
                let root = include::expand(&mut faults, root);
                let config = resolve::resolve(&mut faults, path, &root, machine);
                let config = faults.or_value(config)?;
                let effective = effective::text(&root, &config).into();
                Ok(Self { effective, ..config })
            }
            Err(flaw) => {
                faults.add(flaw.place, String::new(), flaw.message);
                Err(faults.into_errors())
            }
        }
    }
}

/// The cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_file_of_root_is_where_no_other_user_can_write() {
        let pid = |text: &str, is_root| {
            let machine = Machine { n_cores: 1, is_root };
            let text = format!("upstream: 10.0.0.1\n{text}");
            let config = Config::load_on(Path::new("k"), &text, machine).unwrap();
            config.pid.map(|path| path.display().to_string())
        };
        assert_eq!(pid("cache: /c", true).as_deref(), Some("/run/ktrix.pid"));
        assert_eq!(pid("cache: /c", false).as_deref(), Some("/c/ktrix.pid"));
        assert_eq!(pid("", false), None);
        assert_eq!(pid("pid: off", true), None);
        assert_eq!(pid("pid: /p", true).as_deref(), Some("/p"));
    }
}
