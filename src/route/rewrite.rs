//! The target for the origin, made of the target that the client sent.
//!
//! The path that is meant decides, and what is not replaced stays as it was sent: `%2F` in it is no
//! slash for the origin.

use regex::bytes::Regex;

use crate::base::chars::hex_value;
use crate::config::action::Rewrite;
use crate::config::template::{Template, Values};
use crate::config::variables::Variable;
use crate::http::target;

/// A rewriting, ready to be used.
#[derive(Debug)]
pub(crate) enum Rewriter {
    Prefix { strip: String, add: String },
    Regex { regex: Regex, to: Template },
}

impl Rewriter {
    /// The rewriting of a configuration, whose expression compiles.
    pub(crate) fn new(rewrite: &Rewrite, compile: impl Fn(&str) -> Option<Regex>) -> Option<Self> {
        Some(match rewrite {
            Rewrite::Prefix { strip, add } => {
                Self::Prefix { strip: strip.to_string(), add: add.to_string() }
            }
            Rewrite::Regex { regex, to } => Self::Regex { regex: compile(regex)?, to: to.clone() },
        })
    }

    /// The path and query for the origin. `values` are those of the request.
    pub(crate) fn target(&self, path: &[u8], query: &[u8], values: &impl Values) -> Vec<u8> {
        match self {
            Self::Prefix { strip, add } => {
                let rest = without_prefix(path, strip.as_bytes());
                [&joined(add.as_bytes(), &rest), query].concat()
            }
            Self::Regex { regex, to } => {
                let clean = cleaned(path);
                let Some(found) = regex.captures(&clean) else {
                    return [path, query].concat();
                };
                let mut made = to.url(&Captured { found: &found, values });
                if made.first() != Some(&b'/') {
                    made.insert(0, b'/');
                }
                // As in nginx, the query of the client follows that of the rewriting.
                match query.strip_prefix(b"?") {
                    Some(own) if made.contains(&b'?') => {
                        made.push(b'&');
                        made.extend_from_slice(own);
                    }
                    _ => made.extend_from_slice(query),
                }
                made
            }
        }
    }

    /// The path as the client sees it, of a path of the origin; `None` where it is the same or not
    /// known.
    pub(crate) fn seen_by_client(&self, path: &[u8]) -> Option<Vec<u8>> {
        let Self::Prefix { strip, add } = self else { return None };
        let end = memchr::memchr2(b'?', b'#', path).unwrap_or(path.len());
        let (path, tail) = path.split_at_checked(end)?;
        let rest = path.strip_prefix(add.as_bytes())?;
        Some([&joined(strip.as_bytes(), rest), tail].concat())
    }
}

/// A prefix and the rest of a path, with one slash between them.
fn joined(prefix: &[u8], rest: &[u8]) -> Vec<u8> {
    let is_closed = prefix.ends_with(b"/");
    match rest.strip_prefix(b"/") {
        Some(rest) if is_closed => [prefix, rest].concat(),
        None if !is_closed => [prefix, b"/", rest].concat(),
        _ => [prefix, rest].concat(),
    }
}

/// The rest of a path behind a prefix, as it was sent if that means the same to every origin.
fn without_prefix(path: &[u8], prefix: &[u8]) -> Vec<u8> {
    let meant = target::normalise(path);
    // The route matched by more than its prefix.
    let Some(wanted) = meant.strip_prefix(prefix) else { return path.to_vec() };
    let wanted = joined(b"", wanted);
    for path in [path, &cleaned(path)] {
        if let Some(rest) = after(path, prefix)
            && *target::normalise(&joined(b"", rest)) == *wanted
        {
            return rest.to_vec();
        }
    }
    let mut rest = Vec::new();
    encode(&wanted, &mut rest);
    rest
}

/// What follows a prefix whose percent-encoding may differ.
fn after<'p>(path: &'p [u8], prefix: &[u8]) -> Option<&'p [u8]> {
    let mut rest = path;
    for byte in prefix {
        let (found, next) = unit(rest)?;
        if found != *byte {
            return None;
        }
        rest = next;
    }
    Some(rest)
}

/// The first byte of a path, decoded, and what follows it.
fn unit(path: &[u8]) -> Option<(u8, &[u8])> {
    match path {
        [b'%', high, low, rest @ ..] => match (hex_value(*high), hex_value(*low)) {
            (Some(high), Some(low)) => Some((high << 4 | low, rest)),
            _ => path.split_first().map(|(first, rest)| (*first, rest)),
        },
        [first, rest @ ..] => Some((*first, rest)),
        [] => None,
    }
}

/// A path with its unreserved characters decoded (RFC 3986 section 6.2.2.2), its dot segments
/// resolved and empty segments left out. All other percent-encodings stay.
fn cleaned(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, next)) = unit(rest) {
        let sent = rest.get(..rest.len() - next.len()).unwrap_or_default();
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => decoded.push(byte),
            false => decoded.extend_from_slice(sent),
        }
        rest = next;
    }
    let mut out: Vec<u8> = Vec::with_capacity(decoded.len());
    let mut segments = decoded.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"" | b"." => {}
            b".." => out.truncate(memchr::memrchr(b'/', &out).unwrap_or(0)),
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
        if is_last && matches!(segment, b"" | b"." | b"..") {
            out.push(b'/');
        }
    }
    out
}

fn encode(path: &[u8], out: &mut Vec<u8>) {
    for byte in path {
        match byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,:@=".contains(byte) {
            true => out.push(*byte),
            false => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
}

/// The captures of a rewriting, as they were sent, beside the variables of the request.
struct Captured<'a, 'p, V> {
    found: &'a regex::bytes::Captures<'p>,
    values: &'a V,
}

impl<V: Values> Values for Captured<'_, '_, V> {
    fn variable(&self, variable: Variable, out: &mut Vec<u8>) {
        self.values.variable(variable, out);
    }

    fn capture(&self, number: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(self.found.get(number).map_or(b"", |found| found.as_bytes()));
    }

    fn are_encoded(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::matching::compile;
    use crate::config::variables::Phase;

    struct Nothing;

    impl Values for Nothing {
        fn variable(&self, _: Variable, _: &mut Vec<u8>) {}

        fn capture(&self, _: usize, _: &mut Vec<u8>) {}
    }

    fn prefix(strip: &str, add: &str) -> Rewriter {
        Rewriter::Prefix { strip: strip.into(), add: add.into() }
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_prefix_is_replaced_and_the_rest_stays_as_sent() {
        for (strip, add, path, expected) in [
            ("/up", "", "/up/a", "/a"),
            ("/up", "", "/up", "/"),
            ("/up/", "", "/up/a", "/a"),
            ("/up", "/v2", "/up/a%2Fb", "/v2/a%2Fb"),
            ("/up", "/v2", "/%75p/a%2fb", "/v2/a%2fb"),
            ("/up", "/v2", "/x/../up/a%2Fb", "/v2/a%2Fb"),
            ("/up", "/v2", "//up/a", "/v2/a"),
            ("/up", "/v2/", "/up/a", "/v2/a"),
            ("", "/v2", "/a", "/v2/a"),
            ("/up", "/v2", "/x;y/..;/up/a", "/v2/a"),
            ("/up", "/v2", "/upper", "/v2/per"),
            ("/up", "/v2", "/up/x/../../up/a", "/v2/a"),
            ("/up", "/v2", "/up/a%2f..%2f..%2fup/b", "/v2/b"),
        ] {
            let found = prefix(strip, add).target(path.as_bytes(), b"?q", &Nothing);
            assert_eq!(text(found), format!("{expected}?q"), "{strip} {add} {path}");
        }
    }

    #[test]
    fn an_expression_makes_the_target() {
        let rewriter = |regex: &str, to: &str| Rewriter::Regex {
            regex: compile(regex).unwrap(),
            to: Template::parse(to, 9, Phase::Request).unwrap(),
        };
        for (regex, to, path, query, expected) in [
            ("^/u/([0-9]+)$", "/users?id=$1", "/u/12", "", "/users?id=12"),
            ("^/u/([0-9]+)$", "/users?id=$1", "/u/12", "?a=b", "/users?id=12&a=b"),
            ("^/u/([0-9]+)$", "/users?id=$1", "/%75/12", "?a=b", "/users?id=12&a=b"),
            ("^/u/([0-9]+)$", "/users?id=$1", "/u/x", "?a=b", "/u/x?a=b"),
            ("^/f/(.*)$", "/g/$1", "/f/a%2Fb%20c", "?d", "/g/a%2Fb%20c?d"),
            ("^/f(.*)$", "$1", "/f//evil.example", "", "/evil.example"),
        ] {
            let found = rewriter(regex, to).target(path.as_bytes(), query.as_bytes(), &Nothing);
            assert_eq!(text(found), expected, "{regex} {to} {path}{query}");
        }
    }

    #[test]
    fn a_client_sees_its_own_paths() {
        let seen =
            |strip, add, path: &str| prefix(strip, add).seen_by_client(path.as_bytes()).map(text);
        for (strip, add, path, expected) in [
            ("/up", "/v2", "/v2/a?b#c", Some("/up/a?b#c")),
            ("/up", "", "/a", Some("/up/a")),
            ("/up/", "/", "/a", Some("/up/a")),
            ("/up", "/v2", "/v3/a", None),
            ("/up", "", "/", Some("/up/")),
        ] {
            assert_eq!(seen(strip, add, path).as_deref(), expected, "{strip} {add} {path}");
        }
    }

    proptest! {
        #[test]
        fn a_rewritten_path_is_a_target(path in "/[a-b./%2eF;]{0,24}", add in "(/[a-b]{1,3})?") {
            let found = prefix("/a", &add).target(path.as_bytes(), b"", &Nothing);
            prop_assert_eq!(found.first(), Some(&b'/'));
            prop_assert!(found.iter().all(u8::is_ascii_graphic));
        }
    }
}
