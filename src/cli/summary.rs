//! A configuration in a few lines for people: its listeners, sites, upstreams, cache, logs and bounds.

use std::fmt::Display;
use std::path::Path;

use crate::base::units::{format_duration, format_size};
use crate::config::places::Places;
use crate::config::schema::DIRECTIVES;
use crate::config::{
    AccessLogConfig, CacheConfig, Config, Listen, ListenMode, LogFormat, SiteConfig,
};
use crate::config::{ErrorSink, UpstreamConfig};
use crate::sys::privileges;

/// Entries of one kind that are listed; the rest is counted.
const N_LISTED: usize = 8;

/// The lines, each a word and what it stands for.
pub(super) fn lines(config: &Config) -> Vec<(&'static str, String)> {
    let user = match (&config.user, privileges::is_root()) {
        (Some(user), true) => user.as_str(),
        (None, true) => "root",
        (_, false) => "the user that starts it",
    };
    let mut lines = vec![("user", user.to_owned()), ("workers", config.workers.to_string())];
    if let Some(pid) = &config.pid {
        lines.push(("pid", pid.display().to_string()));
    }
    lines.push(("listen", joined(config.listen.iter().map(listener))));
    let name = |upstream: usize| config.upstreams.get(upstream).map_or("", |it| &*it.name);
    if !config.sites.is_empty() {
        lines.push(("sites", joined(config.sites.iter().map(site))));
    }
    if let Some(default) = config.default_upstream {
        let rest = if config.sites.is_empty() { "every request" } else { "other hosts" };
        lines.push(("default", format!("{rest} to {}", name(default.0))));
    }
    for upstream in config.upstreams.iter().take(N_LISTED) {
        lines.push(("upstream", servers(upstream)));
    }
    if let Some(more) = config.upstreams.len().checked_sub(N_LISTED).filter(|more| *more > 0) {
        lines.push(("upstream", format!("and {more} more")));
    }
    lines.push(("cache", config.cache.as_ref().map_or("off".to_owned(), cache)));
    lines.push(("access log", config.log.access.as_ref().map_or("off".to_owned(), request_log)));
    if let Some(slow) = &config.log.slow {
        let over = format_duration(slow.over);
        lines.push(("slow log", format!("{}, over {over}", request_log(slow))));
    }
    let level = config.log.level.as_str().to_ascii_lowercase();
    lines.push(("error log", format!("{}, {level}", error_log(&config.log.error))));
    let bounds = bounds(config);
    if !bounds.is_empty() {
        lines.push(("bounds", bounds.join(", ")));
    }
    lines
}

fn listener(listen: &Listen) -> String {
    let mut text = listen.address.to_string();
    match listen.mode {
        ListenMode::Http => {}
        ListenMode::Tcp => text.push_str(" (tcp)"),
        ListenMode::Forward => text.push_str(" (forward proxy)"),
        ListenMode::Admin => text.push_str(" (admin)"),
    }
    if listen.tls.is_some() {
        text.push_str(" (tls)");
    }
    if !listen.proxies.is_empty() {
        text.push_str(" (PROXY header)");
    }
    text
}

fn site(site: &SiteConfig) -> String {
    let host = site.hosts.first().map_or("any host".to_owned(), ToString::to_string);
    let more = match site.hosts.len() {
        0 | 1 => String::new(),
        n => format!(" and {}", counted(n - 1, "other")),
    };
    format!("{host}{more} ({})", counted(site.routes.len(), "route"))
}

fn servers(upstream: &UpstreamConfig) -> String {
    let addresses = upstream.servers.iter().map(|server| server.address.to_string());
    let tls = if upstream.tls.is_some() { " (tls)" } else { "" };
    format!("{}: {}{tls}", upstream.name, joined(addresses))
}

fn cache(cache: &CacheConfig) -> String {
    format!(
        "{}, {} on the disk, {} objects, {} of memory for each worker",
        cache.path.display(),
        format_size(cache.size_bytes),
        cache.objects,
        format_size(cache.memory_bytes as u64)
    )
}

fn request_log(log: &AccessLogConfig) -> String {
    let format = match log.format {
        LogFormat::Common => "common",
        LogFormat::Combined => "combined",
        LogFormat::Json => "json",
        LogFormat::Text => "text",
    };
    format!("{}, {format}", log.file.display())
}

fn error_log(sink: &ErrorSink) -> String {
    match sink {
        ErrorSink::Auto => "standard error in the foreground, else syslog".to_owned(),
        ErrorSink::Syslog => "syslog".to_owned(),
        ErrorSink::Stderr => "standard error".to_owned(),
        ErrorSink::File(path) => path.display().to_string(),
    }
}

/// The limits and time-outs that are not at their default.
fn bounds(config: &Config) -> Vec<String> {
    let Ok(places) = Places::of(Path::new(""), &config.effective) else { return Vec::new() };
    let rows = DIRECTIVES.iter().filter(|row| ["limits", "timeouts"].contains(&row.section));
    let other = rows.filter_map(|row| {
        let value = places.text(&row.path()).filter(|value| *value != row.default)?;
        Some(format!("{} {value}", row.path()))
    });
    other.collect()
}

fn joined(all: impl Iterator<Item = impl Display>) -> String {
    let mut texts: Vec<String> = all.map(|it| it.to_string()).collect();
    let n_more = texts.len().saturating_sub(N_LISTED);
    texts.truncate(N_LISTED);
    let more = if n_more > 0 { format!(" and {n_more} more") } else { String::new() };
    format!("{}{more}", texts.join(", "))
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_what_would_run_and_no_default() {
        let text = "
user: www
workers: 3
listen: [127.0.0.1:80, {address: 127.0.0.1:81, mode: tcp, upstream: a}]
cache: {path: /c, size: 2 GiB}
upstreams: {a: {servers: [10.0.0.1, b.example]}}
sites: [{hosts: [x, y, z], upstream: a}]
upstream: 10.0.0.9
timeouts: {connect: 3s, idle: 9s}
limits: {head: 64 KiB}
";
        let config = Config::load_for(Path::new("k"), text, 1).unwrap();
        let found = lines(&config);
        let of = |word: &str| {
            let all = found.iter().filter(|(it, _)| *it == word).map(|(_, text)| text.as_str());
            all.collect::<Vec<_>>().join("; ")
        };
        assert_eq!(of("workers"), "3");
        assert_eq!(of("listen"), "127.0.0.1:80, 127.0.0.1:81 (tcp)");
        assert_eq!(of("sites"), "x and 2 others (1 route)");
        assert_eq!(of("default"), "other hosts to default");
        assert_eq!(of("upstream"), "a: 10.0.0.1:80, b.example:80; default: 10.0.0.9:80");
        assert_eq!(
            of("cache"),
            "/c, 2 GiB on the disk, 100000 objects, 64 MiB of memory for each worker"
        );
        assert_eq!(of("bounds"), "timeouts.idle 9s, limits.head 64 KiB");
    }

    #[test]
    fn a_long_list_is_cut_and_counted() {
        assert_eq!(joined(1..=9), "1, 2, 3, 4, 5, 6, 7, 8 and 1 more");
        assert_eq!(joined(1..=2), "1, 2");
    }
}
