//! `ktrix --test FILE`: checks a configuration, and says what it would run.

use std::path::Path;

use crate::cli::load::load_to_serve;
use crate::cli::{output, summary};
use crate::master::{configuration, sandbox};

/// Reports a valid configuration on stdout, or every error on stderr; the exit code is 0 or 1. What is
/// valid and hardly meant is a warning on stderr. Verbose, what each process may touch comes first.
///
/// # Errors
/// When the file cannot be read.
pub fn check(file: &Path, is_verbose: bool) -> anyhow::Result<i32> {
    let Some(config) = load_to_serve(file)? else { return Ok(1) };
    let text = std::fs::read_to_string(file)?;
    if is_verbose {
        output::to_stdout(|out| {
            write!(out, "{}", sandbox::describe(&config))?;
            Ok(0)
        })?;
    }
    for warning in configuration::warnings(file, &text, &config) {
        eprintln!("{warning} (warning)");
    }
    let reservation = match configuration::check_access(file, &text, &config) {
        Some(errors) if !errors.0.is_empty() => {
            eprintln!("{errors}");
            return Ok(1);
        }
        Some(_) => "",
        None => " (only root can check the directories of its user)",
    };
    output::to_stdout(|out| {
        writeln!(out, "{}: configuration is valid{reservation}", file.display())?;
        for (word, what) in summary::lines(&config) {
            writeln!(out, "  {word:<10} {what}")?;
        }
        Ok(0)
    })
}
