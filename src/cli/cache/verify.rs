//! `ktrix cache verify`: every object against its checksums and the index.

use std::io::Write;
use std::path::Path;

use anyhow::Result;

use crate::cache::scrub::{self, SlotFault, compare, key_of_path};
use crate::cache::slot::SlotView;
use crate::cache::store::Store;
use crate::cli::cache::open;

/// Reads every slot and every file; prints each fault and returns how many there are. Files that
/// no slot knows, and temporary files, are counted but are no faults: the keeper removes them.
///
/// # Errors
///
/// When there is no index in `dir`, or `out` cannot be written.
pub(super) fn verify(dir: &Path, out: &mut impl Write) -> Result<usize> {
    let (index, store) = open(dir)?;
    let mut n_faults = 0;
    for fault in index.faults() {
        writeln!(out, "index: {fault}")?;
        n_faults += 1;
    }
    let (mut n_objects, mut scratch) = (0_u64, Vec::new());
    for view in index.iter() {
        n_objects += 1;
        let Err(fault) = verify_one(&store, &view, &mut scratch) else { continue };
        // What changed or went while we read it is no fault of the cache.
        if index.is_current(view.at, view.generation) {
            writeln!(out, "{}: {fault}", store.path(&view.key).display())?;
            n_faults += 1;
        }
    }
    let n_orphans = (0..256_u32)
        .flat_map(|fan_out| scrub::list(&dir.join(format!("{fan_out:02x}"))))
        .filter_map(|path| key_of_path(&path))
        .filter(|key| index.lookup(key).is_none_or(|view| !view.state.has_file()))
        .count();
    writeln!(out, "{n_objects} objects, {n_orphans} files without a slot, {n_faults} faults")?;
    Ok(n_faults)
}

fn verify_one(store: &Store, view: &SlotView, scratch: &mut Vec<u8>) -> Result<(), SlotFault> {
    let object = match compare(store, view) {
        Ok(Some(object)) => object,
        Ok(None) => return Ok(()),
        // Its writer died between renaming a newer file and publishing it. A reader goes by what
        // the file says, so it is the body that counts; the scrub removes the older slot.
        Err(SlotFault::Lengths) => store.open_any(&view.key)?.ok_or(SlotFault::Missing)?,
        Err(fault) => return Err(fault),
    };
    let mut verify = object.verify();
    while !verify.step(&object, scratch)? {}
    Ok(())
}

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
        assert_eq!(verify(dir.path(), &mut Vec::new()).unwrap(), 0);
        let path = store.path(&slot("a").key);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        std::fs::remove_file(store.path(&slot("b").key)).unwrap();
        index.remove(&slot("c").key, None);
        let mut out = Vec::new();
        assert_eq!(verify(dir.path(), &mut out).unwrap(), 2);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("body-damaged") && text.contains("missing"), "{text}");
        assert!(text.ends_with("2 objects, 1 files without a slot, 2 faults\n"), "{text}");
    }

    #[test]
    fn without_an_index_every_command_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let error = verify(dir.path(), &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("no cache index"), "{error}");
    }
}
