//! What the master and its children say to each other, one datagram each.
//!
//! The words are text, so that strace(1) shows a conversation.

use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;

use crate::sys::socket;

/// From the master to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Accept nothing more, finish what was begun, end.
    Drain,
    /// Open the log files again.
    Reopen,
    /// Listen on the sockets of this worker too.
    Adopt(usize),
    /// No longer listen on the sockets of this worker.
    Release(usize),
}

impl Order {
    /// The datagram.
    pub fn text(self) -> String {
        match self {
            Self::Drain => "drain".to_owned(),
            Self::Reopen => "reopen".to_owned(),
            Self::Adopt(worker) => format!("adopt {worker}"),
            Self::Release(worker) => format!("release {worker}"),
        }
    }

    /// The order in a datagram; `None` if it is not one that this ktrix knows.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(datagram).ok()?;
        match text.split_once(' ') {
            None if text == "drain" => Some(Self::Drain),
            None if text == "reopen" => Some(Self::Reopen),
            Some(("adopt", worker)) => Some(Self::Adopt(worker.parse().ok()?)),
            Some(("release", worker)) => Some(Self::Release(worker.parse().ok()?)),
            _ => None,
        }
    }
}

/// What a child finds on its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An order.
    Order(Order),
    /// Nothing more for now.
    Nothing,
    /// The master is dead: drain, and do not outlive the work that is under way.
    Orphaned,
}

/// The next order on a child's channel; never blocks. Call it until it says `Nothing`.
pub fn hear(channel: BorrowedFd<'_>) -> Heard {
    let mut buf = [0; ORDER_BYTES_MAX];
    loop {
        match socket::receive_message(channel, &mut buf) {
            Ok(None) => return Heard::Orphaned,
            Ok(Some(len)) => match Order::parse(buf.get(..len).unwrap_or(&buf)) {
                Some(order) => return Heard::Order(order),
                None => log::warn!("an order of the master was not understood; ignored"),
            },
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Heard::Nothing,
            Err(_) => return Heard::Orphaned,
        }
    }
}

/// Tells the master that this child serves.
///
/// # Errors
/// `BrokenPipe` when the master is dead.
pub fn say_ready(channel: BorrowedFd<'_>) -> io::Result<()> {
    socket::send_message(channel, READY)
}

/// Tells the master that index and files agree: the keeper's scrub is done, and a later keeper need
/// not begin anew.
///
/// # Errors
/// `BrokenPipe` when the master is dead.
pub fn say_scrubbed(channel: BorrowedFd<'_>) -> io::Result<()> {
    socket::send_message(channel, SCRUBBED)
}

/// What the keeper says when its scrub is done.
pub const SCRUBBED: &[u8] = b"scrubbed";
/// What a child says when it serves.
pub const READY: &[u8] = b"ready";
/// No datagram of either side is longer.
pub const ORDER_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    const ALL: [Order; 4] = [Order::Drain, Order::Reopen, Order::Adopt(0), Order::Release(63)];

    #[test]
    fn every_order_is_understood_and_nothing_else() {
        for order in ALL {
            assert_eq!(Order::parse(order.text().as_bytes()), Some(order));
            assert!(order.text().len() < ORDER_BYTES_MAX);
        }
        for other in ["", "ready", "adopt", "adopt ", "adopt x", "adopt -1", "drain 1", "\u{fffd}"]
        {
            assert_eq!(Order::parse(other.as_bytes()), None, "{other:?}");
        }
        assert_eq!(Order::parse(b"\xff"), None);
    }

    #[test]
    fn a_child_hears_orders_in_order_and_the_death_of_its_master() {
        let (master, child) = socket::channel().unwrap();
        for text in ["drain", "dance", "adopt 2"] {
            socket::send_message(master.as_fd(), text.as_bytes()).unwrap();
        }
        assert_eq!(hear(child.as_fd()), Heard::Order(Order::Drain));
        assert_eq!(hear(child.as_fd()), Heard::Order(Order::Adopt(2)));
        assert_eq!(hear(child.as_fd()), Heard::Nothing);
        drop(master);
        assert_eq!(hear(child.as_fd()), Heard::Orphaned);
    }
}
