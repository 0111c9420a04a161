//! The readable part of a request that is refused, for the access log.
//!
//! Nothing here is valid: the bytes may be cut anywhere, or be of another protocol. The log cuts and
//! escapes them.

use crate::base::chars;

/// The parts of a refused request. A part that cannot be read is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rejected<'a> {
    /// The first line, as far as it came.
    pub line: &'a [u8],
    /// The method.
    pub method: &'a [u8],
    /// The target.
    pub target: &'a [u8],
    /// The protocol.
    pub version: &'a str,
    /// The value of the first `Host`.
    pub host: &'a [u8],
}

impl<'a> Rejected<'a> {
    /// Reads the bytes of a request from its beginning.
    pub fn of(bytes: &'a [u8]) -> Self {
        let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let start = bytes.iter().position(|byte| !is_end(byte)).unwrap_or(bytes.len());
        let text = bytes.get(start..).unwrap_or_default();
        let (line, rest) = text.split_at(text.iter().position(is_end).unwrap_or(text.len()));
        let mut words = line.split(|byte| *byte == b' ');
        // A word is whole only where another one follows.
        let method = words.next().filter(|word| chars::is_token(word) && word.len() < line.len());
        let Some(method) = method else { return Self { line, ..Self::default() } };
        let target = words.next().unwrap_or_default();
        let version = words.next_back().and_then(|word| str::from_utf8(word).ok());
        let version = version.filter(|word| word.len() == 8 && word.starts_with("HTTP/"));
        Self { line, method, target, version: version.unwrap_or_default(), host: host(rest) }
    }
}

/// The host in the lines of a head.
fn host(lines: &[u8]) -> &[u8] {
    let lines = lines.split(|byte| *byte == b'\n').skip(1);
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let head = lines.take_while(|line| !line.is_empty());
    let mut hosts = head.filter_map(|line| {
        let (name, value) = line.split_at_checked("host:".len())?;
        chars::eq_ignore_case(name, b"host:").then(|| chars::trim_ows(value))
    });
    hosts.next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_came_of_a_request_is_read() {
        let of = |text: &'static str| {
            let read = Rejected::of(text.as_bytes());
            let text = |part| str::from_utf8(part).unwrap();
            [text(read.line), text(read.method), text(read.target), read.version, text(read.host)]
        };
        for (text, parts) in [
            ("", ["", "", "", "", ""]),
            ("GET", ["GET", "", "", "", ""]),
            ("\r\n\r\nGET /a", ["GET /a", "GET", "/a", "", ""]),
            ("GET /a HTTP/3.0\r\n", ["GET /a HTTP/3.0", "GET", "/a", "HTTP/3.0", ""]),
            ("GET  HTTP/1.1\r\n", ["GET  HTTP/1.1", "GET", "", "HTTP/1.1", ""]),
            ("GET /a b HTTP/1.1\n", ["GET /a b HTTP/1.1", "GET", "/a", "HTTP/1.1", ""]),
            (
                "GET /a HTTP/1.1\r\nA: b\r\nhost:  h \r\nHost: i\r\n\r\n",
                ["GET /a HTTP/1.1", "GET", "/a", "HTTP/1.1", "h"],
            ),
            ("GET /a HTTP/1.1\r\n\r\nHost: h", ["GET /a HTTP/1.1", "GET", "/a", "HTTP/1.1", ""]),
            ("\x16\x03\x01 a b", ["\x16\x03\x01 a b", "", "", "", ""]),
        ] {
            assert_eq!(of(text), parts, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let read = Rejected::of(&bytes);
            prop_assert!(!read.line.contains(&b'\n') && !read.host.contains(&b'\n'));
        }
    }
}
