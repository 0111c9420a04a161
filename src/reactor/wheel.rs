//! The timer wheel: finds the timers that are due.
//!
//! Six levels of 64 slots; a slot of level 0 is one millisecond, a slot of a level is as long as
//! the whole level below it. A timer stands in the lowest level with a span that holds its distance
//! from now, and moves down as its time comes near, so setting and clearing cost a few stores and
//! finding the next one a look at six bitmaps. Pure: the time is an argument.
//!
//! ```text
//! free ── insert ──▶ armed ── its time ──▶ due (fired, still owned) ── remove ──▶ free
//!                    │  ▲ ◀── move_to ─────┘
//!                    └──┴── remove ──▶ free
//! ```

use slab::Slab;

/// The timers of one thread, each with a value of its owner.
#[derive(Debug)]
pub(super) struct Wheel<T> {
    /// Everything due at or before this has been fired.
    elapsed_ms: u64,
    /// One bit per slot that is not empty.
    occupied: [u64; LEVELS],
    heads: [[u32; SLOTS]; LEVELS],
    nodes: Slab<Node<T>>,
}

#[derive(Debug)]
struct Node<T> {
    when_ms: u64,
    prev: u32,
    next: u32,
    /// `level * SLOTS + slot`, or `UNLINKED`.
    place: u16,
    value: T,
}

impl<T> Wheel<T> {
    /// An empty wheel that begins at `now_ms`.
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            elapsed_ms: now_ms,
            occupied: [0; LEVELS],
            heads: [[NONE; SLOTS]; LEVELS],
            nodes: Slab::new(),
        }
    }

    /// Arms a new timer and returns its key. A time that is past is due at once.
    pub(super) fn insert(&mut self, when_ms: u64, value: T) -> u32 {
        let node = Node { when_ms, prev: NONE, next: NONE, place: UNLINKED, value };
        let key = self.nodes.insert(node);
        debug_assert!(key < NONE as usize, "fewer than 2^32 timers");
        self.link(key);
        key as u32
    }

    /// Arms a timer for another time, whether it is armed or due.
    pub(super) fn move_to(&mut self, key: u32, when_ms: u64) {
        let key = key as usize;
        if !self.nodes.contains(key) {
            return;
        }
        self.unlink(key);
        self.nodes[key].when_ms = when_ms;
        self.link(key);
    }

    /// Ends a timer and returns its value.
    pub(super) fn remove(&mut self, key: u32) -> Option<T> {
        let key = key as usize;
        if !self.nodes.contains(key) {
            return None;
        }
        self.unlink(key);
        Some(self.nodes.remove(key).value)
    }

    /// Takes the next timer that is due at `now_ms` off the wheel; it stays its owner's until
    /// it is removed.
    pub(super) fn pop_due(&mut self, now_ms: u64) -> Option<u32> {
        while let Some((level, slot, deadline_ms)) = self.next_slot() {
            if deadline_ms > now_ms {
                break;
            }
            let head = self.heads[level][slot];
            debug_assert!(head != NONE, "an occupied slot has a timer");
            let key = head as usize;
            if level == 0 {
                self.unlink(key);
                return Some(head);
            }
            self.cascade(level, slot, deadline_ms);
        }
        self.elapsed_ms = self.elapsed_ms.max(now_ms);
        None
    }

    /// No timer is due before this; `None` if none is armed.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.next_slot().map(|(_, _, deadline_ms)| deadline_ms)
    }

    /// The time that the timer is armed for, `None` if it is due or unknown.
    pub(super) fn armed_ms(&self, key: u32) -> Option<u64> {
        let node = self.nodes.get(key as usize)?;
        (node.place != UNLINKED).then_some(node.when_ms)
    }

    /// The value of a timer.
    pub(super) fn value_mut(&mut self, key: u32) -> Option<&mut T> {
        self.nodes.get_mut(key as usize).map(|node| &mut node.value)
    }

    /// The number of timers, armed or due.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Moves the timers of a slot that is due to the levels below.
    fn cascade(&mut self, level: usize, slot: usize, deadline_ms: u64) {
        // A timer that is due at this very moment must land in level 0, in this slot's place.
        self.elapsed_ms = self.elapsed_ms.max(deadline_ms);
        loop {
            let head = self.heads[level][slot];
            if head == NONE {
                break;
            }
            self.unlink(head as usize);
            self.link(head as usize);
        }
    }

    /// The first slot that is not empty, and when it begins.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        for level in 0..LEVELS {
            if self.occupied[level] == 0 {
                continue;
            }
            let shift = LEVEL_BITS * level as u32;
            let slot_now = (self.elapsed_ms >> shift) & SLOT_MASK;
            let ahead = self.occupied[level].rotate_right(slot_now as u32).trailing_zeros();
            let slot = (slot_now + u64::from(ahead)) & SLOT_MASK;
            let level_start = self.elapsed_ms & !((1 << (shift + LEVEL_BITS)) - 1);
            let mut deadline_ms = level_start + (slot << shift);
            // Only the top level reaches into its next round.
            if slot < slot_now {
                deadline_ms += 1 << (shift + LEVEL_BITS);
            }
            return Some((level, slot as usize, deadline_ms));
        }
        None
    }

    fn link(&mut self, key: usize) {
        let when_ms = self.nodes[key].when_ms;
        let at_ms = when_ms.clamp(self.elapsed_ms, self.elapsed_ms + SPAN_MS_MAX);
        let level = level_of(self.elapsed_ms, at_ms);
        let slot = ((at_ms >> (LEVEL_BITS * level as u32)) & SLOT_MASK) as usize;
        let head = std::mem::replace(&mut self.heads[level][slot], key as u32);
        self.occupied[level] |= 1 << slot;
        if head != NONE {
            self.nodes[head as usize].prev = key as u32;
        }
        let node = &mut self.nodes[key];
        node.prev = NONE;
        node.next = head;
        node.place = (level * SLOTS + slot) as u16;
    }

    fn unlink(&mut self, key: usize) {
        let node = &mut self.nodes[key];
        if node.place == UNLINKED {
            return;
        }
        let place = std::mem::replace(&mut node.place, UNLINKED) as usize;
        let (prev, next) = (node.prev, node.next);
        if next != NONE {
            self.nodes[next as usize].prev = prev;
        }
        if prev != NONE {
            self.nodes[prev as usize].next = next;
            return;
        }
        let (level, slot) = (place / SLOTS, place % SLOTS);
        self.heads[level][slot] = next;
        if next == NONE {
            self.occupied[level] &= !(1 << slot);
        }
    }
}

/// The level on which a timer for `at_ms` stands: that of the highest digit in which it differs
/// from now.
fn level_of(elapsed_ms: u64, at_ms: u64) -> usize {
    let differing = (elapsed_ms ^ at_ms) | SLOT_MASK;
    let level = (63 - differing.leading_zeros()) / LEVEL_BITS;
    (level as usize).min(LEVELS - 1)
}

const LEVEL_BITS: u32 = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
const SLOT_MASK: u64 = SLOTS as u64 - 1;
const LEVELS: usize = 6;

/// A timer further away than this (one year and a bit) is armed for this and moved on then.
const SPAN_MS_MAX: u64 = 1 << (LEVEL_BITS * LEVELS as u32 - 1);

const NONE: u32 = u32::MAX;
const UNLINKED: u16 = u16::MAX;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn drain(wheel: &mut Wheel<u32>, now_ms: u64) -> Vec<u32> {
        let mut fired = Vec::new();
        while let Some(key) = wheel.pop_due(now_ms) {
            fired.extend(wheel.remove(key));
        }
        fired
    }

    #[test]
    fn a_timer_fires_at_its_millisecond_on_every_level() {
        for start_ms in [0, 1, 63, 64, 4_095, 4_096, 1_234_567, 1 << 35, (1 << 36) - 1] {
            for ahead_ms in [1, 2, 63, 64, 65, 4_095, 4_096, 262_144, 20_000_000, 5_000_000_000] {
                let mut wheel = Wheel::new(start_ms);
                wheel.insert(start_ms + ahead_ms, 7);
                assert_eq!(drain(&mut wheel, start_ms + ahead_ms - 1), [0_u32; 0]);
                assert!(wheel.next_ms().unwrap() <= start_ms + ahead_ms);
                assert_eq!(drain(&mut wheel, start_ms + ahead_ms), [7]);
                assert_eq!((wheel.next_ms(), wheel.len()), (None, 0));
            }
        }
    }

    #[test]
    fn a_timer_beyond_the_span_is_moved_on() {
        let mut wheel = Wheel::new(5);
        wheel.insert(u64::MAX, 1);
        wheel.insert(3 * SPAN_MS_MAX, 2);
        assert_eq!(drain(&mut wheel, 3 * SPAN_MS_MAX - 1), [0_u32; 0]);
        assert_eq!(drain(&mut wheel, 3 * SPAN_MS_MAX), [2]);
        assert_eq!(wheel.len(), 1);
    }

    #[test]
    fn a_past_time_is_due_at_once() {
        let mut wheel = Wheel::new(1_000);
        wheel.insert(3, 1);
        assert_eq!(wheel.next_ms(), Some(1_000));
        assert_eq!(drain(&mut wheel, 1_000), [1]);
    }

    #[test]
    fn a_due_timer_stays_until_its_owner_removes_it() {
        let mut wheel = Wheel::new(0);
        let key = wheel.insert(10, 1);
        assert_eq!(wheel.pop_due(10), Some(key));
        assert_eq!((wheel.armed_ms(key), wheel.len()), (None, 1));
        wheel.move_to(key, 30);
        assert_eq!(wheel.armed_ms(key), Some(30));
        assert_eq!(wheel.pop_due(30), Some(key));
        assert_eq!(wheel.remove(key), Some(1));
        assert_eq!(wheel.remove(key), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        Move(usize, u64),
        Remove(usize),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let ahead = prop_oneof![0..70_u64, 0..5_000_u64, 0..20_000_000_u64];
        prop_oneof![
            3 => ahead.clone().prop_map(Step::Insert),
            1 => (any::<usize>(), ahead.clone()).prop_map(|(i, ms)| Step::Move(i, ms)),
            1 => any::<usize>().prop_map(Step::Remove),
            2 => ahead.prop_map(Step::Pass),
        ]
    }

    proptest! {
        #[test]
        fn the_wheel_agrees_with_a_sorted_map(
            start_ms in 0..u64::MAX / 4,
            steps in prop::collection::vec(step(), 1..200),
        ) {
            let mut now_ms = start_ms;
            let mut wheel = Wheel::new(now_ms);
            let mut model: BTreeMap<u32, (u64, u32)> = BTreeMap::new();
            let mut n_made = 0;
            for step in steps {
                match step {
                    Step::Insert(ahead_ms) => {
                        n_made += 1;
                        let key = wheel.insert(now_ms + ahead_ms, n_made);
                        model.insert(n_made, (now_ms + ahead_ms, key));
                    }
                    Step::Move(index, ahead_ms) if !model.is_empty() => {
                        let index = index % model.len();
                        let (at_ms, key) = model.values_mut().nth(index).unwrap();
                        *at_ms = now_ms + ahead_ms;
                        wheel.move_to(*key, *at_ms);
                    }
                    Step::Remove(index) if !model.is_empty() => {
                        let name = *model.keys().nth(index % model.len()).unwrap();
                        let (_, key) = model.remove(&name).unwrap();
                        prop_assert_eq!(wheel.remove(key), Some(name));
                    }
                    Step::Pass(ms) => {
                        now_ms += ms;
                        let mut fired = drain(&mut wheel, now_ms);
                        fired.sort_unstable();
                        let due: Vec<u32> = model
                            .iter()
                            .filter(|(_, (at_ms, _))| *at_ms <= now_ms)
                            .map(|(name, _)| *name)
                            .collect();
                        model.retain(|_, (at_ms, _)| *at_ms > now_ms);
                        prop_assert_eq!(fired, due);
                    }
                    _ => {}
                }
                let first_ms = model.values().map(|(at_ms, _)| *at_ms).min();
                prop_assert_eq!(wheel.next_ms().is_some(), first_ms.is_some());
                prop_assert!(wheel.next_ms() <= first_ms.map(|ms| ms.max(now_ms)));
                prop_assert_eq!(wheel.len(), model.len());
            }
        }
    }
}
