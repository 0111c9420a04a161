use super::*;
use crate::cache::files::store::Store;
use crate::http::fields::Fields;
use crate::http::h1::head::{HeadLimits, parse_request};
use crate::http::status::Status;
use crate::http::tls::PolicyId;
use crate::policy::rfc9111::freshness::Lifetimes;

const BODY_LEN: usize = 100_000;

/// An object of this name, whose body is in a file.
fn in_file(store: &Store, name: &str) -> Rc<HotObject> {
    let key = crate::policy::key::key_of(name.as_bytes());
    let mut writer = store.begin(1, name.as_bytes(), b"", 200, b"", None).unwrap();
    writer.append(&[7; BODY_LEN]).unwrap();
    writer.finish().unwrap().commit(&key).unwrap();
    let file = store.open_object(&key, name.as_bytes()).unwrap().unwrap();
    let object =
        HotObject::in_file(key, None, Status(200), Lifetimes::default(), Fields::new(), file);
    Rc::new(object)
}

/// Reads an object's body into memory at its second use.
fn take_in(hot: &mut Hot, object: &HotObject) -> Rc<HotObject> {
    hot.room_for_body(object);
    let room = hot.room_for_body(object).expect("room");
    hot.take_in(object, vec![7; BODY_LEN], room)
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), 1).unwrap();
    (dir, store)
}

#[test]
fn the_second_use_of_a_file_is_the_time_to_read_it() {
    let (_dir, store) = store();
    for (body_bytes_max, is_wanted) in [(BODY_LEN as u64, true), (BODY_LEN as u64 - 1, false)] {
        let mut hot = Hot::new(1 << 20, 9, body_bytes_max);
        let object = in_file(&store, "a");
        hot.insert(Rc::clone(&object));
        let wanted: Vec<bool> = (0..4).map(|_| hot.room_for_body(&object).is_some()).collect();
        // A reading that failed is tried again at the second use after it.
        let expected = if is_wanted { [false, true, false, true] } else { [false; 4] };
        assert_eq!(wanted, expected);
    }
}

#[test]
fn bodies_in_memory_count_until_their_last_sender_is_done() {
    let (_dir, store) = store();
    let mut hot = Hot::new(6 * BODY_LEN, 9, BODY_LEN as u64);
    let objects: Vec<_> = ["a", "b", "c", "d"].iter().map(|name| in_file(&store, name)).collect();
    let mut sent = Vec::new();
    for object in &objects {
        hot.insert(Rc::clone(object));
        assert!(hot.room_for_body(object).is_none(), "it is its first use");
        if let Some(room) = hot.room_for_body(object) {
            sent.push(hot.take_in(object, vec![7; BODY_LEN], room));
        }
    }
    assert_eq!((sent.len(), hot.len()), (3, 4), "half of the tier");
    assert!(matches!(&sent[0].body, Body::Large(body) if body.len() == BODY_LEN));
    assert_eq!(sent[0].body_len, BODY_LEN as u64);
    let full = hot.bytes();
    objects.iter().for_each(|object| hot.remove(&object.key));
    assert_eq!((hot.len(), hot.bytes()), (0, 3 * BODY_LEN), "of {full}");
    sent.clear();
    assert_eq!(hot.bytes(), 0);
}

#[test]
fn bodies_that_are_being_sent_leave_less_room_for_others() {
    let (_dir, store) = store();
    let mut hot = Hot::new(6 * BODY_LEN, 9, BODY_LEN as u64);
    let small = |n: u32| {
        let key = crate::policy::key::key_of(&n.to_be_bytes());
        let (lifetimes, fields) = (Lifetimes::default(), Fields::new());
        Rc::new(HotObject::in_memory(key, None, Status(200), lifetimes, fields, &[1; 10_000]))
    };
    let object = in_file(&store, "a");
    hot.insert(Rc::clone(&object));
    let sent: Vec<_> = (0..3).map(|_| take_in(&mut hot, &object)).collect();
    (0..200).for_each(|n| hot.insert(small(n)));
    assert!(hot.bytes() <= 6 * BODY_LEN / 8 * 7, "{}", hot.bytes());
    let n_beside = hot.len();
    drop(sent);
    (0..200).for_each(|n| hot.insert(small(n)));
    assert!(hot.len() > n_beside + 20, "{} beside, {} then", n_beside, hot.len());
}

#[test]
fn room_is_reserved_for_bodies_that_are_being_read() {
    let (_dir, store) = store();
    let mut hot = Hot::new(6 * BODY_LEN, 9, BODY_LEN as u64);
    let mut rooms = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let object = in_file(&store, name);
        hot.insert(Rc::clone(&object));
        hot.room_for_body(&object);
        rooms.extend(hot.room_for_body(&object));
    }
    assert_eq!(rooms.len(), 3);
}

#[test]
fn a_renewed_object_shares_its_body_with_the_one_before() {
    let (_dir, store) = store();
    let mut hot = Hot::new(6 * BODY_LEN, 9, BODY_LEN as u64);
    let file = in_file(&store, "a");
    hot.insert(Rc::clone(&file));
    let large = take_in(&mut hot, &file);
    let small = HotObject::in_memory(
        file.key,
        None,
        Status(200),
        Lifetimes::default(),
        Fields::new(),
        &[7; 10],
    );
    for object in [&*file, &large, &small] {
        let fields: Fields = [("X-Round", "2")].into_iter().collect();
        let renewed = object.renewed(object.key, None, Lifetimes::default(), fields);
        assert_eq!(renewed.fields.get("x-round"), Some(&b"2"[..]));
        assert_eq!((renewed.body_len, renewed.body_crc()), (object.body_len, object.body_crc()));
        match (&renewed.body, &object.body) {
            (Body::File(one), Body::File(other)) => assert!(Rc::ptr_eq(one, other)),
            (Body::Large(one), Body::Large(other)) => assert!(Rc::ptr_eq(one, other)),
            (Body::Memory, Body::Memory) => renewed.with_body(|body| assert_eq!(body, [7; 10])),
            other => panic!("{other:?}"),
        }
    }
    let full = hot.bytes();
    let renewed = large.renewed(large.key, None, Lifetimes::default(), Fields::new());
    hot.insert(Rc::new(renewed));
    drop(large);
    assert_eq!(hot.bytes(), full, "the body counts once");
}

#[test]
fn less_used_objects_are_evicted_for_a_large_body() {
    let (_dir, store) = store();
    let mut hot = Hot::new(6 * BODY_LEN, 9, BODY_LEN as u64);
    for name in ["a", "b", "c"] {
        let object = in_file(&store, name);
        hot.insert(Rc::clone(&object));
        take_in(&mut hot, &object);
    }
    let key = |name: &str| crate::policy::key::key_of(name.as_bytes());
    assert!(hot.find(&key("b")).is_some());
    let fourth = in_file(&store, "d");
    hot.insert(Rc::clone(&fourth));
    take_in(&mut hot, &fourth);
    let kept = ["a", "b", "c", "d"].map(|name| hot.find(&key(name)).is_some());
    assert_eq!(kept, [false, true, true, true]);
    // An object that is no longer stored is evicted at once.
    hot.forget_gone(|_| false);
    assert_eq!((hot.len(), hot.bytes()), (0, 0));
}

#[test]
fn hits_are_returned_once_also_those_of_evicted_objects() {
    let (_dir, store) = store();
    let mut hot = Hot::new(1 << 20, 9, 0);
    let objects = ["a", "b", "c"].map(|name| {
        let mut object = Rc::into_inner(in_file(&store, name)).unwrap();
        let at = crate::cache::index::slot::SlotAt(u32::from(name.as_bytes()[0]));
        object.slot = Some(SlotRef { at, generation: 1 });
        Rc::new(object)
    });
    assert!(!Hot::count_hit(&objects[0]), "it is not kept");
    objects.iter().for_each(|object| hot.insert(Rc::clone(object)));
    for (n, object) in objects.iter().enumerate() {
        (0..=n).for_each(|_| assert!(Hot::count_hit(object)));
    }
    hot.remove(&objects[1].key);
    assert!(!Hot::count_hit(&objects[1]));
    let mut told = Vec::new();
    let mut next = Some(0);
    while let Some(start) = next {
        next = hot.take_hits(start, 1, |it, n| told.push((it.at.0, n)));
    }
    told.sort_unstable();
    assert_eq!(told, [(97, 1), (98, 2), (99, 3)]);
    assert_eq!(hot.take_hits(0, 9, |_, _| panic!("returned already")), None);
}

#[test]
fn the_same_bytes_in_two_lanes_are_two_aliases() {
    let raw = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let (head, _) = parse_request(raw, &HeadLimits::default()).unwrap().unwrap();
    let mut hot = Hot::new(1 << 20, 9, 0);
    let objects = ["http", "https"].map(|name| {
        let key = crate::policy::key::key_of(name.as_bytes());
        let (lifetimes, fields) = (Lifetimes::default(), Fields::new());
        Rc::new(HotObject::in_memory(key, None, Status(200), lifetimes, fields, name.as_bytes()))
    });
    let lanes = [Lane::PLAIN, Lane::tls(PolicyId::NONE, PolicyId(1))];
    let found = |hot: &Hot| lanes.map(|lane| hot.find_raw(lane, raw).map(|it| it.object.key));
    for (lane, object) in lanes.into_iter().zip(&objects) {
        assert_eq!(hot.find_raw(lane, raw).map(|alias| alias.object.key), None);
        hot.insert(Rc::clone(object));
        hot.add_alias(lane, raw, (head.clone(), 0), object, None);
    }
    assert_eq!(found(&hot), [Some(objects[0].key), Some(objects[1].key)]);
    hot.remove(&objects[0].key);
    assert_eq!(found(&hot), [None, Some(objects[1].key)]);
    let others = (0..4).flat_map(|a| (0..4).map(move |b| Lane::tls(PolicyId(a), PolicyId(b))));
    let others = others.chain(lanes.map(Lane::trusted)).filter(|lane| !lanes.contains(lane));
    assert!(others.into_iter().all(|lane| hot.find_raw(lane, raw).is_none()));
}
