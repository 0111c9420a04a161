//! The fields of an answer as the HTTP/2 library sends them.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::fields::Fields;

/// The fields of an answer.
pub(super) fn fields_of(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields.iter() {
        append(&mut map, name, Bytes::copy_from_slice(value));
    }
    map
}

/// The fields in a head of HTTP/1, as the hot tier has it.
pub(super) fn fields_of_lines(head: &Bytes) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(FIELDS_USUAL);
    let (mut at, mut ends) = (0, memchr::memchr_iter(b'\n', head));
    // The first line is the status.
    at = ends.next().map_or(at, |end| end + 1);
    for end in ends {
        let line = head.get(at..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(colon) = memchr::memmem::find(line, b": ") {
            let (name, value) = line.split_at(colon);
            let value_at = at + colon + 2;
            let value = head.slice(value_at..value_at + value.len() - 2);
            // The library keeps values that it sends again. A value that differs each second must not
            // keep the whole of its head there.
            let changes = matches!(name, b"Age" | b"Cache-Status");
            append(&mut map, name, if changes { Bytes::copy_from_slice(&value) } else { value });
        }
        at = end + 1;
    }
    map
}

/// Room for the fields of most answers.
const FIELDS_USUAL: usize = 24;

/// Adds a field, unless it is one of a connection, which has no meaning in HTTP/2.
fn append(map: &mut HeaderMap, name: &[u8], value: Bytes) {
    let (name, value) = (HeaderName::from_bytes(name), HeaderValue::from_maybe_shared(value));
    if let (Ok(name), Ok(value)) = (name, value)
        && !is_of_connection(&name)
    {
        map.append(name, value);
    }
}

/// RFC 9113 section 8.2.2.
fn is_of_connection(name: &HeaderName) -> bool {
    let names = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
    names.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_and_those_of_a_connection_are_left_out() {
        let fields: Fields =
            [("A", "1"), ("Connection", "close"), ("b", ""), ("a", "2"), ("Upgrade", "x")]
                .into_iter()
                .collect();
        let map = fields_of(&fields);
        let pairs: Vec<_> =
            map.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(pairs, [("a", &b"1"[..]), ("a", b"2"), ("b", b"")]);
    }

    #[test]
    fn the_lines_of_a_head_are_fields() {
        let head = b"HTTP/1.1 200 OK\r\nA: 1: 2\r\nConnection: close\r\nB: \r\n";
        let map = fields_of_lines(&Bytes::from_static(head));
        let pairs: Vec<_> = map.iter().map(|(name, it)| (name.as_str(), it.as_bytes())).collect();
        assert_eq!(pairs, [("a", &b"1: 2"[..]), ("b", b"")]);
    }
}
