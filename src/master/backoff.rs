//! The pause before a dead worker is restarted.
//!
//! After its first death a worker is restarted at once, after further ones within a minute with
//! short growing pauses. From the fifth death in a minute on, the pause doubles with every death,
//! up to a minute: a worker that crashes at its start costs little, and is never given up.

use std::collections::VecDeque;
use std::time::Duration;

/// The deaths of one worker number, in all the processes that had it.
///
/// Its clock runs only while a process lives, so that the pauses do not count as healthy time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    /// How long all the processes together have lived.
    lived: Duration,
    /// The latest deaths on that clock, within the last [`WINDOW`]; at most [`N_DEATHS_MANY`].
    deaths: VecDeque<Duration>,
    /// The pause before the last restart.
    last: Duration,
}

/// From this many deaths within the window on, the pause grows fast.
const N_DEATHS_MANY: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MANY: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

impl Backoff {
    /// Notes the death of a process that ran for `lived`, and gives the pause before the next is
    /// started. A process that outlived the window resets the pause.
    pub(crate) fn exited(&mut self, lived: Duration) -> Duration {
        self.lived = self.lived.saturating_add(lived);
        let now = self.lived;
        self.deaths.retain(|&death| now.saturating_sub(death) < WINDOW);
        self.deaths.push_back(now);
        if self.deaths.len() > N_DEATHS_MANY {
            self.deaths.pop_front();
        }
        self.last = match self.deaths.len() {
            0 | 1 => Duration::ZERO,
            2 => PAUSE_FIRST,
            3 => PAUSE_FIRST * 2,
            4 => PAUSE_FIRST * 4,
            _ => self.last.saturating_mul(2).clamp(PAUSE_MANY, PAUSE_MAX),
        };
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pauses_grow_from_zero_to_a_minute() {
        let mut backoff = Backoff::default();
        let mut pause_ms = || backoff.exited(Duration::from_millis(1)).as_millis();
        let expected =
            [0, 50, 100, 200, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000];
        for expected_ms in expected {
            assert_eq!(pause_ms(), expected_ms);
        }
    }

    #[test]
    fn a_long_life_resets_the_pause() {
        let mut backoff = Backoff::default();
        for _ in 0..9 {
            backoff.exited(Duration::ZERO);
        }
        assert_eq!(backoff.exited(WINDOW), Duration::ZERO);
        assert_eq!(backoff.exited(Duration::ZERO), PAUSE_FIRST);
    }

    #[test]
    fn four_deaths_a_minute_keep_short_pauses() {
        let mut backoff = Backoff::default();
        for _ in 0..50 {
            assert!(backoff.exited(Duration::from_secs(16)) < PAUSE_MANY);
        }
    }

    proptest! {
        #[test]
        fn a_pause_never_passes_its_bound(lives_s in prop::collection::vec(any::<u64>(), 0..60)) {
            let mut backoff = Backoff::default();
            for lived_s in lives_s {
                prop_assert!(backoff.exited(Duration::from_secs(lived_s)) <= PAUSE_MAX);
            }
        }
    }
}
