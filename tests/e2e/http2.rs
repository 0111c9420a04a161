//! HTTP/2 towards clients, by prior knowledge: the same exchanges as over HTTP/1.

use std::time::Duration;

use http::Request;
use nix::sys::signal::Signal;

use crate::support::h2::{
    DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, H2, HEADERS, PING, RST_STREAM, Raw, SETTINGS,
    literals, of_get,
};
use crate::support::socket::Socket;
use crate::support::tls::{self, Secured};
use crate::support::{
    Ask, Client, Gate, Ktrix, Origin, PATIENCE, Plan, Response, pattern, until, until_true,
};

fn h2(ktrix: &Ktrix<'_>) -> H2 {
    H2::connect(&ktrix.plan.address)
}

fn raw(ktrix: &Ktrix<'_>) -> Raw {
    Raw::connect(&ktrix.plan.address)
}

#[test]
fn one_listener_takes_both_protocols_and_they_share_the_cache() {
    let origin = Origin::answering(|_| Response::ok("hello").cache("max-age=60"));
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    ktrix.get("/a").expect_miss().expect_body("hello");
    let mut client = h2(&ktrix);
    client.get("/a").expect_status(200).expect_hit().expect_body("hello");
    client.get("/b").expect_miss().expect_body("hello").expect_field("content-length", "5");
    client.get("/b").expect_hit().expect_body("hello").expect_field("age", "0");
    ktrix.get("/b").expect_hit();
    origin.expect_requests(2);
    let lines = ktrix.wait_access_lines(5);
    let is_h2: Vec<bool> = lines.iter().map(|it| it.contains("\"version\":\"HTTP/2.0\"")).collect();
    assert_eq!(is_h2, [false, true, true, true, false], "{lines:#?}");
}

#[test]
fn a_listener_without_http2_refuses_it_as_an_unknown_version() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin);
    let listen = format!("[{{address: \"{}\", http2: off}}]", plan_address(&plan));
    let plan = plan.set("listen", &listen);
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    client.answer().expect_status(505);
    // The preface of HTTP/2 is one only at the beginning of a connection.
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.get("/").expect_status(200);
    client.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    client.answer().expect_status(505);
}

fn plan_address(plan: &Plan) -> String {
    let crate::support::socket::Address::Ip(ip) = &plan.address else { unreachable!() };
    ip.to_string()
}

#[test]
fn methods_ranges_conditions_and_empty_answers_work() {
    let body = pattern(100_000);
    let whole = body.clone();
    let origin = Origin::answering(move |request| match &*request.target {
        "/empty" => Response::status(204),
        "/none" => Response::ok(""),
        "/post" => Response::ok(format!("{} {}", request.method, request.body.len())),
        _ => Response::ok(&whole).cache("max-age=60").field("ETag", "\"1\""),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let mut client = h2(&ktrix);
    client.get("/a").expect_body(&body);
    until_true("a hit", || client.get("/a").is_hit());
    let head = client.ask(&Ask::new("HEAD", "/a")).expect_status(200).expect_body("");
    assert_eq!(head.field("content-length"), Some("100000"));
    let ask = Ask::get("/a").field("Range", "bytes=10-19");
    client.ask(&ask).expect_status(206).expect_body(&body[10..20]);
    let ask = Ask::get("/a").field("Range", "bytes=0-9,99990-");
    let parts = client.ask(&ask).expect_status(206);
    assert!(parts.body.windows(10).any(|part| part == &body[99_990..]));
    let ask = Ask::get("/a").field("If-None-Match", "\"1\"");
    client.ask(&ask).expect_status(304).expect_body("").expect_no_field("content-length");
    client.get("/empty").expect_status(204).expect_body("");
    client.get("/none").expect_status(200).expect_body("").expect_field("content-length", "0");
    client.ask(&Ask::post("/post", "12345")).expect_body("POST 5");
    client.ask(&Ask::post("/post", "12345").chunked()).expect_body("POST 5");
    client.ask(&Ask::post("/post", pattern(300_000))).expect_body("POST 300000");
    client.ask(&Ask::post("/post", "")).expect_body("POST 0");
}

#[test]
fn the_origin_gets_an_http_1_request_with_joined_cookies() {
    let origin = Origin::answering(|_| Response::ok("x").cache("no-store"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let ask = Ask::get("/a?b").field("Host", "H.example:80").field("Cookie", "a=1");
    let ask = ask.field("X-A", "1").field("Cookie", "b=2").field("te", "trailers");
    h2(&ktrix).ask(&ask).expect_status(200);
    let request = origin.requests().pop().expect("a request");
    assert_eq!((&*request.version, &*request.target), ("HTTP/1.1", "/a?b"));
    let all: Vec<&str> = request.head.all("cookie").collect();
    assert_eq!(all, ["a=1; b=2"]);
    assert_eq!(request.field("host"), Some("h.example"));
    assert_eq!(request.field("x-a"), Some("1"));
    assert!(request.field("via").is_some_and(|via| via.starts_with("2.0 ")), "{request:?}");
}

#[test]
fn trailers_and_interim_responses_pass_in_both_directions() {
    let origin = Origin::wired(|connection| {
        let Ok(request) = connection.request() else { return };
        assert_eq!(request.trailers.field("x-sum"), Some("7"), "{request:?}");
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n";
        let body = "5\r\nhello\r\n0\r\nX-End: 9\r\n\r\n";
        let _ = connection.write([interim, head, body].concat().as_bytes());
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let mut client = h2(&ktrix);
    let request = Request::post("http://h/a").body(()).unwrap();
    let mut stream = client.open(request, false);
    stream.body.send_data("abc".into(), false).unwrap();
    let trailers = [("x-sum".parse().unwrap(), "7".parse().unwrap())].into_iter().collect();
    stream.body.send_trailers(trailers).unwrap();
    let answer = client.answer_to(stream).unwrap().expect_status(200).expect_body("hello");
    assert_eq!((answer.interim, answer.trailers.field("x-end")), (vec![103], Some("9")));
}

#[test]
fn a_client_that_expects_100_continue_gets_it() {
    let origin = Origin::answering(|request| Response::ok(request.body.len().to_string()));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let mut client = h2(&ktrix);
    let request = Request::post("http://h/a").header("expect", "100-continue");
    let mut stream = client.open(request.body(()).unwrap(), false);
    let response = &mut stream.response;
    let interim = client.run(std::future::poll_fn(|task| response.poll_informational(task)));
    assert_eq!(interim.unwrap().unwrap().status(), 100);
    client.upload(&mut stream.body, b"12345".to_vec());
    client.answer_to(stream).unwrap().expect_body("5");
}

#[test]
fn streams_are_independent_of_one_another() {
    let gate = Gate::new();
    let held = gate.clone();
    let body = pattern(3 << 20);
    let large = body.clone();
    let origin = Origin::answering(move |request| match &*request.target {
        "/held" => Response::ok("late").cache("no-store").gated(&held),
        "/large" => Response::ok(&large).cache("max-age=60"),
        _ => Response::ok("x").cache("max-age=60"),
    });
    let plan = Plan::new(&origin);
    let _ktrix = plan.start();
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(16 << 20);
    let mut client = H2::with(&plan.address, &builder);
    let held = client.open(Ask::get("/held").http2("h").0, true);
    // A stream whose window is not opened again, beside one that is read.
    let stuck = client.open(Ask::get("/large").http2("h").0, true);
    client.get("/large").expect_body(&body);
    client.get("/small").expect_body("x");
    gate.open();
    client.answer_to(held).unwrap().expect_body("late");
    client.answer_to(stuck).unwrap().expect_body(&body);
}

#[test]
fn malformed_requests_are_refused_and_reach_no_origin() {
    let origin = Origin::answering(|_| Response::ok("x").cache("no-store"));
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    let get = |extra: &[(&'static str, &'static str)]| [&of_get("/")[..], extra].concat();
    let pseudo = |method, scheme, authority, path| {
        vec![(":method", method), (":scheme", scheme), (":authority", authority), (":path", path)]
    };
    let long = "x".repeat(40 << 10);
    let mut cases = vec![
        ("upper case", get(&[("Accept", "x")])),
        ("empty name", get(&[("", "x")])),
        ("space in a name", get(&[("a b", "x")])),
        ("colon in a name", get(&[("a:", "x")])),
        ("line end in a name", get(&[("a\r\nb", "x")])),
        ("line end in a value", get(&[("a", "x\r\nb: c")])),
        ("LF in a value", get(&[("a", "x\ny")])),
        ("NUL in a value", get(&[("a", "x\0y")])),
        ("leading space", get(&[("a", " x")])),
        ("trailing tab", get(&[("a", "x\t")])),
        ("connection", get(&[("connection", "close")])),
        ("transfer-encoding", get(&[("transfer-encoding", "chunked")])),
        ("keep-alive", get(&[("keep-alive", "1")])),
        ("proxy-connection", get(&[("proxy-connection", "close")])),
        ("upgrade", get(&[("upgrade", "h2c")])),
        ("te", get(&[("te", "gzip")])),
        ("pseudo behind a field", [&[("a", "b")][..], &of_get("/")].concat()),
        ("two paths", get(&[(":path", "/b")])),
        ("two methods", get(&[(":method", "GET")])),
        ("unknown pseudo", get(&[(":x", "y")])),
        ("status", get(&[(":status", "200")])),
        ("another host", get(&[("host", "i")])),
        ("two hosts", get(&[("host", "h"), ("host", "h")])),
        ("no path", of_get("/")[..3].to_vec()),
        ("no method", of_get("/")[1..].to_vec()),
        ("no scheme", vec![(":method", "GET"), (":authority", "h"), (":path", "/")]),
        ("no host", vec![(":method", "GET"), (":scheme", "http"), (":path", "/")]),
        ("empty path", pseudo("GET", "http", "h", "")),
        ("path without slash", pseudo("GET", "http", "h", "a")),
        ("asterisk of a GET", pseudo("GET", "http", "h", "*")),
        ("whole URL as path", pseudo("GET", "http", "h", "http://h/")),
        ("space in the path", pseudo("GET", "http", "h", "/a b")),
        ("line end in the path", pseudo("GET", "http", "h", "/a\r\nb: c")),
        ("tab in the path", pseudo("GET", "http", "h", "/a\tb")),
        ("NUL in the path", pseudo("GET", "http", "h", "/a\0b")),
        ("query without a path", pseudo("GET", "http", "h", "?a")),
        ("empty method", pseudo("", "http", "h", "/")),
        ("tab in the method", pseudo("GET\t", "http", "h", "/")),
        ("line end in the method", pseudo("GET / HTTP/1.1\r\na: b\r\n\r\nGET", "http", "h", "/")),
        ("NUL in the method", pseudo("G\0T", "http", "h", "/")),
        ("parenthesis in the method", pseudo("G(T", "http", "h", "/")),
        ("space in the method", pseudo("GET /a", "http", "h", "/")),
        ("another scheme", pseudo("GET", "https", "h", "/")),
        ("no scheme of the web", pseudo("GET", "ftp", "h", "/")),
        ("scheme with a space", pseudo("GET", "http ", "h", "/")),
        ("scheme with a line end", pseudo("GET", "http://h/\r\n", "h", "/")),
        ("user in the authority", pseudo("GET", "http", "u@h", "/")),
        ("empty authority", pseudo("GET", "http", "", "/")),
        ("space in the authority", pseudo("GET", "http", "h i", "/")),
        ("line end in the authority", pseudo("GET", "http", "h\r\nX: y", "/")),
        ("NUL in the authority", pseudo("GET", "http", "h\0", "/")),
        ("a port that is none", pseudo("GET", "http", "h:x", "/")),
        (
            "another port in Host",
            [&pseudo("GET", "http", "h:1", "/")[..], &[("host", "h:2")]].concat(),
        ),
        ("path in the authority", pseudo("GET", "http", "h/a", "/")),
        ("two authorities", pseudo("GET", "http", "h, i", "/")),
        ("content-length without a body", get(&[("content-length", "5")])),
        ("content-length that is none", get(&[("content-length", "x")])),
        ("two lengths", get(&[("content-length", "0"), ("content-length", "0")])),
        ("CONNECT", vec![(":method", "CONNECT"), (":authority", "h:443")]),
        ("CONNECT with a path", pseudo("CONNECT", "http", "h:443", "/")),
    ];
    let large = [("a", &*long)];
    cases.push(("a large head", [&of_get("/")[..], &large].concat()));
    for (what, fields) in &cases {
        let mut client = raw(&ktrix);
        let block = literals(fields);
        let (first, rest) = block.split_at(block.len().min(16 << 10));
        let flags = if rest.is_empty() { END_HEADERS } else { 0 };
        client.send(&Frame::new(HEADERS, END_STREAM | flags, 1, first));
        for (place, part) in rest.chunks(16 << 10).enumerate() {
            let is_last = (place + 1) * (16 << 10) >= rest.len();
            client.send(&Frame::new(9, if is_last { END_HEADERS } else { 0 }, 1, part));
        }
        let outcome = client.outcome(1).unwrap_or_else(|| panic!("{what}: no answer"));
        let is_refused = match outcome.kind {
            HEADERS => outcome.status() == 400 || outcome.status() == 0,
            _ => [1, 9, 11].contains(&outcome.code()),
        };
        assert!(is_refused, "{what}: {outcome:?}");
        if outcome.kind != GOAWAY {
            // The connection is good for the next request.
            client.send(&Frame::head(3, &[&of_get("/ok")[..], &[("x-case", *what)]].concat()));
            assert_eq!(client.expect(HEADERS, 3).status(), 200, "{what}");
        }
    }
    // DATA that is shorter or longer than announced, with and without a request that is received
    // completely first.
    for (length, data) in [("5", &b"1234"[..]), ("5", b"123456"), ("0", b"1")] {
        let mut client = raw(&ktrix);
        let fields =
            [&pseudo("POST", "http", "h", "/p")[..], &[("content-length", length)]].concat();
        client.send(&Frame::new(HEADERS, END_HEADERS, 1, literals(&fields)));
        client.send(&Frame::new(DATA, END_STREAM, 1, data));
        let reset = client.expect(RST_STREAM, 1);
        assert_eq!(reset.code(), 1, "{length} {data:?}");
    }
    let targets: Vec<String> = origin.requests().into_iter().map(|it| it.target).collect();
    assert!(targets.iter().all(|target| target == "/ok"), "{targets:?}");
}

#[test]
fn a_fragment_of_a_path_is_cut_off_before_anything_sees_it() {
    let origin = Origin::answering(|request| Response::ok(&request.target).cache("max-age=60"));
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    let mut client = raw(&ktrix);
    // The library cuts it off, as clients must; over HTTP/1 it is refused.
    for (id, sent, meant) in [(1, "/a#b", "/a"), (3, "/a?b#c/d?e", "/a?b"), (5, "#b", "/")] {
        client.send(&Frame::get(id, sent));
        assert_eq!(client.expect(DATA, id).payload, meant.as_bytes(), "{sent}");
        let lines = ktrix.wait_access_lines((id as usize).div_ceil(2));
        let line = format!("\"target\":\"{meant}\"");
        assert!(lines.iter().any(|it| it.contains(&line)), "{lines:#?}");
    }
    let targets: Vec<String> = origin.requests().into_iter().map(|it| it.target).collect();
    assert_eq!(targets, ["/a", "/a?b", "/"]);
    let mut client = ktrix.client();
    client.write(b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n");
    client.answer().expect_status(400);
}

#[test]
fn a_reset_by_the_client_ends_its_request_alone() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |request| {
        let response = Response::ok("x").cache("no-store");
        if request.target == "/held" { response.gated(&held) } else { response }
    });
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    let mut client = raw(&ktrix);
    client.send(&Frame::get(1, "/held"));
    origin.wait_requests(1);
    client.send(&Frame::reset(1));
    client.send(&Frame::get(3, "/a"));
    assert_eq!(client.expect(HEADERS, 3).status(), 200);
    gate.open();
    let lines = ktrix.wait_access_lines(2);
    let gone = lines.iter().find(|line| line.contains("/held")).expect("its line");
    assert!(gone.contains("\"status\":499") && gone.contains("client-gone"), "{gone}");
}

#[test]
fn an_answer_that_breaks_off_resets_its_stream_alone() {
    let origin = Origin::answering(|request| match &*request.target {
        "/cut" => Response::ok(pattern(50_000)).cache("no-store").cut_at(20_000),
        _ => Response::ok("x"),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let mut client = h2(&ktrix);
    client.send(&Ask::get("/cut"));
    client.try_answer().expect_err("the answer is cut");
    client.get("/a").expect_status(200);
}

#[test]
fn uploads_and_downloads_are_whole_at_any_size() {
    let origin = Origin::answering(|request| Response::ok(&request.body).cache("no-store"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let mut client = h2(&ktrix);
    for len in [1, 16_383, 16_384, 65_535, 65_536, 1 << 20, 5 << 20] {
        let body = pattern(len);
        client.ask(&Ask::post("/echo", &body)).expect_status(200).expect_body(&body);
    }
}

#[test]
fn a_stored_file_is_sent_whole_to_a_client_with_small_windows() {
    let body = pattern(700_001);
    let sent = body.clone();
    let origin = Origin::answering(move |_| Response::ok(&sent).cache("max-age=60"));
    let plan =
        Plan::new(&origin).set("cache", "{path: $DIR/cache, size: 1 GiB, memory-object: 64 KiB}");
    let ktrix = plan.start();
    ktrix.get("/a").expect_status(200);
    ktrix.wait_hit("/a");
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1_000).initial_connection_window_size(70_000);
    let mut client = H2::with(&plan.address, &builder);
    client.get("/a").expect_hit().expect_body(&body);
}

#[test]
fn an_idle_connection_gets_a_goodbye() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin).set("timeouts", "{client-idle: 300ms, client-head: 500ms}");
    let ktrix = plan.start();
    let mut client = raw(&ktrix);
    client.send(&Frame::get(1, "/"));
    client.expect(HEADERS, 1);
    let goodbye = client.ended().expect("a GOAWAY");
    assert_eq!((goodbye.code(), &goodbye.payload[..4]), (0, &1u32.to_be_bytes()[..]));
    // A client without a request, and one without a whole preface.
    assert_eq!(raw(&ktrix).ended().map(|it| it.code()), Some(0));
    let mut client = Raw::without_preface(&plan.address);
    client.write(b"PRI * HTTP/2.0\r\n\r\nSM");
    assert_eq!(client.ended(), None);
}

#[test]
fn a_stream_that_takes_nothing_is_ended_and_the_others_go_on() {
    let origin = Origin::answering(|_| Response::ok(pattern(200_000)).cache("max-age=60"));
    let plan = Plan::new(&origin).set("workers", "1").set("timeouts", "{client-send: 400ms}");
    let ktrix = plan.start();
    ktrix.get("/a");
    ktrix.wait_hit("/a");
    let mut client = raw(&ktrix);
    // SETTINGS_INITIAL_WINDOW_SIZE is 0: no stream has room for a byte.
    client.send(&Frame::new(SETTINGS, 0, 0, [&4u16.to_be_bytes()[..], &[0; 4]].concat()));
    client.expect(SETTINGS, 0);
    client.send(&Frame::get(1, "/a"));
    client.send(&Frame::head(3, &[&[(":method", "HEAD")][..], &of_get("/a")[1..]].concat()));
    assert_eq!(client.expect(HEADERS, 3).status(), 200);
    // One byte at a time is no progress.
    for _ in 0..20 {
        client.send(&Frame::new(8, 0, 1, 1u32.to_be_bytes()));
        std::thread::sleep(Duration::from_millis(5));
    }
    client.expect(RST_STREAM, 1);
    client.send(&Frame::head(5, &[&[(":method", "HEAD")][..], &of_get("/a")[1..]].concat()));
    assert_eq!(client.expect(HEADERS, 5).status(), 200);
    let is_there = |line: &String| line.contains("send-timeout");
    until_true("its line", || plan.access_lines().iter().any(is_there));
}

#[test]
fn a_drain_ends_connections_in_two_steps_after_their_last_streams() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |request| {
        let response = Response::ok("x").cache("no-store");
        if request.target == "/held" { response.gated(&held) } else { response }
    });
    let plan = Plan::new(&origin).set("workers", "1");
    let ktrix = plan.start();
    let mut client = raw(&ktrix);
    client.send(&Frame::get(1, "/held"));
    origin.wait_requests(1);
    ktrix.signal(Signal::SIGQUIT);
    let warning = client.expect(GOAWAY, 0);
    assert_eq!((warning.code(), &warning.payload[..4]), (0, &0x7fff_ffff_u32.to_be_bytes()[..]));
    // A request that was under way when the client heard of it is served too.
    client.send(&Frame::get(3, "/a"));
    assert_eq!(client.expect(HEADERS, 3).status(), 200);
    client.send(&Frame::new(PING, 1, 0, b"\x0b\x7b\xa2\xf0\x8b\x9b\xfe\x54"));
    let goodbye = client.expect(GOAWAY, 0);
    assert_eq!((goodbye.code(), &goodbye.payload[..4]), (0, &3u32.to_be_bytes()[..]));
    gate.open();
    assert_eq!(client.expect(HEADERS, 1).status(), 200);
    client.ended();
    ktrix.wait_exit();
}

#[test]
fn reloads_under_load_lose_no_request() {
    let origin = Origin::answering(|_| Response::ok("x").cache("no-store"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let (mut n_asked, mut client) = (0, h2(&ktrix));
    for _ in 0..3 {
        let before = ktrix.workers();
        ktrix.signal(Signal::SIGHUP);
        until("the old workers to go", Duration::from_secs(20), || {
            let mut streams = Vec::new();
            while streams.len() < 5 {
                match client.try_open(Ask::get("/").http2("h").0, true) {
                    Ok(stream) => streams.push(stream),
                    // ktrix has said that this connection takes no more requests.
                    Err(error) => {
                        assert!(error.is_go_away() && error.is_remote(), "{error}");
                        break;
                    }
                }
            }
            let is_over = streams.len() < 5;
            n_asked += streams.len();
            for stream in streams {
                client.answer_to(stream).expect("an answer").expect_status(200);
            }
            if is_over {
                client = h2(&ktrix);
            }
            let now = ktrix.workers();
            (!now.is_empty() && now.iter().all(|worker| !before.contains(worker))).then_some(())
        });
    }
    origin.expect_requests(n_asked);
}

#[test]
fn a_client_with_tls_chooses_the_protocol_by_alpn() {
    let origin = Origin::answering(|request| {
        Response::ok(request.field("x-forwarded-proto").unwrap_or("?")).cache("max-age=60")
    });
    let plan = Plan::new(&origin).with_tls();
    let ktrix = plan.start();
    let client = |names: &[&str]| {
        let mut config = tls::authority().client();
        config.alpn_protocols = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        let crate::support::socket::Address::Ip(ip) = plan.address else { unreachable!() };
        let stream = std::net::TcpStream::connect(ip).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = "localhost".try_into().unwrap();
        let tls = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
        Secured::shake(stream, tls).unwrap()
    };
    let secured = client(&["h2", "http/1.1"]);
    assert_eq!(secured.protocol(), Some(&b"h2"[..]));
    let mut raw = Raw::on(Socket::Tls(Box::new(secured)));
    let of_https = |path| {
        let get = of_get(path);
        [get[0], (":scheme", "https"), get[2], get[3]]
    };
    raw.send(&Frame::head(1, &of_https("/a")));
    assert_eq!(raw.expect(HEADERS, 1).status(), 200);
    assert_eq!(raw.expect(DATA, 1).payload, b"https");
    // The scheme is that of the connection.
    raw.send(&Frame::get(3, "/a"));
    assert_eq!(raw.expect(HEADERS, 3).status(), 400);
    assert_eq!(client(&["http/1.1"]).protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(client(&[]).protocol(), None);
    ktrix.get("/b").expect_status(200);
    let url = format!("https://{}/a", plan_address(&plan));
    let curl = ["-sSk", "--http2", "-w", " %{http_version}", &url];
    let output = std::process::Command::new("curl").args(curl).output();
    assert!(output.is_err() || output.is_ok_and(|it| it.stdout == b"https 2"));
}

#[test]
fn real_clients_are_served() {
    let body = pattern(1 << 20);
    let sent = body.clone();
    let origin = Origin::answering(move |request| match &*request.method {
        "POST" => Response::ok(request.body.len().to_string()),
        _ => Response::ok(&sent).cache("max-age=60"),
    });
    let plan = Plan::new(&origin);
    let _ktrix = plan.start();
    let url = format!("http://{}/a", plan_address(&plan));
    std::fs::write(plan.dir().join("body"), &body).unwrap();
    let run = |words: &[&str]| {
        let mut command = std::process::Command::new(words[0]);
        let output = command.args(&words[1..]).current_dir(plan.dir()).output().ok()?;
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Some(output.stdout)
    };
    let curl = ["curl", "-sS", "--http2-prior-knowledge", "--max-time", "20", &url];
    assert!(run(&curl).is_none_or(|got| got == body));
    let upload = [&curl[..], &["-X", "POST", "-T", "body"]].concat();
    assert!(run(&upload).is_none_or(|got| got == b"1048576"));
    let status = ["-o", "/dev/null", "-w", "%{http_version} %{response_code}"];
    assert!(run(&[&curl[..], &status].concat()).is_none_or(|got| got == b"2 200"));
    if let Some(got) = run(&["nghttp", "-v", "-n", &url]) {
        assert!(String::from_utf8_lossy(&got).contains(":status: 200"));
    }
    if let Some(got) = run(&["h2load", "-n", "200", "-c", "4", "-m", "10", &url]) {
        assert!(String::from_utf8_lossy(&got).contains("200 succeeded, 0 failed"));
    }
    let mut client = Client::connect(&plan.address);
    client.get("/a").expect_hit();
}
