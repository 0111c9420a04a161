//! Fetching: from a question to an upstream to the response of one of its servers.
//!
//! ```text
//! fetch (tries and retries) ─┬─▶ checkout ─┬─▶ pools ◀── connection given back, or closed
//!                            │             ├─▶ line        (the fetches that wait for one)
//!                            │             └─▶ connection  (a new one)
//!                            └─▶ request (one request on a connection) ─▶ body
//! raw (a connection for bytes alone) ─▶ checkout
//! ```

pub mod upload;
pub(crate) mod names;
pub(crate) mod affinity;
pub(crate) mod upstream;
mod destinations;
pub mod pools;
pub(crate) mod alone;
mod line;
mod connection;
mod checkout;
pub mod request;
pub mod body;
pub mod fetch;
pub(crate) mod raw;

#[cfg(test)]
pub(crate) mod tests;
