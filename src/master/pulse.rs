//! The signs of life of a worker's process, as the master sees them.

use std::time::Duration;

/// The counter of a process, and how long it has stood still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pulse {
    count: u64,
    pub(crate) still: Duration,
    is_killed: bool,
}

impl Pulse {
    /// The counter now has this value; the master ran for so long since it looked before.
    pub(crate) fn look(&mut self, count: u64, ran: Duration) {
        if count == self.count {
            self.still = self.still.saturating_add(ran);
        } else {
            (self.count, self.still) = (count, Duration::ZERO);
        }
    }

    /// Whether another worker is to serve its sockets.
    pub(crate) fn is_weak(&self) -> bool {
        self.still >= WEAK_AFTER
    }

    /// Whether the process is to be killed now, which is so once.
    pub(crate) fn is_due(&mut self, stuck: Duration) -> bool {
        let is_due = !stuck.is_zero() && self.still >= stuck && !self.is_killed;
        self.is_killed |= is_due;
        is_due
    }
}

/// A worker that gives a sign of life each second is late by now.
const WEAK_AFTER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_stands_still_is_weak_and_then_due_once() {
        let (mut pulse, second) = (Pulse::default(), Duration::from_secs(1));
        for count in [1, 2, 2, 3, 3] {
            pulse.look(count, second);
        }
        assert!(!pulse.is_weak());
        pulse.look(3, second);
        assert!(pulse.is_weak() && !pulse.is_due(3 * second));
        pulse.look(3, second);
        assert!(!pulse.is_due(Duration::ZERO), "never");
        assert!(pulse.is_due(3 * second) && !pulse.is_due(3 * second));
        pulse.look(4, second);
        assert!(!pulse.is_weak());
    }
}
