//! The client of one request over HTTP/2: reading its body and sending the response.
//!
//! A part of the body is read, and given to the library, only when the client's windows have room for it
//! and the library holds few bytes of the connection, so that a client that does not read holds few. The
//! stream is ended by [`H2Response::end`], after
//! the access log has its line.

use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{Response, StatusCode};

use crate::cache::hot::large::LargeBody;
use crate::disk::file::DiskFile;
use crate::http::fields::Fields;
use crate::http::forward;
use crate::http::head::{BodyLength, ResponseHead};
use crate::http::method::Method;
use crate::http::status::Status;
use crate::http::upgrade;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::front::Front;
use crate::proxy::client::pace::Pace;
use crate::proxy::client::{Client, ClientError, Switch};
use crate::proxy::h2::fields::fields_of;
use crate::proxy::h2::payload::Payload;
use crate::proxy::h2::request_body::RequestBody;
use crate::proxy::h2::shared::Shared;
use crate::proxy::h2::stall::Stall;
use crate::proxy::h2::tunnel;
use crate::proxy::routed::Routed;
use crate::reactor::pipe::Pipe;
use crate::reactor::{self, timer};
use crate::tunnel::moved::Moved;
use crate::tunnel::{End, Side};

/// The most bytes of a part of a body that the hot tier shares, and of those that the library holds of a
/// stream.
pub(super) const PART_BYTES: usize = 64 << 10;

/// The most bytes of a part that the library alone holds.
const OWN_PART_BYTES: usize = 32 << 10;

/// Small parts are gathered up to this size before they are sent.
const GATHER_BYTES: usize = 16 << 10;

/// How far the answer is.
#[derive(Debug)]
pub(super) enum Stage {
    Unstarted,
    /// The head is not sent yet, so that it can go out together with what follows.
    Begun(Box<Response<()>>),
    /// The head is sent.
    Open(SendStream<Payload>),
    /// The stream is a tunnel, of which both sides may have ended.
    Tunnel {
        is_finished: bool,
    },
    /// The answer is broken off.
    Broken,
}

/// The part of the body that may still come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// There is no body.
    Bodiless,
    Known(u64),
    Unknown,
}

/// The client of one request over HTTP/2.
#[derive(Debug)]
pub(super) struct H2Response<'c> {
    shared: &'c Rc<Shared>,
    front: Option<&'c Front>,
    send_ms: u64,
    method: Method,
    is_continue_due: bool,
    /// It asks for another protocol.
    is_connect: bool,
    body: RequestBody,
    pub(super) respond: SendResponse<Payload>,
    pub(super) stage: Stage,
    left: Left,
    /// A part of the body that may be its last, for which the windows have room.
    last: Option<Payload>,
    /// Bytes of the body behind it that are kept.
    out: Vec<u8>,
    /// The last part of the body, for which the windows have room, and the trailers: once the answer is
    /// whole.
    pub(super) finished: Option<(Option<Payload>, Fields)>,
    pub(super) n_body: u64,
    pub(super) n_head: u64,
    stall: Stall,
}

impl<'c> H2Response<'c> {
    pub(super) fn new(
        shared: &'c Rc<Shared>,
        body: RecvStream,
        respond: SendResponse<Payload>,
        began_ms: u64,
    ) -> Self {
        let config = &shared.context.config;
        Self {
            shared,
            front: None,
            send_ms: config.timeouts.route.client_send_ms(),
            method: Method::Get,
            is_continue_due: false,
            is_connect: false,
            body: RequestBody::new(
                body,
                Pace::new(&config.timeouts.route, &config.limits, began_ms),
            ),
            respond,
            stage: Stage::Unstarted,
            left: Left::Unknown,
            last: None,
            out: Vec::new(),
            finished: None,
            n_body: 0,
            n_head: 0,
            stall: Stall::default(),
        }
    }

    /// As [`Self::new`] for a request with a valid head.
    pub(super) fn to(self, routed: &'c Routed, began_ms: u64) -> Self {
        let (head, front, context) = (&routed.head, routed.front.as_deref(), &self.shared.context);
        let timeouts = routed.timeouts(context);
        let (method, is_continue_due) = (head.method, head.expects_continue());
        let send_ms = timeouts.client_send_ms();
        let pace = Pace::new(timeouts, &context.config.limits, began_ms);
        let body = self.body.at_pace(pace);
        let is_connect = upgrade::is_by_connect(head);
        Self { front, send_ms, method, is_continue_due, is_connect, body, ..self }
    }

    /// The same with its head, and before all of its body.
    pub(super) fn resumed(self, stage: Stage, body_len: u64, n_head: u64) -> Self {
        Self { stage, left: Left::Known(body_len), n_head, ..self }
    }

    /// Gives the library a part of the body, or keeps it if it may be the last one: the last part ends the
    /// stream, behind the line in the access log.
    pub(super) fn give(&mut self, part: Payload, is_last: bool) -> Result<(), CloseReason> {
        if is_last {
            self.last = Some(part);
            return Ok(());
        }
        self.stream()?.send_data(part, false).map_err(gone)
    }

    /// Bytes that are in no other memory.
    pub(super) fn held(&self, bytes: Bytes) -> Payload {
        Payload::Held { _held: self.shared.hold(bytes.len()), bytes }
    }

    pub(super) fn send_head(&mut self, is_end: bool) -> Result<(), CloseReason> {
        match std::mem::replace(&mut self.stage, Stage::Broken) {
            Stage::Begun(head) => {
                self.stage = Stage::Open(self.respond.send_response(*head, is_end).map_err(gone)?);
            }
            other => self.stage = other,
        }
        Ok(())
    }

    /// The stream of the body, behind the head.
    pub(super) fn stream(&mut self) -> Result<&mut SendStream<Payload>, CloseReason> {
        self.send_head(false)?;
        match &mut self.stage {
            Stage::Open(stream) => Ok(stream),
            _ => Err(CloseReason::Incomplete),
        }
    }

    /// Waits until the library may get some of `n_wanted` bytes: the client's windows have room for them,
    /// and so has the library if they are its own. Gives how many it may get.
    pub(super) async fn capacity(
        &mut self,
        n_wanted: usize,
        kept: Kept,
    ) -> Result<usize, CloseReason> {
        let n_wanted = n_wanted.min(match kept {
            Kept::Own => OWN_PART_BYTES,
            Kept::Shared => PART_BYTES,
        });
        reactor::breathe().await;
        self.stream()?.reserve_capacity(n_wanted);
        loop {
            let stream = self.stream()?;
            let n_free = stream.capacity().min(n_wanted);
            if n_free > 0 && (kept == Kept::Shared || self.shared.has_room()) {
                self.stall.note_taken(n_free);
                self.shared.budget.borrow_mut().note_data(n_free);
                return Ok(n_free);
            }
            let since_ms = reactor::now().mono_ms();
            let deadline_ms = self.stall.deadline_ms(since_ms, self.send_ms);
            let mut room = pin!(self.shared.room.after(self.shared.room.version()));
            let stream = self.stream()?;
            let more = poll_fn(|context| match n_free {
                0 => stream.poll_capacity(context).map(|it| it.is_some_and(|it| it.is_ok())),
                _ if stream.poll_reset(context).is_ready() => Poll::Ready(false),
                _ => room.as_mut().poll(context).map(|()| true),
            });
            match timer::timeout_at(deadline_ms, more).await {
                Ok(true) => {}
                Ok(false) => return Err(CloseReason::ClientGone),
                Err(_) => return Err(CloseReason::SendTimeout),
            }
            self.stall.note_waited(since_ms);
        }
    }

    /// How many of `len` bytes belong to the body: the client would take more for a broken answer.
    pub(super) fn count(&mut self, len: u64) -> u64 {
        let fits = match &mut self.left {
            Left::Bodiless => 0,
            Left::Unknown => len,
            Left::Known(left) => {
                let fits = len.min(*left);
                *left -= fits;
                fits
            }
        };
        self.n_body += fits;
        fits
    }

    /// Sends the kept bytes.
    async fn send_out(&mut self) -> Result<(), CloseReason> {
        self.send_last()?;
        let mut out = Bytes::from(std::mem::take(&mut self.out));
        while !out.is_empty() {
            let n_free = self.capacity(out.len(), Kept::Own).await?;
            let part = self.held(out.split_to(n_free));
            self.give(part, false)?;
        }
        Ok(())
    }

    /// Sends the part that is not the last one after all.
    fn send_last(&mut self) -> Result<(), CloseReason> {
        self.last.take().map_or(Ok(()), |part| self.give(part, false))
    }
}

/// Where the bytes of a part are while the library has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Own,
    Shared,
}

/// The library refuses to send on a stream that was reset, or of a connection that has ended.
pub(super) fn gone(_: h2::Error) -> CloseReason {
    CloseReason::ClientGone
}

impl Client for H2Response<'_> {
    fn front(&self) -> &Front {
        self.front.unwrap_or(&self.shared.connection().front)
    }

    async fn read_body(&mut self, into: &mut Vec<u8>) -> Result<bool, ClientError> {
        if std::mem::take(&mut self.is_continue_due) && !self.body.is_end() {
            let mut head = Response::new(());
            *head.status_mut() = StatusCode::CONTINUE;
            let sent = self.respond.send_informational(head).map_err(gone);
            sent.map_err(ClientError::Closed)?;
        }
        self.body.read(into).await
    }

    fn gives_pipe(&self) -> bool {
        false
    }

    async fn fill_pipe(&mut self, _: &mut Pipe) -> Result<(), ClientError> {
        Err(ClientError::Closed(CloseReason::Incomplete))
    }

    fn take_trailers(&mut self) -> Fields {
        self.body.take_trailers()
    }

    async fn gone(&mut self) {
        let (respond, stage) = (&mut self.respond, &mut self.stage);
        poll_fn(|context| match stage {
            Stage::Open(stream) => stream.poll_reset(context).map(drop),
            _ => respond.poll_reset(context).map(drop),
        })
        .await;
    }

    /// A client ends its direction with each request.
    async fn left(&mut self) {
        self.gone().await;
    }

    async fn interim(&mut self, head: &ResponseHead) -> Result<(), CloseReason> {
        if self.has_started() || head.status == Status::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        let mut fields = head.fields.clone();
        forward::strip_hop_by_hop(&mut fields);
        fields.remove("content-length");
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(head.status.0).unwrap_or_default();
        *response.headers_mut() = fields_of(&fields);
        self.respond.send_informational(response).map_err(gone)
    }

    fn start(&mut self, status: Status, fields: &Fields, length: BodyLength) {
        // The client would take it for a tunnel.
        let is_mistaken = self.is_connect && (200..300).contains(&status.0);
        let status = if is_mistaken { Status(502) } else { status };
        let has_no_body = status.has_no_body(Method::Get);
        let length = match length {
            _ if has_no_body => None,
            BodyLength::Known(len) => Some(len),
            BodyLength::None => (self.method != Method::Head).then_some(0),
            BodyLength::Chunked | BodyLength::UntilClose => None,
        };
        self.left = match length {
            _ if has_no_body || self.method == Method::Head => Left::Bodiless,
            Some(len) => Left::Known(len),
            None => Left::Unknown,
        };
        let mut head = Response::new(());
        *head.status_mut() = StatusCode::from_u16(status.0).unwrap_or(StatusCode::BAD_GATEWAY);
        *head.headers_mut() = fields_of(fields);
        if let Some(len) = length {
            head.headers_mut().insert(http::header::CONTENT_LENGTH, len.into());
        }
        self.n_head = fields.wire_len() as u64;
        self.stage = Stage::Begun(Box::new(head));
    }

    fn has_started(&self) -> bool {
        !matches!(self.stage, Stage::Unstarted)
    }

    fn wants_no_body(&self) -> bool {
        self.method == Method::Head
    }

    fn push(&mut self, bytes: &[u8]) {
        let len = self.count(bytes.len() as u64) as usize;
        self.out.extend_from_slice(bytes.get(..len).unwrap_or_default());
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        if bytes.len() + self.out.len() <= GATHER_BYTES {
            self.push(bytes);
            return Ok(());
        }
        self.send_out().await?;
        let len = self.count(bytes.len() as u64) as usize;
        let mut rest = bytes.get(..len).unwrap_or_default();
        while rest.len() > GATHER_BYTES {
            let n_free = self.capacity(rest.len(), Kept::Own).await?;
            let (part, later) = rest.split_at(n_free);
            let part = self.held(Bytes::copy_from_slice(part));
            self.give(part, false)?;
            rest = later;
        }
        self.out.extend_from_slice(rest);
        Ok(())
    }

    async fn send_shared(
        &mut self,
        body: &Rc<LargeBody>,
        range: Range<usize>,
    ) -> Result<(), CloseReason> {
        self.send_out().await?;
        let len = self.count(range.len() as u64) as usize;
        let (mut at, end) = (range.start, range.start + len);
        while at < end {
            let part = at..at + self.capacity(end - at, Kept::Shared).await?;
            at = part.end;
            self.give(Payload::Shared(Rc::clone(body), part), at == end)?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), CloseReason> {
        self.send_head(false)?;
        self.send_out().await
    }

    async fn send_file(
        &mut self,
        file: &DiskFile,
        mut offset: u64,
        len: u64,
    ) -> Result<(), CloseReason> {
        self.send_out().await?;
        let mut n_left = self.count(len);
        while n_left > 0 {
            let part = n_left.min(OWN_PART_BYTES as u64) as usize;
            let n_free = self.capacity(part, Kept::Own).await?;
            // Other streams run while the file is read.
            let _held = self.shared.hold(n_free);
            let bytes = file.read(offset, n_free).await.unwrap_or_default();
            if bytes.len() < n_free {
                self.abort();
                return Err(CloseReason::Incomplete);
            }
            reactor::charge(n_free);
            offset += n_free as u64;
            n_left -= n_free as u64;
            self.give(Payload::Held { bytes: bytes.into(), _held }, n_left == 0)?;
        }
        Ok(())
    }

    fn takes_pipe(&self) -> bool {
        false
    }

    async fn send_pipe(&mut self, _: &mut Pipe) -> Result<(), CloseReason> {
        Err(CloseReason::Incomplete)
    }

    async fn finish(&mut self, trailers: &Fields) -> Result<(), CloseReason> {
        if matches!(self.left, Left::Known(1..)) || !self.has_started() {
            // The body is shorter than announced.
            self.abort();
            return Err(CloseReason::Incomplete);
        }
        // The rest fits the windows, so that the end of the stream needs no wait.
        let mut rest = Bytes::from(std::mem::take(&mut self.out));
        while !rest.is_empty() {
            self.send_last()?;
            let n_free = self.capacity(rest.len(), Kept::Own).await?;
            let part = self.held(rest.split_to(n_free));
            self.give(part, rest.is_empty())?;
        }
        let last = self.last.take();
        let has_body = self.left != Left::Bodiless;
        self.finished = Some((last, if has_body { trailers.clone() } else { Fields::new() }));
        Ok(())
    }

    async fn tunnel(
        &mut self,
        switch: &Switch<'_>,
        origin: Side<'_>,
        idle: Duration,
        moved: &Moved,
    ) -> Result<End, CloseReason> {
        let mut head = Response::new(());
        *head.headers_mut() = fields_of(switch.fields);
        head.headers_mut().remove("sec-websocket-accept");
        let send = self.respond.send_response(head, false).map_err(gone)?;
        self.n_head = switch.fields.wire_len() as u64;
        let Some(receive) = self.body.take_stream() else { return Err(CloseReason::ClientGone) };
        self.shared.connection().set_tunnel();
        let streams = (receive, send);
        self.stage = Stage::Tunnel { is_finished: false };
        let end = Box::pin(tunnel::join(self.shared, streams, origin, idle, moved)).await;
        self.stage = Stage::Tunnel { is_finished: end == End::Finished };
        Ok(end)
    }

    fn abort(&mut self) {
        self.stage = Stage::Broken;
        (self.last, self.finished) = (None, None);
    }

    fn sent_bytes(&self) -> u64 {
        self.n_body
    }
}
