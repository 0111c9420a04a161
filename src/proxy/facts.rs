//! The facts of one exchange, gathered on its way for the access log.

use std::rc::Rc;

use crate::base::time::Now;
use crate::cache::hot::HotObject;
use crate::policy::cache_status::CacheVerdict;
use crate::policy::reason::close::CloseReason;
use crate::upstream::ids::Server;

/// What became of an exchange.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// When the first byte of the request was read.
    pub began: Now,
    /// When its head was complete, in microseconds of the monotonic clock.
    pub head_us: u64,
    /// When its body was complete.
    pub body_us: u64,
    /// When a connection to an origin was at hand; 0 if none was needed.
    pub connected_us: u64,
    /// When the origin's answer began.
    pub first_byte_us: u64,
    /// What is stored that answered it, where the origin had no part in that.
    pub hit: Option<Rc<HotObject>>,
    /// The status sent to the client; 0 if none was.
    pub status: u16,
    /// What the cache had to do with it.
    pub verdict: Option<CacheVerdict>,
    /// Why it failed, or why the cache was passed.
    pub reason: &'static str,
    /// The server that answered.
    pub server: Option<Server>,
    /// How the connection goes on.
    pub close: Option<CloseReason>,
}

/// The status in the log of a request whose client went away before its answer began, as in
/// other servers' logs; nobody is sent it.
pub const CLIENT_GONE: u16 = 499;

impl Facts {
    /// The status for the log.
    pub fn logged_status(&self) -> u16 {
        match (self.status, self.close) {
            (0, Some(CloseReason::ClientGone)) => CLIENT_GONE,
            (status, _) => status,
        }
    }
}
