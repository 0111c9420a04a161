//! The time of one turn of the event loop, taken once and passed down as a value.
//!
//! The pure floors never read a clock: their caller passes the time. The reactor fills a [`Now`]
//! once per turn.

/// Wall clock and monotonic clock, read together.
///
/// The wall clock is for times that are written or compared with the dates of others, and may jump.
/// The monotonic clock is for deadlines and durations, and never runs backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// Microseconds since the Unix epoch.
    pub unix_us: u64,
    /// Microseconds since some fixed moment in the past.
    pub mono_us: u64,
}

impl Now {
    /// Whole seconds since the Unix epoch.
    pub const fn unix_s(self) -> u64 {
        self.unix_us / 1_000_000
    }

    /// Whole milliseconds of the monotonic clock.
    pub const fn mono_ms(self) -> u64 {
        self.mono_us / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_unit_are_cut_off() {
        let now = Now { unix_us: 1_999_999, mono_us: 1_999 };
        assert_eq!((now.unix_s(), now.mono_ms()), (1, 1));
    }
}
