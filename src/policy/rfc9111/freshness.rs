//! How long a response is fresh or may be served stale: its age and its freshness lifetime (RFC 9111
//! section 4.2), and the moments that follow from them.

use crate::http::date;
use crate::http::fields::Fields;
use crate::http::status::Status;
use crate::http::validator::EntityTag;
use crate::policy::key::vary::VaryNames;
use crate::policy::purge::surrogate::SurrogateKeys;
use crate::policy::reason::pass::PassReason;
use crate::policy::rfc9111::control::{ResponseControl, SECONDS_MAX, Scope, delta_seconds};
use crate::policy::rfc9111::rules::Rules;

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

/// Where a freshness lifetime comes from, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifetimeSource {
    /// `s-maxage` (RFC 9111 section 5.2.2.10).
    SMaxage,
    /// `max-age` (section 5.2.2.1).
    MaxAge,
    /// `Expires` (section 5.3).
    Expires,
    /// The operator's lifetime for this status.
    Rule,
    /// A heuristic from Last-Modified (section 4.2.2).
    Heuristic,
}

impl LifetimeSource {
    /// The sentence for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::SMaxage => "by s-maxage",
            Self::MaxAge => "by max-age",
            Self::Expires => "by Expires",
            Self::Heuristic => "guessed from Last-Modified",
            Self::Rule => "by the route's ttl-status",
        }
    }
}

/// When a fetch took place, in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When its request was sent.
    pub requested_s: u64,
    /// When the head of its response arrived.
    pub received_s: u64,
}

/// A freshness lifetime (RFC 9111 section 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreshnessLifetime {
    /// Seconds from the moment at which the origin made the response.
    pub seconds: u32,
    /// Where it comes from.
    pub source: LifetimeSource,
}

impl FreshnessLifetime {
    /// The lifetime for a shared cache: `s-maxage`, else `max-age`, else `Expires` less `Date`,
    /// else the operator's for this status, else a heuristic; `None` without any of them. A value
    /// that is stated but invalid counts as zero.
    pub fn of(
        status: Status,
        response: &Fields,
        control: &ResponseControl,
        times: &Times,
        rules: &Rules,
    ) -> Option<Self> {
        let (seconds, source) = if let Some(seconds) = control.s_maxage {
            (seconds, LifetimeSource::SMaxage)
        } else if let Some(seconds) = control.max_age {
            (seconds, LifetimeSource::MaxAge)
        } else if let Some(expires_s) = expires_s(response) {
            let seconds = expires_s.saturating_sub(date_s(response, times));
            (capped(seconds), LifetimeSource::Expires)
        } else if let Some(seconds) = rules.ttl_status.of(status) {
            (seconds, LifetimeSource::Rule)
        } else if is_heuristically_cacheable(status) || control.public {
            (heuristic_s(response, times, rules)?, LifetimeSource::Heuristic)
        } else {
            return None;
        };
        Some(Self { seconds, source })
    }

    /// The lifetime of a stored response by the rules of now, before `ttl-min` and `ttl-max`.
    pub fn of_stored(
        status: Status,
        stored: &Fields,
        received_s: u64,
        rules: &Rules,
    ) -> Option<Self> {
        let stored = &*rules.effective_fields(stored);
        let times = Times { requested_s: received_s, received_s };
        Self::of(status, stored, &ResponseControl::of(stored), &times, rules)
    }
}

/// The age of a response when it was received, RFC 9111 section 4.2.3 (`corrected_initial_age`),
/// in seconds, at most 2^31.
pub fn initial_age_s(fields: &Fields, times: &Times) -> u32 {
    let apparent_s = times.received_s.saturating_sub(date_s(fields, times));
    let delay_s = times.received_s.saturating_sub(times.requested_s);
    let corrected_s = u64::from(age_value_s(fields)).saturating_add(delay_s);
    capped(apparent_s.max(corrected_s))
}

/// The Age field, RFC 9111 section 5.1: its first member; zero if it is missing, or if that is not
/// a number of seconds.
fn age_value_s(fields: &Fields) -> u32 {
    fields.list("age").next().and_then(delta_seconds).unwrap_or(0)
}

/// When the origin made the response, in Unix seconds: its Date, or the time of its arrival if that
/// is missing or malformed (RFC 9110 section 6.6.1).
fn date_s(fields: &Fields, times: &Times) -> u64 {
    fields.get("date").and_then(date::parse).unwrap_or(times.received_s)
}

/// Last-Modified in Unix seconds, if it is a date.
pub fn last_modified_s(fields: &Fields) -> Option<u64> {
    fields.get("last-modified").and_then(date::parse)
}

/// The smallest of the Expires lines in Unix seconds, RFC 9111 section 5.3: a malformed one, such
/// as `0`, is in the past.
fn expires_s(fields: &Fields) -> Option<u64> {
    fields.get_all("expires").map(|text| date::parse(text).unwrap_or(0)).min()
}

/// A status that may have a heuristic lifetime (RFC 9110 section 15.1), without 206, which is not a
/// whole response.
pub(crate) const fn is_heuristically_cacheable(status: Status) -> bool {
    matches!(status.0, 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// A percentage of the time since Last-Modified (RFC 9111 section 4.2.2), bounded by the rules.
fn heuristic_s(fields: &Fields, times: &Times, rules: &Rules) -> Option<u32> {
    let unchanged_s = date_s(fields, times).checked_sub(last_modified_s(fields)?)?;
    let seconds = unchanged_s.saturating_mul(u64::from(rules.heuristic_percent)) / 100;
    Some(capped(seconds.min(u64::from(rules.heuristic_max_s))))
}

/// Seconds, at most 2^31 (RFC 9111 section 1.2.2).
fn capped(seconds: u64) -> u32 {
    u32::try_from(seconds).unwrap_or(SECONDS_MAX).min(SECONDS_MAX)
}

/// Processes that read the clock at different moments may differ by this much.
const CLOCK_SLACK_S: u64 = 2;

/// Whether the response can be validated (RFC 9110 section 8.8).
fn has_validator(response: &Fields) -> bool {
    EntityTag::of(response).is_some() || last_modified_s(response).is_some()
}

#[cfg(test)]
mod tests {
    use super::LifetimeSource as By;
    use super::*;
    use crate::policy::sample::{NOW_S, date_text, fields};
    use proptest::prelude::*;

    const TIMES: Times = Times { requested_s: NOW_S, received_s: NOW_S };

    fn found(list: &[(&str, &str)], status: u16, rules: &Rules) -> Option<(u32, LifetimeSource)> {
        let fields = fields(list);
        let control = ResponseControl::of(&fields);
        FreshnessLifetime::of(Status(status), &fields, &control, &TIMES, rules)
            .map(|lifetime| (lifetime.seconds, lifetime.source))
    }

    #[test]
    fn the_strongest_source_of_a_lifetime_wins() {
        let (soon, past, now) = (date_text(NOW_S + 30), date_text(NOW_S - 30), date_text(NOW_S));
        let old = date_text(NOW_S - 1000);
        type Case<'a> = (&'a [(&'a str, &'a str)], Option<(u32, LifetimeSource)>);
        let cases: &[Case<'_>] = &[
            (&[("cache-control", "max-age=5, s-maxage=9")], Some((9, By::SMaxage))),
            (&[("cache-control", "max-age=5"), ("expires", &soon)], Some((5, By::MaxAge))),
            (&[("cache-control", "max-age=0"), ("expires", &soon)], Some((0, By::MaxAge))),
            (&[("cache-control", "max-age=x"), ("expires", &soon)], Some((0, By::MaxAge))),
            (&[("expires", &soon)], Some((30, By::Expires))),
            (&[("expires", &soon), ("date", &past)], Some((60, By::Expires))),
            (&[("expires", &soon), ("date", "yesterday")], Some((30, By::Expires))),
            (&[("expires", &now), ("date", &soon)], Some((0, By::Expires))),
            (&[("expires", "0"), ("last-modified", &old)], Some((0, By::Expires))),
            (&[("expires", &soon), ("expires", &now)], Some((0, By::Expires))),
            (&[("expires", "")], Some((0, By::Expires))),
            (&[("last-modified", &old)], Some((100, By::Heuristic))),
            (&[("last-modified", &old), ("date", &past)], Some((97, By::Heuristic))),
            (&[("last-modified", &soon)], None),
            (&[("last-modified", "long ago")], None),
            (&[("etag", "\"x\"")], None),
        ];
        for (list, expected) in cases {
            assert_eq!(found(list, 200, &Rules::default()), *expected, "{list:?}");
        }
    }

    #[test]
    fn heuristics_are_bounded_and_only_for_some_statuses() {
        let ancient = date_text(NOW_S - 400_000_000);
        let list: &[(&str, &str)] = &[("last-modified", &ancient)];
        assert_eq!(found(list, 200, &Rules::default()), Some((86_400, By::Heuristic)));
        assert_eq!(found(list, 404, &Rules::default()), Some((86_400, By::Heuristic)));
        assert_eq!(found(list, 302, &Rules::default()), None);
        let public: &[(&str, &str)] = &[list[0], ("cache-control", "public")];
        assert_eq!(found(public, 302, &Rules::default()), Some((86_400, By::Heuristic)));
    }

    #[test]
    fn the_age_field_is_its_first_member_or_nothing() {
        let cases = [
            ("7", 7),
            ("7, 0", 7),
            ("0, 7", 0),
            ("-7", 0),
            ("7.5", 0),
            ("7;a=b", 0),
            ("abc", 0),
            ("abc, 7", 0),
            (" , 7", 7),
            ("", 0),
            ("99999999999", SECONDS_MAX),
        ];
        for (text, expected) in cases {
            assert_eq!(age_value_s(&fields(&[("Age", text)])), expected, "{text:?}");
        }
        assert_eq!(age_value_s(&fields(&[("age", "3"), ("age", "9")])), 3);
    }

    #[test]
    fn an_invalid_age_changes_no_lifetime() {
        let control = ("cache-control", "max-age=60");
        for text in ["", "abc", "-7", "7.0", "7;a=b", "7 s", "abc,7", "0, 0", "7, 0"] {
            let found = found(&[control, ("Age", text), ("age", "9")], 200, &Rules::default());
            assert_eq!(found, Some((60, By::MaxAge)), "{text:?}");
        }
    }

    #[test]
    fn initial_age_is_the_larger_of_two_estimates() {
        let times = Times { requested_s: NOW_S - 4, received_s: NOW_S };
        let past = date_text(NOW_S - 60);
        assert_eq!(initial_age_s(&fields(&[]), &times), 4);
        assert_eq!(initial_age_s(&fields(&[("age", "10")]), &times), 14);
        assert_eq!(initial_age_s(&fields(&[("age", "10"), ("date", &past)]), &times), 60);
        assert_eq!(initial_age_s(&fields(&[("age", "90"), ("date", &past)]), &times), 94);
        let ahead = date_text(NOW_S + 60);
        assert_eq!(initial_age_s(&fields(&[("date", &ahead)]), &times), 4);
        let backwards = Times { requested_s: NOW_S + 9, received_s: NOW_S };
        assert_eq!(initial_age_s(&fields(&[]), &backwards), 0);
    }

    proptest! {
        #[test]
        fn age_never_overflows(age in ".{0,24}", requested_s: u64, received_s: u64) {
            let fields = fields(&[("age", &age)]);
            let times = Times { requested_s, received_s };
            prop_assert!(initial_age_s(&fields, &times) <= SECONDS_MAX);
        }
    }

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
