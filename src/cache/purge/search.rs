//! For which paths anything may be stored that answers for more than one query (No-Vary-Search).
//!
//! Only there an unsafe request has to purge the path: writes to all others would fill the table
//! for nothing. Two bitmaps, by a hash of the path and without a lock: of the paths that have had
//! such a response, and of those that were written to while they had none. Neither ever loses a
//! bit. One that is set for another path of the same hash costs a purge that names nothing.
//!
//! ```text
//! response: had ◀─ 1, unless it is ─▶ written? ─▶ purge: it may have been asked for before that
//! write:    written ◀─ 1 ─▶ had? ─▶ purge
//! ```
//!
//! Whichever of the two comes last sees the other's bit. After a restart of the machine the bits
//! of the last moments may be lost though what was stored is not: then every path counts as one
//! that had a response. A new file has no bits, as nothing that is stored counts with it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::cache::purge::{Order, PurgeError, Purges};
use crate::policy::purge::surrogate::{Kind, SurrogateHash};
use crate::sys::shm::shared_struct;

shared_struct! {
    /// Both bitmaps.
    #[derive(Debug)]
    pub(super) struct Searches: 131072 bytes, aligned 64 {
        had: [AtomicU64; WORDS],
        written: [AtomicU64; WORDS],
    }
}

impl Purges {
    /// Purges, on nobody's order, what is stored for queries of a path that was written to, if
    /// anything may be; gives the purge's number.
    ///
    /// # Errors
    ///
    /// As [`Purges::purge`].
    pub fn purge_search(&self, path: &[u8], now_s: u64) -> Result<Option<u64>, PurgeError> {
        let (word, bit) = place_of(path);
        set(&self.searches().written[word], bit);
        if !has(&self.searches().had[word], bit) {
            return Ok(None);
        }
        self.purge(&order(path), now_s).map(Some)
    }

    /// Takes note that a response for more than one query of this path came, before it is stored.
    /// Purges the path if it was written to while nobody knew that, which may have been since the
    /// response was asked for.
    ///
    /// # Errors
    ///
    /// As [`Purges::purge`].
    pub fn expect_search(&self, path: &[u8], now_s: u64) -> Result<(), PurgeError> {
        let (word, bit) = place_of(path);
        let is_first = set(&self.searches().had[word], bit);
        if is_first && has(&self.searches().written[word], bit) {
            self.purge(&order(path), now_s)?;
        }
        Ok(())
    }

    /// Has every path count as one that had such a response.
    pub(super) fn expect_all_searches(&self) {
        self.searches().had.iter().for_each(|word| word.store(u64::MAX, Ordering::SeqCst));
    }

    fn searches(&self) -> &Searches {
        // It is mapped as a slice of exactly one.
        &self.parts.searches[0]
    }
}

fn order(path: &[u8]) -> Order {
    let (name, who) = (String::new(), String::new());
    Order { kind: Kind::Search, text: path.to_vec(), is_soft: false, name, who }
}

/// Sets a bit; says whether it was not set. It is stored only then, so that the line stays shared.
fn set(word: &AtomicU64, bit: u64) -> bool {
    !has(word, bit) && word.fetch_or(bit, Ordering::SeqCst) & bit == 0
}

fn has(word: &AtomicU64, bit: u64) -> bool {
    word.load(Ordering::SeqCst) & bit != 0
}

fn place_of(path: &[u8]) -> (usize, u64) {
    // The lowest bit of a hash is not its own.
    let hash = (SurrogateHash::of(Kind::Search, path).0 >> 1) as usize;
    (hash / 64 % WORDS, 1 << (hash % 64))
}

/// Words of each bitmap: half a million bits.
const WORDS: usize = 8192;
