//! Outages of an upstream: the error log says once that one begins and once that it ends,
//! whichever workers see it.

use crate::origin::pools::Upstream;
use crate::reactor;

impl Upstream {
    /// Whether all servers are skipped now.
    pub(crate) fn is_down(&self) -> bool {
        let now_ms = reactor::now().mono_ms();
        self.servers.iter().all(|it| self.health(it.server.id).skipped_until_ms() > now_ms)
    }

    /// Notes that the upstream is down, so that stored objects are served stale, and logs it once.
    pub(crate) fn begin_outage(&self) {
        if self.table.begin_outage(self.id, reactor::now().mono_ms()) {
            let name = &self.name;
            ::log::warn!("upstream {name} is down; serving its stored responses stale");
        }
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
    fn an_upstream_is_down_when_all_its_servers_are_skipped() {
        run_by_test_clock(async {
            let now_ms = reactor::now().mono_ms();
            let pools = sample::pools_to([0, 1].map(sample::name), |_| {});
            let upstream = pools.upstream(sample::ID);
            upstream.health(ServerId(0)).failed(now_ms, 7);
            assert!(!upstream.is_down());
            upstream.health(ServerId(1)).failed(now_ms, 8);
            assert!(upstream.is_down());
            timer::sleep(Duration::from_millis(7)).await;
            assert!(!upstream.is_down());
            upstream.health(ServerId(0)).admit(now_ms + 7, 5).unwrap();
            assert!(upstream.is_down(), "the attempt is another fetch's");
        });
    }
}
