//! The cache as one worker has it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::cache::files::store::Store;
use crate::cache::fills::{FillAt, Fills};
use crate::cache::hot::Hot;
use crate::cache::index::Index;
use crate::cache::purge::Purges;
use crate::cache::uses::Uses;
use crate::config::Admission;
use crate::reactor::event::Event;
use crate::shared::wake::{Seats, Wakes};

/// The cache as one worker has it.
#[derive(Debug)]
pub struct CacheSide {
    /// The shared index.
    pub index: Rc<Index>,
    /// What was purged.
    pub purges: Rc<Purges>,
    /// The cache files.
    pub store: Rc<Store>,
    /// The shared table of fills.
    pub fills: Rc<Fills>,
    /// How often keys were asked for.
    pub uses: Rc<Uses>,
    /// Whether a full cache takes what is asked for the first time.
    pub admission: Admission,
    /// This worker's hot tier.
    pub hot: RefCell<Hot>,
    /// How many exchanges of this worker follow a fill of another.
    pub remote: RefCell<HashMap<FillAt, usize>>,
    /// Posted when a fill of another worker went on.
    pub remote_event: Event,
    /// Everybody's event counters.
    pub wakes: Rc<Wakes>,
    /// This worker's row in the shared tables.
    pub seat: usize,
    /// The keeper's row.
    pub keeper_seat: usize,
    /// `cache.object`, in bytes.
    pub object_bytes_max: u64,
}

impl CacheSide {
    /// Wakes the workers of a set of seats.
    pub fn wake(&self, seats: Seats) {
        self.wakes.wake_all(seats.without(self.seat));
    }
}
