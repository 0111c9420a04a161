//! The fetches that wait for a connection, in the order in which they came.

use std::collections::BTreeMap;

/// A bounded queue of waiters; the caller wakes a waiter by its `W`.
#[derive(Debug)]
pub(crate) struct Pending<W> {
    n_max: usize,
    /// Tickets rise, so the map's order is that of arrival.
    waiters: BTreeMap<u64, W>,
    next_ticket: u64,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// The queue is as long as it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl<W> Pending<W> {
    /// An empty queue of at most `n_max` waiters.
    pub(crate) const fn new(n_max: usize) -> Self {
        Self { n_max, waiters: BTreeMap::new(), next_ticket: 0 }
    }

    /// Puts a waiter at the end of the queue.
    pub(crate) fn push(&mut self, waiter: W) -> Result<Ticket, Full> {
        if self.waiters.len() >= self.n_max {
            return Err(Full);
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiters.insert(ticket, waiter);
        Ok(Ticket(ticket))
    }

    /// Takes the waiter that has waited longest.
    pub(crate) fn pop(&mut self) -> Option<W> {
        self.waiters.pop_first().map(|(_, waiter)| waiter)
    }

    /// As `pop`, but only of the waiters behind a place.
    pub(crate) fn pop_behind(&mut self, ticket: Ticket) -> Option<W> {
        let (next, _) = self.waiters.range(ticket.0.saturating_add(1)..).next()?;
        let next = *next;
        self.waiters.remove(&next)
    }

    /// Puts a waiter that was taken back in its place, also into a full queue.
    pub(crate) fn restore(&mut self, ticket: Ticket, waiter: W) {
        self.waiters.insert(ticket.0, waiter);
    }

    /// Takes a waiter out of the queue; `None` if it was taken before.
    pub(crate) fn cancel(&mut self, ticket: Ticket) -> Option<W> {
        self.waiters.remove(&ticket.0)
    }

    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
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
        let first = pending.push('a').unwrap();
        let second = pending.push('b').unwrap();
        assert_eq!(pending.push('c'), Err(Full));
        assert_eq!(pending.pop(), Some('a'));
        assert_eq!(pending.cancel(first), None);
        assert_eq!(pending.cancel(second), Some('b'));
        assert!(pending.is_empty());
        assert_eq!(pending.pop(), None);
    }

    #[test]
    fn a_waiter_that_declines_keeps_its_place_and_calls_the_next() {
        let mut pending = Pending::new(3);
        let tickets = ['a', 'b', 'c'].map(|waiter| pending.push(waiter).unwrap());
        assert_eq!(pending.pop(), Some('a'));
        pending.restore(tickets[0], 'a');
        assert_eq!(pending.pop_behind(tickets[0]), Some('b'));
        assert_eq!(pending.pop_behind(tickets[1]), Some('c'));
        assert_eq!(pending.pop_behind(tickets[2]), None);
        assert_eq!(pending.pop(), Some('a'));
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_list(
            n_max in 0..8_usize,
            steps in prop::collection::vec((0..5_u8, any::<usize>()), 1..200),
        ) {
            let mut pending = Pending::new(n_max);
            let mut model: Vec<(u64, Ticket)> = Vec::new();
            let mut popped: Vec<(u64, Ticket)> = Vec::new();
            for (name, (step, number)) in (0_u64..).zip(steps) {
                let place = number.checked_rem(model.len());
                match (step, place) {
                    (0, _) => match pending.push(name) {
                        Ok(ticket) => model.push((name, ticket)),
                        Err(Full) => prop_assert!(model.len() >= n_max),
                    },
                    (1, Some(place)) => {
                        let (name, ticket) = model.remove(place);
                        prop_assert_eq!(pending.cancel(ticket), Some(name));
                        prop_assert_eq!(pending.cancel(ticket), None);
                    }
                    (2, Some(place)) => {
                        let (_, ticket) = model[place];
                        let next = (place + 1 < model.len()).then(|| model.remove(place + 1));
                        prop_assert_eq!(pending.pop_behind(ticket), next.map(|(name, _)| name));
                        popped.extend(next);
                    }
                    (3, _) => if let Some((name, ticket)) = popped.pop() {
                        pending.restore(ticket, name);
                        let place = model.partition_point(|(_, other)| other.0 < ticket.0);
                        model.insert(place, (name, ticket));
                    },
                    _ => {
                        let first = (!model.is_empty()).then(|| model.remove(0));
                        prop_assert_eq!(pending.pop(), first.map(|(name, _)| name));
                        popped.extend(first);
                    }
                }
                prop_assert_eq!(pending.is_empty(), model.is_empty());
            }
        }
    }
}
