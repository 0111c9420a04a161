//! Writing one file of a complete set of parts.

use std::io;
use std::rc::Rc;
use std::slice;

use crate::cache::Cache;
use crate::cache::found::Found;
use crate::cache::hot::HotObject;
use crate::cache::insert::{self, NewObject};
use crate::cache::lease::Lease;

use crate::cache::name::Name;
use crate::cache::ranges::pieces::{self, Item};
use crate::http::status::Status;

/// A larger whole stays in its parts: to copy it would keep the disk busy for a while, and an
/// answer from them costs no more than a few system calls.
const WHOLE_BYTES_MAX: u64 = 64 << 20;

/// Combines the parts listed under `name` into one object, if they are complete. Requests that come
/// meanwhile are answered from the parts.
pub(crate) async fn put_together(cache: Rc<Cache>, found: Found, name: Name) {
    let purge_epoch = cache.purge_epoch();
    let found = cache.find_again(&found, &name).await;
    let Some((listed, list)) = found.parts() else { return };
    let mut list = list.clone();
    // An invalidation that comes meanwhile finds the fill and dooms it.
    let Some(lease) = cache.lead_or_follow(&found, &name.key, purge_epoch).lead() else { return };
    let Some(length) = list.length().filter(|length| *length <= WHOLE_BYTES_MAX) else { return };
    let ids: Vec<u64> = list.parts().iter().map(|part| part.id).collect();
    let items = pieces::load(&cache, &name, &mut list, slice::from_ref(&(0..length))).await;
    if pieces::has_missing(&items) {
        return;
    }
    let (fields, lifetimes) = (listed.fields.clone(), listed.lifetimes.clone());
    let new = NewObject { name: name.clone(), status: Status(200), fields, lifetimes };
    match write(&lease, &new, listed, length, items.into_iter().flatten()).await {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => return cache.refused(&error),
    }
    for id in ids {
        cache.remove(&name.part(id).key);
    }
    lease.remove_if_doomed(&found);
}

/// Writes the whole and publishes it in place of the list. False if the list was changed or removed
/// meanwhile.
async fn write(
    lease: &Lease,
    new: &NewObject,
    listed: &HotObject,
    length: u64,
    items: impl Iterator<Item = Item>,
) -> io::Result<bool> {
    let mut spool = lease.begin(new, Some(length)).await?;
    for item in items {
        if let Item::Stored(part, range) = item {
            insert::append_body(&mut spool, &part, range).await?;
        }
    }
    lease.cache.room_for(length).await;
    let Some(_lock) = lease.cache.lock_list(&new.name).await else { return Ok(false) };
    if lease.is_doomed() || !lease.cache.is_current(listed) {
        return Ok(false);
    }
    lease.publish(new, spool).await.map(|_| true)
}
