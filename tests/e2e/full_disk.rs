//! A cache directory on a full disk: every client still gets its answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Uid;

use crate::support::{Origin, Plan, Response, pattern, until, until_true};

/// A small tmpfs, unmounted at the end.
pub struct Small(pub PathBuf);

impl Small {
    pub fn mount(at: &Path, size: &str) -> Option<Self> {
        if !Uid::effective().is_root() {
            eprintln!("skipped: mounting a small file system takes root");
            return None;
        }
        fs::create_dir_all(at).unwrap();
        let options = format!("size={size},mode=755");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "ktrix-test"])
            .arg(at)
            .status();
        if !status.is_ok_and(|s| s.success()) {
            eprintln!("skipped: this system does not let us mount a tmpfs");
            return None;
        }
        Some(Self(at.into()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        until("the file system to be unmounted", crate::support::PATIENCE, || {
            let status = Command::new("umount").arg(&self.0).status();
            status.is_ok_and(|s| s.success()).then_some(())
        });
    }
}

fn origin() -> Origin {
    Origin::answering(|request| {
        let body = pattern(1 << 20);
        match request.target.starts_with("/chunked") {
            true => Response::chunked(&body.chunks(50_000).collect::<Vec<_>>()),
            false => Response::ok(body),
        }
        .cache("max-age=600")
    })
}

/// `free` is small: with its default the keeper would empty such a small disk again and again.
const CACHE: &str =
    "{path: $DIR/cache, size: 1 GiB, free: 64 KiB, objects: 1000, object: 64 MiB, memory: 1 MiB}";

fn complaints(plan: &Plan) -> Vec<String> {
    let log = plan.error_log();
    let is_about = |line: &&str| {
        let line = line.to_ascii_lowercase();
        line.contains("no space") || line.contains("full")
    };
    log.lines().filter(is_about).map(str::to_owned).collect()
}

#[test]
fn every_client_gets_its_answer_and_the_log_one_line() {
    let origin = origin();
    let plan = Plan::new(&origin).set("cache", CACHE);
    let Some(_small) = Small::mount(&plan.cache_dir(), "8m") else { return };
    let ktrix = plan.start();
    // As many as fit, and then many more.
    for i in 0..20 {
        let kind = if i % 2 == 0 { "sized" } else { "chunked" };
        let answer = ktrix.get(&format!("/{kind}/{i}"));
        answer.expect_status(200).expect_body(pattern(1 << 20));
    }
    // Nor does eviction help: another program takes the last block.
    fill(&plan.cache_dir().join("filler"));
    for i in 20..40 {
        let kind = if i % 2 == 0 { "sized" } else { "chunked" };
        let answer = ktrix.get(&format!("/{kind}/{i}"));
        answer.expect_status(200).expect_body(pattern(1 << 20));
    }
    let workers = ktrix.workers();
    assert!(workers.len() == 2 && workers.iter().all(|w| w.is_alive()));
    until_true("a line in the log", || !complaints(&plan).is_empty());
    let lines = complaints(&plan);
    // Once, or once in each of the two workers and the keeper.
    assert!((1..=3).contains(&lines.len()), "{lines:?}");
    until_true("no unfinished file", || plan.unfinished_files().is_empty());
    plan.verify_cache();
}

/// Takes the rest, to the last block.
fn fill(path: &Path) {
    let _ = fs::write(path, vec![b'x'; 9 << 20]);
}

#[test]
fn a_head_that_finds_no_room_is_answered_and_the_old_one_stays() {
    let origin = Origin::answering(|request| {
        let answer = match request.has("if-none-match") {
            // So long that it takes another page.
            true => Response::status(304).field("X-Long", "x".repeat(9_000)),
            false => Response::ok(pattern(1 << 20)),
        };
        answer.field("ETag", "\"one\"").field("X-Number", request.number).cache("no-cache")
    });
    let plan = Plan::new(&origin).set("cache", CACHE);
    let Some(_small) = Small::mount(&plan.cache_dir(), "8m") else { return };
    let ktrix = plan.start();
    ktrix.get("/a").expect_status(200).expect_body(pattern(1 << 20));
    until_true("the stored object", || plan.cache_files().len() == 1);
    // Until the keeper has compared the index with the files, it evicts at each step.
    until_true("the comparison", || plan.error_log().contains("slots with their files"));
    let filler = plan.cache_dir().join("filler");
    fill(&filler);
    for n in 1..5_usize {
        let answer = ktrix.get("/a").expect_status(200).expect_body(pattern(1 << 20));
        answer.expect_field("x-number", &n.to_string());
    }
    until_true("a line in the log", || !complaints(&plan).is_empty());
    let lines = complaints(&plan);
    assert!((1..=3).contains(&lines.len()), "{lines:?}");
    fs::remove_file(&filler).unwrap();
    until_true("a head that was stored", || {
        ktrix.get("/a").expect_status(200).expect_body(pattern(1 << 20));
        plan.cache_files()
            .first()
            .is_some_and(|file| fs::metadata(file).unwrap().len() > 1 << 20 | 9_000)
    });
    plan.verify_cache();
}

#[test]
fn when_there_is_room_again_it_is_used() {
    let origin = origin();
    let plan = Plan::new(&origin).set("cache", CACHE);
    let Some(_small) = Small::mount(&plan.cache_dir(), "8m") else { return };
    let ktrix = plan.start();
    // The cache is open when there is an answer.
    ktrix.get("/").expect_status(200);
    let filler = plan.cache_dir().join("filler");
    fill(&filler);
    for i in 0..5 {
        ktrix.get(&format!("/{i}")).expect_status(200).expect_body(pattern(1 << 20));
    }
    fs::remove_file(&filler).unwrap();
    until_true("a hit on the disk that has room", || {
        ktrix.get("/again").expect_status(200).expect_body(pattern(1 << 20)).is_hit()
    });
}

#[test]
fn the_free_space_limit_holds() {
    let origin = origin();
    let cache = "{path: $DIR/cache, size: 1 GiB, objects: 1000, memory: 1 MiB, free: 8 MiB, \
                 admission: off}";
    let plan = Plan::new(&origin).set("cache", cache);
    let Some(_small) = Small::mount(&plan.cache_dir(), "24m") else { return };
    let ktrix = plan.start();
    let free = || {
        let stat = nix::sys::statvfs::statvfs(&plan.cache_dir()).unwrap();
        stat.blocks_available() * stat.fragment_size()
    };
    for i in 0..24 {
        ktrix.get(&format!("/{i}")).expect_status(200).expect_body(pattern(1 << 20));
        // The keeper looks at the disk once a second.
        if i % 8 == 7 {
            until_true("the space to be free again", || free() >= 8 << 20);
        }
    }
    assert!(plan.cache_files().len() > 8, "it gave up more than it had to");
    assert_eq!(complaints(&plan), Vec::<String>::new());
}

#[test]
fn clients_of_an_object_that_does_not_fit_are_all_answered() {
    let origin = Origin::answering(|_| {
        let body = pattern(12 << 20);
        Response::chunked(&body.chunks(200_000).collect::<Vec<_>>()).cache("max-age=600")
    });
    let plan = Plan::new(&origin).set("cache", CACHE);
    let Some(_small) = Small::mount(&plan.cache_dir(), "8m") else { return };
    let ktrix = plan.start();
    let body = pattern(12 << 20);
    let mut n_whole = 0;
    let threads: Vec<_> = (0..10)
        .map(|_| {
            let address = plan.address.clone();
            std::thread::spawn(move || {
                let mut client = crate::support::Client::connect(&address);
                client.try_ask(&crate::support::Ask::get("/large"))
            })
        })
        .collect();
    for thread in threads {
        match thread.join().unwrap() {
            Ok(answer) => {
                answer.expect_status(200).expect_body(&body);
                n_whole += 1;
            }
            Err(broken) => panic!("{broken:?}"),
        }
    }
    assert_eq!(n_whole, 10);
    ktrix.get("/large").expect_status(200).expect_body(&body);
}
