//! What is done with a request, from what is asked and what the cache has: the one decision that
//! an exchange follows and that `ktrix explain` tells.
//!
//! ```text
//! own_answer ─ some ─▶ answered by ktrix itself
//!     │ none
//! route ─▶ may_look_up ─ no ─▶ pass
//!     │ yes
//! course ─▶ answer │ 504 │ pass │ fill
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
use crate::policy::rfc9111::reuse::{self, Verdict};
use crate::policy::rfc9111::rules::Rules;

/// An answer of ktrix's own, whatever the configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnAnswer {
    /// Its status.
    pub status: Status,
    /// What it says.
    pub text: &'static str,
}

/// The answer to a request that goes nowhere: OPTIONS at its last hop (RFC 9110 section 7.6.2),
/// and the methods that are not offered.
pub fn own_answer(request: &RequestHead) -> Option<OwnAnswer> {
    let own = |status, text| Some(OwnAnswer { status: Status(status), text });
    match request.method {
        Method::Options if forward::max_forwards(request) == Some(0) => {
            own(200, "this is as far as the request goes")
        }
        Method::Connect => own(501, "this method is not offered here"),
        Method::Trace => own(405, "this method is not offered here"),
        _ => None,
    }
}

/// Whether a request may be answered from the cache at all: as HTTP has it, and as the operator
/// does.
///
/// # Errors
///
/// Why it may not.
pub fn may_look_up(request: &RequestHead, rules: &Rules) -> Result<(), PassReason> {
    reuse::may_look_up(request).and_then(|()| rules.may_look_up(request))
}

/// What the cache has under the name of a request.
#[derive(Clone, Copy, Debug)]
pub enum Held<'a> {
    /// Nothing.
    Nothing {
        /// There are variants under its key, which other requests choose.
        has_variants: bool,
    },
    /// A note that the answer is not to be stored.
    Note,
    /// A stored response.
    Object(&'a Lifetimes),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer with what is stored.
    Answer {
        /// Fresh or stale.
        verdict: CacheVerdict,
        /// Freshness left in seconds, negative when stale.
        ttl_s: i64,
        /// Validate it behind the answer (RFC 5861 section 3).
        refreshes: bool,
    },
    /// Answer 504: the client wants no forwarding (RFC 9111 section 5.2.1.7).
    NotCached,
    /// Ask the origin for this client alone.
    Pass(PassReason),
    /// Ask the origin, store what it says, and answer with that.
    Fill {
        /// Why.
        fwd: Fwd,
        /// What is stored may be served should the origin fail (RFC 5861 section 4).
        may_serve_on_error: bool,
    },
}

/// What to do with a request that [`may_look_up`], and the rule that decided about what is stored.
pub fn decide(
    request: &RequestHead,
    held: Held<'_>,
    rules: &Rules,
    now_s: u64,
) -> (Action, Option<ReuseReason>) {
    let lifetimes = match held {
        Held::Note => return (Action::Pass(PassReason::Remembered), None),
        Held::Nothing { has_variants } => return (without(request, has_variants), None),
        Held::Object(lifetimes) => lifetimes,
    };
    let (verdict, why) = weigh(request, lifetimes, rules, now_s);
    let answer = |verdict, ttl_s, refreshes| Action::Answer { verdict, ttl_s, refreshes };
    let action = match verdict {
        Verdict::Fresh { ttl_s, .. } => answer(CacheVerdict::Hit, ttl_s, false),
        Verdict::Stale { ttl_s, .. } => answer(CacheVerdict::Stale, ttl_s, false),
        Verdict::StaleWhileRevalidate { ttl_s, .. } => answer(CacheVerdict::Stale, ttl_s, true),
        Verdict::OnlyIfCached => Action::NotCached,
        Verdict::Unusable(reason) => Action::Pass(reason),
        // What answers a HEAD has no body to store.
        Verdict::Revalidate { .. } if request.method == Method::Head => {
            Action::Pass(PassReason::Method)
        }
        Verdict::Revalidate { ttl_s, may_serve_on_error, .. } => {
            let is_fresh = ttl_s > 0 && !lifetimes.no_cache;
            let fwd = if is_fresh { Fwd::Request } else { Fwd::Stale };
            Action::Fill { fwd, may_serve_on_error }
        }
    };
    (action, Some(why))
}

/// Whether a stored response may answer a request that is sent on in spite of it, should the origin
/// fail (RFC 5861 section 4).
pub fn may_serve_on_error(
    request: &RequestHead,
    stored: &Lifetimes,
    rules: &Rules,
    now_s: u64,
) -> bool {
    let (verdict, _) = weigh(request, stored, rules, now_s);
    matches!(verdict, Verdict::Revalidate { may_serve_on_error: true, .. })
}

fn without(request: &RequestHead, has_variants: bool) -> Action {
    if reuse::wants_only_cached(request) {
        return Action::NotCached;
    }
    if request.method == Method::Head {
        return Action::Pass(PassReason::Method);
    }
    let fwd = if has_variants { Fwd::VaryMiss } else { Fwd::UriMiss };
    Action::Fill { fwd, may_serve_on_error: false }
}

/// How a stored response stands to a request and to what the operator says of it.
fn weigh(
    request: &RequestHead,
    stored: &Lifetimes,
    rules: &Rules,
    now_s: u64,
) -> (Verdict, ReuseReason) {
    let asked = RequestControl::of(&request.fields);
    let refreshes = rules.refreshes(request);
    let control = RequestControl { no_cache: asked.no_cache || refreshes, ..asked };
    match reuse::weigh(&control, stored, now_s) {
        (verdict, ReuseReason::RequestNoCache) if !asked.no_cache => {
            (verdict, ReuseReason::RefreshIf)
        }
        weighed => weighed,
    }
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

    fn found(asked: &[(&str, &str)], held: Held<'_>) -> Action {
        decide(&request("GET", asked), held, &Rules::default(), NOW_S).0
    }

    #[test]
    fn what_is_held_and_asked_decides() {
        let no_cache = [("cache-control", "no-cache")];
        let only = [("cache-control", "only-if-cached")];
        let (fresh, swr, sie) = (lifetimes(5), lifetimes(-5), lifetimes(-15));
        let nothing = Held::Nothing { has_variants: false };
        let fill = |fwd, may_serve_on_error| Action::Fill { fwd, may_serve_on_error };
        let stale = CacheVerdict::Stale;
        type Case<'a> = (&'a [(&'a str, &'a str)], Held<'a>, Action);
        let cases: &[Case<'_>] = &[
            (&[], nothing, fill(Fwd::UriMiss, false)),
            (&[], Held::Nothing { has_variants: true }, fill(Fwd::VaryMiss, false)),
            (&only, nothing, Action::NotCached),
            (&[], Held::Note, Action::Pass(PassReason::Remembered)),
            (
                &[],
                Held::Object(&fresh),
                Action::Answer { verdict: CacheVerdict::Hit, ttl_s: 5, refreshes: false },
            ),
            (&no_cache, Held::Object(&fresh), fill(Fwd::Request, false)),
            (
                &[],
                Held::Object(&swr),
                Action::Answer { verdict: stale, ttl_s: -5, refreshes: true },
            ),
            (
                &[("cache-control", "max-stale")],
                Held::Object(&sie),
                Action::Answer { verdict: stale, ttl_s: -15, refreshes: false },
            ),
            (&[], Held::Object(&sie), fill(Fwd::Stale, true)),
            (&only, Held::Object(&sie), Action::NotCached),
        ];
        for (asked, held, expected) in cases {
            assert_eq!(found(asked, *held), *expected, "{asked:?} {held:?}");
        }
    }

    #[test]
    fn a_head_fills_nothing() {
        let (fresh, stale) = (lifetimes(5), lifetimes(-50));
        let head = request("HEAD", &[]);
        let rules = Rules::default();
        let of = |held| decide(&head, held, &rules, NOW_S).0;
        assert!(matches!(of(Held::Object(&fresh)), Action::Answer { .. }));
        for held in [Held::Object(&stale), Held::Nothing { has_variants: false }] {
            assert_eq!(of(held), Action::Pass(PassReason::Method));
        }
    }

    #[test]
    fn the_operator_has_a_say() {
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
        let found = decide(&asked, Held::Object(&lifetimes(5)), &rules, NOW_S);
        let fill = Action::Fill { fwd: Fwd::Request, may_serve_on_error: false };
        assert_eq!(found, (fill, Some(ReuseReason::RefreshIf)));
    }

    #[test]
    fn some_requests_go_nowhere() {
        let status = |method: &str, list: &[(&str, &str)]| {
            own_answer(&request(method, list)).map(|own| own.status.0)
        };
        assert_eq!(status("OPTIONS", &[("max-forwards", "0")]), Some(200));
        assert_eq!(status("OPTIONS", &[("max-forwards", "1")]), None);
        assert_eq!(status("TRACE", &[]), Some(405));
        assert_eq!(status("GET", &[("max-forwards", "0")]), None);
    }
}
