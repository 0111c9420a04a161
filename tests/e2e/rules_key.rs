//! The parts of a route's keys, and those that are left out.

use nix::sys::signal::Signal;

use crate::support::{Ask, Gate, Origin, Plan, Response, until_true};

/// One route for everything, with this `cache`.
fn all(cache: &str) -> String {
    format!("[{{upstream: app, cache: {cache}}}]")
}

/// An origin with answers that repeat the request.
fn echo() -> Origin {
    Origin::answering(|request| {
        let said = |name| request.field(name).unwrap_or("-").to_owned();
        let body = format!("{} {} {}", request.target, said("x-country"), said("cookie"));
        Response::ok(body).cache("max-age=60")
    })
}

#[test]
fn ignored_parameters_neither_select_answers_nor_reach_the_origin() {
    let origin = echo();
    let plan =
        Plan::new(&origin).set("sites", &all("{key: {query-sort: on, query-drop: [utm_*]}}"));
    let ktrix = plan.start();
    ktrix.get("/a?utm_source=x&c=3&b=2&").expect_miss().expect_body("/a?b=2&c=3 - -");
    for same in ["/a?b=2&c=3", "/a?c=3&b=2", "/a?c=3&%75tm_id=9&b=2", "/a?&c=3&&b=2"] {
        ktrix.wait_hit(same).expect_body("/a?b=2&c=3 - -");
    }
    origin.expect_requests(1);
    for other in ["/a?b=3&c=2", "/a?b=2", "/a?b=2&c=3&b=1", "/A?b=2&c=3"] {
        ktrix.get(other).expect_miss();
    }
    // A request that passes the cache is forwarded as sent.
    ktrix.ask(&Ask::post("/a?utm_source=x&c", "")).expect_body("/a?utm_source=x&c - -");
}

#[test]
fn only_the_parameters_that_are_kept_count() {
    let origin = echo();
    let plan = Plan::new(&origin).set("sites", &all("{key: {query-keep: [id, p*]}}"));
    let ktrix = plan.start();
    ktrix.get("/a?x=1&id=7").expect_body("/a?id=7 - -");
    ktrix.wait_hit("/a?id=7&y");
    ktrix.get("/a?page=1&id=7").expect_miss().expect_body("/a?page=1&id=7 - -");
    ktrix.get("/a?x").expect_miss().expect_body("/a - -");
    ktrix.wait_hit("/a");
}

#[test]
fn fields_and_cookies_select_answers_and_are_purged_together() {
    let origin = echo();
    let plan =
        Plan::new(&origin).set("sites", &all("{key: {headers: x-country, cookies: [tier]}}"));
    let ktrix = plan.start();
    let ask = |country: &str, cookie: &str| {
        Ask::get("/a").field("X-Country", country).field("Cookie", cookie)
    };
    let asks = [
        (ask("de", "tier=1"), "/a de tier=1"),
        (ask("fr", "tier=1"), "/a fr tier=1"),
        (ask("fr", "tier=2; s=3"), "/a fr tier=2; s=3"),
        (ask("fr", "tier=1; tier=2"), "/a fr tier=1; tier=2"),
        (ask("fr", "tier=2; tier=1"), "/a fr tier=2; tier=1"),
        (ask("fr", "tier"), "/a fr tier"),
        (Ask::get("/a"), "/a - -"),
    ];
    for (ask, body) in &asks {
        ktrix.ask(ask).expect_miss().expect_body(body);
    }
    let all_hit = || asks.iter().all(|(ask, _)| ktrix.ask(ask).is_hit());
    until_true("every variant to be a hit", all_hit);
    for (ask, body) in &asks {
        ktrix.ask(ask).expect_hit().expect_body(body);
    }
    // A cookie that is not named has no effect.
    ktrix.ask(&ask("de", "s=9; tier=1")).expect_hit().expect_body("/a de tier=1");
    ktrix.ask(&Ask::post("/a", "")).expect_status(200);
    for (ask, body) in &asks {
        ktrix.ask(ask).expect_miss().expect_body(body);
    }
}

#[test]
fn a_client_that_waits_for_another_variant_gets_its_own() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |request| {
        let country = request.field("x-country").unwrap_or("-").to_owned();
        Response::ok(country).cache("max-age=60").gated(&held)
    });
    let plan = Plan::new(&origin).set("sites", &all("{key: {headers: x-country}}"));
    let ktrix = plan.start();
    let countries = ["de", "fr", "de", "fr", "de", "fr", "it", "de"];
    let mut clients = countries.map(|country| {
        let mut client = ktrix.client();
        client.send(&Ask::get("/a").field("X-Country", country));
        client
    });
    origin.wait_requests(1);
    gate.open();
    for (client, country) in clients.iter_mut().zip(countries) {
        client.answer().expect_status(200).expect_body(country);
    }
}

#[test]
fn a_path_that_does_not_count_is_one_object_for_its_route() {
    let origin = echo();
    let plan = Plan::new(&origin).set(
        "sites",
        "[{upstream: app, cache: {key: {path: off}}, routes: [{path: /a/}, {path: /b/}]}]",
    );
    let ktrix = plan.start();
    ktrix.get("/a/1?q").expect_miss().expect_body("/a/1?q - -");
    ktrix.wait_hit("/a/2?q").expect_body("/a/1?q - -");
    ktrix.get("/b/1?q").expect_miss().expect_body("/b/1?q - -");
    ktrix.get("/a/2?r").expect_miss();
    ktrix.client().host("other.example").get("/a/1?q").expect_miss();
}

#[test]
fn objects_with_another_key_are_not_found_after_a_reload() {
    let origin = echo();
    let plan = Plan::new(&origin).set("sites", &all("on"));
    let ktrix = plan.start();
    let ask = |country: &str| Ask::get("/a").field("X-Country", country);
    ktrix.ask(&ask("de")).expect_miss();
    ktrix.wait_hit("/a").expect_body("/a de -");
    plan.put("sites", &all("{key: {headers: x-country}}"));
    plan.write_config();
    ktrix.signal(Signal::SIGHUP);
    until_true("the answer for fr", || ktrix.ask(&ask("fr")).text() == "/a fr -");
    ktrix.ask(&ask("de")).expect_body("/a de -");
}

#[test]
fn ignored_names_have_no_effect_in_vary() {
    let origin = Origin::answering(|request| {
        let agent = request.field("user-agent").unwrap_or("-").to_owned();
        let vary = if request.target == "/star" { "*" } else { "User-Agent, X" };
        Response::ok(agent).cache("max-age=60").field("Vary", vary)
    });
    let plan = Plan::new(&origin).set("sites", &all("{vary-ignore: [user-agent, \"*\"]}"));
    let ktrix = plan.start();
    for target in ["/a", "/star"] {
        ktrix.ask(&Ask::get(target).field("User-Agent", "first")).expect_miss();
        ktrix.wait_hit(target).expect_body("first");
        let other = Ask::get(target).field("User-Agent", "second");
        ktrix.ask(&other).expect_hit().expect_body("first");
    }
    ktrix.ask(&Ask::get("/a").field("X", "1")).expect_miss();
}
