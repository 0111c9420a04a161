//! Proxies that are trusted to name the client, scheme and host of a request, and peers that are not.

use crate::support::{Ask, Client, Origin, Plan, Request, Response};

/// What the origin is told of a request.
fn told(request: &Request) -> Response {
    let said = |name: &str| request.field(name).unwrap_or("-").to_owned();
    let names = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "host"];
    Response::ok(names.map(said).join("|")).cache("max-age=600")
}

fn claims(target: &str) -> Ask {
    Ask::get(target)
        .field("X-Forwarded-For", "6.6.6.6, 192.0.2.7, 127.0.0.9")
        .field("X-Forwarded-Proto", "https")
        .field("X-Forwarded-Host", "shop.example")
}

#[test]
fn only_a_trusted_proxy_names_client_scheme_and_host() {
    let origin = Origin::answering(told);
    let plan = Plan::new(&origin).set("trusted-proxies", "[127.0.0.0/24]").set(
        "sites",
        "[{upstream: app, routes: [{path: /who, answer: {body: \"{client} {scheme} {host}\"}}, \
         {path: /near, clients: [192.0.2.0/24], deny: 403}]}]",
    );
    let ktrix = plan.start();
    ktrix.ask(&claims("/who")).expect_body("192.0.2.7 https shop.example");
    ktrix.ask(&claims("/near")).expect_status(403);
    let body = ktrix.ask(&claims("/a")).text();
    let chain = "6.6.6.6, 192.0.2.7, 127.0.0.9, 127.0.0.1|https|shop.example|";
    assert!(body.starts_with(chain) && body.ends_with("|shop.example"), "{body}");
    let lines = ktrix.wait_access_lines(3);
    assert!(lines.iter().all(|line| line.contains("\"client\":\"192.0.2.7\"")), "{lines:#?}");
    // A peer that is not trusted says the same, and is not believed.
    let mut other = Client::connect_from([127, 0, 1, 1], &plan.address).host("shop.example");
    other.ask(&claims("/who")).expect_body("127.0.1.1 http shop.example");
    other.ask(&claims("/near")).expect_status(200);
    let body = other.ask(&claims("/b")).text();
    let expected = "127.0.1.1|http|shop.example|for=127.0.1.1;host=shop.example;proto=http";
    assert_eq!(body, format!("{expected}|shop.example"));
}

#[test]
fn the_same_bytes_mean_another_request_from_a_trusted_proxy() {
    let origin = Origin::answering(|request| {
        let scheme = request.field("x-forwarded-proto").unwrap_or_default();
        Response::ok(scheme).cache("max-age=600")
    });
    let plan = Plan::new(&origin).set("workers", "1").set("trusted-proxies", "[127.0.0.0/24]");
    let ktrix = plan.start();
    let mut proxy = ktrix.client().host("h");
    let mut other = Client::connect_from([127, 0, 1, 1], &plan.address).host("h");
    let ask =
        Ask::get("/a").field("X-Forwarded-Proto", "https").field("X-Forwarded-For", "1.1.1.1");
    for _ in 0..4 {
        proxy.ask(&ask).expect_body("https");
        other.ask(&ask).expect_body("http");
    }
    assert_eq!(origin.n_requests(), 2, "each scheme is stored once");
    // A hit by the same bytes has its own client in the log.
    let lines = ktrix.wait_access_lines(8);
    let count = |client: &str| {
        let part = format!("\"client\":\"{client}\"");
        lines.iter().filter(|line| line.contains(&part)).count()
    };
    assert_eq!((count("1.1.1.1"), count("127.0.1.1")), (4, 4), "{lines:#?}");
}

#[test]
fn the_right_to_purge_is_that_of_the_client() {
    let origin = Origin::answering(told);
    let plan = Plan::new(&origin)
        .set("trusted-proxies", "loopback")
        .set("cache", "{path: $DIR/cache, purge: [192.0.2.0/24]}");
    let ktrix = plan.start();
    let purge = |client: &str| Ask::new("PURGE", "/a").field("X-Forwarded-For", client);
    ktrix.ask(&purge("192.0.2.7")).expect_status(200);
    ktrix.ask(&purge("192.0.2.7, 198.51.100.1")).expect_status(403);
    ktrix.ask(&Ask::new("PURGE", "/a")).expect_status(403);
}
