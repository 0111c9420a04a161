//! The settings of the listeners that are forward proxies.

use std::rc::Rc;

use crate::config::address::parse_host;
use crate::config::error::Faults;
use crate::config::forward::{Denied, ForwardConfig};
use crate::config::network::{self, Network};
use crate::config::resolve::key;
use crate::config::schema::Kind;
use crate::config::section::{Item, Section, is_off};
use crate::config::source;
use crate::config::users::Users;
use crate::config::{HostPattern, Listen, ListenMode};

/// The settings, if a listener is a forward proxy.
pub(super) fn resolve(
    faults: &mut Faults<'_>,
    root: &Section<'_>,
    listen: &[Listen],
) -> Option<Rc<ForwardConfig>> {
    let section = root.section(faults, "forward", "forward");
    let config = ForwardConfig {
        clients: clients(faults, &section),
        users: users(faults, &section),
        ports: ports(faults, &section, "ports", &[80]),
        connect_ports: ports(faults, &section, "connect-ports", &[443]),
        hosts: hosts(faults, &section),
        deny: deny(faults, &section),
        via: section.switch(faults, "via").unwrap_or(true),
        forwarded: section.switch(faults, "forwarded").unwrap_or(false),
        destinations: section.count(faults, "destinations"),
        connections: section.count(faults, "connections"),
        resolve: section.duration(faults, "resolve"),
    };
    if listen.iter().any(|listen| listen.mode == ListenMode::Forward) {
        return Some(Rc::new(config));
    }
    if let Some(node) = root.node("forward") {
        let why = "has no effect: no listener is a forward proxy (try \"listen: {address: \
                   127.0.0.1:3128, mode: forward}\")";
        faults.add(node.place, "forward".to_owned(), why);
    }
    None
}

fn users(faults: &mut Faults<'_>, section: &Section<'_>) -> Option<Users> {
    let scalar = section.scalar(faults, "users").filter(|scalar| !scalar.is("off"))?;
    let file = scalar.file(faults)?;
    let text = source::read(&file, USERS_BYTES_MAX);
    let users = text.and_then(|bytes| match str::from_utf8(&bytes) {
        Ok(text) => Users::parse(text),
        Err(_) => Err("is not UTF-8".to_owned()),
    });
    match users {
        Ok(users) => Some(users),
        Err(why) => {
            scalar.wrong(faults, &why);
            // Without users every client would be let in.
            Some(Users::default())
        }
    }
}

/// The longest file of users.
const USERS_BYTES_MAX: u64 = 1 << 20;

fn clients(faults: &mut Faults<'_>, section: &Section<'_>) -> Vec<Network> {
    match super::networks(faults, section, "clients") {
        Some(networks) => networks,
        None => network::loopback().to_vec(),
    }
}

fn ports(faults: &mut Faults<'_>, section: &Section<'_>, key: &str, default: &[u16]) -> Vec<u16> {
    let Some(items) = section.items(faults, key) else { return default.to_vec() };
    let mut port = |item: Item<'_>| {
        let scalar = item.scalar(faults, Kind::Text("port"))?;
        let is_plain = scalar.text.bytes().all(|byte| byte.is_ascii_digit());
        let port = scalar.text.parse().ok().filter(|port| is_plain && *port > 0);
        if port.is_none() {
            scalar.wrong(faults, "is not a port from 1 to 65535");
        }
        port
    };
    items.into_iter().filter_map(&mut port).collect()
}

fn hosts(faults: &mut Faults<'_>, section: &Section<'_>) -> Vec<HostPattern> {
    let Some(items) = section.items(faults, "hosts") else { return Vec::new() };
    let mut hosts = Vec::new();
    for item in items {
        let Some(scalar) = item.scalar(faults, Kind::Text("host")) else { continue };
        match parse_host(scalar.text) {
            Ok(host) => hosts.push(host),
            Err(message) => scalar.fault(faults, message),
        }
    }
    hosts
}

fn deny(faults: &mut Faults<'_>, section: &Section<'_>) -> Vec<Denied> {
    let Some(items) = section.items(faults, "deny") else {
        return vec![Denied::Private, Denied::Loopback, Denied::LinkLocal];
    };
    let (n_items, mut denied) = (items.len(), Vec::new());
    for item in items {
        let Some(scalar) = item.scalar(faults, Kind::Text("addresses")) else { continue };
        match scalar.text {
            "private" => denied.push(Denied::Private),
            "loopback" => denied.push(Denied::Loopback),
            "link-local" => denied.push(Denied::LinkLocal),
            text if is_off(text) && n_items > 1 => scalar.wrong(faults, key::OFF_BESIDE),
            text if is_off(text) => {}
            text => match network::parse_network(text) {
                Ok(networks) if !networks.iter().any(|it| matches!(it, Network::Ip(..))) => {
                    scalar.wrong(faults, "is no network of addresses (try \"private\")");
                }
                Ok(networks) => denied.extend(networks.into_iter().map(Denied::Network)),
                Err(_) => scalar.wrong(
                    faults,
                    "is not known (try \"private\", \"loopback\", \"link-local\" or \"10.0.0.0/8\")",
                ),
            },
        }
    }
    denied
}
