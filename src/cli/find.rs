//! What the cache has for a request, as a worker would find it, without a worker.

use std::rc::Rc;

use crate::cache::object::KEY_BYTES_MAX;
use crate::cache::slot::State;
use crate::cli::cache::opened::{Opened, Sight};
use crate::http::fields::Fields;
use crate::policy::meta;
use crate::proxy::lookup::{Marker, Name};

/// What is stored under a name for a request with these fields: the variant, or the one object of
/// its key.
pub(super) fn find(cache: &Opened, name: &Name, request: &Fields) -> Option<Sight> {
    let primary = cache.find(&name.key)?;
    match marker(&primary) {
        Some(marker) => cache.find(&name.variant(&marker.names, &marker.mark, request).key),
        None => Some(primary),
    }
}

/// What chooses among the variants of a key, if this is its marker.
pub(super) fn marker(sight: &Sight) -> Option<Marker> {
    let file = sight.file().filter(|_| sight.view.state == State::Vary)?;
    let names = meta::decode(file.meta()).ok()?.vary?;
    let mark = file.read_body(KEY_BYTES_MAX as usize).ok()??;
    Some(Marker { names, mark: Rc::from(mark) })
}
