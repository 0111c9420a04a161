//! Finds the exact flaw of a head that did not parse.
//!
//! The fast path through a head only says that something is wrong. This slow path finds the word
//! for the log: it looks at the lines one by one, and returns the first flaw in reading order.

use crate::base::chars;
use crate::http::flaw::Flaw;
use crate::http::method::Method;
use crate::http::target::Target;

/// The flaw of a request head (or the start of one) that did not parse.
pub(super) fn of_request(head: &[u8]) -> Flaw {
    let (line, fields) = split_line(head);
    of_octets(head)
        .or_else(|| of_request_line(line))
        .or_else(|| of_fields(fields))
        .unwrap_or(Flaw::BadRequestLine)
}

/// The flaw of a response head that did not parse.
pub(super) fn of_response(head: &[u8]) -> Flaw {
    let (line, fields) = split_line(head);
    of_octets(head)
        .or_else(|| of_status_line(line))
        .or_else(|| of_fields(fields))
        .unwrap_or(Flaw::BadStatusLine)
}

/// The flaw of a section of fields that did not parse.
pub(super) fn of_section(fields: &[u8]) -> Flaw {
    of_octets(fields).or_else(|| of_fields(fields)).unwrap_or(Flaw::BadFieldName)
}

fn of_octets(text: &[u8]) -> Option<Flaw> {
    let mut before = 0;
    for octet in text {
        match (before, octet) {
            (_, 0) => return Some(Flaw::Nul),
            (b'\r', b'\n') => {}
            (b'\r', _) => return Some(Flaw::BareCr),
            (_, b'\n') => return Some(Flaw::BareLf),
            _ => {}
        }
        before = *octet;
    }
    None
}

fn of_request_line(line: &[u8]) -> Option<Flaw> {
    let mut parts = line.split(|octet| *octet == b' ');
    let method = parts.next().unwrap_or_default();
    if !chars::is_token(method) {
        return Some(Flaw::BadMethod);
    }
    let (Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next()) else {
        return Some(Flaw::BadRequestLine);
    };
    if target.is_empty() {
        return Some(Flaw::BadRequestLine);
    }
    // The version first: the syntax of another protocol's target is not known here.
    of_version(version, Flaw::BadRequestLine)
        .or_else(|| Target::parse(Method::from_bytes(method), target).err())
}

fn of_status_line(line: &[u8]) -> Option<Flaw> {
    let mut parts = line.splitn(3, |octet| *octet == b' ');
    if let Some(flaw) = of_version(parts.next().unwrap_or_default(), Flaw::BadStatusLine) {
        return Some(flaw);
    }
    let code = parts.next().unwrap_or_default();
    let is_code = code.len() == 3 && code.iter().all(u8::is_ascii_digit);
    let is_phrase =
        parts.next().unwrap_or_default().iter().all(|octet| chars::is_value_char(*octet));
    (!is_code || !is_phrase).then_some(Flaw::BadStatusLine)
}

fn of_version(version: &[u8], malformed: Flaw) -> Option<Flaw> {
    let Some(number) = version.strip_prefix(b"HTTP/") else { return Some(malformed) };
    match number {
        b"1.0" | b"1.1" => None,
        [b'0'..=b'9'] | [b'0'..=b'9', b'.', b'0'..=b'9'] => Some(Flaw::UnknownVersion),
        _ => Some(malformed),
    }
}

fn of_fields(mut text: &[u8]) -> Option<Flaw> {
    while !text.is_empty() {
        let (line, rest) = split_line(text);
        let flaw = of_field(line);
        if flaw.is_some() {
            return flaw;
        }
        text = rest;
    }
    None
}

fn of_field(line: &[u8]) -> Option<Flaw> {
    if line.is_empty() {
        return None;
    }
    if chars::is_ows(*line.first()?) {
        return Some(Flaw::FoldedField);
    }
    let Some(colon) = memchr::memchr(b':', line) else { return Some(Flaw::BadFieldName) };
    let (name, value) = line.split_at_checked(colon)?;
    if name.last().is_some_and(|octet| chars::is_ows(*octet)) {
        return Some(Flaw::SpaceBeforeColon);
    }
    if !chars::is_token(name) {
        return Some(Flaw::BadFieldName);
    }
    let is_value = value.iter().all(|octet| chars::is_value_char(*octet));
    (!is_value).then_some(Flaw::BadFieldValue)
}

/// The first line without its CRLF, and the rest.
fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr(b'\n', text).map_or(text.len(), |lf| lf + 1);
    let (line, rest) = text.split_at_checked(end).unwrap_or((text, b""));
    (line.strip_suffix(b"\r\n").unwrap_or(line), rest)
}
