//! The field `Via` (RFC 9110 section 7.6.3): the member of this instance, and whether a request has
//! passed the instance before.

use crate::base::chars;
use crate::http::fields::Fields;
use crate::http::version::Version;

/// Adds the member of the instance of this name, if it has one. The version is that of the message
/// received.
pub fn push(fields: &mut Fields, received: Version, name: &str) {
    if name.is_empty() {
        return;
    }
    fields.push_parts(b"Via", &[received.number().as_bytes(), b" ", name.as_bytes()]);
}

/// Whether a member of `Via` names this instance.
pub fn has_passed(fields: &Fields, name: &str) -> bool {
    fields.get_all("via").any(|value| {
        let value = without_comments(value);
        let mut members = value.split(|byte| *byte == b',');
        members.any(|member| received_by(member).eq_ignore_ascii_case(name.as_bytes()))
    })
}

/// The second word of a member, without a port.
fn received_by(member: &[u8]) -> &[u8] {
    let mut words = member.split(|byte| chars::is_ows(*byte)).filter(|word| !word.is_empty());
    let host = words.nth(1).unwrap_or_default();
    host.split(|byte| *byte == b':').next().unwrap_or_default()
}

/// A value with a space for each comment (RFC 9110 section 5.6.5), which may have commas and other
/// comments within. If one has no end, all are kept: it would hide what later hops have added.
fn without_comments(value: &[u8]) -> Vec<u8> {
    let (mut kept, mut depth, mut is_escaped) = (Vec::with_capacity(value.len()), 0, false);
    for byte in value {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if depth > 0 => is_escaped = true,
            b'(' => depth += 1,
            b')' if depth > 0 => {
                depth -= 1;
                kept.push(b' ');
            }
            _ if depth > 0 => {}
            byte => kept.push(*byte),
        }
    }
    if depth == 0 { kept } else { value.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_found_among_members_lines_and_comments() {
        for (lines, is_found) in [
            (&[][..], false),
            (&["1.1 web-1"], true),
            (&["1.0 fred", "HTTP/1.1 WEB-1"], true),
            (&["1.0 fred, 1.1\tweb-1:8080 (ktrix)"], true),
            (&["1.0 fred (a, \"b), 1.1 web-1"], true),
            (&["1.0 fred(a (b \\) c)), 1.1 web-1"], true),
            (&["1.0 fred (no end, 1.1 web-1"], true),
            (&["1.1 web-2", "1.1 web-10, 1.1 web"], false),
            (&["1.0 fred (, 1.1 web-1 ,)"], false),
            (&["1.0 fred (web-1)", "web-1", "web-1 fred", ",,"], false),
        ] {
            let fields: Fields = lines.iter().map(|line| ("Via", *line)).collect();
            assert_eq!(has_passed(&fields, "web-1"), is_found, "{lines:?}");
        }
    }

    #[test]
    fn what_an_instance_adds_it_finds_again() {
        let mut fields = Fields::new();
        push(&mut fields, Version::Http10, "web-1");
        assert_eq!(fields.get("via"), Some(&b"1.0 web-1"[..]));
        assert!(has_passed(&fields, "web-1") && !has_passed(&fields, "web-2"));
    }
}
