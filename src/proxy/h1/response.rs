//! The client of one request over HTTP/1: reading its body and writing the response.

use std::io;
use std::time::Duration;

use crate::config::bounds::RouteTimeouts;
use crate::disk::file::DiskFile;
use crate::http::fields::Fields;
use crate::http::flaw::Flaw;
use crate::http::forward;
use crate::http::h1::body::{Decoded, Decoder, write_chunk_head, write_last_chunk};
use crate::http::h1::head;
use crate::http::head::{BodyLength, ResponseHead};
use crate::http::method::Method;
use crate::http::status::Status;
use crate::http::upgrade;
use crate::http::version::Version;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::front::Front;
use crate::proxy::client::pace::Pace;
use crate::proxy::client::{Client, ClientError, Switch};
use crate::proxy::h1::link::{GATHER_BYTES, Link};
use crate::proxy::routed::Routed;
use crate::reactor;
use crate::reactor::pipe::Pipe;
use crate::tunnel::moved::Moved;
use crate::tunnel::{self, End, Side};

/// How the body of an answer is framed, RFC 9112 section 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// The answer has not begun.
    Unstarted,
    /// There is no body, whatever `Content-Length` is.
    Bodiless,
    /// This many bytes are still to come.
    Left(u64),
    /// In chunks.
    Chunked,
    /// Until the connection is closed.
    UntilClose,
    /// It was broken off.
    Broken,
}

/// The client of one request over HTTP/1.
#[derive(Debug)]
pub(super) struct H1Response<'c> {
    link: &'c mut Link,
    /// How the request came in, if a trusted proxy tells it.
    front: Option<&'c Front>,
    /// `timeouts.client-send`, in milliseconds.
    send_ms: u64,
    method: Method,
    version: Version,
    keeps_alive: bool,
    is_continue_due: bool,
    is_logged: bool,
    body: Decoder,
    pace: Option<Pace>,
    framing: Framing,
    n_body: u64,
    /// Where the body begins, in bytes of the connection.
    body_at: u64,
    /// Bytes that frame chunks.
    n_framing: u64,
}

#[derive(Debug)]
pub(super) struct ResponseOptions {
    /// Whether the connection may go on after the answer.
    pub(super) may_keep_alive: bool,
    /// Whether the answer gets a line in the access log.
    pub(super) is_logged: bool,
    /// How fast the body of the request must come.
    pub(super) pace: Pace,
}

impl<'c> H1Response<'c> {
    pub(super) fn new(
        link: &'c mut Link,
        timeouts: &RouteTimeouts,
        routed: &'c Routed,
        options: ResponseOptions,
    ) -> Self {
        let head = &routed.head;
        Self {
            front: routed.front.as_deref(),
            method: head.method,
            version: head.version,
            keeps_alive: options.may_keep_alive && head.wants_keep_alive(),
            is_logged: options.is_logged,
            is_continue_due: head.expects_continue(),
            body: Decoder::new(head.length, Default::default()),
            pace: Some(options.pace),
            ..Self::to_no_request(link, timeouts)
        }
    }

    /// A response to bytes that are no valid request. It ends the connection.
    pub(super) fn to_no_request(link: &'c mut Link, timeouts: &RouteTimeouts) -> Self {
        Self {
            link,
            front: None,
            send_ms: timeouts.client_send_ms(),
            method: Method::Get,
            version: Version::Http11,
            keeps_alive: false,
            is_logged: false,
            is_continue_due: false,
            body: Decoder::new(BodyLength::None, Default::default()),
            pace: None,
            framing: Framing::Unstarted,
            n_body: 0,
            body_at: 0,
            n_framing: 0,
        }
    }

    /// Whether the connection can carry another request after this one.
    pub(super) fn keeps_alive(&self) -> bool {
        let is_whole = matches!(self.framing, Framing::Bodiless | Framing::Left(0));
        self.keeps_alive && is_whole && self.body.is_end()
    }

    /// Whether the client may still be sending a body that is not going to be read.
    pub(super) fn is_body_unread(&self) -> bool {
        !self.body.is_end()
    }

    /// Bytes of the body that the kernel took, for an answer that was cut off.
    pub(super) fn written_body_bytes(&self) -> u64 {
        let written = self.link.n_written().saturating_sub(self.body_at);
        written.saturating_sub(self.n_framing).min(self.n_body)
    }

    /// Adds the framing in front of `len` bytes of body; returns how many of them belong to the body.
    fn frame(&mut self, len: u64) -> u64 {
        match &mut self.framing {
            Framing::Left(left) => {
                // The client would take bytes beyond the announced length for the next answer.
                let fits = len.min(*left);
                *left -= fits;
                self.n_body += fits;
                fits
            }
            Framing::Chunked => {
                if len > 0 {
                    let n_before = self.link.out.len();
                    write_chunk_head(&mut self.link.out, len as usize);
                    self.n_framing += (self.link.out.len() - n_before + CHUNK_END.len()) as u64;
                }
                self.n_body += len;
                len
            }
            Framing::UntilClose => {
                self.n_body += len;
                len
            }
            Framing::Unstarted | Framing::Bodiless | Framing::Broken => 0,
        }
    }

    /// How many of the `len` bytes that were framed last are kept for later: one if they end the body.
    /// It is sent after the answer's line is in the access log, so that a killed worker cannot leave
    /// a client with a complete answer and the log without its line.
    fn held_back(&self, len: u64) -> u64 {
        u64::from(self.is_logged && self.framing == Framing::Left(0)).min(len)
    }

    fn end_frame(&mut self, len: u64) {
        if self.framing == Framing::Chunked && len > 0 {
            self.link.out.extend_from_slice(CHUNK_END);
        }
    }

    /// Prepares to wait for the request's body. Only a request has one.
    async fn begin_wait(&mut self) -> Result<Option<Wait>, ClientError> {
        if std::mem::take(&mut self.is_continue_due) {
            self.link.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            self.link.write(b"", self.send_ms).await.map_err(ClientError::Closed)?;
        }
        let Some(pace) = &self.pace else { return Ok(None) };
        let since_ms = reactor::now().mono_ms();
        let (deadline_ms, reason) = pace.deadline(since_ms);
        self.link.connection().set_slow(pace.slow_since_ms(since_ms));
        Ok(Some(Wait { since_ms, deadline_ms, reason }))
    }

    /// The wait has ended with this many bytes.
    fn end_wait(&mut self, wait: Wait, read: io::Result<usize>) -> Result<(), ClientError> {
        self.link.connection().set_slow(u64::MAX);
        match (read, &mut self.pace) {
            (Ok(n_read @ 1..), Some(pace)) => {
                pace.add(reactor::now().mono_ms().saturating_sub(wait.since_ms), n_read);
                Ok(())
            }
            (Err(error), _) if error.kind() == io::ErrorKind::TimedOut => {
                Err(ClientError::Closed(wait.reason))
            }
            _ => Err(ClientError::Closed(CloseReason::ClientGone)),
        }
    }

    fn take_body(&mut self, into: &mut Vec<u8>) -> Result<(), ClientError> {
        let n_bytes = self.link.inbox.len() as u64;
        if into.is_empty()
            && self.body.remaining().is_some_and(|left| (1..=left).contains(&n_bytes))
        {
            // All of them are the body as it is, and need no copy.
            std::mem::swap(into, &mut self.link.inbox);
            self.body.skip(n_bytes);
            return Ok(());
        }
        let n_used = decode(&mut self.body, &self.link.inbox, into).map_err(ClientError::Flaw)?;
        self.link.inbox.drain(..n_used);
        self.link.free_inbox();
        Ok(())
    }
}

/// A wait for the body of a request.
#[derive(Clone, Copy)]
struct Wait {
    since_ms: u64,
    deadline_ms: u64,
    /// Why the connection ends at the deadline.
    reason: CloseReason,
}

/// The end of a chunk, RFC 9112 section 7.1.
const CHUNK_END: &[u8] = b"\r\n";

/// Decodes `bytes` as far as they belong to the body; returns how many do.
fn decode(body: &mut Decoder, bytes: &[u8], into: &mut Vec<u8>) -> Result<usize, Flaw> {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        match body.decode(rest)? {
            Decoded::Data { range, consumed } => {
                into.extend_from_slice(rest.get(range).unwrap_or_default());
                at += consumed;
            }
            Decoded::More { consumed } | Decoded::End { consumed } => return Ok(at + consumed),
        }
    }
}

impl Client for H1Response<'_> {
    fn front(&self) -> &Front {
        self.front.unwrap_or(&self.link.connection().front)
    }

    async fn read_body(&mut self, into: &mut Vec<u8>) -> Result<bool, ClientError> {
        if self.body.is_end() {
            return Ok(false);
        }
        let before = into.len();
        loop {
            self.take_body(into)?;
            if self.body.is_end() {
                return Ok(false);
            }
            if into.len() > before {
                return Ok(true);
            }
            let Some(wait) = self.begin_wait().await? else { return Ok(false) };
            let body = &mut self.body;
            let read = self.link.read_through(wait.deadline_ms, |bytes| decode(body, bytes, into));
            match read.await {
                Ok(Err(flaw)) => {
                    self.link.connection().set_slow(u64::MAX);
                    return Err(ClientError::Flaw(flaw));
                }
                Ok(Ok(n_read)) => self.end_wait(wait, Ok(n_read))?,
                Err(error) => self.end_wait(wait, Err(error))?,
            }
        }
    }

    fn gives_pipe(&self) -> bool {
        let is_large = self.body.remaining().is_some_and(|left| left >= Pipe::BODY_BYTES_MIN);
        is_large && self.link.inbox.is_empty() && self.link.connection().transport.has_pipes()
    }

    async fn fill_pipe(&mut self, pipe: &mut Pipe) -> Result<(), ClientError> {
        let left = self.body.remaining().and_then(|left| usize::try_from(left).ok());
        let Some(wait) = self.begin_wait().await? else { return Ok(()) };
        let filled = self.link.fill_pipe(wait.deadline_ms, pipe, left.unwrap_or(0)).await;
        self.body.skip(pipe.len() as u64);
        self.end_wait(wait, filled)
    }

    fn take_trailers(&mut self) -> Fields {
        self.body.take_trailers()
    }

    async fn gone(&mut self) {
        if self.link.connection().transport.broken().await.is_err() {
            // No event will come; the next write fails.
            std::future::pending().await
        }
    }

    async fn left(&mut self) {
        if self.link.connection().transport.closed().await.is_err() {
            std::future::pending().await
        }
    }

    async fn interim(&mut self, head: &ResponseHead) -> Result<(), CloseReason> {
        // HTTP/1.0 has no interim responses, RFC 9110 section 15.2.
        if self.version == Version::Http10 || self.has_started() {
            return Ok(());
        }
        let mut fields = head.fields.clone();
        forward::strip_hop_by_hop(&mut fields);
        fields.remove("content-length");
        head::write_response(&mut self.link.out, head.status, &head.reason, &fields);
        self.link.write(b"", self.send_ms).await
    }

    fn start(&mut self, status: Status, fields: &Fields, length: BodyLength) {
        let is_bodiless = self.method == Method::Head || status.has_no_body(Method::Get);
        self.keeps_alive &= self.body.is_end();
        let mut framing_fields = Fields::new();
        self.framing = match length {
            _ if status.has_no_body(Method::Get) => Framing::Bodiless,
            BodyLength::Known(len) => {
                framing_fields.push(b"Content-Length", itoa::Buffer::new().format(len).as_bytes());
                Framing::Left(len)
            }
            BodyLength::None if is_bodiless => Framing::Bodiless,
            BodyLength::None => {
                framing_fields.push(b"Content-Length", b"0");
                Framing::Left(0)
            }
            BodyLength::Chunked | BodyLength::UntilClose if self.version == Version::Http11 => {
                framing_fields.push(b"Transfer-Encoding", b"chunked");
                Framing::Chunked
            }
            BodyLength::Chunked | BodyLength::UntilClose => {
                self.keeps_alive = false;
                Framing::UntilClose
            }
        };
        if is_bodiless {
            self.framing = Framing::Bodiless;
        }
        match (self.keeps_alive, self.version) {
            (false, _) => framing_fields.push(b"Connection", b"close"),
            (true, Version::Http10) => framing_fields.push(b"Connection", b"keep-alive"),
            (true, _) => {}
        }
        let out = &mut self.link.out;
        out.reserve(fields.wire_len() + framing_fields.wire_len() + 64);
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(itoa::Buffer::new().format(status.0).as_bytes());
        out.push(b' ');
        out.extend_from_slice(status.reason().as_bytes());
        out.extend_from_slice(b"\r\n");
        fields.write_to(out);
        framing_fields.write_to(out);
        out.extend_from_slice(b"\r\n");
        self.body_at = self.link.n_bytes();
    }

    fn has_started(&self) -> bool {
        self.framing != Framing::Unstarted
    }

    fn wants_no_body(&self) -> bool {
        self.method == Method::Head
    }

    fn push(&mut self, bytes: &[u8]) {
        let len = self.frame(bytes.len() as u64);
        self.link.out.extend_from_slice(&bytes[..len as usize]);
        self.end_frame(len);
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        if bytes.len() + self.link.out.len() <= GATHER_BYTES {
            self.push(bytes);
            return Ok(());
        }
        let len = self.frame(bytes.len() as u64);
        let now = len - self.held_back(len);
        let (now, later) = bytes[..len as usize].split_at(now as usize);
        self.link.write(now, self.send_ms).await?;
        self.link.out.extend_from_slice(later);
        self.end_frame(len);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), CloseReason> {
        self.link.write(b"", self.send_ms).await
    }

    async fn send_file(
        &mut self,
        file: &DiskFile,
        offset: u64,
        len: u64,
    ) -> Result<(), CloseReason> {
        let len = self.frame(len);
        let now = len - self.held_back(len);
        self.link.write_file(file, offset, now, self.send_ms).await?;
        if now < len {
            let later = file.read(offset + now, 1).await.unwrap_or_default();
            if later.is_empty() {
                self.abort();
                return Err(CloseReason::Incomplete);
            }
            self.link.out.extend_from_slice(&later);
        }
        self.end_frame(len);
        Ok(())
    }

    fn takes_pipe(&self) -> bool {
        matches!(self.framing, Framing::Left(_)) && self.link.connection().transport.has_pipes()
    }

    async fn send_pipe(&mut self, pipe: &mut Pipe) -> Result<(), CloseReason> {
        let len = self.frame(pipe.len() as u64);
        debug_assert_eq!(len, pipe.len() as u64, "the body goes on");
        self.link.write_pipe(pipe, self.send_ms).await
    }

    async fn finish(&mut self, trailers: &Fields) -> Result<(), CloseReason> {
        match self.framing {
            Framing::Chunked => {
                write_last_chunk(&mut self.link.out, trailers);
                self.framing = Framing::Left(0);
            }
            Framing::Left(0) | Framing::Bodiless | Framing::UntilClose => {}
            // The body is shorter than announced.
            Framing::Left(_) | Framing::Unstarted | Framing::Broken => {
                self.abort();
                return Err(CloseReason::Incomplete);
            }
        }
        Ok(())
    }

    async fn tunnel(
        &mut self,
        switch: &Switch<'_>,
        origin: Side<'_>,
        idle: Duration,
        moved: &Moved,
    ) -> Result<End, CloseReason> {
        let mut fields = switch.fields.clone();
        let status = match switch.protocol {
            Some(protocol) => {
                upgrade::push(&mut fields, protocol);
                Status::SWITCHING_PROTOCOLS
            }
            None => Status(200),
        };
        head::write_response(&mut self.link.out, status, status.reason().as_bytes(), &fields);
        // Nothing that follows is HTTP.
        (self.framing, self.keeps_alive) = (Framing::Bodiless, false);
        self.link.connection().set_tunnel();
        self.link.write(b"", self.send_ms).await?;
        let ahead = std::mem::take(&mut self.link.inbox);
        let client = Side { transport: &self.link.connection().transport, ahead };
        Ok(tunnel::join(client, origin, idle, moved).await)
    }

    fn abort(&mut self) {
        self.framing = Framing::Broken;
        self.link.is_broken = true;
    }

    fn sent_bytes(&self) -> u64 {
        self.n_body
    }
}
