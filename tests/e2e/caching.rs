//! The responses that are stored, those that are not, and the form of a stored answer.

use std::fs;
use std::time::Duration;

use crate::support::{Ask, Origin, Plan, Response, pattern, until, until_true};

#[test]
fn a_second_request_is_a_hit() {
    let origin = Origin::answering(|_| Response::ok("hello").cache("max-age=60"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.get("/a").expect_status(200).expect_body("hello").expect_miss();
    ktrix.wait_hit("/a");
    let answer = client.get("/a").expect_status(200).expect_body("hello").expect_hit();
    let age: u32 = answer.field("age").expect("Age").parse().expect("seconds");
    assert!(age <= 20, "Age: {age}");
    origin.expect_requests(1);
}

#[test]
fn every_worker_serves_an_object_stored_by_one() {
    let origin = Origin::answering(|_| Response::ok("hello").cache("max-age=60"));
    let plan = Plan::new(&origin).set("workers", "4");
    let ktrix = plan.start();
    ktrix.get("/a").expect_miss();
    ktrix.wait_hit("/a");
    for _ in 0..40 {
        ktrix.get("/a").expect_hit().expect_body("hello");
    }
    origin.expect_requests(1);
}

#[test]
fn responses_are_stored_as_rfc_9111_says() {
    let yes = |name: &str, fields: &[(&str, &str)]| (name.to_owned(), owned(fields), true);
    let no = |name: &str, fields: &[(&str, &str)]| (name.to_owned(), owned(fields), false);
    let modified = "Sat, 01 Jan 2000 00:00:00 GMT";
    let soon = crate::support::date_from_now(3600);
    let cases = [
        yes("max-age", &[("Cache-Control", "max-age=60")]),
        yes("s-maxage", &[("Cache-Control", "s-maxage=60, max-age=0")]),
        yes("expires", &[("Expires", &soon)]),
        yes("expires-rfc850", &[("Expires", "Thursday, 18-Aug-50 02:01:18 GMT")]),
        yes("expires-asctime", &[("Expires", "Mon Aug  8 02:01:18 2050")]),
        yes("expires-other-day", &[("Expires", "Thu Aug  8 02:01:18 2050")]),
        yes("expires-any-case", &[("Expires", "THU, 18 aug 2050 02:01:18 gmt")]),
        yes("age-first", &[("Cache-Control", "max-age=60"), ("Age", "0, 90")]),
        yes("age-two-lines", &[("Cache-Control", "max-age=60"), ("Age", "0"), ("Age", "90")]),
        yes("age-invalid", &[("Cache-Control", "max-age=60"), ("Age", "90.0")]),
        yes("heuristic", &[("Last-Modified", modified)]),
        yes("upper-case", &[("Cache-Control", "MAX-AGE=60")]),
        yes("two-lines", &[("Cache-Control", "public"), ("cache-control", "max-age=60")]),
        no("no-store", &[("Cache-Control", "max-age=60, no-store")]),
        no("private", &[("Cache-Control", "private, max-age=60")]),
        no("set-cookie", &[("Cache-Control", "max-age=60"), ("Set-Cookie", "a=b")]),
        no("s-maxage-0", &[("Cache-Control", "s-maxage=0, max-age=60")]),
        no("expired", &[("Expires", "Sat, 01 Jan 2000 00:00:00 GMT")]),
        no("bad-expires", &[("Expires", "0")]),
        no("age-last", &[("Cache-Control", "max-age=60"), ("Age", "90, 0")]),
        no("nothing", &[]),
        no("vary-all", &[("Cache-Control", "max-age=60"), ("Vary", "*")]),
    ];
    let table = cases.clone();
    let origin = Origin::answering(move |request| {
        let (_, fields, _) = table.iter().find(|c| request.target[1..] == *c.0).expect("a case");
        fields.iter().fold(Response::ok("x"), |r, (name, value)| r.field(name, value))
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for (name, _, is_stored) in &cases {
        let target = format!("/{name}");
        ktrix.get(&target).expect_status(200).expect_miss();
        if *is_stored {
            ktrix.wait_hit(&target);
            assert_eq!(origin.count(&target), 1, "{name}");
        } else {
            ktrix.get(&target).expect_status(200).expect_miss().expect_body("x");
            assert_eq!(origin.count(&target), 2, "{name}");
        }
    }
}

fn owned(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn requests_with_credentials_are_not_shared() {
    let origin = Origin::answering(|request| {
        let control = if request.target == "/public" { "public, max-age=60" } else { "max-age=60" };
        Response::ok(request.field("authorization").unwrap_or("nobody")).cache(control)
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let ask = |target, who| Ask::get(target).field("Authorization", who);
    ktrix.ask(&ask("/mine", "one")).expect_body("one");
    ktrix.ask(&ask("/mine", "two")).expect_body("two");
    ktrix.get("/mine").expect_body("nobody");
    ktrix.ask(&ask("/public", "one")).expect_body("one");
    ktrix.wait_hit("/public").expect_body("one");
    assert_eq!(origin.count("/public"), 1);
}

#[test]
fn keys_differ_by_host_and_query_but_not_by_case_of_host() {
    let origin = Origin::answering(|request| {
        let host = request.field("host").unwrap_or("none");
        Response::ok(format!("{host}{}", request.target)).cache("max-age=60")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let ask = |host, target| ktrix.ask(&Ask::get(target).field("Host", host));
    ask("one.example", "/a").expect_body("one.example/a");
    ask("two.example", "/a").expect_body("two.example/a");
    ask("one.example", "/a?q=1").expect_body("one.example/a?q=1");
    ask("one.example", "/a?q=2").expect_body("one.example/a?q=2");
    until_true("a hit for the same host in capitals", || ask("ONE.example", "/a").is_hit());
    ask("one.example:80", "/a").expect_hit();
    let absolute = ktrix.ask(&Ask::get("http://one.example/a").field("Host", "one.example"));
    absolute.expect_hit().expect_body("one.example/a");
    origin.expect_requests(4);
}

#[test]
fn a_stored_answer_expires() {
    let origin = Origin::answering(|r| Response::ok(r.number.to_string()).cache("max-age=1"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_body("0");
    until("a fresh answer after a second", Duration::from_secs(10), || {
        let answer = ktrix.get("/a");
        (answer.text() != "0").then_some(answer)
    });
}

#[test]
fn age_counts_from_the_origins_own() {
    let origin = Origin::answering(|_| Response::ok("x").field("Age", 30).cache("max-age=60"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a");
    let age: u32 = ktrix.wait_hit("/a").field("age").expect("Age").parse().unwrap();
    assert!((30..50).contains(&age), "Age: {age}");
}

#[test]
fn a_request_may_insist_on_the_origin_or_on_the_cache() {
    let origin = Origin::answering(|r| Response::ok(r.number.to_string()).cache("max-age=60"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let only = Ask::get("/a").field("Cache-Control", "only-if-cached");
    ktrix.ask(&only).expect_status(504);
    origin.expect_requests(0);
    ktrix.get("/a").expect_body("0");
    ktrix.wait_hit("/a");
    ktrix.ask(&only).expect_status(200).expect_hit().expect_body("0");
    ktrix.ask(&Ask::get("/a").field("Cache-Control", "no-cache")).expect_miss().expect_body("1");
    until_true("the newer answer in the cache", || ktrix.get("/a").text() == "1");
    origin.expect_requests(2);
}

#[test]
fn a_max_age_of_a_request_is_evaluated_each_time() {
    let origin = Origin::answering(|r| Response::ok(r.number.to_string()).cache("max-age=600"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    // The same bytes on the same connection: only the answer's age changes.
    let mut client = ktrix.client();
    let ask = Ask::get("/a").field("Cache-Control", "max-age=1");
    for _ in 0..2 {
        let mut stored = None;
        until_true("two hits in the answer's first second", || {
            let (first, second) = (client.ask(&ask), client.ask(&ask));
            stored = Some(second.text());
            first.is_hit() && second.is_hit()
        });
        until_true("a younger answer, asked for in the same words", || {
            Some(client.ask(&ask).expect_status(200).text()) != stored
        });
    }
}

#[test]
fn a_head_is_answered_from_a_stored_get_and_stores_no_body_of_its_own() {
    let origin = Origin::answering(|_| Response::ok("hello").cache("max-age=60"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.head("/a").expect_status(200).expect_field("content-length", "5").expect_body("");
    client.get("/a").expect_status(200).expect_body("hello");
    ktrix.wait_hit("/a").expect_body("hello");
    let n = origin.n_requests();
    client.head("/a").expect_hit().expect_field("content-length", "5").expect_body("");
    client.get("/a").expect_hit().expect_body("hello");
    origin.expect_requests(n);
}

#[test]
fn an_error_with_a_lifetime_is_stored_with_its_status() {
    let origin = Origin::answering(|_| Response::ok("gone").with_status(404).cache("max-age=60"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_status(404).expect_body("gone");
    ktrix.wait_hit("/a").expect_status(404).expect_body("gone");
    origin.expect_requests(1);
}

#[test]
fn other_methods_pass_the_cache() {
    let origin = Origin::answering(|r| Response::ok(&r.method).cache("max-age=60"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        for _ in 0..2 {
            let answer = ktrix.ask(&Ask::new(method, "/a").field("Content-Length", "0"));
            answer.expect_status(200).expect_miss().expect_body(method);
        }
    }
    origin.expect_requests(12);
}

#[test]
fn a_route_without_a_cache_stores_nothing() {
    let origin = Origin::answering(|_| Response::ok("x").cache("max-age=60"));
    let plan = Plan::new(&origin).set(
        "sites",
        "[{routes: [{path: /, upstream: app}, {path: /off/, upstream: app, cache: off}]}]",
    );
    let ktrix = plan.start();
    for n in 1..=3 {
        ktrix.get("/off/a").expect_status(200).expect_miss();
        origin.expect_requests(n);
    }
    ktrix.get("/on");
    ktrix.wait_hit("/on");
    assert_eq!(plan.cache_files().len(), 1);
}

#[test]
fn bodies_of_every_size_come_back_whole() {
    let sizes = [0, 1, 1023, 4096, 65_535, 65_536, 65_537, 1 << 20, (3 << 20) + 7];
    let origin = Origin::answering(move |request| {
        let (kind, size) = request.target[1..].split_once('/').expect("kind and size");
        let body = pattern(size.parse().expect("a size"));
        match kind {
            "sized" => Response::ok(body),
            "chunked" => Response::chunked(&body.chunks(10_000).collect::<Vec<_>>()),
            _ => Response::until_close(body),
        }
        .cache("max-age=60")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for kind in ["sized", "chunked", "close"] {
        for size in sizes {
            let (target, body) = (format!("/{kind}/{size}"), pattern(size));
            ktrix.get(&target).expect_status(200).expect_body(&body);
            let length = size.to_string();
            let hit = ktrix.wait_hit(&target).expect_body(&body);
            hit.expect_field("content-length", &length).expect_no_field("transfer-encoding");
            ktrix.get(&target).expect_hit().expect_body(&body);
        }
    }
    origin.expect_requests(3 * sizes.len());
}

#[test]
fn the_cache_survives_a_restart() {
    let mut origin = Origin::answering(|_| Response::ok(pattern(5000)).cache("max-age=600"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for i in 0..20 {
        ktrix.get(&format!("/{i}")).expect_status(200);
        ktrix.wait_hit(&format!("/{i}"));
    }
    ktrix.stop();
    origin.stop();
    let ktrix = plan.start();
    for i in 0..20 {
        ktrix.get(&format!("/{i}")).expect_hit().expect_body(pattern(5000));
    }
    plan.verify_cache();
}

#[test]
fn the_cache_stays_within_its_size() {
    let origin = Origin::answering(|_| Response::ok(pattern(1 << 20)).cache("max-age=600"));
    let plan = Plan::new(&origin)
        .set("cache", "{path: $DIR/cache, size: 8 MiB, objects: 1000, object: 2 MiB}");
    let ktrix = plan.start();
    for i in 0..40 {
        ktrix.get(&format!("/{i}")).expect_status(200).expect_body(pattern(1 << 20));
    }
    until_true("the cache's files to take 8 MiB at most", || {
        let sizes = plan.cache_files().into_iter().filter_map(|f| fs::metadata(f).ok());
        sizes.map(|m| m.len()).sum::<u64>() <= 8 << 20
    });
    assert!(!plan.cache_files().is_empty(), "everything was evicted");
    ktrix.get("/39").expect_status(200).expect_body(pattern(1 << 20));
    plan.verify_cache();
}

#[test]
fn an_object_over_the_limit_is_passed_on_unstored() {
    let origin = Origin::answering(|request| {
        let body = pattern(200_000);
        match &*request.target {
            "/sized" => Response::ok(body),
            _ => Response::chunked(&body.chunks(9_000).collect::<Vec<_>>()),
        }
        .cache("max-age=600")
    });
    let plan = Plan::new(&origin).set("cache", "{path: $DIR/cache, object: 100 KiB}");
    let ktrix = plan.start();
    for target in ["/sized", "/chunked", "/sized", "/chunked"] {
        ktrix.get(target).expect_status(200).expect_miss().expect_body(pattern(200_000));
    }
    origin.expect_requests(4);
    assert_eq!(plan.cache_files().len(), 0);
    until_true("no unfinished file", || plan.unfinished_files().is_empty());
}
