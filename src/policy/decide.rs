//! The decision about a request, from the request and what the cache has (RFC 9111 sections 4 and
//! 5.2.1). An exchange follows it, and `ktrix explain` shows it.
//!
//! ```text
//! synthetic_answer ─ some ─▶ answered by ktrix itself
//!     │ none
//! route ─▶ may_look_up ─ no ─▶ pass
//!     │ yes
//! decide ─▶ answer │ 504 │ pass │ fill
//! ```

use crate::base::chars::eq_ignore_case;
use crate::http::forward;
use crate::http::head::{BodyLength, RequestHead};
use crate::http::method::Method;
use crate::http::status::Status;
use crate::policy::cache_status::CacheVerdict;
use crate::policy::fill_request;
use crate::policy::reason::forward::Fwd;
use crate::policy::reason::pass::PassReason;
use crate::policy::reason::reuse::ReuseReason;
use crate::policy::rfc9111::control::RequestControl;
use crate::policy::rfc9111::freshness::Lifetimes;
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

/// Whether a request may be answered from the cache at all: a GET or HEAD without a body and
/// without conditions that only the origin may evaluate (RFC 9111 sections 4 and 4.3.2), which the
/// rules of its route let through.
///
/// # Errors
///
/// Why it may not.
pub fn may_look_up(request: &RequestHead, rules: &Rules) -> Result<(), PassReason> {
    if !matches!(request.method, Method::Get | Method::Head) {
        return Err(PassReason::Method);
    }
    if !matches!(request.length, BodyLength::None | BodyLength::Known(0)) {
        return Err(PassReason::RequestBody);
    }
    let is_precondition = |name: &[u8]| match name.len() {
        8 => eq_ignore_case(name, b"if-match"),
        19 => eq_ignore_case(name, b"if-unmodified-since"),
        _ => false,
    };
    if request.fields.iter().any(|(name, _)| is_precondition(name)) {
        return Err(PassReason::Precondition);
    }
    rules.may_look_up(request)
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
        Cached::HitForMiss if fill_request::has_condition(request) => {
            return (Action::Pass(PassReason::Remembered), None);
        }
        Cached::HitForMiss => return (on_miss(request, false), None),
        Cached::Miss { has_variants } => return (on_miss(request, has_variants), None),
        Cached::Stored(stored) => stored,
    };
    let (control, is_refresh_if) = control(request, rules);
    let reason = match reuse_reason(&control, stored, now_s) {
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
            let may_serve_on_error = is_usable_on_error(&control, stored, now_s);
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
    is_usable_on_error(&control(request, rules).0, stored, now_s)
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

/// Whether a request must be answered with 504 instead of being forwarded (RFC 9111 section
/// 5.2.1.7).
pub(crate) fn wants_only_cached(request: &RequestHead) -> bool {
    RequestControl::of(&request.fields).only_if_cached
}

/// The rule by which a stored response answers a request with these directives, or has to be
/// validated first (RFC 9111 section 4). The response is the variant that the request selects.
fn reuse_reason(control: &RequestControl, stored: &Lifetimes, now_s: u64) -> ReuseReason {
    if stored.no_cache {
        return ReuseReason::StoredNoCache;
    }
    if control.no_cache {
        return ReuseReason::RequestNoCache;
    }
    let (age_s, ttl_s) = (stored.current_age_s(now_s), stored.ttl_s(now_s));
    let is_fresh = ttl_s > 0;
    let is_young = match control.max_age {
        // RFC 8246 section 2: as long as it is fresh, the origin has nothing younger.
        Some(_) if is_fresh && stored.immutable => true,
        // With max-age=0 a client asks for validation, even in the second of arrival.
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
    // Section 5.2.1.1: max-age without max-stale refuses every stale response.
    let takes_stale = control.max_age.is_none() || control.max_stale.is_some();
    if now_s < stored.swr_until_s && takes_stale && !stored.is_from_future(now_s) {
        return ReuseReason::StaleWhileRevalidate;
    }
    match control.max_stale {
        Some(u32::MAX) => ReuseReason::MaxStale,
        Some(max_s) if ttl_s.unsigned_abs() <= u64::from(max_s) => ReuseReason::MaxStale,
        _ => ReuseReason::Stale,
    }
}

/// Whether a stored response may answer if the origin fails to validate it (RFC 5861 section 4).
fn is_usable_on_error(control: &RequestControl, stored: &Lifetimes, now_s: u64) -> bool {
    let is_strict = stored.must_revalidate && stored.is_from_future(now_s);
    if stored.no_cache || control.no_cache || is_strict {
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
#[path = "tests/decide.rs"]
mod tests;
