//! The proxy: from a client's request to its answer.
//!
//! ```text
//! h1/, h2/ (a client's connection) ─▶ exchange ─┬─▶ respond  (an object answers)
//!                                          ├─▶ join ─▶ fill ─▶ fetch  (a key's one fetch)
//!                                          └─▶ pass  ────────▶ fetch ─▶ origin ─▶ pools
//! ```
//!
//! An exchange is one request and its answer; it owns nothing global and reaches what a worker
//! shares through [`context::Context`].

pub mod client;
pub mod carried;
pub mod facts;
pub mod upload;
pub mod progress;
mod credentials;
pub(crate) mod tunnels;
pub mod context;
pub(crate) mod routed;
pub mod finish;
pub mod respond;
pub mod forwarding;
mod overflow;
mod backlog;
mod relay;
pub mod fill;
pub mod exchange;
mod ranges;
mod hot_hit;
pub(crate) mod tcp;
pub(crate) mod h2;
pub(crate) mod h1;

#[cfg(test)]
mod tests;
