//! How an operator names an object, and how what is stored is shown to one.
//!
//! An object is named by its URL, as a client would ask for it, or by its key: 32 hex digits, or
//! the path of its file.

use std::path::Path;

use anyhow::{Result, bail};

use crate::cache::scrub::key_of_path;
use crate::policy::key::{Key, key_of, uri_text};
use crate::policy::parts::KeyParts;

/// The key that a URL, 32 hex digits or a file's path names.
pub(super) fn key_named(what: &str) -> Result<Key> {
    if let Some(text) = text_of_url(what) {
        return Ok(key_of(&text));
    }
    match Key::from_hex(what.as_bytes()).or_else(|| key_of_path(Path::new(what))) {
        Some(key) => Ok(key),
        None => bail!("{what:?} is neither a URL (http://host/path) nor a key (32 hex digits)"),
    }
}

/// The primary key text of a URL.
pub(super) fn text_of_url(url: &str) -> Option<Vec<u8>> {
    let (scheme, rest) = url.split_once("://")?;
    let rest = rest.split('#').next()?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let mut text = Vec::new();
    let parts = KeyParts::default();
    uri_text(&parts, scheme.as_bytes(), authority.as_bytes(), path.as_bytes(), &mut text);
    Some(text)
}

/// Text from outside, with nothing in it that a terminal would obey.
pub(super) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let keep = |c: char| if c.is_control() && c != '\n' { '\u{fffd}' } else { c };
    text.replace("\r\n", "\n").chars().map(keep).collect()
}

/// A key as 32 hex digits.
pub(super) fn hex(key: &Key) -> String {
    String::from_utf8_lossy(&key.hex()).into_owned()
}
