//! Tests of `cache::index`.

use super::*;
use crate::cache::index::slot::State;
use crate::policy::key::key_of;
use std::collections::HashMap;

fn index(n_objects: usize) -> (tempfile::TempDir, Index) {
    let dir = tempfile::tempdir().unwrap();
    let (index, _) = Index::open(dir.path(), n_objects).unwrap();
    index.attach().unwrap();
    (dir, index)
}

pub(crate) fn slot(n: u32) -> NewSlot {
    NewSlot {
        key: key_of(&n.to_le_bytes()),
        state: State::Ready,
        flags: 0,
        status: 200,
        stored_s: u64::from(n),
        fresh_until_s: u64::from(n),
        swr_until_s: 0,
        sie_until_s: 0,
        age_s: 0,
        head_len: 100,
        body_len: u64::from(n),
        stamp: 0,
    }
}

#[test]
fn a_published_key_is_found_until_it_is_removed() {
    let (_dir, index) = index(100);
    let published = index.publish(&slot(1)).unwrap();
    assert!(!published.replaced && published.evicted.is_none());
    let view = index.lookup(&slot(1).key).unwrap();
    assert_eq!((view.slot, view.generation), (slot(1), published.slot.generation));
    assert!(index.is_current(view.slot_ref()) && !view.is_visited);
    index.touch(view.at);
    assert!(index.lookup(&slot(1).key).unwrap().is_visited);
    assert!(index.restamp(view.slot_ref(), 5));
    assert_eq!(index.lookup(&slot(1).key).unwrap().stamp, 5);
    assert!(index.remove(&slot(1).key, Some(view.generation + 1)).is_none());
    assert_eq!(index.remove(&slot(1).key, Some(view.generation)).unwrap().key, slot(1).key);
    assert!(index.lookup(&slot(1).key).is_none() && !index.is_current(view.slot_ref()));
    assert_eq!((index.bytes(), index.objects()), (0, 0));
}

#[test]
fn publishing_again_replaces_and_changes_the_generation() {
    let (_dir, index) = index(100);
    let first = index.publish(&slot(1)).unwrap();
    let second = index.publish(&NewSlot { body_len: 5000, ..slot(1) }).unwrap();
    assert!(second.replaced && second.slot.at == first.slot.at);
    assert!(!index.is_current(first.slot));
    assert!(!index.restamp(first.slot, 5));
    assert_eq!((index.bytes(), index.objects(), index.iter().count()), (8192, 1, 1));
}

#[test]
fn republishing_replaces_one_publication_alone() {
    let (_dir, index) = index(100);
    let first = index.publish(&slot(1)).unwrap();
    let longer = NewSlot { head_len: 5000, ..slot(1) };
    let second = index.republish(&longer, first.slot.generation).unwrap();
    assert!(
        second.replaced
            && second.slot.at == first.slot.at
            && second.slot.generation != first.slot.generation
    );
    assert_eq!((index.bytes(), index.objects()), (8192, 1));
    let replaced = Err(PublishError::Replaced);
    assert_eq!(index.republish(&slot(1), first.slot.generation), replaced);
    index.remove(&slot(1).key, None);
    assert_eq!(index.republish(&slot(1), second.slot.generation), replaced);
    assert_eq!((index.bytes(), index.objects()), (0, 0));
}

#[test]
fn it_agrees_with_a_map_up_to_its_number_of_objects() {
    let (_dir, index) = index(5000);
    let mut map = HashMap::new();
    for n in 0..5000 {
        let published = index.publish(&slot(n)).unwrap();
        map.insert(n, published.slot.generation);
        if let Some((key, _)) = published.evicted {
            map.retain(|&n, _| slot(n).key != key);
        }
        if n % 3 == 0
            && let Some(generation) = map.remove(&(n / 2))
        {
            assert!(index.remove(&slot(n / 2).key, Some(generation)).is_some());
        }
    }
    for n in 0..5000 {
        let found = index.lookup(&slot(n).key).map(|view| view.generation);
        assert_eq!(found, map.get(&n).copied(), "{n}");
    }
    assert_eq!(index.objects(), map.len() as u64);
    let bytes = map.keys().map(|&n| slot(n).weight_bytes()).sum::<u64>();
    assert_eq!(index.bytes(), bytes);
    index.table.header().bytes.store(77, Ordering::Relaxed);
    index.recount();
    assert_eq!((index.bytes(), index.objects()), (bytes, map.len() as u64));
    assert_eq!(index.faults().count(), 0);
}

#[test]
fn few_objects_are_evicted_by_chance_before_it_is_full() {
    let (_dir, index) = index(20_000);
    let evicted = (0..20_000).filter(|&n| index.publish(&slot(n)).unwrap().evicted.is_some());
    let n_evicted = evicted.count();
    assert!(n_evicted < 400, "{n_evicted} of 20000");
}

#[test]
fn a_full_bucket_evicts_pass_then_stale_unused_used_and_last_vary() {
    const NOW_S: u64 = 1_000_000;
    // Keys of which bucket 0 is the home fill buckets 0 and 1.
    let (_dir, index) = index(100);
    let mut keys = (0..).filter(|&n| index.table.home(slot::halves(&slot(n).key)[0]) == 0);
    let mut new = |state, fresh_until_s| {
        let key = slot(keys.next().unwrap()).key;
        NewSlot { key, state, stored_s: NOW_S, fresh_until_s, ..slot(0) }
    };
    let kinds = [
        (State::Vary, 0, false),
        (State::Ready, NOW_S + 60, true),
        (State::Ready, NOW_S + 60, false),
        (State::Ready, NOW_S - 60, true),
        (State::Pass, NOW_S + 60, true),
    ];
    let mut filled: Vec<(Key, usize)> = Vec::new();
    for n in 0..2 * SLOTS {
        let kind = n % kinds.len();
        let (state, fresh_until_s, is_used) = kinds[kind];
        let published = index.publish(&new(state, fresh_until_s)).unwrap();
        assert!(published.evicted.is_none());
        let view = index.slot(published.slot.at).unwrap();
        if is_used {
            index.touch(view.at);
        }
        filled.push((view.key, kind));
    }
    let mut gone = Vec::new();
    for _ in 0..2 * SLOTS {
        let published = index.publish(&new(State::Vary, u64::MAX)).unwrap();
        index.touch(published.slot.at);
        let (key, _) = published.evicted.unwrap();
        gone.extend(filled.iter().find(|it| it.0 == key).map(|it| it.1));
    }
    assert_eq!(gone, [4, 4, 3, 3, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0]);
}

#[test]
fn above_its_number_of_objects_a_new_key_replaces_another() {
    let (_dir, index) = index(200);
    let made_way = (0..2_000).filter(|&n| index.publish(&slot(n)).unwrap().evicted.is_some());
    let n_made_way = made_way.count();
    assert!(n_made_way > 1_750, "{n_made_way} of 2000");
    // A key with two empty buckets has nothing to replace.
    assert!(index.objects() <= 210, "{}", index.objects());
    assert_eq!(index.iter().count() as u64, index.objects());
}

#[test]
fn publishing_is_refused_above_105_per_cent_of_the_size() {
    let (_dir, index) = index(200);
    index.set_size(100 * 4096);
    let room = (0..200).filter(|&n| index.publish(&slot(n)).is_ok()).count();
    assert_eq!(room, 105);
    assert_eq!(index.publish(&slot(500)), Err(PublishError::NoRoom));
    assert!(index.publish(&slot(0)).is_ok(), "what takes no more is let in");
    assert!(index.publish(&NewSlot { state: State::Pass, ..slot(500) }).is_ok());
    assert!(!index.has_room(1));
}

#[test]
fn an_unattached_process_cannot_write_and_a_restart_keeps_everything() {
    let (dir, index) = index(100);
    for n in 0..50 {
        index.publish(&slot(n)).unwrap();
    }
    index.table().set_complete();
    assert!(index.mark_clean().unwrap());
    drop(index);
    let (index, opened) = Index::open(dir.path(), 100).unwrap();
    assert_eq!((opened, index.objects()), (Opened::Clean, 50));
    assert_eq!(index.publish(&slot(1)), Err(PublishError::NotAttached));
    assert!((0..50).all(|n| index.lookup(&slot(n).key).is_some()));
    index.attach().unwrap();
    assert!(index.publish(&slot(1)).unwrap().slot.generation > 50);
    let other = Index::open_existing(dir.path()).unwrap();
    other.attach().unwrap();
    assert!(!index.mark_clean().unwrap(), "another uses it");
}

#[test]
fn a_torn_slot_is_a_miss_and_is_repaired() {
    let (dir, index) = index(100);
    let at = index.publish(&slot(1)).unwrap().slot.at;
    let number = at.0 as usize;
    let offset = 20480 + number / SLOTS * 512 + 64 + number % SLOTS * 64;
    let file = std::fs::OpenOptions::new().write(true).open(dir.path().join("index")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xee], offset as u64 + 40).unwrap();
    assert_eq!(index.faults().count(), 1);
    assert!(index.lookup(&slot(1).key).is_none());
    assert_eq!(index.faults().count(), 0);
    assert!(index.wants_recount());
    index.recount();
    assert_eq!(index.objects(), 0);
}

#[test]
fn threads_that_publish_and_remove_the_same_keys_leave_each_once() {
    let (_dir, index) = index(50);
    std::thread::scope(|scope| {
        for seed in 0..3_u32 {
            let index = &index;
            scope.spawn(move || {
                for n in 0..3000_u32 {
                    let new = slot((n * (seed + 3)) % 60);
                    let _ = index.publish(&new);
                    if n % 7 == seed {
                        index.remove(&new.key, None);
                    }
                }
            });
        }
    });
    let mut keys: Vec<_> = index.iter().map(|view| view.key.0).collect();
    let n = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!((keys.len(), index.objects()), (n, n as u64));
}
