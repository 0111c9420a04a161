//! Storing an object: its file is written, then renamed into place, then published in the index.

use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use crate::cache::files::object::HEADERS_LEN;
use crate::cache::files::spool::Spool;
use crate::cache::found::Found;
use crate::cache::hot::{Body, HotObject};
use crate::cache::index::slot::{NewSlot, SlotRef, State};
use crate::cache::lease::Lease;
use crate::cache::maintenance::evict::{Level, Limits};
use crate::cache::name::{MARKER_STATUS, Marker, Name};
use crate::cache::place::{self, PutError, Renewed};
use crate::cache::shared::Shared;
use crate::cache::worker::Cache;
use crate::config::Admission;
use crate::disk::file::DiskFile;
use crate::disk::{self, Kind};
use crate::http::fields::Fields;
use crate::http::status::Status;
use crate::metrics::table::Metric;
use crate::policy::key::Key;
use crate::policy::key::vary::VaryNames;
use crate::policy::meta;
use crate::policy::purge::surrogate::SurrogateKeys;
use crate::policy::reason::eviction::EvictionReason;
use crate::policy::rfc9111::freshness::Lifetimes;
use crate::reactor::{self, timer};
use crate::shared::meter;

/// How long a hit-for-miss lasts, in seconds.
pub(crate) const HIT_FOR_MISS_S: u64 = 60;

/// As [`HIT_FOR_MISS_S`], after an error of the disk: there may be room again soon.
pub(crate) const HIT_FOR_MISS_REFUSED_S: u64 = 5;

/// The text beside a key for a hit-for-miss, where the key itself has a stored response.
const NOTE: &[u8] = b"hit-for-miss";

/// The longest that a whole file waits for room in the index, in milliseconds, and how often it
/// looks.
const ROOM_WAIT_MS: u64 = 500;
const ROOM_PAUSE: Duration = Duration::from_millis(5);

/// The bytes of a body in memory that are written in one go.
const PIECE_BYTES: u64 = 256 << 10;

/// A response without its body, as it is to be stored.
#[derive(Clone, Debug)]
pub struct NewObject {
    /// Its name.
    pub name: Name,
    /// Its status.
    pub status: Status,
    /// Its fields.
    pub fields: Fields,
    /// How long it may be used.
    pub lifetimes: Lifetimes,
}

impl NewObject {
    /// A marker or a list of variants. Such an object is no response, and no purge names it by a
    /// tag.
    pub(super) fn note(name: Name, vary: Option<VaryNames>, purge_epoch: u64) -> Self {
        let lifetimes = Lifetimes {
            received_s: reactor::now().unix_s(),
            vary,
            surrogates: SurrogateKeys::untagged(purge_epoch),
            ..Lifetimes::default()
        };
        Self { name, status: MARKER_STATUS, fields: Fields::new(), lifetimes }
    }

    /// Its lifetimes and its fields in the form of a cache file.
    fn encoded(&self) -> (Vec<u8>, Vec<u8>) {
        let mut head = Vec::with_capacity(self.fields.wire_len());
        self.fields.write_to(&mut head);
        let mut meta = Vec::new();
        meta::encode(&self.lifetimes, &mut meta);
        (meta, head)
    }

    /// The object with its body in memory. Without a slot, only the readers of its fill see it.
    pub fn with_body(self, slot: Option<SlotRef>, body: &[u8]) -> HotObject {
        let Self { name, status, fields, lifetimes } = self;
        HotObject::in_memory(name.key, slot, status, lifetimes, fields, body)
    }
}

impl Lease {
    /// The name that a response belongs under. Writes the marker first when the key has variants.
    pub async fn resolve_name(
        &self,
        found: &Found,
        request: &Fields,
        lifetimes: &Lifetimes,
    ) -> io::Result<Name> {
        let Some(names) = &lifetimes.vary else { return Ok(found.primary.clone()) };
        let marker = match &found.marker {
            Some(marker) if marker.names == *names => marker.clone(),
            _ => self.write_marker(&found.primary, names, lifetimes.surrogates.purge_epoch).await?,
        };
        let name = found.primary.variant(&marker.names, &marker.mark, request);
        match name.is_too_long() {
            true => Err(io::Error::other("the fields that select the variant are too long")),
            false => Ok(name),
        }
    }

    /// Begins the fill's file, which followers in other workers find by the fill's number.
    pub async fn begin(&self, new: &NewObject, body_len: Option<u64>) -> io::Result<Spool> {
        let (meta, head) = new.encoded();
        let front = [new.name.text.to_vec(), meta, head];
        self.cache.shared.store.spool(self.at.id(), new.status.0, front, body_len).await
    }

    /// Completes a file, gives it its name, and then shows it in the index.
    pub async fn publish(&self, new: &NewObject, spool: Spool) -> io::Result<SlotRef> {
        let front_len = spool.body_offset() as u32;
        let slot = self.new_slot(new, front_len, spool.written())?;
        let (writer, key) = (spool.into_writer()?, slot.key);
        let commit = move || {
            let finished = writer.finish()?;
            Ok::<_, io::Error>((finished.stamp, finished.commit(&key)?))
        };
        let (stamp, file) = disk::run(Kind::Write(0), commit).await?;
        self.show(&NewSlot { stamp, ..slot }, &file)
    }

    /// The slot of an object, unless the index has no room for it.
    fn new_slot(&self, new: &NewObject, head_len: u32, body_len: u64) -> io::Result<NewSlot> {
        let slot = NewSlot::of(new.name.key, new.status, &new.lifetimes);
        let slot = NewSlot { head_len, body_len, ..slot };
        place::check_room(&self.cache.shared.index, &slot).map_err(io::Error::other)?;
        Ok(slot)
    }

    /// Shows a file that has its name in the index.
    fn show(&self, slot: &NewSlot, file: &DiskFile) -> io::Result<SlotRef> {
        let shown = place::show(&self.cache.shared.index, slot, file);
        if let Err(PutError::Publish(_)) = shown {
            self.cache.remove(&slot.key);
        }
        let published = shown.map_err(io::Error::other)?;
        meter::count(Metric::Stores.cell());
        if let Some((key, bytes)) = published.evicted {
            meter::count(Metric::Evictions.at(EvictionReason::Bucket as usize));
            meter::add(Metric::EvictedBytes.cell(), bytes);
            self.cache.unlink_behind(&key);
        }
        self.cache.wake_keeper_if_full();
        Ok(published.slot)
    }

    /// Stores a whole response and keeps it in the hot tier.
    pub async fn insert(&self, new: NewObject, body: &[u8]) -> io::Result<Rc<HotObject>> {
        let slot = self.write(&new, body.to_vec()).await?;
        Ok(self.cache.keep_hot(new.with_body(Some(slot), body)))
    }

    /// Gives a stored object the fields and lifetimes of `new`. The body stays where it is, in its
    /// file and in the hot tier; an object that was replaced or removed meanwhile is left alone.
    pub async fn renew(&self, new: NewObject, stored: &HotObject) -> io::Result<()> {
        let Shared { index, store, .. } = &*self.cache.shared;
        let which = stored.slot.map(|it| it.generation).zip(stored.body_crc());
        let Some(which) = which else { return self.copy(new, stored).await };
        let (meta, head) = new.encoded();
        let slot = NewSlot::of(new.name.key, new.status, &new.lifetimes);
        let (store, key) = (store.clone(), slot.key);
        let open = move || Ok::<_, io::Error>(store.open_to_renew(&key));
        let Some(file) = disk::run(Kind::Write(0), open).await? else {
            return self.copy(new, stored).await;
        };
        let front = [&*new.name.text, &meta, &head];
        let renewed = match place::plan_renewal(index, &file, which, &slot, front)? {
            Ok((header, slot)) => {
                let write = move || {
                    let stamp = file.write(&header, &meta, &head)?;
                    Ok::<_, io::Error>((stamp, file))
                };
                let _renewing = Renewing::of(&stored.body);
                let (stamp, file) = disk::run(Kind::Write(0), write).await?;
                if let Body::File(file) = &stored.body {
                    file.stamp.set(stamp);
                }
                place::show_renewal(index, &file, &NewSlot { stamp, ..slot }, which.0)?
            }
            Err(renewed) => renewed,
        };
        match renewed {
            Renewed::Done(published, _) => {
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
            let body = stored.with_body(<[u8]>::to_vec);
            return self.insert(new, &body).await.map(drop);
        }
        let mut spool = self.begin(&new, Some(stored.body_len)).await?;
        append_body(&mut spool, stored, 0..stored.body_len).await?;
        self.publish(&new, spool).await.map(drop)
    }

    /// Ends the fill with the result of storing; says whether the object can be found now.
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

    /// Removes what was stored, if a purge or an invalidation doomed the fill meanwhile; says
    /// whether it did.
    pub fn remove_if_doomed(&self, found: &Found) -> bool {
        let is_doomed = self.is_doomed();
        if is_doomed {
            self.cache.remove(&found.primary.key);
            self.cache.remove(&found.name.key);
        }
        is_doomed
    }

    /// Writes and publishes a file with this body.
    pub(super) async fn write(&self, new: &NewObject, body: Vec<u8>) -> io::Result<SlotRef> {
        let (meta, head) = new.encoded();
        let text = new.name.text.to_vec();
        let front_len = (HEADERS_LEN + text.len() + meta.len() + head.len()) as u32;
        let (n_bytes, len) = (body.len(), Some(body.len() as u64));
        let slot = self.new_slot(new, front_len, n_bytes as u64)?;
        let (store, id, status, key) =
            (self.cache.shared.store.clone(), self.at.id(), new.status.0, slot.key);
        let write = move || {
            let mut writer = store.begin(id, &text, &meta, status, &head, len)?;
            writer.append(&body)?;
            let finished = writer.finish()?;
            Ok::<_, io::Error>((finished.stamp, finished.commit(&key)?))
        };
        let (stamp, file) = disk::run(Kind::Write(n_bytes), write).await?;
        self.show(&NewSlot { stamp, ..slot }, &file)
    }

    async fn write_marker(
        &self,
        primary: &Name,
        names: &VaryNames,
        purge_epoch: u64,
    ) -> io::Result<Marker> {
        let mark: Rc<[u8]> = format!("{:x}", self.at.id()).into_bytes().into();
        let new = NewObject::note(primary.clone(), Some(names.clone()), purge_epoch);
        self.write(&new, mark.to_vec()).await?;
        Ok(Marker { names: names.clone(), mark })
    }
}

/// Has this worker's readers of a file take it for unchanged while its head is written: its body
/// stays as it is.
struct Renewing<'b>(&'b Body);

impl<'b> Renewing<'b> {
    fn of(body: &'b Body) -> Self {
        let renewing = Self(body);
        renewing.set(true);
        renewing
    }

    fn set(&self, is_being_renewed: bool) {
        if let Body::File(file) = self.0 {
            file.is_being_renewed.set(is_being_renewed);
        }
    }
}

impl Drop for Renewing<'_> {
    fn drop(&mut self) {
        self.set(false);
    }
}

impl Cache {
    /// Counts a use of a key that is not stored; says whether the admission rules let it be stored:
    /// the route's `uses_min` and, in a full cache, `cache.admission`, where several waiting
    /// clients count as a second use.
    pub fn admits(&self, key: &Key, uses_min: u32, is_shared: impl FnOnce() -> bool) -> bool {
        if self.admission == Admission::Off && uses_min <= 1 {
            return true;
        }
        let Shared { index, uses, .. } = &*self.shared;
        let is_full = index.is_full();
        let n_before = uses.count(key, is_full);
        n_before.saturating_add(1) >= uses_min
            && (!is_full || uses.admits(n_before, self.admission) || is_shared())
    }

    /// Wakes the keeper, if there is no room for a body that is being written.
    pub(crate) fn announce(&self, total: Option<u64>) {
        if !self.shared.index.has_room(total.unwrap_or(0)) {
            self.wake_keeper();
        }
    }

    /// Waits a short time, if needed, until there is room for an object of this many bytes.
    pub(crate) async fn room_for(&self, bytes: u64) {
        let until_ms = reactor::now().mono_ms() + ROOM_WAIT_MS;
        while !self.shared.index.has_room(bytes) && reactor::now().mono_ms() < until_ms {
            self.wake_keeper();
            timer::sleep(ROOM_PAUSE).await;
        }
    }

    /// Remembers for `for_s` seconds that an answer for a key was not to be stored. What is stored
    /// under the key stays, and the note lies beside it.
    pub(crate) fn remember_hit_for_miss(&self, key: &Key, for_s: u64) {
        let index = &self.shared.index;
        let is_stored = index.lookup(key).is_some_and(|slot| slot.state != State::Pass);
        let key = &if is_stored { key.beside(NOTE) } else { *key };
        let received_s = reactor::now().unix_s();
        let mut lifetimes = Lifetimes { received_s, ..Lifetimes::default() };
        lifetimes.fresh_until_s = received_s + for_s;
        lifetimes.swr_until_s = lifetimes.fresh_until_s;
        lifetimes.sie_until_s = lifetimes.fresh_until_s;
        // If this fails, the next request waits for a response that it cannot share, which does no
        // other harm.
        let note = NewSlot::of(*key, Status(0), &lifetimes);
        let _ = index.publish(&NewSlot { state: State::Pass, ..note });
    }

    /// Whether it is remembered that an answer for a key was not to be stored.
    pub(crate) fn is_hit_for_miss(&self, key: &Key) -> bool {
        let now_s = reactor::now().unix_s();
        [*key, key.beside(NOTE)].iter().any(|key| {
            let slot = self.shared.index.lookup(key);
            slot.is_some_and(|slot| slot.state == State::Pass && now_s < slot.fresh_until_s)
        })
    }

    /// Logs, once for all workers, that an object could not be stored. The keeper logs how many
    /// more there were.
    pub(crate) fn refused(&self, error: &io::Error) {
        self.wake_keeper();
        let refusals = self.shared.fills.refused_stores();
        if refusals.is_none_or(|refusals| refusals.note(reactor::now().unix_s())) {
            ::log::warn!(
                "cannot store in the cache: {error}; responses are passed without storing"
            );
        }
    }

    /// Says, once for all workers, that what is stored could not be read in time.
    pub(super) fn refused_read(&self, error: &io::Error) {
        let refusals = self.shared.fills.refused_reads();
        if refusals.is_none_or(|refusals| refusals.note(reactor::now().unix_s())) {
            ::log::warn!("cannot read from the cache: {error}; the origin is asked");
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

/// Appends a range of an object's body to a file, piece by piece, so that other tasks can run.
pub(crate) async fn append_body(
    spool: &mut Spool,
    object: &HotObject,
    mut range: Range<u64>,
) -> io::Result<()> {
    while range.start < range.end {
        let piece = match &object.body {
            Body::File(file) => {
                let n_bytes = (range.end - range.start).min(PIECE_BYTES) as usize;
                file.file.read(file.body_offset() + range.start, n_bytes).await?
            }
            Body::Large(body) => piece_of(body, &range),
            Body::Memory => object.with_body(|body| piece_of(body, &range)),
        };
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        range.start += piece.len() as u64;
        spool.write(piece).await?;
        reactor::yield_now().await;
    }
    Ok(())
}

/// The beginning of a range of a body in memory; nothing if the body does not have it.
fn piece_of(body: &[u8], range: &Range<u64>) -> Vec<u8> {
    let end = range.end.min(range.start + PIECE_BYTES);
    body.get(range.start as usize..end as usize).unwrap_or_default().to_vec()
}

#[cfg(test)]
#[path = "tests/insert.rs"]
mod tests;
