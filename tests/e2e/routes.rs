//! Sites and routes: the upstream of each host and path.

use crate::support::{Ask, Origin, Plan, Response};

#[test]
fn hosts_and_paths_choose_the_upstream() {
    let a = Origin::answering(|_| Response::ok("a"));
    let b = Origin::answering(|_| Response::ok("b"));
    let c = Origin::answering(|_| Response::ok("c"));
    let upstreams = format!(
        "{{a: {{servers: [\"{}\"]}}, b: {{servers: [\"{}\"]}}, c: {{servers: [\"{}\"]}}}}",
        a.name(),
        b.name(),
        c.name()
    );
    let plan = Plan::new(&a).set("upstreams", &upstreams).set(
        "sites",
        "[{hosts: [www.example.com, \"*.example.org\"], routes: [{path: /, upstream: a}, \
         {path: /api/, upstream: b}, {path: /api/v2/, upstream: c}]}, \
         {hosts: [deep.example.org], routes: [{path: /only/, upstream: c}]}]",
    );
    let ktrix = plan.start();
    let cases = [
        ("www.example.com", "/", Some("a")),
        ("WWW.Example.Com:8080", "/x?y", Some("a")),
        ("www.example.com", "/api/x", Some("b")),
        ("www.example.com", "/api/v2/x", Some("c")),
        ("www.example.com", "/api", Some("a")),
        ("any.example.org", "/", Some("a")),
        ("two.levels.example.org", "/api/", Some("b")),
        ("example.org", "/", None),
        ("deep.example.org", "/only/x", Some("c")),
        ("deep.example.org", "/else", None),
        ("www.example.net", "/", None),
    ];
    for (host, target, expected) in cases {
        let answer = ktrix.ask(&Ask::get(target).field("Host", host));
        match expected {
            Some(body) => drop(answer.expect_status(200).expect_body(body)),
            None => drop(answer.expect_status(404)),
        }
    }
}

#[test]
fn the_top_upstream_answers_requests_of_no_site() {
    let a = Origin::answering(|_| Response::ok("a").cache("max-age=60"));
    let b = Origin::answering(|_| Response::ok("b"));
    let upstreams =
        format!("{{a: {{servers: [\"{}\"]}}, b: {{servers: [\"{}\"]}}}}", a.name(), b.name());
    let plan = Plan::new(&a)
        .set("upstreams", &upstreams)
        .set("upstream", "a")
        .set("sites", "[{hosts: [b.example], routes: [{path: /, upstream: b}]}]");
    let ktrix = plan.start();
    ktrix.ask(&Ask::get("/").field("Host", "b.example")).expect_body("b");
    ktrix.get("/x").expect_status(200).expect_body("a");
    ktrix.wait_hit("/x");
}

#[test]
fn the_host_of_an_absolute_target_wins() {
    let origin = Origin::answering(|r| Response::ok(r.field("host").unwrap_or("none")));
    let plan = Plan::new(&origin)
        .set("sites", "[{hosts: [one.example], routes: [{path: /, upstream: app}]}]");
    let ktrix = plan.start();
    let ask = Ask::get("http://one.example/x").field("Host", "two.example");
    ktrix.ask(&ask).expect_status(200).expect_body("one.example");
    let ask = Ask::get("http://two.example/x").field("Host", "one.example");
    ktrix.ask(&ask).expect_status(404);
}
