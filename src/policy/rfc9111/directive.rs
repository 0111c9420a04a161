//! The directives of a Cache-Control field line, RFC 9111 section 5.2.
//!
//! ```text
//! Cache-Control   = #cache-directive
//! cache-directive = token [ "=" ( token / quoted-string ) ]
//! ```
//!
//! The lexer allocates nothing and never fails: a directive that breaks the grammar has the
//! argument [`Argument::Bad`], so that the reader can choose the careful meaning. A comma inside a
//! quoted string does not separate. A quote that is not closed, or has something else than a comma
//! after it, is not a quote, so that it cannot hide a `no-store`.

use crate::base::chars::trim_ows;

/// The largest delta-seconds value, 2^31; a greater one is read as this (RFC 9111 section 1.2.2).
pub const SECONDS_MAX: u32 = 1 << 31;

/// One cache directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directive<'a> {
    /// The name as sent; compare it without regard to case.
    pub name: &'a [u8],
    /// The text after the `=`.
    pub argument: Argument<'a>,
}

/// The argument of a directive. Token and quoted form mean the same (RFC 9111 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument<'a> {
    /// There is no `=`.
    None,
    /// The token, or the inside of the quoted string with its escapes.
    Text(&'a [u8]),
    /// It breaks the grammar, for example with white space beside the `=`.
    Bad,
}

impl<'a> Directive<'a> {
    /// Whether the name is `name`, which must be in lower case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The argument as [`delta_seconds`].
    pub fn seconds(&self) -> Option<u32> {
        match self.argument {
            Argument::Text(text) => delta_seconds(text),
            Argument::None | Argument::Bad => None,
        }
    }

    /// Reads one trimmed list member.
    fn parse(member: &'a [u8]) -> Self {
        let Some(equals) = memchr::memchr(b'=', member) else {
            return Self { name: member, argument: Argument::None };
        };
        let (name, rest) = member.split_at(equals);
        let text = rest.get(1..).unwrap_or_default();
        let bare_name = trim_ows(name);
        let argument = if bare_name.len() == name.len() { argument(text) } else { Argument::Bad };
        Self { name: bare_name, argument }
    }
}

/// Delta-seconds (RFC 9111 section 1.2.2), at most [`SECONDS_MAX`]; `None` unless `text` is one or
/// more digits.
pub fn delta_seconds(text: &[u8]) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    let mut seconds: u32 = 0;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        seconds = seconds.saturating_mul(10).saturating_add(u32::from(digit)).min(SECONDS_MAX);
    }
    Some(seconds)
}

/// The directives of one Cache-Control field line, in order; empty members are skipped.
pub fn directives(line: &[u8]) -> Directives<'_> {
    Directives { rest: line }
}

/// Iterator of [`directives`].
#[derive(Clone, Debug)]
pub struct Directives<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Directives<'a> {
    type Item = Directive<'a>;

    fn next(&mut self) -> Option<Directive<'a>> {
        while !self.rest.is_empty() {
            let (member, rest) = split_member(self.rest);
            self.rest = rest;
            let member = trim_ows(member);
            if !member.is_empty() {
                return Some(Directive::parse(member));
            }
        }
        None
    }
}

/// Splits at the first comma outside a quoted string; the rest is empty if there is none.
fn split_member(text: &[u8]) -> (&[u8], &[u8]) {
    let Some(first) = memchr::memchr2(b',', b'"', text) else {
        return (text, &[]);
    };
    if let Some(end) = quoted_end(text, first) {
        return cut(text, end);
    }
    memchr::memchr(b',', text).map_or((text, &[]), |comma| cut(text, comma))
}

/// The end of the member that has a quoted string as its argument, from `start`: a comma or the end
/// of the text. `None` if no quoted string begins there.
fn quoted_end(text: &[u8], start: usize) -> Option<usize> {
    if text.get(start) != Some(&b'"') || text.get(start.checked_sub(1)?) != Some(&b'=') {
        return None;
    }
    let mut at = start + 1;
    loop {
        match text.get(at)? {
            b'"' => break,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    let rest = text.get(at + 1..)?;
    let n_blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    matches!(rest.get(n_blank), None | Some(b',')).then_some(at + 1 + n_blank)
}

/// `text` before and after its byte `at`.
fn cut(text: &[u8], at: usize) -> (&[u8], &[u8]) {
    (text.get(..at).unwrap_or(text), text.get(at + 1..).unwrap_or_default())
}

/// Reads what follows the `=`: a token, or a quoted string and nothing else.
fn argument(text: &[u8]) -> Argument<'_> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let is_bad = text.is_empty() || text.iter().any(|byte| b" \t\"".contains(byte));
        return if is_bad { Argument::Bad } else { Argument::Text(text) };
    };
    let Some(inside) = quoted.strip_suffix(b"\"") else {
        return Argument::Bad;
    };
    let mut is_escaped = false;
    for &byte in inside {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return Argument::Bad,
            _ => {}
        }
    }
    if is_escaped { Argument::Bad } else { Argument::Text(inside) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(line: &str) -> Vec<(String, String)> {
        directives(line.as_bytes())
            .map(|directive| {
                let argument = match directive.argument {
                    Argument::None => "-".to_owned(),
                    Argument::Bad => "bad".to_owned(),
                    Argument::Text(text) => format!("<{}>", String::from_utf8_lossy(text)),
                };
                (String::from_utf8_lossy(directive.name).into_owned(), argument)
            })
            .collect()
    }

    #[test]
    fn a_line_has_its_directives() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("", &[]),
            (" , ,\t,", &[]),
            ("no-store", &[("no-store", "-")]),
            ("a, b ,c\t", &[("a", "-"), ("b", "-"), ("c", "-")]),
            ("max-age=5,public", &[("max-age", "<5>"), ("public", "-")]),
            ("max-age=\"5\"", &[("max-age", "<5>")]),
            ("max-age =5", &[("max-age", "bad")]),
            ("max-age= 5", &[("max-age", "bad")]),
            ("max-age=", &[("max-age", "bad")]),
            ("=5", &[("", "<5>")]),
            ("a=b=c", &[("a", "<b=c>")]),
            ("x=\"a, no-store\", y", &[("x", "<a, no-store>"), ("y", "-")]),
            ("x=\"a\\\", b\", y", &[("x", "<a\\\", b>"), ("y", "-")]),
            ("x=\"open, no-store", &[("x", "bad"), ("no-store", "-")]),
            ("x=\"a\"b, y", &[("x", "bad"), ("y", "-")]),
            ("x=\"a\\", &[("x", "bad")]),
            ("x=\"a, b, x=\"a", &[("x", "bad"), ("b", "-"), ("x", "bad")]),
            ("\"a, b\"", &[("\"a", "-"), ("b\"", "-")]),
            ("x=\"\"", &[("x", "<>")]),
            ("x=\"", &[("x", "bad")]),
        ];
        for (line, expected) in cases {
            let expected: Vec<_> =
                expected.iter().map(|(n, a)| ((*n).to_owned(), (*a).to_owned())).collect();
            assert_eq!(parsed(line), expected, "{line:?}");
        }
    }

    #[test]
    fn seconds_are_digits_and_capped() {
        let cases: &[(&str, Option<u32>)] = &[
            ("0", Some(0)),
            ("003600", Some(3600)),
            ("2147483647", Some((1 << 31) - 1)),
            ("2147483648", Some(SECONDS_MAX)),
            ("4294967296", Some(SECONDS_MAX)),
            ("99999999999999999999999", Some(SECONDS_MAX)),
            ("-1", None),
            ("+1", None),
            ("1.0", None),
            ("1a", None),
            ("a1", None),
            ("'1'", None),
            (" 1", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(delta_seconds(text.as_bytes()), *expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            for directive in directives(&line) {
                prop_assert!(directive.seconds().unwrap_or(0) <= SECONDS_MAX);
            }
        }

        #[test]
        fn a_quoted_string_hides_its_commas(inside in "[a-z, =]{0,20}") {
            let line = format!("ext=\"{inside}\", last");
            let names: Vec<_> =
                directives(line.as_bytes()).map(|directive| directive.name.to_vec()).collect();
            prop_assert_eq!(names, vec![b"ext".to_vec(), b"last".to_vec()]);
        }
    }
}
