//! The bytes that went through a tunnel, and when the last one did.

use std::cell::Cell;

use crate::reactor;

/// The bytes that went through a tunnel in both directions.
#[derive(Debug, Default)]
pub struct Moved {
    to_origin: Direction,
    to_client: Direction,
    last_ms: Cell<u64>,
}

#[derive(Debug, Default)]
struct Direction {
    n_bytes: Cell<u64>,
    is_ended: Cell<bool>,
}

/// The count of one direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count<'m> {
    direction: &'m Direction,
    last_ms: &'m Cell<u64>,
}

impl Moved {
    /// Bytes of the client that the kernel took for the origin.
    pub fn n_to_origin(&self) -> u64 {
        self.to_origin.n_bytes.get()
    }

    /// Bytes of the origin that the kernel took for the client.
    pub fn n_to_client(&self) -> u64 {
        self.to_client.n_bytes.get()
    }

    /// When a byte moved last, in milliseconds of the monotonic clock.
    pub(crate) fn last_ms(&self) -> u64 {
        self.last_ms.get()
    }

    /// The tunnel counts as used now.
    pub(crate) fn touch(&self) {
        self.last_ms.set(reactor::now().mono_ms());
    }

    pub(crate) fn to_origin(&self) -> Count<'_> {
        Count { direction: &self.to_origin, last_ms: &self.last_ms }
    }

    pub(crate) fn to_client(&self) -> Count<'_> {
        Count { direction: &self.to_client, last_ms: &self.last_ms }
    }
}

impl Count<'_> {
    pub(crate) fn add(&self, n_bytes: usize) {
        let count = &self.direction.n_bytes;
        count.set(count.get() + n_bytes as u64);
        self.last_ms.set(reactor::now().mono_ms());
    }

    /// The sender has ended its side, and the receiver knows.
    pub(crate) fn end(&self) {
        self.direction.is_ended.set(true);
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.direction.is_ended.get()
    }
}
