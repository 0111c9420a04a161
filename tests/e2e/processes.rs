//! The life of the processes, as a service manager and an operator see it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Uid;

use crate::support::{Ask, Client, Gate, Ktrix, Origin, Plan, Response, until_true};

#[test]
fn one_master_its_workers_and_a_keeper() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin).set("workers", "3");
    let ktrix = plan.start();
    let children = ktrix.wait_children(4);
    assert_eq!(ktrix.workers().len(), 3);
    for child in children {
        assert_eq!(child.status("NoNewPrivs"), "1", "{}", child.name());
    }
    let pid = fs::read_to_string(plan.cache_dir().join("ktrix.pid")).unwrap();
    assert_eq!(pid.trim(), ktrix.master.pid.to_string());
}

#[test]
fn open_files_are_raised_to_the_hard_limit() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start_after("ulimit -Sn 200");
    for child in ktrix.wait_children(3) {
        let limits = fs::read_to_string(format!("/proc/{}/limits", child.pid)).unwrap();
        let files = limits.lines().find(|l| l.starts_with("Max open files")).unwrap();
        let words: Vec<&str> = files.split_ascii_whitespace().collect();
        assert_eq!(words[3], words[4], "{files}");
    }
}

#[test]
fn term_stops_fast_and_leaves_nothing() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |_| Response::ok("late").gated(&held));
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let plan = Plan::new(&origin);
        let ktrix = plan.start();
        ktrix.wait_children(3);
        let n = origin.n_requests();
        let mut client = ktrix.client();
        client.send(&Ask::get("/slow"));
        origin.wait_requests(n + 1);
        let start = Instant::now();
        ktrix.signal(signal);
        assert!(ktrix.wait_exit().success());
        ktrix.wait_gone();
        assert!(start.elapsed() < Duration::from_secs(5), "{signal}: {:?}", start.elapsed());
        assert!(Client::try_connect(&plan.address).is_err());
        assert!(!plan.cache_dir().join("ktrix.pid").exists());
    }
    gate.open();
}

#[test]
fn quit_finishes_current_requests() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |request| match &*request.target {
        "/slow" => Response::ok("0123456789").gated_at(5, &held),
        _ => Response::ok("x"),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.wait_children(3);
    let mut idle = ktrix.client();
    idle.get("/x").expect_status(200);
    let mut slow = ktrix.client();
    slow.send(&Ask::get("/slow"));
    origin.wait_requests(2);
    ktrix.signal(Signal::SIGQUIT);
    idle.expect_closed();
    until_true("the port to be closed", || Client::try_connect(&plan.address).is_err());
    assert!(ktrix.exit_status().is_none(), "the master did not wait");
    gate.open();
    slow.answer().expect_status(200).expect_body("0123456789");
    assert!(ktrix.wait_exit().success());
    ktrix.wait_gone();
}

#[test]
fn quit_does_not_wait_for_ever() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |_| Response::ok("late").gated(&held));
    let plan = Plan::new(&origin).set("timeouts", "{stop: 500ms}");
    let ktrix = plan.start();
    let mut slow = ktrix.client();
    slow.send(&Ask::get("/slow"));
    origin.wait_requests(1);
    let start = Instant::now();
    ktrix.signal(Signal::SIGQUIT);
    ktrix.wait_exit();
    ktrix.wait_gone();
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    gate.open();
}

#[test]
fn privileges_are_dropped_to_the_user() {
    if !Uid::effective().is_root() {
        eprintln!("skipped: dropping rights takes root");
        return;
    }
    let origin = Origin::answering(|_| Response::ok("x").cache("max-age=600"));
    let plan = Plan::new(&origin).set("user", "nobody");
    // Only root can read the temporary directory; its workers must be able to enter it.
    fs::set_permissions(plan.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    let ktrix = plan.start();
    let children = ktrix.wait_children(3);
    ktrix.get("/a").expect_status(200);
    ktrix.wait_hit("/a");
    for child in children {
        for name in ["Uid", "Gid"] {
            let ids = child.status(name);
            assert!(ids.split_ascii_whitespace().all(|id| id == "65534"), "{name}: {ids}");
        }
        assert_eq!(child.status("CapEff"), "0000000000000000");
    }
    assert!(ktrix.master.status("Uid").starts_with('0'));
    ktrix.wait_access_lines_at_least(2);
    plan.put("workers", "1");
    plan.write_config();
    ktrix.signal(Signal::SIGHUP);
    ktrix.wait_children(2);
    ktrix.get("/a").expect_hit();
}

#[test]
fn a_second_start_names_the_running_pid() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let output = plan.run(&[&plan.config_path().display().to_string()]);
    assert!(!output.status.success());
    let text = crate::support::ktrix::text(&output);
    let pid = ktrix.master.pid.to_string();
    assert!(text.contains("already running") && text.contains(&pid), "{text}");
    ktrix.get("/").expect_status(200);
}

#[test]
fn stopping_and_starting_many_times_leaves_nothing_behind() {
    let origin = Origin::answering(|_| Response::ok("x").cache("max-age=600"));
    let plan = Plan::new(&origin);
    for i in 0..8 {
        let ktrix = plan.start();
        ktrix.get(&format!("/{i}")).expect_status(200);
        ktrix.wait_hit(&format!("/{i}"));
        ktrix.stop();
    }
    let ktrix = plan.start();
    for i in 0..8 {
        ktrix.get(&format!("/{i}")).expect_hit();
    }
    origin.expect_requests(8);
}

#[test]
fn a_signal_to_the_whole_group_logs_no_dead_worker() {
    let origin = Origin::answering(|_| Response::ok("x"));
    for _ in 0..5 {
        let plan = Plan::new(&origin);
        let ktrix = plan.start_in_group();
        ktrix.wait_children(3);
        let group = nix::unistd::Pid::from_raw(ktrix.master.pid);
        nix::sys::signal::killpg(group, Signal::SIGTERM).unwrap();
        assert!(ktrix.wait_exit().success());
        ktrix.wait_gone();
        let log = plan.error_log();
        assert!(!log.contains("exited on signal") && log.contains("shutdown complete"), "{log}");
    }
}

#[test]
fn a_limit_of_open_files_that_is_too_low_is_named_with_what_is_needed() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin);
    plan.write_config();
    let script = "ulimit -n 60; exec \"$0\" \"$@\"";
    let output = std::process::Command::new("sh")
        .args(["-c", script, crate::support::ktrix::BINARY])
        .arg(plan.config_path())
        .output()
        .unwrap();
    let text = crate::support::ktrix::text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("the limit is 60, and the master needs 1"), "{text}");
}

#[test]
fn a_unix_socket_has_the_mode_and_owner_of_the_configuration_and_a_reload_changes_them() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin);
    let crate::support::socket::Address::Ip(ip) = plan.address else { unreachable!() };
    let path = plan.dir().join("s");
    let listen = |options: &str| {
        plan.put("listen", &format!("[\"{ip}\", {{address: \"unix:$DIR/s\"{options}}}]"));
        plan.write_config();
    };
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    listen(", permissions: 0600");
    let ktrix = plan.start();
    // The addresses are bound one after the other.
    until_true("the mode", || path.exists() && mode() == 0o600);
    let owner = if Uid::effective().is_root() { ", owner: nobody" } else { "" };
    listen(&format!(", permissions: 0660{owner}"));
    ktrix.signal(Signal::SIGHUP);
    until_true("the mode", || mode() == 0o660);
    if Uid::effective().is_root() {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::metadata(&path).unwrap().uid(), 65_534);
    }
    ktrix.get("/").expect_status(200);
}

/// Twelve requests on connections of their own; the kernel gives each worker some of these.
fn expect_served(ktrix: &Ktrix<'_>) {
    let mut clients: Vec<_> = (0..12).map(|_| ktrix.client()).collect();
    for client in &mut clients {
        client.send(&Ask::get("/"));
    }
    for client in &mut clients {
        client.answer().expect_status(200);
    }
}

#[test]
fn another_worker_serves_the_connections_of_one_that_is_stopped() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin).set("timeouts", "{worker-stuck: 0s}");
    let ktrix = plan.start();
    ktrix.wait_children(3);
    let workers = ktrix.workers();
    for worker in &workers {
        worker.signal(Signal::SIGSTOP);
        expect_served(&ktrix);
        worker.signal(Signal::SIGCONT);
    }
    // Both stopped one after the other: the second has the sockets of the first.
    workers[0].signal(Signal::SIGSTOP);
    expect_served(&ktrix);
    workers[1].signal(Signal::SIGSTOP);
    workers[0].signal(Signal::SIGCONT);
    expect_served(&ktrix);
    workers[1].signal(Signal::SIGCONT);
    expect_served(&ktrix);
    assert_eq!(ktrix.workers(), workers, "no worker was replaced");
    assert!(!plan.error_log().contains("killing"), "{}", plan.error_log());
}

#[test]
fn a_worker_that_is_stopped_for_long_is_replaced_unless_all_of_ktrix_was() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin).set("timeouts", "{worker-stuck: 5s}");
    let ktrix = plan.start();
    ktrix.wait_children(3);
    let workers = ktrix.workers();
    let all = ktrix.living();
    let master = ktrix.master;
    all.iter().for_each(|process| process.signal(Signal::SIGSTOP));
    // That time passes is what is tested.
    thread::sleep(Duration::from_secs(7));
    master.signal(Signal::SIGCONT);
    all.iter().for_each(|process| process.signal(Signal::SIGCONT));
    expect_served(&ktrix);
    // The master looks at both workers as often, so that it would have killed the other one by now.
    workers[0].signal(Signal::SIGSTOP);
    let line = ktrix.wait_error("has hung for 5s; killing it");
    assert!(line.contains(&format!("(pid {})", workers[0].pid)), "{line}");
    until_true("another worker", || {
        let now = ktrix.workers();
        now.len() == 2 && !now.contains(&workers[0]) && now.contains(&workers[1])
    });
    expect_served(&ktrix);
    assert_eq!(plan.error_log().matches("has hung").count(), 1, "{}", plan.error_log());
}
