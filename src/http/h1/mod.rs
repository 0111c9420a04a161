//! HTTP/1.0 and 1.1 on the wire (RFC 9112): bytes to heads and bodies, and back.
//!
//! Input that another reader of the same bytes might frame differently is refused here, from
//! clients and origins alike: a request that two parties could cut in two places is an attack, or
//! an accident that looks the same.

mod diagnosis;
mod framing;
pub mod head;
pub mod rejected;
pub mod body;

#[cfg(test)]
#[path = "tests/smuggling.rs"]
mod smuggling;
