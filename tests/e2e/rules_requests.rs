//! The requests that a route's cache answers, the answers that it stores, and the fields that it
//! ignores.

use crate::support::{Ask, Origin, Plan, Response};

/// One route for everything, with this `cache`.
fn all(cache: &str) -> String {
    format!("[{{upstream: app, cache: {cache}}}]")
}

/// An origin that counts, and repeats the request.
fn counting() -> Origin {
    Origin::answering(|request| Response::ok(request.number.to_string()).cache("max-age=600"))
}

#[test]
fn requests_that_are_to_pass_are_neither_answered_nor_stored() {
    let origin = counting();
    let plan = Plan::new(&origin)
        .set("sites", &all("{pass-if: [cookie session*, header X-Preview=1, query nocache]}"));
    let ktrix = plan.start();
    let stored = ktrix.get("/a").expect_miss().text();
    ktrix.wait_hit("/a");
    let passed = [
        Ask::get("/a").field("Cookie", "b=1; session_id=x"),
        Ask::get("/a").field("X-Preview", "1"),
        Ask::get("/a?nocache"),
    ];
    for _ in 0..2 {
        for ask in &passed {
            let answer = ktrix.ask(ask).expect_miss();
            assert!(answer.cache_status().contains("fwd=bypass; detail=pass-if"));
            assert_ne!(answer.text(), stored);
        }
    }
    assert_eq!((origin.count("/a"), origin.count("/a?nocache")), (5, 2));
    let answered = Ask::get("/a").field("Cookie", "a=session").field("X-Preview", "0");
    for _ in 0..3 {
        ktrix.ask(&answered).expect_hit().expect_body(&stored);
    }
}

#[test]
fn requests_that_are_to_refresh_renew_what_is_stored() {
    let origin = counting();
    let plan = Plan::new(&origin).set("sites", &all("{refresh-if: header X-Refresh=now}"));
    let ktrix = plan.start();
    ktrix.get("/a").expect_miss();
    let stored = ktrix.wait_hit("/a").text();
    let refresh = Ask::get("/a").field("X-Refresh", "now");
    for n in 2..=3 {
        let renewed = ktrix.ask(&refresh).expect_miss().text();
        assert_ne!(renewed, stored);
        assert_eq!(ktrix.wait_hit("/a").text(), renewed);
        origin.expect_requests(n);
    }
    ktrix.ask(&Ask::get("/a").field("X-Refresh", "later")).expect_hit();
    let only = refresh.field("Cache-Control", "only-if-cached");
    ktrix.ask(&only).expect_status(504);
}

#[test]
fn rarely_requested_objects_are_not_stored() {
    let origin = counting();
    let plan = Plan::new(&origin).set("workers", "4").set("sites", &all("{min-uses: 3}"));
    let ktrix = plan.start();
    for n_asked in 1..=2 {
        let answer = ktrix.get("/a").expect_miss();
        assert!(answer.cache_status().contains("detail=rare"), "{}", answer.cache_status());
        assert_eq!(origin.count("/a"), n_asked);
    }
    // The requests of all workers count together.
    let answer = ktrix.get("/a").expect_miss();
    assert!(answer.cache_status().contains("stored"), "{}", answer.cache_status());
    ktrix.wait_hit("/a");
    ktrix.get("/b").expect_miss();
    assert!(plan.cache_files().len() == 1, "{:?}", plan.cache_files());
}

#[test]
fn cookies_are_stripped_and_stored_as_the_route_says() {
    let origin = Origin::answering(|request| {
        Response::ok("x").cache("max-age=600").field("Set-Cookie", format!("id={}", request.number))
    });
    let plan = Plan::new(&origin).set(
        "sites",
        "[{upstream: app, routes: [{path: /pass}, {path: /strip, cache: {set-cookie: strip}}, \
         {path: /store, cache: {set-cookie: store}}]}]",
    );
    let ktrix = plan.start();
    for n_before in 0..2 {
        ktrix.get("/pass").expect_miss().expect_field("set-cookie", &format!("id={n_before}"));
    }
    ktrix.get("/strip").expect_miss().expect_field("set-cookie", "id=2");
    ktrix.wait_hit("/strip").expect_no_field("set-cookie");
    ktrix.get("/store").expect_miss().expect_field("set-cookie", "id=3");
    ktrix.wait_hit("/store").expect_field("set-cookie", "id=3");
}

#[test]
fn fields_that_are_ignored_decide_nothing_and_reach_the_client() {
    let origin = Origin::answering(|_| {
        Response::ok("x").cache("no-store").field("Expires", "0").field("ETag", "\"1\"")
    });
    let plan = Plan::new(&origin)
        .set("sites", &all("{ignore: [Cache-Control, expires], ttl-status: {200: 1h}}"));
    let ktrix = plan.start();
    ktrix.get("/a").expect_miss().expect_field("cache-control", "no-store");
    ktrix.wait_hit("/a").expect_field("cache-control", "no-store").expect_field("expires", "0");
    origin.expect_requests(1);
}
