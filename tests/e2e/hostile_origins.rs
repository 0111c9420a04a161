//! Origins that lie, stop halfway or never stop: the client gets 502, 504 or an answer that is
//! visibly incomplete; no part of it is stored, and the next request is served as usual.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::origin::Request;
use crate::support::{Ask, Broken, Origin, Plan, Response, pattern, until_true};

const LIMITS: &str = "{first-byte: 1s, idle: 1s, connect: 1s}";

type Make = fn() -> Response;

/// Answers that break off or break the rules; each would be stored if it were whole.
const BROKEN: &[(&str, Make)] = &[
    ("cut in the length", || Response::ok(pattern(50_000)).cut_at(20_000).cache("max-age=60")),
    ("cut before the body", || Response::ok(pattern(50_000)).cut_at(0).cache("max-age=60")),
    ("cut at the last byte", || Response::ok(pattern(500)).cut_at(499).cache("max-age=60")),
    ("cut in a large one", || Response::ok(pattern(3 << 20)).cut_at(2 << 20).cache("max-age=60")),
    ("cut in a chunk", || chunks().cut_at(5_000).cache("max-age=60")),
    ("cut between chunks", || chunks().cut_at(6 + 10_000 + 2).cache("max-age=60")),
    ("cut before the last chunk's end", || chunks().cut_at(3 * 10_008 + 3).cache("max-age=60")),
    ("reset in the length", || Response::ok(pattern(50_000)).reset_at(20_000).cache("max-age=60")),
    ("reset in a chunk", || chunks().reset_at(15_000).cache("max-age=60")),
    ("reset before the body", || Response::ok(pattern(50_000)).reset_at(0).cache("max-age=60")),
    ("reset of an unframed body", || {
        Response::until_close(pattern(50_000)).reset_at(20_000).cache("max-age=60")
    }),
    ("stalled body", || {
        let never = Duration::from_secs(8);
        Response::ok(pattern(1000)).slowly(500, never).cache("max-age=60")
    }),
    ("bad chunk size", || raw("Transfer-Encoding: chunked", "zz\r\nabc\r\n0\r\n\r\n")),
    ("chunk longer than it says", || raw("Transfer-Encoding: chunked", "2\r\nabcd\r\n0\r\n\r\n")),
    ("chunk size over 64 bits", || {
        raw("Transfer-Encoding: chunked", "fffffffffffffffff\r\nabcd\r\n0\r\n\r\n")
    }),
    ("length and coding", || {
        raw("Content-Length: 3\r\nTransfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n")
    }),
    ("two lengths", || raw("Content-Length: 3\r\nContent-Length: 5", "abcde")),
    ("a list of lengths", || raw("Content-Length: 3, 5", "abcde")),
    ("a negative length", || raw("Content-Length: -3", "abc")),
    ("a length over 64 bits", || raw("Content-Length: 99999999999999999999", "abc")),
    ("an unknown coding", || raw("Transfer-Encoding: gzip, chunked", "3\r\nabc\r\n0\r\n\r\n")),
    ("chunked twice", || raw("Transfer-Encoding: chunked, chunked", "3\r\nabc\r\n0\r\n\r\n")),
    ("a blank before the colon", || raw("Content-Length : 3", "abc")),
    ("a folded field", || raw("X: a\r\n b\r\nContent-Length: 3", "abc")),
    ("a NUL in the head", || raw("X: a\0b\r\nContent-Length: 3", "abc")),
    ("a bare CR in the head", || raw("X: a\rb\r\nContent-Length: 3", "abc")),
    ("garbage", || Response::raw(pattern(3000))),
    ("words", || Response::raw("220 mail.example ESMTP\r\n\r\n")),
    ("half a status line", || Response::raw("HTTP/1.1 2")),
    ("half a head", || Response::raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nConte")),
    ("a status of two digits", || Response::raw("HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n")),
    ("a status of words", || Response::raw("HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n")),
    ("another protocol", || Response::raw("ICY 200 OK\r\nContent-Length: 0\r\n\r\n")),
    ("HTTP/2", || Response::raw("HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n")),
    ("nothing", || Response::raw("")),
    ("a protocol switch without a request for it", || {
        Response::raw(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        )
    }),
    ("interim answers and then nothing", || {
        Response::raw("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(3))
    }),
];

fn chunks() -> Response {
    let part = pattern(10_000);
    Response::chunked(&[&part, &part, &part])
}

/// An answer with bare framing fields and a bare body.
fn raw(fields: &str, body: &str) -> Response {
    Response::raw(format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n{fields}\r\n\r\n{body}"))
}

/// The answer is an error of ktrix, or visibly incomplete.
fn expect_refused(name: &str, outcome: Result<crate::support::Answer, Broken>) {
    match outcome {
        Ok(answer) => assert!(
            [502, 504].contains(&answer.status),
            "{name}: reported as whole: {} {:?} with {} bytes",
            answer.head.start,
            answer.head.fields,
            answer.body.len()
        ),
        Err(Broken::CutBody { .. } | Broken::Closed | Broken::CutHead { .. }) => {}
        Err(other) => panic!("{name}: {other:?}"),
    }
}

fn table_origin() -> Origin {
    Origin::answering(|request: &Request| {
        let Some(index) = request.target.strip_prefix("/broken/") else {
            return Response::ok("fine").cache("max-age=60");
        };
        let index: usize = index.split('?').next().and_then(|i| i.parse().ok()).expect("an index");
        BROKEN[index].1()
    })
}

#[test]
fn a_broken_answer_is_never_whole_and_never_stored() {
    let origin = table_origin();
    let plan = Plan::new(&origin).set("timeouts", LIMITS);
    let ktrix = plan.start();
    for (i, (name, _)) in BROKEN.iter().enumerate() {
        let target = format!("/broken/{i}");
        for round in 0..2 {
            let before = origin.count(&target);
            expect_refused(name, ktrix.client().try_ask(&Ask::get(&target)));
            assert!(origin.count(&target) > before, "{name}: round {round} came from the cache");
        }
        ktrix.get(&format!("/fine/{i}")).expect_status(200).expect_body("fine");
    }
    until_true("no unfinished file", || plan.unfinished_files().is_empty());
    until_true("every good object", || plan.cache_files().len() == BROKEN.len());
    plan.verify_cache();
}

#[test]
fn an_http_1_0_client_sees_a_broken_answer_too() {
    let origin = table_origin();
    let plan = Plan::new(&origin).set("timeouts", LIMITS);
    let ktrix = plan.start();
    for (i, (name, _)) in BROKEN.iter().enumerate() {
        let ask = Ask::get(&format!("/broken/{i}")).http10();
        expect_refused(name, ktrix.client().try_ask(&ask));
    }
}

#[test]
fn a_route_without_a_cache_reports_broken_answers_as_well() {
    let origin = table_origin();
    let plan = Plan::new(&origin)
        .set("timeouts", LIMITS)
        .set("sites", "[{routes: [{path: /, upstream: app, cache: off}]}]");
    let ktrix = plan.start();
    for (i, (name, _)) in BROKEN.iter().enumerate() {
        expect_refused(name, ktrix.client().try_ask(&Ask::get(&format!("/broken/{i}"))));
    }
    ktrix.get("/fine").expect_status(200).expect_body("fine");
}

#[test]
fn an_endless_head_is_cut() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let origin = Origin::wired(move |connection| {
        let Ok(_) = connection.request() else { return };
        let _ = connection.write(b"HTTP/1.1 200 OK\r\n");
        while connection.write(format!("X: {}\r\n", "y".repeat(1000)).as_bytes()).is_ok() {
            count.fetch_add(1000, Ordering::SeqCst);
        }
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_status(502);
    assert!(sent.load(Ordering::SeqCst) < 64 << 20, "{sent:?} bytes of head were taken");
    assert_eq!(plan.cache_files().len(), 0);
}

#[test]
fn a_flood_of_interim_answers_is_cut() {
    let origin = Origin::wired(|connection| {
        let Ok(_) = connection.request() else { return };
        while connection.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").is_ok() {}
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    // The interim answers may be forwarded, but not without end.
    let mut client = ktrix.client();
    client.write(&Ask::get("/a").bytes("a"));
    let (bytes, _) = client_until_final(&mut client);
    assert!(bytes < 1 << 20, "{bytes} bytes of interim answers");
}

/// Reads answers until a final one or the end; returns the bytes of interim heads and its status.
fn client_until_final(client: &mut crate::support::Client) -> (usize, u16) {
    let mut bytes = 0;
    loop {
        let (status, head) = client.answer_head();
        if status >= 200 {
            assert!([502, 504].contains(&status), "{status}");
            return (bytes, status);
        }
        bytes += head.raw.len();
        assert!(bytes < 64 << 20, "interim answers without end");
    }
}

#[test]
fn a_silent_origin_times_out() {
    let origin = Origin::wired(|connection| {
        let _ = connection.request();
        connection.wait_closed();
    });
    let plan = Plan::new(&origin).set("timeouts", "{first-byte: 300ms}");
    let ktrix = plan.start();
    ktrix.get("/a").expect_status(504);
    ktrix.ask(&Ask::post("/a", "x")).expect_status(504);
}

#[test]
fn bytes_after_an_answer_never_become_the_next_answer() {
    const EVIL: &str =
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nCache-Control: max-age=60\r\n\r\nevil";
    let origin = Origin::wired(|connection| {
        while let Ok(request) = connection.request() {
            let good = "ETag: \"x\"\r\nCache-Control: max-age=0\r\n";
            let bytes = match (&*request.target, request.has("if-none-match")) {
                ("/tagged", true) => format!("HTTP/1.1 304 Not Modified\r\n{good}\r\n{EVIL}"),
                ("/tagged", false) => {
                    format!("HTTP/1.1 200 OK\r\n{good}Content-Length: 4\r\n\r\ngood")
                }
                ("/long", _) => format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood{EVIL}"),
                ("/empty", _) => format!("HTTP/1.1 204 No Content\r\n\r\n{EVIL}"),
                ("/chunked", _) => format!(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n{EVIL}"
                ),
                _ if request.method == "HEAD" => {
                    format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood{EVIL}")
                }
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext".to_owned(),
            };
            if connection.write(bytes.as_bytes()).is_err() {
                return;
            }
        }
    });
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    let mut client = ktrix.client();
    for _ in 0..3 {
        for target in ["/tagged", "/tagged", "/long", "/empty", "/chunked"] {
            let answer = client.get(target);
            assert_ne!(answer.text(), "evil", "after {target}");
            client.get("/next").expect_status(200).expect_body("next");
        }
        client.head("/head").expect_body("");
        client.get("/next").expect_status(200).expect_body("next");
    }
}
