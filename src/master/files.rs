//! Files and directories that the master makes as root and its children use as another user.
//!
//! The owner is changed only for files of root, and a symbolic link is never followed.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::cache::index::table;
use crate::cache::purge;
use crate::config::request_log::PerLog;
use crate::config::{AccessLogConfig, Config, ErrorSink, WhenFull};
use crate::log::error::{self, Sink};
use crate::log::file::LogFile;
use crate::log::spill::{self, Spill};
use crate::sys::privileges::Account;

/// The log files of a generation.
#[derive(Debug)]
pub(crate) struct Logs {
    /// The access log and the slow log, unless there are none.
    pub(crate) requests: PerLog<Option<AccessFile>>,
    /// The error log, unless that is no file.
    pub(crate) error: Option<LogFile>,
}

/// The file of a log of requests, and the name that it was opened by.
#[derive(Clone, Debug)]
pub(crate) struct AccessFile {
    pub(crate) path: PathBuf,
    pub(crate) file: Rc<LogFile>,
    /// The file for lines that it does not take for now.
    pub(crate) spill: Option<Rc<Spill>>,
}

impl AccessFile {
    fn open(path: &Path, account: Option<&Account>) -> io::Result<Self> {
        let file = Rc::new(open_log(path, account)?);
        Ok(Self { path: path.to_owned(), file, spill: None })
    }

    /// The file for one child, with a lock of its own: the file that all others write to, even if it
    /// was renamed meanwhile.
    pub(crate) fn for_child(&self, account: Option<&Account>) -> io::Result<LogFile> {
        self.file.open_again().or_else(|_| open_log(&self.path, account))
    }
}

impl Logs {
    /// Opens the logs that the configuration names, with the rights of the master, and makes those
    /// that are missing.
    ///
    /// # Errors
    /// The file that cannot be opened, in the message.
    pub(crate) fn open(config: &Config, account: Option<&Account>) -> io::Result<Self> {
        let requests = PerLog::try_of(|which| {
            let log = config.log.requests(which);
            log.map(|log| AccessFile::open(&log.file, account)).transpose()
        })?;
        let error = match &config.log.error {
            ErrorSink::File(path) => Some(open_log(path, account)),
            ErrorSink::Auto | ErrorSink::Stderr | ErrorSink::Syslog => None,
        };
        Ok(Self { requests, error: error.transpose()? })
    }

    /// Another descriptor of the error log's file; `None` if it has no file, or none is left.
    pub(crate) fn error_copy(&self) -> Option<LogFile> {
        self.error.as_ref().and_then(|file| file.try_clone().ok())
    }

    fn error_sink(&self, config: &Config, is_detached: bool) -> Sink {
        match (self.error_copy(), &config.log.error) {
            (Some(file), _) => Sink::File(file),
            // A daemon has no stderr.
            (None, ErrorSink::Auto | ErrorSink::Stderr) if !is_detached => Sink::Stderr,
            (None, _) => Sink::syslog(),
        }
    }
}

/// The spill file, beside the cache if there is one. `previous` is that of the generation before.
pub(crate) fn open_spill(
    log: &AccessLogConfig,
    cache_dir: Option<&Path>,
    previous: Option<&Rc<Spill>>,
) -> Option<Rc<Spill>> {
    let bytes_max = log.spill_bytes;
    if log.when_full != WhenFull::Spill || bytes_max == 0 {
        return None;
    }
    let nameless =
        previous.filter(|it| it.path.as_os_str().is_empty() && it.bytes_max == bytes_max);
    let opened = match (cache_dir, nameless) {
        (Some(dir), _) => {
            Spill::open(&dir.join(spill::file_name(log.which)), bytes_max).map(Rc::new)
        }
        (None, Some(previous)) => Ok(Rc::clone(previous)),
        (None, None) => Spill::nameless(&std::env::temp_dir(), bytes_max).map(Rc::new),
    };
    opened
        .inspect_err(|error| ::log::warn!("no spill file for the {}: {error}", log.which.name()))
        .ok()
}

/// Writes the error log to the sink of the configuration from now on, in the name of this process.
pub(crate) fn write_error_log(config: &Config, logs: &Logs, is_detached: bool, who: &str) {
    let sink = logs.error_sink(config, is_detached);
    if let Err(error) = error::init(sink, config.log.level, who) {
        log::warn!("cannot change the error log: {error}");
    }
}

/// Opens a log file, and makes it if it is missing.
///
/// # Errors
/// Why not, with the name of the file.
pub(crate) fn open_log(path: &Path, account: Option<&Account>) -> io::Result<LogFile> {
    try_open_log(path, account).map_err(|error| {
        let why = match error.raw_os_error() {
            Some(nix::libc::ENXIO) => {
                "no process reads from it (start the reader first)".to_owned()
            }
            Some(nix::libc::ELOOP) => {
                "it is a symbolic link in a directory that \"user\" can write (name the target \
                 itself)"
                    .to_owned()
            }
            _ => error.to_string(),
        };
        let text = format!("cannot open log file \"{}\": {why}", path.display());
        io::Error::new(error.kind(), text)
    })
}

/// In a directory that the user can write, the name may be a link to any file of the machine, which
/// root must not write to and not give away.
fn try_open_log(path: &Path, account: Option<&Account>) -> io::Result<LogFile> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let Some(account) = account else { return LogFile::open(path) };
    let is_trusted = !account.may_write(&fs::metadata(dir)?);
    let file = if is_trusted { LogFile::open(path)? } else { LogFile::open_itself(path)? };
    let found = file.metadata()?;
    let is_sole_name = found.nlink() == 1 || !found.is_file();
    if !is_trusted && !is_sole_name {
        return Err(io::Error::other(
            "it has several hard links, in a directory that \"user\" can write (remove the others)",
        ));
    }
    let is_link = fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_symlink());
    if found.is_file() && found.uid() == 0 && is_sole_name && !is_link {
        account.own_file(&file)?;
    }
    Ok(file)
}

/// Makes the cache directory. The directories above it that are made can be passed by all users.
///
/// # Errors
/// An error of mkdir(2).
pub(crate) fn make_cache_dir(dir: &Path) -> io::Result<()> {
    let missing = dir
        .ancestors()
        .skip(1)
        .take_while(|above| !above.as_os_str().is_empty() && !above.exists());
    for above in missing.collect::<Vec<_>>().into_iter().rev() {
        // The umask of the shell may be stricter.
        fs::create_dir(above)?;
        fs::set_permissions(above, Permissions::from_mode(0o755))?;
    }
    DirBuilder::new().recursive(true).mode(0o750).create(dir)
}

/// Changes the owner of the cache directory, its directories of objects and the mapped files to the
/// account. The pid file, which may be there too, stays with root.
///
/// # Errors
/// An error of the file system.
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
        open_log(&path, None).unwrap();
        fs::write(&path, "a line\n").unwrap();
        open_log(&path, None).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a line\n");
    }

    #[test]
    fn a_log_file_that_cannot_be_made_is_named() {
        let refusal = open_log(Path::new("/dev/null/access.log"), None).unwrap_err().to_string();
        assert!(
            refusal.starts_with("cannot open log file \"/dev/null/access.log\": "),
            "{refusal}"
        );
    }

    #[test]
    fn a_link_in_a_directory_of_the_user_is_refused_and_nothing_given_away() {
        let (Ok(account), true) = (Account::of("nobody"), crate::sys::privileges::is_root()) else {
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("log"), dir.path().join("other"));
        let owner = |path: &Path| fs::metadata(path).unwrap().uid();
        fs::write(&other, "").unwrap();
        let link = |is_hard: bool| {
            let _ = fs::remove_file(&path);
            match is_hard {
                true => fs::hard_link(&other, &path).unwrap(),
                false => std::os::unix::fs::symlink(&other, &path).unwrap(),
            }
            open_log(&path, Some(&account)).map_err(|error| error.to_string())
        };
        assert!(link(false).is_ok() && link(true).is_ok(), "root chose these links itself");
        account.own_path(dir.path()).unwrap();
        assert!(link(false).unwrap_err().contains("is a symbolic link in a directory"));
        assert!(link(true).unwrap_err().contains("has several hard links"));
        assert_eq!(owner(&other), 0);
        fs::remove_file(&path).unwrap();
        open_log(&path, Some(&account)).unwrap();
        assert_ne!(owner(&path), 0);
    }

    #[test]
    fn only_files_of_root_change_their_owner() {
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
