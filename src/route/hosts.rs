//! The site that claims a host: the exact name wins over the longest `*.name`, which wins over the site
//! for any host.

use std::collections::HashMap;

use crate::config::{HostPattern, SiteConfig};

/// The sites of a configuration by their hosts.
#[derive(Debug)]
pub(crate) struct Hosts {
    /// Sites by lower-case host.
    exact: Table,
    /// Sites by the part after the star, with its dot: `.example.org`.
    below: Table,
    /// Bytes of the longest host in `below`.
    below_bytes_max: usize,
    any: Option<usize>,
}

type Table = HashMap<Box<[u8]>, usize, foldhash::fast::RandomState>;

/// A DNS name is no longer, and no site has a longer one.
const HOST_BYTES_MAX: usize = 255;

impl Hosts {
    /// Of two sites that claim a host, the first has it.
    pub(crate) fn of(sites: &[SiteConfig]) -> Self {
        let (exact, below) = (Table::default(), Table::default());
        let mut hosts = Self { exact, below, below_bytes_max: 0, any: None };
        for (at, site) in sites.iter().enumerate() {
            if site.hosts.is_empty() {
                hosts.any.get_or_insert(at);
            }
            for host in &site.hosts {
                hosts.claim(host, at);
            }
        }
        hosts
    }

    fn claim(&mut self, host: &HostPattern, site: usize) {
        match host {
            HostPattern::Exact(name) => {
                self.exact.entry(lower_case(name)).or_insert(site);
            }
            HostPattern::Below(suffix) => {
                self.below_bytes_max = self.below_bytes_max.max(suffix.len());
                self.below.entry(lower_case(suffix)).or_insert(site);
            }
            HostPattern::Any => {
                self.any.get_or_insert(site);
            }
        }
    }

    /// The number of the site for a host without its port, in any case.
    pub(crate) fn site(&self, host: &[u8]) -> Option<usize> {
        self.claimant(host).or(self.any)
    }

    /// The site that claims a host by its name.
    fn claimant(&self, host: &[u8]) -> Option<usize> {
        let host = host.strip_suffix(b".").unwrap_or(host);
        let mut buf = [0; HOST_BYTES_MAX];
        let lower = buf.get_mut(..host.len())?;
        lower.copy_from_slice(host);
        lower.make_ascii_lowercase();
        let lower = &*lower;
        if let Some(site) = self.exact.get(lower) {
            return Some(*site);
        }
        let from = lower.len().saturating_sub(self.below_bytes_max);
        if self.below.is_empty() || lower.first().is_some_and(|first| *first == b'[') {
            return None;
        }
        // A star matches at least one byte, hence not from 0; from the left, the longest first.
        let dots = (from.max(1)..lower.len()).filter(|at| lower[*at] == b'.');
        dots.map(|at| &lower[at..]).find_map(|suffix| self.below.get(suffix)).copied()
    }
}

fn lower_case(host: &str) -> Box<[u8]> {
    host.to_ascii_lowercase().into_bytes().into()
}
