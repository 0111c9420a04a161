//! An upstream in one worker: the connections to each of its servers, its balancer, and the fetches that
//! wait for a connection.
//!
//! The floor `upstream` has the rules: which server, which connection, which fetch is next. Here
//! they are applied to sockets. The shared table has the addresses of each server, and whether it
//! is used or skipped.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::config::bounds::OriginTimeouts;
use crate::config::{Config, ServerAddress, UpstreamConfig};
use crate::http::h1::head::HeadLimits;
use crate::http::proxy_protocol::Version;
use crate::metrics::table::Metric;
use crate::origin::affinity::Sticky;
use crate::policy::reason::server::ServerReason;
use crate::reactor;
use crate::reactor::event::Event;
use crate::shared::health::Pause;
use crate::shared::meter;
use crate::shared::server_row::ServerRow;
use crate::shared::servers::ServerTable;
use crate::tls::client::Client;
use crate::tls::turns::Turns;
use crate::transport::Transport;
use crate::upstream::balance::Balance;
use crate::upstream::class::{self, Seen, ServerView};
use crate::upstream::ids::{Server, ServerId, UpstreamId};
use crate::upstream::method::{self, HashOf};
use crate::upstream::pending::Pending;
use crate::upstream::pool::{Pool, PoolLimits};
use crate::upstream::retry::{Budget, RetryOn};
use crate::upstream::rtt;
use crate::upstream::state::Setting;
use crate::upstream::tried::Tried;

/// The bounds of a fetch, the same for all servers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OriginLimits {
    /// The limits of a response's head.
    pub head: HeadLimits,
    /// `timeouts.connect`, in milliseconds.
    pub connect_ms: u64,
    /// `timeouts.first-byte`, in milliseconds.
    pub first_byte_ms: u64,
    /// `timeouts.idle`, in milliseconds.
    pub idle_ms: u64,
    /// `timeouts.fill-alone`, in milliseconds.
    pub alone_ms: u64,
}

/// One upstream in one worker.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(super) id: UpstreamId,
    pub(super) name: String,
    /// Its row in the metrics.
    pub(super) metric_row: usize,
    pub(super) servers: Vec<ServerPool>,
    pub(super) balance: RefCell<Balance>,
    /// The value to hash, if the balancer needs a hash.
    pub(super) hash_of: Option<HashOf>,
    pub(super) sticky: Option<Sticky>,
    /// Whether the balancer compares the active connections of all workers, or times to an answer.
    pub(super) needs_active: bool,
    pub(super) needs_rtt: bool,
    pub(super) pending: RefCell<Pending<Rc<Event>>>,
    /// Posted when another fetch waits for a connection.
    pub(super) crowded: Event,
    /// Fetches that were called from the line and have not looked yet.
    pub(super) n_called: Cell<usize>,
    /// Fetches in the line that have tried servers.
    pub(super) n_choosy: Cell<usize>,
    /// Fetches without clients.
    pub(super) n_alone: Cell<usize>,
    pub(super) pending_ms: u64,
    pub(super) retries: usize,
    pub(super) retry_on: RetryOn,
    pub(super) budget: RefCell<Budget>,
    slow_ms: u64,
    pub(super) pause: Pause,
    pub(super) limits: OriginLimits,
    /// The TLS towards the servers, if they are spoken to over TLS.
    pub(super) tls: Option<Rc<Client>>,
    /// The version of the PROXY header that a connection begins with.
    pub(super) proxy: Option<Version>,
    /// The steps of all handshakes with servers.
    pub(super) turns: Rc<Turns>,
    pub(super) table: Rc<ServerTable>,
    /// The number of this worker, whose counts are in the table.
    pub(super) worker: usize,
}

/// The connections to one server.
#[derive(Debug)]
pub(super) struct ServerPool {
    pub(super) server: Server,
    /// Its row in the metrics.
    pub(super) metric_row: usize,
    pub(super) address: ServerAddress,
    pub(super) pool: RefCell<Pool<Rc<Transport>>>,
    /// Which of a name's addresses is next.
    pub(super) turn: Cell<usize>,
    /// A task makes connections ahead of need.
    pub(super) is_opening: Cell<bool>,
    is_backup: bool,
    /// The setting and weight that the error log knows.
    logged: Cell<(Setting, u32)>,
    /// A number of the server's address.
    seed: u64,
}

/// A pause is doubled this often, to 16 times its first length.
const PAUSE_DOUBLED_MAX: u32 = 4;

impl OriginLimits {
    /// The bounds of a configuration.
    pub(crate) fn of(config: &Config) -> Self {
        let (limits, timeouts) = (&config.limits, &config.timeouts);
        let head = HeadLimits {
            head_bytes: limits.head_bytes,
            fields: limits.headers,
            target_bytes: limits.target_bytes,
        };
        Self {
            head,
            connect_ms: timeouts.connect.as_millis() as u64,
            first_byte_ms: timeouts.first_byte.as_millis() as u64,
            idle_ms: timeouts.idle.as_millis() as u64,
            alone_ms: timeouts.fill_alone.as_millis() as u64,
        }
    }

    /// With the bounds that an upstream has of its own.
    fn of_upstream(self, own: &UpstreamConfig) -> Self {
        let head = HeadLimits {
            head_bytes: own.head_bytes.unwrap_or(self.head.head_bytes),
            fields: own.headers.unwrap_or(self.head.fields),
            ..self.head
        };
        Self { head, ..self.with(&own.timeouts) }
    }

    /// The bounds with those of an upstream or a route.
    pub(super) fn with(self, own: &OriginTimeouts) -> Self {
        let ms = |own: Option<Duration>, default| own.map_or(default, |it| it.as_millis() as u64);
        Self {
            connect_ms: ms(own.connect, self.connect_ms),
            first_byte_ms: ms(own.first_byte, self.first_byte_ms),
            idle_ms: ms(own.idle, self.idle_ms),
            ..self
        }
    }

    /// How long an attempt at a server may take: as long as a connection and the first byte of an
    /// answer may.
    pub(super) fn attempt_ms(&self) -> u64 {
        self.connect_ms.saturating_add(self.first_byte_ms)
    }
}

impl Upstream {
    pub(super) fn new(
        id: UpstreamId,
        config: &UpstreamConfig,
        (table, worker): (Rc<ServerTable>, usize),
        (tls, turns): (Option<Rc<Client>>, Rc<Turns>),
        limits: OriginLimits,
    ) -> Self {
        let limits = limits.of_upstream(config);
        // The pauses of the only server spare no request, because there is no other one.
        let doubled_max = if config.servers.len() > 1 { PAUSE_DOUBLED_MAX } else { 0 };
        let pool_limits = |connections| PoolLimits {
            connections,
            idle_ms: limits.idle_ms,
            keep_open: config.keep_open,
            // A connection with a PROXY header belongs to one client.
            requests: if config.proxy.is_some() { 1 } else { config.requests },
        };
        let servers = table.servers(id).zip(&config.servers).map(|(server, config)| ServerPool {
            server,
            metric_row: 0,
            address: config.address.clone(),
            pool: RefCell::new(Pool::new(pool_limits(config.connections))),
            turn: Cell::new(0),
            is_opening: Cell::new(false),
            is_backup: config.is_backup,
            logged: Cell::new((table.row(server).setting(), table.row(server).weight())),
            seed: method::hash(config.address.to_string().as_bytes()),
        });
        let servers: Vec<_> = servers.collect();
        let seeds = servers.iter().map(|server| server.seed);
        let balance = Balance::new(config.balance, servers.len(), worker as u64 + 1);
        let hash_of = match config.balance {
            method::Method::Hash => Some(config.hash.clone()),
            method::Method::Source => Some(HashOf::Client),
            _ => None,
        };
        Self {
            id,
            name: config.name.clone(),
            metric_row: 0,
            sticky: config.sticky.clone().map(|cookie| Sticky::new(cookie, seeds)),
            servers,
            balance: RefCell::new(balance),
            hash_of,
            needs_active: config.balance.needs_active(),
            needs_rtt: config.balance.needs_rtt(),
            pending: RefCell::new(Pending::new(config.pending)),
            crowded: Event::default(),
            n_called: Cell::new(0),
            n_choosy: Cell::new(0),
            n_alone: Cell::new(0),
            pending_ms: config.pending_timeout.as_millis() as u64,
            retries: config.retries,
            retry_on: config.retry_on.clone(),
            budget: RefCell::new(Budget::new(config.retry_budget)),
            slow_ms: config.slow_start.as_millis() as u64,
            pause: Pause { first_ms: config.skip.as_millis() as u64, doubled_max },
            limits,
            tls,
            proxy: config.proxy,
            turns,
            table,
            worker,
        }
    }

    pub(super) const fn id(&self) -> UpstreamId {
        self.id
    }

    pub(super) fn server(&self, id: ServerId) -> &ServerPool {
        &self.servers[id.0]
    }

    /// The state of a server that all workers share.
    pub(super) fn row(&self, id: ServerId) -> &ServerRow {
        self.table.row(self.server(id).server)
    }

    /// Failures in a row within this time make a server fail.
    pub(super) fn window_ms(&self) -> u64 {
        (3 * self.limits.first_byte_ms).max(self.pause.first_ms)
    }

    /// Whether a connection is free that at least some fetches can use. Clients with a cookie, and
    /// fetches that have tried servers, may use other servers than those that are chosen first.
    pub(super) fn has_room(&self) -> bool {
        let now_ms = reactor::now().mono_ms();
        let has_room = |server: &ServerPool| server.pool.borrow().has_room();
        let is_own = |server: &&ServerPool| {
            let row = self.row(server.server.id);
            row.setting() != Setting::Disabled && row.skipped_until_ms() <= now_ms
        };
        let has_own = || self.servers.iter().filter(is_own).any(has_room);
        class::has_open(self, now_ms, |id| has_room(self.server(id)))
            || (self.sticky.is_some() || self.n_choosy.get() > 0) && has_own()
    }

    /// The most connections to all servers.
    pub(super) fn n_connections_max(&self) -> usize {
        self.servers.iter().map(|server| server.pool.borrow().n_max()).sum()
    }

    /// The servers that were not tried.
    pub(super) fn not_in(&self, tried: &Tried) -> impl Iterator<Item = &ServerPool> {
        self.servers.iter().filter(|it| !tried.contains(it.server.id))
    }

    /// Notes how many idle connections there are, for people.
    pub(super) fn count_idle(&self, server: &ServerPool) {
        let n_idle = server.pool.borrow().n_idle() as u32;
        self.table.n_idle(self.worker, server.server).store(n_idle, Ordering::Relaxed);
    }

    /// Notes how many fetches wait, for people.
    pub(super) fn count_pending(&self) {
        let n_pending = self.pending.borrow().len() as u32;
        self.table.n_pending(self.worker, self.id).store(n_pending, Ordering::Relaxed);
    }

    /// Counts for this upstream of the configuration, or for all destinations of a forward proxy.
    pub(super) fn counted_as(mut self, id: Option<UpstreamId>) -> Self {
        self.metric_row = meter::upstream(id);
        if id.is_some() {
            let servers = self.servers.iter_mut();
            servers.for_each(|it| it.metric_row = meter::server(it.server));
        }
        self
    }

    /// Counts the failure of a server.
    pub(super) fn count_failure(&self, id: ServerId) {
        meter::count(Metric::ServerFailures.at(self.server(id).metric_row));
    }

    /// Counts an answer, whose head came after this time.
    pub(super) fn count_answer(&self, id: ServerId, time_us: u64) {
        meter::count(Metric::ServerAnswers.at(self.server(id).metric_row));
        meter::observe(Metric::FirstByte, self.metric_row, time_us);
    }

    /// Notes the time that an answer took.
    pub(super) fn note_rtt(&self, id: ServerId, sample_us: u64) {
        if self.needs_rtt {
            let now_ms = reactor::now().mono_ms() as u32;
            let (average_us, at_ms) = self.row(id).rtt();
            let sample_us = u32::try_from(sample_us).unwrap_or(u32::MAX);
            let after = rtt::after(average_us, sample_us, elapsed_ms(now_ms, at_ms));
            self.row(id).set_rtt(after, now_ms);
        }
    }

    /// Wakes the fetch that has waited longest.
    pub(super) fn call_next(&self) {
        let next = self.pending.borrow_mut().pop();
        self.call(next);
    }

    /// Wakes a fetch that was taken from the line.
    pub(super) fn call(&self, called: Option<Rc<Event>>) {
        if let Some(called) = called {
            self.n_called.update(|n| n + 1);
            called.notify();
        }
    }
}

/// The time since another worker wrote, whose clock may be ahead of the time of this turn.
fn elapsed_ms(now_ms: u32, at_ms: u32) -> u64 {
    u64::from(now_ms.wrapping_sub(at_ms).cast_signed().max(0).cast_unsigned())
}

impl ServerView for Upstream {
    fn n_servers(&self) -> usize {
        self.servers.len()
    }

    fn seen(&self, id: ServerId, now_ms: u64) -> Seen {
        let row = self.row(id);
        let weight = class::share(row.weight(), row.up_since_ms(), now_ms, self.slow_ms);
        Seen {
            setting: row.setting(),
            weight,
            skipped_until_ms: row.skipped_until_ms(),
            is_backup: self.server(id).is_backup,
        }
    }

    fn n_active(&self, id: ServerId) -> u32 {
        self.row(id).n_active()
    }

    fn n_idle(&self, id: ServerId) -> usize {
        self.server(id).pool.borrow().n_idle()
    }

    fn rtt_us(&self, id: ServerId, now_ms: u64) -> u64 {
        let (average_us, at_ms) = self.row(id).rtt();
        rtt::expected_us(average_us, elapsed_ms(now_ms as u32, at_ms))
    }

    fn seed(&self, id: ServerId) -> u64 {
        self.server(id).seed
    }
}

// Outages of an upstream: the error log says once that one begins and once that it ends,
// whichever workers see it.
impl Upstream {
    /// Whether all servers are skipped now.
    pub(crate) fn is_down(&self) -> bool {
        let now_ms = reactor::now().mono_ms();
        self.servers.iter().all(|it| self.row(it.server.id).skipped_until_ms() > now_ms)
    }

    /// Notes that the upstream is down, so that stored objects are served stale, and logs it once.
    pub(crate) fn begin_outage(&self) {
        if self.table.begin_outage(self.id, reactor::now().mono_ms()) {
            let name = &self.name;
            ::log::warn!("upstream {name} is down; serving its stored responses stale");
        }
    }

    /// Logs a change by a command. One worker does so for all.
    pub(super) fn log_command(&self, server: &ServerPool) {
        let row = self.row(server.server.id);
        let current = (row.setting(), row.weight());
        if self.worker == 0 && server.logged.replace(current) != current {
            let (name, address, state) = (&self.name, &server.address, row.state().word());
            let reason = ServerReason::Command.sentence();
            ::log::warn!("server {name}/{address} is {state}, weight {}: {reason}", current.1);
        }
    }

    /// All servers had failed, and one of them answers: the cause was a common one, so the others are
    /// used too.
    pub(super) fn pardon(&self) {
        for server in &self.servers {
            if self.row(server.server.id).pardon(reactor::now()) {
                self.log_up(server.server.id, ServerReason::OtherAnswered);
            }
        }
    }

    /// Logs that a server is skipped from now on.
    pub(super) fn log_down(&self, id: ServerId, reason: ServerReason) {
        let (name, address) = (&self.name, &self.server(id).address);
        ::log::warn!("server {name}/{address} is down: {}", reason.sentence());
    }

    /// Logs that a server is used again.
    pub(super) fn log_up(&self, id: ServerId, reason: ServerReason) {
        let (name, address) = (&self.name, &self.server(id).address);
        ::log::warn!("server {name}/{address} is up: {}", reason.sentence());
    }

    /// Notes that a server answers, and logs the end of an outage. Costs one load if there is none.
    pub(super) fn end_outage(&self) {
        if let Some(since_ms) = self.table.end_outage(self.id) {
            let lasted_s = reactor::now().mono_ms().saturating_sub(since_ms) / 1_000;
            ::log::warn!("upstream {} is up again after {lasted_s} s", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::origin::tests::sample;
    use crate::reactor::clock::run_by_test_clock;
    use crate::reactor::timer;
    use crate::upstream::ids::ServerId;

    #[test]
    fn another_workers_clock_may_be_ahead() {
        assert_eq!((elapsed_ms(6, 5), elapsed_ms(5, 6), elapsed_ms(2, u32::MAX)), (1, 0, 3));
    }

    #[test]
    fn an_upstream_is_down_when_all_its_servers_are_skipped() {
        run_by_test_clock(async {
            let now = reactor::now();
            let pools = sample::pools_to([0, 1].map(sample::name), |_| {});
            let upstream = pools.known();
            let pause = |first_ms| Pause { first_ms, doubled_max: 0 };
            upstream.row(ServerId(0)).failed(now, pause(7), ServerReason::Connect);
            assert!(!upstream.is_down());
            upstream.row(ServerId(1)).failed(now, pause(8), ServerReason::Connect);
            assert!(upstream.is_down());
            timer::sleep(Duration::from_millis(7)).await;
            assert!(!upstream.is_down());
            upstream.row(ServerId(0)).admit(reactor::now(), 5).unwrap();
            assert!(upstream.is_down(), "the attempt is another fetch's");
        });
    }
}
