//! WebSocket and other protocols: a 101 joins the connections of client and origin byte for byte.
//!
//! `KTRIX_TUNNEL_BYTES` has more than 64 MiB go each way through one tunnel, and `KTRIX_TUNNELS` more than
//! 1,000 tunnels come and go.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::origin::Connection;
use crate::support::socket::Address;
use crate::support::{
    Ask, Client, Gate, Ktrix, Origin, PATIENCE, Plan, Response, alone, pattern, until_true,
};

const SWITCH: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// A request for a WebSocket.
fn upgrade(target: &str) -> Ask {
    Ask::get(target)
        .field("Connection", "keep-alive, Upgrade")
        .field("Upgrade", "websocket")
        .field("Sec-WebSocket-Version", 13)
        .field("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

/// An origin that does this with a connection that asks for a WebSocket, and answers other requests with
/// a response that may be stored.
fn switching(switch: impl Fn(&mut Connection) + Send + Sync + 'static) -> Origin {
    Origin::wired(move |connection| {
        while let Ok(head) = connection.head() {
            if head.field("upgrade").is_some() {
                return switch(connection);
            }
            let ok =
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nCache-Control: max-age=60\r\n\r\nplain";
            if connection.write(ok).is_err() {
                return;
            }
        }
    })
}

/// An origin that gives back what it is sent through a tunnel.
pub(super) fn echoing() -> Origin {
    switching(|connection| {
        connection.write(SWITCH).unwrap();
        echo(connection);
    })
}

pub(super) fn echo(connection: &mut Connection) {
    loop {
        let bytes = connection.take();
        if connection.write(&bytes).is_err() || !matches!(connection.read(), Ok(1..)) {
            return;
        }
    }
}

/// A tunnel through which bytes have come back.
pub(super) fn open(ktrix: &Ktrix<'_>, target: &str) -> Client {
    let mut client = ktrix.client();
    client.send(&upgrade(target));
    assert_eq!(client.answer_head().0, 101);
    expect_echo(&mut client, b"ping");
    client
}

pub(super) fn expect_echo(client: &mut Client, bytes: &[u8]) {
    client.write(bytes);
    assert_eq!(read(client, bytes.len()), bytes);
}

fn read(client: &mut Client, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let more = client.read();
        assert!(!more.is_empty(), "the tunnel ended after {} of {len} bytes", bytes.len());
        bytes.extend(more);
    }
    bytes
}

pub(super) fn n_tunnels(ktrix: &Ktrix<'_>) -> u64 {
    let config = ktrix.plan.config_path().display().to_string();
    let out = ktrix.plan.run(&["status", "--json", "--config", &config]);
    let status: Value = serde_json::from_slice(&out.stdout).unwrap();
    let workers = status["workers"].as_array().unwrap().iter();
    workers.map(|worker| worker["tunnels"].as_u64().unwrap()).sum()
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn a_gateway_for_websockets_answers_all_else_with_404() {
    let origin = echoing();
    let plan = Plan::new(&origin)
        .set("sites", "[{routes: [{path: /up, headers: {upgrade: websocket}, upstream: app}]}]");
    let ktrix = plan.start();
    for target in ["/up", "/up/a?b=c", "/upper"] {
        open(&ktrix, target);
    }
    for ask in [Ask::get("/up"), upgrade("/down"), Ask::get("/up").field("Upgrade", "irc")] {
        ktrix.ask(&ask).expect_status(404);
    }
    assert_eq!(origin.n_connections(), 3);
}

#[test]
fn bytes_beside_the_heads_arrive_and_either_side_may_end_first() {
    let origin = switching(|connection| {
        connection.write(&[SWITCH, b"behind the 101"].concat()).unwrap();
        while !connection.unread().ends_with(b"all") {
            connection.read().unwrap();
        }
        assert_eq!(connection.take(), b"before the 101, all");
        connection.shutdown_write();
        while !matches!(connection.read(), Ok(0)) {}
        assert_eq!(connection.unread(), b"later");
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.write(&[&upgrade("/").bytes("h")[..], b"before the 101, "].concat());
    let (status, head) = client.answer_head();
    assert_eq!((status, head.field("upgrade")), (101, Some("websocket")));
    assert_eq!(head.field("connection"), Some("Upgrade"));
    assert_eq!(read(&mut client, 14), b"behind the 101");
    client.write(b"all");
    assert_eq!(client.read(), b"", "the origin has ended its side");
    client.write(b"later");
    client.shutdown_write();
    origin.wait_none_open();
    let line: Value = serde_json::from_str(&ktrix.wait_access_lines(1)[0]).unwrap();
    assert_eq!(
        (&line["status"], &line["verdict"], &line["close"]),
        (&101.into(), &"tunnel".into(), &"finished".into())
    );
    assert_eq!((&line["received_bytes"], &line["body_bytes"]), (&24.into(), &14.into()));
    assert!(line["sent_bytes"].as_u64().unwrap() > 14 + 60, "{line}");
}

#[test]
fn nothing_in_a_tunnel_is_http_and_its_connections_are_never_used_again() {
    let origin = echoing();
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    ktrix.get("/").expect_status(200).expect_body("plain");
    let mut client = open(&ktrix, "/");
    let request = b"GET /secret HTTP/1.1\r\nHost: h\r\n\r\n";
    expect_echo(&mut client, request);
    expect_echo(&mut client, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
    client.shutdown_write();
    assert_eq!(client.read(), b"");
    until_true("the end of the tunnel", || n_tunnels(&ktrix) == 0);
    let n = origin.n_connections();
    ktrix.ask(&Ask::post("/", "x")).expect_status(200);
    assert_eq!(origin.n_connections(), n + 1, "no connection was left of the tunnel");
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer_that_is_not_stored() {
    let n_asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&n_asked);
    let origin = Origin::answering(move |request| {
        if !request.has("upgrade") {
            return Response::ok("stored").cache("max-age=60");
        }
        assert_eq!(request.field("connection"), Some("Upgrade"));
        let n = counted.fetch_add(1, Ordering::SeqCst);
        Response::ok(format!("refused {n}")).cache("max-age=60")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.ask(&upgrade("/")).expect_status(200).expect_body("refused 0");
    ktrix.get("/").expect_body("stored");
    ktrix.wait_hit("/").expect_body("stored");
    // On one connection, which goes on.
    let mut client = ktrix.client();
    for n in 1..4 {
        client.ask(&upgrade("/")).expect_status(200).expect_body(format!("refused {n}"));
        assert!(client.get("/").expect_body("stored").is_hit());
    }
    assert_eq!(n_asked.load(Ordering::SeqCst), 4);
    ktrix.wait_access_lines_at_least(9);
    let lines = plan.access_lines();
    let passed = lines.iter().filter(|it| it.contains(r#""verdict":"pass","reason":"upgrade""#));
    assert_eq!(passed.count(), 4);
}

#[test]
fn only_permitted_upgrades_are_passed_on_and_only_their_answers_switch() {
    let origin = Origin::wired(|connection| {
        while let Ok(head) = connection.head() {
            let asked = head.field("upgrade").unwrap_or("nothing").to_owned();
            let status = match &*asked {
                "other" => "101 Switching Protocols\r\nUpgrade: h2c",
                "none" => "101 Switching Protocols",
                _ => "200 OK",
            };
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{asked}", asked.len());
            let head = match status {
                "200 OK" => head,
                _ => format!("HTTP/1.1 {status}\r\n\r\n"),
            };
            if connection.write(head.as_bytes()).is_err() {
                return;
            }
        }
    });
    let plan = Plan::new(&origin).set(
        "sites",
        "[{routes: [{path: /off, upstream: app, upgrade: off, cache: off}, {path: /, upstream: app}]}]",
    );
    let ktrix = plan.start();
    let by = |ask: Ask, upgrade: &str| {
        ktrix.ask(&ask.field("Connection", "upgrade").field("Upgrade", upgrade))
    };
    by(Ask::get("/"), "websocket").expect_body("websocket");
    by(Ask::get("/"), "h2c, websocket, TLS/1.0").expect_body("websocket");
    by(Ask::get("/off"), "websocket").expect_body("nothing");
    by(Ask::get("/1"), "h2c").expect_body("nothing");
    by(Ask::get("/2"), "HTTP/2.0").expect_body("nothing");
    by(Ask::post("/3", "x"), "websocket").expect_body("nothing");
    by(Ask::get("/4").http10(), "websocket").expect_body("nothing");
    ktrix.ask(&Ask::get("/5").field("Upgrade", "websocket")).expect_body("nothing");
    for protocol in ["other", "none"] {
        by(Ask::get("/"), protocol).expect_status(502);
    }
}

#[test]
fn tunnels_run_over_tls_on_either_side() {
    let origin = echoing();
    let inner = Plan::new(&origin).with_tls();
    let _inner_ktrix = inner.start();
    let Address::Ip(at) = inner.address else { unreachable!() };
    let upstream = format!("{{servers: [\"https://{at}\"], tls: {{verify: off}}}}");
    let outer = Plan::to(&upstream).with_tls();
    let ktrix = outer.start();
    let mut client = open(&ktrix, "/");
    let bytes = pattern(3 << 20);
    for part in bytes.chunks(100_000) {
        expect_echo(&mut client, part);
    }
    drop(client);
    origin.wait_none_open();
}

#[test]
fn a_silent_tunnel_ends_and_one_whose_peer_breaks_ends_for_both() {
    let gate = Gate::new();
    let opened = gate.clone();
    let origin = switching(move |connection| {
        connection.write(SWITCH).unwrap();
        if connection.read().is_ok() && connection.unread() == b"break" {
            return connection.reset();
        }
        opened.wait();
    });
    let plan = Plan::new(&origin).set(
        "sites",
        "[{routes: [{path: /short, upstream: app, timeouts: {tunnel: 200ms}}, {path: /, upstream: app}]}]",
    );
    let ktrix = plan.start();
    let switched = |target: &str| {
        let mut client = ktrix.client();
        client.send(&upgrade(target));
        assert_eq!(client.answer_head().0, 101);
        client
    };
    let mut silent = switched("/short");
    assert_eq!(silent.read(), b"");
    let mut broken = switched("/");
    broken.write(b"break");
    assert_eq!(broken.read(), b"");
    switched("/").reset();
    let lines = ktrix.wait_access_lines(3);
    let close = |line: &String| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["close"].as_str().unwrap().to_owned()
    };
    let mut closes: Vec<_> = lines.iter().map(close).collect();
    closes.sort();
    assert_eq!(closes, ["client-gone", "server-gone", "tunnel-timeout"]);
    gate.open();
}

#[test]
fn a_tunnel_counts_as_a_connection_of_both_sides() {
    let origin = echoing();
    let plan = Plan::to(&format!(
        "{{servers: [\"{}\"], connections: 1, pending-timeout: 300ms}}",
        origin.name()
    ))
    .set("workers", "1")
    .set("cache", "off");
    let ktrix = plan.start();
    let tunnel = open(&ktrix, "/");
    assert_eq!(n_tunnels(&ktrix), 1);
    ktrix.get("/").expect_status(503);
    drop(tunnel);
    until_true("room for a request", || ktrix.get("/").status == 200);
    until_true("the end of the tunnel", || n_tunnels(&ktrix) == 0);
}

#[test]
fn much_goes_both_ways_at_once_beside_a_reader_that_stops() {
    alone();
    let n_blocks = number("KTRIX_TUNNEL_BYTES", 64 << 20) >> 20;
    let origin = echoing();
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    ktrix.wait_children(2);
    let worker = ktrix.workers()[0];
    let block: Arc<[u8]> = pattern(1 << 20).into();
    let mut stalled = open(&ktrix, "/");
    let stuffed = Arc::clone(&block);
    // Until the kernel takes no more: what comes back is not read.
    let stalling = thread::spawn(move || while stalled.try_write(&stuffed).is_ok() {});
    let mut tunnel = tcp_tunnel(&plan.address);
    let before = worker.pss_bytes();
    let mut sender = tunnel.try_clone().unwrap();
    let sent = Arc::clone(&block);
    let sending = thread::spawn(move || {
        (0..n_blocks).for_each(|_| sender.write_all(&sent).unwrap());
        sender.shutdown(Shutdown::Write).unwrap();
    });
    let (mut received, mut most) = (vec![0; block.len()], 0);
    for n in 0..n_blocks {
        tunnel.read_exact(&mut received).unwrap();
        assert!(received[..] == block[..], "block {n} came back otherwise");
        if n % 16 == 0 {
            most = most.max(worker.pss_bytes());
        }
    }
    assert_eq!(tunnel.read(&mut received).unwrap(), 0);
    sending.join().unwrap();
    let grown = most.saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more in the worker");
    drop(ktrix);
    stalling.join().unwrap();
}

/// A tunnel on a socket of its own.
fn tcp_tunnel(address: &Address) -> TcpStream {
    let Address::Ip(ip) = address else { unreachable!() };
    let mut socket = TcpStream::connect(ip).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(&upgrade("/").bytes("h")).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    socket
}

#[test]
fn nothing_is_left_of_a_thousand_tunnels() {
    alone();
    let origin = switching(|connection| {
        connection.write(SWITCH).unwrap();
        if connection.write(&pattern(200_000)).is_ok() {
            echo(connection);
        }
    });
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    ktrix.wait_children(2);
    let worker = ktrix.workers()[0];
    let run = |n: usize| {
        let one = |i: usize| {
            let mut client = ktrix.client();
            client.send(&upgrade("/"));
            assert_eq!(client.answer_head().0, 101);
            read(&mut client, 200_000);
            match i % 3 {
                0 => client.shutdown_write(),
                1 => return client.reset(),
                _ => return,
            }
            assert_eq!(client.read(), b"");
        };
        (0..n).for_each(one);
        until_true("the end of all tunnels", || n_tunnels(&ktrix) == 0);
    };
    run(50);
    let settled = || {
        let mut n = worker.n_fds();
        until_true("a constant number of descriptors", || {
            thread::sleep(Duration::from_millis(50));
            std::mem::replace(&mut n, worker.n_fds()) == n
        });
        n
    };
    let before = settled();
    run(number("KTRIX_TUNNELS", 1_000));
    until_true("the descriptors of the tunnels to be closed", || worker.n_fds() <= before);
}
