//! Purging as pure functions: what a stored response can be named by, and what a PURGE request asks
//! for.

pub mod surrogate;
pub mod request;
