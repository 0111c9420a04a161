//! Process slots: the rows that children have in the tables of shared memory.
//!
//! The tables (log rings, wake-up descriptors, fills' owners and followers) are made once, before
//! the first fork, with a row for every process slot. A child holds one process slot for its life.
//! The process slot of a dead child is reused only after its rows in the tables have been cleared.

use std::fmt;

use crate::worker::inherited::N_PROCESS_SLOTS;

/// Which process slots are taken.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct ProcessSlots {
    taken: u128,
    /// Those of them that a new master may use.
    lent: u128,
    /// Where the next search starts, so that a process slot is reused as late as possible.
    next: u32,
}

const _: () = assert!(N_PROCESS_SLOTS == u128::BITS as usize, "one bit is one process slot");

impl ProcessSlots {
    /// Takes a free process slot, the one that was free for longest being likely; `None` if all are
    /// taken.
    pub(crate) fn take(&mut self) -> Option<usize> {
        let free = (!self.taken).rotate_right(self.next);
        if free == 0 {
            return None;
        }
        let slot = (free.trailing_zeros() + self.next) % u128::BITS;
        self.taken |= 1 << slot;
        self.next = (slot + 1) % u128::BITS;
        Some(slot as usize)
    }

    /// Takes a free process slot that is not held by a process which this master does not know.
    pub(crate) fn take_unless(&mut self, is_held: impl Fn(usize) -> bool) -> Option<usize> {
        let mut held = Vec::new();
        let slot = loop {
            match self.take() {
                Some(slot) if is_held(slot) => held.push(slot),
                taken => break taken,
            }
        };
        held.into_iter().for_each(|slot| self.free(slot));
        slot
    }

    /// Gives a process slot back.
    pub(crate) fn free(&mut self, slot: usize) {
        debug_assert!(self.is_taken(slot), "process slot {slot} was not taken");
        if slot < N_PROCESS_SLOTS {
            self.taken &= !(1 << slot);
        }
    }

    /// Lends all free ones but `n_kept` to a new master, and gives those that it may not use.
    pub(crate) fn lend(&mut self, n_kept: usize) -> u128 {
        let mut own = self.clone();
        for _ in 0..n_kept {
            let _ = own.take();
        }
        self.lent = !own.taken;
        self.taken |= self.lent;
        own.taken
    }

    /// Takes back what was lent, after the new master has ended.
    pub(crate) fn take_back(&mut self) {
        self.taken &= !std::mem::take(&mut self.lent);
    }

    /// Those that the old master has not lent are taken.
    pub(crate) fn borrowed(taken: u128) -> Self {
        Self { taken, ..Self::default() }
    }

    /// Whether this process slot is taken.
    pub(crate) fn is_taken(&self, slot: usize) -> bool {
        slot < N_PROCESS_SLOTS && self.taken & (1 << slot) != 0
    }

    /// How many are free.
    pub(crate) fn n_free(&self) -> usize {
        self.taken.count_zeros() as usize
    }
}

impl fmt::Debug for ProcessSlots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries((0..N_PROCESS_SLOTS).filter(|&slot| self.is_taken(slot))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_process_slot_is_given_once_and_then_none() {
        let mut slots = ProcessSlots::default();
        let mut given: Vec<usize> = std::iter::from_fn(|| slots.take()).collect();
        given.sort_unstable();
        assert_eq!(given, (0..N_PROCESS_SLOTS).collect::<Vec<_>>());
        slots.free(77);
        assert_eq!((slots.n_free(), slots.take(), slots.take()), (1, Some(77), None));
    }

    #[test]
    fn an_old_and_a_new_master_have_different_process_slots() {
        let mut old = ProcessSlots::default();
        let first = old.take().unwrap();
        let mut new = ProcessSlots::borrowed(old.lend(3));
        assert_eq!((old.n_free(), new.n_free()), (3, N_PROCESS_SLOTS - 4));
        let of = |slots: &mut ProcessSlots| std::iter::from_fn(|| slots.take()).collect::<Vec<_>>();
        let (old_ones, new_ones) = (of(&mut old), of(&mut new));
        assert!(new_ones.iter().all(|slot| *slot != first && !old_ones.contains(slot)));
        old.take_back();
        assert_eq!(old.n_free(), N_PROCESS_SLOTS - 4);
    }

    #[test]
    fn a_process_slot_that_a_strange_process_holds_is_passed_over_and_stays_free() {
        let mut slots = ProcessSlots::default();
        let is_held = |slot: usize| slot != 5 && slot != 9;
        let mut taken = [(); 3].map(|()| slots.take_unless(is_held));
        taken.sort_unstable();
        assert_eq!((taken, slots.n_free()), ([None, Some(5), Some(9)], N_PROCESS_SLOTS - 2));
    }

    #[test]
    fn a_process_slot_is_reused_as_late_as_possible() {
        let mut slots = ProcessSlots::default();
        let first = slots.take().unwrap();
        slots.free(first);
        assert_ne!(slots.take(), Some(first));
    }

    proptest! {
        #[test]
        fn no_process_slot_has_two_owners(turns in prop::collection::vec(any::<Option<u8>>(), 0..400)) {
            let mut slots = ProcessSlots::default();
            let mut held = Vec::new();
            for turn in turns {
                match turn {
                    None => {
                        if let Some(slot) = slots.take() {
                            prop_assert!(!held.contains(&slot));
                            held.push(slot);
                        }
                    }
                    Some(n) if !held.is_empty() => {
                        slots.free(held.swap_remove(usize::from(n) % held.len()));
                    }
                    Some(_) => {}
                }
                prop_assert_eq!(slots.n_free(), N_PROCESS_SLOTS - held.len());
            }
        }
    }
}
