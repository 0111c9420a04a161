//! One client's data reaches no other client: private fields, hidden fields, bypasses of a route.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Ask, Client, Gate, Origin, Plan, Response, pattern, until_true};

#[test]
fn a_private_field_of_a_304_reaches_no_other_client() {
    let origin = Origin::answering(|request| {
        if request.has("if-none-match") {
            return Response::status(304)
                .field("ETag", "\"one\"")
                .field("X-User", "bob")
                .cache("max-age=60, private=\"x-user\"");
        }
        Response::ok("hello").field("ETag", "\"one\"").cache("max-age=0")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_body("hello");
    until_true("a validation", || {
        ktrix.get("/a").expect_body("hello");
        origin.n_requests() > 1
    });
    ktrix.wait_hit("/a").expect_body("hello").expect_no_field("x-user");
}

#[test]
fn a_field_hidden_from_the_origin_selects_no_variant() {
    let origin = Origin::answering(|request| {
        let language = request.field("accept-language").unwrap_or("none").to_owned();
        Response::ok(language).field("Vary", "Accept-Language").cache("max-age=60")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let german = Ask::get("/a").field("Accept-Language", "de");
    ktrix.ask(&german.clone().field("Connection", "Accept-Language")).expect_body("none");
    for _ in 0..5 {
        ktrix.ask(&german).expect_body("de");
    }
}

#[test]
fn a_field_named_by_no_cache_reaches_the_first_client_only() {
    let origin = Origin::answering(|_| {
        Response::ok("hello")
            .field("Set-Cookie", "id=1")
            .cache("max-age=60, no-cache=\"Set-Cookie\"")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_field("set-cookie", "id=1");
    ktrix.wait_hit("/a").expect_no_field("set-cookie");
}

#[test]
fn age_is_said_once() {
    let origin = Origin::answering(|_| Response::ok("hello").field("Age", 7).cache("max-age=60"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for answer in [ktrix.get("/a"), ktrix.wait_hit("/a"), ktrix.get("/a")] {
        assert_eq!(answer.head.all("age").count(), 1, "{:?}", answer.head.fields);
    }
}

#[test]
fn a_path_written_otherwise_takes_the_same_route() {
    let origin = Origin::answering(|_| Response::ok("hello").cache("max-age=60"));
    let plan = Plan::new(&origin).set(
        "sites",
        "[{routes: [{path: /private, upstream: app, cache: off}, {path: /, upstream: app}]}]",
    );
    let ktrix = plan.start();
    for target in ["/private", "/x/../private", "//private", "/%70rivate"] {
        for _ in 0..4 {
            ktrix.get(target).expect_status(200).expect_miss();
        }
    }
    assert!(plan.cache_files().is_empty(), "{:?}", plan.cache_files());
}

#[test]
fn a_304_that_forbids_storing_ends_the_object_and_its_fields_reach_no_other_client() {
    for control in ["private", "no-store", "private, max-age=60", "no-store, max-age=60"] {
        let is_ill = Arc::new(AtomicBool::new(false));
        let ill = Arc::clone(&is_ill);
        let origin = Origin::answering(move |request| {
            let who = request.field("x-who").unwrap_or("nobody").to_owned();
            if request.has("if-none-match") {
                return Response::status(304)
                    .field("ETag", "\"one\"")
                    .field("X-User", who)
                    .cache(control);
            }
            if ill.load(Ordering::SeqCst) {
                return Response::status(403);
            }
            let body = format!("for {who}");
            let life = if request.number == 0 { "max-age=0" } else { control };
            Response::ok(body).field("ETag", "\"one\"").cache(life)
        });
        let plan = Plan::new(&origin);
        let ktrix = plan.start();
        let ask = |who| ktrix.ask(&Ask::get("/a").field("X-Who", who));
        ask("ann").expect_status(200).expect_body("for ann");
        until_true("the stored object", || plan.cache_files().len() == 1);
        // A client that got 304 may not get the stored answer, and gets no other one.
        is_ill.store(true, Ordering::SeqCst);
        ask("bob").expect_status(403).expect_no_field("x-user");
        until_true("the object to be gone", || plan.cache_files().is_empty());
        is_ill.store(false, Ordering::SeqCst);
        for _ in 0..4 {
            for who in ["ann", "eve"] {
                let answer = ask(who).expect_status(200).expect_miss().expect_no_field("x-user");
                answer.expect_body(format!("for {who}"));
            }
        }
    }
}

/// An origin that answers by the client's fields, and names them in Vary.
fn by_client(name: &'static str) -> Origin {
    Origin::answering(move |request| {
        let value = request.field(name).unwrap_or("none").to_owned();
        Response::ok(value).field("Vary", name).cache("max-age=60")
    })
}

#[test]
fn variants_by_client_fields_are_shared_with_no_client() {
    for name in ["X-Forwarded-For", "Forwarded", "X-Forwarded-Proto"] {
        let origin = by_client(name);
        let plan = Plan::new(&origin);
        let _ktrix = plan.start();
        for n in 1..=9 {
            let from = [127, 0, 0, n];
            let address = from.map(|byte| byte.to_string()).join(".");
            let mut client = Client::connect_from(from, &plan.address);
            for _ in 0..3 {
                let answer = client.get("/a").expect_status(200).expect_miss();
                let body = answer.text();
                assert!(name == "X-Forwarded-Proto" || body.contains(&address), "{n}: {body}");
            }
            // A client that claims another address is still not that client.
            let mut liar = Client::connect_from([127, 0, 0, 77], &plan.address);
            let answer = liar.ask(&Ask::get("/a").field(name, &address)).expect_miss();
            let body = answer.text();
            assert!(name == "X-Forwarded-Proto" || body.contains("127.0.0.77"), "{body}");
        }
        origin.expect_requests(9 * 4);
        assert!(plan.cache_files().is_empty(), "{name}: {:?}", plan.cache_files());
    }
}

#[test]
fn clients_that_wait_together_do_not_share_variants_by_client_fields() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |request| {
        let who = request.field("x-forwarded-for").unwrap_or("none").to_owned();
        Response::ok(who).field("Vary", "X-Forwarded-For").cache("max-age=60").gated(&held)
    });
    let plan = Plan::new(&origin).set("workers", "4");
    let _ktrix = plan.start();
    let mut clients: Vec<_> =
        (1..=20).map(|n| (n, Client::connect_from([127, 0, 0, n], &plan.address))).collect();
    for (_, client) in &mut clients {
        client.send(&Ask::get("/a"));
    }
    origin.wait_requests(1);
    gate.open();
    for (n, client) in &mut clients {
        client.answer().expect_status(200).expect_body(format!("127.0.0.{n}"));
    }
    origin.expect_requests(20);
}

#[test]
fn the_first_client_keeps_its_own_cookie_and_followers_do_not_get_it() {
    let bodies = [b"small".to_vec(), pattern(1 << 20)];
    for control in ["no-cache=\"Set-Cookie\"", "private=\"Set-Cookie\""] {
        for body in &bodies {
            let gate = Gate::new();
            let (held, sent) = (gate.clone(), body.clone());
            let origin = Origin::answering(move |request| {
                let response = Response::ok(&sent).field("Set-Cookie", request.number);
                response.cache(&format!("max-age=60, {control}")).gated(&held)
            });
            let plan = Plan::new(&origin).set("workers", "4");
            let ktrix = plan.start();
            let mut clients: Vec<Client> = (0..16).map(|_| ktrix.client()).collect();
            for (i, client) in clients.iter_mut().enumerate() {
                client.send(&Ask::get("/a"));
                if i == 0 {
                    origin.wait_requests(1);
                }
            }
            gate.open();
            for (i, client) in clients.iter_mut().enumerate() {
                let answer = client.answer().expect_status(200).expect_body(body);
                assert_eq!(answer.field("set-cookie"), (i == 0).then_some("0"), "client {i}");
            }
            ktrix.wait_hit("/a").expect_body(body).expect_no_field("set-cookie");
            origin.expect_requests(1);
        }
    }
}
