//! Formats records as lines: common, combined or JSON.
//!
//! - common: `client - - [time] "request line" status body-bytes`
//! - combined: the same, and ` "referer" "user agent"`
//! - json: an object per line (RFC 8259); times of phases are seconds with microseconds.
//!
//! A line is never longer than [`LINE_BYTES_MAX`], its newline included, so that every line fits
//! every ring: a field is cut at [`FIELD_BYTES_MAX`], and in a line that is too long even so, at
//! [`FIELD_BYTES_SHORT`].

use std::io::Write;
use std::net::IpAddr;

use crate::config::LogFormat;
use crate::log::clock::LineClock;
use crate::log::escape::{push_json, push_text};
use crate::log::record::Record;

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
        push_member(out, "referer", record.referer, field_max);
        push_member(out, "user_agent", record.user_agent, field_max);
        out.extend_from_slice(b",\"request_id\":\"");
        push_id(out, record.request_id);
        out.push(b'"');
        push_member(out, "verdict", record.verdict.as_bytes(), field_max);
        push_member(out, "reason", record.reason.as_bytes(), field_max);
        push_member(out, "upstream", record.upstream.as_bytes(), field_max);
        push_member(out, "server", record.server.as_bytes(), field_max);
        push_member(out, "close", record.close.as_bytes(), field_max);
        let times = &record.times;
        push_time(out, "head_s", times.head_us);
        push_time(out, "body_s", times.body_us);
        push_time(out, "connect_s", times.connect_us);
        push_time(out, "first_byte_s", times.first_byte_us);
        push_time(out, "total_s", times.total_us);
        out.push(b'}');
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

/// `,"name":1.000123`, in seconds; nothing if there was no such phase.
fn push_time(out: &mut Vec<u8>, name: &str, time_us: Option<u64>) {
    let Some(time_us) = time_us else { return };
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::record::Times;
    use proptest::prelude::*;

    fn line(format: LogFormat, record: &Record<'_>) -> String {
        let mut out = Vec::new();
        LineWriter::new(format).write(record, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn sample() -> Record<'static> {
        Record {
            time_us: 1_795_230_282_000_123,
            client: Some("192.0.2.7".parse().unwrap()),
            request_line: b"GET /a?b HTTP/1.1",
            method: b"GET",
            host: b"example.com",
            target: b"/a?b",
            version: "HTTP/1.1",
            status: 200,
            body_bytes: 1024,
            sent_bytes: 1300,
            referer: b"http://example.com/\"",
            user_agent: b"curl/8",
            request_id: 0x1f,
            verdict: "miss",
            reason: "absent",
            upstream: "app",
            server: "10.0.0.1:8080",
            times: Times {
                head_us: Some(12),
                connect_us: Some(1_000_001),
                total_us: Some(2_345_678),
                ..Times::default()
            },
            close: "",
        }
    }

    #[test]
    fn the_three_forms_of_a_record() {
        let common = "192.0.2.7 - - [21/Nov/2026:03:04:42 +0000] \"GET /a?b HTTP/1.1\" 200 1024";
        assert_eq!(line(LogFormat::Common, &sample()), format!("{common}\n"));
        assert_eq!(
            line(LogFormat::Combined, &sample()),
            format!("{common} \"http://example.com/\\x22\" \"curl/8\"\n")
        );
        assert_eq!(
            line(LogFormat::Json, &sample()),
            concat!(
                r#"{"time":"2026-11-21T03:04:42.000123Z","client":"192.0.2.7","method":"GET","#,
                r#""host":"example.com","target":"/a?b","version":"HTTP/1.1","status":200,"#,
                r#""body_bytes":1024,"sent_bytes":1300,"referer":"http://example.com/\"","#,
                r#""user_agent":"curl/8","request_id":"0000000000000000000000000000001f","#,
                r#""verdict":"miss","reason":"absent","upstream":"app","#,
                r#""server":"10.0.0.1:8080","head_s":0.000012,"connect_s":1.000001,"#,
                r#""total_s":2.345678}"#,
                "\n"
            )
        );
    }

    #[test]
    fn an_empty_record_is_a_line_too() {
        let record = Record::default();
        assert_eq!(
            line(LogFormat::Combined, &record),
            "- - - [01/Jan/1970:00:00:00 +0000] \"-\" 000 0 \"-\" \"-\"\n"
        );
        assert!(is_json_object(line(LogFormat::Json, &record).trim_end()));
    }

    #[test]
    fn addresses_are_shown_in_their_own_form() {
        for (address, text) in [
            ("255.0.10.1", "255.0.10.1"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            let record = Record { client: Some(address.parse().unwrap()), ..sample() };
            assert!(line(LogFormat::Common, &record).starts_with(&format!("{text} - - ")));
        }
    }

    #[test]
    fn the_worst_record_fits_a_line() {
        let worst = vec![0u8; 64 * 1024];
        let text = "\0".repeat(64 * 1024);
        let record = Record {
            request_line: &worst,
            method: &worst,
            host: &worst,
            target: &worst,
            version: &text,
            referer: &worst,
            user_agent: &worst,
            verdict: &text,
            reason: &text,
            upstream: &text,
            server: &text,
            close: &text,
            ..sample()
        };
        for form in [LogFormat::Common, LogFormat::Combined, LogFormat::Json] {
            let line = line(form, &record);
            assert!(line.len() <= LINE_BYTES_MAX, "{form:?}: {}", line.len());
            assert_eq!(line.matches('\n').count(), 1);
        }
    }

    /// Whether `text` is one flat JSON object of strings and numbers.
    fn is_json_object(text: &str) -> bool {
        fn string(text: &str) -> Option<&str> {
            let mut rest = text.strip_prefix('"')?.chars();
            loop {
                match rest.next()? {
                    '"' => return Some(rest.as_str()),
                    '\\' => match rest.next()? {
                        'u' => {
                            let digits = rest.as_str().get(..4)?;
                            u16::from_str_radix(digits, 16).ok()?;
                            rest = rest.as_str()[4..].chars();
                        }
                        '"' | '\\' | 'n' | 'r' | 't' => {}
                        _ => return None,
                    },
                    char if char < ' ' => return None,
                    _ => {}
                }
            }
        }
        fn members(mut rest: &str) -> Option<()> {
            rest = rest.strip_prefix('{')?;
            loop {
                rest = string(rest)?.strip_prefix(':')?;
                rest = match rest.starts_with('"') {
                    true => string(rest)?,
                    false => {
                        let end = rest.find([',', '}'])?;
                        rest[..end].parse::<f64>().ok()?;
                        &rest[end..]
                    }
                };
                match rest.strip_prefix(',') {
                    Some(tail) => rest = tail,
                    None => return (rest == "}").then_some(()),
                }
            }
        }
        members(text).is_some()
    }

    proptest! {
        #[test]
        fn no_bytes_break_a_line(
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
            more in proptest::collection::vec(any::<u8>(), 0..60),
            status in any::<u16>(),
            time_us in any::<u64>(),
        ) {
            let record = Record {
                time_us, status, request_line: &bytes, target: &bytes, host: &more,
                referer: &more, user_agent: &bytes, ..sample()
            };
            let combined = line(LogFormat::Combined, &record);
            prop_assert_eq!(combined.matches('"').count(), 6);
            prop_assert_eq!(combined.find('\n'), Some(combined.len() - 1));
            let json = line(LogFormat::Json, &record);
            prop_assert_eq!(json.find('\n'), Some(json.len() - 1));
            prop_assert!(is_json_object(json.trim_end()), "{}", json);
        }
    }
}
