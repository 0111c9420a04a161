//! Memory is bounded by the configuration, for any clients and origins.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::support::h2::{
    ACK, DATA, END_STREAM, Frame, GOAWAY, HEADERS, Raw, SETTINGS, WINDOW_UPDATE, of_get,
};
use crate::support::socket::Address;
use crate::support::{
    Ask, Client, Gate, Ktrix, Origin, Plan, Response, alone, pattern, until, until_true,
};

const MIB: u64 = 1 << 20;

fn address(plan: &Plan) -> SocketAddr {
    let Address::Ip(address) = plan.address else { unreachable!() };
    address
}

/// User memory of all workers, once it has stopped changing.
fn settled(ktrix: &Ktrix<'_>) -> u64 {
    let mut last = 0;
    until("the workers' memory to settle", Duration::from_secs(20), || {
        std::thread::sleep(Duration::from_millis(200));
        let now: u64 = ktrix.workers().iter().map(|w| w.private_bytes()).sum();
        (std::mem::replace(&mut last, now).abs_diff(now) < 64 << 10).then_some(now)
    })
}

/// Connections with one answered request that wait for the next.
fn idle(ktrix: &Ktrix<'_>, n: usize) -> Vec<Client> {
    let ask = Ask::get("/small");
    let mut clients: Vec<Client> = (0..n).map(|_| ktrix.client()).collect();
    for client in &mut clients {
        client.send(&ask);
    }
    for client in &mut clients {
        client.answer().expect_status(200);
    }
    clients
}

#[test]
fn an_idle_connection_costs_less_than_a_kibibyte() {
    alone();
    let origin = Origin::answering(|_| Response::ok("hello").cache("max-age=600"));
    let plan = Plan::new(&origin).set("workers", "1").set("timeouts", "{client-idle: 10m}");
    let ktrix = plan.start();
    ktrix.get("/small");
    ktrix.wait_hit("/small");
    let _first = idle(&ktrix, 200);
    let before = settled(&ktrix);
    let n = 6_000;
    let clients = idle(&ktrix, n);
    let after = settled(&ktrix);
    let each = after.saturating_sub(before) / n as u64;
    println!("{each} bytes for each idle connection");
    assert!(each < 1024, "{each} bytes for each of {n} idle connections");
    drop(clients);
}

#[test]
fn an_idle_http2_connection_costs_little() {
    alone();
    let origin = Origin::answering(|_| Response::ok("hello").cache("max-age=600"));
    let plan = Plan::new(&origin).set("workers", "1").set("timeouts", "{client-idle: 10m}");
    let ktrix = plan.start();
    ktrix.get("/small");
    ktrix.wait_hit("/small");
    let idle = |n: usize| -> Vec<Raw> {
        let mut clients: Vec<Raw> = (0..n).map(|_| Raw::connect(&plan.address)).collect();
        for client in &mut clients {
            client.send(&Frame::new(SETTINGS, ACK, 0, b""));
            client.send(&Frame::get(1, "/small"));
            while client.expect(DATA, 1).flags & END_STREAM == 0 {}
        }
        clients
    };
    let _first = idle(100);
    let before = settled(&ktrix);
    let n = 2_000;
    let clients = idle(n);
    let each = settled(&ktrix).saturating_sub(before) / n as u64;
    println!("{each} bytes for each idle HTTP/2 connection");
    // Of 20 KiB, the buffers of the library are the larger part.
    assert!(each < 22 << 10, "{each} bytes for each of {n} idle HTTP/2 connections");
    drop(clients);
}

/// A connection whose windows of 512 KiB for each stream and 16 MiB for all are larger than what its
/// socket takes.
fn wide(plan: &Plan) -> Raw {
    let mut client = Raw::connect(&plan.address);
    let window = [&4u16.to_be_bytes()[..], &(512u32 << 10).to_be_bytes()].concat();
    client.send(&Frame::new(SETTINGS, 0, 0, window));
    client.send(&Frame::new(WINDOW_UPDATE, 0, 0, (16u32 << 20).to_be_bytes()));
    client
}

/// Has a response stored, and kept in memory: a body that is large is read once it was used again.
fn warm(ktrix: &Ktrix<'_>, target: &str) {
    let ask = Ask::get(target).field("Host", "h");
    for _ in 0..3 {
        until_true("a hit", || ktrix.ask(&ask).is_hit());
    }
}

#[test]
fn readers_that_stall_in_a_stored_answer_cost_little() {
    alone();
    let origin = Origin::answering(|_| Response::ok(pattern(1 << 20)).cache("max-age=600"));
    // The body is in memory once it was used again, or stays in its file.
    for (memory, n_kib_max) in [("1 MiB", 24), ("64 KiB", 80)] {
        let cache = format!("{{path: $DIR/cache, size: 1 GiB, memory-object: {memory}}}");
        let plan = Plan::new(&origin).set("workers", "1").set("cache", &cache);
        let plan = plan.set("timeouts", "{client-send: 10m}");
        let ktrix = plan.start();
        warm(&ktrix, "/large");
        let before = settled(&ktrix);
        let mut clients = Vec::new();
        for _ in 0..1_000 {
            let mut client = wide(&plan);
            client.send(&Frame::get(1, "/large"));
            client.expect(DATA, 1);
            clients.push(client);
        }
        let each = (settled(&ktrix).saturating_sub(before) / 1_000) >> 10;
        println!("{each} KiB for each stalled HTTP/2 reader with {memory}");
        assert!(each < n_kib_max, "{each} KiB for each stalled HTTP/2 reader with {memory}");
    }
    let plan = Plan::new(&origin).set("workers", "1").with_tls();
    let plan = plan.set("timeouts", "{client-send: 10m}");
    let ktrix = plan.start();
    ktrix.get("/large");
    (0..3).for_each(|_| drop(ktrix.wait_hit("/large")));
    let before = settled(&ktrix);
    let mut clients = Vec::new();
    for _ in 0..1_000 {
        let mut client = ktrix.client();
        client.send(&Ask::get("/large"));
        assert_eq!(client.answer_head().0, 200);
        clients.push(client);
    }
    let grown = settled(&ktrix).saturating_sub(before);
    println!("{} KiB for 1,000 stalled readers with TLS", grown >> 10);
    assert!(grown < 20 * MIB, "{} KiB for 1,000 stalled readers with TLS", grown >> 10);
}

#[test]
fn many_streams_of_a_stalled_connection_cost_as_little_as_one_and_all_end_later() {
    alone();
    // In memory behind their heads, and in files.
    for (n_bytes, n_mib_max) in [(60_000, 8), (70_000, 20)] {
        let origin =
            Origin::answering(move |_| Response::ok(pattern(n_bytes)).cache("max-age=600"));
        let cache = "{path: $DIR/cache, size: 1 GiB, memory-object: 64 KiB}";
        let plan = Plan::new(&origin).set("workers", "1").set("cache", cache);
        let plan = plan.set("timeouts", "{client-idle: 300ms, client-send: 10m}");
        let ktrix = plan.start();
        (0..128).for_each(|n| warm(&ktrix, &format!("/{n}")));
        let before = settled(&ktrix);
        let mut clients: Vec<Raw> = (0..8).map(|_| wide(&plan)).collect();
        for client in &mut clients {
            let gets: Vec<Frame> =
                (0..128).map(|n| Frame::get(2 * n + 1, &format!("/{n}"))).collect();
            assert!(client.try_send(&gets));
            // The first bytes of the answers have come.
            client.expect(HEADERS, 1);
        }
        let grown = settled(&ktrix).saturating_sub(before);
        println!("{} KiB for 8 stalled connections of 128 streams of {n_bytes}", grown >> 10);
        // The answers have 60 MiB.
        assert!(
            grown < n_mib_max * MIB,
            "{} KiB for 1,024 stalled streams of {n_bytes}",
            grown >> 10
        );
        // A connection that is idle is ended meanwhile, and these are not.
        let mut idle = Raw::connect(&plan.address);
        let fields = [&[(":method", "HEAD")][..], &of_get("/0")[1..]].concat();
        idle.send(&Frame::head(1, &fields));
        idle.expect(HEADERS, 1);
        assert_eq!(idle.ended().map(|goodbye| goodbye.code()), Some(0));
        for client in &mut clients {
            let mut n_ended = 0;
            while n_ended < 128 {
                let frame = client.next().expect("a frame");
                assert_ne!(frame.kind, GOAWAY);
                n_ended += i32::from(frame.kind == DATA && frame.flags & END_STREAM != 0);
            }
        }
    }
}

#[test]
fn bodies_half_received_stay_within_body_memory() {
    alone();
    let origin = Origin::answering(|r| Response::ok(r.body.len().to_string()));
    let plan = Plan::new(&origin).set("limits", "{body: 64 MiB, body-memory: 64 KiB}");
    let ktrix = plan.start();
    let before = settled(&ktrix);
    let request = Ask::post("/p", pattern(2 << 20)).bytes("a");
    let mut clients = Vec::new();
    for _ in 0..200 {
        let mut client = ktrix.client();
        client.write(&request[..1 << 20]);
        clients.push(client);
    }
    let grown = settled(&ktrix).saturating_sub(before);
    // 200 bodies of 64 KiB, and as much again for their surroundings.
    assert!(grown < 25 * MIB, "{} KiB for 200 half bodies", grown >> 10);
    for client in &mut clients[..5] {
        client.write(&request[1 << 20..]);
        client.answer().expect_status(200).expect_body((2 << 20).to_string());
    }
}

#[test]
fn readers_that_do_not_read_cost_no_copies() {
    alone();
    let large: Arc<[u8]> = pattern(16 << 20).into();
    let origin = Origin::answering(move |request| {
        let control = if request.target == "/pass" { "no-store" } else { "max-age=600" };
        Response::shared(&large).cache(control)
    });
    let plan = Plan::new(&origin).set("cache", "{path: $DIR/cache, memory: 4 MiB}");
    let ktrix = plan.start();
    ktrix.get("/stored").expect_status(200);
    ktrix.wait_hit("/stored");
    let before = settled(&ktrix);
    let mut clients = Vec::new();
    for i in 0..100 {
        let mut client = ktrix.client().receive_buffer(4096);
        client.send(&Ask::get(if i % 2 == 0 { "/pass" } else { "/stored" }));
        assert_eq!(client.answer_head().0, 200);
        clients.push(client);
    }
    let grown = settled(&ktrix).saturating_sub(before);
    assert!(grown < 32 * MIB, "{} KiB for 100 stuck readers of 16 MiB", grown >> 10);
}

#[test]
fn heads_half_received_stay_within_their_limit() {
    alone();
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin).set("limits", "{head: 16 KiB}");
    let ktrix = plan.start();
    let before = settled(&ktrix);
    let part = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(12 << 10));
    let clients: Vec<TcpStream> = (0..1_000)
        .map(|_| {
            let mut stream = TcpStream::connect(address(&plan)).expect("connect");
            stream.write_all(part.as_bytes()).expect("send");
            stream
        })
        .collect();
    let grown = settled(&ktrix).saturating_sub(before);
    assert!(grown < 36 * MIB, "{} KiB for 1,000 heads of 16 KiB at most", grown >> 10);
    drop(clients);
}

#[test]
fn connections_over_the_limit_wait_or_are_refused_and_come_in_later() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin).set("workers", "1").set("limits", "{connections: 20}");
    let ktrix = plan.start();
    let held = idle_up_to(&ktrix, 20);
    let mut more: Vec<Client> =
        (0..10).filter_map(|_| Client::try_connect(&plan.address).ok()).collect();
    drop(held);
    until_true("a client to be served after the crowd has gone", || {
        let Ok(mut client) = Client::try_connect(&plan.address) else { return false };
        client.try_ask(&Ask::get("/small")).is_ok_and(|a| a.status == 200)
    });
    more.clear();
}

fn idle_up_to(ktrix: &Ktrix<'_>, n: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..n {
        let Ok(mut client) = Client::try_connect(&ktrix.plan.address) else { continue };
        if client.try_ask(&Ask::get("/small")).is_ok() {
            clients.push(client);
        }
    }
    clients
}

#[test]
fn the_hot_tier_stays_within_its_size() {
    alone();
    let origin = Origin::answering(|_| Response::ok(pattern(50_000)).cache("max-age=600"));
    let plan = Plan::new(&origin)
        .set("workers", "1")
        .set("cache", "{path: $DIR/cache, objects: 10000, memory: 8 MiB}");
    let ktrix = plan.start();
    let before = settled(&ktrix);
    let mut client = ktrix.client();
    for round in 0..4 {
        for i in 0..600 {
            let answer = client.get(&format!("/{i}")).expect_status(200);
            assert_eq!(answer.body.len(), 50_000, "round {round}");
        }
    }
    let grown = settled(&ktrix).saturating_sub(before);
    assert!(grown < 20 * MIB, "{} KiB with a hot tier of 8 MiB", grown >> 10);
}

#[test]
fn the_memory_of_a_burst_goes_back_to_the_system() {
    alone();
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |request| {
        let response = Response::ok("hello").cache("no-store");
        if request.target == "/held" { response.gated(&held) } else { response }
    });
    let plan = Plan::new(&origin)
        .set("workers", "1")
        .set("upstreams", &format!("{{app: {{servers: ['{}'], pending: 10000}}}}", origin.name()));
    let ktrix = plan.start();
    ktrix.get("/");
    let before = settled(&ktrix);
    let ask = Ask::get("/held").field("X-Filler", "x".repeat(8 << 10));
    let mut clients: Vec<Client> = (0..3_000).map(|_| ktrix.client()).collect();
    clients.iter_mut().for_each(|client| client.send(&ask));
    until_true("the burst to be in memory", || settled(&ktrix) > before + 40 * MIB);
    drop(clients);
    gate.open();
    until("the memory to go back", Duration::from_secs(60), || {
        let now = settled(&ktrix);
        (now < before + 10 * MIB).then_some(())
    });
}
