//! Moves the lines in a dead worker's ring to the file.
//!
//! The master does this once it has seen a worker's death and before another worker takes the
//! process slot.

use std::fs;
use std::io;
use std::os::unix::fs::DirEntryExt as _;
use std::path::{Path, PathBuf};

use crate::log::file::LogFile;
use crate::log::ring::{FileId, Ring, Rings};
use crate::log::spill::{Spill, Spilled};

/// The outcome for a dead worker's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Drained {
    /// All are in the file; this many bytes were missing.
    Done {
        /// Bytes written now.
        bytes: u64,
    },
    /// Another process has locked the file: try again in a moment.
    Busy,
}

/// Writes the lines in the ring of a dead process to the log: the committed ones, the prepared
/// ones, and the rest of the write that the death interrupted, each line once. Does not wait for
/// the file. If that write was to a file that has been renamed meanwhile, it is looked for beside
/// `path`.
///
/// # Errors
/// When the file cannot be written. No line is lost by that: try again later. A ring with
/// contradictory positions is an error once, and empty then.
pub fn drain_dead(
    rings: &Rings,
    slot: usize,
    file: &LogFile,
    path: &Path,
    spill: Option<&Spill>,
) -> io::Result<Drained> {
    let Some(ring) = rings.ring(slot) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "no log ring for this process slot",
        ));
    };
    let mut chunk = Vec::new();
    if let Some(intent) = ring.intent()
        && intent.file != file.id()
    {
        let is_done = match spill.filter(|spill| spill.id() == intent.file) {
            Some(spill) => spill.repair(rings, &mut chunk)?,
            None => finish_elsewhere(rings, &ring, intent.file, path, &mut chunk)?,
        };
        if !is_done {
            return Ok(Drained::Busy);
        }
    }
    ring.commit();
    if ring.span().is_some_and(|span| span.head == span.end) && ring.intent().is_none() {
        return Ok(Drained::Done { bytes: 0 });
    }
    // Lines of the same worker may be in the spill file: these come after them.
    let is_spilling = spill.is_some() && rings.is_spill_in_use() && ring.intent().is_none();
    let written = if is_spilling { Ok(None) } else { write(rings, &ring, file, &mut chunk) };
    match (written, spill) {
        (Ok(Some(drained)), _) => Ok(drained),
        (_, Some(spill)) if ring.intent().is_none() => {
            let bytes = ring.waiting();
            match spill.add(rings, &ring, u64::MAX, &mut chunk)? {
                Spilled::Done => Ok(Drained::Done { bytes }),
                Spilled::Busy => Ok(Drained::Busy),
                Spilled::Full => Err(io::Error::other("the spill file is full")),
            }
        }
        (written, _) => written.map(|_| Drained::Busy),
    }
}

/// Moves the ring's lines to the log; `None` if they have to wait or to be spilled.
fn write(
    rings: &Rings,
    ring: &Ring<'_>,
    file: &LogFile,
    chunk: &mut Vec<u8>,
) -> io::Result<Option<Drained>> {
    let Some(locked) = file.try_lock()? else { return Ok(Some(Drained::Busy)) };
    locked.repair(rings, chunk)?;
    let bytes = locked.drain(ring, u64::MAX, chunk)?;
    Ok(Some(Drained::Done { bytes }))
}

/// Finishes a write to a file that was renamed meanwhile. If the file is gone, its lines go to the
/// one in use. False if it is locked.
fn finish_elsewhere(
    rings: &Rings,
    ring: &Ring<'_>,
    id: FileId,
    path: &Path,
    chunk: &mut Vec<u8>,
) -> io::Result<bool> {
    let found = renamed(path, id).and_then(|path| LogFile::open_itself(&path).ok());
    let Some(file) = found.filter(|file| file.id() == id) else {
        ring.end_intent();
        return Ok(true);
    };
    let Some(locked) = file.try_lock()? else { return Ok(false) };
    locked.repair(rings, chunk)?;
    Ok(true)
}

/// The name that the file has now, if it is in the same directory and the name begins as the old
/// one did: rotation adds to a name, and no other file may be touched.
fn renamed(path: &Path, id: FileId) -> Option<PathBuf> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let stem = path.file_stem()?.as_encoded_bytes();
    let entries = fs::read_dir(dir).ok()?.take(DIR_ENTRIES_MAX).filter_map(Result::ok);
    let mut alike = entries.filter(|entry| {
        entry.ino() == id.inode && entry.file_name().as_encoded_bytes().starts_with(stem)
    });
    alike
        .find(|entry| entry.metadata().is_ok_and(|file| file.is_file() && FileId::of(&file) == id))
        .map(|entry| entry.path())
}

/// How far a directory is searched for a renamed file.
const DIR_ENTRIES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::ring::Intent;

    /// Rings of one process slot that was writing `lines` to `file` when it died, after `present`
    /// bytes.
    fn dead_rings(path: &Path, lines: &str, present: usize) -> Rings {
        let rings = Rings::create(1, 1).unwrap();
        let ring = rings.ring(0).unwrap();
        assert!(ring.prepare(lines.as_bytes()));
        ring.commit();
        let file = LogFile::open(path).unwrap();
        let intent = Intent { file: file.id(), offset: 0, from: 0, to: lines.len() as u64 };
        ring.set_intent(&intent);
        fs::write(path, &lines[..present]).unwrap();
        assert!(ring.prepare(b"prepared\n"));
        rings
    }

    fn drain_dead(rings: &Rings, slot: usize, path: &Path) -> io::Result<Drained> {
        super::drain_dead(rings, slot, &LogFile::open(path)?, path, None)
    }

    #[test]
    fn lines_of_a_dead_process_are_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for present in 0..=8 {
            let rings = dead_rings(&path, "one\ntwo\n", present);
            assert!(drain_dead(&rings, 0, &path).is_ok());
            assert_eq!(drain_dead(&rings, 0, &path).unwrap(), Drained::Done { bytes: 0 });
            assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nprepared\n");
        }
    }

    #[test]
    fn a_write_to_a_renamed_file_is_finished_there() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("log"), dir.path().join("log.1"));
        let rings = dead_rings(&path, "one\ntwo\n", 6);
        fs::rename(&path, &old).unwrap();
        assert_eq!(drain_dead(&rings, 0, &path).unwrap(), Drained::Done { bytes: 9 });
        assert_eq!(fs::read_to_string(&old).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "prepared\n");
    }

    #[test]
    fn a_write_to_a_deleted_file_is_repeated_in_the_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let rings = dead_rings(&path, "one\ntwo\n", 6);
        fs::remove_file(&path).unwrap();
        let other = dir.path().join("holds-the-inode");
        fs::write(&other, "").unwrap();
        assert!(drain_dead(&rings, 0, &path).is_ok());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nprepared\n");
    }

    #[test]
    fn lines_of_a_dead_process_follow_those_in_the_spill_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let spill = Spill::open(&dir.path().join("spill"), 1 << 20).unwrap();
        let file = LogFile::open(&path).unwrap();
        for present in 0..=8 {
            fs::write(&path, "").unwrap();
            let rings = Rings::create(1, 1).unwrap();
            let ring = rings.ring(0).unwrap();
            assert!(ring.prepare(b"zero\n"));
            ring.commit();
            assert_eq!(spill.add(&rings, &ring, u64::MAX, &mut Vec::new()).unwrap(), Spilled::Done);
            // It died while it added these to the spill file.
            assert!(ring.prepare(b"one\ntwo\n"));
            ring.commit();
            let (from, offset) = (5, 64 + 5);
            ring.set_intent(&Intent { file: spill.id(), offset, from, to: from + 8 });
            let mut text = fs::read(dir.path().join("spill")).unwrap();
            text.extend(&b"one\ntwo\n"[..present]);
            fs::write(dir.path().join("spill"), text).unwrap();
            assert!(ring.prepare(b"prepared\n"));
            let drained = super::drain_dead(&rings, 0, &file, &path, Some(&spill)).unwrap();
            assert!(matches!(drained, Drained::Done { .. }));
            let locked = file.try_lock().unwrap().unwrap();
            let _ = spill.pour(&locked, &rings, &mut Vec::new()).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(text, "zero\none\ntwo\nprepared\n", "after {present} bytes");
        }
    }

    #[test]
    fn a_busy_file_is_left_for_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let rings = dead_rings(&path, "one\n", 2);
        let other = LogFile::open(&path).unwrap();
        let locked = other.try_lock().unwrap();
        assert_eq!(drain_dead(&rings, 0, &path).unwrap(), Drained::Busy);
        drop(locked);
        assert_eq!(drain_dead(&rings, 0, &path).unwrap(), Drained::Done { bytes: 9 });
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\nprepared\n");
    }

    #[test]
    fn lines_that_cannot_be_written_stay_in_the_ring() {
        let rings = Rings::create(1, 1).unwrap();
        let Ok(full) = LogFile::open(Path::new("/dev/full")) else { return };
        let drain = |slot| super::drain_dead(&rings, slot, &full, Path::new("/dev/full"), None);
        assert_eq!(drain(0).unwrap(), Drained::Done { bytes: 0 });
        assert!(drain(1).is_err());
        assert!(rings.ring(0).unwrap().prepare(b"line\n"));
        assert!(drain(0).is_err());
        assert_eq!(rings.ring(0).unwrap().waiting(), 5);
    }
}
