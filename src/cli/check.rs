//! `ktrix --test FILE`: checks a configuration.

use std::path::Path;

use crate::cli::load::load_to_serve;
use crate::master::configuration;

/// Reports a valid configuration on stdout, or every error on stderr; the exit code is 0 or 1.
///
/// # Errors
/// When the file cannot be read.
pub fn check(file: &Path) -> anyhow::Result<i32> {
    let Some(config) = load_to_serve(file)? else { return Ok(1) };
    let text = std::fs::read_to_string(file)?;
    for warning in configuration::warnings(file, &text, &config) {
        eprintln!("{warning} (warning)");
    }
    match configuration::check_access(file, &text, &config) {
        Some(errors) if !errors.0.is_empty() => {
            eprintln!("{errors}");
            Ok(1)
        }
        Some(_) => {
            println!("{}: configuration is valid", file.display());
            Ok(0)
        }
        None => {
            println!(
                "{}: configuration is valid (only root can check the directories of its user)",
                file.display()
            );
            Ok(0)
        }
    }
}
