//! A client as an exchange sees it: the source of the request's body and the receiver of the answer,
//! over any protocol and transport.

pub mod front;
pub mod connections;
pub(crate) mod pace;
pub(crate) mod linger;
#[cfg(test)]
#[path = "tests/fake.rs"]
pub(crate) mod fake;

use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use crate::cache::hot::large::LargeBody;
use crate::disk::file::DiskFile;
use crate::http::fields::Fields;
use crate::http::flaw::Flaw;
use crate::http::head::{BodyLength, ResponseHead};
use crate::http::status::Status;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::front::Front;
use crate::reactor::pipe::Pipe;
use crate::tunnel::moved::Moved;
use crate::tunnel::{End, Side};

/// The answer that switches a connection to another protocol.
#[derive(Clone, Copy, Debug)]
pub struct Switch<'a> {
    /// The protocol, as `Upgrade` names it; `None` for a CONNECT, which names none.
    pub protocol: Option<&'a [u8]>,
    /// The other fields.
    pub fields: &'a Fields,
}

/// Why the body of a request cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// The connection, or the stream, has ended or must end.
    Closed(CloseReason),
    /// The request's body breaks the protocol.
    Flaw(Flaw),
}

/// The client of one request, over any protocol.
///
/// The order of calls is: any number of `read_body`, `fill_pipe` and `interim`, one `start`, any number of `push`,
/// `send`, `send_file` and `send_pipe`, then `finish` or `abort`. Every future may be dropped; the exchange is then
/// over.
// One thread runs everything, so the futures need no `Send` bound.
#[allow(async_fn_in_trait)]
pub trait Client {
    /// How the client's connection came in.
    fn front(&self) -> &Front;

    /// Waits for a part of the request's body and appends it to `into`; `false` at the end.
    async fn read_body(&mut self, into: &mut Vec<u8>) -> Result<bool, ClientError>;

    /// Whether [`Client::fill_pipe`] may be called: much of the request's body is to come, and it comes
    /// as it is.
    fn gives_pipe(&self) -> bool;

    /// Waits for a part of the request's body and moves it into an empty pipe.
    async fn fill_pipe(&mut self, pipe: &mut Pipe) -> Result<(), ClientError>;

    /// The trailer fields of the request, once its body was read to the end.
    fn take_trailers(&mut self) -> Fields;

    /// Waits until the client has gone: its connection is broken, or its stream was reset. A client
    /// that has only closed its own direction still reads. Must not run beside `read_body`.
    async fn gone(&mut self);

    /// Waits until the client has gone, or has closed its own direction: most clients that do so have
    /// left. Must not run beside `read_body`.
    async fn left(&mut self);

    /// Passes on an interim response, RFC 9110 section 15.2.
    async fn interim(&mut self, head: &ResponseHead) -> Result<(), CloseReason>;

    /// Begins the answer. `length` is what is known of the length of its body. The protocol decides
    /// how the body is framed, and sends none in answer to HEAD.
    fn start(&mut self, status: Status, fields: &Fields, length: BodyLength);

    /// Whether [`Client::start`] was called: from then on a failure can only abort the answer.
    fn has_started(&self) -> bool;

    /// Whether the answer to the request has no body: it is a HEAD.
    fn wants_no_body(&self) -> bool;

    /// Keeps part of the body, to be sent together with what follows. `bytes` are no more than the
    /// largest body that the hot tier keeps behind its head.
    fn push(&mut self, bytes: &[u8]);

    /// Sends part of the body. A small part may be kept, to be sent together with what follows.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), CloseReason>;

    /// Sends part of a body that lies within the memory of the hot tier, perhaps without a copy.
    async fn send_shared(
        &mut self,
        body: &Rc<LargeBody>,
        range: Range<usize>,
    ) -> Result<(), CloseReason> {
        self.send(body.get(range).unwrap_or_default()).await
    }

    /// Sends what is kept.
    async fn flush(&mut self) -> Result<(), CloseReason>;

    /// Sends part of the body from a file: `len` bytes from `offset`.
    async fn send_file(
        &mut self,
        file: &DiskFile,
        offset: u64,
        len: u64,
    ) -> Result<(), CloseReason>;

    /// Whether [`Client::send_pipe`] may be called: the protocol sends a body as it is.
    fn takes_pipe(&self) -> bool;

    /// Sends what is kept, and then part of the body: the bytes of a pipe, which do not end the body.
    async fn send_pipe(&mut self, pipe: &mut Pipe) -> Result<(), CloseReason>;

    /// Ends the answer. The connection sends the kept bytes after the access log has its line.
    async fn finish(&mut self, trailers: &Fields) -> Result<(), CloseReason>;

    /// Sends the answer that switches to another protocol, in the place of `start`, and joins the client
    /// with an origin until the tunnel ends.
    async fn tunnel(
        &mut self,
        switch: &Switch<'_>,
        origin: Side<'_>,
        idle: Duration,
        moved: &Moved,
    ) -> Result<End, CloseReason>;

    /// Breaks the answer off, so that the client does not take it for complete.
    fn abort(&mut self);

    /// Bytes of the body that were sent or kept so far.
    fn sent_bytes(&self) -> u64;
}
