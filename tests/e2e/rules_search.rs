//! Parameters of a query that do not matter, as the origin says: No-Vary-Search.

use crate::support::ktrix;
use crate::support::socket::Address;
use crate::support::{Ask, Ktrix, Origin, Plan, Response, until_true};

/// One worker, so that what is learned is known to whoever is asked next.
fn plan(origin: &Origin, key: &str) -> Plan {
    let sites = format!("[{{upstream: app, cache: {{key: {key}}}}}]");
    Plan::new(origin).set("workers", "1").set("sites", &sites)
}

/// An origin whose answers say what they were asked, and that `utm` and the order do not matter.
fn origin() -> Origin {
    Origin::answering(|request| {
        let answer = Response::ok(request.target.clone()).cache("max-age=600");
        match request.target.starts_with("/plain") {
            true => answer,
            false => answer.field("No-Vary-Search", "key-order, params=(\"utm\")"),
        }
    })
}

#[test]
fn what_the_origin_calls_equal_is_one_object() {
    let origin = origin();
    let plan = plan(&origin, "{no-vary-search: on}");
    let ktrix = plan.start();
    let stored = ktrix.get("/a?utm=1&x=1&b=2").expect_miss().text();
    for same in ["/a?utm=1&x=1&b=2", "/a?b=2&x=1", "/a?x=1&utm=2&b=2", "/a?b=2&x=1&utm"] {
        for _ in 0..2 {
            ktrix.wait_hit(same).expect_body(&stored);
        }
    }
    origin.expect_requests(1);
    for other in ["/a?x=1", "/a?x=2&b=2", "/a?x=1&b=2&y", "/b?utm=1&x=1&b=2"] {
        ktrix.get(other).expect_miss().expect_body(other);
    }
    for posted in ["/a?b=2&x=1", "/a?utm=4&x=1&b=2"] {
        ktrix.wait_hit("/a?utm=3&x=1&b=2");
        ktrix.ask(&Ask::post(posted, "")).expect_status(200);
        ktrix.get("/a?utm=3&x=1&b=2").expect_miss();
    }
}

#[test]
fn what_is_not_said_or_not_heeded_means_nothing() {
    let origin = origin();
    let plan = plan(&origin, "{no-vary-search: on}");
    let ktrix = plan.start();
    ktrix.get("/plain?utm=1").expect_miss();
    ktrix.wait_hit("/plain?utm=1");
    ktrix.get("/plain?utm=2").expect_miss();
    drop(ktrix);
    let plan = self::plan(&origin, "{no-vary-search: off}");
    let ktrix = plan.start();
    ktrix.get("/a?utm=1").expect_miss();
    ktrix.wait_hit("/a?utm=1");
    ktrix.get("/a?utm=2").expect_miss();
}

#[test]
fn an_answer_that_says_less_is_no_answer_for_others() {
    let origin = Origin::answering(|request| {
        let answer = Response::ok(request.target.clone()).cache("max-age=600");
        match request.target.contains("x=2") {
            true => answer,
            false => answer.field("No-Vary-Search", "params=(\"utm\")"),
        }
    });
    let plan = plan(&origin, "{no-vary-search: on}");
    let ktrix = plan.start();
    ktrix.get("/a?x=2").expect_miss();
    ktrix.get("/a?x=1&utm=1").expect_miss();
    ktrix.wait_hit("/a?x=1&utm=2").expect_body("/a?x=1&utm=1");
    // What is stored under this query never said that its parameters do not matter.
    ktrix.get("/a?x=2&utm=1").expect_miss().expect_body("/a?x=2&utm=1");
    ktrix.wait_hit("/a?x=2").expect_body("/a?x=2");
}

#[test]
fn a_purge_of_one_query_names_what_is_stored_for_it_under_another() {
    let origin = Origin::answering(|request| {
        let answer = Response::ok(request.number.to_string()).cache("max-age=600");
        answer.field("No-Vary-Search", "params=(\"utm\")")
    });
    let plan = plan(&origin, "{no-vary-search: on}").set("workers", "4");
    let ktrix = plan.start();
    let ask = Ask::get("/a?utm=1&x=1");
    let other = warm(&ktrix, &Ask::get("/b?utm=1"));
    let Address::Ip(address) = plan.address else { unreachable!() };
    let config = plan.config_path().display().to_string();
    let purge = ["cache", "purge", &format!("http://{address}/a?x=1&utm=2"), "-c", &config];
    for way in 0..3 {
        let body = warm(&ktrix, &ask);
        match way {
            0 => {
                let answer = ktrix.ask(&Ask::new("PURGE", "/a?utm=1&x=1")).expect_status(200);
                answer.expect_field("ktrix-purge", "1, 2");
            }
            1 => {
                let said = ktrix::text(&plan.run(&purge));
                assert!(
                    said.contains(&format!("purge 4 of search http://{address}/a\n")),
                    "{said}"
                );
            }
            _ => drop(ktrix.ask(&Ask::post("/a?x=1&utm=3", "")).expect_status(200)),
        }
        for _ in 0..16 {
            assert_ne!(ktrix.ask(&ask).text(), body, "way {way}");
        }
    }
    ktrix.get("/b?utm=1").expect_hit().expect_body(&other);
}

#[test]
fn writing_to_paths_of_which_nothing_is_stored_purges_nothing() {
    let origin = origin();
    let plan = plan(&origin, "{no-vary-search: on}");
    let ktrix = plan.start();
    ktrix.get("/a?x=1&utm=1").expect_miss();
    ktrix.wait_hit("/a?x=1");
    let mut client = ktrix.client();
    for n in 0..100 {
        client.ask(&Ask::post(&format!("/{n}?x=1"), "")).expect_status(200);
    }
    // The number says how many there were before.
    ktrix.ask(&Ask::new("PURGE", "/other")).expect_field("ktrix-purge", "1");
    ktrix.get("/a?x=1").expect_hit();
    ktrix.ask(&Ask::post("/a?x=1&utm=3", "")).expect_status(200);
    ktrix.ask(&Ask::new("PURGE", "/other")).expect_field("ktrix-purge", "3");
    ktrix.get("/a?x=1").expect_miss();
}

/// Asks until every worker answers by itself, and gives the body.
fn warm(ktrix: &Ktrix<'_>, ask: &Ask) -> String {
    let (mut n_hits, mut body) = (0, String::new());
    until_true("many hits", || {
        let answer = ktrix.ask(ask);
        n_hits = if answer.is_hit() { n_hits + 1 } else { 0 };
        body = answer.text();
        n_hits >= 32
    });
    body
}
