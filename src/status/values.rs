//! The values of all metrics of a running ktrix.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use crate::metrics::label::Rows;
use crate::metrics::table::Metric;
use crate::metrics::text::{Reading, Values};
use crate::status::view::View;
use crate::upstream::state::State;

/// The values at this moment.
pub(crate) fn values(view: &View<'_>) -> Values {
    let cells = view.metrics.totals();
    let rows = Rows::ALL.map(|rows| view.metrics.row_names(rows));
    let mut values = Values { cells, rows, readings: Vec::new() };
    let mut read = |metric, labels: &[&str], value: f64| {
        let labels = labels.iter().map(|it| (*it).to_owned()).collect();
        values.readings.push(Reading { metric, labels, value });
    };
    read_workers(view, &mut read);
    read_upstreams(view, &mut read);
    let mut files: Vec<_> =
        view.certificates().map(|(_, file, expires_s)| (file, expires_s)).collect();
    files.sort_unstable();
    // Several keys may name one file.
    files.dedup_by_key(|(file, _)| *file);
    for (file, expires_s) in files {
        read(Metric::Certificates, &[file], expires_s as f64);
    }
    if let Some(cache) = &view.cache {
        for (metric, value) in [
            (Metric::CacheObjects, cache.objects),
            (Metric::CacheObjectsMax, cache.objects_max),
            (Metric::CacheSlots, cache.slots),
            (Metric::CacheBytes, cache.bytes),
            (Metric::CacheBytesMax, cache.bytes_max),
        ] {
            read(metric, &[], value as f64);
        }
    }
    read(Metric::Generation, &[], view.table.phase().0 as f64);
    read(Metric::Started, &[], view.metrics.begun_s() as f64);
    read(Metric::Info, &[env!("CARGO_PKG_VERSION")], 1.0);
    values
}

fn read_workers(view: &View<'_>, read: &mut impl FnMut(Metric, &[&str], f64)) {
    let workers = 0..view.table.n_workers();
    let is_up = |number: &usize| view.table.pid(*number).load(Ordering::Relaxed) != 0;
    let n_up = workers.clone().filter(is_up).count();
    read(Metric::Workers, &["up"], n_up as f64);
    read(Metric::Workers, &["down"], (workers.len() - n_up) as f64);
    let n_tunnels = |number| f64::from(view.table.n_tunnels(number).load(Ordering::Relaxed));
    read(Metric::Tunnels, &[], workers.map(n_tunnels).sum());
}

fn read_upstreams(view: &View<'_>, read: &mut impl FnMut(Metric, &[&str], f64)) {
    let table = view.table;
    let sum = |of: &dyn Fn(usize) -> u32| (0..table.n_workers()).map(|it| f64::from(of(it))).sum();
    for (id, name) in table.upstreams().zip(view.named("upstream")) {
        let pending = |worker| table.n_pending(worker, id).load(Ordering::Relaxed);
        read(Metric::Pending, &[name], sum(&pending));
    }
    // A server may be listed twice.
    let mut seen = HashSet::new();
    for (named, server) in view.servers() {
        if !seen.insert((named.upstream, named.address)) {
            continue;
        }
        let (row, names) = (table.row(server), [named.upstream, named.address]);
        let state = row.state();
        for it in State::ALL {
            let is_it = f64::from(u8::from(it == state));
            read(Metric::ServerState, &[names[0], names[1], it.word()], is_it);
        }
        let active = |worker| table.n_active(worker, server).load(Ordering::Relaxed);
        let idle = |worker| table.n_idle(worker, server).load(Ordering::Relaxed);
        read(Metric::ServerConnections, &[names[0], names[1], "active"], sum(&active));
        read(Metric::ServerConnections, &[names[0], names[1], "idle"], sum(&idle));
        read(Metric::ServerDowns, &names, f64::from(row.last_change().n_downs));
    }
}
