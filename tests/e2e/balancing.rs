//! Which server gets a request: every method on real servers, servers that fail and come back, and
//! clients that stay with their server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{Ask, Client, Load, Origin, Plan, Response, until_true};

fn named(name: &'static str) -> Origin {
    Origin::answering(move |_| Response::ok(name))
}

/// The upstream of these servers, with more keys.
fn upstream(origins: &[&Origin], more: &str) -> String {
    let names: Vec<String> = origins.iter().map(|o| format!("\"{}\"", o.name())).collect();
    format!("{{servers: [{}]{more}}}", names.join(", "))
}

/// Three servers behind one worker, and how many of 10,000 requests for different targets each of them
/// gets.
fn counts(method: &str) -> [usize; 3] {
    const N_AT_ONCE: usize = 100;
    let origins = [named("a"), named("b"), named("c")];
    let plan = Plan::to(&upstream(&origins.each_ref(), &format!(", balance: {method}")));
    let plan = plan.set("workers", "1").set("cache", "off").set("log", "{error: $DIR/error.log}");
    let ktrix = plan.start();
    let mut client = ktrix.client();
    for first in (0..10_000).step_by(N_AT_ONCE) {
        let asks = (first..first + N_AT_ONCE).map(|i| Ask::get(&format!("/{i}")).bytes("h"));
        client.write(&asks.collect::<Vec<_>>().concat());
        (0..N_AT_ONCE).for_each(|_| drop(client.answer().expect_status(200)));
    }
    let counts = origins.each_ref().map(Origin::n_requests);
    assert_eq!(counts.iter().sum::<usize>(), 10_000, "{method}: {counts:?}");
    counts
}

#[test]
fn methods_without_chance_distribute_ten_thousand_requests_exactly() {
    for method in ["round-robin", "least-connections"] {
        let counts = counts(method);
        assert!(counts.iter().all(|n| (3_333..=3_334).contains(n)), "{method}: {counts:?}");
    }
    for method in ["first", "none"] {
        assert_eq!(counts(method), [10_000, 0, 0], "{method}");
    }
}

#[test]
fn the_other_methods_distribute_ten_thousand_requests_by_their_rule() {
    for method in ["random", "hash"] {
        let counts = counts(method);
        assert!(counts.iter().all(|n| (3_000..=3_700).contains(n)), "{method}: {counts:?}");
    }
    // All requests have one client. The server of the first one has the only idle connection.
    for method in ["source", "most-idle"] {
        assert!(counts(method).contains(&10_000), "{method}");
    }
    let counts = counts("rtt");
    assert!(counts.iter().all(|n| *n > 0), "rtt: {counts:?}");
}

#[test]
fn the_slowest_server_gets_the_fewest_requests_by_rtt() {
    let slow = Origin::answering(|_| Response::ok("slow").after(Duration::from_millis(200)));
    let fast = named("fast");
    let plan = Plan::to(&upstream(&[&slow, &fast], ", balance: rtt")).set("workers", "1");
    let ktrix = plan.start();
    let mut client = ktrix.client();
    for i in 0..40 {
        client.get(&format!("/{i}")).expect_status(200);
    }
    assert!(slow.n_requests() <= 10, "{} of 40", slow.n_requests());
}

#[test]
fn the_same_hash_leads_to_the_same_server_in_all_workers() {
    let origins = [named("a"), named("b"), named("c")];
    for (more, ask) in [
        (
            ", balance: hash",
            &(|i: usize| Ask::get(&format!("/{}", i % 10))) as &dyn Fn(usize) -> Ask,
        ),
        (", balance: hash, hash: header X-User", &|i| Ask::get("/").field("X-User", i % 10)),
        (", balance: hash, hash: cookie u", &|i| {
            Ask::get("/").field("Cookie", format!("v=1; u={}", i % 10))
        }),
    ] {
        let plan = Plan::to(&upstream(&origins.each_ref(), more)).set("workers", "3");
        let ktrix = plan.start();
        let mut found: BTreeMap<usize, String> = BTreeMap::new();
        for i in 0..60 {
            let name = ktrix.ask(&ask(i).field("Cache-Control", "no-store")).text();
            assert_eq!(*found.entry(i % 10).or_insert_with(|| name.clone()), name, "{more}");
        }
        assert!(found.values().any(|name| *name != found[&0]), "{more}: {found:?}");
    }
}

#[test]
fn a_client_address_leads_to_the_same_server() {
    let origins = [named("a"), named("b"), named("c")];
    let plan = Plan::to(&upstream(&origins.each_ref(), ", balance: source"));
    let _ktrix = plan.start();
    let mut names = BTreeMap::new();
    for i in 0..60_u8 {
        let mut client = Client::connect_from([127, 0, 0, 1 + i % 12], &plan.address);
        let name = client.get(&format!("/{i}")).expect_status(200).text();
        assert_eq!(*names.entry(i % 12).or_insert_with(|| name.clone()), name);
    }
    assert!(names.values().any(|name| *name != names[&0]), "{names:?}");
}

#[test]
fn a_failing_server_under_load_costs_no_request() {
    let (a, b) = (named("x"), named("x"));
    // It breaks each connection after some requests, in one of several ways.
    let bad = Origin::answering(|request| match request.number % 8 {
        0..=3 => Response::ok("x"),
        4 => Response::raw("").then_close(),
        5 => Response::raw("SSH-2.0-OpenSSH_9\r\n\r\n").then_close(),
        6 => Response::raw("HTTP/1.1 200 OK\r\nContent-").then_close(),
        _ => Response::status(503),
    });
    let plan = Plan::to(&upstream(&[&bad, &a, &b], ", skip: 50ms"));
    let ktrix = plan.start();
    let judge = |_: &Ask, answer: &crate::support::Answer| match (answer.status, &*answer.body) {
        (200, b"x") => Ok(()),
        (status, _) => Err(format!("{status}: {}", answer.text())),
    };
    let load =
        Load::start(&plan.address, 8, |client, i| Ask::get(&format!("/{client}/{i}")), judge);
    until_true("three thousand answers", || load.n_answered() >= 3_000);
    load.stop().expect_faultless();
    assert!(bad.n_requests() > 0);
    drop(ktrix);
}

#[test]
fn a_server_that_comes_back_gets_its_share_slowly() {
    let a = named("a");
    let mut b = named("b");
    let more = ", skip: 100ms, slow-start: 60s";
    let plan = Plan::to(&upstream(&[&a, &b], more)).set("workers", "1");
    let ktrix = plan.start();
    let mut client = ktrix.client();
    b.stop();
    for _ in 0..4 {
        client.get("/").expect_status(200).expect_body("a");
    }
    ktrix.wait_error("is down: it could not be reached");
    b.start();
    until_true("the server to come back", || client.get("/").text() == "b");
    ktrix.wait_error("is up: it answers");
    let before = b.n_requests();
    for _ in 0..100 {
        client.get("/").expect_status(200);
    }
    assert!(b.n_requests() - before < 35, "{} of 100", b.n_requests() - before);
}

#[test]
fn a_client_stays_with_its_server() {
    let origins = [named("a"), named("b"), named("c")];
    let more = ", sticky: {cookie: route}";
    let plan = Plan::to(&upstream(&origins.each_ref(), more));
    let ktrix = plan.start();
    let first = ktrix.get("/").expect_status(200);
    let cookie = first.field("set-cookie").expect("a cookie");
    let (pair, rest) = cookie.split_once(';').unwrap();
    assert!(pair.starts_with("route=") && rest == " Path=/; HttpOnly", "{cookie}");
    assert!(!pair.contains("127.0.0.1"));
    for i in 0..20 {
        let answer = ktrix.ask(&Ask::get(&format!("/{i}")).field("Cookie", format!("x=y; {pair}")));
        answer.expect_status(200).expect_body(first.text()).expect_no_field("set-cookie");
    }
    let other = ktrix.ask(&Ask::get("/z").field("Cookie", "route=0000000000000000"));
    assert!(other.field("set-cookie").is_some(), "it names no server");
}

#[test]
fn a_sticky_cookie_reaches_no_server_and_selects_no_variant() {
    let origin = Origin::answering(|request| {
        let cookie = request.field("cookie").unwrap_or("-").to_owned();
        match request.target.as_str() {
            "/auth" => Response::ok("").field("X-Accel-Redirect", "/files"),
            _ => Response::ok(cookie).cache("max-age=600").field("Vary", "Cookie"),
        }
    });
    let plan = Plan::to(&upstream(&[&origin], ", sticky: {cookie: route}"));
    let ktrix = plan.start();
    let first = ktrix.ask(&Ask::post("/", "x")).expect_body("-");
    let pair = first.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let ask = |target: &str, cookie: &str| ktrix.ask(&Ask::get(target).field("Cookie", cookie));
    ktrix.wait_hit("/a").expect_body("-");
    ask("/a", &pair).expect_hit().expect_body("-");
    ask("/a", "route=other").expect_hit().expect_body("-");
    ask("/a", &format!("{pair}; u=1")).expect_miss().expect_body("u=1");
    let post = Ask::post("/", "x").field("Cookie", format!("u=2; {pair};v=3"));
    ktrix.ask(&post).expect_body("u=2; v=3").expect_no_field("set-cookie");
    // The target of an internal redirect belongs to the same client.
    ask("/auth", &pair).expect_status(200).expect_no_field("set-cookie");
    let config = plan.config_path().display().to_string();
    let cookie = format!("Cookie: {pair}");
    let out = plan.run(&["explain", "http://h/a", "-H", &cookie, "--config", &config]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.contains("the cookie route may name a server"), "{text}");
}

#[test]
fn a_sticky_cookie_is_not_stored() {
    let origin = Origin::answering(|_| Response::ok("x").cache("max-age=600"));
    let plan = Plan::to(&upstream(&[&origin], ", sticky: {cookie: route}"));
    let ktrix = plan.start();
    ktrix.get("/a").expect_status(200).expect_no_field("set-cookie");
    ktrix.wait_hit("/a").expect_no_field("set-cookie");
    let with = ktrix.ask(&Ask::get("/a").field("Cookie", "route=1"));
    with.expect_hit().expect_no_field("set-cookie");
}

#[test]
fn drained_and_weightless_servers_keep_their_clients_alone() {
    let (a, b) = (named("a"), named("b"));
    let all = upstream(&[&a, &b], ", sticky: {cookie: route}");
    let plan = Plan::to(&all).set("workers", "1");
    let cookie_of_a = {
        let ktrix = plan.start();
        let mut cookies = (0..2).map(|_| {
            let answer = ktrix.get("/");
            (answer.text(), answer.field("set-cookie").unwrap().to_owned())
        });
        let (_, cookie) = cookies.find(|(name, _)| name == "a").expect("an answer of a");
        cookie.split(';').next().unwrap().to_owned()
    };
    for off in ["weight: 0", "drain: on"] {
        plan.put("upstreams", &format!(
            "{{app: {{servers: [{{address: \"{}\", {off}}}, \"{}\"], sticky: {{cookie: route}}}}}}",
            a.name(),
            b.name()
        ));
        let ktrix = plan.start();
        for i in 0..10 {
            ktrix.get(&format!("/{i}")).expect_body("b");
            ktrix.ask(&Ask::get("/").field("Cookie", &cookie_of_a)).expect_body("a");
        }
    }
}

#[test]
fn posts_are_not_lost_to_a_server_that_still_fails() {
    let (mut bad, good) = (named("bad"), named("good"));
    let plan = Plan::to(&upstream(&[&bad, &good], ", skip: 50ms")).set("workers", "1");
    let ktrix = plan.start();
    bad.stop();
    let mut client = ktrix.client();
    let mut post = || client.ask(&Ask::post("/", "order")).expect_status(200).text();
    let n_posts = std::iter::repeat_with(&mut post).take(200).filter(|name| name == "good").count();
    assert_eq!(n_posts, 200);
    let (n_before, _) = (bad.n_requests(), bad.start());
    // Only posts are sent, so that a connection alone finds out that it works again.
    until_true("the server to be used again", || post() == "bad");
    assert_eq!(bad.n_requests(), n_before + 1);
    ktrix.wait_error("is up: it accepts connections");
}

#[test]
fn a_post_never_finds_out_that_a_server_still_fails() {
    let (good, n_posts) = (named("good"), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&n_posts);
    let bad = Origin::answering(move |request| {
        counted.fetch_add(usize::from(request.method == "POST"), Ordering::SeqCst);
        Response::raw("").then_close()
    });
    let plan = Plan::to(&upstream(&[&bad, &good], ", skip: 2s")).set("workers", "1");
    let ktrix = plan.start();
    let mut client = ktrix.client();
    until_true("the server to be skipped", || {
        client.get("/").expect_status(200).expect_body("good");
        bad.n_requests() == 3
    });
    // Two more requests find out that it still fails.
    until_true("two attempts", || {
        for _ in 0..20 {
            client.ask(&Ask::post("/", "order")).expect_status(200).expect_body("good");
        }
        client.get("/").expect_status(200).expect_body("good");
        bad.n_requests() >= 5
    });
    assert_eq!(n_posts.load(Ordering::SeqCst), 0);
}

#[test]
fn a_backup_is_used_only_while_no_other_server_is() {
    let mut a = named("a");
    let b = named("b");
    let plan = Plan::to(&format!(
        "{{servers: [\"{}\", {{address: \"{}\", backup: on}}], skip: 100ms}}",
        a.name(),
        b.name()
    ));
    let ktrix = plan.start();
    for i in 0..10 {
        ktrix.get(&format!("/{i}")).expect_body("a");
    }
    a.stop();
    for i in 0..10 {
        ktrix.get(&format!("/{i}")).expect_status(200).expect_body("b");
    }
    a.start();
    until_true("the first server to be used again", || ktrix.get("/").text() == "a");
}

#[test]
fn a_post_is_received_once_whatever_the_servers_do() {
    let (_held, refusing) = crate::support::ktrix::reserve("127.0.0.1:0".parse().unwrap());
    let good = named("good");
    let n_reset = Arc::new(AtomicUsize::new(0));
    let resetting = {
        let n_reset = Arc::clone(&n_reset);
        Origin::wired(move |connection| {
            if connection.request().is_ok() {
                n_reset.fetch_add(1, Ordering::SeqCst);
                connection.reset();
            }
        })
    };
    let plan = Plan::to(&upstream(&[&resetting, &good], ", balance: first"));
    plan.start().ask(&Ask::post("/", "order")).expect_status(502);
    assert_eq!((n_reset.load(Ordering::SeqCst), good.n_requests()), (1, 0));
    // The connection is reset as soon as the head has come.
    let n_heads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&n_heads);
    let at_head = Origin::wired(move |connection| {
        if connection.head().is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
            connection.reset();
        }
    });
    for (buffering, n_bytes) in [("on", 16 << 20), ("off", 64 << 10)] {
        let routes =
            format!("[{{upstream: app, routes: [{{path: /, request-buffering: {buffering}}}]}}]");
        let plan = Plan::to(&upstream(&[&at_head, &good], ", balance: first"));
        let plan = plan.set("sites", &routes);
        let order = "x".repeat(n_bytes);
        plan.start().ask(&Ask::post("/", order)).expect_status(502);
        assert_eq!((n_heads.swap(0, Ordering::SeqCst), good.n_requests()), (1, 0), "{buffering}");
    }
    for (what, bad, n_bad, status) in [
        ("closed", Origin::answering(|_| Response::raw("").then_close()), 1, 502),
        ("cut", Origin::answering(|_| Response::raw("HTTP/1.1 200 OK\r\nA").then_close()), 1, 502),
        ("garbage", Origin::answering(|_| Response::raw("1234\r\n\r\n").then_close()), 1, 502),
        ("status", Origin::answering(|_| Response::status(503)), 1, 503),
        ("late", Origin::answering(|_| Response::ok("").after(Duration::from_secs(60))), 1, 504),
    ] {
        let more = ", balance: first";
        let plan = Plan::to(&upstream(&[&bad, &good], more)).set("workers", "1");
        let plan = plan.set("timeouts", "{first-byte: 300ms}");
        let ktrix = plan.start();
        ktrix.ask(&Ask::post("/", "order")).expect_status(status);
        assert_eq!((bad.n_requests(), good.n_requests()), (n_bad, 0), "{what}");
    }
    let servers = format!("{{servers: [\"{refusing}\", \"{}\"], balance: first}}", good.name());
    let plan = Plan::to(&servers).set("workers", "1");
    let ktrix = plan.start();
    ktrix.ask(&Ask::post("/", "order")).expect_status(200).expect_body("good");
    good.expect_requests(1);
}

#[test]
fn another_server_answers_for_one_that_hangs() {
    let hanging = Origin::answering(|_| Response::ok("late").after(Duration::from_secs(60)));
    let good = named("good");
    let plan = Plan::to(&upstream(&[&hanging, &good], ""))
        .set("workers", "1")
        .set("timeouts", "{first-byte: 300ms}");
    let ktrix = plan.start();
    for i in 0..10 {
        ktrix.get(&format!("/{i}")).expect_status(200).expect_body("good");
    }
    assert_eq!(hanging.n_requests(), 3, "then it is skipped");
    ktrix.wait_error("is down: it did not answer in time");
}
