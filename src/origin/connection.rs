//! A connection of a pool while a fetch uses it.

use std::cell::Cell;
use std::rc::Rc;

use crate::origin::pools::{OriginLimits, ServerPool, Upstream};
use crate::reactor;
use crate::shared::health::{Admission, Health};
use crate::transport::Transport;
use crate::upstream::ids::{Server, ServerId};

/// The place of one active connection in the pool of its server. Dropping it gives the place back,
/// and calls the fetch that has waited longest for one.
#[derive(Debug)]
pub(super) struct Active {
    upstream: Rc<Upstream>,
    id: ServerId,
    /// Why the server may be used, until its answer or failure is known.
    admission: Cell<Admission>,
    /// The connection went back to its pool, which counts it.
    is_kept: bool,
}

impl Active {
    /// For a place that the pool of this server counts already.
    pub(super) fn new(upstream: &Rc<Upstream>, id: ServerId, admission: Admission) -> Self {
        let admission = Cell::new(admission);
        Self { upstream: Rc::clone(upstream), id, admission, is_kept: false }
    }

    pub(super) fn server(&self) -> Server {
        self.of().server
    }

    /// The server answered.
    pub(super) fn answered(&self) {
        self.of().pool.borrow_mut().answered();
        self.health().answered(self.admission.replace(Admission::Up));
        self.upstream.end_outage();
    }

    /// The server failed: all workers skip it for a while.
    pub(super) fn failed(&self) {
        self.admission.set(Admission::Up);
        self.health().failed(reactor::now().mono_ms(), self.upstream.skip_ms);
    }

    /// The server did not answer in time. It counts as failed after several such requests in a row,
    /// or if this was the attempt.
    pub(super) fn silent(&self) {
        let is_doubtful = self.of().pool.borrow_mut().silent();
        if is_doubtful || matches!(self.admission.get(), Admission::Attempt(_)) {
            self.failed();
        }
    }

    fn of(&self) -> &ServerPool {
        self.upstream.server(self.id)
    }

    fn health(&self) -> Health<'_> {
        self.upstream.health(self.id)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if !self.is_kept {
            self.of().pool.borrow_mut().closed();
        }
        self.health().abandoned(self.admission.get(), reactor::now().mono_ms());
        self.upstream.call_next();
    }
}

/// An active connection; dropping it closes it.
#[derive(Debug)]
pub(super) struct Connection {
    active: Active,
    transport: Rc<Transport>,
    is_reused: bool,
}

impl Connection {
    pub(super) fn new(active: Active, transport: Rc<Transport>, is_reused: bool) -> Self {
        Self { active, transport, is_reused }
    }

    /// The place in the pool, to which answers and failures of the server are reported.
    pub(super) fn active(&self) -> &Active {
        &self.active
    }

    pub(super) fn limits(&self) -> &OriginLimits {
        &self.active.upstream.limits
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// The transport, for waits that outlive a borrow.
    pub(super) fn transport_handle(&self) -> Rc<Transport> {
        Rc::clone(&self.transport)
    }

    /// Whether it carried a request before.
    pub(super) fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Gives it back to be used again.
    pub(super) fn give_back(mut self) {
        self.active.is_kept = true;
        let now_ms = reactor::now().mono_ms();
        let transport = Rc::clone(&self.transport);
        self.active.of().pool.borrow_mut().checkin(transport, now_ms);
    }
}
