//! The table of purges, in shared memory: it decides which stored responses may still be used.
//!
//! A purge does not search for the responses that it names. It takes the next number and enters it
//! under a hash of a URL, a host, a tag..., in constant time. A stored response has the number of
//! the last purge before its origin was asked, and is valid only if no later purge names it. So a
//! purge covers at once, in all processes, stored responses, copies in memory, and responses that
//! are still on their way from an origin.
//!
//! ```text
//! purge: lock ─▶ count + 1 ─▶ note it in the bucket ─▶ journal ─▶ version + 1 ─▶ unlock
//! hit:   version as when it was last checked? ─ yes ─▶ it counts   (one load)
//!                └─ no ─▶ check: a bucket for each of its names
//! ```
//!
//! The table is in a file of its own, which outlives the index and restarts. A response is valid
//! only under the file with which its origin was asked: losing the file purges everything. A full
//! bucket evicts its oldest purge and keeps only its number: every earlier response with a name in
//! that bucket counts as purged. So the table never grows and never loses a purge; too many purges
//! only make some responses be fetched again.

pub mod bucket;
pub mod journal;
pub mod file;
mod repair;
pub mod cause;
pub mod request;

use std::borrow::Cow;
use std::path::Path;
use std::sync::atomic::{Ordering, fence};

use crate::cache::purge::bucket::{
    Bucket, EntryId, NUMBER_BITS, NUMBER_MAX, Note, PurgeStatus, UndoFault, sealed, unsealed,
};
use crate::cache::purge::file::{COUNT_SEED, Header, OpenError, Parts};
use crate::cache::purge::journal::{RECORDS, Record};
use crate::policy::key::host::NamedHost;
use crate::policy::purge::hash::{PurgeHash, PurgeKind};
use crate::policy::purge::surrogate::{self, Lengths, SurrogateKeys};
use crate::shared::owner::{self, Guard, Owner, OwnerTable};

/// A purge to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The kind of its name.
    pub kind: PurgeKind,
    /// The text that is hashed; see [`entry_id`] for the form of each kind.
    pub text: Vec<u8>,
    /// Whether responses become stale instead of purged.
    pub is_soft: bool,
    /// The name, for people.
    pub name: String,
    /// The client or user that requests it, for the journal; empty for a purge without a record.
    pub who: String,
}

/// Why nothing was purged, or undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PurgeError {
    /// Another process kept the table for too long.
    #[error("the table of purges stayed locked")]
    Busy,
    /// Too many processes write at once.
    #[error("too many processes purge at once")]
    Crowded,
    /// There is no record of a purge of this number.
    #[error("the journal has no purge of this number")]
    Unknown,
    /// It was undone before.
    #[error("it was undone already")]
    Undone,
    /// A later purge of the same name is in force.
    #[error("the later purge {0} of the same name is in force; undo that one first")]
    Covered(u64),
    /// Its entry was evicted from the table, or the purge before it is not known any more.
    #[error("it can no longer be undone: its entry in the table of purges was reused")]
    Folded,
}

/// The table of purges.
#[derive(Debug)]
pub struct Purges {
    parts: Parts,
    id: u64,
    tell: fn(&Record),
}

impl Purges {
    /// Opens the table in `dir`, or makes it, and repairs what a crash left torn. Says whether it
    /// is new, so that no stored response is valid. The master does this before it forks.
    ///
    /// # Errors
    ///
    /// When the directory cannot be written or the disk has no room for it.
    pub fn open(dir: &Path) -> Result<(Self, bool), OpenError> {
        let (purges, is_new) = Self::open_with(dir, N_BUCKETS)?;
        purges.repair();
        Ok((purges, is_new))
    }

    /// The table that is in `dir`; for commands beside a running ktrix.
    ///
    /// # Errors
    ///
    /// When there is no table, or not one of this version.
    pub fn open_existing(dir: &Path) -> Result<Self, OpenError> {
        let purges = Parts::open_existing(dir).map(Self::over)?;
        // No process has opened it since the machine started.
        if !purges.is_of_this_boot() {
            purges.repair();
        }
        Ok(purges)
    }

    /// As [`Purges::open`], with the number of buckets of a new table, a power of two.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn open_with(dir: &Path, n_buckets: usize) -> Result<(Self, bool), OpenError> {
        let (parts, is_new) = Parts::open(dir, n_buckets)?;
        Ok((Self::over(parts), is_new))
    }

    /// Uses `tell` instead of the error log for a record that is overwritten before the keeper has
    /// logged it.
    #[must_use]
    pub fn telling(self, tell: fn(&Record)) -> Self {
        Self { tell, ..self }
    }

    /// Whether the file has its full length: a process that touches a truncated part dies.
    pub fn is_whole(&self) -> bool {
        self.parts.map.is_whole()
    }

    /// Whether it still is the table in `dir`, and whole.
    pub fn is_in_place(&self, dir: &Path) -> bool {
        self.is_whole() && self.parts.map.is_at(&dir.join(file::FILE_NAME))
    }

    /// The version of the table, which changes with every purge and undo. While it is the same, so
    /// is the status of every response. Never 0. Costs one load.
    #[inline]
    pub fn version(&self) -> u64 {
        self.header().version.load(Ordering::Acquire)
    }

    /// The purge epoch, which a fill takes before it asks the origin: the id of this file, and the
    /// number of the last purge.
    pub fn purge_epoch(&self) -> u64 {
        fence(Ordering::SeqCst);
        self.id << NUMBER_BITS | self.count()
    }

    /// The status of a stored response with this key text and these surrogate keys. Read
    /// [`Purges::version`] first if the result is to be kept.
    pub fn purge_status(&self, key_text: &[u8], surrogates: &SurrogateKeys) -> PurgeStatus {
        let (asked, count) = (surrogates.purge_epoch & NUMBER_MAX, self.count());
        if surrogates.purge_epoch >> NUMBER_BITS != self.id || asked > count {
            return PurgeStatus::Purged;
        }
        if asked == count {
            return PurgeStatus::Valid;
        }
        if surrogates.is_cut && self.tagged() > asked {
            return PurgeStatus::Purged;
        }
        let mut purge_status = PurgeStatus::Valid;
        surrogate::each_name(key_text, surrogates, self, |hash| {
            purge_status = purge_status.with(self.bucket(hash).purge_status(hash, asked));
            purge_status != PurgeStatus::Purged
        });
        purge_status
    }

    /// Purges, and gives the purge's number. In force in all processes when this returns.
    ///
    /// # Errors
    ///
    /// [`PurgeError::Busy`] and [`PurgeError::Crowded`]; nothing is purged then.
    pub fn purge(&self, order: &Order, now_s: u64) -> Result<u64, PurgeError> {
        let (number, unlogged) = self.note(order, now_s)?;
        unlogged.iter().for_each(self.tell);
        Ok(number)
    }

    /// As [`Purges::purge`]; also gives a record that was overwritten before the keeper had logged
    /// it.
    fn note(&self, order: &Order, now_s: u64) -> Result<(u64, Option<Record>), PurgeError> {
        let tenant = self.tenant()?;
        let _lock = self.lock(&tenant)?;
        let header = self.header();
        let mut unlogged = None;
        // The number comes first: a response that is fetched from now on is not named, and if this
        // process dies here, the number is only skipped.
        let number = self.next();
        let (kind, text) = self.fitting(order.kind, &order.text);
        let hash = PurgeHash::of(kind, &text);
        let entry_id = EntryId::new(hash, order.is_soft);
        let len = if kind == PurgeKind::Prefix { text.len() } else { 0 };
        self.bucket(hash).note(&Note { entry_id, number, time_s: now_s, kind, len });
        if matches!(kind, PurgeKind::Tag | PurgeKind::Group) {
            header.tagged.store(sealed(number, COUNT_SEED), Ordering::Release);
        }
        if !order.who.is_empty() {
            unlogged = self.record(&Record {
                number,
                time_s: now_s,
                kind,
                is_soft: order.is_soft,
                is_undone: false,
                undoes: None,
                name: order.name.clone(),
                who: order.who.clone(),
                hash,
            });
        }
        header.version.fetch_add(1, Ordering::SeqCst);
        Ok((number, unlogged))
    }

    /// Undoes a purge: responses that it named, and that were not replaced or evicted since, are
    /// valid again. Gives its record.
    ///
    /// # Errors
    ///
    /// See [`PurgeError`]; nothing is changed then.
    pub fn undo(&self, number: u64, who: &str, now_s: u64) -> Result<Record, PurgeError> {
        let (undoing, unlogged) = self.take_back(number, who, now_s)?;
        unlogged.iter().for_each(self.tell);
        Ok(undoing)
    }

    /// As [`Purges::undo`]; also gives a record that was overwritten before the keeper had logged
    /// it.
    fn take_back(
        &self,
        number: u64,
        who: &str,
        now_s: u64,
    ) -> Result<(Record, Option<Record>), PurgeError> {
        let tenant = self.tenant()?;
        let _lock = self.lock(&tenant)?;
        let line = self.line(number);
        let is_it = |record: &Record| record.number == number && record.undoes.is_none();
        let record = line.read().filter(is_it);
        let mut record = record.ok_or(PurgeError::Unknown)?;
        if record.is_undone {
            return Err(PurgeError::Undone);
        }
        let entry_id = EntryId::new(record.hash, record.is_soft);
        let time_of = |number| {
            let record = self.line(number).read().filter(|record| record.number == number);
            record.map(|record| record.time_s)
        };
        self.bucket(record.hash).undo(entry_id, number, time_of).map_err(|kept| match kept {
            UndoFault::Covered(number) => PurgeError::Covered(number),
            UndoFault::Gone => PurgeError::Folded,
        })?;
        record.is_undone = true;
        line.write(&record);
        let undoing = Record {
            number: self.next(),
            time_s: now_s,
            is_undone: false,
            undoes: Some(number),
            who: who.to_owned(),
            ..record
        };
        let unlogged = self.record(&undoing);
        self.header().version.fetch_add(1, Ordering::SeqCst);
        Ok((undoing, unlogged))
    }

    /// The records of the journal, the latest first.
    pub fn records(&self) -> Vec<Record> {
        let mut records: Vec<_> = self.parts.journal.iter().filter_map(|it| it.read()).collect();
        records.sort_unstable_by_key(|record| std::cmp::Reverse(record.number));
        records
    }

    /// Calls `take` with the records that are not logged yet, the earliest first, and marks them as
    /// logged. For the keeper alone.
    pub fn each_unlogged(&self, take: impl FnMut(&Record)) {
        let header = self.header();
        if header.logged.load(Ordering::Acquire) == self.count() {
            return;
        }
        let Some((records, count)) = self.unlogged() else { return };
        records.iter().for_each(take);
        // This comes last: if the keeper dies before, its successor logs them again.
        header.logged.store(count, Ordering::Release);
    }

    /// The records that are not logged yet, and the number of the last of them. Under the lock, so
    /// that none is being written.
    fn unlogged(&self) -> Option<(Vec<Record>, u64)> {
        let tenant = self.tenant().ok()?;
        let _lock = self.lock(&tenant).ok()?;
        let (logged, count) = (self.header().logged.load(Ordering::Acquire), self.count());
        let mut records = self.records();
        records.retain(|record| record.number > logged && record.number <= count);
        records.reverse();
        Some((records, count))
    }

    /// Takes the next number, under the lock.
    fn next(&self) -> u64 {
        let number = (self.count() + 1).min(NUMBER_MAX);
        self.header().count.store(sealed(number, COUNT_SEED), Ordering::SeqCst);
        number
    }

    /// Writes a record to the journal, under the lock. Gives the record that it overwrites, if that
    /// is not logged yet. The caller logs it after the lock is free, because logging may take long.
    fn record(&self, record: &Record) -> Option<Record> {
        let line = self.line(record.number);
        let logged = self.header().logged.load(Ordering::Acquire);
        let unlogged = line.read().filter(|old| old.number > logged);
        line.write(record);
        unlogged
    }

    /// Writes the table to the disk, if it has changed since the last time, so that it survives a
    /// loss of power. Waits for the disk.
    ///
    /// # Errors
    ///
    /// An error of `msync`.
    pub fn sync(&self) -> std::io::Result<()> {
        let header = self.header();
        let version = self.version();
        if header.synced.load(Ordering::Acquire) != version {
            self.parts.map.flush()?;
            header.synced.store(version, Ordering::Release);
        }
        Ok(())
    }

    /// The number of the last purge.
    fn count(&self) -> u64 {
        // It was checked when the table was opened, and every later store is valid.
        unsealed(self.header().count.load(Ordering::SeqCst), COUNT_SEED).unwrap_or(NUMBER_MAX)
    }

    fn tagged(&self) -> u64 {
        match self.header().tagged.load(Ordering::Acquire) {
            0 => 0,
            word => unsealed(word, COUNT_SEED).unwrap_or(NUMBER_MAX),
        }
    }

    fn over(parts: Parts) -> Self {
        let id = parts.header[0].id.load(Ordering::Relaxed);
        Self { parts, id, tell: Record::log }
    }

    #[inline]
    fn header(&self) -> &Header {
        // It is mapped as a slice of exactly one.
        &self.parts.header[0]
    }

    fn bucket(&self, hash: PurgeHash) -> &Bucket {
        // The number of buckets is a power of two. The lowest bit of a hash is used for soft
        // purges.
        let number = (hash.0 >> 1) as usize & (self.parts.buckets.len() - 1);
        &self.parts.buckets[number]
    }

    fn line(&self, number: u64) -> &journal::Line {
        &self.parts.journal[(number % RECORDS as u64) as usize]
    }

    /// The prefix that is entered for a prefix purge. Only [`LENGTHS_MAX`] different lengths are
    /// looked up; a prefix of another length is cut to a shorter one, which names more, and in the
    /// end to the host.
    fn fitting<'t>(&self, kind: PurgeKind, text: &'t [u8]) -> (PurgeKind, Cow<'t, [u8]>) {
        if kind != PurgeKind::Prefix {
            return (kind, text.into());
        }
        let text = text.get(..LEN_MAX).unwrap_or(text);
        if self.has(text.len()) {
            return (kind, text.into());
        }
        // A length is never given up: a prefix is looked up only at these lengths, so that one that
        // was merged into a floor would not be found any more.
        if self.n_lengths() < LENGTHS_MAX {
            self.set_length(text.len());
            return (kind, text.into());
        }
        let authority = text.get(2..).unwrap_or_default();
        let end = memchr::memchr(b'/', authority).unwrap_or(authority.len());
        if let Some(len) = (end + 3..text.len()).rev().find(|&len| self.has(len)) {
            return (kind, text.get(..len).unwrap_or(text).into());
        }
        match NamedHost::parse(authority.get(..end).unwrap_or_default()) {
            Some(host) => (PurgeKind::Host, host.text().into()),
            None => (PurgeKind::All, b"".into()),
        }
    }

    fn n_lengths(&self) -> u32 {
        self.header().lengths.iter().map(|it| it.load(Ordering::Acquire).count_ones()).sum()
    }

    fn set_length(&self, len: usize) {
        if let Some(word) = self.header().lengths.get(len / 64) {
            word.fetch_or(1 << (len % 64), Ordering::AcqRel);
        }
    }

    /// Claims a row for one change. The process that purges is seldom the same one twice.
    fn tenant(&self) -> Result<Tenant<'_>, PurgeError> {
        let owners = &self.parts.owners;
        let (owner, _) = owners.claim(0..usize::MAX).ok_or(PurgeError::Crowded)?;
        Ok(Tenant { owners, owner })
    }

    fn lock(&self, tenant: &Tenant<'_>) -> Result<Guard<'_>, PurgeError> {
        let guard = owner::lock(&self.header().lock, tenant.owner, &self.parts.owners);
        let guard = guard.ok_or(PurgeError::Busy)?;
        if guard.was_taken_over {
            // The dead process may have entered its purge without changing the version.
            self.header().version.fetch_add(1, Ordering::SeqCst);
        }
        Ok(guard)
    }
}

impl Lengths for Purges {
    fn longest(&self) -> usize {
        let lengths = self.header().lengths.iter().enumerate();
        let last = lengths.rev().find_map(|(at, word)| {
            let word = word.load(Ordering::Acquire);
            (word != 0).then(|| at * 64 + 63 - word.leading_zeros() as usize)
        });
        last.unwrap_or(0)
    }

    fn has(&self, len: usize) -> bool {
        let word = self.header().lengths.get(len / 64);
        word.is_some_and(|word| word.load(Ordering::Acquire) >> (len % 64) & 1 == 1)
    }
}

/// A row, for as long as this lives.
struct Tenant<'a> {
    owners: &'a OwnerTable,
    owner: Owner,
}

impl Drop for Tenant<'_> {
    fn drop(&mut self) {
        self.owners.release(self.owner);
    }
}

/// Buckets of a new table: 28,672 purges in 1 MiB.
const N_BUCKETS: usize = 4096;
/// The longest prefix; longer ones are cut to it.
const LEN_MAX: usize = 64 * file::LENGTH_WORDS - 1;
/// The most different lengths of prefixes.
const LENGTHS_MAX: u32 = 64;

#[cfg(test)]
#[path = "../tests/purge.rs"]
mod tests;
