//! Work that may wait for a disk, away from the event loop.
//!
//! A worker has a pool of helper threads. A task gives a helper a job and awaits its answer; other
//! tasks run meanwhile. A job owns all that it touches: descriptors, paths and buffers. Helpers see
//! nothing else of the worker, start after the fork, take no signals, and answer through an eventfd.
//!
//! ```text
//! task ── job ──▶ queue (bounded) ──▶ helper ── answer ──▶ eventfd ──▶ task
//! ```
//!
//! What is in the page cache is read at once and costs no hand-over ([`read`]). Reads go before
//! writes, and writes take at most half of the helpers. A thread without a pool does each job in
//! place: the master, the keeper, commands and tests may wait.

pub mod refused;
mod meter;
mod queue;
mod helper;
pub mod pool;
pub mod file;

pub use crate::disk::pool::{
    Limits, Running, delay_us, detach, is_idle, is_running, patience, read, run, start,
};
pub use crate::disk::queue::Kind;
