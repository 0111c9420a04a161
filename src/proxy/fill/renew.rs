//! A fill that the origin answers with 304, RFC 9111 section 4.3.4.

use std::rc::Rc;

use crate::cache::hot::HotObject;
use crate::cache::insert::NewObject;
use crate::cache::name::Name;
use crate::cache::variants::NewVariant;
use crate::http::forward;
use crate::origin::fetch::Response;
use crate::policy::rfc9111::revalidate::{self, Freshened, Unfreshened};
use crate::policy::rfc9111::rules::SetCookie;
use crate::proxy::fill::{Fill, times};
use crate::proxy::progress::Progress;
use crate::reactor;

impl Fill {
    /// The stored response as a 304 renews it.
    ///
    /// # Errors
    /// Why it has to be fetched as a whole.
    pub(crate) fn renewed(
        &self,
        stored: &HotObject,
        response: &Response,
    ) -> Result<NewObject, Unfreshened> {
        let mut head = response.head.clone();
        head.fields = forward::response_fields(
            &head,
            self.context.via_to(&response.server.destination),
            reactor::now(),
        );
        let old = (stored.status, &stored.fields, &stored.lifetimes);
        let (asked, rules) = (&self.job.request.fields, &self.job.rules);
        let renewed = revalidate::freshen(asked, old, &head, &times(response.times), rules)?;
        let Freshened { mut fields, mut lifetimes, omit } = renewed;
        lifetimes.surrogates =
            self.surrogates(&fields).renewed(&stored.lifetimes.surrogates, &response.head.fields);
        self.keep_private(&mut fields, &omit);
        if rules.set_cookie != SetCookie::Store {
            let mut private = self.local.private.borrow_mut();
            head.fields.get_all("set-cookie").for_each(|it| private.push(b"Set-Cookie", it));
        }
        let name = self.job.found.name.clone();
        Ok(NewObject { name, status: stored.status, fields, lifetimes })
    }

    /// Handles a 304 that confirms the object stored under `name`. The clients that wait are
    /// answered from its body under the new head before anything is written. Then the object gets
    /// its new head; if it is another variant, its body is stored for the fill's request as well.
    pub(crate) async fn revalidated(self, new: NewObject, name: Name, stored: &Rc<HotObject>) {
        let NewObject { name: own, lifetimes, fields, .. } = new.clone();
        let renewed = Rc::new(stored.renewed(own.key, stored.slot, lifetimes, fields));
        self.local.is_revalidated.set(true);
        self.local.set(Progress::Object(renewed));
        reactor::yield_now().await;
        self.doom_if_purged(&new);
        if !self.lease.is_doomed() {
            let note = NewVariant::of(&new);
            let mut written = Ok(());
            if name.key != own.key {
                written = self.lease.copy(new.clone(), stored).await;
            }
            if written.is_ok() {
                written = self.lease.renew(NewObject { name, ..new }, stored).await;
            }
            if let Err(error) = written {
                self.lease.cache.refused(&error);
            }
            self.list(note, None).await;
            self.lease.remove_if_doomed(&self.job.found);
        }
        self.lease.done();
    }
}
