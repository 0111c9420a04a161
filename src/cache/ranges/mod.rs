//! Stored parts of a response: their list, what a body is made of, and how a complete set becomes one
//! object.

pub mod list;
pub mod pieces;
pub mod combine;
