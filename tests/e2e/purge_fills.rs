//! A purge covers responses that are still being fetched, and holds under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::ktrix;
use crate::support::socket::Address;
use crate::support::{Ask, Client, Gate, Load, Origin, Plan, Response, pattern, until_true};

fn four_workers(origin: &Origin) -> Plan {
    Plan::new(origin).set("workers", "4")
}

const PURGES: [(&str, &str); 4] =
    [("Ktrix-Purge", "url"), ("Ktrix-Purge", "host"), ("Ktrix-Purge", "prefix"), ("xkey", "t")];

#[test]
fn a_fill_running_at_a_purge_is_joined_by_no_client_and_not_stored() {
    for (name, value) in PURGES {
        let gate = Gate::new();
        let held = gate.clone();
        let origin = Origin::answering(move |request| match request.number {
            0 => Response::ok("old").field("xkey", "t").cache("max-age=600").gated(&held),
            _ => Response::ok("new").field("xkey", "t").cache("max-age=600"),
        });
        let plan = four_workers(&origin);
        let ktrix = plan.start();
        let mut before = ktrix.client();
        before.send(&Ask::get("/a"));
        origin.wait_requests(1);
        ktrix.ask(&Ask::new("PURGE", "/a").field(name, value)).expect_status(200);
        let mut after: Vec<Client> = (0..12).map(|_| ktrix.client()).collect();
        for client in &mut after {
            client.send(&Ask::get("/a"));
        }
        // The answer's tag is not known before it arrives.
        if value != "t" {
            for client in &mut after {
                client.answer().expect_status(200).expect_body("new");
            }
        }
        gate.open();
        before.answer().expect_status(200);
        if value == "t" {
            for client in &mut after {
                client.answer().expect_status(200).expect_body("new");
            }
        }
        for _ in 0..16 {
            ktrix.get("/a").expect_body("new");
        }
        plan.verify_cache();
    }
}

#[test]
fn a_stream_running_at_a_purge_is_joined_by_no_client_and_not_stored() {
    const LARGE: usize = 4 << 20;
    for (name, value) in PURGES {
        let gate = Gate::new();
        let held = gate.clone();
        let (old, new): (Arc<[u8]>, Arc<[u8]>) = (pattern(LARGE).into(), pattern(LARGE - 1).into());
        let (old_sent, new_sent) = (Arc::clone(&old), Arc::clone(&new));
        let origin = Origin::answering(move |request| {
            let response = match request.number {
                0 => Response::shared(&old_sent).gated_at(1 << 20, &held),
                _ => Response::shared(&new_sent),
            };
            response.field("xkey", "t").cache("max-age=600")
        });
        let plan = four_workers(&origin);
        let ktrix = plan.start();
        let mut before = ktrix.client();
        before.send(&Ask::get("/a"));
        assert_eq!(before.answer_head().0, 200);
        ktrix.ask(&Ask::new("PURGE", "/a").field(name, value)).expect_status(200);
        let mut after: Vec<Client> = (0..8).map(|_| ktrix.client()).collect();
        for client in &mut after {
            client.send(&Ask::get("/a"));
        }
        for client in &mut after {
            client.answer().expect_status(200).expect_body(&*new);
        }
        gate.open();
        let (mut body, mut rest) = (Vec::new(), Some(()));
        while rest.is_some() {
            body.extend(before.read());
            rest = (body.len() < LARGE).then_some(());
        }
        assert!(body == *old, "who asked before the purge has it whole");
        for _ in 0..8 {
            ktrix.get("/a").expect_body(&*new);
        }
        plan.verify_cache();
    }
}

const TARGETS: [&str; 3] = ["/a", "/b?vary", "/c"];

/// How a purge is made.
enum Way<'w> {
    /// By a request to this target with this field.
    Request(&'w str, &'w str, &'w str),
    /// By the command with these words.
    Command(&'w [&'w str]),
}

impl Way<'_> {
    fn is_soft(&self) -> bool {
        match self {
            Self::Request(_, name, _) => name.contains("soft"),
            Self::Command(words) => words.contains(&"--soft"),
        }
    }
}

#[test]
fn under_load_no_answer_is_older_than_the_last_purge() {
    // The origin answers with the number of purges begun so far; for each target the test knows the
    // last finished purge that named it.
    let n_begun = Arc::new(AtomicUsize::new(0));
    let last_done: Arc<[AtomicUsize; 3]> = Arc::default();
    let said = Arc::clone(&n_begun);
    let origin = Origin::answering(move |request| {
        let response = Response::ok(said.load(Ordering::SeqCst).to_string())
            .field("Cache-Tag", "t")
            .field("Cache-Groups", "\"g\"")
            .cache("max-age=600, stale-while-revalidate=60");
        match request.target.contains("vary") {
            true => response.field("Vary", "Accept"),
            false => response,
        }
    });
    let plan = four_workers(&origin);
    let ktrix = plan.start();
    let done = Arc::clone(&last_done);
    let ask = move |client: usize, i: usize| {
        let n_done = done[i % 3].load(Ordering::SeqCst);
        Ask::get(TARGETS[i % 3])
            .field("Accept", format!("text/{}", client % 2))
            .field("User-Agent", n_done)
    };
    let load = Load::start(&plan.address, 8, ask, |ask, answer| {
        let n_done: usize = ask.agent().and_then(|it| it.parse().ok()).unwrap_or(0);
        match (answer.status, answer.text().parse::<usize>()) {
            (200, Ok(n_seen)) if n_seen >= n_done => Ok(()),
            (status, _) => Err(format!("{status} {} after {n_done} purges", answer.text())),
        }
    });
    let mut client = ktrix.client();
    let Address::Ip(ip) = plan.address else { unreachable!() };
    let (of, url) = (format!("http://{ip}"), format!("http://{ip}/a"));
    let config = plan.config_path().display().to_string();
    let all = &[0, 1, 2][..];
    let ways = [
        (all, Way::Request("/", "Ktrix-Purge", "host")),
        (all, Way::Request("/", "Cache-Tag", "t")),
        (&[1], Way::Request(TARGETS[1], "Ktrix-Purge", "url")),
        (all, Way::Command(&["--group", "g", "--of", &of])),
        (all, Way::Request("/", "Ktrix-Purge", "all")),
        (all, Way::Request("/", "xkey-softpurge", "t")),
        (all, Way::Request("/", "Cache-Groups", "\"g\"")),
        (&[0], Way::Command(&[&url])),
        (all, Way::Request("/", "Ktrix-Purge", "prefix")),
        (all, Way::Command(&["--tag", "t", "--soft"])),
    ];
    for (named, way) in ways.iter().cycle().take(6 * ways.len()) {
        let n_before = load.n_answered();
        let number = n_begun.fetch_add(1, Ordering::SeqCst) + 1;
        match way {
            Way::Request(target, name, value) => {
                client.ask(&Ask::new("PURGE", target).field(name, *value)).expect_status(200);
            }
            Way::Command(words) => {
                let words = [&["cache", "purge", "-c", &config], *words].concat();
                let output = plan.run(&words);
                assert!(output.status.success(), "{}", ktrix::text(&output));
            }
        }
        // An object that is only stale may still be served, but is revalidated.
        if !way.is_soft() {
            named.iter().for_each(|at| last_done[*at].store(number, Ordering::SeqCst));
        }
        until_true("some answers", || load.n_answered() > n_before + 30);
        until_true("answers that are not older", || {
            named.iter().all(|at| {
                let ask = Ask::get(TARGETS[*at]).field("Accept", "text/0");
                client.ask(&ask).text().parse::<usize>().unwrap() >= number
            })
        });
    }
    let report = load.stop();
    report.expect_faultless();
    assert!(report.longest < Duration::from_secs(5), "{:?}", report.longest);
    plan.verify_cache();
}
