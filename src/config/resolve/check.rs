//! The checks of an upstream's servers.

use crate::config::document::Value;
use crate::config::error::Faults;
use crate::config::schema;
use crate::config::section::{Scalar, Section, is_off};
use crate::http::method::Method;
use crate::policy::rfc9111::rules::Statuses;
use crate::upstream::check::{Check, Expect, HttpCheck};

const SCHEMA: &str = "upstreams.NAME.check";

pub(super) fn resolve(faults: &mut Faults<'_>, section: &Section<'_>) -> Option<Check> {
    let node = section.node("check")?;
    if matches!(&node.value, Value::Scalar(text) if is_off(text)) {
        return None;
    }
    let check = section.section(faults, SCHEMA, "check");
    Some(Check {
        http: http(faults, &check),
        interval: check.duration(faults, "interval"),
        timeout: check.duration(faults, "timeout"),
        fails: check.count(faults, "fails") as u32,
        passes: check.count(faults, "passes") as u32,
    })
}

fn http(faults: &mut Faults<'_>, check: &Section<'_>) -> Option<HttpCheck> {
    let Some(path) = check.scalar(faults, "path") else {
        for key in ["method", "host", "status", "expect", "expect-regex"] {
            if let Some(node) = check.node(key).filter(|_| check.node("path").is_none()) {
                let why = "has no effect without path".to_owned();
                faults.add(node.place, check.path_of(key), why);
            }
        }
        return None;
    };
    if !path.text.starts_with('/') || !is_visible(&path) {
        path.wrong(faults, "is not a path (it begins with a slash and has no spaces)");
    }
    let host = check.scalar(faults, "host");
    if let Some(host) = host.as_ref().filter(|host| host.text.is_empty() || !is_visible(host)) {
        host.wrong(faults, "is not a host");
    }
    let method = if check.word(faults, "method") == "HEAD" { Method::Head } else { Method::Get };
    let expect = expect(faults, check, method);
    Some(HttpCheck {
        path: path.text.to_owned(),
        method,
        host: host.map(|host| host.text.to_owned()),
        statuses: statuses(faults, check),
        expect,
    })
}

fn expect(faults: &mut Faults<'_>, check: &Section<'_>, method: Method) -> Option<Expect> {
    let text = check.scalar(faults, "expect");
    let regex = check.scalar(faults, "expect-regex");
    for scalar in text.iter().chain(&regex) {
        if method == Method::Head {
            scalar.wrong(faults, "has no effect, since the answer to HEAD has no body");
        } else if scalar.text.is_empty() {
            scalar.wrong(faults, "is in every body");
        }
    }
    if let (Some(_), Some(regex)) = (&text, &regex) {
        regex.fault(faults, "cannot stand beside expect".to_owned());
    }
    if let Some(regex) = regex {
        let compiled = Expect::regex(regex.text);
        if compiled.is_err() {
            regex.wrong(faults, "is not a regular expression, or too large");
        }
        return compiled.ok();
    }
    text.map(|text| Expect::Text(text.text.to_owned()))
}

fn statuses(faults: &mut Faults<'_>, check: &Section<'_>) -> Vec<Statuses> {
    let kind = schema::directive(SCHEMA, "status").kind;
    let Some(items) = check.items(faults, "status") else {
        return vec![Statuses::Class(2), Statuses::Class(3)];
    };
    let mut statuses = Vec::new();
    for item in items {
        let Some(scalar) = item.scalar(faults, kind) else { continue };
        match Statuses::parse(scalar.text) {
            Some(status) => statuses.push(status),
            None => scalar.wrong(faults, "is not a final status (try 200, 2xx or any)"),
        }
    }
    statuses
}

fn is_visible(scalar: &Scalar<'_>) -> bool {
    scalar.text.bytes().all(|byte| byte.is_ascii_graphic())
}
