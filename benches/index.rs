//! The cost of each operation of the shared index: `cargo bench --bench index`.

use std::hint::black_box;
use std::time::Instant;

use ktrix::cache::files::store::Store;
use ktrix::cache::index::Index;
use ktrix::cache::index::slot::{NewSlot, State};
use ktrix::cache::maintenance::evict::{Evictor, Limits};
use ktrix::cache::uses::Uses;
use ktrix::policy::key::{Key, key_of};

const N_OBJECTS: u32 = 1_000_000;

fn main() {
    let dir = std::env::temp_dir().join(format!("ktrix-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("cannot make a directory to measure in");
    let keys: Vec<Key> = (0..N_OBJECTS).map(|n| key_of(&n.to_le_bytes())).collect();
    let (index, _) = Index::open(&dir, keys.len()).expect("cannot make an index");
    index.attach().expect("cannot attach to the index");
    time("publish", &keys, |key| index.publish(&slot(*key)).is_ok());
    let views: Vec<_> = keys.iter().filter_map(|key| index.lookup(key)).collect();
    let absent: Vec<Key> = (0..N_OBJECTS).map(|n| key_of(&(!n).to_le_bytes())).collect();
    time("lookup, all keys in turn", &keys, |key| index.lookup(key).is_some());
    time("lookup, of keys that are absent", &absent, |key| index.lookup(key).is_some());
    let hot: Vec<Key> = keys.iter().take(1000).cycle().take(keys.len()).copied().collect();
    time("lookup, 1000 hot keys", &hot, |key| index.lookup(key).is_some());
    time("is_current", &views, |view| index.is_current(view.slot_ref()));
    time("count a hit", &views, |view| {
        index.count_hits(view.slot_ref(), 1);
        true
    });
    let uses = Uses::create(keys.len()).expect("cannot make a sketch");
    time("count a use of a new key", &absent, |key| uses.count(key, true) == 0);
    time("count a use of a known key", &absent, |key| uses.count(key, true) == 1);
    let store = Store::open(&dir, index.epoch()).expect("cannot make a store");
    let limits = Limits { size_bytes: 0, objects: 900_000, free_bytes_min: 0 };
    let (mut evictor, before) = (Evictor::new(limits), index.objects());
    views.iter().step_by(2).for_each(|view| index.touch(view.at));
    let begun = Instant::now();
    while evictor.step(&index, &store, 4_096).wants_more {}
    let n_evicted = before - index.objects();
    let each_ns = begun.elapsed().as_secs_f64() * 1e9 / n_evicted as f64;
    println!("{:32} {each_ns:8.1} ns ({n_evicted}, half of those seen were in use)", "evict");
    drop(index);
    let begun = Instant::now();
    let reopened = Index::open(&dir, keys.len()).is_ok();
    println!("{:32} {:8.1} us ({reopened})", "open", begun.elapsed().as_secs_f64() * 1e6);
    let _ = std::fs::remove_dir_all(&dir);
}

fn slot(key: Key) -> NewSlot {
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
        body_len: 1024,
        stamp: 1,
    }
}

fn time<T>(name: &str, items: &[T], operation: impl Fn(&T) -> bool) {
    let begun = Instant::now();
    let n_true = items.iter().filter(|item| black_box(operation(item))).count();
    let each_ns = begun.elapsed().as_secs_f64() * 1e9 / items.len() as f64;
    println!("{name:32} {each_ns:8.1} ns ({n_true} of {})", items.len());
}
