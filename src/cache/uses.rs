//! How often keys that are not stored were requested lately: a small sketch that all workers share,
//! and the admission that it decides.
//!
//! Shared memory, made before the fork, and passed on in an upgrade: a head and two tables of equal size,
//! each 8 bytes for every object of the cache (rounded up to a power of two). A key has four counters of four
//! bits in one cache line of each table; the least of them is taken, so that keys which share
//! counters seem more requested, never less. Counting is for one table; once that has seen as many
//! new keys as the cache has objects, the other one is emptied and counts on, and the full one is
//! only read. So a key is remembered while at least that many new keys come, and at most twice as
//! many.
//!
//! # Admission
//!
//! A full cache evicts something for each object that it takes. Most keys are requested only once,
//! so with admission on a new key is stored at its second request. That keeps the cache for keys
//! that are requested again, and saves writes to the disk. If many new keys are requested again
//! soon, each of them costs a miss: in automatic mode the keeper checks this with each change of
//! the tables, and suspends admission for a while, twice as long each time. A cache that has room
//! takes everything.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::cache::index::slot::halves;
use crate::config::Admission;
use crate::policy::key::Key;
use crate::sys::shm::{SharedMap, SharedSlice, shared_struct};

shared_struct! {
    /// The head.
    #[derive(Debug)]
    struct Head: 64 bytes, aligned 64 {
        /// Counts the changes of the tables; the last bit says which one counts.
        turn: AtomicU32,
        /// Automatic mode: whether new keys wait for their second request.
        is_strict: AtomicU32,
        /// Automatic mode: for how many more turns admission is suspended.
        n_turns_off: AtomicU32,
        /// Automatic mode: for how many turns it is suspended the next time.
        n_turns_penalty: AtomicU32,
        /// Keys that were new since the last turn.
        n_new: AtomicU64,
        /// Those of them that were requested while the cache was full.
        n_first: AtomicU64,
        /// Keys that were requested a second time since the last turn, while the cache was full.
        n_second: AtomicU64,
        _rest: [AtomicU64; 3],
    }
}

/// The sketch.
#[derive(Debug)]
pub struct Uses {
    head: SharedSlice<Head>,
    tables: [SharedSlice<AtomicU64>; 2],
    /// New keys that one table counts.
    n_keys: u64,
    map: SharedMap,
}

impl Uses {
    /// A sketch for a cache of this many objects; call before forking.
    ///
    /// # Errors
    ///
    /// When the system has not enough shared memory.
    pub fn create(n_objects: usize) -> io::Result<Self> {
        let uses = Self::over(SharedMap::named("ktrix-uses", len_of(n_objects))?, n_objects)?;
        uses.head().is_strict.store(1, Ordering::Relaxed);
        uses.head().n_turns_penalty.store(1, Ordering::Relaxed);
        Ok(uses)
    }

    /// The sketch of the ktrix before this one, which has passed its file and goes on counting in it.
    ///
    /// # Errors
    ///
    /// When its cache is for another number of objects.
    pub(crate) fn passed(fd: OwnedFd, n_objects: usize) -> io::Result<Self> {
        Self::over(SharedMap::passed(fd, len_of(n_objects))?, n_objects)
    }

    /// Its file, for a ktrix that takes the place of this one.
    pub(crate) fn file(&self) -> Option<&File> {
        self.map.opened_file()
    }

    fn over(map: SharedMap, n_objects: usize) -> io::Result<Self> {
        let n_words = n_words(n_objects);
        let table =
            |number| map.slice(size_of::<Head>() + number * n_words * size_of::<u64>(), n_words);
        Ok(Self {
            head: map.slice(0, 1)?,
            tables: [table(0)?, table(1)?],
            n_keys: n_objects.min(n_words) as u64,
            map,
        })
    }

    /// Counts a request for a key that is not stored, and gives how many were counted before, up to
    /// [`COUNT_MAX`]. `is_full` says that the cache has to evict something for it.
    pub fn count(&self, key: &Key, is_full: bool) -> u32 {
        let places = Places::of(key);
        let head = self.head();
        let turn = head.turn.load(Ordering::Relaxed) as usize;
        let [counting, older] = [&self.tables[turn % 2], &self.tables[(turn + 1) % 2]];
        let before = (places.least(counting) + places.least(older)).min(COUNT_MAX);
        places.add(counting);
        if before == 0 {
            head.n_new.fetch_add(1, Ordering::Relaxed);
        }
        match (is_full, before) {
            (true, 0) => head.n_first.fetch_add(1, Ordering::Relaxed),
            (true, 1) => head.n_second.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        before
    }

    /// Whether a full cache stores a key that was counted `n_before` times.
    pub fn admits(&self, n_before: u32, admission: Admission) -> bool {
        match admission {
            Admission::Off => true,
            Admission::On => n_before > 0,
            Admission::Auto => n_before > 0 || !self.is_strict(),
        }
    }

    /// Automatic mode: whether a new key waits for its second request.
    pub fn is_strict(&self) -> bool {
        self.head().is_strict.load(Ordering::Relaxed) != 0
    }

    /// Changes the tables when enough new keys have come. Only the keeper calls this, now and then.
    /// If it is late, more keys share counters, and more are admitted. If two keepers change them at
    /// once, in an upgrade, some keys are forgotten.
    pub fn maintain(&self) {
        let head = self.head();
        if head.n_new.load(Ordering::Relaxed) < self.n_keys {
            return;
        }
        head.n_new.store(0, Ordering::Relaxed);
        let n_first = head.n_first.load(Ordering::Relaxed);
        if n_first >= self.n_keys / 4 {
            let n_second = head.n_second.swap(0, Ordering::Relaxed);
            head.n_first.store(0, Ordering::Relaxed);
            self.judge(n_second.saturating_mul(100) / n_first.max(1));
        }
        let next = head.turn.load(Ordering::Relaxed).wrapping_add(1);
        for word in self.tables[next as usize % 2].iter() {
            word.store(0, Ordering::Relaxed);
        }
        head.turn.store(next, Ordering::Relaxed);
    }

    /// Decides whether admission is suspended for the next turn. `per_cent_back` of the new keys
    /// were requested a second time.
    fn judge(&self, per_cent_back: u64) {
        let head = self.head();
        let penalty = head.n_turns_penalty.load(Ordering::Relaxed);
        let (is_strict, n_turns_off, penalty) = match self.is_strict() {
            true if per_cent_back > BACK_PER_CENT_MAX => {
                (false, penalty, (2 * penalty).min(TURNS_OFF_MAX))
            }
            true => (true, 0, (penalty / 2).max(1)),
            false => {
                let left = head.n_turns_off.load(Ordering::Relaxed).saturating_sub(1);
                (left == 0, left, penalty)
            }
        };
        head.is_strict.store(u32::from(is_strict), Ordering::Relaxed);
        head.n_turns_off.store(n_turns_off, Ordering::Relaxed);
        head.n_turns_penalty.store(penalty, Ordering::Relaxed);
    }

    fn head(&self) -> &Head {
        // `create` made it a slice of exactly one.
        &self.head[0]
    }
}

/// The words of a table.
fn n_words(n_objects: usize) -> usize {
    n_objects.next_power_of_two().clamp(LINE, WORDS_MAX)
}

fn len_of(n_objects: usize) -> usize {
    size_of::<Head>() + 2 * n_words(n_objects) * size_of::<u64>()
}

/// The most that is counted.
pub const COUNT_MAX: u32 = 15;

/// Where a key's counters are: a line, and in each quarter of it one of 32.
struct Places {
    line: u64,
    counters: [u32; 4],
}

impl Places {
    fn of(key: &Key) -> Self {
        // The bits of an MD5 are evenly distributed. The index places keys by the upper bits of the
        // first half.
        let [high, low] = halves(key);
        Self { line: low, counters: [0, 8, 16, 24].map(|shift| (high >> shift) as u32 % 32) }
    }

    fn words<'a>(&self, table: &'a [AtomicU64]) -> impl Iterator<Item = (&'a AtomicU64, u32)> {
        let n_lines = (table.len() / LINE).max(1) as u64;
        let start = (self.line % n_lines) as usize * LINE;
        let words = table.get(start..start + LINE).unwrap_or_default();
        let place = |(quarter, counter): (usize, u32)| {
            let word = words.get(2 * quarter + counter as usize / 16)?;
            Some((word, counter % 16 * 4))
        };
        self.counters.into_iter().enumerate().filter_map(place)
    }

    fn least(&self, table: &[AtomicU64]) -> u32 {
        let counts = self.words(table).map(|(word, shift)| count_in(word, shift));
        counts.min().unwrap_or(0)
    }

    /// Adds one to the counters with the least value: the others count for other keys too.
    fn add(&self, table: &[AtomicU64]) {
        let least = self.least(table);
        if least >= COUNT_MAX {
            return;
        }
        for (word, shift) in self.words(table) {
            let more = |seen: u64| {
                let is_least = (seen >> shift) as u32 & COUNT_MAX == least;
                is_least.then(|| seen + (1 << shift))
            };
            let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        }
    }
}

fn count_in(word: &AtomicU64, shift: u32) -> u32 {
    (word.load(Ordering::Relaxed) >> shift) as u32 & COUNT_MAX
}

/// Words of a cache line.
const LINE: usize = 8;
/// The largest table: 128 MiB.
const WORDS_MAX: usize = 1 << 24;
/// If more new keys than this are requested again, they are better stored at once.
const BACK_PER_CENT_MAX: u64 = 25;
/// The most turns for which automatic mode suspends admission.
const TURNS_OFF_MAX: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::key::key_of;

    fn key(n: u32) -> Key {
        key_of(&n.to_le_bytes())
    }

    #[test]
    fn uses_are_counted_and_false_positives_are_rare() {
        let uses = Uses::create(10_000).unwrap();
        for round in 0..3 {
            let wrong = (0..10_000).filter(|&n| uses.count(&key(n), false) != round).count();
            assert!(wrong < 200, "{wrong} in round {round}");
        }
        for _ in 0..20 {
            uses.count(&key(1), false);
        }
        assert_eq!(uses.count(&key(1), false), COUNT_MAX);
    }

    #[test]
    fn a_sketch_that_is_passed_on_counts_for_both() {
        let uses = Uses::create(1_000).unwrap();
        assert_eq!(uses.count(&key(1), false), 0);
        let fd = || OwnedFd::from(uses.file().unwrap().try_clone().unwrap());
        let passed = Uses::passed(fd(), 1_000).unwrap();
        assert_eq!((passed.count(&key(1), false), uses.count(&key(1), false)), (1, 2));
        assert!(passed.is_strict() && Uses::passed(fd(), 5_000).is_err());
    }

    #[test]
    fn a_key_is_remembered_for_one_turn_and_forgotten_after_two() {
        let uses = Uses::create(1_000).unwrap();
        assert_eq!(uses.count(&key(1), false), 0);
        let mut next = 10..;
        let mut turn = || {
            let turn = uses.head().turn.load(Ordering::Relaxed);
            while uses.head().turn.load(Ordering::Relaxed) == turn {
                uses.count(&key(next.next().unwrap()), false);
                uses.maintain();
            }
        };
        turn();
        assert_eq!(uses.count(&key(1), false), 1);
        turn();
        assert_eq!(uses.count(&key(1), false), 1, "the last one is remembered");
        turn();
        turn();
        assert_eq!(uses.count(&key(1), false), 0);
    }

    #[test]
    fn automatic_admission_is_suspended_for_longer_while_keys_come_back() {
        let uses = Uses::create(100).unwrap();
        assert!(uses.admits(0, Admission::Off) && !uses.admits(0, Admission::On));
        let strict: Vec<_> = (0..12)
            .map(|_| {
                uses.judge(40);
                uses.is_strict()
            })
            .collect();
        let expected = [false, true, false, false, true, false, false, false, false, true];
        assert_eq!(strict[..10], expected);
        assert!(!strict[10] && !strict[11] && uses.admits(0, Admission::Auto));
        while !uses.is_strict() {
            uses.judge(0);
        }
        for _ in 0..10 {
            uses.judge(5);
            assert!(uses.is_strict() && !uses.admits(0, Admission::Auto));
            assert!(uses.admits(1, Admission::Auto));
        }
        uses.judge(26);
        uses.judge(0);
        assert!(uses.is_strict(), "the penalty is reset");
    }

    #[test]
    fn concurrent_counting_leaves_other_counters_alone() {
        let uses = Uses::create(1_000).unwrap();
        std::thread::scope(|scope| {
            for seed in 0..3 {
                let uses = &uses;
                scope.spawn(move || {
                    (0..3_000).for_each(|n| {
                        uses.count(&key(n % 50 + seed), false);
                    })
                });
            }
        });
        let known = (1_000..1_100).filter(|&n| uses.count(&key(n), false) > 0).count();
        assert!(known < 5, "{known}");
    }
}
