//! Changing the head of a cache file in place.
//!
//! The writer holds the kernel's lock of the file (flock(2)), which ends with its process. The writes
//! leave the head in force alone until the new one is complete: see `object`.

use std::io;
use std::os::unix::fs::FileExt;

use crate::cache::files::object::{HEADERS_LEN, Header};
use crate::cache::files::store::Store;
use crate::disk::file::DiskFile;
use crate::policy::key::Key;
use crate::sys::file::{self, Stat};

/// A file whose head only this process may change.
#[derive(Debug)]
pub struct Renewal {
    file: DiskFile,
    store: Store,
    /// The header in force.
    pub header: Header,
    len: u64,
    body_len: u64,
    /// The file's stamp when it was locked.
    pub stamp: u32,
}

impl Store {
    /// Opens the file of `key` and locks it. `None` if it is missing or damaged, if another process
    /// has locked it, or if it may not be written.
    pub fn open_to_renew(&self, key: &Key) -> Option<Renewal> {
        let path = self.path(key);
        let file = file::open_regular_to_write(&path).ok()??;
        file.try_lock().ok()?;
        let metadata = file.metadata().ok()?;
        let mut headers = [0; HEADERS_LEN];
        file.read_exact_at(&mut headers, 0).ok()?;
        let header = Header::parse(&headers).ok()?;
        let (stamp, len) = (self.stamp(&Stat::from(&metadata)), metadata.len());
        let body_len = header.check_len(len).ok()?;
        Some(Renewal { file: self.file(file), store: self.clone(), header, len, body_len, stamp })
    }
}

impl Renewal {
    /// The bytes of the file beside the body under this header, and those of the body.
    pub fn lens(&self, header: &Header) -> (u32, u64) {
        let beside = self.len.max(header.head_end()).saturating_sub(self.body_len);
        (u32::try_from(beside).unwrap_or(u32::MAX), self.body_len)
    }

    /// Writes the header with its meta and head, and gives the file's stamp afterwards.
    ///
    /// # Errors
    ///
    /// An error of the system (`StorageFull`). One of the two heads is in force then.
    pub fn write(&self, header: &Header, meta: &[u8], head: &[u8]) -> io::Result<u32> {
        for (at, bytes) in header.writes(meta, head) {
            self.file.write_all_at(&bytes, at)?;
        }
        Ok(self.store.stamp(&Stat::from(&self.file.metadata()?)))
    }

    /// Whether the file has its name still: it was neither removed nor replaced.
    pub fn is_in_place(&self) -> bool {
        file::has_name(&self.file)
    }
}
