//! Escapes bytes from outside for a line of the log.
//!
//! A client's bytes cannot end a line, end a quoted field, move a terminal's cursor or make a JSON
//! text invalid. Most fields need no escape; they are checked in one sweep and copied.

use crate::base::chars;

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
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        push_text(&mut out, bytes, 1000);
        String::from_utf8(out).unwrap()
    }

    fn json(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        push_json(&mut out, bytes, 1000);
        String::from_utf8(out).unwrap()
    }

    /// The bytes that a text of [`push_text`] or the content of a JSON string stands for.
    fn unescaped(text: &str) -> Vec<u8> {
        let (mut out, mut rest) = (Vec::new(), text.as_bytes());
        while let Some((&byte, tail)) = rest.split_first() {
            if byte == b'\\' {
                out.push(
                    u8::from_str_radix(std::str::from_utf8(&tail[1..3]).unwrap(), 16).unwrap(),
                );
                rest = &tail[3..];
            } else {
                out.push(byte);
                rest = tail;
            }
        }
        out
    }

    #[test]
    fn text_is_escaped_as_nginx_does() {
        for (bytes, expected) in [
            (&b""[..], ""),
            (b"GET /a?b=c HTTP/1.1", "GET /a?b=c HTTP/1.1"),
            (b"a\"b\\c", "a\\x22b\\x5Cc"),
            (b"\r\n\x00\x7f\xff", "\\x0D\\x0A\\x00\\x7F\\xFF"),
            ("grün".as_bytes(), "gr\\xC3\\xBCn"),
        ] {
            assert_eq!(text(bytes), expected);
        }
    }

    #[test]
    fn json_keeps_utf_8_and_shows_other_bytes_as_hex() {
        for (bytes, expected) in [
            (&b""[..], ""),
            (b"plain", "plain"),
            (b"a\"b\\c", "a\\\"b\\\\x5Cc"),
            (b"\r\n\t\x00\x7f\x1b", "\\r\\n\\t\\u0000\\u007F\\u001B"),
            ("grün\u{1F600}".as_bytes(), "grün\u{1F600}"),
            (b"a\xffb\xc3", "a\\\\xFFb\\\\xC3"),
            (b"a\\xFF", "a\\\\x5CxFF"),
            ("\u{85}\u{2028}\u{2029}".as_bytes(), "\\u0085\\u2028\\u2029"),
            ("a\u{202E}b\u{2066}\u{61C}".as_bytes(), "a\\u202Eb\\u2066\\u061C"),
        ] {
            assert_eq!(json(bytes), expected);
        }
    }

    #[test]
    fn a_long_field_is_cut_and_says_so() {
        let mut out = Vec::new();
        push_text(&mut out, b"abcdef", 6);
        push_text(&mut out, b"abcdef", 3);
        push_json(&mut out, "aü".as_bytes(), 2);
        assert_eq!(String::from_utf8(out).unwrap(), "abcdefabc...a\\\\xC3...");
    }

    proptest! {
        #[test]
        fn text_is_printable_ascii_and_can_be_undone(
            bytes in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            let text = text(&bytes);
            prop_assert!(text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'"'));
            prop_assert_eq!(unescaped(&text), bytes);
        }

        #[test]
        fn json_is_printable_and_can_be_undone(
            parts in proptest::collection::vec(prop_oneof![
                any::<char>().prop_map(|char| char.to_string().into_bytes()),
                proptest::collection::vec(any::<u8>(), 0..4),
                Just(b"\\xFF".to_vec()),
                Just("\u{202E}".as_bytes().to_vec()),
            ], 0..50)
        ) {
            let bytes = parts.concat();
            let text = json(&bytes);
            prop_assert!(!text.chars().any(chars::is_unprintable));
            let read: String = serde_json::from_str(&format!("\"{text}\"")).unwrap();
            prop_assert_eq!(unescaped(&read), bytes);
        }
    }
}
