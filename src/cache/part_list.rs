//! The list of a key's parts as it is stored: under the key itself, as a file of its own.
//!
//! A part is a file that never changes, under a name that no other part ever has. The list says
//! which of them belong together. It is published after the part that it names, and taken away
//! before them; so a list may name what is gone, which is then missing, but never what is another's.

use std::rc::Rc;
use std::time::Duration;

use crate::cache::fills::{FillAt, Lease};
use crate::cache::hot::{Body, HotObject};
use crate::cache::insert::{Entry, Shelf};
use crate::cache::lease;

use crate::cache::name::{Name, PART_STATUS};
use crate::cache::place;
use crate::cache::worker::Cache;
use crate::http::fields::Fields;
use crate::policy::rfc9111::partial::{self, Extent, Fit, LIST_BYTES_MAX, PartList, Stored};
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
/// the place of what is there ([`partial::fit`]). `entry` is the part's.
///
/// Gives the list as it is now; `None` if the part was not taken in, and is forgotten.
pub async fn add(
    cache: &Rc<Cache>,
    name: &Name,
    extent: Extent,
    part: Stored,
    entry: &Entry,
    is_doomed: impl Fn() -> bool,
) -> Option<PartList> {
    let forget = |id: u64| {
        place::discard(&cache.shared.index, &cache.shared.store, &name.part(id).key, None)
    };
    let Some(lock) = Lock::take(cache, name).await else {
        forget(part.id);
        return None;
    };
    let mut fields = partial::whole_fields(&entry.fields);
    let mut lifetimes = entry.lifetimes.clone();
    let id = part.id;
    let (mut list, mut out) = (None, Vec::new());
    match cache.find_object(name).await {
        Some(object) if object.is_part_list() => {
            let mut old = read(&object);
            match old.as_ref().map(|old| fit(&object, old, Some(extent), &entry.fields)) {
                Some(Fit::Joins) => {
                    fields = partial::combine(&object.fields, &entry.fields);
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
    let shelf = Shelf::new(Rc::clone(cache), lock.at.id());
    let stored = match is_doomed() {
        true => None,
        false => {
            let entry = Entry { name, status: PART_STATUS, fields, lifetimes };
            shelf.store(entry, &text).inspect_err(|error| shelf.refused(error)).ok()
        }
    };
    if stored.is_none() {
        forget(id);
        return None;
    }
    out.iter().for_each(|gone| {
        forget(gone.id);
    });
    Some(list)
}

/// Forgets a list that was found under `name`, unless there is another one by now, and its parts.
pub fn forget(cache: &Cache, name: &Name, object: &HotObject) {
    let Some(slot) = object.slot else { return };
    cache.hot.borrow_mut().remove(&name.key);
    let removed =
        place::discard(&cache.shared.index, &cache.shared.store, &name.key, Some(slot.generation));
    if removed.is_some() {
        for part in read(object).iter().flat_map(PartList::parts) {
            place::discard(&cache.shared.index, &cache.shared.store, &name.part(part.id).key, None);
        }
    }
}

/// The right to change the list under a name, among all workers; ends with its holder.
pub(crate) struct Lock<'c> {
    cache: &'c Cache,
    at: FillAt,
}

impl<'c> Lock<'c> {
    /// Takes it; `None` if others have it all the time.
    pub(crate) async fn take(cache: &'c Cache, name: &Name) -> Option<Self> {
        let key = name.key.beside(b"list");
        for _ in 0..TRIES_MAX {
            match cache.shared.fills.lease(&key, cache.seat, cache.purge_epoch()) {
                Lease::Leader(at) => return Some(Self { cache, at }),
                Lease::Follow(at) => lease::leave(cache, at),
                Lease::Full => {}
            }
            // It is held for the time that a small file takes to write.
            timer::sleep(TRY_AGAIN).await;
        }
        None
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        lease::give_up(self.cache, self.at);
    }
}

/// How long a try waits for the next.
const TRY_AGAIN: Duration = Duration::from_millis(2);

/// How often it is tried to get the right to change a list.
const TRIES_MAX: usize = 500;
