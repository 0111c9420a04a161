//! Reading what a cache file holds beside its body.

use std::fs::File;
use std::io;

use crate::cache::files::object::{Fault, HEADERS_LEN, Header};
use crate::disk::refused::JobError;
use crate::sys::file::{self, Access};

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file is damaged, truncated or foreign.
    #[error("{}", .0.word())]
    Fault(Fault),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl JobError for OpenError {
    fn would_block(&self) -> bool {
        matches!(self, Self::Io(error) if error.would_block())
    }
}

impl From<Fault> for OpenError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The part of a cache file beside its body, read and checked.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) header: Header,
    /// The beginning of the file: all bytes before the body, and those of the body that the same
    /// call read.
    pub(super) start: Vec<u8>,
    /// Meta and head, if they are not in the beginning.
    moved: Option<Vec<u8>>,
}

impl Front {
    /// Reads the front of a file of this many bytes. What waits for the disk anyway reads all of a
    /// small file at once, because each read may cost the same.
    pub(super) fn read(file: &File, len: u64, access: Access) -> Result<Self, OpenError> {
        let n_first = match access {
            Access::Cached => FIRST_READ_BYTES,
            Access::Wait => FIRST_READ_BYTES.max(len.min(WAITING_READ_BYTES) as usize),
        };
        let mut start = vec![0; n_first];
        let n_read = file::read_full_at(file, &mut start, 0, access)?;
        start.truncate(n_read);
        let header = Header::parse(&start)?;
        // `parse` holds every part to its limit, so all of this is under 1 MiB.
        if n_read < header.body_at as usize {
            start.resize(header.body_at as usize, 0);
            read_exactly(file, start.get_mut(n_read..).unwrap_or_default(), n_read as u64, access)?;
        }
        let mut moved = None;
        if header.head_end() > start.len() as u64 {
            let bytes = moved.insert(vec![0; (header.meta_len + header.head_len) as usize]);
            read_exactly(file, bytes, header.head_at, access)?;
        }
        let front = Self { header, start, moved };
        front.header.check_front(front.key_text(), front.meta_and_head())?;
        Ok(front)
    }

    pub(super) fn key_text(&self) -> &[u8] {
        let end = HEADERS_LEN + self.header.key_len as usize;
        self.start.get(HEADERS_LEN..end).unwrap_or_default()
    }

    pub(super) fn meta_and_head(&self) -> &[u8] {
        let place = self.header.head_at as usize..self.header.head_end() as usize;
        self.moved.as_deref().or(self.start.get(place)).unwrap_or_default()
    }
}

fn read_exactly(
    file: &File,
    bytes: &mut [u8],
    offset: u64,
    access: Access,
) -> Result<(), OpenError> {
    match file::read_full_at(file, bytes, offset, access)? {
        n_read if n_read < bytes.len() => Err(Fault::Cut.into()),
        _ => Ok(()),
    }
}

/// The first read: front and body of most small objects.
const FIRST_READ_BYTES: usize = 8 << 10;

/// The same where it may wait for the disk: front and body of what the hot tier keeps.
const WAITING_READ_BYTES: u64 = 80 << 10;
