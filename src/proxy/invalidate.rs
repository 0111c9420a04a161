//! What a successful unsafe request does to stored responses, RFC 9111 section 4.4.

use crate::cache::place;
use crate::cache::purge::Order;
use crate::http::head::{RequestHead, ResponseHead};
use crate::policy::invalidate;
use crate::policy::key::Key;
use crate::policy::label::{self, Kind};
use crate::proxy::context::{CacheSide, Context};
use crate::proxy::lookup::Name;
use crate::reactor;

/// Forgets what the answer to an unsafe request has made untrue.
pub fn after(context: &Context, scheme: &str, request: &RequestHead, response: &ResponseHead) {
    let Some(cache) = &context.cache else { return };
    if !invalidate::invalidates(request.method, response.status) {
        return;
    }
    invalidate::for_each_key_text(
        scheme.as_bytes(),
        request.authority(),
        &request.target,
        &response.fields,
        |path| &context.router.rules_for(request.host(), path).key,
        |text| forget_url(cache, text),
    );
    forget_groups(cache, scheme, request, response);
}

/// Purges what is in the groups of this origin that the answer names, RFC 9875 section 3.
fn forget_groups(cache: &CacheSide, scheme: &str, request: &RequestHead, response: &ResponseHead) {
    let groups = label::groups_of(&response.fields, "cache-group-invalidation");
    for group in groups.iter().take(GROUPS_MAX) {
        let text = label::group_text(scheme.as_bytes(), request.authority(), group);
        let (name, who) = (String::new(), String::new());
        let order = Order { kind: Kind::Group, text, is_soft: false, name, who };
        if let Err(error) = cache.purges.purge(&order, reactor::now().unix_s()) {
            ::log::warn!("a group of responses that an origin invalidated stays: {error}");
        }
    }
}

/// Groups of one answer that are looked at.
const GROUPS_MAX: usize = 128;

/// Forgets what is under the key of a URL, and what answers for it too.
fn forget_url(cache: &CacheSide, text: &[u8]) {
    let exact = Name::of(text);
    let counting = cache.searches.borrow().counting(&exact);
    forget(cache, &exact.key);
    counting.iter().for_each(|name| forget(cache, &name.key));
}

/// Forgets the object, or the marker of all variants, under a key.
pub fn forget(cache: &CacheSide, key: &Key) {
    cache.hot.borrow_mut().remove(key);
    // First, so that a fill that is being stored now sees it, or is seen below.
    cache.fills.spoil(key);
    // Most keys that are written to were never read: finding that out costs no system call.
    if cache.index.lookup(key).is_some() {
        place::discard(&cache.index, &cache.store, key, None);
    }
}
