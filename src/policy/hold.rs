//! Serving what is stale while nobody can say what is fresh: while the servers of a route are down.

use crate::http::head::RequestHead;
use crate::policy::control::RequestControl;
use crate::policy::keep::Lifetimes;
use crate::policy::rules::Rules;

/// Whether a stale response may answer this request while its upstream is down: within the
/// operator's bound, and unless the origin or the client insists on validation (RFC 9111 section
/// 4.2.4 allows it to a cache that is disconnected).
pub fn may_hold(request: &RequestHead, stored: &Lifetimes, rules: &Rules, now_s: u64) -> bool {
    let until_s = stored.fresh_until_s.saturating_add(u64::from(rules.outage_hold_s));
    rules.outage_hold_s > 0
        && now_s < until_s
        && !stored.must_revalidate
        && !stored.no_cache
        && !RequestControl::of(&request.fields).no_cache
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample::{NOW_S, request};

    #[test]
    fn what_is_stale_is_held_within_the_bound_unless_somebody_forbids_it() {
        let stored =
            |stale_s: u64| Lifetimes { fresh_until_s: NOW_S - stale_s, ..Lifetimes::default() };
        let rules = Rules { outage_hold_s: 10, ..Rules::default() };
        let holds = |asked: &str, stored: &Lifetimes, rules: &Rules| {
            may_hold(&request("GET", &[("cache-control", asked)]), stored, rules, NOW_S)
        };
        assert!(holds("", &stored(0), &rules) && holds("max-age=0", &stored(9), &rules));
        assert!(!holds("", &stored(10), &rules));
        assert!(!holds("", &stored(1), &Rules::default()));
        assert!(!holds("no-cache", &stored(1), &rules));
        for stored in [
            Lifetimes { must_revalidate: true, ..stored(1) },
            Lifetimes { no_cache: true, ..stored(1) },
        ] {
            assert!(!holds("", &stored, &rules), "{stored:?}");
        }
    }
}
