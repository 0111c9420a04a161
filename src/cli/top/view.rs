//! The screen of `ktrix top`: sums above, tables below, keys at the foot.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Table, TableState};

use crate::cli::line::time_text;
use crate::cli::top::rows::{self, bytes, per_second, percent, size};
use crate::cli::top::screen::{Panel, Screen};
use crate::cli::top::snapshot::Snapshot;
use crate::cli::top::stats::{Stats, VERDICTS};

/// The content of the screen.
pub(super) struct View<'v> {
    pub(super) screen: &'v Screen,
    pub(super) stats: &'v Stats,
    pub(super) snapshot: &'v Snapshot,
    /// The time of the day, UTC.
    pub(super) clock: &'v str,
    /// The share of requests that could be read.
    pub(super) seen_share: f64,
    pub(super) has_ended: bool,
}

impl View<'_> {
    /// Draws the screen.
    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let rows = [
            Constraint::Length(1),
            Constraint::Length(4),
            Constraint::Length(1),
            Constraint::Min(1),
            Constraint::Length(1),
        ];
        let [title, sums, tabs, tables, foot] = Layout::vertical(rows).areas(area);
        self.draw_title(frame, title);
        self.draw_sums(frame, sums);
        if area.width >= WIDE && area.height >= HIGH {
            self.draw_filter(frame, tabs);
            let half = [Constraint::Percentage(50), Constraint::Percentage(50)];
            let [above, below] = Layout::vertical(half).areas(tables);
            let places = [above, below].map(|row| Layout::horizontal(half).areas::<2>(row));
            for (panel, place) in Panel::ALL.into_iter().zip(places.as_flattened()) {
                let title = Line::from(format!(" {} ", panel.title()));
                let is_chosen = panel == self.screen.panel();
                let style = if is_chosen { bold().fg(Color::Cyan) } else { Style::new() };
                let block = Block::bordered().title(title).border_style(style);
                let inside = block.inner(*place);
                frame.render_widget(block, *place);
                self.draw_table(frame, inside, panel);
            }
        } else {
            self.draw_tabs(frame, tabs);
            self.draw_table(frame, tables, self.screen.panel());
        }
        self.draw_foot(frame, foot);
        if self.screen.has_help {
            draw_help(frame, area);
        }
    }

    fn draw_title(&self, frame: &mut Frame<'_>, area: Rect) {
        let Snapshot { pid, generation, .. } = self.snapshot;
        let version = env!("CARGO_PKG_VERSION");
        let left = format!(" ktrix {version}  pid {pid}  generation {generation}");
        let mut right = Vec::new();
        if self.has_ended {
            right.push("KTRIX HAS ENDED".to_owned());
        }
        if self.screen.is_paused {
            right.push("PAUSED".to_owned());
        }
        if self.seen_share < 0.995 {
            right.push(format!("sample of {:.0} %", self.seen_share * 100.0));
        }
        right.push(format!("{} ", self.clock));
        let style = Style::new().add_modifier(Modifier::REVERSED);
        frame.render_widget(Paragraph::new(left).style(style), area);
        let right = Paragraph::new(right.join("  ")).style(style).alignment(Alignment::Right);
        let width = (area.width / 2).min(area.width);
        let place = Rect { x: area.x + area.width - width, width, ..area };
        frame.render_widget(right, place);
    }

    fn draw_sums(&self, frame: &mut Frame<'_>, area: Rect) {
        let Self { stats, snapshot, .. } = self;
        let quantile = |share| stats.latency.quantile(share).map_or("-".to_owned(), time_text);
        let named = |name: &str, value: String| {
            [Span::raw(format!("  {name} ")), Span::styled(value, bold())]
        };
        let head = |text: &'static str| Span::styled(format!(" {text:<9}"), dim());
        let failed = percent(stats.failure_share()).1;
        let mut first = vec![head("requests")];
        first.push(Span::styled(format!("  {}/s", per_second(stats.rate()).1), bold()));
        first.extend(named("hit", percent(stats.hit_share()).1));
        let is_failing = stats.failure_share() > 0.0;
        let style = if is_failing { bold().fg(Color::Red) } else { bold() };
        first.extend([Span::raw("  5xx "), Span::styled(failed, style)]);
        first.extend(named("sent", format!("{}/s", bytes(stats.byte_rate()).1)));
        first.extend(named("waiting", snapshot.n_pending.to_string()));
        let mut second = vec![head("time")];
        for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)] {
            second.extend(named(name, quantile(share)));
        }
        let mut third = vec![head("verdicts")];
        for (word, rate) in VERDICTS.into_iter().zip(stats.rates()) {
            if rate >= 0.05 || matches!(word, "hit" | "miss" | "pass") {
                third.push(Span::raw(format!("  {word} ")));
                let style = bold().fg(colour(word));
                third.push(Span::styled(format!("{}/s", per_second(rate).1), style));
            }
        }
        let fourth = match &snapshot.cache {
            None => vec![head("cache"), Span::raw("  off")],
            Some(fill) => {
                let text = format!(
                    " {} of {}, {} of {} objects",
                    bytes(fill.bytes as f64).1,
                    size(fill.bytes_max),
                    fill.n_objects,
                    fill.n_objects_max
                );
                let room = usize::from(area.width).saturating_sub(15 + text.chars().count());
                let n = room.min(BAR_CHARS_MAX);
                let share = fill.bytes as f64 / fill.bytes_max.max(1) as f64;
                let n_full = ((share * n as f64).ceil() as usize).min(n);
                let bar = format!("{:<n$}", "|".repeat(n_full));
                let bar = Span::styled(bar, Style::new().fg(Color::Green));
                vec![head("cache"), Span::raw("  ["), bar, Span::raw("]"), Span::raw(text)]
            }
        };
        let lines: Vec<Line<'_>> = [first, second, third, fourth].map(Line::from).into();
        frame.render_widget(Paragraph::new(lines), area);
    }

    fn draw_tabs(&self, frame: &mut Frame<'_>, area: Rect) {
        let mut spans = Vec::new();
        for (n, panel) in Panel::ALL.into_iter().enumerate() {
            let is_chosen = n == self.screen.panel;
            let style = if is_chosen { bold().fg(Color::Cyan) } else { Style::new() };
            let (open, close) = if is_chosen { ('[', ']') } else { (' ', ' ') };
            spans.push(Span::styled(format!("{open}{} {}{close}", n + 1, panel.title()), style));
        }
        if !self.screen.filter_text.is_empty() {
            spans.push(Span::styled(format!("  only {}", self.screen.filter_text), dim()));
        }
        frame.render_widget(Paragraph::new(Line::from(spans)), area);
    }

    fn draw_filter(&self, frame: &mut Frame<'_>, area: Rect) {
        if !self.screen.filter_text.is_empty() {
            let text = format!(" only {}", self.screen.filter_text);
            frame.render_widget(Paragraph::new(text).style(dim()), area);
        }
    }

    fn draw_table(&self, frame: &mut Frame<'_>, area: Rect, panel: Panel) {
        let order = self.screen.orders[panel as usize];
        let rows = rows::rows(panel, order, self.stats, self.snapshot);
        let is_chosen = panel == self.screen.panel();
        let for_columns: usize = panel.columns().iter().map(|(_, width)| width + 1).sum();
        let for_name = usize::from(area.width).saturating_sub(for_columns).max(8);
        let columns = panel.columns().iter().chain([&("name", 0)]).enumerate();
        let heads = columns.map(|(n, (name, width))| {
            let mark = if n == order { "▼" } else { "" };
            let text = format!("{:>width$}", format!("{name}{mark}"));
            let style = if n == order { bold().fg(Color::Cyan) } else { bold() };
            Cell::from(text).style(style)
        });
        let lines = rows.iter().map(|row| {
            let columns = row.cells.iter().zip(panel.columns());
            let cells = columns.map(|((_, text), (_, width))| format!("{text:>width$}").into());
            let state = row.cells.last().map_or("", |(_, text)| text.as_str());
            let style = match state {
                "down" => Style::new().fg(Color::Red),
                "trying" | "draining" | "disabled" => Style::new().fg(Color::Yellow),
                _ => Style::new(),
            };
            Row::new(cells.chain([Cell::from(fitted(&row.name, for_name))])).style(style)
        });
        let widths = panel.columns().iter().map(|(_, width)| Constraint::Length(*width as u16));
        let widths = widths.chain([Constraint::Min(8)]);
        let is_empty = rows.is_empty();
        let table = Table::new(lines, widths).header(Row::new(heads)).column_spacing(1);
        let table = table.row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        let last = rows.len().saturating_sub(1);
        let selected = (is_chosen && !is_empty).then(|| self.screen.selected.min(last));
        let mut state = TableState::new().with_selected(selected);
        frame.render_stateful_widget(table, area, &mut state);
        if is_empty && area.height > 2 {
            let text = Paragraph::new(" no requests in the last seconds").style(dim());
            frame.render_widget(text, Rect { y: area.y + 1, height: 1, ..area });
        }
    }

    fn draw_foot(&self, frame: &mut Frame<'_>, area: Rect) {
        let Screen { typed, flaw, .. } = self.screen;
        if let Some(typed) = typed {
            let mut spans = vec![Span::styled(" only: ", bold()), Span::raw(typed.as_str())];
            spans.push(Span::styled(" ", Style::new().add_modifier(Modifier::REVERSED)));
            if !flaw.is_empty() {
                spans.push(Span::styled(format!("  {flaw}"), Style::new().fg(Color::Red)));
            }
            return frame.render_widget(Paragraph::new(Line::from(spans)), area);
        }
        let keys = [
            ("?", "Help"),
            ("Tab", "Table"),
            ("/", "Filter"),
            ("< >", "Sort"),
            ("Space", "Pause"),
            ("r", "Restart"),
            ("q", "Quit"),
        ];
        let spans = keys.into_iter().flat_map(|(key, what)| {
            let key =
                Span::styled(format!(" {key} "), Style::new().add_modifier(Modifier::REVERSED));
            [key, Span::raw(format!("{what} "))]
        });
        frame.render_widget(Paragraph::new(Line::from_iter(spans)), area);
    }
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let text = [
        "Tab, left, right, 1 to 4   another table",
        "up, down, page, home, end  move in the table",
        "< >, F6                    sort by another column",
        "/, F4                      show some requests only, as in ktrix log:",
        "                             status >= 500 and host = www.example.com",
        "Esc                        show all requests again",
        "Space                      pause",
        "r                          forget what was counted",
        "q, F10, Ctrl-C             quit",
        "",
        "Rates are those of the last seconds. mean is the time of a request,",
        "and that to the first byte of a server. Names are the busiest ones:",
        "each that has more than 1 in 512 requests is there.",
        "",
        "Any key closes this help.",
    ];
    let size = |wanted: usize, most: u16| (wanted as u16 + 2).min(most);
    let longest = text.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let (width, height) = (size(longest + 2, area.width), size(text.len(), area.height));
    let (x, y) = ((area.width - width) / 2, (area.height - height) / 2);
    let place = Rect { x: area.x + x, y: area.y + y, width, height };
    let lines: Vec<Line<'_>> = text.iter().map(|line| Line::from(format!(" {line}"))).collect();
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" Keys ")), place);
}

/// A name in this many columns: the middle of a longer one is left out.
fn fitted(name: &str, width: usize) -> String {
    let n_chars = name.chars().count();
    if n_chars <= width {
        return name.to_owned();
    }
    let n_first = width / 3;
    let first: String = name.chars().take(n_first).collect();
    let last: String = name.chars().skip(n_chars - (width - n_first - 1)).collect();
    format!("{first}…{last}")
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

/// As `ktrix log` has it.
fn colour(verdict: &str) -> Color {
    match verdict {
        "hit" => Color::Green,
        "stale" | "revalidated" => Color::Yellow,
        "collapsed" => Color::Cyan,
        "miss" => Color::Red,
        "pass" => Color::Magenta,
        _ => Color::Reset,
    }
}

/// From these on all tables are shown at once.
const WIDE: u16 = 140;
const HIGH: u16 = 40;
const BAR_CHARS_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::cli::top::processes::Load;
    use crate::cli::top::snapshot::{Fill, ProcessRow, ServerRow};
    use crate::log::format::{Record, Times};

    /// The screen, a line each.
    fn drawn(width: u16, height: u16, change: impl FnOnce(&mut Screen)) -> Vec<String> {
        let mut screen = Screen::new();
        change(&mut screen);
        let mut stats = Stats::new();
        stats.pass(5.0);
        for n in 0..400 {
            let times = Times {
                total_us: Some(100 * n),
                first_byte_us: (n % 10 == 0).then_some(2_000),
                ..Times::default()
            };
            let record = Record {
                host: b"www.example.com",
                target: if n % 4 == 0 { b"/often\x1b[2J" } else { b"/index.html?a" },
                verdict: if n % 10 == 0 { "miss" } else { "hit" },
                upstream: if n % 10 == 0 { "app" } else { "" },
                server: if n % 10 == 0 { "10.0.0.1:8080" } else { "" },
                status: if n % 100 == 0 { 502 } else { 200 },
                sent_bytes: 10_000,
                times,
                ..Record::default()
            };
            stats.add(&record, 1.0);
        }
        let load = Load { cpu_share: 0.25, memory_bytes: 40 << 20 };
        let process = |name: &str, pid| ProcessRow {
            name: name.to_owned(),
            pid,
            load: load.clone(),
            n_tunnels: 2,
        };
        let server =
            |name: &str, state| ServerRow { name: name.to_owned(), state, n_active: 3, n_idle: 4 };
        let snapshot = Snapshot {
            pid: 4242,
            generation: 7,
            processes: vec![process("master", 1), process("worker 0", 2), process("worker 1", 0)],
            servers: vec![server("app/10.0.0.1:8080", "up"), server("app/10.0.0.2:8080", "down")],
            n_pending: 5,
            cache: Some(Fill {
                n_objects: 12_345,
                n_objects_max: 100_000,
                bytes: 600 << 20,
                bytes_max: 1 << 30,
            }),
        };
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let view = View {
            screen: &screen,
            stats: &stats,
            snapshot: &snapshot,
            clock: "12:34:56Z",
            seen_share: 0.5,
            has_ended: false,
        };
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let cells: Vec<_> = buffer.content().iter().map(|cell| cell.symbol()).collect();
        cells.chunks(usize::from(width)).map(|row| row.concat().trim_end().to_owned()).collect()
    }

    fn expect(lines: &[String], parts: &[&str]) {
        for part in parts {
            assert!(lines.iter().any(|line| line.contains(part)), "{part:?} in {lines:#?}");
        }
    }

    #[test]
    fn a_terminal_of_80_columns_shows_the_sums_and_a_table() {
        let lines = drawn(80, 24, |_| {});
        expect(&lines, &["pid 4242", "generation 7", "sample of 50 %  12:34:56Z"]);
        expect(&lines, &["hit 90 %", "5xx 1.0 %", "waiting 5", "p50 ", "p99 ", "max 41.0 ms"]);
        expect(&lines, &["600 MiB of 1 GiB, 12345 of 100000 objects", "[1 Hosts]", " 2 Paths "]);
        expect(&lines, &["req/s▼", "mean", "100 %", "www.example.com", "q Quit"]);
        let lines = drawn(80, 24, |screen| screen.panel = 1);
        expect(
            &lines,
            &["[2 Paths]", "75 %", "www.example.com/index.htm", "www.example.com/often"],
        );
        assert!(!lines.concat().contains('\x1b'));
        let lines = drawn(80, 24, |screen| screen.panel = 2);
        expect(&lines, &["2.0 ms", "app/10.0.0.1:8080", "mean▼", "down"]);
        let lines = drawn(80, 24, |screen| screen.panel = 3);
        expect(&lines, &["master", "25 %", "40.0 MiB", "worker 1"]);
    }

    #[test]
    fn a_long_name_keeps_its_beginning_and_its_end() {
        assert_eq!(fitted("www.example.com/a", 17), "www.example.com/a");
        assert_eq!(fitted("www.example.com/long/é", 12), "www.…/long/é");
        assert_eq!(fitted("abc", 1), "…");
    }

    #[test]
    fn a_large_terminal_shows_all_tables() {
        let lines = drawn(200, 60, |_| {});
        expect(&lines, &[" Hosts ", " Paths ", " Servers ", " Processes "]);
        expect(&lines, &["www.example.com/often", "app/10.0.0.2:8080", "worker 1"]);
    }

    #[test]
    fn the_help_and_a_filter_with_a_flaw_fit_and_any_size_is_drawn() {
        let lines = drawn(80, 24, |screen| screen.has_help = true);
        expect(&lines, &["Keys", "Any key closes this help.", "show some requests only"]);
        let lines = drawn(80, 24, |screen| {
            screen.typed = Some("status > x".to_owned());
            screen.flaw = "column 10: is no status".to_owned();
        });
        expect(&lines, &["only: status > x", "column 10: is no status"]);
        for (width, height) in [(1, 1), (10, 3), (40, 8), (139, 40), (140, 39), (300, 100)] {
            drawn(width, height, |screen| {
                (screen.has_help, screen.is_paused) = (true, true);
                screen.selected = 1_000;
            });
        }
    }
}
