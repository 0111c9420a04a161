//! A bucket of the table of purges: seven entries and a floor, read without a lock.
//!
//! | bytes | bucket field | meaning |
//! | --- | --- | --- |
//! | 0..8 | floor | sealed number: a response that was fetched before it counts as purged; 0 = none
//! |
//! | 8..32 | - | 0 |
//! | 32..256 | entries | seven of 32 bytes |
//!
//! | bytes | entry field | meaning |
//! | --- | --- | --- |
//! | 0..8 | hash | of the name that is purged; the lowest bit is set for a soft purge |
//! | 8..16 | number | sealed with the hash: of the purge; 0 = the entry is empty |
//! | 16..24 | before | sealed with the hash: the earlier purge of the same name that this one
//! covers; 0 = none |
//! | 24..32 | info | time 32 (Unix seconds), cut 1 (more were covered), kind 3, length 12 |
//!
//! A number is sealed with 24 bits of a checksum in its upper end, and each change takes effect by
//! one store of it: an entry is filled before its number is stored, and emptied by storing 0; a
//! later purge of the same name replaces the number. So a writer may be killed between any two
//! stores. Before an entry is evicted, the floor is raised; readers read the floor last. A number
//! that does not match its seal counts as a purge of everything in the bucket.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::policy::purge::hash::{PurgeHash, PurgeKind};
use crate::sys::shm::shared_struct;

/// Entries of a bucket.
pub(super) const ENTRIES: usize = 7;

shared_struct! {
    /// An entry: see the module's field table.
    #[derive(Debug)]
    pub(super) struct Entry: 32 bytes, aligned 32 {
        hash: AtomicU64,
        number: AtomicU64,
        before: AtomicU64,
        info: AtomicU64,
    }
}

shared_struct! {
    /// A bucket: see the module's field table.
    #[derive(Debug)]
    pub(super) struct Bucket: 256 bytes, aligned 64 {
        floor: AtomicU64,
        _rest: [AtomicU64; 3],
        entries: [Entry; ENTRIES],
    }
}

/// The status of a stored response by the table of purges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PurgeStatus {
    /// No purge names it.
    #[default]
    Valid,
    /// A soft purge names it: it is stale since this time, in Unix seconds.
    Stale(u64),
    /// A purge names it: it counts as not stored.
    Purged,
}

impl PurgeStatus {
    /// Both together: the worse, or the staler.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Purged, _) | (_, Self::Purged) => Self::Purged,
            (Self::Stale(one_s), Self::Stale(other_s)) => Self::Stale(one_s.min(other_s)),
            (Self::Stale(since_s), Self::Valid) | (Self::Valid, Self::Stale(since_s)) => {
                Self::Stale(since_s)
            }
            (Self::Valid, Self::Valid) => Self::Valid,
        }
    }
}

/// A purge to enter in a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// The name and the kind of purge.
    pub(super) entry_id: EntryId,
    /// The purge's number.
    pub(super) number: u64,
    /// When, in Unix seconds.
    pub(super) time_s: u64,
    /// The kind of its name.
    pub(super) kind: PurgeKind,
    /// The length of a prefix, below 4096.
    pub(super) len: usize,
}

/// The identity of an entry: a hash, and whether the purge is soft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryId(u64);

impl EntryId {
    pub(super) const fn new(hash: PurgeHash, is_soft: bool) -> Self {
        Self(hash.0 & !1 | is_soft as u64)
    }

    pub(super) const fn is_soft(self) -> bool {
        self.0 & 1 == 1
    }

    /// The hash without its lowest bit.
    pub(super) const fn hash(self) -> PurgeHash {
        PurgeHash(self.0 & !1)
    }
}

/// The content of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Empty,
    Torn,
    Whole { entry_id: EntryId, number: u64 },
}

/// Why a purge cannot be undone in its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UndoFault {
    /// A later purge of the same name is in force.
    Covered(u64),
    /// Its entry was evicted, or covers purges that are not known any more.
    Gone,
}

impl Bucket {
    /// The status of a response that was fetched after purge `asked`, by the purges of `hash`.
    pub(super) fn purge_status(&self, hash: PurgeHash, asked: u64) -> PurgeStatus {
        let mut purge_status = PurgeStatus::Valid;
        for entry in &self.entries {
            purge_status = purge_status.with(match entry.read() {
                Read::Torn => PurgeStatus::Purged,
                Read::Whole { entry_id, number }
                    if entry_id.hash().0 == hash.0 & !1 && number > asked =>
                {
                    match entry_id.is_soft() {
                        true => PurgeStatus::Stale(entry.time_s()),
                        false => PurgeStatus::Purged,
                    }
                }
                Read::Whole { .. } | Read::Empty => PurgeStatus::Valid,
            });
        }
        // The floor is read last: it covers an entry that was evicted meanwhile.
        fence(Ordering::Acquire);
        match self.floor.load(Ordering::Acquire) {
            0 => purge_status,
            word => match unsealed(word, FLOOR_SEED) {
                Some(floor) if floor <= asked => purge_status,
                _ => PurgeStatus::Purged,
            },
        }
    }

    /// Calls `take` with the known purges of `hash` after number `asked`.
    pub(super) fn each_cause(&self, hash: PurgeHash, asked: u64, mut take: impl FnMut(Cause)) {
        for entry in &self.entries {
            let Read::Whole { entry_id, number } = entry.read() else { continue };
            if entry_id.hash().0 == hash.0 & !1 && number > asked {
                let kind =
                    PurgeKind::from_code((entry.info.load(Ordering::Acquire) >> 12 & 7) as u8);
                let (is_soft, time_s) = (entry_id.is_soft(), entry.time_s());
                let (name, who) = (String::new(), String::new());
                take(Cause { number, kind, is_soft, time_s, name, who });
            }
        }
    }

    /// Enters a purge, under the table's lock.
    pub(super) fn note(&self, note: &Note) {
        let reads = || self.entries.iter().map(|entry| (entry, entry.read()));
        let own = |read: &Read| matches!(read, Read::Whole { entry_id, .. } if *entry_id == note.entry_id);
        if let Some((entry, _)) = reads().find(|(_, read)| own(read)) {
            return entry.replace(note);
        }
        if let Some((entry, _)) = reads().find(|(_, read)| *read == Read::Empty) {
            return entry.fill(note);
        }
        let oldest = reads().min_by_key(|(_, read)| match read {
            Read::Whole { number, .. } => *number,
            Read::Empty | Read::Torn => 0,
        });
        if let Some((entry, read)) = oldest {
            match read {
                Read::Whole { number, .. } => self.raise_floor(number),
                // Its name and its time are not known.
                Read::Torn => self.raise_floor(note.number),
                Read::Empty => {}
            }
            entry.fill(note);
        }
    }

    /// Undoes a purge, under the table's lock. `time_of` gives the time of a purge in Unix seconds,
    /// if that is known.
    pub(super) fn undo(
        &self,
        entry_id: EntryId,
        number: u64,
        time_of: impl Fn(u64) -> Option<u64>,
    ) -> Result<(), UndoFault> {
        for entry in &self.entries {
            let Read::Whole { entry_id: its_label, number: its_number } = entry.read() else {
                continue;
            };
            if its_label != entry_id {
                continue;
            }
            return match its_number == number {
                true => entry.undo(entry_id, time_of),
                false if its_number > number => Err(UndoFault::Covered(its_number)),
                false => Err(UndoFault::Gone),
            };
        }
        Err(UndoFault::Gone)
    }

    /// Empties entries that do not match their seal, and raises the floor to `number` for them;
    /// under the table's lock. Says whether there were any.
    pub(super) fn repair(&self, number: u64) -> bool {
        let floor = self.floor.load(Ordering::Acquire);
        let mut is_torn = floor != 0 && unsealed(floor, FLOOR_SEED).is_none();
        if is_torn {
            self.floor.store(sealed(number, FLOOR_SEED), Ordering::Release);
        }
        for entry in &self.entries {
            if entry.read() == Read::Torn {
                self.raise_floor(number);
                entry.number.store(0, Ordering::Release);
                is_torn = true;
            }
        }
        is_torn
    }

    /// Calls `take` with the numbers in force and, for prefixes, their lengths.
    pub(super) fn each(&self, mut take: impl FnMut(u64, Option<usize>)) {
        for entry in &self.entries {
            if let Read::Whole { number, .. } = entry.read() {
                let info = entry.info.load(Ordering::Relaxed);
                let is_prefix = (info >> 12 & 7) as u8 == PurgeKind::Prefix.code();
                take(number, is_prefix.then_some((info & LEN_MASK) as usize));
            }
        }
    }

    /// The floor, if there is one.
    #[cfg(test)]
    pub(super) fn floor(&self) -> Option<u64> {
        unsealed(self.floor.load(Ordering::Acquire), FLOOR_SEED)
    }

    fn raise_floor(&self, number: u64) {
        let floor = unsealed(self.floor.load(Ordering::Acquire), FLOOR_SEED);
        let floor = floor.map_or(number, |floor| floor.max(number));
        self.floor.store(sealed(floor, FLOOR_SEED), Ordering::Release);
    }
}

impl Entry {
    fn read(&self) -> Read {
        for _ in 0..READS_MAX {
            let word = self.number.load(Ordering::Acquire);
            if word == 0 {
                return Read::Empty;
            }
            let hash = self.hash.load(Ordering::Acquire);
            if let Some(number) = unsealed(word, hash) {
                return Read::Whole { entry_id: EntryId(hash), number };
            }
            if self.number.load(Ordering::Acquire) == word {
                return Read::Torn;
            }
        }
        Read::Torn
    }

    /// Fills an entry. An earlier purge in it must be covered by the floor.
    fn fill(&self, note: &Note) {
        self.number.store(0, Ordering::Release);
        fence(Ordering::SeqCst);
        self.hash.store(note.entry_id.0, Ordering::Release);
        self.before.store(0, Ordering::Release);
        self.info.store(info(note, false), Ordering::Release);
        self.number.store(sealed(note.number, note.entry_id.0), Ordering::Release);
    }

    /// Replaces the purge by a later one of the same name.
    fn replace(&self, note: &Note) {
        let seed = note.entry_id.0;
        let number = unsealed(self.number.load(Ordering::Acquire), seed);
        let is_cut = self.is_cut() || number.is_none() || self.before(note.entry_id) != Ok(None);
        let before = number.map_or(0, |number| sealed(number, seed));
        self.info.store(info(note, is_cut), Ordering::Release);
        self.before.store(before, Ordering::Release);
        self.number.store(sealed(note.number, seed), Ordering::Release);
    }

    fn undo(
        &self,
        entry_id: EntryId,
        time_of: impl Fn(u64) -> Option<u64>,
    ) -> Result<(), UndoFault> {
        match self.before(entry_id) {
            // The flag for more covered purges is set already.
            Ok(Some(before)) => {
                // The time comes first: if this process dies here, the response is only staler than
                // needed.
                if let Some(time_s) = time_of(before) {
                    let info = self.info.load(Ordering::Acquire) & u64::from(u32::MAX);
                    self.info.store(in_time(time_s) | info, Ordering::Release);
                }
                self.number.store(sealed(before, entry_id.0), Ordering::Release);
                self.before.store(0, Ordering::Release);
                Ok(())
            }
            Ok(None) if !self.is_cut() => {
                self.number.store(0, Ordering::Release);
                Ok(())
            }
            Ok(None) | Err(()) => Err(UndoFault::Gone),
        }
    }

    /// The purge that this one covers, if any; an error if that is torn.
    fn before(&self, entry_id: EntryId) -> Result<Option<u64>, ()> {
        let word = self.before.load(Ordering::Acquire);
        if word == 0 {
            return Ok(None);
        }
        let (before, number) = (unsealed(word, entry_id.0), self.number.load(Ordering::Acquire));
        // A process that died while it replaced or undid the number left the same number here.
        before.map(|before| (sealed(before, entry_id.0) != number).then_some(before)).ok_or(())
    }

    fn is_cut(&self) -> bool {
        self.info.load(Ordering::Acquire) & CUT != 0
    }

    fn time_s(&self) -> u64 {
        self.info.load(Ordering::Acquire) >> 32
    }
}

/// A number of at most 40 bits with its seal above it; never 0.
pub(super) fn sealed(number: u64, seed: u64) -> u64 {
    let number = number & NUMBER_MAX;
    seal(number, seed) << NUMBER_BITS | number
}

/// The number of a sealed word; `None` if the seal is not right.
pub(super) fn unsealed(word: u64, seed: u64) -> Option<u64> {
    let number = word & NUMBER_MAX;
    (word >> NUMBER_BITS == seal(number, seed)).then_some(number)
}

fn seal(number: u64, seed: u64) -> u64 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&seed.to_le_bytes()), &number.to_le_bytes());
    // Never 0, so that no written word is 0.
    u64::from(crc >> 8).max(1)
}

/// A time at its place in the info.
fn in_time(time_s: u64) -> u64 {
    u64::from(u32::try_from(time_s).unwrap_or(u32::MAX)) << 32
}

fn info(note: &Note, is_cut: bool) -> u64 {
    let len = note.len as u64 & LEN_MASK;
    in_time(note.time_s) | u64::from(note.kind.code()) << 12 | len | if is_cut { CUT } else { 0 }
}

/// The largest number.
pub(super) const NUMBER_MAX: u64 = (1 << NUMBER_BITS) - 1;
/// Bits of a number.
pub(super) const NUMBER_BITS: u32 = 40;

const FLOOR_SEED: u64 = 0x6b74_7269_7866_6c6f;
const LEN_MASK: u64 = 0xfff;
const CUT: u64 = 1 << 15;
const READS_MAX: usize = 16;

/// A purge that names a stored response, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Its number.
    pub number: u64,
    /// The kind of its name; `None` if it was written by another version.
    pub kind: Option<PurgeKind>,
    /// Whether it is a soft purge.
    pub is_soft: bool,
    /// When, in Unix seconds.
    pub time_s: u64,
    /// The name as it was given; empty if it is not known.
    pub name: String,
    /// The client or user that requested it; empty if unknown, or if an origin did.
    pub who: String,
}
