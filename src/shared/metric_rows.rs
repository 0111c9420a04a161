//! The rows of metrics for names of the configuration: which site, upstream or server has which.
//!
//! The master gives rows to the names of each configuration before it forks its children. A name keeps
//! its row from one configuration to the next, and with it what was counted. A row that no living
//! process uses goes to another name when there is no free one; its counts then go to the row of all
//! others, as do those of names for which there is no row. Which rows the processes of another master
//! use is not known here: while there are such, each row stays with its name.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::metrics::label::{OTHER, Rows};
use crate::shared::metrics::{MetricTable, NAME_BYTES, Page};
use crate::upstream::ids::{Server, UpstreamId};

/// The rows of one configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RowMap {
    /// By [`crate::route::Rule::site`].
    sites: Vec<u16>,
    /// In the order of the configuration; the last one is the forward proxy's.
    upstreams: Vec<u16>,
    /// For each upstream the rows of its servers.
    servers: Vec<Vec<u16>>,
}

/// The names of a configuration that are counted apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct RowNames {
    pub(crate) sites: Vec<String>,
    pub(crate) upstreams: Vec<(String, Vec<String>)>,
}

/// The name of the destinations of a forward proxy, as in the access log.
const FORWARD: &str = "forward";

impl RowMap {
    pub(crate) fn site(&self, number: usize) -> usize {
        self.sites.get(number).copied().unwrap_or_default().into()
    }

    /// The row of an upstream of the configuration, or of all destinations of the forward proxy.
    pub(crate) fn upstream(&self, id: Option<UpstreamId>) -> usize {
        let row = match id {
            Some(UpstreamId(n)) => self.upstreams.get(n),
            None => self.upstreams.last(),
        };
        row.copied().unwrap_or_default().into()
    }

    pub(crate) fn server(&self, server: Server) -> usize {
        let servers = self.servers.get(server.upstream.0);
        servers.and_then(|it| it.get(server.id.0)).copied().unwrap_or_default().into()
    }

    /// All rows of a kind.
    fn of(&self, rows: Rows) -> Vec<u16> {
        match rows {
            Rows::Sites => self.sites.clone(),
            Rows::Upstreams => self.upstreams.clone(),
            Rows::Servers => self.servers.concat(),
        }
    }
}

impl MetricTable {
    /// Gives rows to the names of a configuration. `others` are the maps of configurations with living
    /// processes of this `master`, and `page` is its own. `is_alive` says whether there is a process.
    pub(crate) fn assign(
        &self,
        names: &RowNames,
        others: &[&RowMap],
        (master, page): (u32, &Page),
        is_alive: impl Fn(u32) -> bool,
    ) -> RowMap {
        let page = (!self.has_strangers(master, is_alive)).then_some(page);
        let upstreams = names.upstreams.iter().map(|(name, _)| name.clone());
        let upstreams: Vec<_> = upstreams.chain([FORWARD.to_owned()]).collect();
        let joined = |(upstream, servers): &(String, Vec<String>)| {
            servers.iter().map(|server| format!("{upstream}\t{server}")).collect::<Vec<_>>()
        };
        let servers: Vec<_> = names.upstreams.iter().map(joined).collect();
        let all = servers.concat();
        let mut rows = self.assign_kind(Rows::Servers, &all, others, page).into_iter();
        RowMap {
            sites: self.assign_kind(Rows::Sites, &names.sites, others, page),
            upstreams: self.assign_kind(Rows::Upstreams, &upstreams, others, page),
            servers: servers.iter().map(|it| rows.by_ref().take(it.len()).collect()).collect(),
        }
    }

    /// Without a `page`, no row goes to another name.
    fn assign_kind(
        &self,
        kind: Rows,
        names: &[String],
        others: &[&RowMap],
        page: Option<&Page>,
    ) -> Vec<u16> {
        let names: Vec<_> = names.iter().map(|name| cut(name)).collect();
        let mut known = self.row_names(kind);
        let mut used: HashSet<usize> =
            others.iter().flat_map(|map| map.of(kind)).map(usize::from).collect();
        used.extend(known.iter().filter(|(_, name)| names.contains(&name.as_str())).map(|it| it.0));
        let mut next = 1;
        let mut row_of = |name: &str| {
            if name == OTHER {
                return 0;
            }
            if let Some((row, _)) = known.iter().find(|(_, it)| it == name) {
                return *row as u16;
            }
            let is_named = |row: usize| known.iter().any(|(it, _)| *it == row);
            let free = (1..kind.size()).find(|row| !is_named(*row) && !used.contains(row));
            let row = match (free, page) {
                (Some(row), _) => row,
                (None, None) => return 0,
                (None, Some(page)) => {
                    let unused = (next..kind.size()).find(|row| !used.contains(row));
                    let Some(row) = unused else { return 0 };
                    next = row + 1;
                    self.fold(kind, row, page);
                    known.retain(|(it, _)| *it != row);
                    row
                }
            };
            used.insert(row);
            self.set_name(kind, row, name);
            known.push((row, name.to_owned()));
            row as u16
        };
        names.iter().map(|name| row_of(name)).collect()
    }

    /// The rows of a kind that have a name.
    pub(crate) fn row_names(&self, kind: Rows) -> Vec<(usize, String)> {
        (1..kind.size()).filter_map(|row| Some((row, self.name(kind, row)?))).collect()
    }

    fn name(&self, kind: Rows, row: usize) -> Option<String> {
        let (len, bytes) = self.name_of(kind, row)?;
        let n = len.load(Ordering::Acquire);
        let bytes = bytes.iter().take(n.into()).map(|byte| byte.load(Ordering::Relaxed));
        let name = String::from_utf8(bytes.collect()).ok()?;
        // The master may have changed it meanwhile.
        (n > 0 && len.load(Ordering::Acquire) == n).then_some(name)
    }

    fn set_name(&self, kind: Rows, row: usize, name: &str) {
        let Some((len, bytes)) = self.name_of(kind, row) else { return };
        len.store(0, Ordering::Release);
        for (byte, value) in bytes.iter().zip(name.bytes()) {
            byte.store(value, Ordering::Relaxed);
        }
        len.store(name.len() as u8, Ordering::Release);
    }

    fn name_of(&self, kind: Rows, row: usize) -> Option<(&AtomicU8, &[AtomicU8])> {
        let before: usize =
            Rows::ALL.iter().take_while(|it| **it != kind).map(|rows| rows.size()).sum();
        self.names.chunks_exact(NAME_BYTES).nth(before + row)?.split_first()
    }
}

/// A name of a row has this length at most. Longer ones that begin alike share a row.
fn cut(name: &str) -> &str {
    let end = (0..=name.len().min(NAME_BYTES - 1)).rev().find(|at| name.is_char_boundary(*at));
    &name[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::label;
    use crate::metrics::table::Metric;
    use crate::upstream::ids::ServerId;

    fn names(sites: impl IntoIterator<Item = usize>) -> RowNames {
        let sites = sites.into_iter().map(|n| format!("site{n}")).collect();
        let servers = vec!["x:1".to_owned(), "y:1".to_owned()];
        let upstreams = vec![("a".to_owned(), servers.clone()), ("b".to_owned(), servers)];
        RowNames { sites, upstreams }
    }

    #[test]
    fn a_name_keeps_its_row_and_its_counts() {
        let table = MetricTable::create(7).unwrap();
        let page = table.claim(1, |_| true).unwrap();
        let first = table.assign(&names([1, 2]), &[], (1, &page), |_| true);
        let second = table.assign(&names([2, 3]), &[&first], (1, &page), |_| true);
        assert_eq!(first.site(1), second.site(0));
        assert_ne!(first.site(0), second.site(1));
        assert_eq!(first.upstream(None), second.upstream(None));
        let server = |n, id| Server { upstream: UpstreamId(n), id: ServerId(id) };
        let rows: HashSet<_> =
            [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(n, id)| first.server(server(n, id))).into();
        assert_eq!((rows.len(), rows.contains(&0)), (4, false));
        assert_eq!((first.server(server(7, 0)), first.site(99)), (0, 0));
        assert_eq!(table.row_names(Rows::Upstreams).len(), 3);
        let named = table.row_names(Rows::Servers);
        assert!(named.contains(&(first.server(server(1, 1)), "b\ty:1".to_owned())), "{named:?}");
    }

    #[test]
    fn rows_are_used_again_and_their_counts_go_to_the_others() {
        let table = MetricTable::create(7).unwrap();
        let page = table.claim(1, |_| true).unwrap();
        let worker = table.claim(1, |_| true).unwrap();
        let n_max = Rows::Sites.size() - 1;
        let first = table.assign(&names(0..n_max), &[], (1, &page), |_| true);
        let cell = |row| Metric::SiteRequests.at_both(row, label::status(200));
        (0..n_max).for_each(|n| worker.add(cell(first.site(n)), 1));
        let sum = |row: usize| table.totals()[cell(row).0];
        // While its processes live, its rows are theirs.
        let more = table.assign(&names([5, 900]), &[&first], (1, &page), |_| true);
        assert_eq!((more.site(0), more.site(1)), (first.site(5), 0));
        let third = table.assign(&names([5, 900]), &[&more], (1, &page), |_| true);
        assert_eq!(third.site(0), first.site(5));
        assert_ne!(third.site(1), 0);
        assert_eq!((sum(third.site(0)), sum(third.site(1)), sum(0)), (1, 0, 1));
        let too_many = table.assign(&names(1_000..1_400), &[], (1, &page), |_| true);
        assert_eq!((0..400).filter(|n| too_many.site(*n) == 0).count(), 400 - n_max);
        assert_eq!(sum(0), n_max as u64);
    }

    #[test]
    fn no_row_goes_to_another_name_while_processes_of_another_master_live() {
        let table = MetricTable::create(7).unwrap();
        let old = table.claim(1, |_| true).unwrap();
        let n_max = Rows::Sites.size() - 1;
        table.assign(&names(0..n_max), &[], (1, &old), |_| true);
        let new = table.claim(2, |_| true).unwrap();
        let cell = Metric::SiteRequests.at_both(n_max, label::status(200));
        old.add(cell, 1);
        let during = table.assign(&names([3, 900]), &[], (2, &new), |_| true);
        assert_eq!((during.site(0), during.site(1)), (4, 0));
        assert_eq!(table.totals()[cell.0], 1);
        let after = table.assign(&names([3, 900]), &[&during], (2, &new), |pid| pid == 2);
        assert_eq!(after.site(0), 4);
        assert_ne!(after.site(1), 0);
        old.release();
        let released = table.assign(&names([3, 901]), &[&after], (2, &new), |_| true);
        assert_ne!(released.site(1), 0);
    }

    #[test]
    fn long_and_reserved_names_have_a_row_too() {
        let table = MetricTable::create(7).unwrap();
        let page = table.claim(1, |_| true).unwrap();
        let sites = vec!["é".repeat(200), OTHER.to_owned()];
        let map =
            table.assign(&RowNames { sites, upstreams: Vec::new() }, &[], (1, &page), |_| true);
        assert_eq!(map.site(1), 0);
        assert_eq!(table.row_names(Rows::Sites), [(map.site(0), "é".repeat(127))]);
    }
}
