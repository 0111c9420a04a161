//! Leases: a worker with the lease of a key leads its fill, and the other workers follow.
//!
//! However a fill ends, cancelled included, the drop of its lease frees its entry in the shared
//! table. After a SIGKILL the master does so.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::cache::fills::entry::FillState;
use crate::cache::fills::{FillAt, Fills, LeaseResult};
use crate::cache::found::Found;
use crate::cache::name::Name;
use crate::cache::worker::Cache;
use crate::policy::key::{Key, key_of};
use crate::policy::purge::surrogate::SurrogateKeys;
use crate::reactor::timer;
use crate::shared::wake::ProcessSet;

/// A follower of another worker's fill checks its state at least this often, in case that no
/// process is left that would wake it.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The pause between two tries of the lock of a list, and how often it is tried.
const LOCK_AGAIN: Duration = Duration::from_millis(2);
const LOCK_TRIES_MAX: usize = 500;

/// The answer to a request for the lease of a key.
#[derive(Debug)]
pub enum LeadOrFollow {
    /// This worker fills the key.
    Lead(Lease),
    /// A fill of the key is running.
    Follow(Follower),
    /// The cache has changed since the look-up: look again.
    Changed,
    /// No fill can be added to the shared table.
    Full,
}

impl LeadOrFollow {
    /// The lease, for a caller that only wants to lead.
    pub fn lead(self) -> Option<Lease> {
        match self {
            Self::Lead(lease) => Some(lease),
            Self::Follow(_) | Self::Changed | Self::Full => None,
        }
    }
}

impl Cache {
    /// Asks for the lease of `key` after a look-up: the key of its name, or one beside it.
    /// `purge_epoch` is that before the origin is asked.
    ///
    /// A fill that was purged since its origin was asked is not followed: a request after a purge
    /// gets a response that was fetched after the purge.
    pub fn lead_or_follow(
        self: &Rc<Self>,
        found: &Found,
        key: &Key,
        purge_epoch: u64,
    ) -> LeadOrFollow {
        loop {
            match self.lease(key, purge_epoch) {
                LeadOrFollow::Follow(follower) if self.is_doomed_by_purge(&follower, found) => {}
                LeadOrFollow::Lead(_) if self.has_changed(found) => return LeadOrFollow::Changed,
                other => return other,
            }
        }
    }

    /// Asks for the lease of a key, whatever is stored or was purged.
    pub(super) fn lease(self: &Rc<Self>, key: &Key, purge_epoch: u64) -> LeadOrFollow {
        let cache = Rc::clone(self);
        match self.shared.fills.lease(key, self.process_slot, purge_epoch) {
            LeaseResult::Leader(at) => {
                LeadOrFollow::Lead(Lease { cache, at, is_ended: Cell::new(false) })
            }
            LeaseResult::Follow(at) => LeadOrFollow::Follow(Follower::new(cache, at)),
            LeaseResult::Full => LeadOrFollow::Full,
        }
    }

    /// Locks the list under a name for all workers; `None` if others keep the lock for too long.
    pub(crate) async fn lock_list(self: &Rc<Self>, name: &Name) -> Option<Lease> {
        // In another group of the table of fills than the parts, which may have taken all of theirs.
        let key = key_of(&[b"list of ", &name.key.hex()[..]].concat());
        for _ in 0..LOCK_TRIES_MAX {
            if let Some(lease) = self.lease(&key, self.purge_epoch()).lead() {
                return Some(lease);
            }
            // The lock is held while a small file is written.
            timer::sleep(LOCK_AGAIN).await;
        }
        None
    }

    /// Dooms a fill if a purge names it: it is not stored, and no other request joins it. Present
    /// followers get their answer.
    pub(crate) fn doom_if_purged(
        &self,
        at: FillAt,
        name: &Name,
        surrogates: &SurrogateKeys,
    ) -> bool {
        let is_purged = !self.is_unpurged(&name.text, surrogates);
        if is_purged {
            self.shared.fills.doom_at(at);
        }
        is_purged
    }

    /// How far the fill of a key is, if one is under way that a request may follow.
    pub(crate) fn fill_state(&self, key: &Key) -> Option<FillState> {
        self.shared.fills.under_way_of(key).map(|at| self.shared.fills.state(at))
    }

    fn is_doomed_by_purge(&self, follower: &Follower, found: &Found) -> bool {
        let epoch = self.shared.fills.purge_epoch(follower.at);
        epoch.is_some_and(|epoch| {
            self.doom_if_purged(follower.at, &found.name, &SurrogateKeys::untagged(epoch))
        })
    }
}

/// The lease of a key. Dropping it ends the fill, unless that has ended.
#[derive(Debug)]
pub struct Lease {
    /// The cache.
    pub cache: Rc<Cache>,
    /// The fill's place in the shared table.
    pub at: FillAt,
    /// Set once the fill has ended: the entry may hold another fill then.
    is_ended: Cell<bool>,
}

impl Lease {
    /// Tells the followers that the file can be opened. `total` is the length of the body, if
    /// known.
    pub fn head_ready(&self, total: Option<u64>) {
        self.cache.wake(self.cache.shared.fills.head_ready(self.at, total));
    }

    /// Tells the followers that this many bytes of the body can be read.
    pub fn progress(&self, bytes: u64) {
        self.cache.wake(self.cache.shared.fills.progress(self.at, bytes));
    }

    /// Notes that the file is about to be published: the index counts its bytes from now on.
    pub fn settle(&self) {
        self.cache.shared.fills.settle(self.at);
    }

    /// Ends the fill; the response is stored.
    pub fn done(&self) {
        self.end(|fills| fills.done(self.at));
    }

    /// Ends the fill; the response is not stored.
    pub fn pass(&self) {
        self.end(|fills| fills.pass(self.at));
    }

    /// Ends the fill without a response. Followers get the code; 0 makes them look again.
    pub fn fail(&self, code: u32) {
        self.end(|fills| fills.failed(self.at, code));
    }

    /// Whether the response must not be stored.
    pub fn is_doomed(&self) -> bool {
        self.cache.shared.fills.is_doomed(self.at)
    }

    /// Whether another worker follows the fill.
    pub fn has_followers(&self) -> bool {
        self.cache.shared.fills.has_followers(self.at)
    }

    fn end(&self, end: impl FnOnce(&Fills) -> ProcessSet) {
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

/// A follower of another worker's fill. This worker is woken at progress while one of these lives.
#[derive(Debug)]
pub struct Follower {
    pub(super) cache: Rc<Cache>,
    /// The fill's place in the shared table.
    pub at: FillAt,
}

impl Follower {
    /// Counts a follower that the shared table has entered.
    fn new(cache: Rc<Cache>, at: FillAt) -> Self {
        *cache.followed.borrow_mut().entry(at).or_default() += 1;
        Self { cache, at }
    }

    /// How far the fill is.
    pub fn state(&self) -> FillState {
        self.cache.shared.fills.state(self.at)
    }

    /// For [`Self::after`]: read it before [`Self::state`].
    pub fn version(&self) -> u64 {
        self.cache.remote_event.version()
    }

    /// Waits until the fill may have progressed since this version.
    pub async fn after(&self, version: u64) {
        let event = self.cache.remote_event.after(version);
        if timer::timeout(LOOK_AGAIN, event).await.is_err() {
            // This may change the state, which the caller reads next.
            self.cache.shared.fills.state_checked(self.at);
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut followed = self.cache.followed.borrow_mut();
        let Some(n) = followed.get_mut(&self.at) else { return };
        *n -= 1;
        if *n == 0 {
            followed.remove(&self.at);
            self.cache.shared.fills.unfollow(self.at, self.cache.process_slot);
        }
    }
}

#[cfg(test)]
#[path = "tests/lease.rs"]
mod tests;
