//! Certificates of clients: who is let in, what origins are told, and that no answer and no session
//! crosses from one policy or client to another.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use rcgen::{CustomExtension, DnType, date_time_ymd};
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, SignatureScheme};

use crate::support::ktrix::{CERTIFICATE, text};
use crate::support::socket::Address;
use crate::support::tls::{Authority, Identity, authority, base64};
use crate::support::{Answer, Ask, Client, Origin, Plan, Response, until_true};

/// A plan with sites of three policies, by the certificates of an authority for clients: `off.example`,
/// `may.example` and `must.example`, and a unix socket in the clear.
struct Sites {
    plan: Plan,
    clients: Authority,
}

impl Sites {
    /// `routes` are those of the sites with certificates.
    fn new(origin: &Origin, routes: &str) -> Self {
        let (plan, clients) = (Plan::new(origin).with_tls(), Authority::new());
        fs::write(plan.dir().join("clients.pem"), clients.pem()).unwrap();
        fs::write(plan.dir().join("crl.pem"), clients.crl(&[13], 2100)).unwrap();
        let names = ["off.example", "may.example", "must.example"];
        authority().write(plan.dir(), "names", &names);
        let own = format!("[{CERTIFICATE}, {{certificate: $DIR/names.pem, key: $DIR/names.key}}]");
        let ip = ip(&plan);
        plan.put(
            "listen",
            &format!("[\"unix:$DIR/sock\", {{address: \"{ip}\", tls: {{certificates: {own}}}}}]"),
        );
        let site = |host: &str, auth: &str| {
            let files = "client-ca: $DIR/clients.pem, client-crl: $DIR/crl.pem";
            format!("{{hosts: {host}, tls: {{{auth}{files}}}, routes: {routes}}}")
        };
        let (may, must) =
            (site("may.example", "client-auth: optional, "), site("must.example", ""));
        plan.put("sites", &format!("[{may}, {must}, {{routes: {routes}}}]"));
        Self { plan, clients }
    }

    /// What a client of this TLS gets for a request.
    fn ask(&self, config: ClientConfig, name: &str, ask: &Ask) -> Option<Answer> {
        // With TLS 1.3 a client learns only after its handshake that it was refused.
        Client::try_secured(&self.plan.address, config, name).ok()?.try_ask(ask).ok()
    }

    fn is_served(&self, config: ClientConfig, name: &str) -> bool {
        let answer = self.ask(config, name, &Ask::get("/x").field("Host", name));
        answer.is_some_and(|answer| answer.status == 200)
    }

    fn client_of(&self, identity: &Identity) -> ClientConfig {
        authority().client_as(identity, rustls::ALL_VERSIONS)
    }

    fn in_the_clear(&self) -> Client {
        Client::connect(&Address::Unix(self.plan.dir().join("sock")))
    }
}

fn ip(plan: &Plan) -> SocketAddr {
    let Address::Ip(ip) = plan.address else { unreachable!() };
    ip
}

const PLAIN: &str = "[{path: /, upstream: app}]";

#[test]
fn a_client_is_let_in_by_the_policy_of_the_name_that_it_asks_for() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let sites = Sites::new(&origin, PLAIN);
    let ktrix = sites.plan.start();
    let good = sites.clients.identity("good", 1);
    let expired = sites.clients.identity_with("expired", 2, |params| {
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    let revoked = sites.clients.identity("revoked", 13);
    let foreign = Authority::new().identity("foreign", 1);
    for version in [&TLS12, &TLS13] {
        let none = || authority().client_of(&[version]);
        assert!(sites.is_served(none(), "off.example"));
        assert!(sites.is_served(none(), "may.example"));
        assert!(!sites.is_served(none(), "must.example"));
        for (identity, is_good) in
            [(&good, true), (&expired, false), (&revoked, false), (&foreign, false)]
        {
            let own = || authority().client_as(identity, &[version]);
            assert!(sites.is_served(own(), "off.example"), "it is not asked for");
            assert_eq!(sites.is_served(own(), "may.example"), is_good);
            assert_eq!(sites.is_served(own(), "must.example"), is_good);
        }
    }
    let told = ktrix.wait_error("refused the certificate of the client 127.0.0.1:");
    assert!(told.contains("Revoked") || told.contains("expired"), "{told}");
    until_true("the name of the client in the access log", || {
        let subject = r#""tls_client_subject":"CN=good","tls_client_serial":"01""#;
        sites.plan.access_lines().iter().any(|line| line.contains(subject))
    });
    let lines = sites.plan.access_lines();
    let off = lines.iter().filter(|line| line.contains("\"host\":\"off.example\""));
    assert!(off.into_iter().all(|line| !line.contains("tls_client")));
}

#[test]
fn a_host_with_another_policy_is_misdirected_hot_and_cold() {
    let origin = Origin::answering(|_| Response::ok("x").cache("max-age=600"));
    let sites = Sites::new(&origin, PLAIN);
    let ktrix = sites.plan.start();
    let config = sites.client_of(&sites.clients.identity("good", 1));
    let ask = |host: &str| Ask::get("/x").field("Host", host);
    let names = ["off.example", "may.example", "must.example"];
    for _ in 0..3 {
        // Cold at first, then answered from memory by the same bytes.
        for sni in names {
            let mut client = Client::secured(&sites.plan.address, config.clone(), sni);
            for host in names {
                let expected = if host == sni { 200 } else { 421 };
                for _ in 0..3 {
                    client.ask(&ask(host)).expect_status(expected);
                }
            }
            client.ask(&ask("localhost")).expect_status(if sni == "off.example" {
                200
            } else {
                421
            });
        }
        let mut clear = sites.in_the_clear();
        for (host, expected) in [("off.example", 200), ("may.example", 200), ("must.example", 421)]
        {
            for _ in 0..3 {
                clear.ask(&ask(host)).expect_status(expected);
            }
            clear.ask(&ask(host).field("X-Forwarded-Proto", "https")).expect_status(expected);
        }
    }
    // Over HTTP/2, and no route of the site.
    let out = Command::new("curl")
        .args(["-s", "-k", "--http2", "-w", "%{http_version} %{http_code} ", "-o", "/dev/null"])
        .args(["--connect-to", &format!("::{}", ip(&sites.plan))])
        .args(["-H", "Host: must.example", "https://off.example/x"])
        .args([
            "--next", "-s", "-k", "--http2", "-w", "%{http_version} %{http_code}", "-o",
            "/dev/null",
        ])
        .args(["--connect-to", &format!("::{}", ip(&sites.plan)), "https://off.example/x"])
        .stdin(Stdio::null())
        .output();
    if let Ok(out) = out {
        assert_eq!(text(&out).trim(), "2 421 2 200");
    }
    let sock = sites.plan.dir().join("sock").display().to_string();
    for (host, expected) in [("must.example", "2 421"), ("may.example", "2 200")] {
        let out = Command::new("curl")
            .args(["-s", "--http2-prior-knowledge", "--unix-socket", &sock, "-o", "/dev/null"])
            .args(["-w", "%{http_version} %{http_code}", &format!("http://{host}/x")])
            .stdin(Stdio::null())
            .output();
        if let Ok(out) = out {
            assert_eq!(text(&out).trim(), expected);
        }
    }
    until_true("the reason", || {
        sites
            .plan
            .access_lines()
            .iter()
            .any(|it| it.contains(r#""status":421"#) && it.contains("\"misdirected\""))
    });
    drop(ktrix);
}

/// The policy of a listener decides for hosts without one, and is a part of what a connection may ask.
#[test]
fn a_hot_answer_of_one_listener_is_not_one_of_another_policy() {
    let origin = Origin::answering(|_| Response::ok("x").cache("max-age=600"));
    let sites = Sites::new(&origin, PLAIN);
    let plan = &sites.plan;
    let other = Plan::new(&origin);
    let own = format!("[{CERTIFICATE}, {{certificate: $DIR/names.pem, key: $DIR/names.key}}]");
    let listen = |address: SocketAddr, more: &str| {
        format!("{{address: \"{address}\", tls: {{certificates: {own}{more}}}}}")
    };
    let open = listen(ip(plan), "");
    let strict = listen(ip(&other), ", client-ca: $DIR/clients.pem");
    plan.put("listen", &format!("[{open}, {strict}]"));
    plan.put("workers", "1");
    plan.put(
        "sites",
        "[{hosts: off.example, tls: {client-auth: off}, upstream: app}, {hosts: may.example, upstream: app}]",
    );
    let _ktrix = plan.start();
    let ask = Ask::get("/x").field("Host", "may.example");
    let config = authority().client();
    for _ in 0..4 {
        let mut client = Client::secured(&plan.address, config.clone(), "off.example");
        client.ask(&ask).expect_status(200);
        let mut client = Client::secured(&other.address, config.clone(), "off.example");
        client.ask(&ask).expect_status(421);
        client.ask(&Ask::get("/x").field("Host", "off.example")).expect_status(200);
    }
}

#[test]
fn a_stream_of_tcp_has_the_policy_of_its_listener_alone() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let sites = Sites::new(&origin, PLAIN);
    let plan = &sites.plan;
    let other = Plan::new(&origin);
    let own = format!("[{CERTIFICATE}, {{certificate: $DIR/names.pem, key: $DIR/names.key}}]");
    let tls = format!("{{certificates: {own}, client-ca: $DIR/clients.pem}}");
    let tcp = format!("{{address: \"{}\", mode: tcp, upstream: app, tls: {tls}}}", ip(plan));
    plan.put("listen", &format!("[{tcp}, \"{}\"]", ip(&other)));
    plan.put("sites", "[{hosts: off.example, tls: {client-auth: off}, upstream: app}]");
    let _ktrix = plan.start();
    assert!(!sites.is_served(authority().client(), "off.example"));
    let good = sites.client_of(&sites.clients.identity("good", 1));
    assert!(sites.is_served(good, "off.example"));
}

#[test]
fn no_session_crosses_policies_and_none_outlives_a_change_of_a_list() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let sites = Sites::new(&origin, PLAIN);
    let plan = &sites.plan;
    let open = Plan::new(&origin);
    let (strict, crl) = (ip(plan), plan.dir().join("crl.pem"));
    let listen = |address: SocketAddr, more: &str| {
        format!("{{address: \"{address}\", tls: {{certificates: {CERTIFICATE}{more}}}}}")
    };
    let (open_at, strict_at) = (
        listen(ip(&open), ""),
        listen(strict, ", client-ca: $DIR/clients.pem, client-crl: $DIR/crl.pem"),
    );
    plan.put("listen", &format!("[{open_at}, {strict_at}]"));
    plan.put("sites", "[{upstream: app}]");
    let ktrix = plan.start();
    let identity = sites.clients.identity("good", 1);
    let connect = |address: &Address, config: &ClientConfig| {
        let mut client = Client::try_secured(address, config.clone(), "localhost").ok()?;
        let answer = client.try_ask(&Ask::get("/x")).ok()?;
        assert_eq!(answer.status, 200);
        client.tls().handshake_kind()
    };
    let resumed = Some(HandshakeKind::Resumed);
    let mut clients = Vec::new();
    for version in [&TLS12, &TLS13] {
        // A session that began without a certificate.
        let config = authority().client_of(&[version]);
        for _ in 0..3 {
            assert!(connect(&open.address, &config).is_some());
            assert_eq!(connect(&open.address, &config), resumed);
            assert_eq!(connect(&plan.address, &config), None, "{version:?}");
        }
        let config = authority().client_as(&identity, &[version]);
        assert!(connect(&open.address, &config).is_some());
        let kind = connect(&plan.address, &config);
        assert!(kind.is_some() && kind != resumed, "{version:?}");
        assert_eq!(connect(&plan.address, &config), resumed, "{version:?}");
        clients.push(config);
    }
    // A reload that changes nothing.
    ktrix.signal(Signal::SIGHUP);
    ktrix.wait_error("configuration reloaded");
    ktrix.wait_children(3);
    for config in &clients {
        assert_eq!(connect(&plan.address, config), resumed);
    }
    // Another list, in which the client is not: it is verified again.
    fs::write(&crl, sites.clients.crl(&[13, 14], 2100)).unwrap();
    ktrix.wait_error("using new authorities or lists of revoked certificates");
    until_true("another list at every worker", || {
        (0..10).all(|_| {
            let kind = connect(&plan.address, &clients[0]);
            kind.is_some() && connect(&plan.address, &clients[0]) == resumed
        })
    });
    fs::write(&crl, sites.clients.crl(&[13, 1], 2100)).unwrap();
    until_true("the client is refused with its session", || {
        clients.iter().all(|config| (0..10).all(|_| connect(&plan.address, config).is_none()))
    });
}

/// The certificate of a client that renews it.
#[derive(Debug)]
struct Renewing {
    both: [Arc<dyn ResolvesClientCert>; 2],
    is_renewed: AtomicBool,
}

impl ResolvesClientCert for Renewing {
    fn resolve(&self, hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let at = usize::from(self.is_renewed.load(Ordering::Relaxed));
        self.both[at].resolve(hints, schemes)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[test]
fn a_client_whose_certificate_has_expired_gets_in_with_its_next_one_and_the_same_sessions() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let sites = Sites::new(&origin, PLAIN);
    let _ktrix = sites.plan.start();
    let connect = |config: &ClientConfig| {
        let name = "must.example";
        let mut client = Client::try_secured(&sites.plan.address, config.clone(), name).ok()?;
        let answer = client.try_ask(&Ask::get("/x").field("Host", name)).ok()?;
        assert_eq!(answer.status, 200);
        client.tls().handshake_kind()
    };
    let next = sites.client_of(&sites.clients.identity("next", 2)).client_auth_cert_resolver;
    for version in [&TLS12, &TLS13] {
        let begun = |seconds: u64| {
            let soon = SystemTime::now() + Duration::from_secs(seconds);
            let identity = sites.clients.identity_with("first", 1, |params| {
                params.not_after = soon.into();
            });
            let mut config = authority().client_as(&identity, &[version]);
            let both = [Arc::clone(&config.client_auth_cert_resolver), Arc::clone(&next)];
            let renewing = Arc::new(Renewing { both, is_renewed: AtomicBool::new(false) });
            config.client_auth_cert_resolver = renewing.clone();
            // On a slow machine it has expired already.
            connect(&config)?;
            (connect(&config)? == HandshakeKind::Resumed).then_some((config, renewing))
        };
        let (config, renewing) = [2, 8, 32, 128].into_iter().find_map(begun).unwrap();
        renewing.is_renewed.store(true, Ordering::Relaxed);
        until_true("a handshake with the next certificate", || {
            let kind = connect(&config);
            assert!(kind.is_some(), "{version:?}: the client is locked out");
            kind == Some(HandshakeKind::Full)
        });
        assert_eq!(connect(&config), Some(HandshakeKind::Resumed));
    }
}

#[test]
fn a_bad_list_keeps_the_old_one_and_an_expired_one_refuses() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let sites = Sites::new(&origin, PLAIN);
    let ktrix = sites.plan.start();
    let (good, other) = (sites.clients.identity("good", 1), sites.clients.identity("other", 2));
    let list = sites.plan.dir().join("crl.pem");
    let is_served =
        |identity: &Identity| sites.is_served(sites.client_of(identity), "must.example");
    let all = |identity: &Identity| (0..10).all(|_| is_served(identity));
    let none = |identity: &Identity| (0..10).all(|_| !is_served(identity));
    assert!(all(&good) && all(&other));
    for (bad, why) in [
        ("garbage", "crl.pem has no list of revoked certificates"),
        ("-----BEGIN X509 CRL-----\nAAAA\n", "crl.pem is no PEM file"),
    ] {
        fs::write(&list, bad).unwrap();
        let told = ktrix.wait_error(why);
        assert!(told.contains("; keeping the one in use"), "{told}");
        assert!(all(&good));
    }
    fs::write(&list, sites.clients.crl(&[2], 2100)).unwrap();
    until_true("the new list", || none(&other));
    assert!(all(&good));
    fs::write(&list, sites.clients.crl(&[2], 2021)).unwrap();
    until_true("the expired list", || none(&good));
    ktrix.wait_error("crl.pem expired on Fri, 01 Jan 2021: the clients of its issuer are refused");
    sites.plan.write_config();
    let out = sites.plan.run(&["--test", &sites.plan.config_path().display().to_string()]);
    let told = text(&out);
    assert!(told.contains("sites[0].tls.client-crl: ") && told.contains("(warning)"), "{told}");
    fs::write(&list, "").unwrap();
    let out = sites.plan.run(&["--test", &sites.plan.config_path().display().to_string()]);
    let told = text(&out);
    assert_eq!(out.status.code(), Some(1));
    assert!(told.contains("sites[0].tls.client-crl: "), "{told}");
}

#[test]
fn the_origin_is_told_of_the_certificate_and_no_client_can_forge_it() {
    let origin = Origin::answering(|request| {
        let fields = request.head.fields.iter().chain(&request.trailers.fields);
        let lines = fields.map(|(name, value)| format!("{}: {value}\n", name.to_lowercase()));
        Response::ok(lines.collect::<String>()).cache("max-age=600")
    });
    let told = "{path: /told, upstream: app, client-cert: on, request-fields: {set: {\
                X-SSL-Subject: \"{tls-client-subject}\", X-Issuer: \"{tls-client-issuer}\", \
                X-Serial: \"{tls-client-serial}\", X-From: \"{tls-client-not-before}\", \
                X-To: \"{tls-client-not-after}\", X-Sha256: \"{tls-client-sha256}\", \
                X-Sha1: \"{tls-client-sha1}\", X-Cert: \"{tls-client-cert}\", \
                X-Role: \"{tls-client-oid:1.2.3.4}\", X-None: \"{tls-client-oid:1.2.3.5}\"}}}";
    let sites = Sites::new(&origin, &format!("[{told}, {{path: /, upstream: app}}]"));
    let ktrix = sites.plan.start();
    let identity = sites.clients.identity_with("J\u{fc}rgen, \"x\"", 0xabcd, |params| {
        params.distinguished_name.push(DnType::OrganizationName, "Org");
        params.not_before = date_time_ymd(2026, 1, 2);
        params.not_after = date_time_ymd(2099, 3, 4);
        let der = b"\x0c\x05admin".to_vec();
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], der)];
    });
    let forged = |target: &str, host: &str| {
        let mut ask = Ask::post(target, "body").field("Host", host);
        for name in [
            "Client-Cert", "client_cert", "CLIENT-CERT", "Client_Cert-Chain", "X-SSL-Subject",
            "X_SSL_Subject", "x-ssl_subject", "X-Sha1", "x_sha1", "X-Role", "X-None",
        ] {
            ask = ask.field(name, "forged");
        }
        ask.field("Connection", "x-ssl-subject, client-cert").field("X-Other", "own")
    };
    let der = base64(&identity.certificate);
    let config = sites.client_of(&identity);
    for name in ["may.example", "must.example"] {
        let answer = sites.ask(config.clone(), name, &forged("/told", name)).unwrap();
        let got = answer.text();
        assert!(!got.contains("forged") && got.contains("x-other: own"), "{got}");
        for line in [
            r#"x-ssl-subject: O=Org,CN=J\C3\BCrgen\, \"x\""#,
            "x-serial: ABCD",
            "x-from: 2026-01-02T00:00:00Z",
            "x-to: 2099-03-04T00:00:00Z",
            "x-role: admin",
            &format!("x-cert: :{der}:"),
            &format!("client-cert: :{der}:"),
        ] {
            assert!(got.lines().any(|got| got == line), "{line} in {got}");
        }
        assert!(!got.contains("x-none") && !got.contains("client-cert-chain"), "{got}");
        assert!(got.contains("x-issuer: CN=test authority ") && got.contains("x-sha256: "));
        // A route of the same origin that tells nothing.
        let got = sites.ask(config.clone(), name, &forged("/else", name)).unwrap().text();
        assert!(!got.contains("forged") && got.contains("x-other: own"), "{got}");
        assert!(!got.contains("admin") && !got.contains("client-cert"), "{got}");
    }
    // Clients without a certificate, with TLS and in the clear; behind a body; over HTTP/2.
    let mut clear = sites.in_the_clear();
    for host in ["off.example", "may.example"] {
        for target in ["/told", "/else"] {
            let none = sites.ask(authority().client(), host, &forged(target, host)).unwrap();
            let chunked = forged(target, host).chunked();
            for answer in [none, clear.ask(&forged(target, host)), clear.ask(&chunked)] {
                let got = answer.expect_status(200).text();
                assert!(!got.contains("forged") && !got.contains("client-cert"), "{got}");
                assert!(!got.contains("x-serial") && got.contains("x-other: own"), "{got}");
            }
        }
    }
    clear.write(
        b"POST /told HTTP/1.1\r\nHost: may.example\r\nTransfer-Encoding: chunked\r\n\r\n\
          1\r\nx\r\n0\r\nX-SSL-Subject: forged\r\nx_sha1: forged\r\nClient_Cert: forged\r\nX-Sum: 1\r\n\r\n",
    );
    let got = clear.answer().expect_status(200).text();
    assert!(!got.contains("forged") && got.contains("x-sum: 1"), "{got}");
    let out = Command::new("curl")
        .args(["-s", "-k", "--http2", "--connect-to", &format!("::{}", ip(&sites.plan))])
        .args(["-H", "X_SSL_Subject: forged", "-H", "client-cert: :forged:"])
        .args(["-H", "x-role: forged", "-H", "x-other: own", "https://off.example/told"])
        .stdin(Stdio::null())
        .output();
    if let Ok(out) = out {
        let got = text(&out);
        assert!(!got.contains("forged") && got.contains("x-other: own"), "{got}");
    }
    drop(ktrix);
}

#[test]
fn an_answer_for_one_client_is_never_that_of_another() {
    let origin = Origin::answering(|request| {
        let who = request.field("x-who").unwrap_or_default();
        let cert = request.field("client-cert").unwrap_or_default();
        Response::ok(format!("for {who}{cert}")).cache("public, max-age=600")
    });
    let who = "request-fields: {set: {X-Who: \"{tls-client-subject}\"}}";
    let routes = format!(
        "[{{path: /own, upstream: app, {who}}}, {{path: /cert, upstream: app, client-cert: on}}, \
         {{path: /each, upstream: app, {who}, cache: {{key: {{headers: [X-Who]}}}}}}, \
         {{path: /seen, upstream: app, response-fields: {{set: {{X-You: \"{{tls-client-subject}}\"}}}}}}, \
         {{path: /all, upstream: app}}]"
    );
    let sites = Sites::new(&origin, &routes);
    let ktrix = sites.plan.start();
    let identities = [sites.clients.identity("anne", 1), sites.clients.identity("bert", 2)];
    let configs = identities.each_ref().map(|identity| sites.client_of(identity));
    for _ in 0..4 {
        for (name, (config, identity)) in
            ["anne", "bert"].into_iter().zip(configs.iter().zip(&identities))
        {
            let mut client = Client::secured(&sites.plan.address, config.clone(), "may.example")
                .host("may.example");
            for target in ["/own", "/each"] {
                client.get(target).expect_body(format!("for CN={name}"));
            }
            let head = client.head("/own");
            assert!(!head.is_hit(), "{}", head.cache_status());
            let der = base64(&identity.certificate);
            client.get("/cert").expect_body(format!("for :{der}:"));
            client.get("/all").expect_body("for ");
            client.get("/seen").expect_body("for ").expect_field("x-you", &format!("CN={name}"));
            let told = client.get("/own").cache_status();
            assert!(told.contains("client-identity"), "{told}");
        }
        // One that shows none, also in the clear.
        let mut none = Client::secured(&sites.plan.address, authority().client(), "may.example")
            .host("may.example");
        let mut clear = sites.in_the_clear().host("may.example");
        for client in [&mut none, &mut clear] {
            for target in ["/own", "/each", "/cert", "/all", "/seen"] {
                client.get(target).expect_body("for ").expect_no_field("x-you");
            }
        }
    }
    assert!(origin.count("/all") <= 2 && origin.count("/seen") <= 2 && origin.count("/each") <= 6);
    until_true("the reason in the access log", || {
        sites.plan.access_lines().iter().any(|line| line.contains("\"client-identity\""))
    });
    drop(ktrix);
}

#[test]
fn the_clients_of_others_show_their_certificates() {
    let origin =
        Origin::answering(|request| Response::ok(request.field("x-who").unwrap_or_default()));
    let who = "request-fields: {set: {X-Who: \"{tls-client-subject}\"}}";
    let sites = Sites::new(&origin, &format!("[{{path: /, upstream: app, {who}}}]"));
    let _ktrix = sites.plan.start();
    let dir = sites.plan.dir();
    sites.clients.identity("good", 1).write(dir, "good");
    sites.clients.identity("revoked", 13).write(dir, "revoked");
    Authority::new().identity("foreign", 1).write(dir, "foreign");
    let at = ip(&sites.plan).to_string();
    let run = |program: &str, args: &[&str], input: &str| {
        let file = dir.join("input");
        fs::write(&file, input).unwrap();
        let input = fs::File::open(file).unwrap();
        Command::new(program).args(args).current_dir(dir).stdin(input).output().ok()
    };
    let request = "GET / HTTP/1.0\r\nHost: must.example\r\n\r\n";
    for version in ["-tls1_2", "-tls1_3"] {
        for (own, expected) in [
            ("good", "CN=good"),
            ("revoked", "certificate revoked"),
            ("foreign", "unknown ca"),
            ("", "certificate required"),
        ] {
            let certificate = format!("{own}.pem");
            let mut args = vec![
                "s_client", "-connect", &at, "-servername", "must.example", "-ign_eof", version,
            ];
            if !own.is_empty() {
                args.extend(["-cert", &certificate, "-key", &certificate]);
            }
            let Some(out) = run("openssl", &args, request) else { return };
            let told = text(&out).to_lowercase();
            // TLS 1.2 has no alert of its own for a certificate that is missing.
            let is_it = told.contains(&expected.to_lowercase())
                || (own.is_empty() && version == "-tls1_2" && told.contains("alert"));
            assert!(is_it, "{version} {own}: {told}");
        }
    }
    let python = "import ssl,socket,sys\n\
        c=ssl.create_default_context()\n\
        c.check_hostname=False\n\
        c.verify_mode=ssl.CERT_NONE\n\
        c.load_cert_chain('good.pem')\n\
        h,p=sys.argv[1].rsplit(':',1)\n\
        s=c.wrap_socket(socket.create_connection((h,int(p))),server_hostname='must.example')\n\
        s.sendall(b'GET / HTTP/1.0\\r\\nHost: must.example\\r\\n\\r\\n')\n\
        d=b''\n\
        while True:\n\
        \x20 r=s.recv(4096)\n\
        \x20 if not r: break\n\
        \x20 d+=r\n\
        print(d.decode())\n";
    if let Some(out) = run("python3", &["-c", python, &at], "") {
        assert!(text(&out).contains("CN=good"), "{}", text(&out));
    }
    let to = format!("::{at}");
    for version in ["--http1.1", "--http2"] {
        let curl = [
            "-s", "-k", version, "--cert", "good.pem", "--connect-to", &to, "https://must.example/",
        ];
        if let Some(out) = run("curl", &curl, "") {
            assert_eq!(text(&out).trim(), "CN=good", "{version}");
        }
    }
}
