//! Putting answers into the cache: files written, named and shown in the index, in this order.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::Duration;

use crate::cache::files::store::Object;
use crate::cache::files::writer::Writer;
use crate::cache::found::Found;
use crate::cache::hot::{Body, HotObject};
use crate::cache::index::Index;
use crate::cache::index::slot::{self, NewSlot, SlotRef, State};
use crate::cache::maintenance::evict::{Level, Limits};
use crate::cache::name::{MARKER_STATUS, Marker, Name};
use crate::cache::place;
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
pub const PASS_S: u64 = 60;

/// As [`PASS_S`], where the disk was at fault: there may be room again soon.
pub const PASS_REFUSED_S: u64 = 5;

/// The longest that a whole file waits for room in the index, in milliseconds, and how often it
/// looks.
const ROOM_WAIT_MS: u64 = 500;
const ROOM_PAUSE: Duration = Duration::from_millis(5);

/// What of a body in memory is written in one go.
const PIECE_BYTES: usize = 256 << 10;

/// An answer without its body, as it is to be stored.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where.
    pub name: Name,
    /// Its status.
    pub status: Status,
    /// Its fields.
    pub fields: Fields,
    /// How long it may be used.
    pub lifetimes: Lifetimes,
}

/// The cache, for one fill.
#[derive(Debug)]
pub struct Shelf {
    cache: Rc<Cache>,
    /// The fill's number, and the name of its file while it is being written.
    id: u64,
}

impl Shelf {
    /// The cache, for the fill of this number.
    pub fn new(cache: Rc<Cache>, id: u64) -> Self {
        Self { cache, id }
    }

    /// Where an answer belongs. Writes the marker first when the key has variants.
    pub fn place(
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
    pub fn begin(&self, entry: &Entry, body_len: Option<u64>) -> io::Result<Writer> {
        let mut head = Vec::with_capacity(entry.fields.wire_len());
        entry.fields.write_to(&mut head);
        let mut meta = Vec::new();
        meta::encode(&entry.lifetimes, &mut meta);
        let (text, status) = (&entry.name.text, entry.status.0);
        self.cache.shared.store.begin(self.id, text, &meta, status, &head, body_len)
    }

    /// Has room made for what is being written, while it is being written.
    pub fn announce(&self, total: Option<u64>) {
        if !self.cache.shared.index.has_room(total.unwrap_or(0)) {
            self.cache.wake_keeper();
        }
    }

    /// Waits for a moment, if it must, until there is room for an object of so many bytes.
    pub async fn room_for(&self, bytes: u64) {
        let until_ms = reactor::now().mono_ms() + ROOM_WAIT_MS;
        while !self.cache.shared.index.has_room(bytes) && reactor::now().mono_ms() < until_ms {
            self.cache.wake_keeper();
            timer::sleep(ROOM_PAUSE).await;
        }
    }

    /// Completes a file, gives it its name, and then shows it in the index.
    pub fn publish(&self, entry: &Entry, writer: Writer) -> io::Result<SlotRef> {
        self.publish_as(entry, writer, State::Ready)
    }

    /// Stores a whole answer and keeps it in the hot tier.
    pub fn store(&self, entry: Entry, body: &[u8]) -> io::Result<Rc<HotObject>> {
        let mut writer = self.begin(&entry, Some(body.len() as u64))?;
        writer.append(body)?;
        let slot = self.publish(&entry, writer)?;
        Ok(self.keep_hot(in_memory(entry, Some(slot), body)))
    }

    /// Stores an object anew under the fields and lifetimes that a 304 has given it.
    pub async fn store_again(&self, entry: Entry, stored: &HotObject) -> io::Result<Rc<HotObject>> {
        if matches!(stored.body, Body::Memory) {
            return stored.with_body(|body| self.store(entry, body));
        }
        let mut writer = self.begin(&entry, Some(stored.body_len))?;
        while writer.written() < stored.body_len {
            let rest = writer.written()..stored.body_len;
            match &stored.body {
                Body::File(object) => drop(copy_part(object, rest, &mut writer)?),
                Body::Large(body) => writer.append(piece(body, rest.start))?,
                Body::Memory => break,
            }
            reactor::yield_now().await;
        }
        let slot = self.publish(&entry, writer)?;
        let opened = self.cache.shared.store.open_object(&entry.name.key, &entry.name.text);
        let file = opened.map_err(io::Error::other)?.ok_or(io::ErrorKind::NotFound)?;
        let Entry { name, status, fields, lifetimes } = entry;
        let hot = HotObject::in_file(name.key, Some(slot), status, lifetimes, fields, file);
        Ok(self.keep_hot(hot))
    }

    /// Remembers for `for_s` seconds that a key is not to be stored, and forgets what was stored
    /// under it.
    pub fn note_pass(&self, key: &Key, for_s: u64) {
        self.forget(key);
        let slot = pass_slot(*key, reactor::now().unix_s(), for_s);
        // Without the note the next request waits for an answer that it cannot share, and no more.
        let _ = self.cache.shared.index.publish(&slot);
    }

    /// Forgets what is stored under a key.
    pub fn forget(&self, key: &Key) {
        place::discard(&self.cache.shared.index, &self.cache.shared.store, key, None);
    }

    /// Says, once for all workers, that what should be stored cannot be.
    pub fn refused(&self, error: &io::Error) {
        self.cache.wake_keeper();
        if self.cache.shared.fills.may_say_refused(reactor::now().unix_s()) {
            ::log::warn!("cannot store in the cache: {error}; answers are passed on unstored");
        }
    }

    /// Stores a note of the cache's own.
    pub(super) fn write_note(&self, entry: &Entry, body: &[u8], state: State) -> io::Result<()> {
        let mut writer = self.begin(entry, Some(body.len() as u64))?;
        writer.append(body)?;
        self.publish_as(entry, writer, state).map(drop)
    }

    /// The cache that it is in.
    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    fn write_marker(
        &self,
        primary: &Name,
        names: &VaryNames,
        purge_epoch: u64,
    ) -> io::Result<Marker> {
        let mark: Rc<[u8]> = format!("{:x}", self.id).into_bytes().into();
        let lifetimes = Lifetimes {
            received_s: reactor::now().unix_s(),
            vary: Some(names.clone()),
            surrogates: SurrogateKeys::untagged(purge_epoch),
            ..Lifetimes::default()
        };
        let entry = Entry {
            name: primary.clone(),
            status: MARKER_STATUS,
            fields: Fields::new(),
            lifetimes,
        };
        self.write_note(&entry, &mark, State::Vary)?;
        Ok(Marker { names: names.clone(), mark })
    }

    fn publish_as(&self, entry: &Entry, writer: Writer, state: State) -> io::Result<SlotRef> {
        let cache = &self.cache;
        let finished = writer.finish()?;
        let slot = new_slot(entry, state);
        let published = place::put(&cache.shared.index, &cache.shared.store, finished, &slot);
        let published = published.map_err(io::Error::other)?;
        if wants_room(&cache.shared.index) {
            cache.wake_keeper();
        }
        Ok(published.slot)
    }

    fn keep_hot(&self, hot: HotObject) -> Rc<HotObject> {
        let object = Rc::new(hot);
        self.cache.hot.borrow_mut().insert(Rc::clone(&object));
        object
    }
}

/// What of a body in memory is written at a time, from `at` on.
fn piece(body: &[u8], at: u64) -> &[u8] {
    let rest = body.get(at as usize..).unwrap_or_default();
    rest.get(..PIECE_BYTES).unwrap_or(rest)
}

/// An answer as a hot object; without a slot it is good only for those who wait for it.
pub fn in_memory(entry: Entry, slot: Option<SlotRef>, body: &[u8]) -> HotObject {
    let Entry { name, status, fields, lifetimes } = entry;
    HotObject::in_memory(name.key, slot, status, lifetimes, fields, body)
}

/// Appends the beginning of a range of an object's body to a file; says how much of it.
pub fn copy_part(object: &Object, range: Range<u64>, writer: &mut Writer) -> io::Result<u64> {
    scratch::with_scratch(|scratch| {
        let left = range.end.saturating_sub(range.start);
        let part = left.min(scratch.len() as u64) as usize;
        let offset = object.body_offset() + range.start;
        match object.file.read_at(&mut scratch[..part], offset)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n_read => writer.append(&scratch[..n_read]).map(|()| n_read as u64),
        }
    })
}

/// Whether the keeper should make room; the disk it watches by itself.
fn wants_room(index: &Index) -> bool {
    let limits = Limits {
        size_bytes: index.size_bytes(),
        objects: index.n_objects_max(),
        free_bytes_min: 0,
    };
    let level = Level { bytes: index.bytes(), objects: index.objects(), free_bytes: None };
    limits.wants_room(&level, false)
}

/// A slot; lengths and stamp are the file's and filled in from it.
fn new_slot(entry: &Entry, state: State) -> NewSlot {
    let lifetimes = &entry.lifetimes;
    let flag = |is_set, flag| if is_set { flag } else { 0 };
    NewSlot {
        key: entry.name.key,
        state,
        flags: flag(lifetimes.must_revalidate, slot::MUST_REVALIDATE)
            | flag(lifetimes.no_cache, slot::NO_CACHE),
        status: entry.status.0,
        stored_s: lifetimes.received_s,
        fresh_until_s: lifetimes.fresh_until_s,
        swr_until_s: lifetimes.swr_until_s,
        sie_until_s: lifetimes.sie_until_s,
        age_s: lifetimes.age_s,
        head_len: 0,
        body_len: 0,
        stamp: 0,
    }
}

fn pass_slot(key: Key, now_s: u64, for_s: u64) -> NewSlot {
    let until_s = now_s + for_s;
    NewSlot {
        key,
        state: State::Pass,
        flags: 0,
        status: 0,
        stored_s: now_s,
        fresh_until_s: until_s,
        swr_until_s: until_s,
        sie_until_s: until_s,
        age_s: 0,
        head_len: 0,
        body_len: 0,
        stamp: 0,
    }
}
