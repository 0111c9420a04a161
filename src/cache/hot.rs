//! The hot tier: what one worker keeps in its own memory of the objects it serves most.
//!
//! A copy is valid only while the index slot that it was loaded from still has the generation it
//! had then; the caller asks the index, which costs one load. Small bodies are kept whole, behind
//! their heads, so that an answer is one run of bytes; larger ones keep an open file. Both are
//! bounded together, in bytes, and files in number as well.
//!
//! An object can be found by its key or by an **alias**: the very bytes of a request head that
//! was answered with it in full before. The same bytes mean the same request, so everything that
//! was decided for them still holds while the copy is valid and fresh, and neither parsing nor
//! an MD5 is needed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::rc::Rc;

use foldhash::fast::RandomState;
use slab::Slab;

use crate::cache::face::{Face, TAIL_ROOM};
use crate::cache::purge::bucket::Standing;
use crate::cache::slot::SlotAt;
use crate::cache::store::Object;
use crate::http::fields::Fields;
use crate::http::head::RequestHead;
use crate::http::status::Status;
use crate::policy::freshness;
use crate::policy::keep::Lifetimes;
use crate::policy::key::Key;
use crate::policy::rules::Rules;

/// Bodies up to this size are kept in memory; larger ones stay in their files.
pub const MEMORY_BODY_MAX: u64 = 64 << 10;

/// Request heads up to this size may become aliases.
pub const ALIAS_HEAD_MAX: usize = 1024;

/// What an entry costs besides its bytes: the structs, the map's entry, the allocator's share.
const ENTRY_COST: usize = 512;

/// Aliases share a set of this many places.
const WAYS: usize = 4;

/// Where a hot object's body is.
#[derive(Debug)]
pub enum Body {
    /// In memory, within [`HotObject::with_body`].
    Memory,
    /// In its cache file, which is kept open.
    File(Object),
}

/// Which publication in the index a copy was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The slot.
    pub at: SlotAt,
    /// Its generation when the copy was made.
    pub generation: u32,
}

/// A stored response, ready to be sent.
#[derive(Debug)]
pub struct HotObject {
    /// The key it is stored under.
    pub key: Key,
    /// Where it came from; `None` if it could not be stored and lives only as long as its fill.
    pub source: Option<Source>,
    /// Its status.
    pub status: Status,
    /// How long it may be used.
    pub lifetimes: Lifetimes,
    /// Its fields, as they will be sent, without those that change with time.
    pub fields: Fields,
    /// Where its body is.
    pub body: Body,
    /// The body's length in bytes.
    pub body_len: u64,
    /// How it stood to the purges when it was made; its lifetimes are as that demands.
    pub standing: Standing,
    /// The version of the purges at which it was last found to stand so.
    pub judged: Cell<u64>,
    face: Face,
    rendered: RefCell<Rendered>,
    visited: Cell<bool>,
    aliases: RefCell<Vec<u32>>,
}

/// A whole answer: room, then the head up to `body_at`, then the body.
#[derive(Debug)]
struct Rendered {
    bytes: Vec<u8>,
    start: usize,
    body_at: usize,
    second: u64,
}

impl HotObject {
    /// An object whose body is in memory.
    pub fn in_memory(
        key: Key,
        source: Option<Source>,
        status: Status,
        lifetimes: Lifetimes,
        fields: Fields,
        body: &[u8],
    ) -> Self {
        Self::new(key, source, status, lifetimes, fields, Body::Memory, body, body.len() as u64)
    }

    /// An object whose body stays in its file.
    pub fn in_file(
        key: Key,
        source: Option<Source>,
        status: Status,
        lifetimes: Lifetimes,
        fields: Fields,
        file: Object,
    ) -> Self {
        let body_len = file.body_len;
        Self::new(key, source, status, lifetimes, fields, Body::File(file), &[], body_len)
    }

    #[allow(clippy::too_many_arguments)] // private, and each is a field
    fn new(
        key: Key,
        source: Option<Source>,
        status: Status,
        lifetimes: Lifetimes,
        fields: Fields,
        body: Body,
        bytes: &[u8],
        body_len: u64,
    ) -> Self {
        let face = Face::new(status, &fields, body_len);
        let body_at = face.len() + TAIL_ROOM;
        let mut whole = Vec::new();
        if matches!(body, Body::Memory) {
            whole.reserve_exact(body_at + bytes.len());
            whole.resize(body_at, 0);
            whole.extend_from_slice(bytes);
        }
        Self {
            key,
            source,
            status,
            lifetimes,
            fields,
            body,
            body_len,
            standing: Standing::Valid,
            judged: Cell::new(0),
            face,
            rendered: RefCell::new(Rendered { bytes: whole, start: 0, body_at, second: 0 }),
            visited: Cell::new(false),
            aliases: RefCell::new(Vec::new()),
        }
    }

    /// The same, with how it stands at this version of the purges. Its lifetimes are to be those
    /// that follow from that.
    #[must_use]
    pub fn standing(self, standing: Standing, version: u64) -> Self {
        Self { standing, judged: Cell::new(version), ..self }
    }

    /// Has the answers of [`Self::with_answer`] served by its route's rules from now on.
    pub fn serve_by(&self, rules: &Rules) {
        if self.face.serve_by(rules, self.status, &self.fields, self.body_len) {
            // What was rendered for those who did not say is rendered anew.
            self.rendered.borrow_mut().start = 0;
        }
    }

    /// Its age in seconds, RFC 9111 section 4.2.3.
    pub fn age_s(&self, now_s: u64) -> u64 {
        freshness::current_age_s(&self.lifetimes, now_s)
    }

    /// Whether it may be used without asking the origin, as far as time is concerned.
    pub fn is_fresh(&self, now_s: u64) -> bool {
        now_s < self.lifetimes.fresh_until_s && !self.lifetimes.no_cache
    }

    /// Gives `use_it` the whole answer of a hit, head and body, for this second. Only for a body
    /// in memory. The bytes are good only during the call.
    pub fn with_answer<T>(&self, now_s: u64, use_it: impl FnOnce(&[u8]) -> T) -> T {
        let mut rendered = self.rendered.borrow_mut();
        if rendered.second != now_s || rendered.start == 0 {
            self.render(&mut rendered, now_s);
        }
        use_it(rendered.bytes.get(rendered.start..).unwrap_or_default())
    }

    /// As [`Self::with_answer`], with the head and the body apart; the head without the empty line
    /// at its end, so that lines can be added.
    pub fn with_parts<T>(&self, now_s: u64, use_it: impl FnOnce(&[u8], &[u8]) -> T) -> T {
        let mut rendered = self.rendered.borrow_mut();
        if rendered.second != now_s || rendered.start == 0 {
            self.render(&mut rendered, now_s);
        }
        let head = rendered.bytes.get(rendered.start..rendered.body_at.saturating_sub(2));
        let body = rendered.bytes.get(rendered.body_at..);
        use_it(head.unwrap_or_default(), body.unwrap_or_default())
    }

    /// Gives `use_it` the body. Only for a body in memory.
    pub fn with_body<T>(&self, use_it: impl FnOnce(&[u8]) -> T) -> T {
        let rendered = self.rendered.borrow();
        use_it(rendered.bytes.get(rendered.body_at..).unwrap_or_default())
    }

    /// How long the whole answer to a hit is now, in bytes.
    pub fn answer_len(&self, now_s: u64) -> usize {
        self.with_answer(now_s, <[u8]>::len)
    }

    /// The bytes that this object is counted with.
    fn cost(&self) -> usize {
        self.rendered.borrow().bytes.capacity()
            + self.face.len()
            + self.fields.wire_len()
            + ENTRY_COST
    }

    fn render(&self, rendered: &mut Rendered, now_s: u64) {
        let ttl_s = self.lifetimes.fresh_until_s.saturating_sub(now_s);
        let tail = self.face.tail(self.age_s(now_s), ttl_s);
        let (head, tail) = (self.face.head(), tail.bytes());
        let tail_at = rendered.body_at - tail.len();
        let start = tail_at - head.len();
        rendered.bytes[tail_at..rendered.body_at].copy_from_slice(tail);
        rendered.bytes[start..tail_at].copy_from_slice(head);
        rendered.start = start;
        rendered.second = now_s;
    }
}

/// A request that was answered with an object in full, and may be again.
#[derive(Debug)]
pub struct Alias {
    /// The bytes of the request's head.
    raw: Box<[u8]>,
    hash: u64,
    /// What they mean.
    pub head: RequestHead,
    /// What answers them.
    pub object: Rc<HotObject>,
    /// The marker of the object's variants, if it is one of several: while it is not what it was,
    /// the object is nobody's answer.
    pub marker: Option<Source>,
}

/// What an alias costs: its bytes, and the head that was parsed from them.
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
    /// Entries whose files are open.
    files: BTreeSet<usize>,
    n_files_max: usize,
}

impl Hot {
    /// An empty tier of at most `bytes_max` bytes and `n_files_max` open files.
    pub fn new(bytes_max: usize, n_files_max: usize) -> Self {
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
            files: BTreeSet::new(),
            n_files_max,
        }
    }

    /// The request and the object that these bytes of a request's head stand for.
    pub fn find_raw(&self, raw: &[u8]) -> Option<&Alias> {
        let hash = self.hasher.hash_one(raw);
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

    /// The object stored under a key. Not one whose file was written to since it was opened: who
    /// does not find it here opens the file anew, and verifies it.
    pub fn find(&self, key: &Key) -> Option<&Rc<HotObject>> {
        let object = &self.objects[*self.by_key.get(key)?];
        if matches!(&object.body, Body::File(file) if !file.is_unchanged()) {
            return None;
        }
        object.visited.set(true);
        Some(object)
    }

    /// Whether an object may be kept at all.
    pub fn has_room_for(&self, body_len: u64) -> bool {
        body_len <= MEMORY_BODY_MAX && body_len < (self.bytes_max / 4) as u64
    }

    /// Adds an object in place of what was there under its key, and makes room for it.
    pub fn insert(&mut self, object: Rc<HotObject>) {
        self.remove(&object.key);
        if object.cost() > self.bytes_max / 8 * 7 || self.n_files_max == 0 {
            return;
        }
        self.bytes += object.cost();
        let (key, has_file) = (object.key, matches!(object.body, Body::File(_)));
        let entry = self.objects.insert(object);
        if has_file {
            self.files.insert(entry);
        }
        self.by_key.insert(key, entry);
        self.evict(entry);
    }

    /// Remembers that `raw` was answered with this object, if it is kept here.
    pub fn add_alias(
        &mut self,
        raw: &[u8],
        head: RequestHead,
        object: &Rc<HotObject>,
        marker: Option<Source>,
    ) {
        let kept = self.by_key.get(&object.key).map(|entry| &self.objects[*entry]);
        if raw.len() > ALIAS_HEAD_MAX || !kept.is_some_and(|kept| Rc::ptr_eq(kept, object)) {
            return;
        }
        let hash = self.hasher.hash_one(raw);
        let set = self.set_of(hash);
        let free = (set..set + WAYS).find(|place| self.aliases[*place].is_none());
        let place = free.unwrap_or_else(|| self.victim(set, hash));
        self.remove_alias(place);
        self.make_room_for_alias(alias_cost(raw));
        self.alias_bytes += alias_cost(raw);
        object.aliases.borrow_mut().push(place as u32);
        let alias = Alias { raw: raw.into(), hash, head, object: Rc::clone(object), marker };
        self.aliases[place] = Some(Box::new(alias));
    }

    /// Forgets the object stored under a key.
    pub fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.by_key.remove(key) {
            self.remove_entry(entry);
        }
    }

    /// Closes the files of objects that are not stored any longer: until then the disk keeps them.
    pub fn close_files(&mut self, is_stored: impl Fn(Source) -> bool) {
        let is_gone = |entry: &usize| {
            let object = self.objects.get(*entry);
            object.is_none_or(|it| !it.source.is_some_and(&is_stored))
        };
        let gone: Vec<usize> = self.files.iter().copied().filter(is_gone).collect();
        for entry in gone {
            if let Some(object) = self.objects.get(entry) {
                self.by_key.remove(&object.key);
                self.remove_entry(entry);
            }
        }
    }

    /// Bytes that are kept, everything counted.
    pub fn bytes(&self) -> usize {
        self.bytes + self.alias_bytes
    }

    /// How many objects are kept.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    fn set_of(&self, hash: u64) -> usize {
        (hash as usize % (self.aliases.len() / WAYS)) * WAYS
    }

    /// A full set gives up an alias whose object was not used lately, or any.
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

    /// Aliases have an eighth of the tier for themselves, lest requests that differ in what does not
    /// matter push the objects out.
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
        self.files.remove(&entry);
        for place in object.aliases.take() {
            self.remove_alias(place as usize);
        }
    }

    /// Second chance in a circle: what was used since the hand last passed stays. `newest` is
    /// spared, for it has had no chance to be used.
    fn evict(&mut self, newest: usize) {
        let is_over =
            |hot: &Self| hot.bytes > hot.bytes_max / 8 * 7 || hot.files.len() > hot.n_files_max;
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
