//! From a request to what the cache has for it.
//!
//! A key's slot says whether there is anything; the object itself comes from the hot tier, or
//! from its file, whose every part is checked before it is believed. What is damaged is removed,
//! reported once, and counts as nothing.

use std::rc::Rc;

use crate::cache::files::front::OpenError;
use crate::cache::hot::large::LargeRoom;
use crate::cache::hot::{Body, Hot, HotObject};
use crate::cache::index::slot::{SlotRef, SlotView, State};
use crate::cache::load::{self, Loaded};
use crate::cache::name::{MARKER_STATUS, Marker, Name};
use crate::cache::place;
use crate::cache::purge::bucket::PurgeStatus;
use crate::cache::worker::Cache;
use crate::http::head::RequestHead;
use crate::http::scheme::Scheme;
use crate::policy::decide::Cached;
use crate::policy::key::components::KeyComponents;
use crate::policy::purge::surrogate::SurrogateKeys;
use crate::reactor;

/// How often a slot that changes under our eyes is read again.
const ATTEMPTS_MAX: usize = 4;

/// What the cache has.
#[derive(Clone, Debug)]
pub struct Found {
    /// The key before Vary.
    pub primary: Name,
    /// Where the answer to this request is, or would be.
    pub name: Name,
    /// What chooses among variants, if the key has any.
    pub marker: Option<Marker>,
    /// What is there.
    pub what: What,
    /// What is there and counts as nothing, for it was purged.
    pub purged: Option<SlotRef>,
}

impl Found {
    /// As the policy sees it.
    pub fn held(&self) -> Cached<'_> {
        match &self.what {
            What::Nothing => Cached::Miss { has_variants: self.marker.is_some() },
            What::Pass => Cached::HitForMiss,
            What::Object(object) => Cached::Stored(&object.lifetimes),
        }
    }

    /// The stored response, if there is one.
    pub fn object(&self) -> Option<Rc<HotObject>> {
        match &self.what {
            What::Object(object) => Some(Rc::clone(object)),
            What::Nothing | What::Pass => None,
        }
    }
}

/// What is under a name.
#[derive(Clone, Debug)]
pub enum What {
    /// Nothing.
    Nothing,
    /// A note that the answer is not to be stored, so that nobody waits for it.
    Pass,
    /// A stored response.
    Object(Rc<HotObject>),
}

/// Finds what the cache has for a request.
pub async fn look_up(
    cache: &Cache,
    components: &KeyComponents,
    scheme: Scheme,
    request: &RequestHead,
) -> Found {
    let primary = Name::of_request(components, scheme, request);
    let Sought { what, purged } = seek(cache, &primary).await;
    let found = of_these_components(cache, components, what);
    let What::Object(object) = &found else {
        return Found { name: primary.clone(), primary, marker: None, what: found, purged };
    };
    let Some(names) = object.lifetimes.vary.clone().filter(|_| is_marker(object)) else {
        return Found { name: primary.clone(), primary, marker: None, what: found, purged };
    };
    let marker = Marker { names, mark: object.with_body(|mark| Rc::from(mark)) };
    let name = primary.variant(&marker.names, &marker.mark, &request.fields);
    let Sought { what, purged } = seek(cache, &name).await;
    Found { primary, name, marker: Some(marker), what, purged }
}

/// What was stored when the route's keys were made of other components is nobody's answer now. It is
/// removed, lest it keep the place of what will be.
fn of_these_components(cache: &Cache, components: &KeyComponents, found: What) -> What {
    match found {
        What::Object(object) if !chooses_by(components, &object) => {
            let generation = object.slot.map(|slot| slot.generation);
            cache.hot.borrow_mut().remove(&object.key);
            place::discard(&cache.shared.index, &cache.shared.store, &object.key, generation);
            What::Nothing
        }
        found => found,
    }
}

/// Whether what is stored under a key before Vary chooses by all that the operator names.
fn chooses_by(components: &KeyComponents, object: &HotObject) -> bool {
    components.accept(object.lifetimes.vary.as_ref().filter(|_| is_marker(object)))
}

/// What there is now under `name`, which what was found has led to: a response can make variants
/// of a key that had none.
pub async fn find_again(cache: &Cache, found: &Found, name: &Name) -> Found {
    let mut marker = None;
    if name.key != found.primary.key
        && let What::Object(object) = find(cache, &found.primary).await
        && let Some(names) = object.lifetimes.vary.clone().filter(|_| is_marker(&object))
    {
        marker = Some(Marker { names, mark: object.with_body(|mark| Rc::from(mark)) });
    }
    let Sought { what, purged } = seek(cache, name).await;
    Found { primary: found.primary.clone(), name: name.clone(), marker, what, purged }
}

/// Whether the index no longer has what a look-up found: a fill can end between the look-up and
/// the lease of the next one, and its result is not to be fetched a second time.
pub fn has_changed(cache: &Cache, found: &Found) -> bool {
    let slot = cache.shared.index.lookup(&found.name.key);
    match (&found.what, slot) {
        (What::Object(object), _) => {
            !object.slot.is_some_and(|it| cache.shared.index.is_current(it))
                || !stands(cache, object, &found.name.text)
        }
        (_, Some(slot)) => {
            let is_purged = found.purged.is_some_and(|it| it.generation == slot.generation);
            !is_purged && !is_outlived_note(&slot)
        }
        (_, None) => false,
    }
}

/// Finds what the hot tier has for a request, without waiting for anything.
///
/// Gives the object, and the marker's place in the index if the object is a variant.
pub fn look_up_hot(
    cache: &Cache,
    components: &KeyComponents,
    scheme: Scheme,
    head: &RequestHead,
) -> Option<(Rc<HotObject>, Option<SlotRef>)> {
    let primary = Name::of_request(components, scheme, head);
    let object = find_hot(cache, &primary).filter(|object| chooses_by(components, object))?;
    match object.lifetimes.vary.as_ref().filter(|_| is_marker(&object)) {
        None => Some((object, None)),
        Some(names) => {
            let name = object.with_body(|mark| primary.variant(names, mark, &head.fields));
            Some((find_hot(cache, &name)?, object.slot))
        }
    }
}

/// Whether an object is no response but names what chooses among the variants of its key.
pub fn is_marker(object: &HotObject) -> bool {
    object.status == MARKER_STATUS
}

/// The hot tier's copy, if the index still has what it was made from and no purge changed it.
pub(super) fn find_hot(cache: &Cache, name: &Name) -> Option<Rc<HotObject>> {
    let object = Rc::clone(cache.hot.borrow().find(&name.key)?);
    let is_current = stands(cache, &object, &name.text)
        && object.slot.is_some_and(|slot| is_in_use(cache, slot));
    if is_current {
        return Some(object);
    }
    cache.hot.borrow_mut().remove(&name.key);
    None
}

/// Whether the index still has what a copy was made from, and nothing was purged since it was
/// last judged; also says that it was used.
pub fn is_current(cache: &Cache, object: &HotObject) -> bool {
    object.status_version.get() == cache.shared.purges.version()
        && object.slot.is_some_and(|slot| is_in_use(cache, slot))
}

/// Whether no purge, nor the undoing of one, changed how a copy of this key text stands.
pub fn stands(cache: &Cache, object: &HotObject, text: &[u8]) -> bool {
    let version = cache.shared.purges.version();
    if object.status_version.get() == version {
        return true;
    }
    let stands =
        cache.shared.purges.purge_status(text, &object.lifetimes.surrogates) == object.purge_status;
    if stands {
        object.status_version.set(version);
    }
    stands
}

/// Whether no purge names what was asked for under this key text and these labels.
pub fn is_unpurged(cache: &Cache, text: &[u8], surrogates: &SurrogateKeys) -> bool {
    cache.shared.purges.purge_status(text, surrogates) == PurgeStatus::Valid
}

/// What is under a name, or would be if it were not purged.
struct Sought {
    what: What,
    purged: Option<SlotRef>,
}

impl From<What> for Sought {
    fn from(what: What) -> Self {
        Self { what, purged: None }
    }
}

/// Whether this is in the index still; says there that it was used, so that eviction spares it.
pub fn is_in_use(cache: &Cache, slot: SlotRef) -> bool {
    let is_current = cache.shared.index.is_current(slot);
    if is_current {
        cache.shared.index.touch(slot.at);
    }
    is_current
}

/// Counts an answer from what is stored that the origin had no part in.
pub fn count_hit(cache: &Cache, object: &HotObject) {
    if !Hot::count_hit(object)
        && let Some(slot) = object.slot
    {
        cache.shared.index.count_hits(slot, 1);
    }
}

/// Finds what is under a name.
pub async fn find(cache: &Cache, name: &Name) -> What {
    seek(cache, name).await.what
}

async fn seek(cache: &Cache, name: &Name) -> Sought {
    if let Some(object) = find_hot(cache, name) {
        let room = cache.hot.borrow_mut().room_for_body(&object);
        return match room {
            Some(room) => take_in(cache, name, object, room).await.into(),
            None => What::Object(object).into(),
        };
    }
    for _ in 0..ATTEMPTS_MAX {
        let Some(slot) = cache.shared.index.lookup(&name.key) else { break };
        if slot.state == State::Pass {
            return if is_outlived_note(&slot) { What::Nothing } else { What::Pass }.into();
        }
        match load::load(cache, &name.key, &name.text, &slot).await {
            Ok(Some(Loaded::Object(object))) => {
                cache.shared.index.touch(slot.at);
                return What::Object(object).into();
            }
            // Left where it is, unused: it can be undone until its place is wanted.
            Ok(Some(Loaded::Purged(slot))) => {
                return Sought { what: What::Nothing, purged: Some(slot) };
            }
            // It was replaced while we read it: what is there now is read instead.
            _ if !cache.shared.index.is_current(slot.slot_ref()) => {}
            Ok(None) => return remove_damaged(cache, name, &slot, "missing").into(),
            Err(OpenError::Fault(fault)) => {
                return remove_damaged(cache, name, &slot, fault.word()).into();
            }
            // Nothing is wrong with the file: we are short of descriptors, or the disk is ill.
            Err(OpenError::Io(error)) => {
                let path = cache.shared.store.path(&name.key);
                ::log::warn!("cannot read cache file {path:?}: {error}; the origin is asked");
                return What::Pass.into();
            }
        }
    }
    What::Nothing.into()
}

/// Reads the body of what the hot tier has into memory, unless it is replaced meanwhile.
async fn take_in(cache: &Cache, name: &Name, object: Rc<HotObject>, room: LargeRoom) -> What {
    let Body::File(file) = &object.body else { return What::Object(object) };
    match load::read_body(file).await {
        Ok(_) if !is_current(cache, &object) => What::Object(object),
        Ok(body) => What::Object(cache.hot.borrow_mut().take_in(&object, body, room)),
        Err(OpenError::Fault(fault)) => {
            cache.hot.borrow_mut().remove(&name.key);
            let slot = cache.shared.index.lookup(&name.key);
            let slot =
                slot.filter(|slot| object.slot.is_some_and(|it| it.generation == slot.generation));
            slot.map_or(What::Nothing, |slot| remove_damaged(cache, name, &slot, fault.word()))
        }
        // It was whole when it was opened, and is sent from the file.
        Err(OpenError::Io(_)) => What::Object(object),
    }
}

/// Whether a slot holds no more than a note, too old to count.
fn is_outlived_note(slot: &SlotView) -> bool {
    slot.state == State::Pass && slot.fresh_until_s <= reactor::now().unix_s()
}

/// Forgets what cannot be used, says so once, and finds nothing.
fn remove_damaged(cache: &Cache, name: &Name, slot: &SlotView, why: &str) -> What {
    if place::discard(&cache.shared.index, &cache.shared.store, &name.key, Some(slot.generation))
        .is_some()
    {
        let path = cache.shared.store.path(&name.key);
        ::log::warn!("cache file {path:?} is not usable ({why}): removed, to be fetched anew");
    }
    What::Nothing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::index::slot::NewSlot;
    use crate::cache::place::tests as cached;
    use crate::cache::purge::Order;
    use crate::cache::sample::worker_cache;
    use crate::http::fields::Fields;
    use crate::http::status::Status;
    use crate::policy::purge::surrogate::Kind;
    use crate::policy::rfc9111::lifetimes::Lifetimes;

    const TEXT: &str = "GET http://example.org/";

    fn found(what: What) -> Found {
        let name = Name::of(TEXT.as_bytes());
        Found { primary: name.clone(), name, marker: None, what, purged: None }
    }

    /// Shows something in the index under [`TEXT`], as a fill does at its end.
    fn publish(cache: &Cache, state: State, fresh_until_s: u64) -> SlotRef {
        let slot = NewSlot { state, fresh_until_s, ..cached::slot(TEXT) };
        let published = cache.shared.index.publish(&slot).unwrap();
        published.slot
    }

    fn object(cache: &Cache, slot: Option<SlotRef>) -> What {
        let key = Name::of(TEXT.as_bytes()).key;
        let surrogates = SurrogateKeys::untagged(cache.purge_epoch());
        let (lifetimes, fields) = (Lifetimes { surrogates, ..Lifetimes::default() }, Fields::new());
        let object = HotObject::in_memory(key, slot, Status(200), lifetimes, fields, b"x");
        What::Object(Rc::new(object))
    }

    #[test]
    fn a_fill_that_ended_after_a_vain_look_up_is_noticed() {
        let (_dir, cache) = worker_cache();
        let hour_on_s = reactor::now().unix_s() + 3600;
        assert!(!has_changed(&cache, &found(What::Nothing)), "there still is nothing");
        for state in [State::Ready, State::Vary] {
            publish(&cache, state, 2);
            assert!(has_changed(&cache, &found(What::Nothing)), "{state:?}, stale or not");
        }
        publish(&cache, State::Pass, hour_on_s);
        assert!(has_changed(&cache, &found(What::Nothing)), "nobody is to wait for it any more");
        publish(&cache, State::Pass, 2);
        assert!(!has_changed(&cache, &found(What::Nothing)), "a note that is too old is nothing");
    }

    #[test]
    fn a_fill_that_replaced_what_was_found_is_noticed() {
        let (_dir, cache) = worker_cache();
        let first = found(object(&cache, Some(publish(&cache, State::Ready, 2))));
        assert!(!has_changed(&cache, &first), "what was found is still there");
        let second = found(object(&cache, Some(publish(&cache, State::Ready, 2))));
        assert!(has_changed(&cache, &first), "it was replaced");
        assert!(!has_changed(&cache, &second));
        cache.shared.index.remove(&second.name.key, None);
        assert!(has_changed(&cache, &second), "it was removed");
        publish(&cache, State::Pass, reactor::now().unix_s() + 3600);
        assert!(has_changed(&cache, &second), "it is not stored any longer");
        assert!(has_changed(&cache, &found(object(&cache, None))), "it was never stored");
    }

    #[test]
    fn what_was_purged_since_it_was_found_is_noticed_and_what_was_found_purged_is_none() {
        let (_dir, cache) = worker_cache();
        let slot = publish(&cache, State::Ready, 2);
        let before = found(object(&cache, Some(slot)));
        let (name, who) = (String::new(), String::new());
        let order = Order { kind: Kind::All, text: Vec::new(), is_soft: true, name, who };
        cache.shared.purges.purge(&order, 1).unwrap();
        assert!(has_changed(&cache, &before), "it is stale now");
        let purged = Found { purged: Some(slot), ..found(What::Nothing) };
        assert!(!has_changed(&cache, &purged), "it counts as nothing still");
        publish(&cache, State::Ready, 2);
        assert!(has_changed(&cache, &purged), "a fill has ended");
    }

    #[test]
    fn another_variant_is_no_change_of_this_one() {
        let (_dir, cache) = worker_cache();
        publish(&cache, State::Vary, 2);
        let mut variant = found(What::Nothing);
        variant.name = Name::of(b"GET http://example.org/\naccept-language:de\n#1");
        assert!(!has_changed(&cache, &variant));
        let slot = NewSlot { key: variant.name.key, ..cached::slot(TEXT) };
        cache.shared.index.publish(&slot).unwrap();
        assert!(has_changed(&cache, &variant));
    }
}
