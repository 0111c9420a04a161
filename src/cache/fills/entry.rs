//! One entry of the table of fills: its words, its marks and how far its fill is; and where in the
//! table the entries are.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::shared::wake::{PROCESS_SLOTS_MAX, ProcessSet};
use crate::sys::shm::shared_struct;

shared_struct! {
    /// A fill in the table.
    #[derive(Debug)]
    pub(super) struct Entry: 128 bytes, aligned 64 {
        pub(super) key: [AtomicU64; 2],
        pub(super) id: AtomicU64,
        pub(super) owner: AtomicU32,
        pub(super) state: AtomicU32,
        pub(super) bytes: AtomicU64,
        pub(super) total: AtomicU64,
        pub(super) followers: [AtomicU64; 2],
        pub(super) purge_epoch: AtomicU64,
        pub(super) is_counted: AtomicU32,
        _half: AtomicU32,
        _rest: [AtomicU64; 6],
    }
}

impl Entry {
    pub(super) fn is_of(&self, halves: [u64; 2]) -> bool {
        self.key.iter().zip(halves).all(|(word, half)| word.load(Ordering::Relaxed) == half)
    }

    /// Whether it is the entry of this key, or of one beside it.
    pub(super) fn is_beside(&self, halves: [u64; 2]) -> bool {
        self.key[0].load(Ordering::Relaxed) == halves[0]
    }

    /// Writes the total, or a code in its place, and leaves the mark of a doomed fill.
    pub(super) fn set_total(&self, total: u64) {
        let keep = |word| Some((word & DOOMED) | total);
        let _ = self.total.fetch_update(Ordering::SeqCst, Ordering::SeqCst, keep);
    }

    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.state.load(Ordering::Acquire), FETCHING | STREAMING)
    }

    pub(super) fn is_doomed(&self) -> bool {
        self.total.load(Ordering::SeqCst) & DOOMED != 0
    }

    pub(super) fn followers(&self) -> ProcessSet {
        let [low, high] = [0, 1].map(|i| u128::from(self.followers[i].load(Ordering::SeqCst)));
        ProcessSet(high << 64 | low)
    }
}

/// A mark in an entry's total.
pub(super) const DOOMED: u64 = 1 << 63;
/// The total of a body of unknown length.
pub(super) const UNKNOWN: u64 = DOOMED - 1;

pub(super) const FETCHING: u32 = 1;
pub(super) const STREAMING: u32 = 2;
pub(super) const DONE: u32 = 3;
pub(super) const FAILED: u32 = 4;
pub(super) const PASS: u32 = 5;

/// Entries of a group: the most fills at once among keys that share a group.
pub(super) const GROUP: usize = 16;

/// Process slots, and rows for those without one.
pub(super) const ROWS: usize = PROCESS_SLOTS_MAX + 32;
pub(super) const ROWS_AT: usize = 64;
pub(super) const LOCKS_AT: usize = ROWS_AT + ROWS * 32;

pub(super) fn n_groups(n: usize) -> usize {
    // Keys do not spread evenly over the groups, so the table has twice the room.
    (n.saturating_mul(2)).div_ceil(GROUP).max(4)
}

pub(super) fn entries_at(n_groups: usize) -> usize {
    (LOCKS_AT + n_groups * 4).next_multiple_of(64)
}

pub(super) fn len_of(n: usize) -> io::Result<usize> {
    const N_MAX: usize = 1 << 24;
    if n > N_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many fills"));
    }
    let n_groups = n_groups(n);
    Ok(entries_at(n_groups) + n_groups * GROUP * size_of::<Entry>())
}

/// How far a fill is. Bytes are of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillState {
    /// No head yet.
    Fetching,
    /// The file can be opened, and has some bytes of the body.
    Streaming {
        /// Readable bytes.
        bytes: u64,
        /// The length of the body, if known.
        total: Option<u64>,
    },
    /// All bytes are there; the file has or had its final name.
    Done {
        /// Readable bytes.
        bytes: u64,
    },
    /// The fetch failed, or the leader died.
    Failed {
        /// The leader's code for the error; 0 if it gave none.
        code: u32,
    },
    /// The response is not stored: every client is fetched for alone.
    Pass,
    /// The entry holds another fill: look in the index.
    Gone,
}
