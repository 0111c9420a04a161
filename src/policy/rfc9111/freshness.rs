//! The age of a response and its freshness lifetime, RFC 9111 section 4.2.

use crate::http::date;
use crate::http::fields::Fields;
use crate::http::status::Status;
use crate::policy::rfc9111::codes::is_heuristically_cacheable;
use crate::policy::rfc9111::control::ResponseControl;
use crate::policy::rfc9111::directive::{SECONDS_MAX, delta_seconds};
use crate::policy::rfc9111::rules::Rules;

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
}
