//! A forbidden system call ends its process by SIGSYS. Before that, its number is kept where the master
//! finds it.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use nix::libc::{self, c_int, c_void, siginfo_t};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal};

/// The word for the number of the call, plus 1.
static WORD: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());

/// Keeps the number of a forbidden system call in this word.
pub(crate) fn keep_forbidden_call(word: &'static AtomicU64) {
    WORD.store(ptr::from_ref(word).cast_mut(), Ordering::Relaxed);
    let handler = SigHandler::SigAction(on_forbidden_call);
    let action = SigAction::new(handler, SaFlags::SA_SIGINFO, SigSet::empty());
    // SAFETY: the handler does only what is allowed in one: it loads and stores atomics, and calls
    // signal(2) and raise(3).
    let _ = unsafe { nix::sys::signal::sigaction(Signal::SIGSYS, &action) };
}

extern "C" fn on_forbidden_call(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    /// The kernel's SYS_SECCOMP: no other process has sent the signal.
    const BY_FILTER: c_int = 1;
    /// Where `siginfo_t` has the number: behind three numbers, padding and the address of the call.
    const CALL_AT: usize = 24;
    let word = WORD.load(Ordering::Relaxed);
    // SAFETY: the kernel passes a whole `siginfo_t` (sigaction(2)), in which the number is an int at this
    // offset on all architectures of 64 bits. The word is null or lives for ever.
    unsafe {
        if !word.is_null() && (*info).si_code == BY_FILTER {
            let call = info.cast::<u8>().add(CALL_AT).cast::<c_int>().read_unaligned();
            (*word).store(i64::from(call).cast_unsigned().wrapping_add(1), Ordering::Relaxed);
        }
        // The signal is blocked until the handler returns; then it ends the process.
        libc::signal(libc::SIGSYS, libc::SIG_DFL);
        libc::raise(libc::SIGSYS);
    }
}
