//! `ktrix cache cat`: the body of one object, as it would be served.

use std::io::Write;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, anyhow, bail};

use crate::cache::files::store::Object;
use crate::cache::index::slot::State;
use crate::cache::name::PART_STATUS;
use crate::cache::purge::bucket::PurgeStatus;
use crate::cli::cache::show::chosen;
use crate::cli::name::{KeyText, Naming};
use crate::cli::opened::{Inspected, Opened};

/// Writes the body of the object that is stored for a URL and these fields, or under a key. The
/// body is checked against its checksum first: a body that would not be served is not written.
///
/// # Errors
///
/// When there is no such object, it is damaged, or `out` cannot be written.
pub(super) fn cat(
    cache: &Opened,
    naming: &Naming,
    name: &str,
    fields: &[String],
    out: &mut dyn Write,
) -> Result<()> {
    let inspected = match name.contains("://") {
        true => {
            let found = chosen(cache, naming, name, fields)?;
            if let (Some(marker), None) = (&found.marker, &found.inspected) {
                let names = marker.names.names().collect::<Vec<_>>().join(", ");
                bail!(
                    "no variant of {name:?} for this request is stored: it is chosen by {names}; \
                     set these with -H (see ktrix cache show)"
                );
            }
            found.inspected
        }
        false if fields.is_empty() => cache.find(&naming.key(name)?),
        false => bail!(
            "{name:?} is not a URL: a variant is chosen by the fields of a request or by its own key"
        ),
    };
    let Some(Inspected { view, object, purge_status }) = inspected else {
        bail!("{name:?} is not stored{}", if fields.is_empty() { "" } else { " for these fields" })
    };
    if purge_status == PurgeStatus::Purged {
        bail!("{name:?} was purged");
    }
    if view.state == State::Vary {
        bail!("{name:?} is only the marker of its variants (see ktrix cache show)");
    }
    let path = cache.store.path(&view.key);
    let unusable = || format!("cannot use cache file {path:?}");
    let object = object.map_err(|fault| anyhow!("{fault}")).with_context(unusable)?;
    let Some(object) = object else { bail!("{name:?} is a hit-for-miss object, without a body") };
    let is_part = KeyText::of(object.key_text()).is_part();
    if object.status() == PART_STATUS.0 && !is_part {
        bail!("only parts of {name:?} are stored (see ktrix cache show)");
    }
    let (mut verify, mut part) = (object.verify(), Vec::new());
    while !verify.step(&object, &mut part).with_context(unusable)? {}
    copy(&object, part, out)
}

/// Writes a body that was verified, from the file that it was verified in.
fn copy(object: &Object, mut part: Vec<u8>, out: &mut dyn Write) -> Result<()> {
    part.resize(PART_BYTES, 0);
    let mut at = 0_u64;
    while at < object.body_len {
        let n = part.len().min(usize::try_from(object.body_len - at).unwrap_or(usize::MAX));
        let room = part.get_mut(..n).unwrap_or_default();
        object.file.read_exact_at(room, object.body_offset().saturating_add(at))?;
        out.write_all(room)?;
        at = at.saturating_add(n as u64);
    }
    Ok(())
}

const PART_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::place::tests::{cache, slot, store_one};

    const URL: &str = "http://a.example/page";
    const TEXT: &str = "GET http://a.example/page";

    #[test]
    fn a_body_of_any_length_comes_out_as_it_went_in() {
        let (dir, index, store) = cache(10);
        for len in [0, 1, 8 << 10, PART_BYTES, PART_BYTES + 1] {
            let body: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
            store_one(&index, &store, TEXT, &body).unwrap();
            let opened = Opened::open(dir.path()).unwrap();
            let mut out = Vec::new();
            cat(&opened, &Naming::of(None), URL, &[], &mut out).unwrap();
            assert!(out == body, "{len} bytes became {}", out.len());
        }
    }

    #[test]
    fn a_damaged_or_absent_object_is_an_error_without_output() {
        let (dir, index, store) = cache(10);
        store_one(&index, &store, TEXT, b"body").unwrap();
        let path = store.path(&slot(TEXT).key);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let opened = Opened::open(dir.path()).unwrap();
        let mut out = Vec::new();
        for (name, why) in [
            (URL, "body-damaged"),
            ("http://a.example/other", "not stored"),
            ("page", "neither a URL"),
        ] {
            let error =
                format!("{:#}", cat(&opened, &Naming::of(None), name, &[], &mut out).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
        let key = slot(TEXT).key.to_string();
        assert!(
            cat(&opened, &Naming::of(None), &key, &["Accept: x".to_owned()], &mut out).is_err()
        );
        assert_eq!(out, b"");
    }
}
