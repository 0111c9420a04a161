//! The tables of a running ktrix that have its status.

use std::fmt;

use crate::cache::level::CacheLevel;
use crate::shared::metrics::MetricTable;
use crate::shared::servers::ServerTable;
use crate::upstream::ids::Server;

/// The tables of the configuration in use.
#[derive(Debug)]
pub(crate) struct View<'t> {
    /// The master.
    pub(crate) pid: u32,
    pub(crate) table: &'t ServerTable,
    pub(crate) metrics: &'t MetricTable,
    pub(crate) cache: Option<CacheLevel>,
    /// The names in the table of servers: what each is, and its name.
    names: Vec<(String, String)>,
}

/// A server by its names.
pub(crate) struct Named<'r> {
    pub(crate) upstream: &'r str,
    pub(crate) address: &'r str,
}

impl<'t> View<'t> {
    /// Without the cache.
    pub(crate) fn new(pid: u32, table: &'t ServerTable, metrics: &'t MetricTable) -> Self {
        let text = table.text();
        let names = text.lines().filter_map(|line| line.split_once('\t'));
        let names = names.map(|(what, name)| (what.to_owned(), name.to_owned())).collect();
        Self { pid, table, metrics, cache: None, names }
    }

    /// The same with the cache.
    pub(crate) fn with_cache(self, cache: Option<CacheLevel>) -> Self {
        Self { cache, ..self }
    }

    /// The names of one kind.
    pub(crate) fn named<'r>(&'r self, what: &'r str) -> impl Iterator<Item = &'r str> {
        self.names.iter().filter(move |(it, _)| it == what).map(|(_, name)| name.as_str())
    }

    /// The certificates: the key of each in the configuration, its file, and when it expires.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        let expiries = self.table.expiries().iter();
        let expiries = expiries.map(|it| it.load(std::sync::atomic::Ordering::Relaxed));
        self.named("certificate").zip(expiries).map(|(name, expires_s)| {
            let (key, file) = name.split_once(' ').unwrap_or((name, ""));
            (key, file, expires_s)
        })
    }

    /// All servers, in the order of the configuration.
    pub(crate) fn servers(&self) -> impl Iterator<Item = (Named<'_>, Server)> {
        let ids = self.table.upstreams().flat_map(|upstream| self.table.servers(upstream));
        let mut upstream = "";
        let named = self.names.iter().filter_map(move |(what, name)| match what.as_str() {
            "upstream" => {
                upstream = name;
                None
            }
            "server" => Some(Named { upstream, address: name }),
            _ => None,
        });
        named.zip(ids)
    }
}

impl Named<'_> {
    /// Whether a person means this server.
    pub(crate) fn is(&self, text: &str) -> bool {
        text.split_once('/').is_some_and(|(upstream, address)| {
            upstream == self.upstream && (address == self.address || self.is_on_port_80(address))
        })
    }

    fn is_on_port_80(&self, address: &str) -> bool {
        self.address.strip_suffix(":80") == Some(address)
    }
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.upstream, self.address)
    }
}
