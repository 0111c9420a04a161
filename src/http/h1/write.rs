//! Heads to bytes. ktrix always sends HTTP/1.1 (RFC 9110 section 2.5); the caller prepares the
//! fields.

use crate::http::fields::Fields;
use crate::http::status::Status;

/// Appends a request head, the empty line included.
///
/// Method and target are written as they are: they come from a checked head, or from ktrix.
pub fn write_request(out: &mut Vec<u8>, method: &[u8], target: &[u8], fields: &Fields) {
    out.reserve(method.len() + target.len() + fields.wire_len() + START_LINE_SPARE);
    for part in [method, b" ", target, b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    fields.write_to(out);
    out.extend_from_slice(b"\r\n");
}

/// Appends a response head, the empty line included.
pub fn write_response(out: &mut Vec<u8>, status: Status, reason: &[u8], fields: &Fields) {
    out.reserve(reason.len() + fields.wire_len() + START_LINE_SPARE);
    write_status_line(out, status, reason);
    fields.write_to(out);
    out.extend_from_slice(b"\r\n");
}

/// Appends only the status line, for a caller that has the fields as bytes.
pub fn write_status_line(out: &mut Vec<u8>, status: Status, reason: &[u8]) {
    let code = status.0.min(999);
    let digits = [code / 100, code / 10 % 10, code % 10].map(|digit| b'0' + digit as u8);
    for part in [b"HTTP/1.1 ", &digits[..], b" ", reason, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Room for all of a start line but its variable part, and for the empty line.
const START_LINE_SPARE: usize = 24;
