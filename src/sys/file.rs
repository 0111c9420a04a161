//! File calls that std does not have: allocation, free space, unnamed files, and calls that never
//! wait for the disk.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{
    AT_FDCWD, FallocateFlags, OFlag, OpenHow, PosixFadviseAdvice, ResolveFlag, fallocate, openat2,
    posix_fadvise,
};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statfs::{self, statfs};
use nix::sys::statvfs::statvfs;
use nix::unistd::{SysconfVar, sysconf};

/// A file in memory with these bytes, to be read by another process from its beginning.
///
/// # Errors
/// An error of memfd_create(2) or of the write.
pub(crate) fn in_memory(name: &str, bytes: &[u8]) -> io::Result<File> {
    let file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?);
    file.write_all_at(bytes, 0)?;
    Ok(file)
}

/// The mark of XFS in statfs(2), which nix does not name for musl.
const XFS_SUPER_MAGIC: statfs::FsType = statfs::FsType(0x5846_5342);

/// Whether a call may wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It waits as long as it takes.
    Wait,
    /// It takes what the kernel has in memory, or fails with `WouldBlock`.
    Cached,
}

/// The medium of a file system: whether reading from it can wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// In memory: no call waits.
    Memory,
    /// On a disk of this machine. [`Access::Cached`] is possible.
    Disk,
    /// With another machine or process: every call may wait.
    Remote,
}

impl Medium {
    /// The medium of the file system that holds `path`. An unknown one counts as remote.
    pub(crate) fn of(path: &Path) -> Self {
        match statfs(path).map(|stat| stat.filesystem_type()) {
            Ok(statfs::TMPFS_MAGIC) => Self::Memory,
            Ok(
                statfs::EXT4_SUPER_MAGIC
                | XFS_SUPER_MAGIC
                | statfs::BTRFS_SUPER_MAGIC
                | statfs::F2FS_SUPER_MAGIC,
            ) => Self::Disk,
            _ => Self::Remote,
        }
    }

    /// The access that a call may be tried with at once; `None` if any may wait.
    pub(crate) const fn at_once(self) -> Option<Access> {
        match self {
            Self::Memory => Some(Access::Wait),
            Self::Disk => Some(Access::Cached),
            Self::Remote => None,
        }
    }
}

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
/// An error of `statvfs`.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = statvfs(path)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// Opens what `path` names for reading, if it is a regular file: never follows a symbolic link,
/// never waits for the other end of a pipe. `None` for anything else that is there.
///
/// # Errors
///
/// An error of `open`; `WouldBlock` if the kernel does not know the path and `access` is cached.
pub(crate) fn open_regular(path: &Path, access: Access) -> io::Result<Option<(File, Metadata)>> {
    if_regular(match access {
        Access::Wait => OpenOptions::new().read(true).custom_flags(OPEN_FLAGS).open(path),
        Access::Cached => open_cached(path),
    })
}

/// Opens the regular file at `path` below the folder `dir`, from where neither `path` nor a symbolic
/// link leads out; `None` for anything else that is there.
///
/// # Errors
///
/// An error of `open`; `EXDEV` when the path leads out of the folder.
pub(crate) fn open_beneath(dir: &Path, path: &Path) -> io::Result<Option<File>> {
    let dir = File::open(dir)?;
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_BENEATH);
    let opened = openat2(&dir, path, how).map(File::from).map_err(io::Error::from);
    Ok(if_regular(opened)?.map(|(file, _)| file))
}

/// As [`open_regular`], for reading and writing.
///
/// # Errors
///
/// An error of `open`.
pub(crate) fn open_regular_to_write(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).custom_flags(OPEN_FLAGS).open(path);
    Ok(if_regular(opened)?.map(|(file, _)| file))
}

const OPEN_FLAGS: i32 = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_NOCTTY;

/// Opens a file for reading if every part of its path is in the kernel's cache.
fn open_cached(path: &Path) -> io::Result<File> {
    let flags = OFlag::from_bits_retain(OPEN_FLAGS) | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags);
    let cached = ResolveFlag::from_bits_retain(libc::RESOLVE_CACHED as libc::c_ulonglong);
    match openat2(AT_FDCWD, path, how.resolve(cached)) {
        Ok(file) => Ok(file.into()),
        // An older kernel has no such call or no such flag, and a sandbox may refuse it.
        Err(Errno::ENOSYS | Errno::EINVAL | Errno::EPERM) => Err(Errno::EAGAIN.into()),
        Err(error) => Err(error.into()),
    }
}

fn if_regular(opened: io::Result<File>) -> io::Result<Option<(File, Metadata)>> {
    match opened {
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
/// An error of `unlink` or `rmdir`, but for a missing file.
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
/// An error of `open`.
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
/// An error of `pread`; `WouldBlock` if not all of it is in memory and `access` is cached.
pub(crate) fn read_full_at(
    file: &File,
    buf: &mut [u8],
    offset: u64,
    access: Access,
) -> io::Result<usize> {
    let mut n_read = 0;
    while n_read < buf.len() {
        let (rest, at) = (&mut buf[n_read..], offset.saturating_add(n_read as u64));
        let read = match access {
            Access::Wait => file.read_at(rest, at),
            Access::Cached => read_cached_at(file, rest, at),
        };
        match read {
            Ok(0) => break,
            Ok(n) => n_read += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n_read)
}

/// Reads what the page cache has from `offset` on.
fn read_cached_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
    let part = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: the one vector is `buf`, which is borrowed mutably for the time of the call.
    let n = unsafe { libc::preadv2(file.as_raw_fd(), &part, 1, offset, libc::RWF_NOWAIT) };
    match Errno::result(n) {
        Ok(n) => Ok(n as usize),
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM) => Err(Errno::EAGAIN.into()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the page cache has this range of the file, so that sending it does not wait. The end of
/// the range is read for that, because pages that are still being read are the last ones.
pub(crate) fn is_cached(file: &File, offset: u64, len: u64) -> bool {
    let has = |at: u64| read_cached_at(file, &mut [0], at).is_ok();
    if len == 0 {
        return true;
    }
    let last = offset.saturating_add(len - 1);
    has(last)
        && n_missing_pages(file, offset, len).map_or_else(
            // The kernel is older than 6.5: samples tell, one for each usual read-ahead.
            || (offset..last).step_by(128 << 10).all(has),
            |n_missing| n_missing == 0,
        )
}

/// How many pages of this range the page cache lacks; `None` if the kernel does not say.
fn n_missing_pages(file: &File, offset: u64, len: u64) -> Option<u64> {
    #[repr(C)]
    struct Range {
        offset: u64,
        len: u64,
    }
    const SYS_CACHESTAT: libc::c_long = 451;
    let range = Range { offset, len };
    // Cached, dirty, under writeback, evicted, recently evicted.
    let mut stat = [0_u64; 5];
    let fd = file.as_raw_fd();
    // SAFETY: cachestat(2) reads a range of this layout and writes five numbers, and both live
    // longer than the call.
    let result = unsafe { libc::syscall(SYS_CACHESTAT, fd, &range, stat.as_mut_ptr(), 0_u32) };
    let page = page_bytes();
    let n_pages = (offset + len).div_ceil(page) - offset / page;
    (result == 0).then(|| n_pages.saturating_sub(stat[0]))
}

fn page_bytes() -> u64 {
    let bytes = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(4096)
}

/// Reads a range of the file into the page cache, and has the kernel begin with what follows.
///
/// # Errors
///
/// An error of `pread`. An end of the file before that of the range is none.
pub(crate) fn bring_in(file: &File, mut offset: u64, len: u64) -> io::Result<()> {
    let end = offset.saturating_add(len);
    let mut buf = vec![0; len.min(256 << 10) as usize];
    while offset < end {
        let n = (end - offset).min(buf.len() as u64) as usize;
        match read_full_at(file, &mut buf[..n], offset, Access::Wait)? {
            0 => return Ok(()),
            n_read => offset += n_read as u64,
        }
    }
    let next = (i64::try_from(end), i64::try_from(len));
    if let (Ok(next), Ok(len)) = next {
        // An error here shows again when the range is sent.
        let _ = posix_fadvise(file, next, len, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
    }
    Ok(())
}

/// What the file looks like, by what the kernel knows at once: a file system elsewhere is not asked.
///
/// # Errors
///
/// An error of `statx`.
pub(crate) fn stat_cached(file: &File) -> io::Result<Stat> {
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    let (fd, mask) = (file.as_raw_fd(), libc::STATX_BASIC_STATS);
    // SAFETY: the path is an empty C string, and `stat` has room for what the kernel writes.
    let result = unsafe { libc::statx(fd, c"".as_ptr(), flags, mask, stat.as_mut_ptr()) };
    Errno::result(result)?;
    // SAFETY: every bit pattern is a `statx`, and it was zeroed before.
    let stat = unsafe { stat.assume_init() };
    Ok(Stat {
        mtime_s: stat.stx_mtime.tv_sec,
        mtime_ns: stat.stx_mtime.tv_nsec,
        len: stat.stx_size,
        inode: stat.stx_ino,
        n_names: stat.stx_nlink,
    })
}

/// Whether an open file has a name still, by what the kernel knows at once.
pub(crate) fn has_name(file: &File) -> bool {
    stat_cached(file).is_ok_and(|stat| stat.n_names > 0)
}

/// What a file looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// When it was last written to, in seconds of the Unix clock, and the nanoseconds beside them.
    pub mtime_s: i64,
    /// See there.
    pub mtime_ns: u32,
    /// Its length in bytes.
    pub len: u64,
    /// The number of its inode.
    pub inode: u64,
    /// How many names it has: none when it was removed or replaced.
    pub n_names: u32,
}

impl From<&Metadata> for Stat {
    fn from(metadata: &Metadata) -> Self {
        Self {
            mtime_s: metadata.mtime(),
            mtime_ns: metadata.mtime_nsec() as u32,
            len: metadata.len(),
            inode: metadata.ino(),
            n_names: metadata.nlink() as u32,
        }
    }
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
        assert_eq!(read_full_at(&file, &mut start, 0, Access::Wait).unwrap(), 4);
        assert_eq!(&start, b"abc\0");
        assert_eq!(read_full_at(&file, &mut start, 99_998, Access::Wait).unwrap(), 2);
    }

    #[test]
    fn writing_zeros_keeps_what_is_there() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"abc", 0).unwrap();
        write_zeros(&file, 200_000).unwrap();
        write_zeros(&file, 200_000).unwrap();
        let mut start = [1; 4];
        read_full_at(&file, &mut start, 0, Access::Wait).unwrap();
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
        assert_eq!(open_regular(&path("file"), Access::Wait).unwrap().unwrap().1.len(), 3);
        for name in ["dir", "link", "pipe", "socket"] {
            assert!(open_regular(&path(name), Access::Wait).unwrap().is_none(), "{name}");
        }
        let error = open_regular(&path("missing"), Access::Wait).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        for name in ["file", "dir", "link", "pipe", "socket"] {
            assert!(remove(&path(name)).unwrap() && !remove(&path(name)).unwrap(), "{name}");
        }
        std::fs::create_dir_all(path("full/x")).unwrap();
        assert!(remove(&path("full")).is_err());
    }

    #[test]
    fn what_the_kernel_has_in_memory_is_read_and_opened_at_once() {
        // Where a test runs may be on any file system: what is not cached by it would block.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![7; 300_000]).unwrap();
        let Some(access) = Medium::of(dir.path()).at_once() else { return };
        let (file, metadata) = open_regular(&path, access).unwrap().unwrap();
        let mut bytes = vec![0; 300_000];
        assert_eq!(read_full_at(&file, &mut bytes, 0, access).unwrap(), 300_000);
        assert!(bytes.iter().all(|&byte| byte == 7));
        assert_eq!(read_full_at(&file, &mut bytes, 299_999, access).unwrap(), 1);
        assert_eq!(stat_cached(&file).unwrap(), Stat::from(&metadata));
        assert_eq!(stat_cached(&file).unwrap().n_names, 1);
        assert!(access == Access::Wait || is_cached(&file, 1000, 299_000));
        let missing = open_regular(&dir.path().join("missing"), access).unwrap_err();
        let kinds = [io::ErrorKind::NotFound, io::ErrorKind::WouldBlock];
        assert!(kinds.contains(&missing.kind()), "{missing}");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(stat_cached(&file).unwrap().n_names, 0);
    }

    #[test]
    fn what_is_only_on_the_disk_is_not_waited_for() {
        let dir = tempfile::tempdir_in("target").or_else(|_| tempfile::tempdir()).unwrap();
        if Medium::of(dir.path()) != Medium::Disk {
            return eprintln!("skipped: the temporary directory is on no local disk");
        }
        let path = dir.path().join("file");
        std::fs::write(&path, vec![7; 3 << 20]).unwrap();
        let file = File::open(&path).unwrap();
        assert!(is_cached(&file, 0, 3 << 20));
        let read = || read_full_at(&file, &mut [0; 10], 2 << 20, Access::Cached);
        // The kernel may keep pages that it is at work with, so it is told more than once.
        let evict = || {
            file.sync_all().unwrap();
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
        };
        // A refused read has the kernel read ahead, so that a second one may succeed.
        let refused = (0..1_000).find_map(|_| {
            evict();
            read().err()
        });
        let Some(refused) = refused else {
            return eprintln!("skipped: the kernel keeps the file in memory");
        };
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        let is_gone = |_| {
            evict();
            !is_cached(&file, 1 << 20, 2 << 20)
        };
        assert!((0..1_000).any(is_gone));
        bring_in(&file, 1 << 20, 2 << 20).unwrap();
        assert!(is_cached(&file, 1 << 20, 2 << 20));
    }

    #[test]
    fn a_path_does_not_lead_out_of_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(path("in/sub")).unwrap();
        std::fs::write(path("in/sub/file"), "inside").unwrap();
        std::fs::write(path("secret"), "outside").unwrap();
        for (name, to) in [("in/link", "sub/file"), ("in/out", "../secret"), ("in/up", "..")] {
            std::os::unix::fs::symlink(to, path(name)).unwrap();
        }
        std::os::unix::fs::symlink(path("secret"), path("in/far")).unwrap();
        let open = |name: &str| open_beneath(&path("in"), Path::new(name));
        for name in ["sub/file", "link"] {
            assert!(open(name).unwrap().is_some(), "{name}");
        }
        assert!(open("sub").unwrap().is_none());
        for name in ["out", "up/secret", "../secret", "far"] {
            assert_eq!(open(name).unwrap_err().raw_os_error(), Some(libc::EXDEV), "{name}");
        }
        assert_eq!(open("none").unwrap_err().kind(), io::ErrorKind::NotFound);
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
