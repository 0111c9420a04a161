//! A message of the error log: one line, of bounded length, without control characters; and its way
//! to a file.

use std::fmt;
use std::os::fd::BorrowedFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::base::chars;

/// Where a message is cut, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 2048;

/// A message as one line: cut at its limit, control characters escaped.
#[derive(Debug, Default)]
pub struct Message(String);

impl Message {
    /// An empty message.
    pub fn new() -> Self {
        Self::default()
    }

    /// The text so far.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            if self.0.len() >= MESSAGE_BYTES_MAX {
                self.0.push_str("...");
                return Err(fmt::Error);
            }
            if chars::is_unprintable(char) {
                self.0.extend(char.escape_default());
            } else {
                self.0.push(char);
            }
        }
        Ok(())
    }
}

/// Writes the line in one piece if that does not block; returns whether it did.
///
/// A pipe that is ready has room for PIPE_BUF bytes at least (4096), more than a line has. The
/// descriptor is shared with other processes and must not be made non-blocking, hence the poll
/// first.
pub(super) fn write_if_ready(fd: BorrowedFd<'_>, line: &[u8]) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    let is_ready = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0)
        && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLOUT));
    is_ready && nix::unistd::write(fd, line).is_ok_and(|n| n == line.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        let mut message = Message::new();
        write!(message, "a\nb\x1b[2J\u{2028}\u{202E}ü").unwrap();
        assert_eq!(message.text(), "a\\nb\\u{1b}[2J\\u{2028}\\u{202e}ü");
        let mut message = Message::new();
        assert!(write!(message, "{}", "x".repeat(10_000)).is_err());
        assert_eq!(message.text().len(), MESSAGE_BYTES_MAX + 3);
    }
}
