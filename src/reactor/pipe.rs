//! Pipes for splice(2): bytes go from one socket to another without a copy into this process.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;

/// The most empty pipes that a thread keeps for their next use.
const SPARE_MAX: usize = 16;

/// The most pipes of a thread: each has two descriptors, and may hold its capacity for a slow reader.
const PIPES_MAX: usize = 256;

/// The capacity that a pipe asks for. With half of it, the two system calls per full pipe cost
/// nearly half as much again per byte; with twice as much, nothing is gained.
const PIPE_BYTES: i32 = 512 << 10;

/// A pipe of less moves bytes at a higher cost than a copy.
const PIPE_BYTES_MIN: i32 = 64 << 10;

thread_local! {
    static SPARE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
    static N_PIPES: Cell<usize> = const { Cell::new(0) };
}

/// A pipe of which this thread has both ends.
#[derive(Debug)]
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    n_bytes: usize,
}

impl Pipe {
    /// An empty pipe: one that was given back, if there is any.
    ///
    /// # Errors
    /// The error of pipe2(2), as when too many files are open. `QuotaExceeded` if this thread has as
    /// many pipes as it may have, or if those of this user have reached their bound
    /// (pipe-user-pages-soft), so that the kernel gives two pages.
    pub fn take() -> io::Result<Self> {
        if let Some(pipe) = SPARE.with(|spare| spare.borrow_mut().pop()) {
            return Ok(pipe);
        }
        if N_PIPES.get() >= PIPES_MAX {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let (reader, writer) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        N_PIPES.set(N_PIPES.get() + 1);
        let pipe = Self { reader, writer, n_bytes: 0 };
        let capacity = fcntl(&pipe.writer, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES))
            .or_else(|_| fcntl(&pipe.writer, FcntlArg::F_GETPIPE_SZ))?;
        match capacity < PIPE_BYTES_MIN {
            true => Err(io::ErrorKind::QuotaExceeded.into()),
            false => Ok(pipe),
        }
    }

    /// Keeps the pipe for its next use, if it is empty.
    pub fn give_back(self) {
        SPARE.with(|spare| {
            let mut spare = spare.borrow_mut();
            if self.n_bytes == 0 && spare.len() < SPARE_MAX {
                spare.push(self);
            }
        });
    }

    /// A body is moved through a pipe while at least this much of it is to come. For less, the
    /// system calls cost more than the copy.
    pub const BODY_BYTES_MIN: u64 = 64 << 10;

    /// Bytes that are in it.
    pub const fn len(&self) -> usize {
        self.n_bytes
    }

    /// Whether it has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.n_bytes == 0
    }

    /// Moves up to `len` bytes of a socket into an empty pipe; 0 is the end of the socket.
    pub(super) fn fill(&mut self, from: impl AsFd, len: usize) -> nix::Result<usize> {
        debug_assert!(self.is_empty(), "a full pipe and an empty socket have one error");
        self.n_bytes = splice(from, None, &self.writer, None, len, FLAGS)?;
        Ok(self.n_bytes)
    }

    /// Moves bytes of the pipe to a socket.
    pub(super) fn drain(&mut self, to: impl AsFd) -> nix::Result<usize> {
        let n_moved = splice(&self.reader, None, to, None, self.n_bytes, FLAGS)?;
        self.n_bytes -= n_moved.min(self.n_bytes);
        Ok(n_moved)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // While the thread ends, the number is gone.
        let _ = N_PIPES.try_with(|n_pipes| n_pipes.set(n_pipes.get().saturating_sub(1)));
    }
}

const FLAGS: SpliceFFlags = SpliceFFlags::SPLICE_F_MOVE.union(SpliceFFlags::SPLICE_F_NONBLOCK);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_has_the_capacity_that_makes_splicing_cheap() {
        let pipe = Pipe::take().unwrap();
        let capacity = fcntl(&pipe.reader, FcntlArg::F_GETPIPE_SZ).unwrap();
        assert!(capacity >= PIPE_BYTES_MIN, "{capacity}");
        let is_root = nix::unistd::Uid::effective().is_root();
        assert!(capacity == PIPE_BYTES || !is_root, "{capacity}");
    }

    #[test]
    fn a_thread_has_a_bounded_number_of_pipes() {
        let held: Vec<_> = std::iter::from_fn(|| Pipe::take().ok()).take(PIPES_MAX + 1).collect();
        assert!(held.len() <= PIPES_MAX, "{}", held.len());
        assert!(Pipe::take().is_err());
        held.into_iter().for_each(Pipe::give_back);
        assert_eq!(N_PIPES.get(), SPARE_MAX, "the others are closed");
        assert!(Pipe::take().is_ok());
    }
}
