//! The source of hot bodies: memory, within its bounds, or files.

use std::sync::Arc;
use std::time::Duration;

use crate::support::{Ask, Ktrix, Origin, Plan, Response, alone, pattern, until};

const MIB: u64 = 1 << 20;

/// Whether the only worker has a cache file open.
fn has_file(ktrix: &Ktrix<'_>) -> bool {
    let pid = ktrix.workers()[0].pid;
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the worker's files");
    let mut names = files.flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
    let dir = ktrix.plan.cache_dir();
    // The index and the purges have no directory of their own.
    names.any(|name| name.starts_with(&dir) && name.parent().is_some_and(|parent| parent != dir))
}

/// Requests often enough for a body to be taken into memory, if it is at all.
fn warm(ktrix: &Ktrix<'_>, target: &str) {
    ktrix.get(target).expect_status(200);
    ktrix.wait_hit(target);
    for _ in 0..3 {
        ktrix.get(target).expect_hit();
    }
}

#[test]
fn a_body_that_is_requested_again_is_sent_from_memory() {
    let body = pattern(700_000);
    let of_origin = body.clone();
    let origin = Origin::answering(move |_| Response::ok(&of_origin).cache("max-age=600"));
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    ktrix.get("/a").expect_status(200);
    ktrix.wait_hit("/a").expect_body(&body);
    assert!(has_file(&ktrix), "a body that was used once stays in its file");
    warm(&ktrix, "/a");
    assert!(!has_file(&ktrix));
    ktrix.get("/a").expect_hit().expect_body(&body);
    let part = Ask::get("/a").field("range", "bytes=600000-699998");
    ktrix.ask(&part).expect_status(206).expect_body(&body[600_000..699_999]);
    ktrix.ask(&Ask::new("HEAD", "/a")).expect_hit().expect_body("");
    let mut slow = ktrix.client().receive_buffer(4096);
    slow.send(&Ask::get("/a").field("connection", "close"));
    assert_eq!(slow.answer_head().0, 200);
    // A purge does not end a body that is being sent, and no client gets it afterwards.
    ktrix.ask(&Ask::new("PURGE", "/a")).expect_status(200);
    ktrix.get("/a").expect_miss().expect_body(&body);
    let (rest, _) = slow.read_to_end("the rest of what was purged");
    assert!(rest == body, "{} of {} bytes", rest.len(), body.len());
    origin.expect_requests(2);
}

#[test]
fn a_body_over_the_limit_stays_in_its_file() {
    let origin = Origin::answering(|request| {
        let len = if request.target == "/larger" { 200_001 } else { 200_000 };
        Response::ok(pattern(len)).cache("max-age=600")
    });
    let cache = "{path: $DIR/cache, memory: 8 MiB, memory-object: 200000 B}";
    let plan = Plan::new(&origin).set("workers", "1").set("cache", cache);
    let ktrix = plan.start();
    warm(&ktrix, "/large");
    assert!(!has_file(&ktrix));
    warm(&ktrix, "/larger");
    assert!(has_file(&ktrix));
    ktrix.get("/larger").expect_hit().expect_body(pattern(200_001));
}

#[test]
fn a_body_in_memory_is_kept_when_it_is_confirmed() {
    let body = pattern(300_000);
    let of_origin = body.clone();
    let origin = Origin::answering(move |request| {
        let response = match request.field("if-none-match") {
            None => Response::ok(&of_origin),
            Some(_) => Response::status(304),
        };
        response
            .field("ETag", "\"one\"")
            .field("X-Round", request.number.to_string())
            .cache("no-cache")
    });
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    for _ in 0..8 {
        ktrix.get("/a").expect_status(200).expect_body(&body);
    }
    assert!(ktrix.get("/a").field("x-round").is_some_and(|round| round != "0"));
}

#[test]
fn bodies_that_are_being_sent_stay_within_the_tier() {
    alone();
    let large: Arc<[u8]> = pattern(8 << 20).into();
    let origin = Origin::answering(move |_| Response::shared(&large).cache("max-age=600"));
    let cache = "{path: $DIR/cache, memory: 32 MiB, memory-object: 8 MiB}";
    let plan = Plan::new(&origin).set("workers", "1").set("cache", cache);
    let ktrix = plan.start();
    ktrix.get("/first").expect_status(200);
    let private = || ktrix.workers()[0].private_bytes();
    let before = private();
    let mut clients = Vec::new();
    for n in 0..10 {
        let target = format!("/{n}");
        warm(&ktrix, &target);
        let mut client = ktrix.client().receive_buffer(4096);
        client.send(&Ask::get(&target));
        assert_eq!(client.answer_head().0, 200);
        clients.push(client);
    }
    // 80 MiB, if each of them were in memory.
    until("memory to be within its bounds", Duration::from_secs(10), || {
        (private().saturating_sub(before) < 40 * MIB).then_some(())
    });
    drop(clients);
}
