//! What a successful unsafe request does to stored responses, RFC 9111 section 4.4.

use crate::cache::place;
use crate::cache::purge::{Order, PurgeError};
use crate::http::fields::Fields;
use crate::http::head::{RequestHead, ResponseHead};
use crate::policy::key::components::KeyParts;
use crate::policy::key::search::path_of_query;
use crate::policy::key::{Key, key_of};
use crate::policy::purge::surrogate::{self, Kind};
use crate::policy::rfc9111::invalidate;
use crate::proxy::context::{CacheSide, Context};
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
        |parts, text| forget_url(cache, parts, text),
    );
    forget_groups(cache, scheme, request, response);
}

/// Purges what is in the groups of this origin that the answer names, RFC 9875 section 3.
fn forget_groups(cache: &CacheSide, scheme: &str, request: &RequestHead, response: &ResponseHead) {
    let groups = surrogate::groups_of(&response.fields, "cache-group-invalidation");
    for group in groups.iter().take(GROUPS_MAX) {
        let text = surrogate::group_text(scheme.as_bytes(), request.authority(), group);
        purge(cache, Kind::Group, text);
    }
}

/// Groups of one answer that are looked at.
const GROUPS_MAX: usize = 128;

/// Forgets what is under the key of a URL, and what answers for its query too. What that is, and
/// under which name, each worker learns by itself: so it is purged in all, if there may be anything.
fn forget_url(cache: &CacheSide, parts: &KeyParts, text: &[u8]) {
    forget(cache, &key_of(text));
    let Some(path) = path_of_query(text).filter(|_| parts.heeds_search) else { return };
    if let Err(error) = cache.purges.purge_search(path, reactor::now().unix_s()) {
        stays(Kind::Search, error);
    }
}

/// Takes note that a response with these fields is about to be stored under the key of this text,
/// so that writing to another query of its path purges it.
pub fn expect_search(cache: &CacheSide, parts: &KeyParts, text: &[u8], response: &Fields) {
    let Some(path) = surrogate::search_path(parts, text, response) else { return };
    if let Err(error) = cache.purges.expect_search(path, reactor::now().unix_s()) {
        stays(Kind::Search, error);
    }
}

/// Purges, on nobody's order, what an origin has made untrue.
fn purge(cache: &CacheSide, kind: Kind, text: Vec<u8>) {
    let (name, who) = (String::new(), String::new());
    let order = Order { kind, text, is_soft: false, name, who };
    if let Err(error) = cache.purges.purge(&order, reactor::now().unix_s()) {
        stays(kind, error);
    }
}

fn stays(kind: Kind, error: PurgeError) {
    ::log::warn!("what an origin invalidated, a {}, stays: {error}", kind.word());
}

/// Forgets the object, or the marker of all variants, under a key.
pub fn forget(cache: &CacheSide, key: &Key) {
    cache.hot.borrow_mut().remove(key);
    // First, so that a fill that is being stored now sees it, or is seen below.
    cache.fills.doom(key);
    place::forget(&cache.index, &cache.store, key);
}
