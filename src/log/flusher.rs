//! Moves the lines of one worker from its ring to the log, or to the spill file while the log takes
//! none.
//!
//! A write to a disk that hangs does not return. A worker therefore has a thread flush, and prepares
//! lines meanwhile. Only the flusher moves the beginning of the ring, and only the worker its end.

use std::io;
use std::sync::Arc;

use crate::base::units::format_size;
use crate::config::{AccessLogConfig, WhenFull};
use crate::log::file::LogFile;
use crate::log::ring::{Ring, Rings, Trouble};
use crate::log::spill::{Poured, Spill, Spilled};

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

/// Moves the lines of one worker.
#[derive(Debug)]
pub struct Flusher {
    rings: Arc<Rings>,
    slot: usize,
    config: AccessLogConfig,
    pub(super) file: Option<LogFile>,
    pub(super) spill: Option<Spill>,
    chunk: Vec<u8>,
    n_tries: u32,
    /// How often in a row another process held the lock of the spill file.
    n_spill_locked: u32,
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

impl Flusher {
    /// Without a file every flush tries to open it by its name.
    pub(super) fn new(rings: Arc<Rings>, slot: usize, config: AccessLogConfig) -> Self {
        Self {
            rings,
            slot,
            config,
            file: None,
            spill: None,
            chunk: Vec::new(),
            n_tries: 0,
            n_spill_locked: 0,
        }
    }

    /// Moves committed lines to the file, unless another process has locked it. Never waits for the
    /// lock.
    pub fn flush(&mut self) -> Flushed {
        if self.is_empty() && !self.rings.is_spill_in_use() {
            (self.n_tries, self.n_spill_locked) = (0, 0);
            return Flushed::Done;
        }
        match self.try_flush() {
            Ok(Step::Done) => {
                (self.n_tries, self.n_spill_locked) = (0, 0);
                if self.rings.note_recovery() {
                    ::log::warn!(
                        "{} \"{}\" takes lines again",
                        self.config.which.name(),
                        self.config.file.display()
                    );
                }
                Flushed::Done
            }
            Ok(Step::More) => {
                // The lines of the ring belong behind those of the spill file.
                if self.is_half_full() && self.config.when_full == WhenFull::Spill {
                    self.spill("the lines of the spill file come first");
                }
                Flushed::Busy { retry_ms: BUSY_MS_MIN }
            }
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

    /// As [`Self::flush`], at the end of a process that cannot wait for the log: the lines that it does
    /// not take are spilled.
    pub fn flush_last(&mut self) -> Flushed {
        match self.flush() {
            Flushed::Done => Flushed::Done,
            left => match self.spill("this process ends") {
                Some(Spilled::Done) => Flushed::Done,
                _ => left,
            },
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
        let added = spill.add(&self.rings, &ring, tail, &mut self.chunk);
        self.n_spill_locked = match added {
            Ok(Spilled::Busy) => self.n_spill_locked.saturating_add(1),
            _ => 0,
        };
        match added {
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
        tell(&self.rings, &self.config, self.spill.as_ref(), trouble, why);
    }

    /// Whether the lines are only waiting for another process to leave the spill file.
    pub(super) fn is_spill_busy(&self) -> bool {
        (1..SPILL_TRIES_MAX).contains(&self.n_spill_locked)
    }

    fn ring(&self) -> Option<Ring<'_>> {
        self.rings.ring(self.slot)
    }

    fn is_empty(&self) -> bool {
        self.ring().is_none_or(|ring| ring.waiting() == 0)
    }

    fn is_half_full(&self) -> bool {
        self.ring().is_some_and(|ring| ring.is_half_full())
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
}

/// Says what happens to the lines, unless a process has said that or worse.
pub(super) fn tell(
    rings: &Rings,
    config: &AccessLogConfig,
    spill: Option<&Spill>,
    trouble: Trouble,
    why: &str,
) {
    if !rings.note(trouble) {
        return;
    }
    let (name, path) = (config.which.name(), config.file.display());
    match trouble {
        Trouble::Wait => ::log::error!(
            "cannot write {name} \"{path}\": {why}; lines are kept in memory, and requests \
                 wait when that is full"
        ),
        Trouble::Spill => {
            let (spill, bytes_max) = match spill {
                Some(spill) if !spill.path.as_os_str().is_empty() => {
                    (format!(" \"{}\"", spill.path.display()), spill.bytes_max)
                }
                Some(spill) => (String::new(), spill.bytes_max),
                None => (String::new(), 0),
            };
            ::log::error!(
                "cannot write {name} \"{path}\": {why}; lines go to the spill file{spill}, at \
                     most {}",
                format_size(bytes_max)
            );
        }
        Trouble::Drop => ::log::error!(
            "cannot write {name} \"{path}\": {why}; lines are dropped when the buffer is full"
        ),
    }
}

/// How often in a row the spill file may be locked before lines are dropped.
const SPILL_TRIES_MAX: u32 = 10;

/// Waits between tries for a file that another process has locked, in milliseconds.
const BUSY_MS_MIN: u64 = 2;
const BUSY_MS_MAX: u64 = 64;
/// Waits between tries for a file that cannot be written, in milliseconds.
const FAILED_MS_MIN: u64 = 100;
const FAILED_MS_MAX: u64 = 5_000;
