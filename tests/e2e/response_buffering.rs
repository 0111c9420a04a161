//! A slow client does not hold a connection to an origin, as far as its response can be buffered.

use std::fs;
use std::sync::Arc;

use crate::support::h2::H2;
use crate::support::{
    Ask, Client, Gate, Ktrix, Origin, Plan, Response, alone, pattern, until_true,
};

/// More than the sockets between ktrix and a client take.
const LARGE: usize = 16 << 20;

/// An upstream of one connection.
fn plan(origin: &Origin, route: &str, limits: &str) -> Plan {
    plan_with("20s", origin, route, limits)
}

/// As [`plan`], with so long a wait for the connection.
fn plan_with(pending: &str, origin: &Origin, route: &str, limits: &str) -> Plan {
    let servers = format!("{{servers: [\"{}\"], connections: 1, retries: 0", origin.name());
    Plan::to(&format!("{servers}, pending-timeout: {pending}}}"))
        .set("workers", "1")
        .set("sites", &format!("[{{routes: [{{path: /, upstream: app, cache: off{route}}}]}}]"))
        .set("limits", limits)
}

fn origin(body: &Arc<[u8]>) -> Origin {
    let body = Arc::clone(body);
    Origin::answering(move |request| match request.target.as_str() {
        "/small" => Response::ok("small"),
        "/chunked" => Response::chunked(&body.chunks(100_000).collect::<Vec<_>>()),
        "/as-it-comes" => Response::shared(&body).field("X-Accel-Buffering", "no"),
        "/ahead" => Response::shared(&body).field("X-Accel-Buffering", "yes"),
        _ => Response::shared(&body),
    })
}

/// A client that has asked, and reads nothing for now.
fn stalled(ktrix: &Ktrix<'_>, origin: &Origin, target: &str) -> Client {
    let n_before = origin.n_requests();
    let mut client = ktrix.client();
    client.send(&Ask::get(target));
    origin.wait_requests(n_before + 1);
    client
}

#[test]
fn a_client_that_reads_nothing_does_not_hold_the_only_connection() {
    let body: Arc<[u8]> = pattern(LARGE).into();
    let origin = origin(&body);
    let cases = [
        ("", "{}", "/"),
        ("", "{}", "/chunked"),
        (", response-buffering: memory", "{response-memory: 32 MiB}", "/"),
        (", response-buffering: off", "{}", "/ahead"),
        (", limits: {response-memory: 0 B}", "{}", "/"),
    ];
    for (route, limits, target) in cases {
        let plan = plan(&origin, route, limits);
        let ktrix = plan.start();
        let mut slow = stalled(&ktrix, &origin, target);
        let n_connections = origin.n_connections();
        ktrix.get("/small").expect_status(200).expect_body("small");
        assert_eq!(origin.n_connections(), n_connections, "the same connection");
        let answer = slow.answer().expect_status(200).expect_no_field("x-accel-buffering");
        assert!(answer.body == *body, "{target}: other bytes");
        slow.get("/small").expect_body("small");
        assert!(plan.unfinished_files().is_empty());
    }
}

#[test]
fn a_stalled_http2_stream_does_not_hold_the_only_connection() {
    let body: Arc<[u8]> = pattern(LARGE).into();
    let origin = origin(&body);
    let plan = plan(&origin, "", "{}");
    let ktrix = plan.start();
    let mut slow = H2::connect(&plan.address);
    slow.send(&Ask::get("/"));
    slow.run(std::future::ready(()));
    origin.wait_requests(1);
    // The client takes in nothing, and opens no window, until it is asked for its answer.
    ktrix.get("/small").expect_status(200).expect_body("small");
    assert_eq!(origin.n_connections(), 1, "the same connection");
    assert!(slow.answer().expect_status(200).body == *body, "other bytes");
}

#[test]
fn without_buffering_the_origin_waits_for_the_client() {
    let body: Arc<[u8]> = pattern(LARGE).into();
    let origin = origin(&body);
    for (route, target) in [
        (", response-buffering: off", "/"),
        (", response-buffering: memory", "/"),
        (", limits: {response-file: 1 MiB}", "/"),
        ("", "/as-it-comes"),
    ] {
        let plan = plan_with("1s", &origin, route, "{}");
        let ktrix = plan.start();
        let mut slow = stalled(&ktrix, &origin, target);
        ktrix.get("/small").expect_status(503);
        let answer = slow.answer().expect_status(200).expect_no_field("x-accel-buffering");
        assert!(answer.body == *body, "{route}: other bytes");
        ktrix.get("/small").expect_body("small");
    }
}

#[test]
fn a_file_that_is_smaller_than_the_response_is_used_again_and_again() {
    let body: Arc<[u8]> = pattern(LARGE).into();
    let origin = origin(&body);
    let plan = plan(&origin, "", "{response-memory: 64 KiB, response-file: 777777 B}");
    let ktrix = plan.start();
    ktrix.get("/small").expect_status(200);
    let worker = ktrix.workers()[0].pid;
    for target in ["/", "/chunked"] {
        let mut slow = stalled(&ktrix, &origin, target);
        until_true("a temporary file", || has_unnamed_file(worker));
        assert!(slow.answer().body == *body, "other bytes");
        until_true("the temporary file to be closed", || !has_unnamed_file(worker));
    }
}

#[test]
fn a_ktrix_without_a_cache_closes_its_temporary_files_too() {
    let body: Arc<[u8]> = pattern(LARGE).into();
    let origin = origin(&body);
    let plan = plan(&origin, "", "{response-memory: 64 KiB}").set("cache", "off");
    // The spill file of an access log has no name either.
    let plan = plan.set("pid", "$DIR/pid").set("log", "{error: $DIR/error.log}");
    let ktrix = plan.start();
    ktrix.get("/small").expect_status(200);
    let worker = ktrix.workers()[0].pid;
    let mut slow = stalled(&ktrix, &origin, "/");
    until_true("a temporary file", || has_unnamed_file(worker));
    assert!(slow.answer().body == *body, "other bytes");
    until_true("the temporary file to be closed", || !has_unnamed_file(worker));
    // Nor does one stay whose client has left.
    let slow = stalled(&ktrix, &origin, "/");
    until_true("a temporary file", || has_unnamed_file(worker));
    drop(slow);
    until_true("the temporary file to be closed", || !has_unnamed_file(worker));
}

#[test]
fn responses_that_wait_in_memory_have_a_bound_together() {
    alone();
    let body: Arc<[u8]> = pattern(LARGE).into();
    let origin = origin(&body);
    let route = "{path: /, upstream: app, cache: off, response-buffering: memory}";
    let plan = Plan::new(&origin)
        .set("workers", "1")
        .set("sites", &format!("[{{routes: [{route}]}}]"))
        .set("limits", "{response-memory: 8 MiB, responses: 8 MiB}")
        .set("timeouts", "{client-send: 10m}");
    let ktrix = plan.start();
    ktrix.get("/small").expect_status(200);
    let memory = || ktrix.workers()[0].private_bytes();
    let before = memory();
    let mut clients: Vec<_> = (0..12).map(|_| stalled(&ktrix, &origin, "/")).collect();
    let mut last = 0;
    until_true("the memory to settle", || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let now = memory();
        std::mem::replace(&mut last, now).abs_diff(now) < 64 << 10 && now > before + (4 << 20)
    });
    let grown = last - before;
    assert!(grown < 40 << 20, "{grown} bytes, and 96 MiB if each had its own bound alone");
    for client in &mut clients {
        assert!(client.answer().body == *body, "other bytes");
    }
}

/// Whether a process has a file open that has no name.
fn has_unnamed_file(pid: i32) -> bool {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let mut targets = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    targets.any(|it| it.to_string_lossy().contains("/tmp/#"))
}

#[test]
fn bytes_that_the_client_can_take_are_never_kept() {
    let gates: Vec<Gate> = (0..3).map(|_| Gate::new()).collect();
    let held = gates.clone();
    let origin = Origin::wired(move |connection| {
        if connection.head().is_err() {
            return;
        }
        let _ = connection.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
        for (n, gate) in held.iter().enumerate() {
            let _ = connection.write(format!("data: {n}\n\n").as_bytes());
            gate.wait();
        }
    });
    let plan = plan(&origin, "", "{}");
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.send(&Ask::get("/events"));
    assert_eq!(client.answer_head().0, 200);
    let mut got = String::new();
    for (n, gate) in gates.iter().enumerate() {
        let event = format!("data: {n}\n\n");
        while !got.contains(&event) {
            got.push_str(&String::from_utf8(client.read()).unwrap());
        }
        gate.open();
    }
}

#[test]
fn a_response_that_finds_no_room_is_passed_on_as_the_client_takes_it() {
    let body: Arc<[u8]> = pattern(LARGE).into();
    let origin = origin(&body);
    let full = plan_with("1s", &origin, "", "{bodies: 1 MiB}");
    let broken = plan_with("1s", &origin, "", "{}").set("cache", "off");
    for (plan, environment, why) in
        [(full, ":", "limits.bodies is reached"), (broken, "export TMPDIR=/none", "No such file")]
    {
        let plan = plan.set("pid", "$DIR/pid");
        let ktrix = plan.start_after(environment);
        for _ in 0..2 {
            let mut slow = stalled(&ktrix, &origin, "/");
            ktrix.get("/small").expect_status(503);
            assert!(slow.answer().body == *body, "other bytes");
        }
        ktrix.get("/small").expect_body("small");
        until_true("the warning", || plan.error_log().contains(why));
        assert_eq!(plan.error_log().matches("cannot buffer a response").count(), 1);
    }
}

#[test]
fn a_body_that_breaks_off_behind_what_waits_is_not_whole() {
    let body: Arc<[u8]> = pattern(LARGE).into();
    let shared = Arc::clone(&body);
    let origin = Origin::answering(move |_| Response::shared(&shared).cut_at(LARGE - 5));
    let plan = plan(&origin, "", "{}");
    let ktrix = plan.start();
    let mut slow = stalled(&ktrix, &origin, "/");
    origin.wait_none_open();
    let (got, is_reset) = slow.read_to_end("a broken answer");
    // The reset drops what the sockets hold.
    assert!(got.len() > LARGE / 2, "what came is passed on: {}", got.len());
    assert!(is_reset || got.len() < LARGE, "the answer is not whole");
}
