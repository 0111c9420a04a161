//! An open file that is read without waiting for the disk in the loop.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use crate::disk::pool;
use crate::sys::file::{self, Access, Medium};

/// Files that wait to be closed together.
const CLOSING_MAX: usize = 64;

/// An open file, and the medium it is on. A copy is the same open file; the last one that is dropped
/// has a helper close a file that was removed, because that frees its blocks.
#[derive(Clone, Debug)]
pub struct DiskFile(Arc<Open>);

#[derive(Debug)]
struct Open {
    file: Option<File>,
    medium: Medium,
}

impl DiskFile {
    /// A file that was opened on this medium.
    pub fn new(file: File, medium: Medium) -> Self {
        Self(Arc::new(Open { file: Some(file), medium }))
    }

    /// A file without a name in `dir`, see [`file::unnamed`].
    ///
    /// # Errors
    /// An error of `open`.
    pub fn unnamed(dir: &Path) -> io::Result<Self> {
        Ok(Self::new(file::unnamed(dir)?, Medium::of(dir)))
    }

    /// Reads `len` bytes from `offset` on, or less at the end of the file.
    ///
    /// # Errors
    /// An error of `pread`, or the pool.
    pub async fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let file = self.clone();
        let job = move |access| {
            let mut bytes = vec![0; len];
            let n_read = file::read_full_at(&file, &mut bytes, offset, access)?;
            bytes.truncate(n_read);
            Ok(bytes)
        };
        pool::read(self.0.medium, job).await
    }

    /// Has the page cache take this range in, so that sending it does not wait for the disk.
    ///
    /// # Errors
    /// As [`DiskFile::read`].
    pub async fn bring_in(&self, offset: u64, len: u64) -> io::Result<()> {
        let file = self.clone();
        let job = move |access| match access {
            Access::Wait => file::bring_in(&file, offset, len),
            Access::Cached if file::is_cached(&file, offset, len) => Ok(()),
            Access::Cached => Err(io::ErrorKind::WouldBlock.into()),
        };
        // Without helpers the caller waits when it sends.
        match self.0.medium != Medium::Memory && pool::is_running() {
            true => pool::read(self.0.medium, job).await,
            false => Ok(()),
        }
    }
}

impl Deref for DiskFile {
    type Target = File;

    fn deref(&self) -> &File {
        // It is taken only by the drop.
        self.0.file.as_ref().expect("a file is open as long as it lives")
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        // Closing frees something only if the file was removed, or is elsewhere.
        let is_quick = self.medium != Medium::Remote && file::has_name(&file);
        if is_quick || !pool::is_running() {
            return;
        }
        let full = CLOSING.try_with(|closing| {
            let mut closing = closing.borrow_mut();
            closing.push(file);
            (closing.len() >= CLOSING_MAX).then(|| std::mem::take(&mut *closing))
        });
        if let Ok(Some(files)) = full {
            pool::detach(move || drop(files));
        }
    }
}

/// Has a helper close the files that wait for it.
pub fn close_waiting() {
    let files = CLOSING.with(RefCell::take);
    if !files.is_empty() {
        pool::detach(move || drop(files));
    }
}

thread_local! {
    static CLOSING: RefCell<Vec<File>> = const { RefCell::new(Vec::new()) };
}
