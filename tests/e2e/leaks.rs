//! What is one client's reaches no other: private fields, hidden fields, ways round a route.

use crate::support::{Ask, Origin, Plan, Response, until_true};

#[test]
fn a_private_field_of_a_304_reaches_no_other_client() {
    let origin = Origin::answering(|request| {
        if request.has("if-none-match") {
            return Response::status(304)
                .field("ETag", "\"one\"")
                .field("X-User", "bob")
                .cache("max-age=60, private=\"x-user\"");
        }
        Response::ok("hello").field("ETag", "\"one\"").cache("max-age=0")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_body("hello");
    until_true("a validation", || {
        ktrix.get("/a").expect_body("hello");
        origin.n_requests() > 1
    });
    ktrix.wait_hit("/a").expect_body("hello").expect_no_field("x-user");
}

#[test]
fn a_field_hidden_from_the_origin_chooses_no_variant() {
    let origin = Origin::answering(|request| {
        let language = request.field("accept-language").unwrap_or("none").to_owned();
        Response::ok(language).field("Vary", "Accept-Language").cache("max-age=60")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let german = Ask::get("/a").field("Accept-Language", "de");
    ktrix.ask(&german.clone().field("Connection", "Accept-Language")).expect_body("none");
    for _ in 0..5 {
        ktrix.ask(&german).expect_body("de");
    }
}

#[test]
fn a_field_named_by_no_cache_reaches_the_first_client_only() {
    let origin = Origin::answering(|_| {
        Response::ok("hello")
            .field("Set-Cookie", "id=1")
            .cache("max-age=60, no-cache=\"Set-Cookie\"")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_field("set-cookie", "id=1");
    ktrix.wait_hit("/a").expect_no_field("set-cookie");
}

#[test]
fn age_is_said_once() {
    let origin = Origin::answering(|_| Response::ok("hello").field("Age", 7).cache("max-age=60"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for answer in [ktrix.get("/a"), ktrix.wait_hit("/a"), ktrix.get("/a")] {
        assert_eq!(answer.head.all("age").count(), 1, "{:?}", answer.head.fields);
    }
}

#[test]
fn a_path_written_otherwise_takes_the_same_route() {
    let origin = Origin::answering(|_| Response::ok("hello").cache("max-age=60"));
    let plan = Plan::new(&origin).set(
        "sites",
        "[{routes: [{path: /private, upstream: app, cache: off}, {path: /, upstream: app}]}]",
    );
    let ktrix = plan.start();
    for target in ["/private", "/x/../private", "//private", "/%70rivate"] {
        for _ in 0..4 {
            ktrix.get(target).expect_status(200).expect_miss();
        }
    }
    assert!(plan.cache_files().is_empty(), "{:?}", plan.cache_files());
}
