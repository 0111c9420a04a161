//! May a stored response answer this request: RFC 9111 sections 4 and 5.2.1.

use crate::base::chars::eq_ignore_case;
use crate::http::head::{BodyLength, RequestHead};
use crate::http::method::Method;
use crate::policy::reason::pass::PassReason;
use crate::policy::reason::reuse::ReuseReason;
use crate::policy::rfc9111::control::RequestControl;
use crate::policy::rfc9111::lifetimes::Lifetimes;

/// What a stored response is good for, now and for this request. `age_s` is its current age
/// (RFC 9111 section 4.2.3), `ttl_s` the freshness left, negative when stale; both in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer with it.
    Fresh {
        /// Current age.
        age_s: u64,
        /// Freshness left.
        ttl_s: i64,
    },
    /// Stale, but the client takes it (`max-stale`): answer with it.
    Stale {
        /// Current age.
        age_s: u64,
        /// Freshness left, not positive.
        ttl_s: i64,
    },
    /// Stale, but the origin allows it while it is validated: answer with it, and validate.
    StaleWhileRevalidate {
        /// Current age.
        age_s: u64,
        /// Freshness left, not positive.
        ttl_s: i64,
    },
    /// Ask the origin first.
    Revalidate {
        /// Current age.
        age_s: u64,
        /// Freshness left; positive when it is fresh and the client wants it fresher.
        ttl_s: i64,
        /// It may be served should the origin fail (RFC 5861 section 4).
        may_serve_on_error: bool,
    },
    /// It would have to be validated, but the client wants no forwarding: answer 504 (RFC 9111
    /// section 5.2.1.7).
    OnlyIfCached,
    /// This request is nothing for the cache.
    Unusable(PassReason),
}

/// Whether a request may be answered from the cache at all: a GET or HEAD without body and
/// without conditions that only the origin may judge (RFC 9111 sections 4 and 4.3.2).
///
/// # Errors
///
/// Why it may not.
pub fn may_look_up(request: &RequestHead) -> Result<(), PassReason> {
    if !matches!(request.method, Method::Get | Method::Head) {
        return Err(PassReason::Method);
    }
    if !matches!(request.length, BodyLength::None | BodyLength::Known(0)) {
        return Err(PassReason::RequestBody);
    }
    let is_origins = |name: &[u8]| match name.len() {
        8 => eq_ignore_case(name, b"if-match"),
        19 => eq_ignore_case(name, b"if-unmodified-since"),
        _ => false,
    };
    if request.fields.iter().any(|(name, _)| is_origins(name)) {
        return Err(PassReason::Precondition);
    }
    Ok(())
}

/// Whether a request with nothing usable stored must be answered with 504 instead of being
/// forwarded (RFC 9111 section 5.2.1.7).
pub fn wants_only_cached(request: &RequestHead) -> bool {
    RequestControl::of(&request.fields).only_if_cached
}

/// What a stored response is good for, for this request (RFC 9111 section 4). It is taken to be
/// the variant that the request chose.
pub fn reuse(request: &RequestHead, stored: &Lifetimes, now_s: u64) -> Verdict {
    match may_look_up(request) {
        Ok(()) => judge(&RequestControl::of(&request.fields), stored, now_s),
        Err(reason) => Verdict::Unusable(reason),
    }
}

/// As [`reuse`], for a request that may be looked up and asks for this. With the default
/// [`RequestControl`] the client's wishes are not heard, which RFC 9111 section 5.2.1 permits.
pub fn judge(control: &RequestControl, stored: &Lifetimes, now_s: u64) -> Verdict {
    weigh(control, stored, now_s).0
}

/// As [`judge`], with the rule that decided.
pub fn weigh(control: &RequestControl, stored: &Lifetimes, now_s: u64) -> (Verdict, ReuseReason) {
    let age_s = stored.current_age_s(now_s);
    let ttl_s = stored.ttl_s(now_s);
    let why = why(control, stored, now_s, age_s, ttl_s);
    let verdict = match why {
        ReuseReason::Fresh => Verdict::Fresh { age_s, ttl_s },
        ReuseReason::StaleWhileRevalidate => Verdict::StaleWhileRevalidate { age_s, ttl_s },
        ReuseReason::MaxStale => Verdict::Stale { age_s, ttl_s },
        _ if control.only_if_cached => Verdict::OnlyIfCached,
        _ => {
            let may_serve_on_error = may_serve_on_error(control, stored, now_s);
            Verdict::Revalidate { age_s, ttl_s, may_serve_on_error }
        }
    };
    (verdict, why)
}

/// How a stored response stands to a request.
fn why(
    control: &RequestControl,
    stored: &Lifetimes,
    now_s: u64,
    age_s: u64,
    ttl_s: i64,
) -> ReuseReason {
    if stored.no_cache {
        return ReuseReason::StoredNoCache;
    }
    if control.no_cache {
        return ReuseReason::RequestNoCache;
    }
    let is_fresh = ttl_s > 0;
    let is_young = match control.max_age {
        // RFC 8246 section 2: while it is fresh there can be nothing younger.
        Some(_) if is_fresh && stored.immutable => true,
        // A client that says max-age=0 wants validation, even in the second of arrival.
        Some(max_s) => max_s > 0 && age_s <= u64::from(max_s),
        None => true,
    };
    if !is_young {
        return ReuseReason::MaxAge;
    }
    if control.min_fresh.is_some_and(|min_s| ttl_s < i64::from(min_s)) {
        return ReuseReason::MinFresh;
    }
    if is_fresh {
        return ReuseReason::Fresh;
    }
    if stored.must_revalidate {
        return ReuseReason::MustRevalidate;
    }
    // Section 5.2.1.1: max-age without max-stale refuses everything stale.
    let takes_stale = control.max_age.is_none() || control.max_stale.is_some();
    if now_s < stored.swr_until_s && takes_stale {
        return ReuseReason::StaleWhileRevalidate;
    }
    match control.max_stale {
        Some(u32::MAX) => ReuseReason::MaxStale,
        Some(max_s) if ttl_s.unsigned_abs() <= u64::from(max_s) => ReuseReason::MaxStale,
        _ => ReuseReason::Stale,
    }
}

/// RFC 5861 section 4, where neither side insists on validation.
fn may_serve_on_error(control: &RequestControl, stored: &Lifetimes, now_s: u64) -> bool {
    if stored.no_cache || control.no_cache {
        return false;
    }
    let asked_s = match control.stale_if_error {
        Some(asked_s) if !stored.must_revalidate => asked_s,
        _ => 0,
    };
    let until_s = stored.fresh_until_s.saturating_add(u64::from(asked_s));
    now_s < stored.sie_until_s.max(until_s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::status::Status;
    use crate::policy::purge::surrogate::SurrogateKeys;
    use crate::policy::rfc9111::freshness::Times;
    use crate::policy::rfc9111::rules::Rules;
    use crate::policy::rfc9111::storable::Storable;
    use crate::policy::sample::{NOW_S, fields, request};
    use proptest::prelude::*;

    /// What is stored of a response with this Cache-Control that arrived at `NOW_S`.
    fn stored(control: &str) -> Lifetimes {
        let times = Times { requested_s: NOW_S, received_s: NOW_S };
        let response = fields(&[("etag", "\"x\""), ("cache-control", control)]);
        let found = Storable::of(&fields(&[]), Status(200), &response, &times, &Rules::default());
        found.unwrap().lifetimes
    }

    /// The verdict in short, this many seconds later.
    fn verdict(response: &str, asked: &str, later_s: u64) -> &'static str {
        let request = request("GET", &[("cache-control", asked)]);
        match reuse(&request, &stored(response), NOW_S + later_s) {
            Verdict::Fresh { .. } => "fresh",
            Verdict::Stale { .. } => "stale",
            Verdict::StaleWhileRevalidate { .. } => "swr",
            Verdict::Revalidate { may_serve_on_error: true, .. } => "validate-or-serve",
            Verdict::Revalidate { may_serve_on_error: false, .. } => "validate",
            Verdict::OnlyIfCached => "504",
            Verdict::Unusable(reason) => reason.word(),
        }
    }

    #[test]
    fn both_sides_decide_on_reuse() {
        let windows = "max-age=10, stale-while-revalidate=5, stale-if-error=20";
        let cases = [
            ("max-age=10", "", 0, "fresh"),
            ("max-age=10", "", 9, "fresh"),
            ("max-age=10", "", 10, "validate"),
            ("no-cache", "", 0, "validate"),
            ("max-age=10, no-cache", "max-stale", 5, "validate"),
            (windows, "", 10, "swr"),
            (windows, "", 15, "validate-or-serve"),
            (windows, "", 30, "validate"),
            (windows, "no-cache", 1, "validate"),
            (windows, "max-age=60", 12, "validate-or-serve"),
            (windows, "max-age=60, max-stale=9", 12, "swr"),
            (windows, "min-fresh=1", 12, "validate-or-serve"),
            ("max-age=10", "max-age=5", 5, "fresh"),
            ("max-age=10", "max-age=5", 6, "validate-or-serve"),
            ("max-age=10", "max-age=0", 0, "validate-or-serve"),
            ("max-age=10, immutable", "max-age=0", 5, "fresh"),
            ("max-age=10, immutable", "no-cache", 5, "validate"),
            ("max-age=10, immutable", "max-age=0", 10, "validate"),
            ("max-age=10", "min-fresh=5", 5, "fresh"),
            ("max-age=10", "min-fresh=5", 6, "validate-or-serve"),
            ("max-age=10", "max-stale", 1000, "stale"),
            ("max-age=10", "max-stale=5", 15, "stale"),
            ("max-age=10", "max-stale=5", 16, "validate"),
            ("max-age=10, must-revalidate", "max-stale", 10, "validate"),
            ("max-age=10, proxy-revalidate", "max-stale", 10, "validate"),
            ("s-maxage=10", "max-stale", 10, "validate"),
            ("max-age=10", "stale-if-error=9", 18, "validate-or-serve"),
            ("max-age=10", "stale-if-error=9", 19, "validate"),
            ("s-maxage=10", "stale-if-error=9", 11, "validate"),
            ("max-age=10", "only-if-cached", 9, "fresh"),
            ("max-age=10", "only-if-cached", 10, "504"),
            ("max-age=10", "only-if-cached, no-cache", 1, "504"),
            (windows, "only-if-cached", 12, "swr"),
        ];
        for (response, asked, later_s, expected) in cases {
            let found = verdict(response, asked, later_s);
            assert_eq!(found, expected, "{response} / {asked} after {later_s} s");
        }
    }

    #[test]
    fn the_rule_that_decided_is_named() {
        use ReuseReason as G;
        let windows = "max-age=10, stale-while-revalidate=5";
        let cases = [
            ("max-age=10", "", 9, G::Fresh),
            ("max-age=10", "", 10, G::Stale),
            ("max-age=10", "max-age=3", 4, G::MaxAge),
            ("max-age=10", "min-fresh=3", 8, G::MinFresh),
            ("max-age=10", "no-cache", 0, G::RequestNoCache),
            ("no-cache", "no-cache", 0, G::StoredNoCache),
            ("max-age=10, must-revalidate", "max-stale", 10, G::MustRevalidate),
            (windows, "", 14, G::StaleWhileRevalidate),
            (windows, "max-stale=9", 15, G::MaxStale),
        ];
        for (response, asked, later_s, expected) in cases {
            let request = request("GET", &[("cache-control", asked)]);
            let control = RequestControl::of(&request.fields);
            let found = weigh(&control, &stored(response), NOW_S + later_s);
            assert_eq!(found.1, expected, "{response} / {asked} after {later_s} s");
        }
        let named: std::collections::HashSet<G> = cases.iter().map(|case| case.3).collect();
        // The operator's own is the course's to name.
        assert_eq!(named.len() + 1, G::ALL.len());
    }

    #[test]
    fn age_and_ttl_move_with_the_clock() {
        let mut lifetimes = stored("max-age=100");
        lifetimes.age_s = 30;
        for until_s in
            [&mut lifetimes.fresh_until_s, &mut lifetimes.swr_until_s, &mut lifetimes.sie_until_s]
        {
            *until_s -= 30;
        }
        let at = |later_s: u64| judge(&RequestControl::default(), &lifetimes, NOW_S + later_s);
        assert_eq!(at(10), Verdict::Fresh { age_s: 40, ttl_s: 60 });
        assert_eq!(
            at(71),
            Verdict::Revalidate { age_s: 101, ttl_s: -1, may_serve_on_error: false }
        );
        let past = judge(&RequestControl::default(), &lifetimes, NOW_S - 5);
        assert_eq!(past, Verdict::Fresh { age_s: 30, ttl_s: 75 }, "a clock that was set back");
    }

    #[test]
    fn only_plain_reads_are_looked_up() {
        use PassReason as R;
        let found = |method: &str, list: &[(&str, &str)]| may_look_up(&request(method, list));
        assert_eq!(found("GET", &[("if-none-match", "*"), ("range", "bytes=0-")]), Ok(()));
        assert_eq!(found("HEAD", &[]), Ok(()));
        assert_eq!(found("POST", &[]), Err(R::Method));
        assert_eq!(found("get", &[]), Err(R::Method));
        assert_eq!(found("GET", &[("If-Match", "*")]), Err(R::Precondition));
        assert_eq!(found("GET", &[("IF-unmodified-since", "x")]), Err(R::Precondition));
        let mut fat = request("GET", &[]);
        fat.length = BodyLength::Known(3);
        assert_eq!(may_look_up(&fat), Err(R::RequestBody));
        fat.length = BodyLength::Chunked;
        assert_eq!(reuse(&fat, &stored("max-age=9"), NOW_S), Verdict::Unusable(R::RequestBody));
        fat.length = BodyLength::Known(0);
        assert_eq!(may_look_up(&fat), Ok(()));
    }

    fn any_control() -> impl Strategy<Value = RequestControl> {
        let seconds = || proptest::option::of(prop_oneof![0..50_u32, any::<u32>()]);
        (any::<[bool; 3]>(), seconds(), seconds(), seconds(), seconds()).prop_map(
            |([no_cache, no_store, only_if_cached], max_age, min_fresh, max_stale, sie)| {
                RequestControl {
                    no_cache,
                    no_store,
                    only_if_cached,
                    no_transform: false,
                    max_age,
                    min_fresh,
                    max_stale,
                    stale_if_error: sie,
                }
            },
        )
    }

    fn any_lifetimes() -> impl Strategy<Value = Lifetimes> {
        (0..200_u64, 0..200_u32, 0..200_u64, 0..50_u64, 0..50_u64, any::<[bool; 3]>()).prop_map(
            |(received_s, age_s, fresh_until_s, swr_s, sie_s, [must, no_cache, immutable])| {
                Lifetimes {
                    received_s,
                    age_s,
                    fresh_until_s,
                    swr_until_s: fresh_until_s + if must { 0 } else { swr_s },
                    sie_until_s: fresh_until_s + if must { 0 } else { sie_s },
                    must_revalidate: must,
                    no_cache,
                    immutable,
                    vary: None,
                    surrogates: SurrogateKeys::default(),
                }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn nothing_is_reused_that_must_not_be(
            control in any_control(),
            stored in any_lifetimes(),
            now_s in 0..300_u64,
        ) {
            let is_stale = now_s >= stored.fresh_until_s;
            match judge(&control, &stored, now_s) {
                Verdict::Fresh { ttl_s, .. } => {
                    prop_assert!(!is_stale && ttl_s > 0);
                    prop_assert!(!stored.no_cache && !control.no_cache);
                }
                Verdict::Stale { ttl_s, .. } => {
                    prop_assert!(is_stale && ttl_s <= 0);
                    prop_assert!(control.max_stale.is_some());
                    prop_assert!(!stored.must_revalidate && !stored.no_cache && !control.no_cache);
                }
                Verdict::StaleWhileRevalidate { .. } => {
                    prop_assert!(is_stale && now_s < stored.swr_until_s);
                    prop_assert!(!stored.must_revalidate && !stored.no_cache && !control.no_cache);
                }
                Verdict::Revalidate { may_serve_on_error, .. } => {
                    prop_assert!(!control.only_if_cached);
                    if may_serve_on_error {
                        prop_assert!(!stored.no_cache && !control.no_cache);
                        prop_assert!(!is_stale || !stored.must_revalidate);
                    }
                }
                Verdict::OnlyIfCached => prop_assert!(control.only_if_cached),
                Verdict::Unusable(_) => prop_assert!(false),
            }
        }

        #[test]
        fn it_is_fresh_while_it_is_younger_than_its_lifetime(
            max_age in 0..60_u64,
            age in 0..60_u64,
            delay_s in 0..10_u64,
            later_s in 0..80_u64,
        ) {
            let control = format!("max-age={max_age}");
            let age_text = age.to_string();
            let response = fields(&[
                ("etag", "\"x\""), ("cache-control", control.as_str()), ("age", age_text.as_str()),
            ]);
            let times = Times { requested_s: NOW_S - delay_s, received_s: NOW_S };
            let none = fields(&[]);
            let found = Storable::of(&none, Status(200), &response, &times, &Rules::default());
            let lifetimes = found.unwrap().lifetimes;
            let found = judge(&RequestControl::default(), &lifetimes, NOW_S + later_s);
            let age_s = age + delay_s + later_s;
            if age_s < max_age {
                let ttl_s = (max_age - age_s) as i64;
                prop_assert_eq!(found, Verdict::Fresh { age_s, ttl_s });
            } else {
                let is_asked = matches!(found, Verdict::Revalidate { .. });
                prop_assert!(is_asked, "{:?}", found);
            }
        }

        #[test]
        fn no_moment_overflows(
            received_s: u64, age_s: u32, fresh_until_s: u64, now_s: u64, control in any_control(),
        ) {
            let stored = Lifetimes { received_s, age_s, fresh_until_s, ..Lifetimes::default() };
            judge(&control, &stored, now_s);
        }
    }
}
