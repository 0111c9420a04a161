//! `ktrix cache du`: the disk space that the cache uses.

use std::collections::HashMap;
use std::io::Write;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

use crate::cache::index::slot::SlotView;
use crate::cli::name::{KeyText, printable};
use crate::cli::opened::Opened;
use crate::cli::output::json_line;
use crate::cli::progress::Progress;

/// The property that the use is counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum By {
    /// Host and port of the URL
    Host,
    /// Status of the stored response
    Status,
}

/// The use of some objects.
#[derive(Clone, Copy, Default, Serialize)]
struct Use {
    objects: u64,
    body_bytes: u64,
    disk_bytes: u64,
}

impl Use {
    fn add(&mut self, view: &SlotView) {
        self.objects += 1;
        self.body_bytes = self.body_bytes.saturating_add(view.body_len);
        self.disk_bytes = self.disk_bytes.saturating_add(view.weight_bytes());
    }
}

/// A line, as JSON.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    #[serde(flatten)]
    used: Use,
    #[serde(flatten)]
    limits: Option<Limits>,
}

/// The limits of the whole cache; 0 where the index does not have them yet.
#[derive(Clone, Copy, Serialize)]
struct Limits {
    objects_max: u64,
    disk_bytes_max: u64,
    free_bytes: Option<u64>,
}

/// Reports the use of the cache: a line for each part, the largest first, and one for all.
///
/// # Errors
///
/// When `out` cannot be written.
pub(super) fn du(cache: &Opened, by: Option<By>, is_json: bool, out: &mut dyn Write) -> Result<()> {
    let (mut total, mut parts) = (Use::default(), HashMap::<String, Use>::new());
    let progress = Progress::of(u64::from(cache.index.n_slots()), "slots");
    for view in cache.index.slots() {
        progress.step();
        let Some(view) = view.filter(|view| view.state.has_file()) else { continue };
        if let Some(by) = by {
            let Some(part) = part(cache, by, view) else { continue };
            parts.entry(part).or_default().add(&view);
        }
        total.add(&view);
    }
    drop(progress);
    let mut parts: Vec<(String, Use)> = parts.into_iter().collect();
    parts.sort_by(|(name, used), (other, others)| {
        others.disk_bytes.cmp(&used.disk_bytes).then_with(|| name.cmp(other))
    });
    let limits = Limits {
        objects_max: cache.index.n_objects_max(),
        disk_bytes_max: cache.index.size_bytes(),
        free_bytes: cache.store.free_bytes().ok(),
    };
    match is_json {
        true => write_json(by, &parts, total, limits, out),
        false => write_text(&parts, total, limits, out),
    }
}

/// The part that an object belongs to; `None` if the object was removed meanwhile.
fn part(cache: &Opened, by: By, view: SlotView) -> Option<String> {
    match by {
        By::Host => {
            let inspected = cache.look(view)?;
            let text =
                inspected.file().map(|file| printable(KeyText::of(file.key_text()).authority()));
            Some(text.unwrap_or_else(|| "(damaged)".to_owned()))
        }
        By::Status => Some(match view.status {
            0 => "vary".to_owned(),
            status => status.to_string(),
        }),
    }
}

fn write_json(
    by: Option<By>,
    parts: &[(String, Use)],
    total: Use,
    limits: Limits,
    out: &mut dyn Write,
) -> Result<()> {
    for (name, used) in parts {
        let named = |wanted| (by == Some(wanted)).then_some(name.as_str());
        let (host, status) = (named(By::Host), named(By::Status));
        json_line(out, &Line { host, status, used: *used, limits: None })?;
    }
    json_line(out, &Line { host: None, status: None, used: total, limits: Some(limits) })?;
    Ok(())
}

fn write_text(
    parts: &[(String, Use)],
    total: Use,
    limits: Limits,
    out: &mut dyn Write,
) -> Result<()> {
    writeln!(out, "{:>10} {:>16} {:>16}", "objects", "bytes", "on disk")?;
    let mut line = |used: &Use, name: &str| {
        let Use { objects, body_bytes, disk_bytes } = used;
        writeln!(out, "{objects:>10} {body_bytes:>16} {disk_bytes:>16} {name}")
    };
    parts.iter().try_for_each(|(name, used)| line(used, name))?;
    line(&total, "total")?;
    let size = match limits.disk_bytes_max {
        0 => "-".to_owned(),
        bytes => bytes.to_string(),
    };
    writeln!(out, "{:>10} {:>16} {size:>16} limit", limits.objects_max, "")?;
    if let Some(free_bytes) = limits.free_bytes {
        writeln!(out, "{:>10} {:>16} {free_bytes:>16} free", "", "")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::place::tests::{cache, store_one};

    fn used(by: Option<By>, is_json: bool) -> String {
        let (dir, index, store) = cache(50);
        for (text, len) in [
            ("GET http://a/1", 10),
            ("GET http://a/2", 5000),
            ("GET http://b/1", 100),
            ("GET http://b/2\naccept:x\n#1", 1),
        ] {
            store_one(&index, &store, text, &vec![b'x'; len]).unwrap();
        }
        index.set_size(1 << 30);
        let mut out = Vec::new();
        du(&Opened::open(dir.path()).unwrap(), by, is_json, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_largest_part_stands_first_and_all_make_the_total() {
        let words = |text: &str| -> Vec<Vec<String>> {
            let line = |line: &str| line.split_whitespace().map(str::to_owned).collect();
            text.lines().skip(1).map(line).collect()
        };
        let by_host = words(&used(Some(By::Host), false));
        assert_eq!(by_host[0], ["2", "5010", "12288", "a"]);
        assert_eq!(by_host[1], ["2", "101", "8192", "b"]);
        assert_eq!(by_host[2], ["4", "5111", "20480", "total"]);
        assert_eq!(by_host[3], ["50", "1073741824", "limit"]);
        let by_status = words(&used(Some(By::Status), false));
        assert_eq!(by_status[0], ["4", "5111", "20480", "200"]);
        let all = words(&used(None, false));
        assert_eq!(all[0], ["4", "5111", "20480", "total"]);
    }

    #[test]
    fn machines_get_a_value_in_each_line_and_the_total_last() {
        let text = used(Some(By::Host), true);
        let values: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&values[0]["host"], &values[0]["objects"]), (&"a".into(), &2.into()));
        assert_eq!(values[2]["disk_bytes_max"], 1_u64 << 30);
        assert_eq!((values.len(), &values[2]["objects"]), (3, &4.into()));
        assert!(values[2].get("host").is_none());
    }
}
