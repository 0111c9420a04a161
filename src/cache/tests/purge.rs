//! Tests of `cache::purge`.

use super::*;
use crate::cache::purge::bucket::Cause;
use crate::policy::key::host::NamedHost;
use crate::policy::purge::prefix::prefix_text;
use proptest::prelude::*;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

fn purges(n_buckets: usize) -> (tempfile::TempDir, Purges) {
    let dir = tempfile::tempdir().unwrap();
    let (purges, is_new) = Purges::open_with(dir.path(), n_buckets).unwrap();
    assert!(is_new);
    (dir, purges)
}

fn order(kind: PurgeKind, text: &str) -> Order {
    let text = match kind {
        PurgeKind::Prefix => prefix_text(text.as_bytes()).unwrap(),
        PurgeKind::Host => NamedHost::parse(text.as_bytes()).unwrap().text(),
        _ => text.as_bytes().to_vec(),
    };
    let name = String::from_utf8_lossy(&text).into_owned();
    Order { kind, text, is_soft: false, name, who: "test".to_owned() }
}

fn soft(kind: PurgeKind, text: &str) -> Order {
    Order { is_soft: true, ..order(kind, text) }
}

/// A stored response, asked for now.
fn stored(purges: &Purges, tags: &[&str]) -> SurrogateKeys {
    let mut tags: Vec<u64> =
        tags.iter().map(|tag| PurgeHash::of(PurgeKind::Tag, tag.as_bytes()).0).collect();
    tags.sort_unstable();
    SurrogateKeys { purge_epoch: purges.purge_epoch(), tags: tags.into(), is_cut: false }
}

const PAGE: &str = "GET http://a.example/x/page?q";

fn purge_status(purges: &Purges, text: &str, surrogates: &SurrogateKeys) -> PurgeStatus {
    purges.purge_status(text.as_bytes(), surrogates)
}

#[test]
fn each_kind_names_earlier_responses_and_no_later_ones() {
    let cases = [
        (order(PurgeKind::All, ""), true),
        (order(PurgeKind::Host, "A.example"), true),
        (order(PurgeKind::Host, "b.example"), false),
        (order(PurgeKind::Prefix, "http://a.example/x/"), true),
        (order(PurgeKind::Prefix, "http://a.example/y"), false),
        (order(PurgeKind::Tag, "news"), true),
        (order(PurgeKind::Tag, "sports"), false),
        (order(PurgeKind::Url, PAGE), true),
        (order(PurgeKind::Url, "GET http://a.example/x/page"), false),
    ];
    let (_dir, purges) = purges(64);
    for (order, names) in cases {
        let before = stored(&purges, &["news"]);
        let version = purges.version();
        let number = purges.purge(&order, 5).unwrap();
        assert_ne!(purges.version(), version);
        let expected = if names { PurgeStatus::Purged } else { PurgeStatus::Valid };
        assert_eq!(purge_status(&purges, PAGE, &before), expected, "{order:?}");
        let variant = format!("{PAGE}\naccept:x\n#1");
        assert_eq!(purge_status(&purges, &variant, &before), expected, "{order:?}");
        let after = stored(&purges, &["news"]);
        assert_eq!(purge_status(&purges, PAGE, &after), PurgeStatus::Valid, "{order:?}");
        assert_eq!(purges.records()[0].number, number);
    }
}

#[test]
fn the_causes_of_a_status_are_listed() {
    let (dir, purges) = purges(64);
    let before = stored(&purges, &["a", "b"]);
    let reader = cause::Reader::open(dir.path()).unwrap();
    let causes = |surrogates: &SurrogateKeys| reader.causes(PAGE.as_bytes(), surrogates);
    assert_eq!(causes(&before), []);
    purges.purge(&soft(PurgeKind::Tag, "a"), 50).unwrap();
    purges.purge(&order(PurgeKind::Tag, "c"), 55).unwrap();
    let after = stored(&purges, &["a", "b"]);
    let unsigned = Order { who: String::new(), ..order(PurgeKind::Url, PAGE) };
    let url = purges.purge(&unsigned, 60).unwrap();
    let cause = |number, kind, is_soft, time_s, name: &str, who: &str| {
        let (kind, name, who) = (Some(kind), name.to_owned(), who.to_owned());
        Cause { number, kind, is_soft, time_s, name, who }
    };
    let tagged = cause(1, PurgeKind::Tag, true, 50, "a", "test");
    let named = cause(url, PurgeKind::Url, false, 60, "", "");
    assert_eq!(causes(&before), [tagged, named.clone()]);
    assert_eq!(causes(&after), [named]);
    let foreign = SurrogateKeys { purge_epoch: before.purge_epoch + (1 << NUMBER_BITS), ..before };
    assert_eq!(causes(&foreign), []);
}

#[test]
fn a_soft_purge_makes_stale_and_a_hard_one_outweighs_it() {
    let (_dir, purges) = purges(64);
    let surrogates = stored(&purges, &["a", "b"]);
    purges.purge(&soft(PurgeKind::Tag, "a"), 50).unwrap();
    purges.purge(&soft(PurgeKind::Tag, "b"), 40).unwrap();
    assert_eq!(purge_status(&purges, PAGE, &surrogates), PurgeStatus::Stale(40));
    purges.purge(&order(PurgeKind::Tag, "b"), 60).unwrap();
    assert_eq!(purge_status(&purges, PAGE, &surrogates), PurgeStatus::Purged);
}

#[test]
fn undoing_one_purge_restores_what_it_named_and_no_more() {
    let (_dir, purges) = purges(64);
    let old = stored(&purges, &[]);
    let first = purges.purge(&order(PurgeKind::Url, PAGE), 1).unwrap();
    let young = stored(&purges, &[]);
    let second = purges.purge(&order(PurgeKind::Url, PAGE), 2).unwrap();
    let host = purges.purge(&order(PurgeKind::Host, "a.example"), 3).unwrap();
    assert_eq!(purges.undo(first, "me", 9), Err(PurgeError::Covered(second)));
    purges.undo(second, "me", 9).unwrap();
    assert_eq!(purge_status(&purges, PAGE, &young), PurgeStatus::Purged, "by its host");
    purges.undo(host, "me", 9).unwrap();
    assert_eq!(purge_status(&purges, PAGE, &young), PurgeStatus::Valid);
    assert_eq!(purge_status(&purges, PAGE, &old), PurgeStatus::Purged, "the first is in force");
    purges.undo(first, "me", 9).unwrap();
    assert_eq!(purge_status(&purges, PAGE, &old), PurgeStatus::Valid);
    assert_eq!(purges.undo(second, "me", 9), Err(PurgeError::Undone));
    assert_eq!(purges.undo(99, "me", 9), Err(PurgeError::Unknown));
    assert!(purges.records().iter().filter(|record| record.is_undone).count() == 3);
    let undoing = purges.records()[0].clone();
    assert_eq!((undoing.undoes, undoing.time_s, &*undoing.who), (Some(first), 9, "me"));
    assert_eq!(purges.undo(undoing.number, "me", 9), Err(PurgeError::Unknown));
}

#[test]
fn a_response_is_stale_since_the_earliest_soft_purge() {
    let (_dir, purges) = purges(1);
    let surrogates = stored(&purges, &[]);
    purges.purge(&soft(PurgeKind::Url, PAGE), 10).unwrap();
    let second = purges.purge(&soft(PurgeKind::Url, PAGE), 50).unwrap();
    assert_eq!(purge_status(&purges, PAGE, &surrogates), PurgeStatus::Stale(50));
    purges.undo(second, "me", 60).unwrap();
    assert_eq!(purge_status(&purges, PAGE, &surrogates), PurgeStatus::Stale(10));
}

#[test]
fn a_purge_that_covers_a_forgotten_one_cannot_be_undone() {
    let (_dir, purges) = purges(1);
    let surrogates = stored(&purges, &[]);
    let numbers: Vec<u64> =
        (0..3).map(|n| purges.purge(&order(PurgeKind::Url, PAGE), n).unwrap()).collect();
    purges.undo(numbers[2], "me", 9).unwrap();
    assert_eq!(purges.undo(numbers[1], "me", 9), Err(PurgeError::Folded));
    assert_eq!(purge_status(&purges, PAGE, &surrogates), PurgeStatus::Purged);
}

#[test]
fn undoing_never_restores_what_an_earlier_purge_named() {
    let (_dir, purges) = purges(1);
    let surrogates = stored(&purges, &[]);
    let numbers: Vec<u64> =
        (0..4).map(|n| purges.purge(&order(PurgeKind::Url, PAGE), n).unwrap()).collect();
    for number in numbers.into_iter().rev() {
        let _ = purges.undo(number, "me", 9);
        assert_eq!(purge_status(&purges, PAGE, &surrogates), PurgeStatus::Purged);
    }
}

#[test]
fn a_full_bucket_loses_precision_and_never_a_purge() {
    let (_dir, purges) = purges(1);
    let surrogates = stored(&purges, &[]);
    purges.purge(&soft(PurgeKind::Url, PAGE), 1).unwrap();
    for n in 0..20 {
        purges.purge(&order(PurgeKind::Tag, &n.to_string()), 1).unwrap();
    }
    assert!(purges.parts.buckets[0].floor().is_some());
    assert_eq!(purge_status(&purges, PAGE, &surrogates), PurgeStatus::Purged);
    assert_eq!(purges.undo(1, "me", 9), Err(PurgeError::Folded));
    let surrogates = stored(&purges, &[]);
    purges.purge(&order(PurgeKind::Tag, "x"), 1).unwrap();
    assert_eq!(purge_status(&purges, PAGE, &surrogates), PurgeStatus::Valid);
}

#[test]
fn a_response_with_too_many_tags_is_named_by_every_tag() {
    let (_dir, purges) = purges(64);
    let surrogates = SurrogateKeys { is_cut: true, ..stored(&purges, &[]) };
    purges.purge(&order(PurgeKind::Url, "GET http://b/"), 1).unwrap();
    assert_eq!(purge_status(&purges, PAGE, &surrogates), PurgeStatus::Valid);
    purges.purge(&order(PurgeKind::Tag, "any"), 1).unwrap();
    assert_eq!(purge_status(&purges, PAGE, &surrogates), PurgeStatus::Purged);
}

#[test]
fn prefixes_of_too_many_lengths_name_more_and_not_less() {
    let (_dir, purges) = purges(256);
    let url = |n: usize| format!("http://a.example/{}", "x".repeat(n));
    for n in 0..80 {
        let surrogates = stored(&purges, &[]);
        purges.purge(&order(PurgeKind::Prefix, &url(n)), 1).unwrap();
        let page = format!("GET {}y", url(n));
        assert_eq!(purge_status(&purges, &page, &surrogates), PurgeStatus::Purged, "{n}");
    }
    assert!(purges.n_lengths() <= LENGTHS_MAX);
    let surrogates = stored(&purges, &[]);
    purges.purge(&order(PurgeKind::Prefix, &url(5000)), 1).unwrap();
    let host = "b".repeat(300);
    purges.purge(&order(PurgeKind::Prefix, &format!("http://{host}/x")), 1).unwrap();
    assert_eq!(
        purge_status(&purges, &format!("GET {}", url(6000)), &surrogates),
        PurgeStatus::Purged
    );
    assert_eq!(
        purge_status(&purges, &format!("GET http://{host}/"), &surrogates),
        PurgeStatus::Purged
    );
}

#[test]
fn a_prefix_that_was_merged_into_a_floor_stays_in_force() {
    let (_dir, purges) = purges(4096);
    let surrogates = stored(&purges, &[]);
    let prefix = order(PurgeKind::Prefix, "http://a.example/x/");
    purges.purge(&prefix, 1).unwrap();
    let bucket = purges.bucket(PurgeHash::of(PurgeKind::Prefix, &prefix.text));
    let mut names = (0..).map(|n: u32| n.to_string());
    while bucket.floor().is_none() {
        let name = names.next().unwrap();
        if std::ptr::eq(bucket, purges.bucket(PurgeHash::of(PurgeKind::Tag, name.as_bytes()))) {
            purges.purge(&order(PurgeKind::Tag, &name), 1).unwrap();
        }
    }
    for n in 0..80 {
        let url = format!("http://b.example/{}", "x".repeat(30 + n));
        purges.purge(&order(PurgeKind::Prefix, &url), 1).unwrap();
    }
    assert_eq!(purge_status(&purges, PAGE, &surrogates), PurgeStatus::Purged);
}

#[test]
fn purges_outlive_a_restart_and_a_lost_file_purges_everything() {
    let (dir, purges) = purges(64);
    let surrogates = stored(&purges, &[]);
    let other = stored(&purges, &[]);
    purges.purge(&order(PurgeKind::Url, PAGE), 1).unwrap();
    drop(purges);
    let (purges, is_new) = Purges::open(dir.path()).unwrap();
    assert!(!is_new);
    assert_eq!(purge_status(&purges, PAGE, &surrogates), PurgeStatus::Purged);
    assert_eq!(purge_status(&purges, "GET http://b/", &other), PurgeStatus::Valid);
    drop(purges);
    std::fs::remove_file(dir.path().join(file::FILE_NAME)).unwrap();
    assert!(Purges::open_existing(dir.path()).is_err());
    let (purges, is_new) = Purges::open(dir.path()).unwrap();
    assert!(is_new);
    assert_eq!(purge_status(&purges, "GET http://b/", &other), PurgeStatus::Purged);
    assert_eq!(purge_status(&purges, PAGE, &SurrogateKeys::default()), PurgeStatus::Purged);
    let ahead = SurrogateKeys::untagged(purges.purge_epoch() + 1);
    assert_eq!(purge_status(&purges, PAGE, &ahead), PurgeStatus::Purged, "of a later table");
}

#[test]
fn no_number_is_given_again_after_a_loss_of_power() {
    for is_command_first in [false, true] {
        let (dir, purges) = purges(64);
        let path = dir.path().join(file::FILE_NAME);
        let on_disk = std::fs::read(&path).unwrap();
        for n in 0..9 {
            purges.purge(&order(PurgeKind::Tag, &n.to_string()), 1).unwrap();
        }
        // The file of a response is on the disk, but the later table is not.
        let surrogates = stored(&purges, &[]);
        drop(purges);
        std::fs::write(&path, &on_disk).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&7_u64.to_le_bytes(), file::BOOT_AT).unwrap();
        let purges = match is_command_first {
            true => Purges::open_existing(dir.path()).unwrap(),
            false => Purges::open(dir.path()).unwrap().0,
        };
        assert_eq!(purge_status(&purges, PAGE, &surrogates), PurgeStatus::Valid);
        assert_eq!(purges.purge(&order(PurgeKind::Url, PAGE), 1), Ok(repair::JUMP + 1));
        for n in 0..9 {
            assert_eq!(purge_status(&purges, PAGE, &surrogates), PurgeStatus::Purged);
            purges.purge(&order(PurgeKind::Tag, &n.to_string()), 1).unwrap();
        }
        drop(purges);
        let (purges, _) = Purges::open(dir.path()).unwrap();
        assert_eq!(purge_status(&purges, PAGE, &surrogates), PurgeStatus::Purged);
        assert_eq!(purges.count(), repair::JUMP + 10, "once for each start of the machine");
    }
}

#[test]
fn every_flipped_bit_purges_too_much_and_never_too_little() {
    let (dir, purges) = purges(1);
    let surrogates = stored(&purges, &[]);
    purges.purge(&order(PurgeKind::Url, PAGE), 1).unwrap();
    for n in 0..9 {
        purges.purge(&order(PurgeKind::Tag, &n.to_string()), 1).unwrap();
    }
    drop(purges);
    let path = dir.path().join(file::FILE_NAME);
    let whole = std::fs::read(&path).unwrap();
    let end = whole.len();
    for at in (0..512).chain(end - 256..end) {
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[whole[at] ^ 1 << (at % 8)], at as u64).unwrap();
        let (purges, is_new) = Purges::open_with(dir.path(), 1).unwrap();
        assert_eq!(purge_status(&purges, PAGE, &surrogates), PurgeStatus::Purged, "byte {at}");
        purges.repair();
        assert_eq!(
            purge_status(&purges, PAGE, &surrogates),
            PurgeStatus::Purged,
            "byte {at}, repaired"
        );
        if !is_new {
            let young = stored(&purges, &[]);
            purges.purge(&order(PurgeKind::Tag, "other"), 1).unwrap();
            assert_eq!(purge_status(&purges, PAGE, &young), PurgeStatus::Valid, "byte {at}");
            let many = SurrogateKeys { is_cut: true, ..stored(&purges, &[]) };
            assert_eq!(purge_status(&purges, PAGE, &many), PurgeStatus::Valid, "byte {at}");
            purges.purge(&order(PurgeKind::Url, PAGE), 1).unwrap();
            assert_eq!(purge_status(&purges, PAGE, &young), PurgeStatus::Purged, "byte {at}");
        }
        drop(purges);
        std::fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn new_records_are_logged_once() {
    let (_dir, purges) = purges(4);
    purges.purge(&order(PurgeKind::Tag, "a"), 1).unwrap();
    purges.purge(&Order { who: String::new(), ..order(PurgeKind::Tag, "b") }, 1).unwrap();
    purges.purge(&order(PurgeKind::Tag, "c"), 1).unwrap();
    purges.undo(1, "me", 9).unwrap();
    let mut names = Vec::new();
    purges.each_unlogged(|record| names.push((record.name.clone(), record.undoes)));
    let name = |text: &str| text.to_owned();
    assert_eq!(names, [(name("a"), None), (name("c"), None), (name("a"), Some(1))]);
    purges.each_unlogged(|record| panic!("{record:?}"));
    purges.sync().unwrap();
}

#[test]
fn an_unlogged_record_that_is_overwritten_is_logged_after_the_lock_is_free() {
    use std::cell::RefCell;
    thread_local! {
        static TOLD: RefCell<Vec<(String, bool)>> = RefCell::default();
        static OTHER: RefCell<Option<Purges>> = const { RefCell::new(None) };
    }
    let (dir, purges) = purges(4);
    OTHER.set(Some(Purges::open_existing(dir.path()).unwrap()));
    let purges = purges.telling(|record| {
        let is_free = |other: &Purges| other.header().lock.load(Ordering::Acquire) == 0;
        let is_free = OTHER.with_borrow(|other| other.as_ref().is_some_and(is_free));
        TOLD.with_borrow_mut(|told| told.push((record.to_string(), is_free)));
    });
    let purge = |name: &str| purges.purge(&order(PurgeKind::Tag, name), 1).unwrap();
    purge("logged");
    purges.each_unlogged(|_| {});
    (0..RECORDS - 1).for_each(|n| _ = purge(&n.to_string()));
    purge("a");
    assert_eq!(TOLD.take(), vec![], "it was logged");
    purge("b");
    purges.undo(RECORDS as u64, "me", 1).unwrap();
    let told = |text: &str| (text.to_owned(), true);
    let expected = ["purge 2 of tag \"0\", by test", "purge 3 of tag \"1\", by test"].map(told);
    assert_eq!(TOLD.take(), expected);
}

#[test]
fn threads_that_purge_at_once_lose_none() {
    let (_dir, purges) = purges(1);
    let purges = &purges;
    std::thread::scope(|scope| {
        for thread in 0..3 {
            scope.spawn(move || {
                for n in 0..300 {
                    let text = format!("GET http://{thread}/{}", n % 5);
                    let surrogates = stored(purges, &[]);
                    purges.purge(&order(PurgeKind::Url, &text), n).unwrap();
                    assert_eq!(purge_status(purges, &text, &surrogates), PurgeStatus::Purged);
                }
            });
        }
    });
    assert_eq!(purges.count(), 900);
}

/// A step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Purge(PurgeKind, u8, bool),
    Store(u8),
    Undo(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop_oneof![Just(PurgeKind::Url), Just(PurgeKind::Tag), Just(PurgeKind::Host)];
    let step = prop_oneof![
        3 => (kind, 0..4_u8, any::<bool>()).prop_map(|(kind, n, soft)| Step::Purge(kind, n, soft)),
        3 => (0..4_u8).prop_map(Step::Store),
        1 => (1..20_u8).prop_map(Step::Undo),
    ];
    proptest::collection::vec(step, 0..40)
}

fn name(kind: PurgeKind, n: u8) -> String {
    match kind {
        PurgeKind::Url => format!("GET http://{n}/"),
        _ => n.to_string(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Compared with a plain list: a small table may purge more, and no table less.
    #[test]
    fn nothing_that_was_purged_counts(steps in steps(), small: bool) {
        let (_dir, purges) = purges(if small { 1 } else { 512 });
        let mut history: Vec<(u64, PurgeKind, u8, bool)> = Vec::new();
        let mut objects: Vec<(u8, SurrogateKeys)> = Vec::new();
        for step in steps {
            match step {
                Step::Purge(kind, n, is_soft) => {
                    let order = Order { is_soft, ..order(kind, &name(kind, n)) };
                    history.push((purges.purge(&order, 7).unwrap(), kind, n, is_soft));
                }
                Step::Store(n) => objects.push((n, stored(&purges, &[&n.to_string()]))),
                Step::Undo(number) => {
                    if purges.undo(u64::from(number), "me", 9).is_ok() {
                        history.retain(|(its, ..)| *its != u64::from(number));
                    }
                }
            }
            for (n, surrogates) in &objects {
                let asked = surrogates.purge_epoch & NUMBER_MAX;
                let named = history.iter().filter(|(number, _, of, _)| *number > asked && of == n);
                let expected = named.fold(PurgeStatus::Valid, |purge_status, (_, _, _, is_soft)| {
                    purge_status.with(if *is_soft { PurgeStatus::Stale(7) } else { PurgeStatus::Purged })
                });
                let found = purge_status(&purges, &name(PurgeKind::Url, *n), surrogates);
                match small {
                    true => prop_assert_eq!(found.with(expected), found),
                    false => prop_assert_eq!(found, expected),
                }
            }
        }
    }
}
