//! The rows of each table: cells as text, and the numbers that they are sorted by.

use std::collections::HashMap;

use crate::base::units::format_size;
use crate::cli::line::time_text;
use crate::cli::name::printable;
use crate::cli::top::screen::Panel;
use crate::cli::top::sketch::{Counts, Sketch};
use crate::cli::top::snapshot::Snapshot;
use crate::cli::top::stats::{Stats, share};

/// A row of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// A number of each column, with its text.
    pub(super) cells: Vec<(f64, String)>,
    pub(super) name: String,
}

/// The rows of a panel, by the order that was chosen: the highest first, or by name.
pub(super) fn rows(panel: Panel, order: usize, stats: &Stats, snapshot: &Snapshot) -> Vec<Row> {
    let mut rows = match panel {
        Panel::Hosts => names(&stats.hosts, stats),
        Panel::Paths => names(&stats.paths, stats),
        Panel::Servers => servers(stats, snapshot),
        Panel::Workers => processes(snapshot),
    };
    let key = |row: &Row| row.cells.get(order).map_or(0.0, |(number, _)| *number);
    let second = |row: &Row| row.cells.get(panel.second_order()).map_or(0.0, |(number, _)| *number);
    let by_name = order >= panel.columns().len();
    rows.sort_by(|a, b| {
        let by_number = key(b).total_cmp(&key(a)).then_with(|| second(b).total_cmp(&second(a)));
        if by_name { a.name.cmp(&b.name) } else { by_number.then_with(|| a.name.cmp(&b.name)) }
    });
    rows
}

fn names(sketch: &Sketch, stats: &Stats) -> Vec<Row> {
    let all = stats.read.rate();
    let row = |(name, counts): &(Vec<u8>, Counts)| {
        let rate = stats.read.rate_of(counts.requests);
        let cells = vec![
            per_second(rate),
            percent(share(rate, all)),
            ratio(counts.hit_ratio()),
            per_second(stats.read.rate_of(counts.failures)),
            bytes(stats.read.rate_of(counts.bytes)),
            time(counts.mean_us()),
        ];
        // A request may have no host.
        Row { cells, name: if name.is_empty() { "-".to_owned() } else { printable(name) } }
    };
    sketch.rows().iter().map(row).collect()
}

/// The configured servers, and others that were asked: those of a forward proxy.
fn servers(stats: &Stats, snapshot: &Snapshot) -> Vec<Row> {
    let mut asked: HashMap<&[u8], &Counts> =
        stats.servers.rows().iter().map(|(name, counts)| (&name[..], counts)).collect();
    let none = Counts::default();
    let row = |name: &[u8], counts: &Counts, active: u32, idle: u32, state: &str| {
        let is_asked = counts.requests > 0.0;
        let cells = vec![
            per_second(stats.read.rate_of(counts.requests)),
            per_second(stats.read.rate_of(counts.failures)),
            bytes(stats.read.rate_of(counts.bytes)),
            if is_asked { time(counts.mean_us()) } else { (0.0, "-".to_owned()) },
            (f64::from(active), active.to_string()),
            (f64::from(idle), idle.to_string()),
            // Those that are not up come first.
            (f64::from(u8::from(state != "up")), state.to_owned()),
        ];
        Row { cells, name: printable(name) }
    };
    let mut rows = Vec::new();
    for server in &snapshot.servers {
        let counts = asked.remove(server.name.as_bytes()).unwrap_or(&none);
        let (active, idle) = (server.n_active, server.n_idle);
        rows.push(row(server.name.as_bytes(), counts, active, idle, server.state));
    }
    rows.extend(asked.iter().map(|(name, counts)| row(name, counts, 0, 0, "-")));
    rows
}

fn processes(snapshot: &Snapshot) -> Vec<Row> {
    let row = |process: &crate::cli::top::snapshot::ProcessRow| {
        let is_down = process.pid == 0;
        let dash = |cell: (f64, String)| if is_down { (0.0, "-".to_owned()) } else { cell };
        let cells = vec![
            dash(percent(process.load.cpu_share)),
            dash(bytes(process.load.memory_bytes as f64)),
            dash(per_second(process.load.requests)),
            (process.n_connections as f64, process.n_connections.to_string()),
            process.n_tunnels.map_or((0.0, "-".to_owned()), |n| (f64::from(n), n.to_string())),
            (
                f64::from(process.pid),
                if is_down { "down".to_owned() } else { process.pid.to_string() },
            ),
        ];
        Row { cells, name: process.name.clone() }
    };
    snapshot.processes.iter().map(row).collect()
}

/// A rate.
pub(super) fn per_second(rate: f64) -> (f64, String) {
    let text = match rate {
        ..0.05 => "0".to_owned(),
        ..100.0 => format!("{rate:.1}"),
        _ => format!("{rate:.0}"),
    };
    (rate, text)
}

/// A hit ratio, if there is one.
pub(super) fn ratio(ratio: Option<f64>) -> (f64, String) {
    ratio.map_or((0.0, "-".to_owned()), percent)
}

/// A share of one.
pub(super) fn percent(share: f64) -> (f64, String) {
    let text = match share {
        0.0 => "0 %".to_owned(),
        // A small share must not look like none.
        ..0.001 => "<0.1 %".to_owned(),
        ..0.1 => format!("{:.1} %", share * 100.0),
        // A large share must not look like all.
        0.99..0.999_999 => format!("{:.1} %", (share * 1_000.0).floor() / 10.0),
        _ => format!("{:.0} %", share * 100.0),
    };
    (share, text)
}

/// Bytes, in the largest unit that leaves a whole.
pub(super) fn bytes(bytes: f64) -> (f64, String) {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut number, mut unit) = (bytes, 0);
    while number >= 1_024.0 && unit + 1 < UNITS.len() {
        number /= 1_024.0;
        unit += 1;
    }
    let text = match unit {
        0 => format!("{number:.0} B"),
        _ if number < 100.0 => format!("{number:.1} {}", UNITS[unit]),
        _ => format!("{number:.0} {}", UNITS[unit]),
    };
    (bytes, text)
}

fn time(us: f64) -> (f64, String) {
    (us, time_text(us as u64))
}

/// A size of the configuration, as it is written there.
pub(super) fn size(bytes: u64) -> String {
    format_size(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::cli::top::snapshot::{Counted, ServerRow};
    use crate::log::format::{Record, Times};

    #[test]
    fn the_slowest_server_is_first_and_one_that_is_not_asked_last() {
        let mut stats = Stats::new(Counted::default(), Instant::now());
        let server = |name: &str, state| ServerRow {
            name: format!("app/{name}"),
            state,
            n_active: 0,
            n_idle: 1,
        };
        let servers = vec![server("a", "up"), server("b", "down"), server("c", "up")];
        let snapshot = Snapshot { servers, ..Snapshot::default() };
        for (server, us) in [("a", 1_000), ("c", 9_000)] {
            let times = Times { first_byte_us: Some(us), ..Times::default() };
            stats.add(&Record { upstream: "app", server, times, ..Record::default() }, 1.0);
        }
        let names = |order| -> Vec<String> {
            let rows = rows(Panel::Servers, order, &stats, &snapshot);
            rows.iter().map(|row| row.name.clone()).collect()
        };
        assert_eq!(names(3), ["app/c", "app/a", "app/b"]);
        assert_eq!(names(6), ["app/b", "app/c", "app/a"]);
        assert_eq!(names(7), ["app/a", "app/b", "app/c"]);
        let columns = rows(Panel::Servers, 0, &stats, &snapshot)[0].cells.len();
        assert_eq!(columns, Panel::Servers.columns().len());
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, 0.3, 12.34, 1_234.5].map(|it| per_second(it).1),
            ["0", "0.3", "12.3", "1234"]
        );
        assert_eq!(
            [0.0, 0.0001, 0.004, 0.5, 0.9999, 1.0 - 1e-12].map(|it| percent(it).1),
            ["0 %", "<0.1 %", "0.4 %", "50 %", "99.9 %", "100 %"]
        );
        let sizes = [0.0, 1_023.0, 1_536.0, 300.0 * 1_048_576.0].map(|it| bytes(it).1);
        assert_eq!(sizes, ["0 B", "1023 B", "1.5 KiB", "300 MiB"]);
    }
}
