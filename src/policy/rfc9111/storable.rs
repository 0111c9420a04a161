//! Which responses may be stored, and which of their fields, RFC 9111 section 3.
//!
//! A `private` or `no-cache` with a list of fields applies to these alone: they are not stored, and
//! the rest of the response is stored and reused as without the directive.

use crate::base::chars::eq_ignore_case;
use crate::http::fields::Fields;
use crate::http::status::Status;
use crate::policy::key::vary::VaryNames;
use crate::policy::reason::pass::PassReason;
use crate::policy::rfc9111::control::{RequestControl, ResponseControl, Scope, listed_fields};
use crate::policy::rfc9111::freshness::{Lifetimes, Times};
use crate::policy::rfc9111::rules::{Rules, SetCookie};

/// A response that may be stored: what is stored beside its fields and its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Storable {
    /// Until when it may be used.
    pub(crate) lifetimes: Lifetimes,
    /// The fields that are not stored.
    pub(crate) omit: Omit,
}

impl Storable {
    /// Whether the response to a GET may be stored. The request has the fields that were sent to
    /// the origin. After a 304, the status and the fields of the response are those of the stored
    /// one after the merge (RFC 9111 section 4.3.4).
    pub(crate) fn of(
        request: &Fields,
        status: Status,
        response: &Fields,
        times: &Times,
        rules: &Rules,
    ) -> Result<Self, PassReason> {
        let response = &*rules.effective_fields(response);
        let control = ResponseControl::of(response);
        if !is_whole(status) || control.must_understand && !is_understood(status) {
            return Err(PassReason::Status);
        }
        if RequestControl::of(request).no_store {
            return Err(PassReason::RequestNoStore);
        }
        // Section 5.2.2.3: with must-understand, no-store is for statuses that are not understood.
        if control.no_store && !control.must_understand {
            return Err(PassReason::NoStore);
        }
        if control.private == Scope::Whole {
            return Err(PassReason::Private);
        }
        if request.contains("authorization") && !control.allows_authorized() {
            return Err(PassReason::Authorization);
        }
        let mut omit = Omit::of(response);
        if response.contains("set-cookie") {
            match rules.set_cookie {
                SetCookie::Strip => omit.add(b"set-cookie"),
                SetCookie::Pass if !omit.contains(b"set-cookie") => {
                    return Err(PassReason::SetCookie);
                }
                SetCookie::Pass | SetCookie::Store => {}
            }
        }
        if rules.may_redirect && response.contains("x-accel-redirect") {
            return Err(PassReason::InternalRedirect);
        }
        let vary = VaryNames::of(response, &rules.vary_ignored, rules.key.chosen.as_ref())?;
        let lifetimes = Lifetimes::of(status, response, &control, times, rules)?;
        Ok(Self { lifetimes: Lifetimes { vary, ..lifetimes }, omit })
    }
}

/// The fields that `private` and `no-cache` list (RFC 9111 sections 5.2.2.4 and 5.2.2.7), and
/// Set-Cookie with `set-cookie: strip`. Only the client of the fetch gets them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Omit {
    names: Vec<Box<[u8]>>,
}

impl Omit {
    /// The fields listed by the Cache-Control of a response.
    pub(crate) fn of(response: &Fields) -> Self {
        let mut names = Vec::new();
        listed_fields(response.get_all("cache-control"), |name| names.push(name.into()));
        Self { names }
    }

    pub(crate) fn add(&mut self, name: &[u8]) {
        self.names.push(name.into());
    }

    /// Removes them from fields that are to be stored.
    pub(crate) fn apply(&self, fields: &mut Fields) {
        if !self.is_empty() {
            fields.retain(|name, _| !self.contains(name));
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(crate) fn contains(&self, name: &[u8]) -> bool {
        self.names.iter().any(|listed| eq_ignore_case(listed, name))
    }
}

/// A final status of a whole response, and not of a part, a condition or a range.
pub(crate) const fn is_whole(status: Status) -> bool {
    status.0 >= 200 && !matches!(status.0, 206 | 304 | 412 | 416)
}

/// A status with rules for caching that ktrix knows (RFC 9111 section 3, RFC 9110 section 15).
/// `must-understand` allows to store no other.
pub(crate) const fn is_understood(status: Status) -> bool {
    matches!(status.0, 200..=205 | 300..=303 | 305..=308 | 400..=411 | 413..=415 | 417 | 421
        | 422 | 426 | 428 | 429 | 431 | 451 | 500..=505 | 511)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rfc9111::freshness::is_heuristically_cacheable;
    use crate::policy::sample::{NOW_S, date_text, fields};
    use proptest::prelude::*;

    type List<'a> = &'a [(&'a str, &'a str)];

    const TIMES: Times = Times { requested_s: NOW_S, received_s: NOW_S };

    fn storable(
        asked: &[(&str, &str)],
        status: u16,
        list: &[(&str, &str)],
        rules: &Rules,
    ) -> Result<Storable, PassReason> {
        Storable::of(&fields(asked), Status(status), &fields(list), &TIMES, rules)
    }

    fn reason(asked: &[(&str, &str)], status: u16, list: &[(&str, &str)]) -> Option<PassReason> {
        storable(asked, status, list, &Rules::default()).err()
    }

    #[test]
    fn responses_are_storable_as_rfc_9111_says() {
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
    fn the_request_can_forbid_to_store() {
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
    }

    #[test]
    fn cookies_are_stored_only_if_allowed() {
        let list = [("cache-control", "max-age=60"), ("set-cookie", "a=b")];
        for (set_cookie, is_omitted) in [(SetCookie::Store, false), (SetCookie::Strip, true)] {
            let rules = Rules { set_cookie, ..Rules::default() };
            let Storable { lifetimes, omit } = storable(&[], 200, &list, &rules).unwrap();
            assert_eq!(lifetimes.fresh_until_s, NOW_S + 60);
            assert_eq!(omit.contains(b"Set-Cookie"), is_omitted);
        }
    }

    #[test]
    fn ignored_fields_have_no_effect() {
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
        let reason = |rules: &Rules, n: usize| {
            let storable = storable(&[], 200, &list[..n], rules)?;
            Ok(storable.lifetimes.fresh_until_s - NOW_S)
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
            let found = Storable::of(
                &fields(&[]), Status(200), &fields(&list), &times, &Rules::default(),
            );
            if let Ok(Storable { lifetimes, .. }) = found {
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

    #[test]
    fn listed_fields_are_left_out() {
        let list = [
            ("Cache-Control", "max-age=60, private=\"A, x-b\", no-cache=d"),
            ("a", "1"),
            ("X-B", "2"),
            ("c", "3"),
            ("D", "4"),
        ];
        let omit = Omit::of(&fields(&list));
        let mut left = fields(&list);
        omit.apply(&mut left);
        assert_eq!(left, fields(&[list[0], list[3]]));
    }

    #[test]
    fn without_a_list_all_fields_are_stored() {
        let list = [("cache-control", "max-age=60, no-cache"), ("a", "1")];
        let omit = Omit::of(&fields(&list));
        assert!(omit.is_empty());
        let mut left = fields(&list);
        omit.apply(&mut left);
        assert_eq!(left, fields(&list));
    }

    #[test]
    fn heuristically_cacheable_statuses_are_whole_and_understood() {
        for code in 0..=1000 {
            let status = Status(code);
            if is_heuristically_cacheable(status) {
                assert!(is_whole(status) && is_understood(status), "{code}");
            }
        }
        for code in [100, 103, 206, 304, 412, 416] {
            assert!(!is_whole(Status(code)) && !is_understood(Status(code)), "{code}");
        }
        assert!(is_whole(Status(299)) && !is_understood(Status(299)));
    }
}
