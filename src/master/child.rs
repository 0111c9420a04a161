//! A post: the place of one worker, or of the keeper, in its generation, and who holds it.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::master::backoff::Backoff;
use crate::sys::{process, socket};
use crate::worker::inherited::Role;
use crate::worker::message::{ORDER_BYTES_MAX, Order, READY, SCRUBBED};

/// A living child.
#[derive(Debug)]
pub struct Child {
    /// Its process.
    pub pid: Pid,
    /// Its row in the shared tables.
    pub seat: usize,
    /// When it was forked.
    pub born: Instant,
    /// Our end of the channel; `None` once the child has closed its own.
    pub channel: Option<OwnedFd>,
}

/// Who holds the post.
///
/// ```text
/// Vacant ─ fork ─▶ Starting ─ "ready" ─▶ Serving
///    ▲                 │                    │
///    └────── death ────┴────────────────────┘
/// ```
#[derive(Debug)]
pub enum State {
    /// Nobody; somebody again at that time, unless it says never.
    Vacant {
        /// When the next is to be forked.
        restart_at: Option<Instant>,
    },
    /// A child that has not said `ready` yet.
    Starting(Child),
    /// A child that serves.
    Serving(Child),
}

/// A place in a generation.
#[derive(Debug)]
pub struct Post {
    /// Whose work is done here.
    pub role: Role,
    /// Who holds it.
    pub state: State,
    /// How its holders have died so far.
    pub backoff: Backoff,
    /// Since when nobody serves here; meaningless while somebody does.
    pub down_since: Instant,
}

impl Post {
    /// A vacant post, to be filled at once.
    pub fn new(role: Role, now: Instant) -> Self {
        let state = State::Vacant { restart_at: Some(now) };
        Self { role, state, backoff: Backoff::default(), down_since: now }
    }

    /// Who holds it.
    pub fn child(&self) -> Option<&Child> {
        match &self.state {
            State::Vacant { .. } => None,
            State::Starting(child) | State::Serving(child) => Some(child),
        }
    }

    fn child_mut(&mut self) -> Option<&mut Child> {
        match &mut self.state {
            State::Vacant { .. } => None,
            State::Starting(child) | State::Serving(child) => Some(child),
        }
    }

    /// Whether somebody serves here.
    pub fn is_serving(&self) -> bool {
        matches!(self.state, State::Serving(_))
    }

    /// When the next holder is to be forked, if there is none.
    pub fn restart_at(&self) -> Option<Instant> {
        match self.state {
            State::Vacant { restart_at } => restart_at,
            State::Starting(_) | State::Serving(_) => None,
        }
    }

    /// Nobody will be forked for this post any more.
    pub fn close(&mut self) {
        if let State::Vacant { restart_at } = &mut self.state {
            *restart_at = None;
        }
    }

    /// Takes the holder away, after its death.
    pub fn vacate(&mut self, restart_at: Option<Instant>, now: Instant) -> Option<Child> {
        if self.is_serving() {
            self.down_since = now;
        }
        match std::mem::replace(&mut self.state, State::Vacant { restart_at }) {
            State::Vacant { .. } => None,
            State::Starting(child) | State::Serving(child) => Some(child),
        }
    }

    /// Sends an order to the holder. One that does not read its orders any more is ended, so that
    /// it cannot stay behind.
    pub fn tell(&mut self, order: Order) {
        let role = self.role;
        let Some(child) = self.child_mut() else { return };
        let Some(channel) = &child.channel else { return };
        if let Err(error) = socket::send_message(channel.as_fd(), order.text().as_bytes()) {
            // A child that is dead already is reaped in a moment.
            if error.kind() != std::io::ErrorKind::BrokenPipe {
                log::error!("{role} (pid {}) does not take orders: {error}; ended", child.pid);
                self.signal(Signal::SIGTERM);
            }
        }
    }

    /// Sends a signal to the holder.
    pub fn signal(&self, signal: Signal) {
        if let Some(child) = self.child() {
            // It may have died a moment ago; its pid is ours until it is reaped.
            let _ = process::send_signal(child.pid, signal);
        }
    }

    /// Reads what the holder says.
    pub fn hear(&mut self) -> Said {
        let mut said = Said::default();
        let mut buf = [0; ORDER_BYTES_MAX];
        while let Some(child) = self.child_mut() {
            let Some(channel) = &child.channel else { break };
            match socket::receive_message(channel.as_fd(), &mut buf) {
                Ok(Some(len)) => {
                    said.is_ready |= buf.get(..len) == Some(READY);
                    said.is_scrubbed |= buf.get(..len) == Some(SCRUBBED);
                }
                Ok(None) => child.channel = None,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        said.is_ready = said.is_ready && self.promote();
        said
    }

    fn promote(&mut self) -> bool {
        let vacant = State::Vacant { restart_at: None };
        let (state, is_new) = match std::mem::replace(&mut self.state, vacant) {
            State::Starting(child) => (State::Serving(child), true),
            other => (other, false),
        };
        self.state = state;
        is_new
    }

    /// Whether nobody has served here for longer than a moment, so that a living worker should
    /// listen for this one; and if not, when it will be so.
    pub fn is_down(&self, now: Instant) -> Down {
        match &self.state {
            State::Serving(_) => Down::No,
            State::Vacant { restart_at: Some(at) } if *at > now => Down::Yes,
            _ if now >= self.down_since + MOMENT => Down::Yes,
            _ => Down::At(self.down_since + MOMENT),
        }
    }
}

/// What a child has just said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// It has become ready, for the first time.
    pub is_ready: bool,
    /// It is the keeper, and its scrub is done.
    pub is_scrubbed: bool,
}

/// Whether a post is down; see [`Post::is_down`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
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

    fn post_with_child() -> (Post, OwnedFd, Instant) {
        let now = Instant::now();
        let (ours, theirs) = socket::channel().unwrap();
        let mut post = Post::new(Role::Worker(0), now);
        let pid = Pid::from_raw(i32::MAX);
        post.state = State::Starting(Child { pid, seat: 0, born: now, channel: Some(ours) });
        (post, theirs, now)
    }

    #[test]
    fn a_child_serves_when_it_says_so_and_only_the_first_time_counts() {
        let (mut post, theirs, _) = post_with_child();
        assert!(!post.hear().is_ready);
        socket::send_message(theirs.as_fd(), b"reading").unwrap();
        assert!(!post.hear().is_ready && !post.is_serving());
        socket::send_message(theirs.as_fd(), READY).unwrap();
        assert!(post.hear().is_ready && post.is_serving());
        socket::send_message(theirs.as_fd(), READY).unwrap();
        assert!(!post.hear().is_ready && post.is_serving());
        drop(theirs);
        assert!(!post.hear().is_ready);
        assert!(post.child().is_some_and(|child| child.channel.is_none()));
    }

    #[test]
    fn a_post_is_down_after_a_moment_or_at_once_when_the_pause_is_long() {
        let (mut post, theirs, now) = post_with_child();
        assert_eq!(post.is_down(now), Down::At(now + MOMENT));
        assert_eq!(post.is_down(now + MOMENT), Down::Yes);
        socket::send_message(theirs.as_fd(), READY).unwrap();
        post.hear();
        assert_eq!(post.is_down(now + MOMENT), Down::No);
        let later = now + MOMENT * 9;
        assert!(post.vacate(Some(later), later).is_some());
        assert_eq!(post.is_down(later), Down::At(later + MOMENT));
        post.state = State::Vacant { restart_at: Some(later + MOMENT * 2) };
        assert_eq!(post.is_down(later), Down::Yes);
    }

    #[test]
    fn orders_reach_the_child() {
        let (mut post, theirs, _) = post_with_child();
        post.tell(Order::Adopt(7));
        let heard = crate::worker::message::hear(theirs.as_fd());
        assert_eq!(heard, crate::worker::message::Heard::Order(Order::Adopt(7)));
    }
}
