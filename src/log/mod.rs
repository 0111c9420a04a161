//! The operator's logs: the access log and the error log.
//!
//! The **access log** has a line for every answer. A worker formats lines ([`mod@format`]) into its
//! own ring in shared memory ([`ring`]), and a thread of it moves them to the file in bursts
//! ([`flusher`]), under the file's lock ([`append`]): whole lines, append-only, never waiting for the lock. The ring outlives its
//! worker, so a line that was accepted is written even if the worker is killed; [`recover`] does
//! it, exactly once. While the log takes no lines they go to a file on another disk ([`spill`]).
//!
//! The **slow log** is an access log of the requests that took long. The **feed** ([`feed`]) has the
//! last requests in memory, for commands that follow them.
//!
//! The **error log** ([`error`]) is the logger behind the `log` facade: syslog, a file or stderr,
//! limited in rate per call site. It never waits either; a thread of a worker writes to its file.

pub mod clock;
pub mod format;
pub mod feed;
pub mod ring;
pub mod file;
pub mod append;
pub mod spill;
pub mod flusher;
pub mod access;
pub mod recover;
pub mod limit;
pub mod message;
pub mod syslog;
mod error_writer;
pub mod error;
