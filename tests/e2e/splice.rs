//! Large bodies that are not stored go from the origin's socket to the client's through a pipe.

use std::fs;
use std::sync::Arc;

use crate::support::{Ask, Gate, Origin, Plan, Response, pattern, until_true};

const LARGE: usize = 8 << 20;

/// Ends of pipes that the only worker has open.
fn n_pipe_ends(worker: i32) -> usize {
    let fds = fs::read_dir(format!("/proc/{worker}/fd")).unwrap();
    let targets = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("pipe:")).count()
}

#[test]
fn a_large_body_goes_through_a_pipe_that_is_used_again() {
    let body: Arc<[u8]> = pattern(LARGE).into();
    let held = body.clone();
    let origin = Origin::answering(move |request| match request.target.as_str() {
        "/small" => Response::ok("small"),
        _ => Response::shared(&held).cache("no-store"),
    });
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.ask(&Ask::get("/small")).expect_status(200);
    let worker = ktrix.workers()[0].pid;
    let n_before = n_pipe_ends(worker);
    for _ in 0..3 {
        client.ask(&Ask::get("/large")).expect_status(200).expect_body(&body);
        assert_eq!(n_pipe_ends(worker), n_before + 2);
    }
    let lines = ktrix.wait_access_lines(4);
    assert!(lines[3].contains(&format!("\"body_bytes\":{LARGE},")), "{}", lines[3]);
    assert_eq!(origin.n_connections(), 1, "the connection is kept");
}

#[test]
fn a_large_request_body_that_is_not_buffered_goes_through_a_pipe() {
    let body = pattern(LARGE);
    let origin = Origin::answering(|request| Response::ok(request.body.len().to_string()));
    let plan = Plan::new(&origin)
        .set("workers", "1")
        .set("sites", "[{routes: [{path: /, upstream: app, request-buffering: off}]}]");
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.ask(&Ask::post("/small", "small")).expect_status(200);
    let worker = ktrix.workers()[0].pid;
    let n_before = n_pipe_ends(worker);
    for _ in 0..3 {
        client.ask(&Ask::post("/large", &body)).expect_body(LARGE.to_string());
        assert!(origin.last().body == body, "other bytes");
        assert_eq!(n_pipe_ends(worker), n_before + 2);
    }
    client.ask(&Ask::post("/chunked", &body).chunked()).expect_body(LARGE.to_string());
    assert!(origin.last().body == body, "other bytes");
    assert_eq!(origin.n_connections(), 1, "the connection is kept");
}

#[test]
fn a_request_body_that_ends_early_reaches_its_origin_in_part_and_once() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let origin = Origin::wired(move |connection| {
        if connection.head().is_err() {
            return;
        }
        let mut n_read = connection.unread().len();
        while let Ok(n @ 1..) = connection.read() {
            n_read += n;
        }
        let _ = sender.send(n_read);
    });
    let plan = Plan::new(&origin)
        .set("sites", "[{routes: [{path: /, upstream: app, request-buffering: off}]}]");
    let ktrix = plan.start();
    let mut client = ktrix.client();
    let request = Ask::post("/large", pattern(LARGE)).bytes("a");
    client.write(&request[..LARGE / 2]);
    client.shutdown_write();
    let n_read = receiver.recv_timeout(crate::support::PATIENCE).expect("the end of the body");
    assert!((1..LARGE / 2).contains(&n_read), "{n_read}");
    assert_eq!(origin.n_connections(), 1);
}

#[test]
fn bytes_before_a_pause_arrive_and_a_cut_body_is_not_whole() {
    let (gate, body): (Gate, Arc<[u8]>) = (Gate::new(), pattern(LARGE).into());
    let (held, shared) = (gate.clone(), body.clone());
    let origin = Origin::answering(move |request| {
        let answer = Response::shared(&shared).cache("no-store");
        match request.target.as_str() {
            "/pause" => answer.gated_at(3_000_001, &held),
            _ => answer.cut_at(5_000_003),
        }
    });
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.send(&Ask::get("/pause"));
    assert_eq!(client.answer_head().0, 200);
    let mut got = Vec::new();
    while got.len() < 3_000_001 {
        got.extend(client.read());
    }
    gate.open();
    while got.len() < LARGE {
        got.extend(client.read());
    }
    assert!(got == *body, "other bytes");
    let mut client = ktrix.client();
    assert!(client.try_ask(&Ask::get("/cut")).is_err(), "the answer is not whole");
    until_true("the line of the broken answer", || {
        plan.access_lines().iter().any(|line| line.contains("/cut"))
    });
}
