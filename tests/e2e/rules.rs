//! The rules of a route for lifetimes, sizes and staleness.

use crate::support::{Ask, Ktrix, Origin, Plan, Response};

/// One site with routes that store by these rules.
fn routes(routes: &[(&str, &str)]) -> String {
    let route = |(path, cache): &(&str, &str)| {
        format!("{{path: \"{path}\", upstream: app, cache: {cache}}}")
    };
    let routes: Vec<String> = routes.iter().map(route).collect();
    format!("[{{routes: [{}]}}]", routes.join(", "))
}

/// The freshness left that a hit reports, in seconds.
#[track_caller]
fn ttl(ktrix: &Ktrix<'_>, target: &str) -> i64 {
    let status = ktrix.wait_hit(target).cache_status();
    let ttl = status.split("; ").find_map(|part| part.strip_prefix("ttl="));
    ttl.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{target}: {status}"))
}

#[test]
fn lifetimes_are_the_routes_where_the_origin_says_nothing() {
    let origin = Origin::answering(|request| match request.target.rsplit('/').next() {
        Some("missing") => Response::status(404),
        Some("broken") => Response::status(503),
        Some("stated") => Response::status(503).cache("max-age=40"),
        Some("private") => Response::status(404).cache("private"),
        Some("short") => Response::ok("x").cache("max-age=1"),
        _ => Response::ok("x").cache("max-age=999999"),
    });
    let plan = Plan::new(&origin).set(
        "sites",
        &routes(&[
            ("/", "on"),
            ("/n", "{ttl-status: {404: 1000s, 5xx: 500s}}"),
            ("/b", "{ttl-min: 2000s, ttl-max: 3000s}"),
        ]),
    );
    let ktrix = plan.start();
    for (target, at_most) in [
        ("/n/missing", 1000),
        ("/n/broken", 500),
        ("/n/stated", 40),
        ("/b/short", 2000),
        ("/b/long", 3000),
        ("/long", 999_999),
    ] {
        ktrix.get(target).expect_miss();
        let ttl = ttl(&ktrix, target);
        assert!((at_most - 30..=at_most).contains(&ttl), "{target}: {ttl}");
        assert_eq!(origin.count(target), 1, "{target}");
    }
    for target in ["/missing", "/broken", "/n/private"] {
        for n_asked in 1..=2 {
            ktrix.get(target).expect_miss();
            assert_eq!(origin.count(target), n_asked, "{target}");
        }
    }
}

#[test]
fn answers_over_the_routes_limit_are_not_stored() {
    let body = "x".repeat(5_000);
    let origin = Origin::answering(move |request| match request.target.ends_with("known") {
        true => Response::ok(&body).cache("max-age=60"),
        false => Response::chunked(&[body.as_bytes(), body.as_bytes()]).cache("max-age=60"),
    });
    let plan = Plan::new(&origin)
        .set("sites", &routes(&[("/", "{object: 5000 B}"), ("/small", "{object: 4999 B}")]));
    let ktrix = plan.start();
    ktrix.get("/known").expect_miss();
    ktrix.wait_hit("/known");
    for (target, len) in [("/small/known", 5_000), ("/chunked", 10_000)] {
        for n_asked in 1..=2 {
            let answer = ktrix.get(target).expect_miss();
            assert_eq!((answer.body.len(), origin.count(target)), (len, n_asked), "{target}");
        }
    }
}

#[test]
fn stale_answers_are_given_as_the_route_allows() {
    let mut origin = Origin::answering(|_| Response::ok("x").cache("max-age=60").field("Age", 60));
    let plan = Plan::new(&origin).set(
        "sites",
        &routes(&[
            ("/", "on"),
            ("/kept", "{stale-if-error: 1h}"),
            ("/behind", "{stale-while-revalidate: 1h}"),
        ]),
    );
    let ktrix = plan.start();
    for target in ["/a", "/kept", "/behind"] {
        ktrix.get(target).expect_status(200);
    }
    // It is revalidated in the background.
    ktrix.get("/behind").expect_status(200).expect_hit();
    origin.wait_requests(4);
    origin.stop();
    ktrix.get("/behind").expect_status(200).expect_hit();
    ktrix.get("/a").expect_status(502);
    ktrix.get("/kept").expect_status(200).expect_stale();
    ktrix.ask(&Ask::get("/kept").field("Cache-Control", "no-cache")).expect_status(502);
}
