//! Finds the stored object for a request as a worker would, without a worker.

use std::ops::Range;
use std::rc::Rc;

use crate::cache::files::object::KEY_BYTES_MAX;
use crate::cache::files::store::Object;
use crate::cache::hot::MEMORY_BODY_MAX;
use crate::cache::index::slot::State;
use crate::cache::name::{Marker, Name};
use crate::cli::opened::{Inspected, Opened};
use crate::http::fields::Fields;
use crate::policy::key::KeyComponents;
use crate::policy::key::variants::Variants;
use crate::policy::meta;
use crate::policy::rfc9111::parts::{LIST_BYTES_MAX, PartList};

/// The result of a search, with the steps that led to it.
pub(super) struct Found {
    /// The marker that selects among variants, if the key has any.
    pub(super) marker: Option<Marker>,
    /// The name of the object that answers the request, or would.
    pub(super) name: Name,
    /// The object stored there.
    pub(super) inspected: Option<Inspected>,
}

/// Finds the object under a name for a request with these fields, by the components of its keys:
/// the variant, or the only object of its key.
pub(super) fn find(
    cache: &Opened,
    components: &KeyComponents,
    name: &Name,
    request: &Fields,
) -> Found {
    let primary = cache.find(&name.key);
    let marker = primary.as_ref().filter(|inspected| !inspected.is_purged()).and_then(marker);
    if !components.accept(marker.as_ref().map(|marker| &marker.names)) {
        return Found { marker: None, name: name.clone(), inspected: None };
    }
    match marker {
        Some(marker) => {
            let name = name.variant(&marker.names, &marker.mark, request);
            let inspected = cache.find(&name.key);
            Found { marker: Some(marker), name, inspected }
        }
        None => Found { marker: None, name: name.clone(), inspected: primary },
    }
}

/// The marker that selects among the variants of a key, if this is one.
pub(super) fn marker(inspected: &Inspected) -> Option<Marker> {
    let file = inspected.file().filter(|_| inspected.view.state == State::Vary)?;
    let names = meta::decode(file.meta()).ok()?.vary?;
    let mark = file.read_body(KEY_BYTES_MAX as usize).ok()??;
    Some(Marker { names, mark: Rc::from(mark) })
}

/// The list of a key's variants; empty if there is no usable one.
pub(super) fn list(cache: &Opened, primary: &Name, marker: &Marker) -> Variants {
    let name = primary.variant_list(marker);
    let inspected = cache.find(&name.key);
    let inspected = inspected.filter(|inspected| !inspected.is_purged());
    let file =
        inspected.as_ref().and_then(Inspected::file).filter(|file| *file.key_text() == *name.text);
    let body = file.and_then(|file| file.read_body(MEMORY_BODY_MAX as usize).ok()?);
    body.map_or_else(Variants::default, |body| Variants::decode(&body))
}

/// The list in a file; `None` if it cannot be read.
pub(super) fn part_list(file: &Object) -> Option<PartList> {
    PartList::decode(&file.read_body(LIST_BYTES_MAX).ok()??)
}

/// The parts of a list: `0-499, 700-999 of 1000 bytes`.
pub(super) fn part_list_line(list: &PartList) -> String {
    let range = |range: &Range<u64>| format!("{}-{}", range.start, range.end.saturating_sub(1));
    let parts: Vec<String> = list.parts().iter().map(|part| range(&part.range)).collect();
    let length = list.length().map_or("?".to_owned(), |length| length.to_string());
    format!("{} of {length} bytes", parts.join(", "))
}
