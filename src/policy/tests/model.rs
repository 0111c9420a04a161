//! A second implementation of RFC 9111: what a shared cache must not do.
//!
//! The model shares no code with the policy. It takes the meaning of an exchange, not its text. By
//! section 3 it says whether the response must not be stored, and by section 4 whether it must not
//! answer a later request without validation. It allows all that the RFC allows. The property is
//! that the policy never reuses a response that the model forbids.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::http::fields::Fields;
use crate::http::method::Method;
use crate::http::status::Status;
use crate::policy::decide::{self, Action, Cached};
use crate::policy::key;
use crate::policy::rfc9111::freshness::Times;
use crate::policy::rfc9111::rules::Rules;
use crate::policy::rfc9111::storable::Storable;
use crate::policy::sample::{NOW_S, date_text, request};

/// A directive's argument.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Argument {
    Nothing,
    Seconds(u64),
    Quoted(u64),
    Garbage,
}

/// A directive and its argument.
type Directive = (&'static str, Argument);

/// The value of a field that holds a date.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// This many seconds after the origin's now.
    At(i64),
    NoDate,
}

/// The Age field.
#[derive(Clone, Copy, Debug)]
enum Age {
    Seconds(u64),
    /// One value after the other, in one line or in two.
    Several(u64, u64, bool),
    Invalid,
}

#[derive(Clone, Debug)]
struct Asked {
    method: &'static str,
    control: Vec<Directive>,
    has_authorization: bool,
    chooser: Option<&'static str>,
}

#[derive(Clone, Debug)]
struct Answered {
    status: u16,
    control: Vec<Directive>,
    expires: Option<Moment>,
    date: Option<Moment>,
    last_modified: Option<Moment>,
    age: Option<Age>,
    vary: Option<&'static str>,
    has_tag: bool,
}

/// An exchange that a cache sees, and the request that comes later.
#[derive(Clone, Debug)]
struct Story {
    first: Asked,
    answer: Answered,
    delay_s: u64,
    later_s: u64,
    second: Asked,
}

fn has(control: &[Directive], name: &str) -> bool {
    control.iter().any(|(other, _)| *other == name)
}

/// The seconds of a directive; an invalid argument is zero. A cache may use any of several (section
/// 4.2.1), so the model uses the largest.
fn seconds(control: &[Directive], name: &str) -> Option<u64> {
    let of = |(_, argument): &Directive| match argument {
        Argument::Seconds(n) | Argument::Quoted(n) => *n,
        Argument::Nothing | Argument::Garbage => 0,
    };
    control.iter().filter(|(other, _)| *other == name).map(of).max()
}

/// Section 3: why a shared cache must not store the answer.
fn must_not_store(asked: &Asked, answer: &Answered) -> Option<&'static str> {
    let control = &answer.control;
    let is_understood = answer.status != 599;
    // By section 5.2.2.3 a cache that understands the status ignores no-store beside
    // must-understand.
    let is_excused = has(control, "must-understand") && is_understood;
    let is_cacheable_by_default =
        matches!(answer.status, 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501);
    let states_lifetime = seconds(control, "max-age").is_some()
        || seconds(control, "s-maxage").is_some()
        || answer.expires.is_some();
    let allows_authorized = ["must-revalidate", "public", "s-maxage"];
    match () {
        () if asked.method != "GET" => Some("the method is not understood to be cacheable"),
        () if matches!(answer.status, 206 | 304) => Some("206 and 304 are not whole"),
        () if has(control, "must-understand") && !is_understood => Some("not understood"),
        () if has(control, "no-store") && !is_excused => Some("no-store"),
        () if has(&asked.control, "no-store") => Some("no-store of the request"),
        () if has(control, "private") => Some("private"),
        () if asked.has_authorization && !allows_authorized.iter().any(|it| has(control, it)) => {
            Some("authorization")
        }
        () if !states_lifetime && !has(control, "public") && !is_cacheable_by_default => {
            Some("nothing says that it may be stored")
        }
        () => None,
    }
}

/// Sections 4.2.1 and 4.2.2: the stated seconds, or the longest heuristic lifetime; never negative.
fn lifetime_s(answer: &Answered) -> i64 {
    let control = &answer.control;
    if let Some(n) = seconds(control, "s-maxage").or_else(|| seconds(control, "max-age")) {
        return i64::try_from(n).unwrap_or(i64::MAX).min(1 << 31);
    }
    let date = match answer.date {
        Some(Moment::At(at)) => at,
        Some(Moment::NoDate) | None => 0,
    };
    let lifetime = match (answer.expires, answer.last_modified) {
        (Some(Moment::At(at)), _) => at - date,
        (Some(Moment::NoDate), _) => 0,
        (None, Some(Moment::At(at))) => (date - at) / 10,
        (None, _) => 0,
    };
    lifetime.max(0)
}

/// Section 4.2.3, `later_s` after the response arrived.
fn age_s(story: &Story) -> i64 {
    let apparent = match story.answer.date {
        Some(Moment::At(at)) => (-at).max(0),
        _ => 0,
    };
    // By section 5.1 the first value counts, and an invalid field is ignored.
    let told = match story.answer.age {
        Some(Age::Seconds(first) | Age::Several(first, ..)) => first,
        Some(Age::Invalid) | None => 0,
    };
    let corrected = told + story.delay_s;
    let corrected = i64::try_from(corrected).unwrap_or(i64::MAX);
    apparent.max(corrected).saturating_add(story.later_s as i64)
}

/// Section 4: why the stored response must not answer the second request without validation.
fn must_not_reuse(story: &Story) -> Option<&'static str> {
    let (answer, wishes) = (&story.answer, &story.second.control);
    let control = &answer.control;
    let staleness = age_s(story).saturating_sub(lifetime_s(answer));
    let is_stale = staleness >= 0;
    let within = |name, control: &[Directive]| {
        seconds(control, name).is_some_and(|n| staleness <= i64::try_from(n).unwrap_or(i64::MAX))
    };
    let forbids_stale = ["no-cache", "must-revalidate", "proxy-revalidate", "s-maxage"];
    let takes_any = wishes.contains(&("max-stale", Argument::Nothing));
    let takes_stale = takes_any || within("max-stale", wishes);
    let is_too_old = seconds(wishes, "max-age")
        .is_some_and(|n| age_s(story) > i64::try_from(n).unwrap_or(i64::MAX));
    let is_too_late = wishes.iter().any(|(name, argument)| {
        let wanted = match argument {
            Argument::Seconds(n) | Argument::Quoted(n) => i64::try_from(*n).unwrap_or(i64::MAX),
            _ => 0,
        };
        *name == "min-fresh" && -staleness < wanted
    });
    match () {
        () if !matches!(story.second.method, "GET" | "HEAD") => {
            Some("the method must be passed on")
        }
        () if answer.vary == Some("*") => Some("vary by anything"),
        () if answer.vary == Some("X-Chooser") && story.first.chooser != story.second.chooser => {
            Some("another variant")
        }
        () if has(control, "no-cache") => Some("no-cache"),
        () if has(wishes, "no-cache") => Some("no-cache of the request"),
        () if is_too_old && !has(control, "immutable") => Some("max-age of the request"),
        () if is_too_late => Some("min-fresh of the request"),
        () if is_stale && forbids_stale.iter().any(|it| has(control, it)) => {
            Some("stale, which a directive forbids")
        }
        () if is_stale && !takes_stale && !within("stale-while-revalidate", control) => {
            Some("stale, and neither side allows that")
        }
        () => None,
    }
}

/// Whether the policy answers the second request from the cache.
fn is_reused(story: &Story) -> bool {
    let (first, second) = (head_of(&story.first), head_of(&story.second));
    // A fetch that fills the cache is always a GET.
    if first.method != Method::Get {
        return false;
    }
    let (status, answer) = (Status(story.answer.status), fields_of(&story.answer));
    let times = Times { requested_s: NOW_S - story.delay_s, received_s: NOW_S };
    let found = Storable::of(&first.fields, status, &answer, &times, &Rules::default());
    let Ok(Storable { lifetimes, .. }) = found else { return false };
    if let Some(names) = &lifetimes.vary {
        let name = |fields: &Fields| {
            let mut text = Vec::new();
            key::variant_text(b"", names, fields, &mut text);
            text
        };
        if name(&first.fields) != name(&second.fields) {
            return false;
        }
    }
    let (rules, now_s) = (Rules::default(), NOW_S + story.later_s);
    decide::may_look_up(&second, &rules).is_ok()
        && matches!(
            decide::decide(&second, Cached::Stored(&lifetimes), &rules, now_s).0,
            Action::Answer { .. }
        )
}

fn head_of(asked: &Asked) -> crate::http::head::RequestHead {
    let control = control_text(&asked.control);
    let mut list = Vec::new();
    if !asked.control.is_empty() {
        list.push(("Cache-Control", control.as_str()));
    }
    if asked.has_authorization {
        list.push(("Authorization", "x"));
    }
    if let Some(chooser) = asked.chooser {
        list.push(("X-Chooser", chooser));
    }
    request(asked.method, &list)
}

fn fields_of(answer: &Answered) -> Fields {
    let mut fields = Fields::new();
    let mut date = |name: &str, moment: Option<Moment>| match moment {
        Some(Moment::At(at)) => {
            fields.push(name.as_bytes(), date_text(NOW_S.saturating_add_signed(at)).as_bytes());
        }
        Some(Moment::NoDate) => fields.push(name.as_bytes(), b"0"),
        None => {}
    };
    date("Date", answer.date);
    date("Expires", answer.expires);
    date("Last-Modified", answer.last_modified);
    // Two lines have the meaning of one.
    let (one, two) = answer.control.split_at(answer.control.len() / 2);
    for line in [one, two] {
        if !line.is_empty() {
            fields.push(b"cache-control", control_text(line).as_bytes());
        }
    }
    let mut age = |text: String| fields.push(b"Age", text.as_bytes());
    match answer.age {
        Some(Age::Seconds(n)) => age(n.to_string()),
        Some(Age::Several(one, two, false)) => age(format!("{one}, {two}")),
        Some(Age::Several(one, two, true)) => {
            [one, two].into_iter().for_each(|n| age(n.to_string()))
        }
        Some(Age::Invalid) => age("7.0".to_owned()),
        None => {}
    }
    if let Some(vary) = answer.vary {
        fields.push(b"Vary", vary.as_bytes());
    }
    if answer.has_tag {
        fields.push(b"ETag", b"\"x\"");
    }
    fields
}

fn control_text(control: &[Directive]) -> String {
    let texts = control.iter().map(|(name, argument)| match argument {
        Argument::Nothing => (*name).to_owned(),
        Argument::Seconds(n) => format!("{name}={n}"),
        Argument::Quoted(n) => format!("{}=\"{n}\"", name.to_uppercase()),
        Argument::Garbage => format!("{name}=x1"),
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn any_argument() -> impl Strategy<Value = Argument> {
    prop_oneof![
        6 => (0..60_u64).prop_map(Argument::Seconds),
        1 => any::<u64>().prop_map(Argument::Seconds),
        2 => (0..60_u64).prop_map(Argument::Quoted),
        1 => Just(Argument::Garbage),
        1 => Just(Argument::Nothing),
    ]
}

fn any_control(
    switches: &'static [&'static str],
    numbers: &'static [&'static str],
) -> impl Strategy<Value = Vec<Directive>> {
    let switch = proptest::sample::select(switches).prop_map(|name| (name, Argument::Nothing));
    let number = (proptest::sample::select(numbers), any_argument());
    proptest::collection::vec(prop_oneof![1 => switch, 3 => number], 0..4)
}

fn any_asked() -> impl Strategy<Value = Asked> {
    let method =
        prop_oneof![12 => Just("GET"), 1 => Just("HEAD"), 1 => Just("POST"), 1 => Just("BREW")];
    let control = any_control(
        &["no-cache", "no-store", "max-stale", "only-if-cached", "no-transform"],
        &["max-age", "max-stale", "min-fresh", "odd"],
    );
    let control = prop_oneof![3 => Just(Vec::new()), 2 => control];
    let chooser = proptest::option::of(prop_oneof![Just("a"), Just("A"), Just("b")]);
    (method, control, proptest::bool::weighted(0.1), chooser).prop_map(
        |(method, control, has_authorization, chooser)| Asked {
            method,
            control,
            has_authorization,
            chooser,
        },
    )
}

fn any_age() -> impl Strategy<Value = Age> {
    prop_oneof![
        3 => (0..60_u64).prop_map(Age::Seconds),
        2 => (0..60_u64, 0..60_u64, any::<bool>())
            .prop_map(|(one, two, in_lines)| Age::Several(one, two, in_lines)),
        1 => Just(Age::Invalid),
    ]
}

fn any_moment() -> impl Strategy<Value = Moment> {
    prop_oneof![8 => (-600..600_i64).prop_map(Moment::At), 1 => Just(Moment::NoDate)]
}

fn any_answered() -> impl Strategy<Value = Answered> {
    let status = prop_oneof![
        12 => Just(200_u16),
        4 => proptest::sample::select(&[203, 204, 206, 302, 304, 404, 410, 503, 599][..]),
    ];
    let control = any_control(
        &[
            "public", "private", "no-store", "no-cache", "must-revalidate", "proxy-revalidate",
            "must-understand", "immutable", "odd",
        ],
        &["max-age", "max-age", "max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"],
    );
    let vary = prop_oneof![6 => Just(None), 1 => Just(Some("*")), 4 => Just(Some("X-Chooser"))];
    let moment = || proptest::option::weighted(0.4, any_moment());
    (
        (status, control, moment(), moment(), moment()),
        (proptest::option::weighted(0.3, any_age()), vary, any::<bool>()),
    )
        .prop_map(|((status, control, expires, date, last_modified), (age, vary, has_tag))| {
            Answered { status, control, expires, date, last_modified, age, vary, has_tag }
        })
}

fn any_story() -> impl Strategy<Value = Story> {
    (any_asked(), any_answered(), 0..5_u64, 0..90_u64, any_asked()).prop_map(
        |(first, answer, delay_s, later_s, second)| Story {
            first,
            answer,
            delay_s,
            later_s,
            second,
        },
    )
}

#[test]
fn no_response_is_reused_that_the_model_forbids() {
    let (n_reused, n_forbidden) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(ProptestConfig::with_cases(6_000));
    let result = runner.run(&any_story(), |story| {
        let forbidden = must_not_store(&story.first, &story.answer).or(must_not_reuse(&story));
        let is_reused = is_reused(&story);
        n_reused.set(n_reused.get() + usize::from(is_reused));
        n_forbidden.set(n_forbidden.get() + usize::from(forbidden.is_some()));
        prop_assert!(!is_reused || forbidden.is_none(), "reused though: {}", forbidden.unwrap());
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    // The property is of use only if both happen often.
    assert!(n_reused.get() > 300, "{} of 6000 were reused", n_reused.get());
    assert!(n_forbidden.get() > 1_000, "{} of 6000 were forbidden", n_forbidden.get());
}
