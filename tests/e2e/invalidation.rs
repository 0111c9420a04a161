//! A successful unsafe method invalidates the stored responses of its URI.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Ask, Client, Gate, Ktrix, Origin, Plan, Response, pattern, until_true};

fn origin() -> Origin {
    Origin::answering(|request| {
        if request.method == "GET" {
            return Response::ok(request.number.to_string()).cache("max-age=600");
        }
        let response = match request.field("x-fail") {
            Some(_) => Response::status(500),
            None => Response::ok("done"),
        };
        match request.field("x-location") {
            Some(place) => response.field("Location", place),
            None => response,
        }
    })
}

#[test]
fn unsafe_methods_invalidate_their_target() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for method in ["POST", "PUT", "DELETE", "PATCH", "BREW"] {
        ktrix.get("/a").expect_status(200);
        let stored = ktrix.wait_hit("/a").text();
        let ask = Ask::new(method, "/a").field("Content-Length", 0);
        ktrix.ask(&ask).expect_status(200);
        for _ in 0..6 {
            assert_ne!(ktrix.get("/a").text(), stored, "after {method}");
        }
    }
}

#[test]
fn failed_and_safe_requests_invalidate_nothing() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a");
    let stored = ktrix.wait_hit("/a").text();
    ktrix.ask(&Ask::post("/a", "x").field("X-Fail", 1)).expect_status(500);
    ktrix.ask(&Ask::post("/b", "x")).expect_status(200);
    ktrix.ask(&Ask::new("OPTIONS", "/a")).expect_status(200);
    ktrix.ask(&Ask::new("HEAD", "/a")).expect_status(200);
    ktrix.get("/a").expect_hit().expect_body(stored);
}

#[test]
fn a_location_on_the_same_host_is_invalidated_too() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for target in ["/a", "/b"] {
        ktrix.get(target);
        ktrix.wait_hit(target);
    }
    ktrix.ask(&Ask::post("/form", "x").field("X-Location", "/a")).expect_status(200);
    ktrix.get("/a").expect_miss();
    let other = "http://elsewhere.example/b";
    ktrix.ask(&Ask::post("/form", "x").field("X-Location", other)).expect_status(200);
    ktrix.get("/b").expect_hit();
}

/// Requests with the same bytes, twice on the same connection, until both answers are stored ones:
/// the second is then found by the bytes of the request alone.
fn wait_hot(client: &mut Client, ask: &Ask) -> String {
    let mut text = String::new();
    until_true("two hits one after another", || {
        let (first, second) = (client.ask(ask), client.ask(ask));
        text = second.text();
        first.is_hit() && second.is_hit()
    });
    text
}

#[test]
fn variants_that_are_hot_are_invalidated_all_at_once() {
    let origin = Origin::answering(|request| {
        if request.method != "GET" {
            return Response::ok("done");
        }
        let language = request.field("accept-language").unwrap_or("none").to_owned();
        let body = format!("{language} {}", request.number);
        Response::ok(body).field("Vary", "Accept-Language").cache("max-age=600")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let asks = ["de", "en", "fr"].map(|l| Ask::get("/a").field("Accept-Language", l));
    // Enough connections that each worker has some.
    let mut clients: Vec<Client> = (0..8).map(|_| ktrix.client()).collect();
    let mut stored: Vec<String> = Vec::new();
    for client in &mut clients {
        stored = asks.iter().map(|ask| wait_hot(client, ask)).collect();
    }
    for round in 0..3 {
        ktrix.ask(&Ask::post("/a", "x")).expect_status(200);
        for client in &mut clients {
            for (ask, stored) in asks.iter().zip(&stored) {
                let answer = client.ask(ask).expect_status(200);
                assert_ne!(answer.text(), *stored, "round {round}: {ask:?}");
                assert_eq!(answer.text()[..2], stored[..2], "another's variant");
            }
        }
        for client in &mut clients {
            stored = asks.iter().map(|ask| wait_hot(client, ask)).collect();
        }
    }
}

/// Begins a GET that the origin holds back, completes a POST to the same URL meanwhile, and lets
/// the GET go on. A request after the POST does not get the older response.
fn fill_overtaken_by_a_post(ktrix: &Ktrix<'_>, origin: &Origin, gate: &Gate, old: &[u8]) {
    let mut clients: Vec<Client> = (0..8).map(|_| ktrix.client()).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.send(&Ask::get("/a"));
        if i == 0 {
            origin.wait_requests(1);
        }
    }
    ktrix.ask(&Ask::post("/a", "x")).expect_status(200).expect_body("done");
    for _ in 0..8 {
        ktrix.get("/a").expect_status(200).expect_body("new");
    }
    ktrix.wait_hit("/a").expect_body("new");
    gate.open();
    for (i, client) in clients.iter_mut().enumerate() {
        let answer = client.answer().expect_status(200);
        // A client that came in time, and no later one, may still have got the old one.
        assert!(answer.body == old || (i > 0 && answer.body == b"new"), "{}", answer.text());
    }
    for _ in 0..8 {
        ktrix.get("/a").expect_status(200).expect_body("new").expect_hit();
    }
}

/// GETs before the first POST are held back and get `old`; later ones get "new".
fn overtaken(old: Response, gate: &Gate, gate_at: Option<usize>) -> Origin {
    let (gate, is_new) = (gate.clone(), Arc::new(AtomicBool::new(false)));
    Origin::answering(move |request| {
        if request.method == "POST" {
            is_new.store(true, Ordering::SeqCst);
            return Response::ok("done");
        }
        if is_new.load(Ordering::SeqCst) {
            return Response::ok("new").cache("max-age=600");
        }
        let old = old.clone().cache("max-age=600");
        match gate_at {
            Some(byte) => old.gated_at(byte, &gate),
            None => old.gated(&gate),
        }
    })
}

#[test]
fn a_fill_begun_before_a_successful_post_is_not_kept() {
    let large = pattern(1 << 20);
    for (body, gate_at) in [(&b"old"[..], None), (&large, None), (&large, Some(500_000))] {
        let gate = Gate::new();
        let origin = overtaken(Response::ok(body), &gate, gate_at);
        let plan = Plan::new(&origin).set("workers", "4");
        let ktrix = plan.start();
        fill_overtaken_by_a_post(&ktrix, &origin, &gate, body);
        plan.verify_cache();
        until_true("no unfinished file", || plan.unfinished_files().is_empty());
    }
}

#[test]
fn a_variants_fill_begun_before_a_successful_post_is_not_kept() {
    let gate = Gate::new();
    let held = gate.clone();
    let is_new = AtomicBool::new(false);
    let origin = Origin::answering(move |request| {
        if request.method == "POST" {
            is_new.store(true, Ordering::SeqCst);
            return Response::ok("done");
        }
        let (is_new, language) = (is_new.load(Ordering::SeqCst), request.field("accept-language"));
        let response = Response::ok(if is_new { "new" } else { "old" });
        let response = response.field("Vary", "Accept-Language").cache("max-age=600");
        match (is_new, language) {
            (false, Some("de")) => response.gated(&held),
            _ => response,
        }
    });
    let plan = Plan::new(&origin).set("workers", "4");
    let ktrix = plan.start();
    let ask = |language| Ask::get("/a").field("Accept-Language", language);
    // One variant is stored, so that the other's fill is a fill of a variant from its beginning.
    ktrix.ask(&ask("en")).expect_body("old");
    until_true("the first variant", || ktrix.ask(&ask("en")).is_hit());
    let n_before = origin.n_requests();
    let mut client = ktrix.client();
    client.send(&ask("de"));
    origin.wait_requests(n_before + 1);
    ktrix.ask(&Ask::post("/a", "x")).expect_status(200);
    ktrix.ask(&ask("de")).expect_status(200).expect_body("new");
    gate.open();
    client.answer().expect_status(200).expect_body("old");
    for _ in 0..8 {
        ktrix.ask(&ask("de")).expect_body("new");
        ktrix.ask(&ask("en")).expect_body("new");
    }
}

#[test]
fn a_validation_begun_before_a_successful_post_does_not_keep_the_object() {
    let gate = Gate::new();
    let held = gate.clone();
    let is_new = AtomicBool::new(false);
    let origin = Origin::answering(move |request| {
        if request.method == "POST" {
            is_new.store(true, Ordering::SeqCst);
            return Response::ok("done");
        }
        if is_new.load(Ordering::SeqCst) {
            return Response::ok("new").cache("max-age=600");
        }
        if request.has("if-none-match") {
            let response = Response::status(304).field("ETag", "\"old\"").cache("max-age=600");
            return response.gated(&held);
        }
        Response::ok("old").field("ETag", "\"old\"").cache("max-age=0")
    });
    let plan = Plan::new(&origin).set("workers", "4");
    let ktrix = plan.start();
    ktrix.get("/a").expect_body("old");
    until_true("the stored object", || plan.cache_files().len() == 1);
    let mut client = ktrix.client();
    client.send(&Ask::get("/a"));
    origin.wait_requests(2);
    ktrix.ask(&Ask::post("/a", "x")).expect_status(200);
    ktrix.get("/a").expect_status(200).expect_body("new");
    gate.open();
    client.answer().expect_status(200).expect_body("old");
    for _ in 0..8 {
        ktrix.get("/a").expect_body("new");
    }
}
