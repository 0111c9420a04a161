//! TLS to servers: who is trusted, what is kept, and what is never stored.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rcgen::date_time_ymd;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use crate::support::tls::Authority;
use crate::support::{Plan, alone, until_true};

type Stream = StreamOwned<ServerConnection, TcpStream>;

/// A server that speaks TLS, and what it has seen.
struct SecureOrigin {
    address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    n_connections: AtomicUsize,
    n_resumed: AtomicUsize,
    n_requests: AtomicUsize,
    /// The names that were asked for, and the protocols.
    names: Mutex<Vec<String>>,
    /// How many certificates the last client has shown.
    n_shown: AtomicUsize,
}

impl SecureOrigin {
    /// Serves with `NAME.pem` and `NAME.key` of `dir`; asks clients for a certificate of `clients`.
    fn start(dir: &Path, name: &str, clients: Option<&Authority>) -> Self {
        let chain = CertificateDer::pem_file_iter(dir.join(format!("{name}.pem"))).unwrap();
        let key = PrivateKeyDer::from_pem_file(dir.join(format!("{name}.key"))).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots
                    .add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap())
                    .unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let mut config =
            builder.with_single_cert(chain.map(Result::unwrap).collect(), key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Seen>::default();
        let shared = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
                let seen = Arc::clone(&shared);
                thread::spawn(move || serve(StreamOwned::new(tls, stream), &seen));
            }
        });
        Self { address, seen }
    }

    fn n_connections(&self) -> usize {
        self.seen.n_connections.load(Ordering::SeqCst)
    }

    fn n_requests(&self) -> usize {
        self.seen.n_requests.load(Ordering::SeqCst)
    }
}

/// Serves a connection to its end.
fn serve(mut stream: Stream, seen: &Seen) {
    stream.sock.set_nodelay(true).unwrap();
    while stream.conn.is_handshaking() {
        if stream.conn.complete_io(&mut stream.sock).is_err() {
            return;
        }
    }
    seen.n_connections.fetch_add(1, Ordering::SeqCst);
    let resumed = matches!(stream.conn.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
    seen.n_resumed.fetch_add(usize::from(resumed), Ordering::SeqCst);
    let protocol =
        String::from_utf8_lossy(stream.conn.alpn_protocol().unwrap_or_default()).into_owned();
    let name = stream.conn.server_name().unwrap_or("-");
    seen.names.lock().unwrap().push(format!("{name} {protocol}"));
    seen.n_shown.store(stream.conn.peer_certificates().map_or(0, <[_]>::len), Ordering::SeqCst);
    while let Some(head) = request(&mut stream) {
        seen.n_requests.fetch_add(1, Ordering::SeqCst);
        if !answer(&mut stream, &head) {
            return;
        }
    }
}

fn request(stream: &mut Stream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// Answers; `false` ends the connection.
fn answer(stream: &mut Stream, head: &str) -> bool {
    let target = head.split(' ').nth(1).unwrap_or_default();
    let cached = "Cache-Control: max-age=600, stale-if-error=600\r\n";
    match target {
        "/until-close" => {
            write!(stream, "HTTP/1.1 200 OK\r\n{cached}\r\nwhole").unwrap();
            stream.conn.send_close_notify();
            stream.flush().unwrap();
            false
        }
        "/cut" => {
            write!(stream, "HTTP/1.1 200 OK\r\n{cached}\r\nwhole").unwrap();
            stream.flush().unwrap();
            false
        }
        // Behind the answer come new keys, and for TLS 1.3 tickets came before.
        "/keys" => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nkeys").unwrap();
            stream.conn.refresh_traffic_keys().unwrap();
            stream.flush().unwrap();
            true
        }
        // More than was asked for, in the same record.
        "/more" => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmoreHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").unwrap();
            stream.flush().unwrap();
            true
        }
        "/stale" => {
            let cached = "Cache-Control: max-age=0, stale-if-error=600\r\nETag: \"1\"\r\n";
            write!(stream, "HTTP/1.1 200 OK\r\n{cached}Content-Length: 5\r\n\r\nstale").unwrap();
            stream.flush().unwrap();
            false
        }
        _ => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
            stream.flush().unwrap();
            true
        }
    }
}

/// A server for `app.example`, its authority, and their directory.
struct Verified {
    dir: TempDir,
    authority: Authority,
    origin: SecureOrigin,
}

impl Verified {
    /// Clients without a certificate of the authority are served if `is_open`.
    fn new(is_open: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        authority.write(dir.path(), "server", &["app.example", "localhost"]);
        std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        let clients = (!is_open).then_some(&authority);
        let origin = SecureOrigin::start(dir.path(), "server", clients);
        Self { dir, authority, origin }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// A plan whose upstream is the server, with these keys of `tls` too.
    fn plan(&self, tls: &str) -> Plan {
        self.plan_with(tls, "")
    }

    /// As [`Self::plan`], with these keys of the upstream.
    fn plan_with(&self, tls: &str, upstream: &str) -> Plan {
        let (address, ca) = (self.origin.address, self.path("ca.pem"));
        let tls = format!("{{name: app.example, ca: {ca}{tls}}}");
        Plan::to(&format!("{{servers: [\"{address}\"], tls: {tls}{upstream}}}"))
    }
}

#[test]
fn a_server_with_a_trusted_certificate_is_asked_by_its_name_and_kept() {
    let verified = Verified::new(true);
    let (origin, plan) = (&verified.origin, verified.plan(""));
    plan.put("workers", "1");
    let ktrix = plan.start();
    for _ in 0..5 {
        ktrix.get("/a").expect_status(200).expect_body("ok");
    }
    // New keys and tickets are no answer to a question.
    for _ in 0..3 {
        ktrix.get("/keys").expect_status(200).expect_body("keys");
    }
    ktrix.get("/a").expect_body("ok");
    assert_eq!(origin.n_connections(), 1);
    assert_eq!(*origin.seen.names.lock().unwrap(), ["app.example http/1.1"]);
    // A session is resumed by the next connection.
    ktrix.get("/until-close").expect_status(200).expect_body("whole");
    ktrix.get("/a").expect_body("ok");
    assert_eq!(origin.n_connections(), 2);
    assert_eq!(origin.seen.n_resumed.load(Ordering::SeqCst), 1);
}

#[test]
fn https_in_an_address_verifies_by_the_authorities_of_the_system() {
    let verified = Verified::new(true);
    let origin = &verified.origin;
    let plan = Plan::to(&format!("{{servers: [\"https://localhost:{}\"]}}", origin.address.port()));
    let ktrix = plan.start_after(&format!("export SSL_CERT_FILE={}", verified.path("ca.pem")));
    ktrix.get("/a").expect_status(200).expect_body("ok");
    assert_eq!(*origin.seen.names.lock().unwrap(), ["localhost http/1.1"]);
}

#[test]
fn a_server_that_cannot_be_verified_gets_no_request() {
    let Verified { dir, authority, .. } = Verified::new(true);
    authority.write_with(dir.path(), "old", &["app.example"], |params| {
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    std::fs::write(dir.path().join("other.pem"), Authority::new().pem()).unwrap();
    for (certificate, name, ca, word) in [
        ("server", "other.example", "ca", "certificate-name"),
        ("server", "app.example", "other", "certificate-untrusted"),
        ("old", "app.example", "ca", "certificate-expired"),
    ] {
        let origin = SecureOrigin::start(dir.path(), certificate, None);
        let ca = dir.path().join(format!("{ca}.pem"));
        let tls = format!("{{name: {name}, ca: {}}}", ca.display());
        let plan = Plan::to(&format!("{{servers: [\"{}\"], tls: {tls}}}", origin.address));
        let ktrix = plan.start();
        let answer = ktrix.get("/a").expect_status(502);
        let status = answer.field("cache-status").unwrap_or_default().to_owned();
        assert!(status.contains(&format!("detail={word}")), "{status}");
        ktrix.wait_error(word);
        let line = ktrix.wait_access_lines(1).remove(0);
        assert!(line.contains(word), "{line}");
        assert_eq!(origin.n_requests(), 0, "{word}");
    }
    // An operator must say so to leave out verification.
    let origin = SecureOrigin::start(dir.path(), "old", None);
    let plan = Plan::to(&format!("{{servers: [\"{}\"], tls: {{verify: off}}}}", origin.address));
    plan.start().get("/a").expect_status(200).expect_body("ok");
}

#[test]
fn a_long_chain_of_a_server_is_read_and_a_bad_one_keeps_its_reason() {
    let Verified { dir, authority, .. } = Verified::new(true);
    std::fs::write(dir.path().join("other.pem"), Authority::new().pem()).unwrap();
    // Certificates that lead nowhere; 16 KiB and more of them.
    let path = |name: &str| dir.path().join(name);
    let mut chain = std::fs::read_to_string(path("server.pem")).unwrap();
    for n in 0..50 {
        authority.write(dir.path(), "filler", &[&format!("{n}.{}.example", "filler".repeat(9))]);
        chain.push_str(&std::fs::read_to_string(path("filler.pem")).unwrap());
    }
    std::fs::write(path("server.pem"), chain).unwrap();
    let origin = SecureOrigin::start(dir.path(), "server", None);
    for (ca, word) in [("ca", None), ("other", Some("certificate-untrusted"))] {
        let tls = format!("{{name: app.example, ca: {}}}", path(&format!("{ca}.pem")).display());
        let plan = Plan::to(&format!("{{servers: [\"{}\"], tls: {tls}}}", origin.address));
        let ktrix = plan.start();
        match word {
            None => drop(ktrix.get("/a").expect_status(200).expect_body("ok")),
            Some(word) => {
                ktrix.get("/a").expect_status(502);
                ktrix.wait_error(word);
            }
        }
    }
}

#[test]
fn a_server_that_lost_its_certificate_is_replaced_by_another_or_by_a_stored_response() {
    let Verified { dir, authority, origin: good } = Verified::new(true);
    authority.write(dir.path(), "wrong", &["wrong.example"]);
    let bad = SecureOrigin::start(dir.path(), "wrong", None);
    let ca = dir.path().join("ca.pem");
    let tls = format!("{{name: app.example, ca: {}}}", ca.display());
    let upstream = |servers: &str| format!("{{app: {{servers: [{servers}], tls: {tls}}}}}");
    let plan =
        Plan::to(&format!("{{servers: [\"{}\", \"{}\"], tls: {tls}}}", bad.address, good.address));
    let ktrix = plan.start();
    for _ in 0..6 {
        ktrix.get("/a").expect_status(200).expect_body("ok");
    }
    ktrix.get("/stale").expect_status(200).expect_body("stale");
    plan.put("upstreams", &upstream(&format!("\"{}\"", bad.address)));
    plan.write_config();
    ktrix.signal(nix::sys::signal::Signal::SIGHUP);
    until_true("the new configuration", || {
        ktrix.get("/a").status == 502 && ktrix.get("/a").status == 502
    });
    let answer = ktrix.get("/stale").expect_status(200).expect_body("stale");
    let status = answer.field("cache-status").unwrap_or_default().to_owned();
    assert!(status.contains("certificate-name"), "{status}");
    assert_eq!(bad.n_requests(), 0);
}

#[test]
fn a_certificate_is_shown_to_a_server_that_asks_for_one() {
    let verified = Verified::new(false);
    let origin = &verified.origin;
    verified.authority.write(verified.dir.path(), "own", &[]);
    let without = verified.plan("");
    let ktrix = without.start();
    ktrix.get("/a").expect_status(502);
    assert_eq!(origin.n_requests(), 0);
    let (certificate, key) = (verified.path("own.pem"), verified.path("own.key"));
    let with = verified.plan(&format!(", certificate: {certificate}, key: {key}"));
    let ktrix = with.start();
    ktrix.get("/a").expect_status(200).expect_body("ok");
    assert_eq!(origin.seen.n_shown.load(Ordering::SeqCst), 1);
}

#[test]
fn a_body_that_ends_without_close_notify_is_not_stored() {
    let verified = Verified::new(true);
    let (origin, plan) = (&verified.origin, verified.plan(""));
    let ktrix = plan.start();
    ktrix.get("/until-close").expect_status(200).expect_body("whole");
    ktrix.wait_hit("/until-close").expect_body("whole");
    for _ in 0..2 {
        let before = origin.n_requests();
        let mut client = ktrix.client();
        client.send(&crate::support::Ask::get("/cut"));
        // Before the head has gone out, there is an answer that says so.
        let is_cut = client.try_answer().map_or(true, |answer| answer.status == 502);
        assert!(is_cut, "a client sees that the body was cut");
        assert!(origin.n_requests() > before, "nothing was stored");
    }
}

#[test]
fn bytes_behind_an_answer_are_the_answer_to_nothing() {
    let verified = Verified::new(true);
    let plan = verified.plan("");
    let ktrix = plan.start();
    for _ in 0..4 {
        ktrix.get("/more").expect_status(200).expect_body("more");
        ktrix.get("/a").expect_status(200).expect_body("ok");
    }
}

#[test]
fn checks_speak_tls_too_and_new_authorities_are_taken_up() {
    alone();
    let verified = Verified::new(true);
    let origin = &verified.origin;
    let check = ", check: {path: /health, expect: ok, interval: 100ms, fails: 2, passes: 1}";
    let plan = verified.plan_with("", check);
    let ktrix = plan.start();
    until_true("checks that pass", || origin.n_requests() >= 3);
    ktrix.get("/a").expect_status(200);
    std::fs::write(verified.path("ca.pem"), Authority::new().pem()).unwrap();
    ktrix.wait_error("using new authorities or lists of revoked certificates");
    ktrix.wait_error("check failed");
    // Kept connections are used until they end.
    ktrix.get("/until-close");
    until_true("the server is down", || ktrix.get("/a").status == 503);
    std::fs::write(verified.path("ca.pem"), "no certificate").unwrap();
    let told = ktrix.wait_error("has no certificate");
    assert!(told.contains("upstreams.app.tls.ca: "), "{told}");
    std::fs::write(verified.path("ca.pem"), verified.authority.pem()).unwrap();
    until_true("the server is up", || ktrix.get("/a").status == 200);
}

#[test]
fn wrong_tls_of_an_upstream_is_refused_with_its_place() {
    for (upstream, message) in [
        (
            "{servers: [\"https://a\", \"b:80\"]}",
            "is without https://, but another server of this upstream has it",
        ),
        ("{servers: [\"http://a\"], tls: on}", "begins with http://, but tls is on"),
        ("{servers: [\"https://a\"], tls: off}", "begins with https://, but tls is off"),
        (
            "{servers: [\"unix:/run/a.sock\"], tls: on}",
            "needs a name to verify unix:/run/a.sock by",
        ),
        ("{servers: [a], tls: {ca: /nowhere/ca.pem}}", "upstreams.app.tls.ca: /nowhere/ca.pem"),
        ("{servers: [a], tls: {ca: /x, verify: off}}", "has no effect, since verify is off"),
        ("{servers: [a], tls: {name: \"a b\"}}", "is neither a host name nor an IP address"),
        ("{servers: [a], tls: {key: /x}}", "certificate"),
    ] {
        let plan = Plan::to(upstream);
        plan.write_config();
        let output = plan.run(&["--test", plan.config_path().to_str().unwrap()]);
        let text = crate::support::ktrix::text(&output);
        assert!(!output.status.success() && text.contains(message), "{upstream}: {text}");
    }
}
