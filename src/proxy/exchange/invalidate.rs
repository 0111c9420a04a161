//! A successful unsafe request invalidates stored responses, RFC 9111 section 4.4.

use crate::cache::Cache;
use crate::cache::purge::Order;
use crate::http::fields::Fields;
use crate::http::head::{RequestHead, ResponseHead};
use crate::http::scheme::Scheme;
use crate::policy::key::{key_of, key_text};
use crate::policy::purge::hash::PurgeKind;
use crate::policy::purge::surrogate;
use crate::policy::rfc9111::invalidate;
use crate::proxy::context::Context;
use crate::route::changed::AskedUrl;

/// Invalidates the stored responses that an unsafe request may have changed. `request` and `fields`
/// are the request and the fields of its response as the client sees them.
pub(crate) async fn after(
    context: &Context,
    scheme: Scheme,
    request: &RequestHead,
    response: &ResponseHead,
    fields: &Fields,
) {
    let Some(cache) = &context.cache else { return };
    if !invalidate::invalidates(request.method, response.status) {
        return;
    }
    let authority = request.authority();
    for target in invalidate::targets(scheme, authority, &request.target, fields) {
        let url = AskedUrl { path_and_query: &target, ..AskedUrl::of(scheme, request) };
        for (key, target) in context.router.keys_of_url(&url) {
            let mut text = Vec::new();
            key_text(key, scheme, authority, &target, &mut text);
            cache.invalidate(&key_of(&text)).await;
        }
    }
    forget_groups(cache, scheme, request, response);
}

/// Purges the groups of this origin that the response names, RFC 9875 section 3.
fn forget_groups(cache: &Cache, scheme: Scheme, request: &RequestHead, response: &ResponseHead) {
    let groups = surrogate::groups_of(&response.fields, "cache-group-invalidation");
    for group in groups.iter().take(GROUPS_MAX) {
        let text = surrogate::group_text(scheme, request.authority(), group);
        purge(cache, PurgeKind::Group, text);
    }
}

/// The most groups that one response can purge.
const GROUPS_MAX: usize = 128;

/// Purges what an origin invalidates, without a record in the journal.
fn purge(cache: &Cache, kind: PurgeKind, text: Vec<u8>) {
    let (name, who) = (String::new(), String::new());
    let order = Order { kind, text, is_soft: false, name, who };
    if let Err(error) = cache.purge(&order) {
        ::log::warn!("cannot purge a {} that an origin invalidated: {error}", kind.word());
    }
}
