//! A purge covers what was asked for before it and is still on its way, and holds under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{Ask, Client, Gate, Load, Origin, Plan, Response, pattern, until_true};

fn four_workers(origin: &Origin) -> Plan {
    Plan::new(origin).set("workers", "4")
}

const PURGES: [(&str, &str); 4] =
    [("Ktrix-Purge", "url"), ("Ktrix-Purge", "host"), ("Ktrix-Purge", "prefix"), ("xkey", "t")];

#[test]
fn a_fill_that_was_running_is_joined_by_nobody_and_not_stored() {
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
        // That the answer will have the tag is not known before it comes.
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
fn a_stream_that_was_running_is_joined_by_nobody_and_not_stored() {
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

#[test]
fn under_load_no_answer_is_older_than_the_last_purge() {
    // What the origin says is how many purges had been begun when it was asked.
    let n_begun = Arc::new(AtomicUsize::new(0));
    let n_done = Arc::new(AtomicUsize::new(0));
    let said = Arc::clone(&n_begun);
    let origin = Origin::answering(move |request| {
        let response = Response::ok(said.load(Ordering::SeqCst).to_string())
            .field("Cache-Tag", "t")
            .cache("max-age=600, stale-while-revalidate=60");
        match request.target.contains("vary") {
            true => response.field("Vary", "Accept"),
            false => response,
        }
    });
    let plan = four_workers(&origin);
    let ktrix = plan.start();
    let done = Arc::clone(&n_done);
    let ask = move |client: usize, i: usize| {
        let target = ["/a", "/b?vary", "/c"][i % 3];
        let n_done = done.load(Ordering::SeqCst);
        Ask::get(target).field("Accept", format!("text/{}", client % 2)).field("User-Agent", n_done)
    };
    let load = Load::start(&plan.address, 8, ask, |ask, answer| {
        let n_done: usize = ask.agent().and_then(|it| it.parse().ok()).unwrap_or(0);
        match (answer.status, answer.text().parse::<usize>()) {
            (200, Ok(n_seen)) if n_seen >= n_done => Ok(()),
            (status, _) => Err(format!("{status} {} after {n_done} purges", answer.text())),
        }
    });
    let mut client = ktrix.client();
    let ways = [
        ("Ktrix-Purge", "host"),
        ("Cache-Tag", "t"),
        ("Ktrix-Purge", "all"),
        ("Ktrix-Purge", "prefix"),
    ];
    for n in 0..60 {
        let n_before = load.n_answered();
        n_begun.fetch_add(1, Ordering::SeqCst);
        let (name, value) = ways[n % ways.len()];
        client.ask(&Ask::new("PURGE", "/").field(name, value)).expect_status(200);
        n_done.fetch_add(1, Ordering::SeqCst);
        until_true("some answers", || load.n_answered() > n_before + 30);
    }
    let report = load.stop();
    report.expect_faultless();
    assert!(report.longest < Duration::from_secs(5), "{:?}", report.longest);
    plan.verify_cache();
}
