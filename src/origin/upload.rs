//! A request's body on its way to an origin.

use crate::http::head::ResponseHead;

/// The body of a request, piece by piece, framed for the origin.
// One thread runs everything, so no bound on the futures is wanted.
#[allow(async_fn_in_trait)]
pub trait Upload {
    /// Why the body broke off, or why an interim response could not be passed on.
    type Error;

    /// The whole of it, if it is in memory; [`Upload::next`] is then not called.
    fn in_memory(&self) -> Option<&[u8]>;

    /// Appends the next piece to `into`; `false` if it was the last. If the future is dropped while
    /// it waits, no byte is lost and none was appended.
    async fn next(&mut self, into: &mut Vec<u8>) -> Result<bool, Self::Error>;

    /// Whether it can go back to the beginning at any time.
    fn is_whole(&self) -> bool;

    /// Goes back to the beginning, so that another origin can be asked; `false` if it cannot.
    fn rewind(&mut self) -> bool;

    /// Passes an interim response (RFC 9110 section 15.2) to the client.
    async fn interim(&mut self, head: &ResponseHead) -> Result<(), Self::Error>;

    /// Waits until all clients that wait for the answer are gone.
    async fn gone(&mut self);

    /// As [`Upload::gone`], while the request waits for a connection: a client that has closed its own
    /// direction counts as gone too.
    async fn left(&mut self);
}
