//! Connections that were closed because of their PROXY header: each reason is logged once a minute.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::config::ListenAddress;
use crate::policy::reason::close::CloseReason;
use crate::reactor::address::PeerAddress;

/// The time between two lines of the same reason, in milliseconds.
const EVERY_MS: u64 = 60_000;

/// The refused connections of a worker.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    all: RefCell<HashMap<CloseReason, Quiet>>,
}

/// Since when nothing was logged, in milliseconds of the monotonic clock, and how many connections
/// were refused since then.
#[derive(Clone, Copy, Debug)]
struct Quiet {
    since_ms: u64,
    n: u64,
}

impl Refusals {
    /// A connection was closed.
    pub(super) fn note(
        &self,
        reason: CloseReason,
        peer: PeerAddress,
        listener: &ListenAddress,
        now_ms: u64,
    ) {
        let Some(n) = self.count(reason, now_ms) else { return };
        let more = match n {
            0 => String::new(),
            n => format!("; {n} more since the last such line"),
        };
        let (word, sentence) = (reason.word(), reason.sentence());
        ::log::warn!("closed a connection of {peer} to {listener}: {word}: {sentence}{more}");
    }

    /// How many were closed since the last line, if another line is due.
    fn count(&self, reason: CloseReason, now_ms: u64) -> Option<u64> {
        let mut all = self.all.borrow_mut();
        let Some(quiet) = all.get_mut(&reason) else {
            all.insert(reason, Quiet { since_ms: now_ms, n: 0 });
            return Some(0);
        };
        if now_ms < quiet.since_ms.saturating_add(EVERY_MS) {
            quiet.n += 1;
            return None;
        }
        Some(std::mem::replace(quiet, Quiet { since_ms: now_ms, n: 0 }).n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_logged_once_a_minute() {
        let refusals = Refusals::default();
        let (refused, late) = (CloseReason::ProxyRefused, CloseReason::ProxyTimeout);
        assert_eq!(refusals.count(refused, 5), Some(0));
        assert_eq!((refusals.count(refused, 6), refusals.count(late, 6)), (None, Some(0)));
        assert_eq!(refusals.count(refused, 60_004), None);
        assert_eq!(refusals.count(refused, 60_005), Some(2));
        assert_eq!(refusals.count(refused, 120_005), Some(0));
    }
}
