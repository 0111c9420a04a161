//! Index and store in step: every slot has its file, whichever process dies or interleaves.
//!
//! Putting renames the file, then publishes; discarding empties the slot, then unlinks. Between two
//! processes that do both for one key at once, a discard may unlink the file that a put has just
//! renamed. So each checks once more when it is done: the put whether its file is there, the
//! discard whether a slot is without one. The one that acts last sees what the other did.
//!
//! Renewing writes another head into the file that is there, then publishes over the slot that it
//! found, and only over that, so that a discard or a put in between stays in force. It checks for
//! its file afterwards as a put does.

use std::fs::File;
use std::io;

use crate::cache::files::object::Header;
use crate::cache::files::renewal::Renewal;
use crate::cache::files::store::Store;
use crate::cache::files::writer::Finished;
use crate::cache::index::Index;
use crate::cache::index::slot::PublishError;
use crate::cache::index::slot::Published;
use crate::cache::index::slot::{NewSlot, SlotView};
use crate::policy::key::Key;
use crate::sys::file;

/// Why a finished file was not kept.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The index refused it.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The file could not be given its name.
    #[error("cannot rename a cache file into place: {0}")]
    Rename(io::Error),
    /// Another process removed it as it came.
    #[error("the cache file was removed while it was published")]
    Removed,
}

/// Renames `finished` into place and publishes `new`, whose lengths and stamp are taken from it.
/// The file of a key that was evicted for it is unlinked.
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
    check_room(index, &new)?;
    let file = finished.commit(&new.key).map_err(PutError::Rename)?;
    let shown = show(index, &new, &file);
    if let Err(PutError::Publish(_)) = shown {
        discard(index, store, &new.key, None);
    }
    let published = shown?;
    if let Some((key, _)) = published.evicted {
        unlink_behind(index, store, &key);
    }
    Ok(published)
}

/// Whether the index has room for what `new` will weigh.
///
/// # Errors
///
/// It has none.
pub fn check_room(index: &Index, new: &NewSlot) -> Result<(), PublishError> {
    // An older slot of this key may let less in than its file will weigh; publish decides.
    let old_bytes = index.lookup(&new.key).map_or(0, |old| old.weight_bytes());
    match index.has_room(new.weight_bytes().saturating_sub(old_bytes)) {
        true => Ok(()),
        false => Err(PublishError::NoRoom),
    }
}

/// Publishes `new`, which stands for a file that was renamed into place. The caller unlinks the file
/// of a key that had to make way and, if the index would not have `new`, this one.
///
/// # Errors
///
/// See [`PutError`]; no slot is left behind.
pub fn show(index: &Index, new: &NewSlot, file: &File) -> Result<Published, PutError> {
    let published = index.publish(new)?;
    if !file::has_name(file) {
        index.remove(&new.key, Some(published.slot.generation));
        return Err(PutError::Removed);
    }
    Ok(published)
}

/// The outcome of renewing a head in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// It is published, and this is the file's stamp now.
    Done(Published, u32),
    /// Nothing was written: the file does not match the slot, or has no room for the head. The
    /// whole file has to be written again.
    Unfit,
    /// The object was replaced or removed.
    Gone,
}

/// Writes the meta and head of `front` into the file that the slot of this generation stands for, if
/// that has a body of this checksum, and publishes `new`, with lengths and stamp taken from the file.
/// The key text of `front` is the key's.
///
/// # Errors
///
/// An error of the system, or no room in the index. Either the old head or the new one is in force
/// then.
pub fn renew(
    index: &Index,
    store: &Store,
    (generation, body_crc): (u32, u32),
    new: &NewSlot,
    front: [&[u8]; 3],
) -> io::Result<Renewed> {
    let Some(file) = store.open_to_renew(&new.key) else { return Ok(Renewed::Unfit) };
    let [_, meta, head] = front;
    let (header, new) = match plan_renewal(index, &file, (generation, body_crc), new, front)? {
        Ok(plan) => plan,
        Err(renewed) => return Ok(renewed),
    };
    let stamp = file.write(&header, meta, head)?;
    show_renewal(index, &file, &NewSlot { stamp, ..new }, generation)
}

/// The header and the slot that a renewal is to bring, for a file that was opened for it; or that it
/// cannot be renewed.
///
/// # Errors
///
/// There is no room in the index.
pub fn plan_renewal(
    index: &Index,
    file: &Renewal,
    (generation, body_crc): (u32, u32),
    new: &NewSlot,
    front: [&[u8]; 3],
) -> io::Result<Result<(Header, NewSlot), Renewed>> {
    // Read while the file is locked: no other renewal comes between.
    let slot = index.lookup(&new.key).filter(|slot| slot.generation == generation);
    let Some(slot) = slot else { return Ok(Err(Renewed::Gone)) };
    // The body was verified, and is the one whose head this is.
    let old = &file.header;
    let is_it = (file.stamp, old.body_crc, old.status) == (slot.stamp, Some(body_crc), new.status);
    let Some(header) = old.renewed(front).filter(|_| is_it) else {
        return Ok(Err(Renewed::Unfit));
    };
    let (head_len, body_len) = file.lens(&header);
    let new = NewSlot { head_len, body_len, ..*new };
    let more_bytes = new.weight_bytes().saturating_sub(slot.weight_bytes());
    if more_bytes > 0 && !index.has_room(more_bytes) {
        return Err(io::Error::other(PublishError::NoRoom));
    }
    Ok(Ok((header, new)))
}

/// Publishes what a renewal has written, over the slot of this generation alone.
///
/// # Errors
///
/// An error of the index.
pub fn show_renewal(
    index: &Index,
    file: &Renewal,
    new: &NewSlot,
    generation: u32,
) -> io::Result<Renewed> {
    let published = match index.republish(new, generation) {
        Err(PublishError::Replaced) => return Ok(Renewed::Gone),
        published => published.map_err(io::Error::other)?,
    };
    if !file.is_in_place() {
        index.remove(&new.key, Some(published.slot.generation));
        return Ok(Renewed::Gone);
    }
    Ok(Renewed::Done(published, new.stamp))
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

/// Removes what is stored under a key, also while the index is being rebuilt: the rebuild must not
/// add a file that may not be used any more.
pub fn forget(index: &Index, store: &Store, key: &Key) {
    if index.table().is_partial() {
        // The file goes before the slot: a process that dies in between must not leave a file that
        // the rebuild would add.
        let _ = store.unlink(key);
    } else if index.lookup(key).is_none() {
        // Most keys that an unsafe request invalidates are not stored, and this check costs no
        // system call.
        return;
    }
    discard(index, store, key, None);
}

/// Unlinks the file of a slot that was removed.
pub(super) fn unlink_behind(index: &Index, store: &Store, key: &Key) {
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
    use std::os::unix::fs::{FileExt, MetadataExt};

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
    fn an_object_is_found_with_its_stamp_and_lengths() {
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
    fn forget_removes_file_and_slot_also_while_the_index_is_rebuilt() {
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
    fn a_slot_that_is_evicted_by_another_loses_its_file() {
        let (_dir, index, store) = cache(1);
        (0..150).for_each(|n| {
            store_one(&index, &store, &n.to_string(), b"x").unwrap();
        });
        let n_slots = index.iter().count();
        assert!(n_slots < 150);
        let n_files = (0..150).filter(|n| store.exists(&slot(&n.to_string()).key)).count();
        assert_eq!(n_files, n_slots);
    }

    /// Gives what [`store_one`] has stored another head.
    fn renew_one(index: &Index, store: &Store, text: &str, body: &[u8], head: &[u8]) -> Renewed {
        let generation = index.lookup(&slot(text).key).map_or(0, |view| view.generation);
        let which = (generation, crc32c::crc32c(body));
        renew(index, store, which, &slot(text), [text.as_bytes(), b"m", head]).unwrap()
    }

    #[test]
    fn a_head_is_renewed_in_its_place() {
        let (_dir, index, store) = cache(10);
        let body = vec![7; 20_000];
        store_one(&index, &store, "a", &body).unwrap();
        let path = store.path(&slot("a").key);
        let inode = std::fs::metadata(&path).unwrap().ino();
        let reader = store.open_object(&slot("a").key, b"a").unwrap().unwrap();
        for n in 1..10_u8 {
            let head = format!("a: {}\r\n", "x".repeat(usize::from(n) * 300)).into_bytes();
            let Renewed::Done(published, stamp) = renew_one(&index, &store, "a", &body, &head)
            else {
                panic!("{n}")
            };
            let view = index.lookup(&slot("a").key).unwrap();
            assert_eq!((view.generation, view.stamp), (published.slot.generation, stamp));
            let object = store.open_object(&view.key, b"a").unwrap().unwrap();
            assert_eq!((object.meta(), object.head()), (&b"m"[..], &head[..]));
            assert_eq!((object.stamp.get(), object.head_len()), (stamp, view.head_len));
            assert_eq!(object.read_body(1 << 20).unwrap().unwrap(), body);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), 20_000 + u64::from(view.head_len));
            assert_eq!(index.bytes(), view.weight_bytes());
        }
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
        // A reader that had the file open before reads the same body on.
        assert_eq!((reader.head(), reader.is_unchanged()), (&b""[..], false));
        assert_eq!(reader.read_body(1 << 20).unwrap().unwrap(), body);
    }

    #[test]
    fn only_the_file_of_the_slot_is_renewed() {
        let (_dir, index, store) = cache(10);
        store_one(&index, &store, "a", b"body").unwrap();
        let view = index.lookup(&slot("a").key).unwrap();
        let renew = |which, new: &NewSlot| {
            renew(&index, &store, which, new, [b"a", b"m", b"b: c\r\n"]).unwrap()
        };
        let (generation, crc) = (view.generation, crc32c::crc32c(b"body"));
        assert_eq!(renew((generation + 1, crc), &slot("a")), Renewed::Gone);
        assert_eq!(renew((generation, crc + 1), &slot("a")), Renewed::Unfit, "another body");
        let status = NewSlot { status: 404, ..slot("a") };
        assert_eq!(renew((generation, crc), &status), Renewed::Unfit, "another status");
        index.restamp(view.slot_ref(), view.stamp + 1);
        assert_eq!(renew((generation, crc), &slot("a")), Renewed::Unfit, "not verified");
        index.restamp(view.slot_ref(), view.stamp);
        let locked = store.open_to_renew(&view.key).unwrap();
        assert_eq!(renew((generation, crc), &slot("a")), Renewed::Unfit, "in another's hands");
        drop(locked);
        let object = store.open_object(&view.key, b"a").unwrap().unwrap();
        assert_eq!((object.head(), object.is_unchanged()), (&b""[..], true));
        assert!(matches!(renew((generation, crc), &slot("a")), Renewed::Done(..)));
        assert_eq!(renew((generation, crc), &slot("a")), Renewed::Gone, "it was renewed");
        discard(&index, &store, &view.key, None);
        assert_eq!(renew_one(&index, &store, "a", b"body", b""), Renewed::Unfit);
    }

    #[test]
    fn a_full_index_takes_no_longer_head() {
        let (_dir, index, store) = cache(10);
        store_one(&index, &store, "a", b"body").unwrap();
        index.set_size(4096);
        let head = [b"a: ", &vec![b'x'; 5_000][..], b"\r\n"].concat();
        let which = (index.lookup(&slot("a").key).unwrap().generation, crc32c::crc32c(b"body"));
        assert!(renew(&index, &store, which, &slot("a"), [b"a", b"m", &head]).is_err());
        assert!(matches!(renew_one(&index, &store, "a", b"body", b"a: b\r\n"), Renewed::Done(..)));
    }

    #[test]
    fn a_killed_renewal_leaves_one_complete_head() {
        let key = slot("a").key;
        for n_writes in 0..=3 {
            for is_half in [false, true] {
                let (_dir, index, store) = cache(10);
                store_one(&index, &store, "a", b"body").unwrap();
                let file = store.open_to_renew(&key).unwrap();
                let header = file.header.renewed([b"a", b"n", b"b: c\r\n"]).unwrap();
                let writes = header.writes(b"n", b"b: c\r\n");
                let raw = File::options().write(true).open(store.path(&key)).unwrap();
                for (n, (at, bytes)) in writes.iter().enumerate().take(n_writes + 1) {
                    let n_bytes = match n == n_writes {
                        true if is_half => bytes.len() / 2,
                        true => 0,
                        false => bytes.len(),
                    };
                    raw.write_all_at(&bytes[..n_bytes], *at).unwrap();
                }
                drop((file, raw));
                let view = index.lookup(&key).unwrap();
                let object = reconcile(&store, &view);
                let is_new = n_writes >= 2;
                let head: &[u8] = if is_new { b"b: c\r\n" } else { b"" };
                assert_eq!(object.head(), head, "{n_writes} {is_half}");
                assert_eq!(object.read_body(9).unwrap().unwrap(), b"body");
                // It is verified again before it is renewed again.
                index.restamp(view.slot_ref(), object.stamp.get());
                let renewed = renew_one(&index, &store, "a", b"body", b"d: e\r\n");
                assert!(matches!(renewed, Renewed::Done(..)), "{renewed:?}");
                let object = store.open_object(&key, b"a").unwrap().unwrap();
                assert_eq!(object.head(), b"d: e\r\n");
            }
        }
    }

    /// The object of a slot, as the keeper finds it.
    fn reconcile(store: &Store, view: &SlotView) -> crate::cache::files::store::Object {
        crate::cache::maintenance::reconcile::compare(store, view).unwrap().unwrap()
    }

    #[test]
    fn a_reader_beside_a_renewer_finds_one_head_whole() {
        let (_dir, index, store) = cache(10);
        // Two of a body behind which the head is read by itself, two with all of it in one read.
        for (text, len) in [("a", 20_000), ("b", 100)] {
            let body = vec![7; len];
            store_one(&index, &store, text, &body).unwrap();
            let (index, store, body) = (&index, &store, &body);
            let is_over = std::sync::atomic::AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for n in 0..3_000_usize {
                        let head = format!("a: {}\r\n", n.to_string().repeat(1 + n % 7));
                        let renewed = renew_one(index, store, text, body, head.as_bytes());
                        assert!(matches!(renewed, Renewed::Done(..)), "{renewed:?}");
                    }
                    is_over.store(true, std::sync::atomic::Ordering::Release);
                });
                let mut last = 0;
                while !is_over.load(std::sync::atomic::Ordering::Acquire) {
                    let object = store.open_object(&slot(text).key, text.as_bytes());
                    let object = object.unwrap().unwrap();
                    let head = std::str::from_utf8(object.head()).unwrap();
                    let digits = head.strip_prefix("a: ").map_or("", str::trim_end);
                    let n = (last..last + 3_000)
                        .find(|n| n.to_string().repeat(1 + n % 7) == digits || head.is_empty());
                    last = n.unwrap_or_else(|| panic!("{head:?} after {last}"));
                    assert!(object.read_body(1 << 20).unwrap().unwrap() == *body);
                }
            });
        }
    }

    #[test]
    fn concurrent_put_discard_and_renew_never_mix_objects() {
        let (_dir, index, store) = cache(100);
        let (index, store) = (&index, &store);
        let put = |n: u32| {
            let text = (n % 3).to_string();
            let mut writer = store.begin(n.into(), text.as_bytes(), b"m", 200, b"", None).unwrap();
            writer.append(&n.to_le_bytes().repeat(9)).unwrap();
            let _ = put(index, store, writer.finish().unwrap(), &slot(&text));
        };
        std::thread::scope(|scope| {
            scope.spawn(|| (0..2_000).for_each(put));
            scope.spawn(|| {
                for n in 0..2_000 {
                    discard(index, store, &slot(&(n % 3).to_string()).key, None);
                }
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    for n in 0..3_000_usize {
                        let text = (n % 3).to_string();
                        let key = slot(&text).key;
                        let opened = store.open_object(&key, text.as_bytes()).unwrap();
                        let Some(object) = opened else { continue };
                        let body = object.read_body(99).unwrap().unwrap();
                        assert_eq!(body, body[..4].repeat(9));
                        // The head says whose body it belongs to.
                        let head = format!("a: {body:?}\r\n");
                        assert!(object.head().is_empty() || object.head() == head.as_bytes());
                        renew_one(index, store, &text, &body, head.as_bytes());
                    }
                });
            }
        });
        assert!(index.iter().all(|view| store.exists(&view.key)));
    }

    #[test]
    fn concurrent_put_and_discard_leave_no_slot_without_a_file() {
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
