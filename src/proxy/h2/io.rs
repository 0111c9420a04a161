//! A transport with the traits that the HTTP/2 library reads and writes by. They are tokio's; there
//! is no runtime of tokio behind them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proxy::h2::shared::Shared;
use crate::reactor::{self, scratch};

/// The most that one read takes from the socket. The library asks for less at a time; the rest waits
/// in the inbox.
const READ_BYTES: usize = 64 << 10;

/// The bytes of a connection.
#[derive(Debug)]
pub(super) struct Io {
    shared: Rc<Shared>,
    /// Bytes that were read and not used yet; those before `at` were.
    inbox: Vec<u8>,
    at: usize,
}

impl Io {
    /// `read` are the bytes that were read before the protocol was known.
    pub(super) fn new(shared: Rc<Shared>, read: Vec<u8>) -> Self {
        shared.budget.borrow_mut().note_read(&read, reactor::now().mono_ms());
        Self { shared, inbox: read, at: 0 }
    }

    /// Gives as much of the inbox as there is room for; `false` if the inbox is empty.
    fn take_inbox(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let rest = self.inbox.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            return false;
        }
        let n_taken = rest.len().min(buf.remaining());
        buf.put_slice(rest.get(..n_taken).unwrap_or_default());
        self.at += n_taken;
        if self.at == self.inbox.len() {
            (self.inbox, self.at) = (Vec::new(), 0);
        }
        true
    }

    /// Reads what has arrived; keeps what there is no room for.
    fn try_read(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let (shared, inbox) = (&self.shared, &mut self.inbox);
        scratch::with_scratch(|scratch| {
            let room = scratch.len().min(READ_BYTES);
            let n_read = shared.connection().transport.try_read(&mut scratch[..room])?;
            let read = scratch.get(..n_read).unwrap_or_default();
            shared.budget.borrow_mut().note_read(read, reactor::now().mono_ms());
            let (now, later) = read.split_at(n_read.min(buf.remaining()));
            buf.put_slice(now);
            inbox.extend_from_slice(later);
            Ok(())
        })
    }
}

/// Lets other tasks run if this one has spent its budget.
fn poll_breathe(context: &Context<'_>) -> Poll<()> {
    if reactor::is_spent() {
        context.waker().wake_by_ref();
        return Poll::Pending;
    }
    Poll::Ready(())
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.take_inbox(buf) {
            return Poll::Ready(Ok(()));
        }
        ready!(poll_breathe(context));
        loop {
            match self.try_read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.shared.connection().transport.poll_read_ready(context))?;
                }
                other => return Poll::Ready(other),
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(poll_breathe(context));
        self.shared.poll_write(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(poll_breathe(context));
        self.shared.poll_write(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The library flushes after each frame; the connection's task does so at the end of its turn.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The connection's task ends the connection, after it has read what is still under way.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.poll_flush(context)
    }
}
