//! Limits the messages of each place in the code.
//!
//! Each call site may log one message a second, and a number of them at once after a while of
//! silence. Those beyond that are counted, and the count is logged with the next message. Pure: the
//! time is an argument.

use std::collections::HashMap;

use ::log::Level;

/// Messages that a call site may log at once after a while of silence.
pub const MESSAGES_MAX: u32 = 30;
/// A call site may log one more message each time this many milliseconds are over.
pub const EVERY_MS: u64 = 1_000;
/// The target of messages that are never suppressed: records of an operator's act, not of an event
/// that happens again and again.
pub const UNLIMITED: &str = "unlimited";
/// Call sites that are counted apart; all others share one allowance.
const SITES_MAX: usize = 1024;

/// A place in the code: file and line.
pub type Site = (&'static str, u32);

/// The allowances of all call sites.
#[derive(Debug, Default)]
pub struct Limits {
    sites: HashMap<Site, Allowance>,
}

/// The messages that one call site may still log.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    /// Messages, as of `since_ms`.
    n_left: u32,
    since_ms: u64,
    level: Level,
    n_suppressed: u64,
}

/// Messages of one call site that were suppressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suppressed {
    /// Their call site.
    pub site: Site,
    /// Their level.
    pub level: Level,
    /// Their number.
    pub n: u64,
}

impl Limits {
    /// Whether the call site may log now; if not, the message is counted. If it may again, the number
    /// of messages suppressed meanwhile is returned too.
    pub fn admit(&mut self, site: Site, level: Level, now_ms: u64) -> (bool, Option<Suppressed>) {
        let has_room = self.sites.len() < SITES_MAX || self.sites.contains_key(&site);
        let site = if has_room { site } else { OTHERS };
        let full = Allowance { n_left: MESSAGES_MAX, since_ms: now_ms, level, n_suppressed: 0 };
        let allowance = self.sites.entry(site).or_insert(full);
        allowance.refill(now_ms);
        if allowance.n_left > 0 {
            allowance.n_left -= 1;
            (true, allowance.take_suppressed(site))
        } else {
            allowance.level = allowance.level.min(level);
            allowance.n_suppressed += 1;
            (false, None)
        }
    }

    /// The messages that were suppressed at call sites that may log again. Forgets those that have
    /// been silent.
    pub fn expire(&mut self, now_ms: u64) -> Vec<Suppressed> {
        let mut all = Vec::new();
        self.sites.retain(|site, allowance| {
            allowance.refill(now_ms);
            if allowance.n_left > 0 {
                all.extend(allowance.take_suppressed(*site));
            }
            allowance.n_left < MESSAGES_MAX
        });
        all
    }
}

impl Allowance {
    fn refill(&mut self, now_ms: u64) {
        let n_more = now_ms.saturating_sub(self.since_ms) / EVERY_MS;
        self.since_ms += n_more * EVERY_MS;
        let n_left = u64::from(self.n_left).saturating_add(n_more).min(u64::from(MESSAGES_MAX));
        self.n_left = u32::try_from(n_left).unwrap_or(MESSAGES_MAX);
    }

    fn take_suppressed(&mut self, site: Site) -> Option<Suppressed> {
        let n = std::mem::take(&mut self.n_suppressed);
        let level = std::mem::replace(&mut self.level, Level::Trace);
        (n > 0).then_some(Suppressed { site, level, n })
    }
}

/// Stands for all call sites beyond [`SITES_MAX`].
const OTHERS: Site = ("others", 0);

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Site = ("here.rs", 1);

    #[test]
    fn a_site_logs_some_at_once_then_one_a_second_with_the_count_of_the_others() {
        let mut limits = Limits::default();
        for _ in 0..MESSAGES_MAX {
            assert_eq!(limits.admit(HERE, Level::Warn, 5), (true, None));
        }
        for second in 1..5 {
            for _ in 0..3 {
                assert_eq!(limits.admit(HERE, Level::Warn, second * EVERY_MS), (false, None));
            }
            assert_eq!(limits.admit(("there.rs", 1), Level::Warn, second * EVERY_MS), (true, None));
            let suppressed = Suppressed { site: HERE, level: Level::Warn, n: 3 };
            let now_ms = second * EVERY_MS + 5;
            assert_eq!(limits.admit(HERE, Level::Info, now_ms), (true, Some(suppressed)));
        }
    }

    #[test]
    fn suppressed_messages_are_reported_without_another_one() {
        let mut limits = Limits::default();
        for _ in 0..MESSAGES_MAX + 2 {
            limits.admit(HERE, Level::Error, 0);
        }
        assert_eq!(limits.expire(EVERY_MS - 1), []);
        let suppressed = Suppressed { site: HERE, level: Level::Error, n: 2 };
        assert_eq!(limits.expire(EVERY_MS), [suppressed]);
        assert_eq!(limits.expire(EVERY_MS), []);
        limits.expire(EVERY_MS * u64::from(MESSAGES_MAX));
        assert!(limits.sites.is_empty());
    }

    #[test]
    fn a_clock_that_goes_back_does_no_harm() {
        let mut limits = Limits::default();
        assert_eq!(limits.admit(HERE, Level::Info, 1_000_000), (true, None));
        assert_eq!(limits.admit(HERE, Level::Info, 0), (true, None));
    }

    #[test]
    fn sites_beyond_the_limit_share_one_allowance() {
        let mut limits = Limits::default();
        for line in 0..SITES_MAX as u32 + 2 * MESSAGES_MAX {
            limits.admit(("many.rs", line), Level::Info, 0);
        }
        assert_eq!(limits.sites.len(), SITES_MAX + 1);
        let suppressed = limits.expire(EVERY_MS);
        let n = u64::from(MESSAGES_MAX);
        assert_eq!(suppressed, [Suppressed { site: OTHERS, level: Level::Info, n }]);
    }
}
