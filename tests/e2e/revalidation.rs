//! Stored answers that are no longer fresh: validated, served meanwhile, or served on error.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{
    Ask, Client, Gate, Ktrix, Origin, Plan, Response, date_from_now, pattern, until_true,
};

/// Answers 304 to its own entity tag, with a longer life than the first answer had.
fn tagged(life: &'static str) -> Origin {
    Origin::answering(move |request| {
        if request.field("if-none-match") == Some("\"one\"") {
            return Response::status(304).field("ETag", "\"one\"").field("X-Round", 2).cache(life);
        }
        Response::ok("hello").field("ETag", "\"one\"").field("X-Round", 1).cache("max-age=0")
    })
}

#[test]
fn a_stale_answer_is_asked_about_and_a_304_refreshes_it() {
    let origin = tagged("max-age=60");
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_body("hello").expect_field("x-round", "1");
    until_true("a validated answer", || {
        let answer = ktrix.get("/a").expect_status(200).expect_body("hello");
        answer.field("x-round") == Some("2")
    });
    ktrix.wait_hit("/a").expect_body("hello").expect_field("x-round", "2");
    let n = origin.n_requests();
    ktrix.get("/a").expect_hit();
    origin.expect_requests(n);
    let asked = origin.last();
    assert_eq!(asked.field("if-none-match"), Some("\"one\""), "{:?}", asked.head.fields);
}

#[test]
fn a_changed_object_replaces_the_stored_one() {
    let origin = Origin::answering(|request| {
        let tag = format!("\"{}\"", request.number);
        let life = if request.number == 0 { "max-age=0" } else { "max-age=60" };
        Response::ok(request.number.to_string()).field("ETag", tag).cache(life)
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_body("0");
    until_true("the newer object", || ktrix.get("/a").text() != "0");
    let newest = ktrix.wait_hit("/a").text();
    ktrix.get("/a").expect_hit().expect_body(newest);
}

#[test]
fn a_date_validates_where_there_is_no_tag() {
    let modified = date_from_now(-1000);
    let date = modified.clone();
    let origin = Origin::answering(move |request| {
        if request.field("if-modified-since") == Some(&*date) {
            return Response::status(304).cache("max-age=60");
        }
        Response::ok("hello").field("Last-Modified", &date).cache("max-age=0")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_body("hello");
    ktrix.wait_hit("/a").expect_body("hello").expect_field("last-modified", &modified);
}

#[test]
fn a_strong_tag_that_is_not_stored_confirms_nothing() {
    let date = date_from_now(0);
    let origin = Origin::answering(move |request| {
        if request.has("if-modified-since") {
            return Response::status(304).field("ETag", "\"new\"").cache("max-age=60");
        }
        let tag = (request.number > 0).then_some("\"new\"");
        let answer = Response::ok(request.number.to_string()).field("Last-Modified", &date);
        match tag {
            Some(tag) => answer.field("ETag", tag).cache("max-age=60"),
            None => answer.cache("max-age=0"),
        }
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_body("0");
    ktrix.get("/a").expect_body("2").expect_field("etag", "\"new\"");
    ktrix.get("/a").expect_hit().expect_body("2");
    origin.expect_requests(3);
}

#[test]
fn a_clients_own_condition_is_answered_from_the_cache() {
    let modified = date_from_now(-1000);
    let date = modified.clone();
    let origin = Origin::answering(move |_| {
        let response = Response::ok("hello").field("ETag", "\"one\"");
        response.field("Last-Modified", &date).cache("max-age=60")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a");
    ktrix.wait_hit("/a");
    let ask = |name, value: &str| ktrix.ask(&Ask::get("/a").field(name, value));
    let not_modified = ask("If-None-Match", "\"zero\", W/\"one\"").expect_status(304);
    not_modified.expect_body("").expect_field("etag", "\"one\"");
    ask("If-None-Match", "*").expect_status(304);
    ask("If-None-Match", "\"two\"").expect_status(200).expect_body("hello");
    ask("If-Modified-Since", &modified).expect_status(304);
    ask("If-Modified-Since", &date_from_now(-2000)).expect_status(200);
    origin.expect_requests(1);
}

#[test]
fn a_condition_on_a_cold_object_does_not_harm_the_cache() {
    let origin = Origin::answering(|request| {
        if request.field("if-none-match") == Some("\"one\"") {
            return Response::status(304).field("ETag", "\"one\"").cache("max-age=60");
        }
        Response::ok("hello").field("ETag", "\"one\"").cache("max-age=60")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let conditional = Ask::get("/a").field("If-None-Match", "\"one\"");
    ktrix.ask(&conditional).expect_status(304).expect_body("");
    ktrix.get("/a").expect_status(200).expect_body("hello");
    ktrix.wait_hit("/a").expect_status(200).expect_body("hello");
    ktrix.ask(&conditional).expect_status(304);
}

#[test]
fn no_cache_is_stored_and_asked_about_each_time() {
    let origin = tagged("no-cache");
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a");
    for n in 2..6 {
        ktrix.get("/a").expect_status(200).expect_body("hello");
        origin.expect_requests(n);
    }
    assert!(origin.last().has("if-none-match"), "{:?}", origin.last().head.fields);
}

#[test]
fn stale_while_revalidate_answers_at_once_and_refreshes_in_the_background() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |request| {
        let life = "max-age=0, stale-while-revalidate=60";
        match request.number {
            0 => Response::ok("old").cache(life),
            _ => Response::ok("new").cache("max-age=60").gated(&held),
        }
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_body("old");
    // The origin holds its second answer back, so an answer now is a stale one.
    until_true("a refresh at the origin", || {
        ktrix.get("/a").expect_status(200).expect_body("old");
        origin.n_requests() > 1
    });
    for _ in 0..10 {
        ktrix.get("/a").expect_status(200).expect_body("old").expect_hit();
    }
    origin.expect_requests(2);
    gate.open();
    until_true("the refreshed answer", || ktrix.get("/a").text() == "new");
    origin.expect_requests(2);
}

#[test]
fn a_background_refresh_of_a_head_is_stored() {
    let origin = Origin::answering(|request| {
        let life = match request.number {
            0 => "max-age=0, stale-while-revalidate=60",
            _ => "max-age=60",
        };
        Response::ok(request.number.to_string()).field("X-Number", request.number).cache(life)
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_body("0");
    until_true("a refreshed head", || {
        let answer = ktrix.ask(&Ask::new("HEAD", "/a")).expect_status(200).expect_hit();
        answer.field("x-number") == Some("1")
    });
    ktrix.get("/a").expect_hit().expect_body("1");
    origin.expect_requests(2);
    assert_eq!(origin.last().method, "GET");
}

#[test]
fn stale_if_error_serves_the_old_answer_when_the_origin_fails() {
    let is_ill = Arc::new(AtomicBool::new(false));
    let ill = Arc::clone(&is_ill);
    let mut origin = Origin::answering(move |request| {
        if ill.load(Ordering::SeqCst) {
            return Response::status(503);
        }
        let life = match &*request.target {
            "/strict" => "max-age=0, must-revalidate, stale-if-error=600",
            "/plain" => "max-age=0, stale-if-error=600",
            _ => "max-age=0, stale-if-error=0",
        };
        Response::ok("old").field("ETag", "\"x\"").cache(life)
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/plain").expect_body("old");
    ktrix.get("/strict").expect_body("old");
    until_true("stored objects", || plan.cache_files().len() == 2);
    is_ill.store(true, Ordering::SeqCst);
    ktrix.get("/plain").expect_status(200).expect_body("old");
    ktrix.get("/strict").expect_status(503);
    origin.stop();
    ktrix.get("/plain").expect_status(200).expect_body("old");
    let status = ktrix.get("/strict").status;
    assert!([502, 503, 504].contains(&status), "{status}");
}

#[test]
fn stale_if_error_answers_a_head_too() {
    let mut origin = Origin::answering(|request| match request.number {
        0 | 1 if request.target == "/strict" => {
            Response::ok("old").cache("max-age=0, must-revalidate").field("ETag", "\"x\"")
        }
        0 | 1 => Response::ok("old").cache("max-age=0, stale-if-error=600"),
        _ => Response::status(503),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for target in ["/a", "/strict"] {
        ktrix.get(target).expect_body("old");
    }
    let head = |target| ktrix.ask(&Ask::new("HEAD", target));
    let expect_stale = || {
        let answer = head("/a").expect_status(200).expect_body("").expect_stale();
        answer.expect_field("content-length", "3");
        let strict = Ask::new("HEAD", "/a").field("Cache-Control", "no-cache");
        assert!(ktrix.ask(&strict).status >= 500);
        assert!(head("/strict").status >= 500);
    };
    expect_stale();
    assert_eq!(origin.last().method, "HEAD");
    origin.stop();
    expect_stale();
}

#[test]
fn an_origin_that_is_silent_for_too_long_has_failed() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |request| match request.number {
        0 => Response::ok("old").cache("max-age=0, stale-if-error=600"),
        _ => Response::ok("late").gated(&held),
    });
    let plan = Plan::new(&origin).set("timeouts", "{first-byte: 300ms}");
    let ktrix = plan.start();
    ktrix.get("/a").expect_body("old");
    for method in ["GET", "HEAD"] {
        ktrix.ask(&Ask::new(method, "/a")).expect_status(200).expect_stale();
        let strict = Ask::new(method, "/a").field("Cache-Control", "no-cache");
        ktrix.ask(&strict).expect_status(504);
    }
    ktrix.get("/a").expect_status(200).expect_body("old");
    gate.open();
}

/// Good at first, and then an error that may be stored for a while.
fn failing_from(n_good: usize, life: &'static str) -> Origin {
    Origin::answering(move |request| match request.number < n_good {
        true => Response::ok("old").field("ETag", "\"x\"").cache(life),
        false => Response::status(503),
    })
}

const STORES_ERRORS: &str = "[{upstream: app, cache: {ttl-status: {5xx: 100s}}}]";

#[test]
fn a_storable_error_replaces_no_good_answer() {
    let origin = failing_from(1, "max-age=0, stale-if-error=600");
    let plan = Plan::new(&origin).set("sites", STORES_ERRORS);
    let ktrix = plan.start();
    ktrix.get("/a").expect_body("old");
    until_true("the stored object", || plan.cache_files().len() == 1);
    for n_asked in 2..5 {
        ktrix.get("/a").expect_status(200).expect_body("old");
        origin.expect_requests(n_asked);
    }
    // A client that accepts nothing stale gets the error, and the stored answer stays.
    let strict = Ask::get("/a").field("Cache-Control", "no-cache");
    ktrix.ask(&strict).expect_status(503);
    ktrix.get("/a").expect_status(200).expect_body("old");
    // Where no better answer is stored, the error is stored as usual.
    ktrix.get("/b").expect_status(503);
    ktrix.get("/b").expect_status(503).expect_hit();
}

#[test]
fn a_background_error_replaces_no_good_answer() {
    let origin = failing_from(1, "max-age=0, stale-while-revalidate=600");
    let plan = Plan::new(&origin).set("sites", STORES_ERRORS);
    let ktrix = plan.start();
    ktrix.get("/a").expect_body("old");
    until_true("refreshes that failed", || {
        ktrix.get("/a").expect_status(200).expect_body("old");
        origin.n_requests() > 4
    });
}

#[test]
fn a_failing_origin_gets_few_requests_and_all_clients_the_old_answer() {
    let is_ill = Arc::new(AtomicBool::new(false));
    let ill = Arc::clone(&is_ill);
    let origin = Origin::answering(move |_| match ill.load(Ordering::SeqCst) {
        // Long enough for all clients to be waiting when it comes.
        true => Response::status(503).after(Duration::from_millis(300)),
        false => Response::ok("old").cache("max-age=0, stale-if-error=600").field("ETag", "\"x\""),
    });
    let plan = Plan::new(&origin).set("workers", "4");
    let ktrix = plan.start();
    ktrix.get("/a").expect_body("old");
    until_true("the stored object", || plan.cache_files().len() == 1);
    is_ill.store(true, Ordering::SeqCst);
    let n_before = origin.n_requests();
    let mut clients: Vec<Client> = (0..20).map(|_| ktrix.client()).collect();
    for client in &mut clients {
        client.send(&Ask::get("/a"));
    }
    for client in &mut clients {
        client.answer().expect_status(200).expect_body("old").expect_stale();
    }
    let n_asked = origin.n_requests() - n_before;
    assert!((1..=5).contains(&n_asked), "{n_asked} of 20 asked the origin");
    assert_eq!(plan.cache_files().len(), 1, "the object is still there");
    is_ill.store(false, Ordering::SeqCst);
    ktrix.get("/a").expect_status(200).expect_body("old");
}

#[test]
fn a_large_object_is_refreshed_in_the_background_by_one_fetch() {
    let gate = Gate::new();
    let [old, new]: [Arc<[u8]>; 2] = [1_u8, 2].map(|byte| vec![byte; 8 << 20].into());
    let (held, bodies) = (gate.clone(), [Arc::clone(&old), Arc::clone(&new)]);
    let origin = Origin::answering(move |request| match request.number {
        0 => Response::shared(&bodies[0]).cache("max-age=0, stale-while-revalidate=600"),
        // The new one stops halfway: a client that is answered before its end gets the old one.
        _ => Response::shared(&bodies[1]).cache("max-age=600").gated_at(4 << 20, &held),
    });
    let plan = Plan::new(&origin).set("workers", "4");
    let ktrix = plan.start();
    ktrix.get("/a").expect_body(&old);
    until_true("a refresh at the origin", || {
        ktrix.get("/a").expect_status(200).expect_body(&old);
        origin.n_requests() > 1
    });
    let mut clients: Vec<Client> = (0..20).map(|_| ktrix.client()).collect();
    for client in &mut clients {
        client.send(&Ask::get("/a"));
    }
    for client in &mut clients {
        client.answer().expect_status(200).expect_body(&old).expect_hit();
    }
    origin.expect_requests(2);
    gate.open();
    until_true("the refreshed object", || {
        let answer = ktrix.get("/a").expect_status(200);
        assert!(answer.body == *old || answer.body == *new, "a mixture");
        answer.body == *new
    });
    ktrix.get("/a").expect_hit().expect_body(&new);
    origin.expect_requests(2);
    plan.verify_cache();
}

/// An origin with one large object, which grows stale at once, until it is asked about for the first
/// time.
fn large(body: Arc<[u8]>) -> Origin {
    Origin::answering(move |request| {
        let answer = match request.field("if-none-match") {
            Some("\"one\"") => Response::status(304).field("X-Round", 2).cache("max-age=600"),
            _ => Response::shared(&body).field("X-Round", 1).cache("max-age=0"),
        };
        answer.field("ETag", "\"one\"")
    })
}

#[test]
fn a_304_to_a_large_object_copies_no_body() {
    let body: Arc<[u8]> = pattern(64 << 20).into();
    let origin = large(Arc::clone(&body));
    let plan = Plan::new(&origin).set("workers", "4");
    let ktrix = plan.start();
    ktrix.get("/a").expect_status(200).expect_body(&body);
    until_true("the stored object", || plan.cache_files().len() == 1);
    let inode = || fs::metadata(&plan.cache_files()[0]).unwrap().ino();
    let sum = |name| ktrix.workers().iter().map(|worker| worker.io(name)).sum::<u64>();
    let (inode_before, n_read, n_written) = (inode(), sum("rchar"), sum("wchar"));
    let part = Ask::get("/a").field("Range", "bytes=33554431-33554440");
    let ask = |ktrix: &Ktrix<'_>| {
        let answer =
            ktrix.ask(&part).expect_status(206).expect_body(&body[33_554_431..=33_554_440]);
        answer.expect_field("x-round", "2")
    };
    ask(&ktrix);
    until_true("the renewed object", || ask(&ktrix).is_hit());
    // Every worker has its own connections.
    (0..32).for_each(|_| drop(ask(&ktrix).expect_hit()));
    let (n_read, n_written) = (sum("rchar") - n_read, sum("wchar") - n_written);
    assert!(n_written < 64 << 10, "{n_written} bytes were written");
    assert!(n_read < 1 << 20, "{n_read} bytes were read: the body is verified already");
    assert_eq!(inode(), inode_before, "it is the same file");
    origin.expect_requests(2);
    ktrix.get("/a").expect_hit().expect_body(&body).expect_field("x-round", "2");
    plan.verify_cache();
    ktrix.workers().iter().for_each(|worker| worker.signal(Signal::SIGKILL));
    until_true("an answer of a new worker", || ktrix.workers().len() == 4);
    ask(&ktrix).expect_hit();
    ktrix.stop();
    let ktrix = plan.start();
    ask(&ktrix).expect_hit();
    ktrix.signal(Signal::SIGKILL);
    ktrix.wait_gone();
    drop(ktrix);
    let ktrix = plan.start();
    ask(&ktrix).expect_hit();
    ktrix.get("/a").expect_hit().expect_body(&body).expect_field("x-round", "2");
    plan.verify_cache();
    origin.expect_requests(2);
    ktrix.ask(&Ask::new("PURGE", "/a")).expect_status(200);
    ktrix.get("/a").expect_status(200).expect_body(&body).expect_field("x-round", "1");
    origin.expect_requests(3);
}

#[test]
fn heads_that_change_again_and_again_leave_the_file_short() {
    let origin = Origin::answering(|request| {
        let round = "x".repeat(request.number * 7 % 900);
        let answer = match request.has("if-none-match") {
            true => Response::status(304),
            false => Response::ok(pattern(300_000)),
        };
        answer.field("ETag", "\"one\"").field("X-Round", round).cache("no-cache")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_body(pattern(300_000));
    until_true("the stored object", || plan.cache_files().len() == 1);
    let mut client = ktrix.client();
    for n in 1..200_usize {
        let answer = client.get("/a").expect_status(200).expect_body(pattern(300_000));
        answer.expect_field("x-round", &"x".repeat(n * 7 % 900));
    }
    let len = fs::metadata(&plan.cache_files()[0]).unwrap().len();
    assert!(len < 305_000, "{len} bytes");
    plan.verify_cache();
}

#[test]
fn validating_costs_no_connection() {
    let origin = tagged("no-cache");
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.get("/a").expect_body("hello");
    until_true("the stored object", || plan.cache_files().len() == 1);
    for _ in 0..20 {
        client.get("/a").expect_status(200).expect_body("hello").expect_field("x-round", "2");
    }
    origin.expect_requests(21);
    assert_eq!(origin.n_connections(), 1, "each 304 leaves its connection as it was");
}

#[test]
fn one_bad_request_removes_no_good_object() {
    let origin = Origin::answering(|request| {
        if request.has("x-bad") {
            return Response::status(400);
        }
        if request.has("if-none-match") {
            return Response::status(304).field("ETag", "\"one\"");
        }
        let life = if request.target == "/stale" { "max-age=0" } else { "max-age=600" };
        Response::ok("hello").field("ETag", "\"one\"").cache(life)
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for target in ["/stale", "/fresh"] {
        ktrix.get(target).expect_body("hello");
    }
    until_true("the stored objects", || plan.cache_files().len() == 2);
    for target in ["/stale", "/fresh"] {
        let ask = Ask::get(target).field("X-Bad", 1).field("Cache-Control", "no-cache");
        for _ in 0..4 {
            ktrix.ask(&ask).expect_status(400);
        }
    }
    for _ in 0..4 {
        ktrix.get("/fresh").expect_hit().expect_body("hello");
        ktrix.get("/stale").expect_status(200).expect_body("hello");
        assert!(origin.last().has("if-none-match"), "{:?}", origin.last().head.fields);
    }
    assert_eq!(plan.cache_files().len(), 2);
}
