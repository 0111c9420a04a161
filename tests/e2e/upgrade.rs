//! Upgrades: another program takes the place of the one that runs, and clients notice nothing.
//!
//! `KTRIX_UPGRADE_SECONDS` is how long the load lasts between two upgrades, and `KTRIX_UPGRADE_TUNNELS`
//! how many tunnels go on over one.

use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};

use crate::metrics::n_requests;
use crate::status::status;
use crate::support::ktrix::{BINARY, text};
use crate::support::process::{Seen, children};
use crate::support::supervisor::Supervisor;
use crate::support::tls::authority;
use crate::support::{
    Ask, Client, Gate, Ktrix, Load, Origin, PATIENCE, Plan, Response, alone, until, until_true,
};
use crate::tunnels::{echoing, expect_echo, open};

/// Ends the ktrix that serves at the end of a test: it is no child of the test.
pub(super) struct Last<'p>(pub(super) &'p Plan);

impl Last<'_> {
    /// The master that the pid file names.
    pub(super) fn master(&self) -> Option<Seen> {
        let text = fs::read_to_string(self.0.cache_dir().join("ktrix.pid")).ok()?;
        Seen::now(text.trim().parse().ok()?)
    }

    /// Sends USR2, and waits for the master that takes the place.
    #[track_caller]
    pub(super) fn upgrade(&self) -> Seen {
        let before = self.master().expect("a master");
        before.signal(Signal::SIGUSR2);
        until("another master", PATIENCE, || self.master().filter(|now| *now != before))
    }
}

impl Drop for Last<'_> {
    fn drop(&mut self) {
        let Some(master) = self.master() else { return };
        let all: Vec<Seen> = children(master.pid).into_iter().chain([master]).collect();
        master.signal(Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(5);
        while all.iter().any(|it| it.is_alive()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        all.iter().for_each(|it| it.signal(Signal::SIGKILL));
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn five_upgrades_under_load_fail_no_request_and_ask_no_origin_again() {
    alone();
    let body: Arc<[u8]> = b"hello".as_slice().into();
    let origin = Origin::answering(|request| {
        let is_stored = request.target.starts_with("/c/");
        Response::ok("hello").cache(if is_stored { "max-age=3600" } else { "no-store" })
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let last = Last(&plan);
    for i in 0..20 {
        ktrix.get(&format!("/c/{i}"));
        ktrix.wait_hit(&format!("/c/{i}"));
    }
    let paths = (0..40)
        .map(|i| (format!("/{}/{}", if i % 2 == 0 { "c" } else { "d" }, i / 2), Arc::clone(&body)))
        .collect();
    let load = Load::of_pages(&plan.address, 8, paths);
    let between = Duration::from_secs(number("KTRIX_UPGRADE_SECONDS", 1));
    let mut fds = Vec::new();
    for _ in 0..5 {
        let end = Instant::now() + between;
        let n = load.n_answered();
        until("answers", between + PATIENCE, || {
            (load.n_answered() > n + 20 && Instant::now() > end).then_some(())
        });
        let before = last.master().unwrap();
        let now = last.upgrade();
        until_true("the end of the old ktrix", || !before.is_alive());
        fds.push(now.n_fds());
    }
    let n = load.n_answered();
    until_true("answers of the last one", || load.n_answered() > n + 20);
    let report = load.stop();
    report.expect_faultless();
    assert!(ktrix.wait_exit().success());
    for i in 0..20 {
        assert_eq!(origin.count(&format!("/c/{i}")), 1);
    }
    let wanted: HashSet<&String> = report.answered.iter().collect();
    let n_of_load = || {
        let lines = plan.access_lines();
        lines.iter().filter(|line| line.contains("\"user_agent\":\"load-")).count()
    };
    // A look reads the whole log, which the long form makes large.
    let patience = PATIENCE + 5 * between;
    until("a line for every request", patience, || (n_of_load() >= wanted.len()).then_some(()));
    assert_eq!(n_of_load(), wanted.len());
    until("as many counts as lines", patience, || {
        (n_requests(&status(&plan)) == plan.access_lines().len() as u64).then_some(())
    });
    assert!(fds[4] <= fds[1] + 2, "descriptors: {fds:?}");
    plan.verify_cache();
}

#[test]
fn idle_clients_keep_their_connections_over_upgrades() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let last = Last(&plan);
    let mut clients: Vec<_> = (0..60).map(|_| ktrix.client()).collect();
    clients[1..].iter_mut().for_each(|client| drop(client.get("/").expect_status(200)));
    let filters = |master: Seen| (master.status("Seccomp"), master.status("Seccomp_filters"));
    let before_all = filters(ktrix.master);
    for _ in 0..2 {
        let before = last.master().unwrap();
        let now = last.upgrade();
        until_true("the end of the old ktrix", || !before.is_alive());
        clients.iter_mut().for_each(|client| drop(client.get("/").expect_status(200)));
        assert_eq!(filters(now), before_all);
    }
    ktrix.wait_exit();
}

#[test]
fn sessions_are_resumed_after_an_upgrade() {
    let origin = Origin::answering(|_| Response::ok("x").cache("max-age=600"));
    let plan = Plan::new(&origin).with_tls();
    let _ktrix = plan.start();
    let last = Last(&plan);
    for version in [&TLS13, &TLS12] {
        let config = authority().client_of(&[version]);
        let kind = || {
            let mut client = Client::secured(&plan.address, config.clone(), "localhost");
            client.get("/").expect_status(200);
            client.tls().handshake_kind()
        };
        assert_eq!(kind(), Some(HandshakeKind::Full));
        let before = last.master().unwrap();
        last.upgrade();
        until_true("the end of the old ktrix", || !before.is_alive());
        assert_eq!(kind(), Some(HandshakeKind::Resumed));
    }
}

#[test]
fn what_a_command_has_set_and_the_keeper_has_found_lasts() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let other = Origin::answering(|_| Response::ok("y"));
    let name = origin.name().replace("127.0.0.1", "localhost");
    let servers = format!("{{servers: [\"{name}\", \"{}\"]}}", other.name());
    let plan = Plan::to(&servers).set("cache", "off").set("pid", "$DIR/cache/ktrix.pid");
    let ktrix = plan.start();
    let last = Last(&plan);
    let config = plan.config_path().display().to_string();
    let server = format!("app/{}", other.name());
    assert!(plan.run(&["server", "drain", &server, "--config", &config]).status.success());
    ktrix.get("/").expect_status(200);
    last.upgrade();
    for _ in 0..10 {
        Client::of_ktrix(&plan.address).get("/").expect_status(200).expect_body("x");
    }
    let status = plan.run(&["status", "--config", &config]);
    assert!(text(&status).contains("draining"), "{}", text(&status));
}

#[test]
fn tunnels_go_on_until_their_drain() {
    alone();
    let origin = echoing();
    let upstream = format!("{{servers: [\"{}\"], connections: 2000}}", origin.name());
    let plan = Plan::to(&upstream).set("timeouts", "{stop: 500ms, tunnel-drain: 5s}");
    let ktrix = plan.start();
    let last = Last(&plan);
    let n = number("KTRIX_UPGRADE_TUNNELS", 50);
    let mut tunnels: Vec<_> = (0..n).map(|_| open(&ktrix, "/")).collect();
    let before = last.master().unwrap();
    last.upgrade();
    tunnels.iter_mut().for_each(|tunnel| expect_echo(tunnel, b"after"));
    assert!(before.is_alive(), "it has the tunnels");
    let mut other = Client::of_ktrix(&plan.address);
    other.get("/").expect_status(200);
    until_true("the end of the old ktrix", || !before.is_alive());
    tunnels.iter_mut().for_each(|tunnel| assert_eq!(tunnel.read(), b""));
    other.get("/").expect_status(200);
    assert!(ktrix.wait_exit().success());
}

#[test]
fn a_fill_of_an_old_worker_is_followed_by_new_ones() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |_| {
        Response::ok("0123456789").cache("max-age=600").gated_at(5, &held)
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let last = Last(&plan);
    let mut first = ktrix.client();
    first.send(&Ask::get("/slow"));
    origin.wait_requests(1);
    let before = last.master().unwrap();
    last.upgrade();
    let mut others: Vec<_> = (0..8).map(|_| Client::of_ktrix(&plan.address)).collect();
    others.iter_mut().for_each(|client| client.send(&Ask::get("/slow")));
    others.iter_mut().for_each(|client| assert_eq!(client.answer_head().0, 200));
    gate.open();
    first.answer().expect_status(200).expect_body("0123456789");
    until_true("the end of the old ktrix", || !before.is_alive());
    Client::of_ktrix(&plan.address).get("/slow").expect_hit();
    origin.expect_requests(1);
    // The process slots of the old ktrix serve the next ones.
    for _ in 0..3 {
        let before = last.master().unwrap();
        last.upgrade();
        until_true("the end of the old ktrix", || !before.is_alive());
    }
    Client::of_ktrix(&plan.address).get("/slow").expect_hit();
    ktrix.wait_exit();
}

#[test]
fn a_stop_ends_what_drains_too() {
    let origin = echoing();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let last = Last(&plan);
    let mut tunnel = open(&ktrix, "/");
    let first = last.master().unwrap();
    let second = last.upgrade();
    let third = last.upgrade();
    assert!([first, second, third].iter().all(|it| it.is_alive()));
    expect_echo(&mut tunnel, b"still");
    let config = plan.config_path().display().to_string();
    let out = plan.run(&["-s", "stop", &config]);
    assert!(out.status.success(), "{}", text(&out));
    until_true("the end of all", || [first, second, third].iter().all(|it| !it.is_alive()));
    assert!(!plan.cache_dir().join("ktrix.pid").exists());
}

/// A ktrix whose program is a copy, which a test may replace.
pub(super) fn start_copy(plan: &Plan) -> (PathBuf, Ktrix<'_>) {
    let program = plan.dir().join("ktrix");
    fs::copy(BINARY, &program).unwrap();
    plan.write_config();
    let ktrix = plan.start_by(Command::new(&program).arg(plan.config_path()));
    ktrix.wait_error(" workers running");
    (program, ktrix)
}

pub(super) fn replace(program: &Path, script: &str, mode: u32) {
    let new = program.with_extension("new");
    fs::write(&new, script).unwrap();
    fs::set_permissions(&new, Permissions::from_mode(mode)).unwrap();
    fs::rename(&new, program).unwrap();
}

#[test]
fn after_a_new_program_that_does_not_serve_the_old_one_goes_on() {
    let origin = Origin::answering(|_| Response::ok("x").cache("max-age=600"));
    let plan = Plan::new(&origin).set("timeouts", "{upgrade: 1s}");
    let (program, ktrix) = start_copy(&plan);
    let last = Last(&plan);
    ktrix.get("/");
    ktrix.wait_hit("/");
    let before = ktrix.children();
    let config = plan.config_path().display().to_string();
    let refused = |why: &str| {
        let out = plan.run(&["-s", "upgrade", &config]);
        assert!(!out.status.success() && text(&out).contains(why), "{why}: {}", text(&out));
        ktrix.wait_error(why);
        assert_eq!((last.master(), ktrix.children()), (Some(ktrix.master), before.clone()));
        ktrix.get("/").expect_hit();
    };
    replace(&program, "#!/bin/sh\nexit 3\n", 0o755);
    refused("exited with code 3");
    replace(&program, "#!/bin/sh\nexec sleep 600\n", 0o755);
    refused("did not serve within 1s (timeouts.upgrade)");
    replace(&program, "#!/bin/sh\n", 0o644);
    refused("Permission denied");
    fs::remove_file(&program).unwrap();
    refused("No such file");
    fs::copy(BINARY, &program).unwrap();
    fs::write(plan.config_path(), plan.config() + "nonsense: 1\n").unwrap();
    let out = plan.run(&["-s", "upgrade", "--pid", &pid_file(&plan)]);
    assert!(!out.status.success() && text(&out).contains("nonsense"), "{}", text(&out));
    assert_eq!((last.master(), ktrix.children()), (Some(ktrix.master), before.clone()));
    plan.put("timeouts", "{upgrade: 20s}");
    plan.write_config();
    ktrix.signal(Signal::SIGHUP);
    ktrix.wait_error("configuration reloaded");
    let out = plan.run(&["-s", "upgrade", &config]);
    assert!(out.status.success(), "{}", text(&out));
    assert_ne!(last.master(), Some(ktrix.master));
    ktrix.wait_exit();
    Client::of_ktrix(&plan.address).get("/").expect_hit();
    origin.expect_requests(1);
}

fn pid_file(plan: &Plan) -> String {
    plan.cache_dir().join("ktrix.pid").display().to_string()
}

#[test]
fn another_index_takes_its_place_only_if_the_new_program_serves() {
    let origin = Origin::answering(|_| Response::ok("x").cache("max-age=600"));
    let plan = Plan::new(&origin).set("timeouts", "{upgrade: 20s}");
    let (program, ktrix) = start_copy(&plan);
    let last = Last(&plan);
    ktrix.get("/");
    ktrix.wait_hit("/");
    plan.put("cache", "{path: $DIR/cache, size: 1 GiB, objects: 20000, memory: 16 MiB}");
    let text = plan.config();
    // The pid file cannot be replaced, so that the new program fails as late as possible.
    let blocked = plan.cache_dir().join("ktrix.pid.new");
    fs::create_dir(&blocked).unwrap();
    plan.write_config();
    let upgrade = || plan.run(&["-s", "upgrade", "--pid", &pid_file(&plan)]);
    assert!(!upgrade().status.success());
    assert_eq!(last.master(), Some(ktrix.master));
    assert!(!plan.cache_dir().join("index.new").exists());
    ktrix.get("/").expect_hit();
    fs::remove_dir(&blocked).unwrap();
    let out = upgrade();
    assert!(out.status.success(), "{}: {text}", crate::support::ktrix::text(&out));
    ktrix.wait_exit();
    until_true("a hit by the new index", || Client::of_ktrix(&plan.address).get("/").is_hit());
    assert!(program.exists() && !plan.cache_dir().join("index.new").exists());
}

#[test]
fn signals_during_an_upgrade_have_their_effect() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin).set("timeouts", "{upgrade: 2s}");
    let (program, ktrix) = start_copy(&plan);
    replace(&program, "#!/bin/sh\nexec sleep 600\n", 0o755);
    ktrix.signal(Signal::SIGUSR2);
    ktrix.wait_error("starting the new program");
    ktrix.signal(Signal::SIGUSR2);
    ktrix.wait_error("upgrade refused: another one is under way");
    ktrix.signal(Signal::SIGHUP);
    ktrix.wait_error("upgrade failed");
    ktrix.wait_error("configuration reloaded");
    ktrix.get("/").expect_status(200);
    plan.put("timeouts", "{upgrade: 1m}");
    plan.write_config();
    ktrix.signal(Signal::SIGHUP);
    until_true("the second reload", || {
        plan.error_log().matches("configuration reloaded").count() == 2
    });
    ktrix.signal(Signal::SIGUSR2);
    until_true("another upgrade", || {
        plan.error_log().matches("starting the new program").count() == 2
    });
    let hanging = ktrix.children();
    ktrix.stop();
    assert!(hanging.iter().all(|it| !it.is_alive()));
}

#[test]
fn the_service_manager_follows_an_upgrade() {
    let origin = Origin::answering(|_| Response::ok("x").cache("max-age=600"));
    let plan = Plan::new(&origin);
    let manager = Supervisor::of(&plan);
    let ktrix = manager.start(&plan, 1_000_000, &[]);
    let last = Last(&plan);
    manager.wait("READY=1");
    until_true("the stored sockets", || manager.stored().len() >= 3);
    ktrix.get("/");
    let now = last.upgrade();
    manager.wait("RELOADING=1");
    assert!(manager.wait(&format!("MAINPID={}", now.pid)).contains("\nREADY=1"));
    manager.wait("WATCHDOG=1");
    ktrix.wait_exit();
    manager.wait("WATCHDOG=1");
    let environ = fs::read(format!("/proc/{}/environ", now.pid)).unwrap();
    let environ = String::from_utf8_lossy(&environ);
    for name in ["LISTEN_PID", "WATCHDOG_PID"] {
        assert!(environ.contains(&format!("{name}={}\0", now.pid)), "{name}: {environ}");
    }
    now.signal(Signal::SIGKILL);
    until_true("its end", || !now.is_alive());
    let next = manager.start(&plan, 0, &[]);
    next.wait_hit("/");
    origin.expect_requests(1);
    next.ask(&Ask::get("/")).expect_hit();
}
