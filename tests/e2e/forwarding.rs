//! The fields that ktrix adds to a message, and those that it does not forward.

use std::fs;

use crate::support::socket::Address;
use crate::support::{Ask, Client, Origin, Plan, Response, until_true};

#[test]
fn the_origin_gets_the_clients_address() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.ask(&Ask::get("/a?b=c").field("Host", "shop.example:8080")).expect_status(200);
    let seen = origin.last();
    assert_eq!((&*seen.target, &*seen.version), ("/a?b=c", "HTTP/1.1"));
    assert_eq!(seen.field("host"), Some("shop.example:8080"));
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.field("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.field("x-forwarded-host"), Some("shop.example:8080"));
    let forwarded = seen.field("forwarded").unwrap_or_default().to_owned();
    for part in ["for=127.0.0.1", "proto=http", "host=\"shop.example:8080\""] {
        assert!(forwarded.contains(part), "{part} in {forwarded}");
    }
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let via = seen.field("via").unwrap_or_default().strip_prefix("1.1 ");
    let number = via.and_then(|via| via.rsplit_once('-')).unwrap_or_default().1;
    assert!(via.is_some_and(|via| via.starts_with(host.trim())), "{via:?}");
    assert!(u32::from_str_radix(number, 16).is_ok(), "{via:?}");
}

#[test]
fn origin_and_log_get_the_listener_of_a_request() {
    let origin = Origin::answering(|request| match &*request.target {
        "/cached" => Response::ok("x").cache("max-age=600"),
        _ => Response::ok("x"),
    });
    let plan = Plan::new(&origin);
    let (socket, Address::Ip(ip)) = (plan.dir().join("ktrix.sock"), plan.address.clone()) else {
        unreachable!("a plan has an IP address")
    };
    // The start waits for the last one.
    plan.put("listen", &format!("[\"unix:{}\", \"{ip}\"]", socket.display()));
    let ktrix = plan.start();
    let (mut tcp, mut unix) =
        (ktrix.client(), Client::connect(&Address::Unix(socket)).host(&ip.to_string()));
    tcp.get("/").expect_status(200);
    let seen = origin.last();
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    unix.get("/").expect_status(200);
    let seen = origin.last();
    assert_eq!(seen.field("x-forwarded-for"), None);
    let forwarded = seen.field("forwarded").unwrap_or_default().to_owned();
    assert!(
        forwarded.starts_with("for=unknown") && forwarded.ends_with("proto=http"),
        "{forwarded}"
    );
    // Hot answers, too, are logged with the address of the client that gets them.
    ktrix.wait_hit("/cached");
    for client in [&mut tcp, &mut unix] {
        (0..3).for_each(|_| drop(client.get("/cached").expect_hit()));
    }
    let count = |client: &str| {
        let part = format!("\"client\":\"{client}\"");
        plan.access_lines().iter().filter(|line| line.contains(&part)).count()
    };
    until_true("lines of both listeners", || count("-") == 4 && count("127.0.0.1") >= 5);
    assert_eq!(count("-"), 4);
}

#[test]
fn an_origin_gets_one_spelling_of_a_host() {
    let origin = Origin::answering(|request| {
        let said = |name: &str| request.field(name).unwrap_or("-").to_owned();
        let own = said("forwarded");
        let own = own.split(';').find(|pair| pair.starts_with("host=")).unwrap_or("-").to_owned();
        let body = format!("{} {} {own}", said("host"), said("x-forwarded-host"));
        match request.target.starts_with("/stored") {
            true => Response::ok(body).cache("max-age=60"),
            false => Response::ok(body).cache("no-store"),
        }
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let expected = "www.test www.test host=www.test";
    for (n, host) in ["www.test", "WWW.Test", "www.test:80", "www.test:"].iter().enumerate() {
        for target in ["/passed".to_owned(), format!("/stored{n}")] {
            ktrix.ask(&Ask::get(&target).field("Host", host)).expect_body(expected);
        }
        ktrix.ask(&Ask::post("/passed", "x").field("Host", host)).expect_body(expected);
    }
    let absolute = Ask::get("http://WWW.test:80/passed").field("Host", "other.test");
    ktrix.ask(&absolute).expect_body(expected);
}

#[test]
fn earlier_forwarding_fields_of_a_trusted_proxy_stay_in_front() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin).set("via", "web-7").set("trusted-proxies", "loopback");
    let ktrix = plan.start();
    let ask = Ask::get("/").field("Via", "1.0 fred").field("X-Forwarded-For", "10.1.2.3");
    ktrix.ask(&ask.field("Forwarded", "for=10.1.2.3")).expect_status(200);
    let head = origin.last().head;
    let all = |name: &str| head.all(name).collect::<Vec<_>>().join(", ");
    assert_eq!(all("via"), "1.0 fred, 1.1 web-7");
    assert_eq!(all("x-forwarded-for"), "10.1.2.3, 127.0.0.1");
    assert!(all("forwarded").starts_with("for=10.1.2.3, for=127.0.0.1"), "{}", all("forwarded"));
}

#[test]
fn hop_by_hop_fields_of_a_request_go_no_further() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let ask = Ask::get("/")
        .field("Connection", "keep-alive, X-Mine")
        .field("Keep-Alive", "timeout=5")
        .field("X-Mine", "secret")
        .field("Proxy-Connection", "keep-alive")
        .field("TE", "gzip")
        .field("Upgrade", "h2c")
        .field("X-Other", "stays");
    ktrix.ask(&ask).expect_status(200);
    let seen = origin.last();
    for gone in ["keep-alive", "x-mine", "proxy-connection", "upgrade"] {
        assert!(!seen.has(gone), "{gone}: {:?}", seen.head.fields);
    }
    assert_ne!(seen.field("te"), Some("gzip"));
    assert_eq!(seen.field("x-other"), Some("stays"));
}

#[test]
fn connection_cannot_remove_deciding_fields() {
    let origin = Origin::answering(|r| Response::ok(r.field("authorization").unwrap_or("none")));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let ask = Ask::post("/", "body")
        .field("Connection", "Host, Content-Length, Authorization, Cache-Control")
        .field("Authorization", "Basic eA==")
        .field("Cache-Control", "no-store");
    ktrix.ask(&ask).expect_status(200).expect_body("Basic eA==");
    let seen = origin.last();
    assert!(seen.has("host") && seen.has("cache-control"), "{:?}", seen.head.fields);
    assert_eq!(seen.body, b"body");
}

#[test]
fn hop_by_hop_fields_of_a_response_go_no_further_nor_into_the_cache() {
    let origin = Origin::answering(|_| {
        Response::ok("x")
            .field("Connection", "X-Mine")
            .field("Keep-Alive", "timeout=5")
            .field("X-Mine", "secret")
            .field("X-Other", "stays")
            .field("Proxy-Authenticate", "Basic")
            .cache("max-age=60")
    });
    let plan = Plan::new(&origin).set("via", "web-7");
    let ktrix = plan.start();
    ktrix.get("/a");
    let fresh = ktrix.ask(&Ask::get("/b"));
    for answer in [fresh, ktrix.wait_hit("/a")] {
        let answer = answer.expect_no_field("x-mine").expect_no_field("keep-alive");
        let answer = answer.expect_field("x-other", "stays").expect_field("via", "1.1 web-7");
        let date = answer.field("date").expect("Date").to_owned();
        assert!(date.ends_with(" GMT") && date.len() == 29, "{date}");
    }
}

#[test]
fn a_date_of_the_origin_is_kept() {
    let date = crate::support::date_from_now(-5);
    let given = date.clone();
    let origin =
        Origin::answering(move |_| Response::ok("x").field("Date", &given).cache("max-age=60"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_field("date", &date);
    ktrix.wait_hit("/a").expect_field("date", &date);
}
