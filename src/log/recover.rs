//! Moves the lines in a dead worker's ring to the file.
//!
//! The master does this once it has seen a worker's death and before another worker takes the seat.

use std::fs;
use std::io;
use std::os::unix::fs::DirEntryExt as _;
use std::path::{Path, PathBuf};

use crate::log::file::LogFile;
use crate::log::ring::{FileId, Ring, Rings};

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

/// Writes the lines in the ring of a dead process to the log: the committed ones, the prepared ones,
/// and the rest of the write that the death interrupted, each line once. Does not wait for the file.
/// If that write was to a file that has been renamed meanwhile, it is looked for beside `path`.
///
/// # Errors
/// When the file cannot be written. No line is lost by that: try again later. A ring with
/// contradictory positions is an error once, and empty then.
pub fn drain_dead(rings: &Rings, seat: usize, file: &LogFile, path: &Path) -> io::Result<Drained> {
    let Some(ring) = rings.ring(seat) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no log ring for this seat"));
    };
    let mut chunk = Vec::new();
    if let Some(intent) = ring.intent()
        && intent.file != file.id()
        && let Drained::Busy = finish_elsewhere(rings, &ring, intent.file, path, &mut chunk)?
    {
        return Ok(Drained::Busy);
    }
    ring.commit();
    if ring.span().is_some_and(|span| span.head == span.end) && ring.intent().is_none() {
        return Ok(Drained::Done { bytes: 0 });
    }
    let Some(locked) = file.try_lock()? else { return Ok(Drained::Busy) };
    locked.repair(rings, &mut chunk)?;
    let bytes = locked.drain(&ring, u64::MAX, &mut chunk)?;
    Ok(Drained::Done { bytes })
}

/// Finishes a write to a file that was renamed meanwhile. If the file is gone, its lines go to the
/// one in use.
fn finish_elsewhere(
    rings: &Rings,
    ring: &Ring<'_>,
    id: FileId,
    path: &Path,
    chunk: &mut Vec<u8>,
) -> io::Result<Drained> {
    let found = renamed(path, id).and_then(|path| LogFile::open_itself(&path).ok());
    let Some(file) = found.filter(|file| file.id() == id) else {
        ring.end_intent();
        return Ok(Drained::Done { bytes: 0 });
    };
    let Some(locked) = file.try_lock()? else { return Ok(Drained::Busy) };
    locked.repair(rings, chunk)?;
    Ok(Drained::Done { bytes: 0 })
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

    /// Rings of one seat that was writing `lines` to `file` when it died, after `present` bytes.
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

    fn drain_dead(rings: &Rings, seat: usize, path: &Path) -> io::Result<Drained> {
        super::drain_dead(rings, seat, &LogFile::open(path)?, path)
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
        let drain = |seat| super::drain_dead(&rings, seat, &full, Path::new("/dev/full"));
        assert_eq!(drain(0).unwrap(), Drained::Done { bytes: 0 });
        assert!(drain(1).is_err());
        assert!(rings.ring(0).unwrap().prepare(b"line\n"));
        assert!(drain(0).is_err());
        assert_eq!(rings.ring(0).unwrap().waiting(), 5);
    }
}
