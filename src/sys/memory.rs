//! The memory that the allocator keeps: enough for the next request, and not what a burst took.
//!
//! This concerns the allocator of glibc. Others decide by themselves.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use nix::unistd::{SysconfVar, sysconf};

/// A process keeps so much freed memory at the end of its heap.
#[cfg(target_env = "gnu")]
const KEPT_BYTES: i32 = 8 << 20;

/// The free memory within the heap may grow by so much before it goes back to the system.
#[cfg(target_env = "gnu")]
const FREE_BYTES: u32 = 16 << 20;

/// Keeps freed memory for the next request. Otherwise the allocator gives it back at once and asks
/// for it again, zeroed page by page, a moment later. All threads share one heap, so that
/// [`give_back`] sees all of it.
#[cfg(target_env = "gnu")]
pub(crate) fn keep_heap() {
    // SAFETY: mallopt(3) only changes parameters of the allocator, and refuses values out of range; it
    // is called before there is a second thread.
    unsafe {
        nix::libc::mallopt(nix::libc::M_TRIM_THRESHOLD, KEPT_BYTES);
        nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, 1 << 20);
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1);
    }
}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn keep_heap() {}

/// Gives the free memory of the heap back to the system, if there is much more of it than at the call
/// before. `free` is how much there was then, in bytes; 0 at first.
#[cfg(target_env = "gnu")]
pub(crate) fn give_back(free: &mut u32) {
    let now = free_bytes();
    *free = now.min(*free);
    if now - *free >= FREE_BYTES {
        // SAFETY: malloc_trim(3) takes no pointer and may be called at any time.
        unsafe { nix::libc::malloc_trim(0) };
        *free = free_bytes();
    }
}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back(_free: &mut u32) {}

/// Free bytes of the heap, modulo 4 GiB. The ones that went back to the system count too.
#[cfg(target_env = "gnu")]
fn free_bytes() -> u32 {
    // SAFETY: mallinfo(3) takes no pointer and gives a value.
    unsafe { nix::libc::mallinfo() }.fordblks.cast_unsigned()
}

/// Tells the resident memory of this process. Its file stays open, so that it needs no path later.
#[derive(Debug)]
pub(crate) struct ResidentMemory {
    statm: File,
}

impl ResidentMemory {
    /// # Errors
    /// When the kernel does not say.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { statm: File::open("/proc/self/statm")? })
    }

    /// Bytes, shared ones included; 0 if the kernel does not say.
    pub(crate) fn bytes(&self) -> u64 {
        let mut text = [0; 128];
        let n_read = self.statm.read_at(&mut text, 0).unwrap_or_default();
        let text = std::str::from_utf8(&text[..n_read]).unwrap_or_default();
        let pages: Option<u64> = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
        pages.unwrap_or_default() * page.cast_unsigned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_resident_memory() {
        let memory = ResidentMemory::new().unwrap();
        let before = memory.bytes();
        assert!(before > 1 << 20);
        let more = vec![1_u8; 64 << 20];
        assert!(memory.bytes() >= before + (60 << 20) && more[1 << 20] == 1);
    }
}
