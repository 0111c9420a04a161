//! `ktrix -s`: the daemon is found, and the exit code says what came of the command.

use std::fs;
use std::process::Output;

use crate::support::ktrix::text;
use crate::support::{Ask, Gate, Origin, Plan, Response, until_true};

fn origin() -> Origin {
    Origin::answering(|_| Response::ok("hello"))
}

fn send(plan: &Plan, args: &[&str]) -> Output {
    let config = plan.config_path().display().to_string();
    plan.run(&[&["-s"], args, &[&config]].concat())
}

#[track_caller]
fn expect_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
}

#[test]
fn a_reload_says_whether_it_was_refused_and_why() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let before = ktrix.wait_children(3);
    plan.put("timeouts", "{connect: 5}");
    plan.write_config();
    let refused = send(&plan, &["reload"]);
    expect_code(&refused, 1);
    assert!(text(&refused).contains("timeouts.connect: \"5\" has no unit"), "{}", text(&refused));
    assert_eq!(ktrix.children(), before);
    plan.put("timeouts", "{connect: 5s}");
    plan.put("listen", &format!("[\"{}\"]", origin.name()));
    plan.write_config();
    let refused = send(&plan, &["reload"]);
    expect_code(&refused, 1);
    assert!(text(&refused).contains("cannot listen on"), "{}", text(&refused));
    plan.put("listen", "[\"127.0.0.1:0\"]");
    plan.write_config();
    expect_code(&send(&plan, &["reload"]), 0);
    let workers = ktrix.workers();
    assert!(workers.iter().any(|new| !before.contains(new)), "it is done when the command ends");
}

#[test]
fn a_stop_is_over_when_the_command_ends_unless_it_was_not_to_wait() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |_| Response::ok("hello").gated(&held));
    let plan = Plan::new(&origin);
    for word in ["stop", "quit"] {
        let ktrix = plan.start();
        ktrix.children();
        expect_code(&send(&plan, &[word]), 0);
        assert!(ktrix.exit_status().is_some(), "-s {word} did not wait");
        ktrix.wait_gone();
    }
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.send(&Ask::get("/slow"));
    origin.wait_requests(1);
    expect_code(&send(&plan, &["quit", "--no-wait"]), 0);
    assert!(ktrix.exit_status().is_none());
    gate.open();
    client.answer().expect_status(200);
    assert!(ktrix.wait_exit().success());
}

#[test]
fn it_finds_the_daemon_after_an_edit_and_a_reload_moves_the_pid_file() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.wait_children(3);
    let (old, new) = (plan.cache_dir().join("ktrix.pid"), plan.dir().join("run/new.pid"));
    assert!(old.exists());
    plan.put("pid", "$DIR/run/new.pid");
    plan.put("cache", "$DIR/another");
    plan.write_config();
    expect_code(&send(&plan, &["reload"]), 0);
    until_true("the pid file to be moved", || new.exists() && !old.exists());
    let pid = fs::read_to_string(&new).unwrap();
    assert_eq!(pid.trim(), ktrix.master.pid.to_string());
    ktrix.get("/").expect_status(200);
    expect_code(&send(&plan, &["stop"]), 0);
    assert!(ktrix.exit_status().is_some_and(|status| status.success()));
    assert!(!new.exists());
    expect_code(&send(&plan, &["stop"]), 1);
}

#[test]
fn a_pid_file_of_another_user_moves_root_to_nothing() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: it takes root to own a file of another user");
        return;
    }
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let path = plan.cache_dir().join("ktrix.pid");
    std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
    let refused = plan.run(&["-s", "stop", "--pid", &path.display().to_string()]);
    expect_code(&refused, 1);
    assert!(text(&refused).contains("root does not trust pid file"), "{}", text(&refused));
    ktrix.get("/").expect_status(200);
}
