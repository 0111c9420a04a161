//! Tests of `cache::insert`, with variants and lists of parts.

use super::*;
use crate::cache::name::{PART_STATUS, VariantText};
use crate::cache::ranges::list;
use crate::cache::sample::{fill, find, lead, new_object, worker_cache, worker_caches};
use crate::cache::variants::{self, NewVariant, Others};
use crate::http::head::RequestHead;
use crate::policy::rfc9111::parts::{Extent, StoredPart};
use crate::policy::sample::{request, response};
use crate::reactor::clock::run_by_test_clock;

const BY_LANGUAGE: (&str, &str) = ("Vary", "Accept-Language");

fn asks_for(language: &str) -> RequestHead {
    request("GET", &[("Accept-Language", language)])
}

#[test]
fn a_marker_is_written_only_when_other_fields_select() {
    let (_dir, cache) = worker_cache();
    let asked = request("GET", &[("Accept-Language", "de"), ("DNT", "1")]);
    let test = async {
        fill(&cache, &asked, &[BY_LANGUAGE], b"x").await;
        let marker = async || find(&cache, &asked).await.marker.unwrap();
        let first = marker().await;
        fill(&cache, &asks_for("fr"), &[BY_LANGUAGE], b"x").await;
        assert_eq!(marker().await.mark, first.mark);
        fill(&cache, &asks_for("fr-ch"), &[("Vary", "Accept-Language, DNT")], b"x").await;
        assert_ne!(marker().await.mark, first.mark);
        assert!(
            find(&cache, &asked).await.object().is_none(),
            "the old marker's variants are gone"
        );
    };
    reactor::run(test).unwrap();
}

#[test]
fn a_variant_with_too_long_selecting_fields_is_refused() {
    let (_dir, cache) = worker_cache();
    let test = async {
        let asked = asks_for(&"x".repeat(64 << 10));
        let found = find(&cache, &asked).await;
        let lease = lead(&cache, &found);
        let new = new_object(&lease, &found, &[BY_LANGUAGE]);
        assert!(lease.resolve_name(&found, &asked.fields, &new.lifetimes).await.is_err());
    };
    reactor::run(test).unwrap();
}

#[test]
fn a_variant_that_cannot_be_entered_is_removed() {
    run_by_test_clock(async {
        let (_dir, cache) = worker_cache();
        let enter = async |language| {
            let fields = [BY_LANGUAGE, ("ETag", "\"1\"")];
            let (name, object) = fill(&cache, &asks_for(language), &fields, b"x").await;
            let (status, fields) = (object.status, object.fields.clone());
            let new = NewObject { name, status, fields, lifetimes: object.lifetimes.clone() };
            NewVariant::of(&new).unwrap().enter(&cache, object.slot).await;
            find(&cache, &asks_for(language)).await
        };
        let de = enter("de").await;
        assert!(de.stored().is_some());
        let list = VariantText::of(&de.name.text).unwrap().list_name();
        let lock = cache.lock_list(&list).await.unwrap();
        assert!(enter("fr").await.stored().is_none(), "another worker keeps the list");
        drop(lock);
        assert!(enter("fr").await.stored().is_some());
        let others = Others::of(&cache, &de, de.marker.as_ref().unwrap()).await.unwrap();
        assert_eq!(others.tags().len(), 1);
    });
}

#[test]
fn a_304_confirms_the_variant_of_its_tag() {
    let (_dir, cache) = worker_cache();
    let test = async {
        for (language, tag) in [("de", "\"1\""), ("fr", "\"2\"")] {
            let (name, object) =
                fill(&cache, &asks_for(language), &[BY_LANGUAGE, ("ETag", tag)], b"x").await;
            let (status, fields) = (object.status, object.fields.clone());
            let new = NewObject { name, status, fields, lifetimes: object.lifetimes.clone() };
            NewVariant::of(&new).unwrap().enter(&cache, object.slot).await;
        }
        let found = find(&cache, &asks_for("en")).await;
        let others = async || Others::of(&cache, &found, found.marker.as_ref().unwrap()).await;
        assert_eq!(others().await.unwrap().tags().len(), 2);
        let confirmed = async |fields: &[(&str, &str)]| {
            let not_modified = response(304, fields);
            variants::confirmed(&cache, &found.name, None, others().await, &not_modified).await
        };
        let (name, _) = confirmed(&[("ETag", "\"2\"")]).await.unwrap();
        assert_eq!(name.key, find(&cache, &asks_for("fr")).await.name.key);
        assert!(confirmed(&[("ETag", "\"3\"")]).await.is_none());
        assert!(confirmed(&[]).await.is_none());
    };
    reactor::run(test).unwrap();
}

#[test]
fn a_part_joins_the_parts_of_its_validator() {
    let (_dir, [one, other]) = worker_caches();
    let asked = request("GET", &[]);
    let add = async |cache: &Rc<Cache>, start: u64, tag: &str| {
        let found = find(cache, &asked).await;
        // As fills of parts do, beside the key of the whole.
        let key = found.name.key.beside(start.to_string().as_bytes());
        let lease = cache.lead_or_follow(&found, &key, cache.purge_epoch()).lead().unwrap();
        let id = lease.at.id();
        let new = new_object(&lease, &found, &[("ETag", tag)]);
        let new = NewObject { name: found.name.part(id), status: PART_STATUS, ..new };
        lease.insert(new.clone(), b"0123456789").await.unwrap();
        let part = StoredPart { range: start..start + 10, id };
        list::add(cache, &found.name, Extent::Length(20), part, &new, || false).await
    };
    let test = async {
        let list = add(&one, 0, "\"1\"").await.unwrap();
        assert!(!list.is_whole());
        let list = add(&other, 10, "\"1\"").await.unwrap();
        assert!(list.is_whole());
        let found = find(&one, &asked).await;
        let (object, list) = found.parts().unwrap();
        assert_eq!(list.parts().len(), 2);
        let parts: Vec<_> = list.parts().iter().map(|part| found.name.part(part.id)).collect();
        for part in &parts {
            assert!(one.find_object(part).await.is_some());
        }
        list::remove(&one, &found.name, object, list).await;
        for part in &parts {
            assert!(other.find_object(part).await.is_none());
        }
        assert!(find(&other, &asked).await.stored().is_none());
    };
    reactor::run(test).unwrap();
}

#[test]
fn a_large_body_is_copied_from_its_file() {
    let (_dir, cache) = worker_cache();
    let asked = request("GET", &[]);
    let body: Vec<u8> = (0..600_000_u32).map(|n| n as u8).collect();
    let test = async {
        let found = find(&cache, &asked).await;
        let lease = lead(&cache, &found);
        let new = new_object(&lease, &found, &[]);
        let mut spool = lease.begin(&new, None).await.unwrap();
        spool.write(body.clone()).await.unwrap();
        lease.publish(&new, spool).await.unwrap();
        assert!(lease.stored(&found, Ok(())));
        let found = find(&cache, &asked).await;
        let stored = found.object().unwrap();
        assert!(matches!(stored.body, Body::File(_)));
        let lease = lead(&cache, &found);
        let copy = NewObject { name: Name::of(b"copy"), ..new };
        lease.copy(copy, stored).await.unwrap();
        let object = cache.shared.store.open_object(&Name::of(b"copy").key, b"copy");
        assert_eq!(object.unwrap().unwrap().read_body(1 << 20).unwrap(), Some(body));
    };
    reactor::run(test).unwrap();
}

#[test]
fn a_full_cache_admits_a_second_request_or_several_clients() {
    let (_dir, cache) = worker_cache();
    let key = Name::of(b"x").key;
    assert!(!cache.admits(&key, 2, || true), "a route may want two uses");
    assert!(cache.admits(&key, 2, || false));
    cache.shared.index.set_size(1);
    let new = Name::of(b"y").key;
    assert!(!cache.admits(&new, 1, || false));
    assert!(cache.admits(&new, 1, || false));
    assert!(cache.admits(&Name::of(b"z").key, 1, || true));
}
