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
mod outage;
mod purge;
mod head_update;
mod post;
mod invalidate;
mod pass;

use std::rc::Rc;

use crate::cache::Cache;
use crate::cache::fill_object::FillObject;
use crate::cache::found::Found;
use crate::cache::hot::HotObject;
use crate::cache::language;
use crate::cache::name::Name;
use crate::cache::variants::Others;
use crate::http::head::{BodyLength, RequestHead};
use crate::http::path;
use crate::http::status::Status;
use crate::policy::cache_status::{CacheStatus, CacheVerdict};
use crate::policy::decide::{self, Action};
use crate::policy::fill_request;
use crate::policy::purge::request::METHOD;
use crate::policy::reason::close::CloseReason;
use crate::policy::reason::fetch::FetchError;
use crate::policy::reason::forward::Fwd;
use crate::policy::reason::pass::PassReason;
use crate::policy::rfc9111::outage as outage_rules;
use crate::policy::rfc9111::revalidate;
use crate::policy::rfc9111::rules::Rules;
use crate::proxy::added::Added;
use crate::proxy::client::Client;
use crate::proxy::context::Context;
use crate::proxy::facts::Facts;
use crate::proxy::fill;
use crate::proxy::fill::job::Job;
use crate::proxy::fill::join::{self, Delivery, Joined, Part};
use crate::proxy::fill::resume;
use crate::proxy::forwarding;
use crate::proxy::progress::Answered;
use crate::proxy::progress::Handover;
use crate::proxy::stored;
use crate::proxy::upload::{ReceiveLimits, Received, Whole};
use crate::reactor;
use crate::route::Rule;

/// How often an exchange looks again before it goes round the cache.
const LOOKS_MAX: usize = 8;

/// What an exchange works with.
pub(crate) struct Exchange<'e, C> {
    /// What the worker's exchanges share.
    pub context: &'e Rc<Context>,
    /// Who asks.
    pub client: &'e mut C,
    /// What is asked.
    pub request: &'e RequestHead,
    /// What is noted for the log.
    pub facts: &'e mut Facts,
    /// What the operator decided for the request's route, once that is known.
    pub rules: Option<Rc<Rules>>,
    /// The text of its key before Vary, if the client is to be told.
    pub key: Option<Rc<[u8]>>,
    /// What may answer it should no server be reached.
    pub held: Option<Rc<HotObject>>,
    /// What may answer it, a HEAD that is sent on, should the origin fail.
    pub on_error: Option<Rc<HotObject>>,
}

impl<'e, C: Client> Exchange<'e, C> {
    /// An exchange that is about to begin.
    pub(crate) fn new(
        context: &'e Rc<Context>,
        client: &'e mut C,
        request: &'e RequestHead,
        facts: &'e mut Facts,
    ) -> Self {
        Self { context, client, request, facts, rules: None, key: None, held: None, on_error: None }
    }
}

impl<C: Client> Exchange<'_, C> {
    /// Answers the request.
    ///
    /// # Errors
    /// Why the client's connection must end.
    pub(crate) async fn run(mut self) -> Result<(), CloseReason> {
        if let Some(own) = decide::synthetic_answer(self.request) {
            let extra = [("Allow", "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH")];
            return self.synthetic(own.status, own.text, &extra).await;
        }
        let context = Rc::clone(self.context);
        if let (METHOD, Some(wanted)) = (&*self.request.method_text, &context.config.cache) {
            return self.purge(wanted).await;
        }
        let router = &context.router;
        let path = path::normalise(self.request.target.path());
        let Some(route) = router.find(self.request.host(), &path) else {
            return self
                .synthetic(Status(404), "no site or route is configured for this", &[])
                .await;
        };
        let rule = *router.rule(route);
        self.rules = Some(Rc::clone(router.rules(rule.rules)));
        if !rule.request_buffering && self.request.length != BodyLength::None {
            let reason = if rule.cache { PassReason::RequestBody } else { PassReason::Off };
            return self.pass_streamed(rule, reason).await;
        }
        let limits = ReceiveLimits {
            bytes_max: context.config.limits.body_bytes,
            memory_max: context.config.limits.body_memory_bytes,
            temporary: &context.temporary,
        };
        let body = match Received::all(self.client, self.request.length, limits).await {
            Ok(body) => body,
            Err(error) => return self.not_received(error).await,
        };
        self.facts.body_us = reactor::now().mono_us;
        let may_look_up = decide::may_look_up(self.request, router.rules(rule.rules));
        match (&context.cache, rule.cache, may_look_up) {
            (Some(cache), true, Ok(())) => self.cached(cache, rule).await,
            (Some(_), true, Err(reason)) => self.pass(rule, body, reason).await,
            _ => self.pass(rule, body, PassReason::Off).await,
        }
    }

    /// Answers from the cache, or by filling it.
    async fn cached(&mut self, cache: &Rc<Cache>, rule: Rule) -> Result<(), CloseReason> {
        let rules = Rc::clone(self.context.router.rules(rule.rules));
        for _ in 0..LOOKS_MAX {
            let found = cache.find(&rules.key, self.client.front().scheme, self.request).await;
            if rules.report.key {
                self.key = Some(Rc::clone(&found.primary.text));
            }
            let found = language::select(cache, found, self.request, &rules).await;
            match self.follow(cache, rule, &rules, found).await? {
                Filled::Answered => return Ok(()),
                Filled::Again | Filled::Stale(_) => {}
            }
        }
        self.pass_bodiless(rule, PassReason::Store).await
    }

    /// Does what is to be done with the request, now that it is known what the cache has.
    async fn follow(
        &mut self,
        cache: &Rc<Cache>,
        rule: Rule,
        rules: &Rc<Rules>,
        found: Found,
    ) -> Result<Filled, CloseReason> {
        let now_s = reactor::now().unix_s();
        let (action, _) = decide::decide(self.request, found.cached(), rules, now_s);
        self.held = None;
        if let Some(filled) = self.in_parts(cache, rule, rules, &found, action).await? {
            return Ok(filled);
        }
        let is_held = |object: &&Rc<HotObject>| {
            let may_hold =
                outage_rules::may_serve_on_outage(self.request, &object.lifetimes, rules, now_s);
            may_hold && !object.is_part_list()
        };
        self.held = found.object().filter(is_held).cloned();
        match (action, found.object().cloned()) {
            // No exchange waits for servers that are skipped.
            (Action::Fill { .. } | Action::Pass(PassReason::Method), Some(object))
                if self.held.is_some() && self.context.pools.upstream(rule.upstream).is_down() =>
            {
                self.answer_held(rule, &object).await?;
            }
            (Action::Answer { verdict, ttl_s, refreshes }, Some(object)) => {
                if refreshes {
                    self.refresh(cache, rule, rules, &found, &object);
                }
                self.hit(&object, verdict, ttl_s).await?;
            }
            // It is only said of an object.
            (Action::Answer { .. }, None) => return Ok(Filled::Again),
            (Action::NotCached, _) => self.not_cached().await?,
            (Action::Pass(reason), object) => {
                let may_serve = |object: &Rc<HotObject>| {
                    let lifetimes = &object.lifetimes;
                    !object.is_part_list()
                        && decide::may_serve_on_error(self.request, lifetimes, rules, now_s)
                };
                self.on_error = object.filter(may_serve);
                self.pass_bodiless(rule, reason).await?;
            }
            (Action::Fill { fwd, may_serve_on_error }, object) => {
                let stale = object.map(|object| OnStale {
                    on_error: may_serve_on_error.then(|| Rc::clone(&object)),
                    object,
                });
                match self.fill(cache, rule, rules, found, stale, fwd).await? {
                    Filled::Stale(object) => self.hit_stale(&object).await?,
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
        self.facts.verdict = Some(verdict);
        let added = self.added(CacheStatus::hit(ttl_s));
        self.facts.hit = Some(Rc::clone(object));
        stored::answer(self.client, self.request, object, &added, self.facts).await
    }

    /// Answers with what is stale, as the origin has failed.
    pub(crate) async fn hit_stale(&mut self, object: &Rc<HotObject>) -> Result<(), CloseReason> {
        let fresh_until_s = object.lifetimes.fresh_until_s.cast_signed();
        let ttl_s = fresh_until_s - reactor::now().unix_s().cast_signed();
        self.hit(object, CacheVerdict::Stale, ttl_s).await
    }

    /// What a fill of this key is to do.
    fn job(
        &self,
        cache: &Cache,
        rule: Rule,
        rules: &Rc<Rules>,
        found: Found,
        object: Option<&Rc<HotObject>>,
        purge_epoch: u64,
    ) -> Job {
        let peer = forwarding::peer(self.client, self.request);
        let mut fields = fill_request::fill_fields(self.request, &peer, &rules.key);
        let asked = rules.key.origin_target(self.request.target.path_and_query());
        let whole = forwarding::question_by_get(rule.upstream, &asked, &fields);
        let others = Others::of(cache, &found);
        let tags = others.as_ref().map(Others::tags).unwrap_or_default();
        let own = object.map(|object| &object.fields);
        let is_conditional = revalidate::condition(&mut fields, own, &tags);
        let conditional =
            is_conditional.then(|| forwarding::question_by_get(rule.upstream, &asked, &fields));
        Job {
            whole,
            conditional,
            request: self.request.clone(),
            found,
            scheme: self.client.front().scheme,
            purge_epoch,
            stored: object.cloned(),
            others,
            rules: Rc::clone(rules),
            renews: object.is_some(),
            is_background: false,
            part: None,
        }
    }

    /// Refreshes what is served stale, behind the answer; once for all workers.
    pub(crate) fn refresh(
        &self,
        cache: &Rc<Cache>,
        rule: Rule,
        rules: &Rc<Rules>,
        found: &Found,
        object: &Rc<HotObject>,
    ) {
        let purge_epoch = cache.purge_epoch();
        let lease = cache.lead_or_follow(found, &found.name.key, purge_epoch).lead();
        if let Some(lease) = lease {
            let mut job = self.job(cache, rule, rules, found.clone(), Some(object), purge_epoch);
            job.is_background = true;
            fill::start(self.context, lease, job);
        }
    }

    pub(crate) async fn fill(
        &mut self,
        cache: &Rc<Cache>,
        rule: Rule,
        rules: &Rc<Rules>,
        found: Found,
        stale: Option<OnStale>,
        fwd: Fwd,
    ) -> Result<Filled, CloseReason> {
        let purge_epoch = cache.purge_epoch();
        let stored = stale.as_ref().map(|stale| &stale.object);
        let job = self.job(cache, rule, rules, found, stored, purge_epoch);
        self.fill_by(cache, rule, job, stale.and_then(|stale| stale.on_error), fwd).await
    }

    /// Leads or follows the fill of a job, and answers with what it brings, or else leaves it to
    /// `on_error`.
    pub(crate) async fn fill_by(
        &mut self,
        cache: &Rc<Cache>,
        rule: Rule,
        job: Job,
        on_error: Option<Rc<HotObject>>,
        fwd: Fwd,
    ) -> Result<Filled, CloseReason> {
        let name = job.found.name.clone();
        let joined = join::join(self.context, cache, self.client, job).await;
        self.joined(cache, rule, &name, joined, on_error, fwd).await
    }

    /// Answers with what a fill brought.
    pub(crate) async fn joined(
        &mut self,
        cache: &Rc<Cache>,
        rule: Rule,
        name: &Name,
        joined: Joined,
        on_error: Option<Rc<HotObject>>,
        fwd: Fwd,
    ) -> Result<Filled, CloseReason> {
        // What was purged meanwhile is nobody's answer, whatever the origin does.
        let stands = |stale: &Rc<HotObject>| cache.has_purge_status(stale, &name.text);
        let on_error = on_error.filter(stands);
        self.held = self.held.take().filter(stands);
        match joined {
            Joined::Object(object, part) if object.is_part_list() && object.key == name.key => {
                let added = self.filled(fwd, &part, true);
                return self.answer_renewed(cache, name, &object, &added).await;
            }
            Joined::Object(object, part) => {
                let added = self.filled(fwd, &part, object.slot.is_some());
                if let Some(stale) = on_error.filter(|_| object.status.0 >= 500) {
                    return Ok(Filled::Stale(stale));
                }
                stored::answer(self.client, self.request, &object, &added, self.facts).await?;
            }
            Joined::Stream(reader, part) => {
                let added = self.filled(fwd, &part, true);
                let sent =
                    join::send(self.client, self.request, &reader, &part, &added, self.facts);
                match sent.await? {
                    Delivery::Whole => {}
                    Delivery::Part(sent) => self.resume(rule, &reader.object, sent).await?,
                }
            }
            Joined::Passed(reason, Some(handover)) => {
                let is_error = handover.response.head.status.0 >= 500;
                if let Some(stale) = on_error.filter(|_| is_error) {
                    return Ok(Filled::Stale(stale));
                }
                self.hand_over(reason, handover, fwd).await?;
            }
            Joined::Passed(reason, None) => self.pass_bodiless(rule, reason).await?,
            Joined::Failed(error) => match on_error {
                Some(stale) => return Ok(Filled::Stale(stale)),
                None if self.held.is_some() && self.is_outage(rule, error) => {
                    if let Some(held) = self.held.take() {
                        self.answer_held(rule, &held).await?;
                    }
                }
                // The origin has an answer of its own, which was for the leader.
                None if error == FetchError::BadStatus => {
                    self.pass_bodiless(rule, PassReason::Remembered).await?;
                }
                None => self.failed(error, Some(fwd)).await?,
            },
            Joined::Again => return Ok(Filled::Again),
            Joined::Closed(reason) => return Err(reason),
        }
        Ok(Filled::Answered)
    }

    /// Gets the rest of an answer that is not stored, for this client alone.
    async fn resume(
        &mut self,
        rule: Rule,
        object: &FillObject,
        sent: u64,
    ) -> Result<(), CloseReason> {
        let mut fields = forwarding::request_fields(self.client, self.request, BodyLength::None);
        revalidate::ask_for_whole(&mut fields);
        let rules = self.context.router.rules(rule.rules);
        let asked = rules.key.origin_target(self.request.target.path_and_query());
        let question = forwarding::question_by_get(rule.upstream, &asked, &fields);
        let mut nothing = Received::nothing();
        let mut upload = Whole { client: self.client, body: &mut nothing };
        match forwarding::ask(self.context, &question, &mut upload, self.facts).await {
            Ok(response) => resume::go_on(self.client, object, sent, response).await,
            Err(_) => {
                self.client.abort();
                Err(CloseReason::Incomplete)
            }
        }
    }

    /// What is added to an answer for which the cache did this.
    pub(crate) fn added(&self, status: CacheStatus<'static>) -> Added {
        Added::new(status, self.rules.as_ref(), self.key.as_ref())
    }

    /// Notes how a fill went, and says it in `Cache-Status`.
    pub(crate) fn filled(&mut self, fwd: Fwd, part: &Part, is_stored: bool) -> Added {
        let (stored, collapsed) = (is_stored, part.is_collapsed());
        let status = CacheStatus { stored, collapsed, ..CacheStatus::forward(fwd) };
        let mut added = self.added(status);
        self.facts.verdict = Some(CacheVerdict::Miss);
        if let Part::Led(local) = part {
            added.private = local.private();
            if let Some(Answered { server, status: origin, times }) = local.answered() {
                added.status.fwd_status = Some(origin);
                self.facts.server = Some(server);
                self.facts.connected_us = times.requested.mono_us;
                self.facts.first_byte_us = times.received.mono_us;
            }
            if local.is_revalidated() {
                self.facts.verdict = Some(CacheVerdict::Revalidated);
            }
        }
        added
    }

    pub(crate) async fn hand_over(
        &mut self,
        reason: PassReason,
        handover: Box<Handover>,
        fwd: Fwd,
    ) -> Result<(), CloseReason> {
        let Handover { response, read } = *handover;
        self.facts.verdict = Some(CacheVerdict::Pass(reason));
        self.facts.connected_us = response.times.requested.mono_us;
        self.facts.first_byte_us = response.times.received.mono_us;
        self.facts.server = Some(response.server);
        let detail = Some(reason.word());
        let added = self.added(CacheStatus { detail, ..CacheStatus::forward(fwd) });
        forwarding::relay(self.client, response, read, &added, self.facts).await
    }
}

/// What is there while a fill renews it.
pub(crate) struct OnStale {
    pub(crate) object: Rc<HotObject>,
    /// The same, if it may be served should the fill fail.
    pub(crate) on_error: Option<Rc<HotObject>>,
}

/// What came of a fill.
pub(crate) enum Filled {
    /// The client has its answer.
    Answered,
    /// Look again.
    Again,
    /// The origin failed, and this may be served instead, RFC 5861 section 4.
    Stale(Rc<HotObject>),
}
