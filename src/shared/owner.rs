//! The owners of locks in shared memory, and whether they still live.
//!
//! Every process that writes claims a row of a shared table. A row holds the process's identity
//! (pid, and a hash of its start time and the boot, so that a reused pid does not match) and a
//! count of claims. A lock word holds row and count ([`Owner`]), so that a lock of a former tenant
//! of a row is never taken for one of the present tenant.
//!
//! | bytes | field | meaning |
//! | --- | --- | --- |
//! | 0..8 | identity | pid << 32 \| start; 0 = free |
//! | 8..12 | claims | how often the row was claimed, 23 bits used |
//! | 12..16 | - | 0 |
//! | 16..24 | note | what its tenant is about to lock, so that one sweep of the table finds it |
//! | 24..32 | - | 0 |
//!
//! A process is dead if the kernel has no such pid, a zombie, or a pid with another start time. If
//! the kernel does not tell (a hidden `/proc`), a process counts as alive: waiting is safe, taking
//! a living writer's lock is not.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::sys::shm::{SharedSlice, shared_struct};

/// The most rows a table may have.
pub(crate) const ROWS_MAX: usize = 511;

shared_struct! {
    /// One row of the table: see the module's field table.
    #[derive(Debug)]
    pub(crate) struct OwnerRow: 32 bytes, aligned 32 {
        identity: AtomicU64,
        claims: AtomicU32,
        _zero: AtomicU32,
        note: AtomicU64,
        _rest: AtomicU64,
    }
}

/// One tenancy of one row; never 0, so that a lock word of 0 is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(u32);

impl Owner {
    /// From a word of shared memory; 0 is no owner.
    pub(crate) const fn from_word(word: u32) -> Option<Self> {
        if word == 0 { None } else { Some(Self(word)) }
    }

    /// The word that stands for it.
    pub(crate) const fn word(self) -> u32 {
        self.0
    }

    /// Its row; may lie past the table if the word came from a torn file.
    pub(crate) const fn row(self) -> usize {
        ((self.0 & ROW_MASK) as usize).wrapping_sub(1)
    }

    const fn new(row: usize, claims: u32) -> Self {
        Self(claims << ROW_BITS | (row as u32 + 1))
    }

    const fn claims(self) -> u32 {
        self.0 >> ROW_BITS
    }
}

/// The table of all processes that may hold locks.
#[derive(Clone, Debug)]
pub struct OwnerTable {
    rows: SharedSlice<OwnerRow>,
}

impl OwnerTable {
    /// The table over these rows (at most [`ROWS_MAX`] are used); rows of zeros are free.
    pub(crate) fn new(rows: SharedSlice<OwnerRow>) -> Self {
        Self { rows }
    }

    /// Claims a free row of `range` for this process, else one whose tenant died. The second value
    /// is the note that the former tenant left: what it may have left half-done. `None` when living
    /// processes have all rows.
    pub(crate) fn claim(&self, range: std::ops::Range<usize>) -> Option<(Owner, u64)> {
        let range = range.start..range.end.min(self.rows.len()).min(ROWS_MAX);
        let free = range.clone().find_map(|row| self.take(row, 0));
        free.or_else(|| {
            range.into_iter().find_map(|row| {
                let identity = self.rows.get(row)?.identity.load(Ordering::Acquire);
                if is_process_alive(identity) { None } else { self.take(row, identity) }
            })
        })
    }

    /// Gives the row back. Only its tenant may, and only with no lock held.
    pub(crate) fn release(&self, owner: Owner) {
        if let Some(row) = self.rows.get(owner.row())
            && row.claims.load(Ordering::Acquire) & CLAIMS_MASK == owner.claims()
        {
            row.note.store(0, Ordering::Release);
            row.identity.store(0, Ordering::Release);
        }
    }

    /// Whether the process of this tenancy still runs.
    pub(crate) fn is_alive(&self, owner: Owner) -> bool {
        self.rows.get(owner.row()).is_some_and(|row| {
            row.claims.load(Ordering::Acquire) & CLAIMS_MASK == owner.claims()
                && is_process_alive(row.identity.load(Ordering::Acquire))
        })
    }

    /// The living tenant of `row`.
    pub(crate) fn tenant(&self, row: usize) -> Option<Owner> {
        let claims = self.rows.get(row)?.claims.load(Ordering::Acquire) & CLAIMS_MASK;
        let owner = Owner::new(row, claims);
        self.is_alive(owner).then_some(owner)
    }

    /// Whether a living process other than `except` has a row.
    pub(crate) fn is_anyone_alive(&self, except: Option<Owner>) -> bool {
        (0..self.rows.len()).any(|row| self.tenant(row).is_some_and(|it| Some(it) != except))
    }

    /// Rows whose tenant died, and the notes they left.
    pub(crate) fn dead(&self) -> impl Iterator<Item = (Dead, u64)> {
        self.rows.iter().enumerate().filter_map(|(row, it)| {
            let identity = it.identity.load(Ordering::Acquire);
            let is_dead = identity != 0 && !is_process_alive(identity);
            is_dead.then(|| (Dead { row, identity }, it.note.load(Ordering::Acquire)))
        })
    }

    /// Frees a dead tenant's row, after what its note names has been repaired.
    pub(crate) fn remove_dead(&self, dead: Dead) {
        if let Some(row) = self.rows.get(dead.row) {
            // This fails if a successor claimed the row meanwhile and saw the note.
            let _ = row.identity.compare_exchange(
                dead.identity,
                0,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
        }
    }

    /// Notes what `owner` is about to lock; 0 once it holds nothing.
    #[inline]
    pub(crate) fn note(&self, owner: Owner, note: u64) {
        if let Some(row) = self.rows.get(owner.row()) {
            row.note.store(note, Ordering::Release);
        }
    }

    fn take(&self, row: usize, expected: u64) -> Option<(Owner, u64)> {
        let it = self.rows.get(row)?;
        let me = identity_of_this_process();
        it.identity.compare_exchange(expected, me, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        let claims = it.claims.fetch_add(1, Ordering::AcqRel).wrapping_add(1) & CLAIMS_MASK;
        let note = it.note.swap(0, Ordering::AcqRel);
        Some((Owner::new(row, claims), note))
    }
}

/// A row found dead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dead {
    row: usize,
    identity: u64,
}

/// A lock; dropping it releases it.
#[derive(Debug)]
pub(crate) struct Guard<'a> {
    word: &'a AtomicU32,
    owner: Owner,
    /// Whether the former holder died: what the lock guards may be half-written.
    pub(crate) was_taken_over: bool,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // Only this process's own word is cleared: another process may have taken the lock over.
        let _ = self.word.compare_exchange(self.owner.0, 0, Ordering::Release, Ordering::Relaxed);
    }
}

/// Takes the lock `word` for `owner`: compare and swap, a bounded spin, then yields until
/// [`PATIENCE`] is over. A dead holder's lock is taken over. `None` if a living holder kept it all
/// that time (it was stopped, or the machine is overloaded): the caller goes on without.
#[inline]
pub(crate) fn lock<'a>(word: &'a AtomicU32, owner: Owner, table: &OwnerTable) -> Option<Guard<'a>> {
    for _ in 0..SPINS_MAX {
        if word.compare_exchange_weak(0, owner.0, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            return Some(Guard { word, owner, was_taken_over: false });
        }
        std::hint::spin_loop();
    }
    lock_slowly(word, owner, table)
}

#[cold]
fn lock_slowly<'a>(word: &'a AtomicU32, owner: Owner, table: &OwnerTable) -> Option<Guard<'a>> {
    let begun = Instant::now();
    loop {
        let held = word.load(Ordering::Relaxed);
        let holder = Owner::from_word(held);
        let was_taken_over = holder.is_some_and(|holder| !table.is_alive(holder));
        if (holder.is_none() || was_taken_over)
            && word.compare_exchange(held, owner.0, Ordering::Acquire, Ordering::Relaxed).is_ok()
        {
            return Some(Guard { word, owner, was_taken_over });
        }
        if begun.elapsed() > PATIENCE {
            return None;
        }
        for _ in 0..YIELDS_PER_CHECK {
            if word.load(Ordering::Relaxed) != held {
                break;
            }
            std::thread::yield_now();
        }
    }
}

/// How long a lock is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);

const SPINS_MAX: u32 = 64;
const YIELDS_PER_CHECK: u32 = 16;
const ROW_BITS: u32 = 9;
const ROW_MASK: u32 = (1 << ROW_BITS) - 1;
const CLAIMS_MASK: u32 = u32::MAX >> ROW_BITS;

fn identity_of_this_process() -> u64 {
    let pid = std::process::id();
    let start = stat_of(pid).map_or(0, |stat| stat.start);
    u64::from(pid) << 32 | u64::from(start)
}

fn is_process_alive(identity: u64) -> bool {
    let (pid, start) = ((identity >> 32) as u32, identity as u32);
    let Some(raw) = i32::try_from(pid).ok().filter(|&pid| pid > 0) else { return false };
    if kill(Pid::from_raw(raw), None) == Err(Errno::ESRCH) {
        return false;
    }
    stat_of(pid).is_none_or(|stat| !stat.is_ended && (start == 0 || stat.start == start))
}

struct Stat {
    is_ended: bool,
    /// Start time and boot, mixed.
    start: u32,
}

/// State and start time of `/proc/PID/stat`, or `None` if the kernel does not tell.
fn stat_of(pid: u32) -> Option<Stat> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&text)
}

fn parse_stat(text: &[u8]) -> Option<Stat> {
    // The command, in parentheses, may hold anything; fields are counted after its end.
    let end = memchr::memrchr(b')', text)?;
    let mut fields = std::str::from_utf8(text.get(end + 1..)?).ok()?.split_ascii_whitespace();
    let is_ended = matches!(fields.next()?, "Z" | "X" | "x");
    let ticks: u64 = fields.nth(18)?.parse().ok()?;
    Some(Stat { is_ended, start: mix(ticks ^ boot()) })
}

/// A hash of the machine's boot id; 0 if the kernel does not tell.
pub(crate) fn boot() -> u64 {
    static BOOT: OnceLock<u64> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let text = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        u64::from(crc32c::crc32c(&text)) << 32
    })
}

/// A well-mixed 32-bit value that is never 0.
fn mix(value: u64) -> u32 {
    let value = (value ^ value >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let value = (value ^ value >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    ((value >> 32) as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::shm::SharedMap;
    use std::process::{Command, Stdio};

    fn table(n: usize) -> OwnerTable {
        OwnerTable::new(SharedMap::anonymous(4096).unwrap().slice(0, n).unwrap())
    }

    /// Makes the row's tenant a dead process.
    fn kill_tenant(table: &OwnerTable, owner: Owner) {
        let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
        let identity = u64::from(child.id()) << 32 | 1;
        child.wait().unwrap();
        table.rows[owner.row()].identity.store(identity, Ordering::Release);
    }

    #[test]
    fn rows_are_claimed_once_and_given_back() {
        let table = table(2);
        let (a, _) = table.claim(0..2).unwrap();
        let (b, _) = table.claim(0..9).unwrap();
        assert_ne!(a.row(), b.row());
        assert!(table.claim(0..2).is_none());
        assert!(table.is_alive(a) && table.is_anyone_alive(Some(a)));
        table.release(a);
        assert!(!table.is_alive(a));
        let (c, _) = table.claim(0..2).unwrap();
        assert_eq!(c.row(), a.row());
        assert!(!table.is_alive(a), "a former tenancy is not the present one");
    }

    #[test]
    fn a_dead_tenants_note_goes_to_its_successor() {
        let table = table(1);
        let (a, note) = table.claim(0..1).unwrap();
        assert_eq!(note, 0);
        table.note(a, 42);
        kill_tenant(&table, a);
        assert!(!table.is_alive(a));
        assert_eq!(table.dead().map(|(_, note)| note).collect::<Vec<_>>(), [42]);
        let (b, note) = table.claim(0..1).unwrap();
        assert_eq!(note, 42);
        assert!(table.is_alive(b) && table.dead().next().is_none());
    }

    #[test]
    fn a_dead_holders_lock_is_taken_over() {
        let (table, word) = (table(2), AtomicU32::new(0));
        let (a, _) = table.claim(0..2).unwrap();
        let (b, _) = table.claim(0..2).unwrap();
        std::mem::forget(lock(&word, a, &table).unwrap());
        assert!(lock(&word, b, &table).is_none(), "a living holder keeps it");
        kill_tenant(&table, a);
        let guard = lock(&word, b, &table).unwrap();
        assert!(guard.was_taken_over);
        drop(guard);
        assert!(!lock(&word, b, &table).unwrap().was_taken_over);
        assert_eq!(word.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_word_of_a_torn_file_is_no_living_process() {
        let table = table(2);
        for word in [1, 3, ROW_MASK, u32::MAX, 1 << ROW_BITS] {
            assert!(!table.is_alive(Owner(word)), "{word:#x}");
        }
    }

    #[test]
    fn a_zombie_is_dead() {
        let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
        let identity = u64::from(child.id()) << 32;
        let deadline = Instant::now() + Duration::from_secs(10);
        while is_process_alive(identity) {
            assert!(Instant::now() < deadline, "waited for the child to end");
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!is_process_alive(identity));
        assert!(is_process_alive(identity_of_this_process()));
    }

    #[test]
    fn a_process_may_be_named_anything() {
        let text = b"7 (a) Z 1 b) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 999 20";
        let stat = parse_stat(text).unwrap();
        assert!(!stat.is_ended);
        assert_eq!(stat.start, mix(999 ^ boot()));
        assert!(parse_stat(b"7 (a").is_none());
        assert!(parse_stat(b"7 (a) R 1").is_none());
    }

    #[test]
    fn many_threads_never_hold_it_together() {
        let (table, word, count) = (table(4), AtomicU32::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let (me, _) = table.claim(0..4).unwrap();
                    for _ in 0..2000 {
                        let Some(_guard) = lock(&word, me, &table) else { continue };
                        let seen = count.load(Ordering::Relaxed);
                        std::hint::spin_loop();
                        assert_eq!(count.swap(seen + 1, Ordering::Relaxed), seen);
                    }
                });
            }
        });
    }
}
