//! The access log of one worker: records in, whole lines in the file.
//!
//! ```text
//! write(record)            or  prepare(record) ─ send ─▶ commit() or cancel()
//!      │ ring full: to the spill file, Full (wait for room) or Dropped
//!      ▼
//!   ring ── flush(): at half full, every second, at the end ──▶ file
//!    │                 Busy, Failed: again after `retry_ms`
//!    └── the file takes nothing ──▶ spill file ──▶ file
//! ```
//!
//! Between `prepare` and its `commit` or `cancel` there is no await: another line written in
//! between would commit the prepared ones too.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use crate::base::units::format_size;
use crate::config::{AccessLogConfig, WhenFull};
use crate::log::clock::LineClock;
use crate::log::file::LogFile;
use crate::log::format::{LINE_BYTES_MAX, LineWriter, Record};
use crate::log::ring::{Ring, Rings, Trouble};
use crate::log::spill::{Poured, Spill, Spilled};

/// The outcome of writing a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Written {
    /// It is in the ring.
    Accepted,
    /// The ring is full and the operator chose to drop; the loss is counted.
    Dropped,
    /// The ring is full: flush, wait until [`AccessLog::has_room`], and write it again.
    Full,
}

/// The outcome of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flushed {
    /// Everything committed is in the file.
    Done,
    /// Another process has locked the file; try again.
    Busy {
        /// After this many milliseconds.
        retry_ms: u64,
    },
    /// The file cannot be written; the error log has the reason. Try again.
    Failed {
        /// After this many milliseconds.
        retry_ms: u64,
    },
}

/// The access log of one worker.
#[derive(Debug)]
pub struct AccessLog {
    rings: Rc<Rings>,
    slot: usize,
    config: AccessLogConfig,
    writer: LineWriter,
    file: Option<LogFile>,
    line: Vec<u8>,
    chunk: Vec<u8>,
    spill: Option<Spill>,
    n_tries: u32,
    dropped: Option<Dropped>,
}

/// Lines that were dropped and not reported yet.
#[derive(Clone, Copy, Debug)]
struct Dropped {
    n: u64,
    first_s: u64,
    last_s: u64,
}

/// How far a flush came.
enum Step {
    /// Everything is in the log.
    Done,
    /// The spill file has more lines.
    More,
    /// Another process has locked one of the files.
    Busy,
}

impl AccessLog {
    /// The log of the process with number `slot`. It takes over the lines that the process before
    /// it left in the ring. Without a file ([`Self::write_to`]) every flush tries to open it by its
    /// name.
    ///
    /// # Errors
    /// When the rings have no such process slot.
    pub fn new(config: AccessLogConfig, rings: Rc<Rings>, slot: usize) -> io::Result<Self> {
        let Some(ring) = rings.ring(slot) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no log ring for this process slot",
            ));
        };
        if ring.span().is_none() {
            ::log::error!(
                "access log: the buffer of process slot {slot} was damaged; its lines are lost"
            );
            ring.clear();
        }
        ring.commit();
        let writer = LineWriter::new(config.format);
        Ok(Self {
            rings,
            slot,
            config,
            writer,
            file: None,
            line: Vec::with_capacity(1024),
            chunk: Vec::new(),
            spill: None,
            n_tries: 0,
            dropped: None,
        })
    }

    /// Writes a line for the record, and commits the prepared ones.
    pub fn write(&mut self, record: &Record<'_>) -> Written {
        let written = self.prepare(record);
        self.commit();
        written
    }

    /// Writes a line that counts only once [`Self::commit`] is called, or if the process dies
    /// before that, since the answer is about to go out. Several may be prepared together.
    pub fn prepare(&mut self, record: &Record<'_>) -> Written {
        self.line.clear();
        self.writer.write(record, &mut self.line);
        let Some(ring) = self.rings.ring(self.slot) else { return Written::Dropped };
        if ring.prepare(&self.line) {
            return Written::Accepted;
        }
        match self.config.when_full {
            WhenFull::Wait => return Written::Full,
            WhenFull::Spill => self.make_room(),
            WhenFull::Drop => {}
        }
        let Some(ring) = self.rings.ring(self.slot) else { return Written::Dropped };
        if self.config.when_full == WhenFull::Spill && ring.prepare(&self.line) {
            return Written::Accepted;
        }
        ring.count_dropped();
        let time_s = record.time_us / 1_000_000;
        let first = Dropped { n: 0, first_s: time_s, last_s: time_s };
        let dropped = self.dropped.get_or_insert(first);
        (dropped.n, dropped.last_s) = (dropped.n + 1, time_s);
        if self.config.when_full == WhenFull::Drop {
            self.tell(Trouble::Drop, "the buffer is full");
        }
        Written::Dropped
    }

    /// Commits the prepared lines: the answers have gone out.
    pub fn commit(&mut self) {
        if let Some(ring) = self.ring() {
            ring.commit();
        }
    }

    /// Drops the prepared lines: nothing of the answers has gone out.
    pub fn cancel(&mut self) {
        if let Some(ring) = self.ring() {
            ring.cancel();
        }
    }

    /// Moves committed lines to the file, unless another process has locked it. Never waits for the
    /// lock.
    pub fn flush(&mut self) -> Flushed {
        if self.is_empty() && !self.rings.is_spill_in_use() {
            self.n_tries = 0;
            self.report_dropped();
            return Flushed::Done;
        }
        match self.try_flush() {
            Ok(Step::Done) => {
                self.n_tries = 0;
                self.report_dropped();
                if self.rings.note_recovery() {
                    ::log::warn!("access log \"{}\" takes lines again", self.config.file.display());
                }
                Flushed::Done
            }
            Ok(Step::More) => Flushed::Busy { retry_ms: BUSY_MS_MIN },
            Ok(Step::Busy) => {
                if self.is_half_full() && self.config.when_full == WhenFull::Spill {
                    self.spill("another process holds its lock");
                }
                Flushed::Busy { retry_ms: self.retry_ms(BUSY_MS_MIN, BUSY_MS_MAX) }
            }
            Err(error) => {
                let why = error.to_string();
                match self.config.when_full {
                    WhenFull::Spill if self.is_half_full() => _ = self.spill(&why),
                    WhenFull::Spill if self.spill.is_some() => self.tell(Trouble::Spill, &why),
                    WhenFull::Spill | WhenFull::Drop => self.tell(Trouble::Drop, &why),
                    WhenFull::Wait => self.tell(Trouble::Wait, &why),
                }
                Flushed::Failed { retry_ms: self.retry_ms(FAILED_MS_MIN, FAILED_MS_MAX) }
            }
        }
    }

    /// Moves committed lines to the spill file, at the end of a process that cannot wait for the
    /// log; whether they are there.
    pub fn spill_rest(&mut self) -> bool {
        self.spill("this process ends").is_some_and(|spilled| spilled == Spilled::Done)
    }

    /// Writes lines to this file while the log takes none.
    pub fn spill_to(&mut self, spill: Spill) {
        self.spill = Some(spill);
    }

    /// The ring is full: moves its lines to the log, or else to the spill file. Another process may
    /// have that locked for a moment.
    fn make_room(&mut self) {
        for _ in 0..SPILL_TRIES_MAX {
            match self.flush() {
                Flushed::Done => return,
                Flushed::Busy { .. } | Flushed::Failed { .. } if self.is_empty() => return,
                Flushed::Busy { .. } | Flushed::Failed { .. } => {}
            }
            match self.spill("its lock is held, or it is slow") {
                Some(Spilled::Busy) => std::thread::sleep(SPILL_PAUSE),
                Some(Spilled::Done | Spilled::Full) | None => return,
            }
        }
    }

    /// Moves committed lines to the spill file; `None` if it takes none.
    fn spill(&mut self, why: &str) -> Option<Spilled> {
        let ring = self.rings.ring(self.slot)?;
        let Some(spill) = &self.spill else {
            self.tell(Trouble::Drop, &format!("{why}, and there is no spill file"));
            return None;
        };
        let tail = ring.span().map_or(0, |span| span.tail);
        match spill.add(&self.rings, &ring, tail, &mut self.chunk) {
            Ok(Spilled::Done) => {
                self.tell(Trouble::Spill, why);
                Some(Spilled::Done)
            }
            Ok(Spilled::Busy) => Some(Spilled::Busy),
            Ok(Spilled::Full) => {
                self.tell(Trouble::Drop, &format!("{why}, and the spill file is full"));
                Some(Spilled::Full)
            }
            Err(error) => {
                self.tell(Trouble::Drop, &format!("{why}, and the spill file: {error}"));
                None
            }
        }
    }

    /// Says what happens to the lines, unless a process has said that or worse.
    fn tell(&self, trouble: Trouble, why: &str) {
        if !self.rings.note(trouble) {
            return;
        }
        let path = self.config.file.display();
        match trouble {
            Trouble::Wait => ::log::error!(
                "cannot write access log \"{path}\": {why}; lines are kept in memory, and requests \
                 wait when that is full"
            ),
            Trouble::Spill => {
                let (spill, bytes_max) = match &self.spill {
                    Some(spill) if !spill.path.as_os_str().is_empty() => {
                        (format!(" \"{}\"", spill.path.display()), spill.bytes_max)
                    }
                    Some(spill) => (String::new(), spill.bytes_max),
                    None => (String::new(), 0),
                };
                ::log::error!(
                    "cannot write access log \"{path}\": {why}; lines go to the spill file{spill}, at \
                     most {}",
                    format_size(bytes_max)
                );
            }
            Trouble::Drop => ::log::error!(
                "cannot write access log \"{path}\": {why}; lines are dropped when the buffer is full"
            ),
        }
    }

    /// Goes on in this file, as after a rotation. No other process may have the same open file,
    /// since the lock would be shared.
    pub fn write_to(&mut self, file: LogFile) {
        self.file = Some(file);
    }

    /// Whether the log is for a person who watches it.
    pub fn is_live(&self) -> bool {
        self.config.is_live
    }

    /// Whether a flush is due before its second is over.
    pub fn needs_flush(&self) -> bool {
        self.config.is_live || self.is_half_full()
    }

    fn is_half_full(&self) -> bool {
        self.ring().is_some_and(|ring| ring.waiting() >= ring.size() as u64 / 2)
    }

    /// Whether everything committed is in the file.
    pub fn is_empty(&self) -> bool {
        self.ring().is_none_or(|ring| ring.waiting() == 0)
    }

    /// Whether any record is sure to be accepted.
    pub fn has_room(&self) -> bool {
        self.ring().is_some_and(|ring| ring.has_room(LINE_BYTES_MAX))
    }

    /// Lines dropped in this process slot since ktrix was started.
    pub fn dropped(&self) -> u64 {
        self.ring().map_or(0, |ring| ring.dropped())
    }

    fn ring(&self) -> Option<Ring<'_>> {
        self.rings.ring(self.slot)
    }

    fn try_flush(&mut self) -> io::Result<Step> {
        match self.move_lines() {
            // A FIFO with a slow reader.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Step::Busy),
            moved => moved,
        }
    }

    fn move_lines(&mut self) -> io::Result<Step> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(LogFile::open(&self.config.file)?),
        };
        let Some(ring) = self.rings.ring(self.slot) else { return Ok(Step::Done) };
        let Some(locked) = file.try_lock()? else { return Ok(Step::Busy) };
        locked.repair(&self.rings, &mut self.chunk)?;
        if let Some(spill) = self.spill.as_ref().filter(|_| self.rings.is_spill_in_use()) {
            match spill.pour(&locked, &self.rings, &mut self.chunk)? {
                Poured::All => {}
                Poured::Some => return Ok(Step::More),
                Poured::Busy => return Ok(Step::Busy),
            }
        }
        let tail = ring.span().map_or(0, |span| span.tail);
        locked.drain(&ring, tail, &mut self.chunk)?;
        Ok(Step::Done)
    }

    /// Doubles with every try in a row, from `min_ms` to `max_ms`.
    fn retry_ms(&mut self, min_ms: u64, max_ms: u64) -> u64 {
        let wait_ms = min_ms << self.n_tries.min(16);
        self.n_tries = self.n_tries.saturating_add(1);
        wait_ms.min(max_ms)
    }

    fn report_dropped(&mut self) {
        if let Some(Dropped { n, first_s, last_s }) = self.dropped.take() {
            let mut clock = LineClock::new();
            let mut text = |unix_s| String::from_utf8_lossy(clock.iso(unix_s)).into_owned();
            let (first, last) = (text(first_s), text(last_s));
            ::log::error!("access log: {n} lines were dropped from {first}Z to {last}Z");
        }
    }
}

/// A full ring waits so long for another process that has locked the spill file for one move.
const SPILL_TRIES_MAX: usize = 50;
const SPILL_PAUSE: Duration = Duration::from_millis(1);

/// Waits between tries for a file that another process has locked, in milliseconds.
const BUSY_MS_MIN: u64 = 2;
const BUSY_MS_MAX: u64 = 64;
/// Waits between tries for a file that cannot be written, in milliseconds.
const FAILED_MS_MIN: u64 = 100;
const FAILED_MS_MAX: u64 = 5_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogFormat;
    use std::fs;
    use std::path::Path;

    fn config(path: &Path, when_full: WhenFull) -> AccessLogConfig {
        let file = path.to_owned();
        AccessLogConfig {
            file,
            format: LogFormat::Common,
            when_full,
            buffer_bytes: 1,
            spill_bytes: 0,
            is_live: false,
        }
    }

    fn log(path: &Path, when_full: WhenFull) -> AccessLog {
        let rings = Rc::new(Rings::create(1, 1).unwrap());
        let config = config(path, when_full);
        AccessLog::new(config, rings, 0).unwrap()
    }

    fn record(line: &[u8]) -> Record<'_> {
        Record { request_line: line, status: 200, ..Record::default() }
    }

    #[test]
    fn lines_reach_the_file_at_the_flush() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = log(&path, WhenFull::Wait);
        assert_eq!(log.flush(), Flushed::Done);
        assert_eq!(log.write(&record(b"one")), Written::Accepted);
        assert_eq!(log.prepare(&record(b"two")), Written::Accepted);
        assert_eq!(log.flush(), Flushed::Done);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
        log.cancel();
        assert_eq!(log.prepare(&record(b"three")), Written::Accepted);
        log.commit();
        assert_eq!(log.flush(), Flushed::Done);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("\"one\"") && text.contains("\"three\"") && !text.contains("two"));
    }

    #[test]
    fn a_busy_file_is_tried_again_after_growing_pauses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = log(&path, WhenFull::Wait);
        let other = LogFile::open(&path).unwrap();
        let locked = other.try_lock().unwrap();
        assert_eq!(log.write(&record(b"one")), Written::Accepted);
        assert_eq!(log.flush(), Flushed::Busy { retry_ms: 2 });
        assert_eq!(log.flush(), Flushed::Busy { retry_ms: 4 });
        for _ in 0..100 {
            let _ = log.flush();
        }
        assert_eq!(log.flush(), Flushed::Busy { retry_ms: 64 });
        drop(locked);
        assert_eq!(log.flush(), Flushed::Done);
        assert!(log.is_empty());
    }

    #[test]
    fn a_full_ring_waits_or_drops_as_the_operator_chose() {
        let dir = tempfile::tempdir().unwrap();
        for (when_full, expected) in
            [(WhenFull::Wait, Written::Full), (WhenFull::Drop, Written::Dropped)]
        {
            let path = dir.path().join(format!("{when_full:?}"));
            let mut log = log(&path, when_full);
            let mut n_lines = 0;
            while log.write(&record(&[b'x'; 1000])) == Written::Accepted {
                n_lines += 1;
            }
            assert_eq!(log.write(&record(&[b'x'; 1000])), expected);
            assert!(log.needs_flush() && !log.has_room());
            assert_eq!(log.flush(), Flushed::Done);
            assert!(!log.needs_flush() && log.has_room());
            assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), n_lines);
            assert_eq!(log.dropped(), if when_full == WhenFull::Drop { 2 } else { 0 });
        }
    }

    #[test]
    fn a_live_log_is_flushed_after_each_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for is_live in [false, true] {
            let config = AccessLogConfig { is_live, ..config(&path, WhenFull::Spill) };
            let mut log = AccessLog::new(config, Rc::new(Rings::create(1, 1).unwrap()), 0).unwrap();
            assert_eq!(log.write(&record(b"GET / HTTP/1.1")), Written::Accepted);
            assert_eq!(log.needs_flush(), is_live);
        }
    }

    #[test]
    fn lines_that_the_log_does_not_take_are_spilled_and_come_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = log(&path, WhenFull::Spill);
        log.spill_to(Spill::open(&dir.path().join("spill"), 1 << 20).unwrap());
        let other = LogFile::open(&path).unwrap();
        let locked = other.try_lock().unwrap();
        let line = |n: usize| format!("{n} {}", "x".repeat(1000));
        for n in 0..300 {
            assert_eq!(log.write(&record(line(n).as_bytes())), Written::Accepted);
        }
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        drop(locked);
        for _ in 0..100 {
            if log.flush() == Flushed::Done {
                break;
            }
        }
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 300);
        for (n, written) in text.lines().enumerate() {
            assert!(written.contains(&format!("\"{n} xx")), "line {n}: {written:.80}");
        }
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn lines_past_the_bound_of_the_spill_file_are_dropped_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = log(&path, WhenFull::Spill);
        log.spill_to(Spill::open(&dir.path().join("spill"), 100_000).unwrap());
        let other = LogFile::open(&path).unwrap();
        let locked = other.try_lock().unwrap();
        let n_accepted =
            (0..400).filter(|_| log.write(&record(&[b'x'; 1000])) == Written::Accepted).count();
        drop(locked);
        while log.flush() != Flushed::Done {}
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), n_accepted);
        assert!(n_accepted > 100 && log.dropped() as usize == 400 - n_accepted, "{n_accepted}");
    }

    #[test]
    fn a_renamed_file_is_left_behind_at_reopen() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("log"), dir.path().join("log.1"));
        let mut log = log(&path, WhenFull::Wait);
        let write = |log: &mut AccessLog, line: &[u8]| {
            assert_eq!(log.write(&record(line)), Written::Accepted);
            assert_eq!(log.flush(), Flushed::Done);
        };
        write(&mut log, b"one");
        fs::rename(&path, &old).unwrap();
        write(&mut log, b"two");
        log.write_to(LogFile::open(&path).unwrap());
        write(&mut log, b"three");
        assert_eq!(fs::read_to_string(&old).unwrap().lines().count(), 2);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_opened_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("later").join("log");
        let mut log = log(&path, WhenFull::Wait);
        assert_eq!(log.write(&record(b"one")), Written::Accepted);
        assert_eq!(log.flush(), Flushed::Failed { retry_ms: 100 });
        assert_eq!(log.flush(), Flushed::Failed { retry_ms: 200 });
        fs::create_dir(dir.path().join("later")).unwrap();
        assert_eq!(log.flush(), Flushed::Done);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
    }

    #[test]
    fn a_process_slot_that_does_not_exist_is_an_error() {
        let config = config(Path::new("/nowhere"), WhenFull::Wait);
        assert!(AccessLog::new(config, Rc::new(Rings::create(1, 1).unwrap()), 1).is_err());
    }
}
