//! The bounds that a route, or an upstream, can have of its own.

use std::time::Duration;

/// The bounds on the sizes of a route's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteLimits {
    /// Bytes of the head of a request; at most `limits.head` at the top.
    pub head_bytes: usize,
    /// Bytes of the body of a request that is received completely first.
    pub body_bytes: u64,
    /// Bytes of a response that wait in memory for the client.
    pub response_memory_bytes: usize,
    /// Bytes of it that wait in a file.
    pub response_file_bytes: u64,
}

/// The bounds on waiting in a route's exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteTimeouts {
    /// Between two reads of a request's body.
    pub client_body: Duration,
    /// From a request's first byte to the end of its body.
    pub client_request: Duration,
    /// Between two writes to a client.
    pub client_send: Duration,
    /// Without a byte in either direction of a tunnel.
    pub tunnel: Duration,
    /// Those for servers, where they differ from the upstream's.
    pub origin: OriginTimeouts,
}

impl RouteTimeouts {
    /// [`Self::client_send`] in milliseconds.
    pub const fn client_send_ms(&self) -> u64 {
        self.client_send.as_millis() as u64
    }
}

/// The bounds on waiting for the servers of an upstream or a route; `None` is that of the top or of
/// the upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OriginTimeouts {
    /// For a connection.
    pub connect: Option<Duration>,
    /// From the end of a request to the head of its response.
    pub first_byte: Option<Duration>,
    /// Between two reads of a response, and of a connection that waits for its next request.
    pub idle: Option<Duration>,
}
