//! Listeners with `mode: tcp`: bytes to a server and back, chosen by the name of the ClientHello.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use nix::sys::signal::Signal;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use crate::support::ktrix::{CERTIFICATE, reserve};
use crate::support::socket::Address;
use crate::support::tls::authority;
use crate::support::{Client, Ktrix, Origin, PATIENCE, Plan, Response, pattern, until, until_true};

fn ip_of(plan: &Plan) -> SocketAddr {
    let Address::Ip(ip) = plan.address else { unreachable!("a plan has an IP address") };
    ip
}

/// A plan with one listener, which passes bytes on; `more` are keys of it.
fn plan_with(upstreams: &str, more: &str) -> Plan {
    let plan = Plan::to("{servers: [\"127.0.0.1:9\"]}").set("upstreams", upstreams);
    let listen = format!("[{{address: \"{}\", mode: tcp{more}}}]", ip_of(&plan));
    plan.set("listen", &listen).without("sites").set("workers", "1")
}

/// Starts ktrix, and waits for the end of the connection that has found it ready.
fn start(plan: &Plan) -> Ktrix<'_> {
    let ktrix = plan.start();
    ktrix.wait_access_lines(1);
    ktrix
}

fn to_one(origin: &Origin, more: &str) -> Plan {
    plan_with(&format!("{{app: {{servers: [\"{}\"]}}}}", origin.name()), more)
}

/// A server that says its name, and then what it gets.
fn echo(name: &'static str) -> Origin {
    Origin::wired(move |connection| {
        let mut n_sent = 0;
        let _ = connection.write(name.as_bytes());
        loop {
            let more = connection.unread().get(n_sent..).unwrap_or_default().to_vec();
            n_sent += more.len();
            if connection.write(&more).is_err() || connection.read().unwrap_or(0) == 0 {
                return;
            }
        }
    })
}

fn connect(ktrix: &Ktrix<'_>) -> TcpStream {
    let stream = TcpStream::connect(ip_of(ktrix.plan)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[track_caller]
fn expect(stream: &mut TcpStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).unwrap();
    assert!(got == expected, "{:?}", String::from_utf8_lossy(&got[..got.len().min(80)]));
}

/// What is left to be read; a reset counts as the end.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    rest
}

#[test]
fn bytes_go_both_ways_and_the_line_says_how_many() {
    let origin = echo("<");
    let plan = to_one(&origin, ", upstream: app");
    let ktrix = start(&plan);
    let mut stream = connect(&ktrix);
    expect(&mut stream, b"<");
    let body = pattern(3 << 20);
    let writer = {
        let (mut stream, body) = (stream.try_clone().unwrap(), body.clone());
        std::thread::spawn(move || {
            stream.write_all(&body).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        })
    };
    assert!(rest(&mut stream) == body, "a half-closed client gets the rest");
    writer.join().unwrap();
    let line = ktrix.wait_access_lines(2).remove(1);
    let (sent, received) = (body.len() + 1, body.len());
    for part in [
        format!("\"sent_bytes\":{sent}"),
        format!("\"received_bytes\":{received}"),
        "\"method\":\"TCP\"".into(),
        "\"status\":200".into(),
        format!("\"upstream\":\"app\",\"server\":\"{}\"", origin.name()),
        "\"close\":\"finished\"".into(),
    ] {
        assert!(line.contains(&part), "{part} in {line}");
    }
}

#[test]
fn a_server_that_refuses_is_skipped_and_without_any_the_connection_is_closed() {
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut origin = echo("here");
    let upstream =
        format!("{{app: {{servers: [\"{refused}\", \"{}\"], skip: 1m}}}}", origin.name());
    let plan = plan_with(&upstream, ", upstream: app");
    let ktrix = start(&plan);
    for _ in 0..4 {
        expect(&mut connect(&ktrix), b"here");
    }
    ktrix.wait_error("is down: it could not be reached");
    origin.stop();
    assert_eq!(rest(&mut connect(&ktrix)), b"");
    let lines = ktrix.wait_access_lines(6);
    let last = &lines[5];
    assert!(last.contains("\"status\":502") && last.contains("connect-failed"), "{last}");
}

#[test]
fn a_connection_waits_for_its_place_and_then_gets_503() {
    let origin = echo("here");
    let upstream = format!(
        "{{app: {{servers: [\"{}\"], connections: 1, pending-timeout: 300ms}}}}",
        origin.name()
    );
    let plan = plan_with(&upstream, ", upstream: app");
    let ktrix = start(&plan);
    let mut first = connect(&ktrix);
    expect(&mut first, b"here");
    assert_eq!(rest(&mut connect(&ktrix)), b"", "no place in time");
    let line = ktrix.wait_access_lines(2).remove(1);
    assert!(line.contains("\"status\":503") && line.contains("pending-timeout"), "{line}");
    drop(first);
    expect(&mut connect(&ktrix), b"here");
}

/// The first bytes of a client that asks for this name.
fn hello(name: &str) -> Vec<u8> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(authority().client()), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// A plan with an upstream for each of two names.
fn named(origins: &[Origin; 2], more: &str) -> Plan {
    let [one, two] = origins.each_ref().map(Origin::name);
    let upstreams = format!("{{one: {{servers: [\"{one}\"]}}, two: {{servers: [\"{two}\"]}}}}");
    plan_with(&upstreams, &format!(", sni: {{a.example: one, \"*.b.example\": two}}{more}"))
}

#[test]
fn the_name_of_the_client_hello_chooses_the_upstream() {
    let origins = [echo("one"), echo("two")];
    let plan = named(&origins, "");
    let ktrix = start(&plan);
    for (name, expected) in [("a.example", "one"), ("x.b.example", "two")] {
        let hello = hello(name);
        for at in [1, 5, 6, 42, hello.len() - 1, hello.len()] {
            let mut client = Client::connect(&plan.address);
            client.write(&hello[..at]);
            client.wait_taken();
            client.write(&hello[at..]);
            client.shutdown_write();
            let (got, _) = client.read_to_end("the echo");
            assert_eq!(got, [expected.as_bytes(), &hello].concat(), "split at {at}");
        }
    }
    let lines = ktrix.wait_access_lines(13);
    assert!(lines[1..].iter().all(|it| it.contains("\"host\":\"")), "{lines:#?}");
}

#[test]
fn connections_without_a_known_name_are_closed_or_go_to_the_default() {
    let origins = [echo("one"), echo("two")];
    let plan = named(&origins, "").set("timeouts", "{tls-handshake: 300ms}");
    let ktrix = start(&plan);
    for (start, reason) in [
        (hello("c.example"), "unknown-name"),
        (hello("192.0.2.1"), "unknown-name"),
        (b"SSH-2.0-x\r\n".to_vec(), "unknown-name"),
        (b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00".to_vec(), "client-hello"),
        (hello("a.example")[..20].to_vec(), "client-hello-timeout"),
        (Vec::new(), "client-hello-timeout"),
    ] {
        let n_before = plan.access_lines().len();
        let mut stream = connect(&ktrix);
        stream.write_all(&start).unwrap();
        assert_eq!(rest(&mut stream), b"", "{reason}");
        let line = ktrix.wait_access_lines(n_before + 1).remove(n_before);
        assert!(line.contains(&format!("\"close\":\"{reason}\"")), "{reason} in {line}");
    }
    let plan = named(&origins, ", upstream: two");
    let ktrix = plan.start();
    for start in [hello("c.example"), b"SSH-2.0-x\r\n".to_vec()] {
        let mut stream = connect(&ktrix);
        stream.write_all(&start).unwrap();
        expect(&mut stream, &[b"two", &*start].concat());
    }
}

#[test]
fn tls_is_taken_off_and_put_on() {
    let origin = Origin::answering(|it| Response::ok(it.target.clone()));
    let inner = Plan::new(&origin).with_tls();
    let _inner = inner.start();
    let server = ip_of(&inner);
    // Plain to TLS.
    let upstreams = format!("{{app: {{servers: [\"{server}\"], tls: {{verify: off}}}}}}");
    let plan = plan_with(&upstreams, ", upstream: app");
    let _ktrix = plan.start();
    Client::connect(&plan.address).get("/plain").expect_body("/plain");
    // TLS to TLS; the name that a client asks for counts here too.
    let tls = format!(", tls: {{certificates: {CERTIFICATE}}}, sni: {{localhost: app}}");
    let plan = plan_with(&upstreams, &tls);
    let ktrix = plan.start();
    let client = Client::secured(&plan.address, authority().client(), "localhost");
    { client }.get("/secured").expect_body("/secured");
    let line = ktrix.wait_access_lines(1).remove(0);
    assert!(line.contains("\"tls_server_name\":\"localhost\""), "{line}");
}

#[test]
fn proxy_headers_are_taken_and_sent() {
    let origin = echo("");
    let upstreams = format!("{{app: {{servers: [\"{}\"], proxy-protocol: v1}}}}", origin.name());
    let plan = plan_with(&upstreams, ", upstream: app, proxy-protocol: loopback");
    let ktrix = plan.start();
    let mut stream = connect(&ktrix);
    stream.write_all(b"PROXY TCP4 192.0.2.7 198.51.100.2 56324 443\r\nhello").unwrap();
    expect(&mut stream, b"PROXY TCP4 192.0.2.7 198.51.100.2 56324 443\r\nhello");
    drop(stream);
    let line = ktrix.wait_access_lines(1).remove(0);
    assert!(line.contains("\"client\":\"192.0.2.7\""), "{line}");
}

#[test]
fn a_stream_goes_on_over_a_reload() {
    let origin = echo("here");
    let plan = to_one(&origin, ", upstream: app");
    let ktrix = start(&plan);
    let mut stream = connect(&ktrix);
    expect(&mut stream, b"here");
    let before = ktrix.workers();
    ktrix.signal(Signal::SIGHUP);
    until_true("new workers", || ktrix.workers().iter().any(|it| !before.contains(it)));
    let mut newer = connect(&ktrix);
    expect(&mut newer, b"here");
    for stream in [&mut stream, &mut newer] {
        stream.write_all(b"still").unwrap();
        expect(stream, b"still");
    }
}

/// A server that ends with the test.
struct Redis(Child);

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_real_redis_is_served_with_its_own_tools() {
    let (reservation, ip) = reserve("127.0.0.1:0".parse().unwrap());
    drop(reservation);
    let port = ip.port().to_string();
    let mut server = Command::new("redis-server");
    server.args(["--port", &port, "--save", "", "--bind", "127.0.0.1"]).stdout(Stdio::null());
    let Ok(server) = server.spawn() else {
        eprintln!("skipped: redis-server is not installed");
        return;
    };
    let _server = Redis(server);
    until("redis", PATIENCE, || TcpStream::connect(ip).ok());
    let plan = plan_with(&format!("{{db: {{servers: [\"{ip}\"]}}}}"), ", upstream: db");
    let _ktrix = plan.start();
    let port = ip_of(&plan).port().to_string();
    let run = |tool: &str, words: &[&str]| {
        let output = Command::new(tool).args(["-p", &port]).args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(run("redis-cli", &["ping"]), "PONG\n");
    let value = "x".repeat(100_000);
    assert_eq!(run("redis-cli", &["set", "a", &value]), "OK\n");
    assert_eq!(run("redis-cli", &["get", "a"]).trim_end(), value);
    let benchmark = ["-q", "-n", "2000", "-c", "20", "-P", "4", "-t", "set,get,lpush,mset"];
    let said = run("redis-benchmark", &benchmark);
    assert!(said.contains("GET: ") && !said.contains("Error"), "{said}");
}
