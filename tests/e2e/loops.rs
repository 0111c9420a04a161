//! Requests that come back to a ktrix that they have passed.

use crate::support::socket::Address;
use crate::support::{Ask, Origin, Plan, Response, until_true};

/// Asks `plan` for targets of every kind, and expects 508. Its timeouts are long, so that only an
/// answer at once ends the wait.
fn expect_loop(plan: &Plan) {
    let ktrix = plan.start();
    let before = plan.access_lines().len();
    let mut client = ktrix.client();
    for target in ["/a", "/a", "/b"] {
        client.get(target).expect_status(508);
    }
    client.head("/a").expect_status(508);
    client.ask(&Ask::post("/a", "body")).expect_status(508);
    let is_loop = |line: &&String| line.contains("\"reason\":\"loop\"");
    until_true("the reason of each", || {
        let lines = plan.access_lines();
        lines.iter().skip(before).filter(is_loop).count() >= 5
    });
}

/// The text of an upstream that is another ktrix.
fn servers(other: &Plan) -> String {
    let Address::Ip(ip) = &other.address else { unreachable!("a plan has an IP address") };
    format!("{{servers: [\"{ip}\"]}}")
}

fn patient(upstream: &str) -> Plan {
    Plan::to(upstream).set("timeouts", "{first-byte: 10m}").set("limits", "{connections: 1000}")
}

#[test]
fn a_ktrix_that_is_its_own_upstream_answers_508_at_once() {
    let plan = patient("{servers: [\"127.0.0.1:1\"]}");
    plan.put("upstreams", &format!("{{app: {}}}", servers(&plan)));
    expect_loop(&plan);
}

#[test]
fn two_that_point_at_each_other_answer_508_at_once() {
    let one = patient("{servers: [\"127.0.0.1:1\"]}");
    let two = patient(&servers(&one));
    one.put("upstreams", &format!("{{app: {}}}", servers(&two)));
    let second = two.start();
    expect_loop(&one);
    drop(second);
}

#[test]
fn only_the_own_name_is_a_loop() {
    let origin = Origin::answering(|_| Response::ok("x").cache("max-age=600"));
    let plan = Plan::new(&origin).set("via", "web-1");
    let ktrix = plan.start();
    let mut client = ktrix.client();
    let mut ask = |lines: &[&str]| {
        let ask = lines.iter().fold(Ask::get("/a"), |ask, line| ask.field("Via", line));
        client.ask(&ask)
    };
    for other in [
        &["1.1 web-2"][..],
        &["1.0 fred (web-1), 1.1 web-10"],
        &["1.0 fred (a, 1.1 web-1 ,)", "HTTP/1.1 web"],
    ] {
        ask(other).expect_status(200);
    }
    let n_requests = origin.n_requests();
    for own in [
        &["1.1 web-1"][..],
        &["1.0 fred, 1.1 WEB-1:8080 (ktrix)"],
        &["1.0 fred", "1.1 other (a \\) \"(,)), HTTP/1.1 web-1"],
    ] {
        ask(own).expect_status(508).expect_no_field("allow").expect_no_field("cache-status");
    }
    ask(&[]).expect_hit();
    assert_eq!(origin.n_requests(), n_requests);
}

/// Two of a cache each, one in front of the other: the default names differ.
#[test]
fn a_chain_is_no_loop() {
    let origin = Origin::answering(|_| Response::ok("x").cache("max-age=600"));
    let shield = Plan::new(&origin);
    let edge = Plan::to(&servers(&shield));
    let (_shield, edge) = (shield.start(), edge.start());
    edge.get("/a").expect_status(200);
    edge.wait_hit("/a");
    let via: Vec<_> = origin.last().head.all("via").map(str::to_owned).collect();
    assert!(via.len() == 2 && via[0] != via[1], "{via:?}");
    edge.ask(&Ask::get("/b").field("Via", &via[0])).expect_status(508);
}
