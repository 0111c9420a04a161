//! The members of a comma-separated list (RFC 9110 section 5.6.1).

use std::iter::FusedIterator;

use crate::base::chars;

/// The members of one field value: trimmed, empty ones left out.
///
/// A comma within a quoted string does not separate. A quote that is never closed makes the rest
/// one member, so that nothing after it becomes a member.
pub fn members(value: &[u8]) -> Members<'_> {
    Members { rest: value }
}

/// Iterator of [`members`].
#[derive(Clone, Debug)]
pub struct Members<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let (member, rest) = split_at_comma(self.rest);
            self.rest = rest;
            let member = chars::trim_ows(member);
            if !member.is_empty() {
                return Some(member);
            }
        }
        None
    }
}

impl FusedIterator for Members<'_> {}

/// Whether every quoted string of this value is closed.
pub fn has_closed_quotes(value: &[u8]) -> bool {
    let mut quoting = Quoting::Outside;
    value.iter().for_each(|octet| quoting = quoting.after(*octet));
    quoting == Quoting::Outside
}

fn split_at_comma(value: &[u8]) -> (&[u8], &[u8]) {
    let Some(first) = memchr::memchr2(b',', b'"', value) else { return (value, b"") };
    let mut quoting = Quoting::Outside;
    for (at, octet) in value.iter().enumerate().skip(first) {
        if *octet == b',' && quoting == Quoting::Outside {
            let (member, rest) = value.split_at_checked(at).unwrap_or((value, b""));
            return (member, rest.get(1..).unwrap_or_default());
        }
        quoting = quoting.after(*octet);
    }
    (value, b"")
}

/// The state of an octet with respect to quoted strings.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quoting {
    Outside,
    Inside,
    Escaped,
}

impl Quoting {
    const fn after(self, octet: u8) -> Self {
        match (self, octet) {
            (Self::Outside, b'"') => Self::Inside,
            (Self::Outside, _) => Self::Outside,
            (Self::Inside, b'"') => Self::Outside,
            (Self::Inside, b'\\') => Self::Escaped,
            (Self::Inside | Self::Escaped, _) => Self::Inside,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_split_at_their_commas() {
        let table: [(&str, &[&str]); 9] = [
            ("", &[]),
            (" , ,\t,", &[]),
            ("a", &["a"]),
            ("a,b", &["a", "b"]),
            (" a b ,, c", &["a b", "c"]),
            ("a=\"x,y\", b", &["a=\"x,y\"", "b"]),
            ("\"x\\\",y\", b", &["\"x\\\",y\"", "b"]),
            ("a, \"open, b", &["a", "\"open, b"]),
            ("W/\"a\", \"b,c\"", &["W/\"a\"", "\"b,c\""]),
        ];
        for (value, expected) in table {
            let found: Vec<_> = members(value.as_bytes()).collect();
            let expected: Vec<_> = expected.iter().map(|member| member.as_bytes()).collect();
            assert_eq!(found, expected, "{value}");
        }
    }

    #[test]
    fn open_quotes_are_seen() {
        for (value, closed) in
            [("", true), ("a\"b\"", true), ("\"", false), ("\"\\\"", false), ("\"\\\"\"", true)]
        {
            assert_eq!(has_closed_quotes(value.as_bytes()), closed, "{value}");
        }
    }
}
