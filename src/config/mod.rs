//! The resolved form of the configuration, and the steps that lead to it.
//!
//! ```text
//! text ─ document ─▶ Node tree with places ─ resolve (by the schema's table) ─▶ Config
//!                                               └──▶ ConfigErrors: all of them, with places
//! ```
//!
//! A [`Config`] holds only valid values: nothing in it is optional that is required, no number is
//! still text, and a route names its upstream by index. It is not validated again.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

mod nearest;
pub mod document;
pub(crate) mod yaml;
pub(crate) mod difference;
pub mod error;
pub mod schema;
mod section;
pub(crate) mod source;
mod include;
pub mod places;
pub mod network;
pub mod admin;
pub mod host;
pub mod matching;
pub mod variables;
pub mod template;
pub mod action;
pub mod buffering;
pub mod bounds;
pub mod address;
pub mod tls;
pub mod tcp;
pub mod users;
pub mod forward;
pub mod listen;
pub mod request_log;
mod instance;
mod resolve;
mod effective;
mod load;
mod unchanged;
mod flags;

use crate::config::action::Changes;
use crate::config::admin::AdminConfig;
use crate::config::bounds::{Limits, OriginTimeouts, RouteLimits, RouteTimeouts, Timeouts};
use crate::config::buffering::ResponseBuffering;
use crate::config::forward::ForwardConfig;
pub use crate::config::host::HostPattern;
pub use crate::config::listen::{Listen, ListenAddress, ListenMode};
use crate::config::matching::{Matching, PathSet};
use crate::config::network::Network;
use crate::config::request_log::RequestLog;
use crate::config::tls::{
    CertificateFiles, ClientPolicy, SitePolicy, TicketConfig, ToHttps, UpstreamTls,
};
use crate::http::proxy_protocol::Version;
use crate::policy::rfc9111::rules::Rules;
use crate::upstream::check::Check;
use crate::upstream::ids::{Server, ServerId, UpstreamId};
use crate::upstream::method::{HashOf, Method};
use crate::upstream::retry::RetryOn;
use crate::upstream::state::Setting;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file it was read from, unless it came from the command line.
    pub file: Option<PathBuf>,
    /// The user that the workers and the keeper run as when the master is started as root.
    pub user: Option<String>,
    /// Whether the processes give up what they do not need.
    pub sandbox: bool,
    /// Whether a process that crashes leaves a core file.
    pub core_dumps: bool,
    /// Worker processes, 1 to [`schema::WORKERS_MAX`].
    pub workers: usize,
    /// The master's pid file.
    pub pid: Option<PathBuf>,
    /// The addresses where clients are accepted; at least one, none twice.
    pub listen: Vec<Listen>,
    /// The name of this instance in `Via`, a token, if it is configured.
    pub via: Option<String>,
    /// The session tickets of TLS.
    pub tickets: TicketConfig,
    /// The folder of the proofs for ACME challenges, if there is one.
    pub acme: Option<PathBuf>,
    /// How clients are asked for certificates: [`PolicyId`](crate::http::tls::PolicyId) 1 is the first.
    pub client_policies: Vec<ClientPolicy>,
    /// The proxies whose word counts for client, scheme and host.
    pub trusted_proxies: Vec<Network>,
    /// The logs.
    pub log: LogConfig,
    /// The store of responses, if there is one.
    pub cache: Option<CacheConfig>,
    /// The clients that may ask the admin listener, if there is one.
    pub admin: Option<Rc<AdminConfig>>,
    /// The requests that clients may make, if a listener is a forward proxy.
    pub forward: Option<Rc<ForwardConfig>>,
    /// Groups of servers; names are unique.
    pub upstreams: Vec<UpstreamConfig>,
    /// The sites; no host is claimed twice.
    pub sites: Vec<SiteConfig>,
    /// The upstream for requests that no site claims; without it they get 404.
    pub default_upstream: Option<UpstreamId>,
    /// The bounds on waiting.
    pub timeouts: Timeouts,
    /// The bounds on sizes and counts.
    pub limits: Limits,
    /// All of it as text, with every default, as `ktrix config dump` prints it; empty without a file.
    pub effective: Rc<str>,
}

impl Config {
    /// The servers of all upstreams.
    pub fn servers(&self) -> impl Iterator<Item = (Server, &ServerConfig)> {
        let upstreams = (0..).map(UpstreamId).zip(&self.upstreams);
        upstreams.flat_map(|(upstream, config)| {
            let servers = (0..).map(ServerId).zip(&config.servers);
            servers.map(move |(id, server)| (Server { upstream, id }, server))
        })
    }
}

/// The logs.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// A line for every request, if configured.
    pub access: Option<AccessLogConfig>,
    /// A line for every request that took long, if configured.
    pub slow: Option<AccessLogConfig>,
    /// The sink of ktrix's own messages.
    pub error: ErrorSink,
    /// The least severe level that is logged.
    pub level: log::LevelFilter,
}

impl LogConfig {
    /// A log of requests, if configured.
    pub fn requests(&self, which: RequestLog) -> Option<&AccessLogConfig> {
        match which {
            RequestLog::Access => self.access.as_ref(),
            RequestLog::Slow => self.slow.as_ref(),
        }
    }
}

/// The sink of the error log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorSink {
    /// Standard error in the foreground, else syslog.
    Auto,
    /// The local syslog daemon.
    Syslog,
    /// Standard error.
    Stderr,
    /// A file that is appended to.
    File(PathBuf),
}

/// The access log, or the slow log, which is one with a bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogConfig {
    /// Which of them.
    pub which: RequestLog,
    /// Requests that took less have no line.
    pub over: Duration,
    /// The file that lines are appended to.
    pub file: PathBuf,
    /// The format of a line.
    pub format: LogFormat,
    /// The behaviour when the buffer is full.
    pub when_full: WhenFull,
    /// Bytes of a worker's buffer; a power of two.
    pub buffer_bytes: usize,
    /// Most bytes of the spill file; 0 for none.
    pub spill_bytes: u64,
}

/// The form of a line about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// The common log format.
    Common,
    /// The common format with referer and user agent.
    Combined,
    /// A JSON object with all known facts of the exchange.
    Json,
    /// `name=value` for the times of all phases and the main facts.
    Text,
}

/// The behaviour of a worker when its buffer is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It moves the lines to the spill file, and drops lines only when that is full too.
    Spill,
    /// It waits; no line is lost.
    Wait,
    /// It drops the line and counts it.
    Drop,
}

/// The cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// The directory of the cache files.
    pub path: PathBuf,
    /// Bytes of all cache files.
    pub size_bytes: u64,
    /// Stored responses.
    pub objects: usize,
    /// Bytes of each worker's hot tier.
    pub memory_bytes: usize,
    /// Bytes of the largest body that stays in it; at most a quarter of it.
    pub memory_object_bytes_max: u64,
    /// Bytes of the largest response that is stored; at most `size_bytes`.
    pub object_bytes_max: u64,
    /// Bytes that stay free on the disk.
    pub free_bytes_min: u64,
    /// Whether a full cache stores an object at its first request.
    pub admission: Admission,
    /// Bytes of files that the keeper verifies in a second; 0 is none.
    pub scrub_bytes_s: u64,
    /// The networks that may purge by request.
    pub purge: Vec<Network>,
    /// The rules for responses outside of all sites.
    pub rules: Rc<Rules>,
}

/// Whether a full cache makes room for an object at its first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It does, unless most of such objects are never requested again.
    Auto,
    /// It waits for a second request.
    On,
    /// It does.
    Off,
}

/// A named group of servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Its name, or the address where none was given.
    pub name: String,
    /// How a server is chosen.
    pub balance: Method,
    /// The value that `balance: hash` hashes.
    pub hash: HashOf,
    /// The cookie that names the server of a client.
    pub sticky: Option<String>,
    /// The servers; at least one.
    pub servers: Vec<ServerConfig>,
    /// Idle connections that are kept ready, for each worker and server.
    pub keep_open: usize,
    /// Requests on one connection; 0 for any number.
    pub requests: u64,
    /// Requests that wait for a connection, for each worker.
    pub pending: usize,
    /// How long a request waits for a connection.
    pub pending_timeout: Duration,
    /// The first pause of a failed server.
    pub skip: Duration,
    /// How long a server that comes back gets less than its share.
    pub slow_start: Duration,
    /// Further tries of a request that is safe to repeat.
    pub retries: usize,
    /// The failures after which there is another try.
    pub retry_on: RetryOn,
    /// The share of retries among the requests of ten seconds, in percent.
    pub retry_budget: u32,
    /// How often names are resolved.
    pub resolve: Duration,
    /// How its servers are checked.
    pub check: Option<Check>,
    /// How its servers are spoken to over TLS; `None` in the clear.
    pub tls: Option<UpstreamTls>,
    /// The version of the PROXY header that each connection begins with, if it does.
    pub proxy: Option<Version>,
    /// The bounds on waiting for its servers, where they differ from those at the top.
    pub timeouts: OriginTimeouts,
    /// Bytes of the head of a response, if that differs from the top.
    pub head_bytes: Option<usize>,
    /// Fields of the head of a response, if that differs from the top.
    pub headers: Option<usize>,
}

/// A server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Its address.
    pub address: ServerAddress,
    /// Its share of the requests, 0 to 1000.
    pub weight: u32,
    /// Open connections, for each worker.
    pub connections: usize,
    /// Whether it is used only if no other server is.
    pub is_backup: bool,
    /// Its action.
    pub setting: Setting,
}

impl ServerConfig {
    /// A server of weight 1.
    pub(crate) fn at(address: ServerAddress, connections: usize) -> Self {
        Self { address, weight: 1, connections, is_backup: false, setting: Setting::Enabled }
    }
}

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// TCP to an IP address.
    Ip(SocketAddr),
    /// TCP to a name that ktrix resolves.
    Name {
        /// The name, lower-case, without a dot at its end.
        host: String,
        /// The port.
        port: u16,
    },
    /// The path of a stream socket.
    Unix(PathBuf),
}

/// A virtual host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteConfig {
    /// The hosts that it claims; none means any.
    pub hosts: Vec<HostPattern>,
    /// The certificate for them on every listener with TLS.
    pub tls: Option<CertificateFiles>,
    /// How clients are asked for a certificate; `None` for as the listener says.
    pub client_policy: Option<SitePolicy>,
    /// The redirect of its requests in the clear.
    pub to_https: Option<ToHttps>,
    /// The routes; at least one, and each can match a request.
    pub routes: Vec<RouteConfig>,
    /// The patterns of the routes with a glob or a regular expression, in their order.
    pub patterns: Option<PathSet>,
}

/// The rules for the requests that match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// The requests that it takes.
    pub matching: Matching,
    /// The upstream that is asked.
    pub upstream: UpstreamId,
    /// Whether the cache stores and answers; never without a cache.
    pub cache: bool,
    /// Whether the origin is told who the client is, so that its answers are for that client alone.
    pub tells_client: bool,
    /// How the cache stores and answers.
    pub rules: Rc<Rules>,
    /// Whether a request is received completely before a server sees it.
    pub request_buffering: bool,
    /// Whether a response is taken from a server faster than the client takes it.
    pub response_buffering: ResponseBuffering,
    /// Whether a request may switch to another protocol.
    pub upgrade: bool,
    /// The bounds on the sizes of its messages.
    pub limits: RouteLimits,
    /// The bounds on waiting in its exchanges.
    pub timeouts: RouteTimeouts,
    /// Its changes, if it makes any.
    pub changes: Option<Rc<Changes>>,
}

impl ListenAddress {
    /// Whether one connection could come in by both: they are equal, or one has all addresses of its
    /// family. Port 0 is a different port each time, and an IPv6 socket takes no IPv4 clients.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ip(one), Self::Ip(other)) => {
                let is_all = one.ip().is_unspecified() || other.ip().is_unspecified();
                one.port() == other.port()
                    && one.port() != 0
                    && one.is_ipv4() == other.is_ipv4()
                    && (is_all || one == other)
            }
            _ => self == other,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Below(suffix) => write!(f, "*{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests;
