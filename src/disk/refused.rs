//! Why a job was not done, or its answer not awaited.

use std::io;

/// Why a job was not done, or its answer not awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too many jobs, or too many bytes, wait for the disk.
    #[error("disk busy")]
    Busy,
    /// It took longer than `timeouts.disk`. The job may still be done.
    #[error("the disk does not answer")]
    Late,
    /// The job panicked.
    #[error("a file operation failed unexpectedly")]
    Panicked,
}

impl Refused {
    /// The refusal that an error was made of, if any.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        let kind = match refused {
            Refused::Busy => io::ErrorKind::ResourceBusy,
            Refused::Late => io::ErrorKind::TimedOut,
            Refused::Panicked => io::ErrorKind::Other,
        };
        Self::new(kind, refused)
    }
}

/// An error of a job: one that can say what the pool or the kernel has to say.
pub trait JobError: From<io::Error> {
    /// Whether the call would have waited for the disk.
    fn would_block(&self) -> bool;
}

impl JobError for io::Error {
    fn would_block(&self) -> bool {
        self.kind() == io::ErrorKind::WouldBlock
    }
}
