//! The requests that a route takes: a pattern of paths and conditions, with the order in which the
//! routes of a site are tried.
//!
//! The most specific route is tried first: an exact path, then the path with the most literal bytes
//! at its beginning. Of two with as many, a glob or a regular expression comes before a prefix, then
//! the route with more conditions, then the one that stands first.

use std::cmp::Reverse;

use regex::bytes::{RegexBuilder, RegexSet, RegexSetBuilder};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::Look;
use regex_syntax::hir::literal::Extractor;

use crate::config::network::Network;
use crate::http::target;
use crate::policy::condition::Condition;

/// The requests that a route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matching {
    /// The paths.
    pub path: PathPattern,
    /// The methods, as they are sent; none means any.
    pub methods: Vec<Box<str>>,
    /// Conditions on fields; all must hold.
    pub headers: Vec<Condition>,
    /// Conditions on parameters of the query; all must hold.
    pub query: Vec<Condition>,
    /// The networks of the clients; none means any.
    pub clients: Vec<Network>,
}

/// A pattern of normalised paths, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// This path.
    Exact(String),
    /// Every path that begins with this.
    Prefix(String),
    /// `?` is one byte and `*` any number of bytes of a segment; `**` crosses segments.
    Glob(String),
    /// A regular expression, which matches anywhere unless it is anchored.
    Regex(String),
}

/// The place of a route among those of its site; the smallest is tried first.
pub(crate) type Order = (Reverse<bool>, Reverse<usize>, Reverse<bool>, Reverse<usize>);

impl Matching {
    /// All requests for the paths of a pattern.
    pub const fn of_path(path: PathPattern) -> Self {
        Self {
            path,
            methods: Vec::new(),
            headers: Vec::new(),
            query: Vec::new(),
            clients: Vec::new(),
        }
    }

    /// The kinds of conditions.
    pub fn n_conditions(&self) -> usize {
        usize::from(!self.methods.is_empty())
            + self.headers.len()
            + self.query.len()
            + usize::from(!self.clients.is_empty())
    }

    /// The place among the routes of a site; equal ones are tried in the order of the text.
    pub(crate) fn order(&self) -> Order {
        let is_exact = matches!(self.path, PathPattern::Exact(_));
        let n_literal = self.path.literal().len();
        (
            Reverse(is_exact),
            Reverse(n_literal),
            Reverse(self.path.regex().is_some()),
            Reverse(self.n_conditions()),
        )
    }

    /// Whether the conditions hold for every request for which those of `other` hold.
    pub(crate) fn has_weaker_conditions(&self, other: &Self) -> bool {
        let has_all = |own: &[Condition], others: &[Condition]| {
            own.iter().all(|condition| others.contains(condition))
        };
        let has_methods = self.methods.is_empty()
            || (!other.methods.is_empty()
                && other.methods.iter().all(|method| self.methods.contains(method)));
        let has_client = |network: &Network| self.clients.iter().any(|own| own.has_all_of(network));
        let has_clients = self.clients.is_empty()
            || (!other.clients.is_empty() && other.clients.iter().all(has_client));
        has_methods
            && has_all(&self.headers, &other.headers)
            && has_all(&self.query, &other.query)
            && has_clients
    }

    /// A word for the conditions that a cache key does not hold; empty if it holds all of them.
    /// Responses of routes with different words are not shared.
    pub(crate) fn key_word(&self, has_whole_query: bool) -> String {
        let mut words: Vec<String> =
            self.methods.iter().map(|method| format!("method {method}")).collect();
        words.extend(self.headers.iter().map(ToString::to_string));
        if !has_whole_query {
            words.extend(self.query.iter().map(ToString::to_string));
        }
        words.extend(self.clients.iter().map(|network| format!("client {network}")));
        words.join(", ")
    }
}

impl PathPattern {
    /// The pattern as it is written.
    pub fn text(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Prefix(text) | Self::Glob(text) | Self::Regex(text) => text,
        }
    }

    /// The literal bytes with which every path begins that matches: all of an exact path or a
    /// prefix.
    pub fn literal(&self) -> Vec<u8> {
        match self {
            Self::Exact(text) | Self::Prefix(text) => target::normalise(text.as_bytes()).into(),
            Self::Glob(text) => text.split(['*', '?']).next().unwrap_or_default().into(),
            Self::Regex(text) => regex_literal(text).unwrap_or_else(|| b"/".to_vec()),
        }
    }

    /// The regular expression for a glob or a regular expression.
    pub fn regex(&self) -> Option<String> {
        match self {
            Self::Exact(_) | Self::Prefix(_) => None,
            Self::Glob(text) => Some(glob_regex(text)),
            Self::Regex(text) => Some(text.clone()),
        }
    }

    /// The text that stands for the path in the keys of a route without paths.
    pub(crate) fn key_path(&self) -> String {
        match self {
            Self::Exact(text) | Self::Prefix(text) => text.clone(),
            Self::Glob(text) => format!("glob:{text}"),
            Self::Regex(text) => format!("regex:{text}"),
        }
    }
}

impl std::fmt::Display for PathPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(text) => write!(f, "exact {text}"),
            Self::Prefix(text) => write!(f, "{text}…"),
            Self::Glob(text) => write!(f, "glob {text}"),
            Self::Regex(text) => write!(f, "regex {text}"),
        }
    }
}

/// The globs and regular expressions of a site, which are matched together.
#[derive(Clone, Debug)]
pub struct PathSet(RegexSet);

impl PathSet {
    /// The patterns, in this order.
    ///
    /// # Errors
    /// They are too large together.
    pub fn new(patterns: &[String]) -> Result<Self, regex::Error> {
        let mut builder = RegexSetBuilder::new(patterns);
        builder.unicode(false).dot_matches_new_line(true);
        builder.size_limit(SET_BYTES_MAX).dfa_size_limit(SET_DFA_BYTES_MAX).build().map(Self)
    }

    /// The numbers of the patterns that match a path.
    pub fn matches(&self, path: &[u8]) -> regex::bytes::SetMatches {
        self.0.matches(path)
    }
}

impl PartialEq for PathSet {
    fn eq(&self, other: &Self) -> bool {
        self.0.patterns() == other.0.patterns()
    }
}

impl Eq for PathSet {}

/// One pattern, compiled for its captures or to be checked.
///
/// # Errors
/// Why it does not compile, in one line.
pub fn compile(pattern: &str) -> Result<regex::bytes::Regex, String> {
    let mut builder = RegexBuilder::new(pattern);
    builder.unicode(false).dot_matches_new_line(true).size_limit(REGEX_BYTES_MAX);
    builder.nest_limit(NEST_MAX).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(bytes) => {
            format!("is too large a regular expression (more than {} KiB)", bytes >> 10)
        }
        error => {
            let text = error.to_string();
            let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("is not a regular expression: {why}")
        }
    })
}

/// The bytes of a compiled pattern.
const REGEX_BYTES_MAX: usize = 256 << 10;

/// The bytes of all compiled patterns of a site.
const SET_BYTES_MAX: usize = 64 << 20;

/// The bytes that a worker remembers of matching them.
const SET_DFA_BYTES_MAX: usize = 8 << 20;

/// The depth of groups.
const NEST_MAX: u32 = 50;

/// The bytes with which every match of an anchored expression begins.
fn regex_literal(text: &str) -> Option<Vec<u8>> {
    let mut parser = ParserBuilder::new().unicode(false).utf8(false).nest_limit(NEST_MAX).build();
    let hir = parser.parse(text).ok()?;
    if !hir.properties().look_set_prefix().contains(Look::Start) {
        return None;
    }
    let literals = Extractor::new().extract(&hir);
    let common = literals.longest_common_prefix()?;
    common.starts_with(b"/").then(|| common.to_vec())
}

fn glob_regex(glob: &str) -> String {
    let mut text = String::from("^");
    let mut rest = glob;
    while let Some(char) = rest.chars().next() {
        let (piece, len) = match char {
            '*' if rest.starts_with("**") => (".*".to_owned(), 2),
            '*' => ("[^/]*".to_owned(), 1),
            '?' => ("[^/]".to_owned(), 1),
            other => (regex::escape(other.encode_utf8(&mut [0; 4])), other.len_utf8()),
        };
        text.push_str(&piece);
        rest = rest.get(len..).unwrap_or_default();
    }
    text.push('$');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_knows_its_literal_beginning() {
        let regex = |text: &str| PathPattern::Regex(text.to_owned());
        let glob = |text: &str| PathPattern::Glob(text.to_owned());
        for (pattern, literal) in [
            (PathPattern::Exact("/a%20b".to_owned()), "/a b"),
            (glob("/img/*.png"), "/img/"),
            (glob("/a?c"), "/a"),
            (regex("^/u/([0-9]+)$"), "/u/"),
            (regex("^/(news|new)/x"), "/new"),
            (regex("^/a|^/ab"), "/a"),
            (regex("^/a|/b"), "/"),
            (regex("(?i)^/a"), "/"),
            (regex("\\.png$"), "/"),
            (regex("/a"), "/"),
            (regex("^/a+b"), "/a"),
            (regex("^/ab*"), "/a"),
        ] {
            assert_eq!(String::from_utf8_lossy(&pattern.literal()), literal, "{pattern}");
        }
    }

    #[test]
    fn a_glob_stays_within_a_segment() {
        for (glob, path, fits) in [
            ("/img/*.png", "/img/a.png", true),
            ("/img/*.png", "/img/.png", true),
            ("/img/*.png", "/img/a/b.png", false),
            ("/img/**.png", "/img/a/b.png", true),
            ("/a?c", "/abc", true),
            ("/a?c", "/a/c", false),
            ("/a.b", "/axb", false),
            ("/a(b", "/a(b", true),
        ] {
            let regex = compile(&glob_regex(glob)).unwrap();
            assert_eq!(regex.is_match(path.as_bytes()), fits, "{glob} {path}");
        }
    }

    #[test]
    fn an_expression_that_explodes_is_refused() {
        let error = compile("^/(a{1000}){1000}").unwrap_err();
        assert!(error.contains("is too large a regular expression"), "{error}");
        let error = compile("^/(").unwrap_err();
        assert_eq!(error, "is not a regular expression: unclosed group");
    }
}
