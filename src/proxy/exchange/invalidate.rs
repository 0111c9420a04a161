//! A successful unsafe request invalidates stored responses, RFC 9111 section 4.4.

use crate::cache::Cache;
use crate::cache::purge::Order;
use crate::http::head::{RequestHead, ResponseHead};
use crate::http::scheme::Scheme;
use crate::policy::key::key_of;
use crate::policy::purge::hash::PurgeKind;
use crate::policy::purge::surrogate;
use crate::policy::rfc9111::invalidate;
use crate::proxy::context::Context;
use crate::route::asked::Asked;

/// Invalidates the stored responses that an unsafe request may have changed.
pub(crate) async fn after(
    context: &Context,
    scheme: Scheme,
    request: &RequestHead,
    response: &ResponseHead,
) {
    let Some(cache) = &context.cache else { return };
    if !invalidate::invalidates(request.method, response.status) {
        return;
    }
    let (authority, target) = (request.authority(), &request.target);
    let components_of = |path: &[u8]| {
        let asked = Asked::of_url(request.host(), path);
        context.router.rules_of_url(&asked).into_iter().map(|rules| &rules.key)
    };
    for text in invalidate::key_texts(scheme, authority, target, &response.fields, components_of) {
        cache.invalidate(&key_of(&text)).await;
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
