//! File calls that std does not have: allocation, free space, unnamed files.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc;
use nix::sys::statvfs::statvfs;

/// Allocates the first `len` bytes of `file` on the disk, and extends it to them. Existing bytes
/// stay. A file system without `fallocate` has zeros written to it instead.
///
/// # Errors
///
/// `StorageFull` when there is no room, or what the kernel says.
pub(crate) fn allocate_all(file: &File, len: u64) -> io::Result<()> {
    match allocate(file, FallocateFlags::empty(), 0, len) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => write_zeros(file, len),
        other => other,
    }
}

/// Reserves disk blocks for `len` bytes at `offset` without changing the file's length. A file
/// system that cannot do so is no error: writing fails later.
///
/// # Errors
///
/// `StorageFull` when there is no room, or what the kernel says.
pub(crate) fn reserve(file: &File, offset: u64, len: u64) -> io::Result<()> {
    match allocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, len) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        other => other,
    }
}

/// Free bytes for this process on the file system of `path`.
///
/// # Errors
///
/// What `statvfs` says.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = statvfs(path)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// Opens what `path` names for reading, if it is a regular file: never follows a symbolic link,
/// never waits for the other end of a pipe. `None` for anything else that is there.
///
/// # Errors
///
/// What `open` says.
pub(crate) fn open_regular(path: &Path) -> io::Result<Option<(File, Metadata)>> {
    open_if_regular(path, OpenOptions::new().read(true))
}

/// As [`open_regular`], for reading and writing.
///
/// # Errors
///
/// What `open` says.
pub(crate) fn open_regular_to_write(path: &Path) -> io::Result<Option<File>> {
    let opened = open_if_regular(path, OpenOptions::new().read(true).write(true))?;
    Ok(opened.map(|(file, _)| file))
}

fn open_if_regular(path: &Path, options: &mut OpenOptions) -> io::Result<Option<(File, Metadata)>> {
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_NOCTTY;
    match options.custom_flags(flags).open(path) {
        Ok(file) => {
            let metadata = file.metadata()?;
            Ok(metadata.is_file().then_some((file, metadata)))
        }
        // A symbolic link, a socket, or a device without a driver.
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO | libc::ENODEV)) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether `path` names this open file: the same inode of the same device.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Removes the file or the empty directory `path`; says whether there was one.
///
/// # Errors
///
/// What `unlink` or `rmdir` says, but for a missing file.
pub(crate) fn remove(path: &Path) -> io::Result<bool> {
    let removed = match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => std::fs::remove_dir(path),
        other => other,
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other.map(|()| true),
    }
}

/// A file without a name on the file system of `dir`, readable and writable; it is removed when it
/// is closed, also by a crash.
///
/// # Errors
///
/// What `open` says.
pub(crate) fn unnamed(dir: &Path) -> io::Result<File> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE)
        .open(dir);
    match opened {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT)
            ) =>
        {
            unlinked(dir)
        }
        other => other,
    }
}

/// Reads until `buf` is full or the file ends; returns how much was read.
///
/// # Errors
///
/// What `pread` says.
pub(crate) fn read_full_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut n_read = 0;
    while n_read < buf.len() {
        match file.read_at(&mut buf[n_read..], offset.saturating_add(n_read as u64)) {
            Ok(0) => break,
            Ok(n) => n_read += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n_read)
}

fn allocate(file: &File, mode: FallocateFlags, offset: u64, len: u64) -> io::Result<()> {
    let offset = i64::try_from(offset).map_err(io::Error::other)?;
    let len = i64::try_from(len).map_err(io::Error::other)?;
    loop {
        match fallocate(file, mode, offset, len) {
            Err(Errno::EINTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

/// [`allocate_all`] without `fallocate`. A file that has all its blocks is left as it is.
fn write_zeros(file: &File, len: u64) -> io::Result<()> {
    static ZEROS: [u8; 65536] = [0; 65536];
    let metadata = file.metadata()?;
    if metadata.len() >= len && metadata.blocks().saturating_mul(512) >= len {
        return Ok(());
    }
    let mut at = metadata.len();
    while at < len {
        let n = (len - at).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..n as usize], at)?;
        at += n;
    }
    Ok(())
}

/// A file that is unlinked at once, for file systems without `O_TMPFILE`.
fn unlinked(dir: &Path) -> io::Result<File> {
    const ATTEMPTS_MAX: u32 = 100;
    for attempt in 0..ATTEMPTS_MAX {
        let path = dir.join(format!(".unnamed-{}-{attempt}", std::process::id()));
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => return std::fs::remove_file(&path).map(|()| file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "no free name for a temporary file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocating_extends_and_reserving_does_not() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"abc", 0).unwrap();
        reserve(&file, 0, 1 << 20).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 3);
        allocate_all(&file, 100_000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 100_000);
        assert!(file.metadata().unwrap().blocks() * 512 >= 100_000);
        let mut start = [1; 4];
        assert_eq!(read_full_at(&file, &mut start, 0).unwrap(), 4);
        assert_eq!(&start, b"abc\0");
        assert_eq!(read_full_at(&file, &mut start, 99_998).unwrap(), 2);
    }

    #[test]
    fn writing_zeros_keeps_what_is_there() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"abc", 0).unwrap();
        write_zeros(&file, 200_000).unwrap();
        write_zeros(&file, 200_000).unwrap();
        let mut start = [1; 4];
        read_full_at(&file, &mut start, 0).unwrap();
        assert_eq!((&start, file.metadata().unwrap().len()), (b"abc\0", 200_000));
    }

    #[test]
    fn only_a_regular_file_is_opened_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("file"), b"abc").unwrap();
        std::fs::create_dir(path("dir")).unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        assert_eq!(open_regular(&path("file")).unwrap().unwrap().1.len(), 3);
        for name in ["dir", "link", "pipe", "socket"] {
            assert!(open_regular(&path(name)).unwrap().is_none(), "{name}");
        }
        let error = open_regular(&path("missing")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        for name in ["file", "dir", "link", "pipe", "socket"] {
            assert!(remove(&path(name)).unwrap() && !remove(&path(name)).unwrap(), "{name}");
        }
        std::fs::create_dir_all(path("full/x")).unwrap();
        assert!(remove(&path("full")).is_err());
    }

    #[test]
    fn an_unnamed_file_leaves_no_name() {
        let dir = tempfile::tempdir().unwrap();
        for file in [unnamed(dir.path()).unwrap(), unlinked(dir.path()).unwrap()] {
            file.write_all_at(b"x", 0).unwrap();
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
        assert!(free_bytes(dir.path()).unwrap() > 0);
    }
}
