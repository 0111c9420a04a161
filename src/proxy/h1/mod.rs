//! HTTP/1 with clients, RFC 9112.
//!
//! ```text
//! serve (a connection's task) ─▶ step (read, and answer what is hot) ─▶ quick (the hot path)
//!        └─▶ exchange ─▶ response ─▶ link (bytes)
//! ```

mod link;
mod response;
mod quick;
mod step;
pub(crate) mod serve;
