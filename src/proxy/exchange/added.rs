//! The fields that an answer of an exchange gets, and how the cache took part in it.

use std::rc::Rc;

use crate::policy::cache_status::{CacheStatus, CacheVerdict};
use crate::policy::reason::forward::Fwd;
use crate::proxy::client::Client;
use crate::proxy::exchange::Exchange;
use crate::proxy::fill::join::FillRole;
use crate::proxy::progress::Answered;
use crate::proxy::respond::Added;

impl<C: Client> Exchange<'_, C> {
    /// The fields that are added to an answer with this `Cache-Status`.
    pub(crate) fn added(&self, status: CacheStatus<'static>) -> Added {
        self.added_with(status, self.route.told_key())
    }

    /// As [`Self::added`], with this key or none.
    pub(crate) fn added_with(&self, status: CacheStatus<'static>, key: Option<&Rc<[u8]>>) -> Added {
        let added = Added::new(status, Some(&self.route.rules), key);
        added.changed_by(self.route.changed.as_ref(), &self.context.config)
    }

    /// Notes in the facts how a fill went, and gives the `Cache-Status` that says so.
    pub(crate) fn filled(&mut self, fwd: Fwd, role: &FillRole, is_stored: bool) -> Added {
        let (stored, collapsed) = (is_stored, role.is_collapsed());
        let status = CacheStatus { stored, collapsed, ..CacheStatus::forward(fwd) };
        let mut added = self.added(status);
        self.facts.verdict = Some(CacheVerdict::Miss);
        if let FillRole::Led(local) = role {
            added.private = local.private.borrow().clone();
            if let Some(Answered { server, status: origin, times }) =
                local.answered.borrow().clone()
            {
                added.status.fwd_status = Some(origin);
                self.facts.server = Some(server);
                self.facts.fetched(&times);
            }
            if local.is_revalidated.get() {
                self.facts.verdict = Some(CacheVerdict::Revalidated);
            }
        }
        added
    }
}
