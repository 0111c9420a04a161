//! A full cache: it stays within its bounds, and an object that is being read stays whole.

use ktrix::cache::index::Index;

use crate::support::{Ask, Client, Origin, PATIENCE, Plan, Response, pattern, until, until_true};
use crate::upgrade::Last;

/// A small cache, with further keys of its mapping.
fn small(more: &str) -> String {
    format!("{{path: $DIR/cache, size: 8 MiB, objects: 1000, memory: 1 MiB, {more}}}")
}

fn pages() -> Origin {
    Origin::answering(|request| Response::ok(request.target.as_bytes()).cache("max-age=600"))
}

fn index(plan: &Plan) -> Index {
    // A ktrix accepts before it has made its index.
    until("the cache's index", PATIENCE, || Index::open_existing(&plan.cache_dir()).ok())
}

/// Requests these pages, many at a time.
fn ask_all(plan: &Plan, numbers: std::ops::Range<usize>, mut between: impl FnMut()) {
    let mut client = Client::connect(&plan.address);
    for start in numbers.clone().step_by(50) {
        let batch = start..(start + 50).min(numbers.end);
        let asks: Vec<u8> =
            batch.clone().flat_map(|n| Ask::get(&format!("/{n}")).bytes("localhost")).collect();
        client.write(&asks);
        for n in batch {
            client.answer().expect_status(200).expect_body(format!("/{n}"));
        }
        between();
    }
}

#[test]
fn far_more_urls_than_objects_leave_the_cache_within_its_bounds_all_along() {
    let origin = pages();
    // A page takes a block of 4 KiB: 8 MiB reach the limit of objects first, 2 MiB that of bytes.
    for mib in [8, 2] {
        let size_bytes = mib << 20;
        let cache = format!("{{path: $DIR/cache, size: {mib} MiB, objects: 1000, admission: off}}");
        let plan = Plan::new(&origin).set("cache", &cache);
        let ktrix = plan.start();
        let index = index(&plan);
        let mut most = (0, 0);
        ask_all(&plan, 0..4_000, || {
            most = (most.0.max(index.objects()), most.1.max(index.bytes()));
            assert!(index.objects() <= 1_000, "{} objects", index.objects());
            assert!(index.bytes() <= size_bytes + size_bytes / 20, "{} bytes", index.bytes());
        });
        let is_full = match mib {
            8 => most.0 > 900,
            _ => most.1 > size_bytes / 10 * 9 && most.0 < 600,
        };
        assert!(is_full, "it was never full: {most:?} of {mib} MiB");
        until_true("files to be as many as slots", || {
            // The stored sum may differ by the objects that arrive while it is counted again.
            plan.cache_files().len() == index.iter().count()
        });
        ktrix.stop();
        plan.verify_cache();
    }
}

#[test]
fn a_full_cache_stores_objects_at_their_second_request() {
    let origin = pages();
    let plan = Plan::new(&origin).set("cache", &small("admission: on"));
    let ktrix = plan.start();
    // While there is room, one request is enough.
    ask_all(&plan, 0..1, || {});
    ktrix.wait_hit("/0");
    ask_all(&plan, 1..1_000, || {});
    assert!(index(&plan).is_full());
    ktrix.get("/new").expect_miss();
    ktrix.get("/new").expect_miss();
    ktrix.wait_hit("/new");
    assert_eq!(origin.count("/new"), 2);
    until_true("the first request to be logged as rare", || {
        plan.access_lines().iter().any(|line| line.contains("/new") && line.contains("rare"))
    });
}

#[test]
fn what_was_requested_before_an_upgrade_counts_after_it() {
    let origin = pages();
    let plan = Plan::new(&origin).set("cache", &small("admission: on"));
    let ktrix = plan.start();
    let last = Last(&plan);
    ask_all(&plan, 0..1_000, || {});
    assert!(index(&plan).is_full());
    ktrix.get("/new").expect_miss();
    last.upgrade();
    ktrix.wait_exit();
    Client::of_ktrix(&plan.address).get("/new").expect_miss();
    until_true("a hit", || Client::of_ktrix(&plan.address).get("/new").is_hit());
    assert_eq!(origin.count("/new"), 2);
}

#[test]
fn an_object_that_is_evicted_while_it_is_read_arrives_whole() {
    let body = pattern(12 << 20);
    let of_origin = body.clone();
    let origin = Origin::answering(move |request| match request.target.as_str() {
        "/large" => Response::ok(&of_origin).cache("max-age=600"),
        other => Response::ok(other.as_bytes()).cache("max-age=600"),
    });
    let cache = "{path: $DIR/cache, size: 24 MiB, objects: 1000, memory: 1 MiB, admission: off}";
    let plan = Plan::new(&origin).set("cache", cache);
    let ktrix = plan.start();
    ktrix.get("/large").expect_body(&body);
    ktrix.wait_hit("/large");
    let mut reader = ktrix.client().receive_buffer(64 << 10);
    reader.send(&Ask::get("/large").field("connection", "close"));
    let (status, _) = reader.answer_head();
    // As if the hand had passed since: the next time, it is the oldest and not in use.
    let index = index(&plan);
    for view in index.iter() {
        index.forget_visit(view.at);
    }
    let large = plan.cache_files();
    ask_all(&plan, 0..1_000, || {});
    until_true("the object to be evicted", || !large[0].exists());
    let (rest, _) = reader.read_to_end("the rest of the object");
    assert_eq!((status, large.len()), (200, 1));
    assert!(rest.len() == body.len() && rest == body, "{} of {}", rest.len(), body.len());
    // Nor does a worker with the file open keep its space on the disk for long.
    until_true("the evicted file to be closed", || {
        ktrix.workers().iter().all(|worker| !has_deleted_file(worker.pid, &plan))
    });
}

#[test]
fn a_large_object_gets_its_room_in_a_full_cache() {
    let body = pattern(3 << 20);
    let of_origin = body.clone();
    let origin = Origin::answering(move |request| match request.target.as_str() {
        "/sized" => Response::ok(&of_origin).cache("max-age=600"),
        "/chunked" => Response::chunked(&[&of_origin]).cache("max-age=600"),
        _ => Response::ok(pattern(12_000)).cache("max-age=600"),
    });
    let plan = Plan::new(&origin).set("cache", &small("admission: off"));
    let ktrix = plan.start();
    let index = index(&plan);
    for page in 0..800 {
        ktrix.get(&format!("/{page}")).expect_status(200);
    }
    assert!(index.is_full());
    for target in ["/sized", "/chunked"] {
        ktrix.get(target).expect_body(&body);
        ktrix.wait_hit(target);
        assert!(index.bytes() <= 8 << 20, "{} bytes", index.bytes());
        assert_eq!(origin.count(target), 1);
    }
}

fn has_deleted_file(pid: i32, plan: &Plan) -> bool {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut names = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    names.any(|name| {
        name.starts_with(plan.cache_dir()) && name.to_string_lossy().ends_with("(deleted)")
    })
}
