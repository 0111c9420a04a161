//! The requests that a route takes, and the check that each route can match one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::base::chars::{is_token, percent_decoded};
use crate::config::document::Value;
use crate::config::error::{Faults, quoted};
use crate::config::matching::{self, Matching, PathPattern, PathSet};
use crate::config::network;
use crate::config::schema::Kind;
use crate::config::section::{Scalar, Section};
use crate::config::{RouteConfig, resolve::key};
use crate::http::target;
use crate::policy::condition::Condition;

/// The rows of a route.
const SCHEMA: &str = "sites[].routes[]";

/// The length limit of a pattern.
const PATH_BYTES_MAX: usize = 4096;

/// Reads the requests that a route takes; `None` where its path is missing or wrong.
pub(crate) fn resolve(faults: &mut Faults<'_>, section: &Section<'_>) -> Option<Matching> {
    let path = path(faults, section);
    let is_method = |text: &str| is_token(text.as_bytes()) && !NEVER_ROUTED.contains(&text);
    let why = "is not a method that is routed (try GET)";
    let methods = key::texts(faults, section, "methods", why, is_method).unwrap_or_default();
    let headers = conditions(faults, section, "headers", Condition::header);
    let query = conditions(faults, section, "query", Condition::query);
    let mut clients = Vec::new();
    for item in section.items(faults, "clients").unwrap_or_default() {
        let Some(scalar) = item.scalar(faults, Kind::Text("network")) else { continue };
        match network::parse_network(scalar.text) {
            Ok(read) => clients.extend(read),
            Err(message) => scalar.fault(faults, message),
        }
    }
    let methods = methods.iter().map(|method| method.text.into()).collect();
    Some(Matching { path: path?, methods, headers, query, clients })
}

/// The methods that ktrix answers itself.
const NEVER_ROUTED: [&str; 2] = ["CONNECT", "TRACE"];

/// A mapping of names to values.
fn conditions(
    faults: &mut Faults<'_>,
    section: &Section<'_>,
    key: &str,
    condition: impl Fn(&str, &str) -> Option<Condition>,
) -> Vec<Condition> {
    let Some(node) = section.node(key) else { return Vec::new() };
    let named = Section::open_named(faults, SCHEMA, section.path_of(key), node);
    let mut conditions = Vec::new();
    for entry in named.entries() {
        let kind = Kind::Text("value, perhaps with a star at its end");
        let Some(scalar) = named.named_scalar(faults, entry, kind) else { continue };
        let is_printable = !entry.key.contains(char::is_control);
        let read = condition(&entry.key, scalar.text);
        match read.filter(|_| is_printable && !scalar.text.contains(char::is_control)) {
            Some(condition) => conditions.push(condition),
            None => scalar.wrong(faults, "is not a value for a name (a star may be its end)"),
        }
    }
    conditions
}

/// The pattern of a route's paths.
fn path(faults: &mut Faults<'_>, section: &Section<'_>) -> Option<PathPattern> {
    let Some(Value::Map(_)) = section.node("path").map(|node| &node.value) else {
        let scalar = section.required(faults, "path", "path: /")?;
        return literal(faults, &scalar).map(PathPattern::Prefix);
    };
    let forms = section.section(faults, "sites[].routes[].path", "path");
    let found = ["exact", "prefix", "glob", "regex"].map(|key| forms.scalar(faults, key));
    if forms.entries().len() != 1 {
        let why = "has to be one of exact, prefix, glob and regex (try \"{exact: /up}\")";
        faults.add(forms.place(), section.path_of("path"), why);
        return None;
    }
    let [exact, prefix, glob, regex] = found;
    if let Some(scalar) = exact {
        return literal(faults, &scalar).map(PathPattern::Exact);
    }
    if let Some(scalar) = prefix {
        return literal(faults, &scalar).map(PathPattern::Prefix);
    }
    if let Some(scalar) = glob {
        let text = path_text(faults, &scalar)?;
        return compiled(faults, &scalar, PathPattern::Glob(text));
    }
    let scalar = regex?;
    if scalar.text.len() > PATH_BYTES_MAX
        || !scalar.text.bytes().all(|byte| byte.is_ascii_graphic())
    {
        let why =
            format!("is not a printable text of at most {PATH_BYTES_MAX} bytes without spaces");
        scalar.wrong(faults, &why);
        return None;
    }
    compiled(faults, &scalar, PathPattern::Regex(scalar.text.to_owned()))
}

/// A pattern, if its regular expression compiles.
fn compiled(
    faults: &mut Faults<'_>,
    scalar: &Scalar<'_>,
    pattern: PathPattern,
) -> Option<PathPattern> {
    match matching::compile(&pattern.regex().unwrap_or_default()) {
        Ok(_) => Some(pattern),
        Err(why) => {
            scalar.wrong(faults, &why);
            None
        }
    }
}

/// An exact path or a prefix, which a normalised path can match.
fn literal(faults: &mut Faults<'_>, scalar: &Scalar<'_>) -> Option<String> {
    let text = path_text(faults, scalar)?;
    let means = target::normalise(text.as_bytes());
    if *means != *percent_decoded(text.as_bytes(), b'+') {
        let means = quoted(&String::from_utf8_lossy(&means));
        scalar.wrong(faults, &format!("can never match: the path that is meant is {means}"));
        return None;
    }
    Some(text)
}

/// A text that begins as a path does, and has only what a target can have.
fn path_text(faults: &mut Faults<'_>, scalar: &Scalar<'_>) -> Option<String> {
    let is_glob = scalar.path.ends_with(".glob");
    let is_sendable =
        |byte: u8| byte.is_ascii_graphic() && byte != b'#' && (byte != b'?' || is_glob);
    if !scalar.text.starts_with('/') {
        scalar.wrong(faults, &format!("does not begin with a slash (try \"/{}\")", tail(scalar)));
    } else if let Some(odd) = scalar.text.chars().find(|c| !c.is_ascii() || !is_sendable(*c as u8))
    {
        let why = format!("contains {odd:?}, which a path cannot (percent-encode it)");
        scalar.wrong(faults, &why);
    } else if scalar.text.len() > PATH_BYTES_MAX {
        scalar.wrong(faults, &format!("is longer than {PATH_BYTES_MAX} bytes"));
    } else {
        return Some(scalar.text.to_owned());
    }
    None
}

/// The printable part of an invalid path, for the error message.
fn tail(scalar: &Scalar<'_>) -> String {
    scalar.text.chars().filter(char::is_ascii_graphic).filter(|c| *c != '"').take(40).collect()
}

/// Notes each route that no request reaches, because another one of the site takes all of its
/// requests before. `sections` are those of the first routes.
pub(crate) fn check_reach(
    faults: &mut Faults<'_>,
    routes: &[RouteConfig],
    sections: &[Section<'_>],
) {
    let mut by_path: HashMap<&PathPattern, Vec<usize>> = HashMap::new();
    let mut order: Vec<usize> = (0..sections.len()).collect();
    order.sort_by_key(|&at| routes.get(at).map(|route| route.matching.order()));
    for at in order {
        let (Some(route), Some(section)) = (routes.get(at), sections.get(at)) else { continue };
        let before = match by_path.entry(&route.matching.path) {
            Entry::Occupied(before) => before.into_mut(),
            Entry::Vacant(none) => {
                none.insert(vec![at]);
                continue;
            }
        };
        let takes_all = |&&first: &&usize| {
            let matching = routes.get(first).map(|first| &first.matching);
            matching.is_some_and(|first| first.has_weaker_conditions(&route.matching))
        };
        // Later routes of equal conditions than sixteen are not compared with all of them.
        let found = before.iter().take(COMPARED_MAX).find(takes_all).copied();
        if let Some(first) = found.and_then(|first| sections.get(first)) {
            let line = faults.line_of(first.place(), section.place());
            let path = quoted(route.matching.path.text());
            let message = match route.matching.n_conditions() {
                0 => format!("{path} is already a route of this site ({line})"),
                _ => {
                    format!("{path} can never match: the route in {line} takes all of its requests")
                }
            };
            let place = section.node("path").map_or(section.place(), |node| node.place);
            faults.add(place, section.path_of("path"), message);
        }
        before.push(at);
    }
}

/// Routes of one path that are compared with a further one.
const COMPARED_MAX: usize = 256;

/// The patterns of a site's routes, to be matched together.
pub(crate) fn patterns(
    faults: &mut Faults<'_>,
    site: &Section<'_>,
    routes: &[RouteConfig],
) -> Option<PathSet> {
    let all: Vec<_> = routes.iter().filter_map(|route| route.matching.path.regex()).collect();
    if all.is_empty() {
        return None;
    }
    // A pattern that does not compile is noted already.
    match PathSet::new(&all) {
        Ok(set) => Some(set),
        Err(regex::Error::CompiledTooBig(bytes)) => {
            let why = format!(
                "the regular expressions of this site are too large together (more than {} MiB)",
                bytes >> 20
            );
            faults.add(site.place(), site.path_of("routes"), why);
            None
        }
        Err(_) => None,
    }
}
