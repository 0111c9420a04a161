//! The head of a hot answer: a fixed part, and the lines that change with time.

use std::borrow::Cow;
use std::cell::OnceCell;

use crate::http::fields::Fields;
use crate::http::method::Method;
use crate::http::status::Status;
use crate::policy::cache_status::Report;
use crate::policy::rfc9111::rules::Rules;

/// The longest that the lines which change with time can get.
pub const TAIL_ROOM: usize = 128;

/// The head of an object.
#[derive(Debug)]
pub struct RenderedHead {
    /// The status line and the fields that do not change with time.
    head: Box<[u8]>,
    /// The head by the rules of the object's route, once they were set. A key belongs to one route,
    /// so they never change.
    served: OnceCell<Served>,
}

#[derive(Debug)]
struct Served {
    /// The head without the fields that the route strips, if there are any; never longer.
    head: Option<Box<[u8]>>,
    report: Report,
}

impl RenderedHead {
    /// The head of a response with these fields, which must not change with time.
    pub fn new(status: Status, fields: &Fields, body_len: u64) -> Self {
        Self { head: written(status, fields, body_len), served: OnceCell::new() }
    }

    /// Sets the rules; says whether they were not set before.
    pub fn serve_by(&self, rules: &Rules, status: Status, fields: &Fields, body_len: u64) -> bool {
        let is_new = self.served.get().is_none();
        self.served.get_or_init(|| {
            let head = match rules.served(fields) {
                Cow::Borrowed(_) => None,
                Cow::Owned(rest) => Some(written(status, &rest, body_len)),
            };
            Served { head, report: rules.report }
        });
        is_new
    }

    /// The part that does not change with time.
    pub fn head(&self) -> &[u8] {
        self.served.get().and_then(|served| served.head.as_deref()).unwrap_or(&self.head)
    }

    /// The lines that change with time, and the empty line.
    pub fn tail(&self, age_s: u64, ttl_s: u64) -> Tail {
        let report = self.served.get().map_or_else(Report::default, |served| served.report);
        let mut tail = Tail { bytes: [0; TAIL_ROOM], len: 0 };
        tail.push(b"Age: ");
        tail.push(itoa::Buffer::new().format(age_s).as_bytes());
        if report.is_on {
            tail.push(b"\r\nCache-Status: ktrix; hit");
        }
        if report.is_on && report.ttl {
            tail.push(b"; ttl=");
            tail.push(itoa::Buffer::new().format(ttl_s).as_bytes());
        }
        tail.push(b"\r\n\r\n");
        tail
    }

    /// Bytes of the longest head.
    pub fn len(&self) -> usize {
        self.head.len()
    }

    /// Always false: a head has a status line.
    pub fn is_empty(&self) -> bool {
        self.head.is_empty()
    }
}

/// The lines that change with time. They always fit, since they have two numbers of at most 20
/// digits.
#[derive(Debug)]
pub struct Tail {
    bytes: [u8; TAIL_ROOM],
    len: usize,
}

impl Tail {
    /// The lines.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn push(&mut self, part: &[u8]) {
        self.bytes[self.len..self.len + part.len()].copy_from_slice(part);
        self.len += part.len();
    }
}

/// A status line and fields, without the empty line at their end.
fn written(status: Status, fields: &Fields, body_len: u64) -> Box<[u8]> {
    let mut head = Vec::with_capacity(fields.wire_len() + 64);
    head.extend_from_slice(b"HTTP/1.1 ");
    head.extend_from_slice(itoa::Buffer::new().format(status.0).as_bytes());
    head.push(b' ');
    head.extend_from_slice(status.reason().as_bytes());
    head.extend_from_slice(b"\r\n");
    fields.write_to(&mut head);
    if !status.has_no_body(Method::Get) {
        head.extend_from_slice(b"Content-Length: ");
        head.extend_from_slice(itoa::Buffer::new().format(body_len).as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_the_route_strips_are_not_in_the_head() {
        let fields: Fields = [("A", "1"), ("B", "2")].into_iter().collect();
        let rendered = RenderedHead::new(Status(200), &fields, 3);
        assert_eq!(rendered.head(), b"HTTP/1.1 200 OK\r\nA: 1\r\nB: 2\r\nContent-Length: 3\r\n");
        assert_eq!(
            rendered.tail(5, 6).bytes(),
            b"Age: 5\r\nCache-Status: ktrix; hit; ttl=6\r\n\r\n"
        );
        let report = Report { ttl: false, ..Report::default() };
        let rules = Rules { stripped: vec!["b".into()], report, ..Rules::default() };
        assert!(rendered.serve_by(&rules, Status(200), &fields, 3));
        assert_eq!(rendered.head(), b"HTTP/1.1 200 OK\r\nA: 1\r\nContent-Length: 3\r\n");
        assert_eq!(rendered.tail(5, 6).bytes(), b"Age: 5\r\nCache-Status: ktrix; hit\r\n\r\n");
        assert!(!rendered.serve_by(&Rules::default(), Status(200), &fields, 3));
    }

    #[test]
    fn cache_status_can_be_off() {
        let report = Report { is_on: false, ..Report::default() };
        let rendered = RenderedHead::new(Status(204), &Fields::new(), 0);
        rendered.serve_by(&Rules { report, ..Rules::default() }, Status(204), &Fields::new(), 0);
        assert_eq!(rendered.tail(u64::MAX, u64::MAX).bytes(), b"Age: 18446744073709551615\r\n\r\n");
        assert_eq!(rendered.head(), b"HTTP/1.1 204 No Content\r\n");
    }
}
