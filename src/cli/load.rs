//! The configuration of a command.

use std::path::Path;

use anyhow::Context;

use crate::config::Config;
use crate::config::error::ConfigErrors;
use crate::master::configuration;

/// The configuration file if none is named.
pub(super) const DEFAULT_FILE: &str = "/etc/ktrix/ktrix.yaml";

/// The configuration in `file`; `None` when it has errors, which are then on stderr.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn load(file: &Path) -> anyhow::Result<Option<Config>> {
    load_by(file, Config::load)
}

/// As [`load`]; it must also suit this machine.
///
/// # Errors
/// As [`load`].
pub(super) fn load_to_serve(file: &Path) -> anyhow::Result<Option<Config>> {
    load_by(file, configuration::load)
}

fn load_by(
    file: &Path,
    load: impl FnOnce(&Path, &str) -> Result<Config, ConfigErrors>,
) -> anyhow::Result<Option<Config>> {
    let bytes =
        std::fs::read(file).with_context(|| format!("cannot read \"{}\"", file.display()))?;
    match configuration::text_of(file, bytes).and_then(|text| load(file, &text)) {
        Ok(config) => Ok(Some(config)),
        Err(errors) => {
            eprintln!("{errors}");
            Ok(None)
        }
    }
}
