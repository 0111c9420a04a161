//! Heads that two readers could understand differently, and the flaw that refuses each.

use crate::http::flaw::Flaw;
use crate::http::h1::head::{HeadLimits, parse_request, parse_response};
use crate::http::head::BodyLength;
use crate::http::method::Method;

fn request(text: &[u8]) -> Result<Option<BodyLength>, Flaw> {
    parse_request(text, &HeadLimits::default()).map(|found| found.map(|(head, _)| head.length))
}

fn response(text: &[u8]) -> Result<Option<BodyLength>, Flaw> {
    let parsed = parse_response(text, &HeadLimits::default(), Method::Get);
    parsed.map(|found| found.map(|(head, _)| head.length))
}

/// A POST with these lines besides `Host`.
fn post(lines: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n").into_bytes()
}

fn ok(lines: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n").into_bytes()
}

/// Lines that no message may have, of a client or of an origin.
const LINES: &[(&str, Flaw)] = &[
    ("Content-Length: 5\r\nTransfer-Encoding: chunked", Flaw::LengthAndCoding),
    ("Transfer-Encoding: chunked\r\nContent-Length: 5", Flaw::LengthAndCoding),
    ("Transfer-Encoding: chunked\r\nContent-Length: 0", Flaw::LengthAndCoding),
    ("Transfer-Encoding: identity\r\nContent-Length: 5", Flaw::LengthAndCoding),
    ("Transfer-Encoding:\r\nContent-Length: 5", Flaw::LengthAndCoding),
    ("transfer-ENCODING: x\r\ncontent-LENGTH: y", Flaw::LengthAndCoding),
    ("Content-Length: 5\r\nContent-Length: 6", Flaw::LengthDoubled),
    ("Content-Length: 5\r\nContent-Length: 5", Flaw::LengthDoubled),
    ("Content-Length: 5\r\ncontent-length: 5", Flaw::LengthDoubled),
    ("Content-Length: 5, 5", Flaw::BadLength),
    ("Content-Length: 5, 6", Flaw::BadLength),
    ("Content-Length: 5,", Flaw::BadLength),
    ("Content-Length:", Flaw::BadLength),
    ("Content-Length: ", Flaw::BadLength),
    ("Content-Length: +5", Flaw::BadLength),
    ("Content-Length: -5", Flaw::BadLength),
    ("Content-Length: -0", Flaw::BadLength),
    ("Content-Length: 0x5", Flaw::BadLength),
    ("Content-Length: 5e0", Flaw::BadLength),
    ("Content-Length: 5.0", Flaw::BadLength),
    ("Content-Length: 5 0", Flaw::BadLength),
    ("Content-Length: 5_0", Flaw::BadLength),
    ("Content-Length: \"5\"", Flaw::BadLength),
    ("Content-Length: 5;a", Flaw::BadLength),
    ("Content-Length: a", Flaw::BadLength),
    ("Content-Length: \u{665}", Flaw::BadLength),
    ("Content-Length: 18446744073709551616", Flaw::BadLength),
    ("Content-Length: 18446744073709551621", Flaw::BadLength),
    ("Content-Length: 00000000000000000005", Flaw::BadLength),
    ("Transfer-Encoding:", Flaw::BadCoding),
    ("Transfer-Encoding: ,", Flaw::BadCoding),
    ("Transfer-Encoding: chunked,", Flaw::BadCoding),
    ("Transfer-Encoding: ,chunked", Flaw::BadCoding),
    ("Transfer-Encoding: chunked;a=b", Flaw::BadCoding),
    ("Transfer-Encoding: chunked;", Flaw::BadCoding),
    ("Transfer-Encoding: \"chunked\"", Flaw::BadCoding),
    ("Transfer-Encoding: 'chunked' x", Flaw::BadCoding),
    ("Transfer-Encoding: chunked x", Flaw::BadCoding),
    ("Transfer-Encoding: chun ked", Flaw::BadCoding),
    ("Transfer-Encoding: \u{a0}chunked", Flaw::BadCoding),
    ("Transfer-Encoding: chunked\u{e9}", Flaw::BadCoding),
    ("Transfer-Encoding: identity", Flaw::CodingNotLast),
    ("Transfer-Encoding: gzip", Flaw::CodingNotLast),
    ("Transfer-Encoding: xchunked", Flaw::CodingNotLast),
    ("Transfer-Encoding: chunkedx", Flaw::CodingNotLast),
    ("Transfer-Encoding: chunke", Flaw::CodingNotLast),
    ("Transfer-Encoding: 'chunked'", Flaw::CodingNotLast),
    ("Transfer-Encoding: chunked, gzip", Flaw::CodingNotLast),
    ("Transfer-Encoding: chunked, identity", Flaw::CodingNotLast),
    ("Transfer-Encoding: gzip, chunked", Flaw::UnknownCoding),
    ("Transfer-Encoding: identity, chunked", Flaw::UnknownCoding),
    ("Transfer-Encoding: chunked, chunked", Flaw::CodingDoubled),
    ("Transfer-Encoding: chunked,CHUNKED", Flaw::CodingDoubled),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Flaw::CodingDoubled),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", Flaw::CodingDoubled),
    ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", Flaw::CodingDoubled),
    ("Transfer-Encoding : chunked", Flaw::SpaceBeforeColon),
    ("Transfer-Encoding\t: chunked", Flaw::SpaceBeforeColon),
    ("Content-Length : 5", Flaw::SpaceBeforeColon),
    ("X : y", Flaw::SpaceBeforeColon),
    (" X: y", Flaw::FoldedField),
    ("\tX: y", Flaw::FoldedField),
    ("X: y\r\n z", Flaw::FoldedField),
    ("X: y\r\n\tz", Flaw::FoldedField),
    ("X:\r\n chunked", Flaw::FoldedField),
    ("Transfer-Encoding:\r\n chunked", Flaw::FoldedField),
    ("X: y\r\n \r\nZ: a", Flaw::FoldedField),
    ("X: y\nTransfer-Encoding: chunked", Flaw::BareLf),
    ("X: y\n", Flaw::BareLf),
    ("\nX: y", Flaw::BareLf),
    ("X: y\n\n", Flaw::BareLf),
    ("X: y\n\r\n", Flaw::BareLf),
    ("X: y\rTransfer-Encoding: chunked", Flaw::BareCr),
    ("X: y\r", Flaw::BareCr),
    ("X: y\r\r\nZ: a", Flaw::BareCr),
    ("\rX: y", Flaw::BareCr),
    ("X\r: y", Flaw::BareCr),
    ("X:\ry", Flaw::BareCr),
    ("X: y\0", Flaw::Nul),
    ("X\0: y", Flaw::Nul),
    ("\0: y", Flaw::Nul),
    ("Content-Length\0: 5", Flaw::Nul),
    ("X: \u{1}", Flaw::BadFieldValue),
    ("X: y\u{7f}", Flaw::BadFieldValue),
    ("X: y\u{b}", Flaw::BadFieldValue),
    ("X: \u{1b}[0m and a longer value of more than thirty-two octets", Flaw::BadFieldValue),
    ("Transfer-Encoding: \u{b}chunked", Flaw::BadFieldValue),
    ("Transfer-Encoding: chunked\u{c}", Flaw::BadFieldValue),
    ("Content-Length: \u{b}5", Flaw::BadFieldValue),
    ("X", Flaw::BadFieldName),
    (": y", Flaw::BadFieldName),
    ("X Y: z", Flaw::BadFieldName),
    ("X(: y", Flaw::BadFieldName),
    ("X\u{e9}: y", Flaw::BadFieldName),
    ("X\u{7f}: y", Flaw::BadFieldName),
    ("\u{feff}Transfer-Encoding: chunked", Flaw::BadFieldName),
    ("Transfer\u{b}-Encoding: chunked", Flaw::BadFieldName),
    ("\"Content-Length\": 5", Flaw::BadFieldName),
    ("[Content-Length]: 5", Flaw::BadFieldName),
];

#[test]
fn ambiguous_lines_are_refused_of_clients_and_origins() {
    for (lines, flaw) in LINES {
        assert_eq!(request(&post(lines)), Err(*flaw), "request {lines:?}");
        assert_eq!(response(&ok(lines)), Err(*flaw), "response {lines:?}");
    }
}

#[test]
fn a_flaw_is_found_with_every_other_line_around_it() {
    for (lines, flaw) in LINES {
        let around = format!("Accept: */*\r\n{lines}\r\nAccept-Language: en");
        // Where the line would end the head, the rest is not read.
        assert_eq!(request(&post(&around)), Err(*flaw), "{lines:?}");
    }
}

#[test]
fn no_prefix_of_an_ambiguous_head_is_accepted() {
    for (lines, _) in LINES {
        for text in [post(lines), post(&format!("A: b\r\n{lines}"))] {
            for cut in 0..text.len() {
                let found = request(&text[..cut]);
                assert!(!matches!(found, Ok(Some(_))), "{lines:?} cut at {cut}");
            }
        }
    }
}

#[test]
fn ambiguous_hosts_are_refused() {
    let table = [
        ("", Flaw::HostMissing),
        ("X: y\r\n", Flaw::HostMissing),
        ("Host: a\r\nHost: a\r\n", Flaw::HostDoubled),
        ("Host: a\r\nhost: b\r\n", Flaw::HostDoubled),
        ("Host:\r\nHost: b\r\n", Flaw::HostDoubled),
        ("Host:\r\n", Flaw::BadHost),
        ("Host: a, b\r\n", Flaw::BadHost),
        ("Host: a b\r\n", Flaw::BadHost),
        ("Host: a/b\r\n", Flaw::BadHost),
        ("Host: u@a\r\n", Flaw::BadHost),
        ("Host: http://a\r\n", Flaw::BadHost),
        ("Host: a:b\r\n", Flaw::BadHost),
        ("Host: a#\r\n", Flaw::BadHost),
        ("Host: a?\r\n", Flaw::BadHost),
        ("Host: \u{e9}\r\n", Flaw::BadHost),
        ("Host : a\r\n", Flaw::SpaceBeforeColon),
        ("Host: a\r\n b\r\n", Flaw::FoldedField),
        (" Host: a\r\n", Flaw::FoldedField),
    ];
    for (lines, flaw) in table {
        let text = format!("GET / HTTP/1.1\r\n{lines}\r\n");
        assert_eq!(request(text.as_bytes()), Err(flaw), "{lines:?}");
    }
    for lines in ["Host: a\r\nHost: b\r\n", "Host: a b\r\n"] {
        for start in ["GET / HTTP/1.0", "GET http://a/ HTTP/1.1"] {
            let text = format!("{start}\r\n{lines}\r\n");
            assert!(request(text.as_bytes()).is_err(), "{start} {lines:?}");
        }
    }
    let text = b"GET http://a/ HTTP/1.1\r\n\r\n";
    assert_eq!(request(text), Err(Flaw::HostMissing));
}

#[test]
fn bad_request_lines_are_refused() {
    let table: [(&[u8], Flaw); 44] = [
        (b"GET /", Flaw::BadRequestLine),
        (b"GET", Flaw::BadRequestLine),
        (b"GET ", Flaw::BadRequestLine),
        (b"GET  / HTTP/1.1", Flaw::BadRequestLine),
        (b"GET /  HTTP/1.1", Flaw::BadRequestLine),
        (b"GET / HTTP/1.1 ", Flaw::BadRequestLine),
        (b"GET / HTTP/1.1 x", Flaw::BadRequestLine),
        (b"GET / a HTTP/1.1", Flaw::BadRequestLine),
        (b"GET / HTTP/1.1\t", Flaw::BadRequestLine),
        (b"GET / http/1.1", Flaw::BadRequestLine),
        (b"GET / HTTP/", Flaw::BadRequestLine),
        (b"GET / HTTP/1", Flaw::UnknownVersion),
        (b"GET / HTTP/1.", Flaw::BadRequestLine),
        (b"GET / HTTP/1.10", Flaw::BadRequestLine),
        (b"GET / HTTP/01.1", Flaw::BadRequestLine),
        (b"GET / HTTP/1,1", Flaw::BadRequestLine),
        (b"GET / HTTP/-1.1", Flaw::BadRequestLine),
        (b"GET / HTTP/a.b", Flaw::BadRequestLine),
        (b"GET / HTTPS/1.1", Flaw::BadRequestLine),
        (b"GET / RTSP/1.0", Flaw::BadRequestLine),
        (b"GET / HTTP /1.1", Flaw::BadRequestLine),
        (b"GET / HTTP/0.9", Flaw::UnknownVersion),
        (b"GET / HTTP/2.1", Flaw::UnknownVersion),
        (b"GET / HTTP/2.0", Flaw::UnknownVersion),
        (b"GET / HTTP/2", Flaw::UnknownVersion),
        (b"GET / HTTP/3.0", Flaw::UnknownVersion),
        (b" GET / HTTP/1.1", Flaw::BadMethod),
        (b"\tGET / HTTP/1.1", Flaw::BadMethod),
        (b"G(T / HTTP/1.1", Flaw::BadMethod),
        (b"GET:/ HTTP/1.1", Flaw::BadMethod),
        (b"GET\t/ HTTP/1.1", Flaw::BadMethod),
        (b"G\xc3\x89T / HTTP/1.1", Flaw::BadMethod),
        (b"GET /\t HTTP/1.1", Flaw::BadTarget),
        (b"GET /a#b HTTP/1.1", Flaw::BadTarget),
        (b"GET /\x7f HTTP/1.1", Flaw::BadTarget),
        (b"GET /\x01 HTTP/1.1", Flaw::BadTarget),
        (b"GET /\xc3\xa4 HTTP/1.1", Flaw::BadTarget),
        (b"GET /\xff HTTP/1.1", Flaw::BadTarget),
        (b"GET a HTTP/1.1", Flaw::BadTarget),
        (b"GET * HTTP/1.1", Flaw::BadTarget),
        (b"GET http://u@a/ HTTP/1.1", Flaw::BadHost),
        (b"GET /\0 HTTP/1.1", Flaw::Nul),
        (b"GET /\rX: y HTTP/1.1", Flaw::BareCr),
        (b"GET / HTTP/1.1\r", Flaw::BareCr),
    ];
    for (line, flaw) in table {
        let text = [line, b"\r\nHost: a\r\n\r\n"].concat();
        assert_eq!(request(&text), Err(flaw), "{}", line.escape_ascii());
    }
    assert_eq!(request(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Err(Flaw::UnknownVersion));
    assert_eq!(request(b"\x16\x03\x01\x02\x00"), Err(Flaw::Nul));
    assert_eq!(request(b"\x16\x03\x01\x02"), Err(Flaw::BadMethod));
    assert_eq!(request(b"GET / HTTP/1.1\nHost: a\n"), Err(Flaw::BareLf));
    assert_eq!(request(b"\nGET / HTTP/1.1"), Err(Flaw::BareLf));
}

#[test]
fn bad_status_lines_are_refused() {
    let table: [(&[u8], Flaw); 22] = [
        (b"HTTP/1.1", Flaw::BadStatusLine),
        (b"HTTP/1.1 ", Flaw::BadStatusLine),
        (b"HTTP/1.1 20 OK", Flaw::BadStatusLine),
        (b"HTTP/1.1 2000 OK", Flaw::BadStatusLine),
        (b"HTTP/1.1 099 OK", Flaw::BadStatusLine),
        (b"HTTP/1.1 000 OK", Flaw::BadStatusLine),
        (b"HTTP/1.1 +20 OK", Flaw::BadStatusLine),
        (b"HTTP/1.1 2x0 OK", Flaw::BadStatusLine),
        (b"HTTP/1.1 200OK", Flaw::BadStatusLine),
        (b"HTTP/1.1  200 OK", Flaw::BadStatusLine),
        (b"HTTP/1.1\t200 OK", Flaw::BadStatusLine),
        (b"HTTP/1.1 200\tOK", Flaw::BadStatusLine),
        (b"HTTP/1.1 200 O\x01K", Flaw::BadStatusLine),
        (b" HTTP/1.1 200 OK", Flaw::BadStatusLine),
        (b"\r\nHTTP/1.1 200 OK", Flaw::BadStatusLine),
        (b"http/1.1 200 OK", Flaw::BadStatusLine),
        (b"ICY 200 OK", Flaw::BadStatusLine),
        (b"<html>", Flaw::BadStatusLine),
        (b"HTTP/2.1 200 OK", Flaw::UnknownVersion),
        (b"HTTP/2 200 OK", Flaw::UnknownVersion),
        (b"HTTP/1.1 200 O\0K", Flaw::Nul),
        (b"HTTP/1.1 200 O\rK", Flaw::BareCr),
    ];
    for (line, flaw) in table {
        let text = [line, b"\r\nContent-Length: 0\r\n\r\n"].concat();
        assert_eq!(response(&text), Err(flaw), "{}", line.escape_ascii());
    }
}

#[test]
fn framing_fields_of_old_or_bodiless_messages_are_refused() {
    let coding = b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(request(coding), Err(Flaw::CodingTooOld));
    let coding = b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(response(coding), Err(Flaw::CodingTooOld));
    for status in ["100 Continue", "103 Early Hints", "101 Switching Protocols", "204 No Content"] {
        for field in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
            let text = format!("HTTP/1.1 {status}\r\n{field}\r\n\r\n");
            assert_eq!(response(text.as_bytes()), Err(Flaw::BodyNotAllowed), "{text}");
        }
    }
    // Not even where no body follows anyway.
    let both = b"HTTP/1.1 304 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(response(both), Err(Flaw::LengthAndCoding));
}

#[test]
fn unknown_expectations_are_refused() {
    for line in ["Expect: x", "Expect:", "Expect: 100-continue, x", "Expect: 100-continue;a"] {
        assert_eq!(request(&post(line)), Err(Flaw::UnknownExpectation), "{line}");
    }
    let twice = "Expect: 100-continue\r\nExpect: 100-continue";
    assert_eq!(request(&post(twice)), Err(Flaw::UnknownExpectation));
}

#[test]
fn odd_but_unambiguous_lines_are_accepted() {
    let table = [
        ("Content-Length: 5", BodyLength::Known(5)),
        ("Content-Length:5", BodyLength::Known(5)),
        ("Content-Length: \t 5 \t", BodyLength::Known(5)),
        ("Content-Length: 0005", BodyLength::Known(5)),
        ("Content-Length: 0", BodyLength::Known(0)),
        ("Content-Length: 9223372036854775808", BodyLength::Known(1 << 63)),
        ("Transfer-Encoding: chunked", BodyLength::Chunked),
        ("Transfer-Encoding:cHuNkEd\t", BodyLength::Chunked),
        ("X-Content-Length: 5", BodyLength::None),
        ("Content_Length: 5", BodyLength::None),
        ("X:", BodyLength::None),
        ("X: \u{e9}", BodyLength::None),
        ("X: a\tb", BodyLength::None),
        ("X: \"a", BodyLength::None),
        ("!#$%&'*+-.^_`|~: x", BodyLength::None),
    ];
    for (lines, length) in table {
        assert_eq!(request(&post(lines)), Ok(Some(length)), "{lines:?}");
    }
}

#[test]
fn every_octet_of_a_value_is_judged_alike_wherever_it_stands() {
    // The fast path reads many octets at once; none may slip through at any offset.
    for octet in 0..=255u8 {
        for at in 0..40 {
            let mut value = [b'a'; 41];
            value[at] = octet;
            let text = [b"GET / HTTP/1.1\r\nHost: a\r\nX: ", &value[..], b"\r\n\r\n"].concat();
            let expected = octet == b'\t' || (octet >= b' ' && octet != 0x7f);
            assert_eq!(request(&text).is_ok(), expected, "octet {octet:#04x} at {at}");
        }
    }
}

#[test]
fn every_octet_of_a_name_and_a_target_is_judged_alike_wherever_it_stands() {
    for octet in 0..=255u8 {
        for at in 0..40 {
            let mut name = [b'a'; 41];
            name[at] = octet;
            let text = [b"GET / HTTP/1.1\r\nHost: a\r\n", &name[..], b": x\r\n\r\n"].concat();
            let expected = crate::base::chars::is_token_char(octet) || (octet == b':' && at > 0);
            assert_eq!(request(&text).is_ok(), expected, "name, octet {octet:#04x} at {at}");

            let text = [b"GET /", &name[..], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
            let expected = crate::base::chars::is_target_char(octet);
            assert_eq!(request(&text).is_ok(), expected, "target, octet {octet:#04x} at {at}");
        }
    }
}
