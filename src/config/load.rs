//! The way from a configuration's text to a [`Config`].

use std::path::Path;

use crate::config::error::{ConfigErrors, Faults};
use crate::config::{Config, document, resolve};

impl Config {
    /// Resolves a configuration's text. `path` names the file in errors and is not opened.
    ///
    /// `workers: auto` (the default) is one for each core that this process may use.
    ///
    /// # Errors
    /// Every mistake of the text, with its place, its key and the way out.
    pub fn load(path: &Path, text: &str) -> Result<Self, ConfigErrors> {
        Self::load_for(path, text, cores())
    }

    /// As [`Self::load`], with the number of cores that `workers: auto` stands for.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_for(path: &Path, text: &str, n_cores: usize) -> Result<Self, ConfigErrors> {
        let mut faults = Faults::of(path);
        match document::read(text) {
            Ok(root) => {
                let config = resolve::resolve(&mut faults, path, &root, n_cores);
                faults.or_value(config)
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
