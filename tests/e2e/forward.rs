//! The forward proxy: whom it serves, where it leads, and what it tells of its clients.

use std::fs;
use std::net::SocketAddr;

use crate::support::socket::Address;
use crate::support::{Ask, Client, Origin, Plan, Response};

/// A ktrix that is a forward proxy, with these settings, and reaches addresses of this machine.
fn plan(settings: &str) -> Plan {
    let plan = Plan::to("{servers: [\"127.0.0.1:1\"]}");
    let listen = format!("[{{address: \"{}\", mode: forward}}]", ip(&plan.address));
    plan.set("listen", &listen).set("forward", &format!("{{deny: off, {settings}}}"))
}

fn ip(address: &Address) -> SocketAddr {
    match address {
        Address::Ip(ip) => *ip,
        Address::Unix(_) => panic!("a plan has an IP address"),
    }
}

/// The settings for an origin of a test: its port.
fn ports(origin: &Origin) -> String {
    format!("ports: [{0}], connect-ports: [{0}]", origin.ip().port())
}

fn url(origin: &Origin, path: &str) -> String {
    format!("http://{}{path}", origin.ip())
}

#[test]
fn requests_with_a_whole_url_reach_its_host_and_are_cached() {
    let origin = Origin::answering(|request| {
        let names = ["host", "via", "x-forwarded-for", "forwarded", "proxy-authorization"];
        let said =
            |name: &str| request.field(name).map_or("-".to_owned(), |it| it.replace("1.1 ", ""));
        let vary = if request.target == "/b" { "no-store" } else { "max-age=600" };
        Response::ok(names.map(said).join("|")).cache(vary)
    });
    let plan = plan(&ports(&origin)).set("via", "proxy-1");
    let ktrix = plan.start();
    let mut client = ktrix.client().host(&origin.ip().to_string());
    let ask = |path: &str| {
        Ask::get(&url(&origin, path))
            .field("Proxy-Connection", "keep-alive")
            .field("Proxy-Authorization", "Basic c2VjcmV0")
    };
    let expected = format!("{}|proxy-1|-|-|-", origin.ip());
    client.ask(&ask("/a")).expect_status(200).expect_body(&expected).expect_miss();
    client.ask(&ask("/a")).expect_status(200).expect_body(&expected).expect_hit();
    for _ in 0..3 {
        let answer = client.ask(&ask("/b")).expect_body(&expected);
        assert_eq!(answer.field("via"), Some("1.1 proxy-1"));
    }
    assert_eq!((origin.n_requests(), origin.n_connections()), (4, 1), "one kept connection");
    let lines = ktrix.wait_access_lines(5);
    let server = format!("\"upstream\":\"forward\",\"server\":\"{}\"", origin.ip());
    assert!(lines[0].contains(&server), "{lines:#?}");
    // An answer of the proxy is none of a site, whatever the name of the site is.
    client.ask(&Ask::get("/a")).expect_status(400);
}

#[test]
fn an_answer_of_the_proxy_is_never_one_of_a_site() {
    let origin = Origin::answering(|_| Response::ok("proxied").cache("max-age=600"));
    let site = Origin::answering(|_| Response::ok("site").cache("max-age=600"));
    let forward = Plan::to("{servers: [\"127.0.0.1:1\"]}").address.clone();
    let plan = Plan::new(&site).set("workers", "1");
    let listen =
        format!("[\"{}\", {{address: \"{}\", mode: forward}}]", ip(&plan.address), ip(&forward));
    let plan =
        plan.set("listen", &listen).set("forward", &format!("{{deny: off, {}}}", ports(&origin)));
    let ktrix = plan.start();
    let host = origin.ip().to_string();
    let (mut at_site, mut at_proxy) =
        (ktrix.client().host(&host), Client::connect(&forward).host(&host));
    for _ in 0..4 {
        // The same bytes.
        at_proxy.ask(&Ask::get(&url(&origin, "/a"))).expect_body("proxied");
        at_site.ask(&Ask::get(&url(&origin, "/a"))).expect_body("site");
    }
    assert_eq!((origin.n_requests(), site.n_requests()), (1, 1));
}

#[test]
fn a_site_never_forwards_to_the_host_of_a_url() {
    let foreign = Origin::answering(|_| Response::ok("foreign"));
    let site = Origin::answering(|_| Response::ok("site"));
    let plan = Plan::new(&site);
    let ktrix = plan.start();
    let mut client = ktrix.client().host(&foreign.ip().to_string());
    client.ask(&Ask::get(&url(&foreign, "/a"))).expect_body("site");
    client.ask(&Ask::new("CONNECT", &foreign.ip().to_string())).expect_status(501);
    assert_eq!(foreign.n_connections(), 0);
}

#[test]
fn hosts_and_ports_and_schemes_that_are_not_allowed_are_refused() {
    let origin = Origin::answering(|_| Response::ok("origin"));
    let plan = plan(&format!("{}, hosts: [\"*.example\", 127.0.0.1]", ports(&origin)));
    let ktrix = plan.start();
    let mut client = ktrix.client();
    let port = origin.ip().port();
    for (target, status) in [
        (url(&origin, "/"), 200),
        ("http://127.0.0.1:1/".to_owned(), 403),
        ("http://127.0.0.1/".to_owned(), 403),
        (format!("http://localhost:{port}/"), 403),
        (format!("https://127.0.0.1:{port}/"), 400),
        ("/".to_owned(), 400),
    ] {
        client.ask(&Ask::get(&target)).expect_status(status);
    }
    for (target, status) in [("127.0.0.1:25", 403), ("localhost:443", 403)] {
        ktrix.client().ask(&Ask::new("CONNECT", target)).expect_status(status);
    }
    assert_eq!(origin.n_requests(), 1);
    let words = ["forward-port", "forward-host", "forward-scheme", "forward-form"];
    let lines = ktrix.wait_access_lines(8).join("\n");
    assert!(words.iter().all(|word| lines.contains(word)), "{lines}");
}

#[test]
fn addresses_inside_are_refused_in_every_form() {
    let origin = Origin::answering(|_| Response::ok("inside"));
    let plan = plan("").set("forward", &format!("{{{}}}", ports(&origin)));
    let ktrix = plan.start();
    let port = origin.ip().port();
    for host in [
        "127.0.0.1", "localhost", "LocalHost.", "127.1", "2130706433", "0x7f000001", "0",
        "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[::127.0.0.1]",
        "10.0.0.1", "192.168.0.1", "169.254.169.254",
    ] {
        let answer = ktrix.client().ask(&Ask::get(&format!("http://{host}:{port}/")));
        assert_eq!(answer.status, 403, "{host}: {}", answer.text());
        let connect = ktrix.client().ask(&Ask::new("CONNECT", &format!("{host}:{port}")));
        assert_eq!(connect.status, 403, "{host}: {}", connect.text());
    }
    assert_eq!(origin.n_connections(), 0);
    let lines = ktrix.wait_access_lines(32);
    assert!(lines.iter().all(|line| line.contains("destination-denied")), "{lines:#?}");
}

#[test]
fn a_tunnel_leads_to_the_host_and_nothing_in_it_is_read() {
    let origin = Origin::answering(|request| Response::ok(request.target.clone()));
    let plan = plan(&ports(&origin));
    let ktrix = plan.start();
    let mut client = ktrix.client();
    // What comes with the request belongs to the host.
    let host = origin.ip();
    client.write(format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
    client.write(b"GET /first HTTP/1.1\r\nHost: h\r\n\r\n");
    let (status, head) = client.answer_head();
    assert_eq!(
        (status, head.field("content-length"), head.field("transfer-encoding")),
        (200, None, None)
    );
    client.answer().expect_body("/first");
    for n in 0..3 {
        client.get(&format!("/{n}")).expect_body(format!("/{n}"));
    }
    assert!(origin.requests().iter().all(|request| !request.has("via")), "nothing is added");
    client.shutdown_write();
    client.expect_closed();
    let line = ktrix.wait_access_lines(1).remove(0);
    let server = format!("\"upstream\":\"forward\",\"server\":\"{host}\"");
    for part in ["\"method\":\"CONNECT\"", "\"status\":200", "\"verdict\":\"tunnel\"", &server] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

#[test]
fn a_name_is_looked_up_and_one_without_an_address_is_unresolved() {
    let origin = Origin::answering(|_| Response::ok("named").cache("no-store"));
    let plan = plan(&ports(&origin));
    let ktrix = plan.start();
    let port = origin.ip().port();
    let mut client = ktrix.client();
    for _ in 0..3 {
        client.ask(&Ask::get(&format!("http://localhost:{port}/"))).expect_body("named");
    }
    client.ask(&Ask::get(&format!("http://nowhere.invalid:{port}/"))).expect_status(503);
    assert_eq!(origin.n_requests(), 3);
}

#[test]
fn only_the_networks_of_the_configuration_may_use_it() {
    let origin = Origin::answering(|_| Response::ok("origin"));
    let plan = plan(&format!("{}, clients: [127.0.1.0/24]", ports(&origin)));
    let ktrix = plan.start();
    ktrix.client().ask(&Ask::get(&url(&origin, "/"))).expect_status(403);
    let mut near = Client::connect_from([127, 0, 1, 1], &plan.address);
    near.ask(&Ask::get(&url(&origin, "/"))).expect_status(200);
    // The hit of one client is none of another.
    ktrix.client().ask(&Ask::get(&url(&origin, "/"))).expect_status(403);
    let lines = ktrix.wait_access_lines(3);
    assert_eq!(lines.iter().filter(|line| line.contains("forward-client")).count(), 2);
}

#[test]
fn users_must_show_their_passwords() {
    let origin = Origin::answering(|_| Response::ok("for users").cache("max-age=600"));
    let plan = plan(&format!("{}, users: $DIR/users", ports(&origin)));
    let hash = bcrypt_of("open sesame");
    fs::write(plan.dir().join("users"), format!("# users\nali:{hash}\n")).unwrap();
    let ktrix = plan.start();
    let ask = |pair: &str| {
        let credentials = format!("Basic {}", base64(pair));
        Ask::get(&url(&origin, "/a")).field("Proxy-Authorization", credentials)
    };
    let mut client = ktrix.client();
    let refused = client.ask(&Ask::get(&url(&origin, "/a"))).expect_status(407);
    assert!(refused.field("proxy-authenticate").is_some_and(|it| it.starts_with("Basic realm=")));
    for _ in 0..3 {
        client.ask(&ask("ali:open sesame")).expect_status(200).expect_body("for users");
        client.ask(&Ask::get(&url(&origin, "/a"))).expect_status(407);
        client.ask(&ask("ali:wrong")).expect_status(407);
        client.ask(&ask("eve:open sesame")).expect_status(407);
    }
    assert_eq!(origin.n_requests(), 1);
    assert!(!origin.last().has("proxy-authorization"));
}

#[test]
fn an_address_that_guesses_passwords_has_to_wait() {
    let origin = Origin::answering(|_| Response::ok("for users"));
    let plan = plan(&format!("{}, users: $DIR/users", ports(&origin))).set("workers", "1");
    fs::write(plan.dir().join("users"), format!("ali:{}\n", bcrypt_of("x"))).unwrap();
    let ktrix = plan.start();
    let ask = |n: usize| {
        let credentials = format!("Basic {}", base64(&format!("ali:{n}")));
        Ask::get(&url(&origin, "/a")).field("Proxy-Authorization", credentials)
    };
    let mut client = ktrix.client();
    let statuses: Vec<_> = (0..12).map(|n| client.ask(&ask(n)).status).collect();
    assert_eq!(statuses, [vec![407; 10], vec![429; 2]].concat());
}

#[test]
fn the_url_names_the_host_whatever_a_trusted_proxy_tells() {
    let origin = Origin::answering(|_| Response::ok("asked"));
    let other = Origin::answering(|_| Response::ok("other"));
    let settings = format!("ports: [{}, {}]", origin.ip().port(), other.ip().port());
    let plan = plan(&settings).set("trusted-proxies", "[127.0.0.0/8]");
    let ktrix = plan.start();
    let ask = Ask::get(&url(&origin, "/"))
        .field("X-Forwarded-Host", other.ip())
        .field("X-Forwarded-Proto", "https")
        .field("Forwarded", format!("host=\"{}\"", other.ip()));
    ktrix.client().ask(&ask).expect_body("asked");
    assert_eq!(other.n_requests(), 0);
}

#[test]
fn bytes_behind_a_connect_that_is_refused_are_no_request() {
    let origin = Origin::answering(|_| Response::ok("asked"));
    let plan = plan(&format!("ports: [{}]", origin.ip().port()));
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.write(b"CONNECT 127.0.0.1:25 HTTP/1.1\r\nHost: 127.0.0.1:25\r\n\r\n");
    client.write(format!("GET {} HTTP/1.1\r\nHost: h\r\n\r\n", url(&origin, "/")).as_bytes());
    client.answer().expect_status(403).expect_field("connection", "close");
    client.expect_closed();
    assert_eq!(origin.n_requests(), 0);
}

#[test]
fn browsers_find_the_proxy_by_its_settings() {
    let plan = plan("");
    let ktrix = plan.start();
    let answer = ktrix.client().host("proxy.example:3128").get("/proxy.pac").expect_status(200);
    let answer = answer.expect_field("content-type", "application/x-ns-proxy-autoconfig");
    assert!(answer.text().contains("return \"PROXY proxy.example:3128\";"), "{}", answer.text());
}

#[test]
fn the_client_is_told_to_servers_only_if_the_configuration_says_so() {
    let origin = Origin::answering(|request| {
        let names = ["x-forwarded-for", "via"];
        Response::ok(names.map(|name| request.field(name).unwrap_or("-").to_owned()).join("|"))
    });
    let plan = plan(&format!("{}, forwarded: on, via: off", ports(&origin)));
    let ktrix = plan.start();
    let answer = ktrix.client().get(&url(&origin, "/")).expect_body("127.0.0.1|-");
    assert_eq!(answer.field("via"), None);
}

/// A hash as `htpasswd -B` makes it, of a low cost.
fn bcrypt_of(password: &str) -> String {
    bcrypt::hash(password, 4).expect("a hash")
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}
