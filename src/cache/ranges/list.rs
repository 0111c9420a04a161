//! The list of a key's parts as it is stored: under the key itself, as a file of its own.
//!
//! A part is a file that never changes, under a name that no other part ever has. The list says
//! which of them belong together. It is published after the part that it names, and taken away
//! before them; so a list may name what is gone, which is then missing, but never what is another's.

use std::rc::Rc;
use std::time::Duration;

use crate::cache::hot::{Body, HotObject};
use crate::cache::insert::NewObject;
use crate::cache::lease::Lease;

use crate::cache::name::{Name, PART_STATUS};
use crate::cache::worker::Cache;
use crate::http::fields::Fields;
use crate::policy::rfc9111::partial::{self, Fit};
use crate::policy::rfc9111::parts::{Extent, LIST_BYTES_MAX, PartList, StoredPart};
use crate::reactor::{self, timer};

/// The parts that a list names; `None` if it cannot be read.
pub fn read(object: &HotObject) -> Option<PartList> {
    match &object.body {
        Body::Memory => object.with_body(PartList::decode),
        Body::Large(body) => PartList::decode(body),
        Body::File(file) => {
            let text = file.read_body(LIST_BYTES_MAX).ok()??;
            PartList::decode(&text)
        }
    }
}

/// How a part with these fields goes together with what is listed in `object`.
pub fn fit(object: &HotObject, list: &PartList, extent: Option<Extent>, part: &Fields) -> Fit {
    let is_fresh = object.is_fresh(reactor::now().unix_s());
    partial::fit(list, &object.fields, is_fresh, extent, part)
}

/// Adds a part, which is stored, to the list under `name`, or begins a new one if it is to take
/// the place of what is there ([`partial::fit`]). `new` is the part's.
///
/// Gives the list as it is now; `None` if the part was not taken in, and is forgotten.
pub async fn add(
    cache: &Rc<Cache>,
    name: &Name,
    extent: Extent,
    part: StoredPart,
    new: &NewObject,
    is_doomed: impl Fn() -> bool,
) -> Option<PartList> {
    let forget = |id: u64| cache.remove(&name.part(id).key);
    let Some(lease) = lock(cache, name).await else {
        forget(part.id);
        return None;
    };
    let mut fields = partial::whole_fields(&new.fields);
    let mut lifetimes = new.lifetimes.clone();
    let id = part.id;
    let (mut list, mut out) = (None, Vec::new());
    match cache.find_object(name).await {
        Some(object) if object.is_part_list() => {
            let mut old = read(&object);
            match old.as_ref().map(|old| fit(&object, old, Some(extent), &new.fields)) {
                Some(Fit::Joins) => {
                    fields = partial::combine(&object.fields, &new.fields);
                    // No purge up to now names the list, or it would not have been found.
                    lifetimes.surrogates =
                        lifetimes.surrogates.with_tags_of(&object.lifetimes.surrogates);
                    out.extend(old.iter_mut().flat_map(|old| old.add(part.clone())));
                    list = old;
                }
                Some(Fit::Useless) => {
                    forget(id);
                    return None;
                }
                Some(Fit::Replaces) | None => {
                    out.extend(old.iter().flat_map(PartList::parts).cloned());
                }
            }
        }
        // Somebody fetched the whole meanwhile.
        Some(object) if object.is_fresh(reactor::now().unix_s()) => {
            forget(id);
            return None;
        }
        _ => {}
    }
    let list = list.unwrap_or_else(|| PartList::new(extent, part));
    let mut text = Vec::new();
    list.encode(&mut text);
    let name = name.clone();
    let stored = match is_doomed() {
        true => None,
        false => {
            let new = NewObject { name, status: PART_STATUS, fields, lifetimes };
            lease.insert(new, &text).inspect_err(|error| cache.refused(error)).ok()
        }
    };
    if stored.is_none() {
        forget(id);
        return None;
    }
    out.iter().for_each(|gone| forget(gone.id));
    Some(list)
}

/// Forgets a list that was found under `name`, unless there is another one by now, and its parts.
pub fn forget(cache: &Cache, name: &Name, object: &HotObject) {
    let Some(slot) = object.slot else { return };
    cache.hot.borrow_mut().remove(&name.key);
    if cache.remove_slot(&name.key, slot) {
        for part in read(object).iter().flat_map(PartList::parts) {
            cache.remove(&name.part(part.id).key);
        }
    }
}

/// The right to change the list under a name, among all workers; `None` if others have it all the
/// time.
pub(crate) async fn lock(cache: &Rc<Cache>, name: &Name) -> Option<Lease> {
    let key = name.key.beside(b"list");
    for _ in 0..TRIES_MAX {
        if let Some(lease) = cache.lease(&key, cache.purge_epoch()).lead() {
            return Some(lease);
        }
        // It is held for the time that a small file takes to write.
        timer::sleep(TRY_AGAIN).await;
    }
    None
}

/// How long a try waits for the next.
const TRY_AGAIN: Duration = Duration::from_millis(2);

/// How often it is tried to get the right to change a list.
const TRIES_MAX: usize = 500;
