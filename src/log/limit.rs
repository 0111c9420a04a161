//! Limits the messages of each place in the code.
//!
//! Each call site may log a number of messages per period. Those beyond it are counted, and the
//! count is logged when the period is over. Pure: the time is an argument.

use std::collections::HashMap;

use ::log::Level;

/// Messages that one call site may log per period.
pub const MESSAGES_MAX: u32 = 100;
/// The period, in milliseconds.
pub const PERIOD_MS: u64 = 10_000;
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

/// The messages of one call site in its current period.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    since_ms: u64,
    level: Level,
    n_said: u32,
    n_suppressed: u64,
}

/// Messages of one call site that were suppressed in a period that is over.
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
    /// Whether the call site may log now; if not, the message is counted. If this ends a period,
    /// the messages suppressed in it are returned too.
    pub fn admit(&mut self, site: Site, level: Level, now_ms: u64) -> (bool, Option<Suppressed>) {
        let has_room = self.sites.len() < SITES_MAX || self.sites.contains_key(&site);
        let site = if has_room { site } else { OTHERS };
        let fresh = Allowance { since_ms: now_ms, level, n_said: 0, n_suppressed: 0 };
        let allowance = self.sites.entry(site).or_insert(fresh);
        let mut suppressed = None;
        if now_ms.saturating_sub(allowance.since_ms) >= PERIOD_MS {
            suppressed = allowance.suppressed(site);
            *allowance = fresh;
        }
        if allowance.n_said < MESSAGES_MAX {
            allowance.n_said += 1;
            (true, suppressed)
        } else {
            allowance.level = allowance.level.min(level);
            allowance.n_suppressed += 1;
            (false, suppressed)
        }
    }

    /// Ends the periods that are over and returns the messages suppressed in them.
    pub fn expire(&mut self, now_ms: u64) -> Vec<Suppressed> {
        let mut all = Vec::new();
        self.sites.retain(|site, allowance| {
            let is_over = now_ms.saturating_sub(allowance.since_ms) >= PERIOD_MS;
            if is_over {
                all.extend(allowance.suppressed(*site));
            }
            !is_over
        });
        all
    }
}

impl Allowance {
    fn suppressed(&self, site: Site) -> Option<Suppressed> {
        (self.n_suppressed > 0).then_some(Suppressed {
            site,
            level: self.level,
            n: self.n_suppressed,
        })
    }
}

/// Stands for all call sites beyond [`SITES_MAX`].
const OTHERS: Site = ("others", 0);

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Site = ("here.rs", 1);

    #[test]
    fn a_site_logs_up_to_its_limit_and_is_counted_beyond_it() {
        let mut limits = Limits::default();
        for _ in 0..MESSAGES_MAX {
            assert_eq!(limits.admit(HERE, Level::Warn, 5), (true, None));
        }
        for _ in 0..3 {
            assert_eq!(limits.admit(HERE, Level::Warn, PERIOD_MS), (false, None));
        }
        assert_eq!(limits.admit(("there.rs", 1), Level::Warn, 5), (true, None));
        assert_eq!(limits.expire(PERIOD_MS + 4), []);
        let suppressed = Suppressed { site: HERE, level: Level::Warn, n: 3 };
        assert_eq!(limits.admit(HERE, Level::Info, PERIOD_MS + 5), (true, Some(suppressed)));
    }

    #[test]
    fn suppressed_messages_are_reported_when_the_period_is_over() {
        let mut limits = Limits::default();
        for _ in 0..MESSAGES_MAX + 2 {
            limits.admit(HERE, Level::Error, 0);
        }
        let suppressed = Suppressed { site: HERE, level: Level::Error, n: 2 };
        assert_eq!(limits.expire(PERIOD_MS), [suppressed]);
        assert_eq!(limits.expire(PERIOD_MS), []);
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
        let suppressed = limits.expire(PERIOD_MS);
        assert_eq!(suppressed, [Suppressed { site: OTHERS, level: Level::Info, n: 100 }]);
    }
}
