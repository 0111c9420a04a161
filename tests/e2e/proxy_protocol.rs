//! The PROXY protocol: the client that a load balancer names, and the client that servers are told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use crate::support::h2::{Frame, Raw, of_get};
use crate::support::ktrix::CERTIFICATE;
use crate::support::socket::{Address, Socket};
use crate::support::tls::{Secured, authority};
use crate::support::{Ask, Client, Ktrix, Origin, Plan, Response, until_true};

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.2 56324 443\r\n";
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xc0\0\x02\x07\xc6\x33\x64\x02\xdc\x04\x01\xbb\x01\0\x02h2";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

const WHO: &str = "[{upstream: app, routes: [{path: /who, answer: {body: \"{client} {scheme}\"}}, \
                   {path: /near, clients: [192.0.2.0/24], deny: 403}]}]";

fn ip_of(plan: &Plan) -> SocketAddr {
    let Address::Ip(ip) = plan.address else { unreachable!("a plan has an IP address") };
    ip
}

/// A plan that takes PROXY headers of these networks, with more keys of its listener.
fn plan_for(origin: &Origin, networks: &str, more: &str) -> Plan {
    let plan = Plan::new(origin).set("workers", "1").set("sites", WHO);
    let ip = ip_of(&plan);
    let listen = format!("[{{address: \"{ip}\", proxy-protocol: {networks}{more}}}]");
    plan.set("listen", &listen)
}

fn proxied(ktrix: &Ktrix<'_>, header: &[u8]) -> Client {
    let mut client = Client::connect(&ktrix.plan.address);
    client.write(header);
    client
}

fn n_said(ktrix: &Ktrix<'_>, part: &str) -> usize {
    ktrix.plan.error_log().lines().filter(|line| line.contains(part)).count()
}

#[test]
fn the_client_is_the_one_that_the_header_names() {
    let origin = Origin::answering(|it| Response::ok(it.field("x-forwarded-for").unwrap_or("-")));
    let plan = plan_for(&origin, "[127.0.0.0/24]", "");
    let ktrix = plan.start();
    for (header, client) in [(V1, "192.0.2.7"), (V2, "192.0.2.7"), (LOCAL, "127.0.0.1")] {
        let mut client_of = proxied(&ktrix, header);
        client_of.get("/who").expect_body(format!("{client} http"));
        client_of.get("/a").expect_body(client);
        let status = if client == "192.0.2.7" { 403 } else { 200 };
        client_of.get("/near").expect_status(status);
    }
    let lines = ktrix.wait_access_lines(9);
    let n_named = lines.iter().filter(|line| line.contains("\"client\":\"192.0.2.7\"")).count();
    assert_eq!(n_named, 6, "{lines:#?}");
}

#[test]
fn a_header_may_be_split_anywhere_and_a_request_may_follow_at_once() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = plan_for(&origin, "loopback", "");
    let ktrix = plan.start();
    for header in [V1, V2] {
        let all = [header, b"GET /who HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
        for at in 1..=header.len() + 1 {
            let mut client = proxied(&ktrix, &all[..at]);
            client.wait_taken();
            client.write(&all[at..]);
            client.answer().expect_body("192.0.2.7 http");
        }
    }
}

#[test]
fn a_peer_that_is_not_named_is_refused_and_logged_once() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = plan_for(&origin, "[127.0.0.0/24]", "");
    let ktrix = plan.start();
    for _ in 0..3 {
        let mut client = Client::connect_from([127, 0, 1, 1], &plan.address);
        let _ = client.try_write(&[V1, b"GET /who HTTP/1.1\r\nHost: h\r\n\r\n"].concat());
        assert_eq!(client.read_to_end("a close").0, b"");
    }
    let line = ktrix.wait_error("proxy-refused");
    assert!(line.contains("closed a connection of 127.0.1.1:"), "{line}");
    // A peer that is named is served meanwhile.
    proxied(&ktrix, V1).get("/who").expect_status(200);
    assert_eq!(n_said(&ktrix, "proxy-refused"), 1);
    ktrix.wait_access_lines(1);
}

#[test]
fn what_is_no_header_is_closed_with_its_reason() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = plan_for(&origin, "loopback", "").set("timeouts", "{client-head: 300ms}");
    let ktrix = plan.start();
    let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
    for start in [&b"GET /who HTTP/1.1\r\nHost: h\r\n\r\n"[..], b"PROXY TCP4 a b 1 2\r\n", &long] {
        assert_eq!(proxied(&ktrix, start).read_to_end("a close").0, b"");
    }
    ktrix.wait_error("proxy-header");
    for header in [&V1[..20], &V2[..14], b""] {
        assert_eq!(proxied(&ktrix, header).read_to_end("a close").0, b"");
    }
    ktrix.wait_error("proxy-timeout");
    assert_eq!((n_said(&ktrix, "proxy-header"), n_said(&ktrix, "proxy-timeout")), (1, 1));
}

#[test]
fn forwarding_fields_are_believed_by_the_address_in_the_header() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan =
        plan_for(&origin, "loopback", "").set("trusted-proxies", "[127.0.0.0/8, 192.0.2.0/24]");
    let ktrix = plan.start();
    let ask = Ask::get("/who").field("X-Forwarded-For", "203.0.113.9");
    let said = |header: &[u8]| proxied(&ktrix, header).ask(&ask).text();
    assert_eq!(said(V1), "203.0.113.9 http", "the client in the header is a trusted proxy");
    let stranger = b"PROXY TCP4 198.51.100.9 198.51.100.2 1 2\r\n";
    assert_eq!(said(stranger), "198.51.100.9 http", "the load balancer did not write the field");
    assert_eq!(said(LOCAL), "203.0.113.9 http", "the peer itself is a trusted proxy");
}

/// A connection that begins with a PROXY header, and then TLS that offers this protocol.
fn secured(plan: &Plan, protocol: &[u8]) -> Secured {
    let mut stream = TcpStream::connect(ip_of(plan)).unwrap();
    stream.write_all(V2).unwrap();
    let mut config = authority().client();
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    Secured::shake(stream, ClientConnection::new(Arc::new(config), name).unwrap()).unwrap()
}

#[test]
fn tls_keep_alive_and_http2_work_behind_a_header() {
    let origin = Origin::answering(|_| Response::ok("x").cache("max-age=60"));
    let tls = format!(", tls: {{certificates: {CERTIFICATE}}}");
    let plan = plan_for(&origin, "loopback", &tls);
    let ktrix = plan.start();
    let mut client = secured(&plan, b"http/1.1");
    for _ in 0..2 {
        client.write_all(b"GET /who HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let mut buf = [0; 4096];
        let mut got = Vec::new();
        while !got.ends_with(b"192.0.2.7 https") {
            let n_read = client.read(&mut buf).unwrap();
            assert!(n_read > 0, "{}", String::from_utf8_lossy(&got));
            got.extend_from_slice(&buf[..n_read]);
        }
    }
    let mut raw = Raw::on(Socket::Tls(Box::new(secured(&plan, b"h2"))));
    for stream in [1, 3] {
        let [method, _, authority, path] = of_get("/a");
        raw.send(&Frame::head(stream, &[method, (":scheme", "https"), authority, path]));
        assert_eq!(raw.outcome(stream).unwrap().status(), 200);
    }
    let lines = ktrix.wait_access_lines(4);
    assert!(lines.iter().all(|line| line.contains("\"client\":\"192.0.2.7\"")), "{lines:#?}");
    // HTTP/2 in the clear begins by its preface.
    let plan = plan_for(&origin, "loopback", "");
    let _ktrix = plan.start();
    let mut socket = Socket::connect(&plan.address, crate::support::PATIENCE).unwrap();
    socket.write_all(V1).unwrap();
    let mut raw = Raw::on(socket);
    raw.send(&Frame::get(1, "/a"));
    assert_eq!(raw.outcome(1).unwrap().status(), 200);
}

#[test]
fn a_unix_socket_takes_headers_too() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin).set("workers", "1").set("sites", WHO);
    let ip = ip_of(&plan);
    let listen = format!("[\"{ip}\", {{address: \"unix:$DIR/sock\", proxy-protocol: unix}}]");
    let plan = plan.set("listen", &listen);
    let _ktrix = plan.start();
    let socket = Address::Unix(plan.dir().join("sock"));
    for header in [V1, V2] {
        let mut client = Client::connect(&socket);
        client.write(header);
        client.get("/who").expect_body("192.0.2.7 http");
    }
}

#[test]
fn balancing_by_source_goes_by_the_address_in_the_header() {
    let named = |name: &'static str| Origin::answering(move |_| Response::ok(name));
    let (one, two) = (named("one"), named("two"));
    let servers = format!("servers: [\"{}\", \"{}\"]", one.name(), two.name());
    let plan = plan_for(&one, "loopback", "")
        .set("upstreams", &format!("{{app: {{balance: source, {servers}}}}}"))
        .set("sites", "[{routes: [{path: /, upstream: app, cache: off}]}]");
    let ktrix = plan.start();
    let served_by = |last: u8| {
        let header = format!("PROXY TCP4 192.0.2.{last} 198.51.100.2 {last} 443\r\n");
        proxied(&ktrix, header.as_bytes()).get("/").text()
    };
    let before: Vec<_> = (1..=16).map(served_by).collect();
    assert!(before.contains(&"one".to_owned()) && before.contains(&"two".to_owned()), "{before:?}");
    assert_eq!(before, (1..=16).map(served_by).collect::<Vec<_>>());
}

/// An origin that keeps the bytes up to the end of the first head of each connection.
fn recording() -> (Origin, Arc<Mutex<Vec<Vec<u8>>>>) {
    let all = Arc::<Mutex<Vec<Vec<u8>>>>::default();
    let seen = Arc::clone(&all);
    let origin = Origin::wired(move |connection| {
        // A header of version 2 begins with an empty line.
        while !connection.unread().get(16..).is_some_and(|it| it.ends_with(b"\r\n\r\n")) {
            if connection.read().unwrap_or(0) == 0 {
                break;
            }
        }
        seen.lock().unwrap().push(connection.unread().to_vec());
        let _ = connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        connection.wait_closed();
    });
    (origin, all)
}

#[test]
fn servers_are_told_each_client_on_a_connection_of_its_own() {
    let (origin, seen) = recording();
    let plan = Plan::to(&format!("{{servers: [\"{}\"], proxy-protocol: v1}}", origin.name()));
    let ktrix = plan.start();
    let mut client = Client::connect_from([127, 0, 1, 1], &plan.address);
    let ip = ip_of(&plan);
    for _ in 0..3 {
        client.ask(&Ask::post("/a", "")).expect_body("ok");
    }
    ktrix.get("/b").expect_body("ok");
    let seen = seen.lock().unwrap();
    let text = |n: usize| String::from_utf8_lossy(&seen[n]).into_owned();
    assert_eq!(seen.len(), 4);
    for n in 0..3 {
        assert!(text(n).starts_with("PROXY TCP4 127.0.1.1 127.0.0.1 "), "{}", text(n));
        let expected = format!(" {}\r\nPOST /a HTTP/1.1\r\n", ip.port());
        assert!(text(n).contains(&expected), "{}", text(n));
    }
    assert!(text(3).starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "), "{}", text(3));
}

#[test]
fn a_binary_header_tells_the_request_and_the_clients_tls() {
    let (origin, seen) = recording();
    let plan = Plan::to(&format!("{{servers: [\"{}\"], proxy-protocol: v2}}", origin.name()));
    let plan = plan.with_tls();
    let ktrix = plan.start();
    ktrix.ask(&Ask::post("/a", "")).expect_body("ok");
    let line = ktrix.wait_access_lines(1).remove(0);
    let seen = seen.lock().unwrap();
    let has = |part: &[u8]| seen[0].windows(part.len()).any(|it| it == part);
    assert!(seen[0].starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21\x11"), "{:?}", seen[0]);
    for (kind, value) in [(1_u8, "http/1.1"), (2, "localhost"), (0x21, "TLSv1.3")] {
        let part = [&[kind, 0, value.len() as u8], value.as_bytes()].concat();
        assert!(has(&part), "{value}: {:?}", seen[0]);
    }
    let id = line.split("\"request_id\":\"").nth(1).unwrap().get(..32).unwrap();
    assert!(has(&[b"\x05\0\x20", id.as_bytes()].concat()), "{id}: {:?}", seen[0]);
}

#[test]
fn one_ktrix_tells_another_who_the_client_is() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let inner = plan_for(&origin, "loopback", "");
    let _inner = inner.start();
    for version in ["v1", "v2"] {
        let server = ip_of(&inner);
        let upstream = format!("{{servers: [\"{server}\"], proxy-protocol: {version}}}");
        let outer = Plan::to(&upstream);
        let _outer = outer.start();
        for last in 1..5 {
            let mut client = Client::connect_from([127, 0, 3, last], &outer.address);
            client.get(&format!("/who?{last}")).expect_body(format!("127.0.3.{last} http"));
        }
    }
}

#[test]
fn checks_say_that_they_are_no_clients() {
    for (version, local) in [("v1", &b"PROXY UNKNOWN\r\n"[..]), ("v2", LOCAL)] {
        let (origin, seen) = recording();
        let check = "check: {path: /health, interval: 100ms}";
        let (name, seen_by) = (origin.name(), || seen.lock().unwrap().len() > 1);
        let plan =
            Plan::to(&format!("{{servers: [\"{name}\"], proxy-protocol: {version}, {check}}}"));
        let _ktrix = plan.start();
        until_true("two checks", seen_by);
        let expected = [local, b"GET /health HTTP/1.1\r\n"].concat();
        assert!(seen.lock().unwrap().iter().all(|it| it.starts_with(&expected)), "{seen:?}");
    }
}
