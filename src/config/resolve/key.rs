//! The components that a route's cache keys are made of.

use crate::config::document::Value;
use crate::config::error::Faults;
use crate::config::schema;
use crate::config::section::{Scalar, Section, is_off};
use crate::policy::key::pattern::Pattern;
use crate::policy::key::vary::VaryNames;
use crate::policy::key::{KeyComponents, PathComponent, QueryComponent};

const SCHEMA: &str = "sites[].routes[].cache.key";

/// The components that `key` names, if it is set. It replaces the whole of the one above it.
pub(crate) fn components(faults: &mut Faults<'_>, rules: &Section<'_>) -> Option<KeyComponents> {
    rules.node("key")?;
    let section = rules.section(faults, SCHEMA, "key");
    let mut is_on = |key: &str, default| section.switch(faults, key).unwrap_or(default);
    let scheme = is_on("scheme", true);
    // The path of the route is filled in where the route is known.
    let path = match is_on("path", true) {
        true => PathComponent::Whole,
        false => PathComponent::Route("/".into()),
    };
    let query = QueryComponent {
        is_on: is_on("query", true),
        is_sorted: is_on("query-sort", false),
        kept: patterns(faults, &section, "query-keep"),
        dropped: patterns(faults, &section, "query-drop"),
    };
    if !query.is_on {
        for key in ["query-sort", "query-keep", "query-drop"] {
            // `query-sort: off` may be written out, since it has no effect anyway.
            let is_said = key != "query-sort" || query.is_sorted;
            if let Some(node) = section.node(key).filter(|_| is_said) {
                let why = "has no effect, since query is off";
                faults.add(node.place, section.path_of(key), why);
            }
        }
    }
    let chosen = chosen(faults, &section);
    Some(KeyComponents { scheme, path, query, chosen, ..KeyComponents::default() })
}

fn patterns(faults: &mut Faults<'_>, section: &Section<'_>, key: &str) -> Vec<Pattern> {
    let why = "is not a name (or the beginning of one and a star)";
    let is_name = |text: &str| Pattern::parse(text).is_some();
    let names = texts(faults, section, key, why, is_name).unwrap_or_default();
    names.iter().filter_map(|scalar| Pattern::parse(scalar.text)).collect()
}

fn chosen(faults: &mut Faults<'_>, section: &Section<'_>) -> Option<VaryNames> {
    let is_field = |text: &str| VaryNames::chosen([text].into_iter(), [].into_iter()).is_some();
    let is_cookie = |text: &str| VaryNames::chosen([].into_iter(), [text].into_iter()).is_some();
    let why = "is not a field that goes to the origin as the client sends it";
    let fields = texts(faults, section, "headers", why, is_field).unwrap_or_default();
    let why = "is not the name of a cookie";
    let cookies = texts(faults, section, "cookies", why, is_cookie).unwrap_or_default();
    if fields.is_empty() && cookies.is_empty() {
        return None;
    }
    let text = |scalar: &Scalar<'_>| scalar.text.to_owned();
    let (fields, cookies): (Vec<_>, Vec<_>) =
        (fields.iter().map(text).collect(), cookies.iter().map(text).collect());
    let all =
        VaryNames::chosen(fields.iter().map(String::as_str), cookies.iter().map(String::as_str));
    if all.is_none() {
        let most = VaryNames::COUNT_MAX;
        let why = format!("has more than {most} headers and cookies, or too long ones");
        faults.add(section.place(), section.path_of("headers"), why);
    }
    all
}

/// `off` in a list of other values is ambiguous.
pub(crate) const OFF_BESIDE: &str = "is mixed with other values (off must be alone)";

/// The texts of a list, without the invalid ones.
pub(crate) fn texts<'a>(
    faults: &mut Faults<'_>,
    section: &Section<'a>,
    key: &str,
    why: &str,
    is_right: impl Fn(&str) -> bool,
) -> Option<Vec<Scalar<'a>>> {
    checked(faults, section, key, |text| (!is_right(text)).then_some(why))
}

/// As [`texts`], for a list that may be `off` as a whole: it has no texts then.
pub(crate) fn texts_or_off<'a>(
    faults: &mut Faults<'_>,
    section: &Section<'a>,
    key: &str,
    why: &str,
    is_right: impl Fn(&str) -> bool,
) -> Option<Vec<Scalar<'a>>> {
    let node = section.node(key)?;
    let only = match &node.value {
        Value::List(items) if items.len() == 1 => items.first().map(|item| &item.value),
        value => Some(value),
    };
    if matches!(only, Some(Value::Scalar(text)) if is_off(text)) {
        return Some(Vec::new());
    }
    checked(faults, section, key, |text| match is_off(text) {
        true => Some(OFF_BESIDE),
        false => (!is_right(text)).then_some(why),
    })
}

fn checked<'a, 'w>(
    faults: &mut Faults<'_>,
    section: &Section<'a>,
    key: &str,
    why_not: impl Fn(&str) -> Option<&'w str>,
) -> Option<Vec<Scalar<'a>>> {
    let kind = schema::directive(section.schema(), key).kind;
    let mut texts = Vec::new();
    for item in section.items(faults, key)? {
        let Some(scalar) = item.scalar(faults, kind) else { continue };
        match why_not(scalar.text) {
            None => texts.push(scalar),
            Some(why) => scalar.wrong(faults, why),
        }
    }
    Some(texts)
}
