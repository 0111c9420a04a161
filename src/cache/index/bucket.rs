//! A bucket: one line that heads it and seven slots, read without a lock.
//!
//! | bytes | field | meaning |
//! | --- | --- | --- |
//! | 0..4 | lock | the writer ([`Owner`] word), 0 = free |
//! | 4..8 | seq | odd while the tags and slots are being written |
//! | 8..12 | visited | bit i: slot i was used since eviction last looked |
//! | 12..16 | - | 0 |
//! | 16..44 | tags | seven tags: 32 bits of each slot's key, 0 = empty |
//! | 44..64 | - | 0 |
//! | 64..512 | slots | seven slots of 64 bytes |
//!
//! The tags let a lookup touch two cache lines for a hit and one for a miss.
//!
//! # Why a reader never sees half a slot
//!
//! Everything is an atomic, so there is no data race; it remains that a copy must be of one moment.
//! A writer, under the lock, does: `seq = odd` (relaxed); fence(Release); relaxed stores;
//! `seq = even` (Release). A reader does: `seq` (Acquire), which must be even; relaxed loads;
//! fence(Acquire); `seq` (relaxed), which must be the same.
//!
//! * A load that saw a store of a later writer: the writer's fence stands before that store, the
//!   reader's fence after that load, so the fences synchronise, and the reader's second look at
//!   `seq` sees that writer's odd value or a later one: the copy is thrown away.
//! * A load that missed a store of an earlier writer, whose even value the first look saw: that
//!   look acquired what the writer released, so it cannot miss it.
//! * A reader would miss a change only if it slept through exactly 2^31 writes of one bucket.
//!
//! `visited` and the stamp half of a slot's generation word change outside of this, each by a
//! single atomic operation, and any value of theirs is a right one.
//!
//! # When a writer dies
//!
//! It leaves the lock taken and `seq` odd or even. Whoever takes the lock over repairs: slots
//! whose CRC is wrong are emptied, tags are written again, `seq` becomes even. The slot it was
//! writing is thereby either the old one, the new one or empty.
//!
//! # The two buckets of a key
//!
//! A writer locks both: home first, then its neighbour, always in ascending order, so that writers
//! never wait for one another in a circle. Before it locks, it notes the home in its owner row.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use crate::cache::index::slot::{self, GENERATION_WORD, SlotAt, SlotView, State, WORDS};
use crate::shared::owner::{self, Guard, Owner, OwnerTable};
use crate::sys::shm::shared_struct;

/// Slots of a bucket.
pub const SLOTS: usize = 7;

shared_struct! {
    /// One bucket: see the module's field table.
    #[derive(Debug)]
    pub struct Bucket: 512 bytes, aligned 64 {
        lock: AtomicU32,
        seq: AtomicU32,
        visited: AtomicU32,
        _zero: AtomicU32,
        tags: [AtomicU32; SLOTS],
        _rest: [AtomicU32; 5],
        slots: [[AtomicU64; WORDS]; SLOTS],
    }
}

/// The result of a lock-free look-up in a bucket.
#[derive(Clone, Copy, Debug)]
pub enum Look {
    /// The key's slot.
    Found(usize, [u64; WORDS]),
    /// It is not here.
    Absent,
    /// A writer is changing it, or died while it did.
    Busy,
}

/// The tag of a key: bits of its lower half, never 0.
#[inline]
pub const fn tag_of(low: u64) -> u32 {
    low as u32 | 1
}

/// The tag of a slot with these words; 0 if they are of an empty one.
const fn tag_for(words: &[u64; WORDS]) -> u32 {
    if words[7] == 0 { 0 } else { tag_of(words[1]) }
}

impl Bucket {
    /// Looks for a key by its two halves, without a lock.
    #[inline]
    pub fn look(&self, [high, low]: [u64; 2]) -> Look {
        let tag = tag_of(low);
        for _ in 0..LOOKS_MAX {
            let Some(seq) = self.begin_read() else { continue };
            let found =
                self.tags.iter().zip(&self.slots).enumerate().find_map(|(i, (it, slot))| {
                    if it.load(Ordering::Relaxed) != tag {
                        return None;
                    }
                    let words = load(slot);
                    (words[0] == high && words[1] == low).then_some((i, words))
                });
            if self.is_unchanged_since(seq) {
                return found.map_or(Look::Absent, |(i, words)| Look::Found(i, words));
            }
        }
        Look::Busy
    }

    /// A copy of slot `i` of one moment; `None` while a writer is at the bucket.
    pub fn copy(&self, i: usize) -> Option<[u64; WORDS]> {
        let slot = self.slots.get(i)?;
        (0..LOOKS_MAX).find_map(|_| {
            let seq = self.begin_read()?;
            let words = load(slot);
            self.is_unchanged_since(seq).then_some(words)
        })
    }

    /// The generation of slot `i` now: one load.
    #[inline]
    pub fn generation(&self, i: usize) -> u32 {
        self.slots
            .get(i)
            .map_or(0, |slot| slot::generation_of(slot[GENERATION_WORD].load(Ordering::Acquire)))
    }

    /// Whether slot `i` was used since eviction last looked.
    #[inline]
    pub fn is_visited(&self, i: usize) -> bool {
        self.visited.load(Ordering::Relaxed) >> i & 1 != 0
    }

    /// Marks slot `i` as used; writes only if it was not marked.
    #[inline]
    pub fn visit(&self, i: usize) {
        if i < SLOTS && !self.is_visited(i) {
            self.visited.fetch_or(1 << i, Ordering::Relaxed);
        }
    }

    /// Takes back the mark of slot `i`.
    pub fn forget_visit(&self, i: usize) {
        if i < SLOTS {
            self.visited.fetch_and(!(1 << i), Ordering::Relaxed);
        }
    }

    /// Sets the stamp of slot `i`, if it still is of this generation.
    pub fn restamp(&self, i: usize, generation: u32, stamp: u32) -> bool {
        let Some(slot) = self.slots.get(i) else { return false };
        let word = &slot[GENERATION_WORD];
        let mut seen = word.load(Ordering::Relaxed);
        while slot::generation_of(seen) == generation {
            let new = slot::generation_word(generation, stamp);
            match word.compare_exchange_weak(seen, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// The process that holds the lock, if one does.
    pub fn holder(&self) -> Option<Owner> {
        Owner::from_word(self.lock.load(Ordering::Relaxed))
    }

    /// Whether the bucket is between two writes, as its sequence number says.
    pub fn is_at_rest(&self) -> bool {
        self.seq.load(Ordering::Relaxed).is_multiple_of(2)
    }

    /// Takes the bucket for writing, repairing it if its last writer died; `None` if a living one
    /// keeps it for too long.
    pub fn lock(&self, owner: Owner, table: &OwnerTable) -> Option<LockedBucket<'_>> {
        let guard = owner::lock(&self.lock, owner, table)?;
        let mut locked = LockedBucket { bucket: self, guard, n_emptied: None };
        // A file from a crash may hold an odd number without a lock.
        if locked.guard.was_taken_over || !self.is_at_rest() {
            locked.repair();
        }
        Some(locked)
    }

    /// Whether the bucket needs no repair. Takes no lock. It may be false for a bucket that is
    /// being written, and is never true for one that needs repair.
    pub fn looks_sound(&self, table: &OwnerTable) -> bool {
        match self.holder() {
            Some(holder) => table.is_alive(holder),
            None => self.is_at_rest() && (0..SLOTS).all(|i| self.agrees(i)),
        }
    }

    /// The fault of the bucket, for `verify`. A bucket that a living writer is changing has no
    /// fault.
    pub fn fault(&self, table: &OwnerTable) -> Option<&'static str> {
        if self.holder().is_some_and(|holder| !table.is_alive(holder)) {
            return Some("is locked by a process that is dead");
        }
        // Every write holds the lock for as long as the number is odd.
        let seq = self.seq.load(Ordering::SeqCst);
        let is_free = self.lock.load(Ordering::SeqCst) == 0;
        if seq % 2 == 1 && is_free && self.seq.load(Ordering::SeqCst) == seq {
            return Some("was left half-written");
        }
        let is_torn = (0..SLOTS).any(|i| self.copy(i).is_some_and(|it| !slot::is_sound(&it)));
        is_torn.then_some("holds a torn slot")
    }

    /// Whether slot `i` is valid or empty, and its tag matches.
    fn agrees(&self, i: usize) -> bool {
        let words = load(&self.slots[i]);
        slot::is_sound(&words) && self.tags[i].load(Ordering::Relaxed) == tag_for(&words)
    }

    #[inline]
    fn begin_read(&self) -> Option<u32> {
        let seq = self.seq.load(Ordering::Acquire);
        if seq.is_multiple_of(2) {
            return Some(seq);
        }
        std::hint::spin_loop();
        None
    }

    #[inline]
    fn is_unchanged_since(&self, seq: u32) -> bool {
        fence(Ordering::Acquire);
        self.seq.load(Ordering::Relaxed) == seq
    }
}

/// A bucket that this process may write.
#[derive(Debug)]
pub struct LockedBucket<'a> {
    bucket: &'a Bucket,
    guard: Guard<'a>,
    /// How many slots were emptied, once it was repaired.
    n_emptied: Option<usize>,
}

impl LockedBucket<'_> {
    /// How many slots were emptied when the bucket was repaired; `None` if it was sound.
    pub fn n_emptied(&self) -> Option<usize> {
        self.n_emptied
    }

    /// Repairs the bucket if it needs it.
    pub fn repair_if_needed(&mut self) {
        if !self.is_sound() {
            self.repair();
        }
    }

    /// The slot of the key with these halves.
    pub fn find(&self, halves: [u64; 2]) -> Option<usize> {
        (0..SLOTS).find(|&i| {
            let words = self.words(i);
            words[0] == halves[0] && words[1] == halves[1] && words[7] != 0
        })
    }

    /// The first empty slot.
    pub fn vacancy(&self) -> Option<usize> {
        (0..SLOTS).find(|&i| self.bucket.tags[i].load(Ordering::Relaxed) == 0)
    }

    /// Whether something is in slot `i`.
    pub fn is_taken(&self, i: usize) -> bool {
        self.bucket.tags.get(i).is_some_and(|tag| tag.load(Ordering::Relaxed) != 0)
    }

    /// How many slots are taken.
    pub fn n_taken(&self) -> usize {
        self.bucket.tags.iter().filter(|tag| tag.load(Ordering::Relaxed) != 0).count()
    }

    /// The words of slot `i`.
    pub fn words(&self, i: usize) -> [u64; WORDS] {
        load(&self.bucket.slots[i])
    }

    /// Slot `i`, if it is a whole one; `at` is the caller's name for it.
    pub fn view(&self, i: usize, at: SlotAt) -> Option<SlotView> {
        SlotView::from_words(&self.words(i), self.bucket.is_visited(i), at)
    }

    /// Writes slot `i` (words of zeros empty it) and takes back its visited mark.
    pub fn write(&self, i: usize, words: &[u64; WORDS]) {
        let bucket = self.bucket;
        let tag = tag_for(words);
        self.change(|| {
            store(&bucket.slots[i], words);
            bucket.tags[i].store(tag, Ordering::Relaxed);
        });
        bucket.forget_visit(i);
    }

    /// Whether slots and tags agree and none is torn.
    pub fn is_sound(&self) -> bool {
        (0..SLOTS).all(|i| self.bucket.agrees(i))
    }

    /// Empties what is torn and writes the tags again.
    fn repair(&mut self) {
        let bucket = self.bucket;
        let mut n_emptied = 0;
        self.change(|| {
            for (slot, tag) in bucket.slots.iter().zip(&bucket.tags) {
                let mut words = load(slot);
                if !slot::is_sound(&words) {
                    words = [0; WORDS];
                    store(slot, &words);
                    n_emptied += 1;
                }
                tag.store(tag_for(&words), Ordering::Relaxed);
            }
        });
        self.n_emptied = Some(self.n_emptied.unwrap_or(0) + n_emptied);
    }

    /// The writer's half of the protocol in the module's doc. A number that a dead writer left odd
    /// stays odd until the end.
    fn change(&self, write: impl FnOnce()) {
        let seq = self.bucket.seq.load(Ordering::Relaxed) | 1;
        self.bucket.seq.store(seq, Ordering::Relaxed);
        fence(Ordering::Release);
        write();
        self.bucket.seq.store(seq.wrapping_add(1), Ordering::Release);
    }
}

/// How often a reader looks again while writers are at the bucket.
const LOOKS_MAX: u32 = 64;

#[inline]
fn load(slot: &[AtomicU64; WORDS]) -> [u64; WORDS] {
    std::array::from_fn(|i| slot[i].load(Ordering::Relaxed))
}

fn store(slot: &[AtomicU64; WORDS], words: &[u64; WORDS]) {
    for (word, &value) in slot.iter().zip(words) {
        word.store(value, Ordering::Relaxed);
    }
}

/// The two buckets. The fields' order is the order of their release.
pub(super) struct Pair<'a> {
    buckets: [LockedBucket<'a>; 2],
    home: usize,
    _note: Note<'a>,
}

/// Where a key is to be written: which of the two buckets, and its slot there.
pub(super) enum Place {
    /// It is there.
    Own(usize, usize),
    /// Nothing is there.
    Empty(usize, usize),
    /// The least valuable slot is there.
    Worst(usize, usize),
}

impl Place {
    /// The bucket, 0 or 1, and the slot in it.
    pub(super) const fn slot(&self) -> (usize, usize) {
        match *self {
            Self::Own(bucket, i) | Self::Empty(bucket, i) | Self::Worst(bucket, i) => (bucket, i),
        }
    }
}

impl<'a> Pair<'a> {
    /// Locks bucket `home` and the next one, which must be there; `None` if a living writer keeps
    /// one for too long.
    pub(super) fn lock(
        buckets: &'a [Bucket],
        owners: &'a OwnerTable,
        owner: Owner,
        home: usize,
    ) -> Option<Self> {
        let note = Note { owners, owner };
        owners.note(owner, home as u64 + 1);
        let lock = |number: usize| buckets.get(number)?.lock(owner, owners);
        Some(Self { buckets: [lock(home)?, lock(home + 1)?], home, _note: note })
    }

    /// Whether one of them had to be repaired.
    pub(super) fn was_repaired(&self) -> bool {
        self.buckets.iter().any(|bucket| bucket.n_emptied().is_some())
    }

    /// One of the two.
    pub(super) const fn bucket(&self, bucket: usize) -> &LockedBucket<'a> {
        &self.buckets[bucket]
    }

    /// The index's name for a slot.
    pub(super) const fn at(&self, bucket: usize, i: usize) -> SlotAt {
        SlotAt(((self.home + bucket) * SLOTS + i) as u32)
    }

    /// The slot of the key with these halves.
    pub(super) fn find(&self, halves: [u64; 2]) -> Option<(usize, usize)> {
        (0..2).find_map(|bucket| Some((bucket, self.buckets[bucket].find(halves)?)))
    }

    /// The place to write the key with these halves. A slot is stale at `now_s`. If the index
    /// `is_full`, a new key takes the place of another one, if there is one.
    pub(super) fn place_for(&self, halves: [u64; 2], now_s: u64, is_full: bool) -> Place {
        if let Some((bucket, i)) = self.find(halves) {
            return Place::Own(bucket, i);
        }
        // The emptier one, so that buckets fill evenly; home on a tie, since it is looked at first.
        let first = usize::from(self.buckets[1].n_taken() < self.buckets[0].n_taken());
        let mut vacancies = [first, 1 - first]
            .into_iter()
            .filter_map(|bucket| Some((bucket, self.buckets[bucket].vacancy()?)));
        let vacancy = vacancies.next();
        let worst = || {
            (0..2)
                .flat_map(|bucket| (0..SLOTS).map(move |i| (bucket, i)))
                .filter(|&(bucket, i)| self.buckets[bucket].is_taken(i))
                .min_by_key(|&(bucket, i)| self.worth(bucket, i, now_s))
        };
        match (vacancy, is_full) {
            (Some((bucket, i)), false) => Place::Empty(bucket, i),
            (Some((bucket, i)), true) => {
                worst().map_or(Place::Empty(bucket, i), |(bucket, i)| Place::Worst(bucket, i))
            }
            (None, _) => worst().map_or(Place::Worst(0, 0), |(bucket, i)| Place::Worst(bucket, i)),
        }
    }

    /// The worth of a slot. The least is evicted first, and a torn slot before all.
    fn worth(&self, bucket: usize, i: usize, now_s: u64) -> Option<(Worth, bool, u64, u64)> {
        let view = self.buckets[bucket].view(i, self.at(bucket, i))?;
        let until_s = view.fresh_until_s.max(view.swr_until_s).max(view.sie_until_s);
        let worth = match view.state {
            State::Pass => Worth::Pass,
            State::Vary => Worth::Vary,
            State::Ready if until_s < now_s => Worth::Stale,
            State::Ready if !view.is_visited => Worth::Unused,
            State::Ready => Worth::Used,
        };
        Some((worth, view.is_visited, view.fresh_until_s, view.stored_s))
    }
}

/// The worth of a slot when one has to be evicted, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// A hit-for-miss.
    Pass,
    /// Stale, and not usable without the origin.
    Stale,
    /// Not used since eviction last looked.
    Unused,
    /// In use.
    Used,
    /// The marker of all variants of a key.
    Vary,
}

/// Clears the owner's note once the locks are gone.
struct Note<'a> {
    owners: &'a OwnerTable,
    owner: Owner,
}

impl Drop for Note<'_> {
    fn drop(&mut self) {
        self.owners.note(self.owner, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::index::slot::{NewSlot, State};
    use crate::policy::key::Key;
    use crate::sys::shm::{SharedMap, SharedSlice};

    fn memory() -> (SharedSlice<Bucket>, OwnerTable, Owner) {
        let map = SharedMap::anonymous(8192).unwrap();
        let table = OwnerTable::new(map.slice(4096, 8).unwrap());
        let (owner, _) = table.claim(0..8).unwrap();
        (map.slice(0, 1).unwrap(), table, owner)
    }

    fn slot(n: u8, body_len: u64) -> NewSlot {
        NewSlot {
            key: Key([n; 16]),
            state: State::Ready,
            flags: 0,
            status: 200,
            stored_s: body_len,
            fresh_until_s: body_len,
            swr_until_s: 0,
            sie_until_s: 0,
            age_s: 0,
            head_len: 100,
            body_len,
            stamp: 0,
        }
    }

    #[test]
    fn a_written_slot_is_found_and_an_emptied_one_is_not() {
        let (bucket, table, owner) = memory();
        let bucket = &bucket[0];
        let key = slot::halves(&Key([3; 16]));
        let locked = bucket.lock(owner, &table).unwrap();
        locked.write(4, &slot(3, 9).words(1));
        assert_eq!((locked.find(key), locked.vacancy(), locked.n_taken()), (Some(4), Some(0), 1));
        drop(locked);
        assert!(matches!(bucket.look(key), Look::Found(4, _)));
        bucket.visit(4);
        assert!(bucket.is_visited(4) && bucket.generation(4) == 1);
        assert!(bucket.restamp(4, 1, 77) && !bucket.restamp(4, 2, 78));
        bucket.lock(owner, &table).unwrap().write(4, &[0; WORDS]);
        assert!(matches!(bucket.look(key), Look::Absent));
        assert!(!bucket.is_visited(4) && bucket.generation(4) == 0);
    }

    #[test]
    fn a_writer_that_dies_at_any_store_leaves_the_old_the_new_or_nothing() {
        let (old, new) = (slot(3, 1).words(1), slot(3, 2).words(2));
        for n_stored in 0..=WORDS {
            let (bucket, table, owner) = memory();
            let bucket = &bucket[0];
            bucket.lock(owner, &table).unwrap().write(0, &old);
            bucket.seq.fetch_add(1, Ordering::Relaxed);
            for (word, &value) in bucket.slots[0].iter().zip(&new).take(n_stored) {
                word.store(value, Ordering::Relaxed);
            }
            assert!(matches!(bucket.look(slot::halves(&Key([3; 16]))), Look::Busy));
            let locked = bucket.lock(owner, &table).unwrap();
            assert!(locked.is_sound());
            let after = locked.words(0);
            assert!(after == old || after == new || after == [0; WORDS], "after {n_stored}");
            drop(locked);
            assert!(!matches!(bucket.look(slot::halves(&Key([3; 16]))), Look::Busy));
        }
    }

    #[test]
    fn readers_never_see_half_a_slot() {
        let (bucket, table, owner) = memory();
        let (bucket, key) = (&bucket[0], slot::halves(&Key([3; 16])));
        bucket.lock(owner, &table).unwrap().write(0, &slot(3, 0).words(1));
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in 1..20_000_u32 {
                    let locked = bucket.lock(owner, &table).unwrap();
                    locked.write(0, &slot(3, u64::from(n)).words(n));
                }
            });
            let mut n_seen = 0_u32;
            // At least one look after the last write meets no writer.
            let mut is_last = false;
            while !is_last {
                is_last = writer.is_finished();
                if let Look::Found(_, words) = bucket.look(key) {
                    let view = SlotView::from_words(&words, false, SlotAt(0)).unwrap();
                    assert_eq!((view.stored_s, view.fresh_until_s), (view.body_len, view.body_len));
                    n_seen += 1;
                }
            }
            assert!(n_seen > 0);
        });
    }
}
