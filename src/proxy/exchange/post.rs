//! Responses to POST that may answer a later GET, RFC 9110 section 9.3.3.
//!
//! Such a response is read to its end and stored before any of it is sent, so it must be small and
//! have a Content-Length.

use std::io;

use crate::cache::found::Found;
use crate::cache::hot::MEMORY_BODY_MAX;
use crate::cache::insert::NewObject;
use crate::cache::lease::Lease;
use crate::cache::variants::NewVariant;
use crate::http::fields::Fields;
use crate::http::forward;
use crate::http::head::{BodyLength, RequestHead, ResponseHead};
use crate::http::method::Method;
use crate::http::reference;
use crate::http::scheme::Scheme;
use crate::http::status::Status;
use crate::origin::fetch::Response;
use crate::policy::reason::fetch::FetchError;
use crate::policy::rfc9111::control::ResponseControl;
use crate::policy::rfc9111::freshness::Lifetimes;
use crate::policy::rfc9111::rules::Rules;
use crate::policy::rfc9111::storable::Storable;
use crate::proxy::client::Client;
use crate::proxy::exchange::Exchange;
use crate::proxy::fill;
use crate::reactor;

impl<C: Client> Exchange<'_, C> {
    /// Stores the answer to a POST if a GET would get the same. Gives what was read of its body,
    /// and whether it is stored.
    ///
    /// # Errors
    /// The body, of which nothing has been sent, broke off.
    pub(crate) async fn store_post(
        &self,
        response: &mut Response,
        purge_epoch: u64,
    ) -> Result<(Vec<u8>, bool), FetchError> {
        let mut read = Vec::new();
        let rules = &self.route.rules;
        let Some(cache) = self.updates(Method::Post) else {
            return Ok((read, false));
        };
        let bytes_max = MEMORY_BODY_MAX.min(rules.object_bytes_max).min(cache.object_bytes_max());
        let is_small = matches!(response.head.length, BodyLength::Known(len) if len <= bytes_max);
        let scheme = self.client.front().scheme;
        if !is_small || !answers_get(scheme, self.request, &response.head, rules) {
            return Ok((read, false));
        }
        let mut fields = forward::response_fields(
            &response.head,
            self.context.via_to(&response.server.destination),
            reactor::now(),
        );
        let (asked, times) = (&self.request.fields, fill::times(response.times));
        let storable = Storable::of(asked, Status(200), &fields, &times, rules);
        let Ok(Storable { mut lifetimes, omit }) = storable else { return Ok((read, false)) };
        lifetimes.surrogates = self.surrogates(&fields, purge_epoch);
        let found = self.found_for_get(&cache).await;
        // From now on a GET of the key waits for this response, and a purge of the key dooms it.
        let lease = cache.lead_or_follow(&found, &found.name.key, purge_epoch).lead();
        let Some(lease) = lease else { return Ok((read, false)) };
        while response.body.next(&mut read).await? {}
        fields.remove("age");
        omit.apply(&mut fields);
        let stored = insert(&lease, &found, asked, (fields, lifetimes), &read).await;
        Ok((read, lease.stored(&found, stored)))
    }
}

/// Stores the answer, and enters it into the list of its key's variants.
async fn insert(
    lease: &Lease,
    found: &Found,
    asked: &Fields,
    (fields, lifetimes): (Fields, Lifetimes),
    body: &[u8],
) -> io::Result<()> {
    let name = lease.resolve_name(found, asked, &lifetimes).await?;
    let new = NewObject { name, status: Status(200), fields, lifetimes };
    let note = NewVariant::of(&new);
    let object = lease.insert(new, body).await?;
    if let Some(note) = note {
        note.enter(&lease.cache, object.slot).await;
    }
    Ok(())
}

/// Whether the answer to this POST is what a GET of the same URI would have: a 200 whose
/// Content-Location is the target itself (RFC 9110 section 8.7), and whose lifetime the origin
/// states. [`Storable::of`] says whether it may be stored at all.
fn answers_get(
    scheme: Scheme,
    request: &RequestHead,
    response: &ResponseHead,
    rules: &Rules,
) -> bool {
    response.status == Status(200)
        && has_explicit_lifetime(&rules.effective_fields(&response.fields))
        && locates_target(scheme, request, &response.fields)
}

/// RFC 9111 section 4.2.1, without the heuristic.
fn has_explicit_lifetime(response: &Fields) -> bool {
    let control = ResponseControl::of(response);
    control.max_age.is_some() || control.s_maxage.is_some() || response.contains("expires")
}

/// Exactly one Content-Location, which leads to the target's own path and query.
fn locates_target(scheme: Scheme, request: &RequestHead, response: &Fields) -> bool {
    let mut locations = response.get_all("content-location");
    let (Some(location), None) = (locations.next(), locations.next()) else { return false };
    let found = reference::resolve(scheme, request.authority(), request.target.path(), location);
    // A relative reference without a path and a query keeps the query of its base (RFC 3986
    // section 5.2.2), which was given without.
    let target = request.target.path_and_query();
    found.is_some_and(|found| found == target || location.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample::{request, response};

    fn answers(status: u16, list: &[(&str, &str)]) -> bool {
        answers_get(Scheme::Http, &request("POST", &[]), &response(status, list), &Rules::default())
    }

    #[test]
    fn content_location_must_name_the_target() {
        let fresh = ("cache-control", "max-age=60");
        let cases = [
            ("/x", true),
            ("x", true),
            ("", true),
            ("http://a.example/x", true),
            ("//A.Example:80/x", true),
            ("/x?", false),
            ("/x?y", false),
            ("/y", false),
            ("https://a.example/x", false),
            ("http://b.example/x", false),
        ];
        for (location, expected) in cases {
            let found = answers(200, &[fresh, ("Content-Location", location)]);
            assert_eq!(found, expected, "{location:?}");
        }
        let here = ("content-location", "/x");
        assert!(!answers(200, &[fresh]));
        assert!(!answers(200, &[fresh, here, here]), "two fields name no target");
        assert!(!answers(201, &[fresh, here]));
        assert!(!answers(303, &[fresh, here]));
    }

    #[test]
    fn an_explicit_lifetime_is_required() {
        let here = ("content-location", "/x");
        let cases = [
            (("cache-control", "max-age=60"), true),
            (("cache-control", "s-maxage=60"), true),
            (("expires", "Fri, 01 Jan 2038 01:01:01 GMT"), true),
            (("cache-control", "public"), false),
            (("last-modified", "Fri, 01 Jan 2010 01:01:01 GMT"), false),
        ];
        for (field, expected) in cases {
            assert_eq!(answers(200, &[here, field]), expected, "{field:?}");
        }
    }
}
