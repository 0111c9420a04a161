//! Active checks, without sockets: what a check sends, what its answer means, and when the results
//! make a server down or up.

use std::fmt;
use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};

use crate::http::h1::body::{Decoded, Decoder, TrailerLimits};
use crate::http::h1::head::{HeadLimits, parse_response};
use crate::http::method::Method;
use crate::http::status::Status;
use crate::policy::rfc9111::rules::Statuses;

/// How the servers of an upstream are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The request; without one, a connection is enough.
    pub http: Option<HttpCheck>,
    /// The time between the beginnings of two checks of a server.
    pub interval: Duration,
    /// The time that a check may take.
    pub timeout: Duration,
    /// This many failures in a row make a server down.
    pub fails: u32,
    /// This many passes in a row make it up again.
    pub passes: u32,
}

/// The request of a check, and the answer that passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// Path and query.
    pub path: String,
    /// GET or HEAD.
    pub method: Method,
    /// The host; `None` for the address of the server.
    pub host: Option<String>,
    /// The statuses that pass.
    pub statuses: Vec<Statuses>,
    /// What the first [`BODY_BYTES_MAX`] of the body must have.
    pub expect: Option<Expect>,
}

/// What a body must have.
#[derive(Clone, Debug)]
pub enum Expect {
    /// A text.
    Text(String),
    /// A match; `$` is the end of the part of the body that is read.
    Regex(Regex),
}

impl Expect {
    /// A regular expression on octets, with a bounded size.
    ///
    /// # Errors
    /// When it does not compile.
    pub(crate) fn regex(pattern: &str) -> Result<Self, regex::Error> {
        let mut builder = RegexBuilder::new(pattern);
        builder.unicode(false).dot_matches_new_line(true).size_limit(REGEX_BYTES_MAX);
        let regex = builder.build();
        regex.map(Self::Regex)
    }
}

impl PartialEq for Expect {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => one == other,
            (Self::Regex(one), Self::Regex(other)) => one.as_str() == other.as_str(),
            _ => false,
        }
    }
}

impl Eq for Expect {}

/// The memory of a compiled expression.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// How far the expected text is searched.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 10;

/// Why a check failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckFailure {
    Unresolved,
    Connect,
    Timeout,
    Closed,
    Invalid,
    Status(Status),
    Text(Status),
    Tls,
}

impl CheckFailure {
    /// The number in the row of the server.
    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Unresolved => 2,
            Self::Connect => 3,
            Self::Timeout => 4,
            Self::Closed => 5,
            Self::Invalid => 6,
            Self::Status(_) => 7,
            Self::Text(_) => 8,
            Self::Tls => 9,
        }
    }
}

/// The number of a check that passed.
pub(crate) const PASSED: u32 = 1;

/// The word for the result of a check, by its number; `None` if there was no check.
pub(crate) fn word_of(code: u32) -> Option<&'static str> {
    Some(match code {
        0 => return None,
        PASSED => "passed",
        2 => "unresolved",
        3 => "connect-failed",
        4 => "timeout",
        5 => "closed",
        6 => "bad-response",
        7 => "status",
        9 => "tls-failed",
        _ => "text",
    })
}

impl fmt::Display for CheckFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved => f.write_str("check found no address of its name"),
            Self::Connect => f.write_str("check could not connect"),
            Self::Timeout => f.write_str("check got no answer in time"),
            Self::Closed => f.write_str("check got no whole answer"),
            Self::Invalid => f.write_str("check got an invalid answer"),
            Self::Status(status) => write!(f, "check got {}", status.0),
            Self::Tls => f.write_str("check failed in the TLS handshake"),
            Self::Text(status) => write!(f, "check got {} without the expected text", status.0),
        }
    }
}

impl Check {
    /// Whether the state of a server changes with the last of `n` same results in a row.
    pub(crate) const fn changes(&self, is_down: bool, has_passed: bool, n: u32) -> bool {
        match has_passed {
            true => is_down && n >= self.passes,
            false => !is_down && n >= self.fails,
        }
    }
}

impl HttpCheck {
    /// The bytes of the request.
    pub(crate) fn request(&self, address: &str) -> Vec<u8> {
        let method = if self.method == Method::Head { "HEAD" } else { "GET" };
        let host = self.host.as_deref().unwrap_or(address);
        let path = &self.path;
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ktrix\r\nAccept: */*\r\n\
             Connection: close\r\n\r\n"
        )
        .into_bytes()
    }

    fn passes(&self, status: Status) -> bool {
        self.statuses.iter().any(|wanted| match wanted {
            Statuses::One(one) => *one == status,
            Statuses::Class(digit) => status.0 / 100 == u16::from(*digit),
            Statuses::Any => true,
        })
    }
}

/// The reading of an answer.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    check: &'a HttpCheck,
    /// What was received and is not read yet.
    input: Vec<u8>,
    /// The status and the framing of the body, once the head was read.
    head: Option<(Status, Decoder)>,
    /// The body so far, if a text is searched in it.
    body: Vec<u8>,
}

/// The result of a check.
pub(crate) type CheckResult = Result<(), CheckFailure>;

impl<'a> Reading<'a> {
    pub(crate) const fn new(check: &'a HttpCheck) -> Self {
        Self { check, input: Vec::new(), head: None, body: Vec::new() }
    }

    /// Reads on; `None` if the result is not known yet.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Option<CheckResult> {
        self.input.extend_from_slice(bytes);
        while self.head.is_none() {
            let head = parse_response(&self.input, &HeadLimits::default(), self.check.method);
            let Ok(head) = head else { return Some(Err(CheckFailure::Invalid)) };
            let (head, n_bytes) = head?;
            self.input.drain(..n_bytes);
            if head.status.is_interim() {
                continue;
            }
            if !self.check.passes(head.status) {
                return Some(Err(CheckFailure::Status(head.status)));
            }
            if self.check.expect.is_none() {
                return Some(Ok(()));
            }
            self.head = Some((head.status, Decoder::new(head.length, TrailerLimits::default())));
        }
        self.search()
    }

    /// The result when the connection is closed.
    pub(crate) fn end(&self) -> CheckResult {
        Err(match &self.head {
            Some((status, decoder)) if decoder.at_eof().is_ok() => return self.whole(*status),
            _ => CheckFailure::Closed,
        })
    }

    /// The result when all of the body is there that is searched.
    fn whole(&self, status: Status) -> CheckResult {
        match &self.check.expect {
            Some(Expect::Regex(regex)) if regex.is_match(&self.body) => Ok(()),
            _ => Err(CheckFailure::Text(status)),
        }
    }

    fn search(&mut self) -> Option<CheckResult> {
        let (status, decoder) = self.head.as_mut()?;
        let status = *status;
        // An expression is searched when the body is complete.
        let text = match &self.check.expect {
            Some(Expect::Text(text)) => Some(text.as_bytes()),
            _ => None,
        };
        loop {
            let (range, n_bytes) = match decoder.decode(&self.input) {
                Ok(Decoded::Data { range, consumed }) => (range, consumed),
                Ok(Decoded::More { consumed }) => {
                    self.input.drain(..consumed);
                    return None;
                }
                Ok(Decoded::End { .. }) => return Some(self.whole(status)),
                Err(_) => return Some(Err(CheckFailure::Invalid)),
            };
            // The text may begin in what was searched before.
            let from = self.body.len().saturating_sub(text.map_or(0, <[u8]>::len));
            self.body.extend_from_slice(&self.input[range]);
            self.body.truncate(BODY_BYTES_MAX);
            self.input.drain(..n_bytes);
            if text.is_some_and(|text| memchr::memmem::find(&self.body[from..], text).is_some()) {
                return Some(Ok(()));
            }
            if self.body.len() == BODY_BYTES_MAX {
                return Some(self.whole(status));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(expect: Option<&str>) -> HttpCheck {
        HttpCheck {
            path: "/up".to_owned(),
            method: Method::Get,
            host: None,
            statuses: vec![Statuses::One(Status(200)), Statuses::Class(3)],
            expect: expect.map(|text| Expect::Text(text.to_owned())),
        }
    }

    /// The result of an answer that comes in pieces of `n` bytes, the end included.
    fn read(check: &HttpCheck, answer: &[u8], n: usize) -> CheckResult {
        let mut reading = Reading::new(check);
        let found = answer.chunks(n).find_map(|piece| reading.take(piece));
        found.unwrap_or_else(|| reading.end())
    }

    fn text(status: u16) -> CheckResult {
        Err(CheckFailure::Text(Status(status)))
    }

    #[test]
    fn results_in_a_row_change_the_state() {
        let (interval, timeout) = (Duration::from_secs(5), Duration::from_secs(2));
        let check = Check { http: None, interval, timeout, fails: 3, passes: 2 };
        let down: Vec<_> = (1..=4).map(|n| check.changes(false, false, n)).collect();
        assert_eq!(down, [false, false, true, true]);
        let up: Vec<_> = (1..=3).map(|n| check.changes(true, true, n)).collect();
        assert_eq!(up, [false, true, true]);
        assert!(!check.changes(true, false, 9) && !check.changes(false, true, 9));
    }

    #[test]
    fn the_request_names_the_host() {
        let mut check = http(None);
        let request = String::from_utf8(check.request("10.0.0.1:80")).unwrap();
        assert!(request.starts_with("GET /up HTTP/1.1\r\nHost: 10.0.0.1:80\r\n"), "{request}");
        check.host = Some("app".to_owned());
        check.method = Method::Head;
        let request = String::from_utf8(check.request("x")).unwrap();
        assert!(request.starts_with("HEAD /up HTTP/1.1\r\nHost: app\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n"));
    }

    #[test]
    fn the_status_decides_and_interim_answers_do_not() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Ok(())),
            ("HTTP/1.1 302 Found\r\n\r\n", Ok(())),
            ("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Ok(())),
            ("HTTP/1.1 204 No\r\n\r\n", Err(CheckFailure::Status(Status(204)))),
            ("HTTP/1.0 503 No\r\n\r\n", Err(CheckFailure::Status(Status(503)))),
        ] {
            for n in [1, 7, 1_000] {
                assert_eq!(read(&http(None), answer.as_bytes(), n), expected, "{answer}");
            }
        }
    }

    #[test]
    fn a_text_is_found_across_reads_chunks_and_the_head() {
        let check = http(Some("all is well"));
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n<p>all is well.",
            "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nall is well",
            "HTTP/1.1 200 OK\r\n\r\nall all is well",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nall \r\n7\r\nis well\r\n0\r\n\r\n",
        ] {
            for n in [1, 2, 5, 16, 1_000] {
                assert_eq!(read(&check, answer.as_bytes(), n), Ok(()), "{answer} by {n}");
            }
        }
        for answer in [
            "HTTP/1.1 200 all is well\r\nX: all is well\r\nContent-Length: 2\r\n\r\nno",
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nall is well",
            "HTTP/1.1 200 OK\r\n\r\nall is  well",
        ] {
            for n in [1, 5, 1_000] {
                assert_eq!(read(&check, answer.as_bytes(), n), text(200), "{answer} by {n}");
            }
        }
    }

    #[test]
    fn a_text_is_searched_in_the_first_64_kib() {
        let check = http(Some("needle"));
        for (before, expected) in [(BODY_BYTES_MAX - 6, Ok(())), (BODY_BYTES_MAX - 5, text(200))] {
            let answer = format!("HTTP/1.1 200 OK\r\n\r\n{}needle", "x".repeat(before));
            assert_eq!(read(&check, answer.as_bytes(), 4_096), expected);
        }
    }

    #[test]
    fn an_expression_is_matched_with_the_whole_body() {
        let mut check = http(None);
        check.expect = Some(Expect::regex("^[0-9]+ of [0-9]+ up$").unwrap());
        for n in [1, 3, 1_000] {
            let long = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12 of 9 up";
            assert_eq!(read(&check, long, n), Ok(()));
            assert_eq!(read(&check, b"HTTP/1.1 200 OK\r\n\r\n1 of 9 up", n), Ok(()));
            assert_eq!(read(&check, b"HTTP/1.1 200 OK\r\n\r\n1 of 9 up!", n), text(200));
        }
        assert!(Expect::regex("(").is_err() && Expect::regex("(.{1000}){1000}").is_err());
    }

    #[test]
    fn garbage_and_cut_answers_fail() {
        let check = http(Some("ok"));
        for (answer, expected) in [
            (&b"SSH-2.0-OpenSSH\r\n"[..], CheckFailure::Invalid),
            (b"HTTP/1.1 2000 OK\r\n\r\nok", CheckFailure::Invalid),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", CheckFailure::Invalid),
            (b"HTTP/1.1 200 O", CheckFailure::Closed),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nno", CheckFailure::Closed),
            (b"", CheckFailure::Closed),
        ] {
            for n in [1, 1_000] {
                assert_eq!(read(&check, answer, n), Err(expected), "{answer:?}");
            }
        }
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(40 << 10));
        assert_eq!(read(&check, endless.as_bytes(), 4_096), Err(CheckFailure::Invalid));
    }

    #[test]
    fn results_have_numbers_and_words() {
        let status = Status(500);
        let results = [
            (CheckFailure::Unresolved, "unresolved"),
            (CheckFailure::Connect, "connect-failed"),
            (CheckFailure::Timeout, "timeout"),
            (CheckFailure::Closed, "closed"),
            (CheckFailure::Invalid, "bad-response"),
            (CheckFailure::Status(status), "status"),
            (CheckFailure::Text(status), "text"),
        ];
        for (failure, word) in results {
            assert_eq!(word_of(failure.code()), Some(word));
        }
        assert_eq!((word_of(0), word_of(PASSED)), (None, Some("passed")));
    }

    #[test]
    fn failures_are_named() {
        let says = |failure: CheckFailure| failure.to_string();
        let without = says(CheckFailure::Text(Status(200)));
        assert_eq!(without, "check got 200 without the expected text");
        assert_eq!(says(CheckFailure::Status(Status(503))), "check got 503");
    }
}
