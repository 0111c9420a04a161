//! When an upstream is down: the error log says so once when it begins and once when it ends,
//! whichever workers see it.

use std::rc::Rc;

use crate::config::UpstreamConfig;
use crate::reactor;
use crate::shared::servers::ServerTable;
use crate::upstream::ids::UpstreamId;

/// Which upstreams are down, as all workers see it.
#[derive(Debug)]
pub struct Outages {
    table: Rc<ServerTable>,
    /// By the number of the upstream.
    names: Vec<String>,
}

impl Outages {
    /// For these upstreams, which `table` is of.
    pub fn new(upstreams: &[UpstreamConfig], table: Rc<ServerTable>) -> Self {
        Self { names: upstreams.iter().map(|upstream| upstream.name.clone()).collect(), table }
    }

    /// Whether all servers of an upstream are skipped now, so that nobody need wait for one.
    pub fn is_down(&self, upstream: UpstreamId) -> bool {
        let now_ms = reactor::now().mono_ms();
        self.table.servers(upstream).all(|server| self.table.down_until(server) > now_ms)
    }

    /// What is stored is served stale since an upstream is down.
    pub fn begin(&self, upstream: UpstreamId) {
        let now_ms = reactor::now().mono_ms();
        if self.table.begin_outage(upstream, now_ms) {
            let name = &self.names[upstream.0];
            ::log::warn!("upstream {name} is down: what is stored of it is served stale meanwhile");
        }
    }

    /// A server of an upstream answers. One load where that is no news.
    pub fn end(&self, upstream: UpstreamId) {
        if let Some(since_ms) = self.table.end_outage(upstream) {
            let name = &self.names[upstream.0];
            let lasted_s = reactor::now().mono_ms().saturating_sub(since_ms) / 1_000;
            ::log::warn!("upstream {name} answers again, after {lasted_s} s");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    #[test]
    fn an_upstream_is_down_when_all_its_servers_are_skipped() {
        let text = "upstreams: {a: {servers: [x]}, b: {servers: [y, z]}}\nupstream: a\n";
        let config = Config::load_for(Path::new("f"), text, 1).unwrap();
        let table = Rc::new(ServerTable::create([1, 2]).unwrap());
        let outages = Outages::new(&config.upstreams, Rc::clone(&table));
        let upstreams = [0, 1].map(UpstreamId);
        let is_down = || upstreams.map(|upstream| outages.is_down(upstream));
        let [_, (first, _), (second, _)] = config.servers().collect::<Vec<_>>()[..] else {
            unreachable!("three servers")
        };
        table.set_down(first, u64::MAX);
        assert_eq!(is_down(), [false, false]);
        table.set_down(second, u64::MAX);
        assert_eq!(is_down(), [false, true]);
        outages.begin(upstreams[1]);
        outages.begin(upstreams[1]);
        assert_eq!(upstreams.map(|upstream| table.end_outage(upstream).is_some()), [false, true]);
        outages.end(upstreams[1]);
    }
}
