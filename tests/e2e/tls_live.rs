//! Certificates that change while ktrix runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::date_time_ymd;

use crate::status::status;
use crate::support::ktrix::text;
use crate::support::socket::Address;
use crate::support::tls::{Authority, authority};
use crate::support::{Client, Origin, Plan, Response, until_true};

/// A plan with a certificate as certbot has it: links in `live` to files in `archive`.
fn linked(origin: &Origin) -> Plan {
    let plan = Plan::new(origin).with_tls();
    for folder in ["live", "archive"] {
        fs::create_dir(plan.dir().join(folder)).unwrap();
    }
    for end in ["pem", "key"] {
        let to = plan.dir().join(format!("archive/c1.{end}"));
        fs::rename(plan.dir().join(format!("ktrix.{end}")), to).unwrap();
        link(&plan, 1, end);
    }
    let Address::Ip(ip) = plan.address else { unreachable!() };
    let certificates = "{certificate: $DIR/live/c.pem, key: $DIR/live/c.key}";
    plan.put("listen", &format!("[{{address: \"{ip}\", tls: {{certificates: {certificates}}}}}]"));
    plan
}

/// Has the link of an ending lead to the files of a number.
fn link(plan: &Plan, number: usize, end: &str) {
    let path = plan.dir().join(format!("live/c.{end}"));
    let _ = fs::remove_file(&path);
    symlink(format!("../archive/c{number}.{end}"), path).unwrap();
}

fn trusts(plan: &Plan, authority: &Authority) -> bool {
    Client::try_secured(&plan.address, authority.client(), "localhost").is_ok()
}

#[test]
fn a_renewed_certificate_is_taken_up_under_load_and_no_connection_notices() {
    let origin = Origin::answering(|_| Response::ok("x").cache("max-age=600"));
    let plan = linked(&origin);
    let ktrix = plan.start();
    let (workers, other) = (ktrix.workers(), Authority::new());
    let config = authority().client_and(&other);
    // A reload would refuse this.
    fs::write(plan.config_path(), "half edi").unwrap();
    let mut long = Client::secured(&plan.address, config.clone(), "localhost");
    long.get("/x").expect_status(200);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = || {
            let mut n_answers = 0;
            while !is_over.load(Ordering::Relaxed) {
                let mut client = Client::secured(&plan.address, config.clone(), "localhost");
                for _ in 0..5 {
                    client.get("/x").expect_status(200).expect_body("x");
                    n_answers += 1;
                }
            }
            n_answers
        };
        let loads = [scope.spawn(load), scope.spawn(load)];
        assert!(!trusts(&plan, &other));
        other.write(&plan.dir().join("archive"), "c2", &["127.0.0.1", "localhost"]);
        ["pem", "key"].iter().for_each(|end| link(&plan, 2, end));
        until_true("the new certificate at every worker", || {
            (0..20).all(|_| trusts(&plan, &other))
        });
        long.get("/x").expect_status(200);
        is_over.store(true, Ordering::Relaxed);
        loads.into_iter().for_each(|load| assert!(load.join().unwrap() > 0));
    });
    let told = ktrix.wait_error("using the new certificate");
    assert!(told.contains("live/c.pem, which expires on "), "{told}");
    assert_eq!(ktrix.workers(), workers, "no worker was replaced");
    // The successor of a dead worker has it too.
    workers[0].signal(nix::sys::signal::Signal::SIGKILL);
    until_true("another worker", || {
        let now = ktrix.workers();
        now.len() == workers.len() && !now.contains(&workers[0])
    });
    assert!((0..20).all(|_| trusts(&plan, &other)));
}

#[test]
fn a_worker_without_a_free_descriptor_gets_the_new_certificate_later() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = linked(&origin);
    plan.put("workers", "1");
    let ktrix = plan.start();
    let limit = |n: &str| {
        let pid = ktrix.workers()[0].pid.to_string();
        let args = ["--pid", &pid, &format!("--nofile={n}:")];
        assert!(Command::new("prlimit").args(args).status().unwrap().success());
    };
    let (fds, other) = (format!("/proc/{}/limits", ktrix.workers()[0].pid), Authority::new());
    let limits = fs::read_to_string(fds).unwrap();
    let before = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    limit("1");
    other.write(&plan.dir().join("archive"), "c2", &["localhost"]);
    ["pem", "key"].iter().for_each(|end| link(&plan, 2, end));
    ktrix.wait_error("cannot receive new certificates: ");
    limit(before.split_whitespace().nth(3).unwrap());
    assert!(trusts(&plan, authority()));
    // Any change in the folder leads to a look.
    until_true("the new certificate", || {
        fs::write(plan.dir().join("live/README"), "x").unwrap();
        let pause = Duration::from_millis(700);
        std::thread::sleep(pause);
        trusts(&plan, &other)
    });
}

#[test]
fn a_bad_pair_keeps_the_old_one_and_is_reported_once() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = linked(&origin);
    let second = Authority::new();
    second.write(plan.dir(), "second", &["second.example"]);
    let site = "{hosts: second.example, tls: {certificate: $DIR/second.pem, key: $DIR/second.key}, upstream: app}";
    plan.put("sites", &format!("[{site}, {{upstream: app}}]"));
    let ktrix = plan.start();
    let other = Authority::new();
    let archive = plan.dir().join("archive");
    other.write(&archive, "c2", &["localhost"]);
    other.write(&archive, "c3", &["localhost"]);
    // The key of another one, in place.
    fs::copy(archive.join("c3.key"), archive.join("c1.key")).unwrap();
    let told = ktrix.wait_error("does not match the certificate");
    assert!(told.contains("listen[0].tls.certificates.key: "), "{told}");
    assert!(told.contains("; keeping the one in use"), "{told}");
    assert!(trusts(&plan, authority()));
    // The others are taken up, and the bad one is not reported again.
    let third = Authority::new();
    third.write(plan.dir(), "second", &["second.example"]);
    until_true("the certificate of the site", || {
        Client::try_secured(&plan.address, third.client(), "second.example").is_ok()
    });
    assert!(trusts(&plan, authority()));
    assert_eq!(plan.error_log().matches("does not match the certificate").count(), 1);
    ["pem", "key"].iter().for_each(|end| link(&plan, 2, end));
    until_true("the new certificate", || trusts(&plan, &other));
    // Another state that is bad.
    fs::remove_file(plan.dir().join("live/c.pem")).unwrap();
    ktrix.wait_error("c.pem cannot be read: ");
    assert!(trusts(&plan, &other));
}

#[test]
fn the_status_shows_how_long_certificates_last_and_the_log_warns_in_time() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin).with_tls();
    let in_days = |days: i64| {
        let expires_s = unix_s() + days * 86_400 + 3_600;
        move |params: &mut rcgen::CertificateParams| {
            params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(expires_s as u64);
        }
    };
    authority().write_with(plan.dir(), "ktrix", &["localhost"], in_days(6));
    let ktrix = plan.start();
    let certificates = || status(&plan)["certificates"].as_array().unwrap().clone();
    let shown = certificates();
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0]["key"], "listen[0].tls.certificates");
    assert_eq!(shown[0]["file"], plan.dir().join("ktrix.pem").display().to_string());
    assert_eq!(shown[0]["days"], 6);
    let told = ktrix.wait_error("expires in 6 days, on ");
    assert!(told.contains("; renew it"), "{told}");
    authority().write_with(plan.dir(), "ktrix", &["localhost"], in_days(90));
    until_true("the new certificate", || certificates()[0]["days"] == 90);
    let config = plan.config_path().display().to_string();
    let out = text(&plan.run(&["status", "-c", &config]));
    assert!(out.contains("(listen[0].tls.certificates): expires in 90 days, on "), "{out}");
    assert_eq!(plan.error_log().matches("; renew it").count(), 1);
}

fn unix_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs().cast_signed()
}
