//! Who listens for a worker that is down.
//!
//! The sockets of a dead worker stay open in the master, and the kernel goes on giving them a share
//! of the new connections. While such a worker is down for longer than a moment, a living one
//! adopts them; when its successor is ready, they are released.

use std::collections::BTreeMap;

/// Which worker listens for which: down worker to the living one that adopted its sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adoptions {
    adopted_by: BTreeMap<usize, usize>,
}

/// What to tell a worker; the numbers are worker numbers of one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `to` shall listen on the sockets of `of` as well.
    Adopt {
        /// Who is told.
        to: usize,
        /// Whose sockets.
        of: usize,
    },
    /// `to` shall no longer listen on the sockets of `of`.
    Release {
        /// Who is told.
        to: usize,
        /// Whose sockets.
        of: usize,
    },
}

impl Adoptions {
    /// What has to be said so that every worker of `down` has a listener among `ready`, and nobody
    /// else has. Both lists are sorted. A pure step: the new state is noted as if all was obeyed.
    pub fn settle(&mut self, ready: &[usize], down: &[usize]) -> Vec<Order> {
        let mut orders = Vec::new();
        self.adopted_by.retain(|&of, &mut to| {
            // An adopter that died took its adoption with it: there is nobody to tell.
            let stands = ready.contains(&to);
            if stands && !down.contains(&of) {
                orders.push(Order::Release { to, of });
            }
            stands && down.contains(&of)
        });
        for &of in down {
            if self.adopted_by.contains_key(&of) {
                continue;
            }
            let Some(to) = self.least_burdened(ready) else { break };
            self.adopted_by.insert(of, to);
            orders.push(Order::Adopt { to, of });
        }
        orders
    }

    fn least_burdened(&self, ready: &[usize]) -> Option<usize> {
        let burden = |to: usize| self.adopted_by.values().filter(|&&other| other == to).count();
        ready.iter().copied().min_by_key(|&to| burden(to))
    }
}

#[cfg(test)]
mod tests {
    use super::Order::{Adopt, Release};
    use super::*;

    #[test]
    fn a_down_worker_is_adopted_once_and_released_when_it_is_back() {
        let mut adoptions = Adoptions::default();
        assert_eq!(adoptions.settle(&[0, 1], &[]), []);
        assert_eq!(adoptions.settle(&[0], &[1]), [Adopt { to: 0, of: 1 }]);
        assert_eq!(adoptions.settle(&[0], &[1]), []);
        assert_eq!(adoptions.settle(&[0, 1], &[]), [Release { to: 0, of: 1 }]);
        assert_eq!(adoptions, Adoptions::default());
    }

    #[test]
    fn the_burden_is_spread() {
        let mut adoptions = Adoptions::default();
        let orders = adoptions.settle(&[0, 1], &[2, 3]);
        assert_eq!(orders, [Adopt { to: 0, of: 2 }, Adopt { to: 1, of: 3 }]);
    }

    #[test]
    fn when_the_adopter_dies_another_takes_over() {
        let mut adoptions = Adoptions::default();
        adoptions.settle(&[0, 1], &[2]);
        let orders = adoptions.settle(&[1], &[0, 2]);
        assert_eq!(orders, [Adopt { to: 1, of: 0 }, Adopt { to: 1, of: 2 }]);
    }

    #[test]
    fn with_nobody_left_nobody_is_told_until_one_is_back() {
        let mut adoptions = Adoptions::default();
        assert_eq!(adoptions.settle(&[], &[0, 1]), []);
        assert_eq!(adoptions.settle(&[1], &[0]), [Adopt { to: 1, of: 0 }]);
    }
}
