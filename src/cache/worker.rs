//! The cache of one worker: the shared part, and the worker's own hot tier.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use crate::cache::fills::FillAt;
use crate::cache::hot::Hot;
use crate::cache::index::slot::SlotRef;
use crate::cache::level::CacheLevel;
use crate::cache::place;
use crate::cache::purge::{Order, PurgeError};
use crate::cache::shared::Shared;
use crate::config::{Admission, CacheConfig};
use crate::disk::{self, Kind};
use crate::policy::key::Key;
use crate::reactor;
use crate::reactor::event::Event;
use crate::shared::wake::ProcessSet;

/// The cache of one worker.
#[derive(Debug)]
pub struct Cache {
    /// The part that all processes share.
    pub(super) shared: Rc<Shared>,
    /// This worker's hot tier.
    pub(crate) hot: RefCell<Hot>,
    /// How many exchanges of this worker follow a fill of another.
    pub(super) followed: RefCell<HashMap<FillAt, usize>>,
    /// Posted when a fill of another worker has progressed.
    pub(super) remote_event: Event,
    /// This worker's row in the shared tables.
    pub(super) process_slot: usize,
    keeper_slot: usize,
    pub(super) admission: Admission,
    object_bytes_max: u64,
}

impl Cache {
    /// The cache of the worker in `process_slot`, which keeps at most `n_files_max` files open.
    pub fn new(
        shared: Rc<Shared>,
        config: &CacheConfig,
        process_slot: usize,
        keeper_slot: usize,
        n_files_max: usize,
    ) -> Self {
        let hot = Hot::new(config.memory_bytes, n_files_max, config.memory_object_bytes_max);
        Self {
            shared,
            hot: RefCell::new(hot),
            followed: RefCell::default(),
            remote_event: Event::default(),
            process_slot,
            keeper_slot,
            admission: config.admission,
            object_bytes_max: config.object_bytes_max,
        }
    }

    /// How full it is.
    pub(crate) fn level(&self) -> CacheLevel {
        let index = &self.shared.index;
        CacheLevel {
            path: self.shared.store.dir().to_owned(),
            objects: index.objects(),
            objects_max: index.n_objects_max(),
            slots: index.n_slots().into(),
            bytes: index.bytes(),
            bytes_max: index.size_bytes(),
        }
    }

    /// The number of the last purge.
    pub fn purge_epoch(&self) -> u64 {
        self.shared.purges.purge_epoch()
    }

    /// `cache.object`, in bytes.
    pub fn object_bytes_max(&self) -> u64 {
        self.object_bytes_max
    }

    /// Purges what the order names. The keeper writes the journal to the disk and to the log.
    ///
    /// # Errors
    ///
    /// See [`PurgeError`].
    pub fn purge(&self, order: &Order) -> Result<u64, PurgeError> {
        let number = self.shared.purges.purge(order, reactor::now().unix_s())?;
        if !order.who.is_empty() {
            self.wake_keeper();
        }
        Ok(number)
    }

    /// Removes the object, or the marker of all variants, under a key, and dooms what is being
    /// fetched for it.
    pub async fn invalidate(&self, key: &Key) {
        self.hot.borrow_mut().remove(key);
        // This comes first: a fill that is being stored now either sees it, or its object is
        // removed below.
        self.shared.fills.doom(key);
        let Shared { index, store, .. } = &*self.shared;
        if index.table().is_partial() {
            // Before the slot goes, as `place::forget` says.
            let (store, key) = (store.clone(), *key);
            let _ = disk::run(Kind::Remove, move || store.unlink(&key)).await;
        } else if index.lookup(key).is_none() {
            return;
        }
        index.remove(key, None);
        // The caller may store under the key next, and this must not unlink the new file.
        unlink_behind(Rc::clone(&self.shared), *key).await;
    }

    /// Removes what is stored under a key.
    pub fn remove(&self, key: &Key) {
        self.shared.index.remove(key, None);
        self.unlink_behind(key);
    }

    /// Removes this publication under a key, if it is still there; says whether it was.
    pub(crate) async fn remove_slot(&self, key: &Key, slot: SlotRef) -> bool {
        let is_removed = self.shared.index.remove(key, Some(slot.generation)).is_some();
        if is_removed {
            // The caller may store under the key next, and this must not unlink the new file.
            unlink_behind(Rc::clone(&self.shared), *key).await;
        }
        is_removed
    }

    /// Unlinks the file of a slot that was removed. A helper does so, and the caller does not wait.
    pub(super) fn unlink_behind(&self, key: &Key) {
        if !disk::is_running() {
            return place::unlink_behind(&self.shared.index, &self.shared.store, key);
        }
        reactor::spawn(unlink_behind(Rc::clone(&self.shared), *key));
    }

    /// This worker's event counter. Other workers post it when a fill that is followed here has
    /// progressed.
    pub fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.shared.wakes.fd(self.process_slot)
    }

    /// Resets the event counter and wakes the followers.
    pub fn woken(&self) {
        // The followers are woken even if the counter was already read.
        let _ = self.shared.wakes.drain(self.process_slot);
        self.remote_event.notify();
    }

    /// Forgets the removed objects, whose files are then closed: until then the disk keeps their
    /// space.
    pub fn forget_gone(&self) {
        let index = &self.shared.index;
        self.hot.borrow_mut().forget_gone(|slot| index.is_current(slot));
    }

    /// Adds the hits of `n` hot objects from `start` on to those that the index counts. Gives where
    /// to go on, if there is more.
    pub fn count_hits(&self, start: usize, n: usize) -> Option<usize> {
        let index = &self.shared.index;
        self.hot.borrow_mut().take_hits(start, n, |slot, n_hits| index.count_hits(slot, n_hits))
    }

    pub(super) fn wake(&self, process_slots: ProcessSet) {
        self.shared.wakes.wake_all(process_slots.without(self.process_slot));
    }

    pub(super) fn wake_keeper(&self) {
        self.shared.wakes.wake(self.keeper_slot);
    }
}

/// As [`place::unlink_behind`], by a helper.
async fn unlink_behind(shared: Rc<Shared>, key: Key) {
    let store = shared.store.clone();
    let _ = disk::run(Kind::Remove, move || store.unlink(&key)).await;
    // As `place` says: another process may have published between the two.
    let Some(view) = shared.index.lookup(&key).filter(|it| it.state.has_file()) else { return };
    let store = shared.store.clone();
    let exists = disk::run(Kind::Remove, move || Ok::<_, io::Error>(store.exists(&key)));
    if exists.await.is_ok_and(|exists| !exists) {
        shared.index.remove(&key, Some(view.generation));
    }
}
