//! The origin's side: from a question to an upstream to the response of one of its servers.
//!
//! ```text
//! fetch (tries and retries) ─▶ pools (a connection) ─▶ request (one request on it) ─▶ its body
//! ```

pub mod outage;
pub mod upload;
pub mod pools;
pub mod request;
pub mod fetch;
