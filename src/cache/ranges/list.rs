//! The stored list of a key's parts: a file under the key itself.
//!
//! A part is a file that never changes, under a name that no other part ever has. The list says
//! which parts belong together. It is published after the parts that it names, and removed before
//! them. So a list may name a part that is gone, which then counts as missing, but never one of
//! another response.

use std::rc::Rc;

use crate::cache::found::Lookup;
use crate::cache::hot::HotObject;
use crate::cache::insert::NewObject;
use crate::cache::name::{Name, PART_STATUS};
use crate::cache::worker::Cache;
use crate::http::fields::Fields;
use crate::policy::rfc9111::partial::{self, Fit};
use crate::policy::rfc9111::parts::{Extent, PartList, StoredPart};
use crate::reactor;

/// How a part with these fields fits the list in `object`.
pub fn fit(object: &HotObject, list: &PartList, extent: Option<Extent>, part: &Fields) -> Fit {
    let is_fresh = object.is_fresh(reactor::now().unix_s());
    partial::fit(list, &object.fields, is_fresh, extent, part)
}

/// Adds a stored part to the list under `name`, or begins a new list that replaces it
/// ([`partial::fit`]). `new` is the part's.
///
/// Gives the new list; `None` if the part was not added, and was removed.
pub async fn add(
    cache: &Rc<Cache>,
    name: &Name,
    extent: Extent,
    part: StoredPart,
    new: &NewObject,
    is_doomed: impl Fn() -> bool,
) -> Option<PartList> {
    let forget = |id: u64| {
        cache.remove(&name.part(id).key);
        None
    };
    let Some(lease) = cache.lock_list(name).await else { return forget(part.id) };
    let mut fields = partial::whole_fields(&new.fields);
    let mut lifetimes = new.lifetimes.clone();
    let (mut list, mut out) = (None, Vec::new());
    match cache.find_name(name).await {
        Lookup::Parts { object, list: mut old } => {
            match fit(&object, &old, Some(extent), &new.fields) {
                Fit::Joins => {
                    fields = partial::combine(&object.fields, &new.fields);
                    // No purge names the list, or it would not have been found.
                    lifetimes.surrogates =
                        lifetimes.surrogates.with_tags_of(&object.lifetimes.surrogates);
                    out = old.add(part.clone());
                    list = Some(old);
                }
                Fit::Useless => return forget(part.id),
                Fit::Replaces => out = old.parts().to_vec(),
            }
        }
        // Another fill has stored the whole meanwhile.
        Lookup::Stored(object) if object.is_fresh(reactor::now().unix_s()) => {
            return forget(part.id);
        }
        _ => {}
    }
    let id = part.id;
    let list = list.unwrap_or_else(|| PartList::new(extent, part));
    let mut text = Vec::new();
    list.encode(&mut text);
    if is_doomed() {
        return forget(id);
    }
    let new = NewObject { name: name.clone(), status: PART_STATUS, fields, lifetimes };
    if let Err(error) = lease.insert(new, &text).await {
        cache.refused(&error);
        return forget(id);
    }
    out.iter().for_each(|gone| {
        forget(gone.id);
    });
    Some(list)
}

/// Removes a list that was found under `name`, unless there is another one by now, and its parts.
pub async fn remove(cache: &Cache, name: &Name, object: &HotObject, list: &PartList) {
    if cache.remove_object(object).await {
        for part in list.parts() {
            cache.remove(&name.part(part.id).key);
        }
    }
}
