//! The average time to an answer: a slow answer raises it at once, and time lowers it (peak EWMA).
//!
//! So a server that has become slow is avoided after one answer, and is tried again when its
//! average has sunk.

/// After this time a sample counts half.
const HALF_MS: u64 = 3_000;

/// After this time nothing is left of the samples before.
const ELAPSED_MS_MAX: u64 = HALF_MS << 10;

/// The average after a sample, `elapsed_ms` after the sample before.
pub(crate) fn after(average_us: u32, sample_us: u32, elapsed_ms: u64) -> u32 {
    if sample_us >= average_us {
        return sample_us.max(1);
    }
    let elapsed_ms = elapsed_ms.clamp(1, ELAPSED_MS_MAX);
    let sum = u64::from(average_us) * HALF_MS + u64::from(sample_us) * elapsed_ms;
    u32::try_from(sum / (HALF_MS + elapsed_ms)).unwrap_or(u32::MAX).max(1)
}

/// What is expected now of a server that had this average `elapsed_ms` ago; 0 if it is not known.
pub(crate) const fn expected_us(average_us: u32, elapsed_ms: u64) -> u64 {
    average_us as u64 * HALF_MS / (HALF_MS + elapsed_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_counts_at_once_and_time_lowers_it() {
        assert_eq!(after(0, 500, 0), 500);
        assert_eq!(after(500, 90_000, 1), 90_000);
        assert_eq!(after(90_000, 1_000, HALF_MS), 45_500);
        assert!(after(90_000, 1_000, 1) > 89_000);
        assert_eq!(expected_us(90_000, HALF_MS), 45_000);
        assert_eq!([expected_us(0, 5), expected_us(7, 0)], [0, 7]);
        let mut average_us = 90_000;
        for _ in 0..20_000 {
            average_us = after(average_us, 1_000, 1);
        }
        assert!(average_us < 1_500, "{average_us}");
        assert_eq!(after(u32::MAX, u32::MAX - 1, u64::from(u32::MAX)), u32::MAX - 1);
    }
}
