//! Who listens for a worker that is down.
//!
//! The sockets of a dead worker stay open in the master, and the kernel goes on giving them a share
//! of the new connections. While such a worker is down for longer than a moment, a living one
//! adopts them; when its successor is ready, they are released.

use std::collections::BTreeMap;

use crate::worker::message::ControlMessage;

/// Which worker listens for which: down worker to the living one that adopted its sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SocketTakeovers {
    taken_by: BTreeMap<usize, usize>,
}

impl SocketTakeovers {
    /// What has to be said so that every worker of `down` has a listener among `ready`, and nobody
    /// else has. Both lists are sorted. A pure step: the new state is noted as if all was obeyed.
    pub(crate) fn update(
        &mut self,
        ready: &[usize],
        down: &[usize],
    ) -> Vec<(usize, ControlMessage)> {
        let mut messages = Vec::new();
        self.taken_by.retain(|&of, &mut to| {
            // An adopter that died took its adoption with it: there is nobody to tell.
            let stands = ready.contains(&to);
            if stands && !down.contains(&of) {
                messages.push((to, ControlMessage::Release(of)));
            }
            stands && down.contains(&of)
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
    fn a_down_worker_is_adopted_once_and_released_when_it_is_back() {
        let mut takeovers = SocketTakeovers::default();
        assert_eq!(takeovers.update(&[0, 1], &[]), []);
        assert_eq!(takeovers.update(&[0], &[1]), [(0, TakeOver(1))]);
        assert_eq!(takeovers.update(&[0], &[1]), []);
        assert_eq!(takeovers.update(&[0, 1], &[]), [(0, Release(1))]);
        assert_eq!(takeovers, SocketTakeovers::default());
    }

    #[test]
    fn the_burden_is_spread() {
        let mut takeovers = SocketTakeovers::default();
        let messages = takeovers.update(&[0, 1], &[2, 3]);
        assert_eq!(messages, [(0, TakeOver(2)), (1, TakeOver(3))]);
    }

    #[test]
    fn when_the_adopter_dies_another_takes_over() {
        let mut takeovers = SocketTakeovers::default();
        takeovers.update(&[0, 1], &[2]);
        let messages = takeovers.update(&[1], &[0, 2]);
        assert_eq!(messages, [(1, TakeOver(0)), (1, TakeOver(2))]);
    }

    #[test]
    fn with_nobody_left_nobody_is_told_until_one_is_back() {
        let mut takeovers = SocketTakeovers::default();
        assert_eq!(takeovers.update(&[], &[0, 1]), []);
        assert_eq!(takeovers.update(&[1], &[0]), [(1, TakeOver(0))]);
    }
}
