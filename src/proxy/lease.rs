//! The right to fill a key, which ends with whoever holds it.
//!
//! However a fill ends, cancelled included, its place in the shared table is given up by the drop
//! of its lease; after a SIGKILL the master does it.

use std::rc::Rc;

use crate::cache::fills::{self, FillAt};
use crate::policy::key::Key;
use crate::policy::purge::surrogate::SurrogateKeys;
use crate::policy::reason::fetch::FetchError;
use crate::proxy::context::CacheSide;
use crate::proxy::lookup;
use crate::proxy::progress::LocalFill;
use crate::shared::wake::Seats;

/// Asks for the fill of a key, of what has this key text. One that was purged since its origin was
/// asked is not followed: who asks after a purge is answered with what was asked for after it.
pub fn unpurged(cache: &CacheSide, key: &Key, text: &[u8], purge_epoch: u64) -> fills::Lease {
    loop {
        let lease = cache.fills.lease(key, cache.seat, purge_epoch);
        let fills::Lease::Follow(at) = lease else { return lease };
        let surrogates =
            SurrogateKeys::untagged(cache.fills.purge_epoch(at).unwrap_or(purge_epoch));
        if lookup::is_unpurged(cache, text, &surrogates) {
            return lease;
        }
        // It is led on for those who follow already; the next lease passes it over.
        cache.fills.doom_at(at);
        leave(cache, at);
    }
}

/// Follows a fill no more, unless an exchange of this worker does.
pub fn leave(cache: &CacheSide, at: FillAt) {
    if !cache.remote.borrow().contains_key(&at) {
        cache.fills.unfollow(at, cache.seat);
    }
}

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
