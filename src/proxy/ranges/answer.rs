//! Answers from parts, as a part of an exchange.
//!
//! ```text
//! Range, and nothing there ─▶ the part is fetched, and stored as such
//! parts there ─┬─ all that is asked for ──────▶ answered from them
//!              ├─ some, under one validator ──▶ answered from them and what is fetched between
//!              └─ none of use ────────────────▶ the part, or the whole, is fetched
//! ```

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use crate::cache::Cache;
use crate::cache::fills::state::FillState;
use crate::cache::found::{Found, Lookup};
use crate::cache::hot::HotObject;
use crate::cache::name::Name;
use crate::cache::ranges::list::{self};
use crate::http::byteranges::ByteRanges;
use crate::http::content_range::ContentRange;
use crate::http::fields::Fields;
use crate::http::head::BodyLength;
use crate::http::method::Method;
use crate::http::range::Spec;
use crate::http::status::Status;
use crate::origin::fetch::Question;
use crate::policy::cache_status::{CacheStatus, CacheVerdict, Way};
use crate::policy::decide::Action;
use crate::policy::fill_request;
use crate::policy::reason::close::CloseReason;
use crate::policy::reason::forward::Fwd;
use crate::policy::reason::pass::PassReason;
use crate::policy::rfc9111::partial::{self, Form, Plan};
use crate::policy::rfc9111::parts::PartList;
use crate::policy::rfc9111::reuse;
use crate::policy::rfc9111::revalidate;
use crate::policy::rfc9111::rules::Rules;
use crate::proxy::added::{Added, start};
use crate::proxy::client::Client;
use crate::proxy::exchange::{Exchange, Filled, OnStale};

use crate::cache::ranges::pieces::{self, Item};
use crate::proxy::fill;
use crate::proxy::fill::job::Job;
use crate::proxy::fill::part_job::{PartAsk, PartJob};
use crate::proxy::forwarding;
use crate::proxy::stored;
use crate::reactor;

/// A part that begins no further than this behind what a fill of the whole has written is waited
/// for there.
const FOLLOW_BYTES: u64 = 1 << 20;

/// What an exchange has at hand while it answers from parts.
pub(crate) struct Parted<'a> {
    pub(crate) cache: &'a Rc<Cache>,
    pub(crate) found: &'a Found,
    pub(crate) object: &'a Rc<HotObject>,
    pub(crate) list: PartList,
}

impl<C: Client> Exchange<'_, C> {
    /// Answers from parts, or fetches one; `None` if that is not what the request is about.
    pub(crate) async fn in_parts(
        &mut self,
        cache: &Rc<Cache>,
        found: &Found,
        action: Action,
    ) -> Result<Option<Filled>, CloseReason> {
        match (&found.lookup, action) {
            (_, Action::NotCached | Action::Pass(_)) => Ok(None),
            (Lookup::Stored(object), _) if object.is_part_list() => {
                let Some(list) = list::read(object) else {
                    list::forget(cache, &found.name, object);
                    return Ok(Some(Filled::Again));
                };
                let parted = Parted { cache, found, object, list };
                Box::pin(self.answer_by_list(parted, action)).await.map(Some)
            }
            (Lookup::Miss { .. }, Action::Fill { fwd, .. }) => {
                let spec = self.requested_part();
                let Some(spec) =
                    spec.filter(|spec| !is_followed(cache, &self.route.rules, found, *spec))
                else {
                    return Ok(None);
                };
                let if_range = self.request.fields.get("if-range");
                let job = self.part_job(found, spec, if_range);
                Box::pin(self.fill_by(cache, job, None, fwd)).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Answers with a list that a 304 has renewed.
    pub(crate) async fn answer_renewed(
        &mut self,
        cache: &Rc<Cache>,
        name: &Name,
        object: &Rc<HotObject>,
        added: &Added,
    ) -> Result<Filled, CloseReason> {
        let Some(mut list) = list::read(object) else { return Ok(Filled::Again) };
        let plan = partial::plan(self.request, &object.fields, &list);
        self.answer_by_parts(cache, name, object, &mut list, &plan, added).await
    }

    /// The part that a request asks for, if it is to be fetched as such.
    fn requested_part(&self) -> Option<Spec> {
        partial::requested_part(self.request, &self.route.rules)
    }

    async fn answer_by_list(
        &mut self,
        mut parted: Parted<'_>,
        action: Action,
    ) -> Result<Filled, CloseReason> {
        let (cache, found, object) = (parted.cache, parted.found, parted.object);
        let plan = partial::plan(self.request, &object.fields, &parted.list);
        let (verdict, ttl_s) = match action {
            Action::Answer { verdict, ttl_s, refreshes } => {
                if refreshes {
                    self.refresh_parts(&parted);
                }
                (verdict, ttl_s)
            }
            Action::Fill { fwd, may_serve_on_error } => {
                return self.validate(parted, &plan, fwd, may_serve_on_error).await;
            }
            Action::NotCached | Action::Pass(_) => return Ok(Filled::Again),
        };
        self.facts.verdict = Some(verdict);
        let added = self.added(CacheStatus::hit(ttl_s));
        let name = &found.name;
        match self.answer_by_parts(cache, name, object, &mut parted.list, &plan, &added).await? {
            Filled::Answered => Ok(Filled::Answered),
            _ if reuse::wants_only_cached(self.request) => {
                self.not_cached().await.map(|()| Filled::Answered)
            }
            _ => self.complete(parted, &plan).await,
        }
    }

    /// Asks behind the answer whether parts are still good, and for no more than a part of what
    /// has taken their place.
    fn refresh_parts(&self, parted: &Parted<'_>) {
        let &Parted { cache, found, object, ref list } = parted;
        let sample =
            list.sample(self.route.rules.fetch_whole_bytes).filter(|_| self.route.rules.parts);
        let Some(spec) = sample else { return self.refresh(cache, found, object) };
        let mut job = self.part_job(found, spec, None);
        job.conditional = condition(&job, &object.fields);
        job.stored = Some(Rc::clone(object));
        job.is_background = true;
        let lease = cache.lead_or_follow(found, &job.key(), job.purge_epoch).lead();
        if let Some(lease) = lease {
            fill::start(self.context, lease, job);
        }
    }

    /// Asks the origin whether parts are still good, unless a question for what is missing tells.
    async fn validate(
        &mut self,
        mut parted: Parted<'_>,
        plan: &Plan,
        fwd: Fwd,
        may_serve_on_error: bool,
    ) -> Result<Filled, CloseReason> {
        let (cache, found) = (parted.cache, parted.found);
        let object = Rc::clone(parted.object);
        if let Plan::Bytes(_, ranges) = plan
            && pieces::load(cache, &found.name, &mut parted.list, ranges)
                .await
                .iter()
                .flatten()
                .any(pieces::is_missing)
        {
            return self.complete(parted, plan).await;
        }
        let on_error = may_serve_on_error.then(|| Rc::clone(&object));
        let filled = match self.requested_part() {
            Some(spec) => {
                let mut job = self.part_job(found, spec, None);
                job.conditional = condition(&job, &object.fields);
                job.stored = Some(Rc::clone(&object));
                self.fill_by(cache, job, on_error, fwd).await?
            }
            None => {
                let stale = OnStale { object: Rc::clone(&object), on_error };
                self.fill(cache, found.clone(), Some(stale), fwd).await?
            }
        };
        let Filled::Stale(_) = filled else { return Ok(filled) };
        let fresh_until_s = object.lifetimes.fresh_until_s.cast_signed();
        let ttl_s = fresh_until_s - reactor::now().unix_s().cast_signed();
        self.facts.verdict = Some(CacheVerdict::Stale);
        let added = self.added(CacheStatus::hit(ttl_s));
        self.answer_by_parts(cache, &found.name, &object, &mut parted.list, plan, &added).await
    }

    /// Answers from stored parts alone; [`Filled::Again`] if that cannot be.
    async fn answer_by_parts(
        &mut self,
        cache: &Rc<Cache>,
        name: &Name,
        object: &Rc<HotObject>,
        list: &mut PartList,
        plan: &Plan,
        added: &Added,
    ) -> Result<Filled, CloseReason> {
        let age_s = object.age_s(reactor::now().unix_s());
        match plan {
            Plan::Unknown => return Ok(Filled::Again),
            Plan::NotModified => {
                let fields = stored::not_modified(&object.fields, age_s, added);
                stored::whole(self.client, Status(304), fields, b"", added, self.facts).await?;
            }
            Plan::Unsatisfiable(length) => {
                stored::unsatisfiable(self.client, *length, added, self.facts).await?;
            }
            Plan::Bytes(form, ranges) => {
                let items = match self.client.wants_no_body() {
                    true => Vec::new(),
                    false => pieces::load(cache, name, list, ranges).await,
                };
                if items.iter().flatten().any(pieces::is_missing) {
                    return Ok(Filled::Again);
                }
                let fields = stored::stored_fields(&object.fields, age_s, added);
                for item in self.begin(*form, ranges, fields, list, items, added) {
                    match item {
                        Item::Text(text) => self.client.push(&text),
                        Item::Stored(part, range) => {
                            stored::send_range(self.client, &part, range).await?;
                        }
                        Item::Missing(_) => {}
                    }
                }
                self.client.finish(&Fields::new()).await?;
            }
        }
        if added.status.way == Way::Hit {
            self.facts.hit = Some(Rc::clone(object));
        }
        Ok(Filled::Answered)
    }

    /// Begins an answer, and gives what its body is made of.
    pub(crate) fn begin(
        &mut self,
        form: Form,
        ranges: &[Range<u64>],
        mut fields: Fields,
        list: &PartList,
        items: Vec<Vec<Item>>,
        added: &Added,
    ) -> VecDeque<Item> {
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let (status, length) = match form {
            Form::Whole => (Status(200), bytes),
            Form::One => {
                let range = ranges.first().cloned().unwrap_or_default();
                let place = ContentRange { range, complete: list.length() };
                fields.set("Content-Range", place.text().as_bytes());
                (Status(206), bytes)
            }
            Form::Several => {
                let complete = list.length().unwrap_or_default();
                let mark = stored::unguessable();
                let around = ByteRanges::new(ranges, complete, fields.get("content-type"), mark);
                fields.set("Content-Type", around.content_type.as_bytes());
                let length = BodyLength::Known(around.length);
                start(self.client, Status(206), fields, length, added, self.facts);
                let heads = around.heads.into_iter().map(Item::Text);
                let body =
                    heads.zip(items).flat_map(|(head, items)| [head].into_iter().chain(items));
                return body.chain([Item::Text(around.end)]).collect();
            }
        };
        start(self.client, status, fields, BodyLength::Known(length), added, self.facts);
        items.into_iter().flatten().collect()
    }

    /// Fetches what the request asks for, as if nothing were there.
    pub(crate) async fn anew(&mut self, parted: Parted<'_>) -> Result<Filled, CloseReason> {
        let (cache, found) = (parted.cache, parted.found);
        if self.request.method == Method::Head {
            return self.pass_bodiless(PassReason::Method).await.map(|()| Filled::Answered);
        }
        let is_small =
            parted.list.length().is_some_and(|it| it <= self.route.rules.fetch_whole_bytes);
        match self.requested_part().filter(|_| !is_small) {
            Some(spec) => {
                let if_range = self.request.fields.get("if-range");
                let job = self.part_job(found, spec, if_range);
                self.fill_by(cache, job, None, Fwd::Partial).await
            }
            None => self.fill(cache, found.clone(), None, Fwd::Partial).await,
        }
    }

    /// What a fetch of a part is to do.
    pub(crate) fn part_job(&self, found: &Found, spec: Spec, if_range: Option<&[u8]>) -> Job {
        let rules = &self.route.rules;
        let target = rules.key.origin_target(self.request.target.path_and_query()).into_owned();
        let fields = fill_request::fill_fields(
            self.request,
            &forwarding::peer(self.client, self.request),
            &rules.key,
        );
        let ask = PartAsk { upstream: self.route.rule.upstream, target, fields };
        let key = ask.key(&found.name, spec, if_range);
        Job {
            whole: ask.question(spec, if_range),
            conditional: None,
            request: self.request.clone(),
            found: found.clone(),
            scheme: self.client.front().scheme,
            purge_epoch: self.purge_epoch(),
            stored: None,
            others: None,
            rules: Rc::clone(rules),
            renews: false,
            is_background: false,
            part: Some(PartJob { key, spec, ask, n_before: 0, piece: None }),
        }
    }
}

/// The question whether parts are still good, for a fetch of one of them.
fn condition(job: &Job, stored: &Fields) -> Option<Question> {
    let part = job.part.as_ref()?;
    let mut ask = part.ask.clone();
    revalidate::condition(&mut ask.fields, Some(stored), &[]).then(|| ask.question(part.spec, None))
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
