//! Purges as pure functions: the names of stored responses, and the targets of a PURGE request.

pub mod hash;
pub mod prefix;
pub mod surrogate;
pub mod request;
