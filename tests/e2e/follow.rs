//! `ktrix log` beside a running ktrix: what it shows, and that it misses nothing while workers die.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use nix::sys::signal::Signal;

use crate::support::ktrix::BINARY;
use crate::support::{Ask, Client, Gate, Ktrix, Origin, PATIENCE, Plan, Response, until_true};
use crate::upgrade::Last;

/// A running `ktrix log`.
struct Following {
    child: Child,
    lines: Receiver<String>,
}

impl Following {
    fn start(ktrix: &Ktrix<'_>, args: &[&str]) -> Self {
        let mut command = Command::new(BINARY);
        command.arg("log").args(args).arg("-c").arg(ktrix.plan.config_path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, format!("following the requests of ktrix, pid {}\n", ktrix.master.pid));
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line")
    }

    /// Its lines until it ends by itself.
    fn rest(mut self) -> Vec<String> {
        let lines = self.lines.iter().collect();
        assert!(self.child.wait().unwrap().success());
        lines
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn origin() -> Origin {
    Origin::answering(|request| {
        let status = if request.target.starts_with("/bad") { 500 } else { 200 };
        Response::ok("hello").with_status(status).cache("no-store")
    })
}

fn get(plan: &Plan, host: &str, target: &str) {
    let status = if target.starts_with("/bad") { 500 } else { 200 };
    Client::connect(&plan.address).host(host).get(target).expect_status(status);
}

#[test]
fn only_the_requests_that_pass_the_filter_are_shown_as_in_the_access_log() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let filter = "status >= 500 and host = www.example.com and not path ~ ^/bad/quiet";
    let following = Following::start(&ktrix, &["--json", "-n", "2", filter]);
    get(&plan, "www.example.com", "/good");
    get(&plan, "other.example.com", "/bad/1");
    get(&plan, "www.example.com", "/bad/quiet");
    get(&plan, "www.example.com", "/bad/2?a=b");
    get(&plan, "WWW.example.com", "/bad/3");
    get(&plan, "www.example.com", "/bad/4");
    let lines = following.rest();
    let read = |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let lines: Vec<_> = lines.iter().map(read).collect();
    let targets: Vec<_> = lines.iter().map(|line| line["target"].as_str().unwrap()).collect();
    assert_eq!(targets, ["/bad/2?a=b", "/bad/3"]);
    until_true("the line in the access log", || {
        let logged = plan.access_lines();
        let logged: Vec<_> = logged.iter().map(read).collect();
        logged.iter().any(|line| {
            let same =
                ["client", "host", "status", "body_bytes", "request_id", "verdict", "server"];
            line["target"] == "/bad/2?a=b" && same.iter().all(|it| line[it] == lines[0][it])
        })
    });
}

#[test]
fn a_ktrix_without_an_access_log_is_followed_too_and_no_byte_of_a_client_reaches_the_terminal() {
    let origin = origin();
    let plan = Plan::new(&origin).set("log", "{error: $DIR/error.log}");
    let ktrix = plan.start();
    let following = Following::start(&ktrix, &[]);
    get(&plan, "h", "/a");
    let line = following.line();
    for part in ["Z 200 pass ", " GET h/a 127.0.0.1 app/", " no-store"] {
        assert!(line.contains(part), "{part:?} in {line:?}");
    }
    let mut client = ktrix.client();
    client.write(b"GET /\x1b[2J\x9b HTTP/1.1\r\nHost: h\x1b]0;x\x07\r\n\r\n");
    client.answer().expect_status(400);
    let line = following.line();
    assert!(line.contains(" 400 ") && !line.contains(char::is_control), "{line:?}");
}

#[test]
fn workers_that_take_the_place_of_killed_ones_are_followed_and_a_reload_is() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let following = Following::start(&ktrix, &["path ~ ^/seen/"]);
    let see = |target: &str| {
        get(&plan, "h", target);
        let line = following.line();
        assert!(line.contains(&format!(" GET h{target} ")), "{line}");
    };
    see("/seen/1");
    let before = ktrix.workers();
    before.iter().for_each(|worker| worker.signal(Signal::SIGKILL));
    until_true("new workers", || {
        let now = ktrix.workers();
        now.len() == 2 && before.iter().all(|old| !now.contains(old))
    });
    (2..6).for_each(|n| see(&format!("/seen/{n}")));
    let before = ktrix.workers();
    ktrix.signal(Signal::SIGHUP);
    until_true("the workers of the reload", || before.iter().all(|old| !old.is_alive()));
    (6..10).for_each(|n| see(&format!("/seen/{n}")));
    ktrix.stop();
    assert_eq!(following.rest(), Vec::<String>::new());
}

#[test]
fn it_ends_with_the_ktrix_that_it_follows_and_the_next_one_is_followed_again() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let following = Following::start(&ktrix, &["path ~ ^/seen/"]);
    get(&plan, "h", "/seen/1");
    assert!(following.line().contains(" GET h/seen/1 "));
    ktrix.stop();
    assert_eq!(following.rest(), Vec::<String>::new());
    let again = plan.start();
    let following = Following::start(&again, &["path ~ ^/seen/"]);
    get(&plan, "h", "/seen/2");
    assert!(following.line().contains(" GET h/seen/2 "));
    again.stop();
    assert_eq!(following.rest(), Vec::<String>::new());
}

#[test]
fn a_wrong_filter_is_shown_with_its_column() {
    let origin = origin();
    let plan = Plan::new(&origin);
    plan.write_config();
    let out = plan.run(&["log", "status > = 500"]);
    assert_eq!(out.status.code(), Some(2));
    let said = String::from_utf8_lossy(&out.stderr);
    let expected = "  status > = 500\n           ^ column 10: expected a value";
    assert!(said.contains(expected), "{said}");
    let out = plan.run(&["log", "-c", &plan.config_path().display().to_string()]);
    assert_eq!(out.status.code(), Some(1), "no ktrix runs");
}

#[test]
fn requests_of_many_clients_are_all_seen() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let following = Following::start(&ktrix, &["--json", "-n", "200"]);
    let mut clients: Vec<_> = (0..4).map(|_| ktrix.client()).collect();
    for n in 0..50 {
        for (i, client) in clients.iter_mut().enumerate() {
            client.ask(&Ask::get(&format!("/{i}/{n}"))).expect_status(200);
        }
    }
    let lines = following.rest();
    assert_eq!(lines.len(), 200);
}

#[test]
fn the_requests_of_both_masters_are_shown_over_an_upgrade() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::answering(move |request| {
        if request.target.starts_with("/old/") {
            held.wait();
        }
        Response::ok("x").cache("no-store")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let last = Last(&plan);
    let following = Following::start(&ktrix, &[]);
    let mut slow: Vec<_> = (0..4).map(|_| ktrix.client()).collect();
    for (n, client) in slow.iter_mut().enumerate() {
        client.send(&Ask::get(&format!("/old/{n}")));
    }
    origin.wait_requests(slow.len());
    let old = last.master().unwrap();
    last.upgrade();
    for n in 0..4 {
        Client::of_ktrix(&plan.address).get(&format!("/new/{n}")).expect_status(200);
        let line = following.line();
        assert!(line.contains(&format!("/new/{n} ")), "{line}");
    }
    assert!(old.is_alive());
    gate.open();
    slow.iter_mut().for_each(|client| drop(client.answer().expect_status(200)));
    let mut shown: Vec<_> = (0..4).map(|_| following.line()).collect();
    shown.sort_by_key(|line| line.split("/old/").nth(1).map(str::to_owned));
    for (n, line) in shown.iter().enumerate() {
        assert!(line.contains(&format!("/old/{n} ")), "{line}");
    }
    until_true("the end of the old ktrix", || !old.is_alive());
    Client::of_ktrix(&plan.address).get("/after").expect_status(200);
    let line = following.line();
    assert!(line.contains("/after "), "{line}");
    last.master().unwrap().signal(Signal::SIGTERM);
    assert_eq!(following.rest(), Vec::<String>::new());
}
