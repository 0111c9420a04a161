//! Reloading: a new configuration takes over without an effect on clients; an invalid one changes
//! nothing.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::process::Seen;
use crate::support::socket::Address;
use crate::support::{
    Ask, Client, Gate, Ktrix, Load, Origin, PATIENCE, Pace, Plan, Response, alone, until,
    until_true,
};

/// Sends HUP and waits until every child is another process than before.
pub(super) fn reload(ktrix: &Ktrix<'_>) -> Vec<Seen> {
    let before = ktrix.children();
    ktrix.signal(Signal::SIGHUP);
    until_true("the children of the new configuration", || {
        let now = ktrix.children();
        !now.is_empty() && before.iter().all(|old| !now.contains(old))
    });
    ktrix.children()
}

/// Sends HUP and waits until a new worker runs beside the old ones: this one.
pub(super) fn reload_beside(ktrix: &Ktrix<'_>) -> Seen {
    let before = ktrix.children();
    ktrix.signal(Signal::SIGHUP);
    until("new workers beside the old", PATIENCE, || {
        ktrix.workers().into_iter().find(|worker| !before.contains(worker))
    })
}

#[test]
fn twenty_reloads_under_load_fail_no_request() {
    alone();
    let body: Arc<[u8]> = b"hello".as_slice().into();
    let origin = Origin::answering(|request| {
        let is_stored = request.target.starts_with("/c/");
        Response::ok("hello").cache(if is_stored { "max-age=60" } else { "no-store" })
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.wait_children(3);
    let paths = (0..20)
        .map(|i| (format!("/{}/{i}", if i % 2 == 0 { "c" } else { "d" }), Arc::clone(&body)))
        .collect();
    let pace = Pace::start();
    let load = Load::of_pages(&plan.address, 8, paths);
    for round in 0..20 {
        let n_workers = 1 + round % 3;
        plan.put("workers", &n_workers.to_string());
        plan.write_config();
        let children = reload(&ktrix);
        assert!(!children.is_empty());
        let n = load.n_answered();
        until_true("answers after a reload", || load.n_answered() > n + 20);
    }
    let report = load.stop();
    report.expect_faultless();
    let limit = pace.limit(Duration::from_secs(2));
    assert!(report.longest < limit, "{:?}, not {limit:?}", report.longest);
    assert!(ktrix.exit_status().is_none());
}

#[test]
fn servers_and_weights_change_under_load_and_no_request_fails() {
    alone();
    let origins = [(); 3].map(|()| Origin::answering(|_| Response::ok("x")));
    let upstreams = |weights: [usize; 3]| {
        let servers = origins.iter().zip(weights).filter(|(_, weight)| *weight > 0);
        let servers: Vec<_> = servers
            .map(|(origin, weight)| format!("{{address: \"{}\", weight: {weight}}}", origin.name()))
            .collect();
        format!("{{app: {{servers: [{}]}}}}", servers.join(", "))
    };
    let plan = Plan::new(&origins[0]).set("cache", "off").set("upstreams", &upstreams([1, 0, 0]));
    let ktrix = plan.start();
    let ask = |client: usize, i: usize| match i % 3 {
        0 => Ask::post(&format!("/{client}/{i}"), "order"),
        _ => Ask::get(&format!("/{client}/{i}")),
    };
    let load =
        Load::start(&plan.address, 8, ask, |_, answer| match (answer.status, &*answer.body) {
            (200, b"x") => Ok(()),
            (status, _) => Err(format!("{status}: {}", answer.text())),
        });
    for weights in [[1, 1, 0], [0, 5, 1], [3, 0, 2], [0, 0, 1], [1, 1, 1], [9, 1, 1], [1, 0, 0]] {
        plan.put("upstreams", &upstreams(weights));
        plan.write_config();
        let before = origins.each_ref().map(Origin::n_requests);
        reload(&ktrix);
        until_true("all servers to be used", || {
            let used = origins.iter().zip(before).map(|(origin, n)| origin.n_requests() > n);
            used.zip(weights).all(|(is_used, weight)| is_used || weight == 0)
        });
    }
    load.stop().expect_faultless();
}

#[test]
fn idle_clients_keep_their_connections_over_reloads() {
    let [a, b] = ["a", "b"].map(|name| Origin::answering(move |_| Response::ok(name)));
    let plan = Plan::new(&a);
    let ktrix = plan.start();
    // One has sent no request yet.
    let mut clients: Vec<_> = (0..100).map(|_| ktrix.client()).collect();
    for client in &mut clients[1..] {
        client.get("/").expect_status(200).expect_body("a");
    }
    for (origin, name) in [(&b, "b"), (&a, "a"), (&b, "b")] {
        plan.put("upstreams", &format!("{{app: {{servers: [\"{}\"]}}}}", origin.name()));
        plan.write_config();
        // Then the workers that had the connections have ended.
        reload(&ktrix);
        for client in &mut clients {
            client.get("/").expect_status(200).expect_body(name);
        }
    }
    let lines = ktrix.wait_access_lines(99 + 3 * 100);
    assert!(lines.iter().all(|line| line.contains("\"client\":\"127.0.0.1\"")));
}

#[test]
fn an_idle_client_stays_idle_for_as_long_as_before_a_reload() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin).set("timeouts", "{client-head: 1s, client-idle: 1m}");
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.get("/").expect_status(200);
    reload(&ktrix);
    // A connection without a request ends after client-head: that time is over then.
    let mut silent = ktrix.client();
    silent.expect_closed();
    client.get("/").expect_status(200);
}

#[test]
fn idle_clients_of_a_removed_listener_are_closed_and_those_of_others_are_not() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin);
    let (_held, other) = crate::support::ktrix::reserve("127.0.0.1:0".parse().unwrap());
    let Address::Ip(first) = plan.address else { unreachable!() };
    plan.put("listen", &format!("[\"{other}\", \"{first}\"]"));
    let ktrix = plan.start();
    let (mut stays, mut goes) = (ktrix.client(), Client::connect(&other.into()));
    stays.get("/").expect_status(200);
    goes.get("/").expect_status(200);
    plan.put("listen", &format!("[\"{first}\"]"));
    plan.write_config();
    reload(&ktrix);
    goes.expect_closed();
    stays.get("/").expect_status(200);
}

#[test]
fn a_running_request_of_a_removed_upstream_finishes() {
    let gate = Gate::new();
    let held = gate.clone();
    let old = Origin::answering(move |_| Response::ok("0123456789").gated(&held));
    let new = Origin::answering(|_| Response::ok("new"));
    let plan = Plan::new(&old);
    let ktrix = plan.start();
    let mut waiting = [ktrix.client(), ktrix.client()];
    waiting[0].send(&Ask::get("/a"));
    waiting[1].send(&Ask::post("/b", "order"));
    old.wait_requests(2);
    plan.put("upstreams", &format!("{{other: {{servers: [\"{}\"]}}}}", new.name()));
    plan.put("sites", "[{routes: [{path: /, upstream: other}]}]");
    plan.write_config();
    reload_beside(&ktrix);
    until_true("the new upstream", || ktrix.get("/").expect_status(200).text() == "new");
    gate.open();
    for client in &mut waiting {
        client.answer().expect_status(200).expect_body("0123456789");
    }
    old.expect_requests(2);
}

#[test]
fn an_answer_on_its_way_survives_a_reload() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |request| match &*request.target {
        "/slow" => Response::ok("0123456789").gated_at(5, &held),
        _ => Response::ok("x"),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let mut slow = ktrix.client();
    slow.send(&Ask::get("/slow"));
    origin.wait_requests(1);
    let before = ktrix.wait_children(3);
    reload_beside(&ktrix);
    ktrix.get("/x").expect_status(200);
    gate.open();
    slow.answer().expect_status(200).expect_body("0123456789");
    until_true("the old workers to end", || before.iter().all(|old| !old.is_alive()));
}

#[test]
fn a_new_configuration_is_in_force_after_a_reload() {
    let a = Origin::answering(|_| Response::ok("a"));
    let b = Origin::answering(|_| Response::ok("b"));
    let plan = Plan::new(&a);
    let (_held, other) = crate::support::ktrix::reserve("127.0.0.1:0".parse().unwrap());
    let Address::Ip(first) = plan.address else { unreachable!() };
    let ktrix = plan.start();
    ktrix.get("/").expect_body("a");
    plan.put("upstreams", &format!("{{app: {{servers: [\"{}\"]}}}}", b.name()));
    plan.put("listen", &format!("[\"{first}\", \"{other}\"]"));
    plan.put("workers", "3");
    plan.write_config();
    reload(&ktrix);
    until_true("the new upstream", || ktrix.get("/").expect_status(200).text() == "b");
    Client::connect(&other.into()).get("/").expect_body("b");
    ktrix.wait_children(4);
    plan.put("listen", &format!("[\"{first}\"]"));
    plan.write_config();
    reload(&ktrix);
    until_true("the address to be given up", || Client::try_connect(&other.into()).is_err());
    ktrix.get("/").expect_body("b");
}

#[test]
fn a_broken_configuration_is_refused_with_its_place_and_changes_nothing() {
    let origin = Origin::answering(|_| Response::ok("x").cache("max-age=600"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a");
    ktrix.wait_hit("/a");
    let before = ktrix.wait_children(3);
    let broken = plan.config() + "timeouts: {client-head: 5}\nlimitz: {}\n";
    let line = broken.lines().count() - 1;
    fs::write(plan.config_path(), &broken).unwrap();
    ktrix.signal(Signal::SIGHUP);
    let error = ktrix.wait_error("client-head");
    assert!(error.contains(&format!("ktrix.yaml:{line}:")), "{error}");
    ktrix.wait_error("limitz");
    ktrix.get("/a").expect_hit();
    assert_eq!(ktrix.children(), before);
    fs::remove_file(plan.config_path()).unwrap();
    ktrix.signal(Signal::SIGHUP);
    ktrix.wait_error("cannot");
    ktrix.get("/a").expect_hit();
    assert_eq!(ktrix.children(), before);
    plan.write_config();
    reload(&ktrix);
    ktrix.get("/a").expect_hit();
}

#[test]
fn an_address_that_cannot_be_bound_is_refused_too() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let before = ktrix.wait_children(3);
    let Address::Ip(first) = plan.address else { unreachable!() };
    // The origin's port is in use.
    plan.put("listen", &format!("[\"{first}\", \"{}\"]", origin.name()));
    plan.write_config();
    ktrix.signal(Signal::SIGHUP);
    ktrix.wait_error(&origin.name());
    ktrix.get("/").expect_status(200);
    assert_eq!(ktrix.children(), before);
}
