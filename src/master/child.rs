//! A child: one worker or the keeper of a generation, in all the processes that it has had.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::master::backoff::Backoff;
use crate::master::pulse::Pulse;
use crate::shared::metrics::Page;
use crate::sys::process::send_signal;
use crate::sys::socket;
use crate::worker::inherited::Role;
use crate::worker::message::{ControlMessage, MESSAGE_BYTES_MAX, READY, SCRUBBED, TLS_MISSED};

/// ```text
/// down ─ fork ─▶ starting ─ "ready" ─▶ serving
///   ▲                │                    │
///   └───── exit ─────┴────────────────────┘
/// ```
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) role: Role,
    /// `None` while the child is down.
    pub(crate) process: Option<Process>,
    /// When a child that is down is forked again; `None` for never.
    pub(crate) restart_at: Option<Instant>,
    pub(crate) backoff: Backoff,
    /// When the last process that served has exited; only valid while none serves.
    pub(crate) down_since: Instant,
}

/// The living process of a child.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    pub(crate) slot: usize,
    pub(crate) forked_at: Instant,
    /// The master's end of the control channel; `None` once the process has closed its end.
    pub(crate) channel: Option<OwnedFd>,
    /// Whether the process has sent `ready`.
    pub(crate) is_serving: bool,
    /// Its page of counters.
    pub(crate) page: Page,
    /// The signs of life that it has given.
    pub(crate) pulse: Pulse,
}

/// The messages that a process has just sent.
#[derive(Debug, Default)]
pub(crate) struct ChildMessages {
    /// Its first `ready`.
    pub(crate) is_ready: bool,
    /// The keeper's `scrubbed`.
    pub(crate) is_scrubbed: bool,
    /// It could not receive the files of the TLS.
    pub(crate) has_missed_tls: bool,
    /// Connections for another worker, with the listeners by which they came in.
    pub(crate) handed_over: Vec<(SocketAddr, OwnedFd)>,
}

impl Child {
    /// A child without a process, to be forked at once.
    pub(crate) fn new(role: Role, now: Instant) -> Self {
        let (restart_at, backoff) = (Some(now), Backoff::default());
        Self { role, process: None, restart_at, backoff, down_since: now }
    }

    /// Takes the process out after its exit.
    pub(crate) fn take_exited(&mut self, now: Instant) -> Option<Process> {
        if self.is_serving() {
            self.down_since = now;
        }
        self.process.take()
    }

    /// Sends a message to the process.
    pub(crate) fn send(&mut self, message: ControlMessage) {
        self.send_with(message, None);
    }

    /// Sends a message with a file. A process that does not read its channel is terminated, because
    /// it would otherwise miss the order to drain and stay for ever.
    pub(crate) fn send_with(&mut self, message: ControlMessage, file: Option<BorrowedFd<'_>>) {
        let Some(process) = &self.process else { return };
        let Some(channel) = &process.channel else { return };
        if let Err(error) = socket::send_message(channel.as_fd(), message.text().as_bytes(), file)
            // The process has exited and is reaped in a moment.
            && error.kind() != ErrorKind::BrokenPipe
        {
            let role = self.role;
            log::error!("cannot send to {role} (pid {}): {error}; terminating it", process.pid);
            self.signal(Signal::SIGTERM);
        }
    }

    /// Passes a connection on to the process. If it has too much to read, the connection is closed.
    pub(crate) fn pass_on(&self, listener: SocketAddr, connection: &OwnedFd) {
        let channel = self.process.as_ref().and_then(|process| process.channel.as_ref());
        if let Some(channel) = channel {
            let message = ControlMessage::Adopt(listener).text();
            let sent =
                socket::send_message(channel.as_fd(), message.as_bytes(), Some(connection.as_fd()));
            if let Err(error) = sent {
                log::warn!("cannot pass a connection on to {}: {error}; closing it", self.role);
            }
        }
    }

    /// Sends a signal to the process, if there is one.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            // The process may have exited; its pid is not reused before it is reaped.
            let _ = send_signal(process.pid, signal);
        }
    }

    /// Reads everything that the process has sent.
    pub(crate) fn receive(&mut self) -> ChildMessages {
        let mut messages = ChildMessages::default();
        let Some(process) = &mut self.process else { return messages };
        let mut buf = [0; MESSAGE_BYTES_MAX];
        while let Some(channel) = &process.channel {
            match socket::receive_message(channel.as_fd(), &mut buf) {
                Ok(Some((len, file))) => {
                    let message = buf.get(..len).unwrap_or_default();
                    messages.is_ready |= message == READY;
                    messages.is_scrubbed |= message == SCRUBBED;
                    messages.has_missed_tls |= message == TLS_MISSED;
                    if let Some(ControlMessage::Adopt(listener)) = ControlMessage::parse(message) {
                        messages.handed_over.extend(file.map(|file| (listener, file)));
                    }
                }
                Ok(None) => process.channel = None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        messages.is_ready &= !process.is_serving;
        process.is_serving |= messages.is_ready;
        messages
    }

    pub(crate) fn is_worker(&self) -> bool {
        self.role != Role::Keeper
    }

    /// Whether its process serves, and has given no sign of life for a while.
    pub(crate) fn is_weak(&self) -> bool {
        self.process.as_ref().is_some_and(|it| it.is_serving && it.pulse.is_weak())
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.is_serving)
    }

    /// When another worker takes over the listening sockets of this one, maybe in the past; `None`
    /// while this one serves them.
    pub(crate) fn takeover_at(&self, now: Instant) -> Option<Instant> {
        match (&self.process, self.restart_at) {
            (Some(process), _) if process.is_serving => process.pulse.is_weak().then_some(now),
            (None, Some(at)) if at > now => Some(now),
            _ => Some(self.down_since + TAKEOVER_DELAY),
        }
    }
}

/// Connections wait this long for a successor that is forked at once.
const TAKEOVER_DELAY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::metrics::MetricTable;
    use crate::worker::message::{Received, receive};

    fn starting_child() -> (Child, OwnedFd, Instant) {
        let now = Instant::now();
        let (ours, theirs) = socket::channel().unwrap();
        let mut child = Child::new(Role::Worker(0), now);
        let (pid, channel) = (Pid::from_raw(i32::MAX), Some(ours));
        let pulse = Pulse::default();
        let page = MetricTable::create(0).unwrap().claim(1, |_| true).unwrap();
        let (slot, forked_at, is_serving) = (0, now, false);
        let process = Process { pid, slot, forked_at, channel, is_serving, page, pulse };
        (child.process, child.restart_at) = (Some(process), None);
        (child, theirs, now)
    }

    #[test]
    fn only_the_first_ready_of_a_process_counts() {
        let (mut child, theirs, _) = starting_child();
        assert!(!child.receive().is_ready);
        socket::send_message(theirs.as_fd(), b"reading", None).unwrap();
        assert!(!child.receive().is_ready && !child.is_serving());
        socket::send_message(theirs.as_fd(), READY, None).unwrap();
        assert!(child.receive().is_ready && child.is_serving());
        socket::send_message(theirs.as_fd(), READY, None).unwrap();
        assert!(!child.receive().is_ready && child.is_serving());
        drop(theirs);
        assert!(!child.receive().is_ready);
        assert!(child.process.is_some_and(|process| process.channel.is_none()));
    }

    #[test]
    fn sockets_are_taken_over_after_a_delay_or_at_once_if_the_restart_is_later() {
        let (mut child, theirs, now) = starting_child();
        assert_eq!(child.takeover_at(now), Some(now + TAKEOVER_DELAY));
        socket::send_message(theirs.as_fd(), READY, None).unwrap();
        child.receive();
        assert_eq!(child.takeover_at(now + TAKEOVER_DELAY), None);
        let later = now + TAKEOVER_DELAY * 9;
        assert!(child.take_exited(later).is_some());
        child.restart_at = Some(later);
        assert_eq!(child.takeover_at(later), Some(later + TAKEOVER_DELAY));
        child.restart_at = Some(later + TAKEOVER_DELAY * 2);
        assert_eq!(child.takeover_at(later), Some(later));
    }

    #[test]
    fn messages_reach_the_process() {
        let (mut child, theirs, _) = starting_child();
        child.send(ControlMessage::TakeOver(7));
        assert!(matches!(receive(theirs.as_fd()), Received::TakeOver(7)));
    }
}
