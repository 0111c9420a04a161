//! The lines above the tables: the sums of all requests, the servers that are not up, and the cache.

use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};

use crate::cli::line::time_text;
use crate::cli::name::printable;
use crate::cli::top::fit::{bold, dim, fitted, fitting};
use crate::cli::top::rows::{bytes, per_second, percent, ratio, size};
use crate::cli::top::snapshot::Snapshot;
use crate::cli::top::stats::{Stats, Sums};
use crate::metrics::label::VERDICTS;

/// The numbers in the lines.
pub(super) struct Above<'v> {
    pub(super) stats: &'v Stats,
    pub(super) snapshot: &'v Snapshot,
    pub(super) is_filtered: bool,
}

impl Above<'_> {
    /// The lines above the tables, as many as there is room for; the first ones of an incident stay.
    pub(super) fn lines(&self, width: usize, n_max: usize) -> Vec<Line<'static>> {
        let [heads, rates] = self.verdict_lines(width);
        let lines = [
            (0, vec![self.request_line(width)]),
            (4, vec![heads, rates]),
            (1, vec![self.time_line(width)]),
            (2, vec![self.server_line(width)]),
            (3, vec![self.cache_line(width)]),
        ];
        // The lines of the ranks before it, and its own.
        let n_until = |rank| -> usize {
            lines.iter().filter(|(it, _)| *it <= rank).map(|(_, lines)| lines.len()).sum()
        };
        let n_max = n_max.max(1);
        let kept = lines.iter().filter(|(rank, _)| n_until(*rank) <= n_max);
        kept.flat_map(|(_, lines)| lines.clone()).collect()
    }

    fn shown(&self) -> &Sums {
        if self.is_filtered { &self.stats.read } else { &self.stats.exact }
    }

    fn request_line(&self, width: usize) -> Line<'static> {
        let sums = self.shown();
        let head = match self.is_filtered {
            true => Span::styled(" filtered ", bold().fg(Color::Yellow)),
            false => head("requests"),
        };
        let share = sums.failure_share();
        let style = if share > 0.0 { bold().fg(Color::Red) } else { bold() };
        let parts = [
            vec![head, Span::styled(format!("  {:>6}/s", per_second(sums.rate()).1), bold())],
            vec![Span::raw("  5xx "), Span::styled(format!("{:>6}", percent(share).1), style)],
            named("hit ratio", format!("{:>6}", ratio(sums.hit_ratio()).1)),
            named("waiting", format!("{:>3}", self.snapshot.n_pending)),
            // The first to go where there is no room.
            named("sent", format!("{:>8}/s", bytes(sums.byte_rate()).1)),
        ];
        fitting(parts, width)
    }

    /// The verdicts, and their rates below them.
    fn verdict_lines(&self, width: usize) -> [Line<'static>; 2] {
        let rates = self.shown().rates();
        let columns = VERDICT_ORDER.into_iter().map(|verdict| {
            let word = VERDICTS[verdict];
            let n = word.len().max(6) + 1;
            let rate = per_second(rates[verdict]).1;
            let style = bold().fg(colour(word));
            let above = Span::styled(format!("{word:>n$}"), dim());
            [vec![above], vec![Span::styled(format!("{rate:>n$}"), style)]]
        });
        let (above, below): (Vec<_>, Vec<_>) = columns.map(|[a, b]| (a, b)).unzip();
        let with_head = |text, parts| fitting([vec![vec![head(text)]], parts].concat(), width);
        [with_head("verdict", above), with_head("req/s", below)]
    }

    fn time_line(&self, width: usize) -> Line<'static> {
        let latency = &self.stats.latency;
        let quantile = |share| latency.quantile(share).map_or("-".to_owned(), time_text);
        // Numbers keep their places as they change.
        let times = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)];
        let mut parts: Vec<_> = times
            .into_iter()
            .map(|(name, share)| named(name, format!("{:>8}", quantile(share))))
            .collect();
        parts.insert(0, vec![head("time")]);
        fitting(parts, width)
    }

    /// How many servers are up, and the names of the others.
    fn server_line(&self, width: usize) -> Line<'static> {
        let servers = &self.snapshot.servers;
        let others: Vec<_> = servers.iter().filter(|server| server.state != "up").collect();
        if others.is_empty() {
            let up = format!("  {} up", servers.len());
            return fitting([vec![head("servers"), Span::raw(up)]], width);
        }
        let is_down = others.iter().any(|server| server.state == "down");
        let style = bold().fg(if is_down { Color::Red } else { Color::Yellow });
        let n = format!("  {} of {} not up", others.len(), servers.len());
        let mut parts = vec![vec![head("servers"), Span::styled(n, style)]];
        for (n, server) in others.iter().enumerate() {
            let mark = if n == 0 { ": " } else { ", " };
            let name = fitted(&printable(server.name.as_bytes()), NAME_CHARS_MAX);
            parts.push(vec![Span::raw(format!("{mark}{name} {}", server.state))]);
        }
        fitting(parts, width)
    }

    fn cache_line(&self, width: usize) -> Line<'static> {
        let Some(fill) = &self.snapshot.cache else {
            return Line::from(vec![head("cache"), Span::raw("  off")]);
        };
        let used = format!(" {} of {}", bytes(fill.bytes as f64).1, size(fill.bytes_max));
        let objects = format!(", {} of {} objects", fill.n_objects, fill.n_objects_max);
        let share = fill.bytes as f64 / fill.bytes_max.max(1) as f64;
        let room = width.saturating_sub(15 + used.len() + objects.len());
        let n = room.clamp(BAR_CHARS_MIN, BAR_CHARS_MAX);
        let n_full = ((share * n as f64).ceil() as usize).min(n);
        let mut parts = vec![vec![head("cache"), Span::raw(" ")]];
        if width >= 15 + n + used.len() {
            let bar = format!("{:<n$}", "|".repeat(n_full));
            let bar = Span::styled(bar, Style::new().fg(Color::Green));
            parts.push(vec![Span::raw(" ["), bar, Span::raw("]")]);
        }
        parts.extend([vec![Span::raw(used)], vec![Span::raw(objects)]]);
        fitting(parts, width)
    }
}

/// The name of a line above the tables.
fn head(text: &str) -> Span<'static> {
    Span::styled(format!(" {text:<9}"), dim())
}

fn named(name: &str, value: String) -> Vec<Span<'static>> {
    vec![Span::raw(format!("  {name} ")), Span::styled(value, bold())]
}

/// As `ktrix log` has it.
fn colour(verdict: &str) -> Color {
    match verdict {
        "hit" => Color::Green,
        "stale" | "revalidated" => Color::Yellow,
        "miss" => Color::Red,
        "pass" => Color::Magenta,
        _ => Color::Reset,
    }
}

/// The places of the verdicts, from those of the cache to those without it.
const VERDICT_ORDER: [usize; VERDICTS.len()] = [1, 3, 4, 2, 5, 6, 0];
const BAR_CHARS_MAX: usize = 40;
const BAR_CHARS_MIN: usize = 8;
/// The room of a server above the tables.
const NAME_CHARS_MAX: usize = 30;
