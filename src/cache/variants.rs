//! The list of a key's variants, which is stored beside them.
//!
//! The list has a key of its own, derived from the marker, so that removing the marker removes all
//! variants and their list. Workers change the list one after the other. A new variant that cannot be
//! entered is removed, since the list bounds the number of variants.

use std::io;
use std::rc::Rc;

use crate::cache::files::front::OpenError;
use crate::cache::found::Found;
use crate::cache::hot::HotObject;
use crate::cache::index::slot::SlotRef;
use crate::cache::insert::NewObject;
use crate::cache::name::{Marker, Name, VariantText};
use crate::cache::worker::Cache;
use crate::http::fields::Fields;
use crate::http::head::ResponseHead;
use crate::policy::key::key_of;
use crate::policy::key::variants::{LIST_BYTES_MAX, Variant, Variants};
use crate::policy::key::vary::VaryNames;
use crate::policy::rfc9111::revalidate::confirms;

/// The variants of a key without the one that a request selects.
#[derive(Debug)]
pub struct Others {
    list: Variants,
    primary: Name,
    mark: Box<[u8]>,
}

impl Others {
    /// Those beside what a look-up found; `None` if there is only this one.
    pub async fn of(cache: &Cache, found: &Found, marker: &Marker) -> Option<Self> {
        let list = read(cache, &found.primary.variant_list(marker)).await;
        Self::among(list, &found.primary, marker, &found.name)
    }

    /// The variants of a list without the one of this name.
    pub fn among(mut list: Variants, primary: &Name, marker: &Marker, name: &Name) -> Option<Self> {
        let parts = VariantText::of(&name.text)?;
        list.retain(|variant| *variant.chosen != *parts.chosen);
        if list.is_empty() {
            return None;
        }
        Some(Self { list, primary: primary.clone(), mark: (*marker.mark).into() })
    }

    /// The entity tags for If-None-Match.
    pub fn tags(&self) -> Vec<&[u8]> {
        self.list.tags()
    }

    /// The name of the variant that a 304 with these fields names.
    pub fn named_by(&self, not_modified: &Fields) -> Option<Name> {
        let variant = self.list.named_by(not_modified)?;
        Some(
            VariantText { primary: &self.primary.text, chosen: &variant.chosen, mark: &self.mark }
                .name(),
        )
    }
}

/// The names of the variants in the list of a key.
pub fn names(list: &Variants, primary: &Name, marker: &Marker) -> Vec<Name> {
    let name = |chosen| VariantText { primary: &primary.text, chosen, mark: &marker.mark }.name();
    list.iter().map(|variant| name(&variant.chosen)).collect()
}

/// The object that a 304 confirms, and its name (RFC 9111 section 4.3.4): the one under `name`, or
/// another variant with a tag in the request. If several tags were offered, a 304 without a tag
/// confirms none.
pub async fn confirmed(
    cache: &Cache,
    name: &Name,
    own: Option<Rc<HotObject>>,
    others: Option<Others>,
    not_modified: &ResponseHead,
) -> Option<(Name, Rc<HotObject>)> {
    let had_choice = others.as_ref().is_some_and(|others| !others.tags().is_empty());
    if let Some(own) = own {
        if had_choice && !not_modified.fields.contains("etag") {
            return None;
        }
        if confirms(&own.fields, not_modified) {
            return Some((name.clone(), own));
        }
    }
    let name = others?.named_by(&not_modified.fields)?;
    let other = find_whole(cache, &name).await?;
    confirms(&other.fields, not_modified).then_some((name, other))
}

/// A variant of the list, if it is still stored, and stored as a whole.
pub(super) async fn find_whole(cache: &Cache, name: &Name) -> Option<Rc<HotObject>> {
    cache.find_object(name).await.filter(|object| object.is_whole())
}

/// A variant for the list of its key.
#[derive(Debug)]
pub struct NewVariant {
    text: Rc<[u8]>,
    variant: Variant,
    vary: Option<VaryNames>,
    purge_epoch: u64,
}

impl NewVariant {
    /// The variant that a response is; `None` if its key has no variants.
    pub fn of(new: &NewObject) -> Option<Self> {
        let parts = VariantText::of(&new.name.text)?;
        let variant = Variant::of(parts.chosen, &new.fields)?;
        let vary = new.lifetimes.vary.clone();
        let purge_epoch = new.lifetimes.surrogates.purge_epoch;
        Some(Self { text: Rc::clone(&new.name.text), variant, vary, purge_epoch })
    }

    /// Enters the variant after it was stored, and removes the oldest ones beyond the limit. If the list
    /// cannot be changed, this removes what was stored in `slot`; `None` is for a variant that was there
    /// before.
    pub async fn enter(self, cache: &Rc<Cache>, slot: Option<SlotRef>) {
        let key = key_of(&self.text);
        if let (Err(_), Some(slot)) = (self.try_enter(cache).await, slot) {
            cache.remove_slot(&key, slot).await;
        }
    }

    async fn try_enter(self, cache: &Rc<Cache>) -> io::Result<()> {
        let Some(parts) = VariantText::of(&self.text) else { return Ok(()) };
        let name = parts.list_name();
        // Most validations change nothing.
        if load(cache, &name).await.is_ok_and(|list| list.has(&self.variant)) {
            return Ok(());
        }
        let Some(lock) = cache.lock_list(&name).await else {
            return Err(io::ErrorKind::TimedOut.into());
        };
        let mut list = match load(cache, &name).await {
            // The contents of a damaged one are lost.
            Err(OpenError::Fault(_)) => Variants::default(),
            loaded => loaded.map_err(io::Error::other)?,
        };
        let index = &cache.shared.index;
        let takes_mark = |variant: &Variant| {
            let key = VariantText { chosen: &variant.chosen, ..parts }.name().key;
            index.lookup(&key).is_some_and(|slot| {
                index.forget_visit(slot.at);
                slot.is_visited
            })
        };
        let Some(gone) = list.enter(self.variant, takes_mark) else { return Ok(()) };
        for variant in gone {
            cache.remove(&VariantText { chosen: &variant.chosen, ..parts }.name().key);
        }
        let new = NewObject::note(name, self.vary, self.purge_epoch);
        lock.write(&new, list.encode()).await.map(drop)
    }
}

pub(super) async fn read(cache: &Cache, name: &Name) -> Variants {
    load(cache, name).await.unwrap_or_default()
}

async fn load(cache: &Cache, name: &Name) -> Result<Variants, OpenError> {
    if let Some(list) = cache.hot_copy(name) {
        return Ok(list.with_body(Variants::decode));
    }
    if cache.shared.index.lookup(&name.key).is_none() {
        return Ok(Variants::default());
    }
    let loaded = cache.shared.store.load(name.key, &name.text, LIST_BYTES_MAX).await?;
    let body = loaded.and_then(|(_, body)| body);
    Ok(body.map_or_else(Variants::default, |body| Variants::decode(&body)))
}
