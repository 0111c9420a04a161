//! A request to switch the protocol of its connection (RFC 9110 section 7.8), and the answer to it.
//!
//! A request asks for it by `Upgrade`, named in `Connection`: a GET of HTTP/1.1 without a body, or the
//! CONNECT of RFC 8441 over HTTP/2, whose head has the two fields of the same request over HTTP/1.
//! Protocols that carry HTTP are never passed on: the origin would get requests that no rule here has
//! seen.

use crate::base::chars;
use crate::http::fields::Fields;
use crate::http::head::{BodyLength, RequestHead};
use crate::http::list;
use crate::http::method::Method;
use crate::http::version::Version;

/// The protocols that a request asks for and that may be passed on, as `Upgrade` lists them; `None` if
/// there are none.
pub fn offered(head: &RequestHead) -> Option<Vec<u8>> {
    let may_ask = head.fields.contains("upgrade")
        && head.method == Method::Get
        && head.version >= Version::Http11
        && matches!(head.length, BodyLength::None | BodyLength::Known(0));
    if !may_ask || !names_upgrade(&head.fields) {
        return None;
    }
    let protocols: Vec<&[u8]> = head.fields.list("upgrade").filter(|it| may_pass(it)).collect();
    (!protocols.is_empty()).then(|| protocols.join(&b", "[..]))
}

/// Whether the request is a CONNECT over HTTP/2: a client takes any answer of class 2xx for a tunnel.
pub fn is_by_connect(head: &RequestHead) -> bool {
    // Other requests over HTTP/2 are refused if they have this field.
    head.version == Version::Http2 && head.fields.contains("upgrade")
}

/// Asks for these protocols in the fields of a request to an origin. They concern this connection alone.
pub fn ask(fields: &mut Fields, protocols: &[u8]) {
    fields.remove("te");
    fields.remove("connection");
    push(fields, protocols);
}

/// Adds the two fields that name a protocol.
pub fn push(fields: &mut Fields, protocols: &[u8]) {
    fields.push(b"Connection", b"Upgrade");
    fields.push(b"Upgrade", protocols);
}

/// The protocols that a 101 switches to; `None` if the request has not asked for them all.
pub fn accepted(protocols: &[u8], answer: &Fields) -> Option<Vec<u8>> {
    let chosen: Vec<&[u8]> = answer.list("upgrade").collect();
    let is_offered = |chosen: &&[u8]| {
        list::members(protocols).any(|offered| chars::eq_ignore_case(offered, chosen))
    };
    (!chosen.is_empty() && chosen.iter().all(is_offered)).then(|| chosen.join(&b", "[..]))
}

fn names_upgrade(fields: &Fields) -> bool {
    fields.list("connection").any(|option| chars::eq_ignore_case(option, b"upgrade"))
}

/// Whether this is a protocol, with or without its version, and not one that carries HTTP.
fn may_pass(protocol: &[u8]) -> bool {
    let mut parts = protocol.splitn(2, |&byte| byte == b'/');
    let name = parts.next().unwrap_or_default();
    let carries_http = HTTP_CARRIERS.iter().any(|it| chars::eq_ignore_case(name, it.as_bytes()));
    chars::is_token(name) && parts.all(chars::is_token) && !carries_http
}

/// By name. TLS (RFC 2817) is followed by the HTTP that was meant for this proxy.
const HTTP_CARRIERS: [&str; 5] = ["h2c", "h2", "h3", "http", "tls"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::head::{HeadLimits, parse_request};

    fn offered_by(line: &str, fields: &str) -> Option<String> {
        let text = format!("{line}\r\nHost: h\r\n{fields}\r\n");
        let (head, _) = parse_request(text.as_bytes(), &HeadLimits::default()).unwrap().unwrap();
        offered(&head).map(|it| String::from_utf8(it).unwrap())
    }

    #[test]
    fn a_get_of_http_1_1_without_a_body_asks_by_two_fields() {
        let asked = "Connection: keep-alive, UPGRADE\r\nUpgrade: websocket\r\n";
        assert_eq!(offered_by("GET / HTTP/1.1", asked).as_deref(), Some("websocket"));
        for (line, fields) in [
            ("GET / HTTP/1.0", asked),
            ("POST / HTTP/1.1", asked),
            ("HEAD / HTTP/1.1", asked),
            ("GET / HTTP/1.1", "Upgrade: websocket\r\n"),
            ("GET / HTTP/1.1", "Connection: upgrade\r\n"),
            ("GET / HTTP/1.1", "Connection: upgrade\r\nUpgrade: \r\n"),
            ("GET / HTTP/1.1", "Connection: upgrade\r\nUpgrade: web socket\r\n"),
            ("GET / HTTP/1.1", &format!("{asked}Content-Length: 1\r\n")),
            ("GET / HTTP/1.1", &format!("{asked}Transfer-Encoding: chunked\r\n")),
        ] {
            assert_eq!(offered_by(line, fields), None, "{line} {fields}");
        }
    }

    #[test]
    fn protocols_that_carry_http_are_left_out() {
        let by = |protocols: &str| {
            let fields = format!("Connection: Upgrade\r\nUpgrade: {protocols}\r\n");
            offered_by("GET / HTTP/1.1", &fields)
        };
        for protocols in ["h2c", "H2C", "h2", "HTTP/2.0", "TLS/1.0, HTTP/1.1", "h2c, h2c"] {
            assert_eq!(by(protocols), None, "{protocols}");
        }
        assert_eq!(by("h2c, WebSocket, IRC/6.9").as_deref(), Some("WebSocket, IRC/6.9"));
    }

    #[test]
    fn an_answer_switches_only_to_what_was_offered() {
        let by = |answer: &str| {
            let mut fields = Fields::new();
            fields.push(b"Upgrade", answer.as_bytes());
            accepted(b"websocket, irc/6.9", &fields)
        };
        assert_eq!(by("WebSocket").as_deref(), Some(&b"WebSocket"[..]));
        assert_eq!(by("irc/6.9, websocket").as_deref(), Some(&b"irc/6.9, websocket"[..]));
        for answer in ["", "h2c", "websocket, h2c", "irc"] {
            assert_eq!(by(answer), None, "{answer}");
        }
        assert_eq!(accepted(b"websocket", &Fields::new()), None);
    }
}
