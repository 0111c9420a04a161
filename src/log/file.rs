//! The log's file: which one it is, opened to append, and locked by one process at a time.
//!
//! A process never waits for the lock (`flock`, by fs2). Lock and identity go by the open file,
//! never by its name, since it may be renamed at any time and a new one opened in its place. A
//! file must not be open across a fork, since the lock would be shared then: each process opens
//! its own.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;
use std::time::UNIX_EPOCH;

use nix::fcntl::OFlag;

use crate::log::ring::FileId;

/// An open log file.
#[derive(Debug)]
pub struct LogFile {
    pub(super) file: File,
    pub(super) id: FileId,
    /// Whether it has a length, and bytes that can be read back.
    pub(super) is_regular: bool,
}

impl LogFile {
    /// Opens the file to append to it and makes it if there is none, for its owner to write and its
    /// group to read. Opening a FIFO without a reader fails instead of waiting.
    ///
    /// # Errors
    /// The system's error; the caller names the path.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_with(path, OFlag::O_NONBLOCK)
    }

    /// The same, but refuses a symbolic link.
    ///
    /// # Errors
    /// As [`Self::open`], and when the name is a link's.
    pub fn open_itself(path: &Path) -> io::Result<Self> {
        Self::open_with(path, OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW)
    }

    fn open_with(path: &Path, flags: OFlag) -> io::Result<Self> {
        // Reading shows what a dead process wrote; a FIFO or a terminal cannot be read back.
        let regular = match std::fs::metadata(path) {
            Ok(metadata) => metadata.is_file(),
            Err(_) => true,
        };
        let mut options = OpenOptions::new();
        options.append(true).read(regular).create(regular).mode(LOG_MODE);
        Self::of(options.custom_flags(flags.bits()).open(path)?)
    }

    fn of(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if metadata.file_type().is_block_device() || metadata.is_dir() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file for a log"));
        }
        let id = FileId::of(&metadata);
        Ok(Self { file, id, is_regular: metadata.is_file() })
    }

    /// The identity of the open file.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Whether it is a plain file with one name only.
    ///
    /// # Errors
    /// The system's error.
    pub fn is_sole_name(&self) -> io::Result<bool> {
        Ok(self.is_regular && self.file.metadata()?.nlink() == 1)
    }

    /// Locks the file, unless another process has done so: `None`, try again later.
    ///
    /// # Errors
    /// When the file cannot be locked at all.
    pub fn try_lock(&self) -> io::Result<Option<LockedFile<'_>>> {
        match fs2::FileExt::try_lock_exclusive(&self.file) {
            Ok(()) => Ok(Some(LockedFile { log: self })),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl FileId {
    /// The identity of the file with this metadata.
    pub fn of(metadata: &Metadata) -> Self {
        let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let born_ns = born.and_then(|since| since.as_nanos().try_into().ok()).unwrap_or(0);
        Self { device: metadata.dev(), inode: metadata.ino(), born_ns }
    }
}

impl AsFd for LogFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A log file under lock; unlocked when dropped.
#[derive(Debug)]
pub struct LockedFile<'a> {
    pub(super) log: &'a LogFile,
}

impl Drop for LockedFile<'_> {
    fn drop(&mut self) {
        // Unlocking an open file does not fail, and closing it unlocks it too.
        let _ = fs2::FileExt::unlock(&self.log.file);
    }
}

/// Makes the log file, so that workers that gave up their privileges can open it. The master calls
/// this before it forks, and before it tells the others to reopen.
///
/// Only a plain file of this very name gets the new owner, never the target of a link: a user who
/// may write the directory must not become the owner of another's file.
///
/// # Errors
/// When the file cannot be opened, or not be given to `owner` (user and group id).
pub fn create(path: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    if path.is_symlink() {
        return LogFile::open(path).map(drop);
    }
    let file = LogFile::open_itself(path)?;
    match owner {
        Some((user, group)) if file.is_sole_name()? => fchown(&file, Some(user), Some(group)),
        _ => Ok(()),
    }
}

/// A new log file's mode: others than its owner and group read nothing of it.
const LOG_MODE: u32 = 0o640;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_one_has_the_lock_and_dropping_it_frees_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (file, other) = (LogFile::open(&path).unwrap(), LogFile::open(&path).unwrap());
        let locked = other.try_lock().unwrap().unwrap();
        assert!(file.try_lock().unwrap().is_none());
        drop(locked);
        assert!(file.try_lock().unwrap().is_some());
    }

    #[test]
    fn the_master_makes_the_file_for_others() {
        let dir = tempfile::tempdir().unwrap();
        create(&dir.path().join("log"), None).unwrap();
        assert!(dir.path().join("log").exists());
        assert!(create(&dir.path().join("none").join("log"), None).is_err());
    }

    #[test]
    fn the_target_of_a_link_keeps_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("log"), dir.path().join("other"));
        fs::write(&other, "").unwrap();
        let nobody = Some((65_534, 65_534));
        let before = fs::metadata(&other).unwrap().uid();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        create(&path, nobody).unwrap();
        fs::remove_file(&path).unwrap();
        fs::hard_link(&other, &path).unwrap();
        create(&path, nobody).unwrap();
        assert_eq!(fs::metadata(&other).unwrap().uid(), before);
        if nix::unistd::geteuid().is_root() {
            fs::remove_file(&path).unwrap();
            create(&path, nobody).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().uid(), 65_534);
        }
    }
}
