//! Processes that are killed at any moment: only their own connections are lost.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::process::{self, Seen};
use crate::support::{
    Ask, Gate, Ktrix, Load, Origin, PATIENCE, Pace, Plan, Response, alone, pattern, until,
    until_true,
};

/// Pages of several sizes; some of them are never stored.
fn pages() -> Vec<(String, Arc<[u8]>)> {
    let sizes = [100, 1_000, 5_000, 40_000, 300_000];
    (0..60)
        .map(|i| {
            let kind = if i % 6 == 0 { "pass" } else { "page" };
            (format!("/{kind}/{i}"), pattern(sizes[i % sizes.len()] + i).into())
        })
        .collect()
}

fn page_origin() -> Origin {
    let pages = pages();
    Origin::answering(move |request| {
        let Some((_, body)) = pages.iter().find(|(path, _)| *path == request.target) else {
            return Response::status(404);
        };
        let is_pass = request.target.starts_with("/pass");
        Response::shared(body).cache(if is_pass { "no-store" } else { "max-age=2" })
    })
}

/// The value of a text member of a JSON log line.
fn member<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(&format!("\"{name}\":\"")).nth(1)?.split('"').next()
}

#[test]
fn killing_workers_all_the_time_costs_only_their_own_connections() {
    alone();
    let origin = page_origin();
    let plan = Plan::new(&origin).set("workers", "4");
    let ktrix = plan.start();
    ktrix.wait_children(5);
    let n_clients = 16;
    let pace = Pace::start();
    let load = Load::of_pages(&plan.address, n_clients, pages());
    let mut state = 12_345_u32;
    let mut n_kills = 0;
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        // Pace, not a wait: this test kills a worker every 200 ms.
        thread::sleep(Duration::from_millis(200));
        let children = ktrix.workers();
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        if let Some(victim) = children.get((state >> 16) as usize % children.len().max(1)) {
            victim.signal(Signal::SIGKILL);
            n_kills += 1;
        }
    }
    let report = load.stop();
    assert!(report.wrong.is_empty(), "{:?}", &report.wrong[..report.wrong.len().min(5)]);
    assert!(report.n_ok > 1_000, "{} answers in 20 s", report.n_ok);
    let n_cut = report.cut.len();
    assert!(
        n_cut <= n_kills * n_clients,
        "{n_cut} cut by {n_kills} kills: {:?}",
        report.cut.first()
    );
    let limit = pace.limit(Duration::from_secs(1));
    assert!(report.longest < limit, "an answer took {:?}, not {limit:?}", report.longest);

    // No slot and no fill stays locked: every page can be requested, twice, at once.
    for (path, body) in pages() {
        for _ in 0..2 {
            ktrix.get(&path).expect_status(200).expect_body(&body);
        }
    }
    until_true("no unfinished file", || plan.unfinished_files().is_empty());
    plan.verify_cache();
    expect_logged(&ktrix, &report.answered);
}

/// The access log has a whole line for each of these requests.
fn expect_logged(ktrix: &Ktrix<'_>, answered: &[String]) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let lines = ktrix.plan.access_lines();
        let torn = lines.iter().find(|l| !l.starts_with('{') || !l.ends_with('}'));
        assert!(torn.is_none(), "a torn line: {torn:?}");
        let logged: HashSet<&str> = lines.iter().filter_map(|l| member(l, "user_agent")).collect();
        let missing: Vec<&String> =
            answered.iter().filter(|agent| !logged.contains(&***agent)).collect();
        if missing.is_empty() {
            return;
        }
        let (n, of) = (missing.len(), answered.len());
        assert!(Instant::now() < deadline, "{n} of {of} answers have no line: {:?}", missing[0]);
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_killed_worker_is_replaced_and_the_log_says_so() {
    let origin = page_origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let children = ktrix.wait_children(3);
    for victim in children {
        victim.signal(Signal::SIGKILL);
        until_true("the process to be replaced", || {
            let now = ktrix.children();
            now.len() == 3 && !now.contains(&victim)
        });
        let line = ktrix.wait_error(&format!("(pid {}) exited", victim.pid));
        assert!(line.contains("signal 9") || line.contains("SIGKILL"), "{line}");
        ktrix.get("/page/1").expect_status(200);
    }
    assert!(ktrix.exit_status().is_none());
}

#[test]
fn a_worker_that_keeps_dying_is_never_given_up() {
    let origin = page_origin();
    let plan = Plan::new(&origin).set("workers", "2");
    let ktrix = plan.start();
    for _ in 0..7 {
        until_true("a worker to kill", || {
            let Some(victim) = ktrix.workers().first().copied() else { return false };
            victim.signal(Signal::SIGKILL);
            until_true("its end", || !victim.is_alive());
            true
        });
        ktrix.get("/page/1").expect_status(200);
    }
    until("both workers to be back", Duration::from_secs(60), || {
        (ktrix.workers().len() == 2).then_some(())
    });
}

#[test]
fn the_last_worker_is_replaced_at_once_though_it_had_only_begun() {
    alone();
    let origin = page_origin();
    let plan = Plan::new(&origin).set("workers", "2");
    let ktrix = plan.start();
    ktrix.wait_children(3);
    // Enough deaths that both workers have to stay down for some seconds.
    until_true("deaths without end", || {
        ktrix.workers().iter().for_each(|worker| worker.signal(Signal::SIGKILL));
        plan.error_log().contains("restarting in 8s")
    });
    let keeper = ktrix.children().into_iter().find(|child| child.name().contains("keeper"));
    let living = || {
        let pids = process::child_pids(ktrix.master.pid).into_iter();
        pids.filter_map(Seen::now).find(|child| Some(*child) != keeper)
    };
    for _ in 0..3 {
        let serving = until("a worker", PATIENCE, living);
        serving.signal(Signal::SIGKILL);
        // Without a pause between the looks: the next worker has to be found before it serves.
        let deadline = Instant::now() + PATIENCE;
        let newborn = loop {
            match living() {
                Some(next) if next != serving => break next,
                _ => assert!(Instant::now() < deadline, "waited for the next worker"),
            }
        };
        newborn.signal(Signal::SIGKILL);
        let (pace, start) = (Pace::start(), Instant::now());
        ktrix.get("/page/1").expect_status(200);
        let (took, limit) = (start.elapsed(), pace.limit(Duration::from_millis(900)));
        assert!(took < limit, "no worker served for {took:?}, not {limit:?}");
    }
}

#[test]
fn a_killed_keeper_costs_no_request() {
    let origin = page_origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.wait_children(3);
    let load = Load::of_pages(&plan.address, 4, pages());
    for _ in 0..3 {
        let keeper = until("the keeper", Duration::from_secs(20), || {
            ktrix.children().into_iter().find(|c| c.name().contains("keeper"))
        });
        keeper.signal(Signal::SIGKILL);
        until_true("its end", || !keeper.is_alive());
    }
    let report = load.stop();
    report.expect_faultless();
    plan.verify_cache();
}

#[test]
fn a_killed_master_leaves_a_sound_cache_and_no_lock() {
    let gate = Gate::new();
    let held = gate.clone();
    let mut origin = Origin::answering(move |request| match &*request.target {
        "/slow" => Response::ok("late").gated(&held),
        _ => Response::ok(pattern(3000)).cache("max-age=600"),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.wait_children(3);
    for i in 0..50 {
        ktrix.get(&format!("/{i}")).expect_status(200);
    }
    for i in 0..50 {
        ktrix.wait_hit(&format!("/{i}"));
    }
    let mut waiting = ktrix.client();
    waiting.send(&Ask::get("/slow"));
    origin.wait_requests(51);
    ktrix.signal(Signal::SIGKILL);
    ktrix.wait_exit();

    // The old workers still drain; the new start does not wait for them.
    let start = Instant::now();
    let second = plan.start();
    second.get("/0").expect_status(200).expect_hit();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    gate.open();
    waiting.answer().expect_status(200).expect_body("late");
    drop(waiting);
    ktrix.wait_gone();
    origin.stop();
    for i in 0..50 {
        second.get(&format!("/{i}")).expect_status(200).expect_hit().expect_body(pattern(3000));
    }
    plan.verify_cache();
}

/// Has a request wait for the origin, which has got this many then, and ends the only worker by a signal.
fn crash(ktrix: &Ktrix<'_>, origin: &Origin, target: &str, signal: Signal, n_asked: usize) {
    ktrix.wait_children(2);
    let mut client = ktrix.client();
    client.send(&Ask::get(target));
    origin.wait_requests(n_asked);
    let worker = ktrix.workers()[0];
    worker.signal(signal);
    until_true("its end", || !worker.is_alive());
}

/// Holds the requests whose target has `hold` in it.
fn holding_origin(gate: &Gate) -> Origin {
    let held = gate.clone();
    Origin::answering(move |request| match request.target.contains("hold") {
        true => Response::ok("late").cache("no-store").gated(&held),
        false => Response::ok("x").cache("no-store"),
    })
}

#[test]
fn a_crash_is_logged_with_the_requests_in_flight_and_two_refuse_them() {
    let gate = Gate::new();
    let origin = holding_origin(&gate);
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    let crash = |target, signal, n_asked| crash(&ktrix, &origin, target, signal, n_asked);
    crash("/killed?hold", Signal::SIGKILL, 1);
    ktrix.wait_error("/killed, fetching, for ");
    crash("/killed?hold", Signal::SIGKILL, 2);
    crash("/a?hold", Signal::SIGSEGV, 3);
    let line = ktrix.wait_error("/a, fetching, for ");
    assert!(line.contains("had in flight GET 127.0.0.1"), "{line}");
    ktrix.wait_error("died of SIGSEGV, requests in flight: 1");
    crash("/a?hold", Signal::SIGSEGV, 4);
    ktrix.wait_error("/a was in flight in two crashes within a minute; answering it with 503");
    ktrix.wait_children(2);
    ktrix.get("/a?other").expect_status(503);
    ktrix.get("/killed").expect_status(200);
    let is_named = |line: &String| line.contains("\"reason\":\"crash-guard\"");
    until_true("its reason in the access log", || plan.access_lines().iter().any(is_named));
    assert_eq!(plan.error_log().matches("answering it with 503").count(), 1);
    assert!(!plan.error_log().contains("hold"), "queries are not logged");
    gate.open();
}

#[test]
fn an_answer_between_two_crashes_clears_a_request() {
    let gate = Gate::new();
    let origin = holding_origin(&gate);
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    crash(&ktrix, &origin, "/busy?hold", Signal::SIGSEGV, 1);
    ktrix.wait_error("had in flight");
    ktrix.wait_children(2);
    ktrix.get("/busy").expect_status(200);
    crash(&ktrix, &origin, "/busy?hold", Signal::SIGSEGV, 3);
    ktrix.wait_children(2);
    ktrix.get("/busy").expect_status(200);
    assert!(!plan.error_log().contains("answering it with 503"));
    gate.open();
}
