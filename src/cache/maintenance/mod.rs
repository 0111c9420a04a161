//! The keeper's work on a cache: eviction, comparing the index with the files, verifying every
//! body, and removing temporary files that no fill owns.

mod order;
pub mod evict;
pub mod reconcile;
pub mod scrubber;
pub mod temp_cleanup;
