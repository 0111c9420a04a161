//! The speed of the machine while a test runs, so that a limit in time measures ktrix alone.

use std::thread;
use std::time::Duration;

use super::client::Ask;
use super::load::Load;
use super::origin::{Origin, Response};

/// A client that requests from an origin now and then, without a ktrix between them.
pub struct Pace {
    load: Load,
    _origin: Origin,
}

impl Pace {
    pub fn start() -> Self {
        let origin = Origin::answering(|_| Response::ok("x"));
        let ask = |_, _| {
            thread::sleep(Duration::from_millis(10));
            Ask::get("/")
        };
        let load = Load::start(&origin.address, 1, ask, |_, _| Ok(()));
        Self { load, _origin: origin }
    }

    /// A limit for the longest answer through ktrix: the given one on an idle processor. On a busy
    /// one, each of the processes between a client and its answer waits for its turn as this client
    /// and its origin did.
    pub fn limit(self, limit: Duration) -> Duration {
        limit + 3 * self.load.stop().longest
    }
}
