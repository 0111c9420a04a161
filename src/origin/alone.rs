//! Fetches that go on after their last client has left, because their response is to be stored.
//!
//! Such a fetch must be about to end, and it holds a connection that others may need. So its time,
//! its least rate and the number of its kind are bounded, and it ends as soon as another fetch waits
//! for a connection.

use std::rc::Rc;

use crate::origin::upstream::Upstream;
use crate::reactor::{self, timer};

/// Fetches without clients may hold one of this many connections of an upstream.
const SHARE: usize = 4;

/// A fetch without clients, counted for as long as this lives.
#[derive(Debug)]
pub(crate) struct Alone {
    upstream: Rc<Upstream>,
    until_ms: u64,
}

impl Alone {
    /// Counts another fetch; `None` if there are too many.
    pub(crate) fn begin(upstream: &Rc<Upstream>) -> Option<Self> {
        let n_alone = upstream.n_alone.get();
        if n_alone >= (upstream.n_connections_max() / SHARE).max(1) {
            return None;
        }
        upstream.n_alone.set(n_alone + 1);
        let until_ms = reactor::now().mono_ms() + upstream.limits.alone_ms;
        Some(Self { upstream: Rc::clone(upstream), until_ms })
    }

    /// Whether the fetch may go on: no other waits for its connection, and the `remaining` bytes, if
    /// their number is known, come in time at the rate of the first `bytes`, which have come since
    /// `since_ms` of the monotonic clock.
    pub(crate) fn may_go_on(&self, since_ms: u64, bytes: u64, remaining: Option<u64>) -> bool {
        let now_ms = reactor::now().mono_ms();
        let taken_ms = now_ms.saturating_sub(since_ms);
        let needed_ms = match remaining {
            Some(remaining) => remaining.saturating_mul(taken_ms) / bytes.max(1),
            None => 0,
        };
        let left_ms = self.until_ms.saturating_sub(now_ms);
        left_ms > 0 && needed_ms <= left_ms && self.upstream.pending.borrow().is_empty()
    }

    /// Waits until [`Self::may_go_on`] must be asked again.
    pub(crate) async fn doubt(&self) {
        let crowded = &self.upstream.crowded;
        let _ = timer::timeout_at(self.until_ms, crowded.after(crowded.version())).await;
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.upstream.n_alone.set(self.upstream.n_alone.get() - 1);
    }
}
