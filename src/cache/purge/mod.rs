//! What was purged: a table in shared memory that decides which stored responses still count.
//!
//! A purge does not look for what it names. It takes the next number and notes it under a hash of
//! a URL, a host, a tag..., in constant time; a stored response knows the number that was the last
//! when its origin was asked, and counts only if nothing that names it has a later one. So a
//! purge covers at once, in all processes, what is stored, what is in anybody's memory, and what is
//! still on its way from an origin.
//!
//! ```text
//! purge: lock ─▶ count + 1 ─▶ note it in the bucket ─▶ journal ─▶ version + 1 ─▶ unlock
//! hit:   version as when it was last judged? ─ yes ─▶ it counts   (one load)
//!                └─ no ─▶ judge: a bucket for each of its names
//! ```
//!
//! The table is in a file of its own, which outlives the index and restarts. Nothing stored is
//! valid with another file than the one it was asked under: losing the file purges everything.
//! A bucket that is full gives up its oldest purge and remembers only its number: every response
//! with a name in that bucket that was asked for before counts as purged. So the table never grows
//! and never forgets; too many purges make some responses be fetched anew.

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
    Bucket, Kept, Label, NUMBER_BITS, NUMBER_MAX, Note, PurgeStatus, sealed, unsealed,
};
use crate::cache::purge::file::{COUNT_SEED, Header, OpenError, Parts};
use crate::cache::purge::journal::{RECORDS, Record};
use crate::policy::key::host::NamedHost;
use crate::policy::purge::hash::{PurgeHash, PurgeKind};
use crate::policy::purge::surrogate::{self, Lengths, SurrogateKeys};
use crate::shared::owner::{self, Guard, Owner, OwnerTable};

/// What is to be purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// By what it is named.
    pub kind: PurgeKind,
    /// The text that is hashed; see [`label`] for the form of each kind.
    pub text: Vec<u8>,
    /// Only make stale what is named.
    pub is_soft: bool,
    /// What is named, for people.
    pub name: String,
    /// Who asks for it, for people; empty for what need not be in the journal.
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
    #[error("no purge of this number is remembered")]
    Unknown,
    /// It was undone before.
    #[error("it was undone already")]
    Undone,
    /// A later purge of the same is in force.
    #[error("purge {0} of the same is in force; undo that one first")]
    Covered(u64),
    /// Its place in the table was needed, or the one before it is not known any more.
    #[error("it cannot be undone any more: it has become part of a coarser one")]
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
    /// Opens the table in `dir`, or makes it, and mends what a crash left torn; says whether it is
    /// new, so that nothing that is stored counts. The master does this before it forks.
    ///
    /// # Errors
    ///
    /// When the directory cannot be written or the disk has no room for it.
    pub fn open(dir: &Path) -> Result<(Self, bool), OpenError> {
        let (purges, is_new) = Self::open_with(dir, N_BUCKETS)?;
        purges.mend();
        Ok((purges, is_new))
    }

    /// The table that is in `dir`; for commands beside a running ktrix.
    ///
    /// # Errors
    ///
    /// When there is none, or none of ours.
    pub fn open_existing(dir: &Path) -> Result<Self, OpenError> {
        let purges = Parts::open_existing(dir).map(Self::over)?;
        // Nobody has opened it since the machine was started.
        if !purges.is_of_this_boot() {
            purges.mend();
        }
        Ok(purges)
    }

    /// As [`Purges::open`] with so many buckets, a power of two, if it is to be made.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn open_with(dir: &Path, n_buckets: usize) -> Result<(Self, bool), OpenError> {
        let (parts, is_new) = Parts::open(dir, n_buckets)?;
        Ok((Self::over(parts), is_new))
    }

    /// Says by other means than the error log which purge's record had to make way before anybody
    /// had logged it.
    #[must_use]
    pub fn telling(self, tell: fn(&Record)) -> Self {
        Self { tell, ..self }
    }

    /// Whether nobody has cut the file: who touches what is missing dies.
    pub fn is_whole(&self) -> bool {
        self.parts.map.is_whole()
    }

    /// Whether it still is the table in `dir`, and whole.
    pub fn is_in_place(&self, dir: &Path) -> bool {
        self.is_whole() && self.parts.map.is_at(&dir.join(file::FILE_NAME))
    }

    /// Changes with every purge and every undoing: a response that counted under this number
    /// counts as long as it is the same. Never 0. One load.
    #[inline]
    pub fn version(&self) -> u64 {
        self.header().version.load(Ordering::Acquire)
    }

    /// What a fill must note before its request is sent: this file, and the last purge in it.
    pub fn purge_epoch(&self) -> u64 {
        fence(Ordering::SeqCst);
        self.id << NUMBER_BITS | self.count()
    }

    /// How a stored response of this key text and these labels stands now. Read
    /// [`Purges::version`] first if the answer is to be kept.
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

    /// As [`Purges::purge`]; gives the record that nobody has logged and that had to make way too.
    fn note(&self, order: &Order, now_s: u64) -> Result<(u64, Option<Record>), PurgeError> {
        let tenant = self.tenant()?;
        let _lock = self.lock(&tenant)?;
        let header = self.header();
        let mut unlogged = None;
        // First the number: what is asked for from now on is not named, and if this process dies
        // here, the number is only skipped.
        let number = self.next();
        let (kind, text) = self.fitting(order.kind, &order.text);
        let hash = PurgeHash::of(kind, &text);
        let label = Label::new(hash, order.is_soft);
        let len = if kind == PurgeKind::Prefix { text.len() } else { 0 };
        self.bucket(hash).note(&Note { label, number, time_s: now_s, kind, len });
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

    /// Takes a purge back: what it named and was not replaced or evicted since counts again. Gives
    /// what is recorded of it.
    ///
    /// # Errors
    ///
    /// See [`PurgeError`]; nothing is changed then.
    pub fn undo(&self, number: u64, who: &str, now_s: u64) -> Result<Record, PurgeError> {
        let (undoing, unlogged) = self.take_back(number, who, now_s)?;
        unlogged.iter().for_each(self.tell);
        Ok(undoing)
    }

    /// As [`Purges::undo`]; gives the record that nobody has logged and that had to make way too.
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
        let label = Label::new(record.hash, record.is_soft);
        let time_of = |number| {
            let record = self.line(number).read().filter(|record| record.number == number);
            record.map(|record| record.time_s)
        };
        self.bucket(record.hash).undo(label, number, time_of).map_err(|kept| match kept {
            Kept::Covered(number) => PurgeError::Covered(number),
            Kept::Gone => PurgeError::Folded,
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

    /// The purges that are remembered, the latest first.
    pub fn records(&self) -> Vec<Record> {
        let mut records: Vec<_> = self.parts.journal.iter().filter_map(|it| it.read()).collect();
        records.sort_unstable_by_key(|record| std::cmp::Reverse(record.number));
        records
    }

    /// Calls `take` with the records that nobody has logged yet, the earliest first; they count as
    /// logged then. For the keeper alone.
    pub fn each_unlogged(&self, take: impl FnMut(&Record)) {
        let header = self.header();
        if header.logged.load(Ordering::Acquire) == self.count() {
            return;
        }
        let Some((records, count)) = self.unlogged() else { return };
        records.iter().for_each(take);
        // Only now: if the keeper dies before, its successor says it all again.
        header.logged.store(count, Ordering::Release);
    }

    /// The records that nobody has logged yet, and the number of the last of them. Under the lock,
    /// so that none is just being written.
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

    /// Writes a record to the journal, under the lock. Gives what has to make way for it if the
    /// keeper has not come to that: to be told once the lock is free, for it may take long.
    fn record(&self, record: &Record) -> Option<Record> {
        let line = self.line(record.number);
        let logged = self.header().logged.load(Ordering::Acquire);
        let unlogged = line.read().filter(|old| old.number > logged);
        line.write(record);
        unlogged
    }

    /// Writes the table to the disk if it has changed since this was done last, so that it
    /// outlives a loss of power too. Waits for the disk.
    ///
    /// # Errors
    ///
    /// What `msync` says.
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
        // Held to be right when it was opened, and written whole ever since.
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
        // A power of two of them; the lowest bit of a hash is not its own.
        let number = (hash.0 >> 1) as usize & (self.parts.buckets.len() - 1);
        &self.parts.buckets[number]
    }

    fn line(&self, number: u64) -> &journal::Line {
        &self.parts.journal[(number % RECORDS as u64) as usize]
    }

    /// A beginning of URLs as it can be noted: only so many lengths are asked about, and what has
    /// none of them is cut to a shorter one, which names more; in the end to the host.
    fn fitting<'t>(&self, kind: PurgeKind, text: &'t [u8]) -> (PurgeKind, Cow<'t, [u8]>) {
        if kind != PurgeKind::Prefix {
            return (kind, text.into());
        }
        let text = text.get(..LEN_MAX).unwrap_or(text);
        if self.has(text.len()) {
            return (kind, text.into());
        }
        // None is ever given up: a bucket is asked about a beginning only at these lengths, so that
        // what has become part of its floor would not be found any more.
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

    /// Claims a row for the time of one change: who purges is seldom the same process twice.
    fn tenant(&self) -> Result<Tenant<'_>, PurgeError> {
        let owners = &self.parts.owners;
        let (owner, _) = owners.claim(0..usize::MAX).ok_or(PurgeError::Crowded)?;
        Ok(Tenant { owners, owner })
    }

    fn lock(&self, tenant: &Tenant<'_>) -> Result<Guard<'_>, PurgeError> {
        let guard = owner::lock(&self.header().lock, tenant.owner, &self.parts.owners);
        let guard = guard.ok_or(PurgeError::Busy)?;
        if guard.was_taken_over {
            // The dead one may have noted its purge without saying so.
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
/// The longest beginning of URLs; longer ones are cut to it.
const LEN_MAX: usize = 64 * file::LENGTH_WORDS - 1;
/// Beginnings of so many different lengths are asked about.
const LENGTHS_MAX: u32 = 64;

#[cfg(test)]
#[path = "../tests/purge.rs"]
mod tests;
