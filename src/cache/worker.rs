//! The cache as one worker has it: what all processes share, and what the worker keeps of it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::cache::fills::FillAt;
use crate::cache::hot::Hot;
use crate::cache::shared::Shared;
use crate::config::{Admission, CacheConfig};
use crate::reactor::event::Event;
use crate::shared::wake::Seats;

/// The cache as one worker has it.
#[derive(Debug)]
pub struct Cache {
    /// What all processes have.
    pub(crate) shared: Rc<Shared>,
    /// This worker's hot tier.
    pub(crate) hot: RefCell<Hot>,
    /// How many exchanges of this worker follow a fill of another.
    pub(crate) remote: RefCell<HashMap<FillAt, usize>>,
    /// Posted when a fill of another worker went on.
    pub(crate) remote_event: Event,
    /// This worker's row in the shared tables.
    pub(crate) seat: usize,
    keeper_seat: usize,
    pub(crate) admission: Admission,
    object_bytes_max: u64,
}

impl Cache {
    /// The cache of the worker in `seat`, which keeps at most so many files open.
    pub fn new(
        shared: Rc<Shared>,
        config: &CacheConfig,
        seat: usize,
        keeper_seat: usize,
        n_files_max: usize,
    ) -> Self {
        let hot = Hot::new(config.memory_bytes, n_files_max, config.memory_object_bytes_max);
        Self {
            shared,
            hot: RefCell::new(hot),
            remote: RefCell::default(),
            remote_event: Event::default(),
            seat,
            keeper_seat,
            admission: config.admission,
            object_bytes_max: config.object_bytes_max,
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

    /// Wakes the workers of a set of seats.
    pub(crate) fn wake(&self, seats: Seats) {
        self.shared.wakes.wake_all(seats.without(self.seat));
    }

    pub(crate) fn wake_keeper(&self) {
        self.shared.wakes.wake(self.keeper_seat);
    }
}
