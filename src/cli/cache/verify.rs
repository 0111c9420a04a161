//! `ktrix cache verify`: every object against its checksums and the index.

use std::io::Write;

use anyhow::Result;

use crate::cache::files::store::{Object, Store};
use crate::cache::index::slot::SlotView;
use crate::cache::maintenance::reconcile::{self, SlotFault, key_of_path};
use crate::cli::opened::{Inspected, Opened};
use crate::cli::progress::Progress;

/// Reads every slot and every file; prints each fault and returns their number. Files without a
/// slot, and temporary files, are counted but are no faults: the keeper removes them.
///
/// # Errors
///
/// When `out` cannot be written.
pub(super) fn verify(cache: &Opened, out: &mut dyn Write) -> Result<usize> {
    let mut n_faults = 0;
    for fault in cache.index.faults() {
        writeln!(out, "index: {fault}")?;
        n_faults += 1;
    }
    let progress = Progress::of(u64::from(cache.index.n_slots()), "slots");
    let (mut n_objects, mut scratch) = (0_u64, Vec::new());
    for view in cache.index.slots() {
        progress.step();
        let Some(view) = view else { continue };
        n_objects += 1;
        let Err(fault) = verify_one(cache, &view, &mut scratch) else { continue };
        // An object that changed or was removed during the read is not a fault of the cache.
        if cache.index.is_current(view.slot_ref()) {
            let path = cache.store.path(&view.key);
            progress.around(|| writeln!(out, "{}: {fault}", path.display()))?;
            n_faults += 1;
        }
    }
    drop(progress);
    let n_orphans = count_orphans(cache);
    writeln!(out, "{n_objects} objects, {n_orphans} files without a slot, {n_faults} faults")?;
    Ok(n_faults)
}

fn verify_one(cache: &Opened, view: &SlotView, scratch: &mut Vec<u8>) -> Result<(), SlotFault> {
    let object = match cache.look(*view) {
        None | Some(Inspected { object: Ok(None), .. }) => return Ok(()),
        Some(Inspected { object: Ok(Some(object)), .. }) => object,
        // Its writer died between renaming a newer file and publishing it. A reader relies on the
        // file, so the file's body counts; the scrub removes the older slot.
        Some(Inspected { object: Err(SlotFault::Lengths), .. }) => newer(&cache.store, view)?,
        Some(Inspected { object: Err(fault), .. }) => return Err(fault),
    };
    let mut verify = object.verify();
    while !verify.step(&object, scratch)? {}
    Ok(())
}

fn newer(store: &Store, view: &SlotView) -> Result<Object, SlotFault> {
    store.open_any(&view.key)?.ok_or(SlotFault::Missing)
}

fn count_orphans(cache: &Opened) -> usize {
    let progress = Progress::of(FAN_OUTS, "directories");
    let dirs = (0..FAN_OUTS).inspect(|_| progress.step());
    dirs.flat_map(|fan_out| reconcile::list(&cache.store.dir().join(format!("{fan_out:02x}"))))
        .filter_map(|path| key_of_path(&path))
        .filter(|key| cache.index.lookup(key).is_none_or(|view| !view.state.has_file()))
        .count()
}

/// Directories that the files are spread over.
const FAN_OUTS: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::place::tests::{cache, slot, store_one};

    #[test]
    fn a_flipped_byte_and_a_missing_file_are_faults() {
        let (dir, index, store) = cache(10);
        for text in ["a", "b", "c"] {
            store_one(&index, &store, text, b"body").unwrap();
        }
        let opened = Opened::open(dir.path()).unwrap();
        assert_eq!(verify(&opened, &mut Vec::new()).unwrap(), 0);
        let path = store.path(&slot("a").key);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        std::fs::remove_file(store.path(&slot("b").key)).unwrap();
        index.remove(&slot("c").key, None);
        let mut out = Vec::new();
        assert_eq!(verify(&opened, &mut out).unwrap(), 2);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("body-damaged") && text.contains("missing"), "{text}");
        assert!(text.ends_with("2 objects, 1 files without a slot, 2 faults\n"), "{text}");
    }

    #[test]
    fn without_an_index_every_command_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let error =
            Opened::open(dir.path()).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("no cache index"), "{error}");
    }
}
