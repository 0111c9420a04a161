//! The files of the logs: opened by the master with its own rights, whoever owns them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Uid;

use crate::full_disk::Small;
use crate::support::ktrix::lines;
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

/// A log on a small file system, and another program that fills it.
fn on_a_small_disk(when_full: &str, then: impl FnOnce(&Ktrix<'_>, &Path)) {
    let origin = origin();
    let plan = Plan::new(&origin).set("workers", "1").set(
        "log",
        &format!(
            "{{access: {{file: $DIR/small/access.log, format: json, buffer: 64 KiB{when_full}}}, \
             error: $DIR/error.log}}"
        ),
    );
    let Some(small) = Small::mount(&plan.dir().join("small"), "1m") else { return };
    let filler = small.0.join("filler");
    let ktrix = plan.start();
    ktrix.get("/before").expect_status(200);
    until_true("the first line", || !lines(&small.0.join("access.log")).is_empty());
    let _ = fs::write(&filler, vec![b'x'; 2 << 20]);
    then(&ktrix, &small.0);
    ktrix.stop();
}

#[test]
fn a_full_log_disk_stops_no_request_and_no_line_is_lost_or_out_of_order() {
    on_a_small_disk("", |ktrix, disk| {
        let mut client = ktrix.client();
        let n = 2000;
        let began = Instant::now();
        for i in 0..n {
            client.get(&format!("/{i}")).expect_status(200);
        }
        // The buffer was full some ten times. If requests waited for the next try at the log each time,
        // they would take half a minute.
        assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
        let error = ktrix.wait_error("lines go to the spill file");
        assert!(error.contains("No space left") && error.contains("at most 256 MiB"), "{error}");
        assert!(fs::metadata(ktrix.plan.cache_dir().join("access.spill")).unwrap().len() > 50_000);
        // A worker that dies takes no line with it.
        ktrix.workers()[0].signal(Signal::SIGKILL);
        fs::remove_file(disk.join("filler")).unwrap();
        let log = disk.join("access.log");
        until_true("all lines in the log", || lines(&log).len() == n + 1);
        let seen = lines(&log);
        let numbers: Vec<usize> = seen
            .iter()
            .filter_map(|line| line.split("\"target\":\"/").nth(1)?.split('"').next()?.parse().ok())
            .collect();
        assert_eq!(numbers, (0..n).collect::<Vec<_>>());
        ktrix.wait_error("takes lines again");
    });
}

#[test]
fn lines_past_the_spill_file_are_dropped_and_reported() {
    on_a_small_disk(", spill: 64 KiB", |ktrix, disk| {
        let mut client = ktrix.client();
        for i in 0..1500 {
            client.get(&format!("/{i}")).expect_status(200);
        }
        ktrix.wait_error("the spill file is full; lines are dropped");
        fs::remove_file(disk.join("filler")).unwrap();
        let report = ktrix.wait_error(" lines were dropped from 20");
        assert!(report.contains("Z to 20"), "{report}");
    });
}

#[test]
fn lines_in_the_spill_file_survive_a_stop() {
    on_a_small_disk("", |ktrix, disk| {
        let mut client = ktrix.client();
        for i in 0..300 {
            client.get(&format!("/{i}")).expect_status(200);
        }
        ktrix.wait_error("lines go to the spill file");
        ktrix.signal(Signal::SIGTERM);
        assert!(ktrix.wait_exit().success());
        fs::remove_file(disk.join("filler")).unwrap();
        let again = ktrix.plan.start();
        until_true("the lines of the earlier ktrix", || {
            lines(&disk.join("access.log")).len() == 301
        });
        again.stop();
    });
}

#[test]
fn an_auditor_may_have_requests_wait_and_the_error_log_says_so() {
    on_a_small_disk(", when-full: wait", |ktrix, disk| {
        let load = crate::support::Load::start(
            &ktrix.plan.address,
            1,
            |_, i| crate::support::Ask::get(&format!("/{i}")),
            |_, answer| (answer.status == 200).then_some(()).ok_or(answer.head.start.clone()),
        );
        ktrix.wait_error("requests wait when that is full");
        fs::remove_file(disk.join("filler")).unwrap();
        ktrix.wait_error("takes lines again");
        let n = load.n_answered();
        until_true("answers again", || load.n_answered() > n);
        load.stop().expect_faultless();
    });
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
    assert!(text().contains("listening on "), "{}", text());
    if Uid::effective().is_root() {
        assert!(text().contains("the workers run as root"), "{}", text());
    }
}

#[test]
fn directories_of_the_cache_are_checked_as_the_user_before_the_first_request() {
    let origin = origin();
    let Some(plan) = plan(&origin) else { return };
    let plan = plan.set("cache", "{path: $DIR/made/by/ktrix, size: 1 GiB}");
    let ktrix = plan.start();
    assert!(!plan.error_log().contains("cannot enter"), "{}", plan.error_log());
    ktrix.stop();
    let test = || plan.run(&["--test", &plan.config_path().display().to_string()]);
    assert!(test().status.success());
    let above = plan.dir().join("made");
    fs::set_permissions(&above, fs::Permissions::from_mode(0o700)).unwrap();
    let refused = crate::support::ktrix::text(&test());
    let expected = format!("cache.path: user \"nobody\" cannot enter {above:?}");
    assert!(refused.contains(&expected) && refused.contains("ktrix.yaml:"), "{refused}");
    let ktrix = plan.start();
    ktrix.wait_error(&expected);
    ktrix.get("/").expect_status(200);
}
