//! A fill whose origin says that what is stored is still good, RFC 9111 section 4.3.4.

use std::rc::Rc;

use crate::cache::hot::HotObject;
use crate::cache::insert::NewObject;
use crate::cache::name::Name;
use crate::cache::part_list;
use crate::cache::variants::NewVariant;
use crate::http::forward;
use crate::origin::fetch::Response;
use crate::policy::reason::pass::PassReason;
use crate::policy::rfc9111::revalidate::{self, Renewed};
use crate::policy::rfc9111::rules::SetCookie;
use crate::proxy::fill::{Fill, times};
use crate::proxy::progress::Progress;
use crate::reactor;

impl Fill {
    /// What is stored as a 304 has renewed it, RFC 9111 section 4.3.4.
    ///
    /// # Errors
    /// Why it may not be stored any longer.
    pub(super) fn renewed(
        &self,
        stored: &HotObject,
        response: &Response,
    ) -> Result<NewObject, PassReason> {
        let mut head = response.head.clone();
        head.fields = forward::response_fields(&head, reactor::now());
        let old = (stored.status, &stored.fields, &stored.lifetimes);
        let (asked, rules) = (&self.job.request.fields, &self.job.rules);
        let renewed = revalidate::renew(asked, old, &head, &times(response.times), rules)?;
        let Renewed { mut fields, mut lifetimes, omit } = renewed;
        lifetimes.surrogates =
            self.surrogates(&fields).renewed(&stored.lifetimes.surrogates, &response.head.fields);
        self.keep_private(&mut fields, &omit);
        if rules.set_cookie != SetCookie::Store {
            let mut private = self.local.private();
            head.fields.get_all("set-cookie").for_each(|it| private.push(b"Set-Cookie", it));
            self.local.set_private(private);
        }
        let name = self.job.found.name.clone();
        Ok(NewObject { name, status: stored.status, fields, lifetimes })
    }

    /// The origin says that what is stored under `name` is still good. It is renewed there, and
    /// if that is another variant, it is stored for what the fill's request selects as well.
    pub(super) async fn revalidated(self, new: NewObject, name: Name, stored: &Rc<HotObject>) {
        let mut object = Rc::clone(stored);
        let cache = Rc::clone(&self.lease.cache);
        let lock = match stored.is_part_list() {
            true => part_list::lock(&cache, &new.name).await,
            false => None,
        };
        // A list that has grown meanwhile, or became a whole, is not to be as it was.
        let is_other =
            stored.is_part_list() && (lock.is_none() || cache.has_changed(&self.job.found));
        self.doom_if_purged(&new);
        if !self.lease.is_doomed() && !is_other {
            let note = NewVariant::of(&new);
            let other = (name.key != new.name.key).then(|| NewObject { name, ..new.clone() });
            let mut renewed = self.lease.store_again(new, stored).await;
            if let Some(other) = other
                && renewed.is_ok()
                && let Err(error) = self.lease.store_again(other, stored).await
            {
                renewed = Err(error);
            }
            match renewed {
                Ok(renewed) => object = renewed,
                Err(error) => self.lease.cache.refused(&error),
            }
            self.list(note);
            self.lease.remove_if_doomed(&self.job.found);
        }
        self.local.set_revalidated();
        self.lease.done();
        self.local.set(Progress::Object(object));
    }
}
