//! The files that a configuration names and that are a part of it. They are read when it is read.

use std::fs;
use std::path::{Path, PathBuf};

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

/// The files of a folder with the ending `.yaml`, sorted by name; `None` if the path is no folder.
///
/// # Errors
/// Why the folder cannot be read, in one line.
pub(crate) fn yaml_files(path: &Path) -> Result<Option<Vec<PathBuf>>, String> {
    if !path.is_dir() {
        return Ok(None);
    }
    let entries = fs::read_dir(path).map_err(|error| format!("cannot be read: {error}"))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|ending| ending == "yaml")).collect();
    files.sort();
    Ok(Some(files))
}
