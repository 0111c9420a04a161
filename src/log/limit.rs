//! How often one place in the code may speak.
//!
//! Each call site has a number of messages per period. What it says beyond that is counted, and
//! the count is told when the period is over. Pure: the time is an argument.

use std::collections::HashMap;

use ::log::Level;

/// Messages that one call site may log per period.
pub const MESSAGES_MAX: u32 = 100;
/// The period, in milliseconds.
pub const PERIOD_MS: u64 = 10_000;
/// The target of messages that are never kept back: records of what somebody did, not of what
/// happens again and again.
pub const UNLIMITED: &str = "unlimited";
/// Call sites that are told apart; all others share one allowance.
const SITES_MAX: usize = 1024;

/// A place in the code: file and line.
pub type Site = (&'static str, u32);

/// What every call site has said lately.
#[derive(Debug, Default)]
pub struct Limits {
    sites: HashMap<Site, Allowance>,
}

/// What one call site has said in its current period.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    since_ms: u64,
    level: Level,
    n_said: u32,
    n_kept_back: u64,
}

/// Messages of one call site that were kept back in a period that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptBack {
    /// Where they came from.
    pub site: Site,
    /// Their level.
    pub level: Level,
    /// How many they were.
    pub n: u64,
}

impl Limits {
    /// Whether the call site may say something now; if not, that is counted. What it was kept
    /// from saying in a period that ends hereby is returned with it.
    pub fn admit(&mut self, site: Site, level: Level, now_ms: u64) -> (bool, Option<KeptBack>) {
        let has_room = self.sites.len() < SITES_MAX || self.sites.contains_key(&site);
        let site = if has_room { site } else { OTHERS };
        let fresh = Allowance { since_ms: now_ms, level, n_said: 0, n_kept_back: 0 };
        let allowance = self.sites.entry(site).or_insert(fresh);
        let mut kept_back = None;
        if now_ms.saturating_sub(allowance.since_ms) >= PERIOD_MS {
            kept_back = allowance.kept_back(site);
            *allowance = fresh;
        }
        if allowance.n_said < MESSAGES_MAX {
            allowance.n_said += 1;
            (true, kept_back)
        } else {
            allowance.level = allowance.level.min(level);
            allowance.n_kept_back += 1;
            (false, kept_back)
        }
    }

    /// Ends the periods that are over and returns what was kept back in them.
    pub fn expire(&mut self, now_ms: u64) -> Vec<KeptBack> {
        let mut all = Vec::new();
        self.sites.retain(|site, allowance| {
            let is_over = now_ms.saturating_sub(allowance.since_ms) >= PERIOD_MS;
            if is_over {
                all.extend(allowance.kept_back(*site));
            }
            !is_over
        });
        all
    }
}

impl Allowance {
    fn kept_back(&self, site: Site) -> Option<KeptBack> {
        (self.n_kept_back > 0).then_some(KeptBack { site, level: self.level, n: self.n_kept_back })
    }
}

/// Stands for all call sites beyond [`SITES_MAX`].
const OTHERS: Site = ("others", 0);

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Site = ("here.rs", 1);

    #[test]
    fn a_site_speaks_so_often_and_then_is_counted() {
        let mut limits = Limits::default();
        for _ in 0..MESSAGES_MAX {
            assert_eq!(limits.admit(HERE, Level::Warn, 5), (true, None));
        }
        for _ in 0..3 {
            assert_eq!(limits.admit(HERE, Level::Warn, PERIOD_MS), (false, None));
        }
        assert_eq!(limits.admit(("there.rs", 1), Level::Warn, 5), (true, None));
        assert_eq!(limits.expire(PERIOD_MS + 4), []);
        let kept_back = KeptBack { site: HERE, level: Level::Warn, n: 3 };
        assert_eq!(limits.admit(HERE, Level::Info, PERIOD_MS + 5), (true, Some(kept_back)));
    }

    #[test]
    fn what_was_kept_back_is_told_when_the_period_is_over() {
        let mut limits = Limits::default();
        for _ in 0..MESSAGES_MAX + 2 {
            limits.admit(HERE, Level::Error, 0);
        }
        let kept_back = KeptBack { site: HERE, level: Level::Error, n: 2 };
        assert_eq!(limits.expire(PERIOD_MS), [kept_back]);
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
        let kept_back = limits.expire(PERIOD_MS);
        assert_eq!(kept_back, [KeptBack { site: OTHERS, level: Level::Info, n: 100 }]);
    }
}
