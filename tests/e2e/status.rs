//! `ktrix status` and `ktrix server`: a running ktrix is seen and steered through its shared memory.

use serde_json::Value;

use crate::support::ktrix::text;
use crate::support::{Ask, Gate, Origin, Plan, Response, until_true};

/// The status of the ktrix that runs with this configuration.
pub(super) fn status(plan: &Plan) -> Value {
    let config = plan.config_path().display().to_string();
    let out = plan.run(&["status", "--json", "-c", &config]);
    assert!(out.status.success(), "{}", text(&out));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn server(plan: &Plan, arguments: &[&str]) -> (bool, String) {
    let config = plan.config_path().display().to_string();
    let out = plan.run(&[&["server"], arguments, &["-c", &config]].concat());
    (out.status.success(), text(&out))
}

fn two(more: &str) -> ([Origin; 2], Plan) {
    let origins = ["a", "b"].map(|name| Origin::answering(move |_| Response::ok(name)));
    let names: Vec<_> = origins.iter().map(|it| format!("\"{}\"", it.name())).collect();
    let plan = Plan::to(&format!("{{servers: [{}]{more}}}", names.join(", ")));
    (origins, plan)
}

#[test]
fn the_status_shows_workers_listeners_servers_and_the_cache() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |request| match request.target.as_str() {
        "/held" => Response::ok("x").gated(&held),
        _ => Response::ok("x").cache("max-age=60"),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_status(200);
    ktrix.wait_hit("/a");
    let mut client = ktrix.client();
    client.send(&Ask::get("/held"));
    origin.wait_requests(2);
    let seen = status(&plan);
    assert_eq!(seen["pid"], ktrix.master.pid);
    let pids: Vec<_> = seen["workers"].as_array().unwrap().iter().map(|it| &it["pid"]).collect();
    assert_eq!(pids.len(), 2);
    assert!(ktrix.workers().iter().all(|worker| pids.iter().any(|pid| **pid == worker.pid)));
    assert_eq!(seen["cache"]["objects"], 1);
    let upstream = &seen["upstreams"][0];
    assert_eq!((&upstream["name"], &upstream["pending"]), (&"app".into(), &0.into()));
    let one = &upstream["servers"][0];
    assert_eq!((&one["address"], &one["state"]), (&origin.name().into(), &"up".into()));
    assert_eq!((&one["active"], &one["weight"], &one["downs"]), (&1.into(), &1.into(), &0.into()));
    let config = plan.config_path().display().to_string();
    let out = text(&plan.run(&["status", "--config", &config]));
    for part in [
        "worker 0: pid ", "listen 127.0.0.1:", "upstream app: 0 waiting",
        ": up, weight 1, 1 active",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    gate.open();
    client.answer().expect_status(200);
}

#[test]
fn every_pool_is_idle_active_or_down() {
    let gate = Gate::new();
    let held = gate.clone();
    let mut origin = Origin::answering(move |request| match request.target.as_str() {
        "/held" => Response::ok("x").gated(&held),
        _ => Response::ok("x"),
    });
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    ktrix.wait_error("ready, 1 workers running");
    let pool = || {
        let pools = status(&plan)["upstreams"][0]["servers"][0]["pools"].clone();
        let config = plan.config_path().display().to_string();
        let told = text(&plan.run(&["status", "-c", &config]));
        let state = pools[0]["state"].as_str().unwrap().to_owned();
        assert!(told.contains(&format!("    pools by worker: 0 {state}\n")), "{told}");
        assert_eq!((pools.as_array().map(Vec::len), &pools[0]["worker"]), (Some(1), &0.into()));
        state
    };
    assert_eq!(pool(), "idle");
    let mut client = ktrix.client();
    client.send(&Ask::get("/held"));
    origin.wait_requests(1);
    assert_eq!(pool(), "active");
    gate.open();
    client.answer().expect_status(200);
    until_true("the pool to be idle", || pool() == "idle");
    origin.stop();
    ktrix.get("/x").expect_status(502);
    assert_eq!(pool(), "down");
    origin.start();
    ktrix.get("/x").expect_status(200);
    until_true("the pool to be idle again", || pool() == "idle");
}

#[test]
fn connections_of_a_worker_that_is_killed_are_given_back() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |_| Response::ok("x").gated(&held));
    let more = ", balance: least-connections";
    let plan = Plan::to(&format!("{{servers: [\"{}\"]{more}}}", origin.name())).set("workers", "1");
    let ktrix = plan.start();
    let mut clients: Vec<_> = (0..5).map(|_| ktrix.client()).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.send(&Ask::get(&format!("/{i}")));
    }
    origin.wait_requests(5);
    let active = || status(&plan)["upstreams"][0]["servers"][0]["active"].as_u64();
    assert_eq!(active(), Some(5));
    ktrix.workers()[0].signal(nix::sys::signal::Signal::SIGKILL);
    until_true("the connections to be given back", || active() == Some(0));
    gate.open();
    ktrix.get("/after").expect_status(200);
}

#[test]
fn a_server_is_drained_disabled_and_weighed_while_ktrix_runs() {
    let (origins, plan) = two(", sticky: {cookie: route}");
    let ktrix = plan.start();
    let names = origins.each_ref().map(|origin| format!("app/{}", origin.name()));
    let cookie_of_a = loop {
        let answer = ktrix.get("/");
        if answer.text() == "a" {
            break answer.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        }
    };
    let stuck = || ktrix.ask(&Ask::get("/").field("Cookie", &cookie_of_a)).text();
    let only_b = || (0..20).all(|_| ktrix.get("/").expect_status(200).text() == "b");
    let (is_done, said) = server(&plan, &["drain", &names[0]]);
    assert!(is_done && said.contains(": draining, weight 1"), "{said}");
    assert!(only_b() && stuck() == "a");
    ktrix.wait_error("is draining, weight 1: by ktrix server");
    assert!(server(&plan, &["disable", &names[0]]).1.contains("disabled"));
    assert!(only_b() && stuck() == "b");
    let (_, said) = server(&plan, &["disable", &names[1]]);
    assert!(said.contains("no server of app takes new clients"), "{said}");
    ktrix.get("/").expect_status(502);
    for name in &names {
        assert!(server(&plan, &["enable", name]).1.contains(": up"));
    }
    assert!(server(&plan, &["weight", &names[0], "0"]).0);
    assert!(only_b() && stuck() == "a");
    let seen = &status(&plan)["upstreams"][0]["servers"][0];
    assert_eq!((&seen["weight"], &seen["reason"]), (&0.into(), &"command".into()));
    let (is_done, said) = server(&plan, &["drain", "app/nowhere:1"]);
    assert!(!is_done && said.contains(&names[1]), "{said}");
    assert!(!server(&plan, &["weight", &names[0], "1001"]).0);
}

#[test]
fn a_server_that_is_disabled_gets_nothing_until_it_is_enabled() {
    let origins = ["a", "b"].map(|name| Origin::answering(move |_| Response::ok(name)));
    let [a, b] = origins.each_ref().map(Origin::name);
    let upstreams = |disabled: &str| {
        format!("{{app: {{servers: [{{address: \"{a}\", disabled: {disabled}}}, \"{b}\"]}}}}")
    };
    let plan = Plan::new(&origins[0]).set("workers", "1").set("upstreams", &upstreams("on"));
    let ktrix = plan.start();
    ktrix.wait_error("ready, 1 workers running");
    let state = || status(&plan)["upstreams"][0]["servers"][0]["state"].clone();
    for _ in 0..10 {
        ktrix.get("/").expect_status(200).expect_body("b");
    }
    assert_eq!(state(), "disabled");
    assert!(server(&plan, &["enable", &format!("app/{a}")]).1.contains(": up"));
    until_true("the server to be used", || ktrix.get("/").text() == "a");
    // A reload changes what the file changes.
    for (disabled, expected) in [("on", "up"), ("off", "up"), ("on", "disabled")] {
        plan.put("upstreams", &upstreams(disabled));
        plan.write_config();
        crate::reloads::reload(&ktrix);
        assert_eq!(state(), expected);
    }
    ktrix.get("/").expect_status(200).expect_body("b");
}

#[test]
fn a_reload_keeps_what_was_changed_live() {
    let (origins, plan) = two("");
    let plan = plan.set("workers", "1");
    let ktrix = plan.start();
    let name = format!("app/{}", origins[0].name());
    // The command finds the daemon once all its workers run.
    until_true("the server drains", || server(&plan, &["drain", &name]).0);
    let config = plan.config_path().display().to_string();
    assert!(plan.run(&["-s", "reload", &config]).status.success());
    until_true("the new generation", || status(&plan)["generation"] == 2);
    assert_eq!(status(&plan)["upstreams"][0]["servers"][0]["state"], "draining");
    for _ in 0..10 {
        ktrix.get("/").expect_status(200).expect_body("b");
    }
}

#[test]
fn without_a_running_ktrix_there_is_no_status() {
    let (_origins, plan) = two("");
    plan.write_config();
    let config = plan.config_path().display().to_string();
    let out = plan.run(&["status", "-c", &config]);
    assert!(!out.status.success() && text(&out).contains("is not running"), "{}", text(&out));
}
