//! Looking a request up in the cache.
//!
//! The slot of a key says whether something is stored. The object itself comes from the hot tier,
//! or from its file, every part of which is checked. A damaged file is removed, logged once, and is
//! a miss.

use std::io;
use std::rc::Rc;

use crate::cache::files::front::OpenError;
use crate::cache::found::Found;
use crate::cache::found::Lookup;
use crate::cache::hot::large::LargeRoom;
use crate::cache::hot::{Body, Hot, HotObject};
use crate::cache::index::slot::{SlotRef, SlotView, State};
use crate::cache::load;
use crate::cache::name::{Marker, Name, PART_STATUS};
use crate::cache::purge::bucket::PurgeStatus;
use crate::cache::worker::Cache;
use crate::disk::refused::Refused;
use crate::http::head::RequestHead;
use crate::policy::key::KeyComponents;
use crate::policy::purge::surrogate::SurrogateKeys;
use crate::policy::rfc9111::parts::{LIST_BYTES_MAX, PartList};
use crate::reactor;

/// How often a slot that changes during the look-up is read again.
const ATTEMPTS_MAX: usize = 4;

impl Cache {
    /// Finds what the cache has for a request. `primary` is the name of its key before Vary.
    pub async fn find(&self, key: &KeyComponents, primary: &Name, request: &RequestHead) -> Found {
        let primary = primary.clone();
        let lookup = self.find_name(&primary).await;
        let lookup = self.of_this_key(key, lookup).await;
        let marker = marker_in(&lookup);
        let Some(marker) = marker else {
            return Found { name: primary.clone(), primary, marker, lookup };
        };
        let name = primary.variant(&marker.names, &marker.mark, &request.fields);
        let lookup = self.find_name(&name).await;
        Found { primary, name, marker: Some(marker), lookup }
    }

    /// Looks again under `name`, which a fill after `found` has led to. The response may have given
    /// variants to a key that had none.
    pub async fn find_again(&self, found: &Found, name: &Name) -> Found {
        let marker = match name.key == found.primary.key {
            true => None,
            false => marker_in(&self.seek(&found.primary).await),
        };
        let lookup = self.find_name(name).await;
        Found { primary: found.primary.clone(), name: name.clone(), marker, lookup }
    }

    /// Finds what is stored under a name: a whole response, or parts. A list of parts that is
    /// damaged is removed.
    pub(super) async fn find_name(&self, name: &Name) -> Lookup {
        let object = match self.seek(name).await {
            Lookup::Stored(object) if object.status == PART_STATUS => object,
            lookup => return lookup,
        };
        match part_list(&object).await {
            Ok(Some(list)) => Lookup::Parts { object, list },
            Ok(None) => {
                self.remove_object(&object).await;
                Lookup::NOTHING
            }
            // A busy disk or a lack of descriptors says nothing about the list.
            Err(_) => Lookup::Unreadable,
        }
    }

    /// Finds the object that is stored under a name, whatever it is a part of.
    pub async fn find_object(&self, name: &Name) -> Option<Rc<HotObject>> {
        match self.seek(name).await {
            Lookup::Stored(object) => Some(object),
            _ => None,
        }
    }

    /// Finds what the hot tier has for a request, without waiting for anything.
    ///
    /// Gives the object, and the marker's place in the index if the object is a variant.
    pub fn find_hot(
        &self,
        key: &KeyComponents,
        primary: &Name,
        head: &RequestHead,
    ) -> Option<(Rc<HotObject>, Option<SlotRef>)> {
        let object = self.hot_copy(primary).filter(|object| is_of_key(key, object))?;
        let (object, marker) = match object.chosen_by() {
            None => (object, None),
            Some(names) => {
                let name = object.with_body(|mark| primary.variant(names, mark, &head.fields));
                (self.hot_copy(&name)?, object.slot)
            }
        };
        object.is_whole().then_some((object, marker))
    }

    /// The hot tier's copy, if the index still has what it was made from and no purge changed it.
    pub(super) fn hot_copy(&self, name: &Name) -> Option<Rc<HotObject>> {
        let object = Rc::clone(self.hot.borrow().find(&name.key)?);
        let is_current = self.has_purge_status(&object, &name.text)
            && object.slot.is_some_and(|slot| self.is_in_use(slot));
        if is_current {
            return Some(object);
        }
        self.hot.borrow_mut().remove(&name.key);
        None
    }

    /// Whether the index has changed since a look-up. A fill can end between the look-up and the
    /// next lease; its result must not be fetched a second time.
    pub(crate) fn has_changed(&self, found: &Found) -> bool {
        let slot = self.shared.index.lookup(&found.name.key);
        match (&found.lookup, slot) {
            (Lookup::Stored(object) | Lookup::Parts { object, .. }, _) => {
                !object.slot.is_some_and(|slot| self.shared.index.is_current(slot))
                    || !self.has_purge_status(object, &found.name.text)
            }
            (Lookup::Miss { purged: Some(purged) }, Some(slot)) => {
                purged.generation != slot.generation && !is_outlived_note(&slot)
            }
            (Lookup::HitForMiss, Some(slot)) => slot.state != State::Pass,
            (_, Some(slot)) => !is_outlived_note(&slot),
            (_, None) => false,
        }
    }

    /// Whether the index still has the slot of a copy, and nothing was purged since its status was
    /// last checked. Marks the slot as used.
    pub(crate) fn is_current(&self, object: &HotObject) -> bool {
        object.status_version.get() == self.shared.purges.version()
            && object.slot.is_some_and(|slot| self.is_in_use(slot))
    }

    /// Whether the slot is still in the index. Marks it as used, so that eviction spares it.
    pub(crate) fn is_in_use(&self, slot: SlotRef) -> bool {
        let is_current = self.shared.index.is_current(slot);
        if is_current {
            self.shared.index.touch(slot.at);
        }
        is_current
    }

    /// Whether a copy still has the purge status that it was made with, after all purges and undone
    /// purges.
    pub(crate) fn has_purge_status(&self, object: &HotObject, text: &[u8]) -> bool {
        let purges = &self.shared.purges;
        let version = purges.version();
        if object.status_version.get() == version {
            return true;
        }
        let status = purges.purge_status(text, &object.lifetimes.surrogates);
        if status == object.purge_status {
            object.status_version.set(version);
        }
        status == object.purge_status
    }

    /// Whether no purge names this key text or one of these surrogate keys.
    pub(crate) fn is_unpurged(&self, text: &[u8], surrogates: &SurrogateKeys) -> bool {
        self.shared.purges.purge_status(text, surrogates) == PurgeStatus::Valid
    }

    /// Counts an answer from a stored object without the origin.
    pub(crate) fn count_hit(&self, object: &HotObject) {
        if !Hot::count_hit(object)
            && let Some(slot) = object.slot
        {
            self.shared.index.count_hits(slot, 1);
        }
    }

    /// Removes an object that was stored when the route's keys had other components: it can answer
    /// no request, and must not keep the place of the next object.
    async fn of_this_key(&self, key: &KeyComponents, lookup: Lookup) -> Lookup {
        match lookup {
            Lookup::Stored(object) | Lookup::Parts { object, .. } if !is_of_key(key, &object) => {
                self.remove_object(&object).await;
                Lookup::NOTHING
            }
            lookup => lookup,
        }
    }

    /// Removes an object, unless there is another one under its key by now; says whether it did.
    pub(super) async fn remove_object(&self, object: &HotObject) -> bool {
        self.hot.borrow_mut().remove(&object.key);
        match object.slot {
            Some(slot) => self.remove_slot(&object.key, slot).await,
            None => false,
        }
    }

    async fn seek(&self, name: &Name) -> Lookup {
        if let Some(object) = self.hot_copy(name) {
            let room = self.hot.borrow_mut().room_for_body(&object);
            return match room {
                Some(room) => self.take_in(name, object, room).await,
                None => Lookup::Stored(object),
            };
        }
        for _ in 0..ATTEMPTS_MAX {
            let Some(slot) = self.shared.index.lookup(&name.key) else { break };
            if slot.state == State::Pass {
                return if is_outlived_note(&slot) { Lookup::NOTHING } else { Lookup::HitForMiss };
            }
            match self.load(name, &slot).await {
                // A purged object stays on the disk, so that the purge can be undone until the
                // space is needed.
                Ok(Some(lookup)) => {
                    if let Lookup::Stored(_) = lookup {
                        self.shared.index.touch(slot.at);
                    }
                    return lookup;
                }
                // It was replaced meanwhile: read the new one.
                _ if !self.shared.index.is_current(slot.slot_ref()) => {}
                Ok(None) => return self.remove_damaged(name, &slot, "missing").await,
                Err(OpenError::Fault(fault)) => {
                    return self.remove_damaged(name, &slot, fault.word()).await;
                }
                // The next request may find the disk quicker: this one is a miss.
                Err(OpenError::Io(error)) if Refused::of(&error).is_some() => {
                    self.refused_read(&error);
                    return Lookup::Miss { purged: Some(slot.slot_ref()) };
                }
                // Nothing is wrong with the file: we are short of descriptors, or the disk is ill.
                Err(OpenError::Io(error)) => {
                    let path = self.shared.store.path(&name.key);
                    ::log::warn!("cannot read cache file {path:?}: {error}; the origin is asked");
                    return Lookup::Unreadable;
                }
            }
        }
        Lookup::NOTHING
    }

    /// Reads the body of a hot object into memory, unless it is replaced meanwhile.
    async fn take_in(&self, name: &Name, object: Rc<HotObject>, room: LargeRoom) -> Lookup {
        let Body::File(file) = &object.body else { return Lookup::Stored(object) };
        match load::read_body(file).await {
            Ok(_) if !self.is_current(&object) => Lookup::Stored(object),
            Ok(body) => Lookup::Stored(self.hot.borrow_mut().take_in(&object, body, room)),
            Err(OpenError::Fault(fault)) => {
                self.hot.borrow_mut().remove(&name.key);
                let slot = self.shared.index.lookup(&name.key);
                match slot.filter(|slot| object.slot == Some(slot.slot_ref())) {
                    Some(slot) => self.remove_damaged(name, &slot, fault.word()).await,
                    None => Lookup::NOTHING,
                }
            }
            // The file was complete when it was opened, so it is sent from there.
            Err(OpenError::Io(_)) => Lookup::Stored(object),
        }
    }

    /// Removes a file that cannot be used, logs it once, and gives a miss.
    async fn remove_damaged(&self, name: &Name, slot: &SlotView, why: &str) -> Lookup {
        if self.remove_slot(&name.key, slot.slot_ref()).await {
            let path = self.shared.store.path(&name.key);
            ::log::warn!("cache file {path:?} is not usable ({why}): removed");
        }
        Lookup::NOTHING
    }
}

fn marker_in(lookup: &Lookup) -> Option<Marker> {
    match lookup {
        Lookup::Stored(object) => object.marker(),
        _ => None,
    }
}

/// The parts that an object lists; `None` if the list is damaged.
///
/// # Errors
///
/// The file cannot be read now.
pub(crate) async fn part_list(object: &HotObject) -> io::Result<Option<PartList>> {
    match &object.body {
        Body::Memory => Ok(object.with_body(PartList::decode)),
        Body::Large(body) => Ok(PartList::decode(body)),
        Body::File(file) if file.body_len > LIST_BYTES_MAX as u64 => Ok(None),
        Body::File(file) => match load::read_body(file).await {
            Ok(body) => Ok(PartList::decode(&body)),
            Err(OpenError::Fault(_)) => Ok(None),
            Err(OpenError::Io(error)) => Err(error),
        },
    }
}

/// Whether a marker, or the one response, selects by all fields that the operator names.
fn is_of_key(key: &KeyComponents, object: &HotObject) -> bool {
    key.accept(object.chosen_by())
}

/// Whether a slot holds a hit-for-miss that has expired.
fn is_outlived_note(slot: &SlotView) -> bool {
    slot.state == State::Pass && slot.fresh_until_s <= reactor::now().unix_s()
}

#[cfg(test)]
#[path = "tests/lookup.rs"]
mod tests;
