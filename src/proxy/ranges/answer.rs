//! Answers from parts, as a part of an exchange.
//!
//! ```text
//! Range, and nothing there ─▶ the part is fetched, and stored as such
//! parts there ─┬─ all that is asked for ──────▶ answered from them
//!              ├─ some, under one validator ──▶ answered from them and what is fetched between
//!              └─ none of use ────────────────▶ the part, or the whole, is fetched
//! ```

use std::rc::Rc;

use crate::cache::Cache;
use crate::cache::fills::entry::FillState;
use crate::cache::found::{Found, Lookup};
use crate::cache::hot::HotObject;
use crate::cache::lookup;
use crate::cache::ranges::pieces;
use crate::http::method::Method;
use crate::http::range::Spec;
use crate::http::status::Status;
use crate::policy::cache_status::{CacheStatus, CacheVerdict, Handling};
use crate::policy::decide::{self, Action};
use crate::policy::fill_request;
use crate::policy::reason::close::CloseReason;
use crate::policy::reason::forward::Fwd;
use crate::policy::reason::pass::PassReason;
use crate::policy::rfc9111::partial::{self, Plan};
use crate::policy::rfc9111::parts::PartList;
use crate::policy::rfc9111::rules::Rules;
use crate::proxy::client::Client;
use crate::proxy::exchange::{self, Exchange, Filled, OnStale};
use crate::proxy::fill;
use crate::proxy::fill::job::{Job, PartAsk, PartJob};
use crate::proxy::forwarding;
use crate::proxy::respond::{self, Added};
use crate::reactor;

/// A part that begins no further than this behind what a fill of the whole has written is waited
/// for there.
const FOLLOW_BYTES: u64 = 1 << 20;

/// The stored parts that may answer a request.
pub(crate) struct Parted<'a> {
    pub(crate) cache: &'a Rc<Cache>,
    pub(crate) found: &'a Found,
    /// The object that lists the parts.
    pub(crate) object: &'a Rc<HotObject>,
    pub(crate) list: PartList,
    pub(crate) plan: Plan,
}

impl<C: Client> Exchange<'_, C> {
    /// Answers from stored parts, or fetches the part that is requested if nothing is stored;
    /// `None` if the request is answered without parts.
    pub(crate) async fn answer_from_parts(
        &mut self,
        cache: &Rc<Cache>,
        found: &Found,
        action: Action,
    ) -> Result<Option<Filled>, CloseReason> {
        match (&found.lookup, action) {
            (Lookup::Parts { object, list }, Action::Answer { verdict, ttl_s, refreshes }) => {
                let parted = self.parted(cache, found, object, list.clone());
                if refreshes {
                    self.refresh_parts(&parted);
                }
                Box::pin(self.hit_parts(parted, verdict, ttl_s)).await.map(Some)
            }
            (Lookup::Parts { object, list }, Action::Fill { fwd, may_serve_on_error }) => {
                let parted = self.parted(cache, found, object, list.clone());
                Box::pin(self.validate(parted, fwd, may_serve_on_error)).await.map(Some)
            }
            (Lookup::Miss { .. }, Action::Fill { fwd, .. }) => {
                let rules = &self.route.rules;
                let spec = partial::requested_part(self.request, rules)
                    .filter(|spec| !is_followed(cache, rules, found, *spec));
                let Some(spec) = spec else { return Ok(None) };
                let job = self.part_job(found, spec, self.request.fields.get("if-range"));
                Box::pin(self.fill_by(cache, job, None, fwd)).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Answers from parts that a 304 has renewed.
    pub(crate) async fn answer_renewed(
        &mut self,
        cache: &Rc<Cache>,
        found: &Found,
        object: &Rc<HotObject>,
        added: &Added,
    ) -> Result<Filled, CloseReason> {
        let Ok(Some(list)) = lookup::part_list(object).await else { return Ok(Filled::Again) };
        let mut parted = self.parted(cache, found, object, list);
        self.answer_by_parts(&mut parted, added).await
    }

    fn parted<'a>(
        &self,
        cache: &'a Rc<Cache>,
        found: &'a Found,
        object: &'a Rc<HotObject>,
        list: PartList,
    ) -> Parted<'a> {
        let plan = partial::plan(self.request, &object.fields, &list);
        Parted { cache, found, object, list, plan }
    }

    async fn hit_parts(
        &mut self,
        mut parted: Parted<'_>,
        verdict: CacheVerdict,
        ttl_s: i64,
    ) -> Result<Filled, CloseReason> {
        self.facts.verdict = Some(verdict);
        let added = self.added(CacheStatus::hit(ttl_s));
        match self.answer_by_parts(&mut parted, &added).await? {
            Filled::Answered => Ok(Filled::Answered),
            _ if decide::wants_only_cached(self.request) => {
                self.not_cached().await.map(|()| Filled::Answered)
            }
            _ => self.complete(parted).await,
        }
    }

    /// Asks behind the answer whether parts are still good, and for no more than a part of what
    /// has taken their place.
    fn refresh_parts(&self, parted: &Parted<'_>) {
        let &Parted { cache, found, object, ref list, .. } = parted;
        let rules = &self.route.rules;
        let Some(spec) = list.sample(rules.fetch_whole_bytes).filter(|_| rules.parts) else {
            return self.refresh(cache, found, object);
        };
        let mut job = self.validating_job(parted, spec);
        job.is_background = true;
        if let Some(lease) = cache.lead_or_follow(found, &job.key(), job.purge_epoch).lead() {
            fill::start(self.context, lease, job);
        }
    }

    /// Asks the origin whether parts are still good, unless the request for missing bytes tells.
    async fn validate(
        &mut self,
        mut parted: Parted<'_>,
        fwd: Fwd,
        may_serve_on_error: bool,
    ) -> Result<Filled, CloseReason> {
        let (cache, found, object) = (parted.cache, parted.found, parted.object);
        if let Plan::Bytes(_, ranges) = &parted.plan
            && pieces::has_missing(
                &pieces::load(cache, &found.name, &mut parted.list, ranges).await,
            )
        {
            return self.complete(parted).await;
        }
        let on_error = may_serve_on_error.then(|| Rc::clone(object));
        let filled = match partial::requested_part(self.request, &self.route.rules) {
            Some(spec) => {
                let job = self.validating_job(&parted, spec);
                self.fill_by(cache, job, on_error, fwd).await?
            }
            None => {
                let stale = OnStale { object: Rc::clone(object), on_error };
                self.fill(cache, found.clone(), Some(stale), fwd).await?
            }
        };
        let Filled::Stale(_, failure) = filled else { return Ok(filled) };
        self.facts.verdict = Some(CacheVerdict::Stale);
        let added = self.added(failure.status(exchange::ttl_s(object)));
        self.answer_by_parts(&mut parted, &added).await
    }

    /// Answers from stored parts alone; [`Filled::Again`] if that cannot be.
    async fn answer_by_parts(
        &mut self,
        parted: &mut Parted<'_>,
        added: &Added,
    ) -> Result<Filled, CloseReason> {
        let (cache, found, object) = (parted.cache, parted.found, parted.object);
        let age_s = object.age_s(reactor::now().unix_s());
        match &parted.plan {
            Plan::Unknown => return Ok(Filled::Again),
            Plan::NotModified => {
                let fields = respond::not_modified(&object.fields, age_s, added);
                respond::whole(self.client, Status(304), fields, b"", added, self.facts).await?;
            }
            Plan::Unsatisfiable(length) => {
                respond::unsatisfiable(self.client, *length, added, self.facts).await?;
            }
            Plan::Bytes(_, ranges) => {
                let items = match self.client.wants_no_body() {
                    true => Vec::new(),
                    false => pieces::load(cache, &found.name, &mut parted.list, ranges).await,
                };
                if pieces::has_missing(&items) {
                    return Ok(Filled::Again);
                }
                let fields = respond::stored_fields(&object.fields, age_s, added);
                self.assemble(parted, fields, items, None, added).await?;
            }
        }
        if added.status.handling == Handling::Hit {
            self.facts.hit = Some(Rc::clone(object));
        }
        Ok(Filled::Answered)
    }

    /// Fetches what is requested as if no parts were stored.
    pub(crate) async fn fetch_requested(
        &mut self,
        parted: &Parted<'_>,
    ) -> Result<Filled, CloseReason> {
        let &Parted { cache, found, ref list, .. } = parted;
        if self.request.method == Method::Head {
            return self.pass_bodiless(PassReason::Method).await.map(|()| Filled::Answered);
        }
        let rules = &self.route.rules;
        let is_small = list.length().is_some_and(|length| length <= rules.fetch_whole_bytes);
        match partial::requested_part(self.request, rules).filter(|_| !is_small) {
            Some(spec) => {
                let job = self.part_job(found, spec, self.request.fields.get("if-range"));
                self.fill_by(cache, job, None, Fwd::Partial).await
            }
            None => self.fill(cache, found.clone(), None, Fwd::Partial).await,
        }
    }

    /// The fetch of a part that a 304 can answer for all stored parts.
    fn validating_job(&self, parted: &Parted<'_>, spec: Spec) -> Job {
        let mut job = self.part_job(parted.found, spec, None);
        if let Some(part) = &job.part {
            let mut ask = part.ask.clone();
            let fields = Some(&parted.object.fields);
            job.conditional = fill_request::condition(&mut ask.fields, fields, &[])
                .then(|| ask.question(spec, None));
        }
        job.stored = Some(Rc::clone(parted.object));
        job
    }

    /// The job of fetching a part.
    pub(crate) fn part_job(&self, found: &Found, spec: Spec, if_range: Option<&[u8]>) -> Job {
        let rules = &self.route.rules;
        let target = rules.key.origin_target(self.request.target.path_and_query()).into_owned();
        let fields = fill_request::fill_fields(
            self.request,
            &forwarding::peer(self.context, self.client, self.request),
            &rules.key,
        );
        let ask =
            PartAsk { rule: self.route.rule.clone(), tie: self.tie_of_fill(), target, fields };
        let part = PartJob::new(ask, &found.name, spec, if_range);
        let whole = part.ask.question(spec, if_range);
        let (scheme, purge_epoch) = (self.client.front().scheme, self.purge_epoch());
        let (request, rules) = (self.request.clone(), Rc::clone(rules));
        let job = Job::new(whole, request, found.clone(), scheme, purge_epoch, rules);
        Job { part: Some(part), ..job }
    }
}

/// Whether a fill of the whole is under way that brings this part soon.
fn is_followed(cache: &Cache, rules: &Rules, found: &Found, spec: Spec) -> bool {
    match cache.fill_state(&found.name.key) {
        Some(FillState::Streaming { bytes, total: Some(total) }) => {
            let start = spec.within(total).map_or(0, |range| range.start);
            total <= rules.fetch_whole_bytes || start <= bytes.saturating_add(FOLLOW_BYTES)
        }
        Some(FillState::Fetching | FillState::Streaming { total: None, .. }) => true,
        _ => false,
    }
}
