//! The order in which eviction looks at slots: that of their publication, from the hand on.
//!
//! The table is ordered by keys. But every slot has its generation, which only grows, so that one
//! walk of the table finds those that come next after the hand, and these are then looked at in
//! turn. Past the newest the order begins again with the oldest. A walk keeps a sixteenth of the
//! slots. With more, a new object would wait until all of them have been looked at, which is not
//! SIEVE; with less, each object that is looked at would cost more than some sixteen loads. This
//! needs a byte of memory for each slot of the table.

use crate::cache::index::Index;

/// A part of a round of the hand.
#[derive(Debug)]
pub(super) struct Round {
    phase: Phase,
    /// Slots to come, each as its distance from the hand and its number.
    slots: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Looking for those that come next after `hand`.
    Gathering { next: u32, hand: u32 },
    /// The last of `slots` is the next one.
    Ready { hand: u32 },
}

/// A slot to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stop {
    /// The generation that it had.
    pub generation: u32,
    /// Its number.
    pub number: u32,
}

impl Round {
    pub(super) const fn new() -> Self {
        Self { phase: Phase::Ready { hand: 0 }, slots: Vec::new() }
    }

    /// The next slot, which may have changed since it was found. Takes what it costs from
    /// `budget`, and gives `None` when that is used up.
    pub(super) fn next(&mut self, index: &Index, budget: &mut usize) -> Option<Stop> {
        while *budget > 0 {
            *budget -= 1;
            match self.phase {
                Phase::Ready { hand } => match self.slots.pop() {
                    Some(entry) => return Some(stop_of(entry, hand)),
                    None => self.phase = Phase::Gathering { next: 0, hand: index.hand() },
                },
                Phase::Gathering { next, hand } => {
                    let end = next.saturating_add(GATHER).min(index.n_slots());
                    self.gather(index, next..end, hand);
                    self.phase = if end < index.n_slots() {
                        Phase::Gathering { next: end, hand }
                    } else {
                        self.slots.sort_unstable_by(|a, b| b.cmp(a));
                        Phase::Ready { hand }
                    };
                }
            }
        }
        None
    }

    fn gather(&mut self, index: &Index, numbers: std::ops::Range<u32>, hand: u32) {
        let n_kept = (index.n_slots() as usize / 16).max(N_KEPT_MIN);
        let is_last = numbers.end == index.n_slots();
        for number in numbers {
            let generation = index.place(number).map_or(0, |at| index.generation(at));
            if generation != 0 {
                self.slots.push(entry_of(Stop { generation, number }, hand));
            }
            if self.slots.len() >= 2 * n_kept {
                self.keep(n_kept);
            }
        }
        if is_last {
            self.keep(n_kept);
        }
    }

    /// Keeps the `n` that come first.
    fn keep(&mut self, n: usize) {
        if self.slots.len() > n {
            self.slots.select_nth_unstable(n);
            self.slots.truncate(n);
        }
    }
}

/// The distance of a slot from the hand in the upper half, its number in the lower. A slot that is
/// as old as the hand comes last.
fn entry_of(stop: Stop, hand: u32) -> u64 {
    let distance = stop.generation.wrapping_sub(hand).wrapping_sub(1);
    u64::from(distance) << 32 | u64::from(stop.number)
}

fn stop_of(entry: u64, hand: u32) -> Stop {
    let generation = ((entry >> 32) as u32).wrapping_add(hand).wrapping_add(1);
    Stop { generation, number: entry as u32 }
}

/// How many slots a walk reads for one unit of the budget.
const GATHER: u32 = 64;
/// A walk keeps at least this many.
const N_KEPT_MIN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::place::tests::slot;
    use proptest::prelude::*;

    fn stops(index: &Index, n: usize) -> Vec<Stop> {
        let mut round = Round::new();
        (0..n).map_while(|_| round.next(index, &mut 1_000_000)).collect()
    }

    proptest! {
        #[test]
        fn an_entry_is_its_stop(generation in 1_u32.., number: u32, hand: u32) {
            let stop = Stop { generation, number };
            prop_assert_eq!(stop_of(entry_of(stop, hand), hand), stop);
        }
    }

    #[test]
    fn slots_come_as_they_were_published_from_the_hand_on_and_round() {
        let dir = tempfile::tempdir().unwrap();
        let (index, _) = Index::open(dir.path(), 5_000).unwrap();
        index.attach().unwrap();
        let n_kept = index.n_slots() as usize / 16;
        let generations: Vec<_> = (0..4_000)
            .map(|n: u32| index.publish(&slot(&n.to_string())).unwrap().slot.generation)
            .collect();
        let live: Vec<_> = index.iter().map(|view| view.generation).collect();
        for hand in [0, generations[1_700], generations[3_990]] {
            index.set_hand(hand);
            let seen: Vec<_> = stops(&index, n_kept).iter().map(|stop| stop.generation).collect();
            let mut expected = live.clone();
            expected.sort_unstable_by_key(|it| it.wrapping_sub(hand).wrapping_sub(1));
            expected.truncate(n_kept);
            assert_eq!(seen, expected, "from {hand}");
        }
    }

    #[test]
    fn an_empty_table_ends_with_the_budget() {
        let dir = tempfile::tempdir().unwrap();
        let (index, _) = Index::open(dir.path(), 10).unwrap();
        let mut budget = 100;
        assert_eq!(Round::new().next(&index, &mut budget), None);
        assert_eq!(budget, 0);
    }
}
