//! Signs of life: a counter per process in shared memory, which the process in it moves on while
//! its event loop turns. A process that hangs or was stopped does not.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::shm::{SharedMap, SharedSlice};

/// The counters of all process slots.
#[derive(Debug)]
pub struct Beats {
    counters: SharedSlice<AtomicU64>,
}

impl Beats {
    /// Counters for `n` process slots; call before forking.
    ///
    /// # Errors
    /// An error of the system: not enough shared memory.
    pub(crate) fn create(n: usize) -> io::Result<Self> {
        let counters = SharedMap::anonymous(n * size_of::<AtomicU64>())?.slice(0, n)?;
        Ok(Self { counters })
    }

    /// The process in this process slot is alive.
    pub(crate) fn beat(&self, slot: usize) {
        if let Some(counter) = self.counters.get(slot) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often it was, by all processes that had the process slot.
    pub(crate) fn count(&self, slot: usize) -> u64 {
        self.counters.get(slot).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}
