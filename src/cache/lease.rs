//! The right to fill a key, which ends with whoever holds it.
//!
//! However a fill ends, cancelled included, its place in the shared table is given up by the drop
//! of its lease; after a SIGKILL the master does it.

use std::cell::Cell;
use std::rc::Rc;

use crate::cache::fills::{self, FillAt, Fills};
use crate::cache::worker::Cache;
use crate::policy::key::Key;
use crate::policy::purge::surrogate::SurrogateKeys;
use crate::shared::wake::Seats;

/// Asks for the fill of a key, of what has this key text. One that was purged since its origin was
/// asked is not followed: who asks after a purge is answered with what was asked for after it.
pub fn unpurged(cache: &Cache, key: &Key, text: &[u8], purge_epoch: u64) -> fills::Lease {
    loop {
        let lease = cache.shared.fills.lease(key, cache.seat, purge_epoch);
        let fills::Lease::Follow(at) = lease else { return lease };
        let surrogates =
            SurrogateKeys::untagged(cache.shared.fills.purge_epoch(at).unwrap_or(purge_epoch));
        if cache.is_unpurged(text, &surrogates) {
            return lease;
        }
        // It is led on for those who follow already; the next lease passes it over.
        cache.shared.fills.doom_at(at);
        leave(cache, at);
    }
}

/// Follows a fill no more, unless an exchange of this worker does.
pub fn leave(cache: &Cache, at: FillAt) {
    if !cache.remote.borrow().contains_key(&at) {
        cache.shared.fills.unfollow(at, cache.seat);
    }
}

/// The right to fill a key. Dropping it ends the fill, unless that has ended.
#[derive(Debug)]
pub struct Lease {
    /// The cache.
    pub cache: Rc<Cache>,
    /// The fill's place in the shared table.
    pub at: FillAt,
    /// The place may serve another fill by now.
    is_ended: Cell<bool>,
}

impl Lease {
    /// The lease of the place `at`, which the shared table gave this worker.
    pub fn new(cache: &Rc<Cache>, at: FillAt) -> Self {
        Self { cache: Rc::clone(cache), at, is_ended: Cell::new(false) }
    }

    /// The file can be opened; its body's length, if that is known.
    pub fn head_ready(&self, total: Option<u64>) {
        self.cache.wake(self.cache.shared.fills.head_ready(self.at, total));
    }

    /// So many bytes of the body can be read.
    pub fn progress(&self, bytes: u64) {
        self.cache.wake(self.cache.shared.fills.progress(self.at, bytes));
    }

    /// The file is about to be published: the index counts its bytes from now on.
    pub fn settle(&self) {
        self.cache.shared.fills.settle(self.at);
    }

    /// Ends the fill: what it brought is stored.
    pub fn done(&self) {
        self.end(|fills| fills.done(self.at));
    }

    /// Ends the fill: what it brought is not stored.
    pub fn pass(&self) {
        self.end(|fills| fills.pass(self.at));
    }

    /// Ends the fill without an answer. Followers get the code; 0 has them look again.
    pub fn fail(&self, code: u32) {
        self.end(|fills| fills.failed(self.at, code));
    }

    /// Whether what the fill brings must not be stored.
    pub fn is_doomed(&self) -> bool {
        self.cache.shared.fills.is_doomed(self.at)
    }

    /// Whether a worker follows the fill.
    pub fn has_followers(&self) -> bool {
        self.cache.shared.fills.has_followers(self.at)
    }

    fn end(&self, end: impl FnOnce(&Fills) -> Seats) {
        if !self.is_ended.replace(true) {
            self.cache.wake(end(&self.cache.shared.fills));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.fail(0);
    }
}

/// Gives back a lease that was taken for nothing: who followed in the meantime looks again.
pub fn give_up(cache: &Cache, at: FillAt) {
    cache.wake(cache.shared.fills.failed(at, 0));
}
