//! The access log of one worker: records in, whole lines in the file.
//!
//! ```text
//! write(record)            or  prepare(record) ─ send ─▶ commit() or cancel()
//!      │ ring full: Full (wait for room) or Dropped
//!      ▼
//!   ring ── flush(): at half full, every second, at the end ──▶ file
//!                      Busy, Failed: again after `retry_ms`
//! ```
//!
//! Between `prepare` and its `commit` or `cancel` there is no await: another line written in
//! between would commit the prepared ones too.

use std::io;
use std::rc::Rc;

use crate::config::{AccessLogConfig, WhenFull};
use crate::log::file::LogFile;
use crate::log::format::{LINE_BYTES_MAX, LineWriter};
use crate::log::record::Record;
use crate::log::ring::{Ring, Rings};

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
    seat: usize,
    config: AccessLogConfig,
    writer: LineWriter,
    file: Option<LogFile>,
    line: Vec<u8>,
    chunk: Vec<u8>,
    n_tries: u32,
    dropped_logged: u64,
}

impl AccessLog {
    /// The log of the process with number `seat`. It takes over the lines that the process before
    /// it left in the ring. Without a file ([`Self::write_to`]) every flush tries to open it by its
    /// name.
    ///
    /// # Errors
    /// When the rings have no such seat.
    pub fn new(config: AccessLogConfig, rings: Rc<Rings>, seat: usize) -> io::Result<Self> {
        let Some(ring) = rings.ring(seat) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no log ring for this seat"));
        };
        if ring.span().is_none() {
            ::log::error!(
                "access log: the buffer of process slot {seat} was damaged; its lines are lost"
            );
            ring.clear();
        }
        ring.commit();
        let dropped_logged = ring.dropped();
        let writer = LineWriter::new(config.format);
        Ok(Self {
            rings,
            seat,
            config,
            writer,
            file: None,
            line: Vec::with_capacity(1024),
            chunk: Vec::new(),
            n_tries: 0,
            dropped_logged,
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
        let Some(ring) = self.rings.ring(self.seat) else { return Written::Dropped };
        if ring.prepare(&self.line) {
            return Written::Accepted;
        }
        match self.config.when_full {
            WhenFull::Wait => Written::Full,
            WhenFull::Drop => {
                ring.count_dropped();
                Written::Dropped
            }
        }
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
        self.log_dropped();
        if self.is_empty() {
            self.n_tries = 0;
            return Flushed::Done;
        }
        match self.try_flush() {
            Ok(true) => {
                self.n_tries = 0;
                Flushed::Done
            }
            Ok(false) => Flushed::Busy { retry_ms: self.retry_ms(BUSY_MS_MIN, BUSY_MS_MAX) },
            Err(error) => {
                if self.n_tries.is_multiple_of(LOG_EVERY) {
                    let path = self.config.file.display();
                    ::log::error!("cannot write access log \"{path}\": {error}; lines are kept");
                }
                Flushed::Failed { retry_ms: self.retry_ms(FAILED_MS_MIN, FAILED_MS_MAX) }
            }
        }
    }

    /// Goes on in this file, as after a rotation. No other process may have the same open file,
    /// since the lock would be shared.
    pub fn write_to(&mut self, file: LogFile) {
        self.file = Some(file);
    }

    /// Whether a flush is due before its second is over: the ring is half full.
    pub fn needs_flush(&self) -> bool {
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

    /// Lines dropped in this seat since ktrix was started.
    pub fn dropped(&self) -> u64 {
        self.ring().map_or(0, |ring| ring.dropped())
    }

    fn ring(&self) -> Option<Ring<'_>> {
        self.rings.ring(self.seat)
    }

    /// False if the file is busy.
    fn try_flush(&mut self) -> io::Result<bool> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(LogFile::open(&self.config.file)?),
        };
        let Some(ring) = self.rings.ring(self.seat) else { return Ok(true) };
        let Some(locked) = file.try_lock()? else { return Ok(false) };
        locked.repair(&self.rings, &mut self.chunk)?;
        let tail = ring.span().map_or(0, |span| span.tail);
        match locked.drain(&ring, tail, &mut self.chunk) {
            Ok(_) => Ok(true),
            // A FIFO with a slow reader.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Doubles with every try in a row, from `min_ms` to `max_ms`.
    fn retry_ms(&mut self, min_ms: u64, max_ms: u64) -> u64 {
        let wait_ms = min_ms << self.n_tries.min(16);
        self.n_tries = self.n_tries.saturating_add(1);
        wait_ms.min(max_ms)
    }

    fn log_dropped(&mut self) {
        let dropped = self.dropped();
        let news = dropped.saturating_sub(self.dropped_logged);
        if news > 0 {
            self.dropped_logged = dropped;
            ::log::warn!("access log: {news} lines dropped, the buffer was full");
        }
    }
}

/// An error is logged again after this many tries in a row: once a minute.
const LOG_EVERY: u32 = 12;

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
        AccessLogConfig { file, format: LogFormat::Common, when_full, buffer_bytes: 1 }
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
    fn a_seat_that_does_not_exist_is_an_error() {
        let config = config(Path::new("/nowhere"), WhenFull::Wait);
        assert!(AccessLog::new(config, Rc::new(Rings::create(1, 1).unwrap()), 1).is_err());
    }
}
