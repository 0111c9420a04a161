//! From a PURGE request to orders for the table of purges.

use crate::cache::name::Name;
use crate::cache::purge::Order;
use crate::http::head::RequestHead;
use crate::http::scheme::Scheme;
use crate::policy::key::KeyComponents;
use crate::policy::purge::hash::PurgeKind;
use crate::policy::purge::request::{self, PurgeRefusal, PurgeTarget};

/// The reason in the access log when the client may not purge.
pub const DENIED: &str = "purge-denied";
/// The reason in the access log when the request is not understood.
pub const REFUSED: &str = "purge-refused";

/// The orders of a request, with `who` for the journal.
///
/// # Errors
///
/// The refusal, if the request names nothing that can be purged.
pub fn orders(
    key: &KeyComponents,
    scheme: Scheme,
    request: &RequestHead,
    who: &str,
) -> Result<Vec<Order>, PurgeRefusal> {
    let (authority, target) = (request.authority(), request.target.path_and_query());
    let targets = request::targets(&request.fields, scheme, authority, target)?;
    if targets.iter().any(|target| target.kind == PurgeKind::Prefix) && !key.preserve_prefix(target)
    {
        return Err(PurgeRefusal::PrefixNotInKey);
    }
    let order = |PurgeTarget { kind, text, name, is_soft }| {
        let text = match kind {
            PurgeKind::Url => Name::of_request(key, scheme, request).text.to_vec(),
            _ => text,
        };
        Order { kind, text, is_soft, name, who: who.to_owned() }
    };
    Ok(targets.into_iter().map(order).collect())
}
