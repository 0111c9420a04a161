//! `ktrix cache show`: all known facts of one object and its variants.

use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;

use crate::cache::files::store::Object;
use crate::cache::index::slot::State;
use crate::cache::load::STORED_FIELDS_MAX;
use crate::cache::name::PART_STATUS;
use crate::cache::name::{Marker, Name};
use crate::cache::variants;
use crate::cli::cause::PurgeReason;
use crate::cli::find::{Found, find, list, marker, part_list, part_list_line};
use crate::cli::name::{KeyText, Naming, printable, variant_line};
use crate::cli::opened::{Inspected, Opened, age_s, seconds_until};
use crate::cli::output::json_line;
use crate::cli::progress::Progress;
use crate::http::date;
use crate::http::h1::head::parse_fields;
use crate::http::status::Status;
use crate::policy::key::Key;
use crate::policy::meta;

/// The object to show, and how.
pub(super) struct Options<'a> {
    /// A URL, a key or the path of a file.
    pub(super) name: &'a str,
    /// Only the variant that a request with these fields chooses.
    pub(super) fields: &'a [String],
    pub(super) is_json: bool,
    pub(super) now_s: u64,
}

/// Shows the objects that are stored under a name: each with the facts in index and file, and its
/// head. Returns whether there is any.
///
/// # Errors
///
/// When the name is invalid, or `out` cannot be written.
pub(super) fn show(
    cache: &Opened,
    naming: &Naming,
    what: &Options<'_>,
    out: &mut dyn Write,
) -> Result<bool> {
    let sights = match what.fields {
        [] => all(cache, &naming.key(what.name)?),
        fields => chosen(cache, naming, what.name, fields)?.inspected.into_iter().collect(),
    };
    if what.is_json {
        let objects: Vec<Shown> = sights.iter().map(|it| Shown::of(cache, it, what)).collect();
        json_line(out, &objects)?;
    } else if sights.is_empty() {
        writeln!(out, "not stored")?;
    } else {
        for (n, inspected) in sights.iter().enumerate() {
            if n > 0 {
                writeln!(out)?;
            }
            Shown::of(cache, inspected, what).write(what.now_s, out)?;
        }
    }
    Ok(!sights.is_empty())
}

/// The object that is stored for a URL and a request with these fields.
///
/// # Errors
///
/// When the URL or a field is invalid, or ktrix would refuse the request.
pub(super) fn chosen(
    cache: &Opened,
    naming: &Naming,
    url: &str,
    fields: &[String],
) -> Result<Found> {
    let (parts, name, request) = naming.of_url(url, fields)?;
    Ok(find(cache, parts, &name, &request.fields))
}

/// The object that is stored under a key, and its variants.
fn all(cache: &Opened, key: &Key) -> Vec<Inspected> {
    let Some(primary) = cache.find(key) else { return Vec::new() };
    let name = primary.file().map(|file| Name::of(file.key_text()));
    let variants = match (marker(&primary), name) {
        (Some(marker), Some(name)) => variants(cache, &name, &marker),
        _ => Vec::new(),
    };
    std::iter::once(primary).chain(variants).collect()
}

/// The variants of a key: those of its list, or else all with a key text that belongs to it.
fn variants(cache: &Opened, primary: &Name, marker: &Marker) -> Vec<Inspected> {
    let listed = variants::names(&list(cache, primary, marker), primary, marker);
    if !listed.is_empty() {
        return listed.iter().filter_map(|name| cache.find(&name.key)).collect();
    }
    let progress = Progress::beside_lines(u64::from(cache.index.n_slots()), "slots");
    let start = [&*primary.text, b"\n"].concat();
    let end = [&b"\n#"[..], &marker.mark].concat();
    let is_of_it = |inspected: &Inspected| {
        let text = inspected.file().map(Object::key_text).unwrap_or_default();
        text.starts_with(&start) && text.ends_with(&end)
    };
    let views = cache.index.slots().inspect(|_| progress.step()).flatten();
    let views = views.filter(|view| view.state == State::Ready);
    views.filter_map(|view| cache.look(view)).filter(is_of_it).collect()
}

/// An object, as JSON. Times are Unix seconds, spans seconds.
#[derive(Serialize)]
struct Shown {
    key: String,
    url: Option<String>,
    variant: Vec<(String, Option<String>)>,
    state: &'static str,
    status: u16,
    age_s: u64,
    ttl_s: i64,
    stored: u64,
    age_when_stored_s: u32,
    fresh_until: u64,
    stale_while_revalidate_until: u64,
    stale_if_error_until: u64,
    must_revalidate: Option<bool>,
    no_cache: Option<bool>,
    immutable: Option<bool>,
    vary: Vec<String>,
    /// Answers given from it.
    hits: u32,
    used: bool,
    generation: u32,
    body_bytes: u64,
    body_offset: u64,
    disk_bytes: u64,
    file: Option<String>,
    fault: Option<String>,
    /// The purges that made it stale or removed it.
    purges: Vec<PurgeReason>,
    /// The stored parts, if only parts of the response are stored.
    parts: Option<String>,
    head: Vec<(String, String)>,
}

impl Shown {
    fn of(cache: &Opened, inspected: &Inspected, what: &Options<'_>) -> Self {
        let (view, file) = (&inspected.view, inspected.file());
        let text = file.map(|file| KeyText::of(file.key_text()));
        let lifetimes = file.and_then(|file| meta::decode(file.meta()).ok());
        let vary = lifetimes.iter().filter_map(|it| it.vary.as_ref()).flat_map(|it| it.names());
        let path = cache.store.path(&view.key).display().to_string();
        let parts = file.filter(|file| file.status() == PART_STATUS.0).and_then(part_list);
        Self {
            key: view.key.to_string(),
            url: text.map(|text| printable(text.url)),
            variant: text.map(|text| text.variant()).unwrap_or_default(),
            state: inspected.word(what.now_s),
            status: view.status,
            age_s: age_s(view, what.now_s),
            ttl_s: seconds_until(view.fresh_until_s, what.now_s),
            stored: view.stored_s,
            age_when_stored_s: view.age_s,
            fresh_until: view.fresh_until_s,
            stale_while_revalidate_until: view.swr_until_s,
            stale_if_error_until: view.sie_until_s,
            must_revalidate: lifetimes.as_ref().map(|it| it.must_revalidate),
            no_cache: lifetimes.as_ref().map(|it| it.no_cache),
            immutable: lifetimes.as_ref().map(|it| it.immutable),
            vary: vary.map(str::to_owned).collect(),
            hits: cache.index.hits(view.at),
            used: view.is_visited,
            generation: view.generation,
            body_bytes: view.body_len,
            body_offset: file.map_or(view.head_len.into(), Object::body_offset),
            disk_bytes: view.weight_bytes(),
            file: view.state.has_file().then_some(path),
            fault: inspected.object.as_ref().err().map(ToString::to_string),
            purges: cache.causes(inspected).iter().map(PurgeReason::of).collect(),
            parts: parts.map(|parts| part_list_line(&parts)),
            head: file.map(head_of).unwrap_or_default(),
        }
    }

    fn write(&self, now_s: u64, out: &mut dyn Write) -> io::Result<()> {
        if let Some(url) = &self.url {
            writeln!(out, "url: {url}")?;
        }
        if !self.variant.is_empty() {
            writeln!(out, "variant: {}", variant_line(&self.variant))?;
        }
        writeln!(out, "key: {}", self.key)?;
        if let Some(fault) = &self.fault {
            writeln!(out, "fault: {fault}")?;
        }
        writeln!(out, "state: {}, generation {}", self.state, self.generation)?;
        for purge in &self.purges {
            let how = if purge.soft { "made stale" } else { "purged" };
            writeln!(out, "{how}: {}", purge.line())?;
        }
        writeln!(out, "stored: {}", moment(self.stored, now_s))?;
        if self.state == "vary" {
            writeln!(out, "chosen by: {}", self.vary.join(", "))?;
        } else {
            self.write_times(now_s, out)?;
        }
        let used = if self.used { "yes" } else { "no" };
        writeln!(out, "hits: {}, used since eviction last looked: {used}", self.hits)?;
        if let Some(parts) = &self.parts {
            writeln!(out, "parts: {parts}")?;
        }
        if let Some(file) = &self.file {
            writeln!(out, "file: {file}, {} bytes on the disk", self.disk_bytes)?;
            writeln!(out, "body: {} bytes from byte {}", self.body_bytes, self.body_offset)?;
        }
        if self.status != 0 {
            writeln!(out, "\nHTTP/1.1 {} {}", self.status, Status(self.status).reason())?;
        }
        self.head.iter().try_for_each(|(name, value)| writeln!(out, "{name}: {value}"))
    }

    fn write_times(&self, now_s: u64, out: &mut dyn Write) -> io::Result<()> {
        let (age_s, aged_s) = (self.age_s, self.age_when_stored_s);
        writeln!(out, "age: {age_s} s, of which {aged_s} s when it was stored")?;
        writeln!(out, "fresh until: {}", moment(self.fresh_until, now_s))?;
        let windows = [
            ("stale-while-revalidate", self.stale_while_revalidate_until),
            ("stale-if-error", self.stale_if_error_until),
        ];
        for (name, until) in windows.iter().filter(|(_, until)| *until > self.fresh_until) {
            writeln!(out, "{name} until: {}", moment(*until, now_s))?;
        }
        let marks = [
            ("must-revalidate", self.must_revalidate),
            ("no-cache", self.no_cache),
            ("immutable", self.immutable),
        ];
        let marks = marks.iter().filter(|(_, is_set)| *is_set == Some(true));
        let marks: Vec<&str> = marks.map(|(name, _)| *name).collect();
        if marks.is_empty() { Ok(()) } else { writeln!(out, "marked: {}", marks.join(", ")) }
    }
}

/// The stored fields; none if they cannot be parsed.
pub(super) fn head_of(file: &Object) -> Vec<(String, String)> {
    let fields = parse_fields(file.head(), STORED_FIELDS_MAX).unwrap_or_default();
    fields.iter().map(|(name, value)| (printable(name), printable(value))).collect()
}

/// `Sun, 06 Nov 1994 08:49:37 GMT (12 s ago)`.
fn moment(unix_s: u64, now_s: u64) -> String {
    let text = String::from_utf8_lossy(&date::format(unix_s)).into_owned();
    match seconds_until(unix_s, now_s) {
        left_s @ 1.. => format!("{text} (in {left_s} s)"),
        ago_s => format!("{text} ({} s ago)", ago_s.unsigned_abs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::index::slot::NewSlot;
    use crate::cache::place::tests::{cache, slot, store_one};

    const PAGE: &str = "GET http://a.example/page?x";

    fn shown(cache: &Opened, name: &str, is_json: bool) -> Option<String> {
        let what = Options { name, fields: &[], is_json, now_s: 5 };
        let mut out = Vec::new();
        let is_there = show(cache, &Naming::of(None), &what, &mut out).unwrap();
        is_there.then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn an_object_is_shown_by_url_by_key_and_by_file() {
        let (dir, index, store) = cache(10);
        store_one(&index, &store, PAGE, b"body").unwrap();
        let opened = Opened::open(dir.path()).unwrap();
        let key = slot(PAGE).key;
        let path = store.path(&key).display().to_string();
        for name in ["http://a.example/page?x#part", &key.to_string(), &path] {
            let text = shown(&opened, name, false).unwrap();
            for part in ["url: http://a.example/page?x\n", "body: 4 bytes", "state: stale", &path] {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
        assert_eq!(shown(&opened, "http://a.example/other", false), None);
        let what = Options { name: "page", fields: &[], is_json: false, now_s: 5 };
        assert!(show(&opened, &Naming::of(None), &what, &mut Vec::new()).is_err());
    }

    #[test]
    fn a_damaged_object_is_shown_with_its_fault() {
        let (dir, index, store) = cache(10);
        store_one(&index, &store, PAGE, b"body").unwrap();
        std::fs::write(store.path(&slot(PAGE).key), b"nonsense").unwrap();
        let opened = Opened::open(dir.path()).unwrap();
        let text = shown(&opened, "http://a.example/page?x", false).unwrap();
        assert!(text.contains("fault: cut") && text.contains("state: damaged"), "{text}");
        let value: serde_json::Value =
            serde_json::from_str(&shown(&opened, "http://a.example/page?x", true).unwrap())
                .unwrap();
        assert_eq!((&value[0]["state"], &value[0]["fault"]), (&"damaged".into(), &"cut".into()));
        assert_eq!(value[0]["head"], serde_json::json!([]));
    }

    #[test]
    fn a_hit_for_miss_object_is_shown_without_a_file() {
        let (dir, index, _store) = cache(10);
        let note = NewSlot { state: State::Pass, status: 0, fresh_until_s: 9, ..slot(PAGE) };
        index.publish(&note).unwrap();
        let opened = Opened::open(dir.path()).unwrap();
        let text = shown(&opened, "http://a.example/page?x", false).unwrap();
        assert!(text.contains("state: pass") && !text.contains("file:"), "{text}");
        assert!(text.contains("(in 4 s)"), "{text}");
    }
}
