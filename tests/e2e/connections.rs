//! The life of a client's connection: one request after another, many at once, old clients, and
//! clients that close half way.

use std::time::Duration;

use crate::support::{Ask, Gate, Origin, Plan, Response, pattern, until_true};

fn echo() -> Origin {
    Origin::answering(|request| {
        let response = Response::ok(format!("{} {}", request.target, request.body.len()));
        if request.target.starts_with("/c/") { response.cache("max-age=60") } else { response }
    })
}

#[test]
fn a_connection_carries_many_requests() {
    let origin = echo();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let mut client = ktrix.client();
    for i in 0..100 {
        let target = format!("/{}/{i}", if i % 2 == 0 { "c" } else { "d" });
        client.get(&target).expect_status(200).expect_body(format!("{target} 0"));
    }
    client.ask(&Ask::post("/p", "1234567")).expect_body("/p 7");
    origin.expect_requests(101);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::answering(|request| {
        let response = Response::ok(&request.target).cache("max-age=60");
        // The first ones are the slowest, so that a wrong order would be noticed.
        let n: u64 = request.target[1..].parse().unwrap_or(0);
        response.after(Duration::from_millis(40 - n.min(40)))
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for _ in 0..2 {
        let mut client = ktrix.client();
        let all: Vec<u8> =
            (0..40).flat_map(|i| Ask::get(&format!("/{i}")).bytes("a.example")).collect();
        client.write(&all);
        for i in 0..40 {
            client.answer().expect_status(200).expect_body(format!("/{i}"));
        }
        client.get("/0").expect_body("/0");
    }
}

#[test]
fn pipelined_requests_may_be_cut_anywhere() {
    let origin = echo();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let all = [
        Ask::get("/c/1").bytes("a"),
        Ask::post("/d", "body").bytes("a"),
        Ask::post("/e", vec![b'x'; 2500]).chunked().bytes("a"),
        Ask::get("/c/1").bytes("a"),
    ]
    .concat();
    for cut in (1..all.len()).step_by(97) {
        let mut client = ktrix.client();
        client.write(&all[..cut]);
        std::thread::sleep(Duration::from_millis(1));
        client.write(&all[cut..]);
        for body in ["/c/1 0", "/d 4", "/e 2500", "/c/1 0"] {
            client.answer().expect_status(200).expect_body(body);
        }
    }
}

#[test]
fn connection_close_is_obeyed_and_sent() {
    let origin = echo();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for target in ["/c/a", "/d", "/c/a"] {
        let mut client = ktrix.client();
        let answer = client.ask(&Ask::get(target).field("Connection", "close"));
        assert!(answer.field("connection").is_some_and(|v| v.eq_ignore_ascii_case("close")));
        client.expect_closed();
    }
}

#[test]
fn http_1_0_clients_get_what_they_understand() {
    let origin = Origin::answering(|request| match &*request.target {
        "/chunked" => Response::chunked(&[b"one", b"two"]),
        "/early" => Response::ok("x").interim(b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        _ => Response::ok("hello"),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.ask(&Ask::get("/").http10()).expect_status(200).expect_body("hello");
    client.expect_closed();
    let mut client = ktrix.client();
    let answer = client.ask(&Ask::get("/chunked").http10()).expect_body("onetwo");
    answer.expect_no_field("transfer-encoding");
    client.expect_closed();
    let mut client = ktrix.client();
    let keep = Ask::get("/").http10().field("Connection", "keep-alive");
    for _ in 0..3 {
        let answer = client.ask(&keep).expect_body("hello");
        assert!(answer.field("connection").is_some_and(|v| v.eq_ignore_ascii_case("keep-alive")));
    }
    let answer = ktrix.ask(&Ask::get("/early").http10()).expect_body("x");
    assert!(answer.interim.is_empty(), "an HTTP/1.0 client got {:?}", answer.interim);
    let mut client = ktrix.client();
    client.write(b"GET / HTTP/1.0\r\n\r\n");
    client.answer().expect_status(200).expect_body("hello");
}

#[test]
fn an_answer_to_head_never_has_a_body() {
    let origin = Origin::answering(|request| match &*request.target {
        "/chunked" => Response::chunked(&[b"one"]),
        "/empty" => Response::status(204),
        _ => Response::ok("hello"),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let mut client = ktrix.client();
    for _ in 0..3 {
        client.head("/").expect_status(200).expect_field("content-length", "5");
        client.head("/chunked").expect_status(200);
        let answer = client.get("/empty").expect_status(204).expect_body("");
        answer.expect_no_field("content-length").expect_no_field("transfer-encoding");
    }
    client.get("/").expect_body("hello");
}

#[test]
fn a_client_that_has_shut_down_its_side_still_gets_its_answer() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |request| match &*request.target {
        "/slow" => Response::ok("late").gated(&held),
        _ => Response::ok("hello"),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.send(&Ask::get("/slow"));
    client.shutdown_write();
    origin.wait_requests(1);
    gate.open();
    client.answer().expect_status(200).expect_body("late");
    client.expect_closed();
    let mut client = ktrix.client();
    client.write(&[Ask::get("/a").bytes("a"), Ask::get("/b").bytes("a")].concat());
    client.shutdown_write();
    client.answer().expect_status(200);
    client.answer().expect_status(200);
    client.expect_closed();
}

#[test]
fn a_client_that_stops_within_a_request_is_not_forwarded() {
    let origin = echo();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for part in ["GET / HT", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345"] {
        let mut client = ktrix.client();
        client.write(part.as_bytes());
        client.shutdown_write();
        let (bytes, _) = client.read_to_end("the rest");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 400"), "{text}");
    }
    origin.expect_requests(0);
}

#[test]
fn continue_is_sent_when_expected() {
    let origin = echo();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client
        .write(b"POST /p HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.answer_head().0, 100);
    client.write(b"12345");
    let answer = client.answer().expect_status(200).expect_body("/p 5");
    assert!(answer.interim.is_empty(), "a second interim answer: {:?}", answer.interim);
    assert!(!origin.last().has("expect"), "{:?}", origin.last().head.fields);
    let mut client = ktrix.client();
    client.write(
        b"POST /p HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n12345",
    );
    client.answer().expect_status(200).expect_body("/p 5");
    let mut client = ktrix.client();
    client.write(b"POST /p HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\nContent-Length: 0\r\n\r\n");
    client.answer().expect_status(417);
}

#[test]
fn trailers_travel_both_ways() {
    let origin = Origin::answering(|request| {
        let sum = request.trailers.field("x-sum").unwrap_or("none").to_owned();
        Response::chunked(&[b"body"]).trailers(&format!("X-Back: {sum}\r\n"))
    });
    for buffering in ["on", "off"] {
        let route = format!("{{path: /, upstream: app, request-buffering: {buffering}}}");
        let plan = Plan::new(&origin)
            .set("sites", &format!("[{{routes: [{route}]}}]"))
            .set("limits", "{body-memory: 1 KiB}");
        let ktrix = plan.start();
        let mut client = ktrix.client();
        for len in [3, 0, 200_000] {
            let body = pattern(len);
            let head = "POST /p HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked";
            client.write(format!("{head}\r\n\r\n").as_bytes());
            for chunk in body.chunks(70_000) {
                client.write(format!("{:x}\r\n", chunk.len()).as_bytes());
                client.write(&[chunk, b"\r\n"].concat());
            }
            client.write(b"0\r\nX-Sum: 42\r\nContent-Length: 7\r\n\r\n");
            let answer = client.answer().expect_status(200).expect_body("body");
            assert_eq!(origin.last().body, body);
            assert_eq!(origin.last().trailers.field("content-length"), None);
            assert_eq!(answer.trailers.field("x-back"), Some("42"), "{:?}", answer.trailers);
        }
        client.get("/next").expect_status(200);
    }
}

#[test]
fn a_later_minor_version_is_answered_as_1_1() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let mut client = ktrix.client();
    for _ in 0..2 {
        client.write(b"GET / HTTP/1.2\r\nHost: a\r\n\r\n");
        client.answer().expect_status(200).expect_body("x");
        assert_eq!(origin.last().version, "HTTP/1.1");
    }
}

#[test]
fn interim_answers_come_before_the_final_one() {
    let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let origin = Origin::answering(move |_| {
        Response::ok("x")
            .interim(hints)
            .interim(b"HTTP/1.1 102 Processing\r\n\r\n")
            .cache("max-age=60")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let mut client = ktrix.client();
    let answer = client.get("/a").expect_status(200).expect_body("x");
    assert!(answer.interim.iter().all(|s| [102, 103].contains(s)), "{:?}", answer.interim);
    ktrix.wait_hit("/a").expect_body("x");
}

#[test]
fn old_origins_are_understood() {
    let origin = Origin::answering(|request| match &*request.target {
        "/close" => Response::until_close("the whole body").http10().cache("max-age=60"),
        "/keep" => Response::ok("x").http10().field("Connection", "keep-alive"),
        _ => Response::ok("y").http10().then_close(),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let mut client = ktrix.client();
    for _ in 0..3 {
        client.get("/close").expect_status(200).expect_body("the whole body");
        client.get("/keep").expect_body("x");
        client.get("/other").expect_body("y");
    }
    ktrix.wait_hit("/close").expect_field("content-length", "14");
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    let origin = echo();
    let plan = Plan::new(&origin).set("timeouts", "{client-idle: 300ms}");
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.get("/").expect_status(200);
    client.expect_closed();
    let mut silent = ktrix.client();
    silent.expect_closed();
}

#[test]
fn a_client_that_leaves_while_its_answer_is_made_does_no_harm() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |request| match request.target.starts_with("/slow") {
        true => Response::ok("late").gated(&held),
        false => Response::ok("hello"),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.wait_children(3);
    let workers = ktrix.workers();
    let n_fds = || workers.iter().map(|w| w.n_fds()).sum::<usize>();
    let n_before = n_fds();
    for i in 1..=10 {
        let mut client = ktrix.client();
        client.send(&Ask::get(&format!("/slow/{i}")));
        origin.wait_requests(i);
        if i % 2 == 0 { client.reset() } else { drop(client) }
    }
    gate.open();
    ktrix.get("/").expect_status(200).expect_body("hello");
    // The origin's ten connections may be kept; the clients' must be gone.
    until_true("descriptors to be given back", || n_fds() <= n_before + 12);
    assert!(workers.iter().all(|w| w.is_alive()), "a worker died");
}
