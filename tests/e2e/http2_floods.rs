//! Clients of HTTP/2 that make ktrix work for nothing: they are stopped, at the cost of few requests to
//! the origin and little memory, and other clients do not notice.

use crate::support::h2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, H2, HEADERS, PING, PRIORITY,
    RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, literals, of_get,
};
use crate::support::{Ask, Gate, Ktrix, Origin, Plan, Response, until_true};

/// The default of `limits.streams`.
const STREAMS: usize = 128;

/// `ENHANCE_YOUR_CALM`, RFC 9113 section 7.
const CALM: u32 = 11;

fn raw(ktrix: &Ktrix<'_>) -> Raw {
    Raw::connect(&ktrix.plan.address)
}

fn expect_reason(ktrix: &Ktrix<'_>, word: &str) {
    ktrix.wait_error("closed an HTTP/2 connection of 127.0.0.1: ");
    until_true(word, || ktrix.plan.error_log().contains(&format!("({word})")));
}

#[test]
fn rapid_resets_cost_at_most_as_many_requests_as_streams_are_allowed() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |request| {
        let response = Response::ok("x").cache("no-store");
        if request.target == "/ok" { response } else { response.gated(&held) }
    });
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    // All at once, and one after the other.
    let mut client = raw(&ktrix);
    // Each asks for another URL: requests for one would wait for one another.
    let get = |n: u32| Frame::get(2 * n + 1, &format!("/r/{n}"));
    let all = (0..2_000).flat_map(|n| [get(n), Frame::reset(2 * n + 1)]).collect::<Vec<_>>();
    client.try_send(&all);
    assert_eq!(client.ended().map(|it| it.code()).unwrap_or(CALM), CALM);
    let before = origin.n_requests();
    assert!(before <= STREAMS, "{before} requests");
    let mut client = raw(&ktrix);
    for n in 0..2_000 {
        if !client.try_send(&[get(n)]) {
            break;
        }
        if n < 200 {
            // Each of the first ones has reached the origin when it is reset.
            let n_seen = before + n as usize + 1;
            until_true("the request or the end", || {
                origin.n_requests() >= n_seen || ktrix.plan.error_log().contains("(reset-flood)")
            });
        }
        if !client.try_send(&[Frame::reset(2 * n + 1)]) {
            break;
        }
    }
    client.ended();
    expect_reason(&ktrix, "reset-flood");
    let n_asked = origin.n_requests() - before;
    assert!(n_asked <= STREAMS, "{n_asked} requests");
    gate.open();
    H2::connect(&plan.address).get("/ok").expect_status(200);
}

#[test]
fn resets_that_the_client_provokes_count_as_its_own() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |_| Response::ok("x").cache("no-store").gated(&held));
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    let provoke: [fn(u32) -> Frame; 4] = [
        |id| Frame::new(WINDOW_UPDATE, 0, id, 0u32.to_be_bytes()),
        |id| Frame::new(WINDOW_UPDATE, 0, id, 0x7fff_ffffu32.to_be_bytes()),
        |id| Frame::new(PRIORITY, 0, id, [&id.to_be_bytes()[..], &[0]].concat()),
        |id| Frame::new(DATA, END_STREAM, id, b"x"),
    ];
    let mut n_floods = 0;
    for (place, provoke) in provoke.into_iter().enumerate() {
        let before = origin.n_requests();
        let mut client = raw(&ktrix);
        for n in 0..1_000 {
            if !client.try_send(&[Frame::get(2 * n + 1, &format!("/{n}")), provoke(2 * n + 1)]) {
                break;
            }
        }
        let goodbye = client.ended();
        assert!(goodbye.as_ref().is_none_or(|it| it.code() != 0), "{place}");
        // A flood is named; a frame that no connection survives is none.
        if goodbye.is_some_and(|it| it.code() == CALM) {
            n_floods += 1;
            let n_named = || {
                let log = plan.error_log();
                log.matches("(reset-flood)").count() + log.matches("(frame-flood)").count()
            };
            until_true("the name of the flood", || n_named() >= n_floods);
        }
        let n_asked = origin.n_requests() - before;
        assert!(n_asked <= STREAMS, "{place}: {n_asked} requests");
    }
    assert!(n_floods > 0, "no flood was told by ENHANCE_YOUR_CALM");
    gate.open();
}

#[test]
fn a_stream_that_was_reset_keeps_its_place_until_its_exchange_has_ended() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |_| Response::ok("x").cache("no-store").gated(&held));
    let plan = Plan::new(&origin).set("workers", "1").set("limits", "{streams: 20}");
    let ktrix = plan.start();
    let mut client = raw(&ktrix);
    // The exchange of a POST goes on without its client.
    let post =
        |id, method| Frame::head(id, &[&[(":method", method)][..], &of_get("/p")[1..]].concat());
    for n in 0..12 {
        client.send(&post(2 * n + 1, "POST"));
    }
    origin.wait_requests(12);
    for n in 0..12 {
        client.send(&Frame::reset(2 * n + 1));
    }
    for n in 12..24 {
        client.send(&post(2 * n + 1, "POST"));
    }
    let refused = client.expect(RST_STREAM, 2 * 20 + 1);
    assert_eq!(refused.code(), 7, "REFUSED_STREAM");
    gate.open();
    assert!(origin.n_requests() <= 20);
}

#[test]
fn control_frames_are_bounded() {
    let origin = Origin::answering(|_| Response::ok("x").cache("max-age=60"));
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    let floods: [(&str, Frame); 5] = [
        ("PING", Frame::new(PING, 0, 0, [0; 8])),
        ("SETTINGS", Frame::new(SETTINGS, 0, 0, [0, 1, 0, 0, 0, 0])),
        ("PRIORITY", Frame::new(PRIORITY, 0, 1, [0, 0, 0, 3, 0])),
        ("WINDOW_UPDATE", Frame::new(WINDOW_UPDATE, 0, 0, 1u32.to_be_bytes())),
        ("unknown", Frame::new(0x99, 0, 0, b"x")),
    ];
    for (what, frame) in floods {
        let mut client = raw(&ktrix);
        let some = vec![frame; 1_000];
        for _ in 0..10 {
            if !client.try_send(&some) {
                break;
            }
        }
        let goodbye = client.ended();
        assert!(goodbye.is_none_or(|it| it.code() == CALM), "{what}");
    }
    expect_reason(&ktrix, "control-flood");
    // Acknowledgements of what was never sent are an error at once.
    let mut client = raw(&ktrix);
    client.try_send(&vec![Frame::new(SETTINGS, ACK, 0, b""); 50]);
    client.ended();
    H2::connect(&plan.address).get("/ok").expect_status(200);
}

#[test]
fn empty_data_frames_are_bounded() {
    let origin = Origin::answering(|_| Response::ok("x").cache("no-store"));
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    let mut client = raw(&ktrix);
    let fields = [&[(":method", "POST")][..], &of_get("/p")[1..]].concat();
    client.send(&Frame::new(HEADERS, END_HEADERS, 1, literals(&fields)));
    for _ in 0..20 {
        if !client.try_send(&vec![Frame::new(DATA, 0, 1, b""); 1_000]) {
            break;
        }
    }
    assert!(client.ended().is_none_or(|it| it.code() == CALM));
    assert_eq!(origin.n_requests(), 0);
    H2::connect(&plan.address).get("/ok").expect_status(200);
}

#[test]
fn heads_without_end_and_bombs_of_fields_are_bounded() {
    let origin = Origin::answering(|_| Response::ok("x").cache("no-store"));
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    ktrix.get("/ok").expect_status(200);
    let memory = || ktrix.workers().iter().map(|worker| worker.private_bytes()).sum::<u64>();
    let before = memory();
    // CONTINUATION without END_HEADERS, with bytes and without.
    for part in [literals(&[("x", &"y".repeat(1_000))]), Vec::new()] {
        let mut client = raw(&ktrix);
        client.send(&Frame::new(HEADERS, END_STREAM, 1, literals(&of_get("/bomb"))));
        for _ in 0..100 {
            if !client.try_send(&vec![Frame::new(CONTINUATION, 0, 1, &part); 100]) {
                break;
            }
        }
        assert!(client.ended().is_none_or(|it| [CALM, 9].contains(&it.code())));
    }
    // One entry of the dynamic table, and thousands of references of a byte to it.
    for value in ["", "y", &*"y".repeat(3_000)] {
        let mut client = raw(&ktrix);
        let mut block = literals(&of_get("/bomb"));
        let entry = literals(&[("cookie", value)]);
        block.push(0x40);
        block.extend_from_slice(&entry[1..]);
        block.extend(std::iter::repeat_n(0xbe, 12_000));
        client.send(&Frame::new(HEADERS, END_STREAM | END_HEADERS, 1, &block));
        let outcome = client.outcome(1).unwrap();
        let is_refused = match outcome.kind {
            GOAWAY => outcome.code() == CALM,
            HEADERS => outcome.status() == 0,
            _ => true,
        };
        assert!(is_refused, "{outcome:?}");
    }
    assert_eq!(origin.count("/bomb"), 0);
    expect_reason(&ktrix, "frame-flood");
    let grown = memory().saturating_sub(before);
    assert!(grown < 5 << 20, "{} KiB", grown >> 10);
}

#[test]
fn a_client_with_many_pings_and_resets_beside_its_answers_is_no_flood() {
    let origin = Origin::answering(|_| Response::ok("x").cache("max-age=60"));
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    ktrix.get("/a");
    ktrix.wait_hit("/a");
    let mut client = raw(&ktrix);
    for n in 0..3_000 {
        let id = 2 * n + 1;
        client.send(&Frame::get(id, "/a"));
        let mut frame = client.expect(HEADERS, id);
        while frame.flags & END_STREAM == 0 {
            frame = client.expect(DATA, id);
        }
        // As Go's client does when it does not read a body, RFC 9113 lets it.
        let sent = [
            Frame::reset(id),
            Frame::new(PING, 0, 0, [0; 8]),
            Frame::new(WINDOW_UPDATE, 0, 0, 1u32.to_be_bytes()),
        ];
        assert!(client.try_send(&sent), "closed after {n} answers");
    }
    assert_eq!(H2::connect(&plan.address).ask(&Ask::get("/a")).status, 200);
}
