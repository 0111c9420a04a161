//! Memory for the log rings: counters and plain bytes that outlive the process that wrote them.
//!
//! A memory file, mapped shared before the first fork, so that every process has it at once. It
//! begins with 64-bit counters, which are atomics; behind them lie bytes that one process writes
//! and that another reads after the first one's death, or after taking its place. The counters say
//! which process may write which bytes (see `log::ring`). Bytes go in and out by copy only: no
//! reference into them ever exists, so a process that breaks this rule only reads wrong bytes.

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Counters and bytes in memory that is shared by fork.
///
/// ```text
/// counters: n_words x 8 bytes, then padding to a page | bytes: n_bytes
/// ```
///
/// Threads of one process share it as processes do: the counters say which of them may write or read
/// which bytes.
#[derive(Debug)]
pub(crate) struct RingMap {
    map: MmapRaw,
    n_words: usize,
    bytes_at: usize,
    n_bytes: usize,
}

impl RingMap {
    /// Makes a zeroed map of `n_words` counters and `n_bytes` bytes. Pages cost memory only once
    /// they are written to.
    ///
    /// # Errors
    /// When the sizes overflow, or the kernel refuses the memory file or its mapping.
    pub(crate) fn create(n_words: usize, n_bytes: usize) -> io::Result<Self> {
        let overflow = || io::Error::new(io::ErrorKind::InvalidInput, "log rings are too large");
        let bytes_at = n_words
            .checked_mul(size_of::<AtomicU64>())
            .and_then(|len| len.checked_next_multiple_of(PAGE_BYTES))
            .ok_or_else(overflow)?;
        let len = bytes_at.checked_add(n_bytes).ok_or_else(overflow)?.max(PAGE_BYTES);
        let file = File::from(memfd_create("ktrix-log", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(u64::try_from(len).map_err(|_| overflow())?)?;
        let map = MmapOptions::new().len(len).map_raw(&file)?;
        Ok(Self { map, n_words, bytes_at, n_bytes })
    }

    /// The counters.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the map is at least `bytes_at >= n_words * 8` bytes long, page aligned, zeroed
        // at its creation and lives as long as `self`. This part of it is only ever used as
        // atomics, here and in every other process, as `copy_in` writes behind it only.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<AtomicU64>(), self.n_words) }
    }

    /// Copies `bytes` to the place `at`.
    ///
    /// # Panics
    /// When they do not lie within the map: the caller computes places modulo a ring's size.
    pub(crate) fn copy_in(&self, at: usize, bytes: &[u8]) {
        self.check(at, bytes.len());
        // SAFETY: `check` keeps the target within the map, behind the counters. `bytes` cannot
        // overlap it, as no reference to it is ever made. Other threads and processes copy other
        // bytes, as the counters say, and see plain bytes of any value.
        unsafe {
            let target = self.map.as_mut_ptr().add(self.bytes_at + at);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        }
    }

    /// Appends the `len` bytes at the place `at` to `out`.
    ///
    /// # Panics
    /// When they do not lie within the map.
    pub(crate) fn copy_out(&self, at: usize, len: usize, out: &mut Vec<u8>) {
        self.check(at, len);
        out.reserve(len);
        // SAFETY: `check` keeps the source within the map, which is initialised throughout. The
        // target is the spare room just reserved, of `len` bytes at least; the new length covers
        // exactly what was copied. Nothing writes these bytes meanwhile, as the counters say.
        unsafe {
            let source = self.map.as_ptr().add(self.bytes_at + at);
            std::ptr::copy_nonoverlapping(source, out.as_mut_ptr().add(out.len()), len);
            out.set_len(out.len() + len);
        }
    }

    fn check(&self, at: usize, len: usize) {
        let fits = at.checked_add(len).is_some_and(|end| end <= self.n_bytes);
        assert!(fits, "{len} bytes at {at} are not within the {} bytes of the ring", self.n_bytes);
    }
}

/// The unit that the counters' part is rounded up to; a mapping is aligned to it at least.
const PAGE_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn bytes_come_back_as_they_went_in_and_leave_the_counters_alone() {
        let map = RingMap::create(3, 100).unwrap();
        map.words()[2].store(7, Ordering::Relaxed);
        map.copy_in(0, &[1; 100]);
        map.copy_in(90, b"0123456789");
        let mut out = b"x".to_vec();
        map.copy_out(88, 12, &mut out);
        assert_eq!(out, b"x\x01\x010123456789");
        assert_eq!(map.words()[2].load(Ordering::Relaxed), 7);
        assert_eq!(map.words().len(), 3);
    }

    #[test]
    #[should_panic(expected = "not within")]
    fn a_place_outside_is_refused() {
        RingMap::create(1, 10).unwrap().copy_in(5, b"123456");
    }

    #[test]
    fn an_impossible_size_is_an_error() {
        assert!(RingMap::create(usize::MAX, 1).is_err());
        assert!(RingMap::create(1, usize::MAX).is_err());
    }
}
