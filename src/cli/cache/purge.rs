//! `ktrix cache purge`: marks stored objects as purged, at once.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;
use nix::unistd::{User, getuid};

use crate::cache::files::store::Store;
use crate::cache::purge::cause::Reader;
use crate::cache::purge::journal::Record;
use crate::cache::purge::{Order, Purges};
use crate::cli::name::{KeyText, Naming, printable};
use crate::cli::opened::now_s;
use crate::http::date;
use crate::http::scheme::Scheme;
use crate::policy::key::Key;
use crate::policy::key::host::NamedHost;
use crate::policy::purge::hash::PurgeKind;
use crate::policy::purge::prefix::prefix_text;
use crate::policy::purge::request::PurgeRefusal;
use crate::policy::purge::surrogate;
use crate::policy::purge::surrogate::primary_of;

/// The objects to purge, or an operation on purges.
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("named").required(true).args(
    ["url", "prefix", "host", "tag", "group", "all", "undo", "list"])))]
pub(super) struct Purge {
    /// One object with its variants: its URL, its key of 32 hex digits, or the path of its file
    #[arg(value_parser = one_object)]
    url: Option<String>,
    /// Objects with a URL that begins with this, of any scheme
    #[arg(long, value_name = "URL", value_parser = beginning)]
    prefix: Option<String>,
    /// Objects of this host, or of this port of it
    #[arg(long, value_name = "HOST[:PORT]", value_parser = one_host)]
    host: Option<NamedHost>,
    /// Objects with this tag of their origin
    #[arg(long, value_name = "TAG", value_parser = one_tag)]
    tag: Option<String>,
    /// Objects in this group of their origin; with --of
    #[arg(long, value_name = "GROUP", requires = "of")]
    group: Option<String>,
    /// The origin of the group
    #[arg(long, value_name = "http://HOST[:PORT]", requires = "group", value_parser = origin)]
    of: Option<(Scheme, String)>,
    /// Everything
    #[arg(long)]
    all: bool,
    /// Make them stale only: they are validated, and may be served meanwhile
    #[arg(long, conflicts_with_all = ["undo", "list"])]
    soft: bool,
    /// Undo the purge with this number, as far as its objects still exist
    #[arg(long, value_name = "NUMBER")]
    undo: Option<u64>,
    /// List the remembered purges
    #[arg(long)]
    list: bool,
}

/// Purges, and prints the number of the purge. A running ktrix sees it at once.
///
/// # Errors
///
/// When there is no table of purges in `dir`, an argument is invalid, or nothing was done.
pub(super) fn purge(dir: &Path, naming: &Naming, what: &Purge, out: &mut dyn Write) -> Result<()> {
    if what.list {
        return list(&Reader::open(dir)?, out);
    }
    // A command has no error log; the record would have gone there if ktrix had run.
    let purges = Purges::open_existing(dir)?
        .telling(|record| eprintln!("ktrix: not in the error log: {record}"));
    if let Some(number) = what.undo {
        let undone = purges.undo(number, &who(), now_s());
        let undone = undone.with_context(|| format!("cannot undo purge {number}"))?;
        purges.sync().context("cannot write the table of purges")?;
        writeln!(out, "purge {number} of {} is undone", named(&undone))?;
        return Ok(());
    }
    let order = what.order(dir, naming)?;
    let number = purges.purge(&order, now_s());
    let number = number.with_context(|| format!("no {} was purged", order.kind.word()))?;
    purges.sync().context("purged, but cannot write the table of purges")?;
    let soft = if order.is_soft { "soft " } else { "" };
    let line = format!("{soft}purge {number} of {} {}", order.kind.word(), order.name);
    Ok(writeln!(out, "{}", line.trim_end())?)
}

impl Purge {
    fn order(&self, dir: &Path, naming: &Naming) -> Result<Order> {
        let (kind, text, name) = if let Some(url) = &self.url {
            if url.contains("://") {
                let (_, name, _) = naming.of_url(url, &[])?;
                (PurgeKind::Url, primary_of(&name.text).to_vec(), url.clone())
            } else {
                let text = text_under(dir, naming, url)?;
                // A key, or a file, does not show the URL.
                let name = printable(KeyText::of(&text).url);
                (PurgeKind::Url, text, name)
            }
        } else if let Some(prefix) = &self.prefix {
            let text = prefix_text(prefix.as_bytes())?;
            tell_beginning(naming, prefix)?;
            (PurgeKind::Prefix, text, prefix.clone())
        } else if let Some(host) = &self.host {
            let text = host.text();
            (PurgeKind::Host, text.clone(), printable(&text))
        } else if let Some(tag) = &self.tag {
            (PurgeKind::Tag, tag.as_bytes().to_vec(), tag.clone())
        } else if let (Some(group), Some((scheme, authority))) = (&self.group, &self.of) {
            let text = surrogate::group_text(*scheme, authority.as_bytes(), group.as_bytes());
            (PurgeKind::Group, text, format!("{group} of {scheme}://{authority}"))
        } else {
            (PurgeKind::All, Vec::new(), String::new())
        };
        Ok(Order { kind, text, is_soft: self.soft, name, who: who() })
    }
}

/// Refuses a beginning that names nothing, since the keys of its route do not contain it.
fn tell_beginning(naming: &Naming, prefix: &str) -> Result<()> {
    let url = match prefix.starts_with("//") {
        true => format!("{}:{prefix}", Scheme::Http),
        false => prefix.to_owned(),
    };
    let (components, _, head) = naming.of_url(&url, &[])?;
    if !components.preserve_prefix(head.target.path_and_query()) {
        bail!("{prefix:?}: {}", PurgeRefusal::PrefixNotInKey.sentence());
    }
    Ok(())
}

fn one_object(text: &str) -> Result<String, String> {
    let Some((_, rest)) = text.split_once("://") else { return Ok(text.to_owned()) };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    one_host(authority.strip_suffix(':').unwrap_or(authority)).map(|_| text.to_owned())
}

fn beginning(text: &str) -> Result<String, String> {
    let checked = prefix_text(text.as_bytes());
    checked.map(|_| text.to_owned()).map_err(|reason| reason.to_string())
}

fn one_host(text: &str) -> Result<NamedHost, String> {
    let host = NamedHost::parse(text.as_bytes());
    host.ok_or_else(|| format!("{text:?} is not one host, with or without its port"))
}

fn one_tag(text: &str) -> Result<String, String> {
    match surrogate::tags_in(text.as_bytes()).eq([text.as_bytes()]) {
        true => Ok(text.to_owned()),
        false => Err("not one tag: a tag has no space and no comma".to_owned()),
    }
}

fn origin(text: &str) -> Result<(Scheme, String), String> {
    let (scheme, authority) = text.split_once("://").unwrap_or_default();
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let Some(scheme) = Scheme::parse(scheme.as_bytes()) else {
        return Err("not an origin (try \"http://host\")".to_owned());
    };
    one_host(authority).map(|_| (scheme, authority.to_owned()))
}

/// The key text of a key or a file, without the part that distinguishes its variants.
fn text_under(dir: &Path, naming: &Naming, what: &str) -> Result<Vec<u8>> {
    let key: Key = naming.key(what)?;
    let store = Store::existing(dir, 0);
    let object = store.open_any(&key).context("cannot use the cache file")?;
    let object = object.with_context(|| format!("nothing is stored under {what:?}"))?;
    Ok(primary_of(object.key_text()).to_vec())
}

fn list(purges: &Reader, out: &mut dyn Write) -> Result<()> {
    for record in purges.records() {
        let date = date::format(record.time_s);
        let undone = if record.is_undone { " (undone)" } else { "" };
        let (number, who) = (record.number, printable(record.who.as_bytes()));
        let date = String::from_utf8_lossy(&date);
        let what = match record.undoes {
            Some(number) => format!("undoes purge {number} of {}", named(&record)),
            None => named(&record),
        };
        writeln!(out, "{number:>6}  {date}  {what}{undone}  by {who}")?;
    }
    Ok(())
}

fn named(record: &Record) -> String {
    let soft = if record.is_soft { "soft " } else { "" };
    let text = format!("{soft}{} {}", record.kind.word(), printable(record.name.as_bytes()));
    text.trim_end().to_owned()
}

/// The user of the command, for the log.
fn who() -> String {
    let user = User::from_uid(getuid()).ok().flatten();
    user.map_or_else(|| format!("uid {}", getuid()), |user| format!("user {}", user.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        purge: Purge,
    }

    fn run(dir: &Path, line: &str) -> Result<String> {
        let words = ["purge"].into_iter().chain(line.split_whitespace());
        let line = Line::try_parse_from(words)?;
        let mut out = Vec::new();
        purge(dir, &Naming::of(None), &line.purge, &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn purges_are_listed_and_can_be_undone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(run(dir.path(), "--all").unwrap_err().to_string().contains("no table of purges"));
        Purges::open(dir.path()).unwrap();
        let done = [
            ("http://a/b", "purge 1 of url http://a/b\n"),
            ("--prefix http://a/x --soft", "soft purge 2 of prefix http://a/x\n"),
            ("--host A.", "purge 3 of host a\n"),
            ("--tag news", "purge 4 of tag news\n"),
            ("--group g --of http://a/", "purge 5 of group g of http://a\n"),
            ("--undo 3", "purge 3 of host a is undone\n"),
        ];
        for (line, said) in done {
            assert_eq!(run(dir.path(), line).unwrap(), said, "{line}");
        }
        let listed = run(dir.path(), "--list").unwrap();
        assert!(listed.contains("host a (undone)  by "), "{listed}");
        assert!(listed.contains("undoes purge 3 of host a  by "), "{listed}");
        assert!(listed.contains("group g of http://a  by "), "{listed}");
        assert_eq!(listed.lines().count(), 6);
        assert!(run(dir.path(), "--undo 6").is_err(), "it is no purge");
    }

    #[test]
    fn invalid_arguments_purge_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (purges, _) = Purges::open(dir.path()).unwrap();
        for line in [
            "",
            "--all --host a",
            "--undo 1 --soft",
            "--group g",
            "--group g --of a",
            "--group g --of ftp://a",
            "--group g --of http://*.a",
            "--prefix /x",
            "--prefix http://*.test/",
            "--prefix //a:80/",
            "--host a/b",
            "--host *.test",
            "--host *",
            "--host http://a",
            "--host a:",
            "http://*.test/x",
            "--tag a,b",
            "page",
            "d41d8cd98f00b204e9800998ecf8427e",
            "--undo 7",
        ] {
            assert!(run(dir.path(), line).is_err(), "{line}");
        }
        assert!(purges.records().is_empty());
    }

    #[test]
    fn a_beginning_that_no_key_contains_is_refused() {
        let text = "cache: /c\nupstreams: {app: {servers: [10.0.0.1]}}\nsites:\n  - upstream: app\n    \
                    routes:\n      - {path: /app/, cache: {key: {path: off}}}\n      \
                    - {path: /, cache: {key: {query: off}}}\n";
        let config = Config::load(Path::new("k.yaml"), text).unwrap_or_else(|it| panic!("{it}"));
        let naming = Naming::of(Some(&config));
        for prefix in ["http://a/app/x", "//a/app/x", "https://a/x?y"] {
            let error = tell_beginning(&naming, prefix).unwrap_err().to_string();
            assert!(error.contains("leave out"), "{error}");
        }
        for prefix in ["http://a/app/", "//a/app", "http://a", "https://a/x"] {
            tell_beginning(&naming, prefix).unwrap();
        }
    }
}
