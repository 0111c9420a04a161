//! Certificates by ACME: the proofs of challenges, and the hooks of ACME clients.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::ktrix::{CERTIFICATE, text};
use crate::support::socket::Address;
use crate::support::tls::{Authority, authority};
use crate::support::{Ask, Client, Origin, Plan, Response, until_true};

const CHALLENGE: &str = "/.well-known/acme-challenge/";

#[test]
fn a_proof_is_answered_before_redirects_and_routes_and_is_never_stored() {
    let origin = Origin::answering(|_| Response::ok("of the origin").cache("max-age=600"));
    let plan = Plan::new(&origin).with_tls().set("acme", "$DIR/webroot");
    let Address::Ip(secured) = plan.address else { unreachable!() };
    let tls = format!("{{address: \"{secured}\", tls: {{certificates: {CERTIFICATE}}}}}");
    plan.put("listen", &format!("[\"unix:$DIR/sock\", {tls}]"));
    let site = "{hosts: a.example, redirect: {to: https}, upstream: app}";
    plan.put("sites", &format!("[{site}, {{hosts: b.example, upstream: app}}]"));
    let folder = plan.dir().join("webroot/.well-known/acme-challenge");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("token-1_A"), "token-1_A.digest").unwrap();
    fs::write(plan.dir().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink("../../../secret", folder.join("out")).unwrap();
    fs::create_dir(folder.join("folder")).unwrap();
    fs::write(folder.join("long"), "x".repeat(2_000)).unwrap();
    let ktrix = plan.start();
    let clear = Address::Unix(plan.dir().join("sock"));
    let get = |host: &str, name: &str| Ask::get(&format!("{CHALLENGE}{name}")).field("Host", host);
    for host in ["a.example", "b.example", "unknown.example"] {
        for mut client in [Client::connect(&clear), ktrix.client()] {
            let answer = client.ask(&get(host, "token-1_A")).expect_status(200);
            answer.expect_field("cache-control", "no-store").expect_body("token-1_A.digest");
            for name in ["other", "out", "folder", "long"] {
                client.ask(&get(host, name)).expect_status(404);
            }
        }
    }
    let mut client = Client::connect(&clear);
    let head = Ask::new("HEAD", &format!("{CHALLENGE}token-1_A")).field("Host", "b.example");
    client.ask(&head).expect_status(200).expect_field("content-length", "16");
    fs::write(folder.join("token-1_A"), "changed").unwrap();
    client.ask(&get("b.example", "token-1_A")).expect_body("changed");
    origin.expect_requests(0);
    for (name, status) in [("token-1_A", "200"), ("other", "404")] {
        let url = format!("http://a.example{CHALLENGE}{name}");
        let config = plan.config_path().display().to_string();
        let told = text(&plan.run(&["explain", "-c", &config, &url]));
        assert!(told.contains(&folder.join(name).display().to_string()), "{told}");
        assert!(told.contains(status), "{told}");
    }
    // Whatever is no token takes its usual way.
    client.ask(&get("b.example", "../../../secret")).expect_body("of the origin");
    client.ask(&get("a.example", "a.b")).expect_status(301);
    client
        .ask(&Ask::post(&format!("{CHALLENGE}x"), "").field("Host", "b.example"))
        .expect_status(200);
    let told = ktrix.wait_error("for an ACME challenge");
    assert!(told.contains("acme-challenge/"), "{told}");
}

#[test]
fn the_hooks_of_certbot_and_lego_end_in_a_new_certificate() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin).with_tls();
    let Address::Ip(ip) = plan.address else { unreachable!() };
    let path = |name: &str| plan.dir().join(name);
    fs::create_dir_all(path("certificates")).unwrap();
    authority().write(&path("certificates"), "www.example", &["localhost"]);
    let own =
        "{certificate: $DIR/certificates/www.example.pem, key: $DIR/certificates/www.example.key}";
    plan.put("listen", &format!("[{{address: \"{ip}\", tls: {{certificates: {own}}}}}]"));
    let ktrix = plan.start();
    for hook in ["certbot-hook", "lego-hook"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/acme").join(hook);
        let is_valid = Command::new("sh").arg("-n").arg(&file).status().unwrap();
        assert!(is_valid.success(), "{hook}");
        // As certbot and lego call them: without anything else in the environment.
        let new = Authority::new();
        let lineage = path(&format!("{hook}/live/www.example"));
        fs::create_dir_all(&lineage).unwrap();
        new.write(&lineage, "new", &["localhost"]);
        fs::rename(lineage.join("new.key"), lineage.join("privkey.pem")).unwrap();
        fs::rename(lineage.join("new.pem"), lineage.join("fullchain.pem")).unwrap();
        let out = Command::new(&file)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("KTRIX_CERTIFICATES", path("certificates"))
            .env("RENEWED_LINEAGE", &lineage)
            .env("LEGO_CERT_DOMAIN", "www.example")
            .env("LEGO_CERT_PATH", lineage.join("fullchain.pem"))
            .env("LEGO_CERT_KEY_PATH", lineage.join("privkey.pem"))
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", text(&out));
        until_true("the new certificate", || {
            Client::try_secured(&plan.address, new.client(), "localhost").is_ok()
        });
        let left = fs::read_dir(path("certificates")).unwrap().count();
        assert_eq!(left, 2, "nothing else is left behind");
    }
    drop(ktrix);
}
