//! The admin listener.

use std::rc::Rc;

use crate::config::address::{parse_host, parse_listen};
use crate::config::admin::AdminConfig;
use crate::config::document::Value;
use crate::config::error::Faults;
use crate::config::network::Network;
use crate::config::schema::Kind;
use crate::config::section::{Scalar, Section};
use crate::config::{HostPattern, Listen, ListenAddress, ListenMode};

/// The settings of the admin listener, if there is one. It is added to the others.
pub(super) fn resolve(
    faults: &mut Faults<'_>,
    root: &Section<'_>,
    listens: &mut Vec<Listen>,
) -> Option<Rc<AdminConfig>> {
    let node = root.node("admin")?;
    if !matches!(node.value, Value::Map(_)) {
        let scalar = root.scalar(faults, "admin").filter(|scalar| !scalar.is("off"))?;
        add(faults, &scalar, listens, None);
        return Some(Rc::new(AdminConfig { allow: vec![Network::Local], hosts: Vec::new() }));
    }
    let section = root.section(faults, "admin", "admin");
    let allow = super::networks(faults, &section, "allow");
    let config = AdminConfig {
        hosts: hosts(faults, &section),
        allow: allow.clone().unwrap_or_else(|| vec![Network::Local]),
    };
    let scalar = section.required(faults, "listen", "listen: 127.0.0.1:9180")?;
    add(faults, &scalar, listens, allow.as_deref());
    Some(Rc::new(config))
}

/// Adds the listener.
fn add(
    faults: &mut Faults<'_>,
    scalar: &Scalar<'_>,
    listens: &mut Vec<Listen>,
    allow: Option<&[Network]>,
) {
    let read = match parse_listen(scalar.text) {
        Ok(read) => read,
        Err(message) => return scalar.fault(faults, message),
    };
    for mut listen in read {
        let is_local = match &listen.address {
            ListenAddress::Ip(address) => address.ip().is_loopback(),
            ListenAddress::Unix(_) => true,
        };
        if !is_local && allow.is_none_or(<[Network]>::is_empty) {
            let way_out = "is an address of the network, so it needs a list of clients (try \
                           \"admin: {listen: ADDRESS, allow: [10.0.0.0/8]}\", or 127.0.0.1:9180)";
            return scalar.wrong(faults, way_out);
        }
        if listens.iter().any(|other| other.address.overlaps(&listen.address)) {
            return scalar.wrong(faults, "is an address of \"listen\" too");
        }
        (listen.mode, listen.http2) = (ListenMode::Admin, false);
        if matches!(listen.address, ListenAddress::Unix(_)) {
            listen.permissions = SOCKET_PERMISSIONS;
        }
        listens.push(listen);
    }
}

/// Only the user of the socket and its group see the status.
const SOCKET_PERMISSIONS: u32 = 0o660;

fn hosts(faults: &mut Faults<'_>, section: &Section<'_>) -> Vec<String> {
    let mut hosts = Vec::new();
    for item in section.items(faults, "hosts").unwrap_or_default() {
        let Some(scalar) = item.scalar(faults, Kind::Text("name")) else { continue };
        match parse_host(scalar.text) {
            Ok(HostPattern::Exact(host)) => hosts.push(host.to_string()),
            Ok(_) => scalar.wrong(faults, "is not one name (try \"stats.example.com\")"),
            Err(message) => scalar.fault(faults, message),
        }
    }
    hosts
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn load(admin: &str) -> Result<Config, String> {
        let text = format!("upstream: x\nlisten: 127.0.0.1:8080\nadmin: {admin}\n");
        Config::load_for(Path::new("k"), &text, 1).map_err(|errors| errors.to_string())
    }

    #[test]
    fn the_admin_listener_is_off_or_has_an_address() {
        assert_eq!((load("off").unwrap().admin, load("off").unwrap().listen.len()), (None, 1));
        for text in ["127.0.0.1:9180", "unix:/run/a.sock", "{listen: \"[::1]:9180\"}"] {
            let config = load(text).unwrap();
            assert_eq!(config.admin.as_ref().unwrap().allow, [Network::Local], "{text}");
            let listen = &config.listen[1];
            assert_eq!((listen.mode, listen.http2), (ListenMode::Admin, false));
        }
        let config =
            load("{listen: 0.0.0.0:9180, allow: [10.0.0.0/8], hosts: [Stats.lan]}").unwrap();
        let admin = config.admin.unwrap();
        assert_eq!((&admin.hosts[..], admin.allow.len()), (&["stats.lan".to_owned()][..], 1));
    }

    #[test]
    fn what_would_show_the_status_to_the_network_is_a_fault() {
        for (text, expected) in [
            ("0.0.0.0:9180", "admin: \"0.0.0.0:9180\" is an address of the network"),
            ("{listen: 192.0.2.1:9180}", "admin.listen: \"192.0.2.1:9180\" is an address of the"),
            ("{listen: 192.0.2.1:9180, allow: off}", "is an address of the network"),
            ("9180", "is an address of the network"),
            ("127.0.0.1:8080", "is an address of \"listen\" too"),
            ("{allow: [10.0.0.0/8]}", "admin.listen: is missing"),
            ("{listen: 127.0.0.1:1, hosts: [\"*.x\"]}", "is not one name"),
            ("{listen: 127.0.0.1:1, host: x}", "admin.host"),
        ] {
            let found = load(text).unwrap_err();
            assert!(found.contains(expected), "{text}: {found}");
        }
    }
}
