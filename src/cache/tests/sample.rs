//! The cache of a worker for tests, in a directory that goes with it.

use std::rc::Rc;

use crate::cache::fills::Fills;
use crate::cache::place::tests::cache;
use crate::cache::purge::Purges;
use crate::cache::shared::Shared;
use crate::cache::uses::Uses;
use crate::cache::worker::Cache;
use crate::config::{Admission, CacheConfig};
use crate::shared::wake::Wakes;

/// What two processes share of a cache, the workers in the seats 0 and 1, as one that is worker 0.
pub(crate) fn worker_cache() -> (tempfile::TempDir, Rc<Cache>) {
    let (dir, index, store) = cache(100);
    let (purges, _) = Purges::open(dir.path()).unwrap();
    let (uses, fills) = (Uses::create(100).unwrap(), Rc::new(Fills::create(16).unwrap()));
    fills.attach(0).unwrap();
    let wakes = Rc::new(Wakes::new(3).unwrap());
    let shared = Rc::new(Shared { index, purges, store, uses, fills, wakes });
    let config = CacheConfig {
        path: dir.path().to_owned(),
        size_bytes: 0,
        objects: 100,
        memory_bytes: 1 << 20,
        memory_object_bytes_max: 0,
        object_bytes_max: 1 << 20,
        free_bytes_min: 0,
        admission: Admission::Auto,
        scrub_bytes_s: 0,
        purge: Vec::new(),
        rules: Rc::default(),
    };
    (dir, Rc::new(Cache::new(shared, &config, 0, 2, 16)))
}
