//! The messages between the master and its children, one datagram each.
//!
//! The words are text, so that strace(1) shows a conversation.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::config::request_log::RequestLog;
use crate::log::file::LogFile;
use crate::sys::socket;

/// From the master to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ControlMessage {
    /// Accept nothing more, finish what was begun, end.
    Drain,
    /// As `Drain`, and hand the idle connections over: other workers have taken the place. Tunnels may
    /// go on. A file that comes with this message says which routes are unchanged.
    Retire,
    /// Serve the connection that comes with this message, which came in by this listener. A worker
    /// that retires sends it to the master, which passes it on.
    Adopt(SocketAddr),
    /// Write this log to the file that comes with this message.
    RequestLog(RequestLog),
    /// Write the error log to the file that comes with this message, or connect to syslog again.
    ErrorLog,
    /// Speak TLS by the certificates in the file that comes with this message.
    Tls,
    /// Listen on the sockets of this worker too.
    TakeOver(usize),
    /// No longer listen on the sockets of this worker.
    Release(usize),
}

impl ControlMessage {
    /// The datagram.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Drain => "drain".to_owned(),
            Self::Retire => "retire".to_owned(),
            Self::Adopt(listener) => format!("adopt {listener}"),
            Self::RequestLog(RequestLog::Access) => "access-log".to_owned(),
            Self::RequestLog(RequestLog::Slow) => "slow-log".to_owned(),
            Self::ErrorLog => "error-log".to_owned(),
            Self::Tls => "tls".to_owned(),
            Self::TakeOver(worker) => format!("take-over {worker}"),
            Self::Release(worker) => format!("release {worker}"),
        }
    }

    /// The message in a datagram; `None` if it is unknown.
    pub(crate) fn parse(datagram: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(datagram).ok()?;
        match text.split_once(' ') {
            None if text == "drain" => Some(Self::Drain),
            None if text == "retire" => Some(Self::Retire),
            Some(("adopt", listener)) => Some(Self::Adopt(listener.parse().ok()?)),
            None if text == "access-log" => Some(Self::RequestLog(RequestLog::Access)),
            None if text == "slow-log" => Some(Self::RequestLog(RequestLog::Slow)),
            None if text == "error-log" => Some(Self::ErrorLog),
            None if text == "tls" => Some(Self::Tls),
            Some(("take-over", worker)) => Some(Self::TakeOver(worker.parse().ok()?)),
            Some(("release", worker)) => Some(Self::Release(worker.parse().ok()?)),
            _ => None,
        }
    }
}

/// The result of reading the channel in a child.
#[derive(Debug)]
pub(crate) enum Received {
    /// See [`ControlMessage::Drain`].
    Drain,
    /// See [`ControlMessage::Retire`].
    Retire(Option<File>),
    /// See [`ControlMessage::Adopt`].
    Adopt(SocketAddr, OwnedFd),
    /// See [`ControlMessage::TakeOver`].
    TakeOver(usize),
    /// See [`ControlMessage::Release`].
    Release(usize),
    /// See [`ControlMessage::RequestLog`].
    RequestLog(RequestLog, LogFile),
    /// See [`ControlMessage::ErrorLog`].
    ErrorLog(Option<LogFile>),
    /// See [`ControlMessage::Tls`]; `None` if this process has no descriptor left.
    Tls(Option<File>),
    /// Nothing more for now.
    Nothing,
    /// The master is dead: drain, and do not outlive the work that is under way.
    Closed,
}

/// Receives the next message on a child's channel; never blocks. Call it until it says `Nothing`.
pub(crate) fn receive(channel: BorrowedFd<'_>) -> Received {
    let mut buf = [0; MESSAGE_BYTES_MAX];
    loop {
        match socket::receive_message(channel, &mut buf) {
            Ok(None) => return Received::Closed,
            Ok(Some((len, file))) => match received(buf.get(..len).unwrap_or(&buf), file) {
                Some(received) => return received,
                None => log::warn!("unknown message on the control channel; ignored"),
            },
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Received::Nothing,
            Err(_) => return Received::Closed,
        }
    }
}

fn received(datagram: &[u8], file: Option<OwnedFd>) -> Option<Received> {
    let log = |file: OwnedFd| LogFile::of(File::from(file)).ok();
    Some(match ControlMessage::parse(datagram)? {
        ControlMessage::Drain => Received::Drain,
        ControlMessage::Retire => Received::Retire(file.map(File::from)),
        ControlMessage::Adopt(listener) => Received::Adopt(listener, file?),
        ControlMessage::TakeOver(worker) => Received::TakeOver(worker),
        ControlMessage::Release(worker) => Received::Release(worker),
        ControlMessage::RequestLog(which) => Received::RequestLog(which, log(file?)?),
        ControlMessage::ErrorLog => Received::ErrorLog(file.and_then(log)),
        ControlMessage::Tls => Received::Tls(file.map(File::from)),
    })
}

/// Tells the master that this child serves.
///
/// # Errors
/// `BrokenPipe` when the master is dead.
pub(crate) fn notify_ready(channel: BorrowedFd<'_>) -> io::Result<()> {
    socket::send_message(channel, READY, None)
}

/// Has the master pass an idle connection, which came in by this listener, on to another worker.
///
/// # Errors
/// `WouldBlock` when the master has too much to read; `BrokenPipe` when it is dead.
pub(crate) fn hand_over(
    channel: BorrowedFd<'_>,
    listener: SocketAddr,
    connection: BorrowedFd<'_>,
) -> io::Result<()> {
    let message = ControlMessage::Adopt(listener).text();
    socket::send_message(channel, message.as_bytes(), Some(connection))
}

/// Has the master hand the certificates over again, if this child could not take them.
pub(crate) fn ask_again_for_tls(channel: BorrowedFd<'_>, taken: io::Result<()>) {
    if let Err(error) = taken {
        log::error!("cannot receive new certificates: {error}; asking for them again");
        if let Err(error) = socket::send_message(channel, TLS_MISSED, None) {
            log::error!("cannot ask for new certificates: {error}; reload to use them");
        }
    }
}

/// Tells the master that index and files agree: the keeper's scrub is done, and a later keeper need
/// not repeat it.
///
/// # Errors
/// `BrokenPipe` when the master is dead.
pub(crate) fn notify_scrubbed(channel: BorrowedFd<'_>) -> io::Result<()> {
    socket::send_message(channel, SCRUBBED, None)
}

pub(crate) const SCRUBBED: &[u8] = b"scrubbed";
pub(crate) const TLS_MISSED: &[u8] = b"tls-missed";
pub(crate) const READY: &[u8] = b"ready";
/// No datagram of either side is longer.
pub(crate) const MESSAGE_BYTES_MAX: usize = 96;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv6Addr, SocketAddrV6};
    use std::os::fd::AsFd;

    const LISTENER: SocketAddr = SocketAddr::V6(SocketAddrV6::new(
        Ipv6Addr::from_bits(u128::MAX),
        u16::MAX,
        u32::MAX,
        u32::MAX,
    ));

    const ALL: [ControlMessage; 9] = [
        ControlMessage::Drain,
        ControlMessage::Retire,
        ControlMessage::Adopt(LISTENER),
        ControlMessage::RequestLog(RequestLog::Access),
        ControlMessage::RequestLog(RequestLog::Slow),
        ControlMessage::ErrorLog,
        ControlMessage::Tls,
        ControlMessage::TakeOver(0),
        ControlMessage::Release(63),
    ];

    #[test]
    fn every_message_is_parsed_and_nothing_else() {
        for order in ALL {
            let parsed = ControlMessage::parse(order.text().as_bytes());
            // The flow label of an address has no text.
            assert_eq!(parsed.map(ControlMessage::text), Some(order.text()));
            assert!(order.text().len() < MESSAGE_BYTES_MAX);
        }
        for other in [
            "", "ready", "take-over", "take-over ", "take-over x", "take-over -1", "drain 1",
            "adopt", "adopt 1.2.3.4", "\u{fffd}",
        ] {
            assert_eq!(ControlMessage::parse(other.as_bytes()), None, "{other:?}");
        }
        assert_eq!(ControlMessage::parse(b"\xff"), None);
    }

    #[test]
    fn a_child_receives_messages_in_order_and_then_the_death_of_its_master() {
        let (master, child) = socket::channel().unwrap();
        for text in ["drain", "dance", "take-over 2"] {
            socket::send_message(master.as_fd(), text.as_bytes(), None).unwrap();
        }
        let log = tempfile::tempfile().unwrap();
        for text in ["access-log", "error-log"] {
            socket::send_message(master.as_fd(), text.as_bytes(), Some(log.as_fd())).unwrap();
        }
        // An access log without its file means nothing; syslog has no file.
        for text in ["access-log", "error-log"] {
            socket::send_message(master.as_fd(), text.as_bytes(), None).unwrap();
        }
        assert!(matches!(receive(child.as_fd()), Received::Drain));
        assert!(matches!(receive(child.as_fd()), Received::TakeOver(2)));
        assert!(matches!(receive(child.as_fd()), Received::RequestLog(RequestLog::Access, _)));
        assert!(matches!(receive(child.as_fd()), Received::ErrorLog(Some(_))));
        assert!(matches!(receive(child.as_fd()), Received::ErrorLog(None)));
        assert!(matches!(receive(child.as_fd()), Received::Nothing));
        drop(master);
        assert!(matches!(receive(child.as_fd()), Received::Closed));
    }
}
