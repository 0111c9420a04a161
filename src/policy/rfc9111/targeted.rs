//! Targeted cache control, RFC 9213.
//!
//! A targeted field is a dictionary of the directives of Cache-Control. The first valid and
//! non-empty field of the target list replaces Cache-Control and Expires; a malformed one is
//! ignored (section 2.2).

use std::fmt::Write as _;

use crate::http::fields::Fields;
use crate::http::structured::{Member, Value, dictionary};

/// The default target list, the strongest first.
pub(crate) const TARGETS: [&str; 2] = ["ktrix-cache-control", "cdn-cache-control"];

/// Replaces Cache-Control and Expires by the directives of the first valid field of `targets`, if
/// there is one.
pub(crate) fn apply(targets: &[Box<str>], response: &mut Fields) {
    let Some(control) = targets.iter().find_map(|target| control_of(response, target)) else {
        return;
    };
    response.remove("expires");
    response.remove("cache-control");
    response.push(b"Cache-Control", control.as_bytes());
}

/// The first of `targets` that is a valid field of a response.
pub(crate) fn selected<'t>(targets: &'t [Box<str>], response: &Fields) -> Option<&'t str> {
    targets.iter().map(|it| &**it).find(|target| control_of(response, target).is_some())
}

/// Whether a response has a field of the list, valid or not.
pub(crate) fn is_targeted(targets: &[Box<str>], response: &Fields) -> bool {
    targets.iter().any(|target| response.contains(target))
}

/// A targeted field as a value of Cache-Control; `None` if it is missing, malformed or empty.
fn control_of(response: &Fields, target: &str) -> Option<String> {
    if !response.contains(target) {
        return None;
    }
    let members = dictionary(response.get_all(target)).filter(|members| !members.is_empty())?;
    let mut control = String::new();
    for member in &members {
        if !control.is_empty() {
            control.push_str(", ");
        }
        push(member, &mut control);
    }
    Some(control)
}

/// Appends a directive. A value of another type is not converted (RFC 9213 section 2.1): a lifetime
/// that is not an integer is invalid, and another directive loses its argument, so that it applies
/// to the whole response.
fn push(member: &Member, out: &mut String) {
    out.push_str(&member.key);
    let is_lifetime = LIFETIMES.contains(&member.key.as_str());
    // Writing to a string cannot fail.
    let _ = match &member.value {
        Value::Integer(seconds) if is_lifetime => write!(out, "={seconds}"),
        _ if is_lifetime => out.write_str("=invalid"),
        Value::Text(text) => {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            write!(out, "=\"{escaped}\"")
        }
        _ => Ok(()),
    };
}

/// Directives with a number of seconds.
const LIFETIMES: [&str; 4] = ["max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rfc9111::control::{ResponseControl, Scope};
    use crate::policy::sample::fields;
    use proptest::prelude::*;

    fn targets() -> Vec<Box<str>> {
        TARGETS.iter().map(|target| (*target).into()).collect()
    }

    fn effective(list: &[(&str, &str)]) -> Fields {
        let mut fields = fields(list);
        apply(&targets(), &mut fields);
        fields
    }

    #[test]
    fn the_first_valid_target_counts_alone() {
        let (ours, cdn, all) = ("Ktrix-Cache-Control", "CDN-Cache-Control", "Cache-Control");
        type Case<'a> = (&'a [(&'a str, &'a str)], Option<u32>);
        let cases: &[Case<'_>] = &[
            (&[(all, "max-age=1")], Some(1)),
            (&[(all, "max-age=1"), (cdn, "max-age=2")], Some(2)),
            (&[(all, "max-age=1"), (cdn, "max-age=2"), (ours, "max-age=3")], Some(3)),
            (&[(all, "max-age=1"), (cdn, "max-age=2"), (ours, "max-age=3, &&")], Some(2)),
            (&[(all, "max-age=1"), (cdn, ""), (ours, " ")], Some(1)),
            (&[(all, "max-age=1"), (cdn, "MaX-aGe=2")], Some(1)),
            (&[(all, "max-age=1"), (cdn, "max-age =2")], Some(1)),
            (&[(all, "max-age=1"), (cdn, "none")], None),
            (&[(all, "max-age=1"), (cdn, "max-age=2"), (cdn, "max-age=5;x=1")], Some(5)),
            (&[(cdn, "max-age=99999999999")], Some(1 << 31)),
            (&[(cdn, "max-age=\"60\"")], Some(0)),
            (&[(cdn, "max-age=60.0")], Some(0)),
            (&[(cdn, "max-age=-60")], Some(0)),
            (&[(cdn, "max-age")], Some(0)),
            (&[("Surrogate-Control", "max-age=9"), (all, "max-age=1")], Some(1)),
        ];
        for (list, expected) in cases {
            assert_eq!(ResponseControl::of(&effective(list)).max_age, *expected, "{list:?}");
        }
        assert!(!effective(&[(cdn, "max-age=2"), ("Expires", "0")]).contains("expires"));
        assert!(effective(&[(cdn, "&"), ("Expires", "0")]).contains("expires"));
    }

    #[test]
    fn directives_and_lists_have_their_meaning() {
        let control = |text: &str| ResponseControl::of(&effective(&[("CDN-Cache-Control", text)]));
        assert!(control("no-store").no_store && control("no-store=?0").no_store);
        assert!(control("must-revalidate, public, immutable").must_revalidate);
        assert_eq!(control("private").private, Scope::Whole);
        assert_eq!(control("private=\"x-a, x-b\"").private, Scope::Fields);
        assert_eq!(control("private=\"a\\\"b\"").private, Scope::Whole);
        assert_eq!(control("no-cache=5").no_cache, Scope::Whole);
        assert!(!control("x=\"no-store, a\"").no_store);
    }

    proptest! {
        #[test]
        fn no_value_adds_another_directive(text in "[ -~]{0,20}") {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            let control = effective(&[("CDN-Cache-Control", &format!("max-age=7, x=\"{escaped}\""))]);
            let expected = ResponseControl { max_age: Some(7), ..ResponseControl::default() };
            prop_assert_eq!(ResponseControl::of(&control), expected);
        }
    }
}
