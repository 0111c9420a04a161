//! How often the object of a slot answered a request, for `ktrix cache`.
//!
//! The counters lie behind the buckets, one for each slot, so that a hit writes to no line that
//! look-ups read. A worker counts for itself what it keeps in its hot tier, and adds that here every
//! second: a line that other workers write to costs more than the rest of a hit. They are for people: nothing is decided by them, and a process that dies between
//! two steps may leave one that is off.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::cache::index::Index;
use crate::cache::index::slot::{SlotAt, SlotRef};
use crate::cache::index::table::Table;

/// Counting ends here, far enough below the largest number that concurrent counting cannot wrap
/// round to zero.
pub const HITS_MAX: u32 = u32::MAX / 2;

/// Most answers that are counted in one go: this many for each of the processes still fit.
const HITS_STEP_MAX: u32 = 1 << 22;

impl Index {
    /// Counts `n` answers from what was in the slot, if it is there still.
    pub fn count_hits(&self, slot: SlotRef, n: u32) {
        if let Some(hits) = self.table().hits_of(slot.at)
            && self.is_current(slot)
            && hits.load(Ordering::Relaxed) < HITS_MAX
        {
            hits.fetch_add(n.min(HITS_STEP_MAX), Ordering::Relaxed);
        }
    }

    /// Resets the counter before another object is put in the slot.
    pub(super) fn forget_hits(&self, at: SlotAt) {
        if let Some(hits) = self.table().hits_of(at) {
            hits.store(0, Ordering::Relaxed);
        }
    }
}

impl Table {
    /// The counter of a slot.
    #[inline]
    pub(super) fn hits_of(&self, at: SlotAt) -> Option<&AtomicU32> {
        self.hits.get(at.0 as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::index::reader::IndexReader;
    use crate::cache::place::tests::{cache, slot, store_one};

    impl Index {
        fn hits(&self, at: SlotAt) -> u32 {
            self.table().hits_of(at).map_or(0, |hits| hits.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn every_slot_has_its_own_count_which_ends_with_its_object() {
        let (dir, index, store) = cache(50);
        let texts: Vec<String> = (0..40_u32).map(|n| n.to_string()).collect();
        let stored = |text: &String| store_one(&index, &store, text, b"x").unwrap().slot.at;
        let count = |at: SlotAt, n| index.count_hits(index.slot(at).unwrap().slot_ref(), n);
        let places: Vec<SlotAt> = texts.iter().map(stored).collect();
        for (n, &at) in places.iter().enumerate() {
            count(at, n as u32);
        }
        let reading = IndexReader::open(dir.path()).unwrap();
        for (n, &at) in places.iter().enumerate() {
            assert_eq!((index.hits(at), reading.hits(at)), (n as u32, n as u32));
        }
        assert_eq!(index.faults().count(), 0);
        assert_eq!(stored(&texts[7]), places[7]);
        assert_eq!((index.hits(places[7]), index.hits(places[8])), (0, 8));
        index.remove(&slot("8").key, None);
        let at = stored(&texts[8]);
        assert_eq!(index.hits(at), 0);
    }

    #[test]
    fn counts_are_kept_when_the_index_is_opened_again() {
        let (dir, index, store) = cache(5);
        let slot = store_one(&index, &store, "a", b"x").unwrap().slot;
        let at = slot.at;
        (0..3).for_each(|_| index.count_hits(slot, 1));
        index.count_hits(SlotRef { generation: slot.generation + 1, ..slot }, 1);
        drop(index);
        let (index, _) = Index::open(dir.path(), 5).unwrap();
        assert_eq!(index.hits(at), 3);
    }

    #[test]
    fn a_count_does_not_wrap_and_an_invalid_slot_has_none() {
        let (_dir, index, store) = cache(5);
        let slot = store_one(&index, &store, "a", b"x").unwrap().slot;
        let at = slot.at;
        index.table().hits_of(at).unwrap().store(HITS_MAX - 1, Ordering::Relaxed);
        (0..3).for_each(|_| index.count_hits(slot, 1));
        assert_eq!(index.hits(at), HITS_MAX);
        index.count_hits(SlotRef { at: SlotAt(u32::MAX), generation: 0 }, 1);
        assert_eq!(index.hits(SlotAt(index.n_slots())), 0);
    }
}
