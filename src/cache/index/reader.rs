//! The index for a command beside a running ktrix: mapped for reading only.
//!
//! A command cannot disturb a worker: it takes no lock, sets no mark, claims no row, and cannot
//! write to the file. If a writer is changing a bucket, the command waits for it, and never the
//! other way round.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::cache::index::bucket::{Look, SLOTS};
use crate::cache::index::slot::{self, SlotAt, SlotRef, SlotView};
use crate::cache::index::table::{IndexError, Table, without_debt};
use crate::policy::key::Key;

/// How often a bucket is read again that is being written, or that a dead writer left.
const LOOKS_MAX: usize = 50;

/// The time between two of these looks.
const PAUSE: Duration = Duration::from_millis(1);

/// An index that is mapped for reading only.
#[derive(Debug)]
pub struct IndexReader {
    table: Table,
}

impl IndexReader {
    /// The index that is in `dir`, of whatever size.
    ///
    /// # Errors
    ///
    /// When there is no index, or not one of this version, or it may not be read.
    pub fn open(dir: &Path) -> Result<Self, IndexError> {
        Ok(Self { table: Table::open_for_reading(dir)? })
    }

    /// The slot of `key`, as of one moment. Waits up to 100 ms for writers.
    pub fn lookup(&self, key: &Key) -> Option<SlotView> {
        let halves = slot::halves(key);
        let home = self.table.home(halves[0]);
        self.look(home, halves).or_else(|| self.look(home + 1, halves))
    }

    /// Whether the slot still is of this publication.
    pub fn is_current(&self, slot: SlotRef) -> bool {
        let (number, i) = (slot.at.0 as usize / SLOTS, slot.at.0 as usize % SLOTS);
        self.table.buckets.get(number).is_some_and(|bucket| bucket.generation(i) == slot.generation)
    }

    /// How many answers were given from what is in the slot since it was published.
    pub fn hits(&self, at: SlotAt) -> u32 {
        self.table.hits_of(at).map_or(0, |hits| hits.load(Ordering::Relaxed))
    }

    /// All slots, each as of one moment; `None` for an empty one, or one that a dead writer left
    /// half-written.
    pub fn slots(&self) -> impl Iterator<Item = Option<SlotView>> {
        (0..self.n_slots()).map(|number| self.slot(SlotAt(number)))
    }

    /// How many slots there are, empty ones included.
    pub fn n_slots(&self) -> u32 {
        (self.table.buckets.len() * SLOTS) as u32
    }

    /// Disk bytes of all files.
    pub fn bytes(&self) -> u64 {
        without_debt(self.table.header().bytes.load(Ordering::Relaxed))
    }

    /// Slots that are taken.
    pub fn objects(&self) -> u64 {
        without_debt(self.table.header().objects.load(Ordering::Relaxed))
    }

    /// How many objects it was made for.
    pub fn n_objects_max(&self) -> u64 {
        self.table.header().n_objects_max.load(Ordering::Relaxed)
    }

    /// The limit that the master set; 0 if none did yet.
    pub fn size_bytes(&self) -> u64 {
        self.table.header().size_bytes.load(Ordering::Relaxed)
    }

    /// The epoch of the stamps.
    pub fn epoch(&self) -> u32 {
        self.table.header().epoch.load(Ordering::Relaxed)
    }

    /// Faults of the table itself: buckets that are torn, half-written, or locked by a dead
    /// process.
    pub fn faults(&self) -> impl Iterator<Item = String> {
        self.table.buckets.iter().enumerate().filter_map(|(number, bucket)| {
            let fault = bucket.fault(&self.table.owners)?;
            Some(format!("bucket {number} {fault}"))
        })
    }

    fn look(&self, number: usize, halves: [u64; 2]) -> Option<SlotView> {
        let bucket = self.table.buckets.get(number)?;
        for _ in 0..LOOKS_MAX {
            match bucket.look(halves) {
                Look::Absent => return None,
                Look::Found(i, words) => {
                    let at = SlotAt((number * SLOTS + i) as u32);
                    let view = SlotView::from_words(&words, bucket.is_visited(i), at);
                    if view.is_some() {
                        return view;
                    }
                }
                Look::Busy => {}
            }
            std::thread::sleep(PAUSE);
        }
        None
    }

    fn slot(&self, at: SlotAt) -> Option<SlotView> {
        let (number, i) = (at.0 as usize / SLOTS, at.0 as usize % SLOTS);
        let bucket = self.table.buckets.get(number)?;
        for _ in 0..LOOKS_MAX {
            if let Some(words) = bucket.copy(i) {
                return SlotView::from_words(&words, bucket.is_visited(i), at);
            }
            std::thread::sleep(PAUSE);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::place::tests::{cache, slot, store_one};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_sees_what_is_published_and_leaves_no_trace() {
        let (dir, index, store) = cache(100);
        let texts: Vec<String> = (0..50).map(|n| format!("GET http://a/{n}")).collect();
        for text in &texts {
            store_one(&index, &store, text, b"body").unwrap();
        }
        let before = fs::read(dir.path().join("index")).unwrap();
        let reading = IndexReader::open(dir.path()).unwrap();
        for text in &texts {
            let view = reading.lookup(&slot(text).key).unwrap();
            assert_eq!(Some(view), index.lookup(&slot(text).key), "{text}");
            assert!(reading.is_current(view.slot_ref()));
        }
        assert_eq!(reading.slots().flatten().count(), texts.len());
        assert_eq!(reading.lookup(&slot("GET http://b/").key), None);
        assert_eq!(reading.faults().count(), 0);
        assert_eq!(fs::read(dir.path().join("index")).unwrap(), before);
        index.remove(&slot(&texts[0]).key, None);
        assert_eq!(reading.lookup(&slot(&texts[0]).key), None, "the mapping is shared");
    }

    #[test]
    fn read_permission_is_enough() {
        let (dir, index, store) = cache(100);
        store_one(&index, &store, "a", b"body").unwrap();
        let path = dir.path().join("index");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
        let reading = IndexReader::open(dir.path()).unwrap();
        assert!(reading.lookup(&slot("a").key).is_some());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    }

    #[test]
    fn a_foreign_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(IndexReader::open(dir.path()), Err(IndexError::NotOurs(_))));
        fs::write(dir.path().join("index"), vec![0; 1 << 16]).unwrap();
        assert!(matches!(IndexReader::open(dir.path()), Err(IndexError::NotOurs(_))));
    }

    /// A thread that writes one bucket again and again, as a worker would under load.
    #[test]
    fn a_busy_bucket_hides_nothing() {
        let (dir, index, store) = cache(3);
        for text in ["x", "y"] {
            store_one(&index, &store, text, b"body").unwrap();
        }
        let reading = IndexReader::open(dir.path()).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for _ in 0..20_000 {
                    index.publish(&slot("y")).unwrap();
                }
            });
            while !writer.is_finished() {
                assert!(reading.lookup(&slot("x").key).is_some());
                assert!(reading.lookup(&slot("y").key).is_some());
                assert_eq!(reading.slots().flatten().count(), 2);
            }
        });
    }
}
