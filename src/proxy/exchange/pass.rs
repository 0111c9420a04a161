//! Passing the cache: the origin is asked for one client alone. The response can still renew,
//! invalidate or enter a stored one.

use std::borrow::Cow;
use std::rc::Rc;

use crate::cache::hot::HotObject;
use crate::http::head::BodyLength;
use crate::http::method::Method;
use crate::origin::fetch::Response;
use crate::origin::request::FetchFailure;
use crate::policy::cache_status::{CacheStatus, CacheVerdict, Handling};
use crate::policy::reason::close::CloseReason;
use crate::policy::reason::fetch::FetchError;
use crate::policy::reason::forward::Fwd;
use crate::policy::reason::pass::PassReason;
use crate::proxy::client::{Client, ClientError};
use crate::proxy::exchange::invalidate;
use crate::proxy::exchange::{Exchange, Failure};

use crate::proxy::forwarding;
use crate::proxy::progress::Handover;
use crate::proxy::relay;
use crate::proxy::upload::{ReceiveError, Received, Streamed, Whole};
use crate::shared::in_flight::Stage;

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
        let question = forwarding::question(&self.route.rule, self.tie(), self.request, &fields);
        let purge_epoch = self.purge_epoch();
        self.context.note_stage(self.facts, Stage::Fetching);
        let mut upload = Whole { client: self.client, body: &mut body };
        let asked = forwarding::ask(self.context, &question, &mut upload, self.facts).await;
        self.passed(asked, purge_epoch, reason).await
    }

    pub(crate) async fn pass_streamed(&mut self, reason: PassReason) -> Result<(), CloseReason> {
        let fields = forwarding::request_fields(
            self.context, self.client, self.request, self.request.length,
        );
        let question = forwarding::question(&self.route.rule, self.tie(), self.request, &fields);
        let purge_epoch = self.purge_epoch();
        let identity = self.context.router.identity();
        let mut upload = Streamed::new(self.client, self.request.length, identity);
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

    pub(crate) async fn passed(
        &mut self,
        asked: Result<Response, FetchFailure<ClientError>>,
        purge_epoch: u64,
        reason: PassReason,
    ) -> Result<(), CloseReason> {
        self.facts.verdict = Some(CacheVerdict::Pass(reason));
        self.context.note_stage(self.facts, Stage::Answering);
        let mut response = match asked {
            Ok(response) if response.head.status.0 < 500 => response,
            asked => match Box::pin(self.or_stored(asked, reason)).await {
                Ok(response) => response,
                Err(answered) => return answered,
            },
        };
        let mut added = self.added_with(CacheStatus::pass(reason), None);
        let mut read = Vec::new();
        if self.request.method != Method::Get {
            match Box::pin(self.update(&mut response, purge_epoch)).await {
                Ok(stored) => (read, added.status.stored) = stored,
                Err(error) => return Box::pin(self.failed(error, Some(reason.fwd()))).await,
            }
        }
        if self.notes_redirect(&response) {
            return Ok(());
        }
        let (handover, rule) = (Handover { response, read }, &self.route.rule);
        relay::relay(self.context, self.client, handover, rule, &added, self.facts).await
    }

    /// Passes on the response of a fill that is for this client alone.
    pub(crate) async fn hand_over(
        &mut self,
        reason: PassReason,
        handover: Box<Handover>,
        fwd: Fwd,
    ) -> Result<(), CloseReason> {
        let response = &handover.response;
        if self.notes_redirect(response) {
            return Ok(());
        }
        self.facts.verdict = Some(CacheVerdict::Pass(reason));
        self.facts.fetched(&response.times);
        self.facts.server = Some(response.server.clone());
        let detail = Some(reason.word());
        let added = self.added(CacheStatus { detail, ..CacheStatus::forward(fwd) });
        let rule = &self.route.rule;
        relay::relay(self.context, self.client, *handover, rule, &added, self.facts).await
    }

    /// The response of an origin that failed, unless a stored response or one of ktrix's own was the
    /// answer; `Err` says how that ended.
    async fn or_stored(
        &mut self,
        asked: Result<Response, FetchFailure<ClientError>>,
        reason: PassReason,
    ) -> Result<Response, Result<(), CloseReason>> {
        match asked {
            Ok(response) => {
                let failure = Failure::Status(response.head.status);
                self.answer_on_failure(failure).await.map_or(Ok(response), Err)
            }
            Err(FetchFailure::Fetch(error)) => {
                Err(match self.answer_on_failure(Failure::Error(error)).await {
                    Some(answered) => answered,
                    None => self.failed(error, Some(reason.fwd())).await,
                })
            }
            Err(FetchFailure::Upload(error)) => {
                Err(self.not_received(ReceiveError::Client(error)).await)
            }
            Err(FetchFailure::Gone) => Err(Err(CloseReason::ClientGone)),
        }
    }

    /// Invalidates, renews or stores what the response to another method than GET concerns. Gives the
    /// part of the body that was read, and whether that was stored.
    async fn update(
        &self,
        response: &mut Response,
        purge_epoch: u64,
    ) -> Result<(Vec<u8>, bool), FetchError> {
        let scheme = self.client.front().scheme;
        let mut seen = Cow::Borrowed(&response.head.fields);
        if let Some(changed) = &self.route.changed {
            changed.show_references(seen.to_mut());
        }
        invalidate::after(self.context, scheme, self.sent, &response.head, &seen).await;
        self.renew_by_head(response, purge_epoch).await;
        self.store_post(response, purge_epoch).await
    }
}
