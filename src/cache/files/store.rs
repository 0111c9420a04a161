//! The cache directory: files written under a temporary name, renamed into place, opened by key.
//!
//! `DIR/ab/cdef…` is the object whose key is `abcdef…`; `DIR/tmp/ID` is a fill that is under way.
//! Files are read and sent, never mapped. A file that is incomplete or not the expected one is a
//! [`Fault`], which the caller turns into a miss, one log line and a removal.

use std::cell::Cell;
use std::fs::{DirBuilder, File, Metadata};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cache::files::front::{Front, OpenError};
use crate::cache::files::object::{Fault, Header};
use crate::disk;
use crate::disk::file::DiskFile;
use crate::policy::key::{Key, key_of};
use crate::sys::file::{self, Access, Medium, Stat};

/// Name of the directory of temporary files.
pub const TMP: &str = "tmp";
/// The most bytes of body that one [`Verify::step`] reads.
pub const VERIFY_STEP_BYTES: usize = 1 << 20;

/// The files of one cache.
#[derive(Clone, Debug)]
pub struct Store {
    dir: Arc<Path>,
    epoch: u32,
    medium: Medium,
}

impl Store {
    /// The store in `dir`. Makes the directory and its temporary directory if they are missing.
    /// `epoch` is the index's: stamps of another epoch mean nothing.
    ///
    /// # Errors
    ///
    /// An error of the system: a directory cannot be made.
    pub fn open(dir: &Path, epoch: u32) -> io::Result<Self> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o750).create(dir.join(TMP))?;
        Ok(Self::existing(dir, epoch))
    }

    /// The store in an existing directory. Nothing is made, so read permission is enough.
    pub fn existing(dir: &Path, epoch: u32) -> Self {
        Self { dir: dir.into(), epoch, medium: Medium::of(dir) }
    }

    /// The cache directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the object of `key` is, or would be.
    pub fn path(&self, key: &Key) -> PathBuf {
        let hex = key.hex();
        let (fan_out, rest) = hex.split_at(2);
        self.dir.join(text(fan_out)).join(text(rest))
    }

    /// Where the fill `id` writes.
    pub fn fill_path(&self, id: u64) -> PathBuf {
        self.dir.join(TMP).join(format!("{id:016x}"))
    }

    /// Opens the object of `key`, checks everything but the body and that its key text is
    /// `expected_text`. `None` when there is no such file.
    ///
    /// # Errors
    ///
    /// A [`Fault`] of the file, or what the system says.
    pub fn open_object(
        &self,
        key: &Key,
        expected_text: &[u8],
    ) -> Result<Option<Object>, OpenError> {
        self.open_checked(key, |text| text == expected_text, Access::Wait)
    }

    /// As [`Store::open_object`], without waiting in the event loop; reads a body of at most
    /// `body_max` bytes along with that.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn load(
        &self,
        key: Key,
        expected_text: &[u8],
        body_max: usize,
    ) -> Result<Option<(Object, Option<Vec<u8>>)>, OpenError> {
        let (store, text) = (self.clone(), expected_text.to_vec());
        let job = move |access| {
            let Some(object) = store.open_checked(&key, |it| it == text, access)? else {
                return Ok(None);
            };
            let body = object.read_body_at_once(body_max, access)?;
            Ok(Some((object, body)))
        };
        disk::read(self.medium, job).await
    }

    /// As [`Store::open_object`] for a caller that knows only the key, which must be the MD5 of the
    /// key text.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn open_any(&self, key: &Key) -> Result<Option<Object>, OpenError> {
        self.open_checked(key, |text| key_of(text) == *key, Access::Wait)
    }

    /// Opens the file of a running fill for a follower, without waiting in the event loop. The front is checked; the body still grows.
    /// `None` if the file is gone (look in the index then).
    ///
    /// # Errors
    ///
    /// A [`Fault`] of the file, or what the system says.
    pub async fn load_fill(&self, id: u64) -> Result<Option<Object>, OpenError> {
        let store = self.clone();
        disk::read(self.medium, move |access| store.open_fill(id, access)).await
    }

    fn open_fill(&self, id: u64, access: Access) -> Result<Option<Object>, OpenError> {
        let opened = open_if_there(&self.fill_path(id), access)?;
        let Some((file, metadata)) = opened else { return Ok(None) };
        let body_len = |header: &Header, _| Ok(header.body_len.unwrap_or(0));
        Object::read(self.file(file), metadata, self.epoch, access, body_len).map(Some)
    }

    /// An open file of this store.
    pub(super) fn file(&self, file: File) -> DiskFile {
        DiskFile::new(file, self.medium)
    }

    /// Whether the object's file is there.
    pub fn exists(&self, key: &Key) -> bool {
        self.path(key).symlink_metadata().is_ok_and(|it| it.is_file())
    }

    /// Whether the directory has no cache file, nor anything in the place of one.
    pub fn is_empty(&self) -> bool {
        (0..256_u32).all(|fan_out| {
            let entries = std::fs::read_dir(self.dir.join(format!("{fan_out:02x}")));
            entries.map_or(true, |mut entries| entries.next().is_none())
        })
    }

    /// Removes the object's file, or whatever has its name; says whether there was anything. Remove
    /// it from the index first.
    ///
    /// # Errors
    ///
    /// An error of the system, but for a missing file.
    pub fn unlink(&self, key: &Key) -> io::Result<bool> {
        file::remove(&self.path(key))
    }

    /// Free bytes on the disk.
    ///
    /// # Errors
    ///
    /// An error of `statvfs`.
    pub fn free_bytes(&self) -> io::Result<u64> {
        file::free_bytes(&self.dir)
    }

    fn open_checked(
        &self,
        key: &Key,
        is_right: impl Fn(&[u8]) -> bool,
        access: Access,
    ) -> Result<Option<Object>, OpenError> {
        let opened = open_if_there(&self.path(key), access)?;
        let Some((file, metadata)) = opened else { return Ok(None) };
        let file = self.file(file);
        let object = Object::read(file, metadata, self.epoch, access, Header::check_len)?;
        if !is_right(object.key_text()) {
            return Err(Fault::ForeignKey.into());
        }
        Ok(Some(object))
    }

    /// The inode, size and time of a file, mixed with the epoch; never 0.
    pub(super) fn stamp(&self, stat: &Stat) -> u32 {
        stamp(self.epoch, stat)
    }
}

/// An open cache file whose front was checked.
#[derive(Debug)]
pub struct Object {
    /// The file, for sending.
    pub file: DiskFile,
    /// Bytes of the body; for a fill, as announced, or 0 when unknown.
    pub body_len: u64,
    /// The file's stamp. The body must be verified if it differs from the slot's.
    pub stamp: Cell<u32>,
    /// This worker is writing a new head into the file, and will set the stamp.
    pub is_being_renewed: Cell<bool>,
    front: Front,
    file_len: u64,
    epoch: u32,
}

impl Object {
    fn read(
        file: DiskFile,
        mut metadata: Metadata,
        epoch: u32,
        access: Access,
        body_len: impl Fn(&Header, u64) -> Result<u64, Fault>,
    ) -> Result<Self, OpenError> {
        let mut n_reads = 1;
        loop {
            let file_len = metadata.len();
            let read = Front::read(&file, file_len, access)
                .and_then(|front| Ok((body_len(&front.header, file_len)?, front)));
            match read {
                Ok((body_len, front)) => {
                    let stamp = Cell::new(stamp(epoch, &Stat::from(&metadata)));
                    let is_being_renewed = Cell::new(false);
                    return Ok(Self {
                        file,
                        body_len,
                        stamp,
                        is_being_renewed,
                        front,
                        file_len,
                        epoch,
                    });
                }
                // New heads may have overwritten the one that was in force.
                Err(OpenError::Fault(_)) if n_reads < READS_MAX => {
                    n_reads += 1;
                    metadata = file.metadata()?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether no process has written to the file since it was opened. Costs one system call.
    pub fn is_unchanged(&self) -> bool {
        self.is_being_renewed.get()
            || file::stat_cached(&self.file)
                .is_ok_and(|it| stamp(self.epoch, &it) == self.stamp.get())
    }

    /// Status of the response.
    pub fn status(&self) -> u16 {
        self.front.header.status
    }

    /// The full key text.
    pub fn key_text(&self) -> &[u8] {
        self.front.key_text()
    }

    /// The encoded lifetimes and rules of the response.
    pub fn meta(&self) -> &[u8] {
        self.front.meta_and_head().get(..self.front.header.meta_len as usize).unwrap_or_default()
    }

    /// The response's fields, as `name: value\r\n` each.
    pub fn head(&self) -> &[u8] {
        self.front.meta_and_head().get(self.front.header.meta_len as usize..).unwrap_or_default()
    }

    /// Where the body begins: bytes of the file before it.
    pub fn body_offset(&self) -> u64 {
        u64::from(self.front.header.body_at)
    }

    /// Bytes of the file that are not of the body, as the slot's `head_len` has it.
    pub fn head_len(&self) -> u32 {
        u32::try_from(self.file_len.saturating_sub(self.body_len)).unwrap_or(u32::MAX)
    }

    /// CRC-32C of the body, once it is finished.
    pub fn body_crc(&self) -> Option<u32> {
        self.front.header.body_crc
    }

    /// The whole body, if it is of at most `max` bytes; checked against its checksum.
    ///
    /// # Errors
    ///
    /// A [`Fault`] of the body, or what the system says.
    pub fn read_body(&self, max: usize) -> Result<Option<Vec<u8>>, OpenError> {
        self.read_body_at_once(max, Access::Wait)
    }

    fn read_body_at_once(&self, max: usize, access: Access) -> Result<Option<Vec<u8>>, OpenError> {
        let Some(len) = usize::try_from(self.body_len).ok().filter(|&len| len <= max) else {
            return Ok(None);
        };
        let already =
            self.front.start.get(self.front.header.body_at as usize..).unwrap_or_default();
        let mut body = vec![0; len];
        let n_already = already.len().min(len);
        body[..n_already].copy_from_slice(&already[..n_already]);
        let offset = self.body_offset().saturating_add(n_already as u64);
        let n_read = file::read_full_at(&self.file, &mut body[n_already..], offset, access)?;
        if n_already + n_read < len {
            return Err(Fault::Cut.into());
        }
        if self.front.header.body_crc != Some(crc32c::crc32c(&body)) {
            return Err(Fault::BodyDamaged.into());
        }
        Ok(Some(body))
    }

    /// Begins to verify the body, in steps.
    pub fn verify(&self) -> Verify {
        Verify { at: 0, crc: 0 }
    }
}

/// A body being verified, so that its reader can do other things between steps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verify {
    at: u64,
    crc: u32,
}

impl Verify {
    /// Reads up to [`VERIFY_STEP_BYTES`] more; true when the whole body was read and is right.
    /// `scratch` is kept by the caller from step to step.
    ///
    /// # Errors
    ///
    /// A [`Fault`] of the body, or what the system says.
    pub fn step(&mut self, object: &Object, scratch: &mut Vec<u8>) -> Result<bool, OpenError> {
        let (offset, n) = self.next(object, VERIFY_STEP_BYTES);
        scratch.resize(n, 0);
        let n_read = file::read_full_at(&object.file, scratch, offset, Access::Wait)?;
        self.take(object, n, &scratch[..n_read])
    }

    /// As [`Verify::step`], without waiting in the event loop. Gives what was read, and whether that
    /// was the rest.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn step_aside(&mut self, object: &Object) -> Result<(Vec<u8>, bool), OpenError> {
        let (offset, n) = self.next(object, ASIDE_STEP_BYTES);
        let bytes = object.file.read(offset, n).await?;
        let is_over = self.take(object, n, &bytes)?;
        Ok((bytes, is_over))
    }

    /// Where the next step reads, and how much.
    fn next(&self, object: &Object, n_max: usize) -> (u64, usize) {
        let rest = object.body_len.saturating_sub(self.at);
        let n = usize::try_from(rest).unwrap_or(usize::MAX).min(n_max);
        (object.body_offset().saturating_add(self.at), n)
    }

    /// Takes what was read where `n` bytes were wanted.
    fn take(&mut self, object: &Object, n: usize, bytes: &[u8]) -> Result<bool, OpenError> {
        if bytes.len() < n {
            return Err(Fault::Cut.into());
        }
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.at = self.at.saturating_add(n as u64);
        if self.at < object.body_len {
            return Ok(false);
        }
        if object.front.header.body_crc == Some(self.crc) {
            Ok(true)
        } else {
            Err(Fault::BodyDamaged.into())
        }
    }
}

/// The buffer for one [`Verify::step_aside`]: the allocator keeps such a buffer for the next step.
const ASIDE_STEP_BYTES: usize = 512 << 10;

/// How often a front is read while others write new heads.
const READS_MAX: usize = 16;

fn open_if_there(path: &Path, access: Access) -> Result<Option<(File, Metadata)>, OpenError> {
    match file::open_regular(path, access) {
        Ok(Some(opened)) => Ok(Some(opened)),
        Ok(None) => Err(Fault::NoFile.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn stamp(epoch: u32, stat: &Stat) -> u32 {
    let mut bytes = [0; 36];
    let parts = [stat.mtime_s as u64, stat.mtime_ns.into(), stat.len, stat.inode];
    bytes[..4].copy_from_slice(&epoch.to_le_bytes());
    for (bytes, part) in bytes[4..].chunks_exact_mut(8).zip(parts) {
        bytes.copy_from_slice(&part.to_le_bytes());
    }
    crc32c::crc32c(&bytes).max(1)
}

fn text(hex: &[u8]) -> &str {
    std::str::from_utf8(hex).unwrap_or("00")
}

#[cfg(test)]
#[path = "../tests/store.rs"]
mod tests;
