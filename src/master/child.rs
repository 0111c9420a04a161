//! A child: the place of one worker, or of the keeper, in its generation, and who holds it.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::master::backoff::Backoff;
use crate::sys::process::send_signal;
use crate::sys::socket;
use crate::worker::inherited::Role;
use crate::worker::message::{ControlMessage, MESSAGE_BYTES_MAX, READY, SCRUBBED};

/// A living child.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its process.
    pub(crate) pid: Pid,
    /// Its row in the shared tables.
    pub(crate) seat: usize,
    /// When it was forked.
    pub(crate) born: Instant,
    /// Our end of the channel; `None` once the child has closed its own.
    pub(crate) channel: Option<OwnedFd>,
}

/// Who holds the child.
///
/// ```text
/// Down ─ fork ─▶ Starting ─ "ready" ─▶ Serving
///    ▲                 │                    │
///    └────── death ────┴────────────────────┘
/// ```
#[derive(Debug)]
pub(crate) enum ChildState {
    /// Nobody; somebody again at that time, unless it says never.
    Down {
        /// When the next is to be forked.
        restart_at: Option<Instant>,
    },
    /// A child that has not said `ready` yet.
    Starting(Process),
    /// A child that serves.
    Serving(Process),
}

/// A place in a generation.
#[derive(Debug)]
pub(crate) struct Child {
    /// Whose work is done here.
    pub(crate) role: Role,
    /// Who holds it.
    pub(crate) state: ChildState,
    /// How its holders have died so far.
    pub(crate) backoff: Backoff,
    /// Since when nobody serves here; meaningless while somebody does.
    pub(crate) down_since: Instant,
}

impl Child {
    /// A vacant child, to be filled at once.
    pub(crate) fn new(role: Role, now: Instant) -> Self {
        let state = ChildState::Down { restart_at: Some(now) };
        Self { role, state, backoff: Backoff::default(), down_since: now }
    }

    /// Who holds it.
    pub(crate) fn process(&self) -> Option<&Process> {
        match &self.state {
            ChildState::Down { .. } => None,
            ChildState::Starting(process) | ChildState::Serving(process) => Some(process),
        }
    }

    fn process_mut(&mut self) -> Option<&mut Process> {
        match &mut self.state {
            ChildState::Down { .. } => None,
            ChildState::Starting(process) | ChildState::Serving(process) => Some(process),
        }
    }

    /// Whether somebody serves here.
    pub(crate) fn is_serving(&self) -> bool {
        matches!(self.state, ChildState::Serving(_))
    }

    /// When the next holder is to be forked, if there is none.
    pub(crate) fn restart_at(&self) -> Option<Instant> {
        match self.state {
            ChildState::Down { restart_at } => restart_at,
            ChildState::Starting(_) | ChildState::Serving(_) => None,
        }
    }

    /// Nobody will be forked for this child any more.
    pub(crate) fn stop_restarting(&mut self) {
        if let ChildState::Down { restart_at } = &mut self.state {
            *restart_at = None;
        }
    }

    /// Takes the holder away, after its death.
    pub(crate) fn end(&mut self, restart_at: Option<Instant>, now: Instant) -> Option<Process> {
        if self.is_serving() {
            self.down_since = now;
        }
        match std::mem::replace(&mut self.state, ChildState::Down { restart_at }) {
            ChildState::Down { .. } => None,
            ChildState::Starting(process) | ChildState::Serving(process) => Some(process),
        }
    }

    /// Sends an order to the holder. One that does not read its orders any more is ended, so that
    /// it cannot stay behind.
    pub(crate) fn send(&mut self, message: ControlMessage) {
        let role = self.role;
        let Some(process) = self.process_mut() else { return };
        let Some(channel) = &process.channel else { return };
        if let Err(error) = socket::send_message(channel.as_fd(), message.text().as_bytes()) {
            // A child that is dead already is reaped in a moment.
            if error.kind() != std::io::ErrorKind::BrokenPipe {
                log::error!("cannot send to {role} (pid {}): {error}; terminating it", process.pid);
                self.signal(Signal::SIGTERM);
            }
        }
    }

    /// Sends a signal to the holder.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(process) = self.process() {
            // It may have died a moment ago; its pid is ours until it is reaped.
            let _ = send_signal(process.pid, signal);
        }
    }

    /// Reads what the holder says.
    pub(crate) fn receive(&mut self) -> ChildMessages {
        let mut said = ChildMessages::default();
        let mut buf = [0; MESSAGE_BYTES_MAX];
        while let Some(process) = self.process_mut() {
            let Some(channel) = &process.channel else { break };
            match socket::receive_message(channel.as_fd(), &mut buf) {
                Ok(Some(len)) => {
                    said.is_ready |= buf.get(..len) == Some(READY);
                    said.is_scrubbed |= buf.get(..len) == Some(SCRUBBED);
                }
                Ok(None) => process.channel = None,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        said.is_ready = said.is_ready && self.promote();
        said
    }

    fn promote(&mut self) -> bool {
        let down = ChildState::Down { restart_at: None };
        let (state, is_new) = match std::mem::replace(&mut self.state, down) {
            ChildState::Starting(process) => (ChildState::Serving(process), true),
            other => (other, false),
        };
        self.state = state;
        is_new
    }

    /// Whether nobody has served here for longer than a moment, so that a living worker should
    /// listen for this one; and if not, when it will be so.
    pub(crate) fn takeover_due(&self, now: Instant) -> TakeoverDue {
        match &self.state {
            ChildState::Serving(_) => TakeoverDue::No,
            ChildState::Down { restart_at: Some(at) } if *at > now => TakeoverDue::Yes,
            _ if now >= self.down_since + MOMENT => TakeoverDue::Yes,
            _ => TakeoverDue::At(self.down_since + MOMENT),
        }
    }
}

/// What a child has just said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChildMessages {
    /// It has become ready, for the first time.
    pub(crate) is_ready: bool,
    /// It is the keeper, and its scrub is done.
    pub(crate) is_scrubbed: bool,
}

/// Whether a child is down; see [`Child::takeover_due`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakeoverDue {
    /// Somebody serves.
    No,
    /// Nobody does, and others should listen for it.
    Yes,
    /// Nobody does, but a successor may be ready before this.
    At(Instant),
}

/// So long a connection may wait for a successor that was forked at once.
const MOMENT: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn child_with_process() -> (Child, OwnedFd, Instant) {
        let now = Instant::now();
        let (ours, theirs) = socket::channel().unwrap();
        let mut child = Child::new(Role::Worker(0), now);
        let pid = Pid::from_raw(i32::MAX);
        child.state =
            ChildState::Starting(Process { pid, seat: 0, born: now, channel: Some(ours) });
        (child, theirs, now)
    }

    #[test]
    fn a_child_serves_when_it_says_so_and_only_the_first_time_counts() {
        let (mut child, theirs, _) = child_with_process();
        assert!(!child.receive().is_ready);
        socket::send_message(theirs.as_fd(), b"reading").unwrap();
        assert!(!child.receive().is_ready && !child.is_serving());
        socket::send_message(theirs.as_fd(), READY).unwrap();
        assert!(child.receive().is_ready && child.is_serving());
        socket::send_message(theirs.as_fd(), READY).unwrap();
        assert!(!child.receive().is_ready && child.is_serving());
        drop(theirs);
        assert!(!child.receive().is_ready);
        assert!(child.process().is_some_and(|process| process.channel.is_none()));
    }

    #[test]
    fn a_post_is_down_after_a_moment_or_at_once_when_the_pause_is_long() {
        let (mut child, theirs, now) = child_with_process();
        assert_eq!(child.takeover_due(now), TakeoverDue::At(now + MOMENT));
        assert_eq!(child.takeover_due(now + MOMENT), TakeoverDue::Yes);
        socket::send_message(theirs.as_fd(), READY).unwrap();
        child.receive();
        assert_eq!(child.takeover_due(now + MOMENT), TakeoverDue::No);
        let later = now + MOMENT * 9;
        assert!(child.end(Some(later), later).is_some());
        assert_eq!(child.takeover_due(later), TakeoverDue::At(later + MOMENT));
        child.state = ChildState::Down { restart_at: Some(later + MOMENT * 2) };
        assert_eq!(child.takeover_due(later), TakeoverDue::Yes);
    }

    #[test]
    fn orders_reach_the_child() {
        let (mut child, theirs, _) = child_with_process();
        child.send(ControlMessage::TakeOver(7));
        let received = crate::worker::message::receive(theirs.as_fd());
        assert_eq!(
            received,
            crate::worker::message::Received::Message(ControlMessage::TakeOver(7))
        );
    }
}
