//! One fetch for many: all clients of a cold object follow its one fill.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::socket::Address;
use crate::support::{
    Ask, Broken, Client, Gate, Origin, Plan, Response, alone, pattern, until, until_true,
};

const LARGE: usize = 8 << 20;

fn four_workers(origin: &Origin) -> Plan {
    Plan::new(origin).set("workers", "4")
}

/// An origin with a large object that stops at this byte until the gate opens.
fn held_at(byte: usize, gate: &Gate) -> Origin {
    let (gate, body): (Gate, Arc<[u8]>) = (gate.clone(), pattern(LARGE).into());
    Origin::answering(move |_| {
        Response::shared(&body)
            .cache("max-age=600")
            .gated_at(byte, &gate)
            .slowly(256 << 10, Duration::ZERO)
    })
}

/// Reads an answer's body and compares it as it comes; calls `first` at its first byte.
fn read_against(client: &mut Client, body: &[u8], first: impl FnOnce()) {
    let (status, head) = client.answer_head();
    assert_eq!(status, 200, "{}", head.start);
    assert_eq!(head.field("content-length"), Some(&*body.len().to_string()));
    let mut first = Some(first);
    let mut at = 0;
    while at < body.len() {
        let part = client.read();
        assert!(!part.is_empty(), "the answer ended after {at} bytes");
        assert!(body[at..].starts_with(&part), "other bytes at {at}");
        at += part.len();
        if let Some(first) = first.take() {
            first();
        }
    }
}

#[test]
fn two_hundred_clients_of_a_cold_object_cost_one_request() {
    alone();
    let gate = Gate::new();
    // The origin holds its last 2 MiB until every client has seen a first byte.
    let origin = held_at(6 << 20, &gate);
    let plan = four_workers(&origin);
    let ktrix = plan.start();
    let body: Arc<[u8]> = pattern(LARGE).into();
    let n_first = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..200)
        .map(|_| {
            let (address, body) = (plan.address.clone(), Arc::clone(&body));
            let n_first = Arc::clone(&n_first);
            let run = move || {
                let mut client = Client::connect(&address);
                client.send(&Ask::get("/large"));
                read_against(&mut client, &body, || {
                    n_first.fetch_add(1, Ordering::SeqCst);
                });
            };
            thread::Builder::new().stack_size(512 << 10).spawn(run).unwrap()
        })
        .collect();
    let counter = Arc::clone(&n_first);
    until_true("a first byte for each of the 200 before the origin's last", || {
        counter.load(Ordering::SeqCst) == 200
    });
    assert!(!gate.is_open());
    gate.open();
    for thread in threads {
        thread.join().expect("a client");
    }
    origin.expect_requests(1);
    let mut client = Client::connect(&plan.address);
    client.send(&Ask::get("/large"));
    read_against(&mut client, &body, || ());
    origin.expect_requests(1);
    drop(ktrix);
}

#[test]
fn clients_that_came_while_the_head_was_awaited_follow_too() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |_| Response::ok("late").cache("max-age=60").gated(&held));
    let plan = four_workers(&origin);
    let ktrix = plan.start();
    let mut clients: Vec<Client> = (0..50).map(|_| ktrix.client()).collect();
    for client in &mut clients {
        client.send(&Ask::get("/a"));
    }
    origin.wait_requests(1);
    gate.open();
    for client in &mut clients {
        client.answer().expect_status(200).expect_body("late");
    }
    origin.expect_requests(1);
}

#[test]
fn followers_are_marked_collapsed_and_leaders_are_not() {
    let gate = Gate::new();
    let origin = held_at(1 << 20, &gate);
    let plan = four_workers(&origin);
    let ktrix = plan.start();
    let mut clients: Vec<Client> = (0..8).map(|_| ktrix.client()).collect();
    for client in &mut clients {
        client.send(&Ask::get("/large"));
    }
    let is_collapsed = |client: &mut Client| {
        let (status, head) = client.answer_head();
        assert_eq!(status, 200);
        let status = head.field("cache-status").expect("Cache-Status");
        assert!(status.contains("; fwd=") && !status.contains("hit"), "{status}");
        status.split("; ").any(|parameter| parameter == "collapsed")
    };
    let n_collapsed = clients.iter_mut().map(is_collapsed).filter(|it| *it).count();
    assert_eq!(n_collapsed, 7, "of 8");
    origin.expect_requests(1);
    gate.open();
}

#[test]
fn fifty_at_once_for_an_uncacheable_object_do_not_queue() {
    let gates = [Gate::new(), Gate::new()];
    let held = gates.clone();
    let origin = Origin::answering(move |request| {
        let response = Response::ok("mine").cache("no-store");
        match request.number {
            // Until its head arrives, ktrix cannot know that the object is not shared.
            0 => response,
            1..50 => response.gated(&held[0]),
            _ => response.gated(&held[1]),
        }
    });
    let plan = four_workers(&origin);
    let ktrix = plan.start();
    for (round, gate) in gates.iter().enumerate() {
        let mut clients: Vec<Client> = (0..50).map(|_| ktrix.client()).collect();
        for client in &mut clients {
            client.send(&Ask::get("/mine"));
        }
        // All of them are at the origin at the same time: no client waits for another's answer.
        let n = 50 * (round + 1);
        until_true(&format!("{n} requests at the origin at once"), || origin.n_requests() == n);
        gate.open();
        for client in &mut clients {
            client.answer().expect_status(200).expect_body("mine");
        }
    }
    origin.expect_requests(100);
}

#[test]
fn bytes_before_a_pause_of_the_origin_reach_the_client_at_once() {
    // At one of many places a helper is writing when the last bytes before the pause come.
    const STEP: usize = 99_991;
    let (gate, body): (Gate, Arc<[u8]>) = (Gate::new(), pattern(LARGE).into());
    let held = gate.clone();
    let origin = Origin::answering(move |request| {
        let n: usize = request.target[1..].parse().unwrap();
        Response::shared(&body).cache("max-age=600").gated_at(n * STEP, &held)
    });
    let plan = four_workers(&origin);
    let ktrix = plan.start();
    for n in 1..=24 {
        let mut client = ktrix.client();
        client.send(&Ask::get(&format!("/{n}")));
        assert_eq!(client.answer_head().0, 200);
        let mut n_read = 0;
        while n_read < n * STEP {
            n_read += client.read().len();
        }
        assert_eq!(n_read, n * STEP, "the origin pauses here");
    }
    gate.open();
}

#[test]
fn a_client_that_leaves_does_not_end_the_answers_of_others() {
    let gate = Gate::new();
    let origin = held_at(1 << 20, &gate);
    let plan = four_workers(&origin);
    let ktrix = plan.start();
    let mut first = ktrix.client();
    first.send(&Ask::get("/large"));
    assert_eq!(first.answer_head().0, 200);
    let mut second = ktrix.client();
    second.send(&Ask::get("/large"));
    let body = pattern(LARGE);
    first.reset();
    gate.open();
    read_against(&mut second, &body, || ());
    origin.expect_requests(1);
}

#[test]
fn followers_that_have_seen_nothing_outlive_the_fills_worker() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |request| match request.number {
        0 => Response::ok("never").cache("max-age=60").gated(&held),
        _ => Response::ok("second").cache("max-age=60"),
    });
    let plan = four_workers(&origin);
    let ktrix = plan.start();
    let Address::Ip(address) = plan.address else { unreachable!() };
    let mut clients: Vec<Client> = Vec::new();
    // The worker that is up first may accept all connections for a while.
    until_true("clients at two workers", || {
        clients.extend((0..20).map(|_| ktrix.client()));
        clients.iter_mut().rev().take(20).for_each(|client| client.send(&Ask::get("/a")));
        ktrix.workers().iter().filter(|it| it.serves(address.port())).count() > 1
    });
    origin.wait_requests(1);
    let leader = until("the worker that talks to the origin", Duration::from_secs(10), || {
        ktrix.workers().into_iter().find(|w| w.talks_to(origin.ip().port()))
    });
    leader.signal(Signal::SIGKILL);
    let mut n_served = 0;
    for client in &mut clients {
        match client.try_answer() {
            Ok(answer) => {
                answer.expect_status(200).expect_body("second");
                n_served += 1;
            }
            Err(Broken::Closed) => {}
            Err(other) => panic!("a follower got {other:?}"),
        }
    }
    gate.open();
    assert!(n_served > 0, "every follower was lost");
    let n = origin.n_requests();
    assert!((2..=4).contains(&n), "{n} requests at the origin");
    ktrix.wait_hit("/a").expect_body("second");
    until_true("no unfinished file", || plan.unfinished_files().is_empty());
}

#[test]
fn followers_in_the_middle_see_that_their_answer_is_not_whole() {
    let gate = Gate::new();
    let origin = held_at(4 << 20, &gate);
    let plan = four_workers(&origin);
    let ktrix = plan.start();
    let mut clients: Vec<Client> = (0..20).map(|_| ktrix.client()).collect();
    for client in &mut clients {
        client.send(&Ask::get("/large"));
    }
    for client in &mut clients {
        assert!(!client.read().is_empty());
    }
    let leader = until("the worker that talks to the origin", Duration::from_secs(10), || {
        ktrix.workers().into_iter().find(|w| w.talks_to(origin.ip().port()))
    });
    leader.signal(Signal::SIGKILL);
    for client in &mut clients {
        let (rest, _) = client.read_to_end("the rest");
        assert!(rest.len() < 6 << 20, "an answer went on after its fill was lost");
    }
    gate.open();
    let mut client = ktrix.client();
    client.send(&Ask::get("/large"));
    read_against(&mut client, &pattern(LARGE), || ());
    ktrix.wait_hit("/large");
    plan.verify_cache();
}

#[test]
fn no_client_waits_for_a_dead_origin_behind_another() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |_| Response::ok("late").gated(&held));
    let plan = four_workers(&origin).set("timeouts", "{first-byte: 2s}");
    let ktrix = plan.start();
    let mut clients: Vec<Client> = (0..16).map(|_| ktrix.client()).collect();
    let start = Instant::now();
    for client in &mut clients {
        client.send(&Ask::get("/a"));
    }
    for client in &mut clients {
        client.answer().expect_status(504);
    }
    let took = start.elapsed();
    assert!(took > Duration::from_millis(1900) && took < Duration::from_secs(6), "{took:?}");
    assert!(origin.n_requests() <= 4, "{} of 16 asked the origin", origin.n_requests());
    gate.open();
}

#[test]
fn one_private_answer_does_not_end_the_caching_of_its_url() {
    let origin = Origin::answering(|request| {
        let response =
            Response::ok(request.field("cookie").unwrap_or("all")).field("Vary", "Cookie");
        response.cache(if request.has("cookie") { "private" } else { "max-age=60" })
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let own = || ktrix.ask(&Ask::get("/a").field("Cookie", "id=1")).expect_body("id=1");
    own();
    ktrix.get("/a").expect_body("all");
    ktrix.wait_hit("/a").expect_body("all");
    for _ in 0..3 {
        own();
        ktrix.get("/a").expect_hit().expect_body("all");
    }
    assert_eq!(origin.requests().iter().filter(|request| !request.has("cookie")).count(), 1);
}

#[test]
fn clients_behind_an_answer_for_the_first_alone_are_served_by_one_more_fetch() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |request| {
        let body = request.field("authorization").unwrap_or("all").to_owned();
        Response::ok(body).cache("max-age=60").gated(&held)
    });
    let plan = Plan::new(&origin).set("workers", "4");
    let ktrix = plan.start();
    let mut leader = ktrix.client();
    leader.send(&Ask::get("/a").field("Authorization", "mine"));
    origin.wait_requests(1);
    let mut clients: Vec<_> = (0..12).map(|_| ktrix.client()).collect();
    for client in &mut clients {
        client.send(&Ask::get("/a"));
        client.wait_taken();
    }
    gate.open();
    leader.answer().expect_body("mine");
    for client in &mut clients {
        client.answer().expect_status(200).expect_body("all");
    }
    assert_eq!(origin.count("/a"), 2);
}
