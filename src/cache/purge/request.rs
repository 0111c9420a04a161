//! From a PURGE request to orders for the table of purges.

use crate::cache::purge::Order;
use crate::http::head::RequestHead;
use crate::http::scheme::Scheme;
use crate::policy::key::{KeyComponents, key_text};
use crate::policy::purge::hash::PurgeKind;
use crate::policy::purge::request::{self, PurgeRefusal, PurgeTarget};
use crate::policy::purge::surrogate::primary_of;

/// The reason in the access log when the client may not purge.
pub const DENIED: &str = "purge-denied";
/// The reason in the access log when the request is not understood.
pub const REFUSED: &str = "purge-refused";

/// The orders of a request, with `who` for the journal. `keys` are the components of the keys of
/// every route that may take a request for the URL, each with the path and query in its key.
///
/// # Errors
///
/// The refusal, if the request names nothing that can be purged.
pub fn orders(
    keys: &[(&KeyComponents, Vec<u8>)],
    scheme: Scheme,
    request: &RequestHead,
    who: &str,
) -> Result<Vec<Order>, PurgeRefusal> {
    let (authority, target) = (request.authority(), request.target.path_and_query());
    let targets = request::targets(&request.fields, scheme, authority, target)?;
    let has_prefix = targets.iter().any(|target| target.kind == PurgeKind::Prefix);
    if has_prefix && !keys.iter().all(|(key, _)| key.preserve_prefix(target)) {
        return Err(PurgeRefusal::PrefixNotInKey);
    }
    let mut orders: Vec<Order> = Vec::new();
    for PurgeTarget { kind, text, name, is_soft } in targets {
        let texts = match kind {
            PurgeKind::Url => {
                keys.iter().map(|(key, target)| url_text(key, scheme, authority, target)).collect()
            }
            _ => vec![text],
        };
        for text in texts {
            if !orders.iter().any(|order| order.kind == kind && order.text == text) {
                let (name, who) = (name.clone(), who.to_owned());
                orders.push(Order { kind, text, is_soft, name, who });
            }
        }
    }
    Ok(orders)
}

/// The URL in a key. A purge of it covers all variants, and the responses of all routes.
fn url_text(key: &KeyComponents, scheme: Scheme, authority: &[u8], target: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    key_text(key, scheme, authority, target, &mut text);
    primary_of(&text).to_vec()
}
