//! The head of an HTTP/2 request (RFC 9113 section 8.3) as the rest of ktrix sees it.
//!
//! The HTTP/2 library has undone the compression; the rules here decide what the fields may say. A
//! request goes to origins over HTTP/1, where an octet in the wrong place makes another request of
//! it. So what RFC 9113 calls malformed is a [`Flaw`], and so is what the same head over HTTP/1 would
//! be refused for.

use crate::base::chars;
use crate::http::authority::{self, Authority};
use crate::http::fields::Fields;
use crate::http::flaw::Flaw;
use crate::http::h1::body::TrailerLimits;
use crate::http::h1::head::{HeadLimits, METHOD_BYTES_MAX};
use crate::http::head::{BodyLength, Expectation, Persistence, RequestHead, RequestParts};
use crate::http::method::Method;
use crate::http::scheme::Scheme;
use crate::http::target::{Form, Target};
use crate::http::trailer;
use crate::http::upgrade;
use crate::http::version::Version;

/// The pseudo-fields of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pseudo<'a> {
    /// `:method`.
    pub method: &'a [u8],
    /// `:scheme`; CONNECT has none. The library refuses other requests without one, and tells it only
    /// together with the authority.
    pub scheme: Option<&'a [u8]>,
    /// `:authority`.
    pub authority: Option<&'a [u8]>,
    /// `:path`; CONNECT has none, unless it names a protocol. It has no fragment, and the library gives
    /// none: it cuts off a `#` with what follows, so that such a path is no flaw here as it is over HTTP/1.
    pub path: Option<&'a [u8]>,
    /// `:protocol` of a CONNECT (RFC 8441 section 4).
    pub protocol: Option<&'a [u8]>,
}

/// Where a request came in, as far as its head must agree.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The scheme that `:scheme` must name; `None` for either.
    pub scheme: Option<Scheme>,
    /// Whether the stream ends with the head, so that the request has no body.
    pub is_end: bool,
}

/// The head of a request from its pseudo-fields and its fields in their order; they are read more than
/// once.
///
/// # Errors
/// The first flaw found.
pub fn request_head<'a, I: Iterator<Item = (&'a [u8], &'a [u8])>>(
    pseudo: &Pseudo<'_>,
    fields: impl Fn() -> I,
    place: Place,
    limits: &HeadLimits,
) -> Result<RequestHead, Flaw> {
    let (method, target) = method_and_target(pseudo, limits)?;
    if let Some(named) = pseudo.scheme {
        check_scheme(named, place.scheme)?;
    }
    let found = Found::of(fields(), limits)?;
    let host = match (pseudo.authority.filter(|it| !it.is_empty()), found.host) {
        (None, None) => return Err(Flaw::HostMissing),
        (Some(authority), None) => authority,
        (None, Some(host)) => host,
        (Some(authority), Some(host)) if are_equal(place.scheme, authority, host) => authority,
        (Some(_), Some(_)) => return Err(Flaw::HostDiffers),
    };
    Authority::parse(host)?;
    let length = match pseudo.protocol {
        None => found.length(place.is_end)?,
        // The bytes that follow are no body.
        Some(_) => BodyLength::None,
    };
    let mut all = collected(host, fields, found.n_bytes);
    if let Some(protocol) = pseudo.protocol {
        upgrade::push(&mut all, protocol);
    }
    let line = [pseudo.method, b" ", target.as_sent(), b" ", VERSION.as_str().as_bytes()].concat();
    let parts = RequestParts {
        line: &line,
        method,
        method_text: if pseudo.protocol.is_some() { b"GET" } else { pseudo.method },
        target,
        version: VERSION,
        fields: all,
        length,
        persistence: Persistence::KeepAlive,
        expectation: found.expectation(length)?,
    };
    RequestHead::new(parts, Some(host))
}

/// Fields of a trailer section (RFC 9113 section 8.1).
///
/// # Errors
/// The first flaw found.
pub fn trailers<'a, I: Iterator<Item = (&'a [u8], &'a [u8])>>(
    fields: impl Fn() -> I,
    limits: &TrailerLimits,
) -> Result<Fields, Flaw> {
    let limits = HeadLimits { head_bytes: limits.bytes, fields: limits.fields, target_bytes: 0 };
    match Found::of(fields(), &limits) {
        Ok(_) => Ok(fields().filter(|(name, _)| trailer::is_allowed(name)).collect()),
        Err(Flaw::TooManyFields | Flaw::HeadTooLarge) => Err(Flaw::TrailersTooLarge),
        Err(flaw) => Err(flaw),
    }
}

fn method_and_target(pseudo: &Pseudo<'_>, limits: &HeadLimits) -> Result<(Method, Target), Flaw> {
    if pseudo.method.len() > METHOD_BYTES_MAX {
        return Err(Flaw::MethodTooLong);
    }
    if !chars::is_token(pseudo.method) {
        return Err(Flaw::BadMethod);
    }
    let method = match (Method::from_bytes(pseudo.method), pseudo.protocol) {
        (method, None) => method,
        // It is the GET of HTTP/1 that asks for the same protocol.
        (Method::Connect, Some(b"websocket")) if pseudo.scheme.is_some() => Method::Get,
        (Method::Connect, Some(_)) => return Err(Flaw::UnknownProtocol),
        _ => return Err(Flaw::BadMethod),
    };
    let text = match (method, pseudo.path) {
        // RFC 9113 section 8.5.
        (Method::Connect, None) if pseudo.scheme.is_none() => pseudo.authority,
        (Method::Connect, _) => None,
        (_, path) => path,
    };
    let text = text.ok_or(Flaw::BadTarget)?;
    if text.len() > limits.target_bytes {
        return Err(Flaw::TargetTooLong);
    }
    let target = Target::parse(method, text)?;
    match target.form() {
        // The authority has a pseudo-field of its own.
        Form::Absolute => Err(Flaw::BadTarget),
        Form::Origin | Form::Asterisk | Form::Authority => Ok((method, target)),
    }
}

fn check_scheme(named: &[u8], expected: Option<Scheme>) -> Result<(), Flaw> {
    let named = Scheme::parse(named).ok_or(Flaw::BadScheme)?;
    match expected {
        Some(expected) if expected != named => Err(Flaw::BadScheme),
        _ => Ok(()),
    }
}

fn are_equal(scheme: Option<Scheme>, left: &[u8], right: &[u8]) -> bool {
    authority::normalised(scheme, left).eq(authority::normalised(scheme, right))
}

/// The fields with a meaning for the message itself, found in one pass that checks all of them.
#[derive(Default)]
struct Found<'a> {
    host: Option<&'a [u8]>,
    content_length: Option<u64>,
    expect: Option<&'a [u8]>,
    n_bytes: usize,
}

impl<'a> Found<'a> {
    fn of(
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        limits: &HeadLimits,
    ) -> Result<Self, Flaw> {
        let (mut found, mut n_fields) = (Self::default(), 0);
        for (name, value) in fields {
            n_fields += 1;
            found.n_bytes += name.len() + value.len() + LINE_SPARE;
            if n_fields > limits.fields {
                return Err(Flaw::TooManyFields);
            }
            if found.n_bytes > limits.head_bytes {
                return Err(Flaw::HeadTooLarge);
            }
            found.note(name, value)?;
        }
        Ok(found)
    }

    fn note(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Flaw> {
        if !chars::is_token(name) || name.iter().any(u8::is_ascii_uppercase) {
            return Err(Flaw::BadFieldName);
        }
        if !value.iter().all(|octet| chars::is_value_char(*octet)) || is_padded(value) {
            return Err(Flaw::BadFieldValue);
        }
        match name {
            // RFC 9113 section 8.2.2.
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding"
            | b"upgrade" => Err(Flaw::ConnectionField),
            b"te" if !chars::eq_ignore_case(value, b"trailers") => Err(Flaw::ConnectionField),
            b"host" => once(&mut self.host, value, Flaw::HostDoubled),
            b"expect" => once(&mut self.expect, value, Flaw::UnknownExpectation),
            b"content-length" => {
                let length = chars::parse_decimal(value).ok_or(Flaw::BadLength)?;
                once(&mut self.content_length, length, Flaw::LengthDoubled)
            }
            _ => Ok(()),
        }
    }

    fn length(&self, is_end: bool) -> Result<BodyLength, Flaw> {
        match (self.content_length, is_end) {
            (None, true) => Ok(BodyLength::None),
            (None, false) => Ok(BodyLength::Chunked),
            (Some(1..), true) => Err(Flaw::BadLength),
            (Some(length), _) => Ok(BodyLength::Known(length)),
        }
    }

    fn expectation(&self, length: BodyLength) -> Result<Expectation, Flaw> {
        match self.expect {
            None => Ok(Expectation::Nothing),
            Some(value) if !chars::eq_ignore_case(value, b"100-continue") => {
                Err(Flaw::UnknownExpectation)
            }
            Some(_) if matches!(length, BodyLength::None | BodyLength::Known(0)) => {
                Ok(Expectation::Nothing)
            }
            Some(_) => Ok(Expectation::Continue),
        }
    }
}

/// Whether a value begins or ends with white space (RFC 9113 section 8.2.1).
fn is_padded(value: &[u8]) -> bool {
    chars::trim_ows(value).len() < value.len()
}

fn once<T>(place: &mut Option<T>, value: T, flaw: Flaw) -> Result<(), Flaw> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(flaw),
    }
}

/// All fields: `Host` first, and the parts of `Cookie` joined (RFC 9113 section 8.2.3).
fn collected<'a, I: Iterator<Item = (&'a [u8], &'a [u8])>>(
    host: &[u8],
    fields: impl Fn() -> I,
    n_bytes: usize,
) -> Fields {
    let n_fields = fields().count() + 1;
    let mut all = Fields::with_capacity(n_fields, n_bytes + host.len() + "Host".len() + LINE_SPARE);
    all.push(b"Host", host);
    let mut has_cookie = false;
    for (name, value) in fields() {
        match name {
            b"host" => {}
            b"cookie" if has_cookie => {}
            b"cookie" => {
                has_cookie = true;
                let parts = fields().filter(|(name, _)| *name == b"cookie");
                let parts: Vec<&[u8]> = parts.map(|(_, value)| value).collect();
                all.push(name, &parts.join(&b"; "[..]));
            }
            _ => all.push(name, value),
        }
    }
    all
}

const VERSION: Version = Version::Http2;

/// Bytes of a line of HTTP/1 beside its name and its value.
const LINE_SPARE: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { scheme: Some(Scheme::Http), is_end: true };

    fn pseudo<'a>(
        method: &'a str,
        scheme: &'a str,
        authority: &'a str,
        path: &'a str,
    ) -> Pseudo<'a> {
        let some = |text: &'a str| (!text.is_empty()).then_some(text.as_bytes());
        Pseudo {
            method: method.as_bytes(),
            scheme: some(scheme),
            authority: some(authority),
            path: some(path),
            protocol: None,
        }
    }

    #[test]
    fn a_connect_for_a_websocket_is_the_get_of_http_1() {
        let asked =
            Pseudo { protocol: Some(b"websocket"), ..pseudo("CONNECT", "http", "h", "/c?d") };
        let open = Place { is_end: false, ..PLACE };
        let head = read(asked, &[("sec-websocket-version", "13")], open).unwrap();
        assert_eq!((head.method, head.length), (Method::Get, BodyLength::None));
        assert_eq!(head.target.path_and_query(), b"/c?d");
        assert_eq!(head.request_line(), b"CONNECT /c?d HTTP/2.0");
        assert_eq!(upgrade::offered(&head).as_deref(), Some(&b"websocket"[..]));
        assert!(upgrade::is_by_connect(&head));
        assert!(!upgrade::is_by_connect(&get(&[]).unwrap()));
        for (method, protocol, flaw) in [
            ("CONNECT", "connect-udp", Flaw::UnknownProtocol),
            ("GET", "websocket", Flaw::BadMethod),
        ] {
            let protocol = Some(protocol.as_bytes());
            let asked = Pseudo { protocol, ..pseudo(method, "http", "h", "/") };
            assert_eq!(read(asked, &[], open).err(), Some(flaw), "{method}");
        }
        let without = Pseudo { protocol: Some(b"websocket"), ..pseudo("CONNECT", "http", "h", "") };
        assert_eq!(read(without, &[], open).err(), Some(Flaw::BadTarget));
    }

    fn read(
        pseudo: Pseudo<'_>,
        fields: &[(&str, &str)],
        place: Place,
    ) -> Result<RequestHead, Flaw> {
        let fields = || fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        request_head(&pseudo, fields, place, &HeadLimits::default())
    }

    fn get(fields: &[(&str, &str)]) -> Result<RequestHead, Flaw> {
        read(pseudo("GET", "http", "h", "/"), fields, PLACE)
    }

    fn text(fields: &Fields) -> String {
        let mut out = Vec::new();
        fields.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_head_reads_as_the_same_head_over_http_1() {
        let fields = [("accept", "x"), ("cookie", "a=1"), ("te", "trailers"), ("cookie", "b=2")];
        let head = read(pseudo("GET", "http", "H:80", "/a?b"), &fields, PLACE).unwrap();
        let expected = "Host: H:80\r\naccept: x\r\ncookie: a=1; b=2\r\nte: trailers\r\n";
        assert_eq!(text(&head.fields), expected);
        assert_eq!(head.request_line(), b"GET /a?b HTTP/2.0");
        assert_eq!((head.host(), head.authority()), (&b"h"[..], &b"h:80"[..]));
        assert_eq!((head.method, head.version), (Method::Get, Version::Http2));
        assert_eq!((head.length, head.wants_keep_alive()), (BodyLength::None, true));
        assert_eq!((head.target.path(), head.target.query()), (&b"/a"[..], Some(&b"b"[..])));
    }

    #[test]
    fn the_host_is_named_once_or_twice_alike() {
        for (authority, host, expected) in [
            ("h", None, Ok("h")),
            ("", Some("h"), Ok("h")),
            ("h", Some("H:80"), Ok("h")),
            ("h:8080", Some("h:8080"), Ok("h:8080")),
            ("", None, Err(Flaw::HostMissing)),
            ("h", Some("i"), Err(Flaw::HostDiffers)),
            ("h:1", Some("h"), Err(Flaw::HostDiffers)),
            ("h", Some(""), Err(Flaw::HostDiffers)),
            ("u@h", None, Err(Flaw::BadHost)),
            ("h/", None, Err(Flaw::BadHost)),
            ("a,b", None, Err(Flaw::BadHost)),
        ] {
            let fields: Vec<_> = host.map(|host| ("host", host)).into_iter().collect();
            let head = read(pseudo("GET", "http", authority, "/"), &fields, PLACE);
            let found = head.map(|head| String::from_utf8(head.authority().to_vec()).unwrap());
            assert_eq!(found, expected.map(str::to_owned), "{authority} {host:?}");
        }
        assert_eq!(get(&[("host", "h"), ("host", "h")]).err(), Some(Flaw::HostDoubled));
    }

    #[test]
    fn pseudo_fields_that_make_no_request_are_refused() {
        for (method, scheme, path, flaw) in [
            ("", "http", "/", Flaw::BadMethod),
            ("G ET", "http", "/", Flaw::BadMethod),
            ("GET /a HTTP/1.1", "http", "/", Flaw::BadMethod),
            ("GET", "ftp", "/", Flaw::BadScheme),
            ("GET", "https", "/", Flaw::BadScheme),
            ("GET", "http", "", Flaw::BadTarget),
            ("GET", "http", "a", Flaw::BadTarget),
            ("GET", "http", "*", Flaw::BadTarget),
            ("GET", "http", "http://h/", Flaw::BadTarget),
            ("GET", "http", "/a b", Flaw::BadTarget),
            ("GET", "http", "/a\r\nb: c", Flaw::BadTarget),
            ("GET", "http", "/a\tb", Flaw::BadTarget),
            ("GET", "http", "/a#b", Flaw::BadTarget),
            ("CONNECT", "http", "/", Flaw::BadTarget),
            ("CONNECT", "", "/", Flaw::BadTarget),
            ("CONNECT", "", "", Flaw::BadTarget),
        ] {
            let found = read(pseudo(method, scheme, "h", path), &[], PLACE).err();
            assert_eq!(found, Some(flaw), "{method} {scheme} {path}");
        }
        let long = "M".repeat(METHOD_BYTES_MAX + 1);
        let found = read(pseudo(&long, "http", "h", "/"), &[], PLACE).err();
        assert_eq!(found, Some(Flaw::MethodTooLong));
        let long = "/".repeat(HeadLimits::default().target_bytes + 1);
        let found = read(pseudo("GET", "http", "h", &long), &[], PLACE).err();
        assert_eq!(found, Some(Flaw::TargetTooLong));
        for (method, scheme, authority, path) in
            [("OPTIONS", "http", "h", "*"), ("CONNECT", "", "h:443", ""), ("X-Y", "HTTP", "h", "/")]
        {
            let read = read(pseudo(method, scheme, authority, path), &[], PLACE);
            assert!(read.is_ok(), "{method}: {read:?}");
        }
        let either = Place { scheme: None, is_end: true };
        assert!(read(pseudo("GET", "https", "h", "/"), &[], either).is_ok());
    }

    #[test]
    fn fields_that_http_1_would_read_otherwise_are_refused() {
        for (name, value, flaw) in [
            ("Accept", "x", Flaw::BadFieldName),
            ("", "x", Flaw::BadFieldName),
            ("a b", "x", Flaw::BadFieldName),
            ("a:", "x", Flaw::BadFieldName),
            (":path", "/", Flaw::BadFieldName),
            ("a\r\nb", "x", Flaw::BadFieldName),
            ("a", "x\r\nb: c", Flaw::BadFieldValue),
            ("a", "x\ny", Flaw::BadFieldValue),
            ("a", "x\0y", Flaw::BadFieldValue),
            ("a", " x", Flaw::BadFieldValue),
            ("a", "x\t", Flaw::BadFieldValue),
            ("a", "\x7f", Flaw::BadFieldValue),
            ("connection", "close", Flaw::ConnectionField),
            ("keep-alive", "1", Flaw::ConnectionField),
            ("proxy-connection", "close", Flaw::ConnectionField),
            ("transfer-encoding", "chunked", Flaw::ConnectionField),
            ("upgrade", "h2c", Flaw::ConnectionField),
            ("te", "gzip", Flaw::ConnectionField),
            ("te", "trailers, gzip", Flaw::ConnectionField),
            ("content-length", "", Flaw::BadLength),
            ("content-length", "+1", Flaw::BadLength),
            ("content-length", "1", Flaw::BadLength),
            ("expect", "x", Flaw::UnknownExpectation),
        ] {
            assert_eq!(get(&[(name, value)]).err(), Some(flaw), "{name}: {value:?}");
        }
        let twice = [("content-length", "0"), ("content-length", "0")];
        assert_eq!(get(&twice).err(), Some(Flaw::LengthDoubled));
        let many = vec![("cookie", "a"); HeadLimits::default().fields + 1];
        assert_eq!(get(&many).err(), Some(Flaw::TooManyFields));
        let long = "x".repeat(HeadLimits::default().head_bytes);
        assert_eq!(get(&[("a", &long)]).err(), Some(Flaw::HeadTooLarge));
    }

    #[test]
    fn the_body_is_as_long_as_the_head_and_the_stream_say() {
        for (length, is_end, expected) in [
            (None, true, BodyLength::None),
            (None, false, BodyLength::Chunked),
            (Some("0"), true, BodyLength::Known(0)),
            (Some("5"), false, BodyLength::Known(5)),
        ] {
            let mut fields = vec![("expect", "100-continue")];
            fields.extend(length.map(|length| ("content-length", length)));
            let place = Place { is_end, ..PLACE };
            let head = read(pseudo("POST", "http", "h", "/"), &fields, place).unwrap();
            assert_eq!(head.length, expected, "{length:?} {is_end}");
            assert_eq!(head.expects_continue(), !is_end);
        }
    }

    #[test]
    fn trailers_are_checked_and_those_that_decide_are_dropped() {
        let of = |pairs: &[(&str, &str)]| {
            let pairs = || pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            trailers(pairs, &TrailerLimits::default()).map(|fields| text(&fields))
        };
        assert_eq!(of(&[("digest", "x"), ("host", "h")]), Ok("digest: x\r\n".to_owned()));
        assert_eq!(of(&[("Digest", "x")]), Err(Flaw::BadFieldName));
        assert_eq!(of(&[("a", "x\r\ny: z")]), Err(Flaw::BadFieldValue));
        assert_eq!(of(&vec![("a", "b"); 1_000]), Err(Flaw::TrailersTooLarge));
    }
}
