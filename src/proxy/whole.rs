//! Parts that are all there become one file.

use std::io;
use std::rc::Rc;
use std::slice;

use crate::cache::Cache;
use crate::cache::fills::{FillAt, Lease};
use crate::cache::hot::{Body, HotObject};
use crate::cache::insert::{self, Entry, Shelf};
use crate::cache::lease;

use crate::cache::name::Name;
use crate::cache::part_list::{self, Lock};
use crate::cache::place;
use crate::http::status::Status;
use crate::proxy::pieces::{self, Item};
use crate::reactor;

/// A larger whole stays in its parts: to write it anew would keep the disk busy for a while, and an
/// answer from them costs no more than a few system calls.
const WHOLE_BYTES_MAX: u64 = 64 << 20;

/// Puts the parts listed under `name` together, if they are all there; `primary` is the key before
/// Vary. Whoever asks meanwhile is answered from the parts.
pub(super) async fn put_together(cache: Rc<Cache>, primary: Name, name: Name) {
    // Who makes the key untrue meanwhile sees the fill, and spoils it.
    let purge_epoch = cache.purge_epoch();
    let at = match lease::unpurged(&cache, &name.key, &name.text, purge_epoch) {
        Lease::Leader(at) => at,
        Lease::Follow(at) => return lease::leave(&cache, at),
        Lease::Full => return,
    };
    let filling = Filling { cache: &cache, at };
    let shelf = Shelf::new(Rc::clone(&cache), at.id());
    let Some(listed) = cache.find_object(&name).await else { return };
    let Some(mut list) = part_list::read(&listed).filter(|_| listed.is_part_list()) else {
        return;
    };
    let Some(length) = list.length().filter(|length| *length <= WHOLE_BYTES_MAX) else { return };
    let ids: Vec<u64> = list.parts().iter().map(|part| part.id).collect();
    let items = pieces::load(&cache, &name, &mut list, slice::from_ref(&(0..length))).await;
    if items.iter().flatten().any(pieces::is_missing) {
        return;
    }
    let (fields, lifetimes) = (listed.fields.clone(), listed.lifetimes.clone());
    let entry = Entry { name: name.clone(), status: Status(200), fields, lifetimes };
    match write(&filling, &shelf, &entry, &listed, length, items.into_iter().flatten()).await {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => return shelf.refused(&error),
    }
    for id in ids {
        place::discard(&cache.shared.index, &cache.shared.store, &name.part(id).key, None);
    }
    if filling.is_doomed() {
        shelf.forget(&primary.key);
        shelf.forget(&name.key);
    }
}

/// Writes the whole and shows it in the place of its list; whether it did, for the list may have
/// changed, or gone, meanwhile.
async fn write(
    filling: &Filling<'_>,
    shelf: &Shelf,
    entry: &Entry,
    listed: &HotObject,
    length: u64,
    items: impl Iterator<Item = Item>,
) -> io::Result<bool> {
    let mut writer = shelf.begin(entry, Some(length))?;
    for item in items {
        let Item::Stored(part, range) = item else { continue };
        match &part.body {
            Body::Memory => {
                let range = range.start as usize..range.end as usize;
                part.with_body(|body| writer.append(body.get(range).unwrap_or_default()))?;
            }
            Body::Large(body) => {
                let range = range.start as usize..range.end as usize;
                writer.append(body.get(range).unwrap_or_default())?;
            }
            Body::File(file) => {
                let mut at = range.start;
                while at < range.end {
                    at += insert::copy_part(file, at..range.end, &mut writer)?;
                    reactor::yield_now().await;
                }
            }
        }
    }
    shelf.room_for(length).await;
    let Some(_lock) = Lock::take(filling.cache, &entry.name).await else { return Ok(false) };
    if filling.is_doomed() || !filling.cache.is_current(listed) {
        return Ok(false);
    }
    shelf.publish(entry, writer).map(|_| true)
}

/// The fill that stands for the writing; ends with it.
struct Filling<'c> {
    cache: &'c Cache,
    at: FillAt,
}

impl Filling<'_> {
    fn is_doomed(&self) -> bool {
        self.cache.shared.fills.is_doomed(self.at)
    }
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        lease::give_up(self.cache, self.at);
    }
}
