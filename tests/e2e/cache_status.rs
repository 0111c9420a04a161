//! `Cache-Status` (RFC 9211): every answer names what the cache did for it.

use crate::support::{Ask, Origin, Plan, Response, until_true};

/// The parameters of ktrix's own member.
fn member(status: &str) -> Vec<String> {
    let own = status.rsplit(", ").next().unwrap_or_default();
    let mut parts = own.split("; ").map(str::to_owned);
    assert_eq!(parts.next().as_deref(), Some("ktrix"), "{status}");
    parts.collect()
}

#[test]
fn hits_and_misses_say_so() {
    let origin = Origin::answering(|_| Response::ok("x").cache("max-age=60"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let miss = member(&ktrix.get("/a").cache_status());
    assert!(miss.iter().any(|p| p == "fwd=uri-miss" || p == "fwd=miss"), "{miss:?}");
    assert!(!miss.iter().any(|p| p == "hit"), "{miss:?}");
    let hit = member(&ktrix.wait_hit("/a").cache_status());
    let ttl = hit.iter().find_map(|p| p.strip_prefix("ttl=")?.parse::<i64>().ok());
    assert!(ttl.is_some_and(|ttl| (1..=60).contains(&ttl)), "{hit:?}");
    assert!(!hit.iter().any(|p| p.starts_with("fwd")), "{hit:?}");
}

#[test]
fn passed_requests_say_why() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin).set(
        "sites",
        "[{routes: [{path: /, upstream: app}, {path: /off, upstream: app, cache: off}]}]",
    );
    let ktrix = plan.start();
    let forwarded = |ask: &Ask| {
        let parts = member(&ktrix.ask(ask).cache_status());
        parts.iter().find_map(|p| p.strip_prefix("fwd=").map(str::to_owned)).unwrap_or_default()
    };
    assert_eq!(forwarded(&Ask::post("/a", "x")), "method");
    assert_eq!(forwarded(&Ask::get("/off")), "bypass");
}

#[test]
fn a_validated_answer_is_forwarded_for_staleness() {
    let origin = Origin::answering(|request| match request.has("if-none-match") {
        true => Response::status(304).field("ETag", "\"x\"").cache("max-age=0"),
        false => Response::ok("x").field("ETag", "\"x\"").cache("max-age=0"),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a");
    until_true("fwd=stale", || {
        let parts = member(&ktrix.get("/a").cache_status());
        parts.iter().any(|p| p == "fwd=stale") && parts.iter().any(|p| p == "fwd-status=304")
    });
}

#[test]
fn the_origins_status_is_reported_where_another_is_sent() {
    let origin = Origin::answering(|_| {
        Response::ok("0123456789").field("ETag", "\"x\"").cache("max-age=60")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let asks = [
        ("/304", Some(("If-None-Match", "\"x\"")), 304),
        ("/206", Some(("Range", "bytes=1-2")), 206),
        ("/several", Some(("Range", "bytes=1-2,5-6")), 206),
        ("/416", Some(("Range", "bytes=20-")), 416),
        ("/200", None, 200),
    ];
    for (target, field, status) in asks {
        let ask = Ask::get(target);
        let ask = field.into_iter().fold(ask, |ask, (name, value)| ask.field(name, value));
        let answer = ktrix.ask(&ask);
        // A response that is still arriving may be sent whole for several ranges.
        let may_be_whole = target == "/several" && answer.status == 200;
        assert!(answer.status == status || may_be_whole, "{answer:?}");
        let parts = member(&answer.cache_status());
        assert!(parts.iter().any(|p| p.starts_with("fwd=")), "{parts:?}");
        let is_told = parts.iter().any(|p| p == "fwd-status=200");
        assert_eq!(is_told, answer.status != 200, "{status}: {parts:?}");
    }
}

#[test]
fn the_member_of_ktrix_follows_those_of_caches_behind_it() {
    let origin = Origin::answering(|_| {
        Response::ok("x").field("Cache-Status", "inner; hit").cache("max-age=9")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for _ in 0..2 {
        let status = ktrix.get("/a").cache_status();
        assert!(status.starts_with("inner; hit, ktrix; "), "{status}");
    }
}

#[test]
fn answers_without_the_cache_have_no_cache_status() {
    let mut origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    origin.stop();
    member(&ktrix.get("/a").expect_status(502).cache_status());
    let mut client = ktrix.client();
    client.write(b"GET / HTTP/1.1\r\n\r\n");
    client.answer().expect_status(400).expect_no_field("cache-status");
    for (ask, status) in [
        (Ask::new("TRACE", "/"), 405),
        (Ask::get("/").field("Expect", "wonders"), 417),
        (Ask::get("/").field("Cache-Control", "only-if-cached"), 504),
    ] {
        ktrix.ask(&ask).expect_status(status).expect_no_field("cache-status");
    }
}

#[test]
fn a_stale_answer_after_a_failure_was_forwarded() {
    let origin = Origin::answering(|request| match request.number {
        0 => Response::ok("x").cache("max-age=0, stale-if-error=600"),
        _ => Response::status(503),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_body("x");
    for ask in [Ask::get("/a"), Ask::new("HEAD", "/a")] {
        let parts = member(&ktrix.ask(&ask).expect_status(200).cache_status());
        assert_eq!(parts[..2], ["fwd=stale", "fwd-status=503"]);
        assert!(parts[2].starts_with("ttl="), "{parts:?}");
    }
}
