use super::*;
use crate::policy::condition::Condition;
use crate::policy::purge::surrogate::SurrogateKeys;
use crate::policy::rfc9111::freshness::Times;
use crate::policy::rfc9111::storable::Storable;
use crate::policy::sample::{NOW_S, fields, request};
use proptest::prelude::*;

fn lifetimes(fresh_s: i64) -> Lifetimes {
    let fresh_until_s = NOW_S.saturating_add_signed(fresh_s);
    Lifetimes {
        received_s: NOW_S - 100,
        fresh_until_s,
        swr_until_s: fresh_until_s + 10,
        sie_until_s: fresh_until_s + 20,
        ..Lifetimes::default()
    }
}

fn action(asked: &[(&str, &str)], found: Cached<'_>) -> Action {
    decide(&request("GET", asked), found, &Rules::default(), NOW_S).0
}

#[test]
fn the_request_and_the_stored_response_decide() {
    let no_cache = [("cache-control", "no-cache")];
    let only = [("cache-control", "only-if-cached")];
    let no_store = [("cache-control", "no-store")];
    let tag = [("if-none-match", "\"a\"")];
    let (fresh, swr, sie) = (lifetimes(5), lifetimes(-5), lifetimes(-15));
    let nothing = Cached::Miss { has_variants: false };
    let fill = |fwd, may_serve_on_error| Action::Fill { fwd, may_serve_on_error };
    let stale = CacheVerdict::Stale;
    type Case<'a> = (&'a [(&'a str, &'a str)], Cached<'a>, Action);
    let cases: &[Case<'_>] = &[
        (&[], nothing, fill(Fwd::UriMiss, false)),
        (&[], Cached::Miss { has_variants: true }, fill(Fwd::VaryMiss, false)),
        (&only, nothing, Action::NotCached),
        (&[], Cached::HitForMiss, fill(Fwd::UriMiss, false)),
        (&only, Cached::HitForMiss, Action::NotCached),
        (&tag, Cached::HitForMiss, Action::Pass(PassReason::Remembered)),
        (&[], Cached::Unreadable, Action::Pass(PassReason::Store)),
        (&no_store, nothing, Action::Pass(PassReason::RequestNoStore)),
        (&no_store, Cached::Stored(&sie), Action::Pass(PassReason::RequestNoStore)),
        (
            &no_store,
            Cached::Stored(&swr),
            Action::Answer { verdict: stale, ttl_s: -5, refreshes: false },
        ),
        (
            &[],
            Cached::Stored(&fresh),
            Action::Answer { verdict: CacheVerdict::Hit, ttl_s: 5, refreshes: false },
        ),
        (&no_cache, Cached::Stored(&fresh), fill(Fwd::Request, false)),
        (&[], Cached::Stored(&swr), Action::Answer { verdict: stale, ttl_s: -5, refreshes: true }),
        (
            &[("cache-control", "max-stale")],
            Cached::Stored(&sie),
            Action::Answer { verdict: stale, ttl_s: -15, refreshes: false },
        ),
        (&[], Cached::Stored(&sie), fill(Fwd::Stale, true)),
        (&only, Cached::Stored(&sie), Action::NotCached),
        (
            &only,
            Cached::Stored(&swr),
            Action::Answer { verdict: stale, ttl_s: -5, refreshes: true },
        ),
    ];
    for (asked, lookup, expected) in cases {
        assert_eq!(action(asked, *lookup), *expected, "{asked:?} {lookup:?}");
    }
}

#[test]
fn a_head_does_not_fill() {
    let (fresh, stale) = (lifetimes(5), lifetimes(-50));
    let head = request("HEAD", &[]);
    let rules = Rules::default();
    let of = |found| decide(&head, found, &rules, NOW_S).0;
    assert!(matches!(of(Cached::Stored(&fresh)), Action::Answer { .. }));
    for found in [Cached::Stored(&stale), Cached::Miss { has_variants: false }] {
        assert_eq!(of(found), Action::Pass(PassReason::Method));
    }
}

#[test]
fn conditions_of_the_route_decide() {
    let condition = |text| vec![Condition::parse(text).unwrap()];
    let rules = Rules {
        pass_if: condition("cookie session"),
        refresh_if: condition("header X-Preview"),
        ..Rules::default()
    };
    let asked = request("GET", &[("cookie", "session=1")]);
    assert_eq!(may_look_up(&asked, &rules), Err(PassReason::PassIf));
    let asked = request("GET", &[("x-preview", "1")]);
    assert_eq!(may_look_up(&asked, &rules), Ok(()));
    let found = decide(&asked, Cached::Stored(&lifetimes(5)), &rules, NOW_S);
    let fill = Action::Fill { fwd: Fwd::Request, may_serve_on_error: false };
    assert_eq!(found, (fill, Some(ReuseReason::RefreshIf)));
}

#[test]
fn some_requests_get_a_synthetic_answer() {
    let status = |method: &str, list: &[(&str, &str)]| {
        synthetic_answer(&request(method, list)).map(|answer| answer.status.0)
    };
    assert_eq!(status("OPTIONS", &[("max-forwards", "0")]), Some(200));
    assert_eq!(status("OPTIONS", &[("max-forwards", "1")]), None);
    assert_eq!(status("TRACE", &[]), Some(405));
    assert_eq!(status("GET", &[("max-forwards", "0")]), None);
}

/// The lifetimes of a response with this Cache-Control that arrived at `NOW_S`.
fn stored(control: &str) -> Lifetimes {
    let times = Times { requested_s: NOW_S, received_s: NOW_S };
    let response = fields(&[("etag", "\"x\""), ("cache-control", control)]);
    let found = Storable::of(&fields(&[]), Status(200), &response, &times, &Rules::default());
    found.unwrap().lifetimes
}

/// The outcome for the response this many seconds later, in short.
fn outcome(response: &str, asked: &str, later_s: u64) -> &'static str {
    let control = RequestControl::of(&fields(&[("cache-control", asked)]));
    let (stored, now_s) = (stored(response), NOW_S + later_s);
    match reuse_reason(&control, &stored, now_s) {
        ReuseReason::Fresh => "fresh",
        ReuseReason::MaxStale => "stale",
        ReuseReason::StaleWhileRevalidate => "swr",
        _ if is_usable_on_error(&control, &stored, now_s) => "validate-or-serve",
        _ => "validate",
    }
}

#[test]
fn a_response_from_the_future_is_stale() {
    let stored = Lifetimes {
        received_s: NOW_S,
        fresh_until_s: NOW_S + 60,
        swr_until_s: NOW_S + 60,
        sie_until_s: NOW_S + 60,
        ..Lifetimes::default()
    };
    let control = RequestControl::default();
    for (now_s, expected) in [
        (NOW_S, ReuseReason::Fresh),
        (NOW_S - 2, ReuseReason::Fresh),
        (NOW_S - 3, ReuseReason::Stale),
        (NOW_S - 86_400, ReuseReason::Stale),
    ] {
        assert_eq!(reuse_reason(&control, &stored, now_s), expected, "{now_s}");
        assert!(stored.ttl_s(now_s) <= 62, "{now_s}");
    }
}

#[test]
fn directives_of_both_sides_decide() {
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
    ];
    for (response, asked, later_s, expected) in cases {
        let found = outcome(response, asked, later_s);
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
        let control = RequestControl::of(&fields(&[("cache-control", asked)]));
        let found = reuse_reason(&control, &stored(response), NOW_S + later_s);
        assert_eq!(found, expected, "{response} / {asked} after {later_s} s");
    }
    let named: std::collections::HashSet<G> = cases.iter().map(|case| case.3).collect();
    // All but refresh-if, of which `decide` knows.
    assert_eq!(named.len() + 1, G::ALL.len());
}

#[test]
fn only_get_and_head_without_body_are_looked_up() {
    use PassReason as R;
    let rules = Rules::default();
    let found = |method: &str, list: &[(&str, &str)]| may_look_up(&request(method, list), &rules);
    assert_eq!(found("GET", &[("if-none-match", "*"), ("range", "bytes=0-")]), Ok(()));
    assert_eq!(found("HEAD", &[]), Ok(()));
    assert_eq!(found("POST", &[]), Err(R::Method));
    assert_eq!(found("get", &[]), Err(R::Method));
    assert_eq!(found("GET", &[("If-Match", "*")]), Err(R::Precondition));
    assert_eq!(found("GET", &[("IF-unmodified-since", "x")]), Err(R::Precondition));
    let mut with_body = request("GET", &[]);
    with_body.length = BodyLength::Known(3);
    assert_eq!(may_look_up(&with_body, &rules), Err(R::RequestBody));
    with_body.length = BodyLength::Chunked;
    assert_eq!(may_look_up(&with_body, &rules), Err(R::RequestBody));
    with_body.length = BodyLength::Known(0);
    assert_eq!(may_look_up(&with_body, &rules), Ok(()));
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
        |(received_s, age_s, fresh_until_s, swr_s, sie_s, [must, no_cache, immutable])| Lifetimes {
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
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn no_response_is_reused_against_the_directives(
        control in any_control(),
        stored in any_lifetimes(),
        now_s in 0..300_u64,
    ) {
        let is_stale = now_s >= stored.fresh_until_s || stored.is_from_future(now_s);
        let found = reuse_reason(&control, &stored, now_s);
        match found {
            ReuseReason::Fresh => prop_assert!(!is_stale),
            ReuseReason::MaxStale => prop_assert!(is_stale && control.max_stale.is_some()),
            ReuseReason::StaleWhileRevalidate => {
                prop_assert!(is_stale && now_s < stored.swr_until_s);
            }
            _ if is_usable_on_error(&control, &stored, now_s) => {
                prop_assert!(!stored.no_cache && !control.no_cache);
                prop_assert!(!is_stale || !stored.must_revalidate);
                return Ok(());
            }
            _ => return Ok(()),
        }
        prop_assert!(!stored.no_cache && !control.no_cache);
        prop_assert!(!is_stale || !stored.must_revalidate);
    }

    #[test]
    fn a_response_is_fresh_while_its_age_is_below_its_lifetime(
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
        let now_s = NOW_S + later_s;
        let age_s = age + delay_s + later_s;
        prop_assert_eq!(lifetimes.current_age_s(now_s), age_s);
        prop_assert_eq!(lifetimes.ttl_s(now_s), max_age as i64 - age_s as i64);
        let is_fresh = reuse_reason(&RequestControl::default(), &lifetimes, now_s) == ReuseReason::Fresh;
        prop_assert_eq!(is_fresh, age_s < max_age);
    }

    #[test]
    fn no_moment_overflows(
        received_s: u64, age_s: u32, fresh_until_s: u64, now_s: u64, control in any_control(),
    ) {
        let stored = Lifetimes { received_s, age_s, fresh_until_s, ..Lifetimes::default() };
        reuse_reason(&control, &stored, now_s);
    }
}
