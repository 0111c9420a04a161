//! The file of a log: its identity, opening it to append, and its lock.
//!
//! A process never waits for the lock (`flock`, by fs2). Lock and identity go by the open file,
//! never by its name, since it may be renamed at any time and a new one opened in its place.
//! Processes that share an open file across a fork would share its lock too: the master opens the
//! file once for each child ([`LogFile::open_again`]), with its own rights.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt, OpenOptionsExt};
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

    /// The same file, whatever its name is now, with a lock of its own.
    ///
    /// # Errors
    /// The system's error: /proc is not mounted, or this process may not open the file.
    pub fn open_again(&self) -> io::Result<Self> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let mut options = OpenOptions::new();
        options.append(true).read(self.is_regular).custom_flags(OFlag::O_NONBLOCK.bits());
        Self::of(options.open(path)?)
    }

    /// The same open file: lock and all are shared.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn try_clone(&self) -> io::Result<Self> {
        Self::of(self.file.try_clone()?)
    }

    /// A file that is already open to append.
    ///
    /// # Errors
    /// When it is no file for a log.
    pub fn of(file: File) -> io::Result<Self> {
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

    /// Its metadata.
    ///
    /// # Errors
    /// The system's error.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
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
    fn the_same_file_opened_again_has_a_lock_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let file = LogFile::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let again = file.open_again().unwrap();
        assert_eq!((again.id(), again.is_regular), (file.id(), true));
        let locked = file.try_lock().unwrap().unwrap();
        assert!(again.try_lock().unwrap().is_none());
        drop(locked);
        assert!(again.try_lock().unwrap().is_some());
    }

    #[test]
    fn a_link_is_followed_only_where_that_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("log"), dir.path().join("link"));
        let file = LogFile::open(&path).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(LogFile::open(&link).unwrap().id(), file.id());
        assert!(LogFile::open_itself(&link).is_err());
    }
}
