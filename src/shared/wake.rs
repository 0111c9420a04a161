//! Waking another process's event loop: one eventfd per process slot, made before the fork.
//!
//! Wake-ups are not counted: many of them before the process reads are one. A worker has a process
//! slot from 0 to 127, and a process that is restarted in it inherits its eventfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// The most process slots there are: bits of a [`ProcessSet`].
pub(crate) const PROCESS_SLOTS_MAX: usize = 128;

/// A set of process slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessSet(pub u128);

impl ProcessSet {
    /// No process slot.
    pub(crate) const NONE: Self = Self(0);

    /// This process slot alone; none when it is past [`PROCESS_SLOTS_MAX`].
    pub(crate) const fn one(slot: usize) -> Self {
        if slot < PROCESS_SLOTS_MAX { Self(1 << slot) } else { Self(0) }
    }

    /// Both sets.
    #[must_use]
    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set but for `slot`.
    #[must_use]
    pub(crate) const fn without(self, slot: usize) -> Self {
        Self(self.0 & !Self::one(slot).0)
    }

    /// Whether this process slot is in it.
    pub(crate) const fn has(self, slot: usize) -> bool {
        self.0 & Self::one(slot).0 != 0
    }

    /// Whether no process slot is in it.
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The process slots in it, ascending.
    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let slot = (rest != 0).then_some(rest.trailing_zeros() as usize);
            rest &= rest.wrapping_sub(1);
            slot
        })
    }
}

/// The eventfds of all process slots.
#[derive(Debug)]
pub struct Wakes {
    fds: Vec<OwnedFd>,
}

impl Wakes {
    /// Makes `n` eventfds, non-blocking and closed on exec; call before forking.
    ///
    /// # Errors
    ///
    /// An error of `eventfd`; `InvalidInput` for more than [`PROCESS_SLOTS_MAX`].
    pub(crate) fn new(n: usize) -> io::Result<Self> {
        if n > PROCESS_SLOTS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many process slots"));
        }
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let fds = (0..n).map(|_| EventFd::from_flags(flags).map(OwnedFd::from));
        Ok(Self { fds: fds.collect::<Result<_, _>>()? })
    }

    /// Those of the ktrix before this one, in their order.
    pub(crate) fn passed(fds: Vec<OwnedFd>) -> Self {
        Self { fds }
    }

    /// All eventfds, for a ktrix that takes the place of this one.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.fds.iter().map(AsFd::as_fd)
    }

    /// Wakes the process in `slot`; does nothing for a process slot that does not exist.
    pub(crate) fn wake(&self, slot: usize) {
        if let Some(fd) = self.fds.get(slot) {
            // EAGAIN means that it is woken already; nothing else can fail here.
            let _ = nix::unistd::write(fd, &1_u64.to_ne_bytes());
        }
    }

    /// Wakes all of `slots`.
    pub(crate) fn wake_all(&self, slots: ProcessSet) {
        slots.iter().for_each(|slot| self.wake(slot));
    }

    /// Resets the eventfd of `slot`; says whether it was posted.
    ///
    /// # Errors
    ///
    /// An error of `read`; an empty eventfd is no error.
    pub(crate) fn drain(&self, slot: usize) -> io::Result<bool> {
        match self.fds.get(slot).map(|fd| nix::unistd::read(fd, &mut [0; 8])) {
            None | Some(Err(Errno::EAGAIN | Errno::EINTR)) => Ok(false),
            Some(Ok(_)) => Ok(true),
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// The eventfd of `slot`, to be watched for reading.
    pub(crate) fn fd(&self, slot: usize) -> Option<BorrowedFd<'_>> {
        self.fds.get(slot).map(AsFd::as_fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_wakes_are_one() {
        let wakes = Wakes::new(2).unwrap();
        assert!(!wakes.drain(0).unwrap());
        wakes.wake_all(ProcessSet::one(0).with(ProcessSet::one(77)));
        wakes.wake(0);
        assert!(wakes.drain(0).unwrap());
        assert!(!wakes.drain(0).unwrap());
        assert!(!wakes.drain(1).unwrap());
        assert!(wakes.fd(1).is_some() && wakes.fd(2).is_none());
        assert!(Wakes::new(129).is_err());
        let fds = wakes.fds().map(|fd| fd.try_clone_to_owned().unwrap());
        Wakes::passed(fds.collect()).wake(1);
        assert!(wakes.drain(1).unwrap());
    }

    #[test]
    fn a_set_lists_what_was_put_in() {
        let set = ProcessSet::one(0)
            .with(ProcessSet::one(64))
            .with(ProcessSet::one(127))
            .with(ProcessSet::one(128));
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 64, 127]);
        assert_eq!(set.without(64).iter().collect::<Vec<_>>(), [0, 127]);
        assert!(!set.is_empty());
    }
}
