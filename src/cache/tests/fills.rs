//! Tests of `cache::fills`.

use super::*;
use crate::policy::key::key_of;

fn two() -> (Fills, Fills) {
    let file = tempfile::tempfile().unwrap();
    let [a, b] = [0, 1].map(|process_slot| {
        let fills = Fills::in_file(&file, 100).unwrap();
        fills.attach(process_slot).unwrap();
        fills
    });
    (a, b)
}

fn leader(lease: LeaseResult) -> FillAt {
    let LeaseResult::Leader(at) = lease else { panic!("{lease:?}") };
    at
}

#[test]
fn the_first_leads_and_the_second_follows_all_progress() {
    let (a, b) = two();
    let key = key_of(b"x");
    let at = leader(a.lease(&key, 0, 0));
    assert!(!a.has_followers(at) && a.head_ready(at, None).is_empty());
    assert_eq!(b.lease(&key, 1, 0), LeaseResult::Follow(at));
    assert!(a.has_followers(at));
    assert_eq!(b.state(at), FillState::Streaming { bytes: 0, total: None });
    assert_eq!(a.progress(at, 10), ProcessSet::one(1));
    assert_eq!(b.state(at), FillState::Streaming { bytes: 10, total: None });
    assert_eq!(b.bytes_under_way(), 10);
    let other = leader(b.lease(&key_of(b"y"), 1, 0));
    b.head_ready(other, Some(500));
    a.doom(&key_of(b"y"));
    assert_eq!(a.bytes_under_way(), 510);
    b.failed(other, 1);
    assert_eq!(a.bytes_under_way(), 10);
    a.settle(at);
    assert_eq!(b.bytes_under_way(), 0, "the index counts it");
    assert!(b.done(at).is_empty(), "only the leader leads");
    assert_eq!(a.done(at), ProcessSet::one(1));
    assert_eq!(b.state(at), FillState::Done { bytes: 10 });
    b.unfollow(at, 1);
    assert!(!a.has_followers(at));
    let next = leader(b.lease(&key, 1, 0));
    assert_ne!(next.id(), at.id());
    b.head_ready(next, Some(70));
    assert_eq!(a.bytes_under_way(), 70);
}

#[test]
fn an_old_fill_is_seen_as_gone() {
    let (a, _b) = two();
    let key = key_of(b"x");
    let first = leader(a.lease(&key, 0, 0));
    a.pass(first);
    assert_eq!(a.state(first), FillState::Pass);
    assert!(a.failed(first, 1).is_empty() && a.state(first) == FillState::Pass);
    for n in 0..10_000_u32 {
        let at = leader(a.lease(&key_of(&n.to_le_bytes()), 0, 0));
        assert_eq!(a.under_way(), [at.id()]);
        assert!(a.numbers().contains(&at.id()) && !a.numbers().contains(&(at.id() + 1)));
        a.failed(at, 1);
    }
    assert_eq!(a.state(first), FillState::Gone);
    assert!(a.progress(first, 9).is_empty());
}

#[test]
fn a_doomed_fill_gets_no_new_followers() {
    let (a, b) = two();
    let key = key_of(b"x");
    let old = leader(a.lease(&key, 0, 0));
    assert_eq!(b.lease(&key, 1, 0), LeaseResult::Follow(old));
    b.doom(&key);
    assert!(a.is_doomed(old));
    let new = leader(b.lease(&key, 1, 0));
    assert!(new != old && !b.is_doomed(new));
    assert_eq!(a.lease(&key, 0, 0), LeaseResult::Follow(new));
    assert_eq!(a.head_ready(old, Some(5)), ProcessSet::one(1), "earlier followers are still woken");
    assert_eq!(b.state(old), FillState::Streaming { bytes: 0, total: Some(5) });
    b.doom(&key_of(b"y"));
    assert!(!b.is_doomed(new));
}

#[test]
fn a_fill_beside_a_key_is_doomed_with_it() {
    let (a, b) = two();
    let key = key_of(b"x");
    let parts = [key.beside(b"0-9"), key.beside(b"10-19")];
    assert!(parts[0] != parts[1] && parts[0] != key);
    let fills = parts.map(|part| leader(a.lease(&part, 0, 0)));
    assert_eq!(b.under_way_of(&parts[0]), Some(fills[0]));
    assert_eq!(b.under_way_of(&key), None);
    b.doom(&key);
    assert!(fills.iter().all(|fill| a.is_doomed(*fill)));
    assert_eq!(b.under_way_of(&parts[0]), None, "no request joins it any more");
}

#[test]
fn a_group_that_is_full_says_so() {
    let (a, _b) = two();
    let mut n_full = 0;
    for n in 0..1000_u32 {
        n_full += usize::from(a.lease(&key_of(&n.to_le_bytes()), 0, 0) == LeaseResult::Full);
    }
    assert!(n_full >= 1000 - n_groups(100) * GROUP);
    assert!(Fills::create(usize::MAX).is_err());
    assert_eq!(
        Fills::create(1).unwrap().lease(&key_of(b"x"), 0, 0),
        LeaseResult::Full,
        "not attached"
    );
}

#[test]
fn the_fill_of_a_dead_leader_fails_and_is_led_again() {
    let (a, b) = two();
    let (x, y) = (key_of(b"x"), key_of(b"y"));
    let (at_x, at_y) = (leader(a.lease(&x, 0, 0)), leader(a.lease(&y, 0, 0)));
    assert_eq!(b.lease(&x, 1, 0), LeaseResult::Follow(at_x));
    assert_eq!(b.lease(&y, 1, 0), LeaseResult::Follow(at_y));
    assert!(a.attach(0).is_err(), "a living worker's process slot is taken");
    assert!(a.is_held(0) && !a.is_held(77));
    // As if its process had died: the row is free.
    a.owners.release(a.owner().unwrap());
    assert_eq!(b.state(at_x), FillState::Fetching);
    assert_eq!(b.state_checked(at_x), FillState::Failed { code: 0 });
    assert_eq!(b.abandon_all_of(0), ProcessSet::one(1));
    assert_eq!(b.state(at_y), FillState::Failed { code: 0 });
    assert!(b.under_way().is_empty());
    assert!(matches!(b.lease(&y, 1, 0), LeaseResult::Leader(_)));
    a.attach(0).unwrap();
    assert!(a.progress(at_x, 1).is_empty(), "its successor does not lead it");
}

#[test]
fn no_wake_is_lost_between_progress_and_follow() {
    let (a, b) = two();
    for n in 0..500_u32 {
        let key = key_of(&n.to_le_bytes());
        let at = leader(a.lease(&key, 0, 0));
        std::thread::scope(|scope| {
            let woken = scope.spawn(|| a.pass(at).iter().any(|process_slot| process_slot == 1));
            b.follow(at, 1);
            let saw = b.state(at) == FillState::Pass;
            assert!(saw | woken.join().unwrap());
        });
    }
}
