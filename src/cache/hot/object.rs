//! A hot object: a copy of a stored response, ready to be sent, and the slot that it was copied
//! from.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::cache::files::store::Object;
use crate::cache::hot::large::LargeBody;
use crate::cache::hot::rendered_head::{RenderedHead, TAIL_ROOM};
use crate::cache::index::slot::SlotRef;
use crate::cache::name::{MARKER_STATUS, Marker};
use crate::cache::purge::bucket::PurgeStatus;
use crate::http::fields::Fields;
use crate::http::status::Status;
use crate::policy::key::Key;
use crate::policy::key::vary::VaryNames;
use crate::policy::rfc9111::freshness::Lifetimes;
use crate::policy::rfc9111::rules::Rules;
use crate::policy::rfc9111::storable;

/// At this use of an object with its body in a file, the body is read into memory.
const USES_TO_READ: u8 = 2;

/// What an entry costs besides its bytes: the structs, the map's entry, the allocator's share.
pub(super) const ENTRY_COST: usize = 512;

/// Where a hot object's body is.
#[derive(Debug)]
pub enum Body {
    /// In memory, within [`HotObject::with_body`].
    Memory,
    /// In memory, by itself.
    Large(Rc<LargeBody>),
    /// In its cache file, which is kept open.
    File(Rc<Object>),
}

/// A stored response, ready to be sent.
#[derive(Debug)]
pub struct HotObject {
    /// The key it is stored under.
    pub key: Key,
    /// Where it came from; `None` if it could not be stored and lives only as long as its fill.
    pub slot: Option<SlotRef>,
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
    /// Its purge status when it was made, which its lifetimes take into account.
    pub purge_status: PurgeStatus,
    /// The version of the table of purges at which the purge status was last checked.
    pub status_version: Cell<u64>,
    head: RenderedHead,
    rendered: RefCell<Rendered>,
    /// Whether it was used since the hand last passed.
    pub(super) visited: Cell<bool>,
    /// Answers that were given and not yet counted in the index.
    pub(super) n_hits: Cell<u32>,
    /// Whether the tier has it.
    pub(super) is_kept: Cell<bool>,
    /// How often the file was used, up to [`USES_TO_READ`].
    n_uses: Cell<u8>,
    /// The places of its aliases in the tier.
    pub(super) aliases: RefCell<Vec<u32>>,
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
        slot: Option<SlotRef>,
        status: Status,
        lifetimes: Lifetimes,
        fields: Fields,
        body: &[u8],
    ) -> Self {
        Self::new(key, slot, status, lifetimes, fields, Body::Memory, body, body.len() as u64)
    }

    /// An object whose body stays in its file.
    pub fn in_file(
        key: Key,
        slot: Option<SlotRef>,
        status: Status,
        lifetimes: Lifetimes,
        fields: Fields,
        file: Object,
    ) -> Self {
        let body_len = file.body_len;
        Self::new(key, slot, status, lifetimes, fields, Body::File(Rc::new(file)), &[], body_len)
    }

    /// An object of the same body under another head. A body that is not small is shared.
    pub fn renewed(
        &self,
        key: Key,
        slot: Option<SlotRef>,
        lifetimes: Lifetimes,
        fields: Fields,
    ) -> Self {
        let body = match &self.body {
            Body::Memory => {
                return self.with_body(|body| {
                    Self::in_memory(key, slot, self.status, lifetimes, fields, body)
                });
            }
            Body::Large(body) => Body::Large(Rc::clone(body)),
            Body::File(file) => Body::File(Rc::clone(file)),
        };
        Self::new(key, slot, self.status, lifetimes, fields, body, &[], self.body_len)
    }

    /// The same with its body in memory.
    pub fn with_large(&self, body: LargeBody) -> Self {
        let (lifetimes, fields) = (self.lifetimes.clone(), self.fields.clone());
        let (key, len, body) = (self.key, self.body_len, Body::Large(Rc::new(body)));
        Self::new(key, self.slot, self.status, lifetimes, fields, body, &[], len)
            .purge_status(self.purge_status, self.status_version.get())
    }

    #[allow(clippy::too_many_arguments)] // private, and each is a field
    fn new(
        key: Key,
        slot: Option<SlotRef>,
        status: Status,
        lifetimes: Lifetimes,
        fields: Fields,
        body: Body,
        bytes: &[u8],
        body_len: u64,
    ) -> Self {
        let head = RenderedHead::new(status, &fields, body_len);
        let body_at = head.len() + TAIL_ROOM;
        let mut whole = Vec::new();
        if !matches!(body, Body::File(_)) {
            whole.reserve_exact(body_at + bytes.len());
            whole.resize(body_at, 0);
            whole.extend_from_slice(bytes);
        }
        Self {
            key,
            slot,
            status,
            lifetimes,
            fields,
            body,
            body_len,
            purge_status: PurgeStatus::Valid,
            status_version: Cell::new(0),
            head,
            rendered: RefCell::new(Rendered { bytes: whole, start: 0, body_at, second: 0 }),
            visited: Cell::new(false),
            n_hits: Cell::new(0),
            is_kept: Cell::new(false),
            n_uses: Cell::new(0),
            aliases: RefCell::new(Vec::new()),
        }
    }

    /// The same object with its purge status at this version of the table. Its lifetimes must
    /// already take that into account.
    #[must_use]
    pub fn purge_status(self, purge_status: PurgeStatus, version: u64) -> Self {
        Self { purge_status, status_version: Cell::new(version), ..self }
    }

    /// Sets the rules of its route, by which [`Self::with_answer`] writes the head from now on.
    pub fn serve_by(&self, rules: &Rules) {
        if self.head.serve_by(rules, self.status, &self.fields, self.body_len) {
            // The answer that was rendered without the rules is dropped.
            self.rendered.borrow_mut().start = 0;
        }
    }

    /// The marker of the variants of its key, if the object is one.
    pub(crate) fn marker(&self) -> Option<Marker> {
        let names = self.chosen_by()?.clone();
        Some(Marker { names, mark: self.with_body(|mark| Rc::from(mark)) })
    }

    /// The names in [`Self::marker`].
    pub(crate) fn chosen_by(&self) -> Option<&VaryNames> {
        self.lifetimes.vary.as_ref().filter(|_| self.status == MARKER_STATUS)
    }

    /// Whether it is a response with all of its body.
    pub(crate) fn is_whole(&self) -> bool {
        storable::is_whole(self.status)
    }

    /// Its age in seconds, RFC 9111 section 4.2.3.
    pub fn age_s(&self, now_s: u64) -> u64 {
        self.lifetimes.current_age_s(now_s)
    }

    /// Whether it may be used without asking the origin, as far as time is concerned.
    pub fn is_fresh(&self, now_s: u64) -> bool {
        let lifetimes = &self.lifetimes;
        now_s < lifetimes.fresh_until_s && !lifetimes.no_cache && !lifetimes.is_from_future(now_s)
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
    /// at its end, so that lines can be added. A large body is not given.
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

    /// CRC-32C of the body.
    pub fn body_crc(&self) -> Option<u32> {
        match &self.body {
            Body::Memory => Some(self.with_body(crc32c::crc32c)),
            Body::Large(body) => Some(crc32c::crc32c(body)),
            Body::File(file) => file.body_crc(),
        }
    }

    /// The bytes that this object is counted with.
    pub(super) fn cost(&self) -> usize {
        self.rendered.borrow().bytes.capacity()
            + self.head.len()
            + self.fields.wire_len()
            + ENTRY_COST
    }

    /// Counts a use of the file; true once the body is to be read into memory.
    pub(super) fn is_time_to_read(&self) -> bool {
        let n_uses = self.n_uses.get().saturating_add(1).min(USES_TO_READ);
        self.n_uses.set(n_uses);
        n_uses == USES_TO_READ
    }

    /// Resets the count while the body is being read, so that no other request reads it too.
    pub(super) fn forget_uses(&self) {
        self.n_uses.set(0);
    }

    fn render(&self, rendered: &mut Rendered, now_s: u64) {
        let ttl_s = self.lifetimes.fresh_until_s.saturating_sub(now_s);
        let tail = self.head.tail(self.age_s(now_s), ttl_s);
        let (head, tail) = (self.head.head(), tail.bytes());
        let tail_at = rendered.body_at - tail.len();
        let start = tail_at - head.len();
        rendered.bytes[tail_at..rendered.body_at].copy_from_slice(tail);
        rendered.bytes[start..tail_at].copy_from_slice(head);
        rendered.start = start;
        rendered.second = now_s;
    }
}
