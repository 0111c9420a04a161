//! Request bodies: received whole before an origin sees them, or streamed where a route says so.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Ask, Gate, Origin, Plan, Response, pattern, until_true};

const STREAMED: &str = "[{routes: [{path: /, upstream: app, request-buffering: off}]}]";

fn echo() -> Origin {
    Origin::answering(|request| Response::ok(&request.body))
}

#[test]
fn an_origin_sees_a_request_only_when_it_is_whole() {
    let origin = echo();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let body = pattern(300_000);
    let request = Ask::post("/p", &body).bytes("a");
    let (first, second) = request.split_at(200_000);
    let mut slow = ktrix.client();
    slow.write(first);
    // Other requests come and go while the first is half received.
    for _ in 0..5 {
        ktrix.get("/other").expect_status(200);
    }
    assert_eq!(origin.count("/p"), 0);
    slow.write(second);
    slow.answer().expect_status(200).expect_body(&body);
    let seen = origin.last();
    assert_eq!(seen.field("content-length"), Some("300000"));
    assert!(!seen.has("transfer-encoding"));
}

#[test]
fn chunks_arrive_as_one_body_of_known_length() {
    let origin = echo();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for size in [0, 1, 5_000, 70_000, 2_000_000] {
        let body = pattern(size);
        let answer = ktrix.ask(&Ask::post("/p", &body).chunked());
        answer.expect_status(200).expect_body(&body);
        let seen = origin.last();
        assert_eq!(seen.field("content-length"), Some(&*size.to_string()));
        assert!(!seen.has("transfer-encoding"));
    }
}

#[test]
fn large_bodies_go_through_a_file_and_leave_none_behind() {
    let origin = echo();
    let plan = Plan::new(&origin).set("limits", "{body: 32 MiB, body-memory: 16 KiB}");
    let ktrix = plan.start();
    let body = pattern(20 << 20);
    let mut client = ktrix.client();
    for _ in 0..2 {
        client.ask(&Ask::post("/p", &body)).expect_status(200).expect_body(&body);
    }
    until_true("no left-over file", || plan.unfinished_files().is_empty());
}

#[test]
fn a_client_that_leaves_within_its_body_reaches_no_origin() {
    let origin = echo();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for _ in 0..5 {
        let mut client = ktrix.client();
        client.write(&Ask::post("/p", pattern(100_000)).bytes("a")[..50_000]);
        client.reset();
    }
    ktrix.get("/other").expect_status(200);
    origin.expect_requests(1);
}

#[test]
fn a_body_that_pauses_too_long_is_408() {
    let origin = echo();
    let plan = Plan::new(&origin).set("timeouts", "{client-body: 300ms}");
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345");
    client.answer().expect_status(408);
    client.expect_closed();
    origin.expect_requests(0);
}

#[test]
fn a_streamed_body_reaches_the_origin_as_it_comes() {
    let (sender, receiver) = mpsc::channel();
    let origin = Origin::wired(move |connection| {
        let Ok(head) = connection.head() else { return };
        let _ = sender.send(head.start.clone());
        for part in ["head", "tail"] {
            while !connection.unread().windows(4).any(|w| w == part.as_bytes()) {
                if !connection.read().is_ok_and(|n| n > 0) {
                    return;
                }
            }
            let _ = sender.send(part.into());
        }
        // It closes after this, and announces it: a POST on a connection that closes is not
        // repeated.
        let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
        let _ = connection.write(answer);
    });
    let plan = Plan::new(&origin).set("sites", STREAMED);
    let ktrix = plan.start();
    for framing in ["Content-Length: 8", "Transfer-Encoding: chunked"] {
        let is_chunked = framing.starts_with('T');
        let mut client = ktrix.client();
        client.write(format!("POST /p HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").as_bytes());
        client.write(if is_chunked { b"4\r\nhead\r\n" } else { b"head" });
        let patience = Duration::from_secs(20);
        let start = receiver.recv_timeout(patience).expect("the head before the body's end");
        assert_eq!(start, "POST /p HTTP/1.1");
        let part = receiver.recv_timeout(patience).expect("the body's first part before its end");
        assert_eq!(part, "head");
        client.write(if is_chunked { b"4\r\ntail\r\n0\r\n\r\n" } else { b"tail" });
        client.answer().expect_status(200).expect_body("ok");
        assert_eq!(receiver.recv_timeout(patience).expect("the body's last part"), "tail");
    }
}

#[test]
fn a_streamed_body_has_no_limit_in_size() {
    let origin = echo();
    let plan = Plan::new(&origin)
        .set("sites", STREAMED)
        .set("limits", "{body: 1 MiB, body-memory: 16 KiB}");
    let ktrix = plan.start();
    let body = pattern(5 << 20);
    ktrix.ask(&Ask::post("/p", &body)).expect_status(200).expect_body(&body);
    ktrix.ask(&Ask::post("/p", &body).chunked()).expect_status(200).expect_body(&body);
}

#[test]
fn a_streamed_body_waits_for_an_origin_that_does_not_read() {
    // The kernel may take a part of it for each of two connections, up to tcp_rmem.
    const BYTES: usize = 256 << 20;
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::wired(move |connection| {
        let Ok(_) = connection.head() else { return };
        held.wait();
        let mut left = BYTES;
        left -= connection.unread().len();
        while left > 0 {
            let Ok(n @ 1..) = connection.read() else { return };
            left -= n;
        }
        let _ = connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let plan = Plan::new(&origin).set("sites", STREAMED);
    let ktrix = plan.start();
    let taken = Arc::new(AtomicUsize::new(0));
    let mut client = ktrix.client();
    let count = Arc::clone(&taken);
    let writer = std::thread::spawn(move || {
        client.write(
            format!("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n").as_bytes(),
        );
        let part = vec![b'x'; 64 << 10];
        for _ in 0..BYTES / part.len() {
            client.write(&part);
            count.fetch_add(part.len(), Ordering::SeqCst);
        }
        client.answer().expect_status(200).expect_body("ok");
    });
    let mut before = usize::MAX;
    until_true("the writer to be held up", || {
        std::thread::sleep(Duration::from_millis(300));
        let now = taken.load(Ordering::SeqCst);
        std::mem::replace(&mut before, now) == now
    });
    assert!(before < BYTES / 2, "{before} bytes were accepted while the origin read none");
    gate.open();
    writer.join().unwrap();
}

#[test]
fn an_answer_before_the_body_ends_is_passed_on() {
    let origin = Origin::wired(|connection| {
        let Ok(_) = connection.head() else { return };
        let _ = connection
            .write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        connection.wait_closed();
    });
    let plan = Plan::new(&origin).set("sites", STREAMED);
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.write(b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n12345");
    client.answer().expect_status(403).expect_body("no");
}

#[test]
fn interim_answers_come_through_while_a_body_is_streamed() {
    let origin = Origin::wired(|connection| {
        let Ok(_) = connection.head() else { return };
        let mut wanted = b"one".to_vec();
        for (interim, next) in [
            (&b"HTTP/1.1 102 Processing\r\n\r\n"[..], &b"two"[..]),
            (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\n\r\n", b"end"),
        ] {
            while connection.unread() != wanted {
                let Ok(1..) = connection.read() else { return };
            }
            // The next part of the body comes only when this has reached the client.
            let _ = connection.write(interim);
            wanted.extend_from_slice(next);
        }
        while connection.unread() != wanted {
            let Ok(1..) = connection.read() else { return };
        }
        let _ = connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        connection.wait_closed();
    });
    let plan = Plan::new(&origin).set("sites", STREAMED);
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.write(b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\none");
    assert_eq!(client.answer_head().0, 102);
    client.write(b"two");
    let (status, head) = client.answer_head();
    assert_eq!((status, head.field("link")), (103, Some("</a>")), "{head:?}");
    assert_eq!(head.field("connection"), None, "{head:?}");
    client.write(b"end");
    client.answer().expect_status(200).expect_body("ok");
}

#[test]
fn a_body_that_drips_is_408() {
    for (timeouts, reason) in [
        ("{client-body: 300ms}", "body-rate"),
        ("{client-body: 20s, client-request: 300ms}", "request-timeout"),
    ] {
        let origin = echo();
        let plan = Plan::new(&origin)
            .set("timeouts", timeouts)
            .set("limits", "{body-rate: 1 MiB}")
            .set("log", "{access: {file: $DIR/access.log, format: json}, error: $DIR/error.log}");
        let ktrix = plan.start();
        let mut client = ktrix.client();
        client.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
        until_true("the end of it", || {
            let _ = client.try_write(b"x");
            let close = format!("\"close\":\"{reason}\"");
            plan.access_lines().iter().any(|line| line.contains(&close))
        });
        client.answer().expect_status(408);
        origin.expect_requests(0);
    }
}

#[test]
fn slow_bodies_make_room_for_other_clients() {
    let origin = echo();
    let plan =
        Plan::new(&origin).set("workers", "1").set("limits", "{connections: 4, body-rate: 1 MiB}");
    let ktrix = plan.start();
    let slow: Vec<_> = (0..4)
        .map(|_| {
            let mut client = ktrix.client();
            client.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nx");
            client
        })
        .collect();
    ktrix.get("/").expect_status(200);
    drop(slow);
}

#[test]
fn all_bodies_in_files_are_bounded_together_and_a_dead_worker_gives_its_bytes_back() {
    let origin = echo();
    let plan = Plan::new(&origin).set("limits", "{body-memory: 16 KiB, bodies: 400 KiB}");
    let ktrix = plan.start();
    let body = pattern(250_000);
    let request = Ask::post("/p", &body).bytes("a");
    let (first, second) = request.split_at(240_000);
    let status = || ktrix.ask(&Ask::post("/other", &body)).status;
    for is_killed in [false, true] {
        let mut holder = ktrix.client();
        holder.write(first);
        holder.wait_taken();
        assert_eq!(status(), 503);
        // One that stays in memory does not count.
        ktrix.ask(&Ask::post("/small", "x")).expect_status(200);
        if is_killed {
            ktrix.workers().into_iter().for_each(|worker| worker.signal(Signal::SIGKILL));
        } else {
            holder.write(second);
            holder.answer().expect_status(200).expect_body(&body);
        }
        until_true("room for another body", || {
            let answer = ktrix.client().try_ask(&Ask::post("/other", &body));
            answer.is_ok_and(|answer| answer.status == 200)
        });
    }
    ktrix.ask(&Ask::post("/large", pattern(500_000))).expect_status(413);
    let is_there = |parts: &[&str]| {
        let lines = plan.access_lines();
        lines.iter().any(|line| parts.iter().all(|part| line.contains(part)))
    };
    until_true("the reasons in the access log", || {
        is_there(&["/other", "\"status\":503", "bodies-full"])
            && is_there(&["/large", "\"status\":413", "body-too-large"])
    });
    until_true("no left-over file", || plan.unfinished_files().is_empty());
}
