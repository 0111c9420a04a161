//! Loading a configuration and checking it against this machine.
//!
//! Reading a configuration looks at nothing but its text. Whether its user exists, and can use the
//! directories, only this machine can say. It is asked with the places of the keys at hand, so that
//! a test, a start and a reload all say where the mistake is.

use std::io::ErrorKind;
use std::path::Path;

use crate::config::Config;
use crate::config::document::Place;
use crate::config::error::{ConfigError, ConfigErrors};
use crate::config::places::Places;
use crate::master::access_check::{self, Problem};
use crate::master::unusual;
use crate::sys::privileges::{self, Account};
use crate::tls::certificate::Finding;
use crate::tls::server::Servers;
use crate::tls::sources::Sources;

/// The bytes of a file as text.
///
/// # Errors
/// The place of the first byte that is not UTF-8.
pub(crate) fn text_of(file: &Path, bytes: Vec<u8>) -> Result<String, ConfigErrors> {
    String::from_utf8(bytes).map_err(|error| {
        let (valid, rest) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
        let valid = String::from_utf8_lossy(valid);
        let last_line = valid.rsplit('\n').next().unwrap_or_default();
        let number = |n: usize| u32::try_from(n + 1).unwrap_or(u32::MAX);
        let line = number(valid.matches('\n').count());
        let place = Place::at(line, number(last_line.chars().count()));
        let byte = rest.first().copied().unwrap_or_default();
        let message = format!("the byte 0x{byte:02x} is not UTF-8 (save the file as UTF-8)");
        ConfigErrors(vec![error_at(file, place, "", message)])
    })
}

/// As [`Config::load`], its user is one of this machine, and its certificates can be used.
///
/// # Errors
/// Every mistake of the text, that there is no such user or that it cannot be looked up, and each
/// file of a certificate that cannot be used.
pub(crate) fn load(file: &Path, text: &str) -> Result<Config, ConfigErrors> {
    let loaded = Config::load_as(file, text, privileges::is_root());
    let mut errors: Vec<_> = error_of_user(file, text).into_iter().collect();
    match loaded {
        Ok(config) => match Servers::load(&config, &Sources::of_disk(), None) {
            Ok(_) if errors.is_empty() => return Ok(config),
            Ok(_) => {}
            Err(findings) => errors.extend(errors_of(file, text, findings)),
        },
        Err(found) => errors.extend(found.0),
    }
    // Those of included files follow.
    errors.sort_by_key(|error| (error.file != file, error.line, error.column));
    Err(ConfigErrors(errors))
}

/// The warnings about the certificates, and about what is hardly meant, with their places.
pub(crate) fn warnings(file: &Path, text: &str, config: &Config) -> Vec<ConfigError> {
    let servers = Servers::load(config, &Sources::of_disk(), None).unwrap_or_default();
    let mut warnings = errors_of(file, text, servers.warnings);
    warnings.extend(errors_at(file, text, unusual::problems(config)));
    warnings
}

fn errors_of(file: &Path, text: &str, findings: Vec<Finding>) -> Vec<ConfigError> {
    let places = Places::of(file, text).ok();
    let error = |finding: Finding| {
        let keys = [&*finding.key, finding.key.rsplit_once('.').map_or("", |(above, _)| above)];
        let found = places.as_ref().and_then(|places| places.first(keys));
        let place = found.map(|found| found.place).unwrap_or_default();
        let file = places.as_ref().map_or(file, |places| places.file_of(place));
        error_at(file, place, &finding.key, finding.message)
    };
    findings.into_iter().map(error).collect()
}

/// Whether the user can use the directories, and the master the logs; `None` if only root can tell.
pub(crate) fn check_access(file: &Path, text: &str, config: &Config) -> Option<ConfigErrors> {
    let account = config.user.as_ref().and_then(|name| Account::of(name).ok());
    if !privileges::is_root() && account.as_ref().is_some_and(|account| !account.is_current()) {
        return None;
    }
    let account = account.filter(|_| privileges::is_root());
    Some(ConfigErrors(errors_at(file, text, access_check::problems(config, account.as_ref()))))
}

fn errors_at(file: &Path, text: &str, problems: Vec<Problem>) -> Vec<ConfigError> {
    let places = Places::of(file, text).ok();
    let error = |problem: Problem| {
        let found = places.as_ref().and_then(|places| places.first(problem.keys.iter().copied()));
        let key = found.as_ref().map_or_else(String::new, |found| found.key.clone());
        let place = found.map(|found| found.place).unwrap_or_default();
        let file = places.as_ref().map_or(file, |places| places.file_of(place));
        error_at(file, place, &key, problem.message)
    };
    problems.into_iter().map(error).collect()
}

fn error_of_user(file: &Path, text: &str) -> Option<ConfigError> {
    let places = Places::of(file, text).ok()?;
    let name = places.text("user")?;
    let error = Account::of(name).err()?;
    let place = places.first(["user"]).map(|found| found.place).unwrap_or_default();
    let message = match error.kind() {
        ErrorKind::NotFound => format!(
            "\"{name}\" does not exist on this machine (create it with \"useradd --system {name}\", or remove \
             the key)"
        ),
        _ => format!("cannot look up \"{name}\": {error}"),
    };
    Some(error_at(places.file_of(place), place, "user", message))
}

fn error_at(file: &Path, place: Place, key: &str, message: String) -> ConfigError {
    let (line, column) = (place.line, place.column);
    ConfigError { file: file.to_owned(), line, column, key: key.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_user_is_reported_with_all_other_mistakes_in_order() {
        let text = "workers: many\nuser: no-such-user-here\nlimitz: {}\nupstream: 10.0.0.1\n";
        let errors = load(Path::new("k.yaml"), text).unwrap_err();
        let lines: Vec<_> = errors.0.iter().map(|error| (error.line, &*error.key)).collect();
        assert_eq!(lines, [(1, "workers"), (2, "user"), (3, "limitz")]);
    }

    #[test]
    fn a_byte_that_is_not_utf_8_is_named_with_its_place() {
        let error = text_of(Path::new("k.yaml"), b"user: a\n# caf\xe9\n".to_vec()).unwrap_err();
        let expected = "k.yaml:2:6: the byte 0xe9 is not UTF-8 (save the file as UTF-8)";
        assert_eq!(error.to_string(), expected);
        assert_eq!(text_of(Path::new("k"), b"caf\xc3\xa9".to_vec()).unwrap(), "caf\u{e9}");
    }
}
