//! The fields of a message as ktrix passes it on (RFC 9110 section 7.6, RFC 7239).

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::base::chars;
use crate::base::time::Now;
use crate::http::authority;
use crate::http::date;
use crate::http::fields::Fields;
use crate::http::head::{BodyLength, RequestHead, ResponseHead};
use crate::http::hop::{self, Hop};
use crate::http::list;
use crate::http::method::Method;
use crate::http::scheme::Scheme;
use crate::http::via;

/// The sender of a request, the scheme and host it addressed, and the instance that passes it on.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    client: Option<IpAddr>,
    scheme: Scheme,
    host: &'a [u8],
    via: &'a str,
}

impl<'a> Peer<'a> {
    /// The client's address, if it has one (a Unix socket has none), the scheme that it speaks, and
    /// the authority of its request in lower case, which may be empty. `via` names this instance.
    ///
    /// The origin gets the authority as keys have it, without a default port. From another spelling
    /// it might make an answer that other clients must not get.
    pub fn new(client: Option<IpAddr>, scheme: Scheme, authority: &'a [u8], via: &'a str) -> Self {
        Self { client, scheme, host: authority::without_default_port(scheme, authority), via }
    }
}

/// The fields of a request as the origin gets it: `Host` first, then the client's fields that may
/// go further, then the framing of the body as it will be sent, then the forwarding fields.
///
/// `X-Forwarded-For`, `Forwarded` and `Via` grow by one; `X-Forwarded-Proto` and `X-Forwarded-Host`
/// say what this hop saw, whatever the client claimed. `Expect` is dropped: ktrix answers it.
/// `Host` is empty where an HTTP/1.0 client sent none; the caller may set a better one.
pub fn request_fields(head: &RequestHead, peer: &Peer<'_>, framing: BodyLength) -> Fields {
    let sent = &head.fields;
    let hop = Hop::of(sent);
    let mut fields = Fields::with_capacity(sent.len() + N_ADDED, sent.wire_len() + ADDED_BYTES);
    fields.push(b"Host", peer.host);
    let counts_forwards = matches!(head.method, Method::Options | Method::Trace);
    fields.append_from(sent, |name, _| hop.passes(name) && !is_rewritten(name));
    if counts_forwards && let Some(left) = max_forwards(head) {
        let mut digits = itoa::Buffer::new();
        fields.set("Max-Forwards", digits.format(left.saturating_sub(1)).as_bytes());
    }
    if hop::takes_trailers(sent) {
        fields.push(b"TE", b"trailers");
        fields.push(b"Connection", b"te");
    }
    push_framing(&mut fields, head.method, framing);
    push_forwarded(&mut fields, sent, peer);
    via::push(&mut fields, head.version, peer.via);
    fields
}

/// The fields of a response for the client or for the store: without those of the connection and of
/// the framing, which the writer adds, and with `Via` of this instance and, where missing, `Date`.
pub fn response_fields(head: &ResponseHead, via: &str, now: Now) -> Fields {
    let sent = &head.fields;
    let hop = Hop::of(sent);
    let mut fields = Fields::with_capacity(sent.len() + 3, sent.wire_len() + 3 * 40);
    let is_length = |name: &[u8]| chars::eq_ignore_case(name, b"content-length");
    fields.append_from(sent, |name, _| hop.passes(name) && !is_length(name));
    if !fields.contains("date") {
        fields.push(b"Date", &date::format(now.unix_s()));
    }
    via::push(&mut fields, head.version, via);
    fields
}

/// `Max-Forwards` of an OPTIONS or TRACE request (RFC 9110 section 7.6.2). At 0 ktrix is the last
/// recipient and answers it itself; a value that is not a number is ignored.
pub fn max_forwards(head: &RequestHead) -> Option<u64> {
    if !matches!(head.method, Method::Options | Method::Trace) {
        return None;
    }
    chars::parse_decimal(head.fields.get("max-forwards")?)
}

/// Whether [`request_fields`] writes this field itself, or one that many origins cannot tell from
/// it: for some, `X_Forwarded_Host` would count before `X-Forwarded-Host`.
fn is_rewritten(name: &[u8]) -> bool {
    let is = |known: &str| chars::eq_as_variable(name, known.as_bytes());
    match name.len() {
        4 => is("host"),
        6 => is("expect"),
        9 => is("forwarded"),
        14 => is("content-length"),
        15 => is("x-forwarded-for"),
        16 => is("x-forwarded-host"),
        17 => is("x-forwarded-proto"),
        _ => false,
    }
}

fn push_framing(fields: &mut Fields, method: Method, framing: BodyLength) {
    match framing {
        BodyLength::Known(length) => {
            let mut digits = itoa::Buffer::new();
            fields.push(b"Content-Length", digits.format(length).as_bytes());
        }
        BodyLength::Chunked | BodyLength::UntilClose => {
            fields.push(b"Transfer-Encoding", b"chunked");
        }
        BodyLength::None if method.anticipates_body() => fields.push(b"Content-Length", b"0"),
        BodyLength::None => {}
    }
}

fn push_forwarded(fields: &mut Fields, sent: &Fields, peer: &Peer<'_>) {
    // A client of a dual-stack socket is identified by its IPv4 address if it has one.
    let client = peer.client.map(|client| client.to_canonical());
    let mut address = String::new();
    if let Some(client) = client {
        let _ = write!(address, "{client}");
    }
    push_joined(fields, "X-Forwarded-For", sent, &[address.as_bytes()]);
    if !peer.host.is_empty() {
        fields.push(b"X-Forwarded-Host", peer.host);
    }
    fields.push(b"X-Forwarded-Proto", peer.scheme.word().as_bytes());
    let mut host = Vec::new();
    if !peer.host.is_empty() {
        host.extend_from_slice(b";host=");
        push_quoted(&mut host, peer.host);
    }
    // RFC 7239 section 6: an IPv6 address is in brackets, and so is quoted.
    let (open, node, close): (&[u8], _, &[u8]) = match client {
        Some(IpAddr::V4(_)) => (b"for=", address.as_bytes(), b""),
        Some(IpAddr::V6(_)) => (b"for=\"[", address.as_bytes(), b"]\""),
        None => (b"for=", &b"unknown"[..], b""),
    };
    let element = [open, node, close, &host, b";proto=", peer.scheme.word().as_bytes()];
    push_joined(fields, "Forwarded", sent, &element);
}

/// Removes the claims of other hops in `Forwarded` except `for`; the last element is this hop's own
/// and stays as it is. For a request with an answer that is shared by clients: one client must not
/// choose the host or protocol that the answer is made for.
pub fn forget_claims(fields: &mut Fields) {
    let Some(value) = fields.get("forwarded").map(<[u8]>::to_vec) else { return };
    let elements: Vec<&[u8]> = list::members(&value).collect();
    let Some((own, others)) = elements.split_last() else { return };
    let kept: Vec<&[u8]> =
        others.iter().filter_map(|element| for_pair(element)).chain([*own]).collect();
    fields.set("Forwarded", &kept.join(&b", "[..]));
}

/// Whether a client claims more in `Forwarded` than `for`.
pub fn has_claims(sent: &Fields) -> bool {
    sent.list("forwarded").any(|element| for_pair(element) != Some(element))
}

/// The `for` pair of an element, RFC 7239 section 5.2.
fn for_pair(element: &[u8]) -> Option<&[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let pairs = element.split(|&byte| {
        let is_end = byte == b';' && !is_quoted;
        is_quoted ^= byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && is_quoted && !is_escaped;
        is_end
    });
    pairs.map(chars::trim_ows).find(|pair| {
        pair.split_at_checked(4).is_some_and(|(name, _)| chars::eq_ignore_case(name, b"for="))
    })
}

/// Appends one field with all values of this name and one more member, if it is not empty.
fn push_joined(fields: &mut Fields, name: &str, sent: &Fields, last: &[&[u8]]) {
    // An open quote would swallow what is added behind it.
    let is_sound = sent.get_all(name).all(list::has_closed_quotes);
    if !sent.contains(name) || !is_sound {
        if last.iter().any(|part| !part.is_empty()) {
            fields.push_parts(name.as_bytes(), last);
        }
        return;
    }
    let mut value: Vec<u8> = Vec::new();
    for member in sent.get_all(name).chain(std::iter::once(&last.concat()[..])) {
        if !value.is_empty() && !member.is_empty() {
            value.extend_from_slice(b", ");
        }
        value.extend_from_slice(member);
    }
    fields.push(name.as_bytes(), &value);
}

/// A token as it is, anything else as a quoted string.
fn push_quoted(out: &mut Vec<u8>, value: &[u8]) {
    if chars::is_token(value) {
        return out.extend_from_slice(value);
    }
    out.push(b'"');
    for octet in value {
        if matches!(octet, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*octet);
    }
    out.push(b'"');
}

const N_ADDED: usize = 8;
const ADDED_BYTES: usize = 320;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::head::{HeadLimits, parse_request, parse_response};
    use crate::http::h1::write;
    use proptest::prelude::*;

    fn request(text: &str) -> RequestHead {
        parse_request(text.as_bytes(), &HeadLimits::default()).unwrap().unwrap().0
    }

    fn written(fields: &Fields) -> String {
        let mut out = Vec::new();
        fields.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn claims_of_other_hops_are_removed_except_for() {
        for (sent, kept) in [
            (
                "for=1.1.1.1;host=evil;proto=evil, for=2.2.2.2;host=a",
                "for=1.1.1.1, for=2.2.2.2;host=a",
            ),
            ("host=evil, FOR=\"[::1];x\\\";y\" ; by=evil, for=b", "FOR=\"[::1];x\\\";y\", for=b"),
            ("for=b;host=\"a,b\"", "for=b;host=\"a,b\""),
        ] {
            let mut fields: Fields = [("Forwarded", sent)].into_iter().collect();
            forget_claims(&mut fields);
            assert_eq!(fields.get("forwarded"), Some(kept.as_bytes()), "{sent}");
        }
        let mut fields = Fields::new();
        forget_claims(&mut fields);
        assert!(fields.is_empty());
    }

    #[test]
    fn a_for_pair_is_no_claim() {
        for (sent, is_claim) in [
            ("for=a", false),
            ("FOR=\"[::1]:80\", for=unknown", false),
            ("for=\"a;host=b\"", false),
            ("for=a;host=b", true),
            ("for=a, host=b", true),
            ("proto=https", true),
            ("", false),
        ] {
            let fields: Fields = [("Forwarded", sent)].into_iter().collect();
            assert_eq!(has_claims(&fields), is_claim, "{sent}");
        }
        assert!(!has_claims(&Fields::new()));
    }

    fn forwarded(text: &str, client: &str, framing: BodyLength) -> String {
        let head = request(text);
        let peer = Peer::new(client.parse().ok(), Scheme::Http, head.authority(), "ktrix");
        written(&request_fields(&head, &peer, framing))
    }

    #[test]
    fn a_plain_request_names_its_client() {
        let text =
            "GET / HTTP/1.1\r\nAccept: */*\r\nConnection: close\r\nHost: A.example:80\r\n\r\n";
        assert_eq!(
            forwarded(text, "192.0.2.1", BodyLength::None),
            "Host: a.example\r\nAccept: */*\r\nX-Forwarded-For: 192.0.2.1\r\n\
             X-Forwarded-Host: a.example\r\nX-Forwarded-Proto: http\r\n\
             Forwarded: for=192.0.2.1;host=a.example;proto=http\r\nVia: 1.1 ktrix\r\n"
        );
    }

    #[test]
    fn an_origin_gets_the_host_as_keys_have_it() {
        for (text, host) in [
            ("GET / HTTP/1.1\r\nHost: WWW.test:\r\n\r\n", "www.test"),
            ("GET / HTTP/1.1\r\nHost: www.test:8080\r\n\r\n", "www.test:8080"),
            ("GET / HTTP/1.1\r\nHost: www.test:443\r\n\r\n", "www.test:443"),
            ("GET http://A.test:80/ HTTP/1.1\r\nHost: b\r\n\r\n", "a.test"),
        ] {
            let head = request(text);
            let peer = Peer::new(None, Scheme::Http, head.authority(), "ktrix");
            let fields = request_fields(&head, &peer, BodyLength::None);
            for name in ["host", "x-forwarded-host"] {
                let values: Vec<_> = fields.get_all(name).collect();
                assert_eq!(values, [host.as_bytes()], "{name} of {text}");
            }
        }
    }

    #[test]
    fn chains_grow_and_claims_are_replaced() {
        let text = "GET / HTTP/1.0\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nx-forwarded-for: 2.2.2.2, \
                    3.3.3.3\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
                    Forwarded: for=1.1.1.1\r\nVia: 1.0 fred\r\n\r\n";
        assert_eq!(
            forwarded(text, "2001:db8::1", BodyLength::None),
            "Host: a\r\nVia: 1.0 fred\r\n\
             X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 2001:db8::1\r\n\
             X-Forwarded-Host: a\r\nX-Forwarded-Proto: http\r\n\
             Forwarded: for=1.1.1.1, for=\"[2001:db8::1]\";host=a;proto=http\r\nVia: 1.0 ktrix\r\n"
        );
    }

    #[test]
    fn other_spellings_of_rewritten_fields_are_dropped() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_Host: evil\r\nx_forwarded-proto: evil\r\n\
                    X_Forwarded_For: evil\r\nContent_Length: 666\r\nX_Other: b\r\n\r\n";
        let fields = forwarded(text, "192.0.2.1", BodyLength::None);
        assert!(
            fields.starts_with("Host: a\r\nX_Other: b\r\nX-Forwarded-For: 192.0.2.1\r\n"),
            "{fields}"
        );
        assert!(!fields.contains("evil") && !fields.contains("666"), "{fields}");
    }

    #[test]
    fn an_open_quote_swallows_nothing() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nForwarded: for=\"1.1.1.1\r\n\r\n";
        let fields = forwarded(text, "::ffff:192.0.2.1", BodyLength::None);
        assert!(fields.contains("\r\nForwarded: for=192.0.2.1;host=a;proto=http\r\n"), "{fields}");
    }

    #[test]
    fn client_of_a_unix_socket_is_unknown() {
        let fields = forwarded("GET / HTTP/1.0\r\n\r\n", "", BodyLength::None);
        let expected = "Host: \r\nX-Forwarded-Proto: http\r\nForwarded: for=unknown;proto=http\r\nVia: 1.0 ktrix\r\n";
        assert_eq!(fields, expected);
    }

    #[test]
    fn the_framing_is_that_of_the_body_as_sent() {
        let text = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\
                    Expect: 100-continue\r\nConnection: content-length, x-a\r\nX-A: b\r\n\r\n";
        let start = |framing| {
            let fields = forwarded(text, "192.0.2.1", framing);
            fields.split("X-Forwarded").next().unwrap().to_owned()
        };
        assert_eq!(start(BodyLength::Known(7)), "Host: a\r\nContent-Length: 7\r\n");
        assert_eq!(start(BodyLength::Chunked), "Host: a\r\nTransfer-Encoding: chunked\r\n");
        assert_eq!(start(BodyLength::None), "Host: a\r\nContent-Length: 0\r\n");
    }

    #[test]
    fn an_absolute_target_names_the_host() {
        let text = "GET http://b.example:81/ HTTP/1.1\r\nHost: a\r\n\r\n";
        assert!(forwarded(text, "", BodyLength::None).starts_with("Host: b.example:81\r\n"));
    }

    #[test]
    fn trailers_are_asked_for_hop_by_hop() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers, gzip\r\nConnection: TE\r\n\r\n";
        let fields = forwarded(text, "", BodyLength::None);
        assert!(fields.contains("\r\nTE: trailers\r\nConnection: te\r\n"), "{fields}");
    }

    #[test]
    fn forwards_are_counted_down() {
        for (method, sent, passed) in
            [("OPTIONS", "5", "4"), ("TRACE", "x", "x"), ("GET", "5", "5")]
        {
            let text = format!("{method} / HTTP/1.1\r\nHost: a\r\nMax-Forwards: {sent}\r\n\r\n");
            let fields = forwarded(&text, "", BodyLength::None);
            assert!(fields.contains(&format!("\r\nMax-Forwards: {passed}\r\n")), "{fields}");
        }
        assert_eq!(max_forwards(&request("TRACE / HTTP/1.0\r\nMax-Forwards: 0\r\n\r\n")), Some(0));
    }

    #[test]
    fn a_response_loses_its_connection_and_gains_a_date() {
        let text = "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive, x-a\r\nX-A: b\r\n\
                    Keep-Alive: x\r\nETag: \"e\"\r\nVia: 1.1 o\r\n\r\n";
        let parsed = parse_response(text.as_bytes(), &HeadLimits::default(), Method::Get);
        let mut head = parsed.unwrap().unwrap().0;
        let now = Now { unix_us: 784_111_777_000_000, mono_us: 0 };
        assert_eq!(
            written(&response_fields(&head, "ktrix", now)),
            "ETag: \"e\"\r\nVia: 1.1 o\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nVia: 1.0 ktrix\r\n"
        );
        head.fields.push(b"date", b"whatever");
        assert!(!written(&response_fields(&head, "ktrix", now)).contains("Sun"));
    }

    fn line() -> impl Strategy<Value = (String, String)> {
        let name = prop::sample::select(vec![
            "Accept", "Connection", "X-A", "TE", "Trailer", "Upgrade", "Proxy", "Keep-Alive",
            "Via", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "Cookie", "Max-Forwards",
            "Expect",
        ]);
        let value = prop_oneof![
            "[ -~]{0,20}",
            prop::sample::select(vec!["host, via, x-a", "100-continue", "trailers", "for=\"a"])
                .prop_map(str::to_owned),
        ];
        (name.prop_map(str::to_owned), value)
    }

    proptest! {
        /// Whatever a client sends, the origin gets one host, the framing that ktrix understood,
        /// and no field of the connection.
        #[test]
        fn forwarded_request_is_unambiguous(
            lines in proptest::collection::vec(line(), 0..12),
            method in prop::sample::select(vec!["GET", "POST", "OPTIONS", "BREW"]),
            framing in prop_oneof![
                Just(BodyLength::None),
                any::<u32>().prop_map(|length| BodyLength::Known(length.into())),
                Just(BodyLength::Chunked),
            ],
        ) {
            let mut text = format!("{method} / HTTP/1.1\r\nHost: a.example\r\n");
            for (name, value) in lines {
                let _ = write!(text, "{name}: {value}\r\n");
            }
            text.push_str("\r\n");
            let parsed = parse_request(text.as_bytes(), &HeadLimits::default());
            let Ok(Some((head, _))) = parsed else { return Ok(()) };
            let client = Some(IpAddr::from([192, 0, 2, 1]));
            let peer = Peer::new(client, Scheme::Https, b"a.example", "ktrix");
            let fields = request_fields(&head, &peer, framing);
            let mut out = Vec::new();
            write::write_request(&mut out, &head.method_text, b"/", &fields);
            let (again, len) = parse_request(&out, &HeadLimits::default()).unwrap().unwrap();
            prop_assert_eq!(len, out.len());
            let framing = match framing {
                BodyLength::None if head.method == Method::Post => BodyLength::Known(0),
                other => other,
            };
            prop_assert_eq!(again.length, framing);
            prop_assert_eq!(again.host(), b"a.example");
            prop_assert_eq!(&again.fields, &fields);
            let chain = fields.get("x-forwarded-for").unwrap();
            prop_assert!(chain.ends_with(b"192.0.2.1"));
            let last = fields.list("forwarded").last().unwrap().to_vec();
            prop_assert_eq!(last, b"for=192.0.2.1;host=a.example;proto=https".to_vec());
            for (name, _) in fields.iter() {
                let is_ours = [&b"TE"[..], b"Connection", b"Transfer-Encoding"].contains(&name);
                prop_assert!(is_ours || !hop::is_hop_by_hop(name));
            }
        }
    }
}
