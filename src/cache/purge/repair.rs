//! What a table of purges needs when it is opened: what is torn in it is repaired, and after a
//! restart of the machine its count goes on far from where it was.
//!
//! After a loss of power the pages of the file may be of different times, and all of them older
//! than what is stored: then a response may know a number that the table has not given yet. If it
//! were given again, the response would count as asked for after a purge that came later. So no
//! number that may have been given before the restart is given after it.

use std::sync::atomic::Ordering;

use crate::cache::purge::Purges;
use crate::cache::purge::bucket::{Bucket, NUMBER_MAX, sealed, unsealed};
use crate::cache::purge::file::COUNT_SEED;
use crate::shared::owner;

/// More purges than can be lost with the power: they are written to the disk every second, and this
/// is what a disk that refuses to be written to may keep from it.
pub(super) const JUMP: u64 = 10_000_000;

impl Purges {
    /// Repairs what is torn, and sees to it that no number in the table is ahead of the last one,
    /// that none is given twice, and that no length is missing.
    pub(super) fn mend(&self) {
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
        let n_torn = self.mend_buckets(count);
        if n_torn > 0 {
            ::log::warn!(
                "{n_torn} parts of the table of purges were damaged: what they may have named \
                 is fetched anew"
            );
        }
        self.header().version.fetch_add(1, Ordering::SeqCst);
        if !is_same_boot {
            // If the power is lost again before it is on the disk, it is of an earlier boot still.
            match self.parts.map.flush() {
                Ok(()) => self.header().boot.store(owner::boot(), Ordering::Release),
                Err(error) => ::log::error!("cannot write the table of purges: {error}"),
            }
        }
    }

    /// Whether the machine has run without interruption since the table was made or last mended.
    pub(super) fn is_of_this_boot(&self) -> bool {
        let boot = owner::boot();
        boot != 0 && self.header().boot.load(Ordering::Acquire) == boot
    }

    fn mend_buckets(&self, count: u64) -> usize {
        let mend = |bucket: &Bucket| {
            let is_torn = bucket.mend(count);
            bucket.each(|_, len| len.into_iter().for_each(|len| self.set_length(len)));
            is_torn
        };
        self.parts.buckets.iter().filter(|bucket| mend(bucket)).count()
    }
}
