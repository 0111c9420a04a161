//! Requests that wait for a connection to a server: their order, their limits, and those whose
//! clients leave.

use std::time::{Duration, Instant};

use crate::support::{Ask, Client, Gate, Origin, Plan, Response, until_true};

/// An origin that keeps its answers back, behind one worker with these limits.
fn held(gate: &Gate, more: &str) -> (Origin, Plan) {
    let gate = gate.clone();
    let origin = Origin::answering(move |_| Response::ok("x").cache("max-age=600").gated(&gate));
    let plan =
        Plan::to(&format!("{{servers: [\"{}\"], {more}}}", origin.name())).set("workers", "1").set(
            "sites",
            "[{routes: [{path: /, upstream: app}, {path: /off, upstream: app, cache: off}]}]",
        );
    (origin, plan)
}

/// A client that has sent this request, which ktrix has read.
fn waiting(plan: &Plan, target: &str) -> Client {
    let mut client = Client::connect(&plan.address).host("a");
    client.send(&Ask::get(target));
    client.wait_taken();
    client
}

/// How many requests wait, by `ktrix status`.
fn n_pending(plan: &Plan) -> u64 {
    super::status::status(plan)["upstreams"][0]["pending"].as_u64().unwrap()
}

#[test]
fn five_hundred_clients_on_ten_connections_are_answered_in_order() {
    const N: usize = 500;
    let gate = Gate::new();
    let (origin, plan) = held(&gate, "connections: 10, pending-timeout: 60s");
    let ktrix = plan.start();
    let mut clients = Vec::new();
    for i in 0..N {
        clients.push(waiting(&plan, &format!("/off/{i}")));
        let n_waiting = (i + 1).saturating_sub(10) as u64;
        // The order is that in which ktrix reads the requests.
        if i % 50 == 49 {
            until_true("all to wait", || n_pending(&plan) == n_waiting);
        }
    }
    origin.wait_requests(10);
    gate.open();
    for client in &mut clients {
        client.answer().expect_status(200).expect_body("x");
    }
    assert_eq!(origin.n_connections(), 10);
    let number = |target: &str| target.trim_start_matches("/off/").parse::<usize>().unwrap();
    let order: Vec<usize> = origin.requests().iter().map(|it| number(&it.target)).collect();
    assert_eq!(order.len(), N);
    // ktrix may read the requests of fifty in another order. Ten are under way at once, and the origin's
    // threads may note them in another order too.
    for (at, number) in order.iter().enumerate() {
        assert!(at.abs_diff(*number) <= 70, "{number} was asked for as number {at}");
    }
    drop(ktrix);
}

#[test]
fn a_full_queue_is_answered_with_503_at_once() {
    let gate = Gate::new();
    let (origin, plan) = held(&gate, "connections: 1, pending: 100, pending-timeout: 60s");
    let ktrix = plan.start();
    let mut clients = vec![waiting(&plan, "/off/0")];
    origin.wait_requests(1);
    clients.extend((1..=100).map(|i| waiting(&plan, &format!("/off/{i}"))));
    until_true("a hundred to wait", || n_pending(&plan) == 100);
    let begun = Instant::now();
    for i in 0..50 {
        let answer = ktrix.get(&format!("/off/more/{i}")).expect_status(503);
        assert!(answer.field("retry-after").is_some());
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "none of them waits for a minute");
    gate.open();
    for client in &mut clients {
        client.answer().expect_status(200);
    }
    origin.expect_requests(101);
}

#[test]
fn a_client_that_leaves_the_queue_never_reaches_an_origin() {
    for route in ["/off", "/cached"] {
        let gate = Gate::new();
        let (origin, plan) = held(&gate, "connections: 1, pending: 4");
        let ktrix = plan.start();
        let mut first = waiting(&plan, &format!("{route}/first"));
        origin.wait_requests(1);
        let mut stays = waiting(&plan, &format!("{route}/stays"));
        let [resets, closes, shuts] =
            ["resets", "closes", "shuts"].map(|name| waiting(&plan, &format!("{route}/{name}")));
        until_true("four to wait", || n_pending(&plan) == 4);
        resets.reset();
        until_true("the first to have left", || n_pending(&plan) == 3);
        drop(closes);
        until_true("the second to have left", || n_pending(&plan) == 2);
        shuts.shutdown_write();
        until_true("the third to have left", || n_pending(&plan) == 1);
        gate.open();
        first.answer().expect_status(200);
        stays.answer().expect_status(200);
        ktrix.get(&format!("{route}/last")).expect_status(200);
        let mut targets: Vec<_> = origin.requests().into_iter().map(|it| it.target).collect();
        targets.sort();
        let expected = ["first", "last", "stays"].map(|name| format!("{route}/{name}"));
        assert_eq!(targets, expected);
    }
}

#[test]
fn connections_of_a_burst_are_closed_within_seconds() {
    let gate = Gate::new();
    let (origin, plan) = held(&gate, "connections: 100");
    let ktrix = plan.start();
    let mut clients: Vec<_> = (0..60).map(|i| waiting(&plan, &format!("/off/{i}"))).collect();
    origin.wait_requests(60);
    gate.open();
    for client in &mut clients {
        client.answer().expect_status(200);
    }
    let idle = || super::status::status(&plan)["upstreams"][0]["servers"][0]["idle"].as_u64();
    until_true("the pool to shrink", || idle() == Some(2));
    ktrix.get("/off/last").expect_status(200);
    assert_eq!(origin.n_connections(), 60);
}

#[test]
fn connections_are_kept_ready_and_carry_so_many_requests() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan =
        Plan::to(&format!("{{servers: [\"{}\"], keep-open: 3, requests: 4}}", origin.name()))
            .set("workers", "1");
    let ktrix = plan.start();
    until_true("three connections", || origin.n_connections() >= 3);
    assert_eq!(origin.n_requests(), 0);
    let mut client = ktrix.client();
    for i in 0..40 {
        client.get(&format!("/{i}")).expect_status(200);
    }
    assert!(origin.n_connections() >= 10, "{}", origin.n_connections());
}
