//! The choices of the person at the terminal: a panel, its order, a filter; and the keys that make them.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::cli::log::filter::Filter;

/// A table of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Panel {
    Hosts,
    Paths,
    Servers,
    Workers,
}

impl Panel {
    pub(super) const ALL: [Self; 4] = [Self::Hosts, Self::Paths, Self::Servers, Self::Workers];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Hosts => "Hosts",
            Self::Paths => "Paths",
            Self::Servers => "Servers",
            Self::Workers => "Processes",
        }
    }

    /// The columns but for the name, which is the last.
    pub(super) const fn columns(self) -> &'static [Column] {
        match self {
            Self::Hosts | Self::Paths => &[
                Column("req/s", 7, 0),
                Column("share", 6, 5),
                Column("hit ratio", 10, 3),
                Column(FAILURES, 6, 1),
                Column("sent/s", 8, 4),
                Column("mean", 8, 2),
            ],
            Self::Servers => &[
                Column("req/s", 7, 3),
                Column(FAILURES, 6, 2),
                Column("sent/s", 8, 6),
                Column("mean", 8, 1),
                Column("active", 7, 4),
                Column("idle", 5, 5),
                Column("state", 8, 0),
            ],
            Self::Workers => &[
                Column("cpu", 6, 0),
                Column("memory", 8, 1),
                Column("req/s", 7, 2),
                Column("conns", 6, 4),
                Column("tunnels", 8, 5),
                Column("pid", 8, 3),
            ],
        }
    }

    /// The columns that have room in this width beside the name, and their places: what does not fit
    /// is left out, so that no number is ever cut.
    pub(super) fn fitting(self, width: usize) -> Vec<(usize, &'static Column)> {
        let mut columns: Vec<_> = self.columns().iter().enumerate().collect();
        let room = width.saturating_sub(NAME_CHARS_MIN.min(width / 2));
        while columns.len() > 1 && columns.iter().map(|(_, it)| it.1 + 1).sum::<usize>() > room {
            let last = columns.iter().map(|(_, it)| it.2).max();
            columns.retain(|(_, it)| Some(it.2) != last);
        }
        columns
    }

    /// The column that decides between rows that are equal in that of the order.
    pub(super) const fn second_order(self) -> usize {
        match self {
            Self::Hosts | Self::Paths | Self::Workers => 0,
            Self::Servers => 3,
        }
    }
}

/// A column: its name, its width, and its rank; those with a high one go first where there is no room.
#[derive(Debug)]
pub(super) struct Column(pub(super) &'static str, pub(super) usize, pub(super) u8);

impl Column {
    /// That of the names, behind all others.
    pub(super) const NAME: Self = Self("name", 0, 0);
}

/// Answers with the status of a server error.
pub(super) const FAILURES: &str = "5xx/s";

/// A name has this room before any column but the first.
const NAME_CHARS_MIN: usize = 30;

/// The choices of a person.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) panel: usize,
    /// The column that each panel is sorted by; the one behind the last is the name.
    pub(super) orders: [usize; Panel::ALL.len()],
    pub(super) selected: usize,
    pub(super) is_paused: bool,
    pub(super) has_help: bool,
    /// The text of a filter while it is typed.
    pub(super) typed: Option<String>,
    /// Why it is no filter.
    pub(super) flaw: String,
    /// The text of the filter in use.
    pub(super) filter_text: String,
    pub(super) filter: Filter,
}

/// The effect of a key outside the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Quit,
    /// Another filter, or a new start: what was counted no longer fits.
    Restart,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            panel: 0,
            // The servers that are not up first, and then the slowest.
            orders: [0, 0, 6, 0],
            selected: 0,
            is_paused: false,
            has_help: false,
            typed: None,
            flaw: String::new(),
            filter_text: String::new(),
            filter: Filter::All(Vec::new()),
        }
    }

    pub(super) fn panel(&self) -> Panel {
        Panel::ALL[self.panel]
    }

    pub(super) fn press(&mut self, key: KeyEvent) -> Wish {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return Wish::Quit;
        }
        if self.has_help {
            self.has_help = false;
            return Wish::Nothing;
        }
        if self.typed.is_some() {
            return self.type_filter(key.code);
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::F(10) => return Wish::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.has_help = true,
            KeyCode::Char(' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('/') | KeyCode::F(4) => self.typed = Some(self.filter_text.clone()),
            KeyCode::Char('r') => return Wish::Restart,
            KeyCode::Tab | KeyCode::Right => self.show((self.panel + 1) % Panel::ALL.len()),
            KeyCode::BackTab | KeyCode::Left => {
                self.show((self.panel + Panel::ALL.len() - 1) % Panel::ALL.len());
            }
            KeyCode::Char(digit @ '1'..='4') => self.show(digit as usize - '1' as usize),
            KeyCode::Char('>') | KeyCode::F(6) => self.sort_by(1),
            KeyCode::Char('<') => self.sort_by(self.panel().columns().len()),
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.selected = self.selected.saturating_add(1),
            KeyCode::PageUp => self.selected = self.selected.saturating_sub(PAGE),
            KeyCode::PageDown => self.selected = self.selected.saturating_add(PAGE),
            KeyCode::Home => self.selected = 0,
            KeyCode::End => self.selected = usize::MAX,
            KeyCode::Esc if !self.filter_text.is_empty() => {
                self.filter_text.clear();
                self.filter = Filter::All(Vec::new());
                return Wish::Restart;
            }
            _ => {}
        }
        Wish::Nothing
    }

    /// A row is chosen that there is.
    pub(super) fn keep_within(&mut self, n_rows: usize) {
        self.selected = self.selected.min(n_rows.saturating_sub(1));
    }

    fn show(&mut self, panel: usize) {
        (self.panel, self.selected) = (panel, 0);
    }

    fn sort_by(&mut self, step: usize) {
        let n_columns = self.panel().columns().len() + 1;
        let order = &mut self.orders[self.panel];
        *order = (*order + step) % n_columns;
    }

    fn type_filter(&mut self, code: KeyCode) -> Wish {
        let Some(typed) = &mut self.typed else { return Wish::Nothing };
        match code {
            KeyCode::Char(char) => typed.push(char),
            KeyCode::Backspace => _ = typed.pop(),
            KeyCode::Esc => {
                self.typed = None;
                self.flaw.clear();
            }
            KeyCode::Enter => match Filter::parse(typed) {
                Ok(filter) => {
                    self.filter_text = std::mem::take(typed).trim().to_owned();
                    (self.filter, self.typed) = (filter, None);
                    self.flaw.clear();
                    return Wish::Restart;
                }
                Err(flaw) => self.flaw = flaw.brief(typed),
            },
            _ => {}
        }
        Wish::Nothing
    }
}

const PAGE: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn press(screen: &mut Screen, keys: &[KeyCode]) -> Wish {
        let mut wish = Wish::Nothing;
        for key in keys {
            wish = screen.press(KeyEvent::new(*key, KeyModifiers::NONE));
        }
        wish
    }

    #[test]
    fn panels_and_orders_go_round() {
        let mut screen = Screen::new();
        press(&mut screen, &[KeyCode::BackTab]);
        assert_eq!(screen.panel(), Panel::Workers);
        press(&mut screen, &[KeyCode::Tab, KeyCode::Char('<')]);
        assert_eq!((screen.panel(), screen.orders[0]), (Panel::Hosts, 6));
        press(&mut screen, &[KeyCode::F(6), KeyCode::Char('3')]);
        assert_eq!((screen.panel(), screen.orders[0]), (Panel::Servers, 0));
        press(&mut screen, &[KeyCode::Char('>')]);
        assert_eq!(screen.orders[2], 7);
        assert_eq!(press(&mut screen, &[KeyCode::Char('q')]), Wish::Quit);
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(screen.press(control_c), Wish::Quit);
    }

    #[test]
    fn columns_that_have_no_room_are_left_out_whole() {
        for panel in Panel::ALL {
            assert_eq!(panel.fitting(100).len(), panel.columns().len());
            for width in 1..100 {
                let columns = panel.fitting(width);
                let room: usize = columns.iter().map(|(_, it)| it.1 + 1).sum();
                assert!(columns.len() == 1 || width - room >= NAME_CHARS_MIN.min(width / 2));
            }
        }
        let names: Vec<_> = Panel::Servers.fitting(42).iter().map(|(_, it)| it.0).collect();
        assert_eq!(names, ["mean", "state"]);
    }

    #[test]
    fn a_filter_is_typed_mended_and_taken_away() {
        let mut screen = Screen::new();
        let typed: Vec<_> = "/status > q".chars().map(KeyCode::Char).collect();
        assert_eq!(press(&mut screen, &typed), Wish::Nothing);
        assert_eq!(press(&mut screen, &[KeyCode::Enter]), Wish::Nothing);
        assert!(screen.flaw.contains("is no status"), "{}", screen.flaw);
        let mended =
            [KeyCode::Backspace, KeyCode::Char('4'), KeyCode::Char('9'), KeyCode::Char('9')];
        press(&mut screen, &mended);
        assert_eq!(press(&mut screen, &[KeyCode::Enter]), Wish::Restart);
        assert_eq!((&*screen.filter_text, &*screen.flaw), ("status > 499", ""));
        assert_eq!(press(&mut screen, &[KeyCode::Esc]), Wish::Restart);
        assert_eq!(screen.filter_text, "");
    }
}
