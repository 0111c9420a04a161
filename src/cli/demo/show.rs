//! The access log of the demonstration, as lines for a terminal.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Follows a growing log file.
#[derive(Debug)]
pub(super) struct Follower {
    path: PathBuf,
    file: Option<File>,
    /// A line of which the end is not there yet.
    rest: Vec<u8>,
    /// Whole lines that wait for earlier ones of another worker.
    waiting: Vec<String>,
}

impl Follower {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None, rest: Vec::new(), waiting: Vec::new() }
    }

    /// The new lines of the log, ready to be shown: each worker writes its lines once a second, so
    /// they are held until no more come, and put in the order of their times.
    pub(super) fn new_lines(&mut self) -> Vec<String> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        if let Some(file) = &mut self.file {
            // Lines that cannot be read now may be readable the next time.
            let _ = file.read_to_end(&mut self.rest);
        }
        match memchr::memrchr(b'\n', &self.rest) {
            Some(end) => {
                let whole: Vec<u8> = self.rest.drain(..=end).collect();
                self.waiting.extend(String::from_utf8_lossy(&whole).lines().map(str::to_owned));
                Vec::new()
            }
            None => {
                self.waiting.sort_by(|a, b| member(a, "time").cmp(&member(b, "time")));
                self.waiting.drain(..).map(|line| shown(&line)).collect()
            }
        }
    }
}

/// `GET  /picture     200  hit          0.04 ms`, from a line of JSON.
fn shown(line: &str) -> String {
    let member = |name| member(line, name).unwrap_or("-");
    let verdict = match member("reason") {
        "-" => member("verdict").to_owned(),
        reason => format!("{} ({reason})", member("verdict")),
    };
    let total_ms = member("total_s").parse::<f64>().unwrap_or(0.0) * 1_000.0;
    format!(
        "{:<5} {:<12} {:>4}  {verdict:<22} {total_ms:>9.2} ms",
        member("method"),
        member("target"),
        member("status")
    )
}

/// The value of a member of a flat JSON object that ktrix wrote itself, as written.
fn member<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let start = line.find(&format!("\"{name}\":"))? + name.len() + 3;
    let value = line.get(start..)?;
    match value.strip_prefix('"') {
        Some(text) => {
            let is_end =
                |(at, byte): (usize, u8)| byte == b'"' && !text.as_bytes()[..at].ends_with(b"\\");
            let end = text.bytes().enumerate().position(is_end)?;
            text.get(..end)
        }
        None => value.get(..value.find([',', '}'])?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const LINE: &str = r#"{"time":"x","method":"GET","target":"/a\"b","status":200,"verdict":"pass","reason":"no-store","total_s":0.001500}"#;

    #[test]
    fn a_line_shows_the_main_facts() {
        let words: Vec<String> = shown(LINE).split_whitespace().map(str::to_owned).collect();
        assert_eq!(words, ["GET", "/a\\\"b", "200", "pass", "(no-store)", "1.50", "ms"]);
    }

    #[test]
    fn a_strange_line_is_shown_too() {
        assert!(shown("{\"method\":\"G").contains("0.00 ms"));
        assert!(shown("\u{fffd}").contains("0.00 ms"));
    }

    #[test]
    fn half_a_line_waits_for_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut follower = Follower::new(&path);
        assert!(follower.new_lines().is_empty());
        let mut log = File::create(&path).unwrap();
        log.write_all(LINE.as_bytes()).unwrap();
        assert!(follower.new_lines().is_empty());
        let earlier = LINE.replace(":\"x\"", ":\"w\"").replace("GET", "PUT");
        log.write_all(format!("\n{earlier}\n").as_bytes()).unwrap();
        assert!(follower.new_lines().is_empty());
        let lines = follower.new_lines();
        assert!(lines.len() == 2 && lines[0].starts_with("PUT") && lines[1].starts_with("GET"));
        assert!(follower.new_lines().is_empty());
    }
}
