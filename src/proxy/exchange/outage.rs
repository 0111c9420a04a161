//! While an upstream is down, its stored responses are served stale.

use std::rc::Rc;

use crate::cache::hot::HotObject;
use crate::policy::cache_status::{CacheStatus, CacheVerdict, Handling};
use crate::policy::reason::close::CloseReason;
use crate::policy::reason::fetch::FetchError;
use crate::proxy::client::Client;
use crate::proxy::exchange::{self, Exchange};
use crate::proxy::respond;

impl<C: Client> Exchange<'_, C> {
    /// Whether a fetch failed because the route's upstream is down.
    pub(crate) fn is_outage(&self, error: FetchError) -> bool {
        error.is_unreachable() || self.context.pools.upstream(self.route.rule.upstream).is_down()
    }

    /// Answers with a stored response during an outage of the route's upstream, which was asked or
    /// was not.
    pub(crate) async fn answer_on_outage(
        &mut self,
        object: &Rc<HotObject>,
        handling: Handling,
    ) -> Result<(), CloseReason> {
        self.context.pools.upstream(self.route.rule.upstream).begin_outage();
        self.facts.verdict = Some(CacheVerdict::Stale);
        self.facts.reason = DETAIL;
        let status = CacheStatus { handling, ..CacheStatus::hit(exchange::ttl_s(object)) };
        let added = self.added(CacheStatus { detail: Some(DETAIL), ..status });
        self.facts.hit = Some(Rc::clone(object));
        respond::with_object(self.client, self.request, object, &added, self.facts).await
    }
}

/// The word in logs, `Cache-Status` and the manual.
const DETAIL: &str = "outage";
