//! The right to fill a key, which ends with whoever holds it.
//!
//! However a fill ends, cancelled included, its place in the shared table is given up by the drop
//! of its lease; after a SIGKILL the master does it.

use std::rc::Rc;

use crate::cache::fills::FillAt;
use crate::proxy::context::CacheSide;
use crate::proxy::failure::FetchError;
use crate::proxy::progress::LocalFill;
use crate::sys::wake::Seats;

/// The right to fill a key.
#[derive(Debug)]
pub struct Lease {
    /// The cache.
    pub cache: Rc<CacheSide>,
    /// The fill's place in the shared table.
    pub at: FillAt,
    /// The fill as this worker's exchanges see it.
    pub local: Rc<LocalFill>,
    is_ended: bool,
}

impl Lease {
    /// Takes the lease of the place `at`, which the shared table gave this worker, and shows the
    /// fill to its exchanges.
    pub fn new(cache: &Rc<CacheSide>, at: FillAt) -> Self {
        let local = LocalFill::new();
        cache.local.borrow_mut().insert(at, Rc::clone(&local));
        Self { cache: Rc::clone(cache), at, local, is_ended: false }
    }

    /// Ends the fill in the shared table as `end` does, and wakes those who follow.
    pub fn end(&mut self, end: impl FnOnce(&CacheSide, FillAt) -> Seats) {
        self.is_ended = true;
        let seats = end(&self.cache, self.at);
        self.cache.local.borrow_mut().remove(&self.at);
        self.cache.wake(seats);
    }

    /// Ends it without an answer.
    pub fn fail(&mut self, error: FetchError) {
        self.end(|cache, at| cache.fills.failed(at, error.code()));
        self.local.break_off(error);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.is_ended {
            self.fail(FetchError::FillLost);
        }
    }
}

/// Gives back a lease that was taken for nothing: who followed in the meantime looks again.
pub fn give_up(cache: &CacheSide, at: FillAt) {
    cache.wake(cache.fills.failed(at, 0));
}
