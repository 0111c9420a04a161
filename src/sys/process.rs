//! Processes: forking one, waiting for one, sending signals.
//!
//! A child is forked with all signals blocked, so that it never runs a handler of its parent (which
//! would write to the parent's self-pipe): its own dispositions are in place before the first
//! signal can arrive. A child never returns into its parent's code: its function ends in `_exit`,
//! and so does a panic.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

/// The exit code of a process whose program panicked.
pub(crate) const EXIT_PANIC: i32 = 101;

/// Forks a child that runs `run` and exits with the code that it returns.
///
/// The child ignores the signals of `ignored` and meets every other one with its default action,
/// but for SIGPIPE, which stays ignored. The caller should have one thread only: the child has no
/// other thread, but the locks that such a thread held stay locked.
///
/// # Errors
/// An error of fork(2): too many processes, or no memory.
pub fn fork_child(ignored: &[Signal], run: impl FnOnce() -> i32) -> io::Result<Pid> {
    let held = hold_signals()?;
    // SAFETY: the master is single-threaded when it forks, so the child finds no lock of libc or
    // ours held by a thread that is gone.
    match unsafe { nix::unistd::fork() } {
        Err(errno) => {
            release_signals(&held);
            Err(errno.into())
        }
        Ok(ForkResult::Parent { child }) => {
            release_signals(&held);
            Ok(child)
        }
        Ok(ForkResult::Child) => {
            set_dispositions(ignored);
            release_signals(&SigSet::empty());
            let code = catch_unwind(AssertUnwindSafe(run)).unwrap_or(EXIT_PANIC);
            exit_now(code)
        }
    }
}

/// Ends this process at once, without the handlers that the parent registered for its own end.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes any value and does not return; no code of this program needs to run after
    // it.
    unsafe { nix::libc::_exit(code) }
}

/// Forks; both processes return. For daemonizing only; a worker is forked with [`fork_child`].
pub(super) fn fork_in_two() -> io::Result<Option<Pid>> {
    // SAFETY: called while ktrix starts, when it has one thread.
    match unsafe { nix::unistd::fork() } {
        Err(errno) => Err(errno.into()),
        Ok(ForkResult::Parent { child }) => Ok(Some(child)),
        Ok(ForkResult::Child) => Ok(None),
    }
}

/// Starts a thread that no signal is delivered to, with this name and a stack of this many bytes.
/// Only a process that forks no more may have threads.
///
/// # Errors
/// An error of the kernel: too many threads, or no memory.
pub(crate) fn start_thread(
    name: &str,
    stack_bytes: usize,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let held = hold_signals()?;
    let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(stack_bytes);
    let started = thread.spawn(run).map(drop);
    release_signals(&held);
    started
}

fn hold_signals() -> io::Result<SigSet> {
    let mut before = SigSet::empty();
    nix::sys::signal::sigprocmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::all()),
        Some(&mut before),
    )?;
    Ok(before)
}

fn release_signals(mask: &SigSet) {
    // This cannot fail: the mask comes from the kernel or is empty.
    let _ = nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None);
}

fn set_dispositions(ignored: &[Signal]) {
    for signal in Signal::iterator() {
        let handler = match signal {
            Signal::SIGKILL | Signal::SIGSTOP | Signal::SIGPIPE => continue,
            _ if ignored.contains(&signal) => SigHandler::SigIgn,
            _ => SigHandler::SigDfl,
        };
        let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
        // SAFETY: both handlers are the kernel's own; no code of this program runs in signal
        // context.
        let _ = unsafe { nix::sys::signal::sigaction(signal, &action) };
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It returned, with this exit code.
    Exit(i32),
    /// A signal ended it.
    Signal(i32),
}

impl fmt::Display for ExitStatus {
    /// `exited on signal 9` or `exited with code 1`: the words of the error log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exited with code {code}"),
            Self::Signal(number) => write!(f, "exited on signal {number}"),
        }
    }
}

/// One child that has ended, if there is one; never blocks. Call it until it says `None`: the
/// kernel merges several SIGCHLD into one.
pub(crate) fn reap() -> Option<(Pid, ExitStatus)> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => return Some((pid, ExitStatus::Exit(code))),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                return Some((pid, ExitStatus::Signal(signal as i32)));
            }
            Ok(WaitStatus::StillAlive) => return None,
            // Stopped and continued children need no action.
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// Waits for this one child and says how it ended.
///
/// # Errors
/// When there is no such child.
pub fn wait_for(pid: Pid) -> io::Result<ExitStatus> {
    loop {
        match waitpid(pid, None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(ExitStatus::Exit(code)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(ExitStatus::Signal(signal as i32)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Sends `signal` to `pid`.
///
/// # Errors
/// When the process is gone, or this process may not signal it.
pub fn send_signal(pid: Pid, signal: Signal) -> io::Result<()> {
    nix::sys::signal::kill(pid, signal).map_err(io::Error::from)
}

/// Whether there is a process of this number.
pub(crate) fn exists(pid: u32) -> bool {
    let pid = Pid::from_raw(pid.cast_signed());
    nix::sys::signal::kill(pid, None) != Err(Errno::ESRCH)
}

/// Whether a process has ended, even if its parent has not asked for its exit code yet.
pub(crate) fn has_ended(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before the state may have parentheses.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_none_or(|state| matches!(state, 'Z' | 'X'))
}

/// Makes the kernel send `signal` to this process when its parent dies.
///
/// # Errors
/// Only if the kernel knows no such request.
pub(crate) fn set_death_signal(signal: Signal) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(signal).map_err(io::Error::from)
}

/// Names this process for ps(1) and top(1); the kernel keeps the first 15 bytes.
pub(crate) fn set_name(name: &str) {
    if let Ok(name) = std::ffi::CString::new(name) {
        // The name is only for people, so an error does not matter.
        let _ = nix::sys::prctl::set_name(&name);
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};

    use super::*;

    #[test]
    fn a_child_runs_and_its_code_comes_back() {
        let pid = fork_child(&[], || 7).unwrap();
        assert_eq!(wait_for(pid).unwrap(), ExitStatus::Exit(7));
    }

    #[test]
    fn a_process_has_ended_once_only_its_exit_code_is_left() {
        assert!(has_ended(i32::MAX) && !has_ended(std::process::id().cast_signed()));
        let pid = fork_child(&[], || 0).unwrap();
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        assert!(has_ended(pid.as_raw()));
        wait_for(pid).unwrap();
        assert!(has_ended(pid.as_raw()));
    }

    #[test]
    fn a_signal_is_no_exit() {
        let pid = fork_child(&[], || {
            loop {
                nix::unistd::pause();
            }
        })
        .unwrap();
        send_signal(pid, Signal::SIGKILL).unwrap();
        let death = wait_for(pid).unwrap();
        assert_eq!(death, ExitStatus::Signal(9));
        assert_eq!(death.to_string(), "exited on signal 9");
    }

    #[test]
    fn an_ignored_signal_is_ignored_from_the_start() {
        let pid = fork_child(&[Signal::SIGHUP], || {
            let _ = send_signal(nix::unistd::getpid(), Signal::SIGHUP);
            3
        })
        .unwrap();
        let _ = send_signal(pid, Signal::SIGHUP);
        assert_eq!(wait_for(pid).unwrap(), ExitStatus::Exit(3));
    }

    #[test]
    fn a_panic_ends_the_child_and_never_returns_into_the_parent() {
        // Without the panic's message: its lock may be held by a thread that is not in the child.
        let pid = fork_child(&[], || std::panic::resume_unwind(Box::new(()))).unwrap();
        assert_eq!(wait_for(pid).unwrap(), ExitStatus::Exit(EXIT_PANIC));
    }
}
