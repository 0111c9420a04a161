//! Follows the access log, and puts the lines of all workers in order.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::cli::demo::line::Line;

/// Follows a growing log file.
#[derive(Debug)]
pub(super) struct Follower {
    path: PathBuf,
    file: Option<File>,
    /// A line of which the end is not there yet.
    rest: Vec<u8>,
    /// Lines that wait for earlier ones of another worker, in order.
    waiting: Vec<Line>,
}

impl Follower {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None, rest: Vec::new(), waiting: Vec::new() }
    }

    /// The lines to show, in the order of their times. Each worker writes a line soon after its
    /// exchange, so a line waits from one call to the next for earlier lines of other workers.
    pub(super) fn new_lines(&mut self) -> Vec<Line> {
        let newest = self.waiting.last().map(|line| line.time.clone());
        self.read();
        let is_due = |line: &Line| newest.as_ref().is_some_and(|newest| line.time <= *newest);
        let n_due = self.waiting.partition_point(is_due);
        self.waiting.drain(..n_due).collect()
    }

    /// All other lines, once no process writes any more.
    pub(super) fn last_lines(&mut self) -> Vec<Line> {
        self.read();
        std::mem::take(&mut self.waiting)
    }

    fn read(&mut self) {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        if let Some(file) = &mut self.file {
            // Lines that cannot be read now may be readable the next time.
            let _ = file.read_to_end(&mut self.rest);
        }
        if let Some(end) = memchr::memrchr(b'\n', &self.rest) {
            let whole: Vec<u8> = self.rest.drain(..=end).collect();
            let lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            self.waiting.extend(lines.map(Line::of));
            self.waiting.sort_by(|a, b| a.time.cmp(&b.time));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn times(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.time.as_str()).collect()
    }

    #[test]
    fn half_a_line_waits_for_its_end_and_a_line_for_earlier_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut follower = Follower::new(&path);
        assert!(follower.new_lines().is_empty());
        let mut log = File::create(&path).unwrap();
        log.write_all(b"{\"time\":\"2\"").unwrap();
        assert!(follower.new_lines().is_empty());
        log.write_all(b"}\n").unwrap();
        assert!(follower.new_lines().is_empty());
        // A stream of lines without a pause holds none of them back.
        log.write_all(b"{\"time\":\"3\"}\n{\"time\":\"1\"}\n").unwrap();
        assert_eq!(times(&follower.new_lines()), ["1", "2"]);
        log.write_all(b"{\"time\":\"4\"}\n").unwrap();
        assert_eq!(times(&follower.new_lines()), ["3"]);
        log.write_all(b"{\"time\":\"5\"}\n").unwrap();
        assert_eq!(times(&follower.last_lines()), ["4", "5"]);
        assert!(follower.new_lines().is_empty());
    }
}
