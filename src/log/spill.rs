//! The spill file: lines that the log does not take for now, on another disk.
//!
//! ```text
//! ring ── the log takes nothing, and the ring is full ──▶ spill file ── the log takes lines ──▶ log
//! ```
//!
//! While it has lines, all lines of all workers go through it, so that each worker's stay in order.
//! It has a header and then lines. Who adds or moves lines holds its lock; who moves them holds the
//! lock of the log too. The header says which lines are in the log already, and which are on their
//! way: the process that finds lines on their way continues the work of a dead one, and reads from
//! the log how far that came. A stop leaves the lines in the file; the next start writes them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt as _, MetadataExt};
use std::path::{Path, PathBuf};

use crate::config::request_log::RequestLog;
use crate::log::append::{CHUNK_BYTES, write_all};
use crate::log::file::{LockedFile, LogFile};
use crate::log::ring::{FileId, Ring, Rings};
use crate::sys::file::unnamed;

/// Its name in the cache directory.
pub const fn file_name(which: RequestLog) -> &'static str {
    match which {
        RequestLog::Access => "access.spill",
        RequestLog::Slow => "slow.spill",
    }
}

/// A spill file, open in one process.
#[derive(Debug)]
pub struct Spill {
    /// Its name; empty if it has none.
    pub path: PathBuf,
    /// Most bytes of lines in it.
    pub bytes_max: u64,
    /// Open to append.
    lines: LogFile,
    /// Open to write anywhere.
    header: File,
}

/// Whether lines were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Spilled {
    /// They are in the spill file.
    Done,
    /// Another process has locked the file.
    Busy,
    /// It has as many bytes as it may have.
    Full,
}

/// Whether lines were moved to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Poured {
    /// All.
    All,
    /// Some; there are more.
    Some,
    /// Another process has locked the file.
    Busy,
}

/// The header; all numbers are little-endian.
///
/// | bytes | meaning |
/// | --- | --- |
/// | 0 to 7 | `ktrixspl` |
/// | 8 | position of the first byte that is not in the log |
/// | 16 | position behind the last byte that is on its way; 0 if none is |
/// | 24, 32, 40, 48 | to which file: device, inode, birth, offset |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    head: u64,
    moving: Option<Moving>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moving {
    to: u64,
    file: FileId,
    offset: u64,
}

impl Spill {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// The system's error, or the file is no spill file.
    pub fn open(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let lines = LogFile::open_itself(path)?;
        let found = lines.metadata()?;
        if !lines.is_regular || found.nlink() != 1 {
            return Err(io::Error::other("it is not a file with one name"));
        }
        let header = writable(&lines)?;
        Self { path: path.to_owned(), bytes_max, lines, header }.checked()
    }

    /// Makes a file without a name, which is gone with the last process that has it.
    ///
    /// # Errors
    /// The system's error.
    pub fn nameless(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        let lines = LogFile::of(unnamed(dir)?)?.open_again()?;
        let header = writable(&lines)?;
        Self { path: PathBuf::new(), bytes_max, lines, header }.checked()
    }

    /// The same file for a child, with a lock of its own.
    ///
    /// # Errors
    /// As [`LogFile::open_again`].
    pub fn open_again(&self) -> io::Result<Self> {
        let (path, bytes_max) = (self.path.clone(), self.bytes_max);
        let lines = self.lines.open_again()?;
        let header = writable(&lines)?;
        Ok(Self { path, bytes_max, lines, header })
    }

    /// A new file gets its header; a lock of another process means that it has one.
    fn checked(self) -> io::Result<Self> {
        if self.len()? < HEADER_BYTES
            && let Some(_locked) = self.lines.try_lock()?
        {
            self.write_header(Header { head: HEADER_BYTES, moving: None })?;
        }
        self.read_header()?;
        Ok(self)
    }

    /// Whether it has lines that are not in the log.
    ///
    /// # Errors
    /// The system's error.
    pub fn has_lines(&self) -> io::Result<bool> {
        Ok(self.len()? > HEADER_BYTES)
    }

    pub(super) fn id(&self) -> FileId {
        self.lines.id
    }

    /// Finishes what dead processes left unfinished in it. False if it is locked.
    pub(super) fn repair(&self, rings: &Rings, chunk: &mut Vec<u8>) -> io::Result<bool> {
        let Some(locked) = self.lines.try_lock()? else { return Ok(false) };
        locked.repair(rings, chunk)?;
        Ok(true)
    }

    /// Adds the ring's bytes before the position `to`.
    pub(super) fn add(
        &self,
        rings: &Rings,
        ring: &Ring<'_>,
        to: u64,
        chunk: &mut Vec<u8>,
    ) -> io::Result<Spilled> {
        let Some(locked) = self.lines.try_lock()? else { return Ok(Spilled::Busy) };
        locked.repair(rings, chunk)?;
        if self.len()? + ring.waiting() > self.bytes_max + HEADER_BYTES {
            return Ok(Spilled::Full);
        }
        rings.set_spill_in_use(true);
        locked.drain(ring, to, chunk)?;
        Ok(Spilled::Done)
    }

    /// Moves lines to the log, at most [`POUR_BYTES`]. Nothing else may be written to the log before
    /// all are moved.
    pub(super) fn pour(
        &self,
        log: &LockedFile<'_>,
        rings: &Rings,
        chunk: &mut Vec<u8>,
    ) -> io::Result<Poured> {
        let Some(locked) = self.lines.try_lock()? else { return Ok(Poured::Busy) };
        locked.repair(rings, chunk)?;
        let len = self.len()?;
        let mut header = self.read_header()?;
        if header.head > len {
            header.head = HEADER_BYTES;
        }
        if let Some(moving) = header.moving.take() {
            header.head += self.already_moved(log.log, &moving, header.head)?;
        }
        let end = len.min(header.head + POUR_BYTES);
        while header.head < end {
            self.read_lines(header.head, len, chunk)?;
            let offset = if log.log.is_regular { log.log.metadata()?.len() } else { 0 };
            let to = header.head + chunk.len() as u64;
            header.moving = Some(Moving { to, file: log.log.id, offset });
            self.write_header(header)?;
            let (written, result) = write_all(&log.log.file, chunk);
            let whole = memchr::memrchr(b'\n', &chunk[..written]).map_or(0, |at| at as u64 + 1);
            let written = written as u64;
            let is_cut = whole < written && log.take_back(offset, whole, written);
            header.head += if is_cut { whole } else { written };
            header.moving = None;
            self.write_header(header)?;
            result?;
        }
        if header.head < len {
            return Ok(Poured::Some);
        }
        // First the lines, then the header: a process that dies in between repeats no line.
        self.header.set_len(HEADER_BYTES)?;
        self.write_header(Header { head: HEADER_BYTES, moving: None })?;
        rings.set_spill_in_use(false);
        Ok(Poured::All)
    }

    /// The number of bytes from `head` on that a dead process has brought to this log. If it was
    /// writing to another file, they are written again: twice is better than lost.
    fn already_moved(&self, log: &LogFile, moving: &Moving, head: u64) -> io::Result<u64> {
        if moving.file != log.id || !log.is_regular {
            return Ok(0);
        }
        let len = moving.to.saturating_sub(head).min(CHUNK_BYTES as u64) as usize;
        let (mut ours, mut theirs) = (vec![0; len], vec![0; len]);
        let n_ours = read_at(&self.header, head, &mut ours)?;
        let n_theirs = read_at(&log.file, moving.offset, &mut theirs)?;
        let both = ours[..n_ours].iter().zip(&theirs[..n_theirs]);
        Ok(both.take_while(|(a, b)| a == b).count() as u64)
    }

    /// Whole lines from `head` on; lines are shorter than a chunk.
    fn read_lines(&self, head: u64, len: u64, chunk: &mut Vec<u8>) -> io::Result<()> {
        chunk.clear();
        chunk.resize((len - head).min(CHUNK_BYTES as u64) as usize, 0);
        let n = read_at(&self.header, head, chunk)?;
        chunk.truncate(n);
        if head + (n as u64) < len {
            chunk.truncate(memchr::memrchr(b'\n', chunk).map_or(n, |at| at + 1));
        }
        if chunk.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.lines.metadata()?.len())
    }

    fn read_header(&self) -> io::Result<Header> {
        let mut bytes = [0; HEADER_BYTES as usize];
        let n = read_at(&self.header, 0, &mut bytes)?;
        if n < bytes.len() || bytes[..8] != *MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no spill file of ktrix"));
        }
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()))
            .collect();
        let file = FileId { device: words[3], inode: words[4], born_ns: words[5] };
        let moving = (words[2] > 0).then_some(Moving { to: words[2], file, offset: words[6] });
        Ok(Header { head: words[1].max(HEADER_BYTES), moving })
    }

    fn write_header(&self, header: Header) -> io::Result<()> {
        let nothing = FileId { device: 0, inode: 0, born_ns: 0 };
        let Moving { to, file, offset } =
            header.moving.unwrap_or(Moving { to: 0, file: nothing, offset: 0 });
        let words = [header.head, to, file.device, file.inode, file.born_ns, offset, 0];
        let mut bytes = MAGIC.to_vec();
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        self.header.write_all_at(&bytes, 0)
    }
}

/// Another descriptor of the file, by which bytes in its middle can be written.
fn writable(file: &LogFile) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.file.as_raw_fd());
    OpenOptions::new().read(true).write(true).open(path)
}

/// Reads until `bytes` are full or the file ends; how many were read.
fn read_at(file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < bytes.len() {
        match file.read_at(&mut bytes[n..], offset + n as u64) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n)
}

const MAGIC: &[u8; 8] = b"ktrixspl";
const HEADER_BYTES: u64 = 64;
/// How much is moved at once, before other work of the process goes on.
const POUR_BYTES: u64 = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Setup {
        dir: tempfile::TempDir,
        rings: Rings,
        spill: Spill,
        log: LogFile,
    }

    fn setup() -> Setup {
        let dir = tempfile::tempdir().unwrap();
        let spill = Spill::open(&dir.path().join(file_name(RequestLog::Access)), 1 << 20).unwrap();
        let log = LogFile::open(&dir.path().join("log")).unwrap();
        Setup { dir, rings: Rings::create(1, 1).unwrap(), spill, log }
    }

    impl Setup {
        fn add(&self, lines: &str) -> Spilled {
            let ring = self.rings.ring(0).unwrap();
            assert!(ring.prepare(lines.as_bytes()));
            ring.commit();
            self.spill.add(&self.rings, &ring, u64::MAX, &mut Vec::new()).unwrap()
        }

        fn pour(&self) -> Poured {
            let log = self.log.try_lock().unwrap().unwrap();
            self.spill.pour(&log, &self.rings, &mut Vec::new()).unwrap()
        }

        fn text(&self) -> String {
            fs::read_to_string(self.dir.path().join("log")).unwrap()
        }
    }

    #[test]
    fn lines_come_to_the_log_in_order_and_leave_the_file_empty() {
        let setup = setup();
        assert!(!setup.spill.has_lines().unwrap());
        assert_eq!(setup.add("one\n"), Spilled::Done);
        let other = setup.spill.open_again().unwrap();
        assert!(other.has_lines().unwrap() && setup.rings.is_spill_in_use());
        assert_eq!(setup.add("two\nthree\n"), Spilled::Done);
        assert_eq!(setup.pour(), Poured::All);
        assert_eq!(setup.text(), "one\ntwo\nthree\n");
        assert!(!other.has_lines().unwrap() && !setup.rings.is_spill_in_use());
        assert_eq!(setup.add("four\n"), Spilled::Done);
        assert_eq!((setup.pour(), setup.pour()), (Poured::All, Poured::All));
        assert_eq!(setup.text(), "one\ntwo\nthree\nfour\n");
    }

    #[test]
    fn lines_of_an_earlier_ktrix_are_still_there_and_its_bound_holds() {
        let setup = setup();
        assert_eq!(setup.add("one\n"), Spilled::Done);
        let path = setup.dir.path().join(file_name(RequestLog::Access));
        let small = Spill::open(&path, 8).unwrap();
        assert!(small.has_lines().unwrap());
        let ring = setup.rings.ring(0).unwrap();
        assert!(ring.prepare(b"too long\n"));
        ring.commit();
        let full = small.add(&setup.rings, &ring, u64::MAX, &mut Vec::new()).unwrap();
        assert_eq!((full, ring.waiting()), (Spilled::Full, 9));
        fs::write(&path, "x".repeat(100)).unwrap();
        assert!(Spill::open(&path, 8).is_err(), "a file of another program is left alone");
    }

    #[test]
    fn much_is_moved_in_steps() {
        let setup = setup();
        let line = format!("{}\n", "x".repeat(9_999));
        for _ in 0..60 {
            assert_eq!(setup.add(&line), Spilled::Done);
        }
        let mut n_steps = 1;
        while setup.pour() == Poured::Some {
            n_steps += 1;
        }
        assert!((2..6).contains(&n_steps), "{n_steps}");
        assert_eq!(setup.text(), line.repeat(60));
    }

    #[test]
    fn a_move_that_death_interrupted_is_continued_wherever_that_was() {
        let lines = "one\ntwo\nthree\n";
        for present in 0..=lines.len() {
            let setup = setup();
            assert_eq!(setup.add(lines), Spilled::Done);
            fs::write(setup.dir.path().join("log"), format!("zero\n{}", &lines[..present]))
                .unwrap();
            let moving =
                Moving { to: HEADER_BYTES + lines.len() as u64, file: setup.log.id, offset: 5 };
            let header = Header { head: HEADER_BYTES, moving: Some(moving) };
            setup.spill.write_header(header).unwrap();
            assert_eq!(setup.spill.read_header().unwrap(), header);
            assert_eq!(setup.pour(), Poured::All);
            assert_eq!(setup.text(), format!("zero\n{lines}"), "after {present} bytes");
        }
    }

    #[test]
    fn a_log_that_takes_nothing_changes_nothing() {
        let setup = setup();
        let Ok(full) = LogFile::open(Path::new("/dev/full")) else { return };
        assert_eq!(setup.add("one\n"), Spilled::Done);
        let locked = full.try_lock().unwrap().unwrap();
        assert!(setup.spill.pour(&locked, &setup.rings, &mut Vec::new()).is_err());
        assert_eq!((setup.pour(), setup.text().as_str()), (Poured::All, "one\n"));
    }

    #[test]
    fn a_nameless_file_does_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let spill = Spill::nameless(dir.path(), 1 << 20).unwrap();
        let setup = Setup { spill: spill.open_again().unwrap(), ..setup() };
        assert_eq!((setup.add("one\n"), setup.pour()), (Spilled::Done, Poured::All));
        assert_eq!(setup.text(), "one\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
