//! Fields that belong to one connection and go no further (RFC 9110 section 7.6.1).
//!
//! They are those of a fixed list and those that `Connection` names. A sender may not use
//! `Connection` to remove a field that decides how a message is framed, stored, routed or trusted:
//! naming such a field has no effect.

use crate::base::chars;
use crate::http::fields::Fields;

/// The fields of one head that end at this hop.
#[derive(Clone, Debug)]
pub struct Hop<'a> {
    /// Names that `Connection` adds to the fixed list; almost always none.
    named: Vec<&'a [u8]>,
}

impl<'a> Hop<'a> {
    /// Reads `Connection`.
    pub fn of(fields: &'a Fields) -> Self {
        let mut named: Vec<&[u8]> = Vec::new();
        for name in fields.list("connection") {
            let is_listed = is_hop_by_hop(name) || is_option(name) || is_end_to_end(name);
            if !is_listed && !contains(&named, name) && has_field(fields, name) {
                named.push(name);
            }
        }
        Self { named }
    }

    /// Whether a field of this name goes on to the next hop.
    pub fn passes(&self, name: &[u8]) -> bool {
        !is_hop_by_hop(name) && !contains(&self.named, name)
    }
}

/// Removes every field that goes no further. `TE: trailers` stays, in just these words, if it was
/// sent: the caller that forwards it must also name it in a `Connection` of its own.
pub fn strip(fields: &mut Fields) {
    let takes_trailers = takes_trailers(fields);
    let named: Vec<Vec<u8>> = Hop::of(fields).named.iter().map(|name| name.to_vec()).collect();
    let is_named = |name: &[u8]| named.iter().any(|other| chars::eq_ignore_case(name, other));
    fields.retain(|name, _| !is_hop_by_hop(name) && !is_named(name));
    if takes_trailers {
        fields.push(b"TE", b"trailers");
    }
}

/// Whether `TE` says that trailers are welcome (RFC 9110 section 10.1.4).
pub fn takes_trailers(fields: &Fields) -> bool {
    fields.list("te").any(|coding| chars::eq_ignore_case(coding, b"trailers"))
}

/// The protocols that the sender would change to (RFC 9110 section 7.8): the value of `Upgrade`,
/// if there is one and `Connection` names it.
pub fn upgrade(fields: &Fields) -> Option<&[u8]> {
    let is_named = |option: &[u8]| chars::eq_ignore_case(option, b"upgrade");
    let value = fields.get("upgrade").filter(|value| !value.is_empty())?;
    fields.list("connection").any(is_named).then_some(value)
}

/// Asks for (or agrees to) another protocol on this connection, after [`strip`] or another step
/// removed its fields.
pub fn push_upgrade(fields: &mut Fields, protocols: &[u8]) {
    fields.push(b"Connection", b"upgrade");
    fields.push(b"Upgrade", protocols);
}

/// Whether this field never goes further than one connection.
///
/// `Trailer` is among them, since trailers may have to be dropped on the way; `Proxy`, which is not
/// a registered field, because it becomes a trusted variable in CGI programs.
pub fn is_hop_by_hop(name: &[u8]) -> bool {
    let is = |known: &str| chars::eq_ignore_case(name, known.as_bytes());
    match name.len() {
        2 => is("te"),
        5 => is("proxy"),
        7 => is("upgrade") || is("trailer"),
        10 => is("connection") || is("keep-alive"),
        14 => is("http2-settings"),
        16 => is("proxy-connection"),
        17 => is("transfer-encoding"),
        18 => is("proxy-authenticate"),
        19 => is("proxy-authorization"),
        25 => is("proxy-authentication-info"),
        _ => false,
    }
}

/// Whether this is a connection option that is not a field.
fn is_option(name: &[u8]) -> bool {
    chars::eq_ignore_case(name, b"close")
}

/// Whether naming this field in `Connection` has no effect.
fn is_end_to_end(name: &[u8]) -> bool {
    contains(&END_TO_END.map(str::as_bytes), name)
}

fn contains(names: &[&[u8]], name: &[u8]) -> bool {
    names.iter().any(|other| chars::eq_ignore_case(other, name))
}

fn has_field(fields: &Fields, name: &[u8]) -> bool {
    str::from_utf8(name).is_ok_and(|name| fields.contains(name))
}

const END_TO_END: [&str; 41] = [
    "age", "authorization", "cache-control", "cdn-cache-control", "content-encoding",
    "content-language", "content-length", "content-location", "content-range", "content-type",
    "cookie", "date", "etag", "expect", "expires", "forwarded", "host", "if-match",
    "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "last-modified",
    "location", "max-forwards", "origin", "pragma", "range", "set-cookie",
    "strict-transport-security", "vary", "via", "warning", "www-authenticate", "x-forwarded-for",
    "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-frame-options", "x-real-ip",
    "x-request-id",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(pairs: &[(&str, &str)]) -> Vec<String> {
        let mut fields: Fields = pairs.iter().copied().collect();
        let passing: Vec<_> = {
            let hop = Hop::of(&fields);
            let names = fields.iter().map(|(name, _)| name);
            names.filter(|name| hop.passes(name)).map(<[u8]>::to_vec).collect()
        };
        strip(&mut fields);
        let names = fields.iter().map(|(name, _)| name);
        let left: Vec<_> = names.map(<[u8]>::to_vec).collect();
        let without_te: Vec<_> = left.iter().filter(|name| *name != b"TE").cloned().collect();
        assert_eq!(passing, without_te, "both ways agree");
        left.into_iter().map(|name| String::from_utf8(name).unwrap()).collect()
    }

    #[test]
    fn the_fixed_list_goes_no_further() {
        let pairs = [
            ("Host", "a"),
            ("Connection", "keep-alive"),
            ("KEEP-ALIVE", "timeout=5"),
            ("Proxy-Connection", "x"),
            ("Proxy-Authenticate", "x"),
            ("Proxy-Authorization", "x"),
            ("Proxy-Authentication-Info", "x"),
            ("Proxy", "x"),
            ("TE", "gzip"),
            ("Trailer", "x"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "x"),
            ("HTTP2-Settings", "x"),
            ("Proxy-Status", "x"),
            ("Accept", "y"),
        ];
        assert_eq!(stripped(&pairs), ["Host", "Proxy-Status", "Accept"]);
    }

    #[test]
    fn fields_named_by_connection_go_no_further() {
        let pairs = [
            ("Connection", "close, X-a,, \t x-B"),
            ("X-A", "1"),
            ("x-b", "2"),
            ("x-c", "3"),
            ("X-A", "4"),
            ("connection", "X-D, x-nowhere"),
            ("x-d", "5"),
        ];
        assert_eq!(stripped(&pairs), ["x-c"]);
    }

    #[test]
    fn connection_cannot_remove_a_deciding_field() {
        for name in END_TO_END {
            assert_eq!(stripped(&[("Connection", name), (name, "x")]), [name]);
        }
        assert!(END_TO_END.is_sorted());
    }

    #[test]
    fn trailers_may_still_be_asked_for() {
        assert_eq!(stripped(&[("TE", "gzip;q=0.5, Trailers"), ("A", "b")]), ["A", "TE"]);
    }

    #[test]
    fn an_upgrade_must_be_named() {
        let upgrade_of = |connection: &str, value: &str| {
            let pairs = [("Connection", connection), ("Upgrade", value)];
            upgrade(&pairs.into_iter().collect()).map(<[u8]>::to_vec)
        };
        assert_eq!(upgrade_of("keep-alive, Upgrade", "websocket"), Some(b"websocket".to_vec()));
        assert_eq!(upgrade_of("keep-alive", "websocket"), None);
        assert_eq!(upgrade_of("upgrade", ""), None);
        let mut fields = Fields::new();
        push_upgrade(&mut fields, b"websocket");
        assert_eq!(upgrade(&fields), Some(&b"websocket"[..]));
    }
}
