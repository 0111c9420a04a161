//! Repairing a table of purges when it is opened: torn entries are repaired and, after a restart of
//! the machine, its count goes on far above the last number.
//!
//! After a loss of power the pages of the file may be of different times, and all of them older
//! than the stored responses: a response may then have a number that the table has not given yet.
//! If that number were given again, the response would count as fetched after a later purge. So no
//! number that may have been given before the restart is given after it.

use std::sync::atomic::Ordering;

use crate::cache::purge::Purges;
use crate::cache::purge::bucket::{Bucket, NUMBER_MAX, sealed, unsealed};
use crate::cache::purge::file::COUNT_SEED;
use crate::shared::owner;

/// More purges than a loss of power can lose. The table is written to the disk every second; this
/// leaves room for a disk that fails for a while.
pub(super) const JUMP: u64 = 10_000_000;

impl Purges {
    /// Repairs torn entries, and ensures that no number in the table is above the last one, that
    /// none is given twice, and that no length is missing.
    pub(super) fn repair(&self) {
        let Ok(tenant) = self.tenant() else { return };
        let Ok(_lock) = self.lock(&tenant) else { return };
        let is_same_boot = self.is_of_this_boot();
        let tagged = self.header().tagged.load(Ordering::Acquire);
        let mut count = self.count().max(unsealed(tagged, COUNT_SEED).unwrap_or(0));
        for bucket in self.parts.buckets.iter() {
            bucket.each(|number, _| count = count.max(number));
        }
        if !is_same_boot {
            count = count.saturating_add(JUMP).min(NUMBER_MAX);
        }
        self.header().count.store(sealed(count, COUNT_SEED), Ordering::SeqCst);
        if tagged != 0 && unsealed(tagged, COUNT_SEED).is_none() {
            self.header().tagged.store(sealed(count, COUNT_SEED), Ordering::Release);
        }
        let n_torn = self.repair_buckets(count);
        if n_torn > 0 {
            ::log::warn!(
                "repaired {n_torn} damaged entries of the table of purges; objects that they may \
                 have named are fetched again"
            );
        }
        self.header().version.fetch_add(1, Ordering::SeqCst);
        if !is_same_boot {
            // If the power is lost again before this is on the disk, the table still has the id of
            // an earlier boot.
            match self.parts.map.flush() {
                Ok(()) => self.header().boot.store(owner::boot(), Ordering::Release),
                Err(error) => ::log::error!("cannot write the table of purges: {error}"),
            }
        }
    }

    /// Whether the machine has not restarted since the table was made or last repaired.
    pub(super) fn is_of_this_boot(&self) -> bool {
        let boot = owner::boot();
        boot != 0 && self.header().boot.load(Ordering::Acquire) == boot
    }

    fn repair_buckets(&self, count: u64) -> usize {
        let repair = |bucket: &Bucket| {
            let is_torn = bucket.repair(count);
            bucket.each(|_, len| len.into_iter().for_each(|len| self.set_length(len)));
            is_torn
        };
        self.parts.buckets.iter().filter(|bucket| repair(bucket)).count()
    }
}
