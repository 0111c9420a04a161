//! Repairing the index when a keeper starts: every bucket is checked once, in steps.
//!
//! The locks of a killed process are found by its owner row. This walk finds damage that no row
//! shows, such as a file that was damaged while it was not in use. A sound bucket is checked
//! without a lock.

use crate::cache::index::Index;

/// A walk under way.
#[derive(Clone, Copy, Debug, Default)]
pub struct IndexRepair {
    next: usize,
    report: Report,
}

/// The result of a walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Buckets that were locked by a dead process, half-written or torn.
    pub n_buckets: usize,
    /// Slots that had to be emptied.
    pub n_slots: usize,
}

impl IndexRepair {
    /// Looks at `n` buckets; true when all have been looked at.
    pub fn step(&mut self, index: &Index, n: usize) -> bool {
        let end = self.next.saturating_add(n).min(index.n_buckets());
        for n_emptied in (self.next..end).filter_map(|number| index.repair_bucket(number)) {
            self.report.n_buckets += 1;
            self.report.n_slots += n_emptied;
        }
        self.next = end;
        end == index.n_buckets()
    }

    /// The result so far.
    pub const fn report(&self) -> Report {
        self.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::index::table::Opened;
    use crate::cache::place::tests::{cache, slot, store_one};
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;

    const BUCKETS_AT: u64 = 20_480;
    const BUCKET_LEN: u64 = 512;

    fn repair(index: &Index, n: usize) -> Report {
        let mut walk = IndexRepair::default();
        while !walk.step(index, n) {}
        walk.report()
    }

    #[test]
    fn a_sound_index_is_left_as_it_is() {
        let (_dir, index, store) = cache(100);
        (0..80).for_each(|n| {
            store_one(&index, &store, &n.to_string(), b"x").unwrap();
        });
        for n in [1, 7, 1000] {
            assert_eq!(repair(&index, n), Report::default());
        }
        assert_eq!(index.objects(), 80);
    }

    #[test]
    fn noise_over_buckets_of_a_clean_file_is_repaired_and_the_rest_stays() {
        let (dir, index, store) = cache(100);
        (0..80).for_each(|n| {
            store_one(&index, &store, &n.to_string(), b"x").unwrap();
        });
        index.table().set_complete();
        assert!(index.mark_clean().unwrap());
        let n_buckets = index.n_buckets() as u64;
        drop(index);
        let file = OpenOptions::new().write(true).open(dir.path().join("index")).unwrap();
        // Even and odd sequence numbers, headers alone and whole buckets.
        for (number, byte) in (0..n_buckets).step_by(3).zip(0xc0_u8..) {
            let len = if number % 2 == 0 { 64 } else { BUCKET_LEN };
            let noise = vec![byte; len as usize];
            file.write_all_at(&noise, BUCKETS_AT + number * BUCKET_LEN).unwrap();
        }
        let (index, opened) = Index::open(dir.path(), 100).unwrap();
        assert_eq!(opened, Opened::Clean);
        index.attach().unwrap();
        assert_eq!(index.faults().count() as u64, n_buckets.div_ceil(3));
        let report = repair(&index, 5);
        assert_eq!(report.n_buckets as u64, n_buckets.div_ceil(3));
        assert!(report.n_slots >= 7, "{report:?}");
        assert_eq!((index.faults().count(), repair(&index, 5)), (0, Report::default()));
        index.recount();
        let n_found = (0..80).filter(|n| index.lookup(&slot(&n.to_string()).key).is_some());
        let n_found = n_found.count() as u64;
        assert!(n_found >= 30 && index.objects() == n_found, "{n_found} of {}", index.objects());
    }
}
