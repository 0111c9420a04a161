//! The caches of two workers for tests, in a temporary directory.

use std::fs::File;
use std::rc::Rc;

use crate::cache::files::store::Store;
use crate::cache::fills::Fills;
use crate::cache::found::Found;
use crate::cache::hot::HotObject;
use crate::cache::index::Index;
use crate::cache::insert::NewObject;
use crate::cache::lease::{LeadOrFollow, Lease};
use crate::cache::name::Name;
use crate::cache::purge::{Order, Purges};
use crate::cache::shared::Shared;
use crate::cache::uses::Uses;
use crate::cache::worker::Cache;
use crate::config::{Admission, CacheConfig};
use crate::http::head::RequestHead;
use crate::http::scheme::Scheme;
use crate::http::status::Status;
use crate::policy::key::KeyComponents;
use crate::policy::key::vary::VaryNames;
use crate::policy::purge::hash::PurgeKind;
use crate::policy::purge::surrogate::SurrogateKeys;
use crate::policy::rfc9111::freshness::Lifetimes;
use crate::policy::sample::fields;
use crate::reactor;
use crate::shared::wake::Wakes;

/// The cache of one worker.
pub(crate) fn worker_cache() -> (tempfile::TempDir, Rc<Cache>) {
    let (dir, [cache, _]) = worker_caches();
    (dir, cache)
}

/// One cache as the workers in the process slots 0 and 1 have it.
pub(crate) fn worker_caches() -> (tempfile::TempDir, [Rc<Cache>; 2]) {
    let dir = tempfile::tempdir().unwrap();
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
    let caches = caches_by(&config);
    (dir, caches)
}

/// The same, by this configuration.
pub(crate) fn caches_by(config: &CacheConfig) -> [Rc<Cache>; 2] {
    Index::open(&config.path, config.objects).unwrap();
    Purges::open(&config.path).unwrap();
    let (fills, wakes) = (tempfile::tempfile().unwrap(), Rc::new(Wakes::new(3).unwrap()));
    [0, 1].map(|process_slot| worker(config, &fills, Rc::clone(&wakes), process_slot))
}

fn worker(config: &CacheConfig, fills: &File, wakes: Rc<Wakes>, process_slot: usize) -> Rc<Cache> {
    let dir = &config.path;
    let index = Index::open_existing(dir).unwrap();
    let store = Store::open(dir, index.epoch()).unwrap();
    let purges = Purges::open_existing(dir).unwrap();
    let (uses, fills) =
        (Uses::create(config.objects).unwrap(), Rc::new(Fills::in_file(fills, 16).unwrap()));
    let shared = Shared { index, purges, store, uses, fills, wakes };
    shared.attach(Some(process_slot)).unwrap();
    Rc::new(Cache::new(Rc::new(shared), config, process_slot, 2, 16))
}

/// Looks up a request.
pub(crate) async fn find(cache: &Cache, request: &RequestHead) -> Found {
    cache.find(&KeyComponents::default(), &primary(request), request).await
}

/// The name of a request before Vary.
pub(crate) fn primary(request: &RequestHead) -> Name {
    Name::of_request(&KeyComponents::default(), Scheme::Http, request)
}

/// Leads the fill after a look-up.
pub(crate) fn lead(cache: &Rc<Cache>, found: &Found) -> Lease {
    match cache.lead_or_follow(found, &found.name.key, cache.purge_epoch()) {
        LeadOrFollow::Lead(lease) => lease,
        other => panic!("{other:?}"),
    }
}

/// A 200 with these fields, fresh for a minute, for the request of this look-up.
pub(crate) fn new_object(lease: &Lease, found: &Found, list: &[(&str, &str)]) -> NewObject {
    let (fields, received_s) = (fields(list), reactor::now().unix_s());
    let epoch = lease.cache.purge_epoch();
    let lifetimes = Lifetimes {
        received_s,
        fresh_until_s: received_s + 60,
        vary: VaryNames::parse(&fields).unwrap(),
        surrogates: SurrogateKeys::of(&fields, Scheme::Http, b"a.example", epoch),
        ..Lifetimes::default()
    };
    NewObject { name: found.name.clone(), status: Status(200), fields, lifetimes }
}

/// Answers a miss with a 200, and stores that.
pub(crate) async fn fill(
    cache: &Rc<Cache>,
    request: &RequestHead,
    list: &[(&str, &str)],
    body: &[u8],
) -> (Name, Rc<HotObject>) {
    let found = find(cache, request).await;
    let lease = lead(cache, &found);
    let new = new_object(&lease, &found, list);
    let name = lease.resolve_name(&found, &request.fields, &new.lifetimes).await.unwrap();
    let object = lease.insert(NewObject { name: name.clone(), ..new }, body).await.unwrap();
    assert!(lease.stored(&found, Ok(())));
    (name, object)
}

pub(crate) fn purge(cache: &Cache, kind: PurgeKind, text: &str, is_soft: bool) {
    let (text, name, who) = (text.as_bytes().to_vec(), String::new(), String::new());
    cache.purge(&Order { kind, text, is_soft, name, who }).unwrap();
}
