//! An origin that dies while it validates a stored response: with a client that waits, and in the
//! background of a stale answer.

use std::sync::{Arc, Mutex};

use crate::support::{Ask, Origin, Plan, Response, until_true};

/// The point at which an origin dies during validation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Death {
    /// It answers, and goes on living.
    None,
    BeforeTheHead,
    InTheStatusLine,
    InAFieldOfA304,
    InASmallBody,
    ByReset,
    InALargeBody,
}

const DEATHS: [Death; 5] = [
    Death::BeforeTheHead,
    Death::InTheStatusLine,
    Death::InAFieldOfA304,
    Death::InASmallBody,
    Death::ByReset,
];

impl Death {
    fn response(self, body: &str, control: &str) -> Response {
        let news = |body: Vec<u8>| Response::ok(body).field("ETag", "\"two\"").cache(control);
        match self {
            Self::None => Response::status(304).field("ETag", "\"one\"").cache(control),
            Self::BeforeTheHead => Response::raw(""),
            Self::InTheStatusLine => Response::raw("HTTP/1.1 304 Not Mo"),
            Self::InAFieldOfA304 => Response::raw("HTTP/1.1 304 Not Modified\r\nETag: \"tw"),
            Self::InASmallBody => news(format!("not {body}").into()).cut_at(5),
            Self::ByReset => news(format!("not {body}").into()).reset_at(5),
            Self::InALargeBody => news(vec![b'n'; 4 << 20]).cut_at(2 << 20),
        }
    }
}

/// An origin with stored answers that are stale at once with `control`. It dies as it is told when
/// it validates them; later it confirms them for `renewed`.
fn mortal(control: &'static str, renewed: &'static str) -> (Origin, Arc<Mutex<Death>>) {
    let death = Arc::new(Mutex::new(Death::None));
    let how = Arc::clone(&death);
    let origin = Origin::answering(move |request| {
        if request.has("if-none-match") {
            return how.lock().unwrap().response(&request.target, renewed);
        }
        Response::ok(&request.target).field("ETag", "\"one\"").cache(control)
    });
    (origin, death)
}

/// The number of requests for the whole.
fn n_whole(origin: &Origin) -> usize {
    origin.requests().iter().filter(|request| !request.has("if-none-match")).count()
}

#[test]
fn stored_objects_survive_an_origin_that_dies_during_validation() {
    let (origin, death) = mortal("max-age=0, stale-if-error=600", "max-age=600");
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for how in DEATHS {
        let target = format!("/{how:?}");
        ktrix.get(&target).expect_body(&target);
        *death.lock().unwrap() = how;
        for _ in 0..3 {
            ktrix.get(&target).expect_status(200).expect_body(&target);
        }
        *death.lock().unwrap() = Death::None;
        let validated = ktrix.get(&target).expect_status(200).expect_body(&target);
        assert!(validated.cache_status().contains("fwd-status=304"), "{how:?}: {validated:?}");
        ktrix.wait_hit(&target).expect_body(&target);
    }
    assert_eq!(n_whole(&origin), DEATHS.len(), "it was never lost");
    assert!(plan.unfinished_files().is_empty());
    plan.verify_cache();
}

#[test]
fn must_revalidate_objects_are_not_served_when_the_origin_dies() {
    let (origin, death) = mortal("no-cache", "no-cache");
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for how in DEATHS {
        let target = format!("/{how:?}");
        ktrix.get(&target).expect_body(&target);
        *death.lock().unwrap() = how;
        let status = ktrix.get(&target).status;
        assert_eq!(status, 502, "{how:?}");
        *death.lock().unwrap() = Death::None;
        ktrix.get(&target).expect_status(200).expect_body(&target);
    }
    assert_eq!(n_whole(&origin), DEATHS.len(), "it was never lost");
    plan.verify_cache();
}

#[test]
fn a_large_successor_that_breaks_off_replaces_nothing() {
    let (origin, death) = mortal("max-age=0", "max-age=600");
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_body("/a");
    *death.lock().unwrap() = Death::InALargeBody;
    let mut client = ktrix.client();
    assert!(client.try_ask(&Ask::get("/a")).is_err(), "the answer had begun, and broke off");
    *death.lock().unwrap() = Death::None;
    ktrix.get("/a").expect_status(200).expect_body("/a");
    ktrix.wait_hit("/a").expect_body("/a");
    assert_eq!(n_whole(&origin), 1);
    until_true("nothing unfinished", || plan.unfinished_files().is_empty());
    plan.verify_cache();
}

#[test]
fn a_background_refresh_may_fail_unseen() {
    let (origin, death) = mortal("max-age=0, stale-while-revalidate=600", "max-age=600");
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for how in DEATHS.into_iter().chain([Death::InALargeBody]) {
        let target = format!("/{how:?}");
        ktrix.get(&target).expect_body(&target);
        *death.lock().unwrap() = how;
        for _ in 0..2 {
            let n_before = origin.count(&target);
            until_true("a refresh that dies", || {
                ktrix.get(&target).expect_status(200).expect_body(&target).expect_hit();
                origin.count(&target) > n_before
            });
        }
        *death.lock().unwrap() = Death::None;
        until_true("a refresh that lives", || {
            let answer = ktrix.get(&target).expect_status(200).expect_body(&target).expect_hit();
            !answer.cache_status().contains("ttl=-") && !answer.cache_status().contains("ttl=0")
        });
    }
    assert_eq!(n_whole(&origin), DEATHS.len() + 1, "it was never lost");
    until_true("nothing unfinished", || plan.unfinished_files().is_empty());
    plan.verify_cache();
}

#[test]
fn a_failed_head_leaves_the_stored_object() {
    let (origin, death) = mortal("max-age=0", "max-age=600");
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_body("/a");
    *death.lock().unwrap() = Death::InTheStatusLine;
    let ask = Ask::new("HEAD", "/a").field("If-None-Match", "\"zero\"");
    assert_eq!(ktrix.ask(&ask).status, 502);
    *death.lock().unwrap() = Death::None;
    ktrix.get("/a").expect_status(200).expect_body("/a");
    assert_eq!(n_whole(&origin), 1);
}
