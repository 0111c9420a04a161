//! What a PURGE request names, as orders for the table of purges.

use crate::cache::name::Name;
use crate::cache::purge::Order;
use crate::http::head::RequestHead;
use crate::http::scheme::Scheme;
use crate::policy::key::components::KeyComponents;
use crate::policy::purge::hash::PurgeKind;
use crate::policy::purge::request::{self, PurgeRefusal, PurgeTarget};

/// Why nothing was purged, in the log: who asks may not.
pub const DENIED: &str = "purge-denied";
/// Why nothing was purged, in the log: what is asked for is not understood.
pub const REFUSED: &str = "purge-refused";

/// What a request asks to purge, for `who` in the journal.
///
/// # Errors
///
/// Why nothing is to be purged.
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
