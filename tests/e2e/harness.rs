//! The tools of the conversations, tested against each other without a ktrix between them.

use std::time::Duration;

use crate::support::{Ask, Broken, Client, Gate, Load, Origin, Response, alone, burst, pattern};

#[test]
fn a_client_gets_what_an_origin_sends() {
    let origin = Origin::answering(|request| match &*request.target {
        "/chunked" => Response::chunked(&[b"one", b"two"]).trailers("X-Sum: 6\r\n"),
        "/early" => Response::ok("x").interim(b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        "/echo" => Response::ok(&request.body),
        "/close" => Response::until_close("the end"),
        _ => Response::ok("hello").cache("max-age=60"),
    });
    let mut client = Client::connect(&origin.address);
    client.get("/").expect_status(200).expect_field("cache-control", "max-age=60");
    client.head("/").expect_body("").expect_field("content-length", "5");
    let answer = client.get("/chunked").expect_body("onetwo");
    assert_eq!(answer.trailers.field("x-sum"), Some("6"));
    assert_eq!(client.get("/early").interim, [103]);
    client.ask(&Ask::post("/echo", "whole").chunked()).expect_body("whole");
    client.get("/close").expect_body("the end");
    client.expect_closed();
    assert_eq!(origin.count("/"), 2);
    assert_eq!(origin.requests()[4].body, b"whole");
    origin.expect_requests(6);
}

#[test]
fn a_broken_answer_is_seen_as_one() {
    let origin = Origin::answering(|request| match &*request.target {
        "/cut" => Response::ok(pattern(1000)).cut_at(10),
        "/chunks" => Response::chunked(&[&[b'x'; 100]]).cut_at(50),
        "/reset" => Response::ok(pattern(1000)).reset_at(0),
        _ => Response::raw("nonsense"),
    });
    let broken = |target| Client::connect(&origin.address).try_ask(&Ask::get(target)).unwrap_err();
    assert_eq!(broken("/cut"), Broken::CutBody { status: 200, got: 10, is_reset: false });
    assert!(matches!(broken("/chunks"), Broken::CutBody { .. }));
    assert!(matches!(broken("/reset"), Broken::CutBody { .. } | Broken::Closed));
    assert!(matches!(broken("/"), Broken::CutHead { got: 8 }));
}

#[test]
fn a_gate_holds_a_body_until_it_opens() {
    let gate = Gate::new();
    let at_half = gate.clone();
    let origin = Origin::answering(move |_| Response::ok("0123456789").gated_at(5, &at_half));
    let mut client = Client::connect(&origin.address);
    client.send(&Ask::get("/"));
    client.answer_head();
    let mut got = Vec::new();
    while got.len() < 5 {
        got.extend(client.read());
    }
    assert_eq!(got, b"01234");
    gate.open();
    while got.len() < 10 {
        got.extend(client.read());
    }
    assert_eq!(got, b"0123456789");
}

#[test]
fn an_origin_stops_and_starts_on_its_port() {
    let mut origin = Origin::answering(|_| Response::ok("x"));
    let mut client = Client::connect(&origin.address);
    client.get("/").expect_status(200);
    origin.stop();
    client.expect_closed();
    assert!(Client::try_connect(&origin.address).is_err());
    origin.start();
    Client::connect(&origin.address).get("/").expect_status(200);
    origin.expect_requests(2);
}

#[test]
fn a_load_counts_what_goes_wrong() {
    let origin = Origin::answering(|request| match request.number {
        20 => Response::status(500),
        30 => Response::ok("hello").cut_at(1),
        _ => Response::ok("hello"),
    });
    let load = Load::start(
        &origin.address,
        2,
        |_, i| Ask::get(&format!("/{i}")),
        |_, answer| (answer.status == 200).then_some(()).ok_or(answer.head.start.clone()),
    );
    origin.wait_requests(200);
    let report = load.stop();
    assert_eq!((report.wrong.len(), report.cut.len()), (1, 1), "{report:?}");
    assert!(report.n_ok + 2 >= 200 && report.longest < Duration::from_secs(5));
}

#[test]
fn a_burst_is_answered_by_status() {
    alone();
    let origin = Origin::answering(|_| Response::ok("hello"));
    let result =
        burst(origin.ip(), 50, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Duration::from_secs(20));
    assert_eq!(result.by_status.get(&200), Some(&50), "{result:?}");
}
