//! Appends whole lines to the log's file, each exactly once, whichever process dies in between.
//!
//! Several processes append to the file, each under its lock. The first process to get the lock
//! after a death completes the interrupted write, so that half a line is never followed by another
//! line. An [`Intent`] that is set for this file and seen under its lock can only belong to a dead
//! process. How far that process came is read from the file itself, byte by byte.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;

use crate::log::file::LockedFile;
use crate::log::ring::{Intent, Ring, Rings};

impl LockedFile<'_> {
    /// Finishes every write to this file that a dead process left unfinished. Must succeed before
    /// anything else is written.
    ///
    /// # Errors
    /// When the file cannot be read or written; the rest is for the next holder of the lock.
    pub fn repair(&self, rings: &Rings, chunk: &mut Vec<u8>) -> io::Result<()> {
        for (slot, ring) in rings.with_intent() {
            match ring.intent() {
                Some(intent) if intent.file == self.log.id => {
                    self.finish(slot, &ring, &intent, chunk)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn finish(
        &self,
        slot: usize,
        ring: &Ring<'_>,
        intent: &Intent,
        chunk: &mut Vec<u8>,
    ) -> io::Result<()> {
        let size = ring.size() as u64;
        let Some(len) = intent.to.checked_sub(intent.from).filter(|&len| len <= size) else {
            ::log::error!("log of requests: process slot {slot} left an invalid write; ignored");
            ring.end_intent();
            return Ok(());
        };
        if !self.log.is_regular {
            // Bytes in a pipe cannot be read back: written twice is better than lost.
            ring.end_intent();
            return Ok(());
        }
        let present = self.already_written(ring, intent, len, chunk)?;
        let from = intent.from + present;
        let (written, _, result) = self.append(ring, from, intent.to, chunk);
        if written < intent.to - from {
            result?;
            return Err(io::ErrorKind::WriteZero.into());
        }
        ring.free_before(intent.to);
        ring.end_intent();
        Ok(())
    }

    /// The number of the intent's bytes that are in the file already.
    fn already_written(
        &self,
        ring: &Ring<'_>,
        intent: &Intent,
        len: u64,
        chunk: &mut Vec<u8>,
    ) -> io::Result<u64> {
        let mut in_file = vec![0; CHUNK_BYTES];
        let mut present = 0;
        while present < len {
            let want = (len - present).min(CHUNK_BYTES as u64) as usize;
            let n = match self.log.file.read_at(&mut in_file[..want], intent.offset + present) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            chunk.clear();
            ring.copy_out(intent.from + present, n, chunk);
            let same = chunk.iter().zip(&in_file[..n]).take_while(|(a, b)| a == b).count();
            present += same as u64;
            if same < n {
                break;
            }
        }
        Ok(present)
    }

    /// Moves the ring's bytes before the position `to` to the file's end; returns their number.
    ///
    /// # Errors
    /// When the file accepts no more. The bytes that it accepted are freed in the ring, and half a
    /// line is cut off the file again.
    pub fn drain(&self, ring: &Ring<'_>, to: u64, chunk: &mut Vec<u8>) -> io::Result<u64> {
        let Some(span) = ring.span() else {
            ring.clear();
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the log's ring is damaged"));
        };
        let (from, to) = (span.head, to.clamp(span.head, span.end));
        if from == to {
            return Ok(0);
        }
        let offset = if self.log.is_regular { self.log.file.metadata()?.len() } else { 0 };
        ring.set_intent(&Intent { file: self.log.id, offset, from, to });
        let (written, whole, result) = self.append(ring, from, to, chunk);
        let kept =
            if whole < written && self.take_back(offset, whole, written) { whole } else { written };
        ring.free_before(from + kept);
        ring.end_intent();
        result.map(|()| kept)
    }

    /// Writes the ring's bytes `from..to`. Returns how many were written, how many of these are
    /// whole lines, and what stopped it.
    fn append(
        &self,
        ring: &Ring<'_>,
        from: u64,
        to: u64,
        chunk: &mut Vec<u8>,
    ) -> (u64, u64, io::Result<()>) {
        let (mut written, mut whole) = (0, 0);
        while from + written < to {
            chunk.clear();
            let len = (to - from - written).min(CHUNK_BYTES as u64) as usize;
            ring.copy_out(from + written, len, chunk);
            if from + written + (len as u64) < to {
                // Lines are shorter than a chunk, so one ends in it.
                let end = memchr::memrchr(b'\n', chunk).map_or(chunk.len(), |at| at + 1);
                chunk.truncate(end);
            }
            let (n, result) = write_all(&self.log.file, chunk);
            let lines = memchr::memrchr(b'\n', &chunk[..n]).map_or(0, |at| at as u64 + 1);
            if lines > 0 {
                whole = written + lines;
            }
            written += n as u64;
            if result.is_err() {
                return (written, whole, result);
            }
        }
        (written, whole, Ok(()))
    }

    /// Cuts an incomplete line off the end of the file; says whether that was possible.
    pub(super) fn take_back(&self, offset: u64, whole: u64, written: u64) -> bool {
        let file = &self.log.file;
        self.log.is_regular
            && file.metadata().is_ok_and(|metadata| metadata.len() == offset + written)
            && file.set_len(offset + whole).is_ok()
    }
}

/// Writes all of `bytes`; how many it wrote, and what stopped it.
pub(super) fn write_all(mut file: &File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// How much is written, and compared, at once; the longest line is half of it.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;
const _: () = assert!(CHUNK_BYTES >= crate::log::format::LINE_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::file::LogFile;
    use crate::log::ring::FileId;
    use std::fs;
    use std::path::Path;

    /// A ring that holds `lines`, an open file in a fresh directory.
    fn setting(lines: &[u8]) -> (tempfile::TempDir, Rings, LogFile) {
        let dir = tempfile::tempdir().unwrap();
        let rings = Rings::create(2, 1).unwrap();
        let ring = rings.ring(0).unwrap();
        assert!(ring.prepare(lines));
        ring.commit();
        let file = LogFile::open(&dir.path().join("log")).unwrap();
        (dir, rings, file)
    }

    fn content(dir: &tempfile::TempDir) -> String {
        fs::read_to_string(dir.path().join("log")).unwrap()
    }

    #[test]
    fn lines_move_to_the_file_once() {
        let (dir, rings, file) = setting(b"one\ntwo\n");
        let (ring, mut chunk) = (rings.ring(0).unwrap(), Vec::new());
        let locked = file.try_lock().unwrap().unwrap();
        assert_eq!(locked.drain(&ring, u64::MAX, &mut chunk).unwrap(), 8);
        assert_eq!(locked.drain(&ring, u64::MAX, &mut chunk).unwrap(), 0);
        assert_eq!(content(&dir), "one\ntwo\n");
        assert_eq!((ring.waiting(), ring.intent()), (0, None));
    }

    #[test]
    fn interrupted_write_is_finished_from_every_byte() {
        let lines = b"first line\nsecond line\n";
        for present in 0..=lines.len() {
            let (dir, rings, file) = setting(lines);
            let path = dir.path().join("log");
            fs::write(&path, [b"before\n", &lines[..present]].concat()).unwrap();
            let ring = rings.ring(0).unwrap();
            let to = lines.len() as u64;
            ring.set_intent(&Intent { file: file.id(), offset: 7, from: 0, to });

            let other = rings.ring(1).unwrap();
            assert!(other.prepare(b"other\n"));
            let mut chunk = Vec::new();
            let locked = file.try_lock().unwrap().unwrap();
            locked.repair(&rings, &mut chunk).unwrap();
            locked.repair(&rings, &mut chunk).unwrap();
            locked.drain(&other, u64::MAX, &mut chunk).unwrap();
            assert_eq!(content(&dir), "before\nfirst line\nsecond line\nother\n", "at {present}");
            assert_eq!((ring.waiting(), ring.intent()), (0, None));
        }
    }

    #[test]
    fn intent_for_another_file_is_left_alone() {
        let (dir, rings, file) = setting(b"line\n");
        let ring = rings.ring(0).unwrap();
        let id = FileId { device: 0, inode: 0, born_ns: 0 };
        ring.set_intent(&Intent { file: id, offset: 0, from: 0, to: 5 });
        file.try_lock().unwrap().unwrap().repair(&rings, &mut Vec::new()).unwrap();
        assert!(ring.intent().is_some());
        assert_eq!(content(&dir), "");
    }

    #[test]
    fn invalid_intent_is_dropped() {
        let (dir, rings, file) = setting(b"line\n");
        let ring = rings.ring(0).unwrap();
        for (from, to) in [(5, 0), (0, u64::MAX)] {
            ring.set_intent(&Intent { file: file.id(), offset: 0, from, to });
            file.try_lock().unwrap().unwrap().repair(&rings, &mut Vec::new()).unwrap();
            assert_eq!(ring.intent(), None);
        }
        assert_eq!(content(&dir), "");
    }

    #[test]
    fn more_than_a_chunk_is_written_whole() {
        let (dir, rings) = (tempfile::tempdir().unwrap(), Rings::create(1, 1 << 18).unwrap());
        let ring = rings.ring(0).unwrap();
        let mut all = String::new();
        for n in 0.. {
            let line = format!("{n:0>width$}\n", width = n % 3000);
            if !ring.prepare(line.as_bytes()) {
                break;
            }
            all.push_str(&line);
        }
        let file = LogFile::open(&dir.path().join("log")).unwrap();
        let locked = file.try_lock().unwrap().unwrap();
        assert_eq!(locked.drain(&ring, u64::MAX, &mut Vec::new()).unwrap(), all.len() as u64);
        assert!(content(&dir) == all);
    }

    #[test]
    fn a_full_device_loses_nothing() {
        let Ok(file) = LogFile::open(Path::new("/dev/full")) else { return };
        let rings = Rings::create(1, 1).unwrap();
        let ring = rings.ring(0).unwrap();
        assert!(ring.prepare(b"line\n"));
        ring.commit();
        let locked = file.try_lock().unwrap().unwrap();
        let error = locked.drain(&ring, u64::MAX, &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!((ring.waiting(), ring.intent()), (5, None));
    }

    #[test]
    fn a_damaged_ring_is_an_error_once() {
        let (dir, rings, file) = setting(b"line\n");
        let ring = rings.ring(0).unwrap();
        ring.free_before(1 << 40);
        let locked = file.try_lock().unwrap().unwrap();
        assert!(locked.drain(&ring, u64::MAX, &mut Vec::new()).is_err());
        assert!(ring.prepare(b"next\n"));
        assert!(locked.drain(&ring, u64::MAX, &mut Vec::new()).is_ok());
        assert_eq!(content(&dir), "next\n");
    }
}
