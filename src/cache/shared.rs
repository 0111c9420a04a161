//! The cache as all processes share it: the master opens it, and its children inherit it.

use std::io;
use std::rc::Rc;

use crate::cache::files::store::Store;
use crate::cache::fills::Fills;
use crate::cache::index::Index;
use crate::cache::index::table::IndexError;
use crate::cache::purge::Purges;
use crate::cache::uses::Uses;
use crate::shared::wake::Wakes;

/// A cache as all processes see it.
#[derive(Debug)]
pub struct Shared {
    /// Which keys are stored.
    pub index: Index,
    /// The table of purges.
    pub purges: Purges,
    /// The cache files.
    pub store: Store,
    /// How often keys were asked for.
    pub uses: Uses,
    /// The fills under way, in all caches of this ktrix.
    pub fills: Rc<Fills>,
    /// The event counters of all processes.
    pub wakes: Rc<Wakes>,
}

impl Shared {
    /// Claims the rows of this process, which is a worker if it has a process slot. Called in the
    /// child, after the fork.
    ///
    /// # Errors
    ///
    /// When all rows are taken.
    pub fn attach(&self, process_slot: Option<usize>) -> io::Result<()> {
        self.index.attach()?;
        match process_slot {
            Some(process_slot) => self.fills.attach(process_slot),
            None => self.fills.attach_without_slot(),
        }
    }

    /// Replaces the index before by a new one, now that the children of the new one serve.
    ///
    /// # Errors
    ///
    /// An error of the file system.
    pub fn take_place(&self) -> Result<(), IndexError> {
        self.index.table().take_place(self.store.dir())
    }

    /// Removes a new index that no child will serve from.
    pub fn withdraw(&self) {
        self.index.table().withdraw(self.store.dir());
    }

    /// Whether the mapped files have their full length: a process that touches a truncated part
    /// dies.
    pub fn is_whole(&self) -> bool {
        self.index.table().is_whole() && self.purges.is_whole()
    }

    /// Whether the mapped files still are those in the directory.
    pub fn is_in_place(&self) -> bool {
        let dir = self.store.dir();
        self.index.table().is_in_place(dir) && self.purges.is_in_place(dir)
    }
}
