//! Index and store in step: a slot stands for a file, whoever dies or interleaves.
//!
//! Putting renames the file, then publishes; discarding empties the slot, then unlinks. Between
//! two processes that do both for one key at once, a discard may unlink the file that a put has just
//! renamed. So each looks once more when it is done: the put whether its file is there, the discard
//! whether a slot stands without one. Whichever acts last sees what the other did.

use crate::cache::files::store::Store;
use crate::cache::files::writer::Finished;
use crate::cache::index::Index;
use crate::cache::index::slot::PublishError;
use crate::cache::index::slot::Published;
use crate::cache::index::slot::{NewSlot, SlotView};
use crate::policy::key::Key;

/// Why a finished file was not kept.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The index would not have it.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The file could not be given its name.
    #[error("cannot rename a cache file into place: {0}")]
    Rename(std::io::Error),
    /// Another process removed it as it came.
    #[error("the cache file was removed as it was published")]
    Removed,
}

/// Renames `finished` into place and publishes `new`, whose lengths and stamp are taken from it.
/// The file of a key that had to make way is unlinked.
///
/// # Errors
///
/// See [`PutError`]; neither file nor slot is left behind.
pub fn put(
    index: &Index,
    store: &Store,
    finished: Finished,
    new: &NewSlot,
) -> Result<Published, PutError> {
    let new = NewSlot {
        head_len: finished.head_len,
        body_len: finished.body_len,
        stamp: finished.stamp,
        ..*new
    };
    // An older slot of this key may let less in than its file will weigh; publish decides.
    let old_bytes = index.lookup(&new.key).map_or(0, |old| old.weight_bytes());
    if !index.has_room(new.weight_bytes().saturating_sub(old_bytes)) {
        return Err(PublishError::NoRoom.into());
    }
    finished.commit(&new.key).map_err(PutError::Rename)?;
    let published = index.publish(&new).inspect_err(|_| {
        discard(index, store, &new.key, None);
    })?;
    if let Some((key, _)) = published.evicted {
        unlink_behind(index, store, &key);
    }
    if !store.exists(&new.key) {
        index.remove(&new.key, Some(published.generation));
        return Err(PutError::Removed);
    }
    Ok(published)
}

/// Removes the key's slot (if it is of this generation, when one is given), then its file.
/// Returns what the slot held; without a matching slot nothing is unlinked, but for a `generation`
/// of `None`.
pub fn discard(
    index: &Index,
    store: &Store,
    key: &Key,
    generation: Option<u32>,
) -> Option<SlotView> {
    let removed = index.remove(key, generation);
    if removed.is_some() || generation.is_none() {
        unlink_behind(index, store, key);
    }
    removed
}

/// Removes what is stored under a key, also while the index does not know of all files yet: what
/// may not be used any more must not be taken in later.
pub fn forget(index: &Index, store: &Store, key: &Key) {
    if index.table().is_partial() {
        // Before the slot goes: who dies in between must not leave a file that counts as one that
        // was never looked at.
        let _ = store.unlink(key);
    } else if index.lookup(key).is_none() {
        // Most keys that are written to were never read: finding that out costs no system call.
        return;
    }
    discard(index, store, key, None);
}

fn unlink_behind(index: &Index, store: &Store, key: &Key) {
    // A file that cannot be unlinked is an orphan for the scrub; without a slot it is never served.
    let _ = store.unlink(key);
    if let Some(view) = index.lookup(key)
        && view.state.has_file()
        && !store.exists(key)
    {
        index.remove(key, Some(view.generation));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cache::index::slot::State;
    use crate::policy::key::key_of;

    /// An index and a store in a directory that goes with them.
    pub(crate) fn cache(n_objects: usize) -> (tempfile::TempDir, Index, Store) {
        let dir = tempfile::tempdir().unwrap();
        let (index, _) = Index::open(dir.path(), n_objects).unwrap();
        index.attach().unwrap();
        let store = Store::open(dir.path(), index.epoch()).unwrap();
        (dir, index, store)
    }

    /// A slot for this key text.
    pub(crate) fn slot(text: &str) -> NewSlot {
        NewSlot {
            key: key_of(text.as_bytes()),
            state: State::Ready,
            flags: 0,
            status: 200,
            stored_s: 1,
            fresh_until_s: 2,
            swr_until_s: 0,
            sie_until_s: 0,
            age_s: 0,
            head_len: 0,
            body_len: 0,
            stamp: 0,
        }
    }

    /// Stores an object of this key text and body.
    pub(crate) fn store_one(
        index: &Index,
        store: &Store,
        text: &str,
        body: &[u8],
    ) -> Result<Published, PutError> {
        let id = u64::from(index.objects() as u32) + 1;
        let mut writer = store.begin(id, text.as_bytes(), b"m", 200, b"", None).unwrap();
        writer.append(body).unwrap();
        put(index, store, writer.finish().unwrap(), &slot(text))
    }

    #[test]
    fn what_is_put_is_found_with_its_stamp_and_lengths() {
        let (_dir, index, store) = cache(10);
        store_one(&index, &store, "a", b"body").unwrap();
        let view = index.lookup(&slot("a").key).unwrap();
        let object = store.open_object(&view.key, b"a").unwrap().unwrap();
        assert_eq!((view.stamp, view.body_len), (object.stamp.get(), 4));
        assert_eq!(view.head_len, object.head_len());
        assert!(discard(&index, &store, &view.key, Some(view.generation + 1)).is_none());
        assert!(store.exists(&view.key));
        assert!(discard(&index, &store, &view.key, Some(view.generation)).is_some());
        assert!(!store.exists(&view.key) && index.lookup(&view.key).is_none());
    }

    #[test]
    fn a_cache_that_is_full_leaves_no_file_behind() {
        let (dir, index, store) = cache(100);
        index.set_size(40 * 4096);
        for n in 0..60 {
            let stored = store_one(&index, &store, &n.to_string(), b"x");
            assert_eq!(stored.is_ok(), n < 42, "{n}");
        }
        assert!((0..60).all(|n| store.exists(&slot(&n.to_string()).key) == (n < 42)));
        assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn what_is_forgotten_goes_with_its_slot_and_without_one_while_files_are_taken_in() {
        let (_dir, index, store) = cache(10);
        for (has_slot, is_partial) in [(true, true), (false, true), (true, false)] {
            store_one(&index, &store, "a", b"body").unwrap();
            let key = slot("a").key;
            if !has_slot {
                index.remove(&key, None);
            }
            if !is_partial {
                index.table().set_complete();
            }
            forget(&index, &store, &key);
            assert!(!store.exists(&key) && index.lookup(&key).is_none(), "{has_slot} {is_partial}");
        }
        forget(&index, &store, &slot("b").key);
    }

    #[test]
    fn a_slot_that_made_way_takes_its_file_along() {
        let (_dir, index, store) = cache(1);
        (0..150).for_each(|n| {
            store_one(&index, &store, &n.to_string(), b"x").unwrap();
        });
        let n_slots = index.iter().count();
        assert!(n_slots < 150);
        let n_files = (0..150).filter(|n| store.exists(&slot(&n.to_string()).key)).count();
        assert_eq!(n_files, n_slots);
    }

    #[test]
    fn putting_and_discarding_at_once_leaves_no_slot_without_a_file() {
        let (_dir, index, store) = cache(100);
        let (index, store) = (&index, &store);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..400 {
                    let text = (n % 3).to_string();
                    let id = 1_000_000 + n;
                    let writer = store.begin(id, text.as_bytes(), b"", 200, b"", None).unwrap();
                    let _ = put(index, store, writer.finish().unwrap(), &slot(&text));
                }
            });
            scope.spawn(|| {
                for n in 0..600 {
                    discard(index, store, &slot(&(n % 3).to_string()).key, None);
                }
            });
        });
        assert!(index.iter().all(|view| store.exists(&view.key)));
    }
}
