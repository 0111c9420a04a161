//! An unsafe method that went well makes what is stored under its URI unusable.

use crate::support::{Ask, Origin, Plan, Response};

fn origin() -> Origin {
    Origin::answering(|request| {
        if request.method == "GET" {
            return Response::ok(request.number.to_string()).cache("max-age=600");
        }
        let response = match request.field("x-fail") {
            Some(_) => Response::status(500),
            None => Response::ok("done"),
        };
        match request.field("x-location") {
            Some(place) => response.field("Location", place),
            None => response,
        }
    })
}

#[test]
fn unsafe_methods_invalidate_their_target() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for method in ["POST", "PUT", "DELETE", "PATCH", "BREW"] {
        ktrix.get("/a").expect_status(200);
        let stored = ktrix.wait_hit("/a").text();
        let ask = Ask::new(method, "/a").field("Content-Length", 0);
        ktrix.ask(&ask).expect_status(200);
        for _ in 0..6 {
            assert_ne!(ktrix.get("/a").text(), stored, "after {method}");
        }
    }
}

#[test]
fn what_failed_or_is_safe_invalidates_nothing() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a");
    let stored = ktrix.wait_hit("/a").text();
    ktrix.ask(&Ask::post("/a", "x").field("X-Fail", 1)).expect_status(500);
    ktrix.ask(&Ask::post("/b", "x")).expect_status(200);
    ktrix.ask(&Ask::new("OPTIONS", "/a")).expect_status(200);
    ktrix.ask(&Ask::new("HEAD", "/a")).expect_status(200);
    ktrix.get("/a").expect_hit().expect_body(stored);
}

#[test]
fn a_location_on_the_same_host_is_invalidated_too() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for target in ["/a", "/b"] {
        ktrix.get(target);
        ktrix.wait_hit(target);
    }
    ktrix.ask(&Ask::post("/form", "x").field("X-Location", "/a")).expect_status(200);
    ktrix.get("/a").expect_miss();
    let other = "http://elsewhere.example/b";
    ktrix.ask(&Ask::post("/form", "x").field("X-Location", other)).expect_status(200);
    ktrix.get("/b").expect_hit();
}
