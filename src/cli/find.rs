//! What the cache has for a request, as a worker would find it, without a worker.

use std::ops::Range;
use std::rc::Rc;

use crate::cache::files::object::KEY_BYTES_MAX;
use crate::cache::files::store::Object;
use crate::cache::hot::MEMORY_BODY_MAX;
use crate::cache::index::slot::State;
use crate::cache::lookup::{Marker, Name};
use crate::cache::variants;
use crate::cli::opened::{Opened, Sight};
use crate::http::fields::Fields;
use crate::policy::key::components::KeyParts;
use crate::policy::key::variants::Variants;
use crate::policy::meta;
use crate::policy::rfc9111::partial::{LIST_BYTES_MAX, PartList};

/// What was found, and on which way.
pub(super) struct Found {
    /// What chooses among variants, if the key has any.
    pub(super) marker: Option<Marker>,
    /// Where the answer to the request is, or would be.
    pub(super) name: Name,
    /// What is stored there.
    pub(super) sight: Option<Sight>,
}

/// What is stored under a name for a request with these fields, by the parts that its keys are
/// made of: the variant, or the one object of its key.
pub(super) fn find(cache: &Opened, parts: &KeyParts, name: &Name, request: &Fields) -> Found {
    let primary = cache.find(&name.key);
    let marker = primary.as_ref().filter(|sight| !sight.is_purged()).and_then(marker);
    if !parts.suit(marker.as_ref().map(|marker| &marker.names)) {
        return Found { marker: None, name: name.clone(), sight: None };
    }
    match marker {
        Some(marker) => {
            let name = name.variant(&marker.names, &marker.mark, request);
            let sight = cache.find(&name.key);
            Found { marker: Some(marker), name, sight }
        }
        None => Found { marker: None, name: name.clone(), sight: primary },
    }
}

/// What chooses among the variants of a key, if this is its marker.
pub(super) fn marker(sight: &Sight) -> Option<Marker> {
    let file = sight.file().filter(|_| sight.view.state == State::Vary)?;
    let names = meta::decode(file.meta()).ok()?.vary?;
    let mark = file.read_body(KEY_BYTES_MAX as usize).ok()??;
    Some(Marker { names, mark: Rc::from(mark) })
}

/// The list of a key's variants; empty if there is none that can be used.
pub(super) fn list(cache: &Opened, primary: &Name, marker: &Marker) -> Variants {
    let name = variants::list_name(primary, marker);
    let sight = cache.find(&name.key);
    let sight = sight.filter(|sight| !sight.is_purged());
    let file = sight.as_ref().and_then(Sight::file).filter(|file| *file.key_text() == *name.text);
    let body = file.and_then(|file| file.read_body(MEMORY_BODY_MAX as usize).ok()?);
    body.map_or_else(Variants::default, |body| Variants::decode(&body))
}

/// The list that a file holds; `None` if it cannot be read.
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
