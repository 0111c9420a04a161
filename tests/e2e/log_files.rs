//! The files of the logs: opened by the master with its own rights, whoever owns them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use nix::sys::signal::Signal;
use nix::unistd::Uid;

use crate::support::{Ktrix, Origin, Plan, Response, until_true};

fn origin() -> Origin {
    Origin::answering(|_| Response::ok("hello").cache("no-store"))
}

/// A plan with workers of another user, unless that is not possible.
fn plan(origin: &Origin) -> Option<Plan> {
    if !Uid::effective().is_root() {
        eprintln!("skipped: dropping rights takes root");
        return None;
    }
    let plan = Plan::new(origin).set("user", "nobody");
    fs::set_permissions(plan.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    Some(plan)
}

/// A file that neither root's group nor the workers may open.
fn foreign_log(path: &Path) {
    fs::write(path, "").unwrap();
    chown(path, Some(1), Some(1)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn expect_line(ktrix: &Ktrix<'_>, target: &str) {
    ktrix.get(target).expect_status(200);
    until_true(&format!("a line for {target}"), || {
        ktrix.plan.access_lines().iter().any(|line| line.contains(target))
    });
}

#[test]
fn a_log_of_another_owner_gets_its_lines_after_start_rotation_reload_and_respawn() {
    let origin = origin();
    let Some(plan) = plan(&origin) else { return };
    let (log, old) = (plan.dir().join("access.log"), plan.dir().join("access.log.1"));
    let rotate = || {
        fs::rename(&log, &old).unwrap();
        foreign_log(&log);
    };
    foreign_log(&log);
    let ktrix = plan.start();
    let first = ktrix.wait_children(3);
    expect_line(&ktrix, "/start");
    rotate();
    ktrix.signal(Signal::SIGUSR1);
    ktrix.wait_error("log files reopened");
    expect_line(&ktrix, "/rotated");
    rotate();
    ktrix.signal(Signal::SIGHUP);
    until_true("the workers of the new configuration", || {
        ktrix.children().len() == 3 && first.iter().all(|old| !old.is_alive())
    });
    expect_line(&ktrix, "/reloaded");
    let workers = ktrix.workers();
    for worker in &workers {
        worker.signal(Signal::SIGKILL);
    }
    until_true("new workers", || {
        let now = ktrix.workers();
        now.len() == 2 && workers.iter().all(|old| !now.contains(old))
    });
    expect_line(&ktrix, "/respawned");
    assert!(!plan.error_log().contains("denied"), "{}", plan.error_log());
}

#[test]
fn the_standard_output_is_a_log_even_if_it_is_a_pipe() {
    let origin = origin();
    let Some(plan) = plan(&origin) else { return };
    let plan = plan.set("log", "{access: /dev/stdout, error: $DIR/error.log}");
    let ktrix = plan.start_after("mkfifo -m 600 pipe; cat pipe >access.log & exec >pipe");
    expect_line(&ktrix, "/one");
    ktrix.stop();
}

#[test]
fn a_reload_whose_log_cannot_be_opened_is_refused_with_its_reason() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let before = ktrix.wait_children(3);
    fs::write(plan.dir().join("file"), "").unwrap();
    plan.put("log", "{access: $DIR/file/access.log, error: $DIR/error.log}");
    plan.write_config();
    ktrix.signal(Signal::SIGHUP);
    let error = ktrix.wait_error("keeping the current configuration");
    assert!(
        error.contains("cannot open log file") && error.contains("/file/access.log"),
        "{error}"
    );
    expect_line(&ktrix, "/one");
    assert_eq!(ktrix.children(), before);
}

#[test]
fn a_start_without_a_reader_of_its_pipe_is_refused_and_does_not_hang() {
    let origin = origin();
    let plan = Plan::new(&origin).set("log", "{access: $DIR/pipe, error: $DIR/error.log}");
    plan.write_config();
    nix::unistd::mkfifo(&plan.dir().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let output = plan.run(&[&plan.config_path().display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let text = crate::support::ktrix::text(&output);
    assert!(text.contains("no process reads from it"), "{text}");
}

#[test]
fn the_first_lines_of_the_error_log_are_there_when_its_directory_is_made() {
    let origin = origin();
    let plan = Plan::new(&origin).set("log", "{error: $DIR/deep/er/error.log}");
    let ktrix = plan.start();
    ktrix.wait_children(3);
    let text = || fs::read_to_string(plan.dir().join("deep/er/error.log")).unwrap_or_default();
    until_true("the last line of the start", || text().contains("ready, 2 workers running"));
    assert!(text().contains("listens on "), "{}", text());
    if Uid::effective().is_root() {
        assert!(text().contains("the workers run as root"), "{}", text());
    }
}
