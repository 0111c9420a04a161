//! An exchange: one request and its answer.
//!
//! ```text
//! route ─▶ body received ─▶ may the cache be asked? ─ no ─▶ pass
//!                              │ yes
//!                           look up ─┬─ fresh ───────────────────────▶ stored
//!                              ▲     ├─ stale, may be served ────────▶ stored, refreshed behind
//!                              │     ├─ stale ─ join with condition ─┬▶ stored, or on error stale
//!                              │     └─ nothing ─ join ──────────────┼▶ stored, stream, pass
//!                              └────────────── again ────────────────┘
//! ```

pub(crate) mod synthetic;
mod added;
mod tie;
mod outage;
mod purge;
mod acme;
mod admin;
mod own;
mod forward;
mod connect;
mod unrouted;
mod redirect;
mod head_update;
mod post;
mod invalidate;
mod pass;
mod upgrade;

use std::rc::Rc;

use crate::cache::Cache;
use crate::cache::fill_object::FillObject;
use crate::cache::found::Found;
use crate::cache::hot::HotObject;
use crate::cache::language;
use crate::cache::name::Name;
use crate::http::head::{BodyLength, RequestHead};
use crate::http::status::Status;
use crate::policy::cache_status::{self, CacheStatus, CacheVerdict};
use crate::policy::decide::{self, Action};
use crate::policy::fill_request;
use crate::policy::reason::close::CloseReason;
use crate::policy::reason::fetch::FetchError;
use crate::policy::reason::forward::Fwd;
use crate::policy::reason::pass::PassReason;
use crate::policy::rfc9111::outage as outage_rules;
use crate::proxy::client::Client;
use crate::proxy::context::Context;
use crate::proxy::facts::Facts;
use crate::proxy::fill;
use crate::proxy::fill::job::{Draft, Job};
use crate::proxy::fill::join::{self, Delivery, FillRole, Joined};
use crate::proxy::fill::resume;
use crate::proxy::forwarding;
use crate::proxy::respond;
use crate::proxy::routed::{Route, Routed, Way};
use crate::proxy::upload::{ReceiveLimits, Received, Whole};
use crate::reactor;
use crate::route::changed::Changed;
use crate::shared::in_flight::Stage;

/// How often an exchange looks the key up before it passes the cache.
const LOOKS_MAX: usize = 8;

/// Answers a request.
///
/// # Errors
/// Why the client's connection must end.
pub(crate) async fn run<C: Client>(
    context: &Rc<Context>,
    client: &mut C,
    routed: &Routed,
    facts: &mut Facts,
) -> Result<(), CloseReason> {
    run_once(context, client, routed, facts).await?;
    match facts.redirect.take() {
        None => Ok(()),
        Some(target) => Box::pin(redirect::follow(context, client, routed, facts, target)).await,
    }
}

/// Answers a request, or notes the target of an internal redirect and answers nothing.
pub(crate) async fn run_once<C: Client>(
    context: &Rc<Context>,
    client: &mut C,
    routed: &Routed,
    facts: &mut Facts,
) -> Result<(), CloseReason> {
    run_way(context, client, (routed, &routed.way), facts).await
}

async fn run_way<C: Client>(
    context: &Rc<Context>,
    client: &mut C,
    (routed, way): (&Routed, &Way),
    facts: &mut Facts,
) -> Result<(), CloseReason> {
    let request = &routed.head;
    match way {
        Way::Route(route) => {
            let changed = route.changed.as_deref();
            facts.request_id = changed.map_or(0, Changed::id);
            if facts.request_id == 0 && context.pools.proxy(&route.rule.destination).is_some() {
                facts.request_id = context.next_request_id();
            }
            let exchange = Exchange {
                context,
                client,
                request: changed.map_or(request, |changed| &changed.asked),
                sent: request,
                route,
                facts,
                on_outage: None,
                on_error: None,
                collapsed: None,
                has_waited: false,
            };
            exchange.run().await
        }
        Way::Unverified(way) => match forward::verify(context, client, request).await {
            Ok(()) => Box::pin(run_way(context, client, (routed, way), facts)).await,
            Err(refusal) => forward::refuse(client, refusal, facts).await,
        },
        way => unrouted::answer(context, client, (request, way), facts).await,
    }
}

/// A request that has a route, and its answer.
pub(crate) struct Exchange<'e, C> {
    pub(crate) context: &'e Rc<Context>,
    pub(crate) client: &'e mut C,
    /// The request as the origin gets it, and keys are made of it.
    pub(crate) request: &'e RequestHead,
    /// The request as the client sent it.
    pub(crate) sent: &'e RequestHead,
    pub(crate) route: &'e Route,
    pub(crate) facts: &'e mut Facts,
    /// The stored response that may answer if no server can be reached.
    on_outage: Option<Rc<HotObject>>,
    /// The stored response that may answer a request that is forwarded, if the origin fails.
    on_error: Option<Rc<HotObject>>,
    /// Why it waited for a fetch in another worker, which has ended.
    collapsed: Option<Fwd>,
    /// It has waited for a fetch with an answer for another client alone.
    has_waited: bool,
}

impl<C: Client> Exchange<'_, C> {
    /// The futures of other ways than a plain pass are boxed: the future of every exchange would be
    /// as large as the largest of them.
    async fn run(mut self) -> Result<(), CloseReason> {
        let context = Rc::clone(self.context);
        let lookup = &self.route.lookup;
        if let Err(PassReason::Upgrade) = lookup {
            return Box::pin(self.upgrade()).await;
        }
        if let Err(reason) = lookup
            && !self.route.rule.request_buffering
            && self.request.length != BodyLength::None
        {
            return Box::pin(self.pass_streamed(*reason)).await;
        }
        let limits = ReceiveLimits {
            bytes_max: self.route.rule.limits.body_bytes,
            memory_max: context.config.limits.body_memory_bytes,
            identity: context.router.identity(),
            temporary: &context.temporary,
            bodies: &context.bodies,
        };
        let body = match self.request.length {
            BodyLength::None => Received::nothing(),
            length => match Received::all(self.client, length, limits).await {
                Ok(body) => body,
                Err(error) => return Box::pin(self.not_received(error)).await,
            },
        };
        self.facts.body_us = reactor::now().mono_us;
        context.note_stage(self.facts, Stage::LookingUp);
        match (&context.cache, lookup) {
            (Some(cache), Ok(primary)) => Box::pin(self.cached(cache, primary)).await,
            (_, Err(reason)) => self.pass(body, *reason).await,
            // A route has a name to look up only if there is a cache.
            (None, Ok(_)) => self.pass(body, PassReason::Off).await,
        }
    }

    /// Answers from the cache, or by filling it.
    async fn cached(&mut self, cache: &Rc<Cache>, primary: &Name) -> Result<(), CloseReason> {
        for _ in 0..LOOKS_MAX {
            let rules = &self.route.rules;
            let found = cache.find(&rules.key, primary, self.request).await;
            let other = match rules.selects_language {
                true => language::select(cache, &found, self.request, rules).await,
                false => None,
            };
            let found = other.unwrap_or(found);
            match self.follow(cache, found).await? {
                Filled::Answered => return Ok(()),
                Filled::Again | Filled::Stale(..) => {}
            }
        }
        self.pass_bodiless(PassReason::Store).await
    }

    /// Decides by what the cache has, and does it.
    async fn follow(&mut self, cache: &Rc<Cache>, found: Found) -> Result<Filled, CloseReason> {
        let now_s = reactor::now().unix_s();
        let rules = &self.route.rules;
        let (action, _) = decide::decide(self.request, found.cached(), rules, now_s);
        self.on_outage = None;
        if (found.parts().is_some() || self.request.fields.contains("range"))
            && let Some(filled) = self.answer_from_parts(cache, &found, action).await?
        {
            return Ok(filled);
        }
        let may_answer = |object: &&Rc<HotObject>| {
            outage_rules::may_serve_on_outage(self.request, &object.lifetimes, rules, now_s)
        };
        self.on_outage = found.object().filter(may_answer).cloned();
        match (action, found.object().cloned()) {
            // All servers are skipped, so that the stored response answers without a try.
            (Action::Fill { .. } | Action::Pass(PassReason::Method), Some(object))
                if self.on_outage.is_some()
                    && self.context.pools.is_down(&self.route.rule.destination) =>
            {
                self.answer_on_outage(&object, cache_status::Handling::Hit).await?;
            }
            (Action::Answer { verdict, ttl_s, refreshes }, Some(object)) => {
                if refreshes {
                    self.refresh(cache, &found, &object);
                }
                self.hit(&object, verdict, ttl_s).await?;
            }
            // `Answer` is only decided for an object.
            (Action::Answer { .. }, None) => return Ok(Filled::Again),
            (Action::NotCached, _) => self.not_cached().await?,
            (Action::Pass(reason), object) => {
                let may_serve = |object: &Rc<HotObject>| {
                    decide::may_serve_on_error(self.request, &object.lifetimes, rules, now_s)
                };
                self.on_error = object.filter(may_serve);
                self.pass_bodiless(reason).await?;
            }
            (Action::Fill { fwd, may_serve_on_error }, object) => {
                let stale = object.map(|object| OnStale {
                    on_error: may_serve_on_error.then(|| Rc::clone(&object)),
                    object,
                });
                match self.fill(cache, found, stale, fwd).await? {
                    Filled::Stale(object, failure) => self.answer_stale(&object, failure).await?,
                    other => return Ok(other),
                }
            }
        }
        Ok(Filled::Answered)
    }

    async fn hit(
        &mut self,
        object: &Rc<HotObject>,
        verdict: CacheVerdict,
        ttl_s: i64,
    ) -> Result<(), CloseReason> {
        if let Some(fwd) = self.collapsed.take() {
            let added = self.filled(fwd, &FillRole::Followed, true);
            return respond::with_object(self.client, self.request, object, &added, self.facts)
                .await;
        }
        self.facts.verdict = Some(verdict);
        self.context.note_stage(self.facts, Stage::Answering);
        let added = self.added(CacheStatus::hit(ttl_s));
        self.facts.hit = Some(Rc::clone(object));
        respond::with_object(self.client, self.request, object, &added, self.facts).await
    }

    /// The job of a fill of this key, as far as it is known without the disk.
    fn draft(&self, found: Found, object: Option<&Rc<HotObject>>, purge_epoch: u64) -> Draft {
        let peer = forwarding::peer(self.context, self.client, self.request);
        let rules = Rc::clone(&self.route.rules);
        Draft {
            rule: self.route.rule.clone(),
            tie: self.tie_of_fill(),
            target: rules.key.origin_target(self.request.target.path_and_query()).into_owned(),
            fields: fill_request::fill_fields(self.request, &peer, &rules.key),
            request: self.request.clone(),
            found,
            scheme: self.client.front().scheme,
            purge_epoch,
            stored: object.cloned(),
            rules,
        }
    }

    /// Starts a background fill for an object that is served stale. One worker does so for all, behind
    /// the answer, which does not wait for the disk.
    pub(crate) fn refresh(&self, cache: &Rc<Cache>, found: &Found, object: &Rc<HotObject>) {
        let purge_epoch = cache.purge_epoch();
        let lease = cache.lead_or_follow(found, &found.name.key, purge_epoch).lead();
        let Some(lease) = lease else { return };
        let draft = self.draft(found.clone(), Some(object), purge_epoch);
        let (context, cache) = (Rc::clone(self.context), Rc::clone(cache));
        reactor::spawn(async move {
            let job = draft.job(&cache).await;
            fill::start(&context, lease, Job { is_background: true, ..job });
        });
    }

    pub(crate) async fn fill(
        &mut self,
        cache: &Rc<Cache>,
        found: Found,
        stale: Option<OnStale>,
        fwd: Fwd,
    ) -> Result<Filled, CloseReason> {
        let purge_epoch = cache.purge_epoch();
        let stored = stale.as_ref().map(|stale| &stale.object);
        let job = self.draft(found, stored, purge_epoch).job(cache).await;
        self.fill_by(cache, job, stale.and_then(|stale| stale.on_error), fwd).await
    }

    /// Leads or follows the fill of a job, and answers with what it brings, or else leaves it to
    /// `on_error`.
    pub(crate) async fn fill_by(
        &mut self,
        cache: &Rc<Cache>,
        job: Job,
        on_error: Option<Rc<HotObject>>,
        fwd: Fwd,
    ) -> Result<Filled, CloseReason> {
        let found = job.found.clone();
        self.context.note_stage(self.facts, Stage::Fetching);
        let joined = join::join(self.context, cache, self.client, job).await;
        self.context.note_stage(self.facts, Stage::Answering);
        self.joined(cache, &found, joined, on_error, fwd).await
    }

    /// Answers with the outcome of a fill.
    pub(crate) async fn joined(
        &mut self,
        cache: &Rc<Cache>,
        found: &Found,
        joined: Joined,
        on_error: Option<Rc<HotObject>>,
        fwd: Fwd,
    ) -> Result<Filled, CloseReason> {
        // An object that was purged during the fill must not answer, even if the origin fails.
        let stands = |stale: &Rc<HotObject>| cache.has_purge_status(stale, &found.name.text);
        let on_error = on_error.filter(stands);
        self.on_outage = self.on_outage.take().filter(stands);
        match joined {
            Joined::Parts(object, role) => {
                let added = self.filled(fwd, &role, true);
                return self.answer_renewed(cache, found, &object, &added).await;
            }
            Joined::Object(object, role) => {
                let added = self.filled(fwd, &role, object.slot.is_some());
                if let Some(stale) = on_error.filter(|_| object.status.0 >= 500) {
                    return Ok(Filled::Stale(stale, Failure::Status(object.status)));
                }
                respond::with_object(self.client, self.request, &object, &added, self.facts)
                    .await?;
            }
            Joined::Stream(reader, role) => {
                let added = self.filled(fwd, &role, true);
                let sent =
                    join::send(self.client, self.request, &reader, &role, &added, self.facts);
                match sent.await? {
                    Delivery::Whole => {}
                    Delivery::Part(sent) => self.resume(&reader.object, sent).await?,
                }
            }
            Joined::Passed(reason, Some(handover)) => {
                let status = handover.response.head.status;
                if let Some(stale) = on_error.filter(|_| status.0 >= 500) {
                    return Ok(Filled::Stale(stale, Failure::Status(status)));
                }
                self.hand_over(reason, handover, fwd).await?;
            }
            Joined::Passed(reason, None) => {
                self.on_error = on_error;
                self.pass_bodiless(reason).await?;
            }
            Joined::Unshared if !self.has_waited => {
                self.has_waited = true;
                return Ok(Filled::Again);
            }
            Joined::Unshared => {
                self.on_error = on_error;
                self.pass_bodiless(PassReason::Remembered).await?;
            }
            Joined::Failed(error) => match on_error {
                Some(stale) => return Ok(Filled::Stale(stale, Failure::Error(error))),
                None if self.on_outage.is_some() && self.is_outage(error) => {
                    if let Some(object) = self.on_outage.take() {
                        self.answer_on_outage(&object, cache_status::Handling::Fwd(Fwd::Stale))
                            .await?;
                    }
                }
                // The error response of the origin went to the leader alone.
                None if error == FetchError::BadStatus => {
                    self.pass_bodiless(PassReason::Remembered).await?;
                }
                None => self.failed(error, Some(fwd)).await?,
            },
            Joined::Again => return Ok(Filled::Again),
            Joined::Ended => {
                self.collapsed = Some(fwd);
                return Ok(Filled::Again);
            }
            Joined::Closed(reason) => return Err(reason),
        }
        Ok(Filled::Answered)
    }

    /// Fetches, for this client alone, the rest of a response that is no longer stored.
    async fn resume(&mut self, object: &FillObject, sent: u64) -> Result<(), CloseReason> {
        let mut fields =
            forwarding::request_fields(self.context, self.client, self.request, BodyLength::None);
        fill_request::ask_for_whole(&mut fields);
        let (route, tie) = (self.route, self.tie());
        let asked = route.rules.key.origin_target(self.request.target.path_and_query());
        let question = forwarding::question_by_get(&route.rule, tie, &asked, &fields);
        let mut nothing = Received::nothing();
        let mut upload = Whole { client: self.client, body: &mut nothing };
        match forwarding::ask(self.context, &question, &mut upload, self.facts).await {
            Ok(response) => resume::finish_with_refetch(self.client, object, sent, response).await,
            Err(_) => {
                self.client.abort();
                Err(CloseReason::Incomplete)
            }
        }
    }
}

/// The stale object that a fill renews.
pub(crate) struct OnStale {
    pub(crate) object: Rc<HotObject>,
    /// The same object, if it may be served when the fill fails.
    pub(crate) on_error: Option<Rc<HotObject>>,
}

/// The outcome of a fill for an exchange.
pub(crate) enum Filled {
    /// The client has its answer.
    Answered,
    /// Look again.
    Again,
    /// The origin failed, and this may be served instead, RFC 5861 section 4.
    Stale(Rc<HotObject>, Failure),
}

/// How an origin failed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure {
    Status(Status),
    Error(FetchError),
}

impl Failure {
    /// What a client is told that gets a stale response instead.
    pub(crate) fn status(self, ttl_s: i64) -> CacheStatus<'static> {
        let (fwd_status, detail) = match self {
            Self::Status(status) => (Some(status), None),
            Self::Error(error) => (None, Some(error.word())),
        };
        CacheStatus { fwd_status, detail, ttl_s: Some(ttl_s), ..CacheStatus::forward(Fwd::Stale) }
    }
}

/// The freshness that is left of an object in seconds, negative if it is stale.
pub(crate) fn ttl_s(object: &HotObject) -> i64 {
    object.lifetimes.ttl_s(reactor::now().unix_s())
}
