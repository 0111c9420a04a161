//! One request to an origin, on a connection of a pool, and its response.
//!
//! ```text
//! Sending ── all written, or an early answer ──▶ Heads ─ 1xx ─▶ Heads
//!                                                  └── final ─▶ Body ── end ─▶ back to the pool
//! ```
//!
//! The connection goes back to its pool only after a whole, self-delimited response with nothing
//! behind it, to a request that was sent to its end. In every other case it is closed.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::task::Poll;

use crate::http::fields::Fields;
use crate::http::h1::body::{Decoded, Decoder};
use crate::http::h1::head::{self, HeadLimits};
use crate::http::head::{BodyLength, ResponseHead};
use crate::http::method::Method;
use crate::proxy::client::ClientError;
use crate::proxy::failure::FetchError;
use crate::proxy::pools::Checked;
use crate::proxy::upload::Upload;
use crate::reactor::stream::Stream;
use crate::reactor::{self, scratch};

/// What one read asks for.
const READ_BYTES: usize = 64 << 10;

/// Interim responses that are taken before a response counts as broken.
const INTERIM_MAX: usize = 16;

/// What bounds an origin's answer.
#[derive(Clone, Copy, Debug)]
pub struct OriginLimits {
    /// Of its head.
    pub head: HeadLimits,
    /// `timeouts.first-byte`, in milliseconds.
    pub first_byte_ms: u64,
    /// `timeouts.idle`, in milliseconds.
    pub idle_ms: u64,
}

/// A request under way on a connection.
#[derive(Debug)]
pub struct Origin {
    connection: Checked,
    limits: OriginLimits,
    method: Method,
    /// Read, not yet used.
    inbox: Vec<u8>,
    n_interim: usize,
    /// The whole request was written, so that the connection may be used again.
    is_sent: bool,
    is_eof: bool,
    /// Some byte of the request was written, so that the origin may have acted on it.
    has_sent: bool,
}

/// What went wrong while a request was sent.
#[derive(Debug)]
pub enum SendError {
    /// The connection broke.
    Origin(FetchError),
    /// The client's body broke off.
    Client(ClientError),
}

impl Origin {
    /// Begins an exchange with an origin on a connection.
    pub fn new(connection: Checked, method: Method, limits: OriginLimits) -> Self {
        Self {
            connection,
            limits,
            method,
            inbox: Vec::new(),
            n_interim: 0,
            is_sent: false,
            is_eof: false,
            has_sent: false,
        }
    }

    /// Whether any byte of the request was written.
    pub fn has_sent(&self) -> bool {
        self.has_sent
    }

    /// Which server it is: the upstream and its server, as the configuration counts them.
    pub fn server(&self) -> (usize, usize) {
        self.connection.server()
    }

    /// Whether the connection carried a request before this one.
    pub fn is_reused(&self) -> bool {
        self.connection.is_reused()
    }

    /// Whether any byte of a response has come.
    pub fn has_answered(&self) -> bool {
        !self.inbox.is_empty() || self.n_interim > 0
    }

    /// Sends the request: `head` as it goes over the wire, and its body. Ends early, without
    /// error, when the origin answers before it has taken everything.
    pub async fn send<U: Upload>(&mut self, head: &[u8], body: &mut U) -> Result<(), SendError> {
        if let Some(body) = body.in_memory() {
            let sent = self.write(head, body).await.map_err(SendError::Origin)?;
            self.is_sent = sent == Sent::Whole;
            return Ok(());
        }
        let mut out = head.to_vec();
        let mut more = body.next(&mut out).await.map_err(SendError::Client)?;
        loop {
            if self.write(&out, b"").await.map_err(SendError::Origin)? == Sent::Interrupted {
                return Ok(());
            }
            if !more {
                self.is_sent = true;
                return Ok(());
            }
            out.clear();
            let next = body.next(&mut out);
            match self.unless_answered(next).await.map_err(SendError::Origin)? {
                Some(result) => more = result.map_err(SendError::Client)?,
                None => return Ok(()),
            }
        }
    }

    /// Reads the next head: an interim one, or the final one.
    pub async fn head(&mut self) -> Result<ResponseHead, FetchError> {
        let mut searched = 0;
        let deadline_ms = self.deadline(self.limits.first_byte_ms);
        loop {
            let is_whole = head::find_end(&self.inbox, searched).is_some();
            if is_whole || self.inbox.len() >= self.limits.head.head_bytes {
                let parsed = head::parse_response(&self.inbox, &self.limits.head, self.method);
                if let Some((head, used)) = parsed.map_err(FetchError::Flaw)? {
                    self.inbox.drain(..used);
                    return self.accept(head);
                }
            }
            searched = self.inbox.len().saturating_sub(3);
            let n_read =
                self.read(deadline_ms).await.map_err(|error| FetchError::from_io(&error))?;
            if n_read == 0 {
                return Err(match self.has_answered() {
                    true => FetchError::Truncated,
                    false => FetchError::Closed,
                });
            }
        }
    }

    /// Turns to the body of the final response.
    pub fn body(self, head: &ResponseHead) -> OriginBody {
        let keeps_alive = head.keeps_alive && self.is_sent;
        let decoder = Decoder::new(head.length, Default::default());
        OriginBody { origin: Some(self), decoder, keeps_alive }
    }

    fn accept(&mut self, head: ResponseHead) -> Result<ResponseHead, FetchError> {
        if head.status.is_interim() {
            self.n_interim += 1;
            // We never ask to switch protocols, so 101 answers nothing that was asked.
            if self.n_interim > INTERIM_MAX || head.status.0 == 101 {
                return Err(FetchError::Truncated);
            }
        }
        Ok(head)
    }

    fn stream(&self) -> &Stream {
        self.connection.stream()
    }

    fn deadline(&self, timeout_ms: u64) -> u64 {
        reactor::now().mono_ms() + timeout_ms
    }

    /// Reads what there is into the inbox: 0 at the end.
    async fn read(&mut self, deadline_ms: u64) -> io::Result<usize> {
        loop {
            match self.try_read() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stream().readable(deadline_ms).await?;
                }
                other => return other,
            }
        }
    }

    fn try_read(&mut self) -> io::Result<usize> {
        if self.is_eof {
            return Ok(0);
        }
        let stream = self.connection.stream();
        let inbox = &mut self.inbox;
        let n_read = scratch::with_scratch(|scratch| -> io::Result<usize> {
            let room = scratch.len().min(READ_BYTES);
            let n_read = stream.try_read(&mut scratch[..room])?;
            inbox.extend_from_slice(&scratch[..n_read]);
            Ok(n_read)
        })?;
        self.is_eof = n_read == 0;
        Ok(n_read)
    }

    /// Writes two slices as if they were one.
    async fn write(&mut self, mut first: &[u8], mut then: &[u8]) -> Result<Sent, FetchError> {
        while !first.is_empty() || !then.is_empty() {
            let written = match then.is_empty() {
                true => self.stream().try_write(first),
                false => self.stream().try_writev(&[IoSlice::new(first), IoSlice::new(then)]),
            };
            match written {
                Ok(n_written) => {
                    self.has_sent = true;
                    let of_first = n_written.min(first.len());
                    first = &first[of_first..];
                    then = &then[n_written - of_first..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let deadline_ms = self.deadline(self.limits.idle_ms);
                    let stream = self.connection.stream_handle();
                    let writable = stream.writable(deadline_ms);
                    match self.unless_answered(writable).await? {
                        Some(result) => result.map_err(|error| FetchError::from_io(&error))?,
                        None => return Ok(Sent::Interrupted),
                    }
                }
                // What the origin said before it closed may still be there to be read.
                Err(_) if self.try_read().is_ok_and(|n_read| n_read > 0) => {
                    return Ok(Sent::Interrupted);
                }
                Err(error) => return Err(FetchError::from_io(&error)),
            }
        }
        Ok(Sent::Whole)
    }

    /// Waits for `work`, unless the origin says something first: then `None`.
    async fn unless_answered<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<Option<T>, FetchError> {
        let mut work = pin!(work);
        loop {
            let stream = self.connection.stream_handle();
            let first = {
                let mut readable = pin!(stream.readable(0));
                std::future::poll_fn(|task| match work.as_mut().poll(task) {
                    Poll::Ready(value) => Poll::Ready(Some(value)),
                    Poll::Pending => readable.as_mut().poll(task).map(|_| None),
                })
                .await
            };
            if let Some(value) = first {
                return Ok(Some(value));
            }
            match self.try_read() {
                Ok(0) if !self.has_answered() => return Err(FetchError::Closed),
                Ok(_) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(FetchError::from_io(&error)),
            }
        }
    }
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Whole,
    /// The origin answers already.
    Interrupted,
}

/// The body of an origin's response.
#[derive(Debug)]
pub struct OriginBody {
    origin: Option<Origin>,
    decoder: Decoder,
    keeps_alive: bool,
}

impl OriginBody {
    /// Appends what has come to `into`, waiting until something has; `false` when the body ended.
    /// The connection is back in its pool, or closed, as soon as this returned `false`.
    pub async fn next(&mut self, into: &mut Vec<u8>) -> Result<bool, FetchError> {
        loop {
            let before = into.len();
            if !self.take(into)? {
                return Ok(false);
            }
            if into.len() > before {
                return Ok(true);
            }
            self.wait().await?;
        }
    }

    /// Appends what is there already, without waiting; `false` when the body ended.
    pub fn take(&mut self, into: &mut Vec<u8>) -> Result<bool, FetchError> {
        let Some(origin) = &mut self.origin else { return Ok(false) };
        if origin.inbox.is_empty() && !self.decoder.is_end() {
            match origin.try_read() {
                Ok(0) => {
                    self.decoder.at_eof().map_err(|_| FetchError::Truncated)?;
                    self.end(false);
                    return Ok(false);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(_) => return Err(FetchError::Truncated),
            }
        }
        let is_end = decode(&mut self.decoder, &mut origin.inbox, into)?;
        if is_end {
            let is_clean = origin.inbox.is_empty();
            self.end(is_clean);
        }
        Ok(!is_end)
    }

    /// Waits until the origin has sent something, or has gone.
    pub async fn wait(&mut self) -> Result<(), FetchError> {
        let Some(origin) = &self.origin else { return Ok(()) };
        let deadline_ms = origin.deadline(origin.limits.idle_ms);
        origin.stream().readable(deadline_ms).await.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => FetchError::IdleTimeout,
            _ => FetchError::Truncated,
        })
    }

    /// Bytes that are still to come, if the response said how many there are.
    pub fn remaining(&self) -> Option<u64> {
        self.decoder.remaining()
    }

    /// What followed the last chunk.
    pub fn take_trailers(&mut self) -> Fields {
        self.decoder.take_trailers()
    }

    fn end(&mut self, is_clean: bool) {
        if let Some(origin) = self.origin.take()
            && is_clean
            && self.keeps_alive
            && !origin.is_eof
        {
            origin.connection.give_back();
        }
    }
}

/// Decodes all of `inbox` into `into`; true at the body's end.
fn decode(
    decoder: &mut Decoder,
    inbox: &mut Vec<u8>,
    into: &mut Vec<u8>,
) -> Result<bool, FetchError> {
    let mut at = 0;
    let is_end = loop {
        let Some(rest) = inbox.get(at..) else { break false };
        match decoder.decode(rest).map_err(FetchError::Flaw)? {
            Decoded::Data { range, consumed } => {
                into.extend_from_slice(rest.get(range).unwrap_or_default());
                at += consumed;
            }
            Decoded::More { consumed } => {
                at += consumed;
                break false;
            }
            Decoded::End { consumed } => {
                at += consumed;
                break true;
            }
        }
    };
    inbox.drain(..at.min(inbox.len()));
    Ok(is_end)
}

/// Whether a response has a body that must be read before the connection is free.
pub fn has_body(length: BodyLength) -> bool {
    !matches!(length, BodyLength::None | BodyLength::Known(0))
}
