//! What an answer that went round the cache does for it.
//!
//! The answer to a POST may be what a GET would have (RFC 9110 section 9.3.3), and is then stored.
//! The answer to a HEAD tells what the head of a stored GET's answer would be now (RFC 9111
//! section 4.3.5): what is stored is renewed by it, or no longer used.

use std::io;
use std::rc::Rc;

use crate::cache::fills::{FillAt, Lease};
use crate::cache::hot::MEMORY_BODY_MAX;
use crate::http::fields::Fields;
use crate::http::forward;
use crate::http::head::BodyLength;
use crate::http::method::Method;
use crate::http::status::Status;
use crate::policy::purge::surrogate::SurrogateKeys;
use crate::policy::rfc9111::keep::{self, Keep};
use crate::policy::rfc9111::post;
use crate::policy::rfc9111::revalidate::{self, Renewed};
use crate::policy::rfc9111::rules::Rules;
use crate::proxy::client::Client;
use crate::proxy::context::CacheSide;
use crate::proxy::exchange::Exchange;
use crate::proxy::failure::FetchError;
use crate::proxy::fetch::Response;
use crate::proxy::fill;
use crate::proxy::lease;
use crate::proxy::lookup::{self, Found, What};
use crate::proxy::part_list;
use crate::proxy::pass;
use crate::proxy::shelf::{Entry, Shelf};
use crate::proxy::variants::Note;
use crate::reactor;
use crate::route::Rule;

/// A larger object is not written anew for what a HEAD says of it; a conditional GET will renew it.
const RENEWED_BYTES_MAX: u64 = 1 << 20;

/// What was done with an answer before it goes to the client.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    /// What was read of its body.
    pub(super) read: Vec<u8>,
    /// It is stored now.
    pub(super) is_stored: bool,
}

impl<C: Client> Exchange<'_, C> {
    /// Stores or renews what the answer to a POST or HEAD speaks of.
    ///
    /// # Errors
    /// The body of a POST's answer, which nothing has been sent of yet, broke off.
    pub(super) async fn adopt(
        &mut self,
        cache: &Rc<CacheSide>,
        rule: Rule,
        response: &mut Response,
        purge_epoch: u64,
    ) -> Result<Adopted, FetchError> {
        let rules = Rc::clone(self.context.router.rules(rule.rules));
        // What an origin may heed and the key does not hold would be stored for everybody, and what
        // is to pass leaves nothing behind.
        if pass::has_unkeyed(self.request, &rules.key) || rules.may_look_up(self.request).is_err() {
            return Ok(Adopted::default());
        }
        match self.request.method {
            Method::Post => self.adopt_post(cache, &rules, response, purge_epoch).await,
            Method::Head if response.head.status == Status(200) => {
                self.renew_by_head(cache, &rules, response, purge_epoch).await;
                Ok(Adopted::default())
            }
            _ => Ok(Adopted::default()),
        }
    }

    /// What purges can name it by if a response with these fields is stored.
    fn surrogates(&self, fields: &Fields, purge_epoch: u64) -> SurrogateKeys {
        let (scheme, authority) = (self.client.scheme(), self.request.authority());
        SurrogateKeys::of(fields, scheme.as_bytes(), authority, purge_epoch)
    }

    async fn adopt_post(
        &mut self,
        cache: &Rc<CacheSide>,
        rules: &Rules,
        response: &mut Response,
        purge_epoch: u64,
    ) -> Result<Adopted, FetchError> {
        let mut adopted = Adopted::default();
        let bytes_max = MEMORY_BODY_MAX.min(rules.object_bytes_max).min(cache.object_bytes_max);
        let is_small = matches!(response.head.length, BodyLength::Known(len) if len <= bytes_max);
        let scheme = self.client.scheme();
        if !is_small || !post::answers_get(scheme.as_bytes(), self.request, &response.head, rules) {
            return Ok(adopted);
        }
        let mut fields = forward::response_fields(&response.head, reactor::now());
        let (asked, times) = (&self.request.fields, fill::times(response.times));
        let kept = keep::judge(Method::Get, asked, Status(200), &fields, &times, rules);
        let Keep::Store { mut lifetimes, omit } = kept else { return Ok(adopted) };
        lifetimes.surrogates = self.surrogates(&fields, purge_epoch);
        let found = lookup::look_up(cache, &rules.key, scheme, self.request).await;
        // Whoever asks by GET from now on waits for this, and what invalidates it is noted.
        let Some(leased) = Leased::of(cache, &found, purge_epoch) else { return Ok(adopted) };
        while response.body.next(&mut adopted.read).await? {}
        fields.remove("age");
        omit.apply(&mut fields);
        let shelf = leased.shelf();
        let stored = shelf.place(&found, asked, &lifetimes).and_then(|name| {
            let entry = Entry { name, status: Status(200), fields, lifetimes };
            let note = Note::of(&entry);
            shelf.store(entry, &adopted.read)?;
            note.map_or(Ok(()), |note| note.enter(&shelf))
        });
        adopted.is_stored = leased.end(&found, stored);
        Ok(adopted)
    }

    async fn renew_by_head(
        &self,
        cache: &Rc<CacheSide>,
        rules: &Rules,
        response: &Response,
        purge_epoch: u64,
    ) {
        let found = lookup::look_up(cache, &rules.key, self.client.scheme(), self.request).await;
        let What::Object(stored) = &found.what else { return };
        let mut head = response.head.clone();
        head.fields = forward::response_fields(&head, reactor::now());
        let is_list = part_list::is_list(stored);
        let length = match is_list {
            true => part_list::read(stored).and_then(|list| list.length()),
            false => Some(stored.body_len),
        };
        let is_same = revalidate::confirms_by_head(stored.status, &stored.fields, length, &head);
        // A list is renewed by the fetch of a part.
        let is_renewed = stored.status == Status(200) && stored.body_len <= RENEWED_BYTES_MAX;
        if is_same && !is_renewed {
            return;
        }
        let Some(leased) = Leased::of(cache, &found, purge_epoch) else { return };
        let shelf = leased.shelf();
        if !is_same {
            return match is_list {
                true => part_list::forget(cache, &found.name, stored),
                false => shelf.forget(&found.name.key),
            };
        }
        let old = (stored.status, &stored.fields, &stored.lifetimes);
        let (asked, times) = (&self.request.fields, fill::times(response.times));
        match revalidate::renew(asked, old, &head, &times, rules) {
            Ok(Renewed { mut fields, mut lifetimes, omit }) => {
                let surrogates = self.surrogates(&fields, purge_epoch);
                lifetimes.surrogates =
                    surrogates.renewed(&stored.lifetimes.surrogates, &head.fields);
                omit.apply(&mut fields);
                let name = found.name.clone();
                let entry = Entry { name, status: stored.status, fields, lifetimes };
                leased.end(&found, shelf.store_again(entry, stored).await.map(drop));
            }
            Err(reason) if reason.is_of_response() => shelf.forget(&found.name.key),
            Err(_) => {}
        }
    }
}

/// The right to write under a key, as a fill has it; given back when dropped.
struct Leased<'c> {
    cache: &'c Rc<CacheSide>,
    at: FillAt,
    is_done: bool,
}

impl<'c> Leased<'c> {
    /// Takes it, unless the key is being filled, or has changed since it was looked up.
    fn of(cache: &'c Rc<CacheSide>, found: &Found, purge_epoch: u64) -> Option<Self> {
        match lease::unpurged(cache, &found.name.key, &found.name.text, purge_epoch) {
            Lease::Leader(at) => {
                let leased = Self { cache, at, is_done: false };
                (!lookup::has_changed(cache, found)).then_some(leased)
            }
            Lease::Follow(at) => {
                lease::leave(cache, at);
                None
            }
            Lease::Full => None,
        }
    }

    fn shelf(&self) -> Shelf {
        Shelf::new(Rc::clone(self.cache), self.at.id())
    }

    /// Ends it after something was stored, or could not be; whether it is there to be found.
    fn end(mut self, found: &Found, stored: io::Result<()>) -> bool {
        let shelf = self.shelf();
        if let Err(error) = &stored {
            shelf.refused(error);
        }
        // Something made it untrue while it was on its way.
        if self.cache.fills.is_doomed(self.at) {
            shelf.forget(&found.primary.key);
            shelf.forget(&found.name.key);
            return false;
        }
        self.is_done = stored.is_ok();
        self.is_done
    }
}

impl Drop for Leased<'_> {
    fn drop(&mut self) {
        match self.is_done {
            true => self.cache.wake(self.cache.fills.done(self.at)),
            false => lease::give_up(self.cache, self.at),
        }
    }
}
