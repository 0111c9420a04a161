//! Processes that write the shared index and lead fills, killed at random.
//!
//! This test binary is started again as a writer: `child_writer` does nothing unless the
//! environment names its directory. Every published slot contains one value three times, so that a
//! torn read is noticed; a process that reads one leaves a note that fails the test.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[path = "index_crash/objects.rs"]
mod objects;

use ktrix::cache::fills::entry::FillState;
use ktrix::cache::fills::{Fills, LeaseResult};
use ktrix::cache::index::Index;
use ktrix::cache::index::slot::{NewSlot, SlotView, State};
use ktrix::policy::key::{Key, key_of};

const DIR: &str = "KTRIX_CRASH_DIR";
const PROCESS_SLOT: &str = "KTRIX_CRASH_PROCESS_SLOT";
const N_KEYS: u32 = 300;
const N_WRITERS: usize = 3;
const N_FILLS: usize = 64;

fn key(n: u32) -> Key {
    key_of(&n.to_le_bytes())
}

fn slot(n: u32, value: u64) -> NewSlot {
    NewSlot {
        key: key(n),
        state: State::Ready,
        flags: value as u8,
        status: 200,
        stored_s: value,
        fresh_until_s: value,
        swr_until_s: value,
        sie_until_s: value,
        age_s: value as u32,
        head_len: value as u32,
        body_len: value,
        stamp: 0,
    }
}

fn is_whole(view: &SlotView) -> bool {
    let value = view.body_len;
    let times = [view.stored_s, view.fresh_until_s, view.swr_until_s, view.sie_until_s];
    times.iter().all(|&time| time == value)
        && (view.age_s, view.head_len) == (value as u32, value as u32)
        && view.flags == value as u8
}

/// A cheap generator, so that runs differ by their seed alone.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as u32) % sides
    }
}

#[test]
fn child_writer() {
    let (Ok(dir), Ok(process_slot)) = (std::env::var(DIR), std::env::var(PROCESS_SLOT)) else {
        return;
    };
    let (dir, process_slot) = (Path::new(&dir), process_slot.parse::<usize>().unwrap());
    let index = Index::open_existing(dir).unwrap();
    index.attach().unwrap();
    let fills = Fills::in_file(&open(dir), N_FILLS).unwrap();
    fills.attach(process_slot).unwrap();
    let mut dice = Dice(u64::from(std::process::id()));
    std::fs::write(dir.join(format!("ready-{}", std::process::id())), b"").unwrap();
    let parent = std::os::unix::process::parent_id();
    while std::os::unix::process::parent_id() == parent {
        let n = dice.roll(N_KEYS);
        match dice.roll(8) {
            0..4 => {
                let value = u64::from(dice.roll(u32::MAX));
                index.publish(&slot(n, value)).expect("a bucket stayed locked");
            }
            4 => {
                index.remove(&key(n), None);
            }
            5 => lead_or_follow(&fills, &key(n % 4), process_slot),
            _ => {
                if let Some(view) = index.lookup(&key(n)) {
                    index.touch(view.at);
                    if !is_whole(&view) || view.key != key(n) {
                        std::fs::write(dir.join("torn"), format!("{view:?}")).unwrap();
                    }
                }
            }
        }
    }
}

/// One of four keys, so that all processes meet at them.
fn lead_or_follow(fills: &Fills, key: &Key, process_slot: usize) {
    match fills.lease(key, process_slot, 0) {
        LeaseResult::Leader(at) => {
            fills.head_ready(at, Some(10));
            fills.progress(at, 10);
            fills.done(at);
        }
        LeaseResult::Follow(at) => fills.unfollow(at, process_slot),
        LeaseResult::Full => {}
    }
}

fn open(dir: &Path) -> File {
    let path = dir.join("fills");
    File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// A child process, killed at the latest when the test ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts this binary again as one of its tests, which finds its directory in `variable`.
fn start(dir: &Path, test: &str, variable: &str, process_slot: usize) -> Process {
    let spawned = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(variable, dir)
        .env(PROCESS_SLOT, process_slot.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(dir.join(format!("stderr-{process_slot}"))).unwrap())
        .spawn();
    Process(spawned.unwrap())
}

fn start_writer(dir: &Path, process_slot: usize) -> Process {
    start(dir, "child_writer", DIR, process_slot)
}

fn wait_until_ready(dir: &Path, process: &mut Process) {
    let path = dir.join(format!("ready-{}", process.0.id()));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        assert!(process.0.try_wait().unwrap().is_none(), "a process ended: {}", errors(dir));
        assert!(Instant::now() < deadline, "waited for a process to begin");
        std::thread::yield_now();
    }
}

fn errors(dir: &Path) -> String {
    let paths = (0..N_WRITERS).map(|process_slot| dir.join(format!("stderr-{process_slot}")));
    paths.filter_map(|path| std::fs::read_to_string(path).ok()).collect()
}

#[test]
fn writers_killed_at_random_leave_no_lock_no_torn_slot_and_no_lost_bucket() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (index, _) = Index::open(dir, N_KEYS as usize).unwrap();
    index.attach().unwrap();
    let fills = Fills::in_file(&open(dir), N_FILLS).unwrap();
    fills.attach_without_slot().unwrap();
    let mut writers: Vec<Process> =
        (0..N_WRITERS).map(|process_slot| start_writer(dir, process_slot)).collect();
    writers.iter_mut().for_each(|writer| wait_until_ready(dir, writer));
    let mut dice = Dice(u64::from(std::process::id()));
    let end = Instant::now() + Duration::from_secs(4);
    let mut n_killed = 0;
    while Instant::now() < end {
        let moment = Instant::now() + Duration::from_micros(u64::from(dice.roll(3000)));
        while Instant::now() < moment {
            read_some(&index, &mut dice);
        }
        let process_slot = dice.roll(N_WRITERS as u32) as usize;
        assert!(writers[process_slot].0.try_wait().unwrap().is_none(), "it ended: {}", errors(dir));
        writers[process_slot].0.kill().unwrap();
        writers[process_slot].0.wait().unwrap();
        n_killed += 1;
        if dice.roll(2) == 0 {
            index.sweep_dead();
            fills.abandon_all_of(process_slot);
        }
        writers[process_slot] = start_writer(dir, process_slot);
        wait_until_ready(dir, &mut writers[process_slot]);
    }
    for (process_slot, writer) in writers.iter_mut().enumerate() {
        writer.0.kill().unwrap();
        writer.0.wait().unwrap();
        fills.abandon_all_of(process_slot);
    }
    assert!(n_killed > 20, "only {n_killed} were killed");
    assert!(!dir.join("torn").exists(), "{:?}", std::fs::read_to_string(dir.join("torn")));
    check_index(&index);
    check_fills(&fills);
}

fn read_some(index: &Index, dice: &mut Dice) {
    if let Some(view) = index.lookup(&key(dice.roll(N_KEYS))) {
        assert!(is_whole(&view), "{view:?}");
    }
}

fn check_index(index: &Index) {
    index.sweep_dead();
    assert_eq!(index.faults().collect::<Vec<_>>(), Vec::<String>::new());
    let mut keys: Vec<_> = index.iter().map(|view| view.key.0).collect();
    let n_keys = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), n_keys, "a key has two slots");
    index.recount();
    assert_eq!(index.objects(), n_keys as u64);
    let begun = Instant::now();
    for n in 0..N_KEYS * 4 {
        let published = index.publish(&slot(n, 5)).expect("no bucket is lost");
        assert!(index.is_current(published.slot));
        assert!(is_whole(&index.lookup(&key(n)).expect("it was just published")));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "a lock was left");
}

fn check_fills(fills: &Fills) {
    for n in 0..4 {
        let LeaseResult::Leader(at) = fills.lease(&key(n), 0, 0) else {
            panic!("a fill stayed open")
        };
        assert!(!fills.has_followers(at));
        fills.failed(at, 7);
        assert_eq!(fills.state(at), FillState::Failed { code: 7 });
    }
}
