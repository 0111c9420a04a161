//! The body of an origin's response.
//!
//! The connection goes back to its pool only after a whole, self-delimited response with nothing
//! behind it, to a request that was sent to its end. In every other case it is closed.

use std::io;

use crate::http::fields::Fields;
use crate::http::h1::body::{Decoded, Decoder};
use crate::http::head::ResponseHead;
use crate::origin::request::Request;
use crate::policy::reason::fetch::FetchError;
use crate::reactor;
use crate::reactor::pipe::Pipe;
use crate::tunnel::Side;

/// The body of an origin's response.
#[derive(Debug)]
pub struct OriginBody {
    request: Option<Request>,
    decoder: Decoder,
    keeps_alive: bool,
}

/// A connection that has switched protocols, with what the origin sent behind its 101. Dropping it closes
/// the connection.
#[derive(Debug)]
pub(crate) struct Switched(Request);

impl Switched {
    /// The connection as a side of a tunnel.
    pub(crate) fn side(&mut self) -> Side<'_> {
        let ahead = std::mem::take(&mut *self.0.inbox);
        Side { transport: self.0.transport(), ahead }
    }
}

impl OriginBody {
    /// The connection behind a 101.
    pub(crate) fn switched(self) -> Option<Switched> {
        self.request.map(Switched)
    }

    /// The body of the final response to a request.
    pub(super) fn new(request: Request, head: &ResponseHead) -> Self {
        let keeps_alive = head.keeps_alive && request.is_sent;
        let decoder = Decoder::new(head.length, Default::default());
        Self { request: Some(request), decoder, keeps_alive }
    }

    /// Appends the bytes that have arrived to `into`, and waits if there are none; `false` at the
    /// end of the body. The connection is back in its pool, or closed, as soon as this returned
    /// `false`.
    pub(crate) async fn next(&mut self, into: &mut Vec<u8>) -> Result<bool, FetchError> {
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

    /// Appends the bytes that have arrived, without waiting; `false` at the end of the body.
    pub(crate) fn take(&mut self, into: &mut Vec<u8>) -> Result<bool, FetchError> {
        let Some(request) = &mut self.request else { return Ok(false) };
        if request.inbox.is_empty() && !self.decoder.is_end() {
            match request.try_read() {
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
        let is_end = decode(&mut self.decoder, &mut request.inbox, into)?;
        if is_end {
            let is_clean = request.inbox.is_empty();
            self.end(is_clean);
        }
        Ok(!is_end)
    }

    /// Moves bytes that have arrived into an empty pipe, without waiting; 0 at the end of the
    /// connection. The last byte of the body is left for [`Self::take`], and so is every byte of a body
    /// that is decoded.
    ///
    /// # Errors
    /// `WouldBlock` when none have arrived; `Unsupported` when none can be moved; else the error of
    /// the connection.
    pub(crate) fn fill_pipe(&mut self, pipe: &mut Pipe) -> io::Result<usize> {
        let len = self.decoder.remaining().unwrap_or(0).saturating_sub(1);
        let request = self.request.as_ref().filter(|request| len > 0 && request.inbox.is_empty());
        let Some(request) = request else { return Err(io::ErrorKind::Unsupported.into()) };
        let n_moved =
            request.transport().fill_pipe(pipe, usize::try_from(len).unwrap_or(usize::MAX))?;
        self.decoder.skip(n_moved as u64);
        Ok(n_moved)
    }

    /// Waits until the origin has sent something, or has gone.
    pub(crate) async fn wait(&mut self) -> Result<(), FetchError> {
        let Some(request) = &self.request else { return Ok(()) };
        let deadline_ms = reactor::now().mono_ms() + request.limits().idle_ms;
        request.transport().readable(deadline_ms).await.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => FetchError::IdleTimeout,
            _ => FetchError::Truncated,
        })
    }

    /// Bytes that are still to come, if the response said how many there are.
    pub(crate) fn remaining(&self) -> Option<u64> {
        self.decoder.remaining()
    }

    /// The fields that followed the last chunk.
    pub(crate) fn take_trailers(&mut self) -> Fields {
        self.decoder.take_trailers()
    }

    fn end(&mut self, is_clean: bool) {
        if let Some(request) = self.request.take()
            && is_clean
            && self.keeps_alive
            && !request.is_eof
        {
            request.connection.give_back();
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
        match decoder.decode(rest).map_err(|_| FetchError::BadResponse)? {
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
