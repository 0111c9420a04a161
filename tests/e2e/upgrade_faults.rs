//! Upgrades that meet signals and deaths: the new master is told to end, the old one is killed, the new
//! one stays late while its workers serve; and upgrades of many workers.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Uid, mkfifo};

use crate::support::ktrix::{BINARY, text};
use crate::support::process::{Seen, child_pids, children};
use crate::support::socket::Address;
use crate::support::tls::authority;
use crate::support::{
    Ask, Client, Ktrix, Load, Origin, PATIENCE, Plan, Response, alone, until, until_true,
};
use crate::tunnels::{echoing, expect_echo, open};
use crate::upgrade::{Last, replace, start_copy};

/// A program that reads a line from a pipe before it becomes ktrix.
struct Held(PathBuf);

impl Held {
    fn at(program: &Path) -> Self {
        let gate = program.with_extension("gate");
        mkfifo(&gate, Mode::S_IRWXU).unwrap();
        let script = format!("#!/bin/sh\nread _ < '{}'\nexec '{BINARY}' \"$@\"\n", gate.display());
        replace(program, &script, 0o755);
        Self(gate)
    }

    /// Lets it go on, as soon as it waits.
    fn let_go(&self) {
        fs::write(&self.0, "\n").unwrap();
    }
}

/// Begins an upgrade to a program that is held before it becomes ktrix; gives its process.
fn upgrade_held(program: &Path, ktrix: &Ktrix<'_>) -> (Held, Seen) {
    let held = Held::at(program);
    ktrix.signal(Signal::SIGUSR2);
    let line = ktrix.wait_error("starting the new program as pid ");
    let pid = line.rsplit(' ').next().and_then(|pid| pid.parse().ok());
    (held, Seen::now(pid.expect("a pid")).expect("the new program"))
}

/// Begins an upgrade, and stops the new master (SIGSTOP) once it has forked this many children and before
/// it serves. Should it be too quick, the upgrade is done and another one begins. Gives the old and the
/// new master.
fn stop_while_it_starts(last: &Last<'_>, n_children: usize) -> (Seen, Seen) {
    let next_pid_file = last.0.cache_dir().join("ktrix.pid.new");
    for _ in 0..20 {
        let old = last.master().expect("a master");
        let before = child_pids(old.pid);
        old.signal(Signal::SIGUSR2);
        let new = until("a new master", PATIENCE, || {
            child_pids(old.pid).into_iter().find(|pid| !before.contains(pid))
        });
        let new = Seen::now(new).expect("the new master");
        until_true("its children", || child_pids(new.pid).len() >= n_children);
        new.signal(Signal::SIGSTOP);
        until_true("the stop of the new master", || new.status("State").starts_with('T'));
        if last.master() == Some(old) && !next_pid_file.exists() {
            return (old, new);
        }
        new.signal(Signal::SIGCONT);
        until_true("the end of the old ktrix", || !old.is_alive());
    }
    panic!("the new master was always too quick");
}

fn count(plan: &Plan, part: &str) -> usize {
    plan.error_log().matches(part).count()
}

fn cached() -> Origin {
    Origin::answering(|_| Response::ok("x").cache("max-age=600"))
}

#[test]
fn a_new_program_that_is_told_to_end_leaves_the_old_one() {
    let origin = cached();
    let plan = Plan::new(&origin).set("workers", "4");
    let Address::Ip(ip) = plan.address else { unreachable!() };
    plan.put("listen", &format!("[\"{ip}\", \"unix:$DIR/sock\"]"));
    let by_path = Address::Unix(plan.dir().join("sock"));
    let (program, ktrix) = start_copy(&plan);
    let last = Last(&plan);
    ktrix.get("/");
    ktrix.wait_hit("/");
    // It has no handlers of signals yet.
    let (held, new) = upgrade_held(&program, &ktrix);
    new.signal(Signal::SIGTERM);
    ktrix.wait_error("exited on signal 15");
    ktrix.wait_error("upgrade failed; this ktrix goes on");
    drop(held);
    replace(&program, &format!("#!/bin/sh\nexec '{BINARY}' \"$@\"\n"), 0o755);
    for (n, signal) in [(2, Signal::SIGTERM), (3, Signal::SIGQUIT)] {
        let (old, new) = stop_while_it_starts(&last, 5);
        let orphans = children(new.pid);
        until_true("children that wait for something to do", || {
            orphans.iter().all(|it| it.status("State").starts_with('S'))
        });
        let n_ready = count(&plan, " workers running");
        new.signal(signal);
        new.signal(Signal::SIGCONT);
        until_true("the failed upgrade", || count(&plan, "upgrade failed") >= n);
        until_true("the end of the new master", || !new.is_alive());
        until_true("the end of its children", || orphans.iter().all(|it| !it.is_alive()));
        assert!(plan.error_log().contains("the new program was told to end"));
        assert_eq!(last.master(), Some(old));
        assert_eq!(count(&plan, " workers running"), n_ready, "one that ends is never ready");
        Client::of_ktrix(&plan.address).get("/").expect_hit();
        Client::of_ktrix(&by_path).host(&ip.to_string()).get("/").expect_hit();
    }
    last.upgrade();
    Client::of_ktrix(&plan.address).get("/").expect_hit();
    origin.expect_requests(1);
}

#[test]
fn a_new_program_serves_alone_if_the_old_master_is_killed_meanwhile() {
    let origin = cached();
    let plan = Plan::new(&origin);
    let (program, ktrix) = start_copy(&plan);
    let last = Last(&plan);
    ktrix.get("/");
    ktrix.wait_hit("/");
    let (held, new) = upgrade_held(&program, &ktrix);
    let orphans = ktrix.children();
    ktrix.signal(Signal::SIGKILL);
    ktrix.wait_exit();
    until_true("the end of its workers", || orphans.iter().all(|it| *it == new || !it.is_alive()));
    // No process accepts now, and the new program has the sockets.
    let mut waiting: Vec<_> = (0..8).map(|_| Client::connect(&plan.address)).collect();
    waiting.iter_mut().for_each(|client| client.send(&Ask::get("/")));
    held.let_go();
    for client in &mut waiting {
        client.answer().expect_status(200).expect_hit();
    }
    until_true("the pid file of the new master", || last.master() == Some(new));
    ktrix.wait_error("the ktrix before this one has ended");
    let config = plan.config_path().display().to_string();
    let out = plan.run(&["-s", "reload", &config]);
    assert!(out.status.success(), "{}", text(&out));
    last.upgrade();
    until_true("the end of the killed one's successor", || !new.is_alive());
    Client::of_ktrix(&plan.address).get("/").expect_hit();
    origin.expect_requests(1);
    assert_eq!(count(&plan, "upgrade failed"), 0);
}

#[test]
fn workers_of_a_late_new_program_finish_and_keep_their_process_slots() {
    let origin = echoing();
    let timeouts = "{upgrade: 15s, stop: 10m, worker-stuck: 0s}";
    let plan = Plan::new(&origin).set("workers", "1").set("timeouts", timeouts);
    let ktrix = plan.start();
    let last = Last(&plan);
    ktrix.get("/");
    ktrix.wait_hit("/");
    let (old, new) = stop_while_it_starts(&last, 1);
    // All clients are the new worker's now.
    let of_old: Vec<_> =
        children(old.pid).into_iter().filter(|it| it.name().contains("worker")).collect();
    of_old.iter().for_each(|it| it.signal(Signal::SIGSTOP));
    let mut tunnel = open(&ktrix, "/");
    let tenant = until("the new worker", PATIENCE, || {
        children(new.pid).into_iter().find(|it| it.name().contains("worker"))
    });
    of_old.iter().for_each(|it| it.signal(Signal::SIGCONT));
    // As the new master does in its last step but one.
    let other = plan.dir().join("other.pid");
    fs::write(&other, format!("{}\n", new.pid)).unwrap();
    fs::rename(&other, plan.cache_dir().join("ktrix.pid")).unwrap();
    ktrix.wait_error("did not serve within 15s (timeouts.upgrade)");
    until_true("the end of the new master", || !new.is_alive());
    until_true("the pid file of the old master", || last.master() == Some(old));
    expect_echo(&mut tunnel, b"late");
    // More processes than there are process slots.
    plan.put("workers", "16");
    plan.write_config();
    let config = plan.config_path().display().to_string();
    for _ in 0..9 {
        let out = plan.run(&["-s", "reload", &config]);
        assert!(out.status.success(), "{}", text(&out));
        expect_echo(&mut tunnel, b"on");
        // Those before have ended, so that their process slots are free.
        until_true("the new children alone", || children(old.pid).len() == 17);
    }
    let now = last.upgrade();
    until_true("the end of the old ktrix", || !old.is_alive());
    expect_echo(&mut tunnel, b"on");
    assert!(tenant.is_alive() && children(now.pid).len() == 17);
    drop(tunnel);
    until_true("the end of the worker", || !tenant.is_alive());
    assert_eq!((count(&plan, "exited with code"), count(&plan, "exited on signal")), (0, 0));
    Client::of_ktrix(&plan.address).get("/").expect_hit();
}

#[test]
fn a_reload_and_another_upgrade_wait_for_an_upgrade() {
    let origin = cached();
    let plan = Plan::new(&origin);
    let (program, ktrix) = start_copy(&plan);
    let last = Last(&plan);
    let (held, new) = upgrade_held(&program, &ktrix);
    ktrix.signal(Signal::SIGUSR2);
    ktrix.wait_error("upgrade refused: another one is under way");
    plan.put("workers", "3");
    plan.write_config();
    ktrix.signal(Signal::SIGHUP);
    held.let_go();
    ktrix.wait_error("configuration reloaded, 3 workers running");
    ktrix.wait_exit();
    assert_eq!(last.master(), Some(new));
    until_true("the workers of the reload alone", || children(new.pid).len() == 4);
    assert_eq!((count(&plan, "configuration reloaded"), count(&plan, "upgrade failed")), (1, 0));
    // Both signals reach a new master that starts.
    let (old, next) = stop_while_it_starts(&last, 1);
    let n_reloaded = count(&plan, "configuration reloaded");
    next.signal(Signal::SIGHUP);
    next.signal(Signal::SIGUSR2);
    next.signal(Signal::SIGCONT);
    until_true("a third master", || last.master().is_some_and(|it| it != old && it != next));
    until_true("the end of those before", || !old.is_alive() && !next.is_alive());
    until_true("the reload", || count(&plan, "configuration reloaded") == n_reloaded + 1);
    assert_eq!(count(&plan, "upgrade failed"), 0);
    Client::of_ktrix(&plan.address).get("/").expect_status(200);
}

#[test]
fn sixteen_workers_are_upgraded_under_load() {
    alone();
    let body: Arc<[u8]> = b"hello".as_slice().into();
    let origin = Origin::answering(|_| Response::ok("hello").cache("no-store"));
    let plan = Plan::new(&origin).set("workers", "16");
    let ktrix = plan.start();
    let last = Last(&plan);
    let mut idle: Vec<_> = (0..32).map(|_| ktrix.client()).collect();
    idle.iter_mut().for_each(|client| drop(client.get("/").expect_status(200)));
    let paths = (0..8).map(|n| (format!("/{n}"), Arc::clone(&body))).collect();
    let load = Load::of_pages(&plan.address, 8, paths);
    let mut fds = Vec::new();
    for _ in 0..3 {
        let n = load.n_answered();
        until_true("answers", || load.n_answered() > n + 20);
        let before = last.master().unwrap();
        let now = last.upgrade();
        until_true("the end of the old ktrix", || !before.is_alive());
        until_true("all children", || children(now.pid).len() == 17);
        fds.push(now.n_fds());
    }
    load.stop().expect_faultless();
    idle.iter_mut().for_each(|client| drop(client.get("/").expect_status(200)));
    assert!(fds[2] <= fds[1] + 2, "descriptors: {fds:?}");
    ktrix.wait_exit();
}

#[test]
fn the_rights_of_the_unit_are_enough_to_read_roots_keys_at_a_reload_and_after_an_upgrade() {
    const NOBODY: u32 = 65_534;
    const RIGHTS: &str = "-all,+net_bind_service,+dac_read_search";
    const BITS: u64 = 0x404;
    let own = Seen::now(std::process::id().cast_signed()).unwrap().status("CapEff");
    let has_rights = u64::from_str_radix(&own, 16).is_ok_and(|own| own & BITS == BITS);
    let has_setpriv = Command::new("setpriv").arg("--version").output().is_ok();
    if !Uid::effective().is_root() || !has_rights || !has_setpriv {
        return eprintln!("skipped: giving rights to another user takes root, them, and setpriv");
    }
    let unit = include_str!("../../packaging/ktrix.service");
    for key in ["AmbientCapabilities", "CapabilityBoundingSet"] {
        assert!(unit.contains(&format!("\n{key}=CAP_NET_BIND_SERVICE CAP_DAC_READ_SEARCH\n")));
    }
    let origin = cached();
    let plan = Plan::new(&origin).with_tls();
    plan.write_config();
    chown(plan.dir(), Some(NOBODY), Some(NOBODY)).unwrap();
    let key = |name: &str| plan.dir().join(format!("{name}.key"));
    fs::set_permissions(key("ktrix"), Permissions::from_mode(0o600)).unwrap();
    let id = NOBODY.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--no-new-privs"]);
    command.args(["--bounding-set", RIGHTS, "--inh-caps", RIGHTS, "--ambient-caps", RIGHTS]);
    let ktrix = plan.start_by(command.arg(BINARY).arg(plan.config_path()));
    let last = Last(&plan);
    let expect = |master: Seen| {
        for set in ["CapBnd", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(master.status(set), format!("{BITS:016x}"), "{set}");
        }
        assert!(master.status("Uid").starts_with("65534"));
        ktrix.client().get("/").expect_status(200);
    };
    expect(last.master().unwrap());
    authority().write(plan.dir(), "other", &["127.0.0.1", "localhost"]);
    fs::set_permissions(key("other"), Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(key("ktrix")).unwrap();
    let config = plan.config().replace("/ktrix.pem", "/other.pem");
    fs::write(plan.config_path(), config.replace("/ktrix.key", "/other.key")).unwrap();
    ktrix.signal(Signal::SIGHUP);
    ktrix.wait_error("configuration reloaded");
    expect(last.master().unwrap());
    let now = last.upgrade();
    until_true("the end of the old ktrix", || !ktrix.master.is_alive());
    expect(now);
    for child in children(now.pid) {
        assert_eq!(child.status("CapEff"), "0000000000000000", "{}", child.name());
    }
}
