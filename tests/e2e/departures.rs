//! Clients that leave while they wait for an origin: ktrix notices without a write to them, and
//! ends a fetch without clients.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::support::socket::Address;
use crate::support::{Ask, Client, Gate, Ktrix, Origin, Plan, Response, pattern, until_true};

/// Routes with and without a cache.
const ROUTES: &str =
    "[{routes: [{path: /, upstream: app}, {path: /off, upstream: app, cache: off}]}]";

/// More than ktrix fetches without a client.
const LARGE: usize = 4 << 20;

/// An origin that keeps back the heads of `/.../head`, and most of the body of everything else.
fn held(gate: &Gate) -> Origin {
    let gate = gate.clone();
    let body: Arc<[u8]> = pattern(LARGE).into();
    Origin::answering(move |request| {
        let response = Response::shared(&body).cache("max-age=600");
        match request.target.ends_with("/head") {
            true => response.gated(&gate),
            false => response.gated_at(1 << 20, &gate),
        }
    })
}

/// Lets ktrix listen on a Unix socket too, as the first address: it is there when the other
/// accepts.
fn listen_on_unix(plan: &Plan) -> PathBuf {
    let socket = plan.dir().join("ktrix.sock");
    let Address::Ip(ip) = plan.address else { unreachable!("plans listen on an IP address") };
    plan.put("listen", &format!("[\"unix:{}\", \"{ip}\"]", socket.display()));
    socket
}

/// Waits for a line in the access log that the client left.
fn wait_logged(ktrix: &Ktrix<'_>, target: &str, status: u16) {
    until_true(&format!("a line for {target} that says {status} and client-gone"), || {
        ktrix.plan.access_lines().iter().any(|line| {
            line.contains(&format!("\"target\":\"{target}\""))
                && line.contains(&format!("\"status\":{status},"))
                && line.contains("\"close\":\"client-gone\"")
        })
    });
}

fn wait_cancelled(ktrix: &Ktrix<'_>, origin: &Origin) {
    let port = origin.ip().port();
    until_true("no connection to the origin", || {
        !ktrix.workers().iter().any(|worker| worker.talks_to(port))
    });
}

#[test]
fn a_reset_ends_the_wait_for_the_origin() {
    let gate = Gate::new();
    let origin = held(&gate);
    let plan = Plan::new(&origin).set("sites", ROUTES);
    let ktrix = plan.start();
    for (i, (target, status)) in
        [("/head", 499), ("/off/head", 499), ("/body", 200), ("/off/body", 200)].iter().enumerate()
    {
        let mut client = ktrix.client();
        client.send(&Ask::get(target));
        origin.wait_requests(i + 1);
        if *status == 200 {
            assert_eq!(client.answer_head().0, 200);
        }
        client.reset();
        wait_logged(&ktrix, target, *status);
        wait_cancelled(&ktrix, &origin);
    }
    until_true("no unfinished file", || plan.unfinished_files().is_empty());
    assert!(!gate.is_open());
    gate.open();
    ktrix.get("/head").expect_status(200).expect_body(pattern(LARGE));
}

#[test]
fn closing_a_unix_socket_is_noticed_as_well() {
    let gate = Gate::new();
    let origin = held(&gate);
    let plan = Plan::new(&origin).set("sites", ROUTES);
    let socket = listen_on_unix(&plan);
    let ktrix = plan.start();
    for (i, target) in ["/head", "/off/head"].iter().enumerate() {
        let mut client = Client::connect(&Address::Unix(socket.clone()));
        client.send(&Ask::get(target));
        origin.wait_requests(i + 1);
        drop(client);
        wait_logged(&ktrix, target, 499);
        wait_cancelled(&ktrix, &origin);
    }
    gate.open();
}

#[test]
fn half_closed_client_still_gets_its_answer() {
    let gate = Gate::new();
    let origin = held(&gate);
    let plan = Plan::new(&origin).set("sites", ROUTES);
    let socket = listen_on_unix(&plan);
    let _ktrix = plan.start();
    let mut clients = Vec::new();
    for address in [&plan.address, &Address::Unix(socket)] {
        for target in ["/1/head", "/off/head", "/1/body", "/off/body"] {
            let mut client = Client::connect(address).host("a");
            client.send(&Ask::get(target));
            client.shutdown_write();
            clients.push(client);
        }
    }
    origin.wait_requests(6);
    gate.open();
    for client in &mut clients {
        client.answer().expect_status(200).expect_body(pattern(LARGE));
        client.expect_closed();
    }
    origin.expect_requests(6);
}

#[test]
fn a_fetch_goes_on_for_remaining_clients_and_ends_with_the_last() {
    let gate = Gate::new();
    let origin = held(&gate);
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    let mut clients: Vec<Client> = (0..4).map(|_| ktrix.client()).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.send(&Ask::get("/1/head"));
        client.wait_taken();
        if i == 0 {
            origin.wait_requests(1);
        }
    }
    // The last one stays, although the first, the leader, and others leave.
    let mut last = clients.pop().unwrap();
    clients.into_iter().for_each(Client::reset);
    until_true("three that left", || {
        let lines = plan.access_lines();
        lines.iter().filter(|line| line.contains("\"status\":499,")).count() == 3
    });
    assert_eq!(ktrix.workers().iter().filter(|w| w.talks_to(origin.ip().port())).count(), 1);
    gate.open();
    last.answer().expect_status(200).expect_body(pattern(LARGE));
    origin.expect_requests(1);
}

#[test]
fn a_client_that_leaves_the_queue_makes_room() {
    let gate = Gate::new();
    let origin = held(&gate);
    let upstream = format!("{{servers: [\"{}\"], connections: 1, pending: 1}}", origin.name());
    let plan = Plan::to(&upstream).set("workers", "1").set("sites", ROUTES);
    let ktrix = plan.start();
    let mut first = ktrix.client();
    first.send(&Ask::get("/off/head"));
    origin.wait_requests(1);
    for i in 0..3 {
        let mut next = ktrix.client();
        let target = format!("/off/{i}");
        next.send(&Ask::get(&target));
        // The queue has one place.
        next.wait_taken();
        next.reset();
        wait_logged(&ktrix, &target, 499);
    }
    gate.open();
    first.answer().expect_status(200);
    origin.expect_requests(1);
}

#[test]
fn an_unsafe_request_is_completed_without_its_client() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |request| match &*request.method {
        "POST" => Response::ok("done").gated(&held),
        _ => Response::ok(request.number.to_string()).cache("max-age=600"),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_body("0");
    ktrix.wait_hit("/a").expect_body("0");
    let mut client = ktrix.client();
    client.send(&Ask::post("/a", "x"));
    origin.wait_requests(2);
    client.reset();
    ktrix.get("/a").expect_hit().expect_body("0");
    gate.open();
    until_true("the object to be fetched again", || ktrix.get("/a").text() == "2");
}

/// Asks for these, one after the other, and leaves each within the body.
fn leave(ktrix: &Ktrix<'_>, targets: &[&str]) {
    for target in targets {
        let mut client = ktrix.client();
        client.send(&Ask::get(target));
        assert_eq!(client.answer_head().0, 200);
        client.reset();
        wait_logged(ktrix, target, 200);
    }
}

/// An origin that keeps back the last byte of all bodies except those of `/free`.
fn almost_whole(gate: &Gate) -> Origin {
    let gate = gate.clone();
    let body: Arc<[u8]> = pattern(LARGE).into();
    Origin::answering(move |request| {
        let response = Response::shared(&body).cache("max-age=600");
        if request.target == "/free" { response } else { response.gated_at(LARGE - 1, &gate) }
    })
}

#[test]
fn a_slow_response_without_clients_is_not_fetched_on() {
    let body: Arc<[u8]> = pattern(100_000).into();
    let origin = Origin::answering(move |_| {
        Response::shared(&body).cache("max-age=600").slowly(1, Duration::from_millis(50))
    });
    let plan = Plan::new(&origin).set("timeouts", "{fill-alone: 1h}");
    let ktrix = plan.start();
    leave(&ktrix, &["/a", "/b", "/c"]);
    wait_cancelled(&ktrix, &origin);
}

#[test]
fn a_response_without_clients_has_only_so_long_to_end() {
    let gate = Gate::new();
    let origin = almost_whole(&gate);
    let plan = Plan::new(&origin).set("timeouts", "{fill-alone: 300ms}");
    let ktrix = plan.start();
    leave(&ktrix, &["/a"]);
    wait_cancelled(&ktrix, &origin);
    until_true("no unfinished file", || plan.unfinished_files().is_empty());
    gate.open();
}

#[test]
fn a_fetch_without_clients_gives_way_to_a_request_that_waits() {
    let gate = Gate::new();
    let origin = almost_whole(&gate);
    let upstream = format!("{{servers: [\"{}\"], connections: 1}}", origin.name());
    let plan = Plan::to(&upstream).set("workers", "1").set("timeouts", "{fill-alone: 1h}");
    let ktrix = plan.start();
    leave(&ktrix, &["/a"]);
    ktrix.get("/free").expect_status(200).expect_body(pattern(LARGE));
    gate.open();
}

#[test]
fn fetches_without_clients_have_a_quarter_of_the_connections() {
    let gate = Gate::new();
    let origin = almost_whole(&gate);
    let upstream = format!("{{servers: [\"{}\"], connections: 8}}", origin.name());
    let plan = Plan::to(&upstream).set("workers", "1").set("timeouts", "{fill-alone: 1h}");
    let ktrix = plan.start();
    let targets = ["/a", "/b", "/c", "/d"];
    leave(&ktrix, &targets);
    until_true("two unfinished files", || plan.unfinished_files().len() == 2);
    gate.open();
    let stored = |target: &&&str| {
        let ask = Ask::get(target).field("Cache-Control", "only-if-cached");
        ktrix.ask(&ask).status == 200
    };
    until_true("two of them to be stored", || targets.iter().filter(stored).count() == 2);
}
