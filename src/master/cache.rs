//! The cache directory as the master opens it, for all its children.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::cache::Shared;
use crate::cache::directory_lock::{Claim, ClaimError};
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
use crate::worker::inherited::ScrubNeed;

/// An open cache directory.
#[derive(Clone, Debug)]
pub struct Cache {
    /// The lock on it.
    pub claim: Rc<Claim>,
    /// The part that its children inherit.
    pub shared: Rc<Shared>,
    /// Whether index and files have to be compared.
    pub needs_scrub: ScrubNeed,
}

/// Why there is no cache.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another ktrix uses the directory. Two would damage each other's files.
    #[error("{0}")]
    Held(ClaimError),
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
    /// Opens the directory, or makes it, by one of our claims if it is there, else by a new one. By
    /// one of ours, a new index waits beside the one in use for [`Cache::take_place`].
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub(crate) fn open(
        wanted: &CacheConfig,
        account: Option<&Account>,
        claims: &[Rc<Claim>],
        tables: &SharedTables,
    ) -> Result<Self, OpenError> {
        let dir = &wanted.path;
        let unusable = |why| OpenError::Unusable { dir: dir.clone(), why };
        files::make_cache_dir(dir).map_err(|error| unusable(error.to_string()))?;
        marker::mark(dir).map_err(|error| match error {
            MarkerError::Foreign { .. } => OpenError::Foreign(error),
            MarkerError::Io { source, .. } => unusable(source.to_string()),
        })?;
        let is_in_use = claims.iter().any(|claim| claim.is_of(dir));
        let claim = claim(dir, claims).map_err(|error| match error {
            ClaimError::Held { .. } => OpenError::Held(error),
            ClaimError::Io { .. } => unusable(error.to_string()),
        })?;
        Self::try_open(wanted, account, claim, is_in_use, tables).map_err(unusable)
    }

    fn try_open(
        wanted: &CacheConfig,
        account: Option<&Account>,
        claim: Rc<Claim>,
        is_in_use: bool,
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
        let needs_scrub = match opened {
            Opened::Clean => ScrubNeed::None,
            Opened::Unclean => ScrubNeed::Check,
            Opened::Fresh | Opened::Resized | Opened::Replaced | Opened::Partial => {
                ScrubNeed::Rebuild
            }
        };
        let uses = Uses::create(wanted.objects).map_err(|error| error.to_string())?;
        let (fills, wakes) = (Rc::clone(&tables.fills), Rc::clone(&tables.wakes));
        let shared = Rc::new(Shared { index, purges, store, uses, fills, wakes });
        Ok(Self { claim, shared, needs_scrub })
    }
}

fn claim(dir: &Path, claims: &[Rc<Claim>]) -> Result<Rc<Claim>, ClaimError> {
    match claims.iter().find(|claim| claim.is_of(dir)) {
        Some(claim) => Ok(Rc::clone(claim)),
        None => Claim::take(dir).map(Rc::new),
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
