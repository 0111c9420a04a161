//! The signals that the master acts on, turned into bytes on a pipe and flags to read.
//!
//! signal-hook's handlers do nothing but raise a flag and write a byte. The flag is raised first,
//! so that the process that is woken by the byte finds it.

use std::fmt;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use signal_hook::SigId;

/// A request of the operator or the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// SIGHUP: load the configuration again.
    Reload,
    /// SIGTERM, SIGINT: end now.
    Stop,
    /// SIGQUIT: finish what was begun, then end.
    Quit,
    /// SIGUSR1: open the log files again.
    Reopen,
    /// SIGUSR2: have the program of now take the place of this one.
    Upgrade,
    /// SIGCHLD: a child has ended.
    Reap,
}

/// The signals that the master acts on, with their meaning. Several pending ones are handled in
/// this order: a signal to the whole group ends the children too, and they are not
/// started again after it.
pub(crate) const SIGNALS: [(Signal, Request); 7] = [
    (Signal::SIGTERM, Request::Stop),
    (Signal::SIGINT, Request::Stop),
    (Signal::SIGQUIT, Request::Quit),
    (Signal::SIGCHLD, Request::Reap),
    (Signal::SIGUSR1, Request::Reopen),
    (Signal::SIGHUP, Request::Reload),
    (Signal::SIGUSR2, Request::Upgrade),
];

/// The signals that children ignore: they are for the master, which sends messages to its children.
/// A terminal sends some of them to the whole group of processes.
pub(crate) const IGNORED_BY_CHILDREN: [Signal; 5] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// The receiving end.
pub(crate) struct Signals {
    pipe: PipeReader,
    flags: [Arc<AtomicBool>; SIGNALS.len()],
    actions: Vec<SigId>,
}

impl Drop for Signals {
    /// Closes what the handlers write to; in a child it would be held open for nothing.
    fn drop(&mut self) {
        for action in self.actions.drain(..) {
            signal_hook::low_level::unregister(action);
        }
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").field("flags", &self.flags).finish_non_exhaustive()
    }
}

impl Signals {
    /// Starts to receive.
    ///
    /// # Errors
    /// When descriptors run out.
    pub(crate) fn new() -> io::Result<Self> {
        let (pipe, writer) = io::pipe()?;
        set_nonblocking(&pipe)?;
        set_nonblocking(&writer)?;
        let flags: [Arc<AtomicBool>; SIGNALS.len()] = Default::default();
        let mut actions = Vec::new();
        for ((signal, _), flag) in SIGNALS.iter().zip(&flags) {
            let number = *signal as i32;
            actions.push(signal_hook::flag::register(number, Arc::clone(flag))?);
            actions.push(signal_hook::low_level::pipe::register(number, writer.try_clone()?)?);
        }
        Ok(Self { pipe, flags, actions })
    }

    /// The descriptor that is readable when a signal has arrived.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// The requests since the last call, each once.
    pub(crate) fn take(&mut self) -> Vec<Request> {
        let mut buf = [0; 64];
        while matches!(self.pipe.read(&mut buf), Ok(n) if n == buf.len()) {}
        let mut requests = Vec::new();
        for ((_, request), flag) in SIGNALS.iter().zip(&self.flags) {
            if flag.swap(false, Ordering::AcqRel) && !requests.contains(request) {
                requests.push(*request);
            }
        }
        requests
    }
}

fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::{ExitStatus, fork_child, send_signal, wait_for};

    #[test]
    fn signals_become_requests_each_once_and_in_order() {
        let child = fork_child(&[], || {
            let Ok(mut signals) = Signals::new() else { return 1 };
            let me = nix::unistd::getpid();
            use Signal::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
            for signal in [SIGHUP, SIGHUP, SIGINT, SIGTERM, SIGUSR2] {
                let _ = send_signal(me, signal);
            }
            let first = signals.take();
            let second = signals.take();
            let wanted = [Request::Stop, Request::Reload, Request::Upgrade];
            i32::from(first != wanted || !second.is_empty())
        });
        assert_eq!(wait_for(child.unwrap()).unwrap(), ExitStatus::Exit(0));
    }
}
