//! Cache files: their form, how they are written, and how they are opened and checked.

pub mod object;
pub mod front;
pub mod store;
pub mod writer;
pub mod spool;
pub mod renewal;
