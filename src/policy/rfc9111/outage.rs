//! Stale responses during an outage: while the servers of an upstream are down, or answer with
//! errors.

use crate::http::head::RequestHead;
use crate::http::status::Status;
use crate::policy::rfc9111::control::RequestControl;
use crate::policy::rfc9111::freshness::Lifetimes;
use crate::policy::rfc9111::rules::Rules;

/// Whether a stale response may answer this request while its upstream is down: within the
/// operator's `outage-hold`, and unless the origin or the client insists on validation (RFC 9111
/// section 4.2.4 allows it to a disconnected cache).
pub(crate) fn may_serve_on_outage(
    request: &RequestHead,
    stored: &Lifetimes,
    rules: &Rules,
    now_s: u64,
) -> bool {
    let until_s = stored.fresh_until_s.saturating_add(u64::from(rules.outage_hold_s));
    rules.outage_hold_s > 0
        && now_s < until_s
        && !stored.must_revalidate
        && !stored.no_cache
        && !RequestControl::of(&request.fields).no_cache
}

/// Whether a stored response stays if the origin answers with this status. An error of RFC 5861
/// section 4 may be storable itself, but does not replace a response that can still be served,
/// fresh or stale, while the origin fails or is down.
pub(crate) fn outlasts_error(
    stored: &Lifetimes,
    status: Status,
    rules: &Rules,
    now_s: u64,
) -> bool {
    let is_error = matches!(status.0, 500 | 502 | 503 | 504);
    let hold_s = if stored.must_revalidate { 0 } else { rules.outage_hold_s };
    let outage_until_s = stored.fresh_until_s.saturating_add(u64::from(hold_s));
    let until_s = outage_until_s.max(stored.swr_until_s).max(stored.sie_until_s);
    is_error && !stored.no_cache && now_s < until_s
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample::{NOW_S, request};

    #[test]
    fn a_stale_response_serves_within_the_bound_unless_a_side_forbids_it() {
        let stored =
            |stale_s: u64| Lifetimes { fresh_until_s: NOW_S - stale_s, ..Lifetimes::default() };
        let rules = Rules { outage_hold_s: 10, ..Rules::default() };
        let serves = |asked: &str, stored: &Lifetimes, rules: &Rules| {
            may_serve_on_outage(&request("GET", &[("cache-control", asked)]), stored, rules, NOW_S)
        };
        assert!(serves("", &stored(0), &rules) && serves("max-age=0", &stored(9), &rules));
        assert!(!serves("", &stored(10), &rules));
        assert!(!serves("", &stored(1), &Rules::default()));
        assert!(!serves("no-cache", &stored(1), &rules));
        for stored in [
            Lifetimes { must_revalidate: true, ..stored(1) },
            Lifetimes { no_cache: true, ..stored(1) },
        ] {
            assert!(!serves("", &stored, &rules), "{stored:?}");
        }
    }

    #[test]
    fn an_error_does_not_replace_what_may_be_served() {
        let rules = Rules { outage_hold_s: 10, ..Rules::default() };
        let stored = Lifetimes {
            fresh_until_s: NOW_S,
            swr_until_s: NOW_S + 2,
            sie_until_s: NOW_S + 20,
            ..Lifetimes::default()
        };
        let stays = |status, stored: &Lifetimes, rules: &Rules, later_s| {
            outlasts_error(stored, Status(status), rules, NOW_S + later_s)
        };
        for (status, expected) in [(500, true), (502, true), (503, true), (504, true)]
            .into_iter()
            .chain([(200, false), (404, false), (501, false), (505, false)])
        {
            assert_eq!(stays(status, &stored, &rules, 1), expected, "{status}");
        }
        assert!(stays(503, &stored, &rules, 19) && !stays(503, &stored, &rules, 20));
        let no_window = Lifetimes { sie_until_s: NOW_S, ..stored.clone() };
        assert!(stays(503, &no_window, &rules, 9) && !stays(503, &no_window, &rules, 10));
        assert!(stays(503, &no_window, &Rules::default(), 1));
        assert!(!stays(503, &no_window, &Rules::default(), 2));
        let strict = Lifetimes {
            must_revalidate: true,
            swr_until_s: NOW_S,
            sie_until_s: NOW_S,
            ..stored.clone()
        };
        assert!(!stays(503, &strict, &rules, 1));
        let unsure = Lifetimes { no_cache: true, ..stored };
        assert!(!stays(503, &unsure, &rules, 1));
    }
}
