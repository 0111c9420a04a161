//! TLS: certificates, handshakes, and the session of a connection, by rustls.
//!
//! The master loads certificates and keys before it forks, because only root may be able to read
//! them. The types of rustls stay below this floor: others know a [`session::Session`] as bytes in
//! both directions.

mod ciphertext;
mod framing;
pub(crate) mod sources;
pub mod certificate;
mod choose;
mod parts;
pub mod crl;
pub mod secrets;
mod tickets;
mod verification;
pub mod client;
pub mod server;
pub mod session;
pub mod turns;
pub mod handshake;
pub mod connect;
pub mod client_hello;
pub mod half_open;
#[cfg(test)]
#[path = "tests/sample.rs"]
pub(crate) mod sample;
