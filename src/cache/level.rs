//! How full a cache is, for the status.

use std::path::{Path, PathBuf};

use crate::cache::index::reader::IndexReader;

/// How full a cache is.
#[derive(Clone, Debug)]
pub(crate) struct CacheLevel {
    pub(crate) path: PathBuf,
    /// Entries of the index that are in use, how many there may be, and how many it has room for.
    pub(crate) objects: u64,
    pub(crate) objects_max: u64,
    pub(crate) slots: u64,
    pub(crate) bytes: u64,
    pub(crate) bytes_max: u64,
}

impl CacheLevel {
    /// As a command sees the cache in this directory; `None` if its index cannot be read now.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let index = IndexReader::open(path).ok()?;
        Some(Self {
            path: path.to_owned(),
            objects: index.objects(),
            objects_max: index.n_objects_max(),
            slots: index.n_slots().into(),
            bytes: index.bytes(),
            bytes_max: index.size_bytes(),
        })
    }
}
