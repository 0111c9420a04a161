//! The hot tier: copies of the objects that one worker serves most, in its own memory.
//!
//! A copy is valid only while the index slot that it was loaded from still has the generation it
//! had then; the caller asks the index, which costs one load. Small bodies are kept whole, behind
//! their heads, so that an answer is one run of bytes. Larger ones keep an open file, and those that
//! are not too large are read into memory when they are used again. All are bounded together, in
//! bytes, and files in number as well.
//!
//! An object can be found by its key or by an **alias**: the very bytes of a request head that
//! was answered with it in full before. The same bytes mean the same request, so everything that
//! was decided for them still holds while the copy is valid and fresh, and neither parsing nor
//! an MD5 is needed. The same bytes on a connection of another [`Lane`] are another request.

pub mod rendered_head;
pub mod large;
mod object;

use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::rc::Rc;

use foldhash::fast::RandomState;
use slab::Slab;

use crate::cache::hot::large::{LargeBytes, LargeRoom};
use crate::cache::hot::object::ENTRY_COST;
pub use crate::cache::hot::object::{Body, HotObject};
use crate::cache::index::slot::SlotRef;
use crate::http::head::RequestHead;
use crate::http::tls::PolicyId;
use crate::policy::key::Key;

/// Bodies up to this size are kept in memory behind their heads.
pub const MEMORY_BODY_MAX: u64 = 64 << 10;

/// Request heads up to this size may become aliases.
pub const ALIAS_HEAD_MAX: usize = 1024;

/// The most evicted objects whose hits are kept until [`Hot::take_hits`].
const HITS_OF_GONE_MAX: usize = 1 << 15;

/// How many large bodies are looked at to make room for another.
const LARGE_STEPS_MAX: usize = 32;

/// Aliases share a set of this many places.
const WAYS: usize = 4;

/// A number for the connections on which the same bytes of a request head mean the same request:
/// those of one scheme and one policy of client certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lane(pub u32);

impl Lane {
    /// Connections without TLS.
    pub const PLAIN: Self = Self(0);

    /// Connections with TLS: to a listener of this policy, with a client that was asked for its
    /// certificate by that one. Both decide which sites the client may ask.
    pub const fn tls(listener: PolicyId, client: PolicyId) -> Self {
        Self(1 << 16 | (listener.0 as u32) << 8 | client.0 as u32)
    }

    /// The same for connections from trusted proxies, whose fields change what a request means.
    pub const fn trusted(self) -> Self {
        Self(self.0 | 1 << 31)
    }

    /// The same for connections to a forward proxy, where a URL has another answer than at a site.
    pub const fn forwarding(self) -> Self {
        Self(self.0 | 1 << 30)
    }

    /// The same for connections to the admin listener, which no stored response answers.
    pub const fn admin(self) -> Self {
        Self(self.0 | 1 << 29)
    }
}

/// A request that was answered with an object in full, and may be again.
#[derive(Debug)]
pub struct Alias {
    /// The bytes of the request's head.
    raw: Box<[u8]>,
    /// Hash of the lane and the bytes.
    hash: u64,
    /// The parsed head.
    pub head: RequestHead,
    /// The number of its site, for the counters.
    pub site: u32,
    /// The object that answers the request.
    pub object: Rc<HotObject>,
    /// The marker of the object's variants, if it is one of several. The object may answer only
    /// while the index still has this marker.
    pub marker: Option<SlotRef>,
}

/// The bytes that an alias counts: the raw head, and the parsed one.
fn alias_cost(raw: &[u8]) -> usize {
    4 * raw.len() + ENTRY_COST
}

/// The hot tier of one worker.
#[derive(Debug)]
pub struct Hot {
    by_key: HashMap<Key, usize, RandomState>,
    objects: Slab<Rc<HotObject>>,
    /// Sets of [`WAYS`] places; an alias lives in the set that its hash names.
    aliases: Box<[Option<Box<Alias>>]>,
    hasher: RandomState,
    hand: usize,
    alias_hand: usize,
    bytes: usize,
    alias_bytes: usize,
    bytes_max: usize,
    /// Bodies that count beside `bytes`, and the entries that have them.
    large: LargeBytes,
    larges: BTreeSet<usize>,
    large_hand: usize,
    body_bytes_max: u64,
    /// Hits of evicted objects that [`Hot::take_hits`] has not returned yet.
    hits_of_gone: Vec<(SlotRef, u32)>,
    /// Entries whose files are open.
    files: BTreeSet<usize>,
    n_files_max: usize,
}

impl Hot {
    /// An empty tier of at most `bytes_max` bytes and `n_files_max` open files, whose bodies in
    /// memory are of at most `body_bytes_max` bytes, or [`MEMORY_BODY_MAX`] if that is more.
    pub fn new(bytes_max: usize, n_files_max: usize, body_bytes_max: u64) -> Self {
        let n_aliases = (bytes_max / 2048).next_power_of_two().clamp(64, 1 << 16);
        Self {
            by_key: HashMap::default(),
            objects: Slab::new(),
            aliases: (0..n_aliases).map(|_| None).collect(),
            hasher: RandomState::default(),
            hand: 0,
            alias_hand: 0,
            bytes: 0,
            alias_bytes: 0,
            bytes_max,
            large: LargeBytes::default(),
            larges: BTreeSet::new(),
            hits_of_gone: Vec::new(),
            large_hand: 0,
            body_bytes_max,
            files: BTreeSet::new(),
            n_files_max,
        }
    }

    /// The request and the object that these bytes of a request's head stand for.
    pub fn find_raw(&self, lane: Lane, raw: &[u8]) -> Option<&Alias> {
        let hash = self.alias_hash(lane, raw);
        let set = self.set_of(hash);
        self.aliases[set..set + WAYS]
            .iter()
            .flatten()
            .find(|alias| alias.hash == hash && *alias.raw == *raw)
            .map(|alias| {
                alias.object.visited.set(true);
                &**alias
            })
    }

    /// The object stored under a key, unless its file was written to since it was opened: the
    /// caller then opens and verifies the file again.
    pub fn find(&self, key: &Key) -> Option<&Rc<HotObject>> {
        let object = &self.objects[*self.by_key.get(key)?];
        if matches!(&object.body, Body::File(file) if !file.is_unchanged()) {
            return None;
        }
        object.visited.set(true);
        Some(object)
    }

    /// The largest body that is kept in memory behind its head; without a tier only an empty one.
    pub fn small_body_max(&self) -> usize {
        (MEMORY_BODY_MAX as usize).min((self.bytes_max / 4).saturating_sub(1))
    }

    /// Room for the body of an object found here, if its file was used often enough. The caller
    /// reads the body and gives it to [`Hot::take_in`]. Less used objects are evicted for it.
    pub fn room_for_body(&mut self, object: &HotObject) -> Option<LargeRoom> {
        let Body::File(_) = object.body else { return None };
        let is_time = object.is_time_to_read() && object.body_len <= self.body_bytes_max;
        let len = usize::try_from(object.body_len).ok().filter(|_| is_time)?;
        for _ in 0..LARGE_STEPS_MAX {
            // At most half of the tier: bodies that are being sent cannot be evicted.
            if self.large.get().saturating_add(len) <= self.bytes_max / 2 {
                object.forget_uses();
                return Some(self.large.take(len));
            }
            let next = self.larges.range(self.large_hand..).next().or(self.larges.first());
            let entry = *next?;
            self.large_hand = entry + 1;
            if let Some(other) = self.objects.get(entry)
                && !other.visited.replace(false)
                // A body that is being sent would still use its bytes.
                && Rc::strong_count(other) == 1
            {
                self.by_key.remove(&other.key);
                self.remove_entry(entry);
            }
        }
        None
    }

    /// Replaces an object found here by one with its body in memory.
    pub fn take_in(&mut self, object: &HotObject, body: Vec<u8>, room: LargeRoom) -> Rc<HotObject> {
        let object = Rc::new(object.with_large(room.body(body)));
        self.insert(Rc::clone(&object));
        object
    }

    /// Adds an object in place of what was there under its key, and makes room for it.
    pub fn insert(&mut self, object: Rc<HotObject>) {
        self.remove(&object.key);
        if object.cost() > self.bytes_max / 8 * 7 || self.n_files_max == 0 {
            return;
        }
        self.bytes += object.cost();
        let entry = self.objects.vacant_key();
        match object.body {
            Body::Memory => false,
            Body::Large(_) => self.larges.insert(entry),
            Body::File(_) => self.files.insert(entry),
        };
        self.by_key.insert(object.key, entry);
        object.is_kept.set(true);
        self.objects.insert(object);
        self.evict(entry);
    }

    /// Remembers that `raw` was answered with this object, if it is kept here.
    pub fn add_alias(
        &mut self,
        lane: Lane,
        raw: &[u8],
        (head, site): (RequestHead, u32),
        object: &Rc<HotObject>,
        marker: Option<SlotRef>,
    ) {
        let kept = self.by_key.get(&object.key).map(|entry| &self.objects[*entry]);
        if raw.len() > ALIAS_HEAD_MAX || !kept.is_some_and(|kept| Rc::ptr_eq(kept, object)) {
            return;
        }
        let hash = self.alias_hash(lane, raw);
        let set = self.set_of(hash);
        let free = (set..set + WAYS).find(|place| self.aliases[*place].is_none());
        let place = free.unwrap_or_else(|| self.victim(set, hash));
        self.remove_alias(place);
        self.make_room_for_alias(alias_cost(raw));
        self.alias_bytes += alias_cost(raw);
        object.aliases.borrow_mut().push(place as u32);
        let object = Rc::clone(object);
        let alias = Alias { raw: raw.into(), hash, head, site, object, marker };
        self.aliases[place] = Some(Box::new(alias));
    }

    /// Forgets the object stored under a key.
    pub fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.by_key.remove(key) {
            self.remove_entry(entry);
        }
    }

    /// Counts a hit of an object for [`Hot::take_hits`]; false if the object is not in the tier.
    #[inline]
    pub fn count_hit(object: &HotObject) -> bool {
        let is_kept = object.is_kept.get();
        if is_kept {
            object.n_hits.set(object.n_hits.get().saturating_add(1));
        }
        is_kept
    }

    /// Calls `tell` with the hits since the last call: of the `n` entries from `start` on, and of
    /// evicted objects. Gives where to go on, if there is more.
    pub fn take_hits(
        &mut self,
        start: usize,
        n: usize,
        mut tell: impl FnMut(SlotRef, u32),
    ) -> Option<usize> {
        self.hits_of_gone.drain(..).for_each(|(slot, n_hits)| tell(slot, n_hits));
        let end = start.saturating_add(n).min(self.objects.capacity());
        for object in (start..end).filter_map(|entry| self.objects.get(entry)) {
            if let (n_hits @ 1.., Some(slot)) = (object.n_hits.take(), object.slot) {
                tell(slot, n_hits);
            }
        }
        (end < self.objects.capacity()).then_some(end)
    }

    /// Removes objects that are no longer stored, if they are large or their files are open: an
    /// open file keeps its space on the disk.
    pub fn forget_gone(&mut self, is_stored: impl Fn(SlotRef) -> bool) {
        let is_gone = |entry: &usize| {
            let object = self.objects.get(*entry);
            object.is_none_or(|it| !it.slot.is_some_and(&is_stored))
        };
        let entries = self.files.iter().chain(&self.larges).copied();
        let gone: Vec<usize> = entries.filter(is_gone).collect();
        for entry in gone {
            if let Some(object) = self.objects.get(entry) {
                self.by_key.remove(&object.key);
                self.remove_entry(entry);
            }
        }
    }

    /// All bytes that the tier uses.
    pub fn bytes(&self) -> usize {
        self.bytes + self.alias_bytes + self.large.get()
    }

    /// How many objects are kept.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The same bytes on two lanes always have different hashes, so that an alias with the same
    /// hash and bytes is of the same lane.
    fn alias_hash(&self, lane: Lane, raw: &[u8]) -> u64 {
        self.hasher.hash_one(raw) ^ u64::from(lane.0)
    }

    fn set_of(&self, hash: u64) -> usize {
        (hash as usize % (self.aliases.len() / WAYS)) * WAYS
    }

    /// The place to use in a set: a full one gives up an alias of an object that was not used
    /// lately, or any.
    fn victim(&self, set: usize, hash: u64) -> usize {
        let idle = |place: &usize| {
            self.aliases[*place].as_ref().is_none_or(|alias| !alias.object.visited.get())
        };
        (set..set + WAYS).find(idle).unwrap_or(set + (hash >> 60) as usize % WAYS)
    }

    fn remove_alias(&mut self, place: usize) {
        if let Some(alias) = self.aliases[place].take() {
            self.alias_bytes -= alias_cost(&alias.raw);
            alias.object.aliases.borrow_mut().retain(|other| *other as usize != place);
        }
    }

    /// Aliases may use an eighth of the tier. Otherwise requests that differ only in irrelevant
    /// fields would evict the objects.
    fn make_room_for_alias(&mut self, cost: usize) {
        for _ in 0..self.aliases.len() {
            if self.alias_bytes + cost <= self.bytes_max / 8 {
                break;
            }
            self.alias_hand = (self.alias_hand + 1) % self.aliases.len();
            self.remove_alias(self.alias_hand);
        }
    }

    fn remove_entry(&mut self, entry: usize) {
        let object = self.objects.remove(entry);
        self.bytes -= object.cost();
        object.is_kept.set(false);
        if let (n_hits @ 1.., Some(slot)) = (object.n_hits.take(), object.slot)
            && self.hits_of_gone.len() < HITS_OF_GONE_MAX
        {
            self.hits_of_gone.push((slot, n_hits));
        }
        self.files.remove(&entry);
        self.larges.remove(&entry);
        for place in object.aliases.take() {
            self.remove_alias(place as usize);
        }
    }

    /// CLOCK: an object that was used since the hand last passed stays. `newest` is spared, because
    /// it could not be used yet.
    fn evict(&mut self, newest: usize) {
        let is_over = |hot: &Self| {
            hot.bytes + hot.large.get() > hot.bytes_max / 8 * 7 || hot.files.len() > hot.n_files_max
        };
        // Two turns of the hand clear every mark, so this ends.
        let mut steps = 2 * self.objects.capacity() + 2;
        while is_over(self) && self.objects.len() > 1 && steps > 0 {
            steps -= 1;
            self.hand = (self.hand + 1) % self.objects.capacity().max(1);
            let Some(object) = self.objects.get(self.hand) else { continue };
            if self.hand == newest || object.visited.replace(false) {
                continue;
            }
            self.by_key.remove(&object.key);
            self.remove_entry(self.hand);
        }
    }
}

#[cfg(test)]
#[path = "../tests/hot.rs"]
mod tests;
