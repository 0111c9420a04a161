//! Removing the temporary files that killed workers left.
//!
//! A file is named by its fill's number, so the table of fills knows whether it is in use. A fill
//! that ends frees its entry in the table and its file at nearly the same time. So a file is
//! removed only if two looks, some time apart, found that its fill is over.
//!
//! One master at a time has the directory ([`directory_lock`](crate::cache::directory_lock)), but
//! the children of a killed master may still finish their fills. Those are not in the table of this
//! master, and have lower numbers: such a file is removed only if nothing was written to it for a
//! while.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use crate::cache::files::store::{Store, TMP};
use crate::cache::fills::Fills;
use crate::cache::maintenance::reconcile::{ORPHAN_AGE, age, list};

/// The cleanup: remembers the files that the last look suspected.
#[derive(Debug)]
pub struct TempCleanup {
    /// Which numbers belong to fills of this master.
    older_fills: OlderFills,
    suspects: Vec<u64>,
}

/// Whether fills of an earlier master may still run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OlderFills {
    /// None runs: no child of an earlier master used the cache when it was opened.
    Ended,
    /// Some may run: only numbers of this master's table are known.
    MayRun,
}

impl TempCleanup {
    /// A cleanup that suspects no file yet.
    pub const fn new(older_fills: OlderFills) -> Self {
        Self { older_fills, suspects: Vec::new() }
    }

    /// Looks once, removes the files that an earlier look suspected too, and returns their number.
    /// To be called about every second.
    pub fn look(&mut self, store: &Store, fills: &Fills) -> usize {
        // Files first, then the table: a fill is in the table before it has a file.
        let files = list(&store.dir().join(TMP));
        if files.is_empty() {
            self.suspects.clear();
            return 0;
        }
        let numbers = self.numbers(fills);
        let under_way = fills.under_way();
        let suspects = std::mem::take(&mut self.suspects);
        let mut n_removed = 0;
        for path in &files {
            let id = number_of(path).filter(|id| numbers.contains(id));
            if id.is_some_and(|id| under_way.binary_search(&id).is_ok()) {
                continue;
            }
            let is_confirmed = id.is_some_and(|id| suspects.contains(&id));
            let age_min = if is_confirmed { DEAD_AGE } else { ORPHAN_AGE };
            if age(path).is_some_and(|age| age >= age_min) && std::fs::remove_file(path).is_ok() {
                n_removed += 1;
            } else {
                self.suspects.extend(id);
            }
        }
        n_removed
    }

    fn numbers(&self, fills: &Fills) -> Range<u64> {
        let numbers = fills.numbers();
        match self.older_fills {
            OlderFills::Ended => 0..numbers.end,
            OlderFills::MayRun => numbers,
        }
    }
}

/// A suspected file is removed if nothing was written to it for this long.
const DEAD_AGE: Duration = Duration::from_secs(1);

fn number_of(path: &Path) -> Option<u64> {
    u64::from_str_radix(path.file_name()?.to_str()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::fills::LeaseResult;
    use crate::policy::key::key_of;
    use std::fs::{File, OpenOptions};
    use std::path::PathBuf;
    use std::time::SystemTime;

    fn make(store: &Store, id: u64, age: Duration) -> PathBuf {
        let path = store.fill_path(id);
        File::create(&path).unwrap();
        age_by(&path, age);
        path
    }

    fn age_by(path: &Path, age: Duration) {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    fn table() -> (tempfile::TempDir, Store, Fills) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), 1).unwrap();
        let fills = Fills::create(10).unwrap();
        fills.attach(0).unwrap();
        (dir, store, fills)
    }

    #[test]
    fn the_file_of_a_dead_fill_is_removed_at_the_second_look_and_one_in_use_stays() {
        let (_dir, store, fills) = table();
        let [LeaseResult::Leader(over), LeaseResult::Leader(live)] =
            [b"a", b"b"].map(|key| fills.lease(&key_of(key), 0, 0))
        else {
            panic!("the table is full")
        };
        let old = Duration::from_secs(1000);
        let (over_path, live_path) =
            (make(&store, over.id(), Duration::ZERO), make(&store, live.id(), old));
        let mut cleanup = TempCleanup::new(OlderFills::MayRun);
        assert_eq!(cleanup.look(&store, &fills), 0);
        fills.failed(over, 0);
        for _ in 0..2 {
            assert_eq!(cleanup.look(&store, &fills), 0, "over, and just written to");
        }
        age_by(&over_path, DEAD_AGE * 2);
        assert_eq!(cleanup.look(&store, &fills), 1);
        assert!(!over_path.exists() && live_path.exists());
        fills.failed(live, 0);
        age_by(&live_path, DEAD_AGE * 2);
        assert_eq!(cleanup.look(&store, &fills), 0, "the first look only suspects");
        assert_eq!(cleanup.look(&store, &fills), 1);
    }

    #[test]
    fn a_file_of_another_master_has_to_be_old() {
        let (_dir, store, fills) = table();
        let numbers = fills.numbers();
        let some_time = DEAD_AGE * 5;
        let earlier = make(&store, numbers.start - 9, some_time);
        let later = make(&store, numbers.end + 9, some_time);
        let foreign = store.dir().join(TMP).join("readme");
        File::create(&foreign).unwrap();
        let mut cleanup = TempCleanup::new(OlderFills::MayRun);
        assert_eq!([0; 3].map(|_| cleanup.look(&store, &fills)), [0; 3]);
        let mut alone = TempCleanup::new(OlderFills::Ended);
        assert_eq!([0; 3].map(|_| alone.look(&store, &fills)), [0, 1, 0]);
        assert!(!earlier.exists() && later.exists());
        age_by(&later, ORPHAN_AGE * 2);
        age_by(&foreign, ORPHAN_AGE * 2);
        assert_eq!(cleanup.look(&store, &fills), 2);
    }
}
