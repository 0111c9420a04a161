//! The key of a stored response, RFC 9111 section 2: its text, and the MD5 of the text.
//!
//! The text is stored beside the response and compared, so that two texts with one MD5 are a miss
//! and never a wrong answer. Only the host and the port are normalised (case, default port); paths
//! and queries are compared byte for byte, since an origin may distinguish what RFC 3986 calls
//! equivalent. An operator may leave components out ([`KeyComponents`]), but not the host. A URL and
//! the components of its route determine the key. A query goes to the origin as the key has it:
//! otherwise a parameter that one client adds could change the response that all clients get.

pub mod normalise;
pub mod vary;
pub mod variants;
pub mod pattern;
pub(crate) mod host;

use std::borrow::Cow;

use md5::{Digest, Md5};

use crate::base::chars::{HEX_DIGITS, hex_value, percent_decoded};
use crate::http::authority;
use crate::http::cookie;
use crate::http::fields::Fields;
use crate::http::scheme::Scheme;
use crate::policy::key::normalise::normalise;
use crate::policy::key::pattern::Pattern;
use crate::policy::key::vary::{VaryNames, cookie_of};

/// The MD5 of a key text: the name of its slot and of its file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u8; 16]);

impl Key {
    /// The key that `text`, 32 hex digits of either case, names.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let digits: &[u8; 32] = text.try_into().ok()?;
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let &[high, low] = pair else { return None };
            *byte = hex_value(high)? << 4 | hex_value(low)?;
        }
        Some(Self(bytes))
    }

    /// The key of `text` beside this one: its first half is the same.
    pub fn beside(&self, text: &[u8]) -> Self {
        let mut key = *self;
        let digest: [u8; 16] = Md5::digest(text).into();
        for (byte, other) in key.0.iter_mut().skip(8).zip(digest) {
            *byte ^= other;
        }
        key
    }

    /// The key as 32 lower-case hex digits.
    pub fn hex(&self) -> [u8; 32] {
        let mut text = [0; 32];
        for (pair, &byte) in text.chunks_exact_mut(2).zip(&self.0) {
            if let [high, low] = pair {
                *high = HEX_DIGITS[usize::from(byte >> 4)];
                *low = HEX_DIGITS[usize::from(byte & 15)];
            }
        }
        text
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.hex().iter().try_for_each(|&digit| write!(out, "{}", char::from(digit)))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Key({self})")
    }
}

/// The key of a key text.
pub fn key_of(text: &[u8]) -> Key {
    Key(Md5::digest(text).into())
}

/// Appends the primary key text of a request to `out`: `GET http://host:port/path?query` (RFC 9111
/// section 2). `authority` is the effective host with its port as sent; an empty path is `/` (RFC
/// 9110 section 4.2.3). A HEAD has the key of the GET that answers it (section 9.3.2).
pub fn key_text(
    components: &KeyComponents,
    scheme: Scheme,
    authority: &[u8],
    path_and_query: &[u8],
    out: &mut Vec<u8>,
) {
    out.reserve(scheme.word().len() + authority.len() + path_and_query.len() + 8);
    out.extend_from_slice(b"GET ");
    if components.scheme {
        out.extend_from_slice(scheme.word().as_bytes());
        out.push(b':');
    }
    out.extend_from_slice(b"//");
    out.extend(authority::normalised(scheme, authority));
    components.push(path_and_query, out);
}

/// Appends the text of a variant's key to `out`: the primary key text, then one line for each
/// field that Vary names, with its normalised value in this request (RFC 9111 section 4.1), and
/// for each cookie that the operator names, with all its values: no value of a cookie has a
/// semicolon, or a space at its end. A missing field differs from an empty one. Two different sets
/// of values have different texts, since neither a key text nor a field has a line feed.
pub fn variant_text(primary_text: &[u8], vary: &VaryNames, request: &Fields, out: &mut Vec<u8>) {
    out.extend_from_slice(primary_text);
    for name in vary.names() {
        out.push(b'\n');
        out.extend_from_slice(name.as_bytes());
        if let Some(cookie) = cookie_of(name) {
            for (at, value) in cookie::values(request, cookie.as_bytes()).enumerate() {
                out.push(if at == 0 { b':' } else { b';' });
                out.extend_from_slice(value.unwrap_or(b" "));
            }
            continue;
        }
        let mut values = request.get_all(name).peekable();
        if values.peek().is_some() {
            out.push(b':');
            normalise(name, values, out);
        }
    }
}

/// The components of a key besides the host. The default is the whole URI (RFC 9111 section 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyComponents {
    /// Whether the scheme is in it.
    pub scheme: bool,
    /// The part of the path in the key.
    pub path: PathComponent,
    /// The part of the query in the key.
    pub query: QueryComponent,
    /// Request fields and cookies. They select one of the variants of a key, as the fields that
    /// Vary names do, so that one removal of the key removes all variants.
    pub chosen: Option<VaryNames>,
    /// The conditions of the route that are not part of the URL; empty if it has none. Two routes
    /// for one URL must not share responses.
    pub route: Box<str>,
    /// Whether the URL in the key is made of the one that clients ask for.
    pub is_rewritten: bool,
    /// Request fields that the operator sets, lower-case. They go to the origin although no key
    /// holds them.
    pub set_fields: Vec<Box<str>>,
}

/// The part of the path in a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathComponent {
    /// All of it.
    Whole,
    /// The path of the route instead of its own.
    Route(Box<str>),
}

/// The part of the query in a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryComponent {
    /// False if the key has nothing of it.
    pub is_on: bool,
    /// Parameters are in the order of their names; those of one name stay in their order.
    pub is_sorted: bool,
    /// Only these parameters, if there are any patterns.
    pub kept: Vec<Pattern>,
    /// All of those but these.
    pub dropped: Vec<Pattern>,
}

impl Default for KeyComponents {
    fn default() -> Self {
        Self {
            scheme: true,
            path: PathComponent::Whole,
            query: QueryComponent::default(),
            chosen: None,
            route: "".into(),
            is_rewritten: false,
            set_fields: Vec::new(),
        }
    }
}

impl Default for QueryComponent {
    fn default() -> Self {
        Self { is_on: true, is_sorted: false, kept: Vec::new(), dropped: Vec::new() }
    }
}

impl KeyComponents {
    /// The path and query for the origin: the path as the client sent it, and the query as the key
    /// has it.
    pub fn origin_target<'t>(&self, path_and_query: &'t [u8]) -> Cow<'t, [u8]> {
        let (path, query) = split(path_and_query);
        match self.query.of(query) {
            Cow::Borrowed(same) if same.len() == query.len() => Cow::Borrowed(path_and_query),
            other => Cow::Owned([path, &other].concat()),
        }
    }

    /// Whether a key begins with this prefix if its URL does: not if the key leaves out, or puts in
    /// another order, what the prefix consists of.
    pub fn preserve_prefix(&self, path_and_query: &[u8]) -> bool {
        let (path, query) = split(path_and_query);
        let preserves_path = match &self.path {
            PathComponent::Whole => true,
            // The prefix names the whole route, and perhaps others below it.
            PathComponent::Route(prefix) => query.is_empty() && prefix.as_bytes().starts_with(path),
        };
        let is_as_sent = self.query.is_on && self.query.is_as_sent();
        preserves_path && !self.is_rewritten && (query.is_empty() || is_as_sent)
    }

    /// Whether what is stored under a primary key was stored by these components: its variants are
    /// selected by all fields and cookies of the operator. `names` are those that select them.
    pub fn accept(&self, names: Option<&VaryNames>) -> bool {
        let Some(chosen) = &self.chosen else { return true };
        names.is_some_and(|names| names.contains_all(chosen))
    }

    /// Appends the components of a path and query to a key text; an empty path is `/` (RFC 9110
    /// section 4.2.3).
    pub(crate) fn push(&self, path_and_query: &[u8], out: &mut Vec<u8>) {
        let (path, query) = split(path_and_query);
        match &self.path {
            PathComponent::Whole if path.is_empty() => out.push(b'/'),
            PathComponent::Whole => out.extend_from_slice(path),
            PathComponent::Route(prefix) => {
                out.extend_from_slice(prefix.as_bytes());
                // A path has no space, so this is not the key of another path.
                out.extend_from_slice(b" *");
            }
        }
        out.extend_from_slice(&self.query.of(query));
        if !self.route.is_empty() {
            out.extend_from_slice(ROUTE);
            out.extend_from_slice(self.route.as_bytes());
        }
    }
}

impl QueryComponent {
    /// The part of a query in the key. The query is empty or begins with its question mark.
    fn of<'q>(&self, query: &'q [u8]) -> Cow<'q, [u8]> {
        if !self.is_on {
            return Cow::Borrowed(b"");
        }
        let Some(inside) = query.strip_prefix(b"?").filter(|_| !self.is_as_sent()) else {
            return Cow::Borrowed(query);
        };
        let mut parameters: Vec<&[u8]> = inside
            .split(|byte| *byte == b'&')
            .filter(|parameter| !parameter.is_empty() && self.has(&name_of(parameter)))
            .collect();
        if self.is_sorted {
            parameters.sort_by(|left, right| name_of(left).cmp(&name_of(right)));
        }
        let mut text = Vec::with_capacity(query.len());
        for (at, parameter) in parameters.into_iter().enumerate() {
            text.push(if at == 0 { b'?' } else { b'&' });
            text.extend_from_slice(parameter);
        }
        Cow::Owned(text)
    }

    /// Whether the key has the whole query as it is sent.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_on && self.kept.is_empty() && self.dropped.is_empty()
    }

    fn is_as_sent(&self) -> bool {
        !self.is_sorted && self.kept.is_empty() && self.dropped.is_empty()
    }

    fn has(&self, name: &[u8]) -> bool {
        let is_in = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(name));
        (self.kept.is_empty() || is_in(&self.kept)) && !is_in(&self.dropped)
    }
}

/// The beginning of the line of a key text that has the conditions of the route.
pub(crate) const ROUTE: &[u8] = b"\n!";

/// A path, and the query with its question mark.
fn split(path_and_query: &[u8]) -> (&[u8], &[u8]) {
    let at = memchr::memchr(b'?', path_and_query).unwrap_or(path_and_query.len());
    path_and_query.split_at(at)
}

/// The name of a parameter, decoded.
pub(crate) fn name_of(parameter: &[u8]) -> Cow<'_, [u8]> {
    let name = parameter.split(|byte| *byte == b'=').next().unwrap_or_default();
    decoded(name)
}

/// A name or a value in a query, without percent-encoding and with a space for each plus sign.
pub(crate) fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    percent_decoded(text, b' ')
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
