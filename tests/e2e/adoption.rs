//! Answers to POST and HEAD that change the answer to a GET.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::support::{Ask, Origin, Plan, Response, pattern, until_true};

/// Answers a POST with a page made of its body, and names the URL of that page.
fn form(location: &'static str) -> Origin {
    Origin::answering(move |request| {
        let body = match request.method.as_str() {
            "POST" => format!("made of {}", String::from_utf8_lossy(&request.body)),
            _ => "made for GET".into(),
        };
        Response::ok(body).field("Content-Location", location).cache("max-age=600")
    })
}

#[test]
fn a_post_with_its_own_content_location_is_stored() {
    let origin = form("/form");
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.ask(&Ask::post("/form", "one")).expect_status(200).expect_body("made of one");
    ktrix.get("/form").expect_hit().expect_body("made of one");
    ktrix.ask(&Ask::post("/form", "two")).expect_body("made of two");
    ktrix.get("/form").expect_hit().expect_body("made of two");
    ktrix.ask(&Ask::new("HEAD", "/form")).expect_hit().expect_status(200);
    origin.expect_requests(2);
}

#[test]
fn a_post_with_another_content_location_is_not_stored() {
    let origin = form("/other");
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.ask(&Ask::post("/form", "one")).expect_body("made of one");
    ktrix.get("/form").expect_miss().expect_body("made for GET");
    ktrix.get("/other").expect_miss().expect_body("made for GET");
}

#[test]
fn the_answer_to_a_put_is_not_stored() {
    let origin = form("/form");
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.ask(&Ask::new("PUT", "/form")).expect_body("made for GET");
    ktrix.get("/form").expect_miss();
}

#[test]
fn a_post_with_fields_outside_the_key_stores_nothing_for_others() {
    let origin = form("/form");
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for name in ["X-Original-URL", "X-Host", "Authorization", "Forwarded"] {
        let value = if name == "Forwarded" { "for=192.0.2.1;host=evil" } else { "evil" };
        let ask = Ask::post("/form", "evil").field(name, value);
        ktrix.ask(&ask).expect_body("made of evil");
        ktrix.get("/form").expect_miss().expect_body("made for GET");
    }
    // The request of a GET names the client to the origin as well.
    let ask = Ask::post("/form", "good").field("Forwarded", "for=192.0.2.1");
    ktrix.ask(&ask).expect_body("made of good");
    ktrix.get("/form").expect_hit().expect_body("made of good");
}

#[test]
fn a_head_renews_what_it_confirms_and_removes_what_it_denies() {
    let origin = Origin::answering(|request| {
        let is_head = request.method == "HEAD";
        let response = match (request.target.as_str(), is_head) {
            ("/same", false) => Response::ok("hello").cache("max-age=0"),
            ("/same", true) => Response::ok("hello").cache("max-age=600").field("X-New", 1),
            (_, false) => Response::ok("hello").cache("max-age=0, stale-if-error=600"),
            (_, true) => Response::ok("hello you").cache("max-age=600"),
        };
        let tag = if is_head && request.target == "/tag" { "\"two\"" } else { "\"one\"" };
        response.field("ETag", tag)
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for target in ["/same", "/tag", "/length"] {
        ktrix.get(target).expect_body("hello");
        ktrix.ask(&Ask::new("HEAD", target)).expect_status(200);
    }
    origin.expect_requests(6);
    ktrix.get("/same").expect_hit().expect_body("hello").expect_field("x-new", "1");
    origin.expect_requests(6);
    for target in ["/tag", "/length"] {
        ktrix.get(target).expect_status(200);
        assert!(!origin.last().has("if-none-match"), "{target} is asked for as if never stored");
    }
}

#[test]
fn a_head_that_is_not_as_a_get_changes_nothing() {
    let origin = Origin::answering(|request| {
        let is_head = request.method == "HEAD";
        let life = if is_head { "max-age=600" } else { "max-age=0" };
        let tag = if is_head && request.target == "/new" { "\"two\"" } else { "\"one\"" };
        let is_known = request.field("if-none-match") == Some("\"one\"");
        let response = match is_known && !is_head {
            true => Response::status(304),
            false => Response::ok("hello"),
        };
        response.field("ETag", tag).cache(life)
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for target in ["/same", "/new"] {
        ktrix.get(target).expect_body("hello");
        let head = || Ask::new("HEAD", target);
        for ask in [
            Ask::post(target, "content").by("HEAD"),
            head().field("If-Match", "\"x\""),
            head().field("If-None-Match", "\"x\""),
            head().field("If-Unmodified-Since", "Sat, 01 Jan 2000 00:00:00 GMT"),
        ] {
            ktrix.ask(&ask).expect_status(200);
            assert_eq!(origin.last().method, "HEAD");
            ktrix.get(target).expect_status(200).expect_body("hello");
            assert!(origin.last().has("if-none-match"), "{target} is neither renewed nor removed");
        }
    }
}

#[test]
fn a_head_renews_an_object_of_any_size_where_it_lies() {
    let origin = Origin::answering(|request| {
        let life = if request.method == "HEAD" { "max-age=600" } else { "max-age=0" };
        Response::ok(pattern(3 << 20)).field("ETag", "\"one\"").cache(life)
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_body(pattern(3 << 20));
    until_true("the stored object", || plan.cache_files().len() == 1);
    let inode = || fs::metadata(&plan.cache_files()[0]).unwrap().ino();
    let before = inode();
    ktrix.ask(&Ask::new("HEAD", "/a")).expect_status(200);
    ktrix.get("/a").expect_hit().expect_body(pattern(3 << 20));
    assert_eq!(inode(), before);
    origin.expect_requests(2);
    plan.verify_cache();
}

#[test]
fn a_head_removes_what_is_stored_of_another_status_or_in_parts() {
    let origin = Origin::answering(|request| {
        let control = "max-age=0, stale-if-error=600";
        let is_head = request.method == "HEAD";
        let tag = if is_head && request.target == "/part-new" { "\"two\"" } else { "\"one\"" };
        let response = match request.field("range") {
            _ if is_head => Response::ok("0123456789"),
            Some(_) => Response::ok("0123").with_status(206).field("Content-Range", "bytes 0-3/10"),
            None => Response::ok("no such page").with_status(404),
        };
        response.field("ETag", tag).cache(control)
    });
    let sites = "[{routes: [{path: /, upstream: app, cache: {fetch-whole: 0 B}}]}]";
    let plan = Plan::new(&origin).set("sites", sites);
    let ktrix = plan.start();
    for (target, is_kept) in [("/part-same", true), ("/part-new", false), ("/gone", false)] {
        let ask = Ask::get(target);
        let ask = if target == "/gone" { ask } else { ask.field("Range", "bytes=0-3") };
        let is_known = || {
            ktrix.ask(&ask);
            origin.last().has("if-none-match")
        };
        let denied = || {
            ktrix.ask(&Ask::new("HEAD", target)).expect_status(200);
            assert_eq!(origin.last().method, "HEAD");
            !is_known()
        };
        until_true("it to be stored", is_known);
        match is_kept {
            true => assert!(!denied(), "{target}"),
            false => until_true("it to be removed", denied),
        }
    }
}
