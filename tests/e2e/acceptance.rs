//! The acceptance test of the original: three lines of configuration, a page and a picture, each
//! requested twice, the second time with the origin stopped.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::panic;
use std::path::Path;
use std::process::Command;
use std::thread;

use md5::{Digest, Md5};
use nix::sched::{CloneFlags, unshare};

use crate::support::socket::Address;
use crate::support::{Client, Origin, Plan, Response, pattern};

const PAGE: &str = "<!doctype html><title>ktrix</title><p>A page.</p>\n";

#[test]
fn three_lines_are_a_whole_configuration() {
    in_an_own_network(|is_own| {
        let picture = pattern(70_000);
        let port = if is_own { 80 } else { 0 };
        let body = picture.clone();
        let mut origin = Origin::listening(("127.0.0.1", port), move |request| {
            match &*request.target {
                "/page.html" => Response::ok(PAGE).field("Content-Type", "text/html"),
                _ => Response::ok(&body).field("Content-Type", "image/png"),
            }
            .cache("public, max-age=3600")
        });

        let mut plan = Plan::new(&origin);
        let dir = plan.dir().join("hnie");
        fs::create_dir(&dir).unwrap();
        let place = dir.display();
        let mut text = format!("log : {place}/log\ncache : {place}/cache/\nupstream : 127.0.0.1");
        if is_own {
            plan.address = Address::Ip(SocketAddr::from(([127, 0, 0, 1], 8080)));
        } else {
            let (Address::Ip(listen), upstream) = (&plan.address, origin.ip().port()) else {
                unreachable!("a plan listens on an IP address")
            };
            text.push_str(&format!(":{upstream}\nlisten : {listen}"));
        }
        text.push('\n');
        let config = plan.dir().join("hnie.yaml");
        fs::write(&config, text).unwrap();
        let ktrix = plan.start_with(&[&config.display().to_string()]);

        ktrix.get("/page.html").expect_status(200).expect_miss().expect_body(PAGE);
        ktrix.get("/picture.png").expect_status(200).expect_miss().expect_body(&picture);
        ktrix.wait_hit("/page.html");
        ktrix.wait_hit("/picture.png");
        origin.expect_requests(2);
        origin.stop();
        let page = ktrix.get("/page.html").expect_status(200).expect_hit();
        page.expect_body(PAGE).expect_field("content-type", "text/html");
        let again = ktrix.get("/picture.png").expect_status(200).expect_hit();
        again.expect_body(&picture).expect_field("content-type", "image/png");

        expect_named_by_md5(&dir.join("cache"), &["/page.html", "/picture.png"]);
        if is_own {
            let six = SocketAddr::from((IpAddr::V6(Ipv6Addr::LOCALHOST), 8080));
            let host = "127.0.0.1:8080";
            Client::connect(&six.into()).host(host).get("/page.html").expect_hit();
        }
        drop(ktrix);
        let log = fs::read_to_string(dir.join("log")).unwrap();
        assert!(log.lines().count() >= 6, "{log}");
        assert!(log.lines().all(|line| line.contains("HTTP/1.1\" 200 ")), "{log}");
    });
}

/// One file per object, `ab/cdef…` for the MD5 `abcdef…` of the key in the file.
fn expect_named_by_md5(cache: &Path, targets: &[&str]) {
    let mut found = Vec::new();
    for shard in fs::read_dir(cache).unwrap().flatten() {
        let name = shard.file_name().into_string().unwrap();
        if name.len() != 2 || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
            continue;
        }
        for file in fs::read_dir(shard.path()).unwrap().flatten() {
            let hex = name.clone() + &file.file_name().into_string().unwrap();
            assert_eq!(hex.len(), 32, "{hex}");
            let bytes = fs::read(file.path()).unwrap();
            let key = bytes.windows(7).position(|w| w == b"http://").expect("a key in the file");
            let start = key.saturating_sub(4);
            let starts = [start, key];
            let text = starts.iter().find_map(|&start| {
                (1..200).filter_map(|n| bytes.get(start..start + n)).find(|t| digest(t) == hex)
            });
            let text = text.unwrap_or_else(|| panic!("{hex} is not the MD5 of the file's key"));
            found.push(String::from_utf8(text.to_vec()).unwrap());
        }
    }
    assert_eq!(found.len(), targets.len(), "objects: {found:?}");
    for target in targets {
        assert!(found.iter().any(|key| key.ends_with(target)), "{target} in {found:?}");
    }
}

fn digest(text: &[u8]) -> String {
    Md5::digest(text).iter().map(|b| format!("{b:02x}")).collect()
}

/// Runs in a fresh network namespace, where ports 80 and 8080 are free, if the system allows it.
fn in_an_own_network(run: impl FnOnce(bool) + Send + 'static) {
    // A network namespace belongs to a thread, and to the sockets and processes that it makes.
    let thread = thread::spawn(move || {
        let is_own = unshare(CloneFlags::CLONE_NEWNET).is_ok()
            && Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status()
                .is_ok_and(|s| s.success());
        if !is_own {
            eprintln!("no network of our own here (not root?): other ports than 80 and 8080");
        }
        run(is_own);
    });
    if let Err(panic) = thread.join() {
        panic::resume_unwind(panic);
    }
}
