//! How long a worker that died stays down.
//!
//! The first death is answered at once, further ones within a minute after short growing pauses.
//! From the fifth death in a minute on the pause doubles with every death, up to a minute: a worker
//! that crashes on start costs next to nothing, and is still never given up.

use std::collections::VecDeque;
use std::time::Duration;

/// The deaths of one worker number, through all the processes that carried it.
///
/// Its clock runs only while a process lives: the pauses themselves must not count as health.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    /// How long all the processes together have lived.
    lived: Duration,
    /// The latest deaths on that clock, within the last [`WINDOW`]; at most [`N_DEATHS_MANY`].
    deaths: VecDeque<Duration>,
    /// The pause before the last restart.
    last: Duration,
}

/// So many deaths within the window are more than bad luck.
const N_DEATHS_MANY: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MANY: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

impl Backoff {
    /// Notes the death of a process that ran for `lived`, and says how long to wait before the next
    /// is started. A process that outlived the window has shown that all is well again.
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
    fn at_once_then_ever_slower_up_to_a_minute() {
        let mut backoff = Backoff::default();
        let mut pause_ms = || backoff.exited(Duration::from_millis(1)).as_millis();
        let expected =
            [0, 50, 100, 200, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000];
        for expected_ms in expected {
            assert_eq!(pause_ms(), expected_ms);
        }
    }

    #[test]
    fn a_stable_life_clears_the_record() {
        let mut backoff = Backoff::default();
        for _ in 0..9 {
            backoff.exited(Duration::ZERO);
        }
        assert_eq!(backoff.exited(WINDOW), Duration::ZERO);
        assert_eq!(backoff.exited(Duration::ZERO), PAUSE_FIRST);
    }

    #[test]
    fn four_deaths_a_minute_are_answered_soon_for_ever() {
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
