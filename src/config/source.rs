//! The files that a configuration names and that are a part of it. They are read when it is read.

use std::fs;
use std::path::Path;

/// The bytes of a file.
///
/// # Errors
/// Why it cannot be used, in one line.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let unread = |error| format!("cannot be read: {error}");
    let metadata = fs::metadata(path).map_err(unread)?;
    // A pipe would be waited for.
    if !metadata.is_file() {
        return Err("is not a file".to_owned());
    }
    if metadata.len() > bytes_max {
        return Err(format!("is longer than {} KiB", bytes_max >> 10));
    }
    fs::read(path).map_err(unread)
}
