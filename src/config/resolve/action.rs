//! The action of a route: its own answer, the rewriting of the target, changes of fields,
//! and pages for errors.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use crate::base::chars::{is_target_char, is_token, percent_decoded};
use crate::config::action::{Changes, ErrorPage, FieldChanges, OwnAnswer, Rewrite};
use crate::config::document::Value;
use crate::config::error::Faults;
use crate::config::matching::{self, Matching, PathPattern};
use crate::config::resolve::key;
use crate::config::schema::Kind;
use crate::config::section::{Scalar, Section};
use crate::config::source;
use crate::config::template::Template;
use crate::config::variables::{Phase, Variable};
use crate::http::authority::Authority;
use crate::http::status::Status;

/// The rows of a route.
const SCHEMA: &str = "sites[].routes[]";

/// The keys that answer in the place of an upstream.
const OWN: [&str; 3] = ["redirect", "answer", "deny"];

/// The changes that a route makes.
pub(crate) fn resolve(
    faults: &mut Faults<'_>,
    section: &Section<'_>,
    matching: &Matching,
) -> Changes {
    let captures = match &matching.path {
        PathPattern::Regex(regex) => Some(regex.as_str()),
        _ => None,
    };
    let n_captures = captures.map_or(0, n_captures_of);
    let own = own_answer(faults, section, n_captures);
    let changes = Changes {
        own,
        rewrite: rewrite(faults, section),
        captures: captures.filter(|_| n_captures > 0).map(Into::into),
        request: fields(faults, section, "request-fields", n_captures, Phase::Request),
        response: fields(faults, section, "response-fields", n_captures, Phase::Answer),
        error_pages: error_pages(faults, section),
        is_internal: section.switch(faults, "internal").unwrap_or(false),
        ..Changes::default()
    };
    if changes.own.is_some() {
        for key in ["upstream", "rewrite", "request-fields", "host", "client-cert"] {
            if let Some(node) = section.node(key) {
                let why = "has no effect, since the route answers itself";
                faults.add(node.place, section.path_of(key), why);
            }
        }
    }
    changes
}

/// The `Host` for the origin. `addresses` are those of the servers of the upstream.
pub(crate) fn host(
    faults: &mut Faults<'_>,
    section: &Section<'_>,
    addresses: &[Box<str>],
) -> Option<Box<str>> {
    let scalar = section.scalar(faults, "host").filter(|scalar| !scalar.is("client"))?;
    if scalar.is("upstream") {
        if addresses.is_empty() {
            scalar
                .wrong(faults, "is not possible: no server of the upstream has a name or address");
        }
        let first = addresses.first()?;
        return Some(first.strip_suffix(":80").unwrap_or(first).into());
    }
    if Authority::parse(scalar.text.as_bytes()).is_err() {
        scalar.wrong(faults, "is not a host (try client, upstream or \"app.example:8080\")");
        return None;
    }
    Some(scalar.text.to_ascii_lowercase().into())
}

/// Whether the route answers in the place of an upstream.
pub(crate) fn answers_itself(section: &Section<'_>) -> bool {
    OWN.iter().any(|key| section.node(key).is_some())
}

fn n_captures_of(regex: &str) -> usize {
    matching::compile(regex).map_or(0, |regex| regex.captures_len() - 1)
}

fn own_answer(
    faults: &mut Faults<'_>,
    section: &Section<'_>,
    n_captures: usize,
) -> Option<OwnAnswer> {
    let mut given = OWN.iter().filter_map(|key| section.node(key).map(|node| (key, node.place)));
    if let (Some((first, _)), Some((second, place))) = (given.next(), given.next()) {
        faults.add(place, section.path_of(second), format!("excludes {first}"));
        return None;
    }
    if section.node("redirect").is_some() {
        let redirect = section.section(faults, "sites[].routes[].redirect", "redirect");
        let to = redirect.required(faults, "to", "to: \"https://{host}{path}{query}\"");
        let to = to.and_then(|scalar| {
            let to = template(faults, &scalar, n_captures, Phase::Request)?;
            if to.leaves_host_to_clients() {
                let why = "names the host by what a client sends (write it, or {host})";
                scalar.wrong(faults, why);
            }
            Some(to)
        });
        let status = redirection(faults, &redirect);
        return Some(OwnAnswer::Redirect { to: to?, status: status.unwrap_or(Status(302)) });
    }
    if section.node("answer").is_some() {
        let answer = section.section(faults, "sites[].routes[].answer", "answer");
        let body = answer.scalar(faults, "body");
        let body = body.and_then(|body| text_template(faults, &body, n_captures));
        let kind = answer.scalar(faults, "type").map(|kind| {
            let is_type = |c: char| c.is_ascii_graphic() || c == ' ';
            if !kind.text.contains('/') || !kind.text.chars().all(is_type) {
                kind.wrong(faults, "is not a media type (try \"text/plain\")");
            }
            kind.text.into()
        });
        return Some(OwnAnswer::Text {
            status: status(faults, &answer, "status", &(200..=599).collect::<Vec<_>>())
                .unwrap_or(Status(200)),
            body: body.unwrap_or_default(),
            kind: kind.unwrap_or_else(|| "text/plain; charset=utf-8".into()),
        });
    }
    section.node("deny")?;
    let refusals: Vec<u16> = (400..=599).collect();
    status(faults, section, "deny", &refusals).map(OwnAnswer::Deny)
}

/// The statuses with which a Location is followed.
const REDIRECTIONS: [u16; 5] = [301, 302, 303, 307, 308];

/// The status of a redirect, if it is set.
pub(super) fn redirection(faults: &mut Faults<'_>, redirect: &Section<'_>) -> Option<Status> {
    status(faults, redirect, "status", &REDIRECTIONS)
}

fn status(
    faults: &mut Faults<'_>,
    section: &Section<'_>,
    key: &str,
    known: &[u16],
) -> Option<Status> {
    let scalar = section.scalar(faults, key)?;
    let status = scalar.text.parse().ok().filter(|status| known.contains(status));
    if status.is_none() {
        let listed = match known {
            [first, .., last] if known.len() > REDIRECTIONS.len() => format!("{first} to {last}"),
            known => known.iter().map(u16::to_string).collect::<Vec<_>>().join(", "),
        };
        scalar.wrong(faults, &format!("is not a status for this (try {listed})"));
    }
    status.map(Status)
}

fn template(
    faults: &mut Faults<'_>,
    scalar: &Scalar<'_>,
    n_captures: usize,
    phase: Phase,
) -> Option<Template> {
    Template::parse(scalar.text, n_captures, phase).map_err(|why| scalar.wrong(faults, &why)).ok()
}

/// The template of a body, which may have several lines.
fn text_template(
    faults: &mut Faults<'_>,
    scalar: &Scalar<'_>,
    n_captures: usize,
) -> Option<Template> {
    Template::parse_text(scalar.text, n_captures, Phase::Request)
        .map_err(|why| scalar.wrong(faults, &why))
        .ok()
}

fn rewrite(faults: &mut Faults<'_>, route: &Section<'_>) -> Option<Rewrite> {
    route.node("rewrite")?;
    let section = route.section(faults, "sites[].routes[].rewrite", "rewrite");
    let [strip, add, regex, to] =
        ["strip", "add", "regex", "to"].map(|key| section.scalar(faults, key));
    if let (Some(regex), Some(to)) = (&regex, &to)
        && strip.is_none()
        && add.is_none()
    {
        let compiled = matching::compile(regex.text);
        if let Err(why) = &compiled {
            regex.wrong(faults, why);
        }
        let n_captures = compiled.map_or(9, |regex| regex.captures_len() - 1);
        let made = template(faults, to, n_captures, Phase::Request)?;
        if !to.text.starts_with(['/', '$', '{']) {
            to.wrong(faults, "does not begin with a slash: it is the target for the origin");
        }
        if !made.literal().all(is_target_char) {
            to.wrong(faults, "has what a target cannot have (percent-encode it)");
        }
        if made.names_any(Variable::is_of_a_client) {
            let why =
                "names {client}, {request-id} or {tls-...}, which no purge of a URL could know";
            to.wrong(faults, why);
        }
        return Some(Rewrite::Regex { regex: regex.text.into(), to: made });
    }
    if regex.is_some() || to.is_some() || (strip.is_none() && add.is_none()) {
        let why = "has to be strip and add, or regex and to";
        faults.add(section.place(), route.path_of("rewrite"), why);
        return None;
    }
    let mut path = |scalar: &Option<Scalar<'_>>| -> String {
        let Some(scalar) = scalar else { return String::new() };
        let is_sendable = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
        if !scalar.text.starts_with('/') || !scalar.text.bytes().all(is_sendable) {
            scalar.wrong(faults, "is not a path");
        }
        scalar.text.to_owned()
    };
    let (strip, add) = (path(&strip), path(&add));
    let strip = percent_decoded(strip.as_bytes(), b'+').into_owned();
    let strip = String::from_utf8_lossy(&strip).into_owned();
    Some(Rewrite::Prefix { strip: strip.into(), add: add.into() })
}

fn fields(
    faults: &mut Faults<'_>,
    route: &Section<'_>,
    key: &str,
    n_captures: usize,
    phase: Phase,
) -> FieldChanges {
    let mut changes = FieldChanges::default();
    if route.node(key).is_none() {
        return changes;
    }
    let schema = match key {
        "request-fields" => "sites[].routes[].request-fields",
        _ => "sites[].routes[].response-fields",
    };
    let section = route.section(faults, schema, key);
    for (kind, list) in [("set", &mut changes.set), ("add", &mut changes.add)] {
        let Some(node) = section.node(kind) else { continue };
        let named = Section::open_named(faults, SCHEMA, section.path_of(kind), node);
        for entry in named.entries() {
            let kind = Kind::Text("value of a field");
            let Some(scalar) = named.named_scalar(faults, entry, kind) else { continue };
            if let Some(why) = refused(&entry.key, phase) {
                faults.add(entry.place, named.path_of(&entry.key), why);
                continue;
            }
            if let Some(value) = template(faults, &scalar, n_captures, phase) {
                list.push((entry.key.as_str().into(), value));
            }
        }
    }
    let why = "is not the name of a field that can be removed";
    let is_name = |text: &str| refused(text, phase).is_none();
    let removed = key::texts(faults, &section, "remove", why, is_name).unwrap_or_default();
    changes.remove = removed.iter().map(|name| name.text.to_ascii_lowercase().into()).collect();
    changes
}

/// Why a field cannot be changed.
fn refused(name: &str, phase: Phase) -> Option<&'static str> {
    if !is_token(name.as_bytes()) {
        return Some("is not the name of a field");
    }
    let lower = name.to_ascii_lowercase();
    let is_one = |names: &[&str]| names.contains(&lower.as_str());
    if is_one(&FRAMING) {
        return Some("is written by ktrix: it says how long a message is, or where it ends");
    }
    if phase == Phase::Request && is_one(&FORWARDING) {
        return Some("is written by ktrix, from what it knows of the client (see client-cert)");
    }
    None
}

/// The fields of the connection and of the framing.
const FRAMING: [&str; 10] = [
    "connection", "content-length", "content-range", "expect", "keep-alive", "proxy-connection",
    "te", "trailer", "transfer-encoding", "upgrade",
];

/// The fields of a request that ktrix writes.
const FORWARDING: [&str; 9] = [
    "host", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "via",
    "proxy", "client-cert", "client-cert-chain",
];

fn error_pages(faults: &mut Faults<'_>, route: &Section<'_>) -> BTreeMap<u16, ErrorPage> {
    let mut pages = BTreeMap::new();
    let Some(node) = route.node("error-pages") else { return pages };
    if !matches!(node.value, Value::Map(_)) {
        let why = "expects a mapping of statuses to files (try \"{502: /srv/502.html}\")";
        faults.add(node.place, route.path_of("error-pages"), why);
        return pages;
    }
    let named = Section::open_named(faults, SCHEMA, route.path_of("error-pages"), node);
    for entry in named.entries() {
        let status = entry.key.parse::<u16>().ok().filter(|status| (400..600).contains(status));
        let Some(status) = status else {
            let why = "is not the status of an error (try 502)";
            faults.add(entry.place, named.path_of(&entry.key), why);
            continue;
        };
        let Some(scalar) = named.named_scalar(faults, entry, Kind::Text("path")) else { continue };
        let Some(file) = scalar.file(faults) else { continue };
        match page(&file) {
            Ok(page) => drop(pages.insert(status, page)),
            Err(why) => scalar.wrong(faults, &why),
        }
    }
    pages
}

fn page(file: &Path) -> Result<ErrorPage, String> {
    let body = source::read(file, PAGE_BYTES_MAX)?;
    let kind = match file.extension().and_then(|it| it.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("json") => "application/json",
        Some("xml") => "application/xml",
        _ => "text/plain; charset=utf-8",
    };
    Ok(ErrorPage { file: file.to_owned(), body: Rc::from(body), kind })
}

/// The bytes of the largest page.
const PAGE_BYTES_MAX: u64 = 64 << 10;
