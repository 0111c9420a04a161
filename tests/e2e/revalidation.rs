//! Stored answers that are no longer fresh: asked about, served meanwhile, or served in need.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Ask, Gate, Origin, Plan, Response, date_from_now, until_true};

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
fn a_condition_on_a_cold_object_does_not_spoil_the_cache() {
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
fn stale_while_revalidate_answers_at_once_and_refreshes_behind() {
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
    // The origin holds its second answer back, so whoever is answered now is answered stale.
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
