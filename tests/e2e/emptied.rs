//! A cache directory that is emptied, damaged or replaced while ktrix runs.

use std::fs;

use ktrix::cache::index::Index;
use nix::sys::signal::Signal;

use crate::support::ktrix::text;
use crate::support::process::Seen;
use crate::support::{Ask, Ktrix, Origin, Plan, Response, until_true};

fn origin() -> Origin {
    Origin::answering(|request| {
        Response::ok(format!("body of {}", request.target)).cache("max-age=600")
    })
}

/// The effect of `rm -rf cache/*`.
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

/// Waits for a line of the error log that the master writes when it wakes; the test wakes it more
/// often than usual.
fn wait_told(ktrix: &Ktrix<'_>, part: &str) {
    until_true(part, || {
        ktrix.signal(Signal::SIGUSR1);
        ktrix.plan.error_log().contains(part)
    });
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
fn an_emptied_directory_is_filled_again_and_reopened_by_a_reload() {
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
    ktrix.wait_error("was removed or replaced while ktrix was running; reopening the cache");
    store_ten(&ktrix);
    let out = plan.run(&["cache", "list", "--config", &plan.config_path().display().to_string()]);
    let list = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success() && list.contains("/9"), "{list}");
    plan.verify_cache();
    ktrix.stop();
    plan.verify_cache();
    assert!(!plan.error_log().contains("cannot store"), "{}", plan.error_log());
}

#[test]
fn lost_purges_and_a_lost_index_are_logged_and_no_purged_object_comes_back() {
    let origin = origin();
    let plan = Plan::new(&origin).set(
        "cache",
        "{path: $DIR/cache, size: 1 GiB, objects: 10000, memory: 16 MiB, purge: 127.0.0.1}",
    );
    let ktrix = plan.start();
    store_ten(&ktrix);
    ktrix.ask(&Ask::new("PURGE", "/0")).expect_status(200);
    ktrix.stop();
    assert!(!plan.error_log().contains("the purge file"), "a first start says nothing");
    let garbage = b"garbage".as_slice();
    for (name, found, why) in [
        ("purges", None, "was missing: earlier purges are unknown"),
        ("purges", Some(garbage), "was damaged or of another version: earlier purges are unknown"),
        ("index", None, "was missing; rebuilding it from the files"),
        ("index", Some(garbage), "was damaged or of another version; rebuilding it"),
    ] {
        let path = plan.cache_dir().join(name);
        fs::remove_file(&path).unwrap();
        if let Some(found) = found {
            fs::write(&path, found).unwrap();
        }
        let ktrix = plan.start();
        ktrix.wait_error(why);
        if name == "purges" {
            let n_before = origin.n_requests();
            for n in 0..10 {
                ktrix.get(&format!("/{n}")).expect_status(200);
            }
            assert_eq!(origin.n_requests() - n_before, 10, "all that was stored counts as purged");
        }
        store_ten(&ktrix);
        ktrix.stop();
    }
    let ktrix = plan.start();
    let n_before = origin.n_requests();
    store_ten(&ktrix);
    assert_eq!(origin.n_requests(), n_before, "what is whole loses nothing");
    assert_eq!(plan.error_log().matches("the purge file").count(), 2);
    assert_eq!(plan.error_log().matches("warn: the index of cache").count(), 2);
}

#[test]
fn an_interrupted_index_rebuild_is_continued() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    store_ten(&ktrix);
    ktrix.stop();
    fs::remove_file(plan.cache_dir().join("index")).unwrap();
    // A ktrix that stops here: its keeper has indexed no file.
    let (index, _) = Index::open(&plan.cache_dir(), 10_000).unwrap();
    index.attach().unwrap();
    assert!(index.mark_clean().unwrap());
    drop(index);
    let n_before = origin.n_requests();
    let ktrix = plan.start();
    ktrix.wait_error("continuing to rebuild the index of cache");
    ktrix.wait_error("10 files added");
    store_ten(&ktrix);
    assert_eq!(origin.n_requests(), n_before);
    ktrix.stop();
    let ktrix = plan.start();
    store_ten(&ktrix);
    assert_eq!(origin.n_requests(), n_before);
    ktrix.stop();
    assert_eq!(plan.error_log().matches("continuing to rebuild the index").count(), 1);
}

#[test]
fn a_truncated_index_costs_workers_and_is_reopened() {
    for (name, percent) in [("index", 0), ("index", 50), ("purges", 0)] {
        let origin = origin();
        let plan = Plan::new(&origin);
        let ktrix = plan.start();
        store_ten(&ktrix);
        let before = ktrix.wait_children(3);
        let path = plan.cache_dir().join(name);
        let len = fs::metadata(&path).unwrap().len();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(len / 100 * percent).unwrap();
        wait_told(&ktrix, "was truncated while in use");
        until_true("other children", || {
            let now = ktrix.children();
            now.len() == 3 && before.iter().all(|old| !now.contains(old))
        });
        store_ten(&ktrix);
        plan.verify_cache();
        assert!(ktrix.exit_status().is_none(), "the master lives");
        ktrix.stop();
        plan.verify_cache();
    }
}

#[test]
fn an_emptied_directory_is_logged_without_a_reload() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    store_ten(&ktrix);
    empty(&plan);
    wait_told(&ktrix, "reload to reopen the cache");
    wait_told(&ktrix, "restored it");
    let before = ktrix.children();
    let out = plan.run(&["-s", "reload", &plan.config_path().display().to_string()]);
    assert!(out.status.success(), "the pid file is there again: {out:?}");
    until_true("other children", || before.iter().all(|old| !ktrix.children().contains(old)));
    store_ten(&ktrix);
    plan.verify_cache();
}

#[test]
fn a_cache_directory_has_one_ktrix() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    store_ten(&ktrix);
    let dir = plan.cache_dir().display().to_string();
    let of_first = format!("{{path: \"{dir}\", size: 1 GiB, objects: 5000}}");
    let held = format!("is in use by another ktrix (pid {})", ktrix.master.pid);
    let second = Plan::new(&origin).set("cache", &of_first).set("pid", "$DIR/second.pid");
    second.write_config();
    let out = second.run(&[&second.config_path().display().to_string()]);
    let said = format!("{}{}", text(&out), second.error_log());
    assert!(!out.status.success() && said.contains(&held), "{said}");
    // Nor can a reload take it over; the reload then changes nothing.
    let own = "{path: $DIR/cache, size: 1 GiB, objects: 5000}";
    second.put("cache", own);
    let other = second.start();
    store_ten(&other);
    second.put("cache", &of_first);
    second.write_config();
    other.signal(Signal::SIGHUP);
    other.wait_error(&held);
    other.wait_error("keeping the current configuration");
    store_ten(&other);
    // It is free as soon as its master is dead.
    ktrix.signal(Signal::SIGKILL);
    ktrix.wait_exit();
    reload(&other);
    store_ten(&other);
    ktrix.wait_gone();
    other.stop();
}

#[test]
fn a_reload_to_a_cache_that_cannot_be_opened_keeps_the_one_in_use() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    store_ten(&ktrix);
    let n_before = origin.n_requests();
    plan.put("cache", "{path: /dev/null/cache}");
    plan.write_config();
    ktrix.signal(Signal::SIGHUP);
    let line = ktrix.wait_error("cannot use \"/dev/null/cache\"");
    assert!(line.ends_with("; keeping the current configuration"), "{line}");
    store_ten(&ktrix);
    assert_eq!(origin.n_requests(), n_before);
    // Another number of objects does not count as a removed file.
    plan.put("cache", "{path: $DIR/cache, objects: 5000}");
    plan.write_config();
    reload(&ktrix);
    wait_told(&ktrix, "10 files added");
    assert!(!plan.error_log().contains("removed or replaced"), "{}", plan.error_log());
}

#[test]
fn a_directory_of_another_program_is_refused_and_left_as_it_is() {
    let origin = origin();
    let plan = Plan::new(&origin);
    plan.write_config();
    let apt = plan.cache_dir().join("apt");
    fs::create_dir_all(&apt).unwrap();
    fs::write(plan.cache_dir().join("index"), "of a book").unwrap();
    let config = plan.config_path().display().to_string();
    let out = plan.run(&[&config]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out).contains("is not a cache of ktrix and not empty"), "{}", text(&out));
    assert_eq!(fs::read_to_string(plan.cache_dir().join("index")).unwrap(), "of a book");
    let mut names: Vec<_> =
        fs::read_dir(plan.cache_dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["apt", "index"]);
    // A reload to such a directory is refused too.
    plan.put("cache", "$DIR/other");
    let ktrix = plan.start();
    until_true("the marker", || plan.dir().join("other/CACHEDIR.TAG").exists());
    plan.put("cache", "$DIR/cache");
    plan.write_config();
    ktrix.signal(Signal::SIGHUP);
    let error = ktrix.wait_error("is not a cache of ktrix and not empty");
    assert!(error.contains("keeping the current configuration"), "{error}");
    ktrix.get("/0").expect_status(200);
}
