//! Making room: SIEVE over the index, by bytes, by objects and by free space on the disk.
//!
//! One hand goes round the slots. What was used since it last came by loses its mark and stays;
//! what was not is removed, slot first, then file. The keeper alone does this: it begins when a
//! limit is reached and ends a little below, so that workers seldom meet a full cache.

use crate::cache::index::Index;
use crate::cache::place;
use crate::cache::store::Store;

/// The limits that eviction keeps. 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Disk bytes of all files.
    pub size_bytes: u64,
    /// Slots that are taken.
    pub objects: u64,
    /// Bytes that are to stay free on the disk.
    pub free_bytes_min: u64,
}

/// Where a cache stands against its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Disk bytes of all files.
    pub bytes: u64,
    /// Slots that are taken.
    pub objects: u64,
    /// Free bytes on the disk; `None` when the system would not say.
    pub free_bytes: Option<u64>,
}

/// What one step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Objects removed.
    pub n_removed: usize,
    /// Disk bytes given back.
    pub bytes: u64,
    /// Whether the cache is still above where eviction ends.
    pub wants_more: bool,
}

/// The evicting: idle until a limit is reached, then active until there is room again.
#[derive(Debug)]
pub struct Evictor {
    limits: Limits,
    is_active: bool,
}

impl Evictor {
    /// An idle one.
    pub const fn new(limits: Limits) -> Self {
        Self { limits, is_active: false }
    }

    /// Looks at up to `n_slots_max` slots if there is a need to; the caller paces the steps.
    pub fn step(&mut self, index: &Index, store: &Store, n_slots_max: usize) -> Step {
        let free_bytes = store.free_bytes().ok();
        let mut level = Level { bytes: index.bytes(), objects: index.objects(), free_bytes };
        self.is_active = self.limits.wants_room(&level, self.is_active);
        let mut step = Step::default();
        let n_slots = index.n_slots();
        let mut hand = index.hand();
        for _ in 0..n_slots_max {
            if !self.is_active {
                break;
            }
            if let Some(bytes) = evict_at(index, store, hand) {
                step.n_removed += 1;
                step.bytes = step.bytes.saturating_add(bytes);
                level.bytes = index.bytes();
                level.objects = index.objects();
                level.free_bytes = level.free_bytes.map(|free| free.saturating_add(bytes));
                self.is_active = self.limits.wants_room(&level, true);
            }
            hand = (hand + 1) % n_slots;
        }
        index.set_hand(hand);
        step.wants_more = self.is_active && level.objects > 0;
        step
    }
}

impl Limits {
    /// Whether room is to be made: from 98 % of a limit on, and once begun down to 95 %.
    pub fn wants_room(&self, level: &Level, is_active: bool) -> bool {
        let per_cent = if is_active { 95 } else { 98 };
        let above = |value: u64, limit: u64| {
            limit > 0 && value > limit / 100 * per_cent + limit % 100 * per_cent / 100
        };
        let free_min = if is_active {
            self.free_bytes_min.saturating_add(self.free_bytes_min / 20)
        } else {
            self.free_bytes_min
        };
        let lacks_disk = level.free_bytes.is_some_and(|free| free < free_min);
        above(level.bytes, self.size_bytes) || above(level.objects, self.objects) || lacks_disk
    }
}

/// One turn of the hand: the bytes given back if the slot's object was removed.
fn evict_at(index: &Index, store: &Store, number: u32) -> Option<u64> {
    let view = index.slot(index.place(number)?)?;
    if view.is_visited {
        index.forget_visit(view.at);
        return None;
    }
    place::discard(index, store, &view.key, Some(view.generation)).map(|it| it.weight_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::place::tests::{cache, slot, store_one};

    #[test]
    fn what_was_used_stays_and_what_was_not_goes() {
        let (_dir, index, store) = cache(100);
        for n in 0..100 {
            store_one(&index, &store, &n.to_string(), b"x").unwrap();
        }
        let used: Vec<_> = (0..40).map(|n| slot(&n.to_string()).key).collect();
        used.iter().for_each(|key| index.touch(index.lookup(key).unwrap().at));
        let limits = Limits { size_bytes: 60 * 4096, objects: 0, free_bytes_min: 0 };
        let mut evictor = Evictor::new(limits);
        let mut n_steps = 0;
        while evictor.step(&index, &store, 10).wants_more {
            n_steps += 1;
            assert!(n_steps < 1000, "eviction does not end");
        }
        assert_eq!((index.objects(), index.bytes()), (57, 57 * 4096));
        let n_kept = used.iter().filter(|key| index.lookup(key).is_some()).count();
        assert_eq!(n_kept, 40, "there were enough unused ones");
        assert!(used.iter().all(|key| store.exists(key)));
        assert_eq!(evictor.step(&index, &store, 10), Step::default());
    }

    #[test]
    fn if_all_were_used_the_second_round_finds_some() {
        let (_dir, index, store) = cache(50);
        for n in 0..50 {
            store_one(&index, &store, &n.to_string(), b"x").unwrap();
        }
        index.iter().for_each(|view| index.touch(view.at));
        let limits = Limits { size_bytes: 0, objects: 20, free_bytes_min: 0 };
        let step = Evictor::new(limits).step(&index, &store, 10_000);
        assert_eq!((index.objects(), step.wants_more, step.n_removed), (19, false, 31));
    }

    #[test]
    fn it_begins_high_and_ends_lower() {
        let limits = Limits { size_bytes: 1000, objects: 100, free_bytes_min: 100 };
        let level = |bytes, objects, free| Level { bytes, objects, free_bytes: Some(free) };
        assert!(!limits.wants_room(&level(970, 0, 500), false));
        assert!(limits.wants_room(&level(970, 0, 500), true));
        assert!(limits.wants_room(&level(981, 0, 500), false));
        assert!(limits.wants_room(&level(0, 99, 500), false));
        assert!(limits.wants_room(&level(0, 0, 99), false));
        assert!(limits.wants_room(&level(0, 0, 104), true));
        assert!(!limits.wants_room(&level(950, 95, 105), true));
        let none = Limits { size_bytes: 0, objects: 0, free_bytes_min: 0 };
        assert!(!none.wants_room(&level(u64::MAX, u64::MAX, 0), true));
    }

    #[test]
    fn an_empty_cache_on_a_full_disk_does_not_ask_for_more() {
        let (_dir, index, store) = cache(5);
        let limits = Limits { size_bytes: 0, objects: 0, free_bytes_min: u64::MAX };
        assert!(!Evictor::new(limits).step(&index, &store, 100).wants_more);
    }
}
