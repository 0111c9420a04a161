//! Processes that purge, killed at random: an object named by a finished purge never counts again.
//!
//! This test binary is started again as a writer: `child_purger` does nothing unless the
//! environment names its directory. After each purge it notes the purge, and the objects that could
//! have been stored before it; the parent compares every table that it sees with these notes. The
//! table is small, so that its purges displace each other all the time.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ktrix::cache::purge::bucket::PurgeStatus;
use ktrix::cache::purge::{Order, Purges};
use ktrix::policy::purge::hash::PurgeKind;
use ktrix::policy::purge::surrogate::SurrogateKeys;

const DIR: &str = "KTRIX_PURGE_CRASH_DIR";
const N_WRITERS: usize = 3;
const N_BUCKETS: usize = 2;
const N_URLS: u32 = 12;

fn url(n: u32) -> String {
    format!("GET http://h/{n}")
}

fn order(text: &str, is_soft: bool) -> Order {
    let (name, who) = (text.to_owned(), "test".to_owned());
    Order { kind: PurgeKind::Url, text: text.as_bytes().to_vec(), is_soft, name, who }
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
fn child_purger() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let dir = Path::new(&dir);
    let purges = Purges::open_existing(dir).unwrap();
    let id = std::process::id();
    let mut notes =
        OpenOptions::new().append(true).create(true).open(dir.join(format!("notes-{id}"))).unwrap();
    let mut dice = Dice(u64::from(id));
    let parent = std::os::unix::process::parent_id();
    while std::os::unix::process::parent_id() == parent {
        let n = dice.roll(N_URLS);
        if dice.roll(4) == 0 {
            // These may be undone; their objects are not noted.
            let number = purges.purge(&order(&format!("{}/undone", url(n)), false), 1).unwrap();
            let _ = purges.undo(number, "", 1);
            continue;
        }
        let purge_epoch = purges.purge_epoch();
        let is_soft = dice.roll(3) == 0;
        purges.purge(&order(&url(n), is_soft), 1).expect("a lock was left");
        notes.write_all(format!("{n} {purge_epoch} {is_soft}\n").as_bytes()).unwrap();
    }
}

/// A purging process, killed at the latest when the test ends.
struct Purger(Child);

impl Drop for Purger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(dir: &Path) -> Purger {
    let spawned = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_purger", "--nocapture"])
        .env(DIR, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(dir.join("stderr")).unwrap())
        .spawn();
    Purger(spawned.unwrap())
}

/// Compares the table with the newest notes of a process, and returns their number.
fn check(dir: &Path, id: u32, purges: &Purges) -> usize {
    let text = std::fs::read_to_string(dir.join(format!("notes-{id}"))).unwrap_or_default();
    // The last line may be cut.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let n_lines = whole.lines().count();
    for line in whole.lines().skip(n_lines.saturating_sub(200)) {
        let mut words = line.split(' ');
        let mut next = || words.next().unwrap();
        let (n, purge_epoch) = (next().parse().unwrap(), next().parse().unwrap());
        let is_soft = next() == "true";
        let purge_status =
            purges.purge_status(url(n).as_bytes(), &SurrogateKeys::untagged(purge_epoch));
        let holds = match is_soft {
            true => purge_status != PurgeStatus::Valid,
            false => purge_status == PurgeStatus::Purged,
        };
        assert!(holds, "{purge_status:?}: {line}");
    }
    n_lines
}

#[test]
fn purgers_killed_at_random_leave_no_lock_and_lose_no_purge() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (purges, _) = Purges::open_with(dir, N_BUCKETS).unwrap();
    let mut purgers: Vec<_> = (0..N_WRITERS).map(|_| start(dir)).collect();
    let mut dice = Dice(u64::from(std::process::id()));
    let end = Instant::now() + Duration::from_secs(3);
    let (mut n_killed, mut n_notes) = (0, 0);
    while Instant::now() < end {
        let at = dice.roll(N_WRITERS as u32) as usize;
        let id = purgers[at].0.id();
        let deadline = Instant::now() + Duration::from_secs(20);
        while check(dir, id, &purges) == 0 {
            let ended = purgers[at].0.try_wait().unwrap();
            let errors = || std::fs::read_to_string(dir.join("stderr")).unwrap_or_default();
            assert!(ended.is_none(), "a purger ended: {}", errors());
            assert!(Instant::now() < deadline, "waited for a purger to begin");
            std::thread::yield_now();
        }
        let moment = Instant::now() + Duration::from_micros(u64::from(dice.roll(20_000)));
        while Instant::now() < moment {
            check(dir, purgers[dice.roll(N_WRITERS as u32) as usize].0.id(), &purges);
        }
        purgers[at].0.kill().unwrap();
        purgers[at].0.wait().unwrap();
        n_notes += check(dir, id, &purges);
        n_killed += 1;
        purgers[at] = start(dir);
    }
    for purger in &mut purgers {
        purger.0.kill().unwrap();
        purger.0.wait().unwrap();
        n_notes += check(dir, purger.0.id(), &purges);
    }
    assert!(n_killed > 10 && n_notes > 100, "{n_killed} killed, {n_notes} purges");
    let begun = Instant::now();
    let young = SurrogateKeys::untagged(purges.purge_epoch());
    purges.purge(&order("GET http://other/", false), 1).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "a lock was left");
    assert_eq!(purges.purge_status(url(0).as_bytes(), &young), PurgeStatus::Valid);
    let (again, is_new) = Purges::open(dir).unwrap();
    assert!(!is_new, "no crash makes it a lost table");
    assert_eq!(again.purge_status(url(0).as_bytes(), &young), PurgeStatus::Valid);
}
