//! The lock on a cache directory: one master at a time may open it.
//!
//! The master locks the directory itself (flock(2)) for as long as it lives: the kernel drops the
//! lock with the last descriptor, and children close theirs first of all. Emptying the directory
//! does not touch it. Commands that only read, and those that purge, need no such lock: index and
//! purges have locks of their own.

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::sys::file;

/// The lock on a cache directory.
#[derive(Debug)]
pub struct DirectoryLock {
    dir: File,
}

impl AsFd for DirectoryLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// Why a directory cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another master has locked it.
    #[error("the cache directory {dir:?} is in use by another ktrix{}", with_pid(*pid))]
    Held {
        /// The directory.
        dir: PathBuf,
        /// The pid of that master, if the kernel tells.
        pid: Option<u32>,
    },
    /// The system refused.
    #[error("cannot lock the cache directory {dir:?}: {source}")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

impl DirectoryLock {
    /// Locks an existing directory.
    ///
    /// # Errors
    ///
    /// [`LockError::Held`] when another master has it.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { dir: path.to_owned(), source };
        let dir = File::open(path).map_err(failed)?;
        for n_tries in 1.. {
            match dir.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => return Err(failed(source)),
                // A child of a master that was killed may not have closed its copy yet.
                Err(TryLockError::WouldBlock) if n_tries < N_TRIES_MAX => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    let pid = holder(&dir);
                    return Err(LockError::Held { dir: path.to_owned(), pid });
                }
            }
        }
        Ok(Self { dir })
    }

    /// The lock of a directory that another master has locked and passed on. Both hold it.
    pub(crate) fn passed(dir: File) -> Self {
        Self { dir }
    }

    /// Whether `path` is the locked directory, by whatever name.
    pub fn is_of(&self, path: &Path) -> bool {
        file::is_at(&self.dir, path)
    }
}

/// The process that has locked it, by the kernel's list of locks. The device number in that list is
/// not the same on every file system, so only the inode is compared.
pub(crate) fn holder(dir: &File) -> Option<u32> {
    let ino = dir.metadata().ok()?.ino();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| holder_of(line, ino))
}

/// `1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF`
fn holder_of(line: &str, ino: u64) -> Option<u32> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, "FLOCK", _, "WRITE", pid, place, ..] = words[..] else { return None };
    let is_it = place.rsplit(':').next()?.parse() == Ok(ino);
    pid.parse().ok().filter(|&pid| is_it && pid > 0)
}

fn with_pid(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

const N_TRIES_MAX: u32 = 10;
const PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_master_is_told_the_pid_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::take(dir.path()).unwrap();
        let refusal = DirectoryLock::take(dir.path()).unwrap_err().to_string();
        let me = std::process::id();
        assert!(refusal.ends_with(&format!("is in use by another ktrix (pid {me})")), "{refusal}");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert!(lock.is_of(dir.path()) && lock.is_of(&link) && !lock.is_of(Path::new("/")));
        drop(lock);
        assert!(DirectoryLock::take(&link).is_ok());
        let missing = DirectoryLock::take(&dir.path().join("missing")).unwrap_err();
        assert!(matches!(missing, LockError::Io { .. }), "{missing}");
    }

    #[test]
    fn only_a_lock_of_this_inode_names_its_holder() {
        let line = "12: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF";
        assert_eq!(holder_of(line, 5678), Some(1234));
        assert_eq!(holder_of(line, 678), None);
        for other in ["12: POSIX  ADVISORY  WRITE 1 08:01:5678 0 EOF", "12: -> FLOCK", "", "a b c"]
        {
            assert_eq!(holder_of(other, 5678), None, "{other}");
        }
    }
}
