//! The status of a running ktrix: as text, and as JSON.

use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::base::units::format_size;
use crate::cache::level::CacheLevel;
use crate::http::date;
use crate::metrics::label::Rows;
use crate::metrics::table::Metric;
use crate::metrics::text::Values;
use crate::shared::metrics::PageView;
use crate::status::counts::{Counts, Quantiles, size};
use crate::status::view::{Named, View};
use crate::upstream::check;
use crate::upstream::ids::{Server, UpstreamId};
use crate::upstream::state::PoolState;

#[derive(Serialize)]
pub(crate) struct Status<'r> {
    pub(super) version: &'static str,
    pub(super) pid: u32,
    pub(super) generation: u64,
    /// When the counters began, Unix time.
    pub(super) since_s: u64,
    pub(super) counts: Counts,
    pub(super) workers: Vec<WorkerStatus>,
    pub(super) listeners: Vec<&'r str>,
    pub(super) certificates: Vec<CertificateStatus<'r>>,
    pub(super) upstreams: Vec<UpstreamStatus<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cache: Option<CacheStatus>,
}

#[derive(Serialize)]
pub(super) struct WorkerStatus {
    pub(super) number: usize,
    /// 0 while it is being replaced.
    pub(super) pid: u32,
    /// Open tunnels.
    pub(super) tunnels: u32,
    /// Open connections of clients.
    pub(super) connections: u64,
    /// Requests that this process has answered, and those that were before it in its page of counters.
    pub(super) requests: u64,
    pub(super) resident_bytes: u64,
}

#[derive(Serialize)]
pub(super) struct CertificateStatus<'r> {
    /// Its key in the configuration.
    pub(super) key: &'r str,
    pub(super) file: &'r str,
    /// Unix time.
    pub(super) expires_s: u64,
    /// Whole days that are left; negative when it has expired.
    pub(super) days: i64,
}

#[derive(Serialize)]
pub(super) struct UpstreamStatus<'r> {
    pub(super) name: &'r str,
    /// Requests that wait for a connection.
    pub(super) pending: u32,
    /// Times to the head of an answer, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first_byte_s: Option<Quantiles>,
    pub(super) servers: Vec<ServerStatus<'r>>,
}

#[derive(Serialize)]
pub(super) struct ServerStatus<'r> {
    pub(super) address: &'r str,
    pub(super) state: &'static str,
    pub(super) weight: u32,
    /// Connections with a request.
    pub(super) active: u32,
    pub(super) idle: u32,
    /// How often it was skipped.
    pub(super) downs: u32,
    /// When its state changed last, Unix time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) changed_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    #[serde(skip)]
    pub(super) sentence: &'static str,
    /// The result of its last check, when that was, and how many in a row were the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) check: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) checked_s: Option<u64>,
    pub(super) checks: u32,
    pub(super) pools: Vec<PoolStatus>,
}

/// The connections of one worker to a server.
#[derive(Serialize)]
pub(super) struct PoolStatus {
    pub(super) worker: usize,
    pub(super) state: &'static str,
    pub(super) active: u32,
    pub(super) idle: u32,
}

#[derive(Serialize)]
pub(super) struct CacheStatus {
    pub(super) path: String,
    pub(super) objects: u64,
    pub(super) objects_max: u64,
    pub(super) disk_bytes: u64,
    pub(super) disk_bytes_max: u64,
}

impl<'r> Status<'r> {
    pub(crate) fn of(running: &'r View<'r>, values: &Values) -> Self {
        let table = running.table;
        let workers = 0..table.n_workers();
        let pid = |number| table.pid(number).load(Ordering::Relaxed);
        let views: Vec<_> = running.metrics.views().collect();
        let page_of = |pid: u32| {
            let is_it =
                |page: &&PageView| matches!(page.process, Some((it, _)) if it == pid && pid > 0);
            views
                .iter()
                .find(is_it)
                .map(|page| Values { cells: page.cells.clone(), ..Values::default() })
        };
        let tunnels = |number| table.n_tunnels(number).load(Ordering::Relaxed);
        let pending = |upstream| {
            let of = |worker| table.n_pending(worker, upstream).load(Ordering::Relaxed);
            workers.clone().map(of).sum()
        };
        // They are in the order of their upstreams, of which there may be thousands.
        let mut all_servers = running.servers().peekable();
        let mut servers = |upstream: UpstreamId| {
            let next = || all_servers.next_if(|(_, server)| server.upstream == upstream);
            let of_it = std::iter::from_fn(next);
            of_it.map(|(named, server)| ServerStatus::of(running, &named, server)).collect()
        };
        let rows = running.metrics.row_names(Rows::Upstreams);
        let first_byte = |name: &str| {
            let (row, _) = rows.iter().find(|(_, it)| it == name)?;
            Quantiles::of(values.buckets(Metric::FirstByte, *row))
        };
        let upstreams = table.upstreams().zip(running.named("upstream"));
        let upstream = |(id, name)| UpstreamStatus {
            name,
            pending: pending(id),
            first_byte_s: first_byte(name),
            servers: servers(id),
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            pid: running.pid,
            generation: table.phase().0,
            since_s: running.metrics.begun_s(),
            counts: Counts::of(values),
            workers: workers
                .clone()
                .map(|number| {
                    let values = page_of(pid(number));
                    let value = |metric| values.as_ref().map_or(0, |it| it.sum(metric));
                    WorkerStatus {
                        number,
                        pid: pid(number),
                        tunnels: tunnels(number),
                        connections: value(Metric::Connections),
                        requests: value(Metric::Requests),
                        resident_bytes: value(Metric::Memory),
                    }
                })
                .collect(),
            listeners: running.named("listen").collect(),
            certificates: CertificateStatus::all(running),
            upstreams: upstreams.map(upstream).collect(),
            cache: running.cache.as_ref().map(CacheStatus::of),
        }
    }

    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { version, pid, generation, .. } = self;
        writeln!(out, "ktrix {version}, pid {pid}, generation {generation}")?;
        self.counts.write(out)?;
        self.workers.iter().try_for_each(|worker| worker.write(out))?;
        for address in &self.listeners {
            writeln!(out, "listen {address}")?;
        }
        self.certificates.iter().try_for_each(|certificate| certificate.write(out))?;
        if let Some(cache) = &self.cache {
            let CacheStatus { path, objects, objects_max, .. } = cache;
            let (used, most) = (format_size(cache.disk_bytes), format_size(cache.disk_bytes_max));
            writeln!(out, "cache {path}: {objects} of {objects_max} objects, {used} of {most}")?;
        }
        for UpstreamStatus { name, pending, servers, .. } in &self.upstreams {
            writeln!(out, "upstream {name}: {pending} waiting")?;
            servers.iter().try_for_each(|server| server.write(out))?;
        }
        Ok(())
    }
}

impl WorkerStatus {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { number, pid, tunnels, connections, .. } = self;
        match pid {
            0 => writeln!(out, "worker {number}: down"),
            pid => writeln!(
                out,
                "worker {number}: pid {pid}, {connections} connections, {tunnels} tunnels, {} of memory",
                size(self.resident_bytes)
            ),
        }
    }
}

impl<'r> CertificateStatus<'r> {
    fn all(running: &'r View<'r>) -> Vec<Self> {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
        let of = |(key, file, expires_s): (&'r str, &'r str, u64)| {
            let days =
                expires_s.cast_signed().saturating_sub(now_s.cast_signed()).div_euclid(DAY_S);
            Self { key, file, expires_s, days }
        };
        running.certificates().map(of).collect()
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { key, file, expires_s, days } = self;
        let at = date::format(*expires_s);
        let at = String::from_utf8_lossy(&at);
        match days {
            ..=-1 => writeln!(out, "certificate {file} ({key}): expired on {at}")?,
            1 => writeln!(out, "certificate {file} ({key}): expires in 1 day, on {at}")?,
            days => writeln!(out, "certificate {file} ({key}): expires in {days} days, on {at}")?,
        }
        Ok(())
    }
}

const DAY_S: i64 = 86_400;

impl<'r> ServerStatus<'r> {
    fn of(running: &View<'_>, named: &Named<'r>, server: Server) -> Self {
        let (table, row) = (running.table, running.table.row(server));
        let change = row.last_change();
        let pool = |worker| {
            let [active, idle, failed] = [
                table.n_active(worker, server),
                table.n_idle(worker, server),
                table.n_failed(worker, server),
            ]
            .map(|count| count.load(Ordering::Relaxed));
            let state = PoolState::of(row.state(), active, idle, failed).word();
            PoolStatus { worker, state, active, idle }
        };
        let pools: Vec<_> = (0..table.n_workers()).map(pool).collect();
        Self {
            address: named.address,
            state: row.state().word(),
            weight: row.weight(),
            active: pools.iter().map(|pool| pool.active).sum(),
            idle: pools.iter().map(|pool| pool.idle).sum(),
            downs: change.n_downs,
            changed_s: (change.at_s > 0).then_some(change.at_s),
            reason: (change.at_s > 0).then_some(change.reason.word()),
            sentence: change.reason.sentence(),
            check: check::word_of(row.check.load(Ordering::Relaxed)),
            checked_s: Some(row.checked_s.load(Ordering::Relaxed)).filter(|at_s| *at_s > 0),
            checks: row.n_checks.load(Ordering::Relaxed),
            pools,
        }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { address, state, weight, active, idle, .. } = self;
        write!(out, "  {address}: {state}, weight {weight}, {active} active, {idle} idle")?;
        if let Some(at_s) = self.changed_s {
            let at = date::format(at_s);
            write!(out, ", since {}: {}", String::from_utf8_lossy(&at), self.sentence)?;
        }
        if let Some(check) = self.check {
            write!(out, ", last check: {check} ({} in a row)", self.checks)?;
        }
        writeln!(out)?;
        let pools = self.pools.iter().map(|pool| format!("{} {}", pool.worker, pool.state));
        writeln!(out, "    pools by worker: {}", pools.collect::<Vec<_>>().join(", "))?;
        Ok(())
    }
}

impl CacheStatus {
    fn of(cache: &CacheLevel) -> Self {
        Self {
            path: cache.path.display().to_string(),
            objects: cache.objects,
            objects_max: cache.objects_max,
            disk_bytes: cache.bytes,
            disk_bytes_max: cache.bytes_max,
        }
    }
}
