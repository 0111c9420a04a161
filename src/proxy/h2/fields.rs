//! The fields of an answer as the HTTP/2 library sends them.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::fields::Fields;

/// The fields of an answer. Those of a connection have no meaning in HTTP/2.
pub(super) fn fields_of(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len());
    // One buffer for all values: each of them is a part of it.
    let mut values = Vec::with_capacity(fields.wire_len());
    fields.iter().for_each(|(_, value)| values.extend_from_slice(value));
    let mut values = Bytes::from(values);
    for (name, value) in fields.iter() {
        let value = HeaderValue::from_maybe_shared(values.split_to(value.len()));
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) else { continue };
        if !is_of_connection(&name) {
            map.append(name, value);
        }
    }
    map
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
}
