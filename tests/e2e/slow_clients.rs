//! Slow clients: they are cut at their limits and delay no others.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::socket::Address;
use crate::support::{Ask, Client, Load, Origin, Pace, Plan, Response, alone, pattern, until_true};

fn origin() -> Origin {
    let large: Arc<[u8]> = pattern(8 << 20).into();
    Origin::answering(move |request| match &*request.target {
        "/large" => Response::shared(&large).cache("max-age=600"),
        "/pass" => Response::shared(&large).cache("no-store"),
        _ => Response::ok("hello").cache("max-age=600"),
    })
}

fn pages() -> Vec<(String, Arc<[u8]>)> {
    vec![("/small".into(), b"hello".as_slice().into())]
}

#[test]
fn two_thousand_slow_heads_are_cut_in_time_and_delay_no_client() {
    alone();
    let origin = origin();
    let plan = Plan::new(&origin).set("timeouts", "{client-head: 3s}");
    let ktrix = plan.start();
    ktrix.get("/small").expect_status(200);
    ktrix.wait_hit("/small");
    let Address::Ip(address) = plan.address else { unreachable!() };
    let mut slow: Vec<Option<TcpStream>> = (0..2_000)
        .map(|_| {
            let stream = TcpStream::connect(address).expect("connect");
            stream.set_nonblocking(true).expect("non-blocking");
            Some(stream)
        })
        .collect();
    let head = b"GET /slow-head-of-a-client HTTP/1.1\r\nHost: slow.example\r\n\r\n";
    let pace = Pace::start();
    let load = Load::of_pages(&plan.address, 4, pages());
    let start = Instant::now();
    // One byte a second is the attack's own pace.
    for byte in &head[..10] {
        for place in &mut slow {
            if place.as_mut().is_some_and(|s| is_cut(s, *byte)) {
                *place = None;
            }
        }
        let n_left = slow.iter().flatten().count();
        if n_left == 0 {
            break;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    let n_left = slow.iter().flatten().count();
    assert_eq!(n_left, 0, "slow heads that live after {:?}", start.elapsed());
    assert!(start.elapsed() > Duration::from_millis(2_500), "cut after {:?}", start.elapsed());
    let report = load.stop();
    report.expect_faultless();
    let limit = pace.limit(Duration::from_secs(1));
    assert!(report.longest < limit, "{:?}, not {limit:?}", report.longest);
    origin.expect_requests(1);
}

/// Sends a byte; true if ktrix has closed.
fn is_cut(stream: &mut TcpStream, byte: u8) -> bool {
    if stream.write(&[byte]).is_err() {
        return true;
    }
    let mut part = [0; 512];
    match stream.read(&mut part) {
        Ok(0) => true,
        Ok(_) => part.starts_with(b"HTTP/1.1 408"),
        Err(e) => e.kind() != ErrorKind::WouldBlock,
    }
}

#[test]
fn a_slow_head_is_answered_with_408() {
    let origin = origin();
    let plan = Plan::new(&origin).set("timeouts", "{client-head: 300ms}");
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.write(b"GET / HTTP/1.1\r\nHo");
    client.answer().expect_status(408);
    client.expect_closed();
    // The time is for each head, not for the connection.
    let mut client = ktrix.client();
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(120));
        client.get("/small").expect_status(200);
    }
}

#[test]
fn slow_readers_of_a_large_object_delay_no_client() {
    alone();
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    // The first slow reader is the one with the request that fills the object.
    let mut slow: Vec<Client> = Vec::new();
    for i in 0..20 {
        let mut client = ktrix.client().receive_buffer(4096);
        client.send(&Ask::get(if i % 2 == 0 { "/large" } else { "/pass" }));
        assert_eq!(client.answer_head().0, 200);
        slow.push(client);
    }
    let pace = Pace::start();
    let load = Load::of_pages(&plan.address, 4, pages());
    let start = Instant::now();
    for _ in 0..5 {
        ktrix.get("/large").expect_status(200).expect_body(pattern(8 << 20));
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let report = load.stop();
    report.expect_faultless();
    let limit = pace.limit(Duration::from_secs(1));
    assert!(report.longest < limit, "{:?}, not {limit:?}", report.longest);
    assert_eq!(origin.count("/large"), 1);
}

#[test]
fn a_reader_that_takes_nothing_is_cut() {
    let origin = origin();
    let plan = Plan::new(&origin).set("timeouts", "{client-send: 500ms}");
    let ktrix = plan.start();
    ktrix.get("/large").expect_status(200);
    let workers = ktrix.workers();
    let n_before: usize = workers.iter().map(|w| w.n_fds()).sum();
    let stuck: Vec<Client> = (0..10)
        .map(|_| {
            let mut client = ktrix.client().receive_buffer(4096);
            client.send(&Ask::get("/large"));
            client.answer_head();
            client
        })
        .collect();
    until_true("the stuck readers to be cut", || {
        workers.iter().map(|w| w.n_fds()).sum::<usize>() <= n_before + 2
    });
    drop(stuck);
}
