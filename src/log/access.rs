//! The access log, or the slow log, of one worker: records in, whole lines in the file.
//!
//! ```text
//! write(record)            or  prepare(record) ─ send ─▶ commit() or cancel()
//!      │ ring full: Full (wait for room) or Dropped
//!      ▼
//!   ring ── flush, by a thread: at half full, every second, at the end ──▶ file
//!    │                 Busy, Failed: again after `retry_ms`
//!    └── the file takes nothing ──▶ spill file ──▶ file
//! ```
//!
//! Between `prepare` and its `commit` or `cancel` there is no await: another line written in
//! between would commit the prepared ones too.

use std::io;
use std::sync::Arc;

use crate::config::request_log::RequestLog;
use crate::config::{AccessLogConfig, WhenFull};
use crate::log::clock::LineClock;
use crate::log::file::LogFile;
use crate::log::flusher::{self, Flushed, Flusher};
use crate::log::format::{LINE_BYTES_MAX, LineWriter, Record};
use crate::log::ring::{Ring, Rings, Trouble};
use crate::log::spill::Spill;

/// The outcome of writing a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Written {
    /// It is in the ring.
    Accepted,
    /// The ring is full, and nothing makes room in it for now; the loss is counted.
    Dropped,
    /// The ring is full: flush, wait until [`AccessLog::has_room`], and write it again.
    Full,
}

/// The access log of one worker.
#[derive(Debug)]
pub struct AccessLog {
    rings: Arc<Rings>,
    slot: usize,
    config: AccessLogConfig,
    writer: LineWriter,
    line: Vec<u8>,
    /// `None` while a flush is under way.
    flusher: Option<Flusher>,
    /// The file to go on in, if it came meanwhile.
    next_file: Option<LogFile>,
    /// Whether the last flush has made no room in a full ring, or makes none for a while.
    is_stuck: bool,
    dropped: Option<Dropped>,
}

/// Lines that were dropped and not reported yet.
#[derive(Clone, Copy, Debug)]
struct Dropped {
    n: u64,
    first_s: u64,
    last_s: u64,
}

impl AccessLog {
    /// The log of the process with number `slot`. It takes over the lines that the process before
    /// it left in the ring. Without a file ([`Self::write_to`]) every flush tries to open it by its
    /// name.
    ///
    /// # Errors
    /// When the rings have no such process slot.
    pub fn new(config: AccessLogConfig, rings: Arc<Rings>, slot: usize) -> io::Result<Self> {
        let Some(ring) = rings.ring(slot) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no log ring for this process slot",
            ));
        };
        if ring.span().is_none() {
            ::log::error!(
                "{}: the buffer of process slot {slot} was damaged; its lines are lost",
                config.which.name()
            );
            ring.clear();
        }
        ring.commit();
        let writer = LineWriter::new(config.format);
        let flusher = Flusher::new(Arc::clone(&rings), slot, config.clone());
        Ok(Self {
            rings,
            slot,
            config,
            writer,
            line: Vec::with_capacity(1024),
            flusher: Some(flusher),
            next_file: None,
            is_stuck: false,
            dropped: None,
        })
    }

    /// Writes a line for the record, and commits the prepared ones.
    pub fn write(&mut self, record: &Record<'_>) -> Written {
        let written = self.prepare(record, 0);
        self.commit();
        written
    }

    /// Writes a line that counts only once [`Self::commit`] is called, or if the process dies
    /// before that, since the answer is about to go out. Several may be prepared together. The note is
    /// what remains to be done when the line is in the ring, see [`Ring::prepare_noted`].
    pub fn prepare(&mut self, record: &Record<'_>, note: u64) -> Written {
        self.line.clear();
        self.writer.write(record, &mut self.line);
        let Some(ring) = self.rings.ring(self.slot) else { return Written::Dropped };
        if ring.prepare_noted(&self.line, note) {
            return Written::Accepted;
        }
        if !self.may_drop() {
            return Written::Full;
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

    /// Whether lines that the log does not take go to the spill file.
    pub fn may_spill(&self) -> bool {
        self.config.when_full == WhenFull::Spill
    }

    /// Whether there is something to flush.
    pub fn has_lines(&self) -> bool {
        !self.is_empty() || self.dropped.is_some() || self.rings.is_spill_in_use()
    }

    /// Gives the flusher away for a flush, unless one is under way.
    pub fn begin_flush(&mut self) -> Option<Flusher> {
        self.flusher.take()
    }

    /// A flush is over.
    pub fn end_flush(&mut self, mut flusher: Flusher, flushed: Flushed) {
        if let Some(file) = self.next_file.take() {
            flusher.file = Some(file);
        }
        let is_brief = flusher.is_spill_busy();
        self.flusher = Some(flusher);
        self.is_stuck = flushed != Flushed::Done && !self.has_space() && !is_brief;
        if flushed == Flushed::Done {
            self.report_dropped();
        }
    }

    /// The flush under way takes long, so that it may never end.
    pub fn note_slow_flush(&mut self) {
        self.is_stuck = true;
        match self.config.when_full {
            WhenFull::Wait => self.tell(Trouble::Wait, "the disk does not answer"),
            WhenFull::Spill | WhenFull::Drop => {
                self.tell(Trouble::Drop, "the disk does not answer")
            }
        }
    }

    /// A flush was lost, and its flusher with it.
    pub fn lose_flusher(&mut self) {
        let config = self.config.clone();
        self.flusher = Some(Flusher::new(Arc::clone(&self.rings), self.slot, config));
    }

    /// Flushes in place, which may wait for the disk.
    pub fn flush(&mut self) -> Flushed {
        let Some(mut flusher) = self.begin_flush() else { return Flushed::Busy { retry_ms: 1 } };
        let flushed = flusher.flush();
        self.end_flush(flusher, flushed);
        flushed
    }

    /// Writes lines to this file while the log takes none.
    pub fn spill_to(&mut self, spill: Spill) {
        if let Some(flusher) = &mut self.flusher {
            flusher.spill = Some(spill);
        }
    }

    fn tell(&self, trouble: Trouble, why: &str) {
        flusher::tell(&self.rings, &self.config, None, trouble, why);
    }

    /// Goes on in this file, as after a rotation. No other process may have the same open file,
    /// since the lock would be shared.
    pub fn write_to(&mut self, file: LogFile) {
        match &mut self.flusher {
            Some(flusher) => flusher.file = Some(file),
            None => self.next_file = Some(file),
        }
    }

    /// Whether a request that took this long has a line, in microseconds.
    pub fn takes(&self, total_us: u64) -> bool {
        u128::from(total_us) >= self.config.over.as_micros()
    }

    /// Whether a flush is due before its second is over.
    pub fn needs_flush(&self) -> bool {
        self.ring().is_some_and(|ring| ring.is_half_full())
    }

    /// Whether everything committed is in the file.
    pub fn is_empty(&self) -> bool {
        self.ring().is_none_or(|ring| ring.waiting() == 0)
    }

    /// Whether any record can be written now, be it to be dropped.
    pub fn has_room(&self) -> bool {
        self.has_space() || self.may_drop()
    }

    /// Whether a line is dropped that finds the ring full. Lines are spilled before it is full, so
    /// that it is full only for a moment, unless nothing can be spilled.
    fn may_drop(&self) -> bool {
        match self.config.when_full {
            WhenFull::Drop => true,
            // No request waits for a slow log.
            WhenFull::Spill => self.is_stuck || self.config.which == RequestLog::Slow,
            WhenFull::Wait => false,
        }
    }

    fn has_space(&self) -> bool {
        self.ring().is_some_and(|ring| ring.has_room(LINE_BYTES_MAX))
    }

    /// Lines dropped in this process slot since ktrix was started.
    pub fn dropped(&self) -> u64 {
        self.ring().map_or(0, |ring| ring.dropped())
    }

    fn ring(&self) -> Option<Ring<'_>> {
        self.rings.ring(self.slot)
    }

    fn report_dropped(&mut self) {
        if let Some(Dropped { n, first_s, last_s }) = self.dropped.take() {
            let mut clock = LineClock::new();
            let mut text = |unix_s| String::from_utf8_lossy(clock.iso(unix_s)).into_owned();
            let (first, last) = (text(first_s), text(last_s));
            let name = self.config.which.name();
            ::log::error!("{name}: {n} lines were dropped from {first}Z to {last}Z");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogFormat;
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use crate::config::request_log::RequestLog;

    fn config(path: &Path, when_full: WhenFull) -> AccessLogConfig {
        let file = path.to_owned();
        AccessLogConfig {
            which: RequestLog::Access,
            over: Duration::ZERO,
            file,
            format: LogFormat::Common,
            when_full,
            buffer_bytes: 1,
            spill_bytes: 0,
        }
    }

    fn log(path: &Path, when_full: WhenFull) -> AccessLog {
        let rings = Arc::new(Rings::create(1, 1).unwrap());
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
        assert_eq!(log.prepare(&record(b"two"), 0), Written::Accepted);
        assert_eq!(log.flush(), Flushed::Done);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
        log.cancel();
        assert_eq!(log.prepare(&record(b"three"), 0), Written::Accepted);
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
            assert!(log.needs_flush());
            assert_eq!(log.has_room(), when_full == WhenFull::Drop);
            assert_eq!(log.flush(), Flushed::Done);
            assert!(!log.needs_flush() && log.has_room());
            assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), n_lines);
            assert_eq!(log.dropped(), if when_full == WhenFull::Drop { 2 } else { 0 });
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
            while !log.has_room() {
                let _ = log.flush();
            }
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
        let mut write = |_: &usize| {
            while !log.has_room() {
                let _ = log.flush();
            }
            log.write(&record(&[b'x'; 1000])) == Written::Accepted
        };
        let n_accepted = (0..400).filter(&mut write).count();
        drop(locked);
        while log.flush() != Flushed::Done {}
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), n_accepted);
        assert!(n_accepted > 100 && log.dropped() as usize == 400 - n_accepted, "{n_accepted}");
    }

    #[test]
    fn lines_are_dropped_only_when_a_flush_takes_long() {
        let dir = tempfile::tempdir().unwrap();
        let (path, next) = (dir.path().join("log"), dir.path().join("next"));
        let mut log = log(&path, WhenFull::Spill);
        let line = [b'x'; 1000];
        assert_eq!(log.write(&record(&line)), Written::Accepted);
        let mut flusher = log.begin_flush().unwrap();
        assert!(log.begin_flush().is_none(), "one is under way");
        let mut n_lines = 1;
        while log.write(&record(&line)) == Written::Accepted {
            n_lines += 1;
        }
        assert!(!log.has_room() && log.write(&record(&line)) == Written::Full);
        log.note_slow_flush();
        assert!(log.has_room() && log.write(&record(&line)) == Written::Dropped);
        log.write_to(LogFile::open(&next).unwrap());
        let flushed = flusher.flush();
        log.end_flush(flusher, flushed);
        assert_eq!((flushed, log.has_space(), log.dropped()), (Flushed::Done, true, 1));
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), n_lines);
        assert_eq!(log.write(&record(&line)), Written::Accepted);
        assert_eq!(log.flush(), Flushed::Done);
        assert_eq!(fs::read_to_string(&next).unwrap().lines().count(), 1);
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
        assert!(AccessLog::new(config, Arc::new(Rings::create(1, 1).unwrap()), 1).is_err());
    }
}
