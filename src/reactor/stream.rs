//! A connected stream socket, TCP or Unix.
//!
//! Each `try_` makes at most one system call, and none if the last one said that there is
//! nothing to be had and no event has come since. After `WouldBlock`, wait with `readable` or
//! `writable` and try again.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::sendfile::sendfile64;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, sendmsg, shutdown};
use socket2::SockRef;

use crate::reactor::driver::Direction;
use crate::reactor::source::{Source, Wait};

/// A connected stream socket. Both directions may be waited for, by two tasks. Dropping it
/// closes it.
///
/// The socket must have no second descriptor that lives longer, here or in another process:
/// closing this one is what ends its registration.
#[derive(Debug)]
pub struct Stream {
    source: Source,
    fd: OwnedFd,
}

impl Stream {
    /// A stream of a connected, non-blocking socket that nobody shares.
    pub const fn from_fd(fd: OwnedFd) -> Self {
        Self { source: Source::new(), fd }
    }

    /// Reads what is there; 0 is the end.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing is there; else what recv(2) says.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let len = buf.len();
        let fd = self.fd.as_raw_fd();
        let n_read = self.attempt(Direction::Read, || recv(fd, buf, MsgFlags::empty()))?;
        if n_read == 0 {
            self.source.note_closed();
        } else if n_read < len {
            self.source.lower_unless_closed(Direction::Read);
        }
        Ok(n_read)
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when it takes nothing; else what send(2) says.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        self.try_send(buf, MsgFlags::MSG_NOSIGNAL)
    }

    /// As `try_write`, but more follows at once: a small head need not be a packet of its own.
    ///
    /// # Errors
    ///
    /// As `try_write`.
    pub fn try_write_ahead(&self, buf: &[u8]) -> io::Result<usize> {
        let more = MsgFlags::from_bits_retain(nix::libc::MSG_MORE);
        self.try_send(buf, MsgFlags::MSG_NOSIGNAL | more)
    }

    fn try_send(&self, buf: &[u8], flags: MsgFlags) -> io::Result<usize> {
        let fd = self.fd.as_raw_fd();
        let n_written = self.attempt(Direction::Write, || send(fd, buf, flags))?;
        if n_written < buf.len() {
            self.source.lower_unless_closed(Direction::Write);
        }
        Ok(n_written)
    }

    /// Writes what the socket takes of several slices, with one system call.
    ///
    /// # Errors
    ///
    /// As `try_write`.
    pub fn try_writev(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let fd = self.fd.as_raw_fd();
        let n_written = self.attempt(Direction::Write, || {
            sendmsg::<()>(fd, bufs, &[], MsgFlags::MSG_NOSIGNAL, None)
        })?;
        if n_written < bufs.iter().map(|buf| buf.len()).sum() {
            self.source.lower_unless_closed(Direction::Write);
        }
        Ok(n_written)
    }

    /// Sends up to `len` bytes of a file from `offset` on, and moves `offset` past them. 0 means
    /// that the file ends there.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when the socket takes nothing; else what sendfile(2) says.
    pub fn try_sendfile(&self, file: &File, offset: &mut u64, len: usize) -> io::Result<usize> {
        let mut position = i64::try_from(*offset).map_err(|_| Errno::EOVERFLOW)?;
        // A short count is no sign of a full socket here: the kernel also stops at page and
        // pipe boundaries.
        let n_sent = self
            .attempt(Direction::Write, || sendfile64(&self.fd, file, Some(&mut position), len))?;
        *offset = offset.saturating_add(n_sent as u64);
        Ok(n_sent)
    }

    /// Waits until a read is worth a try: bytes, the end or an error may be there.
    ///
    /// # Errors
    ///
    /// `TimedOut` when the monotonic clock shows `deadline_ms` (0: never).
    pub fn readable(&self, deadline_ms: u64) -> Wait<'_> {
        Wait::new(&self.source, &self.fd, Direction::Read, deadline_ms)
    }

    /// Waits until a write is worth a try.
    ///
    /// # Errors
    ///
    /// `TimedOut` when the monotonic clock shows `deadline_ms` (0: never).
    pub fn writable(&self, deadline_ms: u64) -> Wait<'_> {
        Wait::new(&self.source, &self.fd, Direction::Write, deadline_ms)
    }

    /// Ready when a try in this direction may succeed. If it may not, the task is woken when that
    /// changes: its waker is kept until then, or until another task waits for this direction.
    ///
    /// # Errors
    ///
    /// What epoll_ctl(2) says.
    pub fn poll_ready(
        &self,
        direction: Direction,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.source.poll(self.fd.as_fd(), direction, direction as u8, 0, context)
    }

    /// Waits until the connection is broken: it was reset, or the other side of a Unix socket
    /// was closed. A side that only says nothing more is no reason to end: it may be listening. Nobody
    /// else may wait for `readable` meanwhile.
    ///
    /// # Errors
    ///
    /// What epoll_ctl(2) says.
    pub fn broken(&self) -> Wait<'_> {
        Wait::for_the_end(&self.source, &self.fd)
    }

    /// Reads what is there, and waits for it if nothing is; 0 is the end.
    ///
    /// # Errors
    ///
    /// `TimedOut` as `readable`; else what recv(2) says.
    pub async fn read(&self, buf: &mut [u8], deadline_ms: u64) -> io::Result<usize> {
        loop {
            super::breathe().await;
            match self.try_read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable(deadline_ms).await?;
                }
                other => return other,
            }
        }
    }

    /// Writes all of `buf`. When dropped before its end, some part of it is written.
    ///
    /// # Errors
    ///
    /// `TimedOut` as `writable`; else what send(2) says.
    pub async fn write_all(&self, mut buf: &[u8], deadline_ms: u64) -> io::Result<()> {
        while !buf.is_empty() {
            super::breathe().await;
            match self.try_write(buf) {
                Ok(n_written) => buf = buf.get(n_written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable(deadline_ms).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The connection is idle and may be used: the other side has not closed it and has sent
    /// nothing. Costs a system call only if an event has come or it was never waited for.
    pub fn is_open(&self) -> bool {
        if self.peer_closed() {
            return false;
        }
        if self.source.is_registered() && !self.source.is_ready(Direction::Read) {
            return true;
        }
        let peeked =
            recv(self.fd.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT);
        if peeked != Err(Errno::EAGAIN) {
            return false;
        }
        self.source.lower(Direction::Read);
        true
    }

    /// The other side is known to have closed its direction, or the connection to be broken. Bytes
    /// may still be there to be read. No system call.
    pub fn peer_closed(&self) -> bool {
        self.source.is_closed()
    }

    /// Sends small writes at once. Without effect on a Unix socket.
    ///
    /// # Errors
    ///
    /// What setsockopt(2) says.
    pub fn set_nodelay(&self) -> io::Result<()> {
        match SockRef::from(&self.fd).set_tcp_nodelay(true) {
            Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => Ok(()),
            other => other,
        }
    }

    /// Says that no more bytes will come from this side.
    ///
    /// # Errors
    ///
    /// What shutdown(2) says, as when the other side is gone.
    pub fn shutdown_write(&self) -> io::Result<()> {
        Ok(shutdown(self.fd.as_raw_fd(), Shutdown::Write)?)
    }

    /// Ends both directions: whoever waits for this stream sees its end.
    pub fn shut_down(&self) {
        // It fails only when the connection is gone, which is what was wanted.
        let _ = shutdown(self.fd.as_raw_fd(), Shutdown::Both);
    }

    /// Makes the close one that the other side sees as a reset, not an orderly end: what was sent
    /// is incomplete and must not be taken for complete.
    pub fn reset_on_close(&self) {
        // If this fails the close is an orderly one; there is nothing better to be done.
        let _ = SockRef::from(&self.fd).set_linger(Some(Duration::ZERO));
    }

    /// The address of the other side, `None` for a Unix socket.
    ///
    /// # Errors
    ///
    /// What getpeername(2) says, as when it is not connected.
    pub fn peer_addr(&self) -> io::Result<Option<std::net::SocketAddr>> {
        Ok(SockRef::from(&self.fd).peer_addr()?.as_socket())
    }

    /// The address of this side, `None` for a Unix socket.
    ///
    /// # Errors
    ///
    /// What getsockname(2) says.
    pub fn local_addr(&self) -> io::Result<Option<std::net::SocketAddr>> {
        Ok(SockRef::from(&self.fd).local_addr()?.as_socket())
    }

    /// The error the kernel keeps for the socket, which this takes.
    ///
    /// # Errors
    ///
    /// What getsockopt(2) says.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        SockRef::from(&self.fd).take_error()
    }

    /// Makes a system call that moves bytes: not at all if the direction is exhausted, again after
    /// `EINTR`. `EAGAIN` means that the direction is exhausted.
    fn attempt(
        &self,
        direction: Direction,
        mut call: impl FnMut() -> Result<usize, Errno>,
    ) -> io::Result<usize> {
        if !self.source.is_ready(direction) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        loop {
            match call() {
                Ok(n_bytes) => {
                    super::charge(n_bytes);
                    return Ok(n_bytes);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    self.source.lower(direction);
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// A stream whose socket is still being connected: not worth a write before an event.
    pub(super) fn connecting(fd: OwnedFd) -> Self {
        let stream = Self::from_fd(fd);
        stream.expect_edge();
        stream
    }

    /// Only an event makes the next write worth a try.
    pub(super) fn expect_edge(&self) {
        self.source.lower(Direction::Write);
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.source.deregister(None);
    }
}

const _: () = assert!(size_of::<Stream>() <= 16, "a stream is two words");
