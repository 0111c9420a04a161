//! `ktrix --test FILE`: checks a configuration.

use std::path::Path;

use crate::cli::load::load_to_serve;

/// Reports a valid configuration on stdout, or every error on stderr; the exit code is 0 or 1.
///
/// # Errors
/// When the file cannot be read.
pub fn check(file: &Path) -> anyhow::Result<i32> {
    match load_to_serve(file)? {
        Some(_) => {
            println!("{}: configuration is valid", file.display());
            Ok(0)
        }
        None => Ok(1),
    }
}
