//! Any descriptor that becomes readable: an eventfd, a pipe, a channel.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::reactor::driver::Direction;
use crate::reactor::source::{Source, Wait};

/// A descriptor to wait for. Other descriptors of the same open file may exist.
///
/// ```text
/// loop { wait for readable(); read until WouldBlock }
/// ```
#[derive(Debug)]
pub struct Readable<F: AsFd> {
    source: Source,
    fd: F,
}

impl<F: AsFd> Readable<F> {
    /// A descriptor to wait for; it must be non-blocking for the reads that follow.
    pub const fn new(fd: F) -> Self {
        Self { source: Source::new(), fd }
    }

    /// Waits until there are bytes to read, or the other end is gone. Returning clears the event,
    /// so the caller must read until nothing is left before it waits again.
    ///
    /// # Errors
    ///
    /// The error of epoll_ctl(2), as for a descriptor that it does not support (a plain file).
    pub async fn readable(&self) -> io::Result<()> {
        self.readable_until(0).await
    }

    /// As `readable`, but fails with `TimedOut` when the monotonic clock shows `deadline_ms` (0:
    /// never).
    ///
    /// # Errors
    ///
    /// `TimedOut`, or as `readable`.
    pub async fn readable_until(&self, deadline_ms: u64) -> io::Result<()> {
        if !self.source.is_registered() {
            // Registering reports a present state, so there is no need for a try.
            self.source.lower(Direction::Read);
        }
        Wait::new(&self.source, &self.fd, Direction::Read, deadline_ms).await?;
        self.source.lower(Direction::Read);
        Ok(())
    }

    /// The descriptor, to read from.
    pub const fn fd(&self) -> &F {
        &self.fd
    }
}

impl<F: AsFd> AsFd for Readable<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<F: AsFd> Drop for Readable<F> {
    fn drop(&mut self) {
        self.source.deregister(Some(self.fd.as_fd()));
    }
}
