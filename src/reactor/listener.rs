//! A listening socket, TCP or Unix.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use socket2::{Domain, SockRef};

use crate::reactor::address::PeerAddress;
use crate::reactor::driver::Direction;
use crate::reactor::source::{Source, Wait};
use crate::reactor::stream::Stream;

/// A listening socket. Other processes may share it.
#[derive(Debug)]
pub struct Listener {
    source: Source,
    socket: Socket,
    /// Connections accepted since the last pause.
    n_in_a_row: Cell<u32>,
}

#[derive(Debug)]
enum Socket {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener),
}

impl Listener {
    /// A listener on a socket that listens; it is made non-blocking.
    ///
    /// # Errors
    ///
    /// The error of fcntl(2) or getsockname(2), as when it is not a socket.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let socket = SockRef::from(&fd);
        socket.set_nonblocking(true)?;
        let domain = socket.domain()?;
        let socket = if domain == Domain::UNIX {
            Socket::Unix(mio::net::UnixListener::from(fd))
        } else {
            Socket::Tcp(mio::net::TcpListener::from(fd))
        };
        Ok(Self { source: Source::new(), socket, n_in_a_row: Cell::new(0) })
    }

    /// Takes the next connection, and waits for it if there is none. Lets other tasks run
    /// after a number in a row.
    ///
    /// # Errors
    ///
    /// The errors of accept(2) about this process (no descriptors, no memory): the connection is
    /// still there, and the caller should pause before it tries again.
    pub async fn accept(&self) -> io::Result<(Stream, PeerAddress)> {
        if self.n_in_a_row.get() >= ACCEPTS_MAX {
            self.n_in_a_row.set(0);
            super::yield_now().await;
        }
        loop {
            match self.try_accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.n_in_a_row.set(0);
                    self.acceptable().await?;
                }
                Ok(accepted) => {
                    self.n_in_a_row.set(self.n_in_a_row.get() + 1);
                    return Ok(accepted);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the next connection, if there is one.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is none; else as `accept`.
    pub fn try_accept(&self) -> io::Result<(Stream, PeerAddress)> {
        if !self.source.is_ready(Direction::Read) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        loop {
            let accepted = match &self.socket {
                Socket::Tcp(listener) => listener
                    .accept()
                    .map(|(stream, address)| (stream.into(), PeerAddress::Ip(address))),
                Socket::Unix(listener) => {
                    listener.accept().map(|(stream, _)| (stream.into(), PeerAddress::Unix))
                }
            };
            match accepted {
                Ok((fd, peer)) => return Ok((Stream::from_fd(fd), peer)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.source.lower(Direction::Read);
                    return Err(error);
                }
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until `try_accept` may succeed.
    ///
    /// # Errors
    ///
    /// The error of epoll_ctl(2).
    pub fn acceptable(&self) -> Wait<'_> {
        Wait::new(&self.source, self, Direction::Read, 0)
    }

    /// The address it listens on, `None` for a Unix socket.
    ///
    /// # Errors
    ///
    /// The error of getsockname(2).
    pub fn local_addr(&self) -> io::Result<Option<std::net::SocketAddr>> {
        Ok(SockRef::from(self).local_addr()?.as_socket())
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(listener) => listener.as_fd(),
            Socket::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.source.deregister(Some(self.as_fd()));
    }
}

/// The failure belongs to the connection that was to be accepted, which is gone by now (accept(2),
/// section 'Error handling').
fn is_of_the_connection(error: &io::Error) -> bool {
    let Some(errno) = error.raw_os_error() else { return false };
    matches!(
        Errno::from_raw(errno),
        Errno::EINTR
            | Errno::ECONNABORTED
            | Errno::EPERM
            | Errno::EPROTO
            | Errno::ENETDOWN
            | Errno::ENOPROTOOPT
            | Errno::EHOSTDOWN
            | Errno::ENONET
            | Errno::EHOSTUNREACH
            | Errno::ENETUNREACH
            | Errno::ETIMEDOUT
    )
}

/// The limit of connections accepted before other tasks run.
const ACCEPTS_MAX: u32 = 64;
