//! A simulator: the production eviction and admission, over requests that are the same each time,
//! against LRU and FIFO with the same number of objects, and with the same bytes and objects of
//! different sizes. They must not miss more than either. Stored objects are counted too, since each
//! is a file that is written.
//!
//! `cargo test --release --test eviction -- --nocapture` prints the table. Objects have no files
//! here, only slots. `KTRIX_SIM_TRACE` names a file of requests, one key per line (in a line with
//! commas, the field with the number `KTRIX_SIM_FIELD`, from 0), which is simulated too, with
//! caches of a hundredth and a tenth of its keys.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use ktrix::cache::files::store::Store;
use ktrix::cache::index::Index;
use ktrix::cache::index::slot::{BLOCK_BYTES, NewSlot, State};
use ktrix::cache::maintenance::evict::{Evictor, Limits};
use ktrix::cache::uses::Uses;
use ktrix::config::Admission;
use ktrix::policy::key::{Key, key_of};

/// Requests, keys and cached objects of each mix.
const N_REQUESTS: usize = 30_000;
const N_KEYS: usize = 10_000;
const N_CACHED: usize = 500;
/// Keys from here on are requested once, or only in scans.
const APART: u64 = 1 << 32;

#[test]
fn eviction_misses_no_more_than_lru_and_fifo() {
    for (name, requests) in mixes() {
        compare(name, &requests, N_CACHED, Sizes::Same);
        compare(name, &requests, N_CACHED, Sizes::Different);
    }
}

#[test]
fn eviction_misses_no_more_than_lru_and_fifo_on_a_given_trace() {
    let Ok(path) = std::env::var("KTRIX_SIM_TRACE") else {
        println!("skipped: KTRIX_SIM_TRACE names no trace");
        return;
    };
    let field = std::env::var("KTRIX_SIM_FIELD").ok().and_then(|it| it.parse().ok()).unwrap_or(0);
    let text = std::fs::read_to_string(&path).expect("the trace can be read");
    let mut numbers = HashMap::new();
    let requests: Vec<u64> = text
        .lines()
        .filter_map(|line| line.split(',').nth(field))
        .map(|key| {
            let next = numbers.len() as u64;
            *numbers.entry(key.trim()).or_insert(next)
        })
        .collect();
    for part in [100, 10] {
        let n_cached = (numbers.len() / part).max(100);
        compare(&path, &requests, n_cached, Sizes::Same);
        compare(&path, &requests, n_cached, Sizes::Different);
    }
}

/// The sizes of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sizes {
    /// A block each: the number of objects is the limit.
    Same,
    /// One to sixteen blocks, by the key: the bytes are the limit.
    Different,
}

impl Sizes {
    /// In blocks.
    fn weight(self, key: u64) -> usize {
        match self {
            Self::Same => 1,
            Self::Different => 1 + Dice(key).roll(16) as usize,
        }
    }

    /// The blocks of this many objects on average.
    fn blocks(self, n_objects: usize) -> usize {
        match self {
            Self::Same => n_objects,
            Self::Different => n_objects * 17 / 2,
        }
    }
}

fn compare(name: &str, requests: &[u64], n_cached: usize, sizes: Sizes) {
    let (lru, fifo) =
        (misses_of_lru(requests, n_cached, sizes), misses_of_fifo(requests, n_cached, sizes));
    let part = |n: usize| n as f64 / requests.len() as f64;
    print!(
        "{name:24} {n_cached:7} objects, {sizes:?} sizes: lru {:.4} fifo {:.4}",
        part(lru),
        part(fifo)
    );
    for admission in [Admission::Off, Admission::On, Admission::Auto] {
        let ours = simulate(requests, n_cached, sizes, admission);
        print!(" | {admission:?} {:.4}, stores {:.4}", part(ours.n_missed), part(ours.n_stored));
        let best = lru.min(fifo);
        assert!(
            ours.n_missed <= best,
            "{name}, {sizes:?}, {admission:?}: {ours:?}, LRU {lru}, FIFO {fifo}"
        );
    }
    println!();
}

#[derive(Debug, Default)]
struct Outcome {
    n_missed: usize,
    n_stored: usize,
}

/// The result of the index, the evictor and the sketch for the requests.
fn simulate(requests: &[u64], n_cached: usize, sizes: Sizes, admission: Admission) -> Outcome {
    let dir = tempfile::tempdir().expect("a directory");
    let (n_objects, size_bytes) = match sizes {
        Sizes::Same => (n_cached, 0),
        Sizes::Different => (8 * n_cached, sizes.blocks(n_cached) as u64 * BLOCK_BYTES),
    };
    let (index, _) = Index::open(dir.path(), n_objects).expect("an index");
    index.set_size(size_bytes);
    index.attach().expect("a row");
    let store = Store::open(dir.path(), index.epoch()).expect("a store");
    let limits = Limits { size_bytes, objects: n_objects as u64, free_bytes_min: 0 };
    let mut evictor = Evictor::new(limits);
    let uses = Uses::create(n_cached).expect("a sketch");
    let mut outcome = Outcome::default();
    for number in requests {
        let key = key_of(&number.to_le_bytes());
        if let Some(view) = index.lookup(&key) {
            index.touch(view.at);
            continue;
        }
        outcome.n_missed += 1;
        let is_full = index.is_full();
        let n_before = uses.count(&key, is_full);
        uses.maintain();
        if is_full && !uses.admits(n_before, admission) {
            continue;
        }
        outcome.n_stored += 1;
        index.publish(&slot(key, sizes.weight(*number))).expect("published");
        let is_above = |value: u64, limit: u64| limit > 0 && value * 100 > limit * 98;
        if is_above(index.objects(), limits.objects) || is_above(index.bytes(), size_bytes) {
            while evictor.step(&index, &store, 4_096).wants_more {}
        }
        assert!(index.objects() <= limits.objects);
        assert!(size_bytes == 0 || index.bytes() <= size_bytes);
    }
    outcome
}

/// The slot of an object with this many blocks.
fn slot(key: Key, n_blocks: usize) -> NewSlot {
    NewSlot {
        key,
        state: State::Ready,
        flags: 0,
        status: 200,
        stored_s: 1,
        fresh_until_s: 2,
        swr_until_s: 0,
        sie_until_s: 0,
        age_s: 0,
        head_len: 300,
        body_len: n_blocks as u64 * BLOCK_BYTES - 1_000,
        stamp: 1,
    }
}

fn misses_of_lru(requests: &[u64], n_cached: usize, sizes: Sizes) -> usize {
    let (mut used_at, mut by_use, mut n_missed) = (HashMap::new(), BTreeMap::new(), 0);
    let (mut blocks, blocks_max) = (0, sizes.blocks(n_cached));
    for (now, &key) in requests.iter().enumerate() {
        match used_at.insert(key, now) {
            Some(before) => {
                by_use.remove(&before);
            }
            None => {
                n_missed += 1;
                blocks += sizes.weight(key);
            }
        }
        by_use.insert(now, key);
        while blocks > blocks_max
            && let Some((_, oldest)) = by_use.pop_first()
        {
            used_at.remove(&oldest);
            blocks -= sizes.weight(oldest);
        }
    }
    n_missed
}

fn misses_of_fifo(requests: &[u64], n_cached: usize, sizes: Sizes) -> usize {
    let (mut cached, mut queue, mut n_missed) = (HashSet::new(), VecDeque::new(), 0);
    let (mut blocks, blocks_max) = (0, sizes.blocks(n_cached));
    for &key in requests {
        if !cached.insert(key) {
            continue;
        }
        n_missed += 1;
        queue.push_back(key);
        blocks += sizes.weight(key);
        while blocks > blocks_max
            && let Some(oldest) = queue.pop_front()
        {
            cached.remove(&oldest);
            blocks -= sizes.weight(oldest);
        }
    }
    n_missed
}

/// Requests by name, the same at each run.
fn mixes() -> Vec<(&'static str, Vec<u64>)> {
    let mut dice = Dice(1);
    let mut zipf = |alpha: f64| {
        let zipf = Zipf::new(alpha);
        (0..N_REQUESTS).map(|_| zipf.draw(&mut dice)).collect::<Vec<u64>>()
    };
    let base = zipf(0.9);
    let mut once = APART..;
    let mut dice = Dice(2);
    let mut mixed_with_once = |per_cent: u64| -> Vec<u64> {
        let pick = |&key: &u64| match dice.roll(100) < per_cent {
            true => once.next().unwrap_or(APART),
            false => key,
        };
        base.iter().map(pick).collect()
    };
    let (some, most) = (mixed_with_once(30), mixed_with_once(70));
    let n = N_CACHED as u64;
    let scans = interleave(&base, |turn| (2 * APART + turn * n..).take(N_CACHED).collect());
    let loops = interleave(&base, |_| (3 * APART..).take(3 * N_CACHED).collect());
    let twice = interleave(&base, |turn| {
        let scan: Vec<u64> = (4 * APART + turn * n..).take(N_CACHED / 4).collect();
        [scan.clone(), scan].concat()
    });
    vec![
        ("zipf 0.6", zipf(0.6)),
        ("zipf 0.8", zipf(0.8)),
        ("zipf 1.0", zipf(1.0)),
        ("zipf 1.2", zipf(1.2)),
        ("zipf 0.9", base),
        ("zipf, 30 % once", some),
        ("zipf, 70 % once", most),
        ("zipf and new scans", scans),
        ("zipf and one loop", loops),
        ("zipf and scans twice", twice),
    ]
}

/// The requests with a scan after each five thousand.
fn interleave(requests: &[u64], scan: impl Fn(u64) -> Vec<u64>) -> Vec<u64> {
    let parts = requests.chunks(5_000).enumerate();
    let mixed = parts.flat_map(|(turn, part)| [part.to_vec(), scan(turn as u64)].concat());
    mixed.take(requests.len()).collect()
}

struct Zipf(Vec<f64>);

impl Zipf {
    fn new(alpha: f64) -> Self {
        let mut sum = 0.0;
        let weight = |rank: usize| {
            sum += (rank as f64).powf(-alpha);
            sum
        };
        Self((1..=N_KEYS).map(weight).collect())
    }

    fn draw(&self, dice: &mut Dice) -> u64 {
        let total = self.0.last().copied().unwrap_or_default();
        let at = dice.roll(1 << 40) as f64 / (1_u64 << 40) as f64 * total;
        self.0.partition_point(|&sum| sum <= at) as u64
    }
}

/// A cheap generator: runs must be equal.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(z ^ (z >> 31)) * u128::from(sides)) >> 64) as u64
    }
}
