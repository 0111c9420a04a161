//! The time of a reactor: the kernel's clocks, read at the beginning of each turn, and again after some
//! tasks, so that in a long turn the time of a request is not nothing.
//!
//! A test may run a reactor by a clock of its own, [`run_by_test_clock`]. That clock stands still
//! while anything can run, and jumps to the next deadline when nothing can, so that a test that
//! waits for an hour takes no time, and its times are exact.

use std::cell::Cell;

use nix::time::{ClockId, clock_gettime};

use crate::base::time::Now;

/// The clock of one thread's reactor.
pub(super) struct Clock {
    now: Cell<Now>,
    turn: Cell<Now>,
    /// The time moves by [`Clock::jump_to`] alone; only in tests.
    is_still: Cell<bool>,
}

impl Clock {
    pub(super) const fn new() -> Self {
        let none = Now { unix_us: 0, mono_us: 0 };
        Self { now: Cell::new(none), turn: Cell::new(none), is_still: Cell::new(false) }
    }

    /// The time of the last reading.
    pub(super) fn now(&self) -> Now {
        let now = self.now.get();
        if now.mono_us == 0 { self.read() } else { now }
    }

    /// Reads the kernel's clocks.
    pub(super) fn read(&self) -> Now {
        if !self.is_still() {
            self.now.set(Now {
                unix_us: clock_us(ClockId::CLOCK_REALTIME),
                mono_us: clock_us(ClockId::CLOCK_MONOTONIC).max(self.now.get().mono_us),
            });
        }
        self.now.get()
    }

    /// Reads the kernel's clocks at the beginning of a turn.
    pub(super) fn begin_turn(&self) -> Now {
        self.turn.set(self.read());
        self.turn.get()
    }

    /// The beginning of this turn.
    pub(super) fn turn(&self) -> Now {
        self.turn.get()
    }

    /// Moves on within a turn, by one of the clocks.
    pub(super) fn advance(&self) {
        if !self.is_still() {
            let Now { unix_us, mono_us } = self.now();
            let gone_us = clock_us(ClockId::CLOCK_MONOTONIC).saturating_sub(mono_us);
            self.now.set(Now { unix_us: unix_us + gone_us, mono_us: mono_us + gone_us });
        }
    }

    pub(super) fn is_still(&self) -> bool {
        self.is_still.get()
    }

    /// Moves a clock that stands still to this millisecond of the monotonic clock.
    pub(super) fn jump_to(&self, mono_ms: u64) {
        let Now { unix_us, mono_us } = self.now.get();
        let ahead_us = (mono_ms * 1_000).saturating_sub(mono_us);
        self.now.set(Now { unix_us: unix_us + ahead_us, mono_us: mono_us + ahead_us });
    }
}

fn clock_us(clock: ClockId) -> u64 {
    // These two clocks exist on every Linux.
    clock_gettime(clock).map_or(0, |time| {
        let (s, ns) = (time.tv_sec().max(0) as u64, time.tv_nsec().max(0) as u64);
        s * 1_000_000 + ns / 1_000
    })
}

/// Runs `main` as [`super::run`] does, by a clock that begins at [`TEST_START`] and jumps to the
/// next deadline whenever no task can run and the kernel reports no event.
///
/// Everything that `main` waits for must be a deadline, a task of this reactor or an event that the kernel
/// reports at once. So a peer is a task of the same reactor, over a Unix socket: the clock would
/// jump past a deadline while a thread, or a TCP segment, is still on its way.
///
/// # Panics
/// If no task can ever run again.
#[cfg(test)]
pub(crate) fn run_by_test_clock<F: Future>(main: F) -> F::Output {
    struct Still;
    impl Drop for Still {
        fn drop(&mut self) {
            super::LOCAL.with(|local| {
                local.clock.is_still.set(false);
                local.clock.now.set(Now::default());
            });
        }
    }
    super::LOCAL.with(|local| {
        local.clock.is_still.set(true);
        local.clock.now.set(TEST_START);
    });
    let _still = Still;
    super::run(main).unwrap()
}

/// When [`run_by_test_clock`] begins.
#[cfg(test)]
pub(crate) const TEST_START: Now =
    Now { unix_us: 1_800_000_000_000_000, mono_us: 1_000_000_000_000 };
