//! `ktrix cache list`: a line for every object.

use std::io::Write;
use std::path::Path;

use anyhow::Result;

use crate::cache::scrub::compare;
use crate::cache::store::Object;
use crate::cli::cache::name::{hex, printable};
use crate::cli::cache::open;

/// Lists every slot: key, state, status, bytes of body, fresh until (Unix seconds), key text.
///
/// # Errors
///
/// When there is no index in `dir`, or `out` cannot be written.
pub(super) fn list(dir: &Path, out: &mut impl Write) -> Result<()> {
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

fn first_line(object: &Object) -> String {
    let text = object.key_text();
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let mark = if line.len() < text.len() { " (variant)" } else { "" };
    format!("{}{mark}", printable(line))
}
