//! `ktrix cache list`: a line for every object.

use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;

use crate::cache::index::slot::State;
use crate::cli::name::{KeyText, printable, variant_line};
use crate::cli::opened::{Inspected, Opened, age_s, is_fresh, seconds_until};
use crate::cli::output::json_line;
use crate::cli::progress::Progress;
use crate::policy::key::host::NamedHost;

/// The objects to list.
#[derive(Args, Debug, Default)]
pub(super) struct Filter {
    /// Only objects of this host; *.NAME for every host below it
    #[arg(long, value_name = "HOST[:PORT]", value_parser = Hosts::parse)]
    host: Option<Hosts>,
    /// Only objects with a path (/img/) or URL (http://host/img/) that begins with this
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Only stale objects
    #[arg(long)]
    stale: bool,
}

/// A host, or all below one.
#[derive(Clone, Debug)]
enum Hosts {
    One(NamedHost),
    /// Hosts with names that end with this.
    Below(String),
}

impl Hosts {
    fn parse(text: &str) -> Result<Self, String> {
        let one = |text: &str| NamedHost::parse(text.as_bytes());
        match text.strip_prefix("*.") {
            Some(name) if one(name).is_some_and(|it| it.port().is_none()) => {
                Some(Self::Below(format!(".{}", name.to_ascii_lowercase())))
            }
            Some(_) => None,
            None => one(text).map(Self::One),
        }
        .ok_or_else(|| "neither a host, with or without its port, nor *.NAME".to_owned())
    }

    fn takes(&self, text: &KeyText<'_>) -> bool {
        match self {
            Self::One(host) => host.names(text.url),
            Self::Below(end) => text.host().ends_with(end.as_bytes()),
        }
    }
}

/// A line of the list, as JSON. Times are Unix seconds, spans seconds.
#[derive(Serialize)]
struct Line<'a> {
    key: String,
    url: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    variant: Vec<(String, Option<String>)>,
    state: &'a str,
    status: u16,
    body_bytes: u64,
    disk_bytes: u64,
    age_s: u64,
    /// The marker of variants has none.
    ttl_s: Option<i64>,
    stored: u64,
    fresh_until: u64,
    hits: u32,
    used: bool,
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

/// Lists the objects that pass the filter, in the order of the index, and then their number and
/// size.
///
/// # Errors
///
/// When the filter is invalid, or `out` cannot be written.
pub(super) fn list(
    cache: &Opened,
    filter: &Filter,
    is_json: bool,
    now_s: u64,
    out: &mut dyn Write,
) -> Result<()> {
    filter.check()?;
    let progress = Progress::beside_lines(u64::from(cache.index.n_slots()), "slots");
    let (mut n_objects, mut n_bytes) = (0_u64, 0_u64);
    // A soft purge makes an object stale that is fresh by its slot.
    let is_unpurged = cache.is_unpurged();
    for view in cache.index.slots() {
        progress.step();
        // The file is read only if the filter depends on it.
        let Some(view) = view.filter(|view| !filter.stale || view.state == State::Ready) else {
            continue;
        };
        if filter.stale && is_unpurged && is_fresh(&view, now_s) {
            continue;
        }
        let Some(inspected) = cache.look(view).filter(|inspected| filter.takes(inspected, now_s))
        else {
            continue;
        };
        let view = &inspected.view;
        n_objects += 1;
        n_bytes = n_bytes.saturating_add(view.weight_bytes());
        let line = Line::of(cache, &inspected, now_s);
        match is_json {
            true => json_line(out, &line)?,
            false => line.write(out)?,
        }
    }
    drop(progress);
    if !is_json {
        writeln!(out, "{n_objects} objects, {n_bytes} bytes")?;
    }
    Ok(())
}

impl Filter {
    fn check(&self) -> Result<()> {
        match &self.prefix {
            Some(prefix) if !prefix.starts_with('/') && !prefix.contains("://") => {
                bail!("{prefix:?} is the beginning of neither a path (/img/) nor a URL")
            }
            _ => Ok(()),
        }
    }

    fn takes(&self, inspected: &Inspected, now_s: u64) -> bool {
        if self.stale && (inspected.is_purged() || is_fresh(&inspected.view, now_s)) {
            return false;
        }
        if self.host.is_none() && self.prefix.is_none() {
            return true;
        }
        let Some(file) = inspected.file() else { return false };
        let text = KeyText::of(file.key_text());
        self.host.as_ref().is_none_or(|host| host.takes(&text))
            && self.prefix.as_ref().is_none_or(|prefix| match prefix.starts_with('/') {
                true => text.path().starts_with(prefix.as_bytes()),
                false => text.url.starts_with(prefix.as_bytes()),
            })
    }
}

impl<'a> Line<'a> {
    fn of(cache: &Opened, inspected: &'a Inspected, now_s: u64) -> Self {
        let view = &inspected.view;
        let text = inspected.file().map(|file| KeyText::of(file.key_text()));
        let path = cache.store.path(&view.key);
        Self {
            key: view.key.to_string(),
            url: text.map(|text| printable(text.url)),
            variant: text.map(|text| text.variant()).unwrap_or_default(),
            state: inspected.word(now_s),
            status: view.status,
            body_bytes: view.body_len,
            disk_bytes: view.weight_bytes(),
            age_s: age_s(view, now_s),
            ttl_s: (view.state != State::Vary).then(|| seconds_until(view.fresh_until_s, now_s)),
            stored: view.stored_s,
            fresh_until: view.fresh_until_s,
            hits: cache.index.hits(view.at),
            used: view.is_visited,
            file: view.state.has_file().then(|| path.display().to_string()),
            fault: inspected.object.as_ref().err().map(ToString::to_string),
        }
    }

    fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let Self { key, state, status, body_bytes, age_s, .. } = self;
        let ttl_s = self.ttl_s.map_or("-".to_owned(), |ttl_s| ttl_s.to_string());
        write!(out, "{key} {state:10} {status:3} {body_bytes:>10} {age_s:>8} {ttl_s:>8} ")?;
        match (&self.url, &self.fault) {
            (_, Some(fault)) => write!(out, "({fault})")?,
            (Some(url), None) => write!(out, "{url}")?,
            (None, None) => write!(out, "-")?,
        }
        if !self.variant.is_empty() {
            write!(out, " ({})", variant_line(&self.variant))?;
        }
        writeln!(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::place::tests::{cache, slot, store_one};

    const TEXTS: [&str; 5] = [
        "GET http://a.example/img/1",
        "GET http://a.example:81/img/2",
        "GET http://b.a.example/css/1",
        "GET https://c.example/img/1",
        "GET http://a.example/page\naccept:text/html\ndnt\n#1f",
    ];

    fn listed(filter: &Filter, is_json: bool) -> String {
        let (dir, index, store) = cache(50);
        for text in TEXTS {
            store_one(&index, &store, text, b"body").unwrap();
        }
        let opened = Opened::open(dir.path()).unwrap();
        let mut out = Vec::new();
        // `slot` is stored at 1 and fresh until 2.
        list(&opened, filter, is_json, 1, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_filter_selects_its_objects() {
        let host =
            |host: &str| Filter { host: Some(Hosts::parse(host).unwrap()), ..Filter::default() };
        let prefix = |it: &str| Filter { prefix: Some(it.to_owned()), ..Filter::default() };
        let cases = [
            (Filter::default(), 5),
            (host("A.example"), 3),
            (host("a.example:81"), 1),
            (host("*.a.example"), 1),
            (host("*.example"), 5),
            (host("a.example:80"), 2),
            (host("c.example:443"), 1),
            (host("example"), 0),
            (prefix("/img/"), 3),
            (prefix("http://a.example/"), 2),
            (prefix("https://"), 1),
            (Filter { stale: true, ..Filter::default() }, 0),
        ];
        for (filter, n) in cases {
            let text = listed(&filter, false);
            assert_eq!(text.lines().count(), n + 1, "{filter:?}: {text}");
            assert!(text.ends_with(&format!("{n} objects, {} bytes\n", n * 4096)), "{text}");
        }
        for odd in ["*", "*.", "*.a:81", "*.*.a", "a/b", "http://a", ""] {
            assert!(Hosts::parse(odd).is_err(), "{odd}");
        }
        let cache = Opened::open(cache(1).0.path()).unwrap();
        let odd = list(&cache, &prefix("img"), false, 1, &mut Vec::new());
        assert!(odd.unwrap_err().to_string().contains("neither a path"));
    }

    #[test]
    fn machines_get_a_value_in_each_line() {
        let text = listed(&Filter::default(), true);
        let values: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(values.len(), TEXTS.len());
        let page = values.iter().find(|it| it["url"] == "http://a.example/page").unwrap();
        assert_eq!(page["variant"][0], serde_json::json!(["accept", "text/html"]));
        assert_eq!(page["variant"][1], serde_json::json!(["dnt", null]));
        assert_eq!((&page["state"], &page["ttl_s"]), (&"fresh".into(), &1.into()));
        assert_eq!(page["body_bytes"], 4);
        let key = slot(TEXTS[4]).key.to_string();
        assert_eq!(page["key"], key.as_str());
    }

    #[test]
    fn a_damaged_file_is_a_line_that_says_so() {
        let (dir, index, store) = cache(50);
        store_one(&index, &store, TEXTS[0], b"body").unwrap();
        let path = store.path(&slot(TEXTS[0]).key);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let opened = Opened::open(dir.path()).unwrap();
            let mut out = Vec::new();
            list(&opened, &Filter::default(), false, 1, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(text.contains("damaged") && text.contains("(cut)"), "{cut}: {text}");
        }
    }
}
