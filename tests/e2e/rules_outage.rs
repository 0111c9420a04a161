//! While an upstream is down, its stored answers are held and served stale, within a bound.

use crate::support::{Ask, Gate, Origin, Plan, Response, until_true};

/// An answer that is ten seconds stale on arrival, and can be validated.
fn stale(_: &crate::support::Request) -> Response {
    Response::ok("x").cache("max-age=60").field("Age", 70).field("ETag", "\"1\"")
}

/// An upstream of one server that is skipped for this long, and a route for each path.
fn plan(origin: &Origin, skip: &str) -> Plan {
    Plan::to(&format!("{{servers: [\"{}\"], skip: {skip}}}", origin.name()))
        .set("workers", "4")
        .set(
            "sites",
            "[{upstream: app, routes: [{path: /}, {path: /held, cache: {outage-hold: 1h}}, \
         {path: /short, cache: {outage-hold: 5s}}]}]",
        )
}

fn n_said(plan: &Plan, what: &str) -> usize {
    plan.error_log().lines().filter(|line| line.contains(what)).count()
}

#[test]
fn held_answers_are_served_stale_within_their_bound_and_logged_once() {
    let mut origin = Origin::answering(stale);
    let plan = plan(&origin, "200ms");
    let ktrix = plan.start();
    for target in ["/a", "/held", "/short"] {
        ktrix.get(target).expect_status(200);
    }
    origin.stop();
    let is_told = |told: &str| told.contains("; hit; ttl=-") || told.contains("; fwd=stale; ttl=-");
    for _ in 0..20 {
        let answer = ktrix.get("/held").expect_status(200).expect_body("x");
        assert!(is_told(&answer.cache_status()), "{}", answer.cache_status());
        assert!(answer.cache_status().ends_with("; detail=outage"), "{}", answer.cache_status());
    }
    ktrix.ask(&Ask::new("HEAD", "/held")).expect_status(200);
    ktrix.get("/a").expect_status(502);
    ktrix.get("/short").expect_status(502);
    ktrix.ask(&Ask::get("/held").field("Cache-Control", "no-cache")).expect_status(502);
    ktrix.get("/held/never").expect_status(502);
    ktrix.wait_error("upstream app is down");
    origin.start();
    until_true("an answer of the origin", || {
        !ktrix.get("/held").expect_status(200).cache_status().contains("outage")
    });
    ktrix.wait_error("upstream app is up again");
    // All the answers during the outage are one report; the next outage is another.
    until_true("the outage in the log", || n_said(&plan, "upstream app is down") > 0);
    assert_eq!(n_said(&plan, "upstream app is down"), 1);
    origin.stop();
    ktrix.get("/held").expect_status(200);
    until_true("the second outage in the log", || n_said(&plan, "upstream app is down") == 2);
    assert_eq!(n_said(&plan, "upstream app is up again"), 1);
    until_true("the outage in the access log", || {
        plan.access_lines().iter().any(|line| line.contains("\"outage\""))
    });
}

#[test]
fn answers_that_must_not_be_served_stale_are_not_held() {
    let mut origin = Origin::answering(|request| {
        let control = request.target.trim_start_matches("/held/").to_owned();
        stale(request).field("Cache-Control", control)
    });
    let plan = plan(&origin, "200ms");
    let ktrix = plan.start();
    let forbidden = ["must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache"];
    for control in forbidden.iter().chain(&["public"]) {
        ktrix.get(&format!("/held/{control}")).expect_status(200);
    }
    origin.stop();
    for control in forbidden {
        ktrix.get(&format!("/held/{control}")).expect_status(502);
    }
    ktrix.get("/held/public").expect_status(200);
}

#[test]
fn no_request_waits_for_skipped_servers() {
    let mut origin = Origin::answering(stale);
    let plan = plan(&origin, "1h");
    let ktrix = plan.start();
    ktrix.get("/held").expect_status(200);
    origin.stop();
    ktrix.get("/held").expect_status(200);
    origin.start();
    let n_asked = origin.n_requests();
    for _ in 0..10 {
        ktrix.get("/held").expect_status(200).expect_hit();
    }
    assert_eq!(origin.n_requests(), n_asked);
}

#[test]
fn a_head_that_finds_the_servers_down_is_answered_too() {
    let mut origin = Origin::answering(stale);
    let plan = plan(&origin, "1ms");
    let ktrix = plan.start();
    ktrix.get("/held").expect_status(200);
    origin.stop();
    let answer = ktrix.ask(&Ask::new("HEAD", "/held")).expect_status(200).expect_body("");
    assert!(answer.cache_status().ends_with("; detail=outage"), "{}", answer.cache_status());
}

#[test]
fn a_server_that_answers_badly_is_no_outage() {
    let origin = Origin::answering(|request| match request.has("if-none-match") {
        true => Response::status(500),
        false => stale(request),
    });
    let plan = plan(&origin, "200ms");
    let ktrix = plan.start();
    ktrix.get("/held").expect_status(200);
    for _ in 0..3 {
        ktrix.get("/held").expect_status(500);
    }
    assert_eq!(n_said(&plan, "is down"), 0);
}

#[test]
fn an_object_that_is_purged_during_a_fetch_is_not_held() {
    let gate = Gate::new();
    let closed = gate.clone();
    let mut origin = Origin::answering(move |request| match request.number {
        0 => stale(request),
        _ => stale(request).gated(&closed),
    });
    let plan = plan(&origin, "200ms");
    let ktrix = plan.start();
    ktrix.get("/held").expect_status(200);
    let mut client = ktrix.client();
    client.send(&Ask::get("/held"));
    origin.wait_requests(2);
    ktrix.ask(&Ask::new("PURGE", "/held").field("Ktrix-Purge", "url")).expect_status(200);
    origin.stop();
    client.answer().expect_status(502);
    gate.open();
}
