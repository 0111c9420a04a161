//! Bounds of a site, a route or an upstream apply in the place of those at the top.

use crate::support::ktrix::text;
use crate::support::{Ask, Gate, Origin, Plan, Response, pattern, until_true};

/// The routes of a site, each to the upstream `app`.
fn plan(origin: &Origin, site: &str, routes: &str) -> Plan {
    Plan::new(origin).set("workers", "1").set("sites", &format!("[{{{site}routes: [{routes}]}}]"))
}

#[test]
fn a_head_is_refused_by_the_limit_of_its_route() {
    let origin = Origin::answering(|_| Response::ok("hello"));
    let plan = plan(
        &origin,
        "limits: {head: 4 KiB}, ",
        "{path: /, upstream: app}, {path: /small, upstream: app, limits: {head: 1 KiB}}",
    );
    let ktrix = plan.start();
    let mut client = ktrix.client();
    for (target, n_bytes, status) in
        [("/", 3_000, 200), ("/small", 3_000, 431), ("/small", 500, 200), ("/", 5_000, 431)]
    {
        let ask = Ask::get(target).field("X-Filler", "x".repeat(n_bytes));
        client.ask(&ask).expect_status(status);
    }
    origin.expect_requests(2);
    let lines = ktrix.wait_access_lines(4);
    assert!(lines[1].contains("\"reason\":\"head-too-large\""), "{}", lines[1]);
}

#[test]
fn a_route_that_is_less_patient_puts_no_server_aside() {
    let gate = Gate::new();
    let [a, b] = ["a", "b"].map(|name| {
        let held = gate.clone();
        Origin::answering(move |request| match &*request.target {
            "/hasty" => Response::ok(name).gated(&held),
            _ => Response::ok(name).cache("no-store"),
        })
    });
    let hasty = "{path: /hasty, upstream: app, timeouts: {first-byte: 50ms}}";
    let plan = plan(&a, "", &format!("{hasty}, {{path: /, upstream: app}}"));
    plan.put("upstreams", &format!("{{app: {{servers: [\"{}\", \"{}\"]}}}}", a.name(), b.name()));
    let ktrix = plan.start();
    for _ in 0..5 {
        ktrix.get("/hasty").expect_status(504);
    }
    let mut names: Vec<_> = (0..4).map(|_| ktrix.get("/").text().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["a", "a", "b", "b"]);
    gate.open();
}

#[test]
fn a_response_head_is_refused_by_the_limit_of_its_upstream() {
    let origin = Origin::answering(|_| Response::ok("").field("X-Filler", "x".repeat(3_000)));
    for (limits, status) in [("head: 2 KiB", 502), ("headers: 8", 200), ("head: 8 KiB", 200)] {
        let upstream = format!("{{servers: [\"{}\"], limits: {{{limits}}}}}", origin.name());
        let plan = Plan::to(&upstream);
        plan.start().get("/").expect_status(status);
    }
}

#[test]
fn a_silent_origin_is_given_up_by_the_timeout_of_the_route() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |_| Response::ok("late").gated(&held));
    let plan = plan(
        &origin,
        "timeouts: {first-byte: 10m}, ",
        "{path: /patient, upstream: app}, \
         {path: /, upstream: app, timeouts: {first-byte: 200ms}}, \
         {path: /stored, upstream: app, timeouts: {first-byte: 200ms}, cache: on}",
    )
    .set("timeouts", "{first-byte: 300ms}");
    let ktrix = plan.start();
    let mut patient = ktrix.client();
    patient.send(&Ask::get("/patient"));
    origin.wait_requests(1);
    ktrix.ask(&Ask::post("/quick", "x")).expect_status(504);
    ktrix.get("/stored").expect_status(504);
    gate.open();
    patient.answer().expect_status(200).expect_body("late");
}

#[test]
fn a_response_that_pauses_is_given_up_by_the_timeout_of_the_route() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |request| {
        let answer = Response::ok(pattern(100_000)).cache("no-store");
        if request.target == "/whole" { answer } else { answer.gated_at(50_000, &held) }
    });
    let plan = plan(
        &origin,
        "",
        "{path: /patient, upstream: app}, {path: /, upstream: app, timeouts: {idle: 200ms}}",
    );
    let ktrix = plan.start();
    let mut patient = ktrix.client();
    patient.send(&Ask::get("/patient"));
    assert!(ktrix.client().try_ask(&Ask::get("/quick")).is_err(), "it is not whole");
    gate.open();
    patient.answer().expect_status(200).expect_body(pattern(100_000));
}

#[test]
fn a_slow_client_is_cut_by_the_timeouts_of_the_route() {
    let large = pattern(16 << 20);
    let origin = Origin::answering(move |_| Response::ok(&large).cache("no-store"));
    let plan = plan(
        &origin,
        "timeouts: {client-body: 200ms}, ",
        "{path: /, upstream: app, timeouts: {client-send: 200ms}, response-buffering: off}",
    );
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345");
    client.answer().expect_status(408);
    let mut client = ktrix.client();
    client.send(&Ask::get("/"));
    until_true("the client to be cut", || {
        plan.access_lines().iter().any(|line| line.contains("\"close\":\"send-timeout\""))
    });
}

#[test]
fn explain_tells_the_bounds_and_their_lines() {
    let origin = Origin::answering(|_| Response::ok("hello"));
    let plan = plan(
        &origin,
        "limits: {body: 5 MiB}, response-buffering: off, ",
        "{path: /up, upstream: app, timeouts: {idle: 7s}}, {path: /, upstream: app}",
    );
    let _ktrix = plan.start();
    let config = plan.config_path().display().to_string();
    let explain = |url: &str| text(&plan.run(&["explain", url, "--config", &config]));
    let told = explain("http://a/up/x");
    let line = |step: &str| told.lines().find(|line| line.starts_with(step)).unwrap_or_default();
    assert!(line("buffering").contains("request on, response off"), "{told}");
    assert!(line("buffering").contains("sites[0].response-buffering"), "{told}");
    assert!(line("limits").contains("head 32 KiB, body 5 MiB"), "{told}");
    assert!(line("limits").contains("sites[0].limits"), "{told}");
    assert!(line("timeouts").contains("client-body 30s, client-send 30s, connect 3s"), "{told}");
    assert!(line("timeouts").contains("first-byte 1m, idle 7s"), "{told}");
    assert!(line("timeouts").contains("sites[0].routes[0].timeouts"), "{told}");
    let told = explain("http://a/");
    assert!(told.contains("(the default of timeouts)"), "{told}");
}
