//! The state that all exchanges of one worker share.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use crate::base::time::Now;
use crate::cache::Cache;
use crate::config::admin::AdminConfig;
use crate::config::forward::ForwardConfig;
use crate::config::request_log::PerLog;
use crate::config::{Config, ListenMode};
use crate::http::h1::head::HeadLimits;
use crate::http::head::RequestHead;
use crate::log::access::AccessLog;
use crate::log::feed::Feed;
use crate::origin::names::Mailbox;
use crate::origin::pools::Pools;
use crate::origin::upstream::OriginLimits;
use crate::proxy::client::front::Front;
use crate::proxy::credentials::Credentials;
use crate::proxy::facts::Facts;
use crate::proxy::progress::LocalFills;
use crate::proxy::tunnels::Tunnels;
use crate::reactor;
use crate::reactor::event::Event;
use crate::route::Router;
use crate::shared::bodies::Bodies;
use crate::shared::in_flight::{self, Entry, InFlight, Stage};
use crate::shared::metrics::MetricTable;
use crate::shared::servers::ServerTable;
use crate::sys::host;
use crate::tls::client::Clients;
use crate::upstream::destination::Destination;

/// The forward proxy of a worker.
#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) config: Rc<ForwardConfig>,
    /// The users, if a client must be one.
    pub(crate) credentials: Option<Credentials>,
}

/// The tables that the admin listener shows.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) config: Rc<AdminConfig>,
    pub(crate) servers: Rc<ServerTable>,
    pub(crate) metrics: Rc<MetricTable>,
}

/// A log of requests in a worker.
#[derive(Debug)]
pub(crate) struct WorkerLog {
    pub(crate) lines: RefCell<AccessLog>,
    /// Posted when its ring has been emptied.
    pub(crate) flushed: Event,
    /// Posted when it should be flushed before its time.
    pub(crate) due: Event,
}

impl WorkerLog {
    fn new(lines: AccessLog) -> Self {
        let (flushed, due) = (Event::default(), Event::default());
        Self { lines: RefCell::new(lines), flushed, due }
    }
}

/// The state that all exchanges of one worker share.
#[derive(Debug)]
pub struct Context {
    /// The configuration of this generation.
    pub config: Rc<Config>,
    /// The name of this instance in `Via`.
    pub via: String,
    /// Host and path to route.
    pub router: Router,
    /// Connections to origins.
    pub pools: Pools,
    /// The forward proxy, if there is one.
    pub(crate) forward: Option<Forward>,
    /// The admin listener, if there is one.
    pub(crate) admin: Option<Admin>,
    /// The cache, unless it is off.
    pub cache: Option<Rc<Cache>>,
    /// The tunnels that are open.
    pub(crate) tunnels: Tunnels,
    /// The fills that this worker leads.
    pub fills: LocalFills,
    /// The access log and the slow log, unless they are off.
    pub(crate) logs: PerLog<Option<WorkerLog>>,
    /// Its requests for those who follow them, with its process slot.
    pub(crate) feed: Option<(Rc<Feed>, usize)>,
    /// Limits of a client's request head.
    pub client_head: HeadLimits,
    /// The directory for bodies that are too large for memory.
    pub temporary: PathBuf,
    /// The bytes that they may have.
    pub bodies: Rc<Bodies>,
    /// The bytes of responses that wait in memory for their clients.
    pub(super) response_bytes: Cell<usize>,
    /// When a response could not be buffered in a file last, in seconds of the Unix clock.
    unbuffered_s: Cell<u64>,
    /// Number of requests so far, for their ids.
    pub n_requests: Cell<u64>,
    /// Upper bits of the request ids; no two workers of any start have the same.
    pub id_base: u64,
    /// Whether the worker drains: a connection ends after the answer under way.
    pub is_draining: Cell<bool>,
    /// Other workers have taken its place.
    pub is_replaced: Cell<bool>,
    /// Posted when the worker begins to drain.
    pub drain: Event,
    /// The requests in flight, for the log of a crash; `None` in a test.
    pub(crate) in_flight: Option<InFlight>,
}

impl Context {
    /// Request bodies that are too large for memory go to `temporary`.
    pub(crate) fn new(
        config: Rc<Config>,
        (servers, worker): (&Rc<ServerTable>, usize),
        clients: &Clients,
        cache: Option<Rc<Cache>>,
        mut logs: PerLog<Option<AccessLog>>,
        temporary: PathBuf,
        bodies: Rc<Bodies>,
    ) -> Self {
        let origin = OriginLimits::of(&config);
        Self {
            via: instance_name(&config),
            router: Router::new(&config),
            pools: Pools::new(&config.upstreams, (servers, worker), clients, origin),
            forward: None,
            admin: None,
            tunnels: Tunnels::new(servers, worker),
            cache,
            fills: LocalFills::default(),
            logs: PerLog::of(|which| logs[which].take().map(WorkerLog::new)),
            feed: None,
            client_head: origin.head,
            temporary,
            bodies,
            response_bytes: Cell::new(0),
            unbuffered_s: Cell::new(0),
            n_requests: Cell::new(0),
            id_base: reactor::now().unix_s() << 32 | u64::from(std::process::id()),
            is_draining: Cell::new(false),
            is_replaced: Cell::new(false),
            drain: Event::default(),
            in_flight: None,
            config,
        }
    }

    /// With a feed, and the process slot of this worker.
    pub(crate) fn feeding(self, feed: (Rc<Feed>, usize)) -> Self {
        Self { feed: Some(feed), ..self }
    }

    /// With a forward proxy, if the configuration has one: names are looked up by way of `mailbox`.
    ///
    /// # Errors
    /// When the kernel refuses the memory.
    pub(crate) fn forwarding(self, mailbox: Mailbox) -> io::Result<Self> {
        let Some(forward) = &self.config.forward else { return Ok(self) };
        let pools = self.pools.forwarding(forward, OriginLimits::of(&self.config), mailbox)?;
        let credentials = forward.users.as_ref().map(Credentials::new).transpose()?;
        let forward = Some(Forward { config: Rc::clone(forward), credentials });
        Ok(Self { pools, forward, ..self })
    }

    /// Noting the requests in flight there.
    pub(crate) fn noting(self, in_flight: Option<InFlight>) -> Self {
        Self { in_flight, ..self }
    }

    /// Whether requests are suspected to crash workers, or refused, so that each is to be looked at.
    pub(crate) fn is_guarding(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|it| it.table.is_guarding())
    }

    /// Whether a request is refused since workers have crashed by it.
    pub(crate) fn is_refused(&self, head: &RequestHead) -> bool {
        let refuses =
            |it: &InFlight| it.table.is_guarding() && it.table.refuses(fingerprint_of(head));
        self.in_flight.as_ref().is_some_and(refuses)
    }

    /// A request was answered, and this worker lives.
    pub(crate) fn note_answered(&self, head: &RequestHead) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.table.answered(fingerprint_of(head));
        }
    }

    /// Enters an exchange among those in flight.
    pub(crate) fn enter(&self, head: &RequestHead, began: Now) -> Option<Entry<'_>> {
        let parts = (&*head.method_text, head.host(), head.target.path_and_query());
        self.in_flight.as_ref().map(|it| it.enter(parts, began.mono_us))
    }

    /// Notes what an exchange waits for.
    pub(crate) fn note_stage(&self, facts: &Facts, stage: Stage) {
        if let (Some(in_flight), Some(entry)) = (&self.in_flight, facts.entry) {
            in_flight.set_stage(entry, stage);
        }
    }

    /// With an admin listener, if the configuration has one.
    pub(crate) fn shown_by(self, servers: &Rc<ServerTable>, metrics: &Rc<MetricTable>) -> Self {
        let admin = self.config.admin.as_ref().map(|config| Admin {
            config: Rc::clone(config),
            servers: Rc::clone(servers),
            metrics: Rc::clone(metrics),
        });
        Self { admin, ..self }
    }

    /// The name of this instance in the `Via` of messages from and to a destination.
    pub(crate) fn via_to(&self, destination: &Destination) -> &str {
        match (destination, &self.config.forward) {
            (Destination::Address(_), Some(forward)) => self.via_by(forward),
            _ => &self.via,
        }
    }

    /// As [`Self::via_to`], of the destinations of a forward proxy.
    pub(crate) fn via_by(&self, forward: &ForwardConfig) -> &str {
        if forward.via { &self.via } else { "" }
    }

    /// The id of the next request, unique in this daemon.
    pub fn next_request_id(&self) -> u128 {
        let n = self.n_requests.get().wrapping_add(1);
        self.n_requests.set(n);
        u128::from(self.id_base) << 64 | u128::from(n)
    }

    /// A response could not be buffered in a file. That is logged once, until it has not happened for
    /// a while.
    pub fn unbuffered(&self, error: &io::Error) {
        let now_s = reactor::now().unix_s();
        if self.unbuffered_s.replace(now_s) + QUIET_S < now_s {
            let dir = &self.temporary;
            ::log::warn!(
                "cannot buffer a response in {dir:?}: {error}; slow clients hold connections to \
                 servers"
            );
        }
    }

    /// Whether the logs have room for another line, or may drop it.
    pub fn log_has_room(&self, front: &Front) -> bool {
        self.full_log().is_none() || front.listen.mode == ListenMode::Admin
    }

    /// Waits until the logs have room for another line.
    pub async fn log_room(&self, front: &Front) {
        while !self.log_has_room(front)
            && let Some(log) = self.full_log()
        {
            let since = log.flushed.version();
            log.due.notify();
            log.flushed.after(since).await;
        }
    }

    /// Whether requests have lines in a log.
    pub(crate) fn is_logged(&self) -> bool {
        self.logs.iter().any(Option::is_some)
    }

    fn full_log(&self) -> Option<&WorkerLog> {
        self.logs.iter().flatten().find(|log| !log.lines.borrow().has_room())
    }

    /// `timeouts.client-send`, in milliseconds.
    pub fn send_ms(&self) -> u64 {
        self.config.timeouts.route.client_send_ms()
    }

    /// `timeouts.client-head`, in milliseconds.
    pub fn head_ms(&self) -> u64 {
        self.config.timeouts.client_head.as_millis() as u64
    }

    /// `timeouts.client-idle`, in milliseconds.
    pub fn idle_ms(&self) -> u64 {
        self.config.timeouts.client_idle.as_millis() as u64
    }
}

fn fingerprint_of(head: &RequestHead) -> u64 {
    in_flight::fingerprint(&head.method_text, head.host(), head.target.path_and_query())
}

/// A failure is logged again after so many seconds without one.
const QUIET_S: u64 = 60;

/// The name of an instance of this configuration on this machine.
pub(crate) fn instance_name(config: &Config) -> String {
    let (name, id) = host::identity();
    config.instance_name(&name, &id)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::log::file::LogFile;
    use crate::log::ring::Rings;
    use crate::shared::bodies::BodyTable;

    /// A context for a test: one server that refuses connections, no cache, and the settings of
    /// `text`.
    pub(crate) fn context(dir: &Path, text: &str) -> Context {
        let text = format!("upstream: 127.0.0.1:1\n{text}");
        let config = Rc::new(Config::load_for(Path::new("k"), &text, 1).unwrap());
        let servers = Rc::new(ServerTable::create([1], 1, "").unwrap());
        let logs = PerLog::of(|which| {
            let config = config.log.requests(which)?;
            let rings = Arc::new(Rings::create(1, 1).unwrap());
            let mut log = AccessLog::new(config.clone(), rings, 0).unwrap();
            log.write_to(LogFile::open(&config.file).unwrap());
            Some(log)
        });
        let table = Rc::new(BodyTable::create(1).unwrap());
        let bodies = Rc::new(Bodies::new(table, 0, u64::MAX));
        Context::new(
            Rc::clone(&config),
            (&servers, 0),
            &Clients::default(),
            None,
            logs,
            dir.to_owned(),
            bodies,
        )
    }
}
