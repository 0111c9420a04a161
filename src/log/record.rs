//! The facts of one exchange for its line in the access log.
//!
//! A record borrows everything and knows no format. An unknown fact is left empty: an empty text,
//! or `None`.

use std::net::IpAddr;

/// One line of the access log, before it is a line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record<'a> {
    /// When the answer ended, in microseconds since 1970.
    pub time_us: u64,
    /// The client's address; `None` on a Unix socket. An IPv4-mapped IPv6 address is shown as IPv4.
    pub client: Option<IpAddr>,
    /// The request line as it was received, without its line end; may be cut or garbage if the
    /// request was refused.
    pub request_line: &'a [u8],
    /// The method as it was received.
    pub method: &'a [u8],
    /// The host that was asked for.
    pub host: &'a [u8],
    /// The target as it was received.
    pub target: &'a [u8],
    /// The protocol that the client spoke, as in `HTTP/1.1`.
    pub version: &'a str,
    /// The answer's status; 499 if the client went away before it began, 0 if there was none.
    pub status: u16,
    /// Bytes of the answer's body that were sent.
    pub body_bytes: u64,
    /// All bytes of the answer that were sent, head and framing included.
    pub sent_bytes: u64,
    /// The request's Referer field.
    pub referer: &'a [u8],
    /// The request's User-Agent field.
    pub user_agent: &'a [u8],
    /// The request's number, unique among all; 0 if it has none.
    pub request_id: u128,
    /// The cache's verdict: hit, miss, stale, revalidated, pass.
    pub verdict: &'a str,
    /// Why the verdict is what it is.
    pub reason: &'a str,
    /// The upstream's name.
    pub upstream: &'a str,
    /// The server that answered last, as it is configured.
    pub server: &'a str,
    /// How long the phases took.
    pub times: Times,
    /// Why the connection closed after this answer; empty if it did not.
    pub close: &'a str,
}

/// How long each phase of an exchange took, in microseconds; `None` if it had no such phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// From the request's first byte to the end of its head.
    pub head_us: Option<u64>,
    /// To receive the request's body.
    pub body_us: Option<u64>,
    /// To connect to the origin.
    pub connect_us: Option<u64>,
    /// From the fetch's first byte sent to the answer's first byte received.
    pub first_byte_us: Option<u64>,
    /// From the request's first byte to the answer's last.
    pub total_us: Option<u64>,
}
