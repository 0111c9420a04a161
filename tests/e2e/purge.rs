//! A purge is in force once it is answered: by request and by command, for all objects that it
//! names.

use std::process::Output;

use ::ktrix::cache::purge::journal::RECORDS;
use ::ktrix::cache::purge::{Order, Purges};
use ::ktrix::policy::purge::hash::PurgeKind;

use crate::support::ktrix;
use crate::support::socket::Address;
use crate::support::{Answer, Ask, Client, Ktrix, Origin, Plan, Response, until_true};

/// An origin with answers that differ every time, with the tags and groups in the target's query.
fn origin() -> Origin {
    Origin::answering(|request| {
        let response = Response::ok(request.number.to_string()).cache("max-age=600");
        match request.target.split_once('?') {
            Some((_, "news")) => response.field("Cache-Tag", "news, front"),
            Some((_, "sports")) => response.field("Surrogate-Key", "sports front"),
            Some((_, "x")) => response.field("xkey", "x1 news"),
            Some((_, "group")) => response.field("Cache-Groups", "\"g\", \"h\""),
            _ => response,
        }
    })
}

fn four_workers(origin: &Origin) -> Plan {
    Plan::new(origin).set("workers", "4")
}

/// Requests until every worker has it in memory, as an alias of these very bytes.
fn warm(ktrix: &Ktrix<'_>, ask: &Ask) -> String {
    ktrix.ask(ask).expect_status(200);
    let mut n_hits = 0;
    let mut body = String::new();
    until_true("many hits", || {
        let answer = ktrix.ask(ask);
        n_hits += usize::from(answer.is_hit());
        body = answer.text();
        n_hits >= 24
    });
    body
}

/// No worker answers with this any more.
#[track_caller]
fn expect_gone(ktrix: &Ktrix<'_>, ask: &Ask, body: &str) {
    for _ in 0..16 {
        assert_ne!(ktrix.ask(ask).text(), body, "{} is still served", ask.target());
    }
}

fn purge(ktrix: &Ktrix<'_>, target: &str, fields: &[(&str, &str)]) -> Answer {
    let ask = Ask::new("PURGE", target);
    let ask = fields.iter().fold(ask, |ask, (name, value)| ask.field(name, value));
    ktrix.ask(&ask).expect_status(200)
}

fn command(plan: &Plan, words: &[&str]) -> Output {
    let config = plan.config_path().display().to_string();
    plan.run(&[&["cache", "purge"], words, &["--config", &config]].concat())
}

#[track_caller]
fn expect_done(output: &Output) -> String {
    let text = ktrix::text(output);
    assert!(output.status.success(), "{text}");
    text
}

fn url(plan: &Plan, target: &str) -> String {
    let Address::Ip(ip) = plan.address else { unreachable!() };
    format!("http://{ip}{target}")
}

#[test]
fn a_purged_url_is_served_by_no_worker_and_in_no_variant() {
    let origin = Origin::answering(|request| {
        Response::ok(request.number.to_string()).field("Vary", "Accept").cache("max-age=600")
    });
    let plan = four_workers(&origin);
    let ktrix = plan.start();
    let asks = ["text/html", "image/png"].map(|kind| Ask::get("/a").field("Accept", kind));
    for way in 0..2 {
        let bodies = asks.each_ref().map(|ask| warm(&ktrix, ask));
        if way == 0 {
            let answer = purge(&ktrix, "/a", &[]).expect_field("ktrix-purge", "1");
            assert!(answer.text().contains("purge 1"), "{}", answer.text());
        } else {
            assert!(expect_done(&command(&plan, &[&url(&plan, "/a")])).contains("purge 2 of url"));
        }
        for (ask, body) in asks.iter().zip(&bodies) {
            expect_gone(&ktrix, ask, body);
        }
    }
    plan.verify_cache();
}

#[test]
fn prefix_host_tag_group_and_all_name_their_objects() {
    let origin = origin();
    let plan = four_workers(&origin);
    let ktrix = plan.start();
    let host = url(&plan, "").replace("http://", "");
    let targets = ["/a/1?news", "/a/2?sports", "/b/1?x", "/b/2?group"];
    let asks = targets.map(Ask::get);
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a [&'a str]);
    let cases: &[Case<'_>] = &[
        (&[("Ktrix-Purge", "prefix")], "/a/", &["/a/1?news", "/a/2?sports"]),
        (&[("Cache-Tag", "front")], "/", &["/a/1?news", "/a/2?sports"]),
        (&[("xkey", "news")], "/", &["/a/1?news", "/b/1?x"]),
        (&[("Surrogate-Key", "x1 sports")], "/", &["/a/2?sports", "/b/1?x"]),
        (&[("Cache-Groups", "\"h\"")], "/", &["/b/2?group"]),
        (&[("Ktrix-Purge", "host")], "/", &targets),
        (&[("Ktrix-Purge", "all")], "/", &targets),
        (&[], "/b/1?x", &["/b/1?x"]),
    ];
    for (fields, target, named) in cases {
        let bodies = asks.each_ref().map(|ask| warm(&ktrix, ask));
        purge(&ktrix, target, fields);
        for (ask, body) in asks.iter().zip(&bodies) {
            match named.contains(&ask.target()) {
                true => expect_gone(&ktrix, ask, body),
                false => drop(ktrix.ask(ask).expect_hit().expect_body(body)),
            }
        }
    }
    let b = url(&plan, "/b");
    let origin = url(&plan, "");
    let cases: &[(&[&str], &[&str])] = &[
        (&["--prefix", &b], &["/b/1?x", "/b/2?group"]),
        (&["--tag", "front"], &["/a/1?news", "/a/2?sports"]),
        (&["--group", "g", "--of", &origin], &["/b/2?group"]),
        (&["--host", &host], &targets),
        (&["--all"], &targets),
    ];
    for (words, named) in cases {
        let bodies = asks.each_ref().map(|ask| warm(&ktrix, ask));
        expect_done(&command(&plan, words));
        for (ask, body) in asks.iter().zip(&bodies) {
            match named.contains(&ask.target()) {
                true => expect_gone(&ktrix, ask, body),
                false => drop(ktrix.ask(ask).expect_hit().expect_body(body)),
            }
        }
    }
    ktrix.wait_error("purge 1 of prefix");
    let log = ktrix.wait_error("of host");
    assert!(log.contains("by 127.0.0.1"), "{log}");
    ktrix.wait_error("by user ");
}

#[test]
fn a_soft_purge_lets_stale_answers_go_on_while_they_are_renewed() {
    let origin = Origin::answering(|request| match request.field("if-none-match") {
        Some(_) if request.target == "/same" => Response::status(304).cache("max-age=600"),
        _ => Response::ok(request.number.to_string())
            .field("ETag", "\"1\"")
            .cache("max-age=600, stale-while-revalidate=600"),
    });
    let plan = four_workers(&origin);
    let ktrix = plan.start();
    for (target, is_same) in [("/same", true), ("/other", false)] {
        let body = warm(&ktrix, &Ask::get(target));
        let n_before = origin.n_requests();
        purge(&ktrix, target, &[("Soft-Purge", "1")]);
        let answer = ktrix.get(target).expect_body(&body).expect_hit();
        assert!(answer.cache_status().contains("ttl=-") || answer.cache_status().contains("ttl=0"));
        origin.wait_requests(n_before + 1);
        until_true("the renewed answer everywhere", || {
            (0..12).all(|_| {
                let answer = ktrix.get(target);
                let is_late = |ttl| answer.cache_status().contains(ttl);
                let is_fresh = answer.is_hit() && !is_late("ttl=-") && !is_late("ttl=0");
                is_fresh && (answer.text() == body) == is_same
            })
        });
        assert_eq!(origin.n_requests(), n_before + 1, "one refresh for all");
    }
}

#[test]
fn a_purge_can_be_undone_until_its_objects_are_replaced() {
    let origin = origin();
    let plan = four_workers(&origin);
    let ktrix = plan.start();
    let asks = ["/a?news", "/b?news"].map(Ask::get);
    let [a, b] = asks.each_ref().map(|ask| warm(&ktrix, ask));
    purge(&ktrix, "/", &[("Cache-Tag", "news")]);
    expect_gone(&ktrix, &asks[0], &a);
    assert!(expect_done(&command(&plan, &["--undo", "1"])).contains("undone"));
    ktrix.ask(&asks[1]).expect_body(&b).expect_hit();
    expect_gone(&ktrix, &asks[0], &a);
    assert!(!command(&plan, &["--undo", "1"]).status.success());
    let listed = expect_done(&command(&plan, &["--list"]));
    assert!(listed.contains("tag news (undone)  by 127.0.0.1"), "{listed}");
    assert!(listed.contains("undoes purge 1 of tag news  by user "), "{listed}");
    ktrix.wait_error("purge 1 of tag \"news\" is undone, by user ");
    plan.verify_cache();
}

#[test]
fn purges_outlive_a_restart_and_the_loss_of_the_index() {
    let origin = origin();
    let plan = four_workers(&origin);
    let asks = ["/a?news", "/b?x"].map(Ask::get);
    let ktrix = plan.start();
    let [a, b] = asks.each_ref().map(|ask| warm(&ktrix, ask));
    purge(&ktrix, "/a?news", &[]);
    ktrix.stop();
    let ktrix = plan.start();
    ktrix.ask(&asks[1]).expect_body(&b).expect_hit();
    ktrix.stop();
    std::fs::remove_file(plan.cache_dir().join("index")).unwrap();
    let ktrix = plan.start();
    ktrix.wait_error("2 files added");
    ktrix.ask(&asks[1]).expect_body(&b).expect_hit();
    expect_gone(&ktrix, &asks[0], &a);
    ktrix.stop();
    // The purges are not known: then all objects count as purged.
    std::fs::remove_file(plan.cache_dir().join("purges")).unwrap();
    let ktrix = plan.start();
    expect_gone(&ktrix, &asks[1], &b);
    plan.verify_cache();
}

#[test]
fn only_permitted_clients_purge_and_no_origin_sees_it() {
    let origin = origin();
    let plan = four_workers(&origin);
    plan.put("cache", "{path: $DIR/cache, purge: [10.0.0.0/8, unix]}");
    plan.put(
        "listen",
        &format!("[\"{}\", \"unix:$DIR/sock\"]", url(&plan, "").replace("http://", "")),
    );
    let ktrix = plan.start();
    let body = warm(&ktrix, &Ask::get("/a"));
    let n_before = origin.n_requests();
    for (target, field) in [("/a", ("X-Forwarded-For", "10.0.0.1")), ("/b", ("Host", "10.0.0.1"))] {
        let ask = Ask::new("PURGE", target).field(field.0, field.1);
        let refused = ktrix.ask(&ask).expect_status(403);
        let text = String::from_utf8_lossy(&refused.body);
        assert!(text.contains("127.0.0.1 may not purge (see cache.purge)"), "{text}");
    }
    ktrix.get("/a").expect_body(&body).expect_hit();
    let mut local = Client::connect(&Address::Unix(plan.dir().join("sock")));
    let host = url(&plan, "").replace("http://", "");
    let ask = |word: &str| Ask::new("PURGE", "/a").field("Host", &host).field("Ktrix-Purge", word);
    local.ask(&ask("everything")).expect_status(400);
    ktrix.get("/a").expect_body(&body).expect_hit();
    local.ask(&ask("url")).expect_status(200);
    until_true("the reason of the one that was not understood", || {
        plan.access_lines().iter().any(|line| line.contains("purge-refused"))
    });
    assert_eq!(origin.n_requests(), n_before, "no origin saw any of it");
    expect_gone(&ktrix, &Ask::get("/a"), &body);
    until_true("the reason in the access log", || {
        plan.access_lines().iter().any(|line| line.contains("purge-denied"))
    });
}

#[test]
fn no_origin_sees_a_purge_when_the_cache_cannot_be_opened() {
    let origin = origin();
    for (who, status) in [("loopback", 503), ("10.0.0.0/8", 403)] {
        let plan =
            Plan::new(&origin).set("cache", &format!("{{path: $DIR/cache, purge: [{who}]}}"));
        plan.start().stop();
        let temporary = plan.cache_dir().join("tmp");
        std::fs::remove_dir_all(&temporary).unwrap();
        std::fs::write(&temporary, "no directory").unwrap();
        let ktrix = plan.start();
        ktrix.wait_error("running without a cache");
        ktrix.get("/a").expect_status(200);
        let n_before = origin.n_requests();
        ktrix.ask(&Ask::new("PURGE", "/a")).expect_status(status);
        assert_eq!(origin.n_requests(), n_before, "no origin saw it");
    }
}

#[test]
fn the_answer_names_the_number_of_each_purge() {
    let origin = origin();
    let plan = four_workers(&origin);
    let ktrix = plan.start();
    purge(&ktrix, "/a", &[("Cache-Tag", "a, b, c")]).expect_field("ktrix-purge", "1, 2, 3");
}

#[test]
fn an_unsafe_request_invalidates_groups_of_its_own_origin() {
    let origin = Origin::answering(|request| match request.method.as_str() {
        "POST" => Response::ok("done").field("Cache-Group-Invalidation", "\"g\""),
        "GET" if request.target == "/reads" => Response::ok(request.number.to_string())
            .cache("max-age=600")
            .field("Cache-Group-Invalidation", "\"g\""),
        _ => Response::ok(request.number.to_string())
            .cache("max-age=600")
            .field("Cache-Groups", "\"g\""),
    });
    let plan = four_workers(&origin);
    let ktrix = plan.start();
    let member = Ask::get("/member");
    let body = warm(&ktrix, &member);
    ktrix.get("/reads").expect_status(200);
    ktrix.ask(&Ask::post("/form", "x").field("Host", "other.example")).expect_status(200);
    ktrix.ask(&member).expect_body(&body).expect_hit();
    ktrix.ask(&Ask::post("/form", "x")).expect_status(200);
    expect_gone(&ktrix, &member, &body);
}

#[test]
fn the_commands_show_purged_objects() {
    let origin = origin();
    let plan = four_workers(&origin);
    let ktrix = plan.start();
    warm(&ktrix, &Ask::get("/a"));
    let config = plan.config_path().display().to_string();
    let url = url(&plan, "/a");
    let said = |words: &[&str]| ktrix::text(&plan.run(&[words, &["-c", &config]].concat()));
    purge(&ktrix, "/a", &[("Ktrix-Purge", "soft")]);
    assert!(said(&["cache", "list"]).contains("stale"), "{}", said(&["cache", "list"]));
    assert!(said(&["explain", &url]).contains("made stale"), "{}", said(&["explain", &url]));
    purge(&ktrix, "/a", &[]);
    assert!(said(&["cache", "list"]).contains("purged"), "{}", said(&["cache", "list"]));
    assert!(said(&["explain", &url]).contains("was purged"), "{}", said(&["explain", &url]));
    assert!(said(&["cache", "cat", &url]).contains("was purged"));
    expect_done(&command(&plan, &["--undo", "2"]));
    assert!(!said(&["explain", &url]).contains("was purged"));
}

#[test]
fn displaced_records_missing_in_the_error_log_are_printed() {
    let origin = origin();
    let plan = four_workers(&origin);
    plan.start().stop();
    let purges = Purges::open_existing(&plan.cache_dir()).unwrap();
    for n in 0..RECORDS {
        let order = Order {
            kind: PurgeKind::Tag,
            text: b"t".to_vec(),
            is_soft: false,
            name: format!("t{n}"),
            who: "test".to_owned(),
        };
        purges.purge(&order, 1).unwrap();
    }
    for n in 1..3 {
        let output = command(&plan, &["--tag", "t"]);
        assert!(output.status.success());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let expected = format!("not in the error log: purge {n} of tag \"t{}\", by test\n", n - 1);
        assert!(told.ends_with(&expected), "{told}");
    }
}

#[test]
fn a_port_of_the_scheme_is_named_though_no_key_has_it() {
    let origin = origin();
    let plan = four_workers(&origin);
    let ktrix = plan.start();
    let config = plan.config_path().display().to_string();
    let ask = Ask::get("/a").field("Host", "A.example");
    let other = Ask::get("/a").field("Host", "a.example:81");
    let other_body = warm(&ktrix, &other);
    for way in 0..2 {
        let body = warm(&ktrix, &ask);
        let list = plan.run(&["cache", "list", "--host", "a.example:80", "-c", &config]);
        assert!(ktrix::text(&list).contains("http://a.example/a"), "{}", ktrix::text(&list));
        match way {
            0 => drop(purge(&ktrix, "/", &[("Host", "a.example:80"), ("Ktrix-Purge", "host")])),
            _ => drop(expect_done(&command(&plan, &["--host", "a.example.:80"]))),
        }
        expect_gone(&ktrix, &ask, &body);
    }
    ktrix.ask(&other).expect_hit().expect_body(&other_body);
}

#[test]
fn purges_that_could_name_nothing_are_refused() {
    let origin = origin();
    let plan = four_workers(&origin).set(
        "sites",
        "[{upstream: app, routes: [{path: /app/, cache: {key: {path: off}}}, {path: /}]}]",
    );
    let ktrix = plan.start();
    let ask = Ask::get("/app/x").field("Host", "a.example");
    let body = warm(&ktrix, &ask);
    for (target, host, word) in [
        ("/", "*.example", "host"),
        ("/app/x", "*.example", "url"),
        ("/app/", "*.example", "prefix"),
        ("/app/x", "a.example", "prefix"),
    ] {
        let ask = Ask::new("PURGE", target).field("Host", host).field("Ktrix-Purge", word);
        ktrix.ask(&ask).expect_status(400);
    }
    for (words, code) in [
        (["--host", "*.example"], 2),
        (["--host", "http://a.example"], 2),
        (["--prefix", "http://*.example/"], 2),
        (["--prefix", "http://a.example/app/x"], 1),
    ] {
        let output = command(&plan, &words);
        assert_eq!(output.status.code(), Some(code), "{}", ktrix::text(&output));
    }
    ktrix.ask(&ask).expect_hit().expect_body(&body);
    let whole = [("Host", "a.example"), ("Ktrix-Purge", "prefix")];
    purge(&ktrix, "/app/", &whole).expect_field("ktrix-purge", "1");
    expect_gone(&ktrix, &ask, &body);
}

#[test]
fn every_purge_is_logged_however_many_there_are() {
    let origin = origin();
    let plan = four_workers(&origin);
    let ktrix = plan.start();
    let names = |from: usize| (from..from + 250).map(|n| format!("t{n}-")).collect::<Vec<_>>();
    // More than the journal has room for, and more than the limit of a call site.
    for from in (0..1500).step_by(250) {
        purge(&ktrix, "/", &[("xkey", &names(from).join(" "))]);
    }
    purge(&ktrix, "/", &[("Cache-Groups", "\"g\"")]);
    ktrix.wait_error("of group \"g of http://");
    let log = plan.error_log();
    for name in (0..1500).step_by(250).flat_map(names) {
        assert!(log.contains(&format!("of tag \"{name}\", by 127.0.0.1")), "{name}");
    }
}

#[test]
fn a_purge_by_key_prints_the_url() {
    let origin = origin();
    let plan = four_workers(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_status(200);
    let config = plan.config_path().display().to_string();
    let shown = || ktrix::text(&plan.run(&["cache", "list", "-c", &config]));
    until_true("it is stored", || shown().contains("/a\n"));
    let key = shown().split_whitespace().next().unwrap().to_owned();
    let said = expect_done(&command(&plan, &[&key]));
    assert_eq!(said, format!("purge 1 of url {}\n", url(&plan, "/a")));
}

#[test]
fn a_routes_key_decides_which_objects_a_url_names() {
    let origin = origin();
    let plan = four_workers(&origin).set(
        "sites",
        "[{upstream: app, cache: {key: {query-drop: [utm_x]}}, routes: [{path: /, upstream: app}]}]",
    );
    let ktrix = plan.start();
    for way in 0..2 {
        let ask = Ask::get("/a?y=1");
        let body = warm(&ktrix, &ask);
        match way {
            0 => drop(purge(&ktrix, "/a?utm_x=5&y=1", &[])),
            _ => drop(expect_done(&command(&plan, &[&url(&plan, "/a?y=1&utm_x=6")]))),
        }
        expect_gone(&ktrix, &ask, &body);
    }
}

#[test]
fn by_default_no_client_behind_a_proxy_on_this_machine_may_purge() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.ask(&Ask::get("/a")).expect_status(200);
    ktrix.wait_hit("/a");
    for (name, value) in
        [("X-Forwarded-For", "192.0.2.1"), ("Forwarded", "for=192.0.2.1"), ("Via", "1.1 tls")]
    {
        let ask = Ask::new("PURGE", "/a").field(name, value);
        ktrix.ask(&ask).expect_status(403);
    }
    ktrix.ask(&Ask::get("/a")).expect_hit();
    purge(&ktrix, "/a", &[]);
    ktrix.ask(&Ask::get("/a")).expect_miss();
}
