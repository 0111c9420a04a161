//! The slow log has a line for each request that took longer than its bound, with its phases.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Uid;

use crate::full_disk::Small;
use crate::support::ktrix::lines;
use crate::support::{Ask, Client, Gate, Origin, Plan, Response, until, until_true};

/// Longer than `over` of the plan.
const LONG: Duration = Duration::from_millis(150);

fn origin() -> Origin {
    Origin::answering(|request| match request.target.starts_with("/slow/") {
        true => Response::ok("slow").cache("no-store").after(LONG),
        false => Response::ok("fast").cache("max-age=600"),
    })
}

fn plan(origin: &Origin, slow: &str) -> Plan {
    let log = format!("{{slow: {{file: $DIR/slow.log, {slow}}}, error: $DIR/error.log}}");
    Plan::new(origin).set("log", &log)
}

/// The lines, once each of these targets has one.
fn wait_lines(plan: &Plan, file: &str, targets: &[String]) -> Vec<String> {
    until(&format!("{} lines in {file}", targets.len()), crate::support::PATIENCE, || {
        let lines = lines(&plan.dir().join(file));
        let has = |target: &String| lines.iter().any(|line| line.contains(&format!("{target} ")));
        targets.iter().all(has).then_some(lines)
    })
}

/// A time of a line, in seconds.
fn time(line: &str, phase: &str) -> Option<f64> {
    line.split(' ').find_map(|part| part.strip_prefix(&format!("{phase}="))?.parse().ok())
}

#[test]
fn a_request_that_took_long_has_its_phases_in_a_line_and_a_hit_has_none() {
    let origin = origin();
    let plan = plan(&origin, "over: 100ms");
    let ktrix = plan.start();
    ktrix.get("/fast");
    ktrix.wait_hit("/fast");
    ktrix.get("/fast").expect_hit();
    ktrix.ask(&Ask::get("/slow/1?a=\"b\"").field("Cookie", "a=b")).expect_status(200);
    let lines = wait_lines(&plan, "slow.log", &["/slow/1?a=\\x22b\\x22\"".to_owned()]);
    let line = lines.iter().find(|line| line.contains("/slow/1")).unwrap();
    assert!(!lines.iter().any(|line| line.contains("verdict=hit")), "{lines:?}");
    let whole = time(line, "total").unwrap();
    assert!(time(line, "first_byte").unwrap() >= LONG.as_secs_f64() && whole < 60.0, "{line}");
    for part in ["client=127.0.0.1", "method=GET", "status=200", "bytes=4", "upstream=app"] {
        assert!(line.contains(&format!(" {part} ")), "{part} in {line}");
    }
    let phases = ["head", "body", "lookup", "queue", "connect", "first_byte", "answer"];
    let sum: f64 = phases.iter().filter_map(|phase| time(line, phase)).sum();
    assert!((sum - whole).abs() < 0.000_1, "{sum}: {line}");
}

#[test]
fn waiting_for_a_connection_is_a_phase() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |_| Response::ok("x").cache("no-store").gated(&held));
    let log = "{slow: {file: $DIR/slow.log, over: 1ms, format: json}, error: $DIR/error.log}";
    let plan = Plan::to(&format!("{{servers: [\"{}\"], connections: 1}}", origin.name()))
        .set("workers", "1")
        .set("log", log);
    let ktrix = plan.start();
    let mut first = ktrix.client();
    first.send(&Ask::get("/first"));
    origin.wait_requests(1);
    let mut second = Client::connect(&plan.address).host("a");
    second.send(&Ask::get("/second"));
    until_true("the second to wait", || {
        super::status::status(&plan)["upstreams"][0]["pending"].as_u64() == Some(1)
    });
    std::thread::sleep(Duration::from_millis(20));
    gate.open();
    first.answer().expect_status(200);
    second.answer().expect_status(200);
    let lines = until("both lines", crate::support::PATIENCE, || {
        let lines = lines(&plan.dir().join("slow.log"));
        (lines.len() >= 2).then_some(lines)
    });
    for (target, has_waited) in [("/first", false), ("/second", true)] {
        let line = lines.iter().find(|line| line.contains(target)).unwrap();
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            line["queue_s"].as_f64().is_some_and(|queue_s| queue_s >= 0.01),
            has_waited,
            "{line}"
        );
    }
}

#[test]
fn no_line_is_lost_by_a_rotation_or_killed_workers() {
    let origin = origin();
    let plan = plan(&origin, "over: 100ms");
    let ktrix = plan.start();
    let targets = |part: &str| (0..6).map(|n| format!("/slow/{part}/{n}")).collect::<Vec<_>>();
    let ask = |part: &str| {
        let mut clients: Vec<_> = targets(part)
            .iter()
            .map(|target| {
                let mut client = ktrix.client();
                client.send(&Ask::get(target));
                client
            })
            .collect();
        clients.iter_mut().for_each(|client| drop(client.answer().expect_status(200)));
    };
    ask("before");
    let (log, old) = (plan.dir().join("slow.log"), plan.dir().join("slow.log.1"));
    fs::rename(&log, &old).unwrap();
    ktrix.signal(Signal::SIGUSR1);
    ktrix.wait_error("log files reopened");
    ask("after");
    // Their lines are still in memory, which outlives the workers.
    ktrix.workers().iter().for_each(|worker| worker.signal(Signal::SIGKILL));
    wait_lines(&plan, "slow.log", &targets("after"));
    until_true("the lines from before the rotation", || {
        let all = [lines(&old), lines(&log)].concat();
        targets("before").iter().all(|it| all.iter().any(|line| line.contains(it)))
    });
    let all = [lines(&old), lines(&log)].concat();
    assert_eq!(all.len(), 12, "{all:#?}");
}

#[test]
fn a_full_disk_stops_no_request_and_loses_no_line() {
    let origin =
        Origin::answering(|_| Response::ok("x").cache("no-store").after(Duration::from_millis(3)));
    let log = "{slow: {file: $DIR/small/slow.log, over: 1ms}, \
               error: $DIR/error.log}";
    let plan = Plan::new(&origin).set("workers", "1").set("log", log);
    let Some(small) = Small::mount(&plan.dir().join("small"), "1m") else { return };
    let (slow, filler) = (small.0.join("slow.log"), small.0.join("filler"));
    let ktrix = plan.start();
    ktrix.get("/before").expect_status(200);
    until_true("the first line", || !lines(&slow).is_empty());
    let _ = fs::write(&filler, vec![b'x'; 2 << 20]);
    let (mut client, n) = (ktrix.client(), 500);
    for i in 0..n {
        client.get(&format!("/{i}?{}", "x".repeat(100))).expect_status(200);
    }
    let error = ktrix.wait_error("lines go to the spill file");
    assert!(error.contains("slow log") && error.contains("No space left"), "{error}");
    // A worker that dies takes no line with it.
    ktrix.workers()[0].signal(Signal::SIGKILL);
    fs::remove_file(&filler).unwrap();
    until_true("all lines in the log", || lines(&slow).len() > n);
    let seen = lines(&slow);
    let number =
        |line: &String| line.split("target=/").nth(1)?.split('?').next()?.parse::<usize>().ok();
    let numbers: Vec<_> = seen.iter().filter_map(number).collect();
    assert_eq!(numbers, (0..n).collect::<Vec<_>>());
    ktrix.stop();
}

#[test]
fn the_file_belongs_to_the_user_and_others_read_nothing_of_it() {
    if !Uid::effective().is_root() {
        eprintln!("skipped: dropping rights takes root");
        return;
    }
    let origin = origin();
    let plan = plan(&origin, "over: 100ms").set("user", "nobody");
    fs::set_permissions(plan.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    let ktrix = plan.start();
    ktrix.get("/slow/1");
    wait_lines(&plan, "slow.log", &["/slow/1".to_owned()]);
    let found = fs::metadata(plan.dir().join("slow.log")).unwrap();
    assert!(found.uid() != 0 && found.mode() & 0o777 == 0o640, "{found:?}");
}
