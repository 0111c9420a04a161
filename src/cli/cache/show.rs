//! `ktrix cache show`: what is known about one object.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cache::slot::SlotView;
use crate::cli::cache::name::{hex, key_named, printable};
use crate::cli::cache::open;

/// Shows one object: what slot and file say, and the head. Says whether there is one.
///
/// # Errors
///
/// When there is no index in `dir`, `what` is neither URL nor key, or the file cannot be used.
pub(super) fn show(dir: &Path, what: &str, out: &mut impl Write) -> Result<bool> {
    let (index, store) = open(dir)?;
    let key = key_named(what)?;
    let view = index.lookup(&key);
    let object = store.open_any(&key).context("cannot use the cache file")?;
    writeln!(out, "key: {}", hex(&key))?;
    if let Some(view) = &view {
        show_slot(view, out)?;
    }
    if let Some(object) = &object {
        writeln!(out, "file: {}", store.path(&key).display())?;
        writeln!(out, "text: {}", printable(object.key_text()))?;
        writeln!(out, "body: {} bytes from byte {}", object.body_len, object.body_offset())?;
        writeln!(out, "status: {}", object.status())?;
        writeln!(out, "\n{}", printable(object.head()).trim_end())?;
    }
    if view.is_none() && object.is_none() {
        writeln!(out, "not stored")?;
    }
    Ok(view.is_some() || object.is_some())
}

fn show_slot(view: &SlotView, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "state: {}, generation {}", view.state.word(), view.generation)?;
    writeln!(out, "stored: {} (Unix seconds), aged {} s then", view.stored_s, view.age_s)?;
    writeln!(
        out,
        "fresh until: {}, while revalidating {}, if the origin fails {}",
        view.fresh_until_s, view.swr_until_s, view.sie_until_s,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::place::tests::{cache, slot, store_one};
    use crate::cli::cache::list::list;

    const PAGE: &str = "GET http://a.example/page?x";

    fn text_of(run: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        run(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_stored_is_listed_and_shown_by_url_and_by_key() {
        let (dir, index, store) = cache(10);
        store_one(&index, &store, PAGE, b"body").unwrap();
        let listed = text_of(|out| list(dir.path(), out).unwrap());
        assert!(listed.contains(PAGE) && listed.ends_with("1 objects, 4096 bytes\n"), "{listed}");
        let hex = hex(&slot(PAGE).key);
        for name in
            ["http://a.example/page?x#part", &hex, store.path(&slot(PAGE).key).to_str().unwrap()]
        {
            let shown = text_of(|out| assert!(show(dir.path(), name, out).unwrap()));
            assert!(shown.contains("body: 4 bytes") && shown.contains("state: ready"), "{shown}");
        }
        assert!(!show(dir.path(), "http://a.example/other", &mut Vec::new()).unwrap());
        assert!(show(dir.path(), "page", &mut Vec::new()).is_err());
    }
}
