//! The job of a fill: what to ask the origin, and what the cache has already.

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
