//! The shared index: which keys are stored, and how fresh they are.
//!
//! A key's home is one bucket; its slot is there or in the next one. Readers take no lock (see
//! `bucket`). Writers lock home and neighbour; the last bucket is no key's home, so
//! that the order of the locks has no cycle: no deadlock. A key is written only under both locks,
//! so that it has one slot. One sweep of the owner rows finds all locks of a dead process.

pub mod slot;
pub mod bucket;
pub mod table;
pub mod hits;
pub mod reader;
pub mod repair;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cache::index::bucket::{Bucket, LockedBucket, Look, Pair, Place, SLOTS};
use crate::cache::index::slot::{
    NewSlot, PublishError, Published, SlotAt, SlotRef, SlotView, WORDS,
};
use crate::cache::index::table::{IndexError, Opened, Table, without_debt};
use crate::policy::key::Key;
use crate::shared::owner::Owner;

/// The index. Every process attaches for itself before it writes; reading needs nothing.
#[derive(Debug)]
pub struct Index {
    table: Table,
    owner: AtomicU32,
    pid: AtomicU32,
}

impl Index {
    /// Opens the index of `dir` for `n_objects`, or makes it; the same short time for any number
    /// of objects. The master does this before it forks.
    ///
    /// # Errors
    ///
    /// When the directory cannot be written or the disk has no room for the index.
    pub fn open(dir: &Path, n_objects: usize) -> Result<(Self, Opened), IndexError> {
        let (table, opened) = Table::open(dir, n_objects)?;
        Ok((Self::over(table), opened))
    }

    /// The index that is in `dir`, of whatever size; for commands beside a running ktrix.
    ///
    /// # Errors
    ///
    /// When there is no index, or not one of this version.
    pub fn open_existing(dir: &Path) -> Result<Self, IndexError> {
        Table::open_existing(dir).map(Self::over)
    }

    /// Claims a row for this process and repairs what dead processes left. A forked child must call
    /// it again, because the row of the parent stays with the parent.
    ///
    /// # Errors
    ///
    /// When all rows belong to living processes.
    pub fn attach(&self) -> std::io::Result<()> {
        self.detach();
        let claimed = self.table.owners.claim(0..usize::MAX);
        let (owner, note) =
            claimed.ok_or_else(|| std::io::Error::other("too many processes use the cache"))?;
        self.owner.store(owner.word(), Ordering::Release);
        self.pid.store(std::process::id(), Ordering::Release);
        self.repair_noted(owner, note);
        self.sweep_dead();
        Ok(())
    }

    /// Gives this process's row back.
    pub fn detach(&self) {
        if let Some(owner) = self.owner().filter(|_| self.table.is_whole()) {
            self.table.owners.release(owner);
        }
        self.owner.store(0, Ordering::Release);
    }

    /// Marks the index as cleanly stopped and writes it to the disk; not while others use it.
    /// Says whether it did.
    ///
    /// # Errors
    ///
    /// An error of `msync`.
    pub fn mark_clean(&self) -> std::io::Result<bool> {
        self.sweep_dead();
        if !self.table.is_whole() || self.table.owners.is_anyone_alive(self.owner()) {
            return Ok(false);
        }
        self.table.map.flush()?;
        self.table.header().is_clean.store(1, Ordering::Release);
        self.table.map.flush()?;
        Ok(true)
    }

    /// Its file.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Sets the limit of bytes past which (by 5 %) publishing is refused; 0 is none.
    pub fn set_size(&self, size_bytes: u64) {
        self.table.header().size_bytes.store(size_bytes, Ordering::Relaxed);
    }

    /// The slot of `key`, as of one moment, without a lock.
    #[inline]
    pub fn lookup(&self, key: &Key) -> Option<SlotView> {
        let halves = slot::halves(key);
        let home = self.table.home(halves[0]);
        self.look(home, halves).or_else(|| self.look(home + 1, halves))
    }

    /// Whether the slot still is of this publication: one load.
    #[inline]
    pub fn is_current(&self, slot: SlotRef) -> bool {
        self.bucket_of(slot.at).is_some_and(|(bucket, i)| bucket.generation(i) == slot.generation)
    }

    /// The generation of the slot at this place, 0 if it is empty: one load.
    #[inline]
    pub fn generation(&self, at: SlotAt) -> u32 {
        self.bucket_of(at).map_or(0, |(bucket, i)| bucket.generation(i))
    }

    /// Marks the slot as used, for eviction.
    #[inline]
    pub fn touch(&self, at: SlotAt) {
        if let Some((bucket, i)) = self.bucket_of(at) {
            bucket.visit(i);
        }
    }

    /// Takes the mark of [`Index::touch`] back.
    pub fn forget_visit(&self, at: SlotAt) {
        if let Some((bucket, i)) = self.bucket_of(at) {
            bucket.forget_visit(i);
        }
    }

    /// Records that the file was verified as `stamp`, if the slot still is of this publication.
    pub fn restamp(&self, slot: SlotRef, stamp: u32) -> bool {
        let bucket = self.bucket_of(slot.at);
        bucket.is_some_and(|(bucket, i)| bucket.restamp(i, slot.generation, stamp))
    }

    /// The slot at this place, if one is there.
    pub fn slot(&self, at: SlotAt) -> Option<SlotView> {
        let (bucket, i) = self.bucket_of(at)?;
        let words = bucket.copy(i)?;
        SlotView::from_words(&words, bucket.is_visited(i), at)
    }

    /// Whether `weight_bytes` more would be let in.
    pub fn has_room(&self, weight_bytes: u64) -> bool {
        let size_bytes = self.table.header().size_bytes.load(Ordering::Relaxed);
        let limit_bytes = size_bytes.saturating_add(size_bytes / 20);
        size_bytes == 0 || self.bytes().saturating_add(weight_bytes) <= limit_bytes
    }

    /// Whether the next object needs an eviction: from a sixteenth below the limits on. Eviction
    /// leaves more room than that.
    pub fn is_full(&self) -> bool {
        let nearly = |limit: u64| limit / 16 * 15;
        let size_bytes = self.size_bytes();
        (size_bytes > 0 && self.bytes() >= nearly(size_bytes))
            || self.objects() >= nearly(self.n_objects_max())
    }

    /// Writes a slot: over the key's own, else into an empty one, else (and when the index has all
    /// the objects that it was made for) over the least valuable one in the two buckets. The order
    /// is: hit-for-miss, stale, unused, used, marker of variants.
    ///
    /// # Errors
    ///
    /// See [`PublishError`]; the index is then unchanged, and the caller must unlink the file.
    pub fn publish(&self, new: &NewSlot) -> Result<Published, PublishError> {
        self.publish_over(new, None)
    }

    /// As [`Index::publish`], over the key's slot of this generation and nothing else.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn republish(&self, new: &NewSlot, generation: u32) -> Result<Published, PublishError> {
        self.publish_over(new, Some(generation))
    }

    fn publish_over(
        &self,
        new: &NewSlot,
        generation: Option<u32>,
    ) -> Result<Published, PublishError> {
        let halves = slot::halves(&new.key);
        let pair = self.lock_pair(self.table.home(halves[0]))?;
        // A slot is published now, so that its time can be taken for the clock.
        let is_full = self.objects() >= self.n_objects_max();
        let place = pair.place_for(halves, new.stored_s, is_full);
        let (bucket, i) = place.slot();
        let at = pair.at(bucket, i);
        let old = pair.bucket(bucket).view(i, at);
        if generation.is_some_and(|it| old.is_none_or(|old| old.generation != it)) {
            return Err(PublishError::Replaced);
        }
        let old_bytes = old.map_or(0, |old| old.weight_bytes());
        let more_bytes = new.weight_bytes().saturating_sub(old_bytes);
        if more_bytes > 0 && !self.has_room(more_bytes) {
            return Err(PublishError::NoRoom);
        }
        let generation = self.next_generation();
        self.forget_hits(at);
        pair.bucket(bucket).write(i, &new.words(generation));
        self.count(old.as_ref(), Some(new));
        let replaced = matches!(place, Place::Own(..));
        if replaced {
            // It was requested while it was stored.
            self.touch(at);
        }
        let evicted = old.filter(|_| !replaced).map(|old| (old.key, old.weight_bytes()));
        Ok(Published { slot: SlotRef { at, generation }, replaced, evicted })
    }

    /// Empties the key's slot (if it is of this generation, when one is given) and returns it. The
    /// caller must unlink the file afterwards.
    pub fn remove(&self, key: &Key, generation: Option<u32>) -> Option<SlotView> {
        let halves = slot::halves(key);
        let pair = self.lock_pair(self.table.home(halves[0])).ok()?;
        let (bucket, i) = pair.find(halves)?;
        let view = pair.bucket(bucket).view(i, pair.at(bucket, i));
        let is_meant = generation.is_none_or(|it| view.is_some_and(|view| view.generation == it));
        if !is_meant {
            return None;
        }
        pair.bucket(bucket).write(i, &[0; WORDS]);
        self.count(view.as_ref(), None);
        view
    }

    /// Every slot that is taken, each as of one moment; those written meanwhile may be missed.
    pub fn iter(&self) -> impl Iterator<Item = SlotView> {
        (0..self.n_slots()).filter_map(|at| self.slot(SlotAt(at)))
    }

    /// How many slots there are, empty ones included.
    pub fn n_slots(&self) -> u32 {
        (self.table.buckets.len() * SLOTS) as u32
    }

    /// The place with this number, below [`Index::n_slots`].
    pub fn place(&self, number: u32) -> Option<SlotAt> {
        (number < self.n_slots()).then_some(SlotAt(number))
    }

    /// Disk bytes of all files.
    pub fn bytes(&self) -> u64 {
        without_debt(self.table.header().bytes.load(Ordering::Relaxed))
    }

    /// Slots that are taken.
    pub fn objects(&self) -> u64 {
        without_debt(self.table.header().objects.load(Ordering::Relaxed))
    }

    /// How many objects it was made for.
    pub fn n_objects_max(&self) -> u64 {
        self.table.header().n_objects_max.load(Ordering::Relaxed)
    }

    /// The limit that [`Index::set_size`] set.
    pub fn size_bytes(&self) -> u64 {
        self.table.header().size_bytes.load(Ordering::Relaxed)
    }

    /// The epoch of the stamps. It changes when a master starts, unless other processes still use
    /// the index.
    pub fn epoch(&self) -> u32 {
        self.table.header().epoch.load(Ordering::Relaxed)
    }

    /// Whether a writer died since the last [`Index::recount`].
    pub fn wants_recount(&self) -> bool {
        self.table.header().wants_recount.load(Ordering::Relaxed) != 0
    }

    /// Recounts bytes and objects in a walk of the whole index, for the keeper. Changes of other
    /// processes during the walk are included as far as possible.
    pub fn recount(&self) {
        let header = self.table.header();
        header.wants_recount.store(0, Ordering::Relaxed);
        for attempt in 0..RECOUNTS_MAX {
            let generation = header.generation.load(Ordering::Acquire);
            let (bytes, objects) =
                (header.bytes.load(Ordering::Acquire), header.objects.load(Ordering::Acquire));
            let (mut bytes_now, mut objects_now) = (0_u64, 0_u64);
            for view in self.iter() {
                bytes_now = bytes_now.wrapping_add(view.weight_bytes());
                objects_now += 1;
            }
            let is_quiet = header.generation.load(Ordering::Acquire) == generation
                && header.objects.load(Ordering::Acquire) == objects;
            if is_quiet || attempt + 1 == RECOUNTS_MAX {
                header.bytes.fetch_add(bytes_now.wrapping_sub(bytes), Ordering::AcqRel);
                header.objects.fetch_add(objects_now.wrapping_sub(objects), Ordering::AcqRel);
                return;
            }
        }
    }

    /// Where eviction stands: the generation that it looked at last.
    pub fn hand(&self) -> u32 {
        self.table.header().hand.load(Ordering::Relaxed) as u32
    }

    /// Moves eviction's hand.
    pub fn set_hand(&self, generation: u32) {
        self.table.header().hand.store(u64::from(generation), Ordering::Relaxed);
    }

    /// Where the scrubber stands, a slot number.
    pub fn scrub_at(&self) -> u32 {
        (self.table.header().scrub_at.load(Ordering::Relaxed) % u64::from(self.n_slots())) as u32
    }

    /// Moves on where the scrubber stands.
    pub fn set_scrub_at(&self, number: u32) {
        self.table.header().scrub_at.store(u64::from(number), Ordering::Relaxed);
    }

    /// Takes over the locks of dead processes and repairs what they were writing; returns how many
    /// were found. Attached processes only. The master calls it when a child dies.
    pub fn sweep_dead(&self) -> usize {
        let Some(owner) = self.owner().filter(|_| self.table.is_whole()) else { return 0 };
        let mut n_dead = 0;
        for (dead, note) in self.table.owners.dead() {
            if self.repair_noted(owner, note) {
                self.table.owners.remove_dead(dead);
                n_dead += 1;
            }
        }
        n_dead
    }

    /// How many buckets there are.
    pub fn n_buckets(&self) -> usize {
        self.table.buckets.len()
    }

    /// Repairs this bucket if its writer died or it is torn, and returns how many slots that
    /// emptied; `None` if it was sound, which costs no lock. Attached processes only.
    pub fn repair_bucket(&self, number: usize) -> Option<usize> {
        if self.table.buckets.get(number)?.looks_sound(&self.table.owners) {
            return None;
        }
        self.with_repaired(number, |locked| locked.n_emptied())
    }

    /// Faults of the whole table, for `verify`: buckets that are torn, half-written, or locked by a
    /// dead process. Takes no lock and repairs nothing.
    pub fn faults(&self) -> impl Iterator<Item = String> {
        self.table.buckets.iter().enumerate().filter_map(|(number, bucket)| {
            let fault = bucket.fault(&self.table.owners)?;
            Some(format!("bucket {number} {fault}"))
        })
    }

    /// The index in a table.
    pub fn over(table: Table) -> Self {
        Self { table, owner: AtomicU32::new(0), pid: AtomicU32::new(0) }
    }

    /// The row of this process. A row inherited by fork belongs to the parent.
    fn owner(&self) -> Option<Owner> {
        let owner = Owner::from_word(self.owner.load(Ordering::Acquire))?;
        (self.pid.load(Ordering::Acquire) == std::process::id()).then_some(owner)
    }

    #[inline]
    fn bucket_of(&self, at: SlotAt) -> Option<(&Bucket, usize)> {
        let number = at.0 as usize;
        Some((self.table.buckets.get(number / SLOTS)?, number % SLOTS))
    }

    #[inline]
    fn look(&self, number: usize, halves: [u64; 2]) -> Option<SlotView> {
        let bucket = self.table.buckets.get(number)?;
        match bucket.look(halves) {
            Look::Absent => None,
            Look::Found(i, words) => {
                let at = SlotAt((number * SLOTS + i) as u32);
                let view = SlotView::from_words(&words, bucket.is_visited(i), at);
                view.or_else(|| self.look_again(number, halves))
            }
            Look::Busy => self.look_again(number, halves),
        }
    }

    /// The bucket is being written, or torn: waits for its lock, which repairs, and looks once
    /// more. A reader that is not attached has a miss.
    #[cold]
    fn look_again(&self, number: usize, halves: [u64; 2]) -> Option<SlotView> {
        self.with_repaired(number, |locked| {
            let i = locked.find(halves)?;
            locked.view(i, SlotAt((number * SLOTS + i) as u32))
        })
    }

    /// Locks a bucket and repairs it if it needs it, for `then`.
    fn with_repaired<T>(
        &self,
        number: usize,
        then: impl FnOnce(&LockedBucket<'_>) -> Option<T>,
    ) -> Option<T> {
        let owner = self.owner()?;
        let bucket = self.table.buckets.get(number)?;
        self.table.owners.note(owner, number as u64 + 1);
        let found = bucket.lock(owner, &self.table.owners).and_then(|mut locked| {
            locked.repair_if_needed();
            if locked.n_emptied().is_some() {
                self.table.header().wants_recount.store(1, Ordering::Relaxed);
            }
            then(&locked)
        });
        self.table.owners.note(owner, 0);
        found
    }

    fn lock_pair(&self, home: usize) -> Result<Pair<'_>, PublishError> {
        let owner = self.owner().ok_or(PublishError::NotAttached)?;
        let pair = Pair::lock(&self.table.buckets, &self.table.owners, owner, home)
            .ok_or(PublishError::Busy)?;
        if pair.was_repaired() {
            self.table.header().wants_recount.store(1, Ordering::Relaxed);
        }
        Ok(pair)
    }

    /// Locks, and so repairs, the two buckets that an owner row names.
    fn repair_noted(&self, owner: Owner, note: u64) -> bool {
        let Some(home) = note.checked_sub(1) else { return true };
        let home = usize::try_from(home).unwrap_or(usize::MAX);
        for number in [home, home.saturating_add(1)] {
            let Some(bucket) = self.table.buckets.get(number) else { continue };
            let is_held_by_dead =
                bucket.holder().is_some_and(|holder| !self.table.owners.is_alive(holder));
            if !is_held_by_dead && bucket.is_at_rest() {
                continue;
            }
            self.table.header().wants_recount.store(1, Ordering::Relaxed);
            self.table.owners.note(owner, number as u64 + 1);
            let is_repaired = bucket.lock(owner, &self.table.owners).is_some();
            self.table.owners.note(owner, 0);
            if !is_repaired {
                return false;
            }
        }
        true
    }

    fn next_generation(&self) -> u32 {
        let counter = &self.table.header().generation;
        loop {
            let generation = counter.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
            if generation != 0 {
                return generation;
            }
        }
    }

    fn count(&self, old: Option<&SlotView>, new: Option<&NewSlot>) {
        let header = self.table.header();
        let bytes = new
            .map_or(0, NewSlot::weight_bytes)
            .wrapping_sub(old.map_or(0, |old| old.weight_bytes()));
        header.bytes.fetch_add(bytes, Ordering::AcqRel);
        let objects = u64::from(new.is_some()).wrapping_sub(u64::from(old.is_some()));
        if objects != 0 {
            header.objects.fetch_add(objects, Ordering::AcqRel);
        }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.detach();
    }
}

const RECOUNTS_MAX: u32 = 3;

#[cfg(test)]
#[path = "../tests/index.rs"]
mod tests;
