//! Active checks of servers, and the names of servers.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::reloads::reload;
use crate::status::status;
use crate::support::{Gate, Ktrix, Origin, Plan, Response, until_true};

/// A server whose checks pass while the flag is set, and the number of its checks.
struct Checked {
    origin: Origin,
    is_well: Arc<AtomicBool>,
    n_checks: Arc<AtomicUsize>,
}

impl Checked {
    fn new(name: &'static str) -> Self {
        let (is_well, n_checks) = (Arc::new(AtomicBool::new(true)), Arc::default());
        let (well, checks) = (Arc::clone(&is_well), Arc::<AtomicUsize>::clone(&n_checks));
        let origin = Origin::answering(move |request| {
            if request.target != "/health" {
                return Response::ok(name);
            }
            assert_eq!(request.field("host"), Some("app"));
            checks.fetch_add(1, Ordering::SeqCst);
            Response::ok(if well.load(Ordering::SeqCst) { "all is well" } else { "all is bad" })
        });
        Self { origin, is_well, n_checks }
    }

    fn n_checks(&self) -> usize {
        self.n_checks.load(Ordering::SeqCst)
    }

    fn set(&self, is_well: bool) {
        self.is_well.store(is_well, Ordering::SeqCst);
    }

    /// The number of requests but for checks.
    fn n_requests(&self) -> usize {
        self.origin.count("/")
    }
}

fn upstream(servers: &[&Origin], check: &str, more: &str) -> String {
    let names: Vec<String> = servers.iter().map(|o| format!("\"{}\"", o.name())).collect();
    format!("{{servers: [{}], check: {{{check}}}{more}}}", names.join(", "))
}

const CHECK: &str = "path: /health, host: app, status: 200, expect: is well, interval: 300ms";

fn state(plan: &Plan, server: usize) -> String {
    status(plan)["upstreams"][0]["servers"][server]["state"].as_str().unwrap().to_owned()
}

fn n_said(plan: &Plan, what: &str) -> usize {
    plan.error_log().matches(what).count()
}

fn wait_said(ktrix: &Ktrix<'_>, what: &str) {
    until_true(what, || n_said(ktrix.plan, what) > 0);
}

#[test]
fn a_server_without_the_expected_text_is_out_after_three_checks_and_back_after_two() {
    // The first three checks fail. The third, fourth and fifth wait until they are let go.
    let gates: Arc<[Gate; 3]> = Arc::new([Gate::new(), Gate::new(), Gate::new()]);
    let n_checks = Arc::new(AtomicUsize::new(0));
    let (held, counted) = (Arc::clone(&gates), Arc::clone(&n_checks));
    let a = Origin::answering(move |request| {
        if request.target != "/health" {
            return Response::ok("a");
        }
        let n = counted.fetch_add(1, Ordering::SeqCst) + 1;
        let response = Response::ok(if n <= 3 { "all is bad" } else { "all is well" });
        match n.checked_sub(3).and_then(|n| held.get(n)) {
            Some(gate) => response.gated(gate),
            None => response,
        }
    });
    let b = Checked::new("b");
    let check = format!("{CHECK}, timeout: 1m");
    let plan = Plan::to(&upstream(&[&a, &b.origin], &check, "")).set("cache", "off");
    let ktrix = plan.start();
    let name = format!("server app/{}", a.name());
    let down = format!("{name} is down: check got 200 without the expected text");
    let up = format!("{name} is up: its checks passed");
    until_true("the third check", || n_checks.load(Ordering::SeqCst) == 3);
    assert_eq!((n_said(&plan, &name), state(&plan, 0)), (0, "up".to_owned()));
    gates[0].open();
    wait_said(&ktrix, &down);
    let servers = &status(&plan)["upstreams"][0]["servers"];
    assert_eq!((&servers[0]["state"], &servers[1]["state"]), (&"down".into(), &"up".into()));
    assert_eq!((&servers[0]["check"], &servers[0]["checks"]), (&"text".into(), &3.into()));
    assert_eq!(
        (&servers[0]["reason"], &servers[1]["check"]),
        (&"check-failed".into(), &"passed".into())
    );
    let config = plan.config_path().display().to_string();
    let told = String::from_utf8(plan.run(&["status", "-c", &config]).stdout).unwrap();
    assert!(told.contains("last check: text (3 in a row)"), "{told}");
    for _ in 0..6 {
        ktrix.get("/").expect_status(200).expect_body("b");
    }
    assert_eq!((a.count("/"), b.n_requests()), (0, 6));
    gates[1].open();
    until_true("the second check that passes", || n_checks.load(Ordering::SeqCst) == 5);
    assert_eq!((n_said(&plan, &up), state(&plan, 0)), (0, "down".to_owned()));
    gates[2].open();
    wait_said(&ktrix, &up);
    until_true("the server to be used", || ktrix.get("/").text() == "a");
    assert_eq!((n_said(&plan, &down), n_said(&plan, &name)), (1, 2));
}

#[test]
fn four_workers_cause_one_check_per_interval() {
    let (a, b) = (Checked::new("a"), Checked::new("b"));
    let plan = Plan::to(&upstream(&[&a.origin, &b.origin], CHECK, "")).set("workers", "4");
    let _ktrix = plan.start();
    until_true("some checks", || a.n_checks() >= 1);
    let (begun, n_before) = (std::time::Instant::now(), a.n_checks());
    until_true("some checks", || a.n_checks() >= n_before + 5);
    // Checks of one process are never closer to each other than the interval.
    let most = begun.elapsed().as_millis() / 300 + 1;
    assert!(a.n_checks() - n_before <= most as usize + 1, "more than {most}");
}

#[test]
fn the_only_server_is_out_too_when_its_checks_fail() {
    let a = Checked::new("a");
    let plan = Plan::to(&upstream(&[&a.origin], CHECK, ", skip: 100ms"));
    let ktrix = plan.start();
    ktrix.get("/").expect_status(200);
    a.set(false);
    wait_said(&ktrix, "is down: check got 200");
    let n_before = a.n_requests();
    for _ in 0..4 {
        let answer = ktrix.get("/").expect_status(503);
        assert!(answer.text().contains("passes its checks"), "{}", answer.text());
    }
    assert_eq!(a.n_requests(), n_before, "no attempt and no last resort");
    a.set(true);
    until_true("the server to be used", || ktrix.get("/").status == 200);
}

#[test]
fn a_check_that_hangs_or_meets_no_server_fails() {
    let gate = Gate::new();
    let held = gate.clone();
    let hanging = Origin::answering(move |_| Response::ok("late").gated(&held));
    let mut gone = Origin::answering(|_| Response::ok("gone"));
    gone.stop();
    let good = Origin::answering(|_| Response::ok("good"));
    let check = "path: /, interval: 100ms, timeout: 2s, fails: 2, expect-regex: \"^(good|gone)$\"";
    let plan = Plan::to(&upstream(&[&hanging, &gone, &good], check, ""));
    let ktrix = plan.start();
    let down = |origin: &Origin, why: &str| format!("app/{} is down: check {why}", origin.name());
    wait_said(&ktrix, &down(&hanging, "got no answer in time"));
    wait_said(&ktrix, &down(&gone, "could not connect"));
    for _ in 0..5 {
        ktrix.get("/").expect_status(200).expect_body("good");
    }
    gate.open();
}

#[test]
fn a_check_without_a_path_makes_a_connection() {
    let mut a = Origin::wired(|connection| {
        let _ = connection.head();
    });
    let plan = Plan::to(&upstream(&[&a], "interval: 100ms, fails: 1, passes: 1", ""));
    let ktrix = plan.start();
    until_true("some checks", || a.n_connections() >= 2);
    assert_eq!((n_said(&plan, "is down"), a.n_requests()), (0, 0));
    a.stop();
    wait_said(&ktrix, "is down: check could not connect");
    a.start();
    wait_said(&ktrix, "is up: its checks passed");
}

#[test]
fn a_reload_keeps_states_changes_the_interval_and_ends_checks() {
    let (a, b) = (Checked::new("a"), Checked::new("b"));
    a.set(false);
    let servers =
        |check: &str| format!("{{app: {}}}", upstream(&[&a.origin, &b.origin], check, ""));
    let plan = Plan::to("{servers: [x]}").set("upstreams", &servers(CHECK));
    let ktrix = plan.start();
    wait_said(&ktrix, "is down: check got 200");
    plan.put("upstreams", &servers(&CHECK.replace("300ms", "1h")));
    plan.write_config();
    reload(&ktrix);
    assert_eq!(state(&plan, 0), "down");
    for _ in 0..4 {
        ktrix.get("/").expect_status(200).expect_body("b");
    }
    // The new keeper checks once at its start, which takes up to a tenth of the interval, and then
    // after an hour.
    a.set(true);
    plan.put("upstreams", &servers(&CHECK.replace("300ms", "200ms")));
    plan.write_config();
    reload(&ktrix);
    wait_said(&ktrix, "is up: its checks passed");
    a.set(false);
    until_true("the end", || n_said(&plan, "is down: check got 200") == 2);
    let without = format!("{{app: {{servers: [\"{}\"]}}}}", a.origin.name());
    plan.put("upstreams", &without);
    plan.write_config();
    reload(&ktrix);
    assert_eq!(state(&plan, 0), "up", "it is not checked any more");
    ktrix.get("/").expect_status(200).expect_body("a");
}

#[test]
fn all_addresses_of_a_name_are_used_and_one_that_refuses_does_no_harm() {
    let one = Origin::answering(|_| Response::ok("one").then_close());
    let port = one.ip().port();
    let two = Origin::listening(("127.0.0.7", port), |_| Response::ok("two").then_close());
    let plan = Plan::to(&format!("{{servers: [\"origin.test:{port}\"], retries: 0}}"));
    let hosts = plan.dir().join("hosts");
    let text = "127.0.0.8 origin.test\n127.0.0.7 origin.test\n127.0.0.1 origin.test\n";
    std::fs::write(&hosts, text).unwrap();
    let Some(ktrix) = start_with_hosts(&plan, &hosts) else { return };
    until_true("both servers to be asked", || {
        ktrix.get("/").expect_status(200);
        one.n_requests() > 3 && two.n_requests() > 3
    });
    assert_eq!(n_said(&plan, "is down"), 0);
}

#[test]
fn addresses_of_both_families_are_used() {
    let four = Origin::answering(|_| Response::ok("four").then_close());
    let port = four.ip().port();
    if std::net::TcpListener::bind((std::net::Ipv6Addr::LOCALHOST, port)).is_err() {
        eprintln!("skipped: no IPv6 here, or the port is not free");
        return;
    }
    let six = Origin::listening((std::net::Ipv6Addr::LOCALHOST, port), |_| {
        Response::ok("six").then_close()
    });
    let plan = Plan::to(&format!("{{servers: [\"origin.test:{port}\"], retries: 0}}"));
    let hosts = plan.dir().join("hosts");
    std::fs::write(&hosts, "::1 origin.test\n127.0.0.1 origin.test\n").unwrap();
    let Some(ktrix) = start_with_hosts(&plan, &hosts) else { return };
    until_true("both families to be used", || {
        ktrix.get("/").expect_status(200);
        four.n_requests() > 3 && six.n_requests() > 3
    });
}

/// Starts ktrix in a mount namespace of its own, with these files in the place of some in /etc.
/// `None` where the tests may not make one.
fn start_with<'p>(plan: &'p Plan, files: &[(&Path, &str)]) -> Option<Ktrix<'p>> {
    if !Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|it| it.success()) {
        eprintln!("skipped: a mount namespace takes root");
        return None;
    }
    let mount = |(file, name): &(&Path, &str)| {
        format!("mount --bind {} \"$(realpath /etc/{name})\" && ", file.display())
    };
    let mounts: String = files.iter().map(mount).collect();
    Some(plan.start_after(&format!(
        "exec unshare -m --propagation private sh -c '{mounts} exec \"$0\" \"$@\"' \"$0\" \"$@\""
    )))
}

fn start_with_hosts<'p>(plan: &'p Plan, hosts: &Path) -> Option<Ktrix<'p>> {
    start_with(plan, &[(hosts, "hosts")])
}

/// A name server for `good.test`, which has one address for a second. It never answers for other names.
struct NameServer {
    address: Arc<Mutex<[u8; 4]>>,
    n_unanswered: Arc<AtomicUsize>,
}

impl NameServer {
    /// `None` where the port of name servers is not free.
    fn start(at: &str) -> Option<Self> {
        let socket = UdpSocket::bind((at, 53)).ok()?;
        let server =
            Self { address: Arc::new(Mutex::new([127, 0, 0, 1])), n_unanswered: Arc::default() };
        let address = Arc::clone(&server.address);
        let n_unanswered = Arc::clone(&server.n_unanswered);
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((n_bytes, client)) = socket.recv_from(&mut query) {
                let address = *address.lock().unwrap();
                match answer_of(&query[..n_bytes], address) {
                    Some(answer) => drop(socket.send_to(&answer, client)),
                    None => drop(n_unanswered.fetch_add(1, Ordering::SeqCst)),
                }
            }
        });
        Some(server)
    }
}

/// An answer by RFC 1035: the address, for a question of type A.
fn answer_of(query: &[u8], address: [u8; 4]) -> Option<Vec<u8>> {
    const NAME: &[u8] = b"\x04good\x04test\x00";
    let question = query.get(12..12 + NAME.len() + 4)?;
    if !question.starts_with(NAME) {
        return None;
    }
    let is_a = question[NAME.len()..] == [0, 1, 0, 1];
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    answer.extend(question);
    if is_a {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend(address);
    }
    Some(answer)
}

#[test]
fn names_change_without_a_reload_and_one_that_hangs_blocks_nothing() {
    let one = Origin::answering(|_| Response::ok("one").then_close());
    let port = one.ip().port();
    let _two = Origin::listening(("127.0.0.6", port), |_| Response::ok("two").then_close());
    let Some(names) = NameServer::start("127.0.0.77") else {
        eprintln!("skipped: the port of name servers is not free");
        return;
    };
    let servers = format!("servers: [\"mute.test:{port}\", \"good.test:{port}\"]");
    let plan = Plan::to(&format!("{{{servers}, resolve: 1s}}"));
    let (resolv, nsswitch) = (plan.dir().join("resolv.conf"), plan.dir().join("nsswitch.conf"));
    std::fs::write(&resolv, "nameserver 127.0.0.77\noptions timeout:30 attempts:1\n").unwrap();
    std::fs::write(&nsswitch, "hosts: dns\n").unwrap();
    let files = [(&*resolv, "resolv.conf"), (&*nsswitch, "nsswitch.conf")];
    let Some(ktrix) = start_with(&plan, &files) else { return };
    until_true("the name to be resolved", || ktrix.get("/").text() == "one");
    *names.address.lock().unwrap() = [127, 0, 0, 6];
    until_true("the new address", || ktrix.get("/").text() == "two");
    assert!(names.n_unanswered.load(Ordering::SeqCst) > 0, "the other name was asked for");
    ktrix.get("/").expect_status(200);
}

#[test]
fn a_name_is_resolved_again_when_its_ttl_is_over_and_idle_connections_to_its_old_address_are_closed()
 {
    let one = Origin::answering(|_| Response::ok("one"));
    let port = one.ip().port();
    let two = Origin::listening(("127.0.0.5", port), |_| Response::ok("two"));
    let Some(names) = NameServer::start("127.0.0.78") else {
        eprintln!("skipped: the port of name servers is not free");
        return;
    };
    let plan = Plan::to(&format!("{{servers: [\"good.test:{port}\"], resolve: 1d}}"));
    let (resolv, nsswitch) = (plan.dir().join("resolv.conf"), plan.dir().join("nsswitch.conf"));
    std::fs::write(&resolv, "nameserver 127.0.0.78\n").unwrap();
    std::fs::write(&nsswitch, "hosts: dns\n").unwrap();
    let files = [(&*resolv, "resolv.conf"), (&*nsswitch, "nsswitch.conf")];
    let Some(ktrix) = start_with(&plan, &files) else { return };
    ktrix.get("/").expect_status(200).expect_body("one");
    *names.address.lock().unwrap() = [127, 0, 0, 5];
    // No server has closed the connection that was kept.
    until_true("the new address", || ktrix.get("/").expect_status(200).text() == "two");
    one.wait_none_open();
    ktrix.get("/").expect_body("two");
    drop(two);
}

#[test]
fn stored_answers_are_served_stale_while_all_checks_fail() {
    let is_well = Arc::new(AtomicBool::new(true));
    let well = Arc::clone(&is_well);
    let origin = Origin::answering(move |request| match request.target.as_str() {
        "/health" if !well.load(Ordering::SeqCst) => Response::status(500),
        _ => Response::ok("x").cache("max-age=1"),
    });
    let plan = Plan::to(&upstream(&[&origin], "path: /health, interval: 100ms", ""))
        .set("sites", "[{routes: [{path: /, upstream: app, cache: {outage-hold: 1h}}]}]");
    let ktrix = plan.start();
    ktrix.wait_hit("/a");
    is_well.store(false, Ordering::SeqCst);
    wait_said(&ktrix, "is down: check got 500");
    until_true("the answer to be stale", || ktrix.get("/a").cache_status().contains("outage"));
    assert_eq!(origin.count("/b"), 0);
    ktrix.get("/b").expect_status(503);
    assert_eq!(origin.count("/b"), 0);
}

#[test]
fn a_name_without_an_address_is_down_until_it_has_one_and_keeps_the_last() {
    // A kept connection would outlive its address.
    let a = Origin::answering(|_| Response::ok("a").then_close());
    let b = Origin::listening(("127.0.0.9", a.ip().port()), |_| Response::ok("b"));
    let plan = Plan::to(&format!("{{servers: [\"origin.test:{}\"], resolve: 1s}}", a.ip().port()));
    let hosts = plan.dir().join("hosts");
    let write = |text: &str| std::fs::write(&hosts, text).unwrap();
    write("127.0.0.1 localhost\n");
    let Some(ktrix) = start_with_hosts(&plan, &hosts) else { return };
    wait_said(&ktrix, "cannot resolve \"origin.test\"");
    assert_eq!(state(&plan, 0), "down");
    ktrix.get("/").expect_status(503);
    write("127.0.0.1 localhost origin.test\n");
    until_true("the name to be resolved", || state(&plan, 0) == "up");
    ktrix.get("/").expect_status(200).expect_body("a");
    write("127.0.0.1 localhost\n");
    until_true("the name to be lost", || n_said(&plan, "using its last known addresses") == 1);
    ktrix.get("/").expect_status(200).expect_body("a");
    assert_eq!(state(&plan, 0), "up");
    write("127.0.0.9 origin.test\n");
    until_true("the new address", || ktrix.get("/").text() == "b");
    drop(b);
}
