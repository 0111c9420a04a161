//! The rules of a route's cache: on, off, or how it stores.
//!
//! A mapping changes the keys that it sets and inherits the rest: from the top's `cache.rules` to
//! the site's `cache` to the route's.

use std::rc::Rc;
use std::time::Duration;

use crate::base::chars::is_token;
use crate::base::units::format_size;
use crate::config::action::{Changes, FieldChanges};
use crate::config::document::{Entry, Node, Value};
use crate::config::error::{Faults, quoted};
use crate::config::matching::{Matching, PathPattern};
use crate::config::resolve::key;
use crate::config::schema::{self, Kind};
use crate::config::section::{Scalar, Section, is_off, is_on};
use crate::config::template::Template;
use crate::config::variables::Variable;
use crate::policy::cache_status::Report;
use crate::policy::condition::Condition;
use crate::policy::key::PathComponent;
use crate::policy::key::vary::VaryNames;
use crate::policy::rfc9111::rules::{Rules, SetCookie, StatusTtls, Statuses};

/// The rows of a route's cache.
pub(crate) const SCHEMA: &str = "sites[].routes[].cache";

/// Whether the cache is used, and its rules.
#[derive(Clone, Debug)]
pub(crate) struct Caching {
    pub(crate) is_on: bool,
    pub(crate) rules: Rc<Rules>,
    /// The limit of an object in the cache, in bytes; a route cannot raise it.
    pub(crate) object_bytes_max: u64,
}

/// The rules for everything, `cache.rules`, of a cache with this limit for an object.
pub(crate) fn of_all(
    faults: &mut Faults<'_>,
    cache: &Section<'_>,
    object_bytes_max: u64,
) -> Rc<Rules> {
    let default = Rc::new(Rules::default());
    match cache.node("rules") {
        None => default,
        Some(Node { place, value: Value::Scalar(text) }) if is_off(text) => {
            let why = "is not a mapping of rules (a site or route without a cache has \
                       \"cache: off\" itself: sites[].cache)";
            faults.add(*place, cache.path_of("rules"), format!("{} {why}", quoted(text)));
            default
        }
        Some(_) => {
            let rules = cache.section(faults, SCHEMA, "rules");
            mapping(faults, &rules, &default, object_bytes_max)
        }
    }
}

impl Caching {
    /// The rules that `cache` of a site or route derives from the inherited ones.
    pub(crate) fn below(
        &self,
        faults: &mut Faults<'_>,
        section: &Section<'_>,
        has_cache: bool,
    ) -> Self {
        let Some(node) = section.node("cache") else { return self.clone() };
        let (is_on, rules) = match node.value {
            Value::Map(_) => {
                let rules = section.section(faults, SCHEMA, "cache");
                (true, mapping(faults, &rules, &self.rules, self.object_bytes_max))
            }
            _ => {
                let is_on = section.switch(faults, "cache").unwrap_or(false);
                (is_on, Rc::clone(&self.rules))
            }
        };
        if is_on && !has_cache {
            let why = "needs a cache, but none is configured (try \"cache: {path: \
                       /var/cache/ktrix}\" at the top)";
            match &node.value {
                Value::Scalar(text) => faults.add(
                    node.place,
                    section.path_of("cache"),
                    format!("{} {why}", quoted(text)),
                ),
                _ => faults.add(node.place, section.path_of("cache"), why),
            }
        }
        Self { is_on: is_on && has_cache, rules, ..*self }
    }
}

/// The rules of a route for these requests: its keys may name its path, and name the conditions
/// that the URL does not hold.
pub(crate) fn of_route(
    mut rules: Rc<Rules>,
    matching: &Matching,
    changes: &Changes,
    upstream: &str,
) -> Rc<Rules> {
    let names_path = matches!(rules.key.path, PathComponent::Route(_));
    let mut route = matching.key_word(rules.key.query.is_whole());
    if changes.rewrite.is_some() {
        // Other routes may have the URL that the rewriting makes, and another upstream.
        let comma = if route.is_empty() { "" } else { ", " };
        let host = changes.host.as_deref().map(|host| format!(" as {host}")).unwrap_or_default();
        route = format!("{route}{comma}rewritten for {upstream}{host}");
    }
    let set = changes.request.set.iter().chain(&changes.request.add);
    let set: Vec<Box<str>> = set.map(|(name, _)| name.to_ascii_lowercase().into()).collect();
    if names_path || !route.is_empty() || !set.is_empty() {
        let key = &mut Rc::make_mut(&mut rules).key;
        key.is_rewritten = changes.rewrite.is_some();
        key.set_fields = set;
        key.route = route.into();
        key.path = match &matching.path {
            _ if !names_path => PathComponent::Whole,
            // An exact path has one URL, which no prefix shares.
            PathPattern::Exact(_) => PathComponent::Whole,
            path => PathComponent::Route(path.key_path().into()),
        };
    }
    rules
}

/// Makes request fields of the operator select variants where their values may differ between
/// requests of one key: those that clients may send too, and those of URLs that a rewriting makes.
pub(crate) fn select_by_fields(
    faults: &mut Faults<'_>,
    route: &Section<'_>,
    rules: &mut Rc<Rules>,
    changes: &Changes,
) {
    let FieldChanges { set, add, .. } = &changes.request;
    let differs =
        |value: &Template| changes.rewrite.is_some() && !value.names_only(Variable::is_of_a_client);
    let set = set.iter().filter(|(_, value)| differs(value));
    let own: Vec<_> = set.chain(add).map(|(name, _)| name.to_ascii_lowercase()).collect();
    if own.is_empty() {
        return;
    }
    let known = rules.key.chosen.iter().flat_map(VaryNames::names).map(str::to_owned);
    let mut names: Vec<String> = known.chain(own).collect();
    names.sort_unstable();
    names.dedup();
    let chosen = VaryNames::from_sorted(names.iter().map(String::as_str));
    if chosen.is_none() {
        let most = VaryNames::COUNT_MAX;
        let why = format!(
            "has too many or too long fields: with those of cache.key, at most {most} may select \
             a stored answer"
        );
        let place = route.node("request-fields").map_or(route.place(), |node| node.place);
        faults.add(place, route.path_of("request-fields"), why);
    }
    Rc::make_mut(rules).key.chosen = chosen;
}

/// Whether a request tells its origin who the client is, in a way that is not in its key.
pub(crate) fn tells_client(rules: &Rules, changes: &Changes) -> bool {
    let is_chosen = |name: &str| {
        let chosen = rules.key.chosen.as_ref();
        chosen.is_some_and(|chosen| chosen.contains(name.as_bytes()))
    };
    changes.client_cert || changes.request.identities().any(|name| !is_chosen(name))
}

/// Notes a cache that a route has written out for itself, and that is not used.
pub(crate) fn check_own_cache(faults: &mut Faults<'_>, route: &Section<'_>) {
    if let Some(node) = route.node("cache") {
        let why = "has no effect, since the origin is told who the client is (leave it out, or name \
                   the fields that tell it in cache.key.headers, which client-cert cannot be)";
        faults.add(node.place, route.path_of("cache"), why);
    }
}

/// `base` with the settings of a mapping.
fn mapping(
    faults: &mut Faults<'_>,
    section: &Section<'_>,
    base: &Rc<Rules>,
    object_bytes_max: u64,
) -> Rc<Rules> {
    let mut rules = Rules::clone(base);
    if let Some(ttls) = ttl_status(faults, section) {
        rules.ttl_status = ttls;
    }
    for (key, seconds) in [
        ("ttl-min", &mut rules.ttl_min_s),
        ("ttl-max", &mut rules.ttl_max_s),
        ("heuristic-max", &mut rules.heuristic_max_s),
        ("stale-while-revalidate", &mut rules.stale_while_revalidate_s),
        ("stale-if-error", &mut rules.stale_if_error_s),
        ("outage-hold", &mut rules.outage_hold_s),
    ] {
        if let Some(duration) = section.duration_if_any(faults, key) {
            *seconds = whole_seconds(duration);
        }
    }
    if let Some(percent) = section.count_if_any(faults, "heuristic-percent") {
        rules.heuristic_percent = u32::try_from(percent).unwrap_or(u32::MAX);
    }
    if let Some(bytes) = section.size_if_any(faults, "object") {
        // Otherwise it would be cut to that silently.
        if bytes > object_bytes_max {
            let most = format_size(object_bytes_max);
            let scalar = section.scalar(faults, "object");
            scalar.inspect(|it| it.wrong(faults, &format!("is larger than cache.object ({most})")));
        }
        rules.object_bytes_max = bytes;
    }
    if let Some(is_on) = section.switch(faults, "parts") {
        rules.parts = is_on;
    }
    if let Some(bytes) = section.size_if_any(faults, "fetch-whole") {
        rules.fetch_whole_bytes = bytes;
    }
    request_rules(faults, section, &mut rules);
    response_rules(faults, section, &mut rules);
    if rules.ttl_min_s > rules.ttl_max_s {
        let key = if section.node("ttl-min").is_some() { "ttl-min" } else { "ttl-max" };
        let scalar = section.scalar(faults, key);
        scalar.inspect(|scalar| scalar.wrong(faults, "makes ttl-min larger than ttl-max"));
    }
    Rc::new(rules)
}

/// The settings about requests.
fn request_rules(faults: &mut Faults<'_>, section: &Section<'_>, rules: &mut Rules) {
    if let Some(uses) = section.count_if_any(faults, "min-uses") {
        rules.uses_min = u32::try_from(uses).unwrap_or(u32::MAX);
    }
    if let Some(parts) = key::components(faults, section) {
        rules.key = parts;
    }
    for (key, conditions) in
        [("pass-if", &mut rules.pass_if), ("refresh-if", &mut rules.refresh_if)]
    {
        let why =
            "is not a condition (try \"cookie session\", \"header X-Preview\" or \"query q=1\")";
        let is_condition = |text: &str| Condition::parse(text).is_some();
        if let Some(texts) = key::texts_or_off(faults, section, key, why, is_condition) {
            let parsed = texts.iter().filter_map(|scalar| Condition::parse(scalar.text));
            *conditions = parsed.collect();
        }
    }
}

/// The settings about the fields of answers.
fn response_rules(faults: &mut Faults<'_>, section: &Section<'_>, rules: &mut Rules) {
    match section.word_if_any(faults, "set-cookie") {
        Some("strip") => rules.set_cookie = SetCookie::Strip,
        Some("store") => rules.set_cookie = SetCookie::Store,
        Some(_) => rules.set_cookie = SetCookie::Pass,
        None => {}
    }
    let why = "is not the name of a field";
    let is_name = |text: &str| is_token(text.as_bytes()) && !is_on(text);
    for (key, names) in [("targeted", &mut rules.targets), ("strip", &mut rules.stripped)] {
        if let Some(texts) = key::texts_or_off(faults, section, key, why, is_name) {
            *names = lower_case(&texts);
        }
    }
    let why = "is not a field that can be ignored";
    // One client's cookies must not be shared with all others.
    let may_be_ignored = |text: &str| is_name(text) && !text.eq_ignore_ascii_case("set-cookie");
    if let Some(names) = key::texts_or_off(faults, section, "ignore", why, may_be_ignored) {
        rules.ignored = lower_case(&names);
    }
    if let Some(told) = report(faults, section) {
        rules.report = told;
    }
    let why = "is not the name of a field";
    if let Some(names) = key::texts_or_off(faults, section, "vary-ignore", why, is_name) {
        rules.vary_ignored = lower_case(&names);
    }
    if let Some(word) = section.word_if_any(faults, "vary-language") {
        rules.selects_language = word == "best";
    }
}

/// The parameters of Cache-Status, if they are set.
fn report(faults: &mut Faults<'_>, section: &Section<'_>) -> Option<Report> {
    let mut report = Report::with_all(false);
    let mut parts = [
        ("fwd-status", &mut report.fwd_status),
        ("stored", &mut report.stored),
        ("collapsed", &mut report.collapsed),
        ("ttl", &mut report.ttl),
        ("key", &mut report.key),
        ("detail", &mut report.detail),
    ];
    let words = parts.iter().map(|(word, _)| *word).collect::<Vec<_>>();
    let why = format!("is not known (try off, {})", words.join(", "));
    let is_known = |text: &str| words.contains(&text);
    let told = key::texts_or_off(faults, section, "cache-status", &why, is_known)?;
    report.is_on = !told.is_empty();
    for scalar in told {
        for (word, is_told) in &mut parts {
            **is_told |= *word == scalar.text;
        }
    }
    Some(report)
}

fn lower_case(names: &[Scalar<'_>]) -> Vec<Box<str>> {
    names.iter().map(|scalar| scalar.text.to_ascii_lowercase().into()).collect()
}

/// A mapping of statuses to lifetimes; it replaces the whole of the one above.
fn ttl_status(faults: &mut Faults<'_>, section: &Section<'_>) -> Option<StatusTtls> {
    const KIND: Kind = Kind::Duration(0, schema::TTL_MS_MAX);
    let node = section.node("ttl-status")?;
    if matches!(&node.value, Value::Scalar(text) if is_off(text)) {
        return Some(StatusTtls::default());
    }
    let path = section.path_of("ttl-status");
    let named = Section::open_named(faults, "", path, node);
    let mut ttls = StatusTtls::default();
    let mut seen: Vec<(Statuses, &Entry)> = Vec::new();
    for entry in named.entries() {
        let Some(statuses) = Statuses::parse(&entry.key) else {
            let why = "is not a final status (try 404, 5xx or any)";
            faults.add(entry.place, named.path_of(&entry.key), why);
            continue;
        };
        // A duplicate key is noted already; this is the same status in other letters.
        match seen.iter().find(|(of, _)| *of == statuses) {
            Some((_, first)) if first.key != entry.key => {
                let why = format!("is set twice (first in line {})", first.place.line);
                faults.add(entry.place, named.path_of(&entry.key), why);
            }
            Some(_) => {}
            None => seen.push((statuses, entry)),
        }
        let Some(scalar) = named.named_scalar(faults, entry, KIND) else { continue };
        if let Some(duration) = scalar.duration(faults, KIND) {
            ttls.set(statuses, whole_seconds(duration));
        }
    }
    Some(ttls)
}

/// Lifetimes are whole seconds; a fraction counts as one.
fn whole_seconds(duration: Duration) -> u32 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}
