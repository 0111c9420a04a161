//! The latency of the disk: a moving average over its jobs, which fades while there are none.

use std::cell::Cell;

/// An answer counts with one part in this number.
const PARTS: u64 = 4;

/// Without answers the average halves in this time, so that a disk that was slow is tried again.
const HALF_LIFE_US: u64 = 2_000_000;

/// The moving average of what jobs take.
#[derive(Debug, Default)]
pub(super) struct Meter {
    average_us: Cell<u64>,
    at_us: Cell<u64>,
}

impl Meter {
    /// A job that took `took_us` is done now.
    pub(super) fn add(&self, took_us: u64, now_us: u64) {
        let average_us = self.average_us(now_us);
        self.average_us.set(average_us - average_us / PARTS + took_us / PARTS);
        self.at_us.set(now_us);
    }

    /// The average now.
    pub(super) fn average_us(&self, now_us: u64) -> u64 {
        let n_halves = now_us.saturating_sub(self.at_us.get()) / HALF_LIFE_US;
        self.average_us.get() >> n_halves.min(63)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_jobs_take_and_fades_without_them() {
        let meter = Meter::default();
        assert_eq!(meter.average_us(5), 0);
        meter.add(300_000, 1_000);
        assert_eq!(meter.average_us(1_000), 75_000);
        (0..40).for_each(|_| meter.add(300_000, 1_000));
        assert!((299_000..=300_000).contains(&meter.average_us(1_000)));
        assert_eq!(meter.average_us(1_000 + HALF_LIFE_US) / 1_000, 149);
        assert_eq!(meter.average_us(u64::MAX), 0);
        (0..40).for_each(|_| meter.add(100, 1_000));
        assert!(meter.average_us(1_000) < 200);
    }
}
