//! Tests of `cache::lease`.

use super::*;
use crate::cache::sample::{fill, find, lead, new_object, purge, worker_cache, worker_caches};
use crate::policy::purge::hash::PurgeKind;
use crate::policy::sample::request;
use crate::reactor;

/// Asks for the fill of what was found.
fn ask(cache: &Rc<Cache>, found: &Found) -> LeadOrFollow {
    cache.lead_or_follow(found, &found.name.key, cache.purge_epoch())
}

/// Follows the fill of what was found.
fn follow(cache: &Rc<Cache>, found: &Found) -> Follower {
    match ask(cache, found) {
        LeadOrFollow::Follow(follower) => follower,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_worker_leads_and_another_follows_to_the_end() {
    let (_dir, [one, other]) = worker_caches();
    let test = async {
        let found = find(&one, &request("GET", &[])).await;
        let lease = lead(&one, &found);
        assert!(!lease.has_followers());
        let follower = follow(&other, &found);
        assert_eq!(follower.state(), FillState::Fetching);
        assert!(lease.has_followers());
        lease.head_ready(Some(3));
        lease.progress(2);
        assert_eq!(follower.state(), FillState::Streaming { bytes: 2, total: Some(3) });
        assert_eq!(other.fill_state(&found.name.key), Some(follower.state()));
        assert!(other.shared.wakes.drain(1).unwrap(), "the follower is woken");
        lease.done();
        assert_eq!(follower.state(), FillState::Done { bytes: 2 });
        drop(lease);
        assert_eq!(follower.state(), FillState::Done { bytes: 2 }, "the end counts once");
    };
    reactor::run(test).unwrap();
}

#[test]
fn a_dropped_lease_makes_its_followers_look_again() {
    let (_dir, [one, other]) = worker_caches();
    let test = async {
        let found = find(&one, &request("GET", &[])).await;
        let lease = lead(&one, &found);
        let follower = follow(&other, &found);
        drop(lease);
        assert_eq!(follower.state(), FillState::Failed { code: 0 });
        assert!(ask(&other, &found).lead().is_some());
    };
    reactor::run(test).unwrap();
}

#[test]
fn a_worker_follows_until_its_last_follower_is_dropped() {
    let (_dir, [one, other]) = worker_caches();
    let test = async {
        let found = find(&one, &request("GET", &[])).await;
        let lease = lead(&one, &found);
        let (first, second) = (follow(&other, &found), follow(&other, &found));
        drop(first);
        assert!(lease.has_followers());
        drop(ask(&other, &found));
        assert!(lease.has_followers(), "dropping one follower leaves the others");
        drop(second);
        assert!(!lease.has_followers());
    };
    reactor::run(test).unwrap();
}

#[test]
fn a_fill_that_ended_since_the_look_up_is_not_led_again() {
    let (_dir, [one, other]) = worker_caches();
    let asked = request("GET", &[]);
    let test = async {
        let found = find(&other, &asked).await;
        fill(&one, &asked, &[], b"x").await;
        assert!(matches!(ask(&other, &found), LeadOrFollow::Changed));
        assert_eq!(other.fill_state(&found.name.key), None, "it is given up");
        let found = find(&other, &asked).await;
        assert!(ask(&other, &found).lead().is_some(), "a stored object may be renewed");
    };
    reactor::run(test).unwrap();
}

#[test]
fn a_fill_that_was_purged_is_led_again_beside() {
    let (_dir, [one, other]) = worker_caches();
    let asked = request("GET", &[]);
    let test = async {
        let found = find(&one, &asked).await;
        let late = lead(&one, &found);
        purge(&other, PurgeKind::Tag, "t", false);
        drop(follow(&other, &found));
        assert!(!late.is_doomed(), "its tags are not known yet");
        purge(&other, PurgeKind::All, "", false);
        let next = lead(&other, &found);
        assert!(late.is_doomed() && !next.is_doomed());
        assert!(matches!(ask(&one, &found), LeadOrFollow::Follow(it) if it.at == next.at));
    };
    reactor::run(test).unwrap();
}

#[test]
fn an_invalidation_dooms_running_fills_and_removes_what_they_store() {
    let (_dir, cache) = worker_cache();
    let asked = request("GET", &[]);
    let test = async {
        let found = find(&cache, &asked).await;
        let lease = lead(&cache, &found);
        let beside = cache.lease(&found.name.key.beside(b"0-9"), 0).lead().unwrap();
        cache.invalidate(&found.name.key).await;
        assert!(lease.is_doomed() && beside.is_doomed());
        let new = new_object(&lease, &found, &[]);
        lease.insert(new, b"x").await.unwrap();
        assert!(!lease.stored(&found, Ok(())));
        assert!(find(&cache, &asked).await.object().is_none());
    };
    reactor::run(test).unwrap();
}
