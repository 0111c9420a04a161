//! Tests of `cache::lookup`.

use super::*;
use crate::cache::index::slot::NewSlot;
use crate::cache::place::tests as cached;
use crate::cache::sample::{fill, find, primary, purge, worker_cache, worker_caches};
use crate::http::fields::Fields;
use crate::http::scheme::Scheme;
use crate::http::status::Status;
use crate::policy::decide::Cached;
use crate::policy::key::vary::VaryNames;
use crate::policy::purge::hash::PurgeKind;
use crate::policy::rfc9111::freshness::Lifetimes;
use crate::policy::sample::request;

const TEXT: &str = "GET http://example.org/";

fn found(lookup: Lookup) -> Found {
    let name = Name::of(TEXT.as_bytes());
    Found { primary: name.clone(), name, marker: None, lookup }
}

/// Publishes a slot under [`TEXT`], as a fill does at its end.
fn publish(cache: &Cache, state: State, fresh_until_s: u64) -> SlotRef {
    let slot = NewSlot { state, fresh_until_s, ..cached::slot(TEXT) };
    let published = cache.shared.index.publish(&slot).unwrap();
    published.slot
}

fn object(cache: &Cache, slot: Option<SlotRef>) -> Lookup {
    let key = Name::of(TEXT.as_bytes()).key;
    let surrogates = SurrogateKeys::untagged(cache.purge_epoch());
    let (lifetimes, fields) = (Lifetimes { surrogates, ..Lifetimes::default() }, Fields::new());
    let object = HotObject::in_memory(key, slot, Status(200), lifetimes, fields, b"x");
    Lookup::Stored(Rc::new(object))
}

#[test]
fn a_fill_that_ended_after_a_miss_is_noticed() {
    let (_dir, cache) = worker_cache();
    let hour_on_s = reactor::now().unix_s() + 3600;
    assert!(!cache.has_changed(&found(Lookup::NOTHING)), "there still is nothing");
    for state in [State::Ready, State::Vary] {
        publish(&cache, state, 2);
        assert!(cache.has_changed(&found(Lookup::NOTHING)), "{state:?}, stale or not");
    }
    publish(&cache, State::Pass, hour_on_s);
    assert!(cache.has_changed(&found(Lookup::NOTHING)), "no request waits for it any more");
    publish(&cache, State::Pass, 2);
    assert!(!cache.has_changed(&found(Lookup::NOTHING)), "an expired hit-for-miss is a miss");
}

#[test]
fn a_fill_that_replaced_the_found_object_is_noticed() {
    let (_dir, cache) = worker_cache();
    let first = found(object(&cache, Some(publish(&cache, State::Ready, 2))));
    assert!(!cache.has_changed(&first), "what was found is still there");
    let second = found(object(&cache, Some(publish(&cache, State::Ready, 2))));
    assert!(cache.has_changed(&first), "it was replaced");
    assert!(!cache.has_changed(&second));
    cache.shared.index.remove(&second.name.key, None);
    assert!(cache.has_changed(&second), "it was removed");
    publish(&cache, State::Pass, reactor::now().unix_s() + 3600);
    assert!(cache.has_changed(&second), "it is not stored any longer");
    assert!(cache.has_changed(&found(object(&cache, None))), "it was never stored");
}

#[test]
fn a_purge_since_the_look_up_is_noticed_and_one_before_it_is_not() {
    let (_dir, cache) = worker_cache();
    let slot = publish(&cache, State::Ready, 2);
    let before = found(object(&cache, Some(slot)));
    purge(&cache, PurgeKind::All, "", true);
    assert!(cache.has_changed(&before), "it is stale now");
    let purged = found(Lookup::Miss { purged: Some(slot) });
    assert!(!cache.has_changed(&purged), "it still is a miss");
    publish(&cache, State::Ready, 2);
    assert!(cache.has_changed(&purged), "a fill has ended");
}

#[test]
fn another_variant_is_no_change_of_this_one() {
    let (_dir, cache) = worker_cache();
    publish(&cache, State::Vary, 2);
    let mut variant = found(Lookup::NOTHING);
    variant.name = Name::of(b"GET http://example.org/\naccept-language:de\n#1");
    assert!(!cache.has_changed(&variant));
    let slot = NewSlot { key: variant.name.key, ..cached::slot(TEXT) };
    cache.shared.index.publish(&slot).unwrap();
    assert!(cache.has_changed(&variant));
}

#[test]
fn another_worker_finds_an_object_in_its_file_and_then_in_memory() {
    let (_dir, [one, other]) = worker_caches();
    let asked = request("GET", &[]);
    let test = async {
        assert!(find(&other, &asked).await.object().is_none());
        let (name, _) = fill(&one, &asked, &[("ETag", "\"1\"")], b"body").await;
        assert!(other.find_hot(&KeyComponents::default(), &primary(&asked), &asked).is_none());
        let found = find(&other, &asked).await;
        assert_eq!(found.name.key, name.key);
        let object = found.object().unwrap();
        assert_eq!(object.with_body(<[u8]>::to_vec), b"body");
        assert_eq!(object.fields.get("etag"), Some(&b"\"1\""[..]));
        let hot = other.find_hot(&KeyComponents::default(), &primary(&asked), &asked);
        assert!(hot.is_some_and(|(hot, marker)| Rc::ptr_eq(&hot, object) && marker.is_none()));
        one.invalidate(&name.key).await;
        assert!(other.find_hot(&KeyComponents::default(), &primary(&asked), &asked).is_none());
        assert!(find(&other, &asked).await.object().is_none());
    };
    reactor::run(test).unwrap();
}

#[test]
fn a_request_finds_the_variant_that_it_selects() {
    let (_dir, cache) = worker_cache();
    let of = |language| request("GET", &[("Accept-Language", language)]);
    let test = async {
        let list = [("Vary", "Accept-Language")];
        let (de, _) = fill(&cache, &of("de"), &list, b"hallo").await;
        let (fr, _) = fill(&cache, &of("fr"), &list, b"salut").await;
        assert_ne!(de.key, fr.key);
        for (language, body) in [("de", &b"hallo"[..]), ("fr", b"salut")] {
            let found = find(&cache, &of(language)).await;
            assert_eq!(found.object().unwrap().with_body(<[u8]>::to_vec), body);
            let hot =
                cache.find_hot(&KeyComponents::default(), &primary(&of(language)), &of(language));
            assert!(hot.is_some_and(|(_, marker)| marker.is_some()));
        }
        let found = find(&cache, &of("en")).await;
        let cached = found.cached();
        assert!(matches!(cached, Cached::Miss { has_variants: true }), "{cached:?}");
        cache.remove(&found.primary.key);
        assert!(find(&cache, &of("de")).await.object().is_none(), "variants go with their marker");
    };
    reactor::run(test).unwrap();
}

#[test]
fn a_damaged_file_is_removed_and_a_miss() {
    let (_dir, [one, other]) = worker_caches();
    let asked = request("GET", &[]);
    let test = async {
        let (name, _) = fill(&one, &asked, &[], b"body").await;
        let path = one.shared.store.path(&name.key);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(4).position(|it| it == b"body").unwrap();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(find(&other, &asked).await.lookup, Lookup::Miss { purged: None }));
        assert!(!path.exists() && other.shared.index.lookup(&name.key).is_none());
        fill(&other, &asked, &[], b"body").await;
        std::fs::remove_file(&path).unwrap();
        assert!(find(&one, &asked).await.object().is_none(), "a missing file is a miss");
    };
    reactor::run(test).unwrap();
}

#[test]
fn a_purge_makes_a_miss_and_a_soft_purge_a_stale_object_in_every_worker() {
    let (_dir, [one, other]) = worker_caches();
    let asked = request("GET", &[]);
    let test = async {
        let (name, _) = fill(&one, &asked, &[("Cache-Tag", "t")], b"x").await;
        let now_s = reactor::now().unix_s();
        for cache in [&one, &other] {
            assert!(find(cache, &asked).await.object().unwrap().is_fresh(now_s));
        }
        purge(&one, PurgeKind::Tag, "t", true);
        for cache in [&one, &other] {
            assert!(!find(cache, &asked).await.object().unwrap().is_fresh(now_s));
        }
        purge(&one, PurgeKind::Tag, "t", false);
        for cache in [&one, &other] {
            let found = find(cache, &asked).await;
            assert!(found.is_purged() && found.object().is_none());
            assert!(!cache.has_changed(&found));
        }
        assert!(one.shared.store.exists(&name.key), "it stays until its place is wanted");
        fill(&other, &asked, &[("Cache-Tag", "t")], b"y").await;
        assert!(find(&one, &asked).await.object().is_some());
    };
    reactor::run(test).unwrap();
}

#[test]
fn a_hit_for_miss_lasts_for_its_time() {
    let (_dir, cache) = worker_cache();
    let asked = request("GET", &[]);
    let test = async {
        let name = primary(&asked);
        assert!(!cache.is_hit_for_miss(&name.key));
        cache.remember_hit_for_miss(&name.key, 60);
        let found = find(&cache, &asked).await;
        assert!(matches!(found.lookup, Lookup::HitForMiss) && !cache.has_changed(&found));
        assert!(cache.is_hit_for_miss(&name.key));
        cache.remember_hit_for_miss(&name.key, 0);
        assert!(matches!(find(&cache, &asked).await.lookup, Lookup::Miss { .. }));
        assert!(!cache.is_hit_for_miss(&name.key));
        // The stored response stays, with the note beside it.
        fill(&cache, &asked, &[], b"x").await;
        cache.remember_hit_for_miss(&name.key, 60);
        assert!(find(&cache, &asked).await.object().is_some());
        assert!(cache.is_hit_for_miss(&name.key));
    };
    reactor::run(test).unwrap();
}

#[test]
fn an_object_of_other_key_components_is_removed() {
    let (_dir, cache) = worker_cache();
    let asked = request("GET", &[]);
    let test = async {
        let (name, _) = fill(&cache, &asked, &[], b"x").await;
        let chosen = VaryNames::chosen(["x-brand"].into_iter(), std::iter::empty());
        let key = KeyComponents { chosen, ..KeyComponents::default() };
        assert!(
            cache
                .find(&key, &Name::of_request(&key, Scheme::Http, &asked), &asked)
                .await
                .object()
                .is_none()
        );
        assert!(!cache.shared.store.exists(&name.key));
    };
    reactor::run(test).unwrap();
}
