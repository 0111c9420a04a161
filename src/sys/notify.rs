//! The socket by which a service manager hears of this process (sd_notify(3)).
//!
//! The crate sd-notify knows no abstract addresses, and blocks while the manager does not read.

use std::env;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};

use crate::sys::socket;

/// The address of the service manager.
#[derive(Debug)]
pub(crate) struct NotifyAddress(SocketAddr);

impl NotifyAddress {
    /// The one in the environment, if there is one.
    ///
    /// # Errors
    /// When it is none that this system knows.
    pub(crate) fn of_environment() -> io::Result<Option<Self>> {
        let Some(text) = env::var_os("NOTIFY_SOCKET").filter(|it| !it.is_empty()) else {
            return Ok(None);
        };
        let address = match text.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(&text)?,
            _ => return Err(io::Error::other(format!("NOTIFY_SOCKET is {text:?}"))),
        };
        Ok(Some(Self(address)))
    }

    /// Sends one message with copies of these descriptors. The socket is made for it, because the
    /// manager may have made its own again since the last one.
    ///
    /// # Errors
    /// When there is no manager, or it does not read for a second.
    pub(crate) fn send(&self, message: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&self.0)?;
        match socket::send_with(socket.as_fd(), message.as_bytes(), fds) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let timeout = PollTimeout::from(PATIENCE_MS);
                let _ = poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)], timeout);
                socket::send_with(socket.as_fd(), message.as_bytes(), fds)
            }
            sent => sent,
        }
    }
}

/// How often the manager wants a sign of life, if it wants one of this process.
pub(crate) fn watchdog() -> Option<Duration> {
    let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
    let is_for_other = env::var_os("WATCHDOG_PID").is_some()
        && number("WATCHDOG_PID") != Some(u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|&us| us > 0 && !is_for_other).map(Duration::from_micros)
}

/// The monotonic clock, in microseconds.
pub(crate) fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(0))
}

const PATIENCE_MS: u16 = 1_000;
