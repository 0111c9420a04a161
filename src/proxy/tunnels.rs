//! The open tunnels of a worker: how many there are, for the status, and their end when the worker
//! drains.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use crate::metrics::table::Metric;
use crate::policy::reason::close::CloseReason;
use crate::reactor::event::Event;
use crate::shared::meter;
use crate::shared::servers::ServerTable;
use crate::tunnel::End;

/// The open tunnels of a worker.
#[derive(Debug)]
pub(crate) struct Tunnels {
    table: Rc<ServerTable>,
    worker: usize,
    ending: Cell<Ending>,
    /// Posted when `ending` changes.
    changed: Event,
    /// For each route and listener, whether the configuration in use has it too.
    unchanged: RefCell<Vec<u8>>,
}

/// The tunnels that are to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    None,
    /// Those of routes and listeners that the configuration in use does not have.
    OfChanged,
    All,
}

/// A tunnel, which counts for as long as this lives.
#[derive(Debug)]
pub(crate) struct Open<'t> {
    tunnels: &'t Tunnels,
    setting: Option<usize>,
}

impl Tunnels {
    /// The count is that of a worker in the table of its generation.
    pub(crate) fn new(table: &Rc<ServerTable>, worker: usize) -> Self {
        Self {
            table: Rc::clone(table),
            worker,
            ending: Cell::new(Ending::None),
            changed: Event::default(),
            unchanged: RefCell::default(),
        }
    }

    /// A tunnel of the route or listener at this place among the settings; without a place it counts as
    /// changed by each reload.
    pub(crate) fn open(&self, setting: Option<usize>) -> Open<'_> {
        self.table.n_tunnels(self.worker).fetch_add(1, Ordering::Relaxed);
        meter::count(Metric::TunnelsBegun.cell());
        Open { tunnels: self, setting }
    }

    pub(crate) fn n_open(&self) -> u32 {
        self.table.n_tunnels(self.worker).load(Ordering::Relaxed)
    }

    /// Another configuration is in use; the file has a byte for each setting, which is 1 if that is
    /// unchanged.
    pub(crate) fn keep(&self, unchanged: Option<&File>) {
        let mut bytes = Vec::new();
        if let Some(file) = unchanged {
            let len = file.metadata().map_or(0, |it| it.len()).min(SETTINGS_MAX);
            bytes.resize(len as usize, 0);
            if file.read_exact_at(&mut bytes, 0).is_err() {
                bytes.clear();
            }
        }
        self.unchanged.replace(bytes);
    }

    /// Ends these tunnels. Those that begin later end at once.
    pub(crate) fn end(&self, ending: Ending) {
        if self.ending.replace(ending) != ending {
            self.changed.notify();
        }
    }

    fn is_over(&self, setting: Option<usize>) -> bool {
        let is_unchanged = |place: usize| self.unchanged.borrow().get(place) == Some(&1);
        match self.ending.get() {
            Ending::None => false,
            Ending::OfChanged => !setting.is_some_and(is_unchanged),
            Ending::All => true,
        }
    }
}

/// Why the connection of a client ends with its tunnel; `None` if the tunnel was to end.
pub(crate) fn close_reason(end: Option<Result<End, CloseReason>>) -> CloseReason {
    match end {
        Some(Ok(End::Finished)) => CloseReason::Finished,
        Some(Ok(End::ClientGone)) => CloseReason::ClientGone,
        Some(Ok(End::OriginGone)) => CloseReason::ServerGone,
        Some(Ok(End::Idle)) => CloseReason::TunnelTimeout,
        Some(Err(reason)) => reason,
        None => CloseReason::Drain,
    }
}

impl Open<'_> {
    /// Waits until the tunnel is to end.
    pub(crate) async fn ended(&self) {
        loop {
            let since = self.tunnels.changed.version();
            if self.tunnels.is_over(self.setting) {
                return;
            }
            self.tunnels.changed.after(since).await;
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.tunnels.table.n_tunnels(self.tunnels.worker).fetch_sub(1, Ordering::Relaxed);
    }
}

/// The most settings that are looked at.
const SETTINGS_MAX: u64 = 1 << 20;
