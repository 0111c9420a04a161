//! The memory that the allocator keeps: enough for the next request, and not what a burst took.
//!
//! This concerns the allocator of glibc. Others decide by themselves.

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
