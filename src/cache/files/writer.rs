//! A cache file that is being written, under a temporary name until it is complete.
//!
//! Whatever is dropped before [`Finished::commit`] leaves no file behind; what a process leaves
//! that is killed, the keeper removes. All of it may wait for the disk; a worker has it done by a
//! helper, see `spool`.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::cache::files::object::{HEADER_LEN, Header};
use crate::cache::files::store::Store;
use crate::disk;
use crate::disk::file::DiskFile;
use crate::policy::key::Key;
use crate::sys::file::{self, Stat};

impl Store {
    /// Begins a file: header, key text, meta and head are written; the body is to follow. Space for
    /// a large body whose length is known is reserved.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a part past its limit, `StorageFull` for a full disk, or what else the
    /// system says; nothing is left behind.
    pub fn begin(
        &self,
        id: u64,
        key_text: &[u8],
        meta: &[u8],
        status: u16,
        head: &[u8],
        body_len: Option<u64>,
    ) -> io::Result<Writer> {
        Writer::begin(self, self.fill_path(id), status, [key_text, meta, head], body_len)
    }
}

/// A file that is being written. Dropping it removes it.
#[derive(Debug)]
pub struct Writer {
    file: DiskFile,
    header: Header,
    store: Store,
    temp: Temp,
    written: u64,
    crc: u32,
}

impl Writer {
    /// Begins the file `path`, which must not be there yet, with its header and its three parts:
    /// key text, meta and head. Space for a large body whose length is known is reserved.
    ///
    /// # Errors
    ///
    /// As [`Store::begin`] says.
    fn begin(
        store: &Store,
        path: PathBuf,
        status: u16,
        parts: [&[u8]; 3],
        body_len: Option<u64>,
    ) -> io::Result<Self> {
        let header = Header::begin(status, parts, body_len).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "a part of the object is too long")
        })?;
        let file = match create(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_parent(&path).and_then(|()| create(&path))
            }
            created => created,
        };
        let file =
            file.map_err(|error| io::Error::new(error.kind(), format!("{path:?}: {error}")))?;
        let temp = Temp { path };
        let [key_text, meta, head] = parts;
        let front = [&header.bytes()[..], &[0; HEADER_LEN], key_text, meta, head].concat();
        if let Some(len) = body_len.filter(|&len| len >= RESERVE_BYTES_MIN) {
            file::reserve(&file, 0, len.saturating_add(front.len() as u64))?;
        }
        file.write_all_at(&front, 0)?;
        let file = store.file(file);
        Ok(Self { file, header, store: store.clone(), temp, written: 0, crc: 0 })
    }

    /// Appends to the body.
    ///
    /// # Errors
    ///
    /// An error of the system (`StorageFull`); `InvalidInput` past the length that was announced. The
    /// writer must be dropped then.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.written.saturating_add(bytes.len() as u64);
        if self.header.body_len.is_some_and(|len| end > len) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more body than announced"));
        }
        self.file.write_all_at(bytes, self.body_offset().saturating_add(self.written))?;
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.written = end;
        Ok(())
    }

    /// Where the body begins in the file.
    pub fn body_offset(&self) -> u64 {
        u64::from(self.header.body_at)
    }

    /// Bytes of body so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The file, for sending what was written.
    pub fn file(&self) -> &DiskFile {
        &self.file
    }

    /// Writes the final header. The file keeps its temporary name until [`Finished::commit`].
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when less came than was announced, or what the system says.
    pub fn finish(mut self) -> io::Result<Finished> {
        if self.header.body_len.is_some_and(|len| len != self.written) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "less body than announced"));
        }
        self.header.body_len = Some(self.written);
        self.header.body_crc = Some(self.crc);
        self.file.write_all_at(&self.header.bytes(), 0)?;
        let stamp = self.store.stamp(&Stat::from(&self.file.metadata()?));
        Ok(Finished {
            head_len: self.header.body_at,
            body_len: self.written,
            stamp,
            file: self.file,
            store: self.store,
            temp: self.temp,
        })
    }
}

/// A whole file that still has its temporary name. Dropping it removes it.
#[derive(Debug)]
pub struct Finished {
    /// Bytes of the file before the body.
    pub head_len: u32,
    /// Bytes of the body.
    pub body_len: u64,
    /// The stamp for the slot: a file that was just written needs no verification.
    pub stamp: u32,
    file: DiskFile,
    store: Store,
    temp: Temp,
}

impl Finished {
    /// Gives the file its name, over an older one; returns it open. Publish the slot afterwards
    /// (`place::put` does both).
    ///
    /// # Errors
    ///
    /// An error of the system; nothing is left behind.
    pub fn commit(mut self, key: &Key) -> io::Result<DiskFile> {
        let path = self.store.path(key);
        let renamed = match std::fs::rename(&self.temp.path, &path) {
            Err(error) => self.make_way(&path, error),
            renamed => renamed,
        };
        renamed.map_err(|error| io::Error::new(error.kind(), format!("{path:?}: {error}")))?;
        self.temp.path = PathBuf::new();
        Ok(self.file)
    }

    /// Makes the missing directory, or removes one that has the file's name, and renames.
    fn make_way(&self, path: &Path, error: io::Error) -> io::Result<()> {
        match error.kind() {
            io::ErrorKind::NotFound => make_parent(path)?,
            io::ErrorKind::IsADirectory => std::fs::remove_dir(path)?,
            _ => return Err(error),
        }
        std::fs::rename(&self.temp.path, path)
    }
}

/// Removes a temporary file. The path is empty once it was renamed.
#[derive(Debug)]
struct Temp {
    path: PathBuf,
}

impl Drop for Temp {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        if !path.as_os_str().is_empty() {
            // If this fails, the keeper's scrub finds it.
            disk::detach(move || drop(std::fs::remove_file(path)));
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o640).open(path)
}

/// Makes the directory of temporary files, or one of objects, which is missing: it is needed for
/// the first time, or the cache directory was emptied. The cache directory itself is not made: its
/// disk may be unmounted, and another disk must not be filled instead.
fn make_parent(path: &Path) -> io::Result<()> {
    let Some(dir) = path.parent() else { return Ok(()) };
    match DirBuilder::new().mode(0o750).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Space is reserved for bodies of at least this length. A smaller one fails when it is written.
const RESERVE_BYTES_MIN: u64 = 64 << 10;
