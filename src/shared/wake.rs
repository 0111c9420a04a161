//! Waking another process's event loop: one eventfd per seat, made before the fork.
//!
//! Wake-ups are not counted: many of them before the process reads are one. A worker has a seat
//! from 0 to 127, and a process that is restarted in it inherits its eventfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// The most seats there are: bits of a [`Seats`].
pub(crate) const SEATS_MAX: usize = 128;

/// A set of seats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seats(pub u128);

impl Seats {
    /// No seat.
    pub(crate) const NONE: Self = Self(0);

    /// This seat alone; none when it is past [`SEATS_MAX`].
    pub(crate) const fn one(seat: usize) -> Self {
        if seat < SEATS_MAX { Self(1 << seat) } else { Self(0) }
    }

    /// Both sets.
    #[must_use]
    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set but for `seat`.
    #[must_use]
    pub(crate) const fn without(self, seat: usize) -> Self {
        Self(self.0 & !Self::one(seat).0)
    }

    /// Whether no seat is in it.
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The seats in it, ascending.
    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let seat = (rest != 0).then_some(rest.trailing_zeros() as usize);
            rest &= rest.wrapping_sub(1);
            seat
        })
    }
}

/// The eventfds of all seats.
#[derive(Debug)]
pub struct Wakes {
    fds: Vec<EventFd>,
}

impl Wakes {
    /// Makes `n` eventfds, non-blocking and closed on exec; call before forking.
    ///
    /// # Errors
    ///
    /// An error of `eventfd`; `InvalidInput` for more than [`SEATS_MAX`].
    pub(crate) fn new(n: usize) -> io::Result<Self> {
        if n > SEATS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many seats"));
        }
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let fds = (0..n).map(|_| EventFd::from_flags(flags)).collect::<Result<_, _>>()?;
        Ok(Self { fds })
    }

    /// Wakes the process in `seat`; does nothing for a seat that does not exist.
    pub(crate) fn wake(&self, seat: usize) {
        if let Some(fd) = self.fds.get(seat) {
            // EAGAIN means that it is woken already; nothing else can fail here.
            let _ = fd.write(1);
        }
    }

    /// Wakes all of `seats`.
    pub(crate) fn wake_all(&self, seats: Seats) {
        seats.iter().for_each(|seat| self.wake(seat));
    }

    /// Resets the eventfd of `seat`; says whether it was posted.
    ///
    /// # Errors
    ///
    /// An error of `read`; an empty eventfd is no error.
    pub(crate) fn drain(&self, seat: usize) -> io::Result<bool> {
        match self.fds.get(seat).map(EventFd::read) {
            None | Some(Err(Errno::EAGAIN | Errno::EINTR)) => Ok(false),
            Some(Ok(_)) => Ok(true),
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// The eventfd of `seat`, to be watched for reading.
    pub(crate) fn fd(&self, seat: usize) -> Option<BorrowedFd<'_>> {
        self.fds.get(seat).map(AsFd::as_fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_wakes_are_one() {
        let wakes = Wakes::new(2).unwrap();
        assert!(!wakes.drain(0).unwrap());
        wakes.wake_all(Seats::one(0).with(Seats::one(77)));
        wakes.wake(0);
        assert!(wakes.drain(0).unwrap());
        assert!(!wakes.drain(0).unwrap());
        assert!(!wakes.drain(1).unwrap());
        assert!(wakes.fd(1).is_some() && wakes.fd(2).is_none());
        assert!(Wakes::new(129).is_err());
    }

    #[test]
    fn a_set_lists_what_was_put_in() {
        let set = Seats::one(0).with(Seats::one(64)).with(Seats::one(127)).with(Seats::one(128));
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 64, 127]);
        assert_eq!(set.without(64).iter().collect::<Vec<_>>(), [0, 127]);
        assert!(!set.is_empty());
    }
}
