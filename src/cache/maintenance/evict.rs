//! Making room: SIEVE over the index, by bytes, by objects and by free space on the disk.
//!
//! One hand goes through the slots in the order of their publication (see `order`). An object that
//! was used since the hand last passed loses its mark and stays; any other is removed, slot first,
//! then file. New objects come without a mark ahead of the hand, which therefore meets them soon:
//! an object that is never used again does not stay for long. An object that is published again was
//! requested, so it has its mark.
//!
//! The keeper alone does this: it begins when a limit is reached and ends a little below, so that
//! workers seldom meet a full cache.

use crate::cache::files::store::Store;
use crate::cache::index::Index;
use crate::cache::index::slot::SlotView;
use crate::cache::maintenance::order::{Round, Stop};
use crate::cache::place;
use crate::metrics::table::Metric;
use crate::policy::reason::eviction::EvictionReason;
use crate::reactor;
use crate::shared::meter;

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

/// The use of a cache, to compare with its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Disk bytes of all files, and of those to come.
    pub bytes: u64,
    /// Slots that are taken.
    pub objects: u64,
    /// Free bytes on the disk; `None` if the system does not say.
    pub free_bytes: Option<u64>,
}

/// The result of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Objects removed.
    pub n_removed: usize,
    /// Disk bytes given back.
    pub bytes: u64,
    /// Whether the cache is still above the level at which eviction ends.
    pub wants_more: bool,
}

/// The evictor: idle until a limit is reached, then active until there is room again.
#[derive(Debug)]
pub struct Evictor {
    limits: Limits,
    is_active: bool,
    round: Round,
}

impl Evictor {
    /// An idle one.
    pub const fn new(limits: Limits) -> Self {
        Self { limits, is_active: false, round: Round::new() }
    }

    /// Looks at up to `n_slots_max` slots, if room is needed; the caller paces the steps.
    pub fn step(&mut self, index: &Index, store: &Store, n_slots_max: usize) -> Step {
        self.step_for(index, store, n_slots_max, || 0)
    }

    /// As [`Evictor::step`], with room for the `bytes_to_come` of running fills, up to half of the
    /// size: more would evict everything that is stored.
    pub fn step_for(
        &mut self,
        index: &Index,
        store: &Store,
        n_slots_max: usize,
        bytes_to_come: impl FnOnce() -> u64,
    ) -> Step {
        let free_bytes = store.free_bytes().ok();
        // Each is read once, in this order: an object that is published meanwhile is not counted,
        // rather than counted twice.
        let bytes = index.bytes();
        let bytes = bytes.saturating_add(bytes_to_come().min(self.limits.size_bytes / 2));
        let mut level = Level { bytes, objects: index.objects(), free_bytes };
        let mut reason = self.limits.reason(&level, self.is_active);
        let mut step = Step::default();
        let mut budget = n_slots_max;
        while let Some(why) = reason {
            let Some(stop) = self.round.next(index, &mut budget) else { break };
            index.set_hand(stop.generation);
            if let Some(evicted) = evict_at(index, store, stop) {
                let bytes = evicted.weight_bytes();
                count(why, &evicted);
                step.n_removed += 1;
                step.bytes = step.bytes.saturating_add(bytes);
                level.bytes = level.bytes.saturating_sub(bytes);
                level.objects = index.objects();
                level.free_bytes = level.free_bytes.map(|free| free.saturating_add(bytes));
                reason = self.limits.reason(&level, true);
            }
        }
        self.is_active = reason.is_some();
        step.wants_more = self.is_active && level.objects > 0;
        step
    }
}

impl Limits {
    /// Whether to make room: from 98 % of a limit on and, once begun, down to 95 %.
    pub fn wants_room(&self, level: &Level, is_active: bool) -> bool {
        self.reason(level, is_active).is_some()
    }

    /// The limit for which room is to be made, see [`Self::wants_room`].
    fn reason(&self, level: &Level, is_active: bool) -> Option<EvictionReason> {
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
        let limits = [
            (above(level.bytes, self.size_bytes), EvictionReason::Size),
            (above(level.objects, self.objects), EvictionReason::Objects),
            (lacks_disk, EvictionReason::Disk),
        ];
        limits.into_iter().find_map(|(is_reached, reason)| is_reached.then_some(reason))
    }
}

fn count(reason: EvictionReason, evicted: &SlotView) {
    if meter::current().is_some() {
        meter::count(Metric::Evictions.at(reason as usize));
        meter::add(Metric::EvictedBytes.cell(), evicted.weight_bytes());
        let age_s = reactor::now().unix_s().saturating_sub(evicted.stored_s);
        meter::observe(Metric::EvictedAge, 0, age_s);
    }
}

/// One step of the hand: the slot, if its object was removed. An object that was
/// published there meanwhile is left for its own turn.
fn evict_at(index: &Index, store: &Store, stop: Stop) -> Option<SlotView> {
    let view = index.slot(index.place(stop.number)?)?;
    if view.generation != stop.generation {
        return None;
    }
    if view.is_visited {
        index.forget_visit(view.at);
        return None;
    }
    place::discard(index, store, &view.key, Some(view.generation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::place::tests::{cache, slot, store_one};

    #[test]
    fn used_objects_stay_and_unused_ones_are_removed() {
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
    fn if_all_were_used_the_second_round_removes_some() {
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
    fn the_hand_goes_on_with_newer_objects_and_meets_new_ones_before_old_ones() {
        let (_dir, index, store) = cache(100);
        let limits = Limits { size_bytes: 0, objects: 40, free_bytes_min: 0 };
        for n in 0..40 {
            let at = store_one(&index, &store, &n.to_string(), b"x").unwrap().slot.at;
            index.touch(at);
        }
        // A full turn takes all marks away and removes the oldest ones.
        let mut evictor = Evictor::new(limits);
        assert_eq!(evictor.step(&index, &store, 10_000).n_removed, 2);
        let is_there = |n: u32| index.lookup(&slot(&n.to_string()).key).is_some();
        assert!(!is_there(0) && !is_there(1) && (2..40).all(is_there));
        // The old ones are used again as the hand leaves them, and what is new is not.
        (2..40).for_each(|n: u32| index.touch(index.lookup(&slot(&n.to_string()).key).unwrap().at));
        for n in 40..60 {
            store_one(&index, &store, &n.to_string(), b"x").unwrap();
            // Another evictor, as after a restart: the hand is kept in the index.
            let mut evictor = Evictor::new(limits);
            while evictor.step(&index, &store, 100).wants_more {}
        }
        assert!((2..40).filter(|&n| is_there(n)).count() >= 36, "old ones in use had to go");
    }

    #[test]
    fn an_object_that_is_published_again_counts_as_used() {
        let (_dir, index, store) = cache(100);
        for text in ["a", "b", "a"] {
            store_one(&index, &store, text, b"x").unwrap();
        }
        let is_visited = |text| index.lookup(&slot(text).key).unwrap().is_visited;
        assert!(is_visited("a") && !is_visited("b"));
    }

    #[test]
    fn eviction_begins_at_98_per_cent_and_ends_at_95() {
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
    fn room_is_made_for_what_is_being_written() {
        let (_dir, index, store) = cache(100);
        for n in 0..50 {
            store_one(&index, &store, &n.to_string(), b"x").unwrap();
        }
        let limits = Limits { size_bytes: 60 * 4096, objects: 0, free_bytes_min: 0 };
        let mut evictor = Evictor::new(limits);
        for (to_come, left) in [(0, 50), (20 * 4096, 37), (u64::MAX, 27), (0, 27)] {
            evictor.step_for(&index, &store, 10_000, || to_come);
            assert_eq!(index.objects(), left, "{to_come} to come");
        }
    }

    #[test]
    fn an_empty_cache_on_a_full_disk_does_not_ask_for_more() {
        let (_dir, index, store) = cache(5);
        let limits = Limits { size_bytes: 0, objects: 0, free_bytes_min: u64::MAX };
        assert!(!Evictor::new(limits).step(&index, &store, 100).wants_more);
    }
}
