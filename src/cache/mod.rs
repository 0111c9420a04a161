//! What is stored: the shared index, the files it points to, and the fills that make them.
//!
//! The index answers "is this a fresh hit?" alone; the store reads and writes cache files, whose
//! form is `object`; `place` keeps the two in step. A fill is the one fetch of a key that others
//! may follow. `evict`, `mend`, `scrub`, `patrol` and `temps` are the
//! keeper's chores.

pub mod claim;
pub mod purge;
pub mod slot;
pub mod bucket;
pub mod table;
pub mod pair;
pub mod index;
pub mod hits;
pub mod reading;
pub mod large;
pub mod mend;
pub mod object;
pub mod writer;
pub mod store;
pub mod place;
pub mod face;
pub mod hot;
mod hot_object;
pub mod fill_state;
mod fill_entry;
pub mod fills;
pub mod uses;
mod round;
pub mod evict;
pub mod scrub;
pub mod patrol;
pub mod temps;
