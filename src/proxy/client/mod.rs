//! What an exchange knows of a client: where its request's body comes from and where the answer
//! goes, but not which protocol or transport carries them.

pub mod front;
pub mod connections;
#[cfg(test)]
#[path = "tests/fake.rs"]
pub(crate) mod fake;

use std::fs::File;

use crate::http::fields::Fields;
use crate::http::flaw::Flaw;
use crate::http::head::{BodyLength, ResponseHead};
use crate::http::status::Status;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::front::Front;

/// Why nothing more comes from or goes to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// The connection, or the stream, has ended or must end.
    Closed(CloseReason),
    /// The request's body breaks the protocol.
    Flaw(Flaw),
}

/// One request's client, over any protocol.
///
/// The order is: any number of `read_body` and `interim`, one `start`, any number of `send` and
/// `send_file`, then `finish` or `abort`. Every wait may be dropped; the exchange is then over.
// One thread runs everything, so no bound on the futures is wanted.
#[allow(async_fn_in_trait)]
pub trait Client {
    /// What the client's connection came in by.
    fn front(&self) -> &Front;

    /// Appends what has come of the request's body to `into`; `false` at its end.
    async fn read_body(&mut self, into: &mut Vec<u8>) -> Result<bool, ClientError>;

    /// What followed the last chunk of the request's body, once it was read to its end.
    fn take_trailers(&mut self) -> Fields;

    /// Waits until the client is known to have gone: its connection is broken, or its stream was
    /// reset. One that has merely said everything is still listening. Not while its body is read.
    async fn gone(&mut self);

    /// Passes on an interim response, RFC 9110 section 15.2.
    async fn interim(&mut self, head: &ResponseHead) -> Result<(), CloseReason>;

    /// Begins the answer. `length` is what is known of its body; how it is framed, and whether it
    /// is sent at all in answer to HEAD, is the protocol's affair.
    fn start(&mut self, status: Status, fields: &Fields, length: BodyLength);

    /// Whether [`Client::start`] was called: from then on a failure can only end the answer.
    fn has_started(&self) -> bool;

    /// Whether the request asks for no body in its answer.
    fn wants_no_body(&self) -> bool;

    /// Keeps part of the body to be sent with what follows; at most a hot body's size at a time.
    fn push(&mut self, bytes: &[u8]);

    /// Sends part of the body. Small parts may be kept to be sent with what follows.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), CloseReason>;

    /// Sends what was kept.
    async fn flush(&mut self) -> Result<(), CloseReason>;

    /// Sends part of the body from a file: `len` bytes from `offset`.
    async fn send_file(&mut self, file: &File, offset: u64, len: u64) -> Result<(), CloseReason>;

    /// Ends the answer; the caller sees to it that what was kept of it is sent.
    async fn finish(&mut self, trailers: &Fields) -> Result<(), CloseReason>;

    /// Breaks the answer off so that the client cannot take it for complete.
    fn abort(&mut self);

    /// Bytes of body sent, or given to be sent, so far.
    fn sent_bytes(&self) -> u64;
}
