//! A request as a line for a person: the verdict in one word, and a time with its unit.

use crate::cli::colour::{RED, painted};
use crate::cli::name::printable;
use crate::log::format::Record;

/// A request as a line.
pub(super) struct Line<'r>(pub(super) &'r Record<'r>);

impl<'r> Line<'r> {
    /// The word of the access log, but `purge` for a purge, and `collapsed` for a miss that another
    /// client's fetch answered.
    pub(super) fn verdict(&self) -> &'r str {
        match (self.0.method, self.0.verdict) {
            (b"PURGE", _) => "purge",
            (_, "miss") if self.0.server.is_empty() => "collapsed",
            (_, "") => "-",
            (_, word) => word,
        }
    }

    /// `GET   /picture      200  hit                        42 µs`.
    pub(super) fn short(&self, has_colours: bool) -> String {
        let Record { status, method, target, reason, .. } = self.0;
        let verdict = match *reason {
            "" => self.verdict().to_owned(),
            reason => format!("{} ({reason})", self.verdict()),
        };
        let verdict = self.coloured(&format!("{verdict:<22}"), has_colours);
        let (method, target, time) = (printable(method), printable(target), self.time());
        format!("{method:<5} {target:<14} {status:>4}  {verdict} {time:>10}")
    }

    /// `12:30:01.250Z 200 hit            42 µs GET www.example.com/picture 192.0.2.1`, and then the
    /// upstream with the server and the reason.
    pub(super) fn long(&self, has_colours: bool) -> String {
        let Record { status, method, host, target, client, upstream, server, reason, .. } = self.0;
        let verdict = self.coloured(&format!("{:<11}", self.verdict()), has_colours);
        let (clock, time) = (clock_text(self.0.time_us), self.time());
        let shown = |text: &[u8]| if text.is_empty() { "-".to_owned() } else { printable(text) };
        let (method, url) = (shown(method), shown(&[*host, *target].concat()));
        let status = match status / 100 {
            4 if has_colours => painted(&status.to_string(), 33),
            5 if has_colours => painted(&status.to_string(), RED),
            _ => format!("{status:>3}"),
        };
        let mut line = format!("{clock} {status} {verdict} {time:>9} {method} {url}");
        line.push_str(&client.map_or(" -".to_owned(), |it| format!(" {}", it.to_canonical())));
        match (*upstream, *server) {
            ("", _) => {}
            (upstream, server) => line.push_str(&format!(" {upstream}/{server}")),
        }
        if !reason.is_empty() {
            line.push_str(&format!(" {reason}"));
        }
        line
    }

    fn time(&self) -> String {
        time_text(self.0.times.total_us.unwrap_or(0))
    }

    /// The text in the colour of the verdict, for a terminal (ECMA-48, SGR).
    fn coloured(&self, text: &str, has_colours: bool) -> String {
        let colour = match self.verdict() {
            _ if !has_colours => return text.to_owned(),
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
}

/// The time of the day, UTC.
fn clock_text(unix_us: u64) -> String {
    let (ms, s) = (unix_us / 1_000 % 1_000, unix_us / 1_000_000 % 86_400);
    format!("{:02}:{:02}:{:02}.{ms:03}Z", s / 3_600, s / 60 % 60, s % 60)
}

/// A span with the unit of its size.
pub(super) fn time_text(us: u64) -> String {
    if us < 1_000 {
        format!("{us} µs")
    } else if us < 1_000_000 {
        format!("{:.1} ms", us as f64 / 1e3)
    } else {
        format!("{:.2} s", us as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::format::Times;

    fn record(verdict: &'static str) -> Record<'static> {
        Record {
            time_us: 1_795_230_282_000_123,
            client: Some("192.0.2.1".parse().unwrap()),
            method: b"GET",
            host: b"h",
            target: b"/a\"b",
            status: 200,
            verdict,
            times: Times { total_us: Some(1_500), ..Times::default() },
            ..Record::default()
        }
    }

    fn words(text: &str) -> Vec<&str> {
        text.split_whitespace().collect()
    }

    #[test]
    fn a_line_shows_the_main_facts() {
        let pass = Record { reason: "no-store", upstream: "app", server: "s:1", ..record("pass") };
        let short = Line(&pass).short(false);
        assert_eq!(words(&short), ["GET", "/a\"b", "200", "pass", "(no-store)", "1.5", "ms"]);
        let long = "03:04:42.000Z 200 pass           1.5 ms GET h/a\"b 192.0.2.1 app/s:1 no-store";
        assert_eq!(Line(&pass).long(false), long);
    }

    #[test]
    fn nothing_of_a_client_moves_the_cursor_of_a_terminal() {
        let hostile = Record {
            method: b"G\x1b[2J",
            host: b"\x9b\r\n",
            target: b"/\x1b]0;x\x07\xe2\x80\xae",
            ..record("hit")
        };
        for text in [Line(&hostile).short(false), Line(&hostile).long(false)] {
            assert!(!text.chars().any(crate::base::chars::is_unprintable), "{text:?}");
        }
        let empty = Line(&Record::default()).long(true);
        assert_eq!(words(&empty), ["00:00:00.000Z", "0", "-", "0", "µs", "-", "-", "-"]);
    }

    #[test]
    fn collapsed_and_purge_are_verdicts() {
        for (record, verdict) in [
            (Record { server: "127.0.0.1:1", ..record("miss") }, "miss"),
            (record("miss"), "collapsed"),
            (record("hit"), "hit"),
            (Record { method: b"PURGE", ..record("") }, "purge"),
            (record(""), "-"),
        ] {
            assert_eq!(Line(&record).verdict(), verdict);
        }
    }

    #[test]
    fn a_time_has_the_unit_of_its_size() {
        for (us, text) in [
            (0, "0 µs"),
            (42, "42 µs"),
            (999, "999 µs"),
            (1_260, "1.3 ms"),
            (250_000, "250.0 ms"),
            (2_003_000, "2.00 s"),
        ] {
            assert_eq!(time_text(us), text);
        }
    }

    #[test]
    fn the_verdict_and_an_error_have_a_colour() {
        let coloured = Line(&record("hit")).short(true);
        assert!(coloured.contains("\x1b[32mhit ") && coloured.contains("\x1b[0m "), "{coloured}");
        let plain = coloured.replace("\x1b[32m", "").replace("\x1b[0m", "");
        assert_eq!(plain, Line(&record("hit")).short(false));
        assert!(!Line(&Record::default()).short(true).contains('\x1b'));
        let failed = Record { status: 503, ..record("miss") };
        assert!(Line(&failed).long(true).contains(" \x1b[31m503\x1b[0m "));
    }
}
