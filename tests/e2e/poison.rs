//! No client can put into the cache what others then get: a field outside of the key neither
//! changes a stored response nor leaks from one client to another.

use crate::support::{Ask, Ktrix, Origin, Plan, Response};

/// Fields that some origins build links, redirects or whole pages from.
const FIELDS: &[&str] = &[
    "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Prefix",
    "X-Forwarded-Server", "X-Forwarded-Scheme", "X-Forwarded-Path", "X-Forwarded-Uri",
    "X-Forwarded-Protocol", "X-Forwarded-Ssl", "Forwarded", "Front-End-Https", "X-Url-Scheme",
    "X-Host", "X-Original-Host", "X-HTTP-Host-Override", "X-Original-URL", "X-Original-URI",
    "X-Rewrite-URL", "X-Real-IP", "X-HTTP-Method", "X-HTTP-Method-Override", "X-Method-Override",
    "X-Scheme", "X-Script-Name", "X-Envoy-Original-Path", "X-Client-IP", "True-Client-IP",
    "X-Original-Method",
    // CGI and similar interfaces make one variable of these and the names with hyphens.
    "X_Original_URL", "X_Forwarded_Host", "X_Forwarded_Proto", "X_Forwarded-For", "X_Script_Name",
    "X_HTTP_Method_Override", "Front_End_Https",
];

/// An origin with answers that depend on everything in a request: its target, host, body and every
/// field.
fn credulous() -> Origin {
    Origin::answering(|request| {
        let is_evil = |value: &str| value.contains("evil");
        let fields = request.head.fields.iter().any(|(_, value)| is_evil(value));
        let body = is_evil(&String::from_utf8_lossy(&request.body));
        let host = request.field("host").unwrap_or_default();
        let target = &request.target;
        let text = format!("{host} {target}{}", if fields || body { " evil" } else { "" });
        Response::ok(text).cache("max-age=600")
    })
}

/// A plain request never gets the answer to the poisoner's request.
#[track_caller]
fn expect_clean(ktrix: &Ktrix<'_>, target: &str, what: &str) {
    for _ in 0..6 {
        let text = ktrix.get(target).expect_status(200).text();
        assert!(!text.contains("evil"), "{what}: {text}");
        assert!(text.ends_with(&format!(" {target}")), "{what}: {text}");
    }
}

#[test]
fn fields_outside_the_key_change_nothing_that_is_stored() {
    let origin = credulous();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for (n, name) in FIELDS.iter().enumerate() {
        let target = format!("/{n}");
        for value in ["evil.example", "/evil", "for=1.1.1.1;host=evil.example;proto=evil"] {
            ktrix.ask(&Ask::get(&target).field(name, value));
        }
        expect_clean(&ktrix, &target, name);
        // Nor when the object is stored already, or is revalidated for a client that sends the
        // field.
        let ask = Ask::get(&target).field(name, "evil").field("Cache-Control", "no-cache");
        ktrix.ask(&ask);
        expect_clean(&ktrix, &target, name);
    }
}

#[test]
fn a_get_with_a_body_changes_nothing_that_is_stored() {
    let origin = credulous();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for (n, is_chunked) in [(0, false), (1, true)] {
        let target = format!("/{n}");
        let fat = Ask::post(&target, "evil=1").by("GET");
        let fat = if is_chunked { fat.chunked() } else { fat };
        ktrix.ask(&fat);
        expect_clean(&ktrix, &target, "a fat GET");
        ktrix.ask(&fat);
        expect_clean(&ktrix, &target, "a fat GET of what is stored");
    }
}

#[test]
fn a_private_answer_ends_no_fresh_object() {
    let origin = Origin::answering(|request| {
        if !request.has("cookie") {
            return Response::ok("all").field("ETag", "\"1\"").cache("max-age=600");
        }
        match &*request.target {
            "/no-store" => Response::ok("own").cache("no-store"),
            "/set-cookie" => Response::ok("own").cache("max-age=9").field("Set-Cookie", "a=b"),
            "/304" if request.has("if-none-match") => {
                Response::status(304).field("ETag", "\"1\"").cache("private")
            }
            _ => Response::ok("own").cache("private"),
        }
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for target in ["/private", "/no-store", "/set-cookie", "/304"] {
        ktrix.get(target).expect_body("all");
        ktrix.wait_hit(target);
        let ask = Ask::get(target).field("Cookie", "me").field("Cache-Control", "no-cache");
        ktrix.ask(&ask).expect_status(200).expect_body("own");
        let n_asked = origin.count(target);
        for _ in 0..4 {
            ktrix.get(target).expect_hit().expect_body("all");
        }
        assert_eq!(origin.count(target), n_asked, "{target}");
    }
}

#[test]
fn a_no_store_answer_leaves_the_stale_object_for_an_outage() {
    let mut origin = Origin::answering(|request| match request.number {
        0 => Response::ok("old").cache("max-age=0, stale-if-error=600"),
        _ => Response::ok("new").cache("no-store"),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_body("old");
    ktrix.get("/a").expect_body("new");
    origin.stop();
    ktrix.get("/a").expect_status(200).expect_body("old");
}

#[test]
fn every_spelling_of_a_path_has_an_answer_of_its_own() {
    let origin = credulous();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let targets = [
        "/a/b", "/a/%62", "/%61/b", "/a//b", "/a/./b", "/a/x/../b", "/a/b/", "/a/b?", "/a/b?x",
        "/a%2Fb", "/a%2fb", "/A/b", "/a/b;x", "/a/b%00", "/a/b%20", "/a\\b", "//a/b", "/a/b%0d%0a",
    ];
    for round in 0..4 {
        for target in targets {
            let answer = ktrix.get(target);
            let text = answer.text();
            // A request that is refused as malformed does not reach the origin.
            assert!(
                answer.status == 400 || text.ends_with(&format!(" {target}")),
                "round {round}, {target}: {text}"
            );
        }
    }
}

#[test]
fn the_host_of_an_absolute_target_is_the_one_that_counts() {
    let origin = credulous();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.ask(&Ask::get("http://evil.example/a"));
    expect_clean(&ktrix, "/a", "an absolute target");
    let own = ktrix.get("/a").text();
    let host = own.split(' ').next().unwrap();
    for _ in 0..4 {
        let target = format!("http://{host}/a");
        let answer = ktrix.ask(&Ask::get(&target).field("Host", "evil.example"));
        assert!(answer.status == 400 || answer.text() == own, "{}", answer.text());
        expect_clean(&ktrix, "/a", "another Host beside an absolute target");
    }
}
