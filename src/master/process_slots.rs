//! Seats: the rows that children have in the tables of shared memory.
//!
//! The tables (log rings, wake-up descriptors, fills' owners and followers) are made once, before
//! the first fork, with a row for every seat. A child holds one seat for its life. The seat of a
//! dead child is reused only after its rows in the tables have been cleared.

use std::fmt;

use crate::worker::inherited::N_SEATS;

/// Which seats are taken.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Seats {
    taken: u128,
    /// Where the next search starts, so that a seat is reused as late as possible.
    next: u32,
}

const _: () = assert!(N_SEATS == u128::BITS as usize, "one bit is one seat");

impl Seats {
    /// Takes a free seat, the one that was free for longest being likely; `None` if all are taken.
    pub(crate) fn take(&mut self) -> Option<usize> {
        let free = (!self.taken).rotate_right(self.next);
        if free == 0 {
            return None;
        }
        let seat = (free.trailing_zeros() + self.next) % u128::BITS;
        self.taken |= 1 << seat;
        self.next = (seat + 1) % u128::BITS;
        Some(seat as usize)
    }

    /// Gives a seat back.
    pub(crate) fn free(&mut self, seat: usize) {
        debug_assert!(self.is_taken(seat), "seat {seat} was not taken");
        if seat < N_SEATS {
            self.taken &= !(1 << seat);
        }
    }

    /// Whether this seat is taken.
    pub(crate) fn is_taken(&self, seat: usize) -> bool {
        seat < N_SEATS && self.taken & (1 << seat) != 0
    }

    /// How many are free.
    pub(crate) fn n_free(&self) -> usize {
        self.taken.count_zeros() as usize
    }
}

impl fmt::Debug for Seats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries((0..N_SEATS).filter(|&seat| self.is_taken(seat))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_seat_is_given_once_and_then_none() {
        let mut seats = Seats::default();
        let mut given: Vec<usize> = std::iter::from_fn(|| seats.take()).collect();
        given.sort_unstable();
        assert_eq!(given, (0..N_SEATS).collect::<Vec<_>>());
        seats.free(77);
        assert_eq!((seats.n_free(), seats.take(), seats.take()), (1, Some(77), None));
    }

    #[test]
    fn a_seat_is_reused_as_late_as_possible() {
        let mut seats = Seats::default();
        let first = seats.take().unwrap();
        seats.free(first);
        assert_ne!(seats.take(), Some(first));
    }

    proptest! {
        #[test]
        fn no_seat_has_two_owners(turns in prop::collection::vec(any::<Option<u8>>(), 0..400)) {
            let mut seats = Seats::default();
            let mut held = Vec::new();
            for turn in turns {
                match turn {
                    None => {
                        if let Some(seat) = seats.take() {
                            prop_assert!(!held.contains(&seat));
                            held.push(seat);
                        }
                    }
                    Some(n) if !held.is_empty() => {
                        seats.free(held.swap_remove(usize::from(n) % held.len()));
                    }
                    Some(_) => {}
                }
                prop_assert_eq!(seats.n_free(), N_SEATS - held.len());
            }
        }
    }
}
