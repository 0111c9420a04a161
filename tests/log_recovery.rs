//! The guarantee of the access log: each accepted line is in the file exactly once and whole, even
//! if processes are killed.
//!
//! Real processes write through the shared rings, answer and flush, and are killed with SIGKILL at
//! any instant; the parent is the master. An "answer" is a number written to a ledger file between
//! `prepare` and `commit`: every number in a ledger must be a line in the log.

// In a test an unwrap is the assertion that it holds.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ktrix::config::request_log::RequestLog;
use ktrix::config::{AccessLogConfig, LogFormat, WhenFull};
use ktrix::log::access::{AccessLog, Written};
use ktrix::log::file::LogFile;
use ktrix::log::flusher::Flushed;
use ktrix::log::format::Record;
use ktrix::log::recover::{Drained, drain_dead};
use ktrix::log::ring::Rings;
use ktrix::log::spill::Spill;
use ktrix::sys::process::{ExitStatus, fork_child, send_signal, wait_for};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// The limit of every wait.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn killed_workers_neither_lose_nor_repeat_a_line() {
    let mut setup = Setup::new(3);
    setup.run_and_kill(150, |_, _| {});
    setup.expect_every_answer_once();
}

#[test]
fn killed_workers_lose_no_line_across_rotation() {
    let mut setup = Setup::new(3);
    setup.run_and_kill(150, |setup, n_kills| {
        if n_kills % 10 == 5 {
            let old = setup.dir.path().join(format!("log.{n_kills}"));
            fs::rename(setup.log(), old).unwrap();
        }
    });
    assert!(fs::read_dir(setup.dir.path()).unwrap().count() > 10, "the log was rotated");
    setup.expect_every_answer_once();
}

#[test]
fn killed_workers_lose_and_double_no_line_that_was_spilled() {
    let mut setup = Setup::new(3);
    setup.spill = Some(Spill::open(&setup.dir.path().join("spill"), 1 << 30).unwrap());
    fs::write(setup.log(), "").unwrap();
    let foreign: &LogFile = Box::leak(Box::new(LogFile::open(&setup.log()).unwrap()));
    // The log takes nothing for a while, then lines, then nothing.
    let held = RefCell::new(None);
    setup.run_and_kill(150, |_, n_kills| match n_kills % 30 {
        0 => wait_until("the log is locked", || {
            *held.borrow_mut() = foreign.try_lock().unwrap();
            held.borrow().is_some()
        }),
        20 => drop(held.take()),
        _ => {}
    });
    assert!(setup.n_spilled.get() > 0, "nothing was spilled");
    setup.pour();
    setup.expect_every_answer_once();
}

#[test]
fn a_foreign_lock_delays_lines_and_loses_none() {
    let mut setup = Setup::new(2);
    fs::write(setup.log(), "").unwrap();
    let path = setup.log();
    let (ready, told) = nix::unistd::pipe().unwrap();
    let holder = fork_child(&[], move || {
        let file = LogFile::open(&path).unwrap();
        let _locked = file.try_lock().unwrap().unwrap();
        nix::unistd::write(&told, b"x").unwrap();
        sleep(PATIENCE);
        0
    })
    .unwrap();
    assert_eq!(nix::unistd::read(&ready, &mut [0]).unwrap(), 1);
    setup.start(0);
    setup.start(1);
    let full = |setup: &Setup| {
        let ring = |slot| setup.rings.ring(slot).unwrap();
        (0..2).all(|slot| !ring(slot).has_room(20_000))
    };
    wait_until("both rings are full", || full(&setup));
    assert_eq!(fs::metadata(setup.log()).unwrap().len(), 0, "no process writes without the lock");
    kill(holder);
    wait_until("the lines are in the file", || fs::metadata(setup.log()).unwrap().len() > 200_000);
    setup.stop_all();
    setup.expect_every_answer_once();
}

/// A master, its rings, its workers and their answers.
struct Setup {
    dir: tempfile::TempDir,
    rings: Arc<Rings>,
    /// The worker in each process slot: its generation and its process.
    slots: Vec<(u64, Option<Pid>)>,
    /// Where lines go while the log is locked.
    spill: Option<Spill>,
    /// How often lines were in it when a worker was killed.
    n_spilled: Cell<u64>,
}

impl Setup {
    fn new(n_slots: usize) -> Self {
        let rings = Arc::new(Rings::create(n_slots, 128 * 1024).unwrap());
        let dir = tempfile::tempdir().unwrap();
        Self { dir, rings, slots: vec![(0, None); n_slots], spill: None, n_spilled: Cell::new(0) }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn ledger(&self, slot: usize, generation: u64) -> PathBuf {
        self.dir.path().join(format!("ledger.{slot}.{generation}"))
    }

    /// Starts the next generation of the worker in a process slot.
    fn start(&mut self, slot: usize) {
        let generation = self.slots[slot].0 + 1;
        let (rings, log) = (self.rings.clone(), self.log());
        let ledger = File::create(self.ledger(slot, generation)).unwrap();
        let spill = self.spill.as_ref();
        let pid = fork_child(&[], move || {
            let spill = spill.map(|spill| spill.open_again().unwrap());
            let failed = work(rings, slot, generation, &log, spill, &ledger).is_err();
            i32::from(failed)
        });
        self.slots[slot] = (generation, Some(pid.unwrap()));
    }

    /// Keeps all process slots busy and kills a worker every few milliseconds, `n_kills` of them;
    /// `between` may act on the setup before each.
    fn run_and_kill(&mut self, n_kills: usize, between: impl Fn(&Self, usize)) {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        (0..self.slots.len()).for_each(|slot| self.start(slot));
        for n in 0..n_kills {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            sleep(Duration::from_micros(random % 15_000));
            between(self, n);
            let slot = (random >> 20) as usize % self.slots.len();
            kill(self.slots[slot].1.take().unwrap());
            if self.spill.as_ref().is_some_and(|spill| spill.has_lines().unwrap()) {
                self.n_spilled.set(self.n_spilled.get() + 1);
            }
            // Now and then a new worker takes over the process slot with the contents of its ring.
            if n % 4 != 0 {
                self.drain(slot);
            }
            self.start(slot);
        }
        self.stop_all();
    }

    fn stop_all(&mut self) {
        for slot in 0..self.slots.len() {
            kill(self.slots[slot].1.take().unwrap());
        }
        (0..self.slots.len()).for_each(|slot| self.drain(slot));
    }

    fn drain(&self, slot: usize) {
        wait_until("the file is free", || {
            let file = LogFile::open(&self.log()).unwrap();
            let spill = self.spill.as_ref();
            drain_dead(&self.rings, slot, &file, &self.log(), spill).unwrap() != Drained::Busy
        });
    }

    /// Moves what is still in the spill file to the log, as the next start would.
    fn pour(&self) {
        let mut config = config_of(&self.log());
        config.when_full = WhenFull::Spill;
        let mut log = AccessLog::new(config, Arc::clone(&self.rings), 0).unwrap();
        log.write_to(LogFile::open(&self.log()).unwrap());
        self.spill.iter().for_each(|spill| log.spill_to(spill.open_again().unwrap()));
        wait_until("all lines are in the log", || log.flush() == Flushed::Done);
    }

    fn expect_every_answer_once(&self) {
        let mut n_lines = HashMap::<(usize, u64), u64>::new();
        let mut names: Vec<_> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("log"))
            .collect();
        // The oldest file first: a worker's lines are in order across all of them.
        names.sort_by_key(|path| {
            let n = path.extension().and_then(|n| n.to_str()?.parse::<usize>().ok());
            n.unwrap_or(usize::MAX)
        });
        for path in names {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.is_empty() || text.ends_with('\n'), "{path:?} ends with half a line");
            for line in text.lines() {
                let (slot, generation, n) = parse(line);
                let expected = n_lines.entry((slot, generation)).or_default();
                assert_eq!(n, *expected, "of worker {slot}.{generation} in {path:?}");
                *expected += 1;
            }
        }
        let mut n_answers_all = 0;
        for (slot, (generations, _)) in self.slots.iter().enumerate() {
            for generation in 1..=*generations {
                let n_answers = read_ledger(&self.ledger(slot, generation));
                let n_lines = n_lines.get(&(slot, generation)).copied().unwrap_or(0);
                // One more line may have been prepared without an answer.
                assert!(
                    n_lines == n_answers || n_lines == n_answers + 1,
                    "worker {slot}.{generation}: {n_answers} answers, {n_lines} lines"
                );
                n_answers_all += n_answers;
            }
        }
        assert!(n_answers_all > 100, "{n_answers_all} answers are too few for a result");
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.slots.iter().filter_map(|(_, pid)| *pid).for_each(kill);
    }
}

/// A worker: answers, logs and flushes until it is killed.
fn work(
    rings: Arc<Rings>,
    slot: usize,
    generation: u64,
    path: &Path,
    spill: Option<Spill>,
    ledger: &File,
) -> io::Result<()> {
    let mut config = config_of(path);
    if spill.is_some() {
        config.when_full = WhenFull::Spill;
    }
    let mut log = AccessLog::new(config, rings, slot)?;
    log.write_to(LogFile::open(path)?);
    spill.into_iter().for_each(|spill| log.spill_to(spill));
    for n in 0u64.. {
        // Lines of all lengths, now and then one of several pages.
        let len = if n.is_multiple_of(50) { 8_000 } else { n as usize % 200 };
        let text = format!("{slot} {generation} {n} {} .", "x".repeat(len));
        let record = Record { request_line: text.as_bytes(), status: 200, ..Record::default() };
        while log.prepare(&record, 0) != Written::Accepted {
            flush(&mut log);
            sleep(Duration::from_millis(1));
        }
        ledger.write_all_at(&(n + 1).to_le_bytes(), 0)?;
        log.commit();
        if log.needs_flush() || n.is_multiple_of(97) {
            flush(&mut log);
            // As after USR1: the file may have another name now.
            log.write_to(LogFile::open(path)?);
            sleep(Duration::from_micros(300));
        }
    }
    Ok(())
}

fn config_of(path: &Path) -> AccessLogConfig {
    AccessLogConfig {
        which: RequestLog::Access,
        over: Duration::ZERO,
        file: path.to_owned(),
        format: LogFormat::Common,
        when_full: WhenFull::Wait,
        buffer_bytes: 0,
        spill_bytes: 0,
    }
}

fn flush(log: &mut AccessLog) {
    match log.flush() {
        Flushed::Done | Flushed::Busy { .. } => {}
        Flushed::Failed { .. } => std::process::abort(),
    }
}

fn parse(line: &str) -> (usize, u64, u64) {
    let whole = line.split_once('"').and_then(|(_, rest)| rest.split_once('"'));
    let (text, tail) = whole.unwrap_or_else(|| panic!("not a whole line: {line}"));
    assert_eq!(tail, " 200 0", "{line}");
    let words: Vec<_> = text.split(' ').collect();
    assert!(words.len() == 5 && words[4] == ".", "{line}");
    let n: u64 = words[2].parse().unwrap();
    let len = if n.is_multiple_of(50) { 8_000 } else { n as usize % 200 };
    assert_eq!(words[3].len(), len, "{line}");
    (words[0].parse().unwrap(), words[1].parse().unwrap(), n)
}

fn read_ledger(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap();
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

fn kill(pid: Pid) {
    send_signal(pid, Signal::SIGKILL).unwrap();
    assert_eq!(wait_for(pid).unwrap(), ExitStatus::Signal(9), "it ran until it was killed");
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        sleep(Duration::from_millis(1));
    }
}
