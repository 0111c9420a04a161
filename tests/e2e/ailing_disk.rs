//! A disk that fails or hangs: every client still gets its answer, and hits from memory do not wait.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use crate::support::{Ask, Gate, Ktrix, Origin, Plan, Response, alone, pattern, until_true};

/// The library that has the file calls of a ktrix fail or hang, by rules.
struct Ailment {
    library: PathBuf,
    rules: PathBuf,
}

impl Ailment {
    /// The library, built for this plan.
    fn of(plan: &Plan) -> Option<Self> {
        if statfs(plan.dir()).is_ok_and(|stat| stat.filesystem_type() == TMPFS_MAGIC) {
            eprintln!("skipped: the temporary directory is in memory, which no call waits for");
            return None;
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/support/ailing_disk.c");
        let library = plan.dir().join("ailing_disk.so");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .status();
        if !built.is_ok_and(|status| status.success()) {
            eprintln!("skipped: there is no C compiler");
            return None;
        }
        let rules = plan.dir().join("rules");
        fs::write(&rules, "").unwrap();
        Some(Self { library, rules })
    }

    /// Starts a ktrix that has it.
    fn start<'p>(&self, plan: &'p Plan) -> Ktrix<'p> {
        let (library, rules) = (self.library.display(), self.rules.display());
        plan.start_after(&format!("export LD_PRELOAD={library} KTRIX_DISK_RULES={rules}"))
    }

    /// Sets the rules: an operation and what comes of it.
    fn set(&self, rules: &[(&str, &str)]) {
        let text: Vec<_> = rules.iter().map(|(name, what)| format!("{name} {what}\n")).collect();
        // In one step: it is read before each operation.
        let new = self.rules.with_extension("new");
        fs::write(&new, text.concat()).unwrap();
        fs::rename(&new, &self.rules).unwrap();
    }
}

const LARGE: usize = 1 << 20;

/// Small objects, large ones whose length is known, and large ones in chunks.
fn origin() -> Origin {
    Origin::answering(|request| {
        let body = pattern(LARGE);
        let answer = match &request.target {
            target if target.starts_with("/large") => Response::ok(body),
            target if target.starts_with("/chunked") => {
                Response::chunked(&body.chunks(50_000).collect::<Vec<_>>())
            }
            target => Response::ok(target.as_bytes()),
        };
        answer.cache("max-age=600")
    })
}

fn plan(origin: &Origin) -> Plan {
    Plan::new(origin)
        .set("workers", "1")
        .set("cache", "{path: $DIR/cache, size: 1 GiB, objects: 1000, memory: 1 MiB, scrub: 0 B}")
}

/// Asks for an object of [`origin`], and checks its body.
fn get(ktrix: &Ktrix<'_>, target: &str) -> crate::support::Answer {
    let answer = ktrix.get(target).expect_status(200);
    match target.starts_with("/large") || target.starts_with("/chunked") {
        true => answer.expect_body(pattern(LARGE)),
        false => answer.expect_body(target.as_bytes()),
    }
}

/// Stores these, and starts a ktrix that has none of them in memory.
fn start_cold<'p>(plan: &'p Plan, ailment: &Ailment, targets: &[&str]) -> Ktrix<'p> {
    let ktrix = plan.start();
    for target in targets {
        get(&ktrix, target);
        ktrix.wait_hit(target);
    }
    ktrix.stop();
    ailment.start(plan)
}

#[test]
fn hits_from_memory_do_not_wait_for_reads_that_hang() {
    for operation in ["open", "read"] {
        let origin = origin();
        let plan = plan(&origin).set("timeouts", "{disk: 60s}");
        let Some(ailment) = Ailment::of(&plan) else { return };
        let cold = ["/0", "/1", "/2", "/large"];
        let ktrix = start_cold(&plan, &ailment, &["/hot", "/0", "/1", "/2", "/large"]);
        get(&ktrix, "/hot").expect_hit();
        let n_requests = origin.n_requests();
        ailment.set(&[(operation, "hang")]);
        let mut clients = cold.map(|target| {
            let mut client = ktrix.client();
            client.send(&Ask::get(target));
            client.wait_taken();
            client
        });
        for _ in 0..20 {
            get(&ktrix, "/hot").expect_hit();
        }
        ailment.set(&[]);
        for client in &mut clients {
            client.answer().expect_status(200).expect_hit();
        }
        assert_eq!(origin.n_requests(), n_requests);
    }
}

#[test]
fn a_read_that_takes_longer_than_its_timeout_is_a_miss() {
    let origin = origin();
    let plan = plan(&origin);
    let Some(ailment) = Ailment::of(&plan) else { return };
    start_cold(&plan, &ailment, &["/0", "/1", "/large"]).stop();
    plan.put("timeouts", "{disk: 50ms}");
    let ktrix = ailment.start(&plan);
    let n_requests = origin.n_requests();
    ailment.set(&[("open", "hang")]);
    for (n, target) in ["/0", "/1", "/large"].into_iter().enumerate() {
        get(&ktrix, target).expect_miss();
        assert_eq!(origin.n_requests(), n_requests + n + 1);
    }
    let lines = wait_complaints(&plan, 1);
    assert!(lines.len() == 1 && lines[0].contains("cannot read from the cache"), "{lines:?}");
    ailment.set(&[]);
    ktrix.wait_hit("/0");
}

#[test]
fn stored_responses_that_cannot_be_read_come_from_the_origin() {
    // A disk that others keep busy is another reason to ask the origin.
    alone();
    for operation in ["open", "read"] {
        let origin = origin();
        let plan = plan(&origin);
        let Some(ailment) = Ailment::of(&plan) else { return };
        let ktrix = start_cold(&plan, &ailment, &["/0", "/large"]);
        ailment.set(&[(operation, &(Errno::EIO as i32).to_string())]);
        for target in ["/0", "/large"] {
            assert!(!get(&ktrix, target).is_hit(), "{operation} {target}");
        }
        let lines = wait_complaints(&plan, 2);
        assert!(lines.iter().all(|line| line.contains("cannot read cache file")), "{lines:?}");
        assert_eq!(lines.len(), 2, "one of each file: {lines:?}");
        ailment.set(&[]);
        // Nothing was wrong with the files.
        ktrix.wait_hit("/0");
        plan.verify_cache();
    }
}

#[test]
fn what_cannot_be_written_is_passed_on_and_said_once() {
    for operation in ["create", "write", "reserve", "rename"] {
        let origin = origin();
        let plan = plan(&origin);
        let Some(ailment) = Ailment::of(&plan) else { return };
        let ktrix = ailment.start(&plan);
        get(&ktrix, "/hot");
        ktrix.wait_hit("/hot");
        for (n, error) in [Errno::EIO, Errno::ENOSPC, Errno::EROFS].into_iter().enumerate() {
            ailment.set(&[(operation, &(error as i32).to_string())]);
            for kind in ["small", "large", "chunked"] {
                get(&ktrix, &format!("/{kind}{n}"));
                get(&ktrix, "/hot").expect_hit();
            }
        }
        let lines = wait_complaints(&plan, 1);
        let is_right = |line: &String| line.contains("cannot store in the cache");
        assert!(lines.len() == 1 && lines.iter().all(is_right), "{operation}: {lines:?}");
        ailment.set(&[]);
        get(&ktrix, "/after");
        ktrix.wait_hit("/after");
        until_true("no unfinished file", || plan.unfinished_files().is_empty());
        plan.verify_cache();
    }
}

#[test]
fn clients_do_not_wait_for_writes_that_hang() {
    for operation in ["create", "write", "rename"] {
        let origin = origin();
        let plan = plan(&origin).set("timeouts", "{disk: 60s}");
        let Some(ailment) = Ailment::of(&plan) else { return };
        let ktrix = ailment.start(&plan);
        get(&ktrix, "/hot");
        ktrix.wait_hit("/hot");
        ailment.set(&[(operation, "hang")]);
        for kind in ["small", "large", "chunked"] {
            get(&ktrix, &format!("/{kind}"));
            get(&ktrix, "/hot").expect_hit();
        }
        if operation == "create" {
            // The disk is known to be slow by now.
            get(&ktrix, "/large2");
            until_true("the reason in the access log", || {
                let lines = plan.access_lines();
                lines.iter().any(|line| line.contains("/large2") && line.contains("disk-busy"))
            });
            let lines = wait_complaints(&plan, 1);
            assert!(
                lines.len() == 1 && lines[0].contains("cannot store in the cache"),
                "{lines:?}"
            );
            let line = ktrix.wait_error("more responses were passed on unstored");
            assert!(line.contains("keeper") && line.contains(": 2 more"), "{line}");
        }
        ailment.set(&[]);
        // It is tried again when a while has passed.
        ktrix.wait_hit("/small");
        until_true("no unfinished file", || plan.unfinished_files().is_empty());
        plan.verify_cache();
    }
}

#[test]
fn clients_of_one_large_response_wait_a_moment_for_a_slow_disk_together() {
    let gate = Gate::new();
    let held = gate.clone();
    let body: Arc<[u8]> = pattern(LARGE).into();
    let origin = Origin::answering(move |request| {
        let answer = Response::shared(&body).cache("max-age=600");
        if request.target == "/shared" { answer.gated(&held) } else { answer }
    });
    let plan = plan(&origin).set("timeouts", "{disk: 60s}");
    let Some(ailment) = Ailment::of(&plan) else { return };
    let ktrix = ailment.start(&plan);
    ailment.set(&[("create", "hang")]);
    // The disk is known to be slow after this.
    get(&ktrix, "/large");
    let mut clients = [(); 4].map(|()| ktrix.client());
    for client in &mut clients {
        client.send(&Ask::get("/shared"));
        client.wait_taken();
    }
    gate.open();
    ailment.set(&[]);
    for client in &mut clients {
        client.answer().expect_status(200).expect_body(pattern(LARGE));
    }
    assert_eq!(origin.count("/shared"), 1);
}

#[test]
fn what_cannot_be_removed_is_not_served() {
    for what in [(Errno::EIO as i32).to_string(), (Errno::EROFS as i32).to_string(), "hang".into()]
    {
        let origin = origin();
        let plan = plan(&origin);
        let Some(ailment) = Ailment::of(&plan) else { return };
        let ktrix = ailment.start(&plan);
        get(&ktrix, "/0");
        ktrix.wait_hit("/0");
        ailment.set(&[("unlink", &what)]);
        ktrix.ask(&Ask::post("/0", "x")).expect_status(200);
        get(&ktrix, "/0").expect_miss();
        ailment.set(&[]);
        ktrix.wait_hit("/0");
    }
}

#[test]
fn a_stale_answer_does_not_wait_for_the_list_of_variants() {
    let origin = Origin::answering(|request| {
        let language = request.field("accept-language").unwrap_or("-").to_owned();
        Response::ok(&language)
            .field("Vary", "Accept-Language")
            .field("ETag", format!("\"{language}\""))
            .cache("max-age=0, stale-while-revalidate=600")
    });
    let plan = plan(&origin).set("timeouts", "{disk: 60s}");
    let Some(ailment) = Ailment::of(&plan) else { return };
    let ask = |language: &str| Ask::get("/v").field("Accept-Language", language);
    // No refresh comes of a request with no-store.
    let wait_stored = |ktrix: &Ktrix<'_>, language: &str| {
        let ask = ask(language).field("Cache-Control", "no-store");
        until_true("it to be stored", || ktrix.ask(&ask).expect_body(language).is_hit());
    };
    let ktrix = plan.start();
    for language in ["de", "en"] {
        ktrix.ask(&ask(language)).expect_body(language);
        wait_stored(&ktrix, language);
    }
    ktrix.stop();
    let ktrix = ailment.start(&plan);
    wait_stored(&ktrix, "de");
    let n_requests = origin.n_requests();
    ailment.set(&[("open", "hang"), ("read", "hang")]);
    ktrix.ask(&ask("de")).expect_hit().expect_body("de");
    assert_eq!(origin.n_requests(), n_requests);
    ailment.set(&[]);
    until_true("the refresh to ask about both", || origin.n_requests() > n_requests);
    let asked = origin.last().field("if-none-match").unwrap_or_default().to_owned();
    assert!(asked.contains("\"de\"") && asked.contains("\"en\""), "{asked}");
}

#[test]
fn requests_do_not_wait_for_a_log_that_hangs_and_lost_lines_are_counted() {
    let origin = origin();
    let log =
        "{access: {file: $DIR/access.log, format: json, buffer: 64 KiB}, error: $DIR/error.log}";
    let plan = plan(&origin).set("log", log);
    let Some(ailment) = Ailment::of(&plan) else { return };
    let ktrix = ailment.start(&plan);
    get(&ktrix, "/hot");
    ktrix.wait_hit("/hot");
    ailment.set(&[("log", "hang")]);
    let mut client = ktrix.client();
    for n in 0..1_000 {
        client.ask(&Ask::get("/hot").field("User-Agent", format!("n{n}"))).expect_hit();
    }
    ktrix.wait_error("the disk does not answer; lines are dropped");
    ailment.set(&[]);
    ktrix.wait_error("takes lines again");
    let report = ktrix.wait_error(" lines were dropped from ");
    let words = report.split(" lines were dropped").next().unwrap_or_default();
    let n_dropped: usize = words.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap();
    assert!((1..1_000).contains(&n_dropped), "{report}");
    until_true("all other lines", || {
        let lines = plan.access_lines();
        lines.iter().filter(|line| line.contains("\"user_agent\":\"n")).count() + n_dropped == 1_000
    });
    ktrix.stop();
}

#[test]
fn requests_do_not_wait_for_an_error_log_that_hangs() {
    let origin = origin();
    let plan = plan(&origin);
    let Some(ailment) = Ailment::of(&plan) else { return };
    let ktrix = ailment.start(&plan);
    get(&ktrix, "/hot");
    ktrix.wait_hit("/hot");
    let no_room = (Errno::ENOSPC as i32).to_string();
    ailment.set(&[("errors", "hang"), ("create", &no_room)]);
    get(&ktrix, "/0");
    for _ in 0..20 {
        get(&ktrix, "/hot").expect_hit();
    }
    assert!(complaints(&plan).is_empty());
    ailment.set(&[]);
    ktrix.wait_error("cannot store in the cache");
}

/// As [`complaints`], once there are this many: a thread writes the error log.
fn wait_complaints(plan: &Plan, n: usize) -> Vec<String> {
    until_true("lines in the error log", || complaints(plan).len() >= n);
    complaints(plan)
}

/// Warnings and errors of the worker in the error log.
fn complaints(plan: &Plan) -> Vec<String> {
    let log = plan.error_log();
    let is_one = |line: &&str| line.contains(" worker 0]: warn: ") || line.contains(": error: ");
    log.lines().filter(is_one).map(str::to_owned).collect()
}
