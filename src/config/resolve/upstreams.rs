//! The groups of servers, and their names.

use std::collections::HashMap;

use crate::base::chars::is_token;
use crate::config::address::parse_server;
use crate::config::bounds::OriginTimeouts;
use crate::config::document::{Place, Value};
use crate::config::error::Faults;
use crate::config::nearest::nearest;
use crate::config::resolve::check;
use crate::config::resolve::tls;
use crate::config::schema;
use crate::config::section::{Item, Scalar, Section, as_usize, is_off};
use crate::config::{ServerAddress, ServerConfig, UpstreamConfig};
use crate::http::proxy_protocol::Version;
use crate::http::scheme::Scheme;
use crate::upstream::ids::UpstreamId;
use crate::upstream::method::{HashOf, Method};
use crate::upstream::retry::RetryOn;
use crate::upstream::state::Setting;

const METHODS: &[(&str, Method)] = &[
    ("round-robin", Method::RoundRobin),
    ("least-connections", Method::LeastConnections),
    ("random", Method::Random),
    ("rtt", Method::Rtt),
    ("most-idle", Method::MostIdle),
    ("hash", Method::Hash),
    ("source", Method::Source),
    ("first", Method::First),
    ("none", Method::First),
];

/// The name of an upstream that is given at the top without one.
const DEFAULT_NAME: &str = "default";

const NAME_BYTES_MAX: usize = 64;

/// The limit of names that an error message lists.
const NAMES_LISTED_MAX: usize = 8;

/// Every upstream, the unnamed one at the top included.
pub(crate) struct Upstreams<'a> {
    pub(crate) list: Vec<UpstreamConfig>,
    /// The upstream at the top.
    pub(crate) default: Option<UpstreamId>,
    names: HashMap<&'a str, UpstreamId>,
}

impl<'a> Upstreams<'a> {
    pub(crate) fn resolve(faults: &mut Faults<'_>, root: &Section<'a>) -> Self {
        let mut all = Self { list: Vec::new(), default: None, names: HashMap::new() };
        if let Some(node) = root.node("upstreams") {
            let path = "upstreams".to_owned();
            let groups = Section::open_named(faults, "upstreams", path, node);
            for entry in groups.entries() {
                let path = groups.path_of(&entry.key);
                if !is_name(&entry.key) {
                    let rule = "is not a name (a letter, then letters, digits, - _ .)";
                    faults.add(entry.place, path.clone(), rule);
                }
                let section = Section::open(faults, "upstreams.NAME", path, &entry.node);
                let upstream = upstream(faults, &section, entry.key.clone());
                all.names.entry(&entry.key).or_insert(UpstreamId(all.list.len()));
                all.list.push(upstream);
            }
            if let Value::Empty = node.value {
                faults.add(node.place, "upstreams".to_owned(), "is empty (name an upstream)");
            }
        }
        all.default = all.default_upstream(faults, root);
        all
    }

    /// The name of an upstream.
    pub(crate) fn name(&self, id: UpstreamId) -> &str {
        self.list.get(id.0).map_or("", |upstream| &upstream.name)
    }

    /// The addresses of the servers of an upstream, as a URL names them.
    pub(crate) fn addresses(&self, id: UpstreamId) -> Vec<Box<str>> {
        let servers = self.list.get(id.0).map(|upstream| upstream.servers.as_slice());
        let addresses = servers.unwrap_or_default().iter().map(|server| &server.address);
        let named = addresses.filter(|address| !matches!(address, ServerAddress::Unix(_)));
        named.map(|address| address.to_string().into()).collect()
    }

    /// The upstream of a name, or a fault if there is none.
    pub(crate) fn find(&self, faults: &mut Faults<'_>, name: &Scalar<'_>) -> Option<UpstreamId> {
        let found = self.names.get(name.text).copied();
        if found.is_none() {
            name.wrong(faults, &format!("is not defined ({})", self.hint(name.text)));
        }
        found
    }

    /// The upstream at the top: a name, else an address, else a mapping.
    fn default_upstream(
        &mut self,
        faults: &mut Faults<'_>,
        root: &Section<'a>,
    ) -> Option<UpstreamId> {
        let node = root.node("upstream")?;
        let upstream = if let Value::Map(_) = node.value {
            let section = root.section(faults, "upstreams.NAME", "upstream");
            upstream(faults, &section, DEFAULT_NAME.to_owned())
        } else {
            let scalar = root.scalar(faults, "upstream")?;
            if let Some(at) = self.names.get(scalar.text) {
                return Some(*at);
            }
            if !self.names.is_empty() && is_bare(scalar.text) {
                return self.find(faults, &scalar);
            }
            let server = server_address(faults, &scalar, false)?;
            upstream_at(DEFAULT_NAME.to_owned(), server)
        };
        if self.names.contains_key(DEFAULT_NAME) {
            let message = "is the name of the upstream that stands at the top \
                           (give this one another, or say \"upstream: default\")";
            let place = self.place_of_default(root);
            faults.add(place, format!("upstreams.{DEFAULT_NAME}"), message);
        }
        let id = UpstreamId(self.list.len());
        self.list.push(upstream);
        Some(id)
    }

    fn place_of_default(&self, root: &Section<'_>) -> Place {
        let groups = root.node("upstreams").map(|node| &node.value);
        let Some(Value::Map(entries)) = groups else { return root.place() };
        let entry = entries.iter().find(|entry| entry.key == DEFAULT_NAME);
        entry.map_or(root.place(), |entry| entry.place)
    }

    fn hint(&self, name: &str) -> String {
        if self.names.is_empty() {
            return "there are no upstreams; add it to them".to_owned();
        }
        if let Some(near) = nearest(name, self.names.keys().copied()) {
            return format!("did you mean \"{near}\"?");
        }
        let mut names: Vec<&str> = self.names.keys().copied().collect();
        names.sort_unstable();
        let n_more = names.len().saturating_sub(NAMES_LISTED_MAX);
        names.truncate(NAMES_LISTED_MAX);
        let listed: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        match n_more {
            0 => format!("try one of: {}", listed.join(", ")),
            _ => format!("try one of: {} and {n_more} more", listed.join(", ")),
        }
    }
}

/// An upstream of one server, with the defaults of the schema.
pub(crate) fn upstream_at(
    name: String,
    (address, scheme): (ServerAddress, Option<Scheme>),
) -> UpstreamConfig {
    let nowhere = std::path::Path::new("");
    let section = Section::absent("upstreams.NAME", String::new(), Place::default());
    let server = ServerConfig::at(address, section.count(&mut Faults::of(nowhere), "connections"));
    let mut upstream = settings(&mut Faults::of(nowhere), &section, name, vec![server]);
    upstream.tls = (scheme == Some(Scheme::Https)).then(|| tls::with_defaults("upstream.tls"));
    upstream
}

/// The address of a server and its scheme, or a fault if it is invalid.
fn server_address(
    faults: &mut Faults<'_>,
    scalar: &Scalar<'_>,
    has_tls: bool,
) -> Option<(ServerAddress, Option<Scheme>)> {
    match parse_server(scalar.text, has_tls) {
        Ok(address) => Some(address),
        Err(message) => {
            scalar.fault(faults, message);
            None
        }
    }
}

fn upstream(faults: &mut Faults<'_>, section: &Section<'_>, name: String) -> UpstreamConfig {
    let mut servers = Vec::new();
    if section.node("servers").is_none() {
        section.missing(faults, "servers", "servers: [10.0.0.1:8080]");
    }
    let connections = section.count(faults, "connections");
    let tls = tls::of_upstream(faults, section);
    let mut schemes = Vec::new();
    let items = section.items(faults, "servers").unwrap_or_default();
    for item in &items {
        let Some((server, scheme)) = server(faults, item, connections, tls.is_some()) else {
            continue;
        };
        servers.push(server);
        schemes.push((item, scheme));
    }
    let tls = tls::with_schemes(faults, section, tls, &schemes);
    tls::check_names(faults, section, tls.as_ref(), &servers);
    let takes_clients =
        |server: &ServerConfig| server.weight > 0 && server.setting == Setting::Enabled;
    if let Some(first) = items.first()
        && servers.len() == items.len()
        && !servers.iter().any(takes_clients)
    {
        let why = "has no server that takes clients (all have weight 0, drain or disabled)";
        faults.add(first.node.place, section.path_of("servers"), why);
    }
    UpstreamConfig { tls, ..settings(faults, section, name, servers) }
}

fn settings(
    faults: &mut Faults<'_>,
    section: &Section<'_>,
    name: String,
    servers: Vec<ServerConfig>,
) -> UpstreamConfig {
    let word = section.word(faults, "balance");
    let timeouts = section.section(faults, "upstreams.NAME.timeouts", "timeouts");
    let timeouts = OriginTimeouts {
        connect: timeouts.duration_if_any(faults, "connect"),
        first_byte: timeouts.duration_if_any(faults, "first-byte"),
        idle: timeouts.duration_if_any(faults, "idle"),
    };
    let limits = section.section(faults, "upstreams.NAME.limits", "limits");
    let method = METHODS.iter().find(|(known, _)| *known == word);
    let balance = method.map_or(Method::RoundRobin, |(_, method)| *method);
    let hash = hash(faults, section);
    let is_ignored = hash != HashOf::Key && balance != Method::Hash;
    if let Some(node) = section.node("hash").filter(|_| is_ignored) {
        let why = format!("has no effect, since balance is {word}");
        faults.add(node.place, section.path_of("hash"), why);
    }
    UpstreamConfig {
        name,
        balance,
        hash,
        sticky: sticky(faults, section),
        servers,
        keep_open: section.count(faults, "keep-open"),
        requests: section.count(faults, "requests") as u64,
        pending: section.count(faults, "pending"),
        pending_timeout: section.duration(faults, "pending-timeout"),
        skip: section.duration(faults, "skip"),
        slow_start: section.duration(faults, "slow-start"),
        retries: section.count(faults, "retries"),
        timeouts,
        head_bytes: limits.size_if_any(faults, "head").map(as_usize),
        headers: limits.count_if_any(faults, "headers"),
        retry_on: retry_on(faults, section),
        retry_budget: section.percent(faults, "retry-budget"),
        resolve: section.duration(faults, "resolve"),
        check: check::resolve(faults, section),
        tls: None,
        proxy: proxy_protocol(faults, section),
    }
}

/// The version of the PROXY header. A connection with one belongs to one client, so that none can be
/// kept for another.
fn proxy_protocol(faults: &mut Faults<'_>, section: &Section<'_>) -> Option<Version> {
    let version = match section.word(faults, "proxy-protocol") {
        "v1" => Version::V1,
        "v2" => Version::V2,
        _ => return None,
    };
    for key in ["keep-open", "requests"] {
        if let Some(node) = section.node(key) {
            let why = "has no effect, since a connection with a PROXY header carries one request";
            faults.add(node.place, section.path_of(key), why);
        }
    }
    Some(version)
}

/// The value to hash.
fn hash(faults: &mut Faults<'_>, section: &Section<'_>) -> HashOf {
    let Some(scalar) = section.scalar(faults, "hash") else { return HashOf::Key };
    let mut words = scalar.text.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some("key"), None, _) => return HashOf::Key,
        (Some("client"), None, _) => return HashOf::Client,
        (Some("header"), Some(name), None) if is_name_of_field(name) => {
            return HashOf::Header(name.to_ascii_lowercase());
        }
        (Some("cookie"), Some(name), None) if is_name_of_field(name) => {
            return HashOf::Cookie(name.to_owned());
        }
        _ => scalar.wrong(faults, "is not known (try key, client, header NAME or cookie NAME)"),
    }
    HashOf::Key
}

/// The cookie that names the server of a client.
fn sticky(faults: &mut Faults<'_>, section: &Section<'_>) -> Option<String> {
    let node = section.node("sticky")?;
    if matches!(&node.value, Value::Scalar(text) if is_off(text)) {
        return None;
    }
    let sticky = section.section(faults, "upstreams.NAME.sticky", "sticky");
    let cookie = sticky.required(faults, "cookie", "sticky: {cookie: route}")?;
    if !is_name_of_field(cookie.text) {
        cookie.wrong(faults, "is not the name of a cookie");
        return None;
    }
    Some(cookie.text.to_owned())
}

fn is_name_of_field(name: &str) -> bool {
    is_token(name.as_bytes())
}

/// The failures after which there is another try.
fn retry_on(faults: &mut Faults<'_>, section: &Section<'_>) -> RetryOn {
    let mut on = RetryOn { connect: false, timeout: false, broken: false, statuses: Vec::new() };
    let kind = schema::directive("upstreams.NAME", "retry-on").kind;
    let Some(items) = section.items(faults, "retry-on") else {
        let statuses = vec![502, 503, 504];
        return RetryOn { connect: true, timeout: true, broken: true, statuses };
    };
    let is_alone = items.len() == 1;
    for item in items {
        let Some(scalar) = item.scalar(faults, kind) else { continue };
        match (scalar.text, scalar.text.parse()) {
            ("connect", _) => on.connect = true,
            ("timeout", _) => on.timeout = true,
            ("broken", _) => on.broken = true,
            (_, Ok(status @ 400..=599)) => on.statuses.push(status),
            (off, _) if is_off(off) && is_alone => {}
            _ => {
                let why =
                    "is not known (try connect, timeout, broken, or a status from 400 to 599)";
                scalar.wrong(faults, why);
            }
        }
    }
    on
}

fn server(
    faults: &mut Faults<'_>,
    item: &Item<'_>,
    connections: usize,
    has_tls: bool,
) -> Option<(ServerConfig, Option<Scheme>)> {
    const SCHEMA: &str = "upstreams.NAME.servers[]";
    let Value::Map(_) = item.node.value else {
        let scalar = item.scalar(faults, schema::directive(SCHEMA, "address").kind)?;
        let (address, scheme) = server_address(faults, &scalar, has_tls)?;
        return Some((ServerConfig::at(address, connections), scheme));
    };
    let section = Section::open(faults, SCHEMA, item.path.clone(), item.node);
    let scalar = section.required(faults, "address", "address: 10.0.0.1:8080");
    let weight = section.count(faults, "weight");
    let own = section.count_if_any(faults, "connections");
    let is_backup = section.switch(faults, "backup").unwrap_or(false);
    let drains = section.switch(faults, "drain").unwrap_or(false);
    let is_disabled = section.switch(faults, "disabled").unwrap_or(false);
    if let Some(node) = section.node("drain").filter(|_| drains && is_disabled) {
        let why = "has no effect, since the server is disabled";
        faults.add(node.place, section.path_of("drain"), why);
    }
    let (address, scheme) = server_address(faults, &scalar?, has_tls)?;
    let server = ServerConfig {
        address,
        weight: u32::try_from(weight).unwrap_or(u32::MAX),
        connections: own.unwrap_or(connections),
        is_backup,
        setting: match (is_disabled, drains) {
            (true, _) => Setting::Disabled,
            (false, true) => Setting::Draining,
            (false, false) => Setting::Enabled,
        },
    };
    Some((server, scheme))
}

fn is_name(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    begins && text.len() <= NAME_BYTES_MAX && text.bytes().all(is_inner)
}

/// Whether a text can only be the name of an upstream where there are some.
fn is_bare(text: &str) -> bool {
    text != "localhost" && !text.contains([':', '.', '/', '['])
}
