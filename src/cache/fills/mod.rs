//! The table of running fills, which all workers share: one fetch of a key at a time.
//!
//! Shared memory, made before the fork, and passed on in an upgrade: a head, owner rows (row = process slot for
//! workers), and groups of 16 entries of 128 bytes. A key belongs to one group, whose lock is held
//! while an entry is taken; followers and progress need no lock.
//!
//! | bytes | entry field | meaning |
//! | --- | --- | --- |
//! | 0..16 | key | two halves |
//! | 16..24 | id | of this fill alone, also its file's name; 0 = free, or being written |
//! | 24..28 | owner | the leader ([`Owner`] word) |
//! | 28..32 | state | below |
//! | 32..40 | bytes | of body that followers may read |
//! | 40..48 | total | of body, or unknown; of a failure, its code. The top bit: not to be stored |
//! | 48..64 | followers | bitmap of 128 process slots |
//! | 64..72 | asked | the last purge before the origin was asked |
//!
//! ```text
//! lease ─▶ Fetching ─ head_ready ─▶ Streaming ─ done ─▶ Done ─┐
//!             │  └──── pass ──▶ Pass ──────────────────────┐  ├─▶ the entry may be leased again:
//!             └─ failed, or the leader died ──▶ Failed ────┴──┘   those who hold its id see Gone
//! ```
//!
//! No wake is lost: a leader stores its progress and then reads the followers, a follower enters
//! itself and then reads the progress, with a sequentially consistent fence between the two on both
//! sides; so one of them sees the other. A leader that dies is noticed by the next lease of its
//! key, by [`Fills::state`] of a follower, and by the master's [`Fills::abandon_all_of`].

pub mod refused;
pub mod entry;
mod head;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use crate::cache::fills::entry::{
    DONE, DOOMED, Entry, FAILED, FETCHING, FillState, GROUP, LOCKS_AT, PASS, ROWS, ROWS_AT,
    STREAMING, UNKNOWN, entries_at, len_of, n_groups,
};
use crate::cache::fills::head::Head;
use crate::cache::fills::refused::Refusals;
use crate::cache::index::slot::halves;
use crate::policy::key::Key;
use crate::shared::owner::{self, Guard, Owner, OwnerTable};
use crate::shared::wake::{PROCESS_SLOTS_MAX, ProcessSet};
use crate::sys::shm::{SharedMap, SharedSlice};

/// An entry of the table, and the fill that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FillAt {
    entry: u32,
    id: u64,
}

impl FillAt {
    /// The fill's number, which no other fill has, and the name of its temporary file.
    pub const fn id(self) -> u64 {
        self.id
    }
}

/// The answer to a request for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseResult {
    /// The worker leads: it fetches, and others follow.
    Leader(FillAt),
    /// A fill is running, and this worker was entered among its followers.
    Follow(FillAt),
    /// No entry is free: the worker fetches without storing.
    Full,
}

/// The table of all fills.
#[derive(Debug)]
pub struct Fills {
    head: SharedSlice<Head>,
    owners: OwnerTable,
    locks: SharedSlice<AtomicU32>,
    entries: SharedSlice<Entry>,
    owner: AtomicU32,
    map: SharedMap,
}

impl Fills {
    /// A table for about `n` fills at once; call before forking.
    ///
    /// # Errors
    ///
    /// An error of the system: not enough shared memory.
    pub fn create(n: usize) -> io::Result<Self> {
        let fills = Self::over(SharedMap::named("ktrix-fills", len_of(n)?)?, n)?;
        fills.head[0].begin();
        Ok(fills)
    }

    /// The table of about `n` fills of the ktrix before this one, which has passed its file.
    ///
    /// # Errors
    ///
    /// When the table is another one.
    pub(crate) fn passed(fd: OwnedFd, n: usize) -> io::Result<Self> {
        Self::over(SharedMap::passed(fd, len_of(n)?)?, n)
    }

    /// Its file, for a ktrix that takes the place of this one.
    pub(crate) fn file(&self) -> Option<&File> {
        self.map.opened_file()
    }

    /// The table of about `n` fills that lies in `file`, which begins as zeros; for processes that
    /// do not inherit the memory.
    ///
    /// # Errors
    ///
    /// An error of the system.
    pub fn in_file(file: &File, n: usize) -> io::Result<Self> {
        let fills = Self::over(SharedMap::file(file, len_of(n)?)?, n)?;
        fills.head[0].begin();
        Ok(fills)
    }

    /// Takes `process_slot` (below [`PROCESS_SLOTS_MAX`]) for this process, a worker; in the child,
    /// after the fork.
    ///
    /// # Errors
    ///
    /// When a living process has it.
    pub fn attach(&self, process_slot: usize) -> io::Result<()> {
        self.claim(process_slot..process_slot + 1)
    }

    /// Whether a living process has this process slot.
    pub(crate) fn is_held(&self, process_slot: usize) -> bool {
        self.owners.tenant(process_slot).is_some()
    }

    /// For a process without a process slot: the master, the keeper.
    ///
    /// # Errors
    ///
    /// When too many are here already.
    pub fn attach_without_slot(&self) -> io::Result<()> {
        self.claim(PROCESS_SLOTS_MAX..ROWS)
    }

    /// Asks for the fill of `key`, for the worker in `process_slot`. If it is to lead, it asks the
    /// origin after the purge `purge_epoch`.
    pub fn lease(&self, key: &Key, process_slot: usize, purge_epoch: u64) -> LeaseResult {
        let Some(owner) = self.owner() else { return LeaseResult::Full };
        let halves = halves(key);
        let group = self.group_of(halves[0]);
        let Some(_guard) = self.lock(group, owner) else { return LeaseResult::Full };
        let range = group * GROUP..(group + 1) * GROUP;
        let entries =
            || range.clone().filter_map(|number| Some((number, self.entries.get(number)?)));
        // Free entries first (id 0), then those that ended, the oldest first: ids only grow.
        let mut ended: Option<(u64, usize)> = None;
        for (number, entry) in entries() {
            let id = entry.id.load(Ordering::Relaxed);
            if id == 0 || !entry.is_under_way() {
                ended = Some(ended.map_or((id, number), |best| best.min((id, number))));
            } else if entry.is_of(halves) && !entry.is_doomed() && self.is_led(entry) {
                let at = FillAt { entry: number as u32, id };
                self.follow(at, process_slot);
                return LeaseResult::Follow(at);
            }
        }
        // The entry of a dead leader can be taken too: its followers see Gone and look again. The
        // kernel is asked only if no other entry is free.
        let dead = || entries().find(|(_, entry)| !self.is_led(entry)).map(|(number, _)| number);
        match ended.map(|(_, number)| number).or_else(dead) {
            Some(number) => LeaseResult::Leader(self.begin(number, halves, owner, purge_epoch)),
            None => LeaseResult::Full,
        }
    }

    /// Enters the worker of `process_slot` among the followers; it will be woken. Read the state
    /// after.
    pub fn follow(&self, at: FillAt, process_slot: usize) {
        if let Some((entry, word, bit)) = self.follower(at, process_slot) {
            entry.followers[word].fetch_or(bit, Ordering::SeqCst);
            fence(Ordering::SeqCst);
        }
    }

    /// Removes the worker of `process_slot` from the followers, when its last task has stopped
    /// following.
    pub fn unfollow(&self, at: FillAt, process_slot: usize) {
        if let Some((entry, word, bit)) = self.follower(at, process_slot) {
            entry.followers[word].fetch_and(!bit, Ordering::SeqCst);
        }
    }

    /// The fill of `key` that is under way, if there is one; without becoming a follower.
    pub fn under_way_of(&self, key: &Key) -> Option<FillAt> {
        let halves = halves(key);
        let first = self.group_of(halves[0]) * GROUP;
        let mut group = self.entries.iter().enumerate().skip(first).take(GROUP);
        let (number, entry) = group
            .find(|(_, entry)| entry.is_of(halves) && entry.is_under_way() && !entry.is_doomed())?;
        Some(FillAt { entry: number as u32, id: entry.id.load(Ordering::Acquire) })
    }

    /// How far the fill is. Only [`Fills::state_checked`] asks the kernel whether the leader lives.
    pub fn state(&self, at: FillAt) -> FillState {
        let Some(entry) = self.entry(at) else { return FillState::Gone };
        let state = entry.state.load(Ordering::Acquire);
        let bytes = entry.bytes.load(Ordering::Acquire);
        let total = entry.total.load(Ordering::Acquire);
        fence(Ordering::Acquire);
        if entry.id.load(Ordering::Relaxed) != at.id {
            return FillState::Gone;
        }
        match state {
            FETCHING => FillState::Fetching,
            STREAMING => {
                let total = total & !DOOMED;
                FillState::Streaming { bytes, total: (total != UNKNOWN).then_some(total) }
            }
            DONE => FillState::Done { bytes },
            PASS => FillState::Pass,
            FAILED => FillState::Failed { code: (total & !DOOMED) as u32 },
            _ => FillState::Gone,
        }
    }

    /// As [`Fills::state`], but finds out whether the leader has died. It is for a follower that
    /// has waited for long, and costs a few system calls.
    pub fn state_checked(&self, at: FillAt) -> FillState {
        if let Some(entry) = self.entry(at)
            && entry.is_under_way()
            && !self.is_led(entry)
        {
            // Only the state that was seen is replaced, so a new fill in the entry is safe.
            self.fail(at.entry as usize, at.id);
        }
        self.state(at)
    }

    /// Leader: the file can be opened. Returns the workers to wake, as the calls below do.
    pub fn head_ready(&self, at: FillAt, total: Option<u64>) -> ProcessSet {
        self.lead(at, |entry| {
            entry.set_total(total.map_or(UNKNOWN, |total| total.min(UNKNOWN - 1)));
            entry.state.store(STREAMING, Ordering::Release);
        })
    }

    /// Leader: `bytes` of body can be read now.
    pub fn progress(&self, at: FillAt, bytes: u64) -> ProcessSet {
        self.lead(at, |entry| entry.bytes.store(bytes, Ordering::Release))
    }

    /// Leader: what was written is about to be published, and counted by the index from then on.
    /// Counted by both, it would have other objects evicted, and in the end itself.
    pub fn settle(&self, at: FillAt) {
        self.lead(at, |entry| entry.is_counted.store(1, Ordering::Release));
    }

    /// Leader: the body is complete, the file committed and published.
    pub fn done(&self, at: FillAt) -> ProcessSet {
        self.lead(at, |entry| entry.state.store(DONE, Ordering::Release))
    }

    /// Leader: the fetch failed. `code` goes to the followers; 0 tells them to look again.
    pub fn failed(&self, at: FillAt, code: u32) -> ProcessSet {
        self.lead(at, |entry| {
            entry.set_total(u64::from(code));
            entry.state.store(FAILED, Ordering::Release);
        })
    }

    /// Dooms the running fill of `key`, and those [`Key::beside`] it: it was asked for before a
    /// purge or an invalidation, so its response must not be stored. No request joins it any more;
    /// the next one leads another fill.
    pub fn doom(&self, key: &Key) {
        let halves = halves(key);
        let group = self.group_of(halves[0]);
        for entry in self.entries.iter().skip(group * GROUP).take(GROUP) {
            if entry.is_beside(halves) && entry.is_under_way() {
                entry.total.fetch_or(DOOMED, Ordering::SeqCst);
            }
        }
    }

    /// As [`Fills::doom`], for one fill.
    pub fn doom_at(&self, at: FillAt) {
        if let Some(entry) = self.entry(at) {
            entry.total.fetch_or(DOOMED, Ordering::SeqCst);
        }
    }

    /// The purge epoch before the fill's origin was asked; `None` when the fill is gone.
    pub fn purge_epoch(&self, at: FillAt) -> Option<u64> {
        let purge_epoch = self.entry(at)?.purge_epoch.load(Ordering::Acquire);
        self.entry(at).map(|_| purge_epoch)
    }

    /// Whether this fill was doomed, or is gone.
    pub fn is_doomed(&self, at: FillAt) -> bool {
        self.entry(at).is_none_or(Entry::is_doomed)
    }

    /// Leader: the response is not storable.
    pub fn pass(&self, at: FillAt) -> ProcessSet {
        self.lead(at, |entry| entry.state.store(PASS, Ordering::Release))
    }

    /// The refusals of the disk to store.
    pub fn refused_stores(&self) -> Option<&Refusals> {
        self.head.first().map(|head| &head.store)
    }

    /// The refusals of the disk to read.
    pub fn refused_reads(&self) -> Option<&Refusals> {
        self.head.first().map(|head| &head.read)
    }

    /// Whether any process slot follows.
    pub fn has_followers(&self, at: FillAt) -> bool {
        self.entry(at).is_some_and(|entry| !entry.followers().is_empty())
    }

    /// The numbers of all running fills with a living leader, ascending: their temporary files are
    /// in use. Walks the table.
    pub fn under_way(&self) -> Vec<u64> {
        // Leaders are few: the kernel is asked once for each.
        let mut leaders: Vec<(u32, bool)> = Vec::new();
        let mut ids = Vec::new();
        for entry in self.entries.iter().filter(|entry| entry.is_under_way()) {
            let leader = entry.owner.load(Ordering::Acquire);
            let known = leaders.iter().find(|it| it.0 == leader).map(|it| it.1);
            let is_led = known.unwrap_or_else(|| {
                let is_led = self.is_led(entry);
                leaders.push((leader, is_led));
                is_led
            });
            if is_led {
                ids.push(entry.id.load(Ordering::Acquire));
            }
        }
        ids.sort_unstable();
        ids
    }

    /// The bytes that running fills have written or announced, and that the cache will have to
    /// take. Read it after the index's bytes, so that nothing counts twice. Walks the table.
    pub fn bytes_under_way(&self) -> u64 {
        let is_writing = |entry: &&Entry| {
            entry.state.load(Ordering::Acquire) == STREAMING
                && entry.is_counted.load(Ordering::Acquire) == 0
        };
        let bytes_of = |entry: &Entry| match entry.total.load(Ordering::Acquire) & !DOOMED {
            UNKNOWN => entry.bytes.load(Ordering::Acquire),
            total => total,
        };
        let writing = self.entries.iter().filter(is_writing);
        writing.map(bytes_of).fold(0, u64::saturating_add)
    }

    /// The numbers that this table has given so far. Tables made earlier gave lower ones.
    pub fn numbers(&self) -> Range<u64> {
        self.head[0].numbers()
    }

    /// Master, when the worker of `process_slot` died: ends its fills as failed, removes it from
    /// the followers, and takes over its locks. Returns the workers to wake.
    pub fn abandon_all_of(&self, process_slot: usize) -> ProcessSet {
        let mut wake = ProcessSet::NONE;
        for (number, entry) in self.entries.iter().enumerate() {
            let id = entry.id.load(Ordering::Acquire);
            let leader = Owner::from_word(entry.owner.load(Ordering::Acquire));
            let is_its = leader.is_some_and(|leader| leader.row() == process_slot);
            if id != 0 && is_its && entry.is_under_way() && !self.is_led(entry) {
                self.fail(number, id);
                wake = wake.with(entry.followers());
            }
            // The look for a tenant asks the kernel, and few entries have a follower.
            if entry.followers().has(process_slot) && self.owners.tenant(process_slot).is_none() {
                entry.followers[process_slot / 64]
                    .fetch_and(!(1 << (process_slot % 64)), Ordering::SeqCst);
            }
        }
        if let Some(owner) = self.owner() {
            for (group, word) in self.locks.iter().enumerate() {
                let holder = Owner::from_word(word.load(Ordering::Relaxed));
                if holder.is_some_and(|holder| !self.owners.is_alive(holder)) {
                    drop(self.lock(group, owner));
                }
            }
        }
        wake.without(process_slot)
    }

    fn over(map: SharedMap, n: usize) -> io::Result<Self> {
        let n_groups = n_groups(n);
        Ok(Self {
            head: map.slice(0, 1)?,
            owners: OwnerTable::new(map.slice(ROWS_AT, ROWS)?),
            locks: map.slice(LOCKS_AT, n_groups)?,
            entries: map.slice(entries_at(n_groups), n_groups * GROUP)?,
            owner: AtomicU32::new(0),
            map,
        })
    }

    fn claim(&self, rows: Range<usize>) -> io::Result<()> {
        let claimed = self.owners.claim(rows);
        let (owner, _) = claimed
            .ok_or_else(|| io::Error::other("the process slot in the table of fills is in use"))?;
        self.owner.store(owner.word(), Ordering::Release);
        Ok(())
    }

    fn owner(&self) -> Option<Owner> {
        Owner::from_word(self.owner.load(Ordering::Acquire))
    }

    fn group_of(&self, high: u64) -> usize {
        ((u128::from(high) * self.locks.len() as u128) >> 64) as usize
    }

    fn lock(&self, group: usize, owner: Owner) -> Option<Guard<'_>> {
        owner::lock(self.locks.get(group)?, owner, &self.owners)
        // A dead holder left at most an entry with id 0, which is free.
    }

    /// Writes an entry under the group's lock: without an id while it is between two fills.
    fn begin(&self, number: usize, halves: [u64; 2], owner: Owner, purge_epoch: u64) -> FillAt {
        let id = self.head[0].next_number();
        if let Some(entry) = self.entries.get(number) {
            entry.id.store(0, Ordering::Relaxed);
            fence(Ordering::Release);
            entry.state.store(FETCHING, Ordering::Relaxed);
            for (word, half) in entry.key.iter().zip(halves) {
                word.store(half, Ordering::Relaxed);
            }
            entry.owner.store(owner.word(), Ordering::Relaxed);
            entry.purge_epoch.store(purge_epoch, Ordering::Relaxed);
            entry.bytes.store(0, Ordering::Relaxed);
            entry.total.store(UNKNOWN, Ordering::Relaxed);
            entry.is_counted.store(0, Ordering::Relaxed);
            entry.followers.iter().for_each(|word| word.store(0, Ordering::Relaxed));
            entry.id.store(id, Ordering::Release);
        }
        FillAt { entry: number as u32, id }
    }

    fn entry(&self, at: FillAt) -> Option<&Entry> {
        let entry = self.entries.get(at.entry as usize)?;
        (entry.id.load(Ordering::Acquire) == at.id && at.id != 0).then_some(entry)
    }

    fn follower(&self, at: FillAt, process_slot: usize) -> Option<(&Entry, usize, u64)> {
        let entry = self.entry(at)?;
        let is_valid = process_slot < PROCESS_SLOTS_MAX;
        is_valid.then_some((entry, process_slot / 64, 1 << (process_slot % 64)))
    }

    /// Makes a change as the leader, then reads the followers.
    fn lead(&self, at: FillAt, change: impl FnOnce(&Entry)) -> ProcessSet {
        let Some(entry) = self.entry(at) else { return ProcessSet::NONE };
        if Some(entry.owner.load(Ordering::Relaxed)) != self.owner().map(Owner::word)
            || !entry.is_under_way()
        {
            return ProcessSet::NONE;
        }
        change(entry);
        fence(Ordering::SeqCst);
        entry.followers()
    }

    fn is_led(&self, entry: &Entry) -> bool {
        Owner::from_word(entry.owner.load(Ordering::Acquire)).is_some_and(|leader| {
            // This process need not ask the kernel about its own fills.
            Some(leader) == self.owner() || self.owners.is_alive(leader)
        })
    }

    /// Ends the fill of a dead leader as failed, unless the entry holds another fill by now.
    fn fail(&self, number: usize, id: u64) {
        let (Some(owner), Some(entry)) = (self.owner(), self.entries.get(number)) else { return };
        let Some(_guard) = self.lock(number / GROUP, owner) else { return };
        if entry.id.load(Ordering::Acquire) == id && entry.is_under_way() && !self.is_led(entry) {
            entry.set_total(0);
            entry.state.store(FAILED, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
#[path = "../tests/fills.rs"]
mod tests;
