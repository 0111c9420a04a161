//! Inspecting the cache of a running ktrix: the output shows the stored objects, even under load,
//! and has no effect on ktrix.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::pty::openpty;

use crate::support::ktrix::{BINARY, text};
use crate::support::socket::Address;
use crate::support::{Ask, Client, Ktrix, Origin, Plan, Response, pattern};

/// Answers with the requested target, in this many bytes.
fn origin(size: usize) -> Origin {
    Origin::answering(move |r| {
        let body = [r.target.as_bytes(), &pattern(size)].concat();
        Response::ok(body).cache("max-age=600")
    })
}

/// The URL of a target, as it is stored.
fn url(plan: &Plan, target: &str) -> String {
    let Address::Ip(ip) = plan.address else { panic!("not on TCP") };
    format!("http://{ip}{target}")
}

/// Runs `ktrix cache` with these arguments, and returns its output.
#[track_caller]
fn look(plan: &Plan, args: &[&str]) -> String {
    let output = plan.run(&arguments(plan, args));
    assert!(output.status.success(), "{args:?}: {}", text(&output));
    assert!(output.stderr.is_empty(), "{args:?}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn arguments<'a>(plan: &Plan, args: &[&'a str]) -> Vec<&'a str> {
    let config: &'static str = plan.config_path().display().to_string().leak();
    [&["cache"], args, &["-c", config]].concat()
}

#[track_caller]
fn values(lines: &str) -> Vec<serde_json::Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn urls(values: &[serde_json::Value]) -> BTreeSet<String> {
    values.iter().filter_map(|value| Some(value["url"].as_str()?.to_owned())).collect()
}

fn stored(ktrix: &Ktrix<'_>, targets: &[&str]) {
    for target in targets {
        ktrix.get(target);
        ktrix.wait_hit(target);
    }
}

#[test]
fn the_list_names_the_stored_objects() {
    let origin = Origin::answering(|r| {
        let age = if r.target.starts_with("/old") { "max-age=0" } else { "max-age=600" };
        Response::ok(r.target.clone()).cache(age).field("ETag", "\"x\"")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    stored(&ktrix, &["/img/1", "/img/2?x=y", "/css/1"]);
    ktrix.get("/old/1");
    let expected = ["/img/1", "/img/2?x=y", "/css/1", "/old/1"].map(|it| url(&plan, it));
    crate::support::until_true("the fourth object", || {
        urls(&values(&look(&plan, &["list", "--json"]))).len() == 4
    });
    let of = |args: &[&str]| urls(&values(&look(&plan, &[&["list", "--json"], args].concat())));
    assert_eq!(of(&[]), BTreeSet::from(expected.clone()));
    assert_eq!(of(&["--prefix", "/img/"]), BTreeSet::from([0, 1].map(|n| expected[n].clone())));
    assert_eq!(of(&["--prefix", &expected[2]]), BTreeSet::from([expected[2].clone()]));
    assert_eq!(of(&["--stale"]), BTreeSet::from([expected[3].clone()]));
    assert_eq!(of(&["--host", "127.0.0.1"]).len(), 4);
    assert_eq!(of(&["--host", "a.example"]).len(), 0);
    let lines = look(&plan, &["list"]);
    assert!(lines.ends_with("4 objects, 16384 bytes\n"), "{lines}");
    let used = values(&look(&plan, &["du", "--by", "host", "--json"]));
    assert_eq!((&used[0]["objects"], &used[1]["disk_bytes"]), (&4.into(), &16384.into()));
    let dir = plan.cache_dir().display().to_string();
    let by_dir = plan.run(&["cache", "list", "--json", "--dir", &dir]);
    assert_eq!(urls(&values(&text(&by_dir))), BTreeSet::from(expected));
}

/// Four clients request ten times as much as fits, while another lists the cache.
#[test]
fn lists_under_load_and_eviction_are_whole() {
    let origin = origin(6000);
    let plan = Plan::new(&origin)
        .set("cache", "{path: $DIR/cache, size: 2 MiB, objects: 1000, memory: 1 MiB}");
    let ktrix = plan.start();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = SetOnDrop(&is_over);
        for n in 0..4 {
            let (address, is_over) = (plan.address.clone(), &is_over);
            scope.spawn(move || {
                let mut client = Client::connect(&address);
                for at in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    client.get(&format!("/{}", (at * 7 + n * 501) % 2000)).expect_status(200);
                }
            });
        }
        crate::support::until_true("eviction", || {
            ktrix.children();
            values(&look(&plan, &["list", "--json"])).len() > 100 && origin.n_requests() > 1000
        });
        let mut n_listed = 0;
        for _ in 0..20 {
            for value in values(&look(&plan, &["list", "--json"])) {
                assert_eq!(value["state"], "fresh", "{value}");
                assert_eq!(value["status"], 200, "{value}");
                assert!(value["url"].as_str().is_some_and(|it| it.starts_with("http://127.")));
                n_listed += 1;
            }
            look(&plan, &["verify"]);
        }
        assert!(n_listed > 1000, "{n_listed}");
    });
}

/// The hits of the object that is stored for a target and a language.
fn hits(plan: &Plan, target: &str, language: &str) -> u64 {
    let field = format!("Accept-Language: {language}");
    let shown = look(plan, &["show", &url(plan, target), "-H", &field, "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    shown[0]["hits"].as_u64().unwrap()
}

#[test]
fn hits_of_all_workers_are_counted() {
    let origin = Origin::answering(|r| {
        let response = Response::ok(pattern(5000)).cache("max-age=600").field("ETag", "\"x\"");
        match r.target == "/vary" {
            true => response.field("Vary", "Accept-Language"),
            false => response,
        }
    });
    let plan = Plan::new(&origin).set("workers", "2");
    let ktrix = plan.start();
    for (target, language) in [("/a", "de"), ("/vary", "de"), ("/vary", "en")] {
        let ask = Ask::get(target).field("Accept-Language", language);
        // The first hit ends the wait.
        crate::support::until_true("a hit", || ktrix.ask(&ask).is_hit());
        let mut n_hits = 1;
        // Each on a connection of its own, and so with either worker, with and without the alias of
        // the same bytes.
        for _ in 0..10 {
            for ask in [
                ask.clone(),
                ask.clone().field("Range", "bytes=0-9"),
                ask.clone().field("If-None-Match", "\"x\""),
                Ask::new("HEAD", target).field("Accept-Language", language),
            ] {
                let mut client = ktrix.client();
                client.ask(&ask).expect_hit();
                client.ask(&ask).expect_hit();
                n_hits += 2;
            }
        }
        crate::support::until_true("every hit to be counted", || {
            let n_counted = hits(&plan, target, language);
            assert!(n_counted <= n_hits, "{n_counted} of {n_hits}: {target} {language}");
            n_counted == n_hits
        });
    }
    let listed = values(&look(&plan, &["list", "--json"]));
    let counted: Vec<u64> = listed
        .iter()
        .filter(|it| it["state"] == "fresh")
        .map(|it| it["hits"].as_u64().unwrap())
        .collect();
    assert_eq!(counted, [81; 3]);
    let shown = look(&plan, &["show", &url(&plan, "/a")]);
    assert!(shown.contains("\nhits: 81, used since eviction last looked: yes\n"), "{shown}");
    // An object that is stored again has a count of its own.
    ktrix.ask(&Ask::get("/a").field("Cache-Control", "no-cache")).expect_status(200);
    crate::support::until_true("another count", || hits(&plan, "/a", "de") == 0);
}

/// Ends the clients of a failed test too, since its scope would wait for ever.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_variant_is_shown_and_written_out_by_its_selecting_fields() {
    let origin = Origin::answering(|r| {
        let language = r.field("accept-language").unwrap_or("none").to_owned();
        Response::ok(language).field("Vary", "Accept-Language, DNT").cache("max-age=60")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for language in ["de", "en"] {
        let ask = Ask::get("/a").field("Accept-Language", language);
        ktrix.ask(&ask);
        crate::support::until_true("a hit of this variant", || ktrix.ask(&ask).is_hit());
    }
    let name = url(&plan, "/a");
    for language in ["de", "en"] {
        let field = format!("Accept-Language: {language}");
        assert_eq!(look(&plan, &["cat", &name, "-H", &field]), language);
        let shown = look(&plan, &["show", &name, "-H", &field, "--json"]);
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown[0]["variant"][0], serde_json::json!(["accept-language", language]));
        let key = shown[0]["key"].as_str().unwrap();
        assert_eq!(look(&plan, &["cat", key]), language);
    }
    let all: serde_json::Value =
        serde_json::from_str(&look(&plan, &["show", &name, "--json"])).unwrap();
    assert_eq!(all[0]["vary"], serde_json::json!(["accept-language", "dnt"]));
    let states: Vec<_> = all.as_array().unwrap().iter().map(|it| &it["state"]).collect();
    assert_eq!(states, ["vary", "fresh", "fresh"]);
    let shown = look(&plan, &["show", &name]);
    for part in ["chosen by: accept-language, dnt\n", "variant: accept-language: de; no dnt\n"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let other = plan.run(&arguments(&plan, &["cat", &name, "-H", "Accept-Language: fr"]));
    assert_eq!(other.status.code(), Some(1));
    let why = "for this request is stored: it is chosen by accept-language, dnt";
    assert!(text(&other).contains(why), "{}", text(&other));
    let bare = plan.run(&arguments(&plan, &["cat", &name]));
    assert!(text(&bare).contains(why), "{}", text(&bare));
}

#[test]
fn shown_head_and_body_are_those_that_clients_get() {
    let origin = origin(300_000);
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    stored(&ktrix, &["/large"]);
    let output = plan.run(&arguments(&plan, &["cat", &url(&plan, "/large")]));
    assert!(output.stdout == ktrix.get("/large").body, "{} bytes", output.stdout.len());
    let shown = look(&plan, &["show", &url(&plan, "/large")]);
    let date = ktrix.get("/large").field("date").unwrap_or_default().to_owned();
    for part in ["HTTP/1.1 200 OK", "Cache-Control: max-age=600", &date, "fresh until: "] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn damage_is_named_and_never_served_or_crashed_on() {
    let origin = origin(10_000);
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    stored(&ktrix, &["/a", "/b", "/c", "/d"]);
    drop(ktrix);
    let files = plan.cache_files();
    let [cut, flipped, missing, foreign] = &files[..] else { panic!("{files:?}") };
    File::options().write(true).open(cut).unwrap().set_len(100).unwrap();
    let mut bytes = fs::read(flipped).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(flipped, bytes).unwrap();
    fs::copy(flipped, foreign).unwrap();
    fs::remove_file(missing).unwrap();
    let listed = values(&look(&plan, &["list", "--json"]));
    let mut faults: Vec<&str> = listed.iter().filter_map(|it| it["fault"].as_str()).collect();
    faults.sort_unstable();
    assert_eq!((listed.len(), faults), (4, vec!["cut", "foreign-key", "missing"]));
    for file in &files {
        let name = file.display().to_string();
        look(&plan, &["show", &name]);
        let output = plan.run(&arguments(&plan, &["cat", &name]));
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{name}");
    }
    let verified = plan.run(&arguments(&plan, &["verify"]));
    assert_eq!(verified.status.code(), Some(1));
    assert!(text(&verified).contains("4 faults"), "{}", text(&verified));
}

/// A command that wrote anything would affect the running ktrix.
#[test]
fn looking_leaves_no_trace() {
    let origin = origin(100);
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    stored(&ktrix, &["/a", "/b"]);
    let index = plan.cache_dir().join("index");
    let name = url(&plan, "/a");
    let looks = [
        &["list"][..],
        &["show", &name],
        &["cat", &name],
        &["du", "--by", "host"],
        &["du", "--by", "status"],
        &["verify"],
    ];
    // Beside an idle ktrix, and without one.
    let seen = || (fs::read(&index).unwrap(), plan.cache_files());
    let mut last = seen();
    crate::support::until_true("the writers to be at rest", || {
        let now = seen();
        let is_at_rest = now == last;
        last = now;
        is_at_rest
    });
    for args in looks {
        let before = seen();
        look(&plan, args);
        assert!(seen() == before, "{args:?} left a trace beside a running ktrix");
    }
    drop(ktrix);
    let state = || {
        let written = fs::metadata(&index).unwrap().modified().unwrap();
        (fs::read(&index).unwrap(), written, plan.cache_files())
    };
    fs::remove_dir_all(plan.cache_dir().join("tmp")).unwrap();
    let before = state();
    for args in looks {
        look(&plan, args);
        assert!(state() == before, "{args:?} left a trace");
    }
    assert!(!plan.cache_dir().join("tmp").exists());
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let origin = origin(100);
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    stored(&ktrix, &["/a"]);
    for args in [&["list"][..], &["list", "--json"], &["show", &url(&plan, "/a")], &["verify"]] {
        let mut command = Command::new(BINARY);
        command.args(arguments(&plan, args)).stdin(Stdio::null());
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start ktrix");
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output));
    }
}

#[test]
fn progress_is_for_terminals_alone() {
    let origin = origin(100);
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    stored(&ktrix, &["/a"]);
    let terminal = openpty(None, None).expect("a terminal");
    let mut command = Command::new(BINARY);
    command.args(arguments(&plan, &["verify"])).env("TERM", "xterm").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(terminal.slave);
    let child = command.spawn().expect("start ktrix");
    // The command holds the other end; its output can be read once it has ended.
    drop(command);
    let output = child.wait_with_output().unwrap();
    let mut shown = [0; 4096];
    let n = File::from(terminal.master).read(&mut shown).unwrap_or(0);
    let shown = String::from_utf8_lossy(&shown[..n]);
    assert!(shown.contains("slots"), "{shown:?}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("1 objects"), "{output:?}");
}
