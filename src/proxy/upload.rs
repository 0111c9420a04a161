//! A request's body on its way to an origin: received whole beforehand, or streamed.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

use crate::disk::file::DiskFile;
use crate::disk::{self, Kind};
use crate::http::fields::Fields;
use crate::http::h1::body::{CHUNK_END, write_chunk_head, write_last_chunk};
use crate::http::head::{BodyLength, ResponseHead};
use crate::origin::upload::Upload;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::{Client, ClientError};
use crate::reactor::pipe::Pipe;
use crate::reactor::spare::Buffer;
use crate::route::identity::IdentityFields;
use crate::shared::bodies::{Bodies, BodyBytes};

/// The most that one [`Upload::next`] reads from a file.
const PART_BYTES: usize = 64 << 10;

/// A body that was received completely.
#[derive(Debug)]
pub struct Received {
    memory: Buffer,
    /// Instead of memory, and its length.
    file: Option<(DiskFile, u64)>,
    /// The bytes of the file, as they count with those of all others.
    bytes: Option<BodyBytes>,
    trailers: Fields,
    given: u64,
}

/// Why a body was not received.
#[derive(Debug)]
pub enum ReceiveError {
    /// The client is gone, or broke the protocol.
    Client(ClientError),
    /// It is larger than a body may be, for this reason.
    TooLarge(&'static str),
    /// All bodies together have as many bytes as `limits.bodies` allows.
    NoRoom,
    /// The temporary file could not be made or written.
    File(io::Error),
}

/// How much of a body may be taken, and where it goes.
#[derive(Clone, Copy, Debug)]
pub struct ReceiveLimits<'a> {
    /// `limits.body`, in bytes.
    pub bytes_max: u64,
    /// `limits.body-memory`: what is larger goes to a file.
    pub memory_max: usize,
    /// Where that file is made.
    pub temporary: &'a Path,
    /// `limits.bodies`: how many bytes all such files may have.
    pub bodies: &'a Rc<Bodies>,
    /// The fields that no client may send, behind its body either.
    pub identity: &'a IdentityFields,
}

impl ReceiveLimits<'_> {
    /// Whether a body of this length may be received.
    fn check(&self, len: u64) -> Result<(), ReceiveError> {
        if len > self.bytes_max {
            return Err(ReceiveError::TooLarge("the request's body is larger than limits.body"));
        }
        if self.is_for_file(len) && len > self.bodies.bytes_max {
            return Err(ReceiveError::TooLarge("the request's body is larger than limits.bodies"));
        }
        Ok(())
    }

    fn is_for_file(&self, len: u64) -> bool {
        len > self.memory_max as u64
    }
}

impl Received {
    /// No body.
    pub const fn nothing() -> Self {
        Self { memory: Buffer::empty(), file: None, bytes: None, trailers: Fields::new(), given: 0 }
    }

    /// Receives a request's whole body, into memory first and then into an unnamed file.
    pub async fn all<C: Client>(
        client: &mut C,
        length: BodyLength,
        limits: ReceiveLimits<'_>,
    ) -> Result<Self, ReceiveError> {
        let mut body = Self::nothing();
        match length {
            BodyLength::Known(len) => {
                limits.check(len)?;
                if limits.is_for_file(len) && !limits.bodies.has_room(len) {
                    return Err(ReceiveError::NoRoom);
                }
            }
            BodyLength::None | BodyLength::Chunked | BodyLength::UntilClose => {}
        }
        loop {
            let more = client.read_body(&mut body.memory).await.map_err(ReceiveError::Client)?;
            limits.check(body.len())?;
            if body.file.is_some() || limits.is_for_file(body.len()) {
                let bytes = body.bytes.get_or_insert_with(|| BodyBytes::none(limits.bodies));
                if !bytes.take(body.memory.len() as u64) {
                    return Err(ReceiveError::NoRoom);
                }
                body.spill(limits.temporary).await.map_err(ReceiveError::File)?;
            }
            if !more {
                body.trailers = client.take_trailers();
                limits.identity.remove_from(&mut body.trailers);
                return Ok(body);
            }
            if let (BodyLength::Known(len), None) = (length, &body.file) {
                let n_bytes = (len as usize).min(limits.memory_max);
                let n_more = n_bytes.saturating_sub(body.memory.len());
                body.memory.reserve_exact(n_more);
            }
        }
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.memory.len() as u64 + self.file.as_ref().map_or(0, |(_, len)| *len)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How it is framed for an origin. Only chunks have trailers behind them.
    pub fn framing(&self) -> BodyLength {
        match self.trailers.is_empty() {
            true => BodyLength::Known(self.len()),
            false => BodyLength::Chunked,
        }
    }

    /// Appends the next piece of the body itself; `false` when it was the last.
    async fn next(&mut self, into: &mut Vec<u8>) -> io::Result<bool> {
        let part = (self.len() - self.given).min(PART_BYTES as u64) as usize;
        let bytes = match &self.file {
            Some((file, _)) => file.read(self.given, part).await?,
            None => self.memory.iter().skip(self.given as usize).take(part).copied().collect(),
        };
        if bytes.len() < part {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.given += part as u64;
        let more = self.given < self.len();
        if self.trailers.is_empty() {
            into.extend_from_slice(&bytes);
            return Ok(more);
        }
        if part > 0 {
            write_chunk_head(into, part);
            into.extend_from_slice(&bytes);
            into.extend_from_slice(CHUNK_END);
        }
        if !more {
            write_last_chunk(into, &self.trailers);
        }
        Ok(more)
    }

    async fn spill(&mut self, temporary: &Path) -> io::Result<()> {
        // This frees the capacity too, so that the limit bounds the memory of a body.
        let bytes = std::mem::take(&mut *self.memory);
        let n_bytes = bytes.len();
        let len = self.file.as_ref().map_or(0, |(_, len)| *len);
        let (opened, temporary) =
            (self.file.as_ref().map(|(file, _)| file.clone()), temporary.to_owned());
        let write = move || {
            let file = opened.map_or_else(|| DiskFile::unnamed(&temporary), Ok)?;
            file.write_all_at(&bytes, len).map(|()| file)
        };
        let file = disk::run(Kind::Write(n_bytes), write).await?;
        self.file = Some((file, len + n_bytes as u64));
        Ok(())
    }
}

/// A body that was received completely, and the client that it came from.
#[derive(Debug)]
pub struct Whole<'c, C> {
    /// The client that sent the body.
    pub client: &'c mut C,
    /// The body.
    pub body: &'c mut Received,
}

impl<C: Client> Upload for Whole<'_, C> {
    type Error = ClientError;

    fn in_memory(&self) -> Option<&[u8]> {
        let is_bare = self.body.file.is_none() && self.body.trailers.is_empty();
        is_bare.then_some(&self.body.memory)
    }

    fn in_file(&self) -> Option<(DiskFile, u64)> {
        self.body.file.clone().filter(|_| self.body.trailers.is_empty())
    }

    async fn next(&mut self, into: &mut Vec<u8>) -> Result<bool, ClientError> {
        // The file is unnamed, so that only an error of the disk can make this fail.
        let next = self.body.next(into).await;
        next.map_err(|_| ClientError::Closed(CloseReason::Incomplete))
    }

    fn is_whole(&self) -> bool {
        true
    }

    fn rewind(&mut self) -> bool {
        self.body.given = 0;
        true
    }

    async fn interim(&mut self, head: &ResponseHead) -> Result<(), ClientError> {
        self.client.interim(head).await.map_err(ClientError::Closed)
    }

    async fn gone(&mut self) {
        self.client.gone().await;
    }

    async fn left(&mut self) {
        self.client.left().await;
    }
}

/// A body that is passed on as it comes.
#[derive(Debug)]
pub struct Streamed<'c, C> {
    client: &'c mut C,
    identity: &'c IdentityFields,
    is_chunked: bool,
    part: Vec<u8>,
    has_begun: bool,
}

impl<'c, C: Client> Streamed<'c, C> {
    /// The body of `client`'s request, which goes on framed as `length` says, without these trailers.
    pub fn new(client: &'c mut C, length: BodyLength, identity: &'c IdentityFields) -> Self {
        let is_chunked = length == BodyLength::Chunked;
        Self { client, identity, is_chunked, part: Vec::new(), has_begun: false }
    }
}

impl<C: Client> Upload for Streamed<'_, C> {
    type Error = ClientError;

    fn in_memory(&self) -> Option<&[u8]> {
        None
    }

    fn gives_pipe(&self) -> bool {
        !self.is_chunked && self.client.gives_pipe()
    }

    async fn fill_pipe(&mut self, pipe: &mut Pipe) -> Result<(), ClientError> {
        self.has_begun = true;
        self.client.fill_pipe(pipe).await
    }

    async fn next(&mut self, into: &mut Vec<u8>) -> Result<bool, ClientError> {
        self.has_begun = true;
        if !self.is_chunked {
            return self.client.read_body(into).await;
        }
        self.part.clear();
        let more = self.client.read_body(&mut self.part).await?;
        if !self.part.is_empty() {
            write_chunk_head(into, self.part.len());
            into.extend_from_slice(&self.part);
            into.extend_from_slice(CHUNK_END);
        }
        if !more {
            let mut trailers = self.client.take_trailers();
            self.identity.remove_from(&mut trailers);
            write_last_chunk(into, &trailers);
        }
        Ok(more)
    }

    fn is_whole(&self) -> bool {
        false
    }

    fn rewind(&mut self) -> bool {
        !self.has_begun
    }

    async fn interim(&mut self, head: &ResponseHead) -> Result<(), ClientError> {
        self.client.interim(head).await.map_err(ClientError::Closed)
    }

    async fn gone(&mut self) {
        self.client.gone().await;
    }

    async fn left(&mut self) {
        self.client.left().await;
    }
}
