//! TLS towards clients: handshakes, certificates, and that HTTP over it is the same HTTP.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::date_time_ymd;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind};

use crate::support::ktrix::{CERTIFICATE, text};
use crate::support::socket::Address;
use crate::support::tls::{Authority, authority};
use crate::support::{
    Ask, Broken, Client, Ktrix, Origin, Plan, Response, alone, pattern, until_true,
};

fn address(plan: &Plan) -> SocketAddr {
    let Address::Ip(address) = plan.address else { unreachable!() };
    address
}

/// A raw connection.
fn raw(plan: &Plan) -> TcpStream {
    let stream = TcpStream::connect(address(plan)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn of_path(origin: &str) -> Response {
    Response::ok(format!("for {origin}"))
}

#[test]
fn requests_of_every_kind_are_answered_over_tls_1_2_and_1_3() {
    let body = pattern(3 << 20);
    let large = body.clone();
    let origin = Origin::answering(move |request| match &*request.target {
        "/large" => Response::ok(large.clone()).cache("max-age=600"),
        "/echo" => Response::ok(request.body.clone()),
        _ => Response::ok("hello").cache("max-age=600"),
    });
    let plan = Plan::new(&origin).with_tls();
    let ktrix = plan.start();
    for version in [&TLS12, &TLS13] {
        let config = authority().client_of(&[version]);
        let mut client = Client::secured(&plan.address, config, "localhost");
        for _ in 0..3 {
            client.get("/small").expect_status(200).expect_body("hello");
        }
        client.head("/small").expect_status(200).expect_body("");
        client.get("/large").expect_body(&body);
        client.get("/large").expect_body(&body);
        let part = Ask::get("/large").field("Range", "bytes=1048575-2097152");
        client.ask(&part).expect_status(206).expect_body(&body[1_048_575..=2_097_152]);
        client.ask(&Ask::post("/echo", &body)).expect_body(&body);
        client.ask(&Ask::post("/echo", &body).chunked()).expect_body(&body);
        // A pipeline: hot, cold and hot again.
        for target in ["/small", "/echo", "/small", "/small"] {
            client.send(&Ask::get(target));
        }
        for expected in ["hello", "", "hello", "hello"] {
            client.answer().expect_status(200).expect_body(expected);
        }
        let version = match *version == TLS13 {
            true => "\"tls_version\":\"TLSv1.3\",\"tls_cipher\":\"TLS_",
            false => "\"tls_version\":\"TLSv1.2\",\"tls_cipher\":\"TLS_ECDHE_ECDSA_",
        };
        until_true("the version in the access log", || {
            plan.access_lines().iter().filter(|line| line.contains(version)).count() >= 12
        });
    }
    assert!(plan.access_lines()[0].contains("\"tls_server_name\":\"localhost\""));
    drop(ktrix);
}

#[test]
fn the_scheme_is_that_of_the_connection_everywhere() {
    let origin = Origin::answering(|request| {
        let scheme = request.field("x-forwarded-proto").unwrap_or_default().to_owned();
        Response::ok(scheme).cache("max-age=600")
    });
    let plan = Plan::new(&origin).with_tls();
    let plain = plan.dir().join("sock");
    let secured = address(&plan);
    let tls = format!("{{address: \"{secured}\", tls: {{certificates: {CERTIFICATE}}}}}");
    plan.put("listen", &format!("[\"unix:$DIR/sock\", {tls}]"));
    let fields = "{X-Tls: \"{scheme} {tls-version} {tls-cipher} {tls-server-name}\"}";
    plan.put(
        "sites",
        &format!("[{{routes: [{{path: /, upstream: app, response-fields: {{set: {fields}}}}}]}}]"),
    );
    let ktrix = plan.start();
    // The very same bytes, cold and hot, over both: never the answer of the other.
    let ask = Ask::get("/same").field("Host", "h.example");
    for _ in 0..4 {
        let mut http = Client::connect(&Address::Unix(plain.clone()));
        let mut https = ktrix.client();
        for _ in 0..2 {
            http.ask(&ask).expect_body("http").expect_field("x-tls", "http");
            let answer = https.ask(&ask).expect_body("https");
            let told = answer.field("x-tls").unwrap_or_default();
            assert!(told.starts_with("https TLSv1.3 TLS_"), "{told}");
            assert!(told.ends_with(" localhost"), "{told}");
        }
    }
    assert!(ktrix.client().ask(&ask).is_hit());
    let forwarded = origin.last().field("forwarded").unwrap_or_default().to_owned();
    assert!(forwarded.contains("proto=http"), "{forwarded}");
}

#[test]
fn the_certificate_is_chosen_by_the_name_and_sites_add_theirs() {
    let origin = Origin::answering(|_| of_path("all"));
    let plan = Plan::new(&origin).with_tls();
    let other = Authority::new();
    other.write(plan.dir(), "wild", &["*.wild.example"]);
    other.write(plan.dir(), "site", &["site.example"]);
    let site = "{hosts: site.example, tls: {certificate: $DIR/site.pem, key: $DIR/site.key}, upstream: app}";
    plan.put("sites", &format!("[{site}, {{upstream: app}}]"));
    let secured = address(&plan);
    let own = format!("[{CERTIFICATE}, {{certificate: $DIR/wild.pem, key: $DIR/wild.key}}]");
    plan.put("listen", &format!("[{{address: \"{secured}\", tls: {{certificates: {own}}}}}]"));
    let _ktrix = plan.start();
    for name in ["site.example", "SITE.example", "a.wild.example"] {
        let mut client = Client::secured(&plan.address, other.client(), name);
        client.get("/").expect_status(200);
    }
    for name in ["wild.example", "a.b.wild.example", "unknown.example"] {
        let refused = Client::try_secured(&plan.address, other.client(), name);
        assert!(refused.is_err(), "{name} has the default certificate, of another authority");
    }
    for name in ["localhost", "127.0.0.1"] {
        Client::secured(&plan.address, authority().client(), name).get("/").expect_status(200);
    }
}

#[test]
fn plain_http_on_a_tls_port_gets_a_readable_400() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin).with_tls();
    let ktrix = plan.start();
    let mut stream = raw(&plan);
    stream.write_all(b"GET /secret HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(answer.contains("plain HTTP request sent to a TLS port"), "{answer}");
    let line = ktrix.wait_access_lines(1).remove(0);
    assert!(line.contains("\"status\":400") && line.contains("\"target\":\"/secret\""), "{line}");
    assert_eq!(origin.n_requests(), 0);
    // TLS on a plain port ends cleanly.
    let plain = Plan::new(&origin);
    let _ktrix = plain.start();
    if !crate::support::tls::is_everywhere() {
        let refused = Client::try_secured(&plain.address, authority().client(), "localhost");
        assert!(refused.is_err());
    }
}

#[test]
fn parts_of_a_record_do_not_put_off_the_end_of_a_connection() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let timeouts = "{client-head: 1s, client-idle: 1m}";
    let plan = Plan::new(&origin).with_tls().set("timeouts", timeouts);
    let _ktrix = plan.start();
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = ClientConnection::new(Arc::new(authority().client()), name).unwrap();
    let mut stream = raw(&plan);
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).unwrap();
    }
    // A record of 16 KiB, byte by byte: each wakes ktrix, and none gives it a byte of a request.
    stream.write_all(&[23, 3, 3, 0x40, 0]).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let begun = Instant::now();
    let mut buf = [0; 4096];
    loop {
        assert!(begun.elapsed() < Duration::from_secs(20), "the connection has no end");
        let is_over = stream.write_all(&[0]).is_err();
        match stream.read(&mut buf) {
            Ok(0) => break,
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                break;
            }
            _ if is_over => break,
            _ => {}
        }
    }
}

#[test]
fn handshakes_in_pieces_work_and_oversized_ones_end() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin).with_tls();
    let ktrix = plan.start();
    // One byte at a time: a proxy between client and ktrix.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let between = listener.local_addr().unwrap();
    let to = address(&plan);
    let relay = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut server = TcpStream::connect(to).unwrap();
        server.set_nodelay(true).unwrap();
        let (mut back, mut forth) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        let answers = std::thread::spawn(move || io::copy(&mut back, &mut forth));
        let mut byte = [0];
        while client.read(&mut byte).is_ok_and(|n| n > 0) && server.write_all(&byte).is_ok() {}
        let _ = server.shutdown(std::net::Shutdown::Both);
        let _ = answers.join();
    });
    let mut client = Client::secured(&between.into(), authority().client(), "localhost");
    client.get("/").expect_status(200);
    drop(client);
    relay.join().unwrap();
    // A hello that announces far more than any client needs, and then sends it.
    let mut stream = raw(&plan);
    let mut hello = vec![1, 0xff, 0xff, 0xff];
    hello.resize(1 << 20, 0);
    for part in hello.chunks(16 << 10) {
        let len = u16::try_from(part.len()).unwrap().to_be_bytes();
        let record = [&[22, 3, 1][..], &len, part].concat();
        if stream.write_all(&record).is_err() {
            break;
        }
    }
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.len() < 100, "an alert at most");
    ktrix.get("/").expect_status(200);
}

#[test]
fn a_hello_of_several_records_is_read_as_one() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin).with_tls();
    let _ktrix = plan.start();
    for n_names in [20, 60, 100] {
        let mut config = authority().client();
        // Each name has 255 bytes.
        let name = |n: usize| format!("{n:0>255}").into_bytes();
        config.alpn_protocols = (0..n_names).map(name).chain([b"http/1.1".to_vec()]).collect();
        let mut client = Client::secured(&plan.address, config, "localhost");
        client.get("/").expect_status(200);
    }
}

#[test]
fn a_handshake_that_stops_is_ended_and_the_oldest_goes_first() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin).with_tls().set("workers", "1");
    plan.put("timeouts", "{tls-handshake: 300ms}");
    let ktrix = plan.start();
    let mut silent = raw(&plan);
    silent.write_all(&[22, 3, 1, 0, 200, 1]).unwrap();
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest);
    assert!(rest.is_empty());
    // Without a deadline that comes first: the bound.
    plan.put("timeouts", "{tls-handshake: 10m}");
    plan.put("limits", "{handshakes: 3}");
    plan.write_config();
    ktrix.signal(nix::sys::signal::Signal::SIGHUP);
    ktrix.wait_error("configuration reloaded");
    ktrix.wait_children(2);
    let mut held: Vec<TcpStream> = (0..10).map(|_| raw(&plan)).collect();
    for stream in &mut held {
        let _ = stream.write_all(&[22]);
    }
    for stream in &mut held[..7] {
        let n_read = stream.read(&mut [0; 8]);
        // Its byte was read or not, so it is an end or a reset.
        let is_reset = |error: &io::Error| error.kind() == ErrorKind::ConnectionReset;
        let is_ended = n_read.as_ref().map_or_else(is_reset, |n_read| *n_read == 0);
        assert!(is_ended, "the oldest ends");
    }
    ktrix.get("/").expect_status(200);
    ktrix.wait_error(
        "closed the oldest TLS handshake or PROXY header, because limits.handshakes (3)",
    );
}

#[test]
fn an_end_is_announced_and_an_abort_is_not() {
    let origin = Origin::answering(|request| match &*request.target {
        "/cut" => Response::chunked(&[&pattern(100_000)]).reset_at(50_000),
        _ => Response::until_close("whole"),
    });
    let plan = Plan::new(&origin).with_tls();
    let ktrix = plan.start();
    // HTTP/1.0: the close delimits the body, and only close_notify makes it whole.
    let mut client = ktrix.client();
    client.write(&Ask::get("/whole").http10().bytes("h"));
    let (bytes, is_cut) = client.read_to_end("a whole answer");
    assert!(String::from_utf8_lossy(&bytes).ends_with("\r\n\r\nwhole"));
    assert!(!is_cut, "it ends with close_notify");
    let mut client = ktrix.client();
    client.write(&Ask::get("/cut").http10().bytes("h"));
    assert!(client.read_to_end("a cut answer").1, "it ends without close_notify");
    let mut client = ktrix.client();
    client.send(&Ask::get("/whole").field("Connection", "close"));
    client.answer().expect_body("whole");
    client.expect_closed();
}

#[test]
fn a_body_that_ends_without_its_end_is_no_request() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin).with_tls();
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.write(b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhalf");
    client.shutdown_write();
    let line = ktrix.wait_access_lines(1).remove(0);
    assert!(line.contains("\"status\":499"), "{line}");
    assert_eq!(origin.n_requests(), 0);
}

#[test]
fn a_slow_reader_gets_every_byte() {
    let body = pattern(2 << 20);
    let whole = body.clone();
    let origin = Origin::answering(move |_| Response::ok(whole.clone()).cache("max-age=600"));
    let plan = Plan::new(&origin).with_tls();
    let ktrix = plan.start();
    ktrix.get("/body").expect_body(&body);
    ktrix.wait_hit("/body");
    for _ in 0..3 {
        let mut client = ktrix.client().receive_buffer(32 << 10);
        client.send(&Ask::get("/body"));
        std::thread::sleep(Duration::from_millis(30));
        client.answer().expect_body(&body);
    }
}

#[test]
fn a_certificate_that_cannot_be_used_is_named_with_its_place() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin).with_tls();
    authority().write(plan.dir(), "other", &["other.example"]);
    authority().write_with(plan.dir(), "old", &["old.example"], |params| {
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    let path = |name: &str| plan.dir().join(name);
    let [old, other] = ["old.pem", "other.pem"].map(|name| fs::read_to_string(path(name)).unwrap());
    fs::write(path("old.pem"), old + &other).unwrap();
    let listen = |key: &str| {
        format!(
            "[{{address: 127.0.0.1:1, tls: {{certificates: [{{certificate: $DIR/{key}.pem, key: $DIR/other.key}}]}}}}]"
        )
    };
    let test = |plan: &Plan| {
        plan.write_config();
        let out = plan.run(&["--test", &plan.config_path().display().to_string()]);
        let told = text(&out).replace(&format!("{}/", plan.dir().display()), "");
        (out.status.code(), told)
    };
    plan.put("listen", &listen("ktrix"));
    let line = plan.config().lines().position(|line| line.starts_with("listen")).unwrap() + 1;
    let (code, told) = test(&plan);
    assert_eq!(code, Some(1));
    let place = format!("ktrix.yaml:{line}:");
    assert!(told.starts_with(&place), "{told}");
    let why =
        "listen[0].tls.certificates[0].key: other.key does not match the certificate (ktrix.pem)";
    assert!(told.contains(why), "{told}");
    plan.put("listen", &listen("other"));
    plan.put("sites", "[{hosts: [x.example], tls: {certificate: $DIR/old.pem, key: $DIR/old.key}, upstream: app}]");
    let (code, told) = test(&plan);
    assert_eq!(code, Some(0), "{told}");
    for why in [
        "sites[0].tls.certificate: old.pem expired on Wed, 01 Jan 2020 (warning)",
        "old.pem has its chain out of order: certificate 2 is not the issuer of certificate 1 (warning)",
        "sites[0].tls.certificate: old.pem has no name for x.example, a host of the site (warning)",
        "configuration is valid",
    ] {
        assert!(told.contains(why), "{why} in {told}");
    }
}

#[test]
fn a_reload_takes_up_new_certificates_under_load_and_keeps_the_old_ones_if_they_are_bad() {
    let origin = Origin::answering(|_| Response::ok("x").cache("max-age=600"));
    let plan = Plan::new(&origin).with_tls();
    let ktrix = plan.start();
    let other = Authority::new();
    let config = authority().client_and(&other);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = || {
            let mut n_answers = 0;
            while !is_over.load(Ordering::Relaxed) {
                let mut client = Client::secured(&plan.address, config.clone(), "localhost");
                for _ in 0..5 {
                    // A worker that drains may close a connection between two requests.
                    match client.try_ask(&Ask::get("/x")) {
                        Ok(answer) => n_answers += usize::from(answer.expect_status(200).is_hit()),
                        Err(Broken::Closed) => break,
                        Err(broken) => panic!("{broken:?}"),
                    }
                }
            }
            n_answers
        };
        let loads = [scope.spawn(load), scope.spawn(load)];
        let is_new = || Client::try_secured(&plan.address, other.client(), "localhost").is_ok();
        assert!(!is_new());
        other.write(plan.dir(), "ktrix", &["127.0.0.1", "localhost"]);
        ktrix.signal(nix::sys::signal::Signal::SIGHUP);
        until_true("the new certificate", is_new);
        // The key of another one.
        fs::copy(plan.dir().join("ktrix.pem"), plan.dir().join("kept.pem")).unwrap();
        authority().write(plan.dir(), "wrong", &["localhost"]);
        fs::copy(plan.dir().join("wrong.key"), plan.dir().join("ktrix.key")).unwrap();
        ktrix.signal(nix::sys::signal::Signal::SIGHUP);
        let told = ktrix.wait_error("does not match the certificate");
        assert!(told.contains("listen[0].tls.certificates.key: "), "{told}");
        ktrix.wait_error("reload failed; keeping the current configuration");
        assert!(is_new());
        is_over.store(true, Ordering::Relaxed);
        for load in loads {
            assert!(load.join().unwrap() > 0);
        }
    });
}

#[test]
fn requests_in_the_clear_are_redirected_to_https() {
    let origin = Origin::answering(|_| Response::ok("x").cache("max-age=600"));
    let plan = Plan::new(&origin).with_tls();
    let secured = address(&plan);
    let tls = format!("{{address: \"{secured}\", tls: {{certificates: {CERTIFICATE}}}}}");
    plan.put("listen", &format!("[\"unix:$DIR/sock\", {tls}]"));
    let port = secured.port();
    let redirect = format!("redirect: {{to: https, port: {port}, status: 308}}");
    let site = format!("{{hosts: a.example, {redirect}, upstream: app}}");
    plan.put("sites", &format!("[{site}, {{upstream: app}}]"));
    let ktrix = plan.start();
    let clear = Address::Unix(plan.dir().join("sock"));
    let ask = Ask::get("/a?b=c").field("Host", "A.example:80");
    for _ in 0..3 {
        // The stored answer of https does not answer http.
        ktrix.ask(&ask).expect_status(200).expect_body("x");
        let location = format!("https://a.example:{port}/a?b=c");
        let mut client = Client::connect(&clear);
        client.ask(&ask).expect_status(308).expect_field("location", &location);
        let lie = ask.clone().field("X-Forwarded-Proto", "https");
        client.ask(&lie).expect_status(308);
        let post = Ask::post("/p", "body").field("Host", "a.example");
        client.ask(&post).expect_status(308);
    }
    let other = Ask::get("/").field("Host", "b.example");
    Client::connect(&clear).ask(&other).expect_status(200);
    origin.expect_requests(2);
    // A trusted proxy in front has taken the TLS off.
    plan.put("trusted-proxies", "[local]");
    plan.write_config();
    ktrix.signal(nix::sys::signal::Signal::SIGHUP);
    let told = ask.clone().field("X-Forwarded-Proto", "https");
    until_true("the trusted proxy", || Client::connect(&clear).ask(&told).status == 200);
    Client::connect(&clear).ask(&ask).expect_status(308);
}

#[test]
fn the_clients_of_others_are_served() {
    let origin = Origin::answering(|_| Response::ok("hello").cache("max-age=600"));
    let plan = Plan::new(&origin).with_tls();
    let _ktrix = plan.start();
    let ip = address(&plan);
    fs::write(plan.dir().join("ca.pem"), authority().pem()).unwrap();
    let python = "import ssl,sys,urllib.request as u\n\
        c=ssl.create_default_context(cafile='ca.pem')\n\
        print(u.urlopen('https://localhost:%s/x'%sys.argv[1],context=c).read().decode())\n";
    let port = ip.port().to_string();
    let out = Command::new("python3")
        .args(["-c", python, &port])
        .current_dir(plan.dir())
        .stdin(Stdio::null())
        .output();
    let Ok(out) = out else { return };
    assert_eq!(text(&out).trim(), "hello");
    let openssl = |version: &str, input: &[u8]| {
        let mut child = Command::new("openssl")
            .args(["s_client", "-quiet", "-connect", &ip.to_string(), version])
            .args(["-CAfile", "ca.pem", "-servername", "localhost", "-verify_return_error"])
            .current_dir(plan.dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        child.stdin.take()?.write_all(input).ok()?;
        child.wait_with_output().ok()
    };
    let ask = b"GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for (version, is_spoken) in [("-tls1_3", true), ("-tls1_2", true), ("-tls1_1", false)] {
        let Some(out) = openssl(version, ask) else { return };
        assert_eq!(text(&out).contains("\r\n\r\nhello"), is_spoken, "{version}: {}", text(&out));
    }
}

/// How many of `n` clients that come back resume their session.
fn n_resumed(plan: &Plan, config: &ClientConfig, n: usize) -> usize {
    let is_resumed = |_| {
        let mut client = Client::secured(&plan.address, config.clone(), "localhost");
        // The ticket comes with the answer.
        client.get("/").expect_status(200);
        usize::from(client.tls().handshake_kind() == Some(HandshakeKind::Resumed))
    };
    (0..n).map(is_resumed).sum()
}

#[test]
fn sessions_are_resumed_by_every_worker_and_over_deaths_and_reloads() {
    let origin = Origin::answering(|_| Response::ok("x").cache("max-age=600"));
    let plan = Plan::new(&origin).with_tls().set("workers", "4");
    let ktrix = plan.start();
    for version in [&TLS13, &TLS12] {
        let config = authority().client_of(&[version]);
        assert_eq!(n_resumed(&plan, &config, 1), 0, "a first handshake is whole");
        let all = n_resumed(&plan, &config, 60);
        assert!(all * 100 > 60 * 95, "{version:?}: {all} of 60");
        let before = ktrix.workers();
        before[0].signal(nix::sys::signal::Signal::SIGKILL);
        until_true("another worker", || {
            let now = ktrix.workers();
            now.len() == 4 && !now.contains(&before[0])
        });
        assert!(n_resumed(&plan, &config, 40) * 100 > 40 * 95, "after a death");
        let n_reloads = |log: &str| log.matches("configuration reloaded").count();
        let n_before = n_reloads(&plan.error_log());
        ktrix.signal(nix::sys::signal::Signal::SIGHUP);
        until_true("the reload", || n_reloads(&plan.error_log()) > n_before);
        assert!(n_resumed(&plan, &config, 40) * 100 > 40 * 95, "after a reload");
    }
}

#[test]
fn a_ticket_does_not_outlive_its_secret() {
    let origin = Origin::answering(|_| Response::ok("hello"));
    let plan = Plan::new(&origin).with_tls();
    let ktrix = plan.start();
    fs::write(plan.dir().join("ca.pem"), authority().pem()).unwrap();
    let ip = address(&plan).to_string();
    // A client that offers its ticket however old it is: in TLS 1.2 there is no more to it.
    let told = |session: &str| {
        let child = Command::new("openssl")
            .args(["s_client", "-connect", &ip, "-tls1_2", "-CAfile", "ca.pem"])
            .args(["-servername", "localhost", session, "session"])
            .current_dir(plan.dir())
            .stdin(Stdio::null())
            .output();
        child.ok().map(|out| text(&out))
    };
    let Some(first) = told("-sess_out") else { return };
    assert!(first.contains("New, TLSv1.2"), "{first}");
    let again = told("-sess_in").unwrap();
    assert!(again.contains("Reused, TLSv1.2"), "{again}");
    plan.put("tls", "{ticket-lifetime: 2s}");
    plan.put("log", "{error: $DIR/error.log, level: debug}");
    plan.write_config();
    ktrix.signal(nix::sys::signal::Signal::SIGHUP);
    until_true("three rotations", || {
        plan.error_log().matches("made a new secret for TLS").count() >= 3
    });
    let late = told("-sess_in").unwrap();
    assert!(late.contains("New, TLSv1.2"), "{late}");
}

#[test]
fn machines_with_one_file_of_secrets_resume_each_others_sessions() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plans = [Plan::new(&origin).with_tls(), Plan::new(&origin).with_tls()];
    let lines = ["A", "B"].map(|byte| byte.repeat(64));
    for plan in &plans {
        fs::write(plan.dir().join("keys"), format!("{}\n", lines[0])).unwrap();
        plan.put("tls", "{ticket-keys: $DIR/keys}");
    }
    let ktrixes = [plans[0].start(), plans[1].start()];
    let config = authority().client();
    assert_eq!(n_resumed(&plans[0], &config, 1), 0);
    assert_eq!(n_resumed(&plans[1], &config, 1), 1);
    // The order of a replacement: accept the new one, use it, forget the old one.
    for text in [
        format!("{}\n{}\n", lines[0], lines[1]),
        format!("{}\n{}\n", lines[1], lines[0]),
        format!("{}\n", lines[1]),
    ] {
        for (plan, ktrix) in plans.iter().zip(&ktrixes) {
            fs::write(plan.dir().join("keys"), &text).unwrap();
            let n_before = plan.error_log().matches("configuration reloaded").count();
            ktrix.signal(nix::sys::signal::Signal::SIGHUP);
            until_true("the reload", || {
                plan.error_log().matches("configuration reloaded").count() > n_before
            });
            assert_eq!(n_resumed(&plans[0], &config, 1), 1, "{text}");
            assert_eq!(n_resumed(&plans[1], &config, 1), 1, "{text}");
        }
    }
    // A file that changes is taken up without a reload.
    fs::write(plans[0].dir().join("keys"), format!("{}\n", "C".repeat(64))).unwrap();
    until_true("the new secret", || {
        // A client that comes again and again would get a ticket of the new secret for one of the old.
        let of_other = authority().client();
        n_resumed(&plans[1], &of_other, 1);
        n_resumed(&plans[0], &of_other, 1) == 0
    });
    n_resumed(&plans[0], &config, 1);
    // A file that cannot be used keeps the old secrets.
    fs::write(plans[0].dir().join("keys"), "short\n").unwrap();
    let told = ktrixes[0].wait_error("tls.ticket-keys: ");
    assert!(told.contains("has no secret of 32 bytes or more in base64 in line 1"), "{told}");
    assert_eq!(n_resumed(&plans[0], &config, 1), 1);
}

#[test]
fn secrets_of_tickets_are_in_no_heap() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin).with_tls().set("tls", "{ticket-keys: $DIR/keys}");
    // 48 bytes of 0 in base64.
    fs::write(plan.dir().join("keys"), format!("{}\n", "A".repeat(64))).unwrap();
    let ktrix = plan.start();
    let config = authority().client();
    n_resumed(&plan, &config, 8);
    let secret = digest(&SHA256, &[0; 48]);
    for process in [vec![ktrix.master], ktrix.children()].concat() {
        let found = mappings_with(process.pid, secret.as_ref());
        // Another user may not look.
        let Ok(found) = found else { return };
        let shared = found.iter().filter(|line| line.contains(" rw-s ")).count();
        assert_eq!(shared, 1, "the memory of all: {found:?}");
        let elsewhere =
            found.iter().find(|line| !line.contains(" rw-s ") && !line.contains("[stack]"));
        assert_eq!(elsewhere, None, "{process:?}");
    }
}

/// The writable memory of a process that contains these bytes, as /proc/PID/maps names it.
fn mappings_with(pid: i32, bytes: &[u8]) -> io::Result<Vec<String>> {
    let memory = fs::File::open(format!("/proc/{pid}/mem"))?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let contains = |line: &&str| {
        let (range, _) = line.split_once(" rw-")?;
        let (from, to) = range.split_once('-')?;
        let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16));
        let (from, to) = (from.ok()?, to.ok()?);
        // The index and the rings are larger, and have files of their own.
        let mut text = vec![0; usize::try_from(to - from).ok().filter(|len| *len <= 64 << 20)?];
        memory.read_exact_at(&mut text, from).ok()?;
        memchr::memmem::find(&text, bytes)
    };
    Ok(maps.lines().filter(|line| contains(line).is_some()).map(str::to_owned).collect())
}

/// The private memory of the workers, once it changes no more.
fn settled_bytes(ktrix: &Ktrix<'_>) -> u64 {
    let mut last = 0_u64;
    until_true("the memory to settle", || {
        std::thread::sleep(Duration::from_millis(200));
        let now: u64 = ktrix.workers().iter().map(|it| it.private_bytes()).sum();
        std::mem::replace(&mut last, now).abs_diff(now) < 64 << 10
    });
    last
}

#[test]
fn an_idle_tls_connection_costs_less_than_12_kibibytes() {
    alone();
    let origin = Origin::answering(|_| Response::ok("hello").cache("max-age=600"));
    let plan = Plan::new(&origin).with_tls().set("workers", "1");
    plan.put("timeouts", "{client-idle: 10m}");
    let ktrix = plan.start();
    ktrix.wait_hit("/small");
    let memory = || settled_bytes(&ktrix);
    let idle = |n: usize| -> Vec<Client> {
        let mut clients: Vec<_> = (0..n).map(|_| ktrix.client()).collect();
        clients.iter_mut().for_each(|client| drop(client.get("/small").expect_status(200)));
        clients
    };
    let _first = idle(50);
    let before = memory();
    let n = 1_000;
    let _clients = idle(n);
    let each = memory().saturating_sub(before) / n as u64;
    println!("{each} bytes for each idle connection with TLS");
    assert!(each < 12 << 10, "{each} bytes");
}

#[test]
fn readers_that_stall_in_a_hot_body_cost_one_sealed_piece_each() {
    alone();
    let body = pattern(1 << 20);
    let whole = body.clone();
    let origin = Origin::answering(move |_| Response::ok(whole.clone()).cache("max-age=600"));
    let plan = Plan::new(&origin).with_tls().set("workers", "1");
    plan.put("timeouts", "{client-send: 10m}");
    let ktrix = plan.start();
    for _ in 0..5 {
        ktrix.wait_hit("/body");
    }
    let before = settled_bytes(&ktrix);
    let n = 300;
    let mut clients: Vec<_> = (0..n).map(|_| ktrix.client().receive_buffer(64 << 10)).collect();
    clients.iter_mut().for_each(|client| client.send(&Ask::get("/body")));
    clients.iter().for_each(Client::wait_taken);
    let each = settled_bytes(&ktrix).saturating_sub(before) / n;
    println!("{each} bytes for each stalled reader");
    // A piece has 16 KiB, and an idle connection some 9; a second piece would not fit.
    assert!(each < 28 << 10, "{each} bytes");
    clients.truncate(20);
    clients.iter_mut().for_each(|client| drop(client.answer().expect_body(&body)));
}
