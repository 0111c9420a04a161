//! The requests that each worker has in flight, where they outlive a crash of it; and those that are
//! refused because workers have crashed by them.
//!
//! A worker writes its own row by plain stores, and the master reads it once the worker is dead. A row has
//! an entry for each of a bounded number of exchanges, and counts the rest; a word says at which of them
//! the worker was at work. A hot hit has no entry: the beginning of its head is copied instead.
//!
//! ```text
//! words: n_suspects | suspects: fingerprint, state | rows: current, n_more, call, entries: began, meta, fingerprint
//! bytes: rows: beginning of a head | entries: method, host, path
//! ```

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::FixedState;

use crate::http::authority::Authority;
use crate::http::h1::rejected::Rejected;
use crate::http::method::Method;
use crate::http::target::Target;
use crate::sys::ring_map::RingMap;

/// The exchanges of a worker that have an entry.
const N_ENTRIES: usize = 64;
/// The requests that are suspected at once.
pub(crate) const N_SUSPECTS: usize = 128;

const HEAD_BYTES: usize = 256;
const METHOD_BYTES: usize = 16;
const HOST_BYTES: usize = 80;
const PATH_BYTES: usize = 160;
const ENTRY_BYTES: usize = METHOD_BYTES + HOST_BYTES + PATH_BYTES;
const ROW_BYTES: usize = HEAD_BYTES + N_ENTRIES * ENTRY_BYTES;

const ROWS_AT: usize = 1 + 2 * N_SUSPECTS;
const CURRENT: usize = 0;
const N_MORE: usize = 1;
const CALL: usize = 2;
const ENTRIES_AT: usize = 3;
const ENTRY_WORDS: usize = 3;
const ROW_WORDS: usize = ENTRIES_AT + N_ENTRIES * ENTRY_WORDS;

/// `CURRENT` with this bit has the length of a head; else it is the number of an entry, from 1.
const IS_HEAD: u64 = 1 << 32;

/// The stage of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Receiving,
    LookingUp,
    Fetching,
    Answering,
}

impl Stage {
    const ALL: [Self; 4] = [Self::Receiving, Self::LookingUp, Self::Fetching, Self::Answering];

    /// For the error log.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Receiving => "receiving the request",
            Self::LookingUp => "looking up",
            Self::Fetching => "fetching",
            Self::Answering => "answering",
        }
    }
}

/// A request that was in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: Vec<u8>,
    pub(crate) host: Vec<u8>,
    pub(crate) path: Vec<u8>,
    /// Its stage, and when it began, in microseconds of the monotonic clock; not known of a hot hit.
    pub(crate) since: Option<(Stage, u64)>,
    /// Not known if only a part of its head is.
    pub(crate) fingerprint: Option<u64>,
}

/// The requests that a dead worker has left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// The request that it was at work with.
    pub(crate) current: Option<Request>,
    /// The others with an entry.
    pub(crate) others: Vec<Request>,
    pub(crate) n_more: u64,
    /// The system call that ended it.
    pub(crate) call: Option<i64>,
}

/// How a request stands that was in flight in a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suspicion {
    None = 0,
    /// It was in flight in one crash.
    Suspected = 1,
    /// It was answered since.
    Cleared = 2,
    /// It is refused.
    Refused = 3,
    /// A worker that crashed was at work with it.
    AtWork = 4,
}

/// The rows of all process slots, and the suspects.
#[derive(Debug)]
pub(crate) struct InFlightTable {
    map: RingMap,
    n_rows: usize,
}

/// The fingerprint of a request: of its method, host, and path without the query.
pub(crate) fn fingerprint(method: &[u8], host: &[u8], target: &[u8]) -> u64 {
    let mut hasher = FixedState::with_seed(0).build_hasher();
    for part in [method, host, path_of(target)] {
        hasher.write_usize(part.len());
        hasher.write(part);
    }
    // 0 stands for none.
    hasher.finish().max(1)
}

/// A host as exchanges know it: in lower case, without its port and a dot at its end.
fn normalised_host(authority: &[u8]) -> Vec<u8> {
    let host = Authority::parse(authority).map_or(authority, |it| it.host);
    host.strip_suffix(b".").unwrap_or(host).to_ascii_lowercase()
}

fn path_of(target: &[u8]) -> &[u8] {
    target.split(|byte| *byte == b'?').next().unwrap_or_default()
}

impl InFlightTable {
    /// Rows for `n` process slots; call before forking.
    ///
    /// # Errors
    /// An error of the system: not enough shared memory.
    pub(crate) fn create(n: usize) -> io::Result<Self> {
        let map = RingMap::create(ROWS_AT + n * ROW_WORDS, n * ROW_BYTES)?;
        Ok(Self { map, n_rows: n })
    }

    fn word(&self, row: usize, at: usize) -> &AtomicU64 {
        // Each row that is asked for is below `n_rows`.
        &self.map.words()[ROWS_AT + row * ROW_WORDS + at]
    }

    fn entry(&self, row: usize, entry: usize) -> [&AtomicU64; ENTRY_WORDS] {
        let at = ENTRIES_AT + entry * ENTRY_WORDS;
        [self.word(row, at), self.word(row, at + 1), self.word(row, at + 2)]
    }

    /// The word for the number of a system call that ends the process in this row.
    pub(crate) fn call(&self, row: usize) -> Option<&AtomicU64> {
        (row < self.n_rows).then(|| self.word(row, CALL))
    }

    /// Takes what a dead process has left in its row, and clears the row.
    pub(crate) fn take(&self, row: usize) -> Left {
        if row >= self.n_rows {
            return Left::default();
        }
        let take = |at| self.word(row, at).swap(0, Ordering::Relaxed);
        let current = take(CURRENT);
        let call = take(CALL);
        let mut left = Left {
            n_more: take(N_MORE),
            call: call.checked_sub(1).map(u64::cast_signed),
            ..Left::default()
        };
        for entry in 0..N_ENTRIES {
            if let Some(request) = self.take_entry(row, entry) {
                match current == entry as u64 + 1 {
                    true => left.current = Some(request),
                    false => left.others.push(request),
                }
            }
        }
        if current & IS_HEAD != 0 {
            left.current = self.head(row, (current & !IS_HEAD) as usize);
        }
        left
    }

    fn take_entry(&self, row: usize, entry: usize) -> Option<Request> {
        let [began, meta, fingerprint] = self.entry(row, entry);
        let began_us = began.swap(0, Ordering::Relaxed);
        let meta = meta.load(Ordering::Relaxed);
        let [stage, method, host, path, ..] = meta.to_le_bytes();
        let part = |at: usize, len: u8, len_max: usize| {
            let at = row * ROW_BYTES + HEAD_BYTES + entry * ENTRY_BYTES + at;
            let mut bytes = Vec::new();
            self.map.copy_out(at, usize::from(len).min(len_max), &mut bytes);
            bytes
        };
        let stage = *Stage::ALL.get(usize::from(stage))?;
        let fingerprint = fingerprint.load(Ordering::Relaxed);
        (began_us != 0).then(|| Request {
            method: part(0, method, METHOD_BYTES),
            host: part(METHOD_BYTES, host, HOST_BYTES),
            path: part(METHOD_BYTES + HOST_BYTES, path, PATH_BYTES),
            since: Some((stage, began_us)),
            fingerprint: Some(fingerprint),
        })
    }

    fn head(&self, row: usize, len: usize) -> Option<Request> {
        let mut bytes = Vec::new();
        self.map.copy_out(row * ROW_BYTES, len.min(HEAD_BYTES), &mut bytes);
        let read = Rejected::of(&bytes);
        let target = Target::parse(Method::from_bytes(read.method), read.target).ok();
        let path = target.as_ref().map_or(path_of(read.target), |it| path_of(it.path_and_query()));
        let host =
            normalised_host(target.as_ref().and_then(Target::authority).unwrap_or(read.host));
        // A line that goes on behind the copy may be cut.
        let is_whole = !read.host.is_empty()
            && memchr::memmem::rfind(&bytes, read.host)
                .is_some_and(|at| bytes.len() > at + read.host.len());
        (!read.method.is_empty()).then(|| Request {
            method: read.method.to_vec(),
            host: read.host.to_vec(),
            path: path.to_vec(),
            since: None,
            fingerprint: is_whole.then(|| fingerprint(read.method, &host, path)),
        })
    }

    /// Whether a request is suspected or refused.
    pub(crate) fn is_guarding(&self) -> bool {
        self.map.words()[0].load(Ordering::Relaxed) != 0
    }

    fn suspect(&self, place: usize) -> [&AtomicU64; 2] {
        [&self.map.words()[1 + 2 * place], &self.map.words()[2 + 2 * place]]
    }

    /// How the suspect at this place stands now; it may have been answered.
    pub(crate) fn suspicion(&self, place: usize) -> Suspicion {
        match self.suspect(place)[1].load(Ordering::Relaxed) {
            1 => Suspicion::Suspected,
            2 => Suspicion::Cleared,
            3 => Suspicion::Refused,
            4 => Suspicion::AtWork,
            _ => Suspicion::None,
        }
    }

    /// Sets the suspect at a place, below [`N_SUSPECTS`].
    pub(crate) fn set_suspect(&self, place: usize, fingerprint: u64, suspicion: Suspicion) {
        let [its_fingerprint, state] = self.suspect(place);
        its_fingerprint.store(fingerprint, Ordering::Relaxed);
        let was = state.swap(suspicion as u64, Ordering::Relaxed) != Suspicion::None as u64;
        let is = suspicion != Suspicion::None;
        let n_suspects = &self.map.words()[0];
        match (was, is) {
            (false, true) => n_suspects.fetch_add(1, Ordering::Relaxed),
            (true, false) => n_suspects.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
    }

    /// Whether a request is refused.
    pub(crate) fn refuses(&self, fingerprint: u64) -> bool {
        self.places_of(fingerprint).any(|place| self.suspicion(place) == Suspicion::Refused)
    }

    /// A request was answered.
    pub(crate) fn answered(&self, fingerprint: u64) {
        for place in self.places_of(fingerprint) {
            let (from, to) = (Suspicion::Suspected as u64, Suspicion::Cleared as u64);
            // It may be refused by now.
            let _ = self.suspect(place)[1].compare_exchange(
                from,
                to,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
    }

    fn places_of(&self, fingerprint: u64) -> impl Iterator<Item = usize> {
        let is_it =
            move |place: &usize| self.suspect(*place)[0].load(Ordering::Relaxed) == fingerprint;
        (0..N_SUSPECTS).filter(is_it)
    }
}

/// The row of this worker.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) table: Rc<InFlightTable>,
    row: usize,
    /// The entries that are free.
    free: RefCell<Vec<u8>>,
}

/// The entry of an exchange; dropping it frees the entry.
#[derive(Debug)]
pub(crate) struct Entry<'r> {
    of: &'r InFlight,
    /// `None` if there was none left.
    number: Option<u8>,
}

impl InFlight {
    /// The row of the worker in `row`; `None` if there is no such row.
    pub(crate) fn new(table: Rc<InFlightTable>, row: usize) -> Option<Self> {
        let has_row = row < table.n_rows;
        let free = RefCell::new((0..N_ENTRIES as u8).rev().collect());
        has_row.then_some(Self { table, row, free })
    }

    /// The worker begins with the request of this head.
    pub(crate) fn begin_head(&self, head: &[u8]) {
        let head = head.get(..HEAD_BYTES).unwrap_or(head);
        self.table.map.copy_in(self.row * ROW_BYTES, head);
        self.set_current(IS_HEAD | head.len() as u64);
    }

    /// The worker is at work with no request.
    pub(crate) fn end_head(&self) {
        self.set_current(0);
    }

    fn set_current(&self, current: u64) {
        self.table.word(self.row, CURRENT).store(current, Ordering::Relaxed);
    }

    /// Enters an exchange.
    pub(crate) fn enter(
        &self,
        (method, host, target): (&[u8], &[u8], &[u8]),
        began_us: u64,
    ) -> Entry<'_> {
        let number = self.free.borrow_mut().pop();
        let Some(entry) = number.map(usize::from) else {
            self.table.word(self.row, N_MORE).fetch_add(1, Ordering::Relaxed);
            return Entry { of: self, number };
        };
        let at = self.row * ROW_BYTES + HEAD_BYTES + entry * ENTRY_BYTES;
        let put = |at: usize, part: &[u8], len_max: usize| {
            let part = part.get(..len_max).unwrap_or(part);
            self.table.map.copy_in(at, part);
            part.len() as u8
        };
        let path = path_of(target);
        let lens = [
            put(at, method, METHOD_BYTES),
            put(at + METHOD_BYTES, host, HOST_BYTES),
            put(at + METHOD_BYTES + HOST_BYTES, path, PATH_BYTES),
        ];
        let [began, meta, its_fingerprint] = self.table.entry(self.row, entry);
        let bytes = [Stage::Receiving as u8, lens[0], lens[1], lens[2], 0, 0, 0, 0];
        meta.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        its_fingerprint.store(fingerprint(method, host, path), Ordering::Relaxed);
        began.store(began_us.max(1), Ordering::Relaxed);
        Entry { of: self, number }
    }

    /// Sets the stage of the exchange with this entry.
    pub(crate) fn set_stage(&self, entry: u8, stage: Stage) {
        let [_, meta, _] = self.table.entry(self.row, usize::from(entry));
        let others = meta.load(Ordering::Relaxed) & !0xff;
        meta.store(others | stage as u64, Ordering::Relaxed);
    }
}

impl Entry<'_> {
    /// Its number, if it has one.
    pub(crate) const fn number(&self) -> Option<u8> {
        self.number
    }
}

/// Does a step of an exchange: a crash in it is the crash of this one.
pub(crate) fn during<R>(entry: Option<&Entry<'_>>, step: impl FnOnce() -> R) -> R {
    let set = |number: u64| {
        if let Some(entry) = entry {
            entry.of.set_current(number);
        }
    };
    set(entry.and_then(|entry| entry.number).map_or(0, |number| u64::from(number) + 1));
    let done = step();
    set(0);
    done
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        match self.number {
            Some(number) => {
                let [began, ..] = self.of.table.entry(self.of.row, usize::from(number));
                began.store(0, Ordering::Relaxed);
                self.of.free.borrow_mut().push(number);
            }
            None => {
                self.of.table.word(self.of.row, N_MORE).fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> InFlight {
        InFlight::new(Rc::new(InFlightTable::create(2).unwrap()), 1).unwrap()
    }

    const A: (&[u8], &[u8], &[u8]) = (b"GET", b"h", b"/a?secret");

    #[test]
    fn what_is_in_flight_is_left_without_its_query() {
        let row = row();
        let first = row.enter(A, 5);
        let second = row.enter((b"POST", b"h", b"/b"), 6);
        drop(row.enter((b"GET", b"h", b"/done"), 7));
        row.set_stage(second.number().unwrap(), Stage::Fetching);
        let left = during(Some(&second), || row.table.take(1));
        let current = left.current.unwrap();
        assert_eq!((&*current.method, &*current.path), (&b"POST"[..], &b"/b"[..]));
        assert_eq!(current.since, Some((Stage::Fetching, 6)));
        assert_eq!(left.others.len(), 1);
        assert_eq!((&*left.others[0].host, &*left.others[0].path), (&b"h"[..], &b"/a"[..]));
        assert_eq!(left.others[0].fingerprint, Some(fingerprint(b"GET", b"h", b"/a?other")));
        assert_eq!(row.table.take(1), Left::default(), "the row is clear");
        drop(first);
    }

    #[test]
    fn those_without_an_entry_are_counted() {
        let row = row();
        let mut entries: Vec<_> = (0..N_ENTRIES + 3).map(|_| row.enter(A, 1)).collect();
        entries.pop();
        let left = row.table.take(1);
        assert_eq!((left.others.len(), left.n_more), (N_ENTRIES, 2));
    }

    #[test]
    fn a_head_is_known_by_its_beginning_if_that_has_its_host() {
        let row = row();
        row.begin_head(b"GET /a?b HTTP/1.1\r\nHost: h\r\nCookie: secret\r\n\r\n");
        let known = row.table.take(1).current.unwrap();
        assert_eq!(known.fingerprint, Some(fingerprint(b"GET", b"h", b"/a")));
        assert_eq!((&*known.path, known.since), (&b"/a"[..], None));
        let long = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(HEAD_BYTES));
        row.begin_head(long.as_bytes());
        assert_eq!(row.table.take(1).current.unwrap().fingerprint, None);
        for head in [
            "GET http://H:8080/a?c HTTP/1.1\r\nHost: i\r\n\r\n",
            "GET /a HTTP/1.1\r\nhost: H.:8080\r\n\r\n",
        ] {
            row.begin_head(head.as_bytes());
            let current = row.table.take(1).current.unwrap();
            assert_eq!(current.fingerprint, Some(fingerprint(b"GET", b"h", b"/a")), "{head}");
        }
        row.begin_head(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
        row.end_head();
        assert_eq!(row.table.take(1).current, None);
    }

    #[test]
    fn an_answer_clears_a_suspicion_and_no_refusal() {
        let table = InFlightTable::create(1).unwrap();
        assert!(!table.is_guarding());
        table.set_suspect(0, 7, Suspicion::Suspected);
        table.set_suspect(1, 8, Suspicion::Refused);
        assert!(table.is_guarding() && table.refuses(8) && !table.refuses(7));
        table.answered(7);
        table.answered(8);
        assert_eq!(table.suspicion(0), Suspicion::Cleared);
        assert_eq!(table.suspicion(1), Suspicion::Refused);
        table.set_suspect(0, 0, Suspicion::None);
        table.set_suspect(1, 0, Suspicion::None);
        assert!(!table.is_guarding());
    }
}
