//! The target for the origin, made of the target that the client sent.
//!
//! The path that is meant decides, and what is not replaced stays as it was sent: `%2F` in it is no
//! slash for the origin.

use regex::bytes::Regex;

use crate::base::chars::{hex_value, percent_decoded};
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
                let clean = unambiguous(path);
                let Some(found) = regex.captures(&clean) else {
                    return [path, query].concat();
                };
                let mut made = to.url(&Captured { found: &found, path: &clean, values });
                if made.first() != Some(&b'/') {
                    made.insert(0, b'/');
                }
                let mut made = without_dots(made);
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
        let is_below = add.is_empty() || add.ends_with('/') || matches!(rest, [] | [b'/', ..]);
        is_below
            .then(|| [with_one_slash(&joined(strip.as_bytes(), rest)).as_slice(), tail].concat())
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
    // The route may have matched by more than its prefix.
    let (prefix, rest) =
        meant.strip_prefix(prefix).map_or((&b""[..], &*meant), |rest| (prefix, rest));
    // Only now, `..` may be a segment: `/up../a` without `/up`.
    let wanted = target::normalise(&encoded(&joined(b"", rest))).into_owned();
    for path in [path, &cleaned(path)] {
        // Below a folder, since what is put before the rest must not be left by it.
        if let Some(rest) = after(path, prefix)
            && *target::normalise(&joined(b"/-", rest)) == *joined(b"/-", &wanted)
        {
            return rest.to_vec();
        }
    }
    encoded(&wanted)
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
    target::resolve(decoded.split(|byte| *byte == b'/').skip(1), decoded.len())
}

/// A path as [`cleaned`]; the path that is meant where dot segments are left for an origin that
/// decodes more.
fn unambiguous(path: &[u8]) -> Vec<u8> {
    let clean = cleaned(path);
    match has_dots(&clean) {
        true => encoded(&target::normalise(path)),
        false => clean,
    }
}

/// A target without the dot segments of its path: a capture in the middle of a segment can make one.
fn without_dots(target: Vec<u8>) -> Vec<u8> {
    let end = memchr::memchr(b'?', &target).unwrap_or(target.len());
    let (path, query) = target.split_at(end);
    if !has_dots(path) {
        return target;
    }
    let kept: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|it| !has_dots(it)).collect();
    let kept = kept.join(&b'/');
    [if kept.is_empty() { b"/" } else { kept.as_slice() }, query].concat()
}

/// Whether a path has dot segments for an origin that decodes it and ignores parameters.
fn has_dots(path: &[u8]) -> bool {
    let decoded = percent_decoded(path, b'+');
    decoded.split(|byte| *byte == b'/').any(|segment| {
        let name = segment.split(|byte| *byte == b';').next();
        matches!(name, Some(b"." | b".."))
    })
}

/// A path that begins with one slash. Behind another slash, or a backslash, a browser reads a host,
/// and it ignores control characters.
pub(crate) fn with_one_slash(path: &[u8]) -> Vec<u8> {
    let is_slash = |byte: &u8| matches!(byte, b'/' | b'\\') || byte.is_ascii_control();
    let at = path.iter().position(|byte| !is_slash(byte)).unwrap_or(path.len());
    [b"/", path.get(at..).unwrap_or_default()].concat()
}

fn encoded(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for byte in path {
        match byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,:@=".contains(byte) {
            true => out.push(*byte),
            false => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    out
}

/// The captures of a rewriting, as they were sent, beside the variables of the request.
struct Captured<'a, 'p, V> {
    found: &'a regex::bytes::Captures<'p>,
    /// The path that the expression matched.
    path: &'a [u8],
    values: &'a V,
}

impl<V: Values> Values for Captured<'_, '_, V> {
    fn variable(&self, variable: Variable, out: &mut Vec<u8>) {
        match variable {
            Variable::Path => out.extend_from_slice(self.path),
            variable => self.values.variable(variable, out),
        }
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
            ("", "/v2", "/../a", "/v2/a"),
            ("", "/v2", "/x/..%2f..%2fa", "/v2/a"),
            ("/", "/v2", "/a/..%2f..%2fb", "/v2/b"),
            ("/other", "/v2", "/../a", "/v2/a"),
            ("/other", "/v2", "/b/..;/..;/a", "/v2/a"),
            ("/up", "/v2", "/up../a", "/v2/a"),
            ("/up", "/v2", "/up%2e%2e%2fa", "/v2/a"),
            ("/up", "/v2", "/up/a/../b", "/v2/a/../b"),
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
            ("^/pub/(.*)$", "/v2/public/$1", "/pub/a%2f..%2f..%2f..%2fpub/s", "", "/v2/public/s"),
            ("^/pub/(.*)$", "/v2/$1", "/pub/a%2f..;x%2fb", "", "/v2/b"),
            ("^/pub(.*)$", "/v2/$1", "/pub../s", "?a=..", "/v2/s?a=.."),
            ("^/pub(.*)$", "/v2/$1", "/pub..", "", "/v2"),
            ("^", "/bucket{path}", "/../b", "", "/bucket/b"),
            ("^", "/bucket{path}", "/a/..;/..;/b%20c", "", "/bucket/b%20c"),
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
            ("/up", "/v2", "/v2x/a", None),
            ("/up", "/v2", "/v2?b", Some("/up/?b")),
            ("/up", "/v2/", "/v2/a", Some("/up/a")),
            ("", "/v2", "/v2//evil.example/d/", Some("/evil.example/d/")),
            ("", "/v2", "/v2/\\evil.example", Some("/evil.example")),
            ("/", "/v2", "/v2/\t/evil.example", Some("/evil.example")),
            ("/up", "/v2", "/v2//a", Some("/up//a")),
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

        #[test]
        fn a_rewritten_path_stays_below_what_is_added(
            path in "/[a-b./%2eEfF;]{0,24}",
            strip in "(/[a-b]{0,2})?",
        ) {
            let found = prefix(&strip, "/v2").target(path.as_bytes(), b"", &Nothing);
            prop_assert!(target::normalise(&found).starts_with(b"/v2/"), "{}", text(found));
            let regex = compile("^/?a?(.*)$").unwrap();
            let to = Template::parse("/v2/$1", 1, Phase::Request).unwrap();
            let found = Rewriter::Regex { regex, to }.target(path.as_bytes(), b"", &Nothing);
            prop_assert!(target::normalise(&found).starts_with(b"/v2"), "{}", text(found));
        }
    }
}
