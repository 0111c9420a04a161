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

    /// As `pop`, but only of those behind a place: whoever has that place had no use for what
    /// there is.
    pub fn pop_behind(&mut self, ticket: Ticket) -> Option<W> {
        let (next, _) = self.waiters.range(ticket.0.saturating_add(1)..).next()?;
        let next = *next;
        self.waiters.remove(&next).map(|waiter| waiter.who)
    }

    /// A waiter that was taken goes on waiting, in the place it had; there is always room for it.
    pub fn restore(&mut self, ticket: Ticket, who: W, deadline_ms: u64) {
        self.waiters.insert(ticket.0, Waiter { who, deadline_ms });
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
    fn who_has_no_use_for_it_keeps_its_place_and_calls_the_next() {
        let mut pending = Pending::new(3);
        let tickets = ['a', 'b', 'c'].map(|who| pending.push(who, 0).unwrap());
        assert_eq!(pending.pop(), Some('a'));
        pending.restore(tickets[0], 'a', 0);
        assert_eq!(pending.pop_behind(tickets[0]), Some('b'));
        assert_eq!(pending.pop_behind(tickets[1]), Some('c'));
        assert_eq!(pending.pop_behind(tickets[2]), None);
        assert_eq!(pending.pop(), Some('a'));
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
            steps in prop::collection::vec((0..6_u8, 0..50_u64), 1..200),
        ) {
            let mut pending = Pending::new(n_max);
            let mut model: Vec<(u64, u64, Ticket)> = Vec::new();
            let mut popped: Vec<(u64, u64, Ticket)> = Vec::new();
            for (name, (step, number)) in (0_u64..).zip(steps) {
                match step {
                    0 => match pending.push(name, number) {
                        Ok(ticket) => model.push((name, number, ticket)),
                        Err(Full) => prop_assert!(model.len() >= n_max),
                    },
                    1 => {
                        let first = (!model.is_empty()).then(|| model.remove(0));
                        prop_assert_eq!(pending.pop(), first.map(|(name, ..)| name));
                        popped.extend(first);
                    }
                    3 => if let Some((name, at_ms, ticket)) = popped.pop() {
                        pending.restore(ticket, name, at_ms);
                        let place = model.partition_point(|(_, _, other)| other.0 < ticket.0);
                        model.insert(place, (name, at_ms, ticket));
                    },
                    4 if !model.is_empty() => {
                        let place = number as usize % model.len();
                        let ticket = model[place].2;
                        let next = (place + 1 < model.len()).then(|| model.remove(place + 1));
                        prop_assert_eq!(pending.pop_behind(ticket), next.map(|(name, ..)| name));
                        popped.extend(next);
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
            }
        }
    }
}
