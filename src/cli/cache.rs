//! `ktrix cache list|show|purge|verify`: the cache in comfort, beside a running ktrix or without.
//!
//! Objects are named by their URL, as a client would ask for them, or by their key: 32 hex digits,
//! or the path of the file.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::cache::index::Index;
use crate::cache::place;
use crate::cache::scrub::{self, SlotFault, compare, key_of_path};
use crate::cache::slot::{SlotView, State};
use crate::cache::store::{Object, Store};
use crate::policy::key::{Key, key_of, uri_text};

/// Lists every slot: key, state, status, bytes of body, fresh until (Unix seconds), key text.
///
/// # Errors
///
/// When there is no index in `dir`, or `out` cannot be written.
pub fn list(dir: &Path, out: &mut impl Write) -> Result<()> {
    let (index, store) = open(dir)?;
    for view in index.iter() {
        let text = compare(&store, &view).map(|object| object.map(|it| first_line(&it)));
        let text = match text {
            Ok(text) => text.unwrap_or_default(),
            Err(fault) => format!("({fault})"),
        };
        writeln!(
            out,
            "{} {:5} {:3} {:>10} {} {text}",
            hex(&view.key),
            view.state.word(),
            view.status,
            view.body_len,
            view.fresh_until_s,
        )?;
    }
    writeln!(out, "{} objects, {} bytes", index.objects(), index.bytes())?;
    Ok(())
}

/// Shows one object: what slot and file say, and the head. Says whether there is one.
///
/// # Errors
///
/// When there is no index in `dir`, `what` is neither URL nor key, or the file cannot be used.
pub fn show(dir: &Path, what: &str, out: &mut impl Write) -> Result<bool> {
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

/// Removes an object with all its variants; returns how many objects went. A running ktrix sees
/// it at once.
///
/// # Errors
///
/// When there is no index in `dir`, `what` is neither URL nor key, or the index cannot be written.
pub fn purge(dir: &Path, what: &str, out: &mut impl Write) -> Result<usize> {
    let (index, store) = open(dir)?;
    index.attach().context("cannot write the cache index")?;
    let key = key_named(what)?;
    let state = index.lookup(&key).map(|view| view.state);
    let primary = store.open_any(&key).ok().flatten().map(|it| it.key_text().to_vec());
    let mut n_purged = usize::from(place::discard(&index, &store, &key, None).is_some());
    // Variants are stored under keys of their own, which only their texts tell. Where the primary
    // slot is gone they may still be there, and would be found when it comes back.
    if state != Some(State::Ready) {
        let text = primary.or_else(|| text_of_url(what)).unwrap_or_default();
        n_purged += purge_variants(&index, &store, &text);
    }
    writeln!(out, "{n_purged} purged")?;
    Ok(n_purged)
}

/// Reads every slot and every file; prints each fault and returns how many there are. Files that
/// no slot knows, and temporary files, are counted but are no faults: the keeper removes them.
///
/// # Errors
///
/// When there is no index in `dir`, or `out` cannot be written.
pub fn verify(dir: &Path, out: &mut impl Write) -> Result<usize> {
    let (index, store) = open(dir)?;
    let mut n_faults = 0;
    for fault in index.faults() {
        writeln!(out, "index: {fault}")?;
        n_faults += 1;
    }
    let (mut n_objects, mut scratch) = (0_u64, Vec::new());
    for view in index.iter() {
        n_objects += 1;
        let Err(fault) = verify_one(&store, &view, &mut scratch) else { continue };
        // What changed or went while we read it is no fault of the cache.
        if index.is_current(view.at, view.generation) {
            writeln!(out, "{}: {fault}", store.path(&view.key).display())?;
            n_faults += 1;
        }
    }
    let n_orphans = (0..256_u32)
        .flat_map(|fan_out| scrub::list(&dir.join(format!("{fan_out:02x}"))))
        .filter_map(|path| key_of_path(&path))
        .filter(|key| index.lookup(key).is_none_or(|view| !view.state.has_file()))
        .count();
    writeln!(out, "{n_objects} objects, {n_orphans} files without a slot, {n_faults} faults")?;
    Ok(n_faults)
}

fn open(dir: &Path) -> Result<(Index, Store)> {
    let index = Index::open_existing(dir)?;
    let store = Store::open(dir, index.epoch())
        .with_context(|| format!("cannot open cache directory {dir:?}"))?;
    Ok((index, store))
}

fn verify_one(store: &Store, view: &SlotView, scratch: &mut Vec<u8>) -> Result<(), SlotFault> {
    let object = match compare(store, view) {
        Ok(Some(object)) => object,
        Ok(None) => return Ok(()),
        // Its writer died between renaming a newer file and publishing it. A reader goes by what
        // the file says, so it is the body that counts; the scrub removes the older slot.
        Err(SlotFault::Lengths) => store.open_any(&view.key)?.ok_or(SlotFault::Missing)?,
        Err(fault) => return Err(fault),
    };
    let mut verify = object.verify();
    while !verify.step(&object, scratch)? {}
    Ok(())
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

fn show_slot(view: &SlotView, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "state: {}, generation {}", view.state.word(), view.generation)?;
    writeln!(out, "stored: {} (Unix seconds), aged {} s then", view.stored_s, view.age_s)?;
    writeln!(
        out,
        "fresh until: {}, while revalidating {}, if the origin fails {}",
        view.fresh_until_s, view.swr_until_s, view.sie_until_s,
    )
}

/// The key that a URL, 32 hex digits or a file's path names.
fn key_named(what: &str) -> Result<Key> {
    if let Some(text) = text_of_url(what) {
        return Ok(key_of(&text));
    }
    match Key::from_hex(what.as_bytes()).or_else(|| key_of_path(Path::new(what))) {
        Some(key) => Ok(key),
        None => bail!("{what:?} is neither a URL (http://host/path) nor a key (32 hex digits)"),
    }
}

/// The primary key text of a URL.
fn text_of_url(url: &str) -> Option<Vec<u8>> {
    let (scheme, rest) = url.split_once("://")?;
    let rest = rest.split('#').next()?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let mut text = Vec::new();
    uri_text(scheme.as_bytes(), authority.as_bytes(), path.as_bytes(), &mut text);
    Some(text)
}

fn first_line(object: &Object) -> String {
    let text = object.key_text();
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let mark = if line.len() < text.len() { " (variant)" } else { "" };
    format!("{}{mark}", printable(line))
}

/// Text from outside, with nothing in it that a terminal would obey.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let keep = |c: char| if c.is_control() && c != '\n' { '\u{fffd}' } else { c };
    text.replace("\r\n", "\n").chars().map(keep).collect()
}

fn hex(key: &Key) -> String {
    String::from_utf8_lossy(&key.hex()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::place::tests::{cache, slot, store_one};

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
        let n_purged = purge(dir.path(), "http://a.example/page?x", &mut Vec::new()).unwrap();
        assert_eq!((n_purged, index.objects()), (2, 1));
        assert!(!store.exists(&slot(PAGE).key) && !store.exists(&slot(&variant).key));
    }

    #[test]
    fn a_flipped_byte_and_a_missing_file_are_faults() {
        let (dir, index, store) = cache(10);
        for text in ["a", "b", "c"] {
            store_one(&index, &store, text, b"body").unwrap();
        }
        assert_eq!(verify(dir.path(), &mut Vec::new()).unwrap(), 0);
        let path = store.path(&slot("a").key);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        std::fs::remove_file(store.path(&slot("b").key)).unwrap();
        index.remove(&slot("c").key, None);
        let mut out = Vec::new();
        assert_eq!(verify(dir.path(), &mut out).unwrap(), 2);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("body-damaged") && text.contains("missing"), "{text}");
        assert!(text.ends_with("2 objects, 1 files without a slot, 2 faults\n"), "{text}");
    }

    #[test]
    fn without_an_index_every_command_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let error = verify(dir.path(), &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("no cache index"), "{error}");
    }
}
