//! The groups of servers, and their names.

use std::collections::HashMap;

use crate::config::address::parse_server;
use crate::config::document::{Place, Value};
use crate::config::error::Faults;
use crate::config::nearest::nearest;
use crate::config::schema;
use crate::config::section::{Item, Scalar, Section};
use crate::config::{Balance, ServerAddress, ServerConfig, UpstreamConfig};
use crate::upstream::ids::UpstreamId;

const BALANCES: &[(&str, Balance)] = &[("round-robin", Balance::RoundRobin)];

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
            let address = server_address(faults, &scalar)?;
            upstream_at(DEFAULT_NAME.to_owned(), address)
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
pub(crate) fn upstream_at(name: String, address: ServerAddress) -> UpstreamConfig {
    let nowhere = std::path::Path::new("");
    let section = Section::absent("upstreams.NAME", String::new(), Place::default());
    let servers = vec![ServerConfig { address, weight: 1 }];
    settings(&mut Faults::of(nowhere), &section, name, servers)
}

/// The address of a server, or a fault if it is invalid.
fn server_address(faults: &mut Faults<'_>, scalar: &Scalar<'_>) -> Option<ServerAddress> {
    match parse_server(scalar.text) {
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
    for item in section.items(faults, "servers").unwrap_or_default() {
        servers.extend(server(faults, &item));
    }
    settings(faults, section, name, servers)
}

fn settings(
    faults: &mut Faults<'_>,
    section: &Section<'_>,
    name: String,
    servers: Vec<ServerConfig>,
) -> UpstreamConfig {
    let word = section.word(faults, "balance");
    let balance = BALANCES.iter().find(|(known, _)| *known == word);
    UpstreamConfig {
        name,
        balance: balance.map_or(Balance::RoundRobin, |(_, balance)| *balance),
        servers,
        connections: section.count(faults, "connections"),
        pending: section.count(faults, "pending"),
        pending_timeout: section.duration(faults, "pending-timeout"),
        skip: section.duration(faults, "skip"),
        retries: section.count(faults, "retries"),
    }
}

fn server(faults: &mut Faults<'_>, item: &Item<'_>) -> Option<ServerConfig> {
    const SCHEMA: &str = "upstreams.NAME.servers[]";
    let (scalar, weight) = match item.node.value {
        Value::Map(_) => {
            let section = Section::open(faults, SCHEMA, item.path.clone(), item.node);
            let address = section.required(faults, "address", "address: 10.0.0.1:8080");
            (address, section.count(faults, "weight"))
        }
        _ => (item.scalar(faults, schema::directive(SCHEMA, "address").kind), 1),
    };
    let address = server_address(faults, &scalar?)?;
    Some(ServerConfig { address, weight: u32::try_from(weight).unwrap_or(u32::MAX) })
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
