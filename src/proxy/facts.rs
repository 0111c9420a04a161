//! The facts of an exchange, for its line in the access log and for the counters.

use std::rc::Rc;

use crate::base::time::Now;
use crate::cache::hot::HotObject;
use crate::config::Config;
use crate::origin::fetch::FetchTimes;
use crate::policy::cache_status::CacheVerdict;
use crate::policy::reason::close::CloseReason;
use crate::proxy::carried::Carried;
use crate::upstream::destination::{Answerer, Destination};

/// The facts of an exchange.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// When the first byte of the request was read.
    pub began: Now,
    /// When its head was complete, in microseconds of the monotonic clock.
    pub head_us: u64,
    /// When its body was complete.
    pub body_us: u64,
    /// When an upstream was asked for a connection; 0 if none was needed.
    pub asked_us: u64,
    /// How long the request waited there, because all connections were in use.
    pub queue_us: u64,
    /// When a connection to an origin was ready; 0 if none was needed.
    pub connected_us: u64,
    /// When the origin's answer began.
    pub first_byte_us: u64,
    /// The stored response that answered it without the origin.
    pub hit: Option<Rc<HotObject>>,
    /// Bytes of the client that went to a server, of a connection that is no exchange of HTTP.
    pub received_bytes: u64,
    /// The site that was asked, see [`Rule::site`](crate::route::Rule::site).
    pub site: u32,
    /// The status sent to the client; 0 if none was.
    pub status: u16,
    /// How the cache took part.
    pub verdict: Option<CacheVerdict>,
    /// Why it failed, or why the cache was passed.
    pub reason: &'static str,
    /// The server that answered.
    pub server: Option<Answerer>,
    /// Why the connection ends after it, if it does.
    pub close: Option<CloseReason>,
    /// Its entry among the requests in flight.
    pub(crate) entry: Option<u8>,
    /// The id of the request, if it is known before the end; else 0.
    pub request_id: u128,
    /// The target of an internal redirect, by which another route answers.
    pub redirect: Option<Box<[u8]>>,
    /// The fields of the answers that led to it, for this client alone.
    pub carried: Option<Box<Carried>>,
    /// The bytes of the server that went to the client through a tunnel.
    pub tunnel_bytes: u64,
}

/// The status in the log of a request whose client left before its answer began, as nginx logs it.
/// It is never sent.
pub const CLIENT_GONE: u16 = 499;

/// The name in the log, in the place of an upstream, of the destinations of a forward proxy.
const FORWARD: &str = "forward";

impl Facts {
    /// Notes the phases of the fetch that answered.
    pub(crate) fn fetched(&mut self, times: &FetchTimes) {
        (self.asked_us, self.queue_us) = (times.asked.mono_us, times.queue_us);
        self.connected_us = times.requested.mono_us;
        self.first_byte_us = times.received.mono_us;
    }

    /// The status for the log.
    pub fn logged_status(&self) -> u16 {
        match (self.status, self.close) {
            (0, Some(CloseReason::ClientGone)) => CLIENT_GONE,
            (status, _) => status,
        }
    }

    /// The names of the upstream and the server that answered; empty if none did.
    pub(crate) fn names<'c>(&self, config: &'c Config) -> (&'c str, String) {
        let Some(Answerer { destination, id }) = &self.server else {
            return ("", String::new());
        };
        let upstream = match destination {
            Destination::Upstream(id) => config.upstreams.get(id.0),
            Destination::Address(address) => return (FORWARD, address.to_string()),
        };
        let Some(upstream) = upstream else { return ("", String::new()) };
        let server = upstream.servers.get(id.0);
        (&upstream.name, server.map_or_else(String::new, |server| server.address.to_string()))
    }
}
