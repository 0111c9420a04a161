//! What a fill is to do, and what of that the cache has already.

use std::rc::Rc;

use crate::cache::found::Found;
use crate::cache::hot::HotObject;
use crate::cache::variants::Others;
use crate::http::head::RequestHead;
use crate::http::scheme::Scheme;
use crate::http::status::Status;
use crate::origin::fetch::Question;
use crate::policy::key::Key;
use crate::policy::rfc9111::outage;
use crate::policy::rfc9111::rules::Rules;

use crate::proxy::fill::part_job::PartJob;
use crate::reactor;

/// What a fill is to do.
#[derive(Debug)]
pub(crate) struct Job {
    /// What to ask for the whole response.
    pub whole: Question,
    /// What to ask for what is to be revalidated, if it has a validator.
    pub conditional: Option<Question>,
    /// The request that led to it.
    pub request: RequestHead,
    /// Where the cache was found empty or stale.
    pub found: Found,
    /// Of the request, `http` or `https`.
    pub scheme: Scheme,
    /// The last purge before the origin is asked.
    pub purge_epoch: u64,
    /// What is to be revalidated.
    pub stored: Option<Rc<HotObject>>,
    /// What is stored beside it, or instead of it, and may turn out to be the answer.
    pub others: Option<Others>,
    /// The operator's rules.
    pub rules: Rc<Rules>,
    /// Something is stored that the fill renews.
    pub renews: bool,
    /// Nobody waits for it: it renews what is being served stale.
    pub is_background: bool,
    /// A part is asked for.
    pub part: Option<PartJob>,
}

impl Job {
    /// The key of its lease: what is asked for otherwise than the whole is led beside that.
    pub(crate) fn key(&self) -> Key {
        self.part.as_ref().map_or(self.found.name.key, |part| part.key)
    }

    /// Whether what is stored keeps its place when the origin answers with this status.
    pub(crate) fn outlasts(&self, status: Status) -> bool {
        let Some(stored) = self.found.object() else { return false };
        let now_s = reactor::now().unix_s();
        stored.status.0 < 500
            && outage::outlasts_error(&stored.lifetimes, status, &self.rules, now_s)
    }

    /// Whether what is stored is fresh, so that the wish of the client, or the operator's for such
    /// requests, is all that led to the origin. Of what is stored in parts, some may be missing.
    pub(crate) fn has_fresh(&self) -> bool {
        let Some(stored) = self.found.object() else { return false };
        self.part.is_none() && reactor::now().unix_s() < stored.lifetimes.fresh_until_s
    }
}
