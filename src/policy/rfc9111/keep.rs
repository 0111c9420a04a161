//! May a response be stored, and for how long is it good: RFC 9111 sections 3 and 4.2.

use crate::http::fields::Fields;
use crate::http::head::{RequestHead, ResponseHead};
use crate::http::method::Method;
use crate::http::status::Status;
use crate::policy::key::vary::VaryNames;
use crate::policy::reason::pass::PassReason;
use crate::policy::rfc9111::codes::{is_understood, is_whole};
use crate::policy::rfc9111::control::{RequestControl, ResponseControl};
use crate::policy::rfc9111::freshness::Times;
use crate::policy::rfc9111::lifetimes::Lifetimes;
use crate::policy::rfc9111::omit::Omit;
use crate::policy::rfc9111::rules::{Rules, SetCookie};
use crate::policy::rfc9111::scope::Scope;

/// What is to become of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Store it.
    Store {
        /// For how long it is good for what.
        lifetimes: Lifetimes,
        /// The fields to store it without.
        omit: Omit,
    },
    /// Hand it on and store nothing.
    Pass(PassReason),
}

/// Whether the response to this request, as it was sent to the origin, may be stored (RFC 9111
/// section 3), and for how long it is good.
pub fn keep(request: &RequestHead, response: &ResponseHead, times: &Times, rules: &Rules) -> Keep {
    judge(request.method, &request.fields, response.status, &response.fields, times, rules)
}

/// As [`keep`], from the parts that count. A fetch on the cache's own behalf says
/// [`Method::Get`]; after a 304 the status and the fields are those of the stored response after
/// merging (RFC 9111 section 4.3.4).
pub fn judge(
    method: Method,
    request: &Fields,
    status: Status,
    response: &Fields,
    times: &Times,
    rules: &Rules,
) -> Keep {
    let response = &*rules.heeded(response);
    let control = ResponseControl::of(response);
    let mut omit = Omit::of(response);
    if rules.set_cookie == SetCookie::Strip && response.contains("set-cookie") {
        omit.add(b"set-cookie");
    }
    if let Err(reason) = may_store(method, request, status, response, &control, &omit, rules) {
        return Keep::Pass(reason);
    }
    let vary = VaryNames::of(response, &rules.vary_ignored, rules.key.chosen.as_ref());
    match vary.and_then(|vary| {
        let lifetimes = Lifetimes::of(status, response, &control, times, rules)?;
        Ok(Lifetimes { vary, ..lifetimes })
    }) {
        Ok(lifetimes) => Keep::Store { lifetimes, omit },
        Err(reason) => Keep::Pass(reason),
    }
}

/// Everything in RFC 9111 section 3 but the question of a lifetime.
fn may_store(
    method: Method,
    request: &Fields,
    status: Status,
    response: &Fields,
    control: &ResponseControl,
    omit: &Omit,
    rules: &Rules,
) -> Result<(), PassReason> {
    if method != Method::Get {
        return Err(PassReason::Method);
    }
    if !is_whole(status) || control.must_understand && !is_understood(status) {
        return Err(PassReason::Status);
    }
    if RequestControl::of(request).no_store {
        return Err(PassReason::RequestNoStore);
    }
    // Section 5.2.2.3: a status that is understood outweighs the no-store beside must-understand.
    if control.no_store && !control.must_understand {
        return Err(PassReason::NoStore);
    }
    if control.private == Scope::Whole {
        return Err(PassReason::Private);
    }
    if request.contains("authorization") && !control.allows_authorized() {
        return Err(PassReason::Authorization);
    }
    let sets_cookie = response.contains("set-cookie") && !omit.contains(b"set-cookie");
    if sets_cookie && rules.set_cookie != SetCookie::Store {
        return Err(PassReason::SetCookie);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample::{NOW_S, date_text, request, response};
    use proptest::prelude::*;

    type List<'a> = &'a [(&'a str, &'a str)];

    const TIMES: Times = Times { requested_s: NOW_S, received_s: NOW_S };

    fn kept(asked: &[(&str, &str)], status: u16, list: &[(&str, &str)], rules: &Rules) -> Keep {
        keep(&request("GET", asked), &response(status, list), &TIMES, rules)
    }

    fn reason(asked: &[(&str, &str)], status: u16, list: &[(&str, &str)]) -> Option<PassReason> {
        match kept(asked, status, list, &Rules::default()) {
            Keep::Store { .. } => None,
            Keep::Pass(reason) => Some(reason),
        }
    }

    #[test]
    fn what_may_be_stored_is_what_the_rfc_says() {
        use PassReason as R;
        let tag = ("etag", "\"x\"");
        let cc = |value| ("cache-control", value);
        let cases: &[(u16, List<'_>, Option<R>)] = &[
            (200, &[cc("max-age=60")], None),
            (200, &[cc("no-store, max-age=60")], Some(R::NoStore)),
            (200, &[cc("no-store, must-understand, max-age=60")], None),
            (299, &[cc("no-store, must-understand, max-age=60")], Some(R::Status)),
            (299, &[cc("max-age=60")], None),
            (599, &[cc("max-age=60")], None),
            (200, &[cc("private, max-age=60")], Some(R::Private)),
            (200, &[cc("private=\"x-user\", max-age=60")], None),
            (200, &[cc("max-age=60"), ("set-cookie", "a=b")], Some(R::SetCookie)),
            (200, &[cc("max-age=60, no-cache=\"Set-Cookie\""), ("set-cookie", "a=b")], None),
            (200, &[cc("max-age=60"), ("vary", "*")], Some(R::VaryStar)),
            (200, &[cc("max-age=60"), ("vary", "a b")], Some(R::VaryOdd)),
            (200, &[], Some(R::NoLifetime)),
            (200, &[tag], None),
            (302, &[tag], Some(R::NoLifetime)),
            (302, &[tag, cc("public")], None),
            (302, &[cc("max-age=60")], None),
            (200, &[cc("no-cache")], Some(R::NoCache)),
            (200, &[cc("no-cache"), tag], None),
            (200, &[cc("max-age=0")], Some(R::Expired)),
            (200, &[cc("max-age=0"), tag], None),
            (200, &[cc("max-age=0, stale-if-error=9")], None),
            (200, &[cc("max-age=9"), ("age", "9")], Some(R::Expired)),
            (206, &[cc("max-age=60")], Some(R::Status)),
            (304, &[cc("max-age=60")], Some(R::Status)),
            (412, &[cc("max-age=60")], Some(R::Status)),
            (416, &[cc("max-age=60")], Some(R::Status)),
            (100, &[cc("max-age=60")], Some(R::Status)),
            (200, &[("pragma", "no-cache"), cc("max-age=60")], None),
        ];
        for (status, list, expected) in cases {
            assert_eq!(reason(&[], *status, list), *expected, "{status} {list:?}");
        }
    }

    #[test]
    fn the_request_has_a_say() {
        use PassReason as R;
        let cc = |value| ("cache-control", value);
        let auth = ("authorization", "Basic eDp5");
        let cases: &[(List<'_>, List<'_>, Option<R>)] = &[
            (&[cc("no-store")], &[cc("max-age=60")], Some(R::RequestNoStore)),
            (&[cc("no-cache")], &[cc("max-age=60")], None),
            (&[auth], &[cc("max-age=60")], Some(R::Authorization)),
            (&[auth], &[cc("max-age=60, public")], None),
            (&[auth], &[cc("max-age=60, must-revalidate")], None),
            (&[auth], &[cc("s-maxage=60")], None),
            (&[auth], &[cc("max-age=60, proxy-revalidate")], Some(R::Authorization)),
        ];
        for (asked, list, expected) in cases {
            assert_eq!(reason(asked, 200, list), *expected, "{asked:?} {list:?}");
        }
        for method in ["HEAD", "POST", "PUT", "OPTIONS", "BREW"] {
            let response = response(200, &[cc("max-age=60")]);
            let found = keep(&request(method, &[]), &response, &TIMES, &Rules::default());
            assert_eq!(found, Keep::Pass(R::Method), "{method}");
        }
    }

    #[test]
    fn cookies_are_kept_only_when_allowed() {
        let list = [("cache-control", "max-age=60"), ("set-cookie", "a=b")];
        for (set_cookie, is_omitted) in [(SetCookie::Store, false), (SetCookie::Strip, true)] {
            let rules = Rules { set_cookie, ..Rules::default() };
            let Keep::Store { lifetimes, omit } = kept(&[], 200, &list, &rules) else {
                panic!("{set_cookie:?}")
            };
            assert_eq!(lifetimes.fresh_until_s, NOW_S + 60);
            assert_eq!(omit.contains(b"Set-Cookie"), is_omitted);
        }
    }

    #[test]
    fn what_is_ignored_decides_nothing() {
        let list = [
            ("Cache-Control", "private, no-store"),
            ("Expires", "0"),
            ("Last-Modified", "Sat, 01 Jan 2000 00:00:00 GMT"),
            ("Vary", "*"),
            ("Set-Cookie", "a=b"),
        ];
        let ignored = |names: &[&str]| {
            let ignored = names.iter().map(|name| (*name).into()).collect();
            Rules { ignored, heuristic_max_s: 7, ..Rules::default() }
        };
        let all = ["cache-control", "expires", "vary"];
        let reason = |rules: &Rules, n: usize| match kept(&[], 200, &list[..n], rules) {
            Keep::Store { lifetimes, .. } => Ok(lifetimes.fresh_until_s - NOW_S),
            Keep::Pass(reason) => Err(reason),
        };
        assert_eq!(reason(&ignored(&all), 4), Ok(7));
        assert_eq!(reason(&ignored(&all), 5), Err(PassReason::SetCookie));
        assert_eq!(reason(&ignored(&all[..2]), 4), Err(PassReason::VaryStar));
        assert_eq!(reason(&ignored(&all[1..]), 4), Err(PassReason::NoStore));
    }

    fn any_directives() -> impl Strategy<Value = Vec<String>> {
        let number = prop_oneof![Just(0_u64), 1..100_u64, any::<u64>()];
        let member = prop_oneof![
            prop_oneof![
                Just("public"),
                Just("must-revalidate"),
                Just("proxy-revalidate"),
                Just("no-cache"),
                Just("immutable"),
                Just("must-understand"),
                Just("x=\"y"),
            ]
            .prop_map(str::to_owned),
            (
                prop_oneof![
                    Just("max-age"),
                    Just("s-maxage"),
                    Just("stale-while-revalidate"),
                    Just("stale-if-error"),
                ],
                number,
            )
                .prop_map(|(name, n)| format!("{name}={n}")),
        ];
        proptest::collection::vec(member, 0..6)
    }

    proptest! {
        #[test]
        fn no_store_and_private_are_never_stored(
            mut members in any_directives(),
            at in 0_usize..6,
            word in prop_oneof![Just("no-store"), Just("NO-STORE"), Just("private"), Just("Private=")],
            status in 200_u16..600,
        ) {
            members.retain(|member| member != "must-understand");
            members.insert(at.min(members.len()), word.to_owned());
            let line = members.join(", ");
            let list = [("etag", "\"x\""), ("cache-control", line.as_str())];
            prop_assert!(reason(&[], status, &list).is_some(), "{}", line);
        }

        #[test]
        fn windows_are_in_order_and_bounded(
            members in any_directives(),
            age in proptest::option::of(any::<u32>()),
            late_s in 0..1000_u64,
            date_off in -100_000..100_000_i64,
        ) {
            let line = members.join(", ");
            let date = date_text(NOW_S.saturating_add_signed(date_off));
            let age = age.map(|age| age.to_string());
            let mut list = vec![("etag", "\"x\""), ("cache-control", line.as_str()), ("date", &date)];
            if let Some(age) = &age {
                list.push(("age", age));
            }
            let times = Times { requested_s: NOW_S - late_s, received_s: NOW_S };
            let head = response(200, &list);
            if let Keep::Store { lifetimes, .. } =
                keep(&request("GET", &[]), &head, &times, &Rules::default())
            {
                prop_assert!(lifetimes.fresh_until_s <= lifetimes.swr_until_s);
                prop_assert!(lifetimes.fresh_until_s <= lifetimes.sie_until_s);
                prop_assert!(lifetimes.fresh_until_s <= NOW_S + (1 << 31));
                if lifetimes.no_cache {
                    prop_assert!(lifetimes.fresh_until_s <= NOW_S);
                }
                if lifetimes.must_revalidate {
                    prop_assert_eq!(lifetimes.fresh_until_s, lifetimes.swr_until_s);
                    prop_assert_eq!(lifetimes.fresh_until_s, lifetimes.sie_until_s);
                }
            }
        }
    }
}
