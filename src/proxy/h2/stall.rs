//! How long a client has made no progress with its answer.

use crate::reactor;

/// A client has to take this many bytes within `timeouts.client-send`, if there are so many. One that
/// opens its window byte by byte makes no progress.
const PROGRESS_BYTES: usize = 1 << 10;

/// The time that an answer has waited for its client since the last progress.
#[derive(Debug, Default)]
pub(super) struct Stall {
    waited_ms: u64,
    n_taken: usize,
}

impl Stall {
    /// The client takes bytes.
    pub(super) fn note_taken(&mut self, n_bytes: usize) {
        self.n_taken += n_bytes;
        if self.n_taken >= PROGRESS_BYTES {
            *self = Self::default();
        }
    }

    /// The answer has waited since then, in milliseconds of the monotonic clock.
    pub(super) fn note_waited(&mut self, since_ms: u64) {
        self.waited_ms += reactor::now().mono_ms().saturating_sub(since_ms);
    }

    /// Until when a wait that begins then may last.
    pub(super) fn deadline_ms(&self, since_ms: u64, send_ms: u64) -> u64 {
        since_ms + send_ms.saturating_sub(self.waited_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_at_a_time_is_no_progress() {
        let mut stall = Stall { waited_ms: 900, n_taken: 0 };
        stall.note_taken(PROGRESS_BYTES - 1);
        assert_eq!(stall.deadline_ms(5_000, 1_000), 5_100);
        stall.note_taken(1);
        assert_eq!(stall.deadline_ms(5_000, 1_000), 6_000);
    }
}
