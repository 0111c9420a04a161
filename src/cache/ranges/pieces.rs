//! The stretches of an answer from parts: bytes of stored parts, and missing bytes.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use crate::cache::Cache;
use crate::cache::hot::HotObject;

use crate::cache::name::Name;
use crate::policy::rfc9111::parts::{PartList, Stretch};

/// A stretch of an answer.
pub(crate) enum Item {
    /// Bytes of a stored part.
    Stored(Rc<HotObject>, Range<u64>),
    /// Bytes of the representation that are not stored.
    Missing(Range<u64>),
}

/// Whether bytes have to be fetched for an answer.
pub(crate) fn has_missing(items: &[Vec<Item>]) -> bool {
    items.iter().flatten().any(|item| missing(item).is_some())
}

/// The bytes that have to be fetched for a stretch.
pub(crate) fn missing(item: &Item) -> Option<Range<u64>> {
    match item {
        Item::Missing(range) => Some(range.clone()),
        Item::Stored(..) => None,
    }
}

/// The stretches of each of these ranges, with the parts opened and checked. A part that is gone is
/// removed from the list.
pub(crate) async fn load(
    cache: &Cache,
    name: &Name,
    list: &mut PartList,
    ranges: &[Range<u64>],
) -> Vec<Vec<Item>> {
    let mut parts: HashMap<u64, Rc<HotObject>> = HashMap::new();
    loop {
        let stretches: Vec<Vec<Stretch>> =
            ranges.iter().map(|range| list.stretches(range)).collect();
        let is_new = |id: &u64| !parts.contains_key(id);
        let wanted = stretches.iter().flatten().find_map(|stretch| match stretch {
            Stretch::Stored { id, .. } => Some(*id).filter(is_new),
            Stretch::Missing(_) => None,
        });
        let Some(id) = wanted else {
            let item = |stretch| match stretch {
                Stretch::Missing(range) => Item::Missing(range),
                Stretch::Stored { range, id, at } => match parts.get(&id) {
                    Some(part) => Item::Stored(Rc::clone(part), at..at + range.end - range.start),
                    None => Item::Missing(range),
                },
            };
            return stretches.into_iter().map(|it| it.into_iter().map(item).collect()).collect();
        };
        let listed = list.parts().iter().find(|part| part.id == id);
        let len = listed.map_or(0, |part| part.range.end - part.range.start);
        match cache.find_object(&name.part(id)).await {
            Some(part) if part.body_len == len => {
                parts.insert(id, part);
            }
            _ => list.remove(id),
        }
    }
}
