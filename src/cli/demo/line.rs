//! A line of the access log, for a person: the verdict in one word, and a time with its unit.

use serde::Deserialize;

use crate::cli::colour::painted;
use crate::cli::name::printable;

/// The members of a line of JSON about an exchange; one that it lacks is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Line {
    /// When the exchange ended; lines are in the order of these texts.
    pub(super) time: String,
    method: String,
    target: String,
    status: u16,
    verdict: String,
    reason: String,
    server: String,
    total_s: f64,
}

impl Line {
    /// A line of the log. One that is damaged is shown too, as empty.
    pub(super) fn of(json: &[u8]) -> Self {
        serde_json::from_slice(json).unwrap_or_default()
    }

    /// The word of the access log, but `purge` for a purge, and `collapsed` for a miss that another
    /// client's fetch answered.
    pub(super) fn verdict(&self) -> &str {
        match (&*self.method, &*self.verdict) {
            ("PURGE", _) => "purge",
            (_, "miss") if self.server.is_empty() => "collapsed",
            (_, "") => "-",
            (_, word) => word,
        }
    }

    /// `GET   /picture      200  hit                        42 µs`.
    pub(super) fn text(&self, has_colours: bool) -> String {
        let word = self.verdict();
        let verdict = match self.reason.as_str() {
            "" => word.to_owned(),
            reason => format!("{word} ({reason})"),
        };
        let verdict = format!("{verdict:<22}");
        let verdict = if has_colours { coloured(word, &verdict) } else { verdict };
        let (method, target) =
            (printable(self.method.as_bytes()), printable(self.target.as_bytes()));
        let time = time_text(self.total_s);
        format!("{method:<5} {target:<14} {:>4}  {verdict} {time:>10}", self.status)
    }
}

/// The text in the colour of its verdict, for a terminal (ECMA-48, SGR).
fn coloured(verdict: &str, text: &str) -> String {
    let colour = match verdict {
        "hit" => 32,
        "stale" | "revalidated" => 33,
        "collapsed" => 36,
        "miss" => 31,
        "pass" => 35,
        "purge" => 34,
        _ => return text.to_owned(),
    };
    painted(text, colour)
}

fn time_text(total_s: f64) -> String {
    let total_us = total_s * 1e6;
    if total_us < 1e3 {
        format!("{total_us:.0} µs")
    } else if total_us < 1e6 {
        format!("{:.1} ms", total_us / 1e3)
    } else {
        format!("{total_s:.2} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(json: &str) -> Vec<String> {
        Line::of(json.as_bytes()).text(false).split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_line_shows_the_main_facts() {
        let pass = r#"{"time":"x","method":"GET","target":"/a\"b","status":200,"verdict":"pass","reason":"no-store","total_s":0.001500}"#;
        assert_eq!(words(pass), ["GET", "/a\"b", "200", "pass", "(no-store)", "1.5", "ms"]);
    }

    #[test]
    fn a_strange_line_is_shown_too() {
        assert_eq!(words("{\"method\":\"G"), ["0", "-", "0", "µs"]);
        assert_eq!(words("\u{fffd}"), ["0", "-", "0", "µs"]);
        assert!(!Line::of(br#"{"target":"/\u001b[2J"}"#).text(false).contains('\x1b'));
    }

    #[test]
    fn collapsed_and_purge_are_verdicts() {
        for (json, verdict) in [
            (r#"{"method":"GET","verdict":"miss","server":"127.0.0.1:1"}"#, "miss"),
            (r#"{"method":"GET","verdict":"miss"}"#, "collapsed"),
            (r#"{"method":"GET","verdict":"hit"}"#, "hit"),
            (r#"{"method":"PURGE","verdict":"-"}"#, "purge"),
        ] {
            assert_eq!(Line::of(json.as_bytes()).verdict(), verdict);
        }
    }

    #[test]
    fn a_time_has_the_unit_of_its_size() {
        for (total_s, text) in [
            (0.0, "0 µs"),
            (0.000_042, "42 µs"),
            (0.000_999, "999 µs"),
            (0.001_26, "1.3 ms"),
            (0.25, "250.0 ms"),
            (2.003, "2.00 s"),
        ] {
            assert_eq!(time_text(total_s), text);
        }
    }

    #[test]
    fn only_the_verdict_has_a_colour() {
        let line = Line::of(br#"{"method":"GET","target":"/","status":200,"verdict":"hit"}"#);
        let coloured = line.text(true);
        assert!(coloured.contains("\x1b[32mhit ") && coloured.contains("\x1b[0m "), "{coloured}");
        assert_eq!(coloured.replace("\x1b[32m", "").replace("\x1b[0m", ""), line.text(false));
        assert!(!Line::default().text(true).contains('\x1b'));
    }
}
