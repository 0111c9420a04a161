//! The cache: the shared index, the files it points to, and the fills that make them.
//!
//! The index answers "is this a fresh hit?" alone; `files` reads and writes cache files; `place` keeps
//! the two in step. A fill is the one fetch of a key that others may follow. `maintenance` is the
//! keeper's work.

pub mod directory_lock;
pub mod name;
pub mod index;
pub mod files;
pub mod place;
pub mod purge;
pub mod marker;
pub mod fills;
pub mod hot;
pub mod uses;
pub mod shared;
pub(crate) mod level;
pub mod maintenance;
pub mod found;
pub mod worker;
pub mod load;
pub mod lookup;
pub mod lease;
pub mod insert;
pub mod fill_object;
pub mod variants;
pub mod language;
pub mod ranges;
#[cfg(test)]
#[path = "tests/sample.rs"]
pub mod sample;

pub use crate::cache::shared::Shared;
pub use crate::cache::worker::Cache;
