//! The page of the admin listener for people: the numbers of the status, and a script that draws how
//! they change. It needs nothing from elsewhere.

use std::fmt::Write as _;
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};

use crate::http::date;
use crate::http::websocket::base64;
use crate::status::counts::{Quantile, Quantiles, percent, size};
use crate::status::report::{ServerStatus, Status, WorkerStatus};

/// The media type of the page.
pub(crate) const MEDIA_TYPE: &str = "text/html; charset=utf-8";

/// The policy of content that is no page.
pub(crate) const NO_CONTENT: &str = "default-src 'none'; frame-ancestors 'none'";

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/script.js");

/// The verdicts with a colour in the style.
const VERDICTS: [&str; 7] = ["hit", "stale", "revalidated", "miss", "pass", "tunnel", "none"];

/// The policy of the page: its own style and script, by their digests, and requests to where it is from.
pub(crate) fn policy() -> &'static str {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        let hash = |text: &str| base64(digest(&SHA256, text.as_bytes()).as_ref());
        format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash(STYLE),
            hash(SCRIPT)
        )
    });
    &POLICY
}

/// The page.
pub(crate) fn page(status: &Status<'_>) -> String {
    // Text within a script element ends at the next "</script", so that no "<" may be in it.
    let data = serde_json::to_string(status).unwrap_or_default().replace('<', "\\u003c");
    let parts = [
        ("style", STYLE.to_owned()),
        ("script", SCRIPT.to_owned()),
        ("about", about(status)),
        ("tiles", tiles(status)),
        ("legend", legend()),
        ("verdicts", verdicts(status)),
        ("servers", servers(status)),
        ("cache", cache(status)),
        ("workers", status.workers.iter().map(worker).collect()),
        ("listeners", listeners(status)),
        ("data", data),
    ];
    // One pass, so that nothing within a part is taken for a mark.
    let mut out = String::with_capacity(32 << 10);
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        out.push_str(before);
        let part = parts.iter().find(|(it, _)| *it == name);
        out.push_str(part.map_or("", |(_, text)| text));
        rest = after;
    }
    out.push_str(rest);
    out
}

fn about(status: &Status<'_>) -> String {
    let Status { version, pid, generation, since_s, .. } = status;
    format!(
        "Version {version}, process {pid}, configuration {generation}; counts since {}",
        when(*since_s)
    )
}

fn tiles(status: &Status<'_>) -> String {
    let counts = &status.counts;
    let (p50, p99) = times(counts.duration_s.as_ref());
    let failed =
        (counts.requests > 0).then(|| counts.server_errors as f64 / counts.requests as f64);
    let servers = || status.upstreams.iter().flat_map(|upstream| &upstream.servers);
    let n_not_up = servers().filter(|server| server.state != "up").count();
    let of_all = small(&format!("of {}", servers().count()));
    let tiles = [
        ("Servers not up", alarm(n_not_up > 0, &n_not_up.to_string()), of_all),
        (
            "Status 5xx",
            escaped(&percent(failed)),
            small(&format!("{} answers", counts.server_errors)),
        ),
        ("Requests", escaped(&counts.requests.to_string()), String::new()),
        (
            "Hit ratio",
            escaped(&percent(counts.hit_ratio)),
            small(&format!("{} of bytes", percent(counts.byte_hit_ratio))),
        ),
        ("Median time", escaped(&p50), small(&format!("99 %: {p99}"))),
        (
            "Connections",
            escaped(&counts.connections.to_string()),
            small(&format!("{} accepted", counts.connections_accepted)),
        ),
        ("Sent", escaped(&size(counts.sent_bytes)), String::new()),
        (
            "Memory",
            escaped(&size(counts.resident_bytes)),
            small(&format!("{} restarts", counts.restarts)),
        ),
    ];
    let tile = |(name, value, more): &(&str, String, String)| {
        format!("<div class=\"tile\"><dt>{name}</dt><dd>{value}{more}</dd></div>")
    };
    tiles.iter().map(tile).collect()
}

/// A value in the colour of what is down, if it is one of concern.
fn alarm(is_one: bool, value: &str) -> String {
    let value = escaped(value);
    if is_one { format!("<span class=\"down\">{value}</span>") } else { value }
}

fn small(text: &str) -> String {
    format!("<small>{}</small>", escaped(text))
}

fn legend() -> String {
    let item = |verdict: &str| {
        format!(
            "<li><svg viewBox=\"0 0 12 12\" aria-hidden=\"true\"><rect class=\"fill-{verdict}\" width=\"12\" \
             height=\"12\"/></svg>{verdict}</li>"
        )
    };
    VERDICTS.into_iter().map(item).collect()
}

fn verdicts(status: &Status<'_>) -> String {
    let counts = &status.counts;
    let row = |verdict: &str| {
        let n = counts.verdicts.get(verdict).copied().unwrap_or_default();
        let share = (counts.requests > 0).then(|| n as f64 / counts.requests as f64);
        let cells = [n.to_string(), percent(share)].map(|it| number(&it)).concat();
        format!("<tr><th scope=\"row\">{verdict}</th>{cells}</tr>")
    };
    VERDICTS.into_iter().map(row).collect()
}

fn servers(status: &Status<'_>) -> String {
    let mut out = String::new();
    for upstream in &status.upstreams {
        let (p50, p99) = times(upstream.first_byte_s.as_ref());
        for (n, server) in upstream.servers.iter().enumerate() {
            // The times are those of all servers together.
            let (p50, p99) = if n == 0 { (p50.as_str(), p99.as_str()) } else { ("", "") };
            let ServerStatus { address, state, active, idle, weight, downs, sentence, .. } = server;
            let numbers = [active, idle, weight, downs].map(|n| number(&n.to_string())).concat();
            let has_cause = *state != "up" && server.changed_s.is_some();
            let why = if has_cause { small(sentence) } else { String::new() };
            // Writing to a String cannot fail.
            let _ = write!(
                out,
                "<tr><td><span class=\"state {state}\">{state}</span>{why}</td><td>{}</td>\
                 <td class=\"wrap\">{}</td>{numbers}{}{}</tr>",
                escaped(address),
                escaped(upstream.name),
                number(p50),
                number(p99)
            );
        }
    }
    out
}

fn cache(status: &Status<'_>) -> String {
    let Some(cache) = &status.cache else {
        return "<p class=\"quiet\">There is no cache.</p>".to_owned();
    };
    let meter = |what: &str, value: u64, most: u64, text: &str| {
        format!(
            "<p><label>{what}: {}<br><meter min=\"0\" max=\"{}\" value=\"{}\"></meter></label></p>",
            escaped(text),
            most.max(1),
            value.min(most)
        )
    };
    let objects = format!("{} of {}", cache.objects, cache.objects_max);
    let (used, most) = (size(cache.disk_bytes), size(cache.disk_bytes_max));
    let counts = &status.counts;
    format!(
        "<p>{}</p>{}{}<p>{} fills, {} evictions</p>",
        escaped(&cache.path),
        meter("Objects", cache.objects, cache.objects_max, &objects),
        meter("Disk", cache.disk_bytes, cache.disk_bytes_max, &format!("{used} of {most}")),
        counts.fills,
        counts.evictions
    )
}

fn worker(worker: &WorkerStatus) -> String {
    let WorkerStatus { number: n, pid, tunnels, connections, requests, resident_bytes } = worker;
    let pid = if *pid == 0 { "down".to_owned() } else { pid.to_string() };
    let memory = size(*resident_bytes);
    let cells = [pid, connections.to_string(), tunnels.to_string(), requests.to_string(), memory];
    let cells: String = cells.iter().map(|it| number(it)).collect();
    format!("<tr><th scope=\"row\" class=\"n\">{n}</th>{cells}</tr>")
}

fn listeners(status: &Status<'_>) -> String {
    let listeners: Vec<_> = status.listeners.iter().map(|it| escaped(it)).collect();
    let mut out = format!("<p>{}</p>", listeners.join(", "));
    if !status.certificates.is_empty() {
        out.push_str(
            "<table><thead><tr><th scope=\"col\">Certificate</th><th scope=\"col\" class=\"n\">Days left</th>\
             <th scope=\"col\">Expires</th></tr></thead><tbody>",
        );
        for certificate in &status.certificates {
            let class = if certificate.days < 14 { "state down" } else { "" };
            let _ = write!(
                out,
                "<tr><td class=\"wrap\">{}</td><td class=\"n {class}\">{}</td><td>{}</td></tr>",
                escaped(certificate.file),
                certificate.days,
                when(certificate.expires_s)
            );
        }
        out.push_str("</tbody></table>");
    }
    out
}

fn number(text: &str) -> String {
    format!("<td class=\"n\">{}</td>", escaped(text))
}

/// The times that half and 99 % are below.
fn times(quantiles: Option<&Quantiles>) -> (String, String) {
    let Some(Quantiles { p50, p99, .. }) = quantiles else {
        return ("-".to_owned(), "-".to_owned());
    };
    let shown = |quantile: Quantile| match quantile.bounded_s() {
        time_s if quantile.is_least() => format!("≤ {:.0} µs", time_s * 1e6),
        time_s if quantile.is_beyond() => format!("> {time_s:.0} s"),
        time_s @ 1.0.. => format!("{time_s:.1} s"),
        time_s @ 0.001.. => format!("{:.1} ms", time_s * 1e3),
        time_s => format!("{:.0} µs", time_s * 1e6),
    };
    (shown(*p50), shown(*p99))
}

fn when(unix_s: u64) -> String {
    String::from_utf8_lossy(&date::format(unix_s)).into_owned()
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::label::Set;
    use crate::metrics::scale::Scale;
    use crate::metrics::table::Metric;

    #[test]
    fn every_verdict_has_a_colour_and_every_mark_a_part() {
        let Set::Words(words) = Metric::Requests.row().labels[0].set else { panic!() };
        let mut sorted = (words.to_vec(), VERDICTS.to_vec());
        sorted.0.sort_unstable();
        sorted.1.sort_unstable();
        assert_eq!(sorted.0, sorted.1);
        assert!(VERDICTS.iter().all(|verdict| STYLE.contains(&format!(".fill-{verdict} {{"))));
        assert!(!SCRIPT.contains("</script") && !STYLE.contains("</style"));
        assert!(policy().matches("'sha256-").count() == 2 && !policy().contains("unsafe"));
    }

    #[test]
    fn times_beyond_the_bounds_of_the_histogram_are_shown_by_them() {
        let mut buckets = vec![0; Scale::Time.n_buckets()];
        (buckets[0], buckets[18]) = (60, 40);
        let shown = times(Quantiles::of(&buckets).as_ref());
        assert_eq!(shown, ("≤ 100 µs".to_owned(), "> 50 s".to_owned()));
    }

    #[test]
    fn names_of_the_configuration_are_text_and_never_markup() {
        assert_eq!(escaped("<a href='x'>\"&"), "&lt;a href=&#39;x&#39;&gt;&quot;&amp;");
    }
}
