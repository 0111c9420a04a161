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

#[test]
fn the_most_specific_route_takes_a_request() {
    let origins: Vec<_> =
        (0..5).map(|n| Origin::answering(move |_| Response::ok(format!("{n}")))).collect();
    let upstreams: Vec<_> = origins
        .iter()
        .enumerate()
        .map(|(n, origin)| format!("u{n}: {{servers: [\"{}\"]}}", origin.name()))
        .collect();
    let plan = Plan::new(&origins[0]).set("upstreams", &format!("{{{}}}", upstreams.join(", ")));
    let plan = plan.set(
        "sites",
        "[{upstream: u0, routes: [{path: {regex: \"^/u/[0-9]+$\"}, upstream: u1}, \
         {path: {glob: \"/img/**.png\"}, upstream: u2}, {path: {exact: /u/7}, upstream: u3}, \
         {path: /admin, upstream: u4}]}]",
    );
    let ktrix = plan.start();
    for (target, body) in [
        ("/u/12", "1"),
        ("/u/x", "0"),
        ("/u/7", "3"),
        ("/img/a/b.png", "2"),
        ("/img/a.gif", "0"),
        ("/%61dmin", "4"),
        ("//admin", "4"),
        ("/x/../admin", "4"),
        ("/x/..;y/admin", "4"),
    ] {
        ktrix.get(target).expect_status(200).expect_body(body);
    }
    let config = plan.config_path().display().to_string();
    let explained = plan.run(&["explain", "http://h/u/7", "--config", &config]);
    let text = String::from_utf8_lossy(&explained.stdout).into_owned();
    for line in [
        "1. sites[0].routes[2] exact /u/7: yes",
        "2. sites[0].routes[0] regex ^/u/[0-9]+$: not needed: it is less specific",
        "3. sites[0].routes[4] /…: not needed",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[test]
fn routes_by_field_and_client_share_no_response() {
    let a = Origin::answering(|_| Response::ok("a").cache("max-age=60"));
    let b = Origin::answering(|_| Response::ok("b").cache("max-age=60"));
    let upstreams =
        format!("{{a: {{servers: [\"{}\"]}}, b: {{servers: [\"{}\"]}}}}", a.name(), b.name());
    let plan = Plan::new(&a).set("upstreams", &upstreams).set(
        "sites",
        "[{routes: [{path: /, upstream: a}, {path: /, headers: {x-beta: \"1\"}, upstream: b}, \
         {path: /, clients: [192.0.2.0/24], upstream: b}]}]",
    );
    let ktrix = plan.start();
    let beta = |target: &str| Ask::get(target).field("X-Beta", "1");
    ktrix.wait_hit("/x").expect_body("a");
    ktrix.ask(&beta("/x")).expect_body("b");
    ktrix.get("/x").expect_body("a");
    ktrix.ask(&beta("/x")).expect_body("b");
    // A purge of the URL covers both.
    let (n_a, n_b) = (a.n_requests(), b.n_requests());
    ktrix.ask(&Ask::new("PURGE", "/x")).expect_status(200);
    ktrix.get("/x").expect_body("a");
    ktrix.ask(&beta("/x")).expect_body("b");
    assert_eq!((a.n_requests(), b.n_requests()), (n_a + 1, n_b + 1));
    // An unsafe request invalidates both too.
    ktrix.ask(&Ask::new("DELETE", "/x")).expect_status(200);
    ktrix.get("/x").expect_body("a");
    ktrix.ask(&beta("/x")).expect_body("b");
    assert_eq!((a.n_requests(), b.n_requests()), (n_a + 3, n_b + 2));
}
