//! The state that the tasks of one HTTP/2 connection share: its own task, and those of its streams.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{self, Poll, ready};

use crate::policy::reason::close::CloseReason;
use crate::proxy::client::connections::{Connection, Counted};
use crate::proxy::context::Context;
use crate::proxy::h2::budget::Budget;
use crate::reactor::event::Event;
use crate::reactor::{self, spare};

/// Bytes that are gathered before they are written: a record of TLS.
const GATHER_BYTES: usize = 16 << 10;

/// Larger writes are not copied.
const SMALL_BYTES: usize = 4 << 10;

/// While the library holds so many bytes of bodies that are in no other memory, it gets no more of any
/// stream: a client that does not read keeps no more than this and a part for each connection.
const HELD_BYTES: usize = 32 << 10;

/// One HTTP/2 connection. It counts against `limits.connections` until its last stream has ended.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) context: Rc<Context>,
    counted: Counted,
    /// Exchanges that run. One that was reset runs until it has seen that.
    n_running: Cell<usize>,
    /// Since when none runs, in milliseconds of the monotonic clock.
    pub(super) idle_since_ms: Cell<u64>,
    /// The client's side was full at the last write, so that nothing more is gathered for it.
    is_full: Cell<bool>,
    /// Since when the client takes nothing of what is to be written; 0 if it does.
    pub(super) blocked_since_ms: Cell<u64>,
    pub(super) budget: RefCell<Budget>,
    /// Bytes that are to be written at the end of the turn, so that the frames of several streams go
    /// out together.
    out: RefCell<Vec<u8>>,
    /// Bytes of bodies that the library holds and that are in no other memory.
    n_held: Cell<usize>,
    /// There is room for more of them.
    pub(super) room: Event,
    /// Why the connection has ended, once it has.
    pub(super) close: Cell<Option<CloseReason>>,
}

impl Shared {
    pub(super) fn new(context: Rc<Context>, counted: Counted) -> Self {
        let now_ms = reactor::now().mono_ms();
        let n_streams_max = context.config.limits.streams;
        Self {
            context,
            counted,
            n_running: Cell::new(0),
            idle_since_ms: Cell::new(now_ms),
            is_full: Cell::new(false),
            blocked_since_ms: Cell::new(0),
            budget: RefCell::new(Budget::new(n_streams_max, now_ms)),
            out: RefCell::default(),
            n_held: Cell::new(0),
            room: Event::default(),
            close: Cell::new(None),
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.counted.connection
    }

    /// How many exchanges run.
    pub(super) fn n_running(&self) -> usize {
        self.n_running.get()
    }

    /// Writes `slices`, or keeps them if they are few bytes. The bytes that are kept go out first.
    pub(super) fn poll_write(
        &self,
        task: &mut task::Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let n_bytes = slices.iter().map(|slice| slice.len()).sum::<usize>();
        if self.out.borrow().len() + n_bytes > GATHER_BYTES {
            ready!(self.poll_flush(task))?;
        }
        if n_bytes > SMALL_BYTES || self.is_full.get() {
            ready!(self.poll_flush(task))?;
            return self.poll_send(task, slices);
        }
        let mut out = self.out.borrow_mut();
        if out.capacity() == 0 {
            *out = spare::take();
        }
        slices.iter().for_each(|slice| out.extend_from_slice(slice));
        Poll::Ready(Ok(n_bytes))
    }

    /// Writes the bytes that are kept.
    pub(super) fn poll_flush(&self, task: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.borrow().is_empty() {
            let written = self.poll_send(task, &[IoSlice::new(&self.out.borrow())]);
            let mut out = self.out.borrow_mut();
            if written.is_pending() {
                out.shrink_to_fit();
            }
            out.drain(..ready!(written)?);
        }
        spare::give_back(self.out.take());
        Poll::Ready(Ok(()))
    }

    /// Writes to the transport, and notes whether the client takes everything, and anything.
    fn poll_send(
        &self,
        task: &mut task::Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let transport = &self.connection().transport;
        let n_bytes = slices.iter().map(|slice| slice.len()).sum::<usize>();
        loop {
            let result = transport.try_writev(slices);
            self.is_full.set(!matches!(result, Ok(n_written) if n_written == n_bytes));
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.blocked_since_ms.get() == 0 {
                        self.blocked_since_ms.set(reactor::now().mono_ms());
                        // Answers wait to be sent, although their exchanges may be over.
                        self.connection().set_busy();
                    }
                    ready!(transport.poll_write_ready(task))?;
                }
                result => {
                    if self.blocked_since_ms.replace(0) != 0 {
                        self.note_idle();
                    }
                    return Poll::Ready(result);
                }
            }
        }
    }

    /// The connection is idle from now on, if no exchange runs and no answer waits to be sent.
    fn note_idle(&self) {
        if self.n_running() == 0 && self.blocked_since_ms.get() == 0 {
            let now_ms = reactor::now().mono_ms();
            self.idle_since_ms.set(now_ms);
            self.connection().set_idle(now_ms);
        }
    }

    /// Whether the library may get more bytes that are in no other memory.
    pub(super) fn has_room(&self) -> bool {
        self.n_held.get() < HELD_BYTES
    }

    /// Counts bytes that the library gets, for as long as it has them.
    pub(super) fn hold(self: &Rc<Self>, n_bytes: usize) -> Held {
        self.n_held.update(|n| n + n_bytes);
        Held { shared: Rc::clone(self), n_bytes }
    }

    /// A stream was reset, or refused.
    pub(super) fn note_reset(&self) {
        self.budget.borrow_mut().note_reset(reactor::now().mono_ms());
    }
}

/// Bytes that the library holds, for as long as this lives.
#[derive(Debug)]
pub(super) struct Held {
    shared: Rc<Shared>,
    n_bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        let n_before = self.shared.n_held.get();
        let n_held = n_before - self.n_bytes;
        self.shared.n_held.set(n_held);
        if n_before >= HELD_BYTES && n_held < HELD_BYTES {
            self.shared.room.notify();
        }
    }
}

/// An exchange that runs, for as long as this lives.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) shared: Rc<Shared>,
}

impl Running {
    pub(super) fn new(shared: &Rc<Shared>) -> Self {
        shared.n_running.update(|n| n + 1);
        shared.connection().set_busy();
        Self { shared: Rc::clone(shared) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let shared = &self.shared;
        shared.n_running.update(|n| n - 1);
        shared.note_idle();
    }
}
