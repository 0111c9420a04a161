//! Thirty-two processes that store, renew, read, evict and discard objects with files in a small
//! cache, and are killed at random.
//!
//! Every body repeats its key and its version from end to end, and the slot's times contain the
//! same version, as does every head that a renewal wrote; a reader that finds anything else leaves
//! a note that fails the test. They run for a few seconds, or for `KTRIX_CRASH_SECONDS`.

use std::path::Path;
use std::time::{Duration, Instant};

use ktrix::cache::files::front::OpenError;
use ktrix::cache::files::store::{Store, TMP};
use ktrix::cache::index::Index;
use ktrix::cache::index::repair::IndexRepair;
use ktrix::cache::index::slot::PublishError;
use ktrix::cache::index::slot::{NewSlot, SlotView};
use ktrix::cache::maintenance::evict::{Evictor, Limits};
use ktrix::cache::maintenance::reconcile::{self, Orphans, Reconciler, SlotFault};
use ktrix::cache::place::{self, PutError};

use crate::{Dice, Process, is_whole, key, slot, start, wait_until_ready};

const DIR: &str = "KTRIX_CRASH_OBJECTS_DIR";
const SECONDS: &str = "KTRIX_CRASH_SECONDS";
const N_PROCESSES: usize = 32;
const N_KEYS: u32 = 1_500;
const N_OBJECTS: usize = 900;
/// Large enough that the slack is small beside it, and small enough to be reached before the
/// objects are.
const SIZE_BYTES: u64 = 1_000 * 4096;
/// The largest object, in whole blocks.
const OBJECT_BYTES: u64 = 4 * 4096;

const LIMITS: Limits =
    Limits { size_bytes: SIZE_BYTES, objects: N_OBJECTS as u64, free_bytes_min: 0 };

/// The body of this version of a key: 8 bytes for the key, 8 for the version, over and over.
fn body(n: u32, version: u32) -> Vec<u8> {
    let unit = [u64::from(n).to_le_bytes(), u64::from(version).to_le_bytes()].concat();
    unit.repeat(1 + version as usize % 900)
}

fn object_slot(n: u32, version: u32) -> NewSlot {
    NewSlot { body_len: 0, head_len: 0, ..slot(n, u64::from(version)) }
}

#[test]
fn child() {
    let (Ok(dir), Ok(process_slot)) = (std::env::var(DIR), std::env::var(crate::PROCESS_SLOT))
    else {
        return;
    };
    let (dir, process_slot) = (Path::new(&dir), process_slot.parse::<usize>().unwrap());
    let index = Index::open_existing(dir).unwrap();
    index.attach().unwrap();
    let store = Store::open(dir, 1).unwrap();
    std::fs::write(dir.join(format!("ready-{}", std::process::id())), b"").unwrap();
    let mut dice = Dice(u64::from(std::process::id()));
    let mut evictor = Evictor::new(LIMITS);
    let parent = std::os::unix::process::parent_id();
    let mut n_stored = 0;
    while std::os::unix::process::parent_id() == parent {
        let n = dice.roll(N_KEYS);
        match (process_slot, dice.roll(16)) {
            // As the keeper does; there are two, so that one is always there.
            (0 | 1, _) => {
                if index.wants_recount() {
                    index.recount();
                }
                if !evictor.step(&index, &store, 256).wants_more {
                    std::thread::sleep(Duration::from_micros(500));
                }
            }
            (_, 0) => drop(place::discard(&index, &store, &key(n), None)),
            (_, 1 | 2) => renew(&index, &store, n, dice.roll(u32::MAX)),
            (_, 3..8) => {
                n_stored += 1;
                let id = u64::from(std::process::id()) << 32 | n_stored;
                store_one(&index, &store, id, n, dice.roll(u32::MAX));
            }
            _ => read(&index, &store, dir, n),
        }
    }
}

fn store_one(index: &Index, store: &Store, id: u64, n: u32, version: u32) {
    let text = n.to_le_bytes();
    let mut writer = store.begin(id, &text, b"m", 200, b"A: b\r\n", None).unwrap();
    writer.append(&body(n, version)).unwrap();
    match place::put(index, store, writer.finish().unwrap(), &object_slot(n, version)) {
        Ok(_) | Err(PutError::Removed | PutError::Publish(PublishError::NoRoom)) => {}
        Err(error) => panic!("{error}"),
    }
}

/// The head of a key's version that came with this renewal of it.
fn head(n: u32, version: u32, renewal: u32) -> Vec<u8> {
    let filling = "x".repeat(renewal as usize % 300);
    format!("Key: {n}\r\nVersion: {version}\r\nRenewal: {renewal}{filling}\r\n").into_bytes()
}

fn version_of(body: &[u8]) -> u32 {
    body.get(8..12).map_or(0, |it| u32::from_le_bytes(it.try_into().unwrap()))
}

/// Gives an object another head, as a worker does that has read it.
fn renew(index: &Index, store: &Store, n: u32, renewal: u32) {
    let (Some(view), Ok(Some(object))) =
        (index.lookup(&key(n)), store.open_object(&key(n), &n.to_le_bytes()))
    else {
        return;
    };
    let Ok(Some(body)) = object.read_body(1 << 20) else { return };
    index.restamp(view.slot_ref(), object.stamp.get());
    let version = version_of(&body);
    let which = (view.generation, crc32c::crc32c(&body));
    let front = [&n.to_le_bytes()[..], b"m", &head(n, version, renewal)];
    if let Err(error) = place::renew(index, store, which, &object_slot(n, version), front) {
        assert!(error.to_string().contains("full"), "{error}");
    }
}

fn read(index: &Index, store: &Store, dir: &Path, n: u32) {
    let Some(view) = index.lookup(&key(n)) else { return };
    index.touch(view.at);
    if let Err(why) = judge(store, &view, n) {
        std::fs::write(dir.join("torn"), format!("{n}: {why}: {view:?}")).unwrap();
    }
}

/// The fault of an object; it may have been replaced since its slot was read.
fn judge(store: &Store, view: &SlotView, n: u32) -> Result<(), String> {
    let times = NewSlot { body_len: view.stored_s, head_len: view.stored_s as u32, ..view.slot };
    if view.key != key(n) || !is_whole(&SlotView { slot: times, ..*view }) {
        return Err("a torn slot".to_owned());
    }
    if view.body_len != body(n, view.stored_s as u32).len() as u64 {
        return Err("a slot with another's length".to_owned());
    }
    let object = match store.open_object(&key(n), &n.to_le_bytes()) {
        Ok(Some(object)) => object,
        Ok(None) => return Ok(()),
        Err(OpenError::Io(_)) => return Ok(()),
        Err(OpenError::Fault(fault)) => return Err(format!("a file that is {}", fault.word())),
    };
    let found = object.read_body(1 << 20).map_err(|error| format!("a body: {error}"))?;
    let found = found.unwrap_or_default();
    let version = version_of(&found);
    if found != body(n, version) {
        return Err("a body mixed of two".to_owned());
    }
    let text = String::from_utf8_lossy(object.head());
    let renewal = text.split_once("Renewal: ").map_or("", |(_, rest)| rest);
    let renewal = renewal.trim_end().trim_end_matches('x').parse().unwrap_or(0);
    if text != "A: b\r\n" && object.head() != head(n, version, renewal) {
        return Err(format!("another's head: {text:?}"));
    }
    Ok(())
}

#[test]
fn thirty_two_processes_killed_at_random_mix_no_objects_and_keep_to_the_size() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (index, _) = Index::open(dir, N_OBJECTS).unwrap();
    index.attach().unwrap();
    index.set_size(SIZE_BYTES);
    let store = Store::open(dir, 1).unwrap();
    let start = |process_slot: usize| start(dir, "objects::child", DIR, process_slot);
    let mut processes: Vec<Process> = (0..N_PROCESSES).map(start).collect();
    processes.iter_mut().for_each(|process| wait_until_ready(dir, process));
    let mut dice = Dice(u64::from(std::process::id()));
    let seconds = std::env::var(SECONDS).ok().and_then(|it| it.parse().ok()).unwrap_or(4);
    let (begun, mut n_killed, mut most, mut n_read) = (Instant::now(), 0, 0, 0_u64);
    while begun.elapsed() < Duration::from_secs(seconds) {
        let moment = Instant::now() + Duration::from_micros(u64::from(dice.roll(3_000)));
        while Instant::now() < moment {
            let n = dice.roll(N_KEYS);
            if let Some(view) = index.lookup(&key(n)) {
                judge(&store, &view, n).unwrap_or_else(|why| panic!("{n}: {why}: {view:?}"));
                n_read += 1;
            }
        }
        most = most.max(check_size(&index));
        let process_slot = dice.roll(N_PROCESSES as u32) as usize;
        assert!(
            processes[process_slot].0.try_wait().unwrap().is_none(),
            "it ended: {}",
            errors(dir)
        );
        processes[process_slot].0.kill().unwrap();
        processes[process_slot].0.wait().unwrap();
        n_killed += 1;
        if dice.roll(2) == 0 {
            index.sweep_dead();
        }
        processes[process_slot] = start(process_slot);
        wait_until_ready(dir, &mut processes[process_slot]);
        assert!(!dir.join("torn").exists(), "{:?}", std::fs::read_to_string(dir.join("torn")));
    }
    drop(processes);
    println!(
        "{n_killed} killed, {n_read} reads of the parent, {most} of {SIZE_BYTES} bytes at most"
    );
    assert!(n_killed > 10, "only {n_killed} were killed");
    assert!(most > SIZE_BYTES / 10 * 9, "it was never full: {most} bytes");
    assert!(!dir.join("torn").exists(), "{:?}", std::fs::read_to_string(dir.join("torn")));
    check(&index, &store, n_killed);
}

/// The size of all slots, which must be within the bound: a twentieth is the slack between eviction
/// and refusal, and each process may have passed the gate at the same moment.
fn check_size(index: &Index) -> u64 {
    let bytes = index.iter().map(|view| view.weight_bytes()).sum::<u64>();
    let bound = SIZE_BYTES + SIZE_BYTES / 20 + N_PROCESSES as u64 * OBJECT_BYTES;
    const { assert!(SIZE_BYTES / 20 + N_PROCESSES as u64 * OBJECT_BYTES < SIZE_BYTES / 5) };
    assert!(bytes <= bound, "{bytes} of {bound} bytes");
    let objects = index.iter().count();
    assert!(objects <= N_OBJECTS + N_PROCESSES, "{objects} objects");
    bytes
}

/// Every slot has its file, every bucket can be written, and the remaining files are those that
/// dead processes were writing.
fn check(index: &Index, store: &Store, n_killed: u64) {
    index.sweep_dead();
    assert_eq!(index.faults().collect::<Vec<_>>(), Vec::<String>::new());
    let mut repair = IndexRepair::default();
    while !repair.step(index, 1_000) {}
    assert_eq!(repair.report(), ktrix::cache::index::repair::Report::default());
    let mut n_renewed = 0;
    for view in index.iter() {
        match reconcile::compare(store, &view) {
            Ok(object) => n_renewed += usize::from(object.is_some_and(|it| it.head().len() > 6)),
            // A process that died between rename and publish, or between remove and unlink,
            // leaves these.
            Err(SlotFault::Missing | SlotFault::Lengths) => {}
            Err(fault) => panic!("{fault}: {view:?}"),
        }
    }
    assert!(n_renewed > 0, "no head was renewed");
    // Each dead process was writing at most one file, and may have left one without its slot.
    let n_dead = n_killed as usize + N_PROCESSES;
    let n_temps = reconcile::list(&store.dir().join(TMP)).len();
    assert!(n_temps <= n_dead, "{n_temps} temporary files of {n_dead} dead");
    let n_orphans = files(store).count().saturating_sub(index.iter().count());
    assert!(n_orphans <= n_dead, "{n_orphans} files too many of {n_dead} dead");
    age_files(store);
    let mut reconciler = Reconciler::new(Orphans::Remove);
    while !reconciler.step(index, store, 64, |_, _| None) {}
    let report = reconciler.report();
    let n_left = report.n_slots_removed + report.n_files_removed;
    assert!(n_left <= 2 * n_killed + 2 * N_PROCESSES as u64, "{report:?} of {n_killed} killed");
    assert!(index.iter().all(|view| reconcile::compare(store, &view).is_ok()));
    assert_eq!(files(store).count(), index.iter().count(), "a file for each slot");
    index.recount();
    let begun = Instant::now();
    for n in 0..N_KEYS {
        index.remove(&key(n), None);
    }
    assert_eq!((index.objects(), index.bytes(), index.iter().count()), (0, 0, 0));
    for n in 0..N_OBJECTS as u32 {
        store_one(index, store, u64::from(n) + 1, n, n % 200);
    }
    assert!(index.objects() > 100, "buckets are lost");
    assert!(begun.elapsed() < Duration::from_secs(5), "a lock was left");
}

/// A young file may belong to a living process.
fn age_files(store: &Store) {
    let old = std::time::SystemTime::now() - 2 * reconcile::ORPHAN_AGE;
    for path in files(store) {
        std::fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    }
}

/// The files of objects.
fn files(store: &Store) -> impl Iterator<Item = std::path::PathBuf> {
    (0..256).flat_map(|fan| reconcile::list(&store.dir().join(format!("{fan:02x}"))))
}

fn errors(dir: &Path) -> String {
    let paths = (0..N_PROCESSES).map(|process_slot| dir.join(format!("stderr-{process_slot}")));
    paths.filter_map(|path| std::fs::read_to_string(path).ok()).collect()
}
