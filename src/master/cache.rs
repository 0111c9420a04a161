//! The cache directory as the master opens it, for all its children.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::cache::Shared;
use crate::cache::directory_lock::{DirectoryLock, LockError};
use crate::cache::files::store::Store;
use crate::cache::index::Index;
use crate::cache::index::table::{Opened, Table};
use crate::cache::marker::{self, MarkerError};
use crate::cache::purge::Purges;
use crate::cache::purge::file::FILE_NAME;
use crate::cache::uses::Uses;
use crate::config::CacheConfig;
use crate::master::files;
use crate::master::shared_tables::SharedTables;
use crate::sys::privileges::Account;
use crate::worker::inherited::Reconcile;

/// An open cache directory.
#[derive(Clone, Debug)]
pub struct Cache {
    /// The lock on it.
    pub lock: Rc<DirectoryLock>,
    /// The part that its children inherit.
    pub shared: Rc<Shared>,
    /// Whether index and files have to be compared.
    pub reconcile: Reconcile,
}

/// Why there is no cache.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another ktrix uses the directory. Two would damage each other's files.
    #[error("{0}")]
    Held(LockError),
    /// Its directory is another program's.
    #[error("{0}")]
    Foreign(MarkerError),
    /// The directory cannot be used.
    #[error(
        "cannot use \"{}\": {why} (make room or choose another cache.path or a smaller cache.objects, \
         then reload)",
        dir.display()
    )]
    Unusable {
        /// The directory.
        dir: PathBuf,
        /// The reason.
        why: String,
    },
}

impl Cache {
    /// Opens the directory, or makes it, under one of `locks` if it is there, else under a new one.
    /// Under one of `locks`, a new index waits beside the one in use for [`Cache::take_place`]. `uses` is
    /// the file of the sketch of a ktrix that this one takes the place of.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub(crate) fn open(
        wanted: &CacheConfig,
        account: Option<&Account>,
        locks: &[Rc<DirectoryLock>],
        uses: Option<OwnedFd>,
        tables: &SharedTables,
    ) -> Result<Self, OpenError> {
        let dir = &wanted.path;
        let unusable = |why| OpenError::Unusable { dir: dir.clone(), why };
        files::make_cache_dir(dir).map_err(|error| unusable(error.to_string()))?;
        marker::mark(dir).map_err(|error| match error {
            MarkerError::Foreign { .. } => OpenError::Foreign(error),
            MarkerError::Io { source, .. } => unusable(source.to_string()),
        })?;
        let is_in_use = locks.iter().any(|lock| lock.is_of(dir));
        let lock = lock(dir, locks).map_err(|error| match error {
            LockError::Held { .. } => OpenError::Held(error),
            LockError::Io { .. } => unusable(error.to_string()),
        })?;
        // That of another directory tells nothing of this one.
        let uses = uses.filter(|_| is_in_use);
        Self::try_open(wanted, account, (lock, is_in_use), uses, tables).map_err(unusable)
    }

    fn try_open(
        wanted: &CacheConfig,
        account: Option<&Account>,
        (lock, is_in_use): (Rc<DirectoryLock>, bool),
        uses: Option<OwnedFd>,
        tables: &SharedTables,
    ) -> Result<Self, String> {
        let dir = &wanted.path;
        let open = if is_in_use { Table::open_beside } else { Table::open };
        let (table, opened) = open(dir, wanted.objects).map_err(|error| error.to_string())?;
        let index = Index::over(table);
        let store = Store::open(dir, index.epoch()).map_err(|error| error.to_string())?;
        let had_purges = dir.join(FILE_NAME).symlink_metadata().is_ok();
        let (purges, is_new) = Purges::open(dir).map_err(|error| error.to_string())?;
        if !store.is_empty() {
            tell_of_index(dir, opened);
            tell_of_purges(dir, had_purges, is_new);
        }
        files::own_cache_dir(dir, account).map_err(|error| error.to_string())?;
        index.attach().map_err(|error| error.to_string())?;
        let reconcile = match opened {
            Opened::Clean => Reconcile::None,
            Opened::Unclean => Reconcile::Check,
            Opened::Fresh | Opened::Resized | Opened::Replaced | Opened::Partial => {
                Reconcile::Rebuild
            }
        };
        let uses = uses.and_then(|fd| Uses::passed(fd, wanted.objects).ok());
        let uses = uses.map_or_else(|| Uses::create(wanted.objects), Ok);
        let uses = uses.map_err(|error| error.to_string())?;
        let (fills, wakes) = (Rc::clone(&tables.fills), Rc::clone(&tables.wakes));
        let shared = Rc::new(Shared { index, purges, store, uses, fills, wakes });
        Ok(Self { lock, shared, reconcile })
    }
}

fn lock(dir: &Path, locks: &[Rc<DirectoryLock>]) -> Result<Rc<DirectoryLock>, LockError> {
    match locks.iter().find(|lock| lock.is_of(dir)) {
        Some(lock) => Ok(Rc::clone(lock)),
        None => DirectoryLock::take(dir).map(Rc::new),
    }
}

/// Logs that the index was lost although there are objects.
fn tell_of_index(dir: &Path, opened: Opened) {
    let what = match opened {
        Opened::Clean | Opened::Unclean => return,
        Opened::Resized => {
            log::info!("rebuilding the index of cache {dir:?} for another cache.objects");
            return;
        }
        Opened::Partial => {
            log::info!("continuing to rebuild the index of cache {dir:?} from its files");
            return;
        }
        Opened::Fresh => "was missing",
        Opened::Replaced => "was damaged or of another version",
    };
    log::warn!(
        "the index of cache {dir:?} {what}; rebuilding it from the files, until then stored objects may \
         be fetched again"
    );
}

/// Logs that the table of purges was lost although there are objects.
fn tell_of_purges(dir: &Path, had_purges: bool, is_new: bool) {
    if is_new {
        let what = if had_purges { "was damaged or of another version" } else { "was missing" };
        log::warn!(
            "the purge file of cache {dir:?} {what}: earlier purges are unknown, so no stored object is \
             used, and all are fetched again"
        );
    }
}
