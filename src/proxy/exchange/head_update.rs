//! The response of an origin to HEAD renews the stored response to GET, or removes it (RFC 9111
//! section 4.3.5).

use std::rc::Rc;

use crate::cache::Cache;
use crate::cache::found::{Found, Lookup};
use crate::cache::insert::NewObject;
use crate::cache::name::Name;
use crate::cache::ranges::list;
use crate::http::fields::Fields;
use crate::http::forward;
use crate::http::method::Method;
use crate::http::status::Status;
use crate::origin::fetch::Response;
use crate::policy::fill_request;
use crate::policy::purge::surrogate::SurrogateKeys;
use crate::policy::rfc9111::revalidate::{self, Freshened, Unfreshened};
use crate::proxy::client::Client;
use crate::proxy::exchange::Exchange;
use crate::proxy::fill;
use crate::reactor;

impl<C: Client> Exchange<'_, C> {
    /// The cache, if the request has this method and its response may change what is stored for all
    /// clients. It may not if the origin may have used a field that the key does not hold, or if
    /// the request is to pass.
    pub(crate) fn updates(&self, method: Method) -> Option<Rc<Cache>> {
        let cache = self.context.cache.as_ref().filter(|_| self.route.rule.cache)?;
        let rules = &self.route.rules;
        let may_update = self.request.method == method
            && !fill_request::has_unkeyed(self.request, &rules.key)
            && rules.may_look_up(self.request).is_ok();
        may_update.then(|| Rc::clone(cache))
    }

    /// Looks up what a GET of the same target would find.
    pub(crate) async fn found_for_get(&self, cache: &Cache) -> Found {
        let key = &self.route.rules.key;
        let primary = Name::of_request(key, self.client.front().scheme, self.request);
        cache.find(key, &primary, self.request).await
    }

    pub(crate) fn surrogates(&self, fields: &Fields, purge_epoch: u64) -> SurrogateKeys {
        let (scheme, authority) = (self.client.front().scheme, self.request.authority());
        SurrogateKeys::of(fields, scheme, authority, purge_epoch)
    }

    /// Renews the stored response by the response to a HEAD, or removes it if both contradict each
    /// other.
    pub(crate) async fn renew_by_head(&self, response: &Response, purge_epoch: u64) {
        let is_as_get =
            response.head.status == Status(200) && fill_request::is_as_get(self.request);
        let Some(cache) = self.updates(Method::Head).filter(|_| is_as_get) else { return };
        let rules = &self.route.rules;
        let found = self.found_for_get(&cache).await;
        let (stored, length) = match &found.lookup {
            Lookup::Stored(object) => (object, Some(object.body_len)),
            Lookup::Parts { object, list } => (object, list.length()),
            Lookup::Miss { .. } | Lookup::HitForMiss | Lookup::Unreadable => return,
        };
        let mut head = response.head.clone();
        head.fields = forward::response_fields(
            &head,
            self.context.via_to(&response.server.destination),
            reactor::now(),
        );
        let is_same = revalidate::confirms_by_head(stored.status, &stored.fields, length, &head);
        // A list of parts is renewed when a part is fetched.
        if is_same && stored.status != Status(200) {
            return;
        }
        let lease = cache.lead_or_follow(&found, &found.name.key, purge_epoch).lead();
        let Some(lease) = lease else { return };
        if !is_same {
            return match found.parts() {
                Some((object, list)) => list::remove(&cache, &found.name, object, list).await,
                None => cache.remove(&found.name.key),
            };
        }
        let old = (stored.status, &stored.fields, &stored.lifetimes);
        let (asked, times) = (&self.request.fields, fill::times(response.times));
        match revalidate::freshen(asked, old, &head, &times, rules) {
            Ok(Freshened { mut fields, mut lifetimes, omit }) => {
                let surrogates = self.surrogates(&fields, purge_epoch);
                lifetimes.surrogates =
                    surrogates.renewed(&stored.lifetimes.surrogates, &head.fields);
                omit.apply(&mut fields);
                let name = found.name.clone();
                let new = NewObject { name, status: stored.status, fields, lifetimes };
                let renewed = lease.renew(new, stored).await;
                lease.stored(&found, renewed);
            }
            Err(Unfreshened::Outdated) => cache.remove(&found.name.key),
            Err(Unfreshened::Private) => {}
        }
    }
}
