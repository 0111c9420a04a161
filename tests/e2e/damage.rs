//! A damaged cache: a flipped byte, a truncated file, a foreign file, a torn or lost index. Each is
//! a miss and a line in the log, never a wrong answer and never a crash.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use crate::support::{Origin, Plan, Response, pattern, until_true};

/// A body that contains its target.
fn body(target: &str, size: usize) -> Vec<u8> {
    [target.as_bytes(), &pattern(size)].concat()
}

fn origin(size: usize) -> Origin {
    Origin::answering(move |r| Response::ok(body(&r.target, size)).cache("max-age=600"))
}

/// The file of the object with this target: its body begins with it.
fn file_of(plan: &Plan, target: &str) -> PathBuf {
    let files = plan.cache_files();
    let start = body(target, 8);
    let found = files.iter().find(|file| {
        let bytes = fs::read(file).unwrap_or_default();
        bytes.windows(start.len()).take(4096).any(|w| w == start)
    });
    found.unwrap_or_else(|| panic!("no file for {target} in {files:?}")).clone()
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x20], at).unwrap();
}

/// Keeps the times of a file while it is changed.
fn unnoticed(path: &Path, change: impl FnOnce(&Path)) {
    let before: SystemTime = fs::metadata(path).unwrap().modified().unwrap();
    change(path);
    if let Ok(file) = File::options().write(true).open(path) {
        let _ = file.set_modified(before);
    }
}

fn n_lines(plan: &Plan, part: &str) -> usize {
    plan.error_log().lines().filter(|line| line.contains(part)).count()
}

/// The name of a damage, and the function that does it to a file.
type Damage<'a> = (&'a str, &'a dyn Fn(&Path));

/// Stores objects, stops ktrix, damages each of their files in its own way, and requests them
/// again.
fn after_damage(size: usize, damages: &[Damage<'_>]) {
    let origin = origin(size);
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for i in 0..damages.len() {
        ktrix.get(&format!("/object-{i}-")).expect_status(200);
        ktrix.wait_hit(&format!("/object-{i}-"));
    }
    ktrix.stop();
    origin.expect_requests(damages.len());
    let files: Vec<PathBuf> =
        (0..damages.len()).map(|i| file_of(&plan, &format!("/object-{i}-"))).collect();
    for (file, (_, damage)) in files.iter().zip(damages) {
        damage(file);
    }
    let ktrix = plan.start();
    for (i, (name, _)) in damages.iter().enumerate() {
        let target = format!("/object-{i}-");
        for _ in 0..3 {
            let answer = ktrix.get(&target).expect_status(200);
            assert!(answer.body == body(&target, size), "{name}: a wrong body");
        }
        assert_eq!(origin.count(&target), 2, "{name}: not a miss");
        ktrix.wait_hit(&target);
        let hex = files[i].file_name().unwrap().to_string_lossy().into_owned();
        until_true("a line in the log", || n_lines(&plan, &hex) > 0);
        let n = n_lines(&plan, &hex);
        assert_eq!(n, 1, "{name}: {n} lines in the log\n{}", plan.error_log());
    }
    plan.verify_cache();
    assert!(ktrix.workers().len() == 2);
}

#[test]
fn a_flipped_byte_is_a_miss_wherever_it_is() {
    for size in [2_000, 1_500_000] {
        let len = |path: &Path| fs::metadata(path).unwrap().len();
        after_damage(
            size,
            &[
                ("the first byte", &|p| flip(p, 0)),
                ("in the header", &|p| flip(p, 17)),
                ("in the key", &|p| flip(p, 130)),
                ("in the middle", &|p| flip(p, len(p) / 2)),
                ("in the last byte", &|p| flip(p, len(p) - 1)),
                ("in the body, unnoticed", &|p| unnoticed(p, |p| flip(p, len(p) - 100))),
            ],
        );
    }
}

#[test]
fn a_cut_or_grown_file_is_a_miss() {
    let cut = |path: &Path, len: u64| {
        File::options().write(true).open(path).unwrap().set_len(len).unwrap();
    };
    let len = |path: &Path| fs::metadata(path).unwrap().len();
    after_damage(
        20_000,
        &[
            ("empty", &|p| cut(p, 0)),
            ("ten bytes", &|p| cut(p, 10)),
            ("half", &|p| cut(p, len(p) / 2)),
            ("one byte short", &|p| cut(p, len(p) - 1)),
            ("half, unnoticed", &|p| unnoticed(p, |p| cut(p, len(p) / 2))),
            ("zeros behind", &|p| cut(p, len(p) + (1 << 20))),
        ],
    );
}

#[test]
fn an_object_that_is_no_plain_file_is_a_miss_without_a_wait() {
    let replace = |path: &Path, make: &dyn Fn(&Path)| {
        fs::remove_file(path).unwrap();
        make(path);
    };
    let origin = origin(5_000);
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for i in 0..4 {
        ktrix.get(&format!("/object-{i}-"));
        ktrix.wait_hit(&format!("/object-{i}-"));
    }
    ktrix.stop();
    let file = |i| file_of(&plan, &format!("/object-{i}-"));
    let files: Vec<PathBuf> = (0..4).map(file).collect();
    replace(&files[0], &|_| ());
    replace(&files[1], &|p| fs::create_dir(p).unwrap());
    replace(&files[2], &|p| assert!(Command::new("mkfifo").arg(p).status().unwrap().success()));
    replace(&files[3], &|p| std::os::unix::fs::symlink("/dev/zero", p).unwrap());
    let ktrix = plan.start();
    for i in 0..4 {
        let target = format!("/object-{i}-");
        ktrix.get(&target).expect_status(200).expect_body(body(&target, 5_000));
        ktrix.get(&target).expect_status(200).expect_body(body(&target, 5_000));
    }
    assert_eq!(ktrix.workers().len(), 2);
}

#[test]
fn a_foreign_file_under_a_keys_name_is_a_miss() {
    let origin = origin(5_000);
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for target in ["/one", "/two"] {
        ktrix.get(target);
        ktrix.wait_hit(target);
    }
    ktrix.stop();
    let (one, two) = (file_of(&plan, "/one"), file_of(&plan, "/two"));
    fs::copy(&one, &two).unwrap();
    let ktrix = plan.start();
    for target in ["/two", "/two", "/one"] {
        ktrix.get(target).expect_status(200).expect_body(body(target, 5_000));
    }
    assert_eq!((origin.count("/one"), origin.count("/two")), (1, 2));
}

#[test]
fn damage_while_ktrix_runs_is_noticed_too() {
    let size = 3 << 20;
    let origin = origin(size);
    let plan = Plan::new(&origin).set("cache", "{path: $DIR/cache, memory: 1 MiB}");
    let ktrix = plan.start();
    ktrix.get("/object");
    ktrix.wait_hit("/object");
    let file = file_of(&plan, "/object");
    flip(&file, size as u64 / 2);
    for _ in 0..3 {
        ktrix.get("/object").expect_status(200).expect_body(body("/object", size));
    }
    ktrix.wait_hit("/object");
    fs::remove_file(file_of(&plan, "/object")).unwrap();
    for _ in 0..3 {
        ktrix.get("/object").expect_status(200).expect_body(body("/object", size));
    }
}

/// Stores objects, stops ktrix, damages the index, and requests the objects again.
fn after_index_damage(damage: impl Fn(&Path)) {
    let mut origin = origin(5_000);
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let targets: Vec<String> = (0..30).map(|i| format!("/object-{i}-")).collect();
    for target in &targets {
        ktrix.get(target);
        ktrix.wait_hit(target);
    }
    ktrix.stop();
    damage(&plan.cache_dir().join("index"));
    let ktrix = plan.start();
    for target in &targets {
        ktrix.get(target).expect_status(200).expect_body(body(target, 5_000));
    }
    for target in &targets {
        ktrix.wait_hit(target);
    }
    origin.stop();
    for target in &targets {
        ktrix.get(target).expect_hit().expect_body(body(target, 5_000));
    }
    plan.verify_cache();
    assert_eq!(ktrix.workers().len(), 2);
}

#[test]
fn a_torn_index_is_repaired_or_rebuilt() {
    after_index_damage(|index| {
        let len = fs::metadata(index).unwrap().len();
        let file = File::options().write(true).open(index).unwrap();
        // Every fourth page is noise.
        for at in (4096..len.saturating_sub(4096)).step_by(16_384) {
            file.write_all_at(&pattern(4096), at).unwrap();
        }
    });
    after_index_damage(|index| {
        let file = File::options().write(true).open(index).unwrap();
        file.write_all_at(&pattern(4096), 0).unwrap();
    });
    after_index_damage(|index| {
        let len = fs::metadata(index).unwrap().len();
        File::options().write(true).open(index).unwrap().set_len(len / 2).unwrap();
    });
    after_index_damage(|index| fs::write(index, b"").unwrap());
}

#[test]
fn a_lost_index_is_rebuilt_from_the_files() {
    let mut origin = origin(5_000);
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for i in 0..30 {
        ktrix.get(&format!("/object-{i}-"));
        ktrix.wait_hit(&format!("/object-{i}-"));
    }
    ktrix.stop();
    fs::remove_file(plan.cache_dir().join("index")).unwrap();
    origin.stop();
    let ktrix = plan.start();
    for i in 0..30 {
        let target = format!("/object-{i}-");
        until_true("the object to be found again", || ktrix.get(&target).is_hit());
        ktrix.get(&target).expect_status(200).expect_hit().expect_body(body(&target, 5_000));
    }
    plan.verify_cache();
}

#[test]
fn verify_names_damaged_objects() {
    let origin = origin(5_000);
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/object");
    ktrix.wait_hit("/object");
    plan.verify_cache();
    ktrix.stop();
    let file = file_of(&plan, "/object");
    flip(&file, 3_000);
    let config = plan.config_path().display().to_string();
    let output = plan.run(&["cache", "verify", "--config", &config]);
    let text = crate::support::ktrix::text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let hex = file.file_name().unwrap().to_string_lossy().into_owned();
    assert!(text.contains(&hex), "{hex} in {text}");
}

#[test]
fn the_scrub_finds_damage_before_a_request() {
    let origin = Origin::answering(|_| Response::ok(pattern(20_000)).cache("max-age=600"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for target in ["/a", "/b"] {
        ktrix.get(target).expect_status(200);
        ktrix.wait_hit(target);
    }
    ktrix.stop();
    let files = plan.cache_files();
    let file = File::options().write(true).open(&files[0]).unwrap();
    file.write_all_at(b"?", 15_000).unwrap();
    let ktrix = plan.start();
    ktrix.wait_error("removed by the scrub");
    assert!(!files[0].exists() && files[1].exists());
    let answers = ["/a", "/b"].map(|target| ktrix.get(target).expect_body(pattern(20_000)));
    assert_eq!(answers.iter().filter(|answer| answer.is_hit()).count(), 1);
    ktrix.wait_error("not usable");
    assert_eq!(plan.error_log().matches("not usable").count(), 1);
}
