//! HTTP/1 with clients, RFC 9112: a connection's task, and the way of a hot request through it.

pub mod link;
pub mod response;
pub mod quick;
mod step;
pub mod serve;
