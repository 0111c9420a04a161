//! When an upstream is down: the error log says so once when it begins and once when it ends,
//! whichever workers see it.

use crate::origin::pools::Upstream;
use crate::reactor;

impl Upstream {
    /// Whether all servers are skipped now, so that no fetch need wait for one.
    pub(crate) fn is_down(&self) -> bool {
        let now_ms = reactor::now().mono_ms();
        self.table.servers(self.id).all(|server| self.table.down_until(server) > now_ms)
    }

    /// What is stored is served stale since the upstream is down.
    pub(crate) fn begin_outage(&self) {
        if self.table.begin_outage(self.id, reactor::now().mono_ms()) {
            let name = &self.name;
            ::log::warn!("upstream {name} is down: what is stored of it is served stale meanwhile");
        }
    }

    /// A server answers. This is one load if there is no outage.
    pub(super) fn end_outage(&self) {
        if let Some(since_ms) = self.table.end_outage(self.id) {
            let lasted_s = reactor::now().mono_ms().saturating_sub(since_ms) / 1_000;
            ::log::warn!("upstream {} answers again, after {lasted_s} s", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::origin::sample;

    #[test]
    fn an_upstream_is_down_when_all_its_servers_are_skipped() {
        let pools = sample::pools_to([0, 1].map(sample::name), |_| {});
        let upstream = pools.upstream(sample::ID);
        upstream.table.set_down(sample::server(0), u64::MAX);
        assert!(!upstream.is_down());
        upstream.table.set_down(sample::server(1), u64::MAX);
        assert!(upstream.is_down());
    }
}
