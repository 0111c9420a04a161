//! The bytes of request bodies that are in files, of all workers together.
//!
//! A row of anonymous shared memory per process slot holds the bytes of the process in it. The
//! master clears the row of a dead process: its files have no name, and are gone.

use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::shm::{SharedMap, SharedSlice};

/// The bytes of every process slot.
#[derive(Debug)]
pub(crate) struct BodyTable {
    rows: SharedSlice<AtomicU64>,
}

impl BodyTable {
    /// A table for `n` process slots; call before forking.
    ///
    /// # Errors
    /// An error of the system: not enough shared memory.
    pub(crate) fn create(n: usize) -> io::Result<Self> {
        let rows = SharedMap::anonymous(n * size_of::<AtomicU64>())?.slice(0, n)?;
        Ok(Self { rows })
    }

    /// The process in this process slot is dead.
    pub(crate) fn clear(&self, slot: usize) {
        if let Some(row) = self.rows.get(slot) {
            row.store(0, Ordering::SeqCst);
        }
    }

    fn sum(&self) -> u64 {
        let rows = self.rows.iter().map(|row| row.load(Ordering::SeqCst));
        rows.fold(0, u64::saturating_add)
    }
}

/// The bodies of one worker, and the bound of all.
#[derive(Debug)]
pub struct Bodies {
    table: Rc<BodyTable>,
    slot: usize,
    /// `limits.bodies`, in bytes.
    pub bytes_max: u64,
}

impl Bodies {
    /// The bodies of the worker in `slot`.
    pub(crate) fn new(table: Rc<BodyTable>, slot: usize, bytes_max: u64) -> Self {
        Self { table, slot, bytes_max }
    }

    /// Whether this many more bytes would fit now.
    pub(crate) fn has_room(&self, n_bytes: u64) -> bool {
        self.table.sum().saturating_add(n_bytes) <= self.bytes_max
    }

    fn add(&self, n_bytes: u64) -> bool {
        let Some(row) = self.table.rows.get(self.slot) else { return false };
        // Added first: of two processes that add at the same time, at least one sees the other.
        row.fetch_add(n_bytes, Ordering::SeqCst);
        if self.table.sum() <= self.bytes_max {
            return true;
        }
        row.fetch_sub(n_bytes, Ordering::SeqCst);
        false
    }
}

/// The bytes of one body; dropping it gives them back.
#[derive(Debug)]
pub(crate) struct BodyBytes {
    bodies: Rc<Bodies>,
    n_bytes: u64,
}

impl BodyBytes {
    /// None so far.
    pub(crate) fn none(bodies: &Rc<Bodies>) -> Self {
        Self { bodies: Rc::clone(bodies), n_bytes: 0 }
    }

    /// Takes this many more; `false` if all bodies together have too many.
    pub(crate) fn take(&mut self, n_bytes: u64) -> bool {
        let has_room = self.bodies.add(n_bytes);
        self.n_bytes += if has_room { n_bytes } else { 0 };
        has_room
    }

    /// As [`Self::take`], but half of the bound stays free for others.
    pub(crate) fn take_of_half(&mut self, n_bytes: u64) -> bool {
        let half = self.bodies.bytes_max / 2;
        self.bodies.has_room(n_bytes.saturating_add(half)) && self.take(n_bytes)
    }
}

impl Drop for BodyBytes {
    fn drop(&mut self) {
        if let Some(row) = self.bodies.table.rows.get(self.bodies.slot) {
            row.fetch_sub(self.n_bytes, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_take_half_leaves_the_other_half() {
        let bodies = Rc::new(Bodies::new(Rc::new(BodyTable::create(1).unwrap()), 0, 100));
        let (mut response, mut request) = (BodyBytes::none(&bodies), BodyBytes::none(&bodies));
        assert!(!response.take_of_half(51) && response.take_of_half(50));
        assert!(!response.take_of_half(1) && request.take(50));
    }

    #[test]
    fn bodies_of_all_workers_share_the_bound_and_give_their_bytes_back() {
        let table = Rc::new(BodyTable::create(3).unwrap());
        let of = |slot| Rc::new(Bodies::new(Rc::clone(&table), slot, 100));
        let (mut one, mut two) = (BodyBytes::none(&of(0)), BodyBytes::none(&of(1)));
        assert!(one.take(40) && one.take(20) && two.take(40));
        assert!(!two.take(1) && !of(2).has_room(1) && of(2).has_room(0));
        drop(one);
        assert!(of(2).has_room(60) && !of(2).has_room(61) && two.take(60));
        std::mem::forget(two);
        assert!(!of(0).has_room(1), "a killed worker gives nothing back");
        table.clear(1);
        assert!(of(0).has_room(100) && !of(0).has_room(101));
        assert!(!BodyBytes::none(&of(3)).take(1), "there is no such process slot");
    }
}
