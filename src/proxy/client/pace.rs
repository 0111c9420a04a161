//! How fast the body of a request must come: without a pause longer than `timeouts.client-body`, on
//! the whole at `limits.body-rate`, and within `timeouts.client-request`.

use std::time::Duration;

use crate::config::bounds::Limits;
use crate::config::bounds::RouteTimeouts;
use crate::policy::reason::close::CloseReason;

/// The bounds, and how the body of one request has come so far.
#[derive(Debug)]
pub(crate) struct Pace {
    pause_ms: u64,
    /// Bytes a second; 0 for any.
    rate: u64,
    /// When the whole request must be there, in milliseconds of the monotonic clock.
    end_ms: u64,
    /// The time in which the worker waited for the client.
    waited_ms: u64,
    n_read: u64,
}

impl Pace {
    /// The pace of a request that began at `began_ms` of the monotonic clock.
    pub(crate) fn new(timeouts: &RouteTimeouts, limits: &Limits, began_ms: u64) -> Self {
        let ms = |duration: Duration| duration.as_millis() as u64;
        Self {
            pause_ms: ms(timeouts.client_body),
            rate: limits.body_rate,
            end_ms: began_ms.saturating_add(ms(timeouts.client_request)),
            waited_ms: 0,
            n_read: 0,
        }
    }

    /// Until when the client must send something, in milliseconds of the monotonic clock, and why its
    /// connection ends if it does not. A body may come below the rate for as long as a pause may last.
    pub(crate) fn deadline(&self, now_ms: u64) -> (u64, CloseReason) {
        let earned_ms = self.earned_ms().saturating_add(self.pause_ms);
        let rate_ms = now_ms.saturating_add(earned_ms.saturating_sub(self.waited_ms));
        let bounds = [
            (now_ms.saturating_add(self.pause_ms), CloseReason::BodyTimeout),
            (rate_ms, CloseReason::BodyRate),
            (self.end_ms, CloseReason::RequestTimeout),
        ];
        bounds.into_iter().min_by_key(|(at_ms, _)| *at_ms).unwrap_or(bounds[0])
    }

    /// Since when, or from when on, the body is below the rate, in milliseconds of the monotonic clock.
    pub(crate) fn slow_since_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add(self.earned_ms()).saturating_sub(self.waited_ms)
    }

    /// The client sent `n_read` bytes after the worker had waited for so long.
    pub(crate) fn add(&mut self, waited_ms: u64, n_read: usize) {
        self.waited_ms += waited_ms;
        self.n_read += n_read as u64;
    }

    /// The time that the bytes may have taken.
    fn earned_ms(&self) -> u64 {
        self.n_read.saturating_mul(1_000).checked_div(self.rate).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn pace(text: &str, began_ms: u64) -> Pace {
        let config = Config::load_for(Path::new("f"), &format!("upstream: a\n{text}"), 1).unwrap();
        Pace::new(&config.timeouts.route, &config.limits, began_ms)
    }

    #[test]
    fn a_body_may_pause_drip_and_last_only_so_long() {
        let text =
            "timeouts: {client-body: 30s, client-request: 100s}\nlimits: {body-rate: 1 KiB}\n";
        let mut pace = pace(text, 1_000);
        assert_eq!(pace.deadline(1_000), (31_000, CloseReason::BodyTimeout));
        // A byte each 20 s.
        pace.add(20_000, 1);
        assert_eq!(pace.deadline(21_000), (31_000, CloseReason::BodyRate));
        assert_eq!(pace.slow_since_ms(21_000), 1_000);
        // A body that makes up for it, and one that comes fast for too long.
        pace.add(5_000, 40 << 10);
        assert_eq!(pace.deadline(26_000), (56_000, CloseReason::BodyTimeout));
        assert_eq!(pace.slow_since_ms(26_000), 41_000);
        pace.add(50_000, 1 << 30);
        assert_eq!(pace.deadline(76_000), (101_000, CloseReason::RequestTimeout));
        // The worker's own pauses, while an origin takes the body, do not count.
        assert_eq!(pace.deadline(70_000), (100_000, CloseReason::BodyTimeout));
    }

    #[test]
    fn a_rate_of_zero_is_no_bound() {
        let mut pace = pace("limits: {body-rate: 0 B}\n", 0);
        pace.add(3_600_000, 1);
        assert_eq!(pace.deadline(3_600_000), (3_630_000, CloseReason::BodyTimeout));
        assert_eq!(pace.slow_since_ms(3_600_000), u64::MAX - 3_600_000);
    }
}
