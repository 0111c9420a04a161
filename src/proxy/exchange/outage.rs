//! Stored responses that are served stale, since the origin failed or its upstream is down.

use std::rc::Rc;

use crate::cache::hot::HotObject;
use crate::policy::cache_status::{CacheStatus, CacheVerdict, Handling};
use crate::policy::reason::close::CloseReason;
use crate::policy::reason::fetch::FetchError;
use crate::proxy::client::Client;
use crate::proxy::exchange::{self, Exchange, Failure};
use crate::proxy::respond;

impl<C: Client> Exchange<'_, C> {
    /// Whether a fetch failed because the route's upstream is down.
    pub(crate) fn is_outage(&self, error: FetchError) -> bool {
        error.is_unreachable() || self.context.pools.is_down(&self.route.rule.destination)
    }

    /// Answers with a stale object, because the origin has failed.
    pub(crate) async fn answer_stale(
        &mut self,
        object: &Rc<HotObject>,
        failure: Failure,
    ) -> Result<(), CloseReason> {
        self.facts.verdict = Some(CacheVerdict::Stale);
        let added = self.added(failure.status(exchange::ttl_s(object)));
        self.facts.hit = Some(Rc::clone(object));
        respond::with_object(self.client, self.request, object, &added, self.facts).await
    }

    /// Answers with a stored response during an outage of the route's upstream, which was asked or
    /// was not.
    pub(crate) async fn answer_on_outage(
        &mut self,
        object: &Rc<HotObject>,
        handling: Handling,
    ) -> Result<(), CloseReason> {
        if let Some(upstream) = self.context.pools.upstream(&self.route.rule.destination) {
            upstream.begin_outage();
        }
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
