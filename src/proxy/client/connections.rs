//! The client connections of a worker: how many there are, and which of them are idle.
//!
//! An idle connection is the first to go when there is no room for a new one, and when the
//! worker drains. Connections with slow request bodies are the next. A connection is ended by a shutdown of its transport; its task sees the end and leaves.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{self, Poll, Waker};

use slab::Slab;

use crate::config::ListenMode;
use crate::metrics::table::Metric;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::front::Front;
use crate::reactor::event::Event;
use crate::shared::meter;
use crate::transport::Transport;

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    /// Its bytes.
    pub transport: Transport,
    /// How it came in.
    pub front: Front,
    /// Since when no request is under way, in milliseconds of the monotonic clock; 0 if one is.
    idle_since_ms: Cell<u64>,
    /// Its task waits for the first byte of a request, and nothing else is kept of it.
    is_between: Cell<bool>,
    /// Another process serves it.
    is_given: Cell<bool>,
    /// Since when the body of its request comes too slowly; `u64::MAX` if it does not.
    slow_since_ms: Cell<u64>,
    /// Wakes its task to end it, where its protocol has a goodbye.
    goodbye: RefCell<Option<Waker>>,
    is_leaving: Cell<bool>,
    /// It carries a tunnel, or did.
    is_tunnel: Cell<bool>,
}

impl Connection {
    /// Ready when the connection is to end. A task that polls this says goodbye, and ends it then.
    pub(crate) fn poll_goodbye(&self, task: &task::Context<'_>) -> Poll<()> {
        if self.is_leaving.get() {
            return Poll::Ready(());
        }
        let mut goodbye = self.goodbye.borrow_mut();
        match goodbye.as_mut() {
            Some(waker) => waker.clone_from(task.waker()),
            None => *goodbye = Some(task.waker().clone()),
        }
        Poll::Pending
    }

    fn end(&self) {
        let goodbye = self.goodbye.take();
        match goodbye {
            Some(waker) => {
                self.is_leaving.set(true);
                waker.wake();
            }
            None => {
                self.transport.finish();
                self.transport.shutdown_both();
            }
        }
    }

    /// Counts its end, unless another process serves it on.
    pub(crate) fn count_end(&self, reason: CloseReason) {
        if !self.is_given() && self.front.listen.mode != ListenMode::Admin {
            meter::count(Metric::Closed.at(reason as usize));
        }
    }

    /// A tunnel begins on it.
    pub(crate) fn set_tunnel(&self) {
        self.is_tunnel.set(true);
    }

    /// A request is under way.
    pub fn set_busy(&self) {
        self.idle_since_ms.set(0);
        self.is_between.set(false);
    }

    /// As [`Self::set_idle`], and only its bytes are needed to serve it on.
    pub fn set_between(&self, now_ms: u64) {
        self.set_idle(now_ms);
        self.is_between.set(true);
    }

    /// Whether another process serves it, so that its task must end.
    pub fn is_given(&self) -> bool {
        self.is_given.get()
    }

    /// The body of a request is awaited, and is too slow since, or from, `slow_since_ms` of the
    /// monotonic clock; `u64::MAX` if none is.
    pub(crate) fn set_slow(&self, slow_since_ms: u64) {
        self.slow_since_ms.set(slow_since_ms);
    }

    /// No request is under way since `now_ms`.
    pub fn set_idle(&self, now_ms: u64) {
        self.idle_since_ms.set(now_ms.max(1));
    }
}

/// All client connections of a worker.
#[derive(Debug, Default)]
pub struct Connections {
    all: RefCell<Slab<Rc<Connection>>>,
    hand: Cell<usize>,
    /// Those that are not of the admin listener.
    n_clients: Cell<u64>,
    /// Posted when a connection ends.
    pub left: Event,
}

impl Connections {
    /// Counts a connection.
    pub fn add(self: &Rc<Self>, transport: Transport, front: Front, now_ms: u64) -> Counted {
        let idle_since_ms = Cell::new(now_ms.max(1));
        let slow_since_ms = Cell::new(u64::MAX);
        let (is_between, is_given) = (Cell::new(false), Cell::new(false));
        let (goodbye, is_leaving) = (RefCell::default(), Cell::new(false));
        let is_tunnel = Cell::new(false);
        let connection = Connection {
            transport,
            front,
            idle_since_ms,
            is_between,
            is_given,
            slow_since_ms,
            goodbye,
            is_leaving,
            is_tunnel,
        };
        let connection = Rc::new(connection);
        let place = self.all.borrow_mut().insert(Rc::clone(&connection));
        self.count_clients(&connection, self.n_clients.get() + 1);
        Counted { connections: Rc::clone(self), place, connection }
    }

    fn count_clients(&self, changed: &Connection, n_clients: u64) {
        if changed.front.listen.mode != ListenMode::Admin {
            self.n_clients.set(n_clients);
            meter::set(Metric::Connections.cell(), n_clients);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.borrow().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends at most `n_max` connections that have been idle since before `before_ms`; returns how
    /// many it ended.
    pub fn shed_idle(&self, before_ms: u64, n_max: usize) -> usize {
        self.shed(n_max, |connection| {
            let since_ms = connection.idle_since_ms.get();
            let is_idle = since_ms != 0 && since_ms < before_ms;
            if is_idle {
                connection.set_busy();
            }
            is_idle
        })
    }

    /// Gives at most `n_max` connections between two requests away: `give` hands one to another process,
    /// or says that it cannot. Returns how many it gave away.
    pub(crate) fn give_away(&self, n_max: usize, give: impl Fn(&Connection) -> bool) -> usize {
        let connections = self.all.borrow();
        let between = connections.iter().filter(|(_, it)| it.is_between.get());
        let given = between.filter(|(_, connection)| {
            let is_given = give(connection);
            if is_given {
                connection.set_busy();
                connection.is_given.set(true);
                connection.transport.leave();
            }
            is_given
        });
        given.take(n_max).count()
    }

    /// Ends at most `n_max` connections whose requests have come too slowly since before
    /// `before_ms`; returns how many it ended.
    pub(crate) fn shed_slow(&self, before_ms: u64, n_max: usize) -> usize {
        self.shed(n_max, |connection| {
            let is_slow = connection.slow_since_ms.get() < before_ms;
            if is_slow {
                connection.set_slow(u64::MAX);
            }
            is_slow
        })
    }

    /// Ends all but the connections with tunnels; returns how many it ended.
    pub(crate) fn end_all_but_tunnels(&self) -> usize {
        let connections = self.all.borrow();
        let others = connections.iter().filter(|(_, it)| !it.is_tunnel.get());
        others.inspect(|(_, it)| it.transport.shutdown_both()).count()
    }

    fn shed(&self, n_max: usize, goes: impl Fn(&Connection) -> bool) -> usize {
        let connections = self.all.borrow();
        let capacity = connections.capacity().max(1);
        let mut n_shed = 0;
        for _ in 0..capacity {
            if n_shed == n_max {
                break;
            }
            self.hand.set((self.hand.get() + 1) % capacity);
            let Some(connection) = connections.get(self.hand.get()) else { continue };
            if goes(connection) {
                connection.end();
                n_shed += 1;
            }
        }
        n_shed
    }
}

/// A connection that counts against `limits.connections` for as long as this lives.
#[derive(Debug)]
pub struct Counted {
    connections: Rc<Connections>,
    place: usize,
    /// The connection.
    pub connection: Rc<Connection>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.connections.all.borrow_mut().remove(self.place);
        let n_clients = self.connections.n_clients.get().saturating_sub(1);
        self.connections.count_clients(&self.connection, n_clients);
        self.connections.left.notify();
    }
}
