//! A running ktrix at one moment, without its requests: its processes, servers and cache.

use std::path::Path;
use std::sync::atomic::Ordering;

use crate::cache::index::reader::IndexReader;
use crate::cli::table::Running;
use crate::cli::top::processes::{Load, Processes};
use crate::metrics::label::VERDICTS;
use crate::metrics::table::Metric;
use crate::metrics::text::Values;
use crate::shared::metrics::{Counting, MetricTable, PageView};
use crate::status::counts;

/// A running ktrix without its requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) pid: i32,
    pub(super) generation: u64,
    pub(super) counted: Counted,
    pub(super) processes: Vec<ProcessRow>,
    pub(super) servers: Vec<ServerRow>,
    /// Requests that wait for a connection.
    pub(super) n_pending: u64,
    pub(super) cache: Option<Fill>,
}

/// A process.
#[derive(Clone, Debug)]
pub(super) struct ProcessRow {
    pub(super) name: String,
    /// 0 while it is being replaced.
    pub(super) pid: u32,
    pub(super) load: Load,
    pub(super) n_connections: u64,
    /// `None` where they are not known: an old worker counts them in the table of its own configuration.
    pub(super) n_tunnels: Option<u32>,
}

/// The counters of all processes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Counted {
    /// When they began.
    pub(super) since_s: u64,
    pub(super) verdicts: [u64; VERDICTS.len()],
    /// Answers with the status of a server error.
    pub(super) failures: u64,
    pub(super) bytes: u64,
}

/// A configured server.
#[derive(Clone, Debug)]
pub(super) struct ServerRow {
    /// `upstream/address`, as requests have it.
    pub(super) name: String,
    pub(super) state: &'static str,
    pub(super) n_active: u32,
    pub(super) n_idle: u32,
}

/// How full the cache is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fill {
    pub(super) n_objects: u64,
    pub(super) n_objects_max: u64,
    pub(super) bytes: u64,
    pub(super) bytes_max: u64,
}

impl Snapshot {
    pub(super) fn of(running: &Running, processes: &mut Processes) -> Self {
        let view = running.view();
        let table = view.table;
        let workers = || 0..table.n_workers();
        let master = running.pid.as_raw();
        let pages: Vec<_> = view.metrics.views().filter_map(Page::of).collect();
        let mut row = |name: String, pid: u32, n_tunnels| {
            let page = pages.iter().find(|page| page.pid == pid);
            let sum = |metric| page.map_or(0, |page| page.values.sum(metric));
            let n_requests = sum(Metric::Requests);
            ProcessRow {
                name,
                pid,
                load: if pid > 0 { processes.load(pid, n_requests) } else { Load::default() },
                n_connections: sum(Metric::Connections),
                n_tunnels,
            }
        };
        let mut rows = vec![row("master".to_owned(), master.cast_unsigned(), Some(0))];
        rows.extend(workers().map(|number| {
            let pid = table.pid(number).load(Ordering::Relaxed);
            let n_tunnels = table.n_tunnels(number).load(Ordering::Relaxed);
            row(format!("worker {number}"), pid, Some(n_tunnels))
        }));
        // The keeper, and processes of an older configuration or program that still drain.
        for Page { pid, role, .. } in &pages {
            if rows.iter().all(|row| row.pid != *pid) {
                let found = match role {
                    Counting::Master => row("old master".to_owned(), *pid, Some(0)),
                    Counting::Keeper => row(KEEPER.to_owned(), *pid, Some(0)),
                    Counting::Worker(number) => row(format!("old worker {number}"), *pid, None),
                };
                // The page of a process that was killed may still name it.
                rows.extend((found.load.memory_bytes > 0).then_some(found));
            }
        }
        name_old_keepers(&mut rows);
        let servers = view.servers().map(|(named, server)| {
            let sum = |count: &dyn Fn(usize) -> u32| -> u32 { workers().map(count).sum() };
            ServerRow {
                name: named.to_string(),
                state: table.row(server).state().word(),
                n_active: sum(&|worker| table.n_active(worker, server).load(Ordering::Relaxed)),
                n_idle: sum(&|worker| table.n_idle(worker, server).load(Ordering::Relaxed)),
            }
        });
        let pending = table.upstreams().flat_map(|upstream| {
            workers().map(move |worker| table.n_pending(worker, upstream).load(Ordering::Relaxed))
        });
        Self {
            pid: master,
            generation: table.phase().0,
            counted: Counted::of(view.metrics),
            processes: rows,
            servers: servers.collect(),
            n_pending: pending.map(u64::from).sum(),
            cache: view.named("cache").next().and_then(Fill::of),
        }
    }
}

/// The page of a keeper does not tell which configuration it is of; that of the current one started last.
fn name_old_keepers(rows: &mut [ProcessRow]) {
    let keepers = rows.iter().filter(|row| row.name == KEEPER);
    let newest = keepers.map(|row| row.load.started_ticks).max();
    for row in rows {
        if row.name == KEEPER && Some(row.load.started_ticks) != newest {
            row.name = format!("old {KEEPER}");
        }
    }
}

/// The counts of a process.
struct Page {
    pid: u32,
    role: Counting,
    values: Values,
}

impl Page {
    fn of(PageView { process, cells }: PageView) -> Option<Self> {
        let (pid, role) = process?;
        Some(Self { pid, role, values: Values { cells, ..Values::default() } })
    }
}

impl Counted {
    fn of(metrics: &MetricTable) -> Self {
        let values = Values { cells: metrics.totals(), ..Values::default() };
        Self {
            since_s: metrics.begun_s(),
            verdicts: counts::of_verdicts(&values),
            failures: counts::server_errors(&values),
            bytes: counts::sent_bytes(&values),
        }
    }
}

impl Fill {
    /// `None` if the index cannot be read now.
    fn of(path: &str) -> Option<Self> {
        let index = IndexReader::open(Path::new(path)).ok()?;
        Some(Self {
            n_objects: index.objects(),
            n_objects_max: index.n_objects_max(),
            bytes: index.bytes(),
            bytes_max: index.size_bytes(),
        })
    }
}

const KEEPER: &str = "keeper";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_keepers_the_one_that_started_first_is_old() {
        let row = |name: &str, started_ticks| ProcessRow {
            name: name.to_owned(),
            pid: 1,
            load: Load { started_ticks, ..Load::default() },
            n_connections: 0,
            n_tunnels: Some(0),
        };
        let mut rows = [row("worker 0", 9), row(KEEPER, 7), row(KEEPER, 8), row(KEEPER, 3)];
        name_old_keepers(&mut rows);
        let names = rows.map(|row| row.name);
        assert_eq!(names, ["worker 0", "old keeper", "keeper", "old keeper"]);
    }
}
