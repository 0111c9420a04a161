//! The page of this process, for all code that counts.
//!
//! A process counts in one thread, that of its event loop. Elsewhere, and in unit tests, nothing is
//! counted.

use std::cell::Cell as Slot;
use std::rc::Rc;

use crate::metrics::table::{Cell, Metric};
use crate::shared::metric_rows::RowMap;
use crate::shared::metrics::{Counting, Page};
use crate::sys::memory::ResidentMemory;
use crate::upstream::ids::{Server, UpstreamId};

/// The page of a process, and the rows of its configuration.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    pub(crate) page: Page,
    pub(crate) rows: Rc<RowMap>,
}

thread_local! {
    static METER: Slot<Option<&'static Meter>> = const { Slot::new(None) };
}

impl Meter {
    /// Counts in its page from now on.
    pub(crate) fn install(self, role: Counting) {
        self.page.set_process(role);
        // It lives as long as the process; a child of a fork has another one.
        METER.set(Some(Box::leak(Box::new(self))));
    }
}

/// The meter of this thread.
#[inline]
pub(crate) fn current() -> Option<&'static Meter> {
    METER.get()
}

/// Counts one.
pub(crate) fn count(cell: Cell) {
    add(cell, 1);
}

/// Counts several.
pub(crate) fn add(cell: Cell, n: u64) {
    if let Some(meter) = current() {
        meter.page.add(cell, n);
    }
}

/// Sets a gauge.
pub(crate) fn set(cell: Cell, value: u64) {
    if let Some(meter) = current() {
        meter.page.set(cell, value);
    }
}

/// Adds a value to a histogram.
pub(crate) fn observe(metric: Metric, label: usize, value: u64) {
    if let Some(meter) = current() {
        let count = meter.page.add_to_sum(metric, label, value);
        meter.page.add(count, 1);
    }
}

/// The row of an upstream of the configuration, or of the destinations of a forward proxy.
pub(crate) fn upstream(id: Option<UpstreamId>) -> usize {
    current().map_or(0, |meter| meter.rows.upstream(id))
}

/// The row of a server of the configuration.
pub(crate) fn server(server: Server) -> usize {
    current().map_or(0, |meter| meter.rows.server(server))
}

/// Notes the resident memory of this process.
pub(crate) fn note_memory(memory: &ResidentMemory) {
    let Some(meter) = current() else { return };
    let place = match meter.page.process() {
        Some(Counting::Master) => 0,
        Some(Counting::Keeper) => 2,
        Some(Counting::Worker(_)) | None => 1,
    };
    meter.page.set(Metric::Memory.at(place), memory.bytes());
}
