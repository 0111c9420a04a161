//! Loading a configuration and checking it against this machine.
//!
//! [`Config::load`] looks only at the text. Whether the user exists is checked here, with the place
//! of the key, so that a test, a start and a reload all name the line of the mistake.

use std::io::ErrorKind;
use std::path::Path;

use crate::config::Config;
use crate::config::error::{ConfigError, ConfigErrors};
use crate::config::places::Places;
use crate::sys::privileges::{self, Account};

/// As [`Config::load`], and checks that its user exists on this machine.
///
/// # Errors
/// Every mistake of the text; else that there is no such user, or that it cannot be looked up.
pub(crate) fn load(file: &Path, text: &str) -> Result<Config, ConfigErrors> {
    let config = Config::load_as(file, text, privileges::is_root())?;
    let Some(name) = &config.user else { return Ok(config) };
    let Err(error) = Account::of(name) else { return Ok(config) };
    let place = Places::of(text).ok().and_then(|places| places.first(["user"]));
    let place = place.map(|said| said.place).unwrap_or_default();
    let message = match error.kind() {
        ErrorKind::NotFound => format!(
            "\"{name}\" does not exist on this machine (create it with \"useradd --system {name}\", or remove \
             the key)"
        ),
        _ => format!("cannot look up \"{name}\": {error}"),
    };
    let (file, key) = (file.to_owned(), "user".to_owned());
    Err(ConfigErrors(vec![ConfigError {
        file,
        line: place.line,
        column: place.column,
        key,
        message,
    }]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_must_exist_on_this_machine() {
        let load = |text: &str| load(Path::new("k.yaml"), text);
        assert!(load("upstream: a\n").is_ok() && load("upstream: a\nuser: root\n").is_ok());
        let errors = load("upstream: a\nuser: nobody-of-that-name\n").unwrap_err().to_string();
        let said = "k.yaml:2:7: user: \"nobody-of-that-name\" does not exist on";
        assert!(errors.starts_with(said), "{errors}");
        let errors = load("user: nobody-of-that-name\n").unwrap_err().to_string();
        assert!(errors.contains("upstream: is missing") && !errors.contains("does not exist"));
    }
}
