//! The command line: checking a configuration, signals by name, running without a file, the demo.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::panic;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use crate::support::ktrix::text;
use crate::support::process::Seen;
use crate::support::socket::Address;
use crate::support::{Client, Origin, Plan, Response, until, until_true};

fn origin() -> Origin {
    Origin::answering(|_| Response::ok("hello").cache("max-age=60"))
}

#[test]
fn a_good_configuration_passes_the_test() {
    let origin = origin();
    let plan = Plan::new(&origin);
    plan.write_config();
    let config = plan.config_path().display().to_string();
    let output = plan.run(&["--test", &config]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(!plan.cache_dir().exists(), "a test made the cache's directory");
}

#[test]
fn a_test_says_what_would_run_and_warns_of_what_is_hardly_meant() {
    let origin = origin();
    let plan = Plan::new(&origin).set("timeouts", "{stop: 7s}");
    plan.write_config();
    let config = plan.config_path().display().to_string();
    let output = plan.run(&["--test", &config]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.starts_with(&format!("{config}: configuration is valid")), "{told}");
    let upstream = format!("  upstream   app: {}", origin.name());
    for line in [
        "  workers    2",
        "  sites      any host (1 route)",
        "  bounds     timeouts.stop 7s",
        &upstream,
    ] {
        assert!(told.lines().any(|it| it == line), "{line} in\n{told}");
    }
    let warned = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_root = nix::unistd::geteuid().is_root();
    assert_eq!(warned.contains("the workers run as root (add"), is_root, "{warned}");
}

#[test]
fn the_effective_configuration_is_one_and_is_compared_with_that_of_the_running_ktrix() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let config = plan.config_path().display().to_string();
    let dump =
        |file: &str, more: &[&str]| plan.run(&[&["config", "dump", "-c", file][..], more].concat());
    let effective = dump(&config, &[]);
    assert!(effective.status.success(), "{}", text(&effective));
    let other = plan.dir().join("effective.yaml");
    fs::write(&other, &effective.stdout).unwrap();
    let again = dump(&other.display().to_string(), &[]);
    assert!(again.stdout == effective.stdout, "{}", text(&again));
    assert!(text(&effective).contains("\n  client-head: 10s\n"), "{}", text(&effective));
    let same = dump(&config, &["--diff"]);
    assert_eq!((same.status.code(), text(&same)), (Some(0), String::new()));
    plan.put("timeouts", "{stop: 7s}");
    plan.write_config();
    let differs = dump(&config, &["--diff"]);
    assert_eq!(differs.status.code(), Some(3), "{}", text(&differs));
    let lines = text(&differs);
    let expected = format!(
        "--- running, pid {}\n+++ {config}\n-timeouts.stop: 30s\n+timeouts.stop: 7s\n",
        ktrix.master.pid
    );
    assert_eq!(lines, expected);
    ktrix.signal(Signal::SIGHUP);
    ktrix.wait_error("configuration reloaded");
    assert_eq!(dump(&config, &["--diff"]).status.code(), Some(0));
}

#[test]
fn shells_get_completions() {
    let origin = origin();
    let plan = Plan::new(&origin);
    for shell in ["bash", "zsh", "fish"] {
        let output = plan.run(&["completions", shell]);
        assert!(output.status.success() && text(&output).contains("reload"), "{}", text(&output));
    }
    assert_eq!(plan.run(&["completions", "csh"]).status.code(), Some(2));
}

#[test]
fn every_error_is_named_with_its_place_at_once() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let config = plan.config_path();
    fs::write(
        &config,
        "workers: many\n\
         upstreams:\n  app:\n    servers: [\"127.0.0.1:99999\"]\n    retires: 3\n\
         timeouts:\n  connect: 5\n\
         sites:\n  - routes:\n      - path: /\n        upstream: ap\n",
    )
    .unwrap();
    let path = config.display().to_string();
    let output = plan.run(&["--test", &path]);
    assert!(!output.status.success());
    let text = text(&output);
    for (line, key) in
        [(1, "workers"), (4, "servers"), (5, "retires"), (7, "timeouts.connect"), (11, "ap")]
    {
        let place = format!("ktrix.yaml:{line}:");
        let found = text.lines().find(|l| l.contains(&place));
        assert!(found.is_some_and(|l| l.contains(key)), "{place} {key} in:\n{text}");
    }
    assert!(text.contains("5s"), "a way out for a missing unit in:\n{text}");
    let output = plan.run(&[&path]);
    assert!(!output.status.success(), "it started on a broken configuration");
}

#[test]
fn a_user_that_is_not_there_is_named_with_its_place() {
    let origin = origin();
    let plan = Plan::new(&origin);
    plan.write_config();
    let config = plan.config_path().display().to_string();
    let ktrix = plan.start();
    let mut lines = plan.config();
    let place = format!("ktrix.yaml:{}:7: user: ", lines.lines().count() + 1);
    lines.push_str("user: nobody-of-that-name\n");
    fs::write(plan.config_path(), lines).unwrap();
    for args in [&["--test", &config][..], &[&config]] {
        let output = plan.run(args);
        let text = text(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(&place) && text.matches("does not exist").count() == 1, "{text}");
    }
    ktrix.signal(Signal::SIGHUP);
    ktrix.wait_error(&place);
    ktrix.get("/a").expect_status(200);
}

#[test]
fn a_failed_purge_exits_with_1_and_one_without_objects_with_0() {
    let origin = origin();
    let plan = Plan::new(&origin);
    plan.write_config();
    let dir = plan.cache_dir().display().to_string();
    let code = |what: &[&str]| {
        let output = plan.run(&[&["cache", "purge", "--dir", &dir][..], what].concat());
        output.status.code()
    };
    assert_eq!(code(&["--all"]), Some(1), "there is no table yet");
    let ktrix = plan.start();
    ktrix.get("/a").expect_status(200);
    for what in ["http://a/never-stored", "--tag=news", "--host=b", "--undo=2", "--list"] {
        assert_eq!(code(&[what]), Some(0), "{what}");
    }
    for what in ["d41d8cd98f00b204e9800998ecf8427e", "--undo=9", "--undo=2"] {
        assert_eq!(code(&[what]), Some(1), "{what}");
    }
    for what in [&[][..], &["--all", "--host=a"], &["--tag=a,b"], &["--host=*.a"]] {
        assert_eq!(code(what), Some(2), "{what:?}");
    }
}

#[test]
fn a_demo_on_a_port_that_is_taken_says_so_and_nothing_else() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = plan.run(&["demo", "--port", &port]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("cannot listen on port {port} (try")), "{text}");
    assert_eq!(text.matches("in use").count(), 1, "{text}");
    assert!(!text.contains("curl"), "it invites to what is not there: {text}");
}

#[test]
fn exit_codes_are_those_of_the_manual() {
    let origin = origin();
    let plan = Plan::new(&origin);
    plan.write_config();
    let config = &plan.config_path().display().to_string();
    let manual = include_str!("../../man/ktrix.8");
    let codes = manual.split_once(".Sh EXIT STATUS").unwrap().1.split_once(".Sh ").unwrap().0;
    let words_of = |code: i32| {
        let item = codes.split(".It ").find_map(|it| it.strip_prefix(&format!("{code}\n")));
        let item = item.unwrap_or_else(|| panic!("the manual has no exit code {code}"));
        item.replace("Fl ", "-").replace("Cm ", "").replace(['\n', '.', ','], " ")
    };
    // No ktrix runs with this configuration, and nothing was ever stored.
    for (command, args, code) in [
        ("--test", &["--test", "missing.yaml"][..], 1),
        ("-s", &["-s", "reload", config], 1),
        ("status", &["status", "-c", config], 1),
        ("log", &["log", "-c", config], 1),
        ("log", &["log", "status >", "-c", config], 2),
        ("top", &["top", "-c", config], 2),
        ("server", &["server", "drain", "app/127.0.0.1:80", "-c", config], 1),
        ("cache show", &["cache", "show", "http://a/", "-c", config], 1),
        ("cat", &["cache", "cat", "http://a/", "-c", config], 1),
        ("cache purge", &["cache", "purge", "--all", "-c", config], 1),
        ("cache verify", &["cache", "verify", "-c", config], 1),
        ("config dump", &["config", "dump", "-c", "missing.yaml"], 1),
        ("--diff", &["config", "dump", "--diff", "-c", config], 1),
        ("explain", &["explain", "no url", "-c", config], 1),
        ("command line", &["--no-such-option"], 2),
    ] {
        let output = plan.run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output));
        let words = words_of(code);
        let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(command), "{command} is not in the manual: {words}");
    }
}

#[test]
fn invalid_yaml_and_missing_files_are_named() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let missing = plan.run(&["--test", "no-such-file.yaml"]);
    assert!(!missing.status.success());
    assert!(text(&missing).contains("no-such-file.yaml"), "{}", text(&missing));
    let path = plan.config_path();
    fs::write(&path, "listen: [\n  - {{{\n").unwrap();
    let broken = plan.run(&["--test", &path.display().to_string()]);
    assert!(!broken.status.success());
    assert!(text(&broken).contains("ktrix.yaml:"), "{}", text(&broken));
}

#[test]
fn help_and_version_are_there_and_unknown_options_are_not() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let help = plan.run(&["--help"]);
    assert!(help.status.success());
    for word in ["--test", "--daemon", "--upstream", "--listen", "demo", "cache", "reload"] {
        assert!(text(&help).contains(word), "{word} in\n{}", text(&help));
    }
    let version = plan.run(&["--version"]);
    assert!(text(&version).contains(env!("CARGO_PKG_VERSION")), "{}", text(&version));
    assert_eq!(plan.run(&["--frobnicate"]).status.code(), Some(2));
}

#[test]
fn signals_have_names() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let config = plan.config_path().display().to_string();
    plan.write_config();
    let without = plan.run(&["-s", "reload", &config]);
    assert!(!without.status.success(), "a signal without a ktrix succeeded");
    let ktrix = plan.start();
    let before = ktrix.wait_children(3);
    let send = |name: &str| {
        let output = plan.run(&["-s", name, &config]);
        assert!(output.status.success(), "-s {name}: {}", text(&output));
    };
    send("reload");
    until_true("the children of the new configuration", || {
        let now = ktrix.children();
        now.len() == 3 && before.iter().all(|old| !now.contains(old))
    });
    ktrix.get("/a").expect_status(200);
    until_true("a line in the log", || !plan.access_lines().is_empty());
    let log = plan.dir().join("access.log");
    fs::rename(&log, plan.dir().join("access.log.1")).unwrap();
    send("reopen");
    until_true("the new log file", || log.exists());
    send("quit");
    assert!(ktrix.wait_exit().success());
    ktrix.wait_gone();
    let ktrix = plan.start();
    send("stop");
    assert!(ktrix.wait_exit().success());
    ktrix.wait_gone();
}

#[test]
fn a_daemon_detaches_and_is_stopped_by_name() {
    let origin = origin();
    let plan = Plan::new(&origin);
    plan.write_config();
    let config = plan.config_path().display().to_string();
    let output = plan.run(&["--daemon", &config]);
    assert!(output.status.success(), "{}", text(&output));
    let pid = fs::read_to_string(plan.cache_dir().join("ktrix.pid")).unwrap();
    let master = Seen::now(pid.trim().parse().unwrap()).expect("a running master");
    let guard = KillOnDrop(master);
    Client::connect(&plan.address).get("/a").expect_status(200).expect_body("hello");
    let again = plan.run(&["--daemon", &config]);
    assert!(!again.status.success() && text(&again).contains(pid.trim()), "{}", text(&again));
    let stop = plan.run(&["-s", "stop", &config]);
    assert!(stop.status.success(), "{}", text(&stop));
    until_true("the daemon to end", || !master.is_alive());
    drop(guard);
}

/// Ends a daemon after a failed test.
struct KillOnDrop(Seen);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.signal(Signal::SIGTERM);
    }
}

#[test]
fn ktrix_runs_without_a_file() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let Address::Ip(listen) = plan.address else { unreachable!() };
    let (listen, upstream) = (listen.to_string(), format!("http://{}", origin.name()));
    let ktrix = plan.start_with(&["--listen", &listen, "--upstream", &upstream]);
    ktrix.get("/a").expect_status(200).expect_body("hello").expect_miss();
    ktrix.get("/a").expect_status(200).expect_body("hello");
    ktrix.stop();
    let cache = plan.cache_dir().display().to_string();
    let args = ["--listen", &listen, "--upstream", &upstream, "--cache", &cache];
    let ktrix = plan.start_with(&args);
    ktrix.get("/a").expect_status(200);
    ktrix.wait_hit("/a").expect_body("hello");
    assert_eq!(plan.cache_files().len(), 1);
}

#[test]
fn the_cache_can_be_listed_shown_and_purged() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for target in ["/one", "/two"] {
        ktrix.get(target);
        ktrix.wait_hit(target);
    }
    let config = plan.config_path().display().to_string();
    let url = |target: &str| {
        let Address::Ip(ip) = plan.address else { unreachable!() };
        format!("http://{ip}{target}")
    };
    let list = plan.run(&["cache", "list", "--config", &config]);
    assert!(list.status.success(), "{}", text(&list));
    assert!(
        text(&list).contains(&url("/one")) && text(&list).contains(&url("/two")),
        "{}",
        text(&list)
    );
    let show = plan.run(&["cache", "show", &url("/one"), "--config", &config]);
    assert!(show.status.success() && text(&show).contains(&url("/one")), "{}", text(&show));
    let purge = plan.run(&["cache", "purge", &url("/one"), "--config", &config]);
    assert!(purge.status.success(), "{}", text(&purge));
    ktrix.get("/one").expect_miss();
    ktrix.get("/two").expect_hit();
    ktrix.wait_hit("/one");
    plan.verify_cache();
}

#[test]
fn the_demo_runs_and_says_what_to_try() {
    let thread = thread::spawn(|| {
        let is_own = unshare(CloneFlags::CLONE_NEWNET).is_ok()
            && Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status()
                .is_ok_and(|s| s.success());
        let origin = origin();
        let mut plan = Plan::new(&origin);
        let Address::Ip(free) = plan.address else { unreachable!() };
        let port = free.port().to_string();
        let ktrix = if is_own {
            plan.address = SocketAddr::from(([127, 0, 0, 1], 8080)).into();
            plan.start_with(&["demo"])
        } else {
            eprintln!("no network of our own here: port {port} instead of 8080");
            plan.start_with(&["demo", "--port", &port])
        };
        let printed = || fs::read_to_string(plan.dir().join("stdout")).unwrap_or_default();
        let lines = until("the lines to try", crate::support::PATIENCE, || {
            let text = printed();
            let lines: Vec<String> =
                text.lines().filter(|l| l.contains("curl ")).map(str::to_owned).collect();
            (lines.len() >= 4).then_some(lines)
        });
        for line in lines {
            let url =
                line.split_ascii_whitespace().find(|w| w.contains("http://")).unwrap_or_default();
            let url = url.trim_matches(['"', '\'']);
            let path = url.splitn(4, '/').nth(3).map_or("/".into(), |p| format!("/{p}"));
            ktrix.get(&path).expect_status(200);
        }
        until_true("a live line with a verdict", || {
            printed().lines().any(|l| l.contains("miss") && !l.contains("curl"))
        });
        ktrix.children();
        ktrix.signal(Signal::SIGINT);
        ktrix.wait_exit();
        ktrix.wait_gone();
    });
    if let Err(panic) = thread.join() {
        panic::resume_unwind(panic);
    }
}
