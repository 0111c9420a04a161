//! Passing the cache: the origin is asked for one client alone. The response can still renew,
//! invalidate or enter a stored one.

use std::rc::Rc;

use crate::cache::hot::HotObject;
use crate::http::head::BodyLength;
use crate::origin::fetch::Response;
use crate::origin::request::FetchFailure;
use crate::policy::cache_status::{CacheStatus, CacheVerdict, Handling};
use crate::policy::reason::close::CloseReason;
use crate::policy::reason::forward::Fwd;
use crate::policy::reason::pass::PassReason;
use crate::proxy::client::{Client, ClientError};
use crate::proxy::exchange::invalidate;
use crate::proxy::exchange::{Exchange, Failure};
use crate::proxy::respond::Added;

use crate::proxy::forwarding;
use crate::proxy::upload::{ReceiveError, Received, Streamed, Whole};

impl<C: Client> Exchange<'_, C> {
    pub(crate) async fn pass_bodiless(&mut self, reason: PassReason) -> Result<(), CloseReason> {
        self.pass(Received::nothing(), reason).await
    }

    pub(crate) async fn pass(
        &mut self,
        mut body: Received,
        reason: PassReason,
    ) -> Result<(), CloseReason> {
        let framing = match self.request.length {
            BodyLength::None => BodyLength::None,
            _ => body.framing(),
        };
        let fields = forwarding::request_fields(self.context, self.client, self.request, framing);
        let question = forwarding::question(self.route.rule.upstream, self.request, &fields);
        let purge_epoch = self.purge_epoch();
        let mut upload = Whole { client: self.client, body: &mut body };
        let asked = forwarding::ask(self.context, &question, &mut upload, self.facts).await;
        self.passed(asked, purge_epoch, reason).await
    }

    pub(crate) async fn pass_streamed(&mut self, reason: PassReason) -> Result<(), CloseReason> {
        let fields = forwarding::request_fields(
            self.context, self.client, self.request, self.request.length,
        );
        let question = forwarding::question(self.route.rule.upstream, self.request, &fields);
        let purge_epoch = self.purge_epoch();
        let mut upload = Streamed::new(self.client, self.request.length);
        let asked = forwarding::ask(self.context, &question, &mut upload, self.facts).await;
        self.passed(asked, purge_epoch, reason).await
    }

    /// The purge epoch to take before the origin is asked; 0 without a cache.
    pub(crate) fn purge_epoch(&self) -> u64 {
        self.context.cache.as_ref().map_or(0, |cache| cache.purge_epoch())
    }

    /// Answers with a stored response, if one may be served when the origin fails. An object that
    /// was purged or replaced meanwhile must not answer.
    async fn answer_on_failure(&mut self, failure: Failure) -> Option<Result<(), CloseReason>> {
        let cache = self.context.cache.clone()?;
        let stands = |object: &Rc<HotObject>| cache.is_current(object);
        if let Some(stale) = self.on_error.take().filter(stands) {
            return Some(self.answer_stale(&stale, failure).await);
        }
        let is_outage = matches!(failure, Failure::Error(error) if self.is_outage(error));
        let object = self.on_outage.take().filter(|object| is_outage && stands(object))?;
        Some(self.answer_on_outage(&object, Handling::Fwd(Fwd::Stale)).await)
    }

    async fn passed(
        &mut self,
        asked: Result<Response, FetchFailure<ClientError>>,
        purge_epoch: u64,
        reason: PassReason,
    ) -> Result<(), CloseReason> {
        self.facts.verdict = Some(CacheVerdict::Pass(reason));
        let mut response = match asked {
            Ok(response) if response.head.status.0 >= 500 => {
                if let Some(answered) =
                    self.answer_on_failure(Failure::Status(response.head.status)).await
                {
                    return answered;
                }
                response
            }
            Ok(response) => response,
            Err(FetchFailure::Fetch(error)) => {
                match self.answer_on_failure(Failure::Error(error)).await {
                    Some(answered) => return answered,
                    None => return self.failed(error, Some(reason.fwd())).await,
                }
            }
            Err(FetchFailure::Upload(error)) => {
                return self.not_received(ReceiveError::Client(error)).await;
            }
            Err(FetchFailure::Gone) => return Err(CloseReason::ClientGone),
        };
        let mut added = Added::new(CacheStatus::pass(reason), Some(&self.route.rules), None);
        let scheme = self.client.front().scheme;
        invalidate::after(self.context, scheme, self.request, &response.head).await;
        self.renew_by_head(&response, purge_epoch).await;
        let (read, is_stored) = match self.store_post(&mut response, purge_epoch).await {
            Ok(stored) => stored,
            Err(error) => return self.failed(error, Some(reason.fwd())).await,
        };
        added.status.stored = is_stored;
        forwarding::relay(self.context, self.client, response, read, &added, self.facts).await
    }
}
