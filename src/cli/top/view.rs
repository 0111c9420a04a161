//! The screen of `ktrix top`: sums above, tables below, keys at the foot.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Table, TableState};

use crate::cli::name::printable;
use crate::cli::top::above::Above;
use crate::cli::top::fit::{bold, dim, fitted, fitting};
use crate::cli::top::rows;
use crate::cli::top::screen::{Column, FAILURES, Panel, Screen};
use crate::cli::top::snapshot::Snapshot;
use crate::cli::top::stats::Stats;

/// The content of the screen.
pub(super) struct View<'v> {
    pub(super) screen: &'v Screen,
    pub(super) stats: &'v Stats,
    pub(super) snapshot: &'v Snapshot,
    /// The time of the day, UTC.
    pub(super) clock: &'v str,
    /// Why there is nothing newer; empty if there is.
    pub(super) trouble: &'v str,
}

impl View<'_> {
    /// Draws the screen.
    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let above =
            Above { stats: self.stats, snapshot: self.snapshot, is_filtered: self.is_filtered() };
        let sums = above.lines(area.width.into(), (area.height / 3).into());
        let is_low = area.height < LOW;
        let rows = [
            Constraint::Length(1),
            Constraint::Length(sums.len() as u16),
            Constraint::Length(u16::from(!is_low)),
            Constraint::Min(1),
            Constraint::Length(1),
        ];
        let [title, above, tabs, tables, foot] = Layout::vertical(rows).areas(area);
        self.draw_title(frame, title);
        frame.render_widget(Paragraph::new(sums), above);
        if area.width >= WIDE && area.height >= HIGH {
            self.draw_tabs(frame, tabs, &[]);
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
            self.draw_tabs(frame, tabs, &Panel::ALL);
            self.draw_table(frame, tables, self.screen.panel());
        }
        self.draw_foot(frame, foot);
        if self.screen.has_help {
            draw_help(frame, area);
        }
    }

    fn is_filtered(&self) -> bool {
        !self.screen.filter_text.is_empty()
    }

    fn draw_title(&self, frame: &mut Frame<'_>, area: Rect) {
        let Snapshot { pid, generation, .. } = self.snapshot;
        let version = env!("CARGO_PKG_VERSION");
        let style = Style::new().add_modifier(Modifier::REVERSED);
        let alarm = style.fg(Color::Red).add_modifier(Modifier::BOLD);
        let mut right = Vec::new();
        if self.screen.is_paused {
            right.push(Span::styled("PAUSED  ", alarm));
        }
        right.push(Span::raw(format!("{} ", self.clock)));
        let mut right = Line::from(right);
        if !self.trouble.is_empty() {
            let room = usize::from(area.width).saturating_sub(right.width() + NAME.len() + 3);
            let trouble = fitted(&printable(self.trouble.as_bytes()), room);
            right.spans.insert(0, Span::styled(format!("{trouble}  "), alarm));
        }
        let parts = [
            NAME.to_owned(),
            format!(" {version}"),
            format!("  pid {pid}"),
            format!("  generation {generation}"),
        ];
        let room = usize::from(area.width).saturating_sub(right.width() + 1);
        let left = fitting(parts.map(|part| vec![Span::raw(part)]), room);
        frame.render_widget(Paragraph::new(left).style(style), area);
        let width = (right.width() as u16).min(area.width);
        let place = Rect { x: area.x + area.width - width, width, ..area };
        frame.render_widget(Paragraph::new(right).style(style), place);
    }

    /// The names of the tables that are not all shown, what their numbers are of, and the filter.
    fn draw_tabs(&self, frame: &mut Frame<'_>, area: Rect, panels: &[Panel]) {
        let mut parts = Vec::new();
        for (n, panel) in panels.iter().enumerate() {
            let is_chosen = n == self.screen.panel;
            let style = if is_chosen { bold().fg(Color::Cyan) } else { Style::new() };
            let (open, close) = if is_chosen { ('[', ']') } else { (' ', ' ') };
            let text = format!("{open}{} {}{close}", n + 1, panel.title());
            parts.push(vec![Span::styled(text, style)]);
        }
        let share = self.stats.sample.share();
        let is_sample = share < 0.995;
        let sample = format!("a sample of {:.0} %", share * 100.0);
        let alarm = bold().fg(Color::Yellow);
        match (self.is_filtered(), is_sample) {
            (false, false) => parts.push(vec![Span::styled("  last 10 s", dim())]),
            (false, true) => {
                parts.push(vec![Span::styled(format!("  last 10 s, {sample}"), alarm)]);
            }
            (true, is_sample) => {
                let sample = if is_sample { format!("  {sample}") } else { String::new() };
                let text = format!("{sample}  only {}", self.screen.filter_text);
                parts.push(vec![Span::styled(text, alarm)]);
            }
        }
        // A long filter is cut, as it is typed by the person who reads it.
        let line = match self.is_filtered() {
            true => Line::from(parts.concat()),
            false => fitting(parts, area.width.into()),
        };
        frame.render_widget(Paragraph::new(line), area);
    }

    fn draw_table(&self, frame: &mut Frame<'_>, area: Rect, panel: Panel) {
        let order = self.screen.orders[panel as usize];
        let rows = rows::rows(panel, order, self.stats, self.snapshot);
        let is_chosen = panel == self.screen.panel();
        let columns = panel.fitting(area.width.into());
        let for_columns: usize = columns.iter().map(|(_, column)| column.1 + 1).sum();
        let for_name = usize::from(area.width).saturating_sub(for_columns);
        let name = Column::NAME;
        let all = columns.iter().copied().chain([(panel.columns().len(), &name)]);
        let heads = all.map(|(n, Column(name, width, _))| {
            let mark = if n == order { "▼" } else { "" };
            let text = format!("{:>width$}", format!("{name}{mark}"));
            let style = if n == order { bold().fg(Color::Cyan) } else { bold() };
            Cell::from(text).style(style)
        });
        let lines = rows.iter().map(|row| {
            let cells = columns.iter().map(|(n, Column(name, width, _))| {
                let (number, text) = &row.cells[*n];
                let is_alarm = *name == FAILURES && *number > 0.0;
                let style = if is_alarm { Style::new().fg(Color::Red) } else { Style::new() };
                Cell::from(format!("{text:>width$}")).style(style)
            });
            let state = row.cells.last().map_or("", |(_, text)| text.as_str());
            let style = match state {
                "down" => Style::new().fg(Color::Red),
                "trying" | "draining" | "disabled" => Style::new().fg(Color::Yellow),
                _ => Style::new(),
            };
            Row::new(cells.chain([Cell::from(fitted(&row.name, for_name))])).style(style)
        });
        let widths = columns.iter().map(|(_, column)| Constraint::Length(column.1 as u16));
        let widths = widths.chain([Constraint::Min(1)]);
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
            ("q", "Quit"),
            ("?", "Help"),
            ("Tab", "Table"),
            ("/", "Filter"),
            ("< >", "Sort"),
            ("Space", "Pause"),
            ("r", "Restart"),
        ];
        let parts = keys.map(|(key, what)| {
            let key =
                Span::styled(format!(" {key} "), Style::new().add_modifier(Modifier::REVERSED));
            vec![key, Span::raw(format!("{what} "))]
        });
        frame.render_widget(Paragraph::new(fitting(parts, area.width.into())), area);
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
        "Rates, shares and times are of the last 10 seconds, those of processes of",
        "the last; the rest is as it is now. Rates and shares above the tables come",
        "from ktrix's counters and are exact. Times, tables, and all of these with a",
        "filter come from the requests that top could read; the newest count most.",
        "hit ratio  answered without the origin, of all that were looked up",
        "mean       time of a request; of a server, that to its first byte",
        "Hosts and paths with more than 1 in 512 requests are always there.",
    ];
    let size = |wanted: usize, most: u16| (wanted as u16 + 2).min(most);
    let longest = text.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let (width, height) = (size(longest + 2, area.width), size(text.len(), area.height));
    let (x, y) = ((area.width - width) / 2, (area.height - height) / 2);
    let place = Rect { x: area.x + x, y: area.y + y, width, height };
    let lines: Vec<Line<'_>> = text.iter().map(|line| Line::from(format!(" {line}"))).collect();
    frame.render_widget(Clear, place);
    let block = Block::bordered().title(" Keys (any key closes this help) ");
    frame.render_widget(Paragraph::new(lines).block(block), place);
}

/// The beginning of the title, which always has room.
const NAME: &str = " ktrix";
/// From these on all tables are shown at once.
const WIDE: u16 = 140;
const HIGH: u16 = 40;
/// Below this height the tables have no line of their names.
const LOW: u16 = 8;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::cli::top::processes::Load;
    use crate::cli::top::snapshot::{Counted, Fill, ProcessRow, ServerRow};
    use crate::log::format::{Record, Times};

    /// The screen, a line each.
    fn drawn(width: u16, height: u16, change: impl FnOnce(&mut Screen)) -> Vec<String> {
        drawn_with(("", 5), (width, height), change)
    }

    /// With the reason why there is nothing newer, and this many requests that wait.
    fn drawn_with(
        (trouble, n_pending): (&str, u64),
        (width, height): (u16, u16),
        change: impl FnOnce(&mut Screen),
    ) -> Vec<String> {
        let mut screen = Screen::new();
        change(&mut screen);
        let start = Instant::now();
        let mut stats = Stats::new(Counted::default(), start);
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
        stats.sample.add(400, 400);
        stats.pass(1.0);
        let verdicts = [30, 900, 100, 0, 0, 970, 0];
        let counted = Counted { verdicts, failures: 20, bytes: 5 << 20, ..Counted::default() };
        stats.count(&counted, start + Duration::from_secs(1));
        let load =
            Load { cpu_share: 0.25, memory_bytes: 40 << 20, requests: 7.5, started_ticks: 1 };
        let process = |name: &str, pid| ProcessRow {
            name: name.to_owned(),
            pid,
            load: load.clone(),
            n_connections: 11,
            n_tunnels: (!name.starts_with("old")).then_some(2),
        };
        let server =
            |name: &str, state| ServerRow { name: name.to_owned(), state, n_active: 3, n_idle: 4 };
        let snapshot = Snapshot {
            pid: 4242,
            generation: 7,
            counted,
            processes: vec![
                process("master", 1),
                process("worker 0", 2),
                process("worker 1", 0),
                process("old worker 1", 4321),
            ],
            servers: vec![server("app/10.0.0.1:8080", "up"), server("app/10.0.0.2:8080", "down")],
            n_pending,
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
            trouble,
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
        expect(&lines, &["pid 4242", "generation 7", "12:34:56Z", "last 10 s, a sample of 50 %"]);
        expect(&lines, &["requests     2000/s  5xx  1.0 %  hit ratio   90 %"]);
        expect(&lines, &["waiting   5  sent  5.0 MiB/s"]);
        let lines = drawn_with(("", 20_000), (80, 24), |_| {});
        expect(&lines, &["waiting 20000"]);
        expect(&lines, &["    hit  stale revalidated   miss   pass tunnel   none"]);
        expect(&lines, &["    900      0           0    100    970      0   30.0"]);
        expect(&lines, &["p50 ", "p99 ", "max  41.0 ms", "1 of 2 not up: app/10.0.0.2:8080 down"]);
        expect(&lines, &["600 MiB of 1 GiB, 12345 of 100000 objects", "[1 Hosts]", " 2 Paths "]);
        expect(&lines, &["req/s▼", "mean", "90 %", "www.example.com", " q Quit"]);
        let lines = drawn(80, 24, |screen| screen.panel = 1);
        expect(
            &lines,
            &["[2 Paths]", "93 %", "80 %", "www.example.com/index.html", "www.example.com/often"],
        );
        assert!(!lines.concat().contains('\x1b'));
        let lines = drawn(80, 24, |screen| screen.panel = 2);
        expect(&lines, &["2.0 ms", "app/10.0.0.1:8080", "state▼", "down app/10.0.0.2:8080"]);
        let lines = drawn(80, 24, |screen| screen.panel = 3);
        expect(&lines, &["master", "25 %", "40.0 MiB", "worker 1", "7.5", "conns"]);
        expect(&lines, &["       2        2 worker 0", "       -     4321 old worker 1"]);
    }

    #[test]
    fn with_a_filter_all_numbers_are_those_of_the_requests_that_were_read() {
        let lines = drawn(80, 24, |screen| screen.filter_text = "status > 1".to_owned());
        expect(&lines, &["filtered      400/s  5xx  1.0 %  hit ratio   90 %", "only status > 1"]);
    }

    #[test]
    fn a_small_terminal_leaves_out_what_has_no_room_and_cuts_no_number() {
        let lines = drawn(40, 12, |_| {});
        expect(&lines, &["requests     2000/s  5xx  1.0 %", "not up", "req/s▼  5xx/s name"]);
        expect(&lines, &["    400    4.0 www.example.com", " q Quit"]);
        let lines = drawn(20, 5, |_| {});
        expect(&lines, &["ktrix", "2000/s", "    400 www.…ple.com", " q Quit"]);
    }

    #[test]
    fn the_reason_why_numbers_are_old_fits_beside_the_clock() {
        let pause = |screen: &mut Screen| screen.is_paused = true;
        let lines = drawn_with(("KTRIX HAS ENDED", 5), (80, 24), pause);
        expect(&lines, &[" ktrix ", "pid 4242", "KTRIX HAS ENDED  PAUSED  12:34:56Z"]);
        let long = "only root may look into the ktrix with pid 4242: it is another user's\x1b";
        let lines = drawn_with((long, 5), (80, 24), pause);
        expect(&lines, &[" ktrix only root may", "another user's\u{fffd}  PAUSED  12:34:56Z"]);
        drawn_with((long, 5), (10, 3), pause);
    }

    #[test]
    fn a_large_terminal_shows_all_tables() {
        let lines = drawn(200, 60, |_| {});
        expect(&lines, &[" Hosts ", " Paths ", " Servers ", " Processes "]);
        expect(&lines, &["www.example.com/often", "app/10.0.0.2:8080", "worker 1", "100 %"]);
    }

    #[test]
    fn the_help_and_a_filter_with_a_flaw_fit_and_any_size_is_drawn() {
        let lines = drawn(80, 24, |screen| screen.has_help = true);
        expect(&lines, &["Keys", "any key closes this help", "show some requests only"]);
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
