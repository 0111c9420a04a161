//! Shared memory.
//!
//! A mapping is only ever seen as slices of atomics, or of `repr(C)` structs made of nothing but
//! atomics ([`Shareable`]), so that another process's writes are never a data race and every bit
//! pattern is a legal value. A file is given its full length on the disk before it is mapped: a
//! full disk is an error at the start and never a SIGBUS later. A process that touches a truncated
//! part of a mapped file is killed by SIGBUS, so ktrix never shortens one; it replaces it by
//! rename. [`SharedMap::is_whole`] tells whether another program did.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

use memmap2::{Advice, MmapOptions, MmapRaw};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::sys::file;

/// A type that may lie in shared memory.
///
/// # Safety
///
/// The type consists of atomics only (so that it is `Sync`, needs no exclusive access to change
/// and accepts every bit pattern), has a pinned layout (`repr(C)`) and needs no drop.
pub unsafe trait Shareable: Sync {}

// SAFETY: an atomic integer has a pinned layout and takes every bit pattern.
unsafe impl Shareable for AtomicU8 {}
// SAFETY: as above.
unsafe impl Shareable for AtomicU16 {}
// SAFETY: as above.
unsafe impl Shareable for AtomicU32 {}
// SAFETY: as above.
unsafe impl Shareable for AtomicU64 {}
// SAFETY: an array adds neither padding nor invalid patterns to its members.
unsafe impl<T: Shareable, const N: usize> Shareable for [T; N] {}

/// Declares a `repr(C)` struct of shareable fields with its size and alignment proven, and makes
/// it [`Shareable`]. The macro checks every field's type, so using it is safe.
macro_rules! shared_struct {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident: $size:literal bytes, aligned $align:literal {
            $( $(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[repr(C, align($align))]
        $vis struct $name { $( $(#[$field_meta])* $field_vis $field: $type ),* }

        const _: () = assert!(size_of::<$name>() == $size, "the shared layout is pinned");
        const _: () = {
            const fn is_shareable<T: $crate::sys::shm::Shareable>() {}
            $( is_shareable::<$type>(); )*
        };
        // SAFETY: repr(C) above, and the constant above holds every field to be shareable.
        #[allow(unsafe_code)]
        unsafe impl $crate::sys::shm::Shareable for $name {}
    };
}
pub(crate) use shared_struct;

/// A file in memory, which no path names.
///
/// # Errors
/// When memory or descriptors run out.
pub(crate) fn unnamed_file() -> io::Result<File> {
    Ok(File::from(memfd_create("ktrix", MFdFlags::MFD_CLOEXEC)?))
}

/// A shared mapping. Clones share it; forked children inherit it at the same address.
#[derive(Clone, Debug)]
pub struct SharedMap {
    map: Arc<MmapRaw>,
    /// The mapped file; `None` for memory without a file.
    file: Option<Arc<File>>,
}

impl SharedMap {
    /// Maps `len` bytes of zeros that forked children will share.
    ///
    /// # Errors
    ///
    /// An error of `memfd_create`, `ftruncate` or `mmap`; or `len` is 0.
    pub(crate) fn anonymous(len: usize) -> io::Result<Self> {
        let file = unnamed_file()?;
        file.set_len(len as u64)?;
        Ok(Self { map: map(&file, len)?, file: None })
    }

    /// As [`Self::anonymous`], but its file stays open while the mapping is in use, and `/proc` shows
    /// it by this name.
    ///
    /// # Errors
    ///
    /// As [`Self::anonymous`].
    pub(crate) fn named(name: &str, len: usize) -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(memfd_create(name, flags)?);
        file.set_len(len as u64)?;
        // A process that has the descriptor must not end the others by making it shorter.
        fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK))?;
        Ok(Self { map: map(&file, len)?, file: Some(Arc::new(file)) })
    }

    /// The memory of another process that has passed its file, made there by [`Self::named`].
    ///
    /// # Errors
    ///
    /// `InvalidData` when it has another length, or could be made shorter.
    pub(crate) fn passed(fd: OwnedFd, len: usize) -> io::Result<Self> {
        let file = File::from(fd);
        let seals = SealFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GET_SEALS)?);
        if !seals.contains(SealFlag::F_SEAL_SHRINK) || file.metadata()?.len() != len as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self { map: map(&file, len)?, file: Some(Arc::new(file)) })
    }

    /// Maps the first `len` bytes of `file`, which are allocated on the disk first.
    ///
    /// # Errors
    ///
    /// `StorageFull` when the disk has no room for them, or what `fallocate` or `mmap` says.
    pub(crate) fn file(file: &File, len: usize) -> io::Result<Self> {
        file::allocate_all(file, len as u64)?;
        Ok(Self { map: map(file, len)?, file: Some(Arc::new(file.try_clone()?)) })
    }

    /// As [`Self::file`], of a file in memory that takes its pages as they are used.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when the file is shorter, or what `mmap` says.
    pub(crate) fn sparse(file: &File, len: usize) -> io::Result<Self> {
        if len == 0 || file.metadata()?.len() < len as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Self { map: map(file, len)?, file: Some(Arc::new(file.try_clone()?)) })
    }

    /// Maps the first `len` bytes of `file` for reading only. A store into them ends the process
    /// with a signal, so a type over this mapping offers none.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when the file is shorter, or what `mmap` says.
    pub(crate) fn file_for_reading(file: &File, len: usize) -> io::Result<Self> {
        if len == 0 || file.metadata()?.len() < len as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let map = MmapOptions::new().len(len).map_raw_read_only(file)?;
        Ok(Self { map: Arc::new(map), file: Some(Arc::new(file.try_clone()?)) })
    }

    /// Keeps the content out of core files and, where the limit of locked memory allows it, out of
    /// swapped pages. Children of a fork keep it out of their core files too.
    pub(crate) fn keep_secret(&self) {
        if let Err(error) = self.map.advise(Advice::DontDump) {
            log::debug!("core files will have the secrets of session tickets: {error}");
        }
        if let Err(error) = self.map.lock() {
            log::debug!("the secrets of session tickets may be swapped out: {error}");
        }
    }

    /// The mapped file, if it stays open.
    pub(crate) fn opened_file(&self) -> Option<&File> {
        self.file.as_deref()
    }

    /// The length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// `n` values of `T` that begin at byte `offset`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when they are not wholly inside, or not aligned.
    pub(crate) fn slice<T: Shareable>(
        &self,
        offset: usize,
        n: usize,
    ) -> io::Result<SharedSlice<T>> {
        let end = n.checked_mul(size_of::<T>()).and_then(|len| len.checked_add(offset));
        let is_inside = end.is_some_and(|end| end <= self.len());
        // The mapping begins at a page, so the offset alone decides alignment up to a page.
        if !is_inside || !offset.is_multiple_of(align_of::<T>()) || align_of::<T>() > 4096 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a view lies outside the shared memory",
            ));
        }
        // SAFETY: `offset` is within the mapping (checked above), so the sum stays inside it.
        let start = unsafe { self.map.as_mut_ptr().add(offset) };
        let start = NonNull::new(start.cast::<T>())
            .ok_or_else(|| io::Error::other("a mapping at address 0"))?;
        Ok(SharedSlice { start, n, _map: Arc::clone(&self.map) })
    }

    /// Writes changed pages back to the file and waits for the disk.
    ///
    /// # Errors
    ///
    /// An error of `msync`.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.map.flush()
    }

    /// Whether the file is as long as the mapping: touching a truncated part raises SIGBUS. Costs
    /// one system call.
    pub(crate) fn is_whole(&self) -> bool {
        let Some(file) = &self.file else { return true };
        file.metadata().is_ok_and(|metadata| metadata.len() >= self.len() as u64)
    }

    /// Whether the mapped file has this name.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        self.file.as_ref().is_some_and(|file| file::is_at(file, path))
    }
}

fn map(file: &File, len: usize) -> io::Result<Arc<MmapRaw>> {
    if len == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "cannot map 0 bytes"));
    }
    Ok(Arc::new(MmapOptions::new().len(len).map_raw(file)?))
}

/// A slice of shared values that keeps its mapping alive.
#[derive(Debug)]
pub struct SharedSlice<T: Shareable> {
    start: NonNull<T>,
    n: usize,
    _map: Arc<MmapRaw>,
}

// SAFETY: it is a shared reference to `Sync` values plus an owner of the mapping.
unsafe impl<T: Shareable> Send for SharedSlice<T> {}
// SAFETY: as above.
unsafe impl<T: Shareable> Sync for SharedSlice<T> {}

impl<T: Shareable> Clone for SharedSlice<T> {
    fn clone(&self) -> Self {
        Self { start: self.start, n: self.n, _map: Arc::clone(&self._map) }
    }
}

impl<T: Shareable> Deref for SharedSlice<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `SharedMap::slice` checked bounds and alignment, `_map` keeps the pages mapped,
        // every bit pattern is a `T`, and a `T` changes through atomics only.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.n) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_mapping_begins_as_zeros_and_all_views_are_one_memory() {
        let map = SharedMap::anonymous(8192).unwrap();
        let words = map.slice::<AtomicU64>(0, 1024).unwrap();
        assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == 0));
        words[1].store(7, Ordering::Relaxed);
        let bytes = map.slice::<AtomicU8>(8, 8).unwrap();
        assert_eq!(bytes.iter().map(|b| u32::from(b.load(Ordering::Relaxed))).sum::<u32>(), 7);
    }

    #[test]
    fn a_view_outlives_the_handle_of_its_map() {
        let map = SharedMap::anonymous(4096).unwrap();
        let words = map.slice::<AtomicU64>(0, 1).unwrap();
        drop(map);
        words[0].store(1, Ordering::Relaxed);
        assert_eq!(words[0].load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_view_outside_or_misaligned_is_refused() {
        let map = SharedMap::anonymous(4096).unwrap();
        assert!(map.slice::<AtomicU64>(0, 513).is_err());
        assert!(map.slice::<AtomicU64>(4, 1).is_err());
        assert!(map.slice::<AtomicU64>(8, usize::MAX).is_err());
        assert!(map.slice::<AtomicU64>(4096, 0).is_ok());
        assert!(SharedMap::anonymous(0).is_err());
    }

    #[test]
    fn a_truncated_removed_or_replaced_file_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mapped");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let map = SharedMap::file(&file, 65536).unwrap();
        assert!(map.is_whole() && map.is_at(&path));
        file.set_len(65535).unwrap();
        assert!(!map.is_whole() && map.is_at(&path));
        file.set_len(65536).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(map.is_whole() && !map.is_at(&path));
        std::fs::write(&path, [0; 65536]).unwrap();
        assert!(!map.is_at(&path), "another file");
        let anonymous = SharedMap::anonymous(4096).unwrap();
        assert!(anonymous.is_whole() && !anonymous.is_at(&path));
    }

    #[test]
    fn passed_memory_is_the_same_and_has_the_length_that_is_wanted() {
        let map = SharedMap::named("a", 4096).unwrap();
        map.slice::<AtomicU64>(0, 1).unwrap()[0].store(7, Ordering::Relaxed);
        let fd = || OwnedFd::from(map.opened_file().unwrap().try_clone().unwrap());
        let same = SharedMap::passed(fd(), 4096).unwrap();
        assert_eq!(same.slice::<AtomicU64>(0, 1).unwrap()[0].load(Ordering::Relaxed), 7);
        assert!(SharedMap::passed(fd(), 8192).is_err());
        assert!(SharedMap::passed(unnamed_file().unwrap().into(), 0).is_err(), "without a seal");
        assert!(SharedMap::passed(tempfile::tempfile().unwrap().into(), 0).is_err());
    }

    #[test]
    fn a_file_is_allocated_and_keeps_what_was_written() {
        let file = tempfile::tempfile().unwrap();
        let map = SharedMap::file(&file, 65536).unwrap();
        map.slice::<AtomicU32>(0, 1).unwrap()[0].store(9, Ordering::Relaxed);
        map.flush().unwrap();
        assert_eq!(file.metadata().unwrap().len(), 65536);
        drop(map);
        let map = SharedMap::file(&file, 65536).unwrap();
        assert_eq!(map.slice::<AtomicU32>(0, 1).unwrap()[0].load(Ordering::Relaxed), 9);
    }
}
