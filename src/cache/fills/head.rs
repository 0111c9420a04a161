//! The head of the table of fills: the numbers that it gives, and what the disk has refused.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cache::fills::refused::Refusals;
use crate::sys::shm::shared_struct;

shared_struct! {
    /// The head: the group locks follow the owner rows.
    #[derive(Debug)]
    pub(super) struct Head: 64 bytes, aligned 64 {
        next_id: AtomicU64,
        first_id: AtomicU64,
        /// The refusals of the disk.
        pub(super) store: Refusals,
        pub(super) read: Refusals,
    }
}

impl Head {
    /// Sets the first number, unless another process did.
    pub(super) fn begin(&self) {
        let begin = |word: &AtomicU64, id| {
            let _ = word.compare_exchange(0, id, Ordering::AcqRel, Ordering::Relaxed);
        };
        begin(&self.first_id, first_id());
        begin(&self.next_id, self.first_id.load(Ordering::Acquire));
    }

    /// The number of the next fill.
    pub(super) fn next_number(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::AcqRel).max(1)
    }

    /// The numbers that were given so far.
    pub(super) fn numbers(&self) -> Range<u64> {
        self.first_id.load(Ordering::Acquire)..self.next_id.load(Ordering::Acquire)
    }
}

/// Microseconds since 1970: a number that no earlier table gave, as long as none started more
/// than a million fills a second.
fn first_id() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |since| since.as_micros() as u64).max(1)
}
