//! WebSocket over HTTP/2 (RFC 8441): what opens a tunnel, what does not, and how one ends.

use std::future::poll_fn;

use bytes::Bytes;
use h2::ext::Protocol;
use http::Request;

use crate::support::h2::{H2, Stream};
use crate::support::message::Head;
use crate::support::origin::Connection;
use crate::support::{Gate, Ktrix, Origin, Plan, until_true};
use crate::tunnels::{echo, n_tunnels};

/// A connection whose server has said that it takes CONNECT with a protocol.
fn h2(ktrix: &Ktrix<'_>) -> H2 {
    let mut client = H2::connect(&ktrix.plan.address);
    client.get("/settled").expect_status(200);
    client
}

fn connect(client: &mut H2, protocol: &'static str, target: &str) -> Stream {
    let uri = format!("http://localhost{target}");
    let request =
        Request::connect(uri).extension(Protocol::from_static(protocol)).body(()).unwrap();
    client.open(request, false)
}

/// The status of the answer to a CONNECT with a protocol.
fn status(client: &mut H2, protocol: &'static str, target: &str) -> u16 {
    let stream = connect(client, protocol, target);
    client.answer_to(stream).unwrap().status
}

/// An origin that does this with a request that asks for a WebSocket, and answers others with 200.
fn switching(switch: impl Fn(&mut Connection, &Head) + Send + Sync + 'static) -> Origin {
    Origin::wired(move |connection| {
        while let Ok(head) = connection.head() {
            if head.field("upgrade").is_some() {
                return switch(connection, &head);
            }
            if connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_err() {
                return;
            }
        }
    })
}

fn accept(connection: &mut Connection, head: &Head) {
    let accept = ktrix::http::websocket::accept(head.field("sec-websocket-key").unwrap());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    connection.write(head.as_bytes()).unwrap();
}

#[test]
fn an_answer_that_switches_nothing_is_never_taken_for_a_tunnel() {
    let origin = switching(|connection, head| {
        let answer: &[u8] = match head.start.split(' ').nth(1).unwrap() {
            "/plain" => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain",
            "/gone" => b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n",
            "/other" => b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n",
            "/without" => b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            _ => b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        };
        let _ = connection.write(answer);
    });
    let sites = "[{routes: [{path: /off, upstream: app, upgrade: off}, {path: /, upstream: app}]}]";
    let plan = Plan::new(&origin).set("workers", "1").set("sites", sites);
    let ktrix = plan.start();
    let mut client = h2(&ktrix);
    for (protocol, target, expected) in [
        ("websocket", "/plain", 502),
        ("websocket", "/gone", 410),
        ("websocket", "/other", 502),
        ("websocket", "/without", 502),
        ("websocket", "/wrong", 502),
        ("websocket", "/off", 501),
        ("connect-udp", "/", 501),
    ] {
        assert_eq!(status(&mut client, protocol, target), expected, "{protocol} {target}");
    }
    client.get("/after").expect_status(200);
    assert_eq!(n_tunnels(&ktrix), 0);
}

#[test]
fn bytes_go_both_ways_and_the_end_of_the_stream_is_a_half_close() {
    let origin = switching(|connection, head| {
        accept(connection, head);
        echo(connection);
    });
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    let mut client = h2(&ktrix);
    let Stream { response, body: mut send } = connect(&mut client, "websocket", "/");
    let response = client.run(response).unwrap();
    assert_eq!(response.status(), 200);
    let mut receive = response.into_body();
    for part in [&b"first"[..], b"second"] {
        send.send_data(Bytes::from_static(part), false).unwrap();
        let mut back = Vec::new();
        while back.len() < part.len() {
            let more = client.run(poll_fn(|task| receive.poll_data(task))).unwrap().unwrap();
            receive.flow_control().release_capacity(more.len()).unwrap();
            back.extend(more);
        }
        assert_eq!(back, part);
    }
    assert_eq!(n_tunnels(&ktrix), 1);
    send.send_data(Bytes::new(), true).unwrap();
    let (rest, _) = client.body(&mut receive, 200).unwrap();
    assert_eq!(rest, b"");
    until_true("the end of the tunnel", || n_tunnels(&ktrix) == 0);
}

#[test]
fn a_reset_ends_a_tunnel_whose_origin_takes_nothing() {
    let (gate, closed) = (Gate::new(), Gate::new());
    let (opened, was_closed) = (gate.clone(), closed.clone());
    let origin = switching(move |connection, head| {
        accept(connection, head);
        opened.wait();
        connection.wait_closed();
        was_closed.open();
    });
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    let mut client = h2(&ktrix);
    let Stream { response, body: mut send } = connect(&mut client, "websocket", "/");
    assert_eq!(client.run(response).unwrap().status(), 200);
    // ktrix takes a part, and no more once the kernel's buffers towards the origin are full.
    let block = Bytes::from(vec![b'x'; 64 << 10]);
    let mut n_sent = 0;
    loop {
        send.reserve_capacity(block.len());
        let mut free = 0;
        for _ in 0..200 {
            client.get("/turn").expect_status(200);
            free = send.capacity();
            if free > 0 {
                break;
            }
        }
        if free == 0 {
            break;
        }
        n_sent += free.min(block.len());
        send.send_data(block.slice(..free.min(block.len())), false).unwrap();
        assert!(n_sent < 64 << 20, "somebody takes it");
    }
    send.send_reset(h2::Reason::CANCEL);
    client.get("/after").expect_status(200);
    until_true("the end of the tunnel", || n_tunnels(&ktrix) == 0);
    gate.open();
    closed.wait();
}
