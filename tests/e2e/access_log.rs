//! The access log has one line for each answer, even if the file or the workers fail.

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::process::Seen;
use crate::support::{Ask, Load, Origin, Pace, Plan, Response, alone, pattern, until, until_true};

fn origin() -> Origin {
    Origin::answering(|request| {
        let is_stored = request.target.starts_with("/c/");
        Response::ok("hello").cache(if is_stored { "max-age=60" } else { "no-store" })
    })
}

fn paths() -> Vec<(String, Arc<[u8]>)> {
    let body: Arc<[u8]> = b"hello".as_slice().into();
    (0..20)
        .map(|i| (format!("/{}/{i}", if i % 2 == 0 { "c" } else { "d" }), Arc::clone(&body)))
        .collect()
}

fn agents(lines: &[String]) -> Vec<String> {
    let agent = |line: &String| {
        let rest = line.split("\"user_agent\":\"").nth(1).unwrap_or_else(|| panic!("{line}"));
        rest.split('"').next().unwrap_or_default().to_owned()
    };
    lines.iter().map(agent).collect()
}

/// One line for each answer, and no other lines.
fn expect_same(lines: &[String], answered: &[String]) {
    let logged = agents(lines);
    let (a, b): (HashSet<_>, HashSet<_>) = (logged.iter().collect(), answered.iter().collect());
    let missing: Vec<_> = b.difference(&a).take(5).collect();
    let surplus: Vec<_> = a.difference(&b).take(5).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "missing {missing:?}, surplus {surplus:?}");
    assert_eq!(lines.len(), answered.len(), "lines that stand twice");
}

/// Another process that holds a file's lock until it is told to release it.
struct Holder {
    process: Child,
    since: Instant,
}

impl Holder {
    fn of(path: &Path) -> Self {
        let mut process = Command::new("flock")
            .arg(path)
            .args(["sh", "-c", "echo locked; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("flock of util-linux");
        let mut said = [0; 6];
        process.stdout.as_mut().unwrap().read_exact(&mut said).expect("the lock to be taken");
        Self { process, since: Instant::now() }
    }

    /// Ends it once it has held the lock for this long.
    fn release_after(mut self, time: Duration) {
        std::thread::sleep(time.saturating_sub(self.since.elapsed()));
        drop(self.process.stdin.take());
        self.process.wait().expect("its end");
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

#[test]
fn json_lines_say_what_happened() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let ask = Ask::get("/c/1?q=\"x\\").field("User-Agent", "quo\"te\u{e9}");
    ktrix.client().ask(&ask.field("Referer", "http://a/"));
    ktrix.get("/c/2");
    ktrix.wait_hit("/c/2");
    ktrix.ask(&Ask::post("/d/3", "body"));
    let mut client = ktrix.client();
    client.write(b"nonsense\r\n\r\n");
    client.answer().expect_status(400);
    until_true("lines of every kind", || plan.access_lines().len() >= 5);
    let lines = plan.access_lines();
    let find = |part: &str| {
        lines.iter().find(|l| l.contains(part)).unwrap_or_else(|| panic!("{part}: {lines:?}"))
    };
    let first = find("/c/1?q=");
    for part in [
        "\"client\":\"127.0.0.1\"", "\"method\":\"GET\"", "\"status\":200", "\"body_bytes\":5",
        "\"verdict\":\"miss\"", "\"request_id\":\"", "\"total_s\":0.", "\"upstream\":\"app\"",
    ] {
        assert!(first.contains(part), "{part} in {first}");
    }
    for verdict in ["\"verdict\":\"miss\"", "\"verdict\":\"hit\""] {
        assert!(lines.iter().any(|l| l.contains("/c/2") && l.contains(verdict)), "{lines:?}");
    }
    let pass = find("\"method\":\"POST\"");
    assert!(pass.contains("\"verdict\":\"pass\"") && pass.contains("\"reason\":\""), "{pass}");
    find("\"status\":400");
}

#[test]
fn combined_lines_have_the_common_form() {
    let origin = origin();
    let plan = Plan::new(&origin).set("log", "{access: $DIR/access.log, error: $DIR/error.log}");
    let ktrix = plan.start();
    let ask = Ask::get("/c/1").field("Referer", "http://a/").field("User-Agent", "curl/8");
    ktrix.ask(&ask);
    let line = ktrix.wait_access_lines(1).remove(0);
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    let end = "\"GET /c/1 HTTP/1.1\" 200 5 \"http://a/\" \"curl/8\"";
    assert!(line.ends_with(end), "{line}");
}

#[test]
fn a_lock_held_by_another_process_delays_lines_but_no_request() {
    alone();
    let origin = origin();
    let plan = Plan::new(&origin).set(
        "log",
        "{access: {file: $DIR/access.log, format: json, buffer: 8 MiB}, error: $DIR/error.log}",
    );
    let ktrix = plan.start();
    let path = plan.dir().join("access.log");
    let pace = Pace::start();
    let load = Load::of_pages(&plan.address, 8, paths());
    until_true("some answers", || load.n_answered() > 100);
    let holder = Holder::of(&path);
    let n_lines = plan.access_lines().len();
    let n_before = load.n_answered();
    until_true("answers while the log is locked", || load.n_answered() > n_before + 500);
    assert!(plan.access_lines().len() <= n_lines, "lines were written in spite of the lock");
    holder.release_after(Duration::from_secs(3));
    let report = load.stop();
    report.expect_faultless();
    let limit = pace.limit(Duration::from_millis(1500));
    assert!(report.longest < limit, "{:?}, not {limit:?}", report.longest);
    let lines = ktrix.wait_access_lines(report.answered.len());
    expect_same(&lines, &report.answered);
}

#[test]
fn a_full_ring_waits_for_the_file_and_loses_nothing() {
    alone();
    let origin = origin();
    let plan = Plan::new(&origin).set("workers", "1").set(
        "log",
        "{access: {file: $DIR/access.log, format: json, buffer: 64 KiB, when-full: wait}, \
         error: $DIR/error.log}",
    );
    let ktrix = plan.start();
    let path = plan.dir().join("access.log");
    let holder = Holder::of(&path);
    let load = Load::of_pages(&plan.address, 8, paths());
    let start = Instant::now();
    holder.release_after(Duration::from_secs(3));
    let n = load.n_answered();
    // 64 KiB are some two hundred lines.
    assert!(n < 2_000, "{n} answers in {:?} with a ring of 64 KiB", start.elapsed());
    until_true("answers after the lock", || load.n_answered() > n + 200);
    let report = load.stop();
    report.expect_faultless();
    let lines = ktrix.wait_access_lines(report.answered.len());
    expect_same(&lines, &report.answered);
}

#[test]
fn an_operator_may_drop_lines_instead() {
    alone();
    let origin = origin();
    let plan = Plan::new(&origin).set("workers", "1").set(
        "log",
        "{access: {file: $DIR/access.log, format: json, buffer: 64 KiB, when-full: drop}, \
         error: $DIR/error.log}",
    );
    let ktrix = plan.start();
    let path = plan.dir().join("access.log");
    let holder = Holder::of(&path);
    let pace = Pace::start();
    let load = Load::of_pages(&plan.address, 4, paths());
    until_true("answers that do not wait for the log", || load.n_answered() > 2_000);
    holder.release_after(Duration::from_secs(3));
    let report = load.stop();
    report.expect_faultless();
    let limit = pace.limit(Duration::from_millis(1500));
    assert!(report.longest < limit, "{:?}, not {limit:?}", report.longest);
    ktrix.get("/c/0");
    drop(ktrix);
    let n = plan.access_lines().len();
    assert!(n < report.answered.len(), "nothing was dropped");
}

#[test]
fn rotation_by_usr1_neither_loses_nor_repeats_a_line() {
    alone();
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let path = plan.dir().join("access.log");
    let load = Load::of_pages(&plan.address, 8, paths());
    let mut rotated = Vec::new();
    for round in 0..5 {
        let n = load.n_answered();
        until_true("some answers", || load.n_answered() > n + 300);
        until_true("the log file", || path.exists());
        let old = plan.dir().join(format!("access.log.{round}"));
        fs::rename(&path, &old).unwrap();
        ktrix.signal(Signal::SIGUSR1);
        until_true("the new log file", || path.exists());
        rotated.push(old);
    }
    let report = load.stop();
    report.expect_faultless();
    let lines = until("a line for every answer", crate::support::PATIENCE, || {
        let mut lines = plan.access_lines();
        lines.extend(rotated.iter().flat_map(|p| crate::support::ktrix::lines(p)));
        (lines.len() >= report.answered.len()).then_some(lines)
    });
    expect_same(&lines, &report.answered);
}

#[test]
fn lines_of_a_killed_worker_are_written_by_the_master() {
    alone();
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.wait_children(3);
    let path = plan.dir().join("access.log");
    // While the file is locked every line is still in a ring.
    let holder = Holder::of(&path);
    let n = 50;
    let mut answered = Vec::new();
    for i in 0..n {
        let agent = format!("one-{i}");
        ktrix.ask(&Ask::get("/c/0").field("User-Agent", &agent)).expect_status(200);
        answered.push(agent);
    }
    let workers: Vec<Seen> = ktrix.workers();
    for worker in workers {
        worker.signal(Signal::SIGKILL);
    }
    holder.release_after(Duration::ZERO);
    let lines = ktrix.wait_access_lines(n);
    expect_same(&lines, &answered);
    ktrix.wait_children(3);
}

#[test]
fn a_stop_writes_the_remaining_lines() {
    let origin = origin();
    for signal in [Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGINT] {
        let plan = Plan::new(&origin);
        let ktrix = plan.start();
        let mut client = ktrix.client();
        for i in 0..30 {
            client.get(&format!("/d/{i}")).expect_status(200);
        }
        ktrix.signal(signal);
        ktrix.wait_exit();
        ktrix.wait_gone();
        assert_eq!(plan.access_lines().len(), 30, "after {signal}");
    }
}

#[test]
fn every_request_has_an_id_of_its_own() {
    let origin = origin();
    let plan = Plan::new(&origin).set("workers", "4");
    let ktrix = plan.start();
    let mut n_asked = 0;
    // The worker that is up first may accept all connections for a while.
    until_true("requests at two workers", || {
        let mut clients: Vec<_> = (0..40).map(|_| ktrix.client()).collect();
        for i in 0..5 {
            for client in &mut clients {
                client.get(if i % 2 == 0 { "/c/1" } else { "/d/1" }).expect_status(200);
                n_asked += 1;
            }
        }
        let lines = ktrix.wait_access_lines(n_asked);
        let ids: HashSet<&str> = lines
            .iter()
            .filter_map(|line| line.split("\"request_id\":\"").nth(1)?.split('"').next())
            .collect();
        assert_eq!(ids.len(), n_asked, "ids that stand twice");
        ids.iter().map(|id| &id[..16]).collect::<HashSet<&str>>().len() > 1
    });
}

#[test]
fn a_download_that_breaks_off_has_the_bytes_that_were_sent() {
    const BYTES: usize = 64 << 20;
    let body: Arc<[u8]> = pattern(BYTES).into();
    let origin = Origin::answering(move |request| {
        let response = match request.target == "/d/chunked" {
            true => Response::chunked(&[&body]),
            false => Response::shared(&body),
        };
        response.cache(if request.target.starts_with("/c/") { "max-age=600" } else { "no-store" })
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/c/file");
    ktrix.wait_hit("/c/file");
    for target in ["/c/file", "/d/sized", "/d/chunked"] {
        let mut client = ktrix.client().receive_buffer(64 << 10);
        client.send(&Ask::get(target).field("User-Agent", "leaves"));
        let mut n_read = 0;
        while n_read < 1 << 20 {
            n_read += client.read().len();
        }
        client.reset();
        let of = |line: &&String| line.contains(target) && line.contains("leaves");
        until_true("its line", || plan.access_lines().iter().any(|line| of(&line)));
        let lines = plan.access_lines();
        let line = lines.iter().find(of).unwrap();
        let number = |name: &str| -> usize {
            let rest = line.split(&format!("\"{name}\":")).nth(1).unwrap();
            rest.split([',', '}']).next().unwrap().parse().unwrap()
        };
        let (sent, sent_body) = (number("sent_bytes"), number("body_bytes"));
        // The buffers of two sockets lie between ktrix and what the client has read.
        assert!((n_read..BYTES / 2).contains(&sent), "{n_read} of {BYTES} read: {line}");
        // A head, and the framing of chunks.
        let around = 2_048 + sent / 1_000;
        assert!((sent - around..sent).contains(&sent_body), "{line}");
    }
}

#[test]
fn what_could_be_read_of_a_refused_request_is_logged() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin).set("timeouts", "{client-head: 300ms}");
    let ktrix = plan.start();
    let long = "x".repeat(9_000);
    for (n, (request, status, parts)) in [
        ("GET /a HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n".to_owned(), 400, &["GET", "/a", "h"][..]),
        ("GET /b\tc HTTP/1.1\r\nHost: h\r\n\r\n".into(), 400, &["GET", "/b\\tc", "h"]),
        (format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n"), 414, &["GET", "/xxx", "h"]),
        (
            format!("GET /d HTTP/1.1\r\nHost: h\r\nA: {}\r\n", long.repeat(4)),
            431,
            &["GET", "/d", "h"],
        ),
        ("BREW /e HTTP/2.0\r\nHost: h\r\n\r\n".into(), 505, &["BREW", "/e", "h"]),
        (format!("{} /f HTTP/1.1\r\nHost: h\r\n\r\n", "M".repeat(65)), 501, &["MMM", "/f", "h"]),
        (
            "GET /g HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n".into(),
            501,
            &["GET", "/g", "h"],
        ),
        ("GET /h HTTP/1.1\r\nHos".into(), 408, &["GET", "/h", "-"]),
        ("\u{16}\u{3}\u{1}\u{0}\u{7f}".into(), 400, &["-", "-", "-"]),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = ktrix.client();
        client.write(request.as_bytes());
        client.answer().expect_status(status);
        let line = ktrix.wait_access_lines(n + 1).swap_remove(n);
        for (name, part) in ["method", "target", "host"].iter().zip(parts) {
            match *part {
                "-" => assert!(!line.contains(&format!("\"{name}\"")), "{name}: {line}"),
                part => {
                    let member = format!("\"{name}\":\"{part}");
                    assert!(line.contains(&member), "{member}: {line}");
                }
            }
        }
        assert!(line.contains(&format!("\"status\":{status}")) && line.len() < 10_000, "{line}");
    }
}
