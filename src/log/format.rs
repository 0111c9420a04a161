//! The record of an exchange and its line in the access log or the slow log.
//!
//! - common: `client - - [time] "request line" status body-bytes`
//! - combined: the same, and ` "referer" "user agent"`
//! - json: an object per line (RFC 8259); times of phases are seconds with microseconds.
//! - text: `name=value` for the phases and the main facts, of a slow request.
//!
//! A line is never longer than [`LINE_BYTES_MAX`], its newline included, so that every line fits
//! every ring: a field is cut at [`FIELD_BYTES_MAX`], and in a line that is too long even so, at
//! [`FIELD_BYTES_SHORT`].
//!
//! A record borrows everything. An unknown fact is left empty: an empty text, or `None`.
//! The bytes of a client cannot end a line, end a quoted field, move a terminal's cursor or make a
//! JSON text invalid. Most fields need no escape; they are checked in one sweep and copied.

use std::io::Write;
use std::net::IpAddr;

use crate::base::chars;
use crate::config::LogFormat;
use crate::log::clock::LineClock;

/// One line of the access log, before it is a line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record<'a> {
    /// When the answer ended, in microseconds since 1970.
    pub time_us: u64,
    /// The client's address; `None` on a Unix socket. An IPv4-mapped IPv6 address is shown as IPv4.
    pub client: Option<IpAddr>,
    /// The request line as it was received, without its line end; may be cut or garbage if the
    /// request was refused.
    pub request_line: &'a [u8],
    /// The method as it was received.
    pub method: &'a [u8],
    /// The host that was asked for.
    pub host: &'a [u8],
    /// The target as it was received.
    pub target: &'a [u8],
    /// The protocol that the client spoke, as in `HTTP/1.1`.
    pub version: &'a str,
    /// The answer's status; 499 if the client went away before it began, 0 if there was none.
    pub status: u16,
    /// Bytes of the answer's body that were sent.
    pub body_bytes: u64,
    /// All bytes of the answer that were sent, head and framing included.
    pub sent_bytes: u64,
    /// Bytes of the client that went to a server, of a connection that is no exchange of HTTP.
    pub received_bytes: u64,
    /// The request's Referer field.
    pub referer: &'a [u8],
    /// The request's User-Agent field.
    pub user_agent: &'a [u8],
    /// The request's number, unique among all; 0 if it has none.
    pub request_id: u128,
    /// The cache's verdict: hit, miss, stale, revalidated, pass, tunnel.
    pub verdict: &'a str,
    /// Why the verdict is what it is.
    pub reason: &'a str,
    /// The upstream's name.
    pub upstream: &'a str,
    /// The server that answered last, as it is configured.
    pub server: &'a str,
    /// The version of the client's TLS, as in `TLSv1.3`; empty without TLS.
    pub tls_version: &'a str,
    /// The cipher suite of the client's TLS.
    pub tls_cipher: &'a str,
    /// The name that the client asked for in its TLS handshake.
    pub tls_server_name: &'a str,
    /// The subject of the client's certificate.
    pub tls_client_subject: &'a str,
    /// Its serial number.
    pub tls_client_serial: &'a str,
    /// How long the phases took.
    pub times: Times,
    /// Why the connection closed after this answer; empty if it did not.
    pub close: &'a str,
}

/// How long each phase of an exchange took, in microseconds; `None` if it had no such phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// From the request's first byte to the end of its head.
    pub head_us: Option<u64>,
    /// To receive the request's body.
    pub body_us: Option<u64>,
    /// From there until an origin was asked.
    pub lookup_us: Option<u64>,
    /// To wait for a free connection.
    pub queue_us: Option<u64>,
    /// To connect to the origin.
    pub connect_us: Option<u64>,
    /// From the fetch's first byte sent to the answer's first byte received.
    pub first_byte_us: Option<u64>,
    /// From there to the last byte of the answer to the client.
    pub answer_us: Option<u64>,
    /// From the request's first byte to the answer's last.
    pub total_us: Option<u64>,
}

impl Times {
    /// The phases with their names, the whole last.
    pub fn named(&self) -> [(&'static str, Option<u64>); 8] {
        [
            ("head", self.head_us),
            ("body", self.body_us),
            ("lookup", self.lookup_us),
            ("queue", self.queue_us),
            ("connect", self.connect_us),
            ("first_byte", self.first_byte_us),
            ("answer", self.answer_us),
            ("total", self.total_us),
        ]
    }
}

/// The length limit of a line, in bytes, its newline included.
pub const LINE_BYTES_MAX: usize = 32 * 1024;
/// Where a field is cut, in bytes before escaping.
pub const FIELD_BYTES_MAX: usize = 8 * 1024;
/// Where a field of an overlong line is cut, in bytes before escaping.
pub const FIELD_BYTES_SHORT: usize = 400;

/// Writes lines of one form; keeps the text of the current second.
#[derive(Clone, Debug)]
pub struct LineWriter {
    format: LogFormat,
    clock: LineClock,
}

impl LineWriter {
    /// A writer of lines of this form.
    pub fn new(format: LogFormat) -> Self {
        Self { format, clock: LineClock::new() }
    }

    /// Appends the record's line to `out`: at most [`LINE_BYTES_MAX`] bytes, the last of them
    /// its only newline.
    pub fn write(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        self.write_with(record, FIELD_BYTES_MAX, out);
        if out.len() - start > LINE_BYTES_MAX {
            out.truncate(start);
            self.write_with(record, FIELD_BYTES_SHORT, out);
        }
        debug_assert!(out.len() - start <= LINE_BYTES_MAX, "a short line fits");
    }

    fn write_with(&mut self, record: &Record<'_>, field_max: usize, out: &mut Vec<u8>) {
        match self.format {
            LogFormat::Common => self.write_common(record, field_max, out),
            LogFormat::Combined => {
                self.write_common(record, field_max, out);
                push_quoted(out, record.referer, field_max);
                push_quoted(out, record.user_agent, field_max);
            }
            LogFormat::Json => self.write_json(record, field_max, out),
            LogFormat::Text => self.write_text(record, field_max, out),
        }
        out.push(b'\n');
    }

    fn write_common(&mut self, record: &Record<'_>, field_max: usize, out: &mut Vec<u8>) {
        push_client(out, record.client);
        out.extend_from_slice(b" - - ");
        out.extend_from_slice(self.clock.common(record.time_us / 1_000_000));
        push_quoted(out, record.request_line, field_max);
        out.push(b' ');
        push_status(out, record.status);
        out.push(b' ');
        push_number(out, record.body_bytes);
    }

    fn write_json(&mut self, record: &Record<'_>, field_max: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        out.extend_from_slice(self.clock.iso(record.time_us / 1_000_000));
        out.push(b'.');
        push_micros(out, record.time_us % 1_000_000);
        out.extend_from_slice(b"Z\",\"client\":\"");
        push_client(out, record.client);
        out.push(b'"');
        push_member(out, "method", record.method, field_max);
        push_member(out, "host", record.host, field_max);
        push_member(out, "target", record.target, field_max);
        push_member(out, "version", record.version.as_bytes(), field_max);
        out.extend_from_slice(b",\"status\":");
        push_number(out, u64::from(record.status));
        out.extend_from_slice(b",\"body_bytes\":");
        push_number(out, record.body_bytes);
        out.extend_from_slice(b",\"sent_bytes\":");
        push_number(out, record.sent_bytes);
        if record.received_bytes > 0 {
            out.extend_from_slice(b",\"received_bytes\":");
            push_number(out, record.received_bytes);
        }
        push_member(out, "referer", record.referer, field_max);
        push_member(out, "user_agent", record.user_agent, field_max);
        out.extend_from_slice(b",\"request_id\":\"");
        push_id(out, record.request_id);
        out.push(b'"');
        push_member(out, "verdict", record.verdict.as_bytes(), field_max);
        push_member(out, "reason", record.reason.as_bytes(), field_max);
        push_member(out, "upstream", record.upstream.as_bytes(), field_max);
        push_member(out, "server", record.server.as_bytes(), field_max);
        push_member(out, "tls_version", record.tls_version.as_bytes(), field_max);
        push_member(out, "tls_cipher", record.tls_cipher.as_bytes(), field_max);
        push_member(out, "tls_server_name", record.tls_server_name.as_bytes(), field_max);
        push_member(out, "tls_client_subject", record.tls_client_subject.as_bytes(), field_max);
        push_member(out, "tls_client_serial", record.tls_client_serial.as_bytes(), field_max);
        push_member(out, "close", record.close.as_bytes(), field_max);
        for (name, time_us) in record.times.named() {
            push_time(out, name, time_us);
        }
        out.push(b'}');
    }

    fn write_text(&mut self, record: &Record<'_>, field_max: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(b"time=");
        out.extend_from_slice(self.clock.iso(record.time_us / 1_000_000));
        out.push(b'.');
        push_micros(out, record.time_us % 1_000_000);
        out.push(b'Z');
        for (name, time_us) in record.times.named() {
            if let Some(time_us) = time_us {
                push_name(out, name);
                push_seconds(out, time_us);
            }
        }
        push_name(out, "client");
        push_client(out, record.client);
        push_value(out, "method", record.method, field_max);
        push_value(out, "host", record.host, field_max);
        push_value(out, "target", record.target, field_max);
        push_name(out, "status");
        push_status(out, record.status);
        push_name(out, "bytes");
        push_number(out, record.body_bytes);
        push_value(out, "verdict", record.verdict.as_bytes(), field_max);
        push_value(out, "reason", record.reason.as_bytes(), field_max);
        push_value(out, "upstream", record.upstream.as_bytes(), field_max);
        push_value(out, "server", record.server.as_bytes(), field_max);
        push_value(out, "close", record.close.as_bytes(), field_max);
        push_name(out, "id");
        push_id(out, record.request_id);
    }
}

/// ` "text"`, or ` "-"` if there is none.
fn push_quoted(out: &mut Vec<u8>, text: &[u8], field_max: usize) {
    out.extend_from_slice(b" \"");
    if text.is_empty() {
        out.push(b'-');
    } else {
        push_text(out, text, field_max);
    }
    out.push(b'"');
}

/// `,"name":"value"`; nothing if the value is empty.
fn push_member(out: &mut Vec<u8>, name: &str, value: &[u8], field_max: usize) {
    if value.is_empty() {
        return;
    }
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
    push_json(out, value, field_max);
    out.push(b'"');
}

/// ` name=`.
fn push_name(out: &mut Vec<u8>, name: &str) {
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
}

/// ` name=value`, in quotes if it has a space or a character that is escaped; nothing if the value is
/// empty.
fn push_value(out: &mut Vec<u8>, name: &str, value: &[u8], field_max: usize) {
    if value.is_empty() {
        return;
    }
    push_name(out, name);
    let is_plain = is_clean(value) && !value.contains(&b' ');
    out.extend_from_slice(if is_plain { b"" } else { b"\"" });
    push_text(out, value, field_max);
    out.extend_from_slice(if is_plain { b"" } else { b"\"" });
}

/// `,"name_s":1.000123`; nothing if there was no such phase.
fn push_time(out: &mut Vec<u8>, name: &str, time_us: Option<u64>) {
    let Some(time_us) = time_us else { return };
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"_s\":");
    push_seconds(out, time_us);
}

/// `1.000123`.
fn push_seconds(out: &mut Vec<u8>, time_us: u64) {
    push_number(out, time_us / 1_000_000);
    out.push(b'.');
    push_micros(out, time_us % 1_000_000);
}

fn push_client(out: &mut Vec<u8>, client: Option<IpAddr>) {
    match client.map(|address| address.to_canonical()) {
        // std's Display pads and thereby costs as much as the rest of the line.
        Some(IpAddr::V4(address)) => {
            let [a, b, c, d] = address.octets();
            push_number(out, u64::from(a));
            for part in [b, c, d] {
                out.push(b'.');
                push_number(out, u64::from(part));
            }
        }
        Some(IpAddr::V6(address)) => {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "{address}");
        }
        None => out.push(b'-'),
    }
}

fn push_status(out: &mut Vec<u8>, status: u16) {
    if status < 100 {
        out.extend_from_slice(b"000");
    } else {
        push_number(out, u64::from(status));
    }
}

fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn push_micros(out: &mut Vec<u8>, mut micros: u64) {
    let mut text = [b'0'; 6];
    for place in text.iter_mut().rev() {
        *place = b'0' + (micros % 10) as u8;
        micros /= 10;
    }
    out.extend_from_slice(&text);
}

/// 32 hexadecimal digits.
fn push_id(out: &mut Vec<u8>, id: u128) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'0'; 32];
    for (place, byte) in text.chunks_exact_mut(2).zip(id.to_be_bytes()) {
        place.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    out.extend_from_slice(&text);
}

/// Appends `bytes` for a field in quotes of the common and combined formats: quotes, backslashes,
/// control bytes and everything beyond ASCII become `\xHH`, as nginx writes them.
///
/// At most `bytes_max` bytes are taken; `...` stands for the rest.
pub fn push_text(out: &mut Vec<u8>, bytes: &[u8], bytes_max: usize) {
    let (mut rest, is_cut) = limited(bytes, bytes_max);
    if is_clean(rest) {
        out.extend_from_slice(rest);
        return push_cut(out, is_cut);
    }
    while let Some(at) = rest.iter().position(|&byte| is_special(byte)) {
        let (clean, tail) = rest.split_at(at);
        out.extend_from_slice(clean);
        let Some((&byte, tail)) = tail.split_first() else { break };
        push_hex(out, b"\\x", byte);
        rest = tail;
    }
    out.extend_from_slice(rest);
    push_cut(out, is_cut);
}

/// Appends `bytes` as the inside of a JSON string (RFC 8259 section 7), always valid UTF-8.
///
/// A byte that is not UTF-8 becomes the four characters `\xHH`, and so does a backslash: two
/// different inputs never give the same text. Characters that could change how the line is shown
/// ([`chars::is_unprintable`]) are escaped as JSON does. At most `bytes_max` bytes are taken; `...`
/// stands for the rest.
pub fn push_json(out: &mut Vec<u8>, bytes: &[u8], bytes_max: usize) {
    let (bytes, is_cut) = limited(bytes, bytes_max);
    if is_clean(bytes) {
        out.extend_from_slice(bytes);
    } else {
        for chunk in bytes.utf8_chunks() {
            push_json_str(out, chunk.valid());
            for &byte in chunk.invalid() {
                push_hex(out, b"\\\\x", byte);
            }
        }
    }
    push_cut(out, is_cut);
}

fn push_json_str(out: &mut Vec<u8>, text: &str) {
    for char in text.chars() {
        match char {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => push_hex(out, b"\\\\x", b'\\'),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            // All of these lie below U+10000.
            _ if chars::is_unprintable(char) => {
                let [.., high, low] = u32::from(char).to_be_bytes();
                push_hex(out, b"\\u", high);
                push_hex(out, b"", low);
            }
            _ => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

fn push_hex(out: &mut Vec<u8>, lead: &[u8], byte: u8) {
    out.extend_from_slice(lead);
    out.push(HEX[usize::from(byte >> 4)]);
    out.push(HEX[usize::from(byte & 15)]);
}

fn push_cut(out: &mut Vec<u8>, is_cut: bool) {
    if is_cut {
        out.extend_from_slice(b"...");
    }
}

fn limited(bytes: &[u8], bytes_max: usize) -> (&[u8], bool) {
    match bytes.split_at_checked(bytes_max) {
        Some((kept, rest)) => (kept, !rest.is_empty()),
        None => (bytes, false),
    }
}

/// Whether nothing in `bytes` needs an escape, which is the usual case. It always reads all of
/// them, so that the compiler can vectorise the loop.
fn is_clean(bytes: &[u8]) -> bool {
    !bytes.iter().fold(false, |found, &byte| found | is_special(byte))
}

/// Whether a byte needs an escape, or in JSON may be part of a sequence that needs one.
const fn is_special(byte: u8) -> bool {
    (byte.wrapping_sub(b' ') > b'~' - b' ') | (byte == b'"') | (byte == b'\\')
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

#[cfg(test)]
#[path = "tests/format.rs"]
mod tests;
