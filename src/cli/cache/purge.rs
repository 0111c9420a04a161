//! `ktrix cache purge`: what must not be served any more goes at once.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cache::index::Index;
use crate::cache::place;
use crate::cache::slot::{SlotView, State};
use crate::cache::store::Store;
use crate::cli::cache::name::Naming;

/// Removes an object with all its variants; returns how many objects went. A running ktrix sees
/// it at once.
///
/// # Errors
///
/// When there is no index in `dir`, `what` is neither URL nor key, or the index cannot be written.
pub(super) fn purge(
    dir: &Path,
    naming: &Naming,
    what: &str,
    out: &mut impl Write,
) -> Result<usize> {
    let (index, store) = open(dir)?;
    index.attach().context("cannot write the cache index")?;
    let key = naming.key(what)?;
    let state = index.lookup(&key).map(|view| view.state);
    let primary = store.open_any(&key).ok().flatten().map(|it| it.key_text().to_vec());
    let mut n_purged = usize::from(place::discard(&index, &store, &key, None).is_some());
    // Variants are stored under keys of their own, which only their texts tell. Where the primary
    // slot is gone they may still be there, and would be found when it comes back.
    if state != Some(State::Ready) {
        let text = primary.or_else(|| text_of_url(naming, what)).unwrap_or_default();
        n_purged += purge_variants(&index, &store, &text);
    }
    writeln!(out, "{n_purged} purged")?;
    Ok(n_purged)
}

fn text_of_url(naming: &Naming, what: &str) -> Option<Vec<u8>> {
    naming.of_url(what, &[]).ok().map(|(_, name, _)| name.text.to_vec())
}

fn open(dir: &Path) -> Result<(Index, Store)> {
    let index = Index::open_existing(dir)?;
    let store = Store::open(dir, index.epoch())
        .with_context(|| format!("cannot open cache directory {dir:?}"))?;
    Ok((index, store))
}

fn purge_variants(index: &Index, store: &Store, primary_text: &[u8]) -> usize {
    if primary_text.is_empty() {
        return 0;
    }
    let prefix = [primary_text, b"\n"].concat();
    let is_variant = |view: &SlotView| {
        let object = store.open_any(&view.key).ok().flatten();
        object.is_some_and(|object| object.key_text().starts_with(&prefix))
    };
    let discard = |view: &SlotView| place::discard(index, store, &view.key, None).is_some();
    index.iter().filter(is_variant).filter(discard).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::place::tests::{cache, slot, store_one};

    const PAGE: &str = "GET http://a.example/page?x";

    #[test]
    fn purging_takes_the_variants_along() {
        let (dir, index, store) = cache(10);
        let variant = format!("{PAGE}\naccept: x");
        for text in [PAGE, &variant, "GET http://a.example/page?xy"] {
            store_one(&index, &store, text, b"body").unwrap();
        }
        let view = index.lookup(&slot(PAGE).key).unwrap();
        let vary = crate::cache::slot::NewSlot { state: State::Vary, ..view.slot };
        index.publish(&vary).unwrap();
        let n_purged =
            purge(dir.path(), &Naming::of(None), "http://a.example/page?x", &mut Vec::new())
                .unwrap();
        assert_eq!((n_purged, index.objects()), (2, 1));
        assert!(!store.exists(&slot(PAGE).key) && !store.exists(&slot(&variant).key));
    }
}
