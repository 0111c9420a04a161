//! From the tree of the text to a [`Config`]: the top of the configuration.
//!
//! Resolving notes every fault and continues with the default in the place of the invalid value.
//! The result is used only if there is no fault.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::base::units::format_size;
use crate::config::address::{LISTEN_PORT, all_addresses, parse_listen};
use crate::config::bounds::{Limits, OriginTimeouts, RouteLimits, RouteTimeouts, Timeouts};
use crate::config::document::{Node, Place, Value};
use crate::config::error::Faults;
use crate::config::instance;
use crate::config::network::{self, Network};
use crate::config::resolve::bounds::Bounds;
use crate::config::resolve::client_auth::Policies;
use crate::config::resolve::upstreams::Upstreams;
use crate::config::schema::{self, WORKERS_MAX};
use crate::config::section::{Scalar, Section, as_usize};
use crate::config::{Admission, CacheConfig, Config, Listen, ListenAddress, ListenMode};

mod key;
mod rules;
mod check;
mod client_auth;
pub(crate) mod tls;
pub(crate) mod upstreams;
mod matching;
mod action;
mod bounds;
mod routes;
mod sites;
mod tcp;
mod forward;
mod admin;
pub(crate) mod logs;

/// The resolved form of a tree, to be used if there is no fault.
pub(crate) fn resolve(
    faults: &mut Faults<'_>,
    path: &Path,
    root: &Node,
    machine: Machine,
) -> Config {
    let root = Section::open(faults, "", String::new(), root);
    let cache = cache(faults, &root);
    let upstreams = Upstreams::resolve(faults, &root);
    let limits_section = root.section(faults, "limits", "limits");
    let limits = limits(faults, &limits_section);
    let timeouts_section = root.section(faults, "timeouts", "timeouts");
    let timeouts = timeouts(faults, &timeouts_section);
    let top = Bounds { limits: limits.route, timeouts: timeouts.route };
    let mut policies = Policies::default();
    let sites = sites::resolve(faults, &root, &upstreams, cache.as_ref(), (top, &mut policies));
    let mut listen = listen(faults, &root, &upstreams, &mut policies);
    let admin = admin::resolve(faults, &root, &mut listen);
    let forward = forward::resolve(faults, &root, &listen);
    let has_sites = listen.iter().any(|listen| listen.mode == ListenMode::Http);
    if has_sites && root.node("upstream").is_none() && root.node("sites").is_none() {
        let message = "is missing, and so is sites: no request has anywhere to go \
                       (try \"upstream: 192.0.2.1:8080\")";
        faults.add(Place::at(1, 1), "upstream".to_owned(), message);
    }
    let tls_section = root.section(faults, "tls", "tls");
    tls::check(faults, &root, &listen, &sites);
    Config {
        file: Some(path.to_owned()),
        user: root.scalar(faults, "user").and_then(|scalar| user(faults, &scalar)),
        sandbox: root.switch(faults, "sandbox").unwrap_or(true),
        core_dumps: root.switch(faults, "core-dumps").unwrap_or(false),
        workers: workers(faults, &root, machine.n_cores),
        pid: match root.scalar(faults, "pid") {
            Some(scalar) if scalar.is("off") => None,
            Some(scalar) => scalar.file(faults),
            None if machine.is_root => Some(PathBuf::from(ROOTS_PID_FILE)),
            None => cache.as_ref().map(|cache| cache.path.join("ktrix.pid")),
        },
        via: root.scalar(faults, "via").and_then(|scalar| instance::name(faults, &scalar)),
        listen,
        tickets: tls::tickets(faults, &tls_section),
        acme: root.scalar(faults, "acme").and_then(|scalar| scalar.file(faults)),
        client_policies: policies.list,
        trusted_proxies: networks(faults, &root, "trusted-proxies").unwrap_or_default(),
        admin,
        log: logs::resolve(faults, &root),
        forward,
        cache,
        default_upstream: upstreams.default,
        upstreams: upstreams.list,
        sites,
        timeouts,
        limits,
        effective: Rc::default(),
    }
}

/// What defaults depend on besides the text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    /// The cores that this process may use.
    pub(crate) n_cores: usize,
    /// Whether this process is root's.
    pub(crate) is_root: bool,
}

/// Root's pid file: no other user may write to its directory.
const ROOTS_PID_FILE: &str = "/run/ktrix.pid";

/// Workers for `auto`.
pub(crate) fn workers_for(n_cores: usize) -> usize {
    n_cores.clamp(1, usize::try_from(WORKERS_MAX).unwrap_or(usize::MAX))
}

fn workers(faults: &mut Faults<'_>, root: &Section<'_>, n_cores: usize) -> usize {
    let row = schema::directive("", "workers");
    match root.scalar(faults, "workers") {
        Some(scalar) if !scalar.is("auto") => scalar.count(faults, row).unwrap_or(1),
        _ => workers_for(n_cores),
    }
}

fn user(faults: &mut Faults<'_>, scalar: &Scalar<'_>) -> Option<String> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.$".contains(&byte);
    if scalar.text.is_empty() || !scalar.text.bytes().all(is_name) {
        scalar.wrong(faults, "is not the name of a user");
        return None;
    }
    Some(scalar.text.to_owned())
}

fn listen(
    faults: &mut Faults<'_>,
    root: &Section<'_>,
    upstreams: &Upstreams<'_>,
    policies: &mut Policies,
) -> Vec<Listen> {
    let kind = schema::directive("listen[]", "address").kind;
    let Some(items) = root.items(faults, "listen") else { return all_addresses(LISTEN_PORT) };
    let mut listens: Vec<Listen> = Vec::new();
    for item in items {
        let section = match item.node.value {
            Value::Map(_) => Some(Section::open(faults, "listen[]", item.path.clone(), item.node)),
            _ => None,
        };
        let scalar = match &section {
            Some(section) => section.required(faults, "address", "address: 0.0.0.0:8080"),
            None => item.scalar(faults, kind),
        };
        let Some(scalar) = scalar else { continue };
        match parse_listen(scalar.text) {
            Ok(mut read) => {
                if let Some(section) = &section {
                    let mode = match section.word(faults, "mode") {
                        "tcp" => ListenMode::Tcp,
                        "forward" => ListenMode::Forward,
                        _ => ListenMode::Http,
                    };
                    let targets = tcp::targets(faults, section, mode, upstreams);
                    let http2 = section.switch(faults, "http2").unwrap_or(true);
                    let tls = tls::of_listener(faults, section, policies);
                    let proxies = networks(faults, section, "proxy-protocol").unwrap_or_default();
                    for listen in &mut read {
                        listen.mode = mode;
                        listen.targets.clone_from(&targets);
                        listen.http2 = http2 && mode == ListenMode::Http;
                        listen.tls.clone_from(&tls);
                        listen.proxies.clone_from(&proxies);
                        socket_access(faults, section, listen);
                    }
                }
                let pairs = read.iter().flat_map(|new| listens.iter().map(move |old| (old, new)));
                let mut overlaps = pairs.filter(|(old, new)| old.address.overlaps(&new.address));
                match overlaps.next() {
                    Some((old, new)) if old.address == new.address => {
                        scalar.wrong(faults, "is listed twice");
                    }
                    Some((old, _)) => {
                        let why = format!("overlaps {}, which is listed before it", old.address);
                        scalar.wrong(faults, &why);
                    }
                    None => {}
                }
                listens.extend(read);
            }
            Err(message) => scalar.fault(faults, message),
        }
    }
    listens
}

/// The permissions and the owner of a unix socket.
fn socket_access(faults: &mut Faults<'_>, section: &Section<'_>, listen: &mut Listen) {
    let is_unix = matches!(listen.address, ListenAddress::Unix(_));
    for key in ["permissions", "owner"] {
        let Some(scalar) = section.scalar(faults, key) else { continue };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.$".contains(&byte);
        let names = scalar.text.splitn(2, ':').collect::<Vec<_>>();
        let is_owner = names.iter().all(|name| name.bytes().all(is_name))
            && names.iter().any(|name| !name.is_empty());
        let mode = u32::from_str_radix(scalar.text, 8).ok().filter(|mode| *mode <= 0o777);
        match (key, mode) {
            _ if !is_unix => scalar.wrong(faults, "has no effect: the address is no unix socket"),
            ("permissions", Some(mode)) => listen.permissions = mode,
            ("permissions", None) => scalar.wrong(faults, "is not a mode (try \"0660\")"),
            _ if is_owner => listen.owner = Some(scalar.text.to_owned()),
            _ => scalar.wrong(faults, "is not an owner (try \"www-data\" or \"www-data:adm\")"),
        }
    }
}

fn cache(faults: &mut Faults<'_>, root: &Section<'_>) -> Option<CacheConfig> {
    let node = root.node("cache")?;
    if !matches!(node.value, Value::Map(_)) {
        let scalar = root.scalar(faults, "cache")?;
        if scalar.is("off") {
            return None;
        }
        let section = Section::absent("cache", "cache".to_owned(), node.place);
        let path = scalar.file(faults).unwrap_or_default();
        return Some(cache_at(faults, &section, path));
    }
    let section = root.section(faults, "cache", "cache");
    let path = section.required(faults, "path", "path: /var/cache/ktrix");
    let path = path.and_then(|path| path.file(faults)).unwrap_or_default();
    Some(cache_at(faults, &section, path))
}

/// The cache in a directory, with the settings of its mapping.
pub(crate) fn cache_at(
    faults: &mut Faults<'_>,
    section: &Section<'_>,
    path: PathBuf,
) -> CacheConfig {
    let size_bytes = section.size(faults, "size");
    let object_bytes_max = match section.size_if_any(faults, "object") {
        Some(object_bytes) => {
            if object_bytes > size_bytes {
                let scalar = section.scalar(faults, "object");
                scalar.inspect(|scalar| scalar.wrong(faults, "is larger than cache.size"));
            }
            object_bytes
        }
        None => size_bytes / 2,
    };
    let memory_bytes = section.size(faults, "memory");
    CacheConfig {
        path,
        size_bytes,
        objects: section.count(faults, "objects"),
        memory_bytes: as_usize(memory_bytes),
        memory_object_bytes_max: memory_object(faults, section, memory_bytes),
        object_bytes_max,
        free_bytes_min: section
            .size_if_any(faults, "free")
            .unwrap_or_else(|| FREE_BYTES_MIN.min(size_bytes / 50)),
        scrub_bytes_s: section.size(faults, "scrub"),
        admission: match section.word(faults, "admission") {
            "on" => Admission::On,
            "off" => Admission::Off,
            _ => Admission::Auto,
        },
        purge: networks(faults, section, "purge").unwrap_or_else(|| vec![Network::Local]),
        rules: rules::of_all(faults, section, object_bytes_max),
    }
}

/// The largest body that is kept in memory.
fn memory_object(faults: &mut Faults<'_>, section: &Section<'_>, memory_bytes: u64) -> u64 {
    let Some(bytes) = section.size_if_any(faults, "memory-object") else {
        return MEMORY_OBJECT_BYTES.min(memory_bytes / 16);
    };
    if bytes > memory_bytes / 4 {
        let scalar = section.scalar(faults, "memory-object");
        scalar.inspect(|scalar| scalar.wrong(faults, "is larger than a quarter of cache.memory"));
    }
    bytes
}

/// The default limit of a body in the memory of a large cache.
const MEMORY_OBJECT_BYTES: u64 = 1 << 20;

/// The default of the bytes that stay free on the disk of a large cache.
const FREE_BYTES_MIN: u64 = 64 << 20;

/// A list of networks that may be off, if it is set.
fn networks(faults: &mut Faults<'_>, section: &Section<'_>, key: &str) -> Option<Vec<Network>> {
    let items = section.items(faults, key)?;
    let (n_items, mut networks) = (items.len(), Vec::new());
    for item in items {
        let Some(scalar) = item.scalar(faults, schema::Kind::Text("network")) else { continue };
        if scalar.is("off") {
            if n_items > 1 {
                scalar.wrong(faults, key::OFF_BESIDE);
            }
            continue;
        }
        match network::parse_network(scalar.text) {
            Ok(read) => networks.extend(read),
            Err(message) => scalar.fault(faults, message),
        }
    }
    Some(networks)
}

pub(crate) fn timeouts(faults: &mut Faults<'_>, section: &Section<'_>) -> Timeouts {
    Timeouts {
        client_head: section.duration(faults, "client-head"),
        route: RouteTimeouts {
            client_body: section.duration(faults, "client-body"),
            client_request: section.duration(faults, "client-request"),
            client_send: section.duration(faults, "client-send"),
            tunnel: section.duration(faults, "tunnel"),
            origin: OriginTimeouts::default(),
        },
        client_idle: section.duration(faults, "client-idle"),
        tls_handshake: section.duration(faults, "tls-handshake"),
        connect: section.duration(faults, "connect"),
        first_byte: section.duration(faults, "first-byte"),
        idle: section.duration(faults, "idle"),
        fill_alone: section.duration(faults, "fill-alone"),
        disk: section.duration(faults, "disk"),
        worker_stuck: section.duration(faults, "worker-stuck"),
        stop: section.duration(faults, "stop"),
        upgrade: section.duration(faults, "upgrade"),
        tunnel_drain: section.duration(faults, "tunnel-drain"),
    }
}

pub(crate) fn limits(faults: &mut Faults<'_>, section: &Section<'_>) -> Limits {
    let head_bytes = as_usize(section.size(faults, "head"));
    let limits = Limits {
        connections: section.count(faults, "connections"),
        handshakes: section.count(faults, "handshakes"),
        head_bytes,
        target_bytes: as_usize(section.size(faults, "target")),
        route: RouteLimits {
            head_bytes,
            body_bytes: section.size(faults, "body"),
            response_memory_bytes: as_usize(section.size(faults, "response-memory")),
            response_file_bytes: section.size(faults, "response-file"),
        },
        body_memory_bytes: as_usize(section.size(faults, "body-memory")),
        responses_bytes: as_usize(section.size(faults, "responses")),
        bodies_bytes: section.size_if_any(faults, "bodies"),
        body_rate: section.size(faults, "body-rate"),
        headers: section.count(faults, "headers"),
        streams: section.count(faults, "streams") as u32,
        crash_guard: section.duration(faults, "crash-guard"),
        generations: section.count(faults, "generations"),
    };
    if limits.target_bytes > limits.head_bytes {
        let (target, head) = (limits.target_bytes as u64, limits.head_bytes as u64);
        if let Some(scalar) = section.scalar(faults, "target") {
            scalar.wrong(faults, &format!("is larger than limits.head ({})", format_size(head)));
        } else if let Some(scalar) = section.scalar(faults, "head") {
            let why = format!("is smaller than limits.target ({})", format_size(target));
            scalar.wrong(faults, &why);
        }
    }
    limits
}
