//! HTTP/2 with clients, RFC 9113, by the `h2` crate over a transport.
//!
//! ```text
//! connection (its task: frames, deadlines, the end) ◀─▶ io (bytes)
//!     └─▶ stream (a task for each request) ─▶ request ─▶ exchange ─▶ response (the client)
//! ```
//!
//! `budget` bounds what a client may make ktrix do for nothing.

mod budget;
mod shared;
mod io;
mod request;
mod request_body;
mod fields;
mod payload;
mod stall;
mod tunnel;
mod response;
mod end;
mod quick;
mod stream;
pub(crate) mod connection;
