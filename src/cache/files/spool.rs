//! A cache file that helpers write while the event loop goes on.
//!
//! One job at a time has the [`Writer`], so that bytes are written in their order. What a job has not
//! written stays here, for a reader who has to get it in another way.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::files::store::Store;
use crate::cache::files::writer::Writer;
use crate::disk::file::DiskFile;
use crate::disk::pool::Answer;
use crate::disk::refused::Refused;
use crate::disk::{self, Kind};
use crate::reactor::timer;

/// How long the write of a copy may take.
const COPY_PATIENCE: Duration = Duration::from_secs(1);

/// A file that is being written. Dropping it removes it.
#[derive(Debug)]
pub struct Spool {
    /// The writer, unless a job has it or an error has ended it.
    writer: Option<Writer>,
    job: Option<Answer<io::Result<Writer>>>,
    /// Until when the job is awaited, in milliseconds of the monotonic clock.
    until_ms: u64,
    /// The bytes that the job writes.
    flying: Arc<Vec<u8>>,
    file: DiskFile,
    body_offset: u64,
    written: u64,
    error: Option<io::Error>,
}

impl Store {
    /// Begins a file as [`Store::begin`] does, without waiting in the event loop.
    ///
    /// # Errors
    ///
    /// As there, or that the disk is busy.
    pub async fn spool(
        &self,
        id: u64,
        status: u16,
        [key_text, meta, head]: [Vec<u8>; 3],
        body_len: Option<u64>,
    ) -> io::Result<Spool> {
        let store = self.clone();
        let n_bytes = key_text.len() + meta.len() + head.len();
        let begin = move || store.begin(id, &key_text, &meta, status, &head, body_len);
        let writer = disk::run(Kind::Write(n_bytes), begin).await?;
        Ok(Spool {
            file: writer.file().clone(),
            body_offset: writer.body_offset(),
            writer: Some(writer),
            job: None,
            until_ms: 0,
            flying: Arc::default(),
            written: 0,
            error: None,
        })
    }
}

impl Spool {
    /// The file, for sending what was written.
    pub fn file(&self) -> &DiskFile {
        &self.file
    }

    /// Where the body begins in the file.
    pub fn body_offset(&self) -> u64 {
        self.body_offset
    }

    /// Bytes of the body that are in the file.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes of the body that a helper is writing.
    pub fn n_flying(&self) -> usize {
        if self.is_idle() { 0 } else { self.flying.len() }
    }

    /// Whether no bytes are being written.
    pub fn is_idle(&self) -> bool {
        self.job.is_none()
    }

    /// Whether more can be written.
    pub fn is_sound(&self) -> bool {
        self.writer.is_some()
    }

    /// Gives bytes of the body to a helper, which may take this long, and no longer than
    /// `timeouts.disk`. The one before has to be done.
    pub fn append(&mut self, bytes: Vec<u8>, patience: Duration) {
        debug_assert!(self.is_idle(), "one job has the writer");
        let n_bytes = bytes.len();
        self.until_ms = timer::deadline(patience);
        self.flying = Arc::new(bytes);
        let (Some(mut writer), bytes) = (self.writer.take(), Arc::clone(&self.flying)) else {
            return;
        };
        let job = move || writer.append(&bytes).map(|()| writer);
        self.job = Some(disk::run(Kind::Write(n_bytes), job));
    }

    /// Waits until what was given is written, or not; then see [`Spool::check`]. It may be dropped
    /// and called again.
    pub async fn settle(&mut self) {
        let Some(job) = &mut self.job else { return };
        let written = timer::timeout_at(self.until_ms, job).await;
        self.job = None;
        match written.unwrap_or_else(|_| Err(Refused::Late.into())) {
            Ok(writer) => {
                self.writer = Some(writer);
                self.written += self.flying.len() as u64;
            }
            Err(error) => self.error = Some(error),
        }
    }

    /// Whether all that was given so far could be written, or is being written.
    ///
    /// # Errors
    ///
    /// As [`Writer::append`], or that the disk is busy. It is told once. The file is then of no use.
    pub fn check(&mut self) -> io::Result<()> {
        self.error.take().map_or(Ok(()), Err)
    }

    /// Appends to the body, and waits until that is done.
    ///
    /// # Errors
    ///
    /// As [`Spool::check`].
    pub async fn write(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.append(bytes, COPY_PATIENCE);
        self.settle().await;
        self.check()
    }

    /// The bytes that were not written because of an error.
    pub fn unwritten(&mut self) -> Vec<u8> {
        match (&self.writer, &self.job) {
            (None, None) => Arc::unwrap_or_clone(std::mem::take(&mut self.flying)),
            _ => Vec::new(),
        }
    }

    /// A buffer that was written, empty, to be used again.
    pub fn spare(&mut self) -> Vec<u8> {
        let mut bytes = Arc::get_mut(&mut self.flying).map(std::mem::take).unwrap_or_default();
        bytes.clear();
        bytes
    }

    /// Completes a file that is removed at once, so that those who have it open find it whole.
    ///
    /// # Errors
    ///
    /// As [`Writer::finish`].
    pub async fn finish(self) -> io::Result<()> {
        let writer = self.into_writer()?;
        disk::run(Kind::Write(0), move || writer.finish().map(drop)).await
    }

    /// The writer, to end the file with; all bytes must be written.
    ///
    /// # Errors
    ///
    /// An error has ended it.
    pub fn into_writer(self) -> io::Result<Writer> {
        self.writer.ok_or_else(|| io::Error::other("the cache file was not written"))
    }
}
