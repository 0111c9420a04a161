//! The fetches that wait for a connection, in the order in which they came.

use std::collections::BTreeMap;

/// A bounded queue of waiters; `W` is what the caller wakes or knows one by.
#[derive(Debug)]
pub struct Pending<W> {
    n_max: usize,
    /// Tickets rise, so the map's order is that of arrival.
    waiters: BTreeMap<u64, Waiter<W>>,
    next_ticket: u64,
}

/// A place in the queue, to leave it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// The queue is as long as it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue of pending fetches is full")]
pub struct Full;

#[derive(Debug)]
struct Waiter<W> {
    who: W,
    deadline_ms: u64,
}

impl<W> Pending<W> {
    /// An empty queue of at most `n_max` waiters.
    pub const fn new(n_max: usize) -> Self {
        Self { n_max, waiters: BTreeMap::new(), next_ticket: 0 }
    }

    /// Puts a waiter at the end of the queue, until `deadline_ms` (0: without end).
    ///
    /// # Errors
    ///
    /// `Full` when as many wait already as may.
    pub fn push(&mut self, who: W, deadline_ms: u64) -> Result<Ticket, Full> {
        if self.waiters.len() >= self.n_max {
            return Err(Full);
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiters.insert(ticket, Waiter { who, deadline_ms });
        Ok(Ticket(ticket))
    }

    /// Takes the waiter that has waited longest: a connection has turned idle, or there is
    /// room for a new one.
    pub fn pop(&mut self) -> Option<W> {
        self.waiters.pop_first().map(|(_, waiter)| waiter.who)
    }

    /// Takes a waiter out of the queue; `None` if it was served or has left before.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<W> {
        self.waiters.remove(&ticket.0).map(|waiter| waiter.who)
    }

    /// Takes those whose time is over.
    pub fn expire(&mut self, now_ms: u64) -> Vec<W> {
        let is_over = |waiter: &Waiter<W>| waiter.deadline_ms != 0 && waiter.deadline_ms <= now_ms;
        let over: Vec<u64> = self
            .waiters
            .iter()
            .filter(|(_, waiter)| is_over(waiter))
            .map(|(ticket, _)| *ticket)
            .collect();
        over.into_iter().filter_map(|ticket| self.cancel(Ticket(ticket))).collect()
    }

    /// The waiter still stands in the queue.
    pub fn contains(&self, ticket: Ticket) -> bool {
        self.waiters.contains_key(&ticket.0)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_come_first_served_and_no_more_than_may_wait() {
        let mut pending = Pending::new(2);
        let first = pending.push('a', 10).unwrap();
        let second = pending.push('b', 5).unwrap();
        assert_eq!(pending.push('c', 0), Err(Full));
        assert_eq!(pending.pop(), Some('a'));
        assert_eq!(pending.cancel(first), None);
        assert!(pending.contains(second));
        assert_eq!(pending.expire(4), []);
        assert_eq!(pending.expire(5), ['b']);
        assert!(pending.is_empty());
        assert_eq!(pending.pop(), None);
    }

    #[test]
    fn a_waiter_without_a_deadline_stays() {
        let mut pending = Pending::new(1);
        pending.push('a', 0).unwrap();
        assert_eq!(pending.expire(u64::MAX), []);
        assert_eq!(pending.len(), 1);
    }

    proptest! {
        #[test]
        fn it_means_the_same_as_a_list(
            n_max in 0..8_usize,
            steps in prop::collection::vec((0..4_u8, 0..50_u64), 1..200),
        ) {
            let mut pending = Pending::new(n_max);
            let mut model: Vec<(u64, u64, Ticket)> = Vec::new();
            for (name, (step, number)) in (0_u64..).zip(steps) {
                match step {
                    0 => match pending.push(name, number) {
                        Ok(ticket) => model.push((name, number, ticket)),
                        Err(Full) => prop_assert_eq!(model.len(), n_max),
                    },
                    1 => {
                        let first = (!model.is_empty()).then(|| model.remove(0).0);
                        prop_assert_eq!(pending.pop(), first);
                    }
                    2 if !model.is_empty() => {
                        let (name, _, ticket) = model.remove(number as usize % model.len());
                        prop_assert_eq!(pending.cancel(ticket), Some(name));
                        prop_assert!(!pending.contains(ticket));
                    }
                    _ => {
                        let over: Vec<u64> = model
                            .extract_if(.., |(_, at_ms, _)| *at_ms != 0 && *at_ms <= number)
                            .map(|(name, ..)| name)
                            .collect();
                        prop_assert_eq!(pending.expire(number), over);
                    }
                }
                prop_assert_eq!(pending.len(), model.len());
                prop_assert!(pending.len() <= n_max);
            }
        }
    }
}
