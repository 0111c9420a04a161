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
    Ok(load_by(file, Config::load)?.inspect_err(|errors| eprintln!("{errors}")).ok())
}

/// As [`load`]; it must also suit this machine.
///
/// # Errors
/// As [`load`].
pub(super) fn load_to_serve(file: &Path) -> anyhow::Result<Option<Config>> {
    Ok(read_to_serve(file)?.inspect_err(|errors| eprintln!("{errors}")).ok())
}

/// As [`load_to_serve`], with the errors as a value.
///
/// # Errors
/// As [`load`].
pub(super) fn read_to_serve(file: &Path) -> anyhow::Result<Result<Config, ConfigErrors>> {
    load_by(file, configuration::load)
}

fn load_by(
    file: &Path,
    load: impl FnOnce(&Path, &str) -> Result<Config, ConfigErrors>,
) -> anyhow::Result<Result<Config, ConfigErrors>> {
    let bytes =
        std::fs::read(file).with_context(|| format!("cannot read \"{}\"", file.display()))?;
    Ok(configuration::text_of(file, bytes).and_then(|text| load(file, &text)))
}
