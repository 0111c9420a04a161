//! Whether a command writes in colours: on a terminal that has them, unless NO_COLOR is set.

use std::io::IsTerminal;

/// Whether this stream gets colours (<https://no-color.org>).
pub(super) fn is_wanted(stream: &impl IsTerminal) -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    stream.is_terminal()
        && set("NO_COLOR").is_none()
        && set("TERM").is_some_and(|term| term != "dumb")
}

/// The text in a colour, given by its code of ECMA-48.
pub(super) fn painted(text: &str, colour: u8) -> String {
    format!("\x1b[{colour}m{text}\x1b[0m")
}

pub(super) const RED: u8 = 31;
pub(super) const GREEN: u8 = 32;
