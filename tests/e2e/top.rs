//! `ktrix top` on a terminal, which is one of tmux(1): what it shows, its keys, and how it leaves.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::metrics::n_requests;
use crate::status::status;
use crate::support::ktrix::{BINARY, reserve};
use crate::support::process::{Seen, children};
use crate::support::socket::Address;
use crate::support::{Ask, Client, Ktrix, Origin, PATIENCE, Plan, Response, until_ok, until_true};

/// A shell in a terminal.
struct Shell<'p> {
    plan: &'p Plan,
}

impl<'p> Shell<'p> {
    /// `None` without tmux.
    fn start(plan: &'p Plan, (width, height): (u16, u16)) -> Option<Self> {
        if Command::new("tmux").arg("-V").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: there is no tmux");
            return None;
        }
        let shell = Self { plan };
        let (width, height) = (width.to_string(), height.to_string());
        let out = shell.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &width,
            "-y",
            &height,
            "env PS1='$ ' LC_ALL=C.UTF-8 sh",
        ]);
        assert!(out.status.success(), "{out:?}");
        // What is typed before the prompt is shown in front of it.
        shell.wait(&["$"]);
        Some(shell)
    }

    fn tmux(&self, args: &[&str]) -> Output {
        let socket = self.plan.dir().join("tmux");
        let mut command = Command::new("tmux");
        command.arg("-u").arg("-S").arg(socket).args(args).env("LC_ALL", "C.UTF-8");
        command.env_remove("TMUX").env_remove("NO_COLOR").output().expect("tmux")
    }

    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn run(&self, command: &str) {
        self.press(&["-l", command]);
        self.press(&["Enter"]);
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.tmux(&["capture-pane", "-p"]).stdout).into_owned()
    }

    #[track_caller]
    fn wait(&self, parts: &[&str]) -> String {
        until_ok(&format!("{parts:?} on the screen"), PATIENCE, || {
            let screen = self.screen();
            if parts.iter().all(|part| screen.contains(part)) { Ok(screen) } else { Err(screen) }
        })
    }

    /// The process that the shell has started.
    fn child(&self) -> Seen {
        let shell = self.tmux(&["display", "-p", "#{pane_pid}"]).stdout;
        let shell: i32 = String::from_utf8(shell).unwrap().trim().parse().unwrap();
        children(shell).remove(0)
    }

    fn start_top(&self) {
        let config = self.plan.config_path();
        self.run(&format!("echo before; {BINARY} top -c {}; echo code $?", config.display()));
    }

    /// Waits for the end of the command, with the terminal as it was.
    #[track_caller]
    fn expect_end(&self) {
        let screen = self.wait(&["\nbefore", "\ncode 0"]);
        assert!(!screen.contains("Hosts"), "{screen}");
        self.run("stty -a | tr ' ' '\\n' | grep -cx -e icanon -e echo -e isig");
        self.wait(&["\n3\n"]);
    }
}

impl Drop for Shell<'_> {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

fn origin() -> Origin {
    Origin::answering(|request| {
        let status = if request.target.starts_with("/bad") { 500 } else { 200 };
        Response::ok("hello").with_status(status).cache("no-store")
    })
}

fn get(ktrix: &Ktrix<'_>, host: &str, target: &str) {
    Client::connect(&ktrix.plan.address).host(host).get(target);
}

#[test]
fn hosts_paths_servers_and_processes_are_shown_and_the_terminal_is_given_back() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let Some(shell) = Shell::start(&plan, (80, 24)) else { return };
    shell.start_top();
    shell.wait(&["[1 Hosts]", "q Quit", "req/s", &format!("pid {}", ktrix.master.pid)]);
    let ask = || {
        get(&ktrix, "www.example.com", "/seen");
        get(&ktrix, "other.example.com", "/bad");
    };
    until_true("the hosts", || {
        ask();
        let screen = shell.screen();
        screen.contains("www.example.com") && screen.contains("other.example.com")
    });
    shell.press(&["Tab"]);
    shell.wait(&["[2 Paths]", "www.example.com/seen"]);
    shell.press(&["3"]);
    shell.wait(&["[3 Servers]", &format!("app/{}", origin.name()), " up "]);
    shell.press(&["4"]);
    shell.wait(&["[4 Processes]", "master", "worker 0", "worker 1", &ktrix.master.pid.to_string()]);
    shell.press(&["?"]);
    shell.wait(&["any key closes this help"]);
    shell.press(&["Escape"]);
    // A key right behind it would be one with Alt.
    until_true("the end of the help", || !shell.screen().contains("any key closes"));
    shell.press(&["1", "/"]);
    shell.press(&["-l", "status > x"]);
    shell.press(&["Enter"]);
    shell.wait(&["only: status > x", "column 10"]);
    shell.press(&["BSpace"]);
    shell.press(&["-l", "499"]);
    shell.press(&["Enter"]);
    until_true("the failed requests alone", || {
        ask();
        let screen = shell.screen();
        screen.contains("only status > 499")
            && screen.contains(" filtered ")
            && screen.contains("other.example.com")
            && !screen.contains("www.example.com")
    });
    shell.press(&["q"]);
    shell.expect_end();
}

#[test]
fn a_large_terminal_has_all_tables_and_a_signal_gives_it_back() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let Some(shell) = Shell::start(&plan, (200, 60)) else { return };
    shell.start_top();
    shell.wait(&[" Hosts ", " Paths ", " Servers ", " Processes ", "worker 1"]);
    until_true("the host", || {
        get(&ktrix, "www.example.com", "/seen");
        shell.screen().contains("www.example.com/seen")
    });
    shell.tmux(&["resize-window", "-x", "80", "-y", "24"]);
    shell.wait(&["[1 Hosts]", "www.example.com"]);
    ktrix.stop();
    shell.wait(&["KTRIX HAS ENDED"]);
    kill(Pid::from_raw(shell.child().pid), Signal::SIGTERM).unwrap();
    shell.expect_end();
}

/// A number of `/metrics` for each verdict that this pattern of ktrix-metrics(7) names.
fn metric(text: &str, pattern: &str) -> f64 {
    let of = |word: &str| {
        let line = format!("ktrix_requests_total{{verdict=\"{word}\"}} ");
        text.lines().find_map(|it| it.strip_prefix(&line)?.parse::<f64>().ok()).unwrap()
    };
    pattern.split('|').map(of).sum()
}

#[test]
fn the_hit_ratio_is_the_same_everywhere() {
    let origin = Origin::answering(|_| Response::ok("hello").cache("max-age=600"));
    let (_reservation, address) = reserve("127.0.0.1:0".parse().unwrap());
    let plan = Plan::new(&origin).set("admin", &format!("{{listen: \"{address}\"}}"));
    let ktrix = plan.start();
    (0..3).for_each(|n| drop(ktrix.get(&format!("/{n}"))));
    ktrix.wait_hit("/a");
    let Some(shell) = Shell::start(&plan, (80, 24)) else { return };
    shell.start_top();
    shell.wait(&["[1 Hosts]", &format!("pid {}", ktrix.master.pid)]);
    // From here on the cache has all that it is asked for, and half of the requests do not ask it.
    until_true("the hit ratio of the last seconds", || {
        ktrix.get("/a").expect_hit();
        ktrix.ask(&Ask::post("/other", "x")).expect_status(200);
        let screen = shell.screen();
        let rates = screen.lines().skip_while(|line| !line.contains("revalidated")).nth(1);
        let rates: Vec<_> = rates.unwrap_or_default().split_whitespace().collect();
        // The head, and the rates of hit, stale, revalidated, miss and pass.
        let has_both = [1, 5].iter().all(|n| rates.get(*n).is_some_and(|rate| *rate != "0"));
        has_both && screen.contains("hit ratio  100 %")
    });
    let mut before = 0;
    until_true("the last request to be counted", || {
        let counted = n_requests(&status(&plan));
        std::mem::replace(&mut before, counted) == counted
    });
    let address = Address::from(address);
    let shown = |target: &str| Client::connect(&address).get(target).expect_status(200).text();
    let (text, manual) = (shown("/metrics"), include_str!("../../man/ktrix-metrics.7"));
    let patterns: Vec<_> = manual
        .lines()
        .filter_map(|line| line.split_once("verdict=~\"")?.1.split('"').next())
        .collect();
    let [hits, lookups] = patterns[..] else { panic!("{patterns:?}") };
    let ratio = metric(&text, hits) / metric(&text, lookups);
    assert!(ratio > 0.0 && ratio < 1.0, "{ratio}");
    for counts in [status(&plan), serde_json::from_str(&shown("/status")).unwrap()] {
        let told = counts["counts"]["hit_ratio"].as_f64().unwrap();
        assert!((told - ratio).abs() < 1e-9, "{told}, {ratio}");
    }
    let tile = format!("<dt>Hit ratio</dt><dd>{:.1} %", ratio * 100.0);
    assert!(shown("/").contains(&tile), "{tile}");
}

#[test]
fn a_ktrix_that_is_started_again_is_shown_again() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let Some(shell) = Shell::start(&plan, (80, 24)) else { return };
    shell.start_top();
    until_true("the first ktrix", || {
        get(&ktrix, "first.example.com", "/seen");
        shell.screen().contains("first.example.com")
    });
    ktrix.stop();
    shell.wait(&["KTRIX HAS ENDED"]);
    let again = plan.start();
    until_true("the other ktrix", || {
        get(&again, "second.example.com", "/seen");
        let screen = shell.screen();
        screen.contains("second.example.com")
            && screen.contains(&format!("pid {}", again.master.pid))
            && !screen.contains("KTRIX HAS ENDED")
    });
    shell.press(&["q"]);
    shell.expect_end();
}

#[test]
fn a_ktrix_that_cannot_be_found_for_a_moment_has_not_ended() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let Some(shell) = Shell::start(&plan, (200, 24)) else { return };
    shell.start_top();
    let pid = format!("pid {}", ktrix.master.pid);
    shell.wait(&["[1 Hosts]", &pid]);
    let away = plan.dir().join("away.yaml");
    fs::rename(plan.config_path(), &away).unwrap();
    let screen = shell.wait(&["not a valid configuration", &pid]);
    assert!(!screen.contains("HAS ENDED"), "{screen}");
    fs::rename(&away, plan.config_path()).unwrap();
    until_true("the next look", || !shell.screen().contains("not a valid configuration"));
    shell.press(&["q"]);
    shell.expect_end();
}

#[test]
fn it_ends_when_its_terminal_is_closed() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let Some(shell) = Shell::start(&plan, (80, 24)) else { return };
    shell.start_top();
    shell.wait(&["[1 Hosts]", &format!("pid {}", ktrix.master.pid)]);
    let top = shell.child();
    drop(shell);
    until_true("the end of top", || !Path::new(&format!("/proc/{}", top.pid)).exists());
}

#[test]
fn without_a_terminal_it_says_so() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let out = plan.run(&["top"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("top needs a terminal"), "{out:?}");
}
