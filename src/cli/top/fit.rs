//! The parts that fit into a line of a terminal, each whole, and names without their middle.

use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

/// The parts that fit into a line of this width, up to the first that does not.
pub(super) fn fitting(
    parts: impl IntoIterator<Item = Vec<Span<'static>>>,
    width: usize,
) -> Line<'static> {
    let mut line = Line::default();
    for part in parts {
        let n: usize = part.iter().map(Span::width).sum();
        if line.width() + n > width && !line.spans.is_empty() {
            break;
        }
        line.spans.extend(part);
    }
    line
}

/// A name in this many columns of the terminal: the middle of a longer one is left out.
pub(super) fn fitted(name: &str, width: usize) -> String {
    let line = Span::raw(name);
    if line.width() <= width {
        return name.to_owned();
    }
    let chars: Vec<_> = line.styled_graphemes(Style::new()).map(|it| it.symbol).collect();
    let taken = |from: &mut dyn Iterator<Item = &&str>, room: usize| -> usize {
        let mut left = room;
        from.take_while(|symbol| {
            let n = Span::raw(**symbol).width();
            left.checked_sub(n).inspect(|it| left = *it).is_some()
        })
        .count()
    };
    let n_first = taken(&mut chars.iter(), width / 3);
    let first = chars[..n_first].concat();
    let room = width.saturating_sub(Span::raw(&*first).width() + 1);
    let n_last = taken(&mut chars.iter().rev(), room);
    format!("{first}…{}", chars[chars.len() - n_last..].concat())
}

pub(super) fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

pub(super) fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_keeps_its_beginning_and_its_end() {
        assert_eq!(fitted("www.example.com/a", 17), "www.example.com/a");
        assert_eq!(fitted("www.example.com/long/é", 12), "www.…/long/é");
        assert_eq!(fitted("abc", 1), "…");
        // Wide characters have two columns, and marks none.
        assert_eq!(fitted("日本語/ページ", 13), "日本語/ページ");
        assert_eq!(fitted("日本語/ページ", 10), "日…/ページ");
        assert_eq!(fitted("abcde\u{301}\u{302}", 5), "abcde\u{301}\u{302}");
        for width in 0..20 {
            let name = fitted("日本e\u{301}語/👩‍🔬/ページ", width);
            assert!(Span::raw(&*name).width() <= width.max(1), "{name} in {width}");
        }
    }
}
