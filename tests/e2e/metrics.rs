//! The counters of a running ktrix, and that they outlive its processes.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::status::status;
use crate::support::{Ask, Load, Origin, Plan, Response, alone, pattern, until, until_true};

pub(super) fn n_requests(seen: &Value) -> u64 {
    seen["counts"]["verdicts"].as_object().unwrap().values().map(|it| it.as_u64().unwrap()).sum()
}

/// The count of a verdict so far.
fn verdict(plan: &Plan, word: &str) -> u64 {
    status(plan)["counts"]["verdicts"][word].as_u64().unwrap()
}

#[test]
fn every_request_is_counted_by_its_verdict() {
    let origin = Origin::answering(|request| match request.target.as_str() {
        "/private" => Response::ok("x").cache("no-store"),
        _ => Response::ok("x").cache("max-age=60"),
    });
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    ktrix.wait_hit("/a");
    let words = ["hit", "miss", "pass", "none", "stale"];
    let counts = || words.map(|word| verdict(&plan, word));
    until_true("a hit to be counted", || counts()[0] > 0);
    let before = counts();
    (0..3).for_each(|_| drop(ktrix.get("/a").expect_hit()));
    ktrix.ask(&Ask::post("/a", "x")).expect_status(200);
    let mut client = ktrix.client();
    client.write(b"GET / HTTP/1.1\r\nBad Field: x\r\n\r\n");
    client.answer().expect_status(400);
    let more = [3, 0, 1, 1, 0];
    let after: Vec<_> = before.iter().zip(more).map(|(n, more)| n + more).collect();
    until_true("all requests to be counted", || counts()[..] == after[..]);
    let seen = status(&plan);
    let ratio = after[0] as f64 / (after[0] + after[1]) as f64;
    assert_eq!(seen["counts"]["hit_ratio"], ratio);
    assert_eq!(seen["counts"]["fills"], 1);
    assert!(seen["counts"]["resident_bytes"].as_u64().unwrap() > 1 << 20, "{seen}");
    assert_eq!(seen["workers"][0]["requests"], n_requests(&seen));
    drop(client);
    let idle = ktrix.client();
    until_true("one open connection", || status(&plan)["counts"]["connections"] == 1);
    drop(idle);
    until_true("none", || status(&plan)["counts"]["connections"] == 0);
}

#[test]
fn the_counts_are_those_of_the_access_log_after_killed_workers_and_reloads() {
    alone();
    let pages: Vec<(String, Arc<[u8]>)> =
        (0..40).map(|n| (format!("/{n}"), pattern(200 + 900 * n).into())).collect();
    let known = pages.clone();
    let origin = Origin::answering(move |request| {
        let (_, body) = known.iter().find(|(path, _)| *path == request.target).unwrap();
        Response::shared(body).cache("max-age=1")
    });
    let plan = Plan::new(&origin).set("workers", "3");
    let ktrix = plan.start();
    ktrix.wait_children(4);
    let load = Load::of_pages(&plan.address, 12, pages);
    for n in 0..12 {
        // Pace, not a wait: the load goes on between two kills.
        thread::sleep(Duration::from_millis(150));
        if n % 4 == 3 {
            ktrix.signal(Signal::SIGHUP);
        }
        if let Some(victim) = ktrix.workers().get(n % 3) {
            victim.signal(Signal::SIGKILL);
        }
    }
    let report = load.stop();
    assert!(report.n_ok > 100, "{} answers", report.n_ok);
    let (mut before, mut n_same) = (0, 0);
    until("as many counts as lines, for good", Duration::from_secs(20), || {
        let counted = n_requests(&status(&plan));
        n_same = if counted == before { n_same + 1 } else { 0 };
        before = counted;
        (counted == plan.access_lines().len() as u64 && n_same >= 5).then_some(())
    });
    let seen = status(&plan);
    assert!(seen["counts"]["restarts"].as_u64().unwrap() >= 1, "{seen}");
    assert!(before as usize >= report.n_ok, "{before} of {}", report.n_ok);
}
