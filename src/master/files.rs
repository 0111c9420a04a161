//! Files and directories that the master makes as root and its children use as somebody else.
//!
//! Only what belongs to root is given away, and a symbolic link is never followed to give away what
//! it points to.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::cache::index::table;
use crate::cache::purge;
use crate::config::{Config, ErrorSink};
use crate::log::error::{self, Sink};
use crate::sys::privileges::Account;

/// Makes the log files that the configuration names, so that children can open them.
///
/// # Errors
/// The file that cannot be made, in the message.
pub(crate) fn prepare_logs(config: &Config, account: Option<&Account>) -> io::Result<()> {
    if let Some(access) = &config.log.access {
        prepare_log(&access.file, account)?;
    }
    if let ErrorSink::File(path) = &config.log.error {
        prepare_log(path, account)?;
    }
    Ok(())
}

fn prepare_log(path: &Path, account: Option<&Account>) -> io::Result<()> {
    make_log(path, account).map_err(|error| {
        let text = format!("cannot open log file \"{}\": {error}", path.display());
        io::Error::new(error.kind(), text)
    })
}

fn make_log(path: &Path, account: Option<&Account>) -> io::Result<()> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::create_dir_all(dir)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
    let is_link = fs::symlink_metadata(path)?.file_type().is_symlink();
    let found = file.metadata()?;
    match account {
        Some(account) if found.is_file() && found.uid() == 0 && !is_link => account.own_file(&file),
        _ => Ok(()),
    }
}

/// Opens the error log of the configuration. If it cannot be opened, lines go on to where they went
/// before.
pub(crate) fn open_error_log(config: &Config, is_detached: bool, who: &str) {
    let sink = match &config.log.error {
        ErrorSink::File(path) => Sink::File(path.clone()),
        // A daemon has no stderr.
        ErrorSink::Auto | ErrorSink::Stderr if !is_detached => Sink::Stderr,
        ErrorSink::Auto | ErrorSink::Stderr | ErrorSink::Syslog => Sink::syslog(),
    };
    if let Err(error) = error::init(&sink, config.log.level, who) {
        log::warn!("cannot open the error log: {error}");
    }
}

/// Makes the cache directory.
///
/// # Errors
/// What mkdir(2) says.
pub(crate) fn make_cache_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o750).create(dir)
}

/// Gives the cache directory, the directories of objects in it and what is mapped to the account. The
/// pid file, which may stand there too, stays root's.
///
/// # Errors
/// What the file system says.
pub(crate) fn own_cache_dir(dir: &Path, account: Option<&Account>) -> io::Result<()> {
    let Some(account) = account else { return Ok(()) };
    own_if_roots(dir, account)?;
    for entry in fs::read_dir(dir)?.take(N_ENTRIES_MAX) {
        let entry = entry?;
        if entry.file_type()?.is_dir() || MAPPED.iter().any(|name| entry.file_name() == **name) {
            own_if_roots(&entry.path(), account)?;
        }
    }
    Ok(())
}

fn own_if_roots(path: &Path, account: &Account) -> io::Result<()> {
    if fs::symlink_metadata(path)?.uid() == 0 { account.own_path(path) } else { Ok(()) }
}

/// Files in the cache directory that all processes map.
const MAPPED: [&str; 3] = [table::FILE_NAME, table::NEW_NAME, purge::file::FILE_NAME];
/// A cache directory holds 256 directories of objects and a few files.
const N_ENTRIES_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_file_and_its_directory_are_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/access.log");
        prepare_log(&path, None).unwrap();
        fs::write(&path, "a line\n").unwrap();
        prepare_log(&path, None).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a line\n");
    }

    #[test]
    fn a_log_file_that_cannot_be_made_is_named() {
        let refusal = prepare_log(Path::new("/dev/null/access.log"), None).unwrap_err().to_string();
        assert!(
            refusal.starts_with("cannot open log file \"/dev/null/access.log\": "),
            "{refusal}"
        );
    }

    #[test]
    fn only_what_is_roots_is_given_away() {
        let (Ok(account), true) = (Account::of("nobody"), crate::sys::privileges::is_root()) else {
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("ab")).unwrap();
        fs::write(dir.path().join("index"), "").unwrap();
        fs::write(dir.path().join("ktrix.pid"), "").unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("cd")).unwrap();
        own_cache_dir(dir.path(), Some(&account)).unwrap();
        let owner = |name: &str| fs::metadata(dir.path().join(name)).unwrap().uid();
        assert!(owner("ab") != 0 && owner("index") != 0);
        assert_eq!((owner("cd"), owner("ktrix.pid")), (0, 0));
    }
}
