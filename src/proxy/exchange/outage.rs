//! While an upstream is down, its stored responses are served stale.

use std::rc::Rc;

use crate::cache::hot::HotObject;
use crate::policy::cache_status::{CacheStatus, CacheVerdict};
use crate::policy::reason::close::CloseReason;
use crate::policy::reason::fetch::FetchError;
use crate::proxy::client::Client;
use crate::proxy::exchange::Exchange;
use crate::proxy::stored;
use crate::reactor;

impl<C: Client> Exchange<'_, C> {
    /// Whether a fetch failed because the route's upstream is down.
    pub(crate) fn is_outage(&self, error: FetchError) -> bool {
        error.is_unreachable() || self.context.pools.upstream(self.route.rule.upstream).is_down()
    }

    /// Answers with a stored response during an outage of the route's upstream.
    pub(crate) async fn answer_held(&mut self, object: &Rc<HotObject>) -> Result<(), CloseReason> {
        self.context.pools.upstream(self.route.rule.upstream).begin_outage();
        self.facts.verdict = Some(CacheVerdict::Stale);
        self.facts.reason = DETAIL;
        let now_s = reactor::now().unix_s();
        let ttl_s = object.lifetimes.fresh_until_s.cast_signed() - now_s.cast_signed();
        let detail = Some(DETAIL);
        let added = self.added(CacheStatus { detail, ..CacheStatus::hit(ttl_s) });
        self.facts.hit = Some(Rc::clone(object));
        stored::answer(self.client, self.request, object, &added, self.facts).await
    }
}

/// The word in logs, `Cache-Status` and the manual.
const DETAIL: &str = "outage";
