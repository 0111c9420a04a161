//! The fields of a message as ktrix passes it on (RFC 9110 section 7.6, RFC 7239).
//!
//! Fields that belong to one connection go no further (RFC 9110 section 7.6.1): those of a fixed
//! list and those that `Connection` names. A sender may not use `Connection` to remove a field that
//! decides how a message is framed, stored, routed or trusted: naming such a field has no effect.

use std::io::Write as _;
use std::net::IpAddr;

use crate::base::chars;
use crate::base::time::Now;
use crate::http::authority;
use crate::http::client_certificate::ClientCertificate;
use crate::http::date;
use crate::http::fields::Fields;
use crate::http::head::{BodyLength, RequestHead, ResponseHead};
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
    is_trusted: bool,
    is_hidden: bool,
}

impl<'a> Peer<'a> {
    /// The client's address, if it has one (a Unix socket has none), the scheme that it speaks, and
    /// the authority of its request in lower case, which may be empty. `via` names this instance.
    ///
    /// The origin gets the authority as keys have it, without a default port. From another spelling
    /// it might make an answer that other clients must not get.
    pub fn new(client: Option<IpAddr>, scheme: Scheme, authority: &'a [u8], via: &'a str) -> Self {
        let host = authority::without_default_port(scheme, authority);
        Self { client, scheme, host, via, is_trusted: false, is_hidden: false }
    }

    /// Whether the sender is a proxy whose chain of clients is passed on.
    pub fn trusted(self, is_trusted: bool) -> Self {
        Self { is_trusted, ..self }
    }

    /// Whether the origin is not told of the sender, as by a forward proxy.
    pub fn hidden(self, is_hidden: bool) -> Self {
        Self { is_hidden, ..self }
    }
}

/// The fields of a request as the origin gets it: `Host` first, then the client's fields that may
/// go further, then the framing of the body as it will be sent, then the forwarding fields.
///
/// `Via` grows by one, and so do `X-Forwarded-For` and `Forwarded` behind a trusted proxy; else they
/// begin here. `X-Forwarded-Proto` and `X-Forwarded-Host` say what `peer` does. `Client-Cert` is of the
/// client that the head tells of, and never a copy that was sent. `Expect` is dropped: ktrix answers it.
/// `Host` is empty where an HTTP/1.0 client sent none, and the route has no other.
pub fn request_fields(head: &RequestHead, peer: &Peer<'_>, framing: BodyLength) -> Fields {
    let (sent, nothing) = (&head.fields, Fields::new());
    let hop = Hop::of(sent);
    let mut fields = Fields::with_capacity(sent.len() + N_ADDED, sent.wire_len() + ADDED_BYTES);
    let host = head.origin_host.as_deref().map_or(peer.host, str::as_bytes);
    fields.push(b"Host", host);
    let counts_forwards = matches!(head.method, Method::Options | Method::Trace);
    fields.append_from(sent, |name, _| hop.passes(name) && !is_rewritten(name));
    if counts_forwards && let Some(left) = max_forwards(head) {
        let mut digits = itoa::Buffer::new();
        fields.set("Max-Forwards", digits.format(left.saturating_sub(1)).as_bytes());
    }
    if takes_trailers(sent) {
        fields.push(b"TE", b"trailers");
        fields.push(b"Connection", b"te");
    }
    if let Some(client) = head.told_tls.as_ref().and_then(|tls| tls.client.as_ref()) {
        push_client(&mut fields, client);
    }
    push_framing(&mut fields, head.method, framing);
    if !peer.is_hidden {
        push_forwarded(&mut fields, if peer.is_trusted { sent } else { &nothing }, peer);
    }
    via::push(&mut fields, head.version, peer.via);
    fields
}

/// The fields of a response for the client or for the store: without those of the connection and of
/// the framing, which the writer adds, and with `Via` of this instance and, where missing, `Date`.
pub fn response_fields(head: &ResponseHead, via: &str, now: Now) -> Fields {
    let sent = &head.fields;
    let hop = Hop::of(sent);
    let mut fields = Fields::with_capacity(sent.len() + 3, sent.wire_len() + 3 * 40);
    fields.append_from(sent, |name, _| hop.passes(name) && !is_for_proxy(name));
    if !fields.contains("date") {
        fields.push(b"Date", &date::format(now.unix_s()));
    }
    via::push(&mut fields, head.version, via);
    fields
}

/// Whether the writer adds this field of a response itself, or the proxy alone follows it.
fn is_for_proxy(name: &[u8]) -> bool {
    match name.len() {
        14 => chars::eq_ignore_case(name, b"content-length"),
        17 => chars::eq_ignore_case(name, b"x-accel-buffering"),
        _ => false,
    }
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
        11 => is("client-cert"),
        14 => is("content-length"),
        15 => is("x-forwarded-for"),
        16 => is("x-forwarded-host"),
        17 => is("x-forwarded-proto") || is("client-cert-chain"),
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

/// Tells of the certificate of the client, RFC 9440 section 2.
fn push_client(fields: &mut Fields, client: &ClientCertificate) {
    fields.push(b"Client-Cert", client.field().as_bytes());
    let others = client.chain_field();
    if !others.is_empty() {
        fields.push(b"Client-Cert-Chain", others.as_bytes());
    }
}

fn push_forwarded(fields: &mut Fields, sent: &Fields, peer: &Peer<'_>) {
    let mut element = Vec::with_capacity(ELEMENT_BYTES);
    // A client of a dual-stack socket is identified by its IPv4 address if it has one.
    let client = peer.client.map(|client| client.to_canonical());
    push_address(&mut element, client);
    push_joined(fields, "X-Forwarded-For", sent, &element);
    if !peer.host.is_empty() {
        fields.push(b"X-Forwarded-Host", peer.host);
    }
    fields.push(b"X-Forwarded-Proto", peer.scheme.word().as_bytes());
    element.clear();
    match client {
        // RFC 7239 section 6: an IPv6 address is in brackets, and so is quoted.
        Some(IpAddr::V6(_)) => {
            element.extend_from_slice(b"for=\"[");
            push_address(&mut element, client);
            element.extend_from_slice(b"]\"");
        }
        Some(IpAddr::V4(_)) => {
            element.extend_from_slice(b"for=");
            push_address(&mut element, client);
        }
        None => element.extend_from_slice(b"for=unknown"),
    }
    if !peer.host.is_empty() {
        element.extend_from_slice(b";host=");
        push_quoted(&mut element, peer.host);
    }
    element.extend_from_slice(b";proto=");
    element.extend_from_slice(peer.scheme.word().as_bytes());
    push_joined(fields, "Forwarded", sent, &element);
}

/// Appends the text of an address; nothing without one.
fn push_address(out: &mut Vec<u8>, address: Option<IpAddr>) {
    match address {
        Some(IpAddr::V4(address)) => {
            let mut digits = itoa::Buffer::new();
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(digits.format(octet).as_bytes());
            }
        }
        // Writing to a vector never fails.
        Some(IpAddr::V6(address)) => drop(write!(out, "{address}")),
        None => {}
    }
}

/// Room for an element of `Forwarded` with a host of usual length.
const ELEMENT_BYTES: usize = 128;

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
fn push_joined(fields: &mut Fields, name: &str, sent: &Fields, last: &[u8]) {
    // An open quote would swallow what is added behind it.
    let is_sound = sent.get_all(name).all(list::has_closed_quotes);
    if !sent.contains(name) || !is_sound {
        if !last.is_empty() {
            fields.push(name.as_bytes(), last);
        }
        return;
    }
    let mut value: Vec<u8> = Vec::new();
    for member in sent.get_all(name).chain([last]) {
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
pub fn strip_hop_by_hop(fields: &mut Fields) {
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
#[path = "tests/forward.rs"]
mod tests;
