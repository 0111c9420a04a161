//! The decision about a request, from the request and what the cache has. An exchange follows it,
//! and `ktrix explain` shows it.
//!
//! ```text
//! synthetic_answer ─ some ─▶ answered by ktrix itself
//!     │ none
//! route ─▶ may_look_up ─ no ─▶ pass
//!     │ yes
//! decide ─▶ answer │ 504 │ pass │ fill
//! ```

use crate::http::forward;
use crate::http::head::RequestHead;
use crate::http::method::Method;
use crate::http::status::Status;
use crate::policy::cache_status::CacheVerdict;
use crate::policy::reason::forward::Fwd;
use crate::policy::reason::pass::PassReason;
use crate::policy::reason::reuse::ReuseReason;
use crate::policy::rfc9111::control::RequestControl;
use crate::policy::rfc9111::lifetimes::Lifetimes;
use crate::policy::rfc9111::reuse;
use crate::policy::rfc9111::revalidate;
use crate::policy::rfc9111::rules::Rules;

/// An answer that ktrix makes without an origin, whatever the configuration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyntheticAnswer {
    /// Its status.
    pub status: Status,
    /// The sentence in its body.
    pub text: &'static str,
}

/// The answer to a request that goes nowhere: OPTIONS at its last hop (RFC 9110 section 7.6.2),
/// and the methods that are not offered.
pub fn synthetic_answer(request: &RequestHead) -> Option<SyntheticAnswer> {
    let answer = |status, text| Some(SyntheticAnswer { status: Status(status), text });
    match request.method {
        Method::Options if forward::max_forwards(request) == Some(0) => {
            answer(200, "this is as far as the request goes")
        }
        Method::Connect => answer(501, "this method is not offered here"),
        Method::Trace => answer(405, "this method is not offered here"),
        _ => None,
    }
}

/// Whether a request may be answered from the cache at all, by HTTP and by the rules of its route.
///
/// # Errors
///
/// Why it may not.
pub fn may_look_up(request: &RequestHead, rules: &Rules) -> Result<(), PassReason> {
    reuse::may_look_up(request).and_then(|()| rules.may_look_up(request))
}

/// The result of a look-up, as the decision needs it.
#[derive(Clone, Copy, Debug)]
pub enum Cached<'a> {
    /// Nothing that the request selects.
    Miss {
        /// Other requests select variants of the same key.
        has_variants: bool,
    },
    /// A mark that the last response could not be stored. The next one may be stored, but no
    /// request waits for it.
    HitForMiss,
    /// A stored response that cannot be read now.
    Unreadable,
    /// A stored response, fresh or stale.
    Stored(&'a Lifetimes),
}

/// The action of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer with the stored response.
    Answer {
        /// Fresh or stale.
        verdict: CacheVerdict,
        /// Freshness left in seconds, negative when stale.
        ttl_s: i64,
        /// Validate it after the answer (RFC 5861 section 3).
        refreshes: bool,
    },
    /// Answer 504: the request says `only-if-cached` (RFC 9111 section 5.2.1.7).
    NotCached,
    /// Forward the request, and store nothing.
    Pass(PassReason),
    /// Fetch the response, store it, and answer with it.
    Fill {
        /// Why.
        fwd: Fwd,
        /// The stored response may answer if the origin fails (RFC 5861 section 4).
        may_serve_on_error: bool,
    },
}

/// The action for a request that [`may_look_up`], and the rule that decided about the stored
/// response.
pub fn decide(
    request: &RequestHead,
    found: Cached<'_>,
    rules: &Rules,
    now_s: u64,
) -> (Action, Option<ReuseReason>) {
    let stored = match found {
        Cached::Unreadable => return (Action::Pass(PassReason::Store), None),
        // A fill has no conditions of the client; it would make a 200 of a 304.
        Cached::HitForMiss if revalidate::has_condition(request) => {
            return (Action::Pass(PassReason::Remembered), None);
        }
        Cached::HitForMiss => return (on_miss(request, false), None),
        Cached::Miss { has_variants } => return (on_miss(request, has_variants), None),
        Cached::Stored(stored) => stored,
    };
    let (control, is_refresh_if) = control(request, rules);
    let reason = match reuse::reason(&control, stored, now_s) {
        ReuseReason::RequestNoCache if is_refresh_if => ReuseReason::RefreshIf,
        reason => reason,
    };
    let ttl_s = stored.ttl_s(now_s);
    let answer = |verdict, refreshes| Action::Answer { verdict, ttl_s, refreshes };
    let action = match reason {
        ReuseReason::Fresh => answer(CacheVerdict::Hit, false),
        ReuseReason::MaxStale => answer(CacheVerdict::Stale, false),
        ReuseReason::StaleWhileRevalidate => answer(CacheVerdict::Stale, !control.no_store),
        _ if control.only_if_cached => Action::NotCached,
        // No other request could share the response.
        _ if control.no_store => Action::Pass(PassReason::RequestNoStore),
        // The response to a HEAD has no body to store.
        _ if request.method == Method::Head => Action::Pass(PassReason::Method),
        _ => {
            let fwd = if ttl_s > 0 && !stored.no_cache { Fwd::Request } else { Fwd::Stale };
            let may_serve_on_error = reuse::may_serve_on_error(&control, stored, now_s);
            Action::Fill { fwd, may_serve_on_error }
        }
    };
    (action, Some(reason))
}

/// Whether a stored response may answer a request that is forwarded all the same, if the origin
/// fails (RFC 5861 section 4).
pub fn may_serve_on_error(
    request: &RequestHead,
    stored: &Lifetimes,
    rules: &Rules,
    now_s: u64,
) -> bool {
    reuse::may_serve_on_error(&control(request, rules).0, stored, now_s)
}

fn on_miss(request: &RequestHead, has_variants: bool) -> Action {
    let control = RequestControl::of(&request.fields);
    if control.only_if_cached {
        return Action::NotCached;
    }
    if control.no_store {
        return Action::Pass(PassReason::RequestNoStore);
    }
    if request.method == Method::Head {
        return Action::Pass(PassReason::Method);
    }
    let fwd = if has_variants { Fwd::VaryMiss } else { Fwd::UriMiss };
    Action::Fill { fwd, may_serve_on_error: false }
}

/// The directives of a request, with `no-cache` where `refresh-if` asks for it, and whether only
/// `refresh-if` does.
fn control(request: &RequestHead, rules: &Rules) -> (RequestControl, bool) {
    let control = RequestControl::of(&request.fields);
    let is_refresh_if = !control.no_cache && rules.refreshes(request);
    (RequestControl { no_cache: control.no_cache || is_refresh_if, ..control }, is_refresh_if)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::condition::Condition;
    use crate::policy::sample::{NOW_S, request};

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
            (
                &[],
                Cached::Stored(&swr),
                Action::Answer { verdict: stale, ttl_s: -5, refreshes: true },
            ),
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
}
