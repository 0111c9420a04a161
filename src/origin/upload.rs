//! A request's body on its way to an origin.

use crate::disk::file::DiskFile;
use crate::http::head::ResponseHead;
use crate::reactor::pipe::Pipe;

/// The body of a request, piece by piece, framed for the origin.
// One thread runs everything, so no bound on the futures is wanted.
#[allow(async_fn_in_trait)]
pub trait Upload {
    /// Why the body broke off, or why an interim response could not be passed on.
    type Error;

    /// The whole of it, if it is in memory; [`Upload::next`] is then not called.
    fn in_memory(&self) -> Option<&[u8]>;

    /// The file that has the whole of it, and its length; [`Upload::next`] is then not called.
    fn in_file(&self) -> Option<(DiskFile, u64)> {
        None
    }

    /// Whether [`Upload::fill_pipe`] may be called: much is to come, and it comes as the origin gets it.
    fn gives_pipe(&self) -> bool {
        false
    }

    /// Moves the next piece into an empty pipe. The future may be dropped as that of [`Upload::next`].
    async fn fill_pipe(&mut self, _pipe: &mut Pipe) -> Result<(), Self::Error> {
        Ok(())
    }

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
