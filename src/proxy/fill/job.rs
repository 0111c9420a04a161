//! The job of a fill: what to ask the origin, and what the cache has already.

use std::rc::Rc;

use crate::cache::found::Found;
use crate::cache::hot::HotObject;
use crate::cache::insert::NewObject;
use crate::cache::name::{Name, PART_STATUS};
use crate::cache::variants::Others;
use crate::cache::worker::Cache;
use crate::http::fields::Fields;
use crate::http::head::RequestHead;
use crate::http::range::Spec;
use crate::http::scheme::Scheme;
use crate::http::status::Status;
use crate::origin::fetch::{Question, Tie};
use crate::policy::fill_request;
use crate::policy::key::Key;
use crate::policy::rfc9111::outage;
use crate::policy::rfc9111::partial::PartialContent;
use crate::policy::rfc9111::rules::Rules;
use crate::proxy::forwarding;
use crate::reactor;
use crate::route::Rule;

/// The job of a fill.
#[derive(Debug)]
pub(crate) struct Job {
    /// The request for the whole response.
    pub whole: Question,
    /// The conditional request, if what is stored has a validator.
    pub conditional: Option<Question>,
    /// The request that led to it.
    pub request: RequestHead,
    /// The look-up that found nothing, or a stale object.
    pub found: Found,
    pub scheme: Scheme,
    /// The purge epoch before the origin is asked.
    pub purge_epoch: u64,
    /// The stored response to revalidate.
    pub stored: Option<Rc<HotObject>>,
    /// Other stored variants, one of which a 304 may confirm.
    pub others: Option<Others>,
    pub rules: Rc<Rules>,
    /// Whether the fill renews something that is stored.
    pub renews: bool,
    /// Whether no client waits: the fill renews an object that is served stale.
    pub is_background: bool,
    /// The part to fetch, unless the whole is fetched.
    pub part: Option<PartJob>,
}

impl Job {
    /// A job that asks for `whole`, with no stored response and for a client that waits.
    pub(crate) fn new(
        whole: Question,
        request: RequestHead,
        found: Found,
        scheme: Scheme,
        purge_epoch: u64,
        rules: Rc<Rules>,
    ) -> Self {
        Self {
            whole,
            conditional: None,
            request,
            found,
            scheme,
            purge_epoch,
            stored: None,
            others: None,
            rules,
            renews: false,
            is_background: false,
            part: None,
        }
    }

    /// The key of its lease. A fill of a part has a key of its own beside that of the whole.
    pub(crate) fn key(&self) -> Key {
        self.part.as_ref().map_or(self.found.name.key, |part| part.key)
    }

    /// Whether the stored response is kept when the origin answers with this status.
    pub(crate) fn outlasts(&self, status: Status) -> bool {
        let Some(stored) = self.found.stored() else { return false };
        let now_s = reactor::now().unix_s();
        stored.status.0 < 500
            && outage::outlasts_error(&stored.lifetimes, status, &self.rules, now_s)
    }

    /// Whether the stored response is fresh, so that only a directive of the request or a rule of
    /// the operator led to the origin. A fill of a part never counts so, because bytes may be
    /// missing.
    pub(crate) fn has_fresh(&self) -> bool {
        let Some(stored) = self.found.stored() else { return false };
        self.part.is_none() && reactor::now().unix_s() < stored.lifetimes.fresh_until_s
    }
}

/// A job before the list of variants is read, which may wait for the disk.
#[derive(Debug)]
pub(crate) struct Draft {
    pub rule: Rule,
    /// The server that the client belongs to.
    pub tie: Tie,
    /// The path and query to ask for.
    pub target: Vec<u8>,
    /// The fields of a request for the whole.
    pub fields: Fields,
    pub request: RequestHead,
    pub found: Found,
    pub scheme: Scheme,
    pub purge_epoch: u64,
    /// The stored response to revalidate.
    pub stored: Option<Rc<HotObject>>,
    pub rules: Rc<Rules>,
}

impl Draft {
    /// The job, which asks about all variants that are stored.
    pub(crate) async fn job(self, cache: &Cache) -> Job {
        let Self { rule, tie, target, mut fields, found, stored, .. } = self;
        let whole = forwarding::question_by_get(&rule, tie.clone(), &target, &fields);
        let others = match &found.marker {
            Some(marker) => Others::of(cache, &found, marker).await,
            None => None,
        };
        let tags = others.as_ref().map(Others::tags).unwrap_or_default();
        let own = stored.as_ref().map(|object| &object.fields);
        let is_conditional = fill_request::condition(&mut fields, own, &tags);
        let conditional =
            is_conditional.then(|| forwarding::question_by_get(&rule, tie, &target, &fields));
        let job = Job::new(whole, self.request, found, self.scheme, self.purge_epoch, self.rules);
        Job { conditional, renews: stored.is_some(), stored, others, ..job }
    }
}

/// The part that a fill is to fetch.
#[derive(Debug)]
pub(crate) struct PartJob {
    /// The key of the lease, beside that of the whole. Other requests for the same part follow this
    /// fill.
    pub key: Key,
    /// What is asked for.
    pub spec: Spec,
    /// How the origin is asked.
    pub ask: PartAsk,
    /// How many fills in a row led to this one, each by what it left missing.
    pub n_before: usize,
    /// The place of the content and the name of its whole, once they are known.
    pub piece: Option<(PartialContent, Name)>,
}

/// How an origin is asked for parts.
#[derive(Clone, Debug)]
pub(crate) struct PartAsk {
    /// The settings of the route.
    pub rule: Rule,
    /// The server that the client belongs to.
    pub tie: Tie,
    /// The path and query.
    pub target: Vec<u8>,
    /// The fields, without any that ask for less than the whole.
    pub fields: Fields,
}

impl PartJob {
    /// The fetch of a part of `whole`, on condition that the whole still has this validator.
    pub(crate) fn new(ask: PartAsk, whole: &Name, spec: Spec, if_range: Option<&[u8]>) -> Self {
        let text = [spec.text().as_bytes(), b"\n", if_range.unwrap_or_default()].concat();
        Self { key: whole.key.beside(&text), spec, ask, n_before: 0, piece: None }
    }
}

impl PartAsk {
    /// The question for a part, on condition that the whole still has this validator.
    pub(crate) fn question(&self, spec: Spec, if_range: Option<&[u8]>) -> Question {
        let mut fields = self.fields.clone();
        fill_request::ask_for_part(&mut fields, spec, if_range);
        forwarding::question_by_get(&self.rule, self.tie.clone(), &self.target, &fields)
    }
}

/// Whether an answer is stored as a part.
pub(crate) fn is_part(new: &NewObject) -> bool {
    new.status == PART_STATUS
}
