//! Taking over the listening sockets of a worker that is down, or hangs.
//!
//! The sockets of a dead worker stay open in the master, and the kernel goes on giving them a share
//! of the new connections. If such a worker is down for longer than a moment, a living one takes
//! them over. When its successor is ready, they are released.

use std::collections::BTreeMap;

use crate::worker::message::ControlMessage;

/// For each worker that is down: the worker that has taken over its sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SocketTakeovers {
    taken_by: BTreeMap<usize, usize>,
}

impl SocketTakeovers {
    /// The messages after which every worker of `down`, and no other, has a listener among `ready`.
    /// Both lists are sorted. The state is updated as if every message were followed.
    pub(crate) fn update(
        &mut self,
        ready: &[usize],
        down: &[usize],
    ) -> Vec<(usize, ControlMessage)> {
        let mut messages = Vec::new();
        self.taken_by.retain(|&of, &mut to| {
            let stands = ready.contains(&to) && down.contains(&of);
            // A worker that hangs may come back. One that has died gets no message.
            if !stands {
                messages.push((to, ControlMessage::Release(of)));
            }
            stands
        });
        for &of in down {
            if self.taken_by.contains_key(&of) {
                continue;
            }
            let Some(to) = self.least_loaded(ready) else { break };
            self.taken_by.insert(of, to);
            messages.push((to, ControlMessage::TakeOver(of)));
        }
        messages
    }

    fn least_loaded(&self, ready: &[usize]) -> Option<usize> {
        let load = |to: usize| self.taken_by.values().filter(|&&other| other == to).count();
        ready.iter().copied().min_by_key(|&to| load(to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::message::ControlMessage::{Release, TakeOver};

    #[test]
    fn sockets_are_taken_over_once_and_released_when_their_worker_is_back() {
        let mut takeovers = SocketTakeovers::default();
        assert_eq!(takeovers.update(&[0, 1], &[]), []);
        assert_eq!(takeovers.update(&[0], &[1]), [(0, TakeOver(1))]);
        assert_eq!(takeovers.update(&[0], &[1]), []);
        assert_eq!(takeovers.update(&[0, 1], &[]), [(0, Release(1))]);
        assert_eq!(takeovers, SocketTakeovers::default());
    }

    #[test]
    fn takeovers_are_spread_evenly() {
        let mut takeovers = SocketTakeovers::default();
        let messages = takeovers.update(&[0, 1], &[2, 3]);
        assert_eq!(messages, [(0, TakeOver(2)), (1, TakeOver(3))]);
    }

    #[test]
    fn another_worker_takes_over_when_the_first_one_dies() {
        let mut takeovers = SocketTakeovers::default();
        takeovers.update(&[0, 1], &[2]);
        let messages = takeovers.update(&[1], &[0, 2]);
        assert_eq!(messages, [(0, Release(2)), (1, TakeOver(0)), (1, TakeOver(2))]);
    }

    #[test]
    fn without_a_ready_worker_no_message_is_sent() {
        let mut takeovers = SocketTakeovers::default();
        assert_eq!(takeovers.update(&[], &[0, 1]), []);
        assert_eq!(takeovers.update(&[1], &[0]), [(1, TakeOver(0))]);
    }
}
