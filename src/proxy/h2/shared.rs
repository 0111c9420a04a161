//! What the tasks of one HTTP/2 connection share: the connection's own, and those of its streams.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::policy::reason::close::CloseReason;
use crate::proxy::client::connections::{Connection, Counted};
use crate::proxy::context::Context;
use crate::proxy::h2::budget::Budget;
use crate::reactor;
use crate::reactor::event::Event;

/// One HTTP/2 connection. It counts against `limits.connections` until its last stream has ended.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) context: Rc<Context>,
    counted: Counted,
    /// Exchanges that run. One that was reset runs until it has seen that.
    n_running: Cell<usize>,
    /// Since when none runs, in milliseconds of the monotonic clock.
    pub(super) idle_since_ms: Cell<u64>,
    /// Since when the client takes nothing of what is to be written; 0 if it does.
    pub(super) blocked_since_ms: Cell<u64>,
    pub(super) budget: RefCell<Budget>,
    /// Why the connection has ended, once it has.
    pub(super) close: Cell<Option<CloseReason>>,
    /// Posted to have the connection say goodbye and end.
    pub(super) goodbye: Rc<Event>,
}

impl Shared {
    pub(super) fn new(context: Rc<Context>, counted: Counted) -> Self {
        let now_ms = reactor::now().mono_ms();
        let n_streams_max = context.config.limits.streams;
        let goodbye = Rc::default();
        counted.connection.say_goodbye_by(&goodbye);
        Self {
            context,
            counted,
            n_running: Cell::new(0),
            idle_since_ms: Cell::new(now_ms),
            blocked_since_ms: Cell::new(0),
            budget: RefCell::new(Budget::new(n_streams_max, now_ms)),
            close: Cell::new(None),
            goodbye,
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.counted.connection
    }

    /// How many exchanges run.
    pub(super) fn n_running(&self) -> usize {
        self.n_running.get()
    }

    /// A stream was reset, or refused.
    pub(super) fn note_reset(&self) {
        self.budget.borrow_mut().note_reset(reactor::now().mono_ms());
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
        if shared.n_running() == 0 {
            let now_ms = reactor::now().mono_ms();
            shared.idle_since_ms.set(now_ms);
            shared.connection().set_idle(now_ms);
        }
    }
}
