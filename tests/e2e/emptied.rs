//! A cache directory that somebody empties, damages or replaces while ktrix runs.

use std::fs;

use nix::sys::signal::Signal;

use crate::support::process::Seen;
use crate::support::{Ktrix, Origin, Plan, Response, until_true};

fn origin() -> Origin {
    Origin::answering(|request| {
        Response::ok(format!("body of {}", request.target)).cache("max-age=600")
    })
}

/// What `rm -rf cache/*` does.
fn empty(plan: &Plan) {
    for entry in fs::read_dir(plan.cache_dir()).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }
}

/// Stores `/0` to `/9`.
fn store_ten(ktrix: &Ktrix<'_>) {
    for n in 0..10 {
        let target = format!("/{n}");
        ktrix.wait_hit(&target).expect_body(format!("body of {target}"));
    }
}

fn reload(ktrix: &Ktrix<'_>) -> Vec<Seen> {
    let before = ktrix.children();
    ktrix.signal(Signal::SIGHUP);
    until_true("the children of the new configuration", || {
        let now = ktrix.children();
        !now.is_empty() && before.iter().all(|old| !now.contains(old))
    });
    ktrix.children()
}

#[test]
fn an_emptied_directory_is_filled_again_and_opened_anew_by_a_reload() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    store_ten(&ktrix);
    empty(&plan);
    for n in 0..10 {
        let target = format!("/{n}");
        ktrix.get(&target).expect_status(200).expect_body(format!("body of {target}"));
    }
    ktrix.wait_hit("/new").expect_body("body of /new");
    assert!(!plan.cache_files().is_empty(), "what is stored lies in files again");
    reload(&ktrix);
    ktrix.wait_error("were removed or replaced while ktrix ran: it is opened anew");
    store_ten(&ktrix);
    let out = plan.run(&["cache", "list", "--config", &plan.config_path().display().to_string()]);
    let list = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success() && list.contains("/9"), "{list}");
    plan.verify_cache();
    ktrix.stop();
    plan.verify_cache();
    assert!(!plan.error_log().contains("cannot store"), "{}", plan.error_log());
}
