//! The bounds on waiting, sizes and counts: those at the top, and those that a route or an upstream can have
//! of its own.

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

/// The bounds on waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From a request's first byte to the end of its head.
    pub client_head: Duration,
    /// The bounds for the exchanges of a route without its own.
    pub route: RouteTimeouts,
    /// Between two requests of a client.
    pub client_idle: Duration,
    /// From a client's connection to the end of its TLS handshake.
    pub tls_handshake: Duration,
    /// For a connection to a server.
    pub connect: Duration,
    /// From the end of a request to the head of its response.
    pub first_byte: Duration,
    /// Between two reads of a response, and of an origin that waits for its next request.
    pub idle: Duration,
    /// For a fill to end after its last client has left.
    pub fill_alone: Duration,
    /// For a file operation of the cache; after that a read is a miss.
    pub disk: Duration,
    /// For a worker to give a sign of life; 0 for ever.
    pub worker_stuck: Duration,
    /// For requests to finish when ktrix stops or reloads.
    pub stop: Duration,
    /// For the new program of an upgrade to serve.
    pub upgrade: Duration,
    /// For tunnels to end after an upgrade, or a reload that changed their routes.
    pub tunnel_drain: Duration,
}

/// The bounds on sizes and counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open client connections, for each worker.
    pub connections: usize,
    /// TLS handshakes under way, for each worker.
    pub handshakes: usize,
    /// Bytes of a head with its first line.
    pub head_bytes: usize,
    /// Bytes of a request's target.
    pub target_bytes: usize,
    /// The bounds for the messages of a route without its own.
    pub route: RouteLimits,
    /// Bytes of a request's body that stay in memory; the rest goes to a file.
    pub body_memory_bytes: usize,
    /// Bytes of all responses of a worker that wait in memory.
    pub responses_bytes: usize,
    /// Bytes of all bodies in files; by default it depends on the disk.
    pub bodies_bytes: Option<u64>,
    /// Bytes of a body that must come each second; 0 for any.
    pub body_rate: u64,
    /// Fields of a head.
    pub headers: usize,
    /// Requests of one HTTP/2 connection at a time.
    pub streams: u32,
    /// How long a request is refused that was in flight in two crashes of workers; 0 for never.
    pub crash_guard: Duration,
    /// Earlier configurations of which workers may still have tunnels.
    pub generations: usize,
}
