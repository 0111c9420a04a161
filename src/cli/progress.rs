//! The progress of a long command: one line on a terminal, and nothing elsewhere.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The progress of a command. Dropping it removes its line.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// The progress of a command that reads `n` things and prints no lines meanwhile.
    pub(super) fn of(n: u64, things: &'static str) -> Self {
        // A short command needs no bar.
        if n < SHOWN_FROM || !std::io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden() };
        }
        let template = "{bar:30} {percent:>3} % of {len} {msg}, {per_sec}, {eta} left";
        let style = ProgressStyle::with_template(template);
        let bar = ProgressBar::with_draw_target(Some(n), ProgressDrawTarget::stderr_with_hz(HZ))
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            .with_message(things);
        bar.set_position(0);
        bar.tick();
        Self { bar }
    }

    /// As [`Progress::of`], for a command that prints lines: no progress where they would mix.
    pub(super) fn beside_lines(n: u64, things: &'static str) -> Self {
        Self::of(if std::io::stdout().is_terminal() { 0 } else { n }, things)
    }

    /// One more thing is done.
    pub(super) fn step(&self) {
        self.bar.inc(1);
    }

    /// Prints lines without mixing them with the progress.
    pub(super) fn around<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Fewer things than this show no progress.
const SHOWN_FROM: u64 = 4096;

/// The limit of redraws in a second.
const HZ: u8 = 8;
