//! The moments until which a stored response is fresh or may be served stale.

use crate::http::fields::Fields;
use crate::http::status::Status;
use crate::http::validator::EntityTag;
use crate::policy::key::vary::VaryNames;
use crate::policy::purge::surrogate::SurrogateKeys;
use crate::policy::reason::pass::PassReason;
use crate::policy::rfc9111::codes::is_heuristically_cacheable;
use crate::policy::rfc9111::control::ResponseControl;
use crate::policy::rfc9111::freshness::{FreshnessLifetime, Times, initial_age_s, last_modified_s};
use crate::policy::rfc9111::rules::Rules;
use crate::policy::rfc9111::scope::Scope;

/// Until when a stored response may be used, and how, in Unix seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lifetimes {
    /// When it was received or last validated.
    pub received_s: u64,
    /// Its age then, in seconds (RFC 9111 section 4.2.3).
    pub age_s: u32,
    /// It is fresh before this moment, which is in the past if it never was fresh.
    pub fresh_until_s: u64,
    /// Before this moment it may be served stale while it is validated (RFC 5861 section 3); not
    /// before `fresh_until_s`.
    pub swr_until_s: u64,
    /// Before this moment it may be served stale if the origin fails (RFC 5861 section 4); not
    /// before `fresh_until_s`.
    pub sie_until_s: u64,
    /// It must not be served stale to any request (RFC 9111 section 5.2.2.2).
    pub must_revalidate: bool,
    /// It must be validated each time (section 5.2.2.4); it is never fresh.
    pub no_cache: bool,
    /// While it is fresh, `max-age` of a request is ignored (RFC 8246).
    pub immutable: bool,
    /// The request fields that select it.
    pub vary: Option<VaryNames>,
    /// The names that purges can have for it.
    pub surrogates: SurrogateKeys,
}

impl Lifetimes {
    /// The lifetimes of a response, without the request fields that select it and without its
    /// surrogate keys.
    ///
    /// # Errors
    ///
    /// Why a cache cannot use it.
    pub fn of(
        status: Status,
        response: &Fields,
        control: &ResponseControl,
        times: &Times,
        rules: &Rules,
    ) -> Result<Self, PassReason> {
        let has_validator = has_validator(response);
        let no_cache = control.no_cache == Scope::Whole;
        if no_cache && !has_validator {
            return Err(PassReason::NoCache);
        }
        let stated = FreshnessLifetime::of(status, response, control, times, rules);
        let is_storable = has_validator && (is_heuristically_cacheable(status) || control.public);
        if stated.is_none() && !is_storable {
            return Err(PassReason::NoLifetime);
        }
        let lifetime_s = match stated {
            Some(stated) if !no_cache => stated.seconds.max(rules.ttl_min_s).min(rules.ttl_max_s),
            _ => 0,
        };
        let forbids_stale = control.forbids_stale();
        let age_s = initial_age_s(response, times);
        // If the lifetime is shorter than the age, the response arrives stale.
        let fresh_until_s =
            times.received_s.saturating_add(u64::from(lifetime_s)).saturating_sub(u64::from(age_s));
        let until_s = |stated: Option<u32>, default_s: u32| {
            let window_s = if forbids_stale || no_cache { 0 } else { stated.unwrap_or(default_s) };
            fresh_until_s.saturating_add(u64::from(window_s))
        };
        let swr_until_s = until_s(control.stale_while_revalidate, rules.stale_while_revalidate_s);
        let sie_until_s = until_s(control.stale_if_error, rules.stale_if_error_s);
        if !has_validator && fresh_until_s.max(swr_until_s).max(sie_until_s) <= times.received_s {
            return Err(PassReason::Expired);
        }
        Ok(Self {
            received_s: times.received_s,
            age_s,
            fresh_until_s,
            swr_until_s,
            sie_until_s,
            must_revalidate: forbids_stale,
            no_cache,
            immutable: control.immutable,
            ..Self::default()
        })
    }

    /// Makes it stale from this moment on, as a soft purge does. The windows in which it may be
    /// served stale (RFC 5861) begin then and have the same length.
    pub fn end_freshness(&mut self, since_s: u64) {
        if since_s < self.fresh_until_s {
            for until_s in [&mut self.swr_until_s, &mut self.sie_until_s] {
                let window_s = until_s.saturating_sub(self.fresh_until_s);
                *until_s = since_s.saturating_add(window_s);
            }
            self.fresh_until_s = since_s;
        }
    }

    /// The current age in seconds, RFC 9111 section 4.2.3: the value of the Age field of an answer.
    pub const fn current_age_s(&self, now_s: u64) -> u64 {
        (self.age_s as u64).saturating_add(now_s.saturating_sub(self.received_s))
    }

    /// The seconds of freshness left, negative if it is stale.
    pub fn ttl_s(&self, now_s: u64) -> i64 {
        let until_s = if self.is_from_future(now_s) { 0 } else { self.fresh_until_s };
        let distance_s = i64::try_from(until_s.abs_diff(now_s)).unwrap_or(i64::MAX);
        if until_s >= now_s { distance_s } else { -distance_s }
    }

    /// Whether it was received after this moment: the clock was set back, and how old the response is
    /// is not known.
    pub const fn is_from_future(&self, now_s: u64) -> bool {
        self.received_s > now_s.saturating_add(CLOCK_SLACK_S)
    }
}

/// Processes that read the clock at different moments may differ by this much.
const CLOCK_SLACK_S: u64 = 2;

/// Whether the response can be validated (RFC 9110 section 8.8).
fn has_validator(response: &Fields) -> bool {
    EntityTag::of(response).is_some() || last_modified_s(response).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample::{NOW_S, fields};

    fn stored(list: &[(&str, &str)], rules: &Rules) -> Lifetimes {
        let times = Times { requested_s: NOW_S, received_s: NOW_S };
        let response = fields(list);
        let control = ResponseControl::of(&response);
        Lifetimes::of(Status(200), &response, &control, &times, rules).unwrap()
    }

    #[test]
    fn moments_depend_on_lifetime_age_and_windows() {
        let cc = |value| ("cache-control", value);
        let until = |list: &[(&str, &str)], rules: &Rules| {
            let lifetimes = stored(list, rules);
            let from_now = |s: u64| s as i64 - NOW_S as i64;
            (
                from_now(lifetimes.fresh_until_s),
                from_now(lifetimes.swr_until_s),
                from_now(lifetimes.sie_until_s),
            )
        };
        let rules = Rules::default();
        assert_eq!(until(&[cc("max-age=60")], &rules), (60, 60, 60));
        assert_eq!(until(&[cc("max-age=60"), ("age", "50")], &rules), (10, 10, 10));
        assert_eq!(
            until(&[cc("max-age=5"), ("age", "50"), ("etag", "\"x\"")], &rules),
            (-45, -45, -45)
        );
        let windows = "max-age=60, stale-while-revalidate=10, stale-if-error=100";
        assert_eq!(until(&[cc(windows)], &rules), (60, 70, 160));
        let strict = format!("{windows}, must-revalidate");
        assert_eq!(until(&[cc(&strict)], &rules), (60, 60, 60));
        let shared = format!("{windows}, s-maxage=20");
        assert_eq!(until(&[cc(&shared)], &rules), (20, 20, 20));
        assert_eq!(until(&[cc("no-cache, max-age=60"), ("etag", "\"x\"")], &rules), (0, 0, 0));
        let ours = Rules {
            ttl_min_s: 10,
            ttl_max_s: 20,
            stale_while_revalidate_s: 3,
            stale_if_error_s: 5,
            ..Rules::default()
        };
        assert_eq!(until(&[cc("max-age=60")], &ours), (20, 23, 25));
        assert_eq!(until(&[cc("max-age=1")], &ours), (10, 13, 15));
    }

    #[test]
    fn windows_begin_where_freshness_is_ended() {
        let windows = "max-age=60, stale-while-revalidate=10, stale-if-error=100";
        let mut lifetimes = stored(&[("cache-control", windows)], &Rules::default());
        lifetimes.end_freshness(NOW_S + 5);
        let until_s = (lifetimes.fresh_until_s, lifetimes.swr_until_s, lifetimes.sie_until_s);
        assert_eq!(until_s, (NOW_S + 5, NOW_S + 15, NOW_S + 105));
        let before = lifetimes.clone();
        lifetimes.end_freshness(NOW_S + 50);
        assert_eq!(lifetimes, before, "a stale response keeps its windows");
    }
}
