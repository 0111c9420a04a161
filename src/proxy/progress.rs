//! How far a fill has come, for the exchanges of its own worker.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use crate::cache::fill_object::FillObject;
use crate::cache::fills::FillAt;
use crate::cache::hot::HotObject;
use crate::http::fields::Fields;
use crate::http::head::ResponseHead;
use crate::http::status::Status;
use crate::origin::fetch::{FetchTimes, Response};
use crate::policy::reason::fetch::FetchError;
use crate::policy::reason::pass::PassReason;
use crate::reactor::event::Event;
use crate::upstream::destination::Answerer;

/// What followers in other workers get instead of the code of an error, if the answer was for the
/// leader alone.
pub(crate) const UNSHARED: u32 = u32::MAX;

/// How far a fill has come, for the exchanges of its own worker.
#[derive(Clone, Debug)]
pub enum Progress {
    /// No head yet.
    Fetching,
    /// The whole response is in memory, or was stored before.
    Object(Rc<HotObject>),
    /// The list of the stored parts, which a 304 has renewed.
    Parts(Rc<HotObject>),
    /// The head is there and the body is being written to a file.
    Streaming(Rc<FillObject>),
    /// It is not to be stored.
    Passed(PassReason),
    /// It is not to be stored, and is for the leader alone: another request may lead to another.
    Unshared(PassReason),
    /// The origin failed with an answer of its own, while something is stored.
    Refused(PassReason),
    /// There is no answer.
    Failed(FetchError),
}

/// How far the body of a streamed fill has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// This many bytes of the body are in the file, and more will come.
    Open(u64),
    /// The whole body, of this many bytes, is in the file.
    Done(u64),
    /// The response broke off after this many bytes.
    Broken(u64),
    /// The origin goes on, but nothing after this many bytes is stored.
    Unstored(u64),
}

/// A fill as its own worker's exchanges see it.
#[derive(Debug)]
pub struct LocalFill {
    /// Posted at every change, and when its last reader has left.
    pub event: Event,
    progress: RefCell<Progress>,
    flow: Cell<Flow>,
    n_readers: Cell<usize>,
    /// Its request waits for a connection.
    is_queued: Cell<bool>,
    /// Its task has ended.
    is_over: Cell<bool>,
    interims: RefCell<VecDeque<ResponseHead>>,
    handover: RefCell<Option<Box<Handover>>>,
    /// The answer of the origin, once it has begun.
    pub answered: RefCell<Option<Answered>>,
    /// Whether the origin answered 304, so that a stored body is served.
    pub is_revalidated: Cell<bool>,
    /// The fields of the answer that are for the leader's client alone and are not stored.
    pub private: RefCell<Fields>,
}

/// The fills that a worker leads.
#[derive(Debug, Default)]
pub struct LocalFills(RefCell<HashMap<FillAt, Rc<LocalFill>>>);

impl LocalFills {
    /// Adds a fill that begins.
    pub fn add(&self, at: FillAt) -> Rc<LocalFill> {
        let local = LocalFill::new();
        self.0.borrow_mut().insert(at, Rc::clone(&local));
        local
    }

    /// The fill at this place of the shared table, if this worker leads it.
    pub fn get(&self, at: FillAt) -> Option<Rc<LocalFill>> {
        self.0.borrow().get(&at).cloned()
    }

    /// Removes a fill that has ended.
    pub fn remove(&self, at: FillAt) {
        self.0.borrow_mut().remove(&at);
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }
}

/// An origin's answer to a fill's fetch.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The server that gave it.
    pub server: Answerer,
    /// The status, which need not be the one that clients get.
    pub status: Status,
    /// The phases of the fetch.
    pub times: FetchTimes,
}

/// A response that is not stored and goes to the leader, with the bytes of its body that were read.
#[derive(Debug)]
pub struct Handover {
    /// The response, its body not read to the end.
    pub response: Response,
    /// Bytes of the body that were read and that no stream has delivered.
    pub read: Vec<u8>,
}

impl LocalFill {
    /// One that has just begun.
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            event: Event::default(),
            progress: RefCell::new(Progress::Fetching),
            flow: Cell::new(Flow::Open(0)),
            n_readers: Cell::new(0),
            is_queued: Cell::new(false),
            is_over: Cell::new(false),
            interims: RefCell::default(),
            handover: RefCell::default(),
            answered: RefCell::default(),
            is_revalidated: Cell::new(false),
            private: RefCell::default(),
        })
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// How the stream goes.
    pub fn flow(&self) -> Flow {
        self.flow.get()
    }

    /// The next interim response that the leader has not taken yet.
    pub fn take_interim(&self) -> Option<ResponseHead> {
        self.interims.borrow_mut().pop_front()
    }

    /// The response, once; for the leader.
    pub fn take_handover(&self) -> Option<Box<Handover>> {
        self.handover.borrow_mut().take()
    }

    /// Whether some exchange of this worker follows it.
    pub fn has_readers(&self) -> bool {
        self.n_readers() > 0
    }

    /// How many exchanges of this worker follow, or lead.
    pub fn n_readers(&self) -> usize {
        self.n_readers.get()
    }

    /// Counts a reader for as long as the guard lives.
    pub fn read(self: &Rc<Self>) -> Reading {
        self.n_readers.set(self.n_readers.get() + 1);
        Reading(Rc::clone(self))
    }

    /// Whether its request waits for a connection.
    pub fn is_queued(&self) -> bool {
        self.is_queued.get()
    }

    /// Its request waits for a connection for as long as the guard lives. The readers are woken,
    /// because they wait for their clients in another way meanwhile.
    pub fn queue(&self) -> Queued<'_> {
        self.is_queued.set(true);
        self.event.notify();
        Queued(self)
    }

    /// Sets the progress and wakes the readers.
    pub fn set(&self, progress: Progress) {
        *self.progress.borrow_mut() = progress;
        self.event.notify();
    }

    /// Sets the flow and wakes the readers.
    pub fn set_flow(&self, flow: Flow) {
        self.flow.set(flow);
        self.event.notify();
    }

    /// Breaks the fill off, unless it has ended. A reader that has the head sees the end of the
    /// stream, any other reader the error.
    pub fn break_off(&self, error: FetchError) {
        match (self.progress(), self.flow.get()) {
            (Progress::Fetching, _) => self.set(Progress::Failed(error)),
            (Progress::Streaming(_), Flow::Open(bytes)) => self.set_flow(Flow::Broken(bytes)),
            _ => {}
        }
    }

    /// Its task has ended, and what it stored can be found.
    pub fn end(&self) {
        self.is_over.set(true);
        self.event.notify();
    }

    /// Whether its task has ended.
    pub fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// Leaves the response to the leader.
    pub fn hand_over(&self, response: Response, read: Vec<u8>) {
        *self.handover.borrow_mut() = Some(Box::new(Handover { response, read }));
    }

    /// An interim response has come.
    pub fn push_interim(&self, head: ResponseHead) {
        self.interims.borrow_mut().push_back(head);
        self.event.notify();
    }
}

/// The request of a fill waits for a connection.
#[derive(Debug)]
pub struct Queued<'f>(&'f LocalFill);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.is_queued.set(false);
        self.0.event.notify();
    }
}

/// A reader of a fill, counted for as long as this lives.
#[derive(Debug)]
pub struct Reading(Rc<LocalFill>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.n_readers.set(self.0.n_readers.get() - 1);
        if !self.0.has_readers() {
            // A fill without readers may end.
            self.0.event.notify();
        }
    }
}
