//! Says of a directory that it is a cache of ktrix, so that no other directory is ever used as one.
//!
//! A ktrix that takes a directory changes the owner of what is in it and removes files that are
//! named like its own. So it takes one that is marked, that is empty, or that has nothing but what
//! an earlier ktrix left there. The marker is a tag of the Cache Directory Tagging Specification,
//! by which programs for backups leave the directory out.

use std::fs::{self, DirEntry, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::cache::files::object;
use crate::cache::files::store::TMP;
use crate::cache::index::table;
use crate::cache::purge;

/// The marker's name.
pub const FILE_NAME: &str = "CACHEDIR.TAG";

const TEXT: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This directory is a cache of ktrix(8). Everything in it can be fetched again.\n";

/// Why a directory is not taken.
#[derive(Debug, thiserror::Error)]
pub enum MarkerError {
    /// It holds files of another program.
    #[error(
        "\"{}\" is not a cache of ktrix and not empty: it has \"{name}\" (choose an empty directory \
         as cache.path)",
        dir.display()
    )]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// Something in it that no ktrix made.
        name: String,
    },
    /// The system refused.
    #[error("cannot use \"{}\": {source}", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

/// Checks that a directory is a cache of ktrix or may become one. Changes nothing.
///
/// # Errors
///
/// See [`MarkerError`].
pub fn check(dir: &Path) -> Result<(), MarkerError> {
    let failed = |source| MarkerError::Io { dir: dir.to_owned(), source };
    if is_marked(dir) || has_magic(dir) {
        return Ok(());
    }
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !is_harmless(&entry) {
            let name = entry.file_name().to_string_lossy().into_owned();
            return Err(MarkerError::Foreign { dir: dir.to_owned(), name });
        }
    }
    Ok(())
}

/// Marks a directory that [`check`] allows.
///
/// # Errors
///
/// As [`check`].
pub fn mark(dir: &Path) -> Result<(), MarkerError> {
    check(dir)?;
    if is_marked(dir) {
        return Ok(());
    }
    let failed = |source| MarkerError::Io { dir: dir.to_owned(), source };
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o644);
    let file = options.custom_flags(nix::libc::O_NOFOLLOW).open(dir.join(FILE_NAME));
    file.and_then(|mut file| file.write_all(TEXT.as_bytes())).map_err(failed)
}

fn is_marked(dir: &Path) -> bool {
    begins_with(&dir.join(FILE_NAME), TEXT.as_bytes())
}

/// Whether an index or a table of purges is there, as in a cache that was made before markers were.
fn has_magic(dir: &Path) -> bool {
    [(table::FILE_NAME, table::MAGIC), (purge::file::FILE_NAME, purge::file::MAGIC)]
        .iter()
        .any(|(name, magic)| begins_with(&dir.join(name), *magic))
}

/// Whether a cache directory may have this entry: files of a cache that lost its marker and its index,
/// the pid file, and the entry that a file system is made with.
fn is_harmless(entry: &DirEntry) -> bool {
    let Ok(metadata) = entry.metadata() else { return false };
    let name = entry.file_name();
    let name = name.to_str().unwrap_or_default();
    match name {
        "ktrix.pid" | "ktrix.pid.reload" | "access.spill" | "lost+found" => true,
        _ if metadata.is_file() => metadata.len() == 0 && is_unwritten_name(name),
        _ if !metadata.is_dir() => false,
        TMP => first_in(&entry.path()).is_none_or(|file| is_hex(&file, 16)),
        _ if is_hex(&entry.path(), 2) => first_in(&entry.path())
            .is_none_or(|file| is_hex(&file, 30) && begins_with(&file, &object::MAGIC)),
        _ => false,
    }
}

/// Whether a file of this name is made by ktrix before anything is written to it: a kill in between
/// leaves it empty, and a log beside the cache is made first.
fn is_unwritten_name(name: &str) -> bool {
    let own = [
        FILE_NAME,
        table::FILE_NAME,
        table::NEW_NAME,
        purge::file::FILE_NAME,
        purge::file::NEW_NAME,
    ];
    own.contains(&name) || name.ends_with(".log")
}

fn first_in(dir: &Path) -> Option<PathBuf> {
    Some(fs::read_dir(dir).ok()?.next()?.ok()?.path())
}

fn is_hex(path: &Path, len: usize) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.len() == len && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn begins_with(path: &Path, magic: &[u8]) -> bool {
    let is_file = path.symlink_metadata().is_ok_and(|found| found.is_file());
    let mut found = vec![0; magic.len()];
    is_file
        && File::open(path).and_then(|mut file| file.read_exact(&mut found)).is_ok()
        && found == magic
}

/// As [`check`], of a directory that may be missing.
///
/// # Errors
///
/// As [`check`].
pub fn check_if_there(dir: &Path) -> Result<(), MarkerError> {
    match check(dir) {
        Err(MarkerError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(()),
        checked => checked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_directory_is_marked_and_then_may_hold_anything() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        assert!(check(&path).is_err());
        check_if_there(&path).unwrap();
        fs::create_dir(&path).unwrap();
        check(&path).unwrap();
        assert!(!path.join(FILE_NAME).exists(), "a check changes nothing");
        mark(&path).unwrap();
        fs::write(path.join("notes"), "of the operator").unwrap();
        mark(&path).unwrap();
        check(&path).unwrap();
    }

    #[test]
    fn what_a_ktrix_left_is_a_cache_and_nothing_else_is() {
        let hex = "0123456789abcdef0123456789abcd";
        let object = [&object::MAGIC[..], b"..."].concat();
        for (is_ours, files) in [
            (true, &[("index", &table::MAGIC[..]), ("notes", b"x")][..]),
            (true, &[("purges", &purge::file::MAGIC[..])]),
            (true, &[("ktrix.pid", b"12\n"), ("access.log", b"")]),
            (true, &[(&format!("ab/{hex}"), &object), ("tmp/0123456789abcdef", b"x")]),
            (false, &[("index", b"of a book")]),
            (true, &[("index", b""), ("purges.new", b"")]),
            (false, &[("notes", b"")]),
            (false, &[(&format!("ab/{hex}"), b"not an object")]),
            (false, &[("ab/notes", b"x")]),
            (false, &[("apt/archives", b"x")]),
            (false, &[("tmp/letter", b"x")]),
            (false, &[("CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55\n")]),
        ] {
            let dir = tempfile::tempdir().unwrap();
            for (name, bytes) in files {
                let path = dir.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
            let marked = mark(dir.path());
            assert_eq!(marked.is_ok(), is_ours, "{files:?}: {marked:?}");
            assert_eq!(is_marked(dir.path()), is_ours, "{files:?}");
        }
    }

    #[test]
    fn a_refusal_names_what_is_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("apt")).unwrap();
        let refusal = mark(dir.path()).unwrap_err().to_string();
        assert!(
            refusal.contains("is not a cache of ktrix and not empty: it has \"apt\""),
            "{refusal}"
        );
    }
}
