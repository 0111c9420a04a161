//! The buffers of a client's connection: bytes that were read and not used yet, and bytes that are
//! still to be written.
//!
//! Both are empty, and own no memory, while the connection is idle.

use std::io::{self, IoSlice};

use crate::disk::file::DiskFile;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::connections::{Connection, Counted};
use crate::reactor::pipe::Pipe;
use crate::reactor::{self, scratch, spare};

/// The most that one read takes.
pub(super) const READ_BYTES: usize = 64 << 10;

/// Answers are gathered up to this size before they are written.
pub(super) const GATHER_BYTES: usize = 32 << 10;

/// The most that one call sends of a file, and that is brought into memory for it.
const FILE_PART_BYTES: u64 = 2 << 20;

/// How long what was in memory is taken to be there still, in milliseconds.
const CACHED_MS: u64 = 1_000;

/// A buffer larger than this is not kept for the next answer.
const KEEP_BYTES: usize = 8 << 10;

/// A client's connection as bytes.
#[derive(Debug)]
pub(super) struct Link {
    counted: Counted,
    /// Bytes that were read and not used yet.
    pub(super) inbox: Vec<u8>,
    /// Bytes that are still to be written.
    pub(super) out: Vec<u8>,
    n_written: u64,
    /// Whether the close is a reset, because the client must not take its answer for complete.
    pub(super) is_broken: bool,
}

impl Link {
    pub(super) fn new(counted: Counted) -> Self {
        Self { counted, inbox: Vec::new(), out: Vec::new(), n_written: 0, is_broken: false }
    }

    /// The connection, and the bytes that were read of it.
    pub(super) fn into_parts(self) -> (Counted, Vec<u8>) {
        (self.counted, self.inbox)
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.counted.connection
    }

    /// Bytes that the kernel took so far.
    pub(super) fn n_written(&self) -> u64 {
        self.n_written
    }

    /// Bytes written so far, and those still to be written.
    pub(super) fn n_bytes(&self) -> u64 {
        self.n_written + self.out.len() as u64
    }

    /// Waits for bytes and gives them to `take`, which returns how many it used. The others go to the
    /// inbox, which must be empty. Returns the number of bytes read; 0 is the end.
    pub(super) async fn read_through<E>(
        &mut self,
        deadline_ms: u64,
        mut take: impl FnMut(&[u8]) -> Result<usize, E>,
    ) -> io::Result<Result<usize, E>> {
        loop {
            reactor::breathe().await;
            let transport = &self.counted.connection.transport;
            let inbox = &mut self.inbox;
            let read = scratch::with_scratch(|scratch| {
                let room = scratch.len().min(READ_BYTES);
                let n_read = transport.try_read(&mut scratch[..room])?;
                Ok(take(&scratch[..n_read]).map(|n_used| {
                    inbox.extend_from_slice(scratch.get(n_used..n_read).unwrap_or_default());
                    n_read
                }))
            });
            match read {
                Err(error) if io::Error::kind(&error) == io::ErrorKind::WouldBlock => {
                    self.connection().transport.readable(deadline_ms).await?;
                }
                other => return other,
            }
        }
    }

    /// Waits for bytes and moves up to `len` of them into an empty pipe; 0 is the end.
    pub(super) async fn fill_pipe(
        &mut self,
        deadline_ms: u64,
        pipe: &mut Pipe,
        len: usize,
    ) -> io::Result<usize> {
        loop {
            reactor::breathe().await;
            match self.connection().transport.fill_pipe(pipe, len) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.connection().transport.readable(deadline_ms).await?;
                }
                other => return other,
            }
        }
    }

    /// Writes as much of `bytes` as is taken at once, and keeps the rest for a later write. If
    /// earlier bytes wait to be written, `bytes` wait behind them.
    pub(super) fn write_now(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        let transport = &self.counted.connection.transport;
        let mut written = 0;
        if self.out.is_empty() {
            written = match transport.try_write(bytes) {
                Ok(n_written) => n_written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(close_of_write(&error)),
            };
            self.n_written += written as u64;
        }
        self.out.extend_from_slice(bytes.get(written..).unwrap_or_default());
        Ok(())
    }

    /// Writes as much as is taken at once of what is to be written.
    pub(super) fn flush_now(&mut self) -> Result<(), CloseReason> {
        if self.out.is_empty() {
            return Ok(());
        }
        let out = std::mem::take(&mut self.out);
        let result = self.write_now(&out);
        if self.out.is_empty() && out.capacity() <= KEEP_BYTES {
            self.out = out;
            self.out.clear();
        }
        result
    }

    /// Keeps bytes that were read for their later use.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.inbox.capacity() == 0 {
            self.inbox = spare::take();
        }
        self.inbox.extend_from_slice(bytes);
    }

    /// Frees a large inbox that is empty.
    pub(super) fn free_inbox(&mut self) {
        if self.inbox.is_empty() && self.inbox.capacity() > KEEP_BYTES {
            self.inbox = Vec::new();
        }
    }

    /// Gives back the buffers that are empty, before the connection becomes idle.
    pub(super) fn free_empty_buffers(&mut self) {
        for buffer in [&mut self.inbox, &mut self.out] {
            if buffer.is_empty() {
                spare::give_back(std::mem::take(buffer));
            }
        }
    }

    /// Takes a buffer for an answer.
    pub(super) fn take_buffer(&mut self) {
        if self.out.capacity() == 0 {
            self.out = spare::take();
        }
    }

    /// Writes everything that is to be written, then `bytes`.
    pub(super) async fn write(&mut self, bytes: &[u8], timeout_ms: u64) -> Result<(), CloseReason> {
        let mut at = 0;
        while !self.out.is_empty() || at < bytes.len() {
            reactor::breathe().await;
            let parts = [IoSlice::new(&self.out), IoSlice::new(&bytes[at..])];
            match self.counted.connection.transport.try_writev(&parts) {
                Ok(n_written) => {
                    self.n_written += n_written as u64;
                    let of_out = n_written.min(self.out.len());
                    self.out.drain(..of_out);
                    at += n_written - of_out;
                }
                Err(error) => self.wait_writable(error, timeout_ms).await?,
            }
        }
        Ok(())
    }

    /// Writes everything that is to be written, then `len` bytes of a file.
    pub(super) async fn write_file(
        &mut self,
        file: &DiskFile,
        mut offset: u64,
        len: u64,
        timeout_ms: u64,
    ) -> Result<(), CloseReason> {
        if len == 0 {
            return self.write(b"", timeout_ms).await;
        }
        while !self.out.is_empty() {
            match self.counted.connection.transport.try_write_ahead(&self.out) {
                Ok(n_written) => {
                    self.n_written += n_written as u64;
                    self.out.drain(..n_written);
                }
                Err(error) => self.wait_writable(error, timeout_ms).await?,
            }
        }
        let end = offset + len;
        let mut cached_to = offset;
        while offset < end {
            reactor::breathe().await;
            if offset >= cached_to {
                let part = (end - offset).min(FILE_PART_BYTES);
                if file.bring_in(offset, part).await.is_err() {
                    self.is_broken = true;
                    return Err(CloseReason::Incomplete);
                }
                cached_to = offset + part;
            }
            let part = (cached_to - offset) as usize;
            match self.counted.connection.transport.send_file(file, &mut offset, part) {
                // Another process has truncated the file.
                Ok(0) => {
                    self.is_broken = true;
                    return Err(CloseReason::Incomplete);
                }
                Ok(n_sent) => self.n_written += n_sent as u64,
                Err(error) => {
                    let since_ms = reactor::now().mono_ms();
                    self.wait_writable(error, timeout_ms).await?;
                    if reactor::now().mono_ms() - since_ms > CACHED_MS {
                        cached_to = offset;
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes everything that is to be written, then the bytes of a pipe.
    pub(super) async fn write_pipe(
        &mut self,
        pipe: &mut Pipe,
        timeout_ms: u64,
    ) -> Result<(), CloseReason> {
        self.write(b"", timeout_ms).await?;
        while !pipe.is_empty() {
            reactor::breathe().await;
            match self.counted.connection.transport.write_pipe(pipe) {
                Ok(n_written) => self.n_written += n_written as u64,
                Err(error) => self.wait_writable(error, timeout_ms).await?,
            }
        }
        Ok(())
    }

    async fn wait_writable(&self, error: io::Error, timeout_ms: u64) -> Result<(), CloseReason> {
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(close_of_write(&error));
        }
        let deadline_ms = reactor::now().mono_ms() + timeout_ms;
        let writable = self.counted.connection.transport.writable(deadline_ms).await;
        writable.map_err(|error| close_of_write(&error))
    }
}

/// The reason to close after a failed write.
fn close_of_write(error: &io::Error) -> CloseReason {
    match error.kind() {
        io::ErrorKind::TimedOut => CloseReason::SendTimeout,
        _ => CloseReason::ClientGone,
    }
}
