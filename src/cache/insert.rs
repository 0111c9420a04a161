//! Storing: files written, named and shown in the index, in this order.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::Duration;

use crate::cache::files::store::Object;
use crate::cache::files::writer::Writer;
use crate::cache::found::Found;
use crate::cache::hot::{Body, HotObject};
use crate::cache::index::slot::{NewSlot, SlotRef, State};
use crate::cache::lease::Lease;
use crate::cache::maintenance::evict::{Level, Limits};
use crate::cache::name::{MARKER_STATUS, Marker, Name};
use crate::cache::place::{self, Renewed};
use crate::cache::shared::Shared;
use crate::cache::worker::Cache;
use crate::http::fields::Fields;
use crate::http::status::Status;
use crate::policy::key::Key;
use crate::policy::key::vary::VaryNames;
use crate::policy::meta;
use crate::policy::purge::surrogate::SurrogateKeys;
use crate::policy::rfc9111::lifetimes::Lifetimes;
use crate::reactor::{self, scratch, timer};

/// How long a key is remembered as not to be stored, in seconds.
pub(crate) const PASS_S: u64 = 60;

/// As [`PASS_S`], where the disk was at fault: there may be room again soon.
pub(crate) const PASS_REFUSED_S: u64 = 5;

/// The longest that a whole file waits for room in the index, in milliseconds, and how often it
/// looks.
const ROOM_WAIT_MS: u64 = 500;
const ROOM_PAUSE: Duration = Duration::from_millis(5);

/// The bytes of a body in memory that are written in one go.
const PIECE_BYTES: u64 = 256 << 10;

/// A response without its body, as it is to be stored.
#[derive(Clone, Debug)]
pub struct NewObject {
    /// Where.
    pub name: Name,
    /// Its status.
    pub status: Status,
    /// Its fields.
    pub fields: Fields,
    /// How long it may be used.
    pub lifetimes: Lifetimes,
}

impl NewObject {
    /// A marker, a list of variants: an object of the cache's own, which no purge names by a tag.
    pub(super) fn note(name: Name, vary: Option<VaryNames>, purge_epoch: u64) -> Self {
        let lifetimes = Lifetimes {
            received_s: reactor::now().unix_s(),
            vary,
            surrogates: SurrogateKeys::untagged(purge_epoch),
            ..Lifetimes::default()
        };
        Self { name, status: MARKER_STATUS, fields: Fields::new(), lifetimes }
    }

    /// Its lifetimes and its fields, as a file has them.
    fn encoded(&self) -> (Vec<u8>, Vec<u8>) {
        let mut head = Vec::with_capacity(self.fields.wire_len());
        self.fields.write_to(&mut head);
        let mut meta = Vec::new();
        meta::encode(&self.lifetimes, &mut meta);
        (meta, head)
    }

    /// With its body in memory; without a slot only the readers of its fill see it.
    pub fn with_body(self, slot: Option<SlotRef>, body: &[u8]) -> HotObject {
        let Self { name, status, fields, lifetimes } = self;
        HotObject::in_memory(name.key, slot, status, lifetimes, fields, body)
    }
}

impl Lease {
    /// The name that a response belongs under. Writes the marker first when the key has variants.
    pub fn resolve_name(
        &self,
        found: &Found,
        request: &Fields,
        lifetimes: &Lifetimes,
    ) -> io::Result<Name> {
        let Some(names) = &lifetimes.vary else { return Ok(found.primary.clone()) };
        let marker = match &found.marker {
            Some(marker) if marker.names == *names => marker.clone(),
            _ => self.write_marker(&found.primary, names, lifetimes.surrogates.purge_epoch)?,
        };
        let name = found.primary.variant(&marker.names, &marker.mark, request);
        match name.is_too_long() {
            true => Err(io::Error::other("what chooses a variant is too long")),
            false => Ok(name),
        }
    }

    /// Begins the fill's file, which followers in other workers find by the fill's number.
    pub fn begin(&self, new: &NewObject, body_len: Option<u64>) -> io::Result<Writer> {
        let (meta, head) = new.encoded();
        let store = &self.cache.shared.store;
        store.begin(self.at.id(), &new.name.text, &meta, new.status.0, &head, body_len)
    }

    /// Completes a file, gives it its name, and then shows it in the index.
    pub fn publish(&self, new: &NewObject, writer: Writer) -> io::Result<SlotRef> {
        let Shared { index, store, .. } = &*self.cache.shared;
        let slot = NewSlot::of(new.name.key, new.status, &new.lifetimes);
        let published = place::put(index, store, writer.finish()?, &slot);
        let published = published.map_err(io::Error::other)?;
        self.cache.wake_keeper_if_full();
        Ok(published.slot)
    }

    /// Stores a whole response and keeps it in the hot tier.
    pub fn insert(&self, new: NewObject, body: &[u8]) -> io::Result<Rc<HotObject>> {
        let slot = self.write(&new, body)?;
        Ok(self.cache.keep_hot(new.with_body(Some(slot), body)))
    }

    /// Gives a stored object the fields and lifetimes of `new`. The body stays where it is, in its
    /// file and in the hot tier; an object that was replaced or removed meanwhile is left alone.
    pub async fn renew(&self, new: NewObject, stored: &HotObject) -> io::Result<()> {
        let Shared { index, store, .. } = &*self.cache.shared;
        let which = stored.slot.map(|it| it.generation).zip(stored.body_crc());
        let Some(which) = which else { return self.copy(new, stored).await };
        let (meta, head) = new.encoded();
        let front = [&*new.name.text, &meta, &head];
        let slot = NewSlot::of(new.name.key, new.status, &new.lifetimes);
        match place::renew(index, store, which, &slot, front)? {
            Renewed::Done(published, stamp) => {
                if let Body::File(file) = &stored.body {
                    file.stamp.set(stamp);
                }
                self.cache.wake_keeper_if_full();
                let (name, slot) = (new.name, Some(published.slot));
                let hot = stored.renewed(name.key, slot, new.lifetimes, new.fields);
                self.cache.keep_hot(hot);
                Ok(())
            }
            Renewed::Unfit => self.copy(new, stored).await,
            Renewed::Gone => Ok(()),
        }
    }

    /// Stores a copy of an object's body under the name, fields and lifetimes of `new`.
    pub async fn copy(&self, new: NewObject, stored: &HotObject) -> io::Result<()> {
        if matches!(stored.body, Body::Memory) {
            return stored.with_body(|body| self.insert(new, body)).map(drop);
        }
        let mut writer = self.begin(&new, Some(stored.body_len))?;
        append_body(&mut writer, stored, 0..stored.body_len).await?;
        self.publish(&new, writer).map(drop)
    }

    /// Ends the fill after something was stored for what was found, or could not be; says whether
    /// it is there to be found.
    pub fn stored(self, found: &Found, stored: io::Result<()>) -> bool {
        if let Err(error) = &stored {
            self.cache.refused(error);
        }
        let is_stored = !self.remove_if_doomed(found) && stored.is_ok();
        if is_stored {
            self.done();
        }
        is_stored
    }

    /// Takes back what was stored for what was found, if something made it untrue at that very
    /// moment; says whether it did.
    pub fn remove_if_doomed(&self, found: &Found) -> bool {
        let is_doomed = self.is_doomed();
        if is_doomed {
            self.cache.remove(&found.primary.key);
            self.cache.remove(&found.name.key);
        }
        is_doomed
    }

    /// Writes and publishes a file with this body.
    pub(super) fn write(&self, new: &NewObject, body: &[u8]) -> io::Result<SlotRef> {
        let mut writer = self.begin(new, Some(body.len() as u64))?;
        writer.append(body)?;
        self.publish(new, writer)
    }

    fn write_marker(
        &self,
        primary: &Name,
        names: &VaryNames,
        purge_epoch: u64,
    ) -> io::Result<Marker> {
        let mark: Rc<[u8]> = format!("{:x}", self.at.id()).into_bytes().into();
        let new = NewObject::note(primary.clone(), Some(names.clone()), purge_epoch);
        self.write(&new, &mark)?;
        Ok(Marker { names: names.clone(), mark })
    }
}

impl Cache {
    /// Has the keeper make room for what is being written.
    pub(crate) fn announce(&self, total: Option<u64>) {
        if !self.shared.index.has_room(total.unwrap_or(0)) {
            self.wake_keeper();
        }
    }

    /// Waits for a moment, if it must, until there is room for an object of so many bytes.
    pub(crate) async fn room_for(&self, bytes: u64) {
        let until_ms = reactor::now().mono_ms() + ROOM_WAIT_MS;
        while !self.shared.index.has_room(bytes) && reactor::now().mono_ms() < until_ms {
            self.wake_keeper();
            timer::sleep(ROOM_PAUSE).await;
        }
    }

    /// Remembers for `for_s` seconds that a key is not to be stored, and removes what is stored
    /// under it.
    pub(crate) fn note_pass(&self, key: &Key, for_s: u64) {
        self.remove(key);
        let received_s = reactor::now().unix_s();
        let mut lifetimes = Lifetimes { received_s, ..Lifetimes::default() };
        lifetimes.fresh_until_s = received_s + for_s;
        lifetimes.swr_until_s = lifetimes.fresh_until_s;
        lifetimes.sie_until_s = lifetimes.fresh_until_s;
        // Without the note the next request waits for an answer that it cannot share, and no more.
        let note = NewSlot::of(*key, Status(0), &lifetimes);
        let _ = self.shared.index.publish(&NewSlot { state: State::Pass, ..note });
    }

    /// Says, once for all workers, that what should be stored cannot be.
    pub(crate) fn refused(&self, error: &io::Error) {
        self.wake_keeper();
        if self.shared.fills.may_say_refused(reactor::now().unix_s()) {
            ::log::warn!("cannot store in the cache: {error}; answers are passed on unstored");
        }
    }

    fn wake_keeper_if_full(&self) {
        let index = &self.shared.index;
        // The keeper watches the disk by itself.
        let (size_bytes, objects) = (index.size_bytes(), index.n_objects_max());
        let limits = Limits { size_bytes, objects, free_bytes_min: 0 };
        let level = Level { bytes: index.bytes(), objects: index.objects(), free_bytes: None };
        if limits.wants_room(&level, false) {
            self.wake_keeper();
        }
    }

    fn keep_hot(&self, hot: HotObject) -> Rc<HotObject> {
        let object = Rc::new(hot);
        self.hot.borrow_mut().insert(Rc::clone(&object));
        object
    }
}

/// Appends a range of an object's body to a file, piece by piece, so that others have their turn.
pub(crate) async fn append_body(
    writer: &mut Writer,
    object: &HotObject,
    mut range: Range<u64>,
) -> io::Result<()> {
    while range.start < range.end {
        range.start += match &object.body {
            Body::File(file) => append_from_file(writer, file, &range)?,
            Body::Large(body) => append_piece(writer, body, &range)?,
            Body::Memory => object.with_body(|body| append_piece(writer, body, &range))?,
        };
        reactor::yield_now().await;
    }
    Ok(())
}

/// Appends the beginning of a range of a body in memory; says how much of it.
fn append_piece(writer: &mut Writer, body: &[u8], range: &Range<u64>) -> io::Result<u64> {
    let end = range.end.min(range.start + PIECE_BYTES);
    let piece = body.get(range.start as usize..end as usize).ok_or(io::ErrorKind::UnexpectedEof)?;
    writer.append(piece).map(|()| piece.len() as u64)
}

/// Appends the beginning of a range of a body in its file; says how much of it.
fn append_from_file(writer: &mut Writer, file: &Object, range: &Range<u64>) -> io::Result<u64> {
    scratch::with_scratch(|scratch| {
        let piece = (range.end - range.start).min(scratch.len() as u64) as usize;
        let offset = file.body_offset() + range.start;
        match file.file.read_at(&mut scratch[..piece], offset)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n_read => writer.append(&scratch[..n_read]).map(|()| n_read as u64),
        }
    })
}

#[cfg(test)]
#[path = "tests/insert.rs"]
mod tests;
