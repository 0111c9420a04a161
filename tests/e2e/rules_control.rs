//! Cache control for ktrix alone (RFC 9213), and the fields that clients get and do not get.

use crate::support::{Answer, Ask, Origin, Plan, Response, until};

/// One route for everything, with this `cache`.
fn all(cache: &str) -> String {
    format!("[{{upstream: app, cache: {cache}}}]")
}

/// Whether the second answer is a hit, from an origin that answers with these fields.
fn stores(cache: &str, fields: &'static [(&'static str, &'static str)]) -> bool {
    let origin = Origin::answering(move |_| {
        fields.iter().fold(Response::ok("x"), |answer, (name, value)| answer.field(name, value))
    });
    let plan = Plan::new(&origin).set("sites", &all(cache));
    let ktrix = plan.start();
    let first = ktrix.get("/a").expect_miss();
    let is_stored = first.cache_status().contains("; stored");
    if is_stored {
        ktrix.wait_hit("/a");
    }
    is_stored
}

#[test]
fn only_the_most_targeted_field_counts() {
    const OURS: &str = "Ktrix-Cache-Control";
    const CDN: &str = "CDN-Cache-Control";
    const ALL: &str = "Cache-Control";
    assert!(stores("on", &[(ALL, "no-store"), (CDN, "max-age=60"), ("Expires", "0")]));
    assert!(stores("on", &[(ALL, "no-store"), (CDN, "no-store"), (OURS, "max-age=60")]));
    assert!(!stores("on", &[(ALL, "max-age=60"), (CDN, "max-age=60"), (OURS, "private")]));
    assert!(stores("on", &[(ALL, "max-age=60"), (CDN, "no-store, &&")]), "it is no dictionary");
    assert!(!stores("{targeted: off}", &[(ALL, "no-store"), (CDN, "max-age=60")]));
    assert!(stores("{targeted: X-Cc}", &[(ALL, "no-store"), ("X-Cc", "max-age=60")]));
}

#[test]
fn the_ktrix_field_is_not_sent_and_counts_again_at_validation() {
    let origin = Origin::answering(|request| {
        let answer = match request.has("if-none-match") {
            true => Response::status(304),
            false => Response::ok("x").field("Ktrix-Cache-Control", "max-age=60"),
        };
        answer.field("ETag", "\"1\"").field("CDN-Cache-Control", "max-age=0").cache("no-store")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let shown = |answer: Answer| {
        answer
            .expect_no_field("ktrix-cache-control")
            .expect_field("cdn-cache-control", "max-age=0")
            .expect_field("cache-control", "no-store")
    };
    shown(ktrix.get("/a").expect_miss());
    for _ in 0..4 {
        shown(ktrix.wait_hit("/a"));
    }
    let validated = ktrix.ask(&Ask::get("/a").field("Cache-Control", "no-cache"));
    shown(validated.expect_status(200));
    shown(ktrix.wait_hit("/a"));
    let part = ktrix.ask(&Ask::get("/a").field("Range", "bytes=0-0").field("If-Range", "\"1\""));
    shown(part.expect_status(206));
    // Nor does an answer that passes the cache.
    ktrix.ask(&Ask::post("/a", "")).expect_no_field("ktrix-cache-control");
    assert_eq!(origin.n_requests(), 3);
}

#[test]
fn fields_are_stripped_as_the_route_says() {
    let origin = Origin::answering(|_| {
        let answer = Response::ok("x").field("X-Secret", "1").field("x-secret", "2");
        answer.field("Ktrix-Cache-Control", "max-age=60").cache("no-store")
    });
    let plan = Plan::new(&origin).set(
        "sites",
        "[{upstream: app, routes: [{path: /, cache: {strip: off}}, \
         {path: /s, cache: {strip: [x-secret, Server]}}, \
         {path: /off, cache: {strip: X-Secret, pass-if: [query q]}}]}]",
    );
    let ktrix = plan.start();
    for target in ["/a", "/s"] {
        ktrix.get(target).expect_miss();
        for _ in 0..4 {
            let answer = ktrix.wait_hit(target).expect_field("ktrix-cache-control", "max-age=60");
            assert_eq!(answer.field("x-secret").is_some(), target == "/a", "{target}");
        }
    }
    ktrix.get("/off?q").expect_miss().expect_no_field("x-secret");
}

#[test]
fn cache_status_has_the_parameters_of_the_route() {
    let mut origin = Origin::answering(|_| Response::ok("x").cache("max-age=60"));
    let plan = Plan::new(&origin).set(
        "sites",
        "[{upstream: app, routes: [{path: /off, cache: {cache-status: off}}, \
         {path: /ttl, cache: {cache-status: ttl}}, \
         {path: /key, cache: {cache-status: [key, detail], key: {query: off}}}]}]",
    );
    let ktrix = plan.start();
    ktrix.get("/off").expect_no_field("cache-status");
    until("a stored answer", crate::support::PATIENCE, || {
        ktrix.get("/off").expect_no_field("cache-status").field("age").map(|_| ())
    });
    assert_eq!(ktrix.get("/ttl").cache_status(), "ktrix; fwd=uri-miss");
    for _ in 0..4 {
        assert!(ktrix.wait_hit("/ttl").cache_status().starts_with("ktrix; hit; ttl="));
    }
    let key = "key=\"GET http://a.example/key\"";
    let of_host = |target: &str| ktrix.client().host("A.example").get(target).cache_status();
    assert_eq!(of_host("/key?q"), format!("ktrix; fwd=uri-miss; {key}"));
    for _ in 0..4 {
        until("a hit", crate::support::PATIENCE, || {
            (of_host("/key") == format!("ktrix; hit; {key}")).then_some(())
        });
    }
    assert_eq!(
        ktrix.ask(&Ask::post("/key", "")).cache_status(),
        "ktrix; fwd=method; detail=method"
    );
    origin.stop();
    ktrix.get("/off/x").expect_status(502).expect_no_field("cache-status");
}
