//! One direction of a tunnel.
//!
//! Small messages are copied through the buffer that all reads of the worker share. A sender that has more
//! than [`BULK_BYTES`] at once is spliced through a pipe, if both connections are plain and a pipe is free.
//! A way holds memory, or a pipe, only for bytes that its receiver does not take at once.

use std::io::{self, ErrorKind};

use crate::reactor::pipe::Pipe;
use crate::reactor::{self, scratch};
use crate::sys::pinned::Race;
use crate::transport::Transport;
use crate::tunnel::moved::Count;

/// The bytes of one peer on their way to the other.
pub(super) struct Way<'t> {
    pub(super) from: &'t Transport,
    pub(super) to: &'t Transport,
    pub(super) count: Count<'t>,
    /// The count of the other direction.
    pub(super) other: Count<'t>,
}

/// The result of a step of a way.
enum Step {
    /// Bytes moved; as many as `BULK_BYTES` or more if the flag is set.
    Moved { is_bulk: bool },
    /// The sender has sent nothing more so far.
    Drained,
    /// The sender has ended its side; with TLS it may not have said so.
    End { is_clean: bool },
}

/// Why a way cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// The connection to the sender broke.
    Sender,
    /// The receiver takes no more bytes. It may have sent some that are still to be read.
    Receiver,
}

impl Way<'_> {
    /// Passes the bytes `ahead` on, and then all that the sender sends. At the end of the sender's side
    /// the receiver is told, and the way goes on until the sender's connection breaks.
    pub(super) async fn run(self, ahead: Vec<u8>) -> Gone {
        let passed = self.pass_on(ahead).await;
        let told = match passed {
            Ok(true) => {
                self.to.finished(0).await;
                self.to.shutdown_write()
            }
            // A receiver with TLS must not take what it got for the whole either.
            Ok(false) => self.to.cut_write(),
            Err(gone) => return gone,
        };
        match told {
            // A receiver that has ended its side may have closed its connection too.
            Err(_) if !self.other.is_ended() => Gone::Receiver,
            _ => {
                self.count.end();
                let _ = self.from.broken().await;
                Gone::Sender
            }
        }
    }

    /// Passes bytes on to the end of the sender's side; `false` if the sender has not said that it ends.
    async fn pass_on(&self, ahead: Vec<u8>) -> Result<bool, Gone> {
        self.write(ahead).await?;
        let mut is_bulk = false;
        loop {
            reactor::breathe().await;
            let step = match is_bulk {
                true => self.splice().await?,
                false => self.copy().await?,
            };
            match step {
                Step::Moved { is_bulk: next } => is_bulk = next,
                Step::Drained => {
                    self.from.readable(0).await.map_err(|_| Gone::Sender)?;
                }
                Step::End { is_clean } => return Ok(is_clean),
            }
        }
    }

    /// Reads what has arrived, and writes it.
    async fn copy(&self) -> Result<Step, Gone> {
        let mut rest = Vec::new();
        let read = scratch::with_scratch(|scratch| {
            let room = scratch.len().min(COPY_BYTES);
            let n_read = self.from.try_read(&mut scratch[..room])?;
            let bytes = scratch.get(..n_read).unwrap_or_default();
            if bytes.is_empty() {
                return Ok(0);
            }
            // An error is found again when the rest is written.
            let n_written = self.to.try_write(bytes).unwrap_or(0);
            rest.extend_from_slice(bytes.get(n_written..).unwrap_or_default());
            self.count.add(n_written);
            Ok::<_, io::Error>(n_read)
        });
        let n_read = match read {
            Ok(n_read) => n_read,
            Err(error) => return ended(&error),
        };
        self.write(rest).await?;
        Ok(match n_read {
            0 => Step::End { is_clean: true },
            _ => Step::Moved { is_bulk: n_read >= BULK_BYTES && self.can_splice() },
        })
    }

    fn can_splice(&self) -> bool {
        self.from.has_pipes() && self.to.has_pipes()
    }

    /// Writes all of `bytes`, without memory once they are written.
    async fn write(&self, bytes: Vec<u8>) -> Result<(), Gone> {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            reactor::breathe().await;
            match self.to.try_write(rest) {
                Ok(n_written) => {
                    self.count.add(n_written);
                    rest = rest.get(n_written..).unwrap_or_default();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable().await?,
                Err(_) => return Err(Gone::Receiver),
            }
        }
        Ok(())
    }

    /// Moves what has arrived through a pipe. Without a free pipe it is copied.
    async fn splice(&self) -> Result<Step, Gone> {
        let Ok(mut pipe) = Pipe::take() else { return self.copy().await };
        let filled = self.from.fill_pipe(&mut pipe, SPLICE_BYTES);
        while !pipe.is_empty() {
            reactor::breathe().await;
            match self.to.write_pipe(&mut pipe) {
                Ok(n_written) => self.count.add(n_written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable().await?,
                Err(_) => return Err(Gone::Receiver),
            }
        }
        pipe.give_back();
        match filled {
            Ok(0) => Ok(Step::End { is_clean: true }),
            Ok(n_filled) => Ok(Step::Moved { is_bulk: n_filled >= BULK_BYTES }),
            // Urgent bytes, for example, stop splice(2) and not a read.
            Err(error) if error.kind() == ErrorKind::InvalidInput => self.copy().await,
            Err(error) => ended(&error),
        }
    }

    /// Waits until the receiver takes more, unless the sender's connection breaks. After the ends of both
    /// sides the kernel calls that broken too, so it does not count then.
    async fn writable(&self) -> Result<(), Gone> {
        loop {
            let written = match self.other.is_ended() {
                true => Some(self.to.writable(0).await),
                false => Race::new(self.to.writable(0), self.from.broken()).await,
            };
            match written {
                Some(written) => return written.map_err(|_| Gone::Receiver),
                None if self.other.is_ended() => {}
                None => return Err(Gone::Sender),
            }
        }
    }
}

/// The meaning of an error of a read. With TLS a peer may close its connection without a close_notify, as
/// many do; the protocol in the tunnel tells whether its message is whole.
fn ended(error: &io::Error) -> Result<Step, Gone> {
    match error.kind() {
        ErrorKind::WouldBlock => Ok(Step::Drained),
        ErrorKind::UnexpectedEof => Ok(Step::End { is_clean: false }),
        _ => Err(Gone::Sender),
    }
}

/// The most that one read takes, and so the most that a way holds for a receiver that takes nothing.
const COPY_BYTES: usize = 64 << 10;

/// A read of this much begins the splicing, and a splice of less ends it: for less a copy costs less than
/// the second descriptor.
const BULK_BYTES: usize = 32 << 10;

/// The most that one call moves into a pipe.
const SPLICE_BYTES: usize = 1 << 20;
