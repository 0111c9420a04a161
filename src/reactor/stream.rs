//! A connected stream socket, TCP or Unix.
//!
//! Each `try_` makes at most one system call, and none if the last one found the direction
//! exhausted and no event has come since. After `WouldBlock`, wait with `readable` or `writable`
//! and try again.

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
use crate::reactor::pipe::Pipe;
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
    /// A stream of a connected, non-blocking socket that is not shared.
    pub const fn from_fd(fd: OwnedFd) -> Self {
        Self { source: Source::new(), fd }
    }

    /// Reads the available bytes; 0 is the end.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there are none; else the error of recv(2).
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

    /// As [`Self::try_read`], and the bytes stay to be read. 0 is the end.
    ///
    /// # Errors
    ///
    /// As `try_read`.
    pub fn try_peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        let fd = self.fd.as_raw_fd();
        let n_peeked = self.attempt(Direction::Read, || recv(fd, buf, MsgFlags::MSG_PEEK))?;
        if n_peeked == 0 {
            self.source.note_closed();
        }
        Ok(n_peeked)
    }

    /// Writes as many bytes as the socket accepts.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when it accepts none; else the error of send(2).
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        self.try_send(buf, MsgFlags::MSG_NOSIGNAL)
    }

    /// As `try_write`, but more bytes follow at once: a small head need not be a packet of its own.
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

    /// Writes as much of several slices as the socket accepts, with one system call.
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
    /// `WouldBlock` when the socket accepts nothing; else the error of sendfile(2).
    pub fn try_sendfile(&self, file: &File, offset: &mut u64, len: usize) -> io::Result<usize> {
        let mut position = i64::try_from(*offset).map_err(|_| Errno::EOVERFLOW)?;
        // A short count is no sign of a full socket here: the kernel also stops at page and
        // pipe boundaries.
        let n_sent = self
            .attempt(Direction::Write, || sendfile64(&self.fd, file, Some(&mut position), len))?;
        *offset = offset.saturating_add(n_sent as u64);
        Ok(n_sent)
    }

    /// Moves up to `len` of the bytes that have arrived into an empty pipe; 0 is the end.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there are none; else the error of splice(2).
    pub fn try_fill(&self, pipe: &mut Pipe, len: usize) -> io::Result<usize> {
        let n_moved = self.attempt(Direction::Read, || pipe.fill(&self.fd, len))?;
        if n_moved == 0 {
            self.source.note_closed();
        }
        Ok(n_moved)
    }

    /// Sends as many of the bytes of a pipe as the socket accepts.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when it accepts none; else the error of splice(2).
    pub fn try_drain(&self, pipe: &mut Pipe) -> io::Result<usize> {
        self.attempt(Direction::Write, || pipe.drain(&self.fd))
    }

    /// Waits until a read may succeed: bytes, the end or an error may have arrived.
    ///
    /// # Errors
    ///
    /// `TimedOut` when the monotonic clock shows `deadline_ms` (0: never).
    pub fn readable(&self, deadline_ms: u64) -> Wait<'_> {
        Wait::new(&self.source, &self.fd, Direction::Read, deadline_ms)
    }

    /// Waits until a write may succeed.
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
    /// The error of epoll_ctl(2).
    pub fn poll_ready(
        &self,
        direction: Direction,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.source.poll(self.fd.as_fd(), direction, direction as u8, 0, context)
    }

    /// Waits until the connection is broken: it was reset, or the other side of a Unix socket was
    /// closed. A peer that has only ended its own side does not end the wait, since it may still be
    /// reading. No other task may wait for `readable` meanwhile.
    ///
    /// # Errors
    ///
    /// The error of epoll_ctl(2).
    pub fn broken(&self) -> Wait<'_> {
        Wait::for_the_end(&self.source, &self.fd)
    }

    /// Waits until the peer has ended its own side, or the connection is broken. No other task may
    /// wait for `readable` meanwhile.
    ///
    /// # Errors
    ///
    /// The error of epoll_ctl(2).
    pub fn closed(&self) -> Wait<'_> {
        Wait::for_the_close(&self.source, &self.fd)
    }

    /// Reads the available bytes, and waits if there are none; 0 is the end.
    ///
    /// # Errors
    ///
    /// `TimedOut` as `readable`; else the error of recv(2).
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

    /// Writes all of `buf`. When dropped before its end, a part of it is written.
    ///
    /// # Errors
    ///
    /// `TimedOut` as `writable`; else the error of send(2).
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

    /// Whether the connection is idle and usable: the other side has not closed it and has sent
    /// nothing. Costs a system call only if an event has come or it was never waited for.
    pub fn is_reusable(&self) -> bool {
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

    /// Whether the kernel reports every change, and has reported nothing that was not read.
    pub(crate) fn is_quiet(&self) -> bool {
        self.source.is_registered()
            && !self.source.is_ready(Direction::Read)
            && !self.source.is_closed()
    }

    /// Makes the next wait in this direction end at once, and the next try ask the kernel.
    pub(crate) fn raise(&self, direction: Direction) {
        self.source.raise(direction);
    }

    /// Whether the other side is known to have closed its direction, or the connection to be
    /// broken. Bytes may still be there to be read. No system call.
    pub(super) fn peer_closed(&self) -> bool {
        self.source.is_closed()
    }

    /// Sends small writes at once. Without effect on a Unix socket.
    ///
    /// # Errors
    ///
    /// The error of setsockopt(2).
    pub fn set_nodelay(&self) -> io::Result<()> {
        match SockRef::from(&self.fd).set_tcp_nodelay(true) {
            Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => Ok(()),
            other => other,
        }
    }

    /// Tells the other side that no more bytes follow.
    ///
    /// # Errors
    ///
    /// The error of shutdown(2), as when the other side is gone.
    pub fn shutdown_write(&self) -> io::Result<()> {
        Ok(shutdown(self.fd.as_raw_fd(), Shutdown::Write)?)
    }

    /// Ends both directions: a task that waits for this stream sees its end.
    pub fn shutdown_both(&self) {
        // This fails only when the connection is gone.
        let _ = shutdown(self.fd.as_raw_fd(), Shutdown::Both);
    }

    /// Ends the registration of a socket that another process has too, and wakes the tasks that wait.
    pub fn leave(&self) {
        self.source.leave(self.fd.as_fd());
    }

    /// Makes the close a reset instead of an orderly end: the bytes sent are incomplete, and the
    /// other side must not take them for complete.
    pub fn reset(&self) {
        // If this fails, the close is an orderly one; there is no alternative.
        let _ = SockRef::from(&self.fd).set_linger(Some(Duration::ZERO));
    }

    /// The address of the other side, `None` for a Unix socket.
    ///
    /// # Errors
    ///
    /// The error of getpeername(2), as when it is not connected.
    pub fn peer_addr(&self) -> io::Result<Option<std::net::SocketAddr>> {
        Ok(SockRef::from(&self.fd).peer_addr()?.as_socket())
    }

    /// The address of this side, `None` for a Unix socket.
    ///
    /// # Errors
    ///
    /// The error of getsockname(2).
    pub fn local_addr(&self) -> io::Result<Option<std::net::SocketAddr>> {
        Ok(SockRef::from(&self.fd).local_addr()?.as_socket())
    }

    /// The pending error of the socket; reading it clears it.
    ///
    /// # Errors
    ///
    /// The error of getsockopt(2).
    pub(super) fn take_error(&self) -> io::Result<Option<io::Error>> {
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

    /// A stream with a socket that is still being connected: a write can only succeed after an
    /// event.
    pub(super) fn connecting(fd: OwnedFd) -> Self {
        let stream = Self::from_fd(fd);
        stream.expect_edge();
        stream
    }

    /// The next write waits for an event.
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
