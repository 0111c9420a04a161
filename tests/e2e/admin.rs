//! The admin listener: what it shows, and to whom.

use std::collections::BTreeSet;
use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::full_disk::Small;
use crate::support::ktrix::reserve;
use crate::support::socket::Address;
use crate::support::{Answer, Ask, Client, Gate, Ktrix, Load, Origin, Plan, Response, until_true};

/// A ktrix with an admin listener on a port of this machine.
struct Shown {
    plan: Plan,
    address: Address,
    /// Keeps the port.
    _reservation: socket2::Socket,
}

impl Shown {
    fn new(origin: &Origin, more: &str) -> Self {
        let (reservation, address) = reserve("127.0.0.1:0".parse().unwrap());
        let plan = Plan::new(origin).set("admin", &format!("{{listen: \"{address}\"{more}}}"));
        Self { plan, address: address.into(), _reservation: reservation }
    }

    /// Starts it, and waits until its worker listens.
    fn start(&self) -> Ktrix<'_> {
        let ktrix = self.plan.start();
        until_true("the admin listener", || Client::try_connect(&self.address).is_ok());
        ktrix
    }

    fn ask(&self, ask: &Ask) -> Answer {
        Client::connect(&self.address).ask(ask)
    }

    fn get(&self, target: &str) -> Answer {
        self.ask(&Ask::get(target))
    }

    /// The value of a line of `/metrics`.
    fn metric(&self, line: &str) -> Option<f64> {
        let text = self.get("/metrics").text();
        text.lines().find_map(|it| it.strip_prefix(line)?.strip_prefix(' ')?.parse().ok())
    }
}

fn origin() -> Origin {
    Origin::answering(|_| Response::ok("x").cache("max-age=60"))
}

#[test]
fn metrics_status_health_and_a_page_are_shown() {
    let origin = origin();
    let shown = Shown::new(&origin, "");
    let ktrix = shown.start();
    ktrix.wait_hit("/a");
    let health = shown.get("/healthz").expect_status(200).expect_body("ok\n");
    assert_eq!(health.field("cache-control"), Some("no-store"));
    until_true("a hit to be counted", || {
        shown.metric("ktrix_requests_total{verdict=\"hit\"}").is_some_and(|n| n >= 1.0)
    });
    let metrics = shown.get("/metrics").expect_status(200);
    assert_eq!(metrics.field("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let status = shown.get("/status").expect_status(200);
    assert_eq!(status.field("content-type"), Some("application/json"));
    let seen: Value = serde_json::from_slice(&status.body).unwrap();
    assert_eq!((&seen["pid"], &seen["cache"]["objects"]), (&ktrix.master.pid.into(), &1.into()));
    assert_eq!(seen["workers"].as_array().unwrap().len(), 2);
    let page = shown.get("/").expect_status(200);
    assert_eq!(page.field("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.field("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(page.text().contains("<h1>ktrix</h1>") && !page.text().contains("{{"));
    let head = shown.ask(&Ask::new("HEAD", "/status")).expect_status(200);
    assert_eq!(head.body, b"");
    shown.get("/other").expect_status(404);
}

#[test]
fn the_endpoint_has_the_metrics_of_the_manual() {
    let origin = origin();
    let shown = Shown::new(&origin, "");
    let _ktrix = shown.start();
    let text = shown.get("/metrics").text();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let types: BTreeSet<_> = types.collect();
    let manual = include_str!("../../man/ktrix-metrics.7");
    let items: BTreeSet<_> =
        manual.lines().filter_map(|line| line.strip_prefix(".It Ic ")).collect();
    assert_eq!(types, items);
    assert!(types.len() > 30);
}

#[test]
fn strangers_other_names_and_other_methods_get_nothing() {
    let origin = origin();
    let shown = Shown::new(&origin, ", hosts: [stats.lan]");
    let _ktrix = shown.start();
    for host in ["evil.example", "localhost.evil.example", "app"] {
        let answer = shown.ask(&Ask::get("/status").field("Host", host)).expect_status(421);
        assert!(!answer.text().contains("pid"), "{host}");
    }
    for host in ["localhost", "LOCALHOST:9180", "stats.lan", "[::1]:80", "192.0.2.1"] {
        shown.ask(&Ask::get("/status").field("Host", host)).expect_status(200);
    }
    let answer = shown.ask(&Ask::post("/status", "x")).expect_status(405);
    assert_eq!(answer.field("allow"), Some("GET, HEAD"));
    // A proxy on this machine that forwards for another client.
    shown.ask(&Ask::get("/status").field("X-Forwarded-For", "192.0.2.1")).expect_status(403);
    let mut client = Client::connect(&shown.address);
    client.write(b"GET / HTTP/1.1\r\nHost: a\r\nBad Field: x\r\n\r\n");
    client.answer().expect_status(400);
    origin.expect_requests(0);
}

#[test]
fn clients_outside_of_the_list_are_refused() {
    let origin = origin();
    let shown = Shown::new(&origin, ", allow: [192.0.2.0/24]");
    let _ktrix = shown.start();
    shown.get("/healthz").expect_status(403);
}

#[test]
fn to_look_is_neither_counted_nor_logged() {
    let origin = origin();
    let shown = Shown::new(&origin, "");
    let ktrix = shown.start();
    ktrix.get("/a").expect_status(200);
    let sum = || -> f64 {
        let text = shown.get("/metrics").text();
        let values = text.lines().filter(|line| line.starts_with("ktrix_requests_total{"));
        values.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    until_true("one request", || (sum() - 1.0).abs() < 0.5);
    let accepted = shown.metric("ktrix_connections_accepted_total");
    assert!(accepted.is_some());
    for target in ["/metrics", "/status", "/", "/other"] {
        shown.get(target);
    }
    assert!((sum() - 1.0).abs() < 0.5);
    assert_eq!(shown.metric("ktrix_connections_accepted_total"), accepted);
    ktrix.get("/b").expect_status(200);
    assert_eq!(ktrix.wait_access_lines(2).len(), 2);
}

#[test]
fn a_stored_answer_of_a_site_is_none_of_the_admin_listener() {
    let origin = origin();
    let shown = Shown::new(&origin, "");
    let ktrix = shown.start();
    let ask = Ask::get("/status").field("Host", "localhost");
    ktrix.ask(&ask).expect_body("x");
    until_true("a hit", || ktrix.ask(&ask).is_hit());
    let answer = shown.ask(&ask).expect_status(200);
    assert_eq!(answer.field("content-type"), Some("application/json"));
}

#[test]
fn a_full_ktrix_still_shows_itself() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |_| Response::ok("x").gated(&held));
    let shown = Shown::new(&origin, "");
    shown.plan.put("workers", "1");
    shown.plan.put("limits", "{connections: 4}");
    let ktrix = shown.start();
    let mut clients: Vec<_> = (0..4).map(|_| ktrix.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&Ask::get(&format!("/{n}")));
    }
    origin.wait_requests(4);
    shown.get("/healthz").expect_status(200);
    assert_eq!(shown.metric("ktrix_connections"), Some(4.0));
    gate.open();
    clients.iter_mut().for_each(|client| drop(client.answer().expect_status(200)));
}

#[test]
fn health_says_when_ktrix_stops_but_not_when_it_reloads() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |request| match request.target.as_str() {
        "/held" => Response::ok("x").gated(&held),
        _ => Response::ok("x").cache("max-age=60"),
    });
    let shown = Shown::new(&origin, "");
    shown.plan.put("workers", "1");
    let ktrix = shown.start();
    ktrix.get("/a").expect_status(200);
    ktrix.signal(Signal::SIGHUP);
    ktrix.wait_error("configuration reloaded");
    shown.get("/healthz").expect_status(200);
    assert_eq!(shown.metric("ktrix_reloads_total{result=\"done\"}"), Some(1.0));
    assert_eq!(shown.metric("ktrix_requests_total{verdict=\"miss\"}"), Some(1.0));
    let mut client = ktrix.client();
    client.send(&Ask::get("/held"));
    origin.wait_requests(2);
    ktrix.signal(Signal::SIGQUIT);
    until_true("the health to be bad", || {
        let answer = Client::connect(&shown.address).try_ask(&Ask::get("/healthz"));
        answer.is_ok_and(|it| it.status == 503 && it.text() == "stopping\n")
    });
    gate.open();
    client.answer().expect_status(200);
    ktrix.wait_exit();
}

#[test]
fn health_answers_at_once_while_a_stop_waits_for_the_last_of_several_workers() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |_| Response::ok("x").gated(&held));
    let shown = Shown::new(&origin, "");
    shown.plan.put("workers", "3");
    let ktrix = shown.start();
    ktrix.wait_children(4);
    let mut client = ktrix.client();
    client.send(&Ask::get("/held"));
    origin.wait_requests(1);
    ktrix.signal(Signal::SIGQUIT);
    until_true("one worker to be left", || ktrix.workers().len() == 1);
    // The kernel spreads connections over the sockets of all three.
    for n in 0..40 {
        let answer = Client::connect(&shown.address).try_ask(&Ask::get("/healthz"));
        let answer = answer.unwrap_or_else(|broken| panic!("connection {n}: {broken:?}"));
        answer.expect_status(503).expect_body("stopping\n");
    }
    gate.open();
    client.answer().expect_status(200);
    ktrix.wait_exit();
    assert!(Client::try_connect(&shown.address).is_err(), "nothing listens any more");
}

#[test]
fn ktrix_shows_itself_while_requests_wait_for_a_full_access_log() {
    let origin = origin();
    let shown = Shown::new(&origin, "");
    shown.plan.put("workers", "1");
    let access = "{file: $DIR/small/access.log, buffer: 64 KiB, when-full: wait}";
    shown.plan.put("log", &format!("{{access: {access}, error: $DIR/error.log}}"));
    let Some(small) = Small::mount(&shown.plan.dir().join("small"), "1m") else { return };
    let filler = small.0.join("filler");
    let ktrix = shown.start();
    let _ = fs::write(&filler, vec![b'x'; 2 << 20]);
    let load = Load::start(
        &ktrix.plan.address,
        1,
        |_, i| Ask::get(&format!("/{i}")),
        |_, answer| (answer.status == 200).then_some(()).ok_or(answer.head.start.clone()),
    );
    ktrix.wait_error("requests wait when that is full");
    until_true("a request that waits", || {
        let n = load.n_answered();
        (0..20).all(|_| {
            shown.get("/healthz").expect_status(200).expect_body("ok\n");
            load.n_answered() == n
        })
    });
    for target in ["/metrics", "/status", "/"] {
        shown.get(target).expect_status(200);
    }
    fs::remove_file(&filler).unwrap();
    let n = load.n_answered();
    until_true("answers again", || load.n_answered() > n);
    load.stop().expect_faultless();
    ktrix.stop();
}

#[test]
fn a_unix_socket_shows_the_same() {
    let origin = origin();
    let plan = Plan::new(&origin).set("admin", "unix:$DIR/admin.sock");
    let _ktrix = plan.start();
    let socket = Address::Unix(plan.dir().join("admin.sock"));
    let ask = Ask::get("/healthz").field("Host", "localhost");
    Client::connect(&socket).ask(&ask).expect_status(200).expect_body("ok\n");
}
