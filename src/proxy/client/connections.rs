//! The client connections of a worker: how many there are, and which of them are idle.
//!
//! An idle connection is the first to go when there is no room for a new one, and when the
//! worker drains. Ending one is shutting its socket down: its own task sees the end and leaves.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use slab::Slab;

use crate::reactor::address::PeerAddress;
use crate::reactor::event::Event;
use crate::transport::Transport;

/// A client's connection.
#[derive(Debug)]
pub struct ClientSocket {
    /// Its bytes.
    pub transport: Transport,
    /// Who is at the other end.
    pub peer: PeerAddress,
    /// Since when no request is under way, in milliseconds of the monotonic clock; 0 if one is.
    idle_since_ms: Cell<u64>,
}

impl ClientSocket {
    /// A request is under way.
    pub fn set_busy(&self) {
        self.idle_since_ms.set(0);
    }

    /// No request is under way since `now_ms`.
    pub fn set_idle(&self, now_ms: u64) {
        self.idle_since_ms.set(now_ms.max(1));
    }
}

/// All client connections of a worker.
#[derive(Debug, Default)]
pub struct Clients {
    sockets: RefCell<Slab<Rc<ClientSocket>>>,
    hand: Cell<usize>,
    /// Posted when a connection ends.
    pub left: Event,
}

impl Clients {
    /// Counts a connection for as long as the guard lives.
    pub fn admit(
        self: &Rc<Self>,
        transport: Transport,
        peer: PeerAddress,
        now_ms: u64,
    ) -> Admission {
        let idle_since_ms = Cell::new(now_ms.max(1));
        let socket = Rc::new(ClientSocket { transport, peer, idle_since_ms });
        let place = self.sockets.borrow_mut().insert(Rc::clone(&socket));
        Admission { clients: Rc::clone(self), place, socket }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sockets.borrow().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends at most `n_max` connections that have been idle since before `before_ms`; returns how
    /// many it ended.
    pub fn shed_idle(&self, before_ms: u64, n_max: usize) -> usize {
        let sockets = self.sockets.borrow();
        let capacity = sockets.capacity().max(1);
        let mut n_shed = 0;
        for _ in 0..capacity {
            if n_shed == n_max {
                break;
            }
            self.hand.set((self.hand.get() + 1) % capacity);
            let Some(socket) = sockets.get(self.hand.get()) else { continue };
            let since_ms = socket.idle_since_ms.get();
            if since_ms != 0 && since_ms < before_ms {
                socket.set_busy();
                socket.transport.shutdown_both();
                n_shed += 1;
            }
        }
        n_shed
    }
}

/// One connection's place among the clients.
#[derive(Debug)]
pub struct Admission {
    clients: Rc<Clients>,
    place: usize,
    /// The connection.
    pub socket: Rc<ClientSocket>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.clients.sockets.borrow_mut().remove(self.place);
        self.clients.left.notify();
    }
}
