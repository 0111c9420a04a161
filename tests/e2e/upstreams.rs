//! Several servers, their connections, their failures, and the requests that wait for them.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Ask, Client, Gate, Origin, Plan, Response, until_true};

fn named(name: &'static str) -> Origin {
    Origin::answering(move |_| Response::ok(name))
}

fn servers(origins: &[&Origin], more: &str) -> String {
    let names: Vec<String> = origins.iter().map(|o| format!("\"{}\"", o.name())).collect();
    format!("{{servers: [{}]{more}}}", names.join(", "))
}

/// An address without a listener, reserved so that no other process listens there.
fn refusing() -> (socket2::Socket, String) {
    let (socket, address) = crate::support::ktrix::reserve("127.0.0.1:0".parse().unwrap());
    (socket, address.to_string())
}

#[test]
fn servers_take_turns() {
    let (a, b, c) = (named("a"), named("b"), named("c"));
    let plan = Plan::to(&servers(&[&a, &b, &c], "")).set("workers", "1");
    let ktrix = plan.start();
    let mut counts = BTreeMap::new();
    let mut client = ktrix.client();
    for _ in 0..30 {
        *counts.entry(client.get("/").expect_status(200).text()).or_insert(0) += 1;
    }
    assert_eq!(counts.values().copied().collect::<Vec<_>>(), [10, 10, 10], "{counts:?}");
}

#[test]
fn a_weight_is_a_share() {
    let (a, b) = (named("a"), named("b"));
    let upstream =
        format!("{{servers: [{{address: \"{}\", weight: 3}}, \"{}\"]}}", a.name(), b.name());
    let plan = Plan::to(&upstream).set("workers", "1");
    let ktrix = plan.start();
    let mut client = ktrix.client();
    for _ in 0..40 {
        client.get("/").expect_status(200);
    }
    assert_eq!((a.n_requests(), b.n_requests()), (30, 10));
}

#[test]
fn a_server_that_refuses_is_skipped_and_comes_back() {
    let a = named("a");
    let mut b = named("b");
    let plan = Plan::to(&servers(&[&a, &b], ", skip: 500ms")).set("workers", "1");
    let ktrix = plan.start();
    let mut client = ktrix.client();
    b.stop();
    for _ in 0..20 {
        client.get("/").expect_status(200).expect_body("a");
    }
    for _ in 0..5 {
        client.ask(&Ask::post("/", "x")).expect_status(200).expect_body("a");
    }
    b.start();
    until_true("the second server to be used again", || client.get("/").text() == "b");
}

#[test]
fn one_request_tries_a_server_that_comes_back_and_then_all_workers_use_it() {
    const N_WORKERS: usize = 4;
    let (a, gate) = (named("a"), Gate::new());
    let held = gate.clone();
    let mut b = Origin::answering(move |_| Response::ok("b").gated(&held));
    b.stop();
    let plan = Plan::to(&servers(&[&a, &b], ", skip: 300ms")).set("workers", "4");
    let ktrix = plan.start();
    // Each on a connection of its own, so that every worker gets some; each for a cold object.
    let n_asked = AtomicUsize::new(0);
    let ask = || {
        let target = format!("/{}", n_asked.fetch_add(1, Ordering::Relaxed));
        Client::connect(&plan.address).get(&target).expect_status(200).text()
    };
    for _ in 0..50 {
        assert_eq!(ask(), "a");
    }
    b.start();
    std::thread::scope(|scope| {
        let attempt = scope.spawn(|| until_true("the attempt", || ask() == "b"));
        b.wait_requests(1);
        for _ in 0..100 {
            assert_eq!(ask(), "a");
        }
        assert_eq!((b.n_connections(), b.n_requests()), (1, 1));
        gate.open();
        attempt.join().unwrap();
    });
    until_true("all workers to use it", || {
        ask();
        b.n_connections() == N_WORKERS
    });
    drop(ktrix);
}

#[test]
fn the_only_server_is_asked_each_time_whatever_it_did() {
    let n_asked = AtomicUsize::new(0);
    let mut origin = Origin::answering(move |_| match n_asked.fetch_add(1, Ordering::Relaxed) {
        0..10 => Response::raw("").then_close(),
        _ => Response::ok("x"),
    });
    let plan = Plan::to(&servers(&[&origin], ", skip: 1h")).set("workers", "1");
    let ktrix = plan.start();
    (0..10).for_each(|_| drop(ktrix.get("/").expect_status(502)));
    ktrix.get("/").expect_status(200);
    origin.stop();
    (0..10).for_each(|_| drop(ktrix.get("/").expect_status(502)));
    origin.start();
    ktrix.get("/").expect_status(200);
    ktrix.ask(&Ask::post("/", "x")).expect_status(200);
}

#[test]
fn an_unreachable_upstream_is_502_with_its_reason() {
    let (_held, name) = refusing();
    let plan = Plan::to(&format!("{{servers: [\"{name}\"]}}"));
    let ktrix = plan.start();
    let start = Instant::now();
    for _ in 0..10 {
        let answer = ktrix.get("/").expect_status(502);
        assert!(answer.field("content-type").is_some_and(|t| t.starts_with("text/plain")));
        assert!(!answer.body.is_empty() && answer.body.len() < 500, "{}", answer.text());
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn connections_to_an_origin_are_kept() {
    let origin = named("a");
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    for _ in 0..50 {
        ktrix.get("/").expect_status(200);
    }
    assert_eq!(origin.n_connections(), 1);
}

#[test]
fn clients_that_close_share_a_connection_to_the_origin() {
    let origin = named("a");
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    for i in 0..30 {
        let ask = Ask::get(&format!("/{i}"));
        let mut client = ktrix.client();
        client.ask(&match i % 3 {
            0 => ask.http10(),
            1 => ask.field("Connection", "close"),
            _ => ask,
        });
    }
    assert_eq!((origin.n_connections(), origin.n_requests()), (1, 30));
}

#[test]
fn a_kept_connection_that_closes_costs_no_request() {
    // It closes after each answer without an announcement: the next request meets a closed
    // connection.
    let origin = Origin::answering(|_| Response::ok("x").then_close());
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    let mut client = ktrix.client();
    for i in 0..200 {
        client.get(&format!("/{i}")).expect_status(200).expect_body("x");
    }
    for i in 0..50 {
        // A POST that has gone out before the origin closes is not sent again.
        origin.wait_none_open();
        client.ask(&Ask::post(&format!("/{i}"), "body")).expect_status(200).expect_body("x");
    }
    origin.expect_requests(250);
}

#[test]
fn a_server_that_breaks_off_is_followed_by_the_next() {
    let a = named("a");
    let broken = Origin::answering(|_| Response::raw("").then_close());
    let plan = Plan::to(&servers(&[&broken, &a], "")).set("workers", "1");
    let ktrix = plan.start();
    let mut client = ktrix.client();
    for _ in 0..20 {
        client.get("/").expect_status(200).expect_body("a");
    }
}

#[test]
fn requests_that_must_not_be_repeated_are_sent_once() {
    let a = Origin::answering(|_| Response::raw(""));
    let b = Origin::answering(|_| Response::raw(""));
    let plan = Plan::to(&servers(&[&a, &b], ", skip: 0s")).set("workers", "1");
    let ktrix = plan.start();
    for i in 1..=4 {
        ktrix.ask(&Ask::post("/", "order")).expect_status(502);
        assert_eq!(a.n_requests() + b.n_requests(), i);
    }
    ktrix.ask(&Ask::new("PUT", "/").field("Content-Length", 0)).expect_status(502);
    assert!(a.n_requests() + b.n_requests() > 5, "a PUT may be tried again");
}

#[test]
fn a_waiting_request_gets_the_next_free_connection() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |_| Response::ok("x").gated(&held));
    let plan = Plan::to(&servers(&[&origin], ", connections: 2, pending: 100")).set("workers", "1");
    let ktrix = plan.start();
    let mut clients: Vec<Client> = (0..20).map(|_| ktrix.client()).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.send(&Ask::get(&format!("/{i}")));
    }
    origin.wait_requests(2);
    gate.open();
    for client in &mut clients {
        client.answer().expect_status(200).expect_body("x");
    }
    assert_eq!(origin.n_connections(), 2);
}

#[test]
fn the_queue_for_connections_has_an_end_in_length_and_time() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |_| Response::ok("x").gated(&held));
    let more = ", connections: 1, pending: 2, pending-timeout: 1s";
    let plan = Plan::to(&servers(&[&origin], more)).set("workers", "1");
    let ktrix = plan.start();
    let mut first = ktrix.client();
    first.send(&Ask::get("/0"));
    origin.wait_requests(1);
    let mut others: Vec<Client> = (1..=10).map(|_| ktrix.client()).collect();
    let start = Instant::now();
    for (i, client) in others.iter_mut().enumerate() {
        client.send(&Ask::get(&format!("/{}", i + 1)));
    }
    let answers: Vec<_> = others.iter_mut().map(Client::answer).collect();
    assert!(answers.iter().all(|a| a.status == 503), "{answers:?}");
    assert!(answers.iter().any(|a| a.field("retry-after").is_some()), "{answers:?}");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(10), "{took:?}");
    gate.open();
    first.answer().expect_status(200);
    ktrix.get("/after").expect_status(200);
}

/// A server with a full queue, so that it drops further SYNs, as long as this is held.
struct Unaccepting {
    _listener: socket2::Socket,
    _queue: Vec<std::net::TcpStream>,
    address: std::net::SocketAddr,
}

impl Unaccepting {
    fn new() -> Self {
        let listener =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let limit = Duration::from_millis(300);
        let mut queue = Vec::new();
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, limit) {
            queue.push(stream);
            assert!(queue.len() < 100, "the queue takes everyone");
        }
        Self { _listener: listener, _queue: queue, address }
    }
}

#[test]
fn a_server_that_accepts_nothing_is_504() {
    let server = Unaccepting::new();
    let address = server.address;
    let plan = Plan::to(&format!("{{servers: [\"{address}\"], retries: 0}}"))
        .set("timeouts", "{connect: 300ms}");
    let ktrix = plan.start();
    ktrix.get("/").expect_status(504);
}

#[test]
fn servers_may_be_unix_sockets_names_and_ipv6() {
    let dir = tempfile::tempdir().unwrap();
    let unix = Origin::on_unix(&dir.path().join("origin.sock"), |_| Response::ok("unix"));
    let plan = Plan::new(&unix);
    plan.start().get("/").expect_status(200).expect_body("unix");

    let plain = named("name");
    let plan = Plan::to(&format!("{{servers: [\"localhost:{}\"]}}", plain.ip().port()));
    let ktrix = plan.start();
    // The keeper resolves names while workers already answer.
    until_true("the name to be resolved", || ktrix.get("/").text() == "name");
    drop(ktrix);

    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        eprintln!("no IPv6 here: not tried");
        return;
    }
    let six = Origin::listening((Ipv6Addr::LOCALHOST, 0), |_| Response::ok("six"));
    Plan::new(&six).start().get("/").expect_status(200).expect_body("six");
}

#[test]
fn a_name_that_does_not_resolve_does_not_block_the_start() {
    let plan = Plan::to("{servers: [\"no-such-host.invalid:80\"]}");
    let start = Instant::now();
    let ktrix = plan.start();
    let answer = ktrix.get("/");
    assert!([502, 503].contains(&answer.status), "{}", answer.status);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn clients_may_come_over_unix_sockets_and_ipv6() {
    let origin = named("x");
    let plan = Plan::new(&origin);
    let socket = plan.dir().join("ktrix.sock");
    let (_held, six) = crate::support::ktrix::reserve("[::1]:0".parse().unwrap());
    let crate::support::socket::Address::Ip(four) = plan.address else { unreachable!() };
    // The start waits for the last one.
    plan.put("listen", &format!("[\"unix:{}\", \"{six}\", \"{four}\"]", socket.display()));
    let ktrix = plan.start();
    Client::connect(&crate::support::socket::Address::Unix(socket)).get("/").expect_body("x");
    Client::connect(&six.into()).get("/").expect_status(200).expect_body("x");
    assert_eq!(origin.last().field("x-forwarded-for"), Some("::1"));
    let forwarded = origin.last().field("forwarded").unwrap_or_default().to_owned();
    assert!(forwarded.contains("for=\"[::1]\""), "{forwarded}");
    ktrix.get("/").expect_body("x");
}

#[test]
fn the_other_server_answers_for_an_unreachable_one() {
    let unaccepting = Unaccepting::new();
    let late = unaccepting.address.to_string();
    for broken in ["no-such-host.invalid:80", &late] {
        let good = named("good");
        let more = format!("{{servers: [\"{broken}\", \"{}\"], skip: 60s}}", good.name());
        let plan = Plan::to(&more).set("timeouts", "{connect: 1s}").set("workers", "1");
        let ktrix = plan.start();
        let start = Instant::now();
        for i in 0..20 {
            let ask = if i % 2 == 0 { Ask::get("/") } else { Ask::post("/", "x") };
            ktrix.ask(&ask).expect_status(200).expect_body("good");
        }
        // One connect time-out at the most, not one for every second request.
        let took = start.elapsed();
        assert!(took < Duration::from_secs(8), "{broken}: {took:?}");
        good.expect_requests(20);
    }
}

#[test]
fn a_connection_too_old_for_use_delays_no_request() {
    let origin = named("x");
    let more = ", connections: 1, pending-timeout: 300ms";
    let plan =
        Plan::to(&servers(&[&origin], more)).set("timeouts", "{idle: 1500ms}").set("workers", "1");
    let ktrix = plan.start();
    let mut client = ktrix.client();
    for n in 1..=3 {
        client.get("/").expect_status(200);
        client.get("/").expect_status(200);
        assert_eq!(origin.n_connections(), n);
        // The connection gets too old for use, which only a try can show.
        std::thread::sleep(Duration::from_millis(1550));
    }
}

#[test]
fn a_connection_that_closed_while_idle_costs_no_retry() {
    // Its end crosses the next request: the origin answers once on each connection, and closes it
    // at the next request.
    let origin = Origin::wired(|connection| {
        let Ok(_) = connection.head() else { return };
        let _ = connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
        let _ = connection.head();
    });
    let plan = Plan::to(&servers(&[&origin], ", retries: 0")).set("workers", "1");
    let ktrix = plan.start();
    let mut client = ktrix.client();
    for i in 0..100 {
        client.get(&format!("/{i}")).expect_status(200).expect_body("x");
    }
    assert_eq!(origin.n_connections(), 100);
}
