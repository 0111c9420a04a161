//! Cache-Control as typed directives, RFC 9111 section 5.2.
//!
//! If a directive is repeated or malformed, the meaning that stores and reuses less wins: the
//! smallest of several lifetimes, and zero for one that is not a number (RFC 9111 section 4.2.1).
//! Unknown directives are ignored (section 5.2.3).
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

use crate::base::chars::{eq_ignore_case, is_token, trim_ows};
use crate::http::fields::Fields;

/// The directives of a response, RFC 9111 section 5.2.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseControl {
    /// `no-store`, section 5.2.2.5.
    pub no_store: bool,
    /// `public`, section 5.2.2.9.
    pub public: bool,
    /// `must-revalidate`, section 5.2.2.2.
    pub must_revalidate: bool,
    /// `proxy-revalidate`, section 5.2.2.8.
    pub proxy_revalidate: bool,
    /// `must-understand`, section 5.2.2.3.
    pub must_understand: bool,
    /// `no-transform`, section 5.2.2.6.
    pub no_transform: bool,
    /// `immutable`, RFC 8246.
    pub immutable: bool,
    /// `private`, section 5.2.2.7.
    pub private: Scope,
    /// `no-cache`, section 5.2.2.4.
    pub no_cache: Scope,
    /// `max-age` in seconds, section 5.2.2.1.
    pub max_age: Option<u32>,
    /// `s-maxage` in seconds, section 5.2.2.10.
    pub s_maxage: Option<u32>,
    /// `stale-while-revalidate` in seconds, RFC 5861 section 3.
    pub stale_while_revalidate: Option<u32>,
    /// `stale-if-error` in seconds, RFC 5861 section 4.
    pub stale_if_error: Option<u32>,
}

/// The directives of a request, RFC 9111 section 5.2.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestControl {
    /// `no-cache`, section 5.2.1.4, or `Pragma: no-cache` without a Cache-Control (section 5.4).
    pub no_cache: bool,
    /// `no-store`, section 5.2.1.5.
    pub no_store: bool,
    /// `only-if-cached`, section 5.2.1.7.
    pub only_if_cached: bool,
    /// `no-transform`, section 5.2.1.6.
    pub no_transform: bool,
    /// `max-age` in seconds, section 5.2.1.1.
    pub max_age: Option<u32>,
    /// `min-fresh` in seconds, section 5.2.1.3.
    pub min_fresh: Option<u32>,
    /// `max-stale` in seconds, section 5.2.1.2; `u32::MAX` if it has no argument.
    pub max_stale: Option<u32>,
    /// `stale-if-error` in seconds, RFC 5861 section 4.
    pub stale_if_error: Option<u32>,
}

impl ResponseControl {
    /// The directives of all Cache-Control lines together (RFC 9111 section 5.2).
    pub fn of(fields: &Fields) -> Self {
        Self::parse(fields.get_all("cache-control"))
    }

    /// The directives of these field lines together. Pragma has no meaning in a response
    /// (RFC 9111 section 5.4).
    pub fn parse<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut control = Self::default();
        for directive in lines.flat_map(directives) {
            control.take(&directive);
        }
        control
    }

    /// Whether a stale response must not be used without validation (RFC 9111 sections 5.2.2.2 and
    /// 5.2.2.8; `s-maxage` implies `proxy-revalidate`, section 5.2.2.10).
    pub const fn forbids_stale(&self) -> bool {
        self.must_revalidate || self.proxy_revalidate || self.s_maxage.is_some()
    }

    /// Whether a shared cache may store the response to a request with Authorization (RFC 9111
    /// section 3.5).
    pub const fn allows_authorized(&self) -> bool {
        self.public || self.must_revalidate || self.s_maxage.is_some()
    }

    fn take(&mut self, directive: &Directive<'_>) {
        // A directive without arguments counts even if it has one.
        let mut name = [0; NAME_BYTES_MAX];
        match lower(directive.name, &mut name) {
            b"no-store" => self.no_store = true,
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            b"no-transform" => self.no_transform = true,
            b"immutable" => self.immutable = true,
            b"private" => self.private = self.private.max(Scope::of(directive.argument)),
            b"no-cache" => self.no_cache = self.no_cache.max(Scope::of(directive.argument)),
            b"max-age" => smallest(&mut self.max_age, directive),
            b"s-maxage" => smallest(&mut self.s_maxage, directive),
            b"stale-while-revalidate" => smallest(&mut self.stale_while_revalidate, directive),
            b"stale-if-error" => smallest(&mut self.stale_if_error, directive),
            _ => {}
        }
    }
}

impl RequestControl {
    /// The directives of Cache-Control, or of Pragma without a Cache-Control (RFC 9111 section
    /// 5.4), in one pass over the fields and without allocation.
    pub fn of(fields: &Fields) -> Self {
        let mut control = Self::default();
        let mut has_control = false;
        let mut has_pragma = false;
        for (name, value) in fields.iter() {
            match name.len() {
                13 if eq_ignore_case(name, b"cache-control") => {
                    has_control = true;
                    control.take_line(value);
                }
                6 if eq_ignore_case(name, b"pragma") => {
                    has_pragma |= directives(value).any(|directive| directive.is("no-cache"));
                }
                _ => {}
            }
        }
        control.no_cache |= has_pragma && !has_control;
        control
    }

    /// Adds the directives of one Cache-Control line.
    pub fn take_line(&mut self, line: &[u8]) {
        for directive in directives(line) {
            self.take(&directive);
        }
    }

    fn take(&mut self, directive: &Directive<'_>) {
        let mut name = [0; NAME_BYTES_MAX];
        match lower(directive.name, &mut name) {
            b"no-cache" => self.no_cache = true,
            b"no-store" => self.no_store = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"no-transform" => self.no_transform = true,
            b"max-age" => smallest(&mut self.max_age, directive),
            b"stale-if-error" => smallest(&mut self.stale_if_error, directive),
            b"min-fresh" => {
                // One that is not a number still asks for a fresh response.
                self.min_fresh = self.min_fresh.max(Some(directive.seconds().unwrap_or(0)));
            }
            b"max-stale" if directive.argument == Argument::None => {
                self.max_stale = Some(self.max_stale.unwrap_or(u32::MAX));
            }
            b"max-stale" => smallest(&mut self.max_stale, directive),
            _ => {}
        }
    }
}

/// Lowers `smallest` to the argument of a directive; one that is not a number is zero.
fn smallest(smallest: &mut Option<u32>, directive: &Directive<'_>) {
    let seconds = directive.seconds().unwrap_or(0);
    *smallest = Some(smallest.map_or(seconds, |before| before.min(seconds)));
}

/// `name` in lower case within `room`; empty, which is no directive, if it is too long.
fn lower<'a>(name: &[u8], room: &'a mut [u8; NAME_BYTES_MAX]) -> &'a [u8] {
    let Some(room) = room.get_mut(..name.len()) else {
        return &[];
    };
    room.copy_from_slice(name);
    room.make_ascii_lowercase();
    room
}

/// The longest known directive name: `stale-while-revalidate`.
const NAME_BYTES_MAX: usize = 22;

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

/// What `private` or `no-cache` applies to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Nothing: the directive is missing.
    #[default]
    Absent,
    /// The fields that it lists: the response is stored without them (RFC 9111 sections 5.2.2.4 and
    /// 5.2.2.7).
    Fields,
    /// The whole response: the directive has no list, a malformed one, or one with a field that the
    /// stored response needs.
    Whole,
}

impl Scope {
    /// The scope of a directive with this argument.
    pub fn of(argument: Argument<'_>) -> Self {
        let Argument::Text(list) = argument else {
            return Self::Whole;
        };
        let mut n_names = 0;
        for name in names(list) {
            n_names += 1;
            if !is_token(name)
                || INDISPENSABLE.iter().any(|field| eq_ignore_case(name, field.as_bytes()))
            {
                return Self::Whole;
            }
        }
        if n_names == 0 { Self::Whole } else { Self::Fields }
    }
}

/// Calls `take` with each field name that `private` and `no-cache` list in these Cache-Control
/// lines, without those of directives that apply to the whole response.
pub fn listed_fields<'a>(lines: impl Iterator<Item = &'a [u8]>, mut take: impl FnMut(&'a [u8])) {
    for directive in lines.flat_map(directives) {
        if !directive.is("private") && !directive.is("no-cache") {
            continue;
        }
        if Scope::of(directive.argument) == Scope::Fields
            && let Argument::Text(list) = directive.argument
        {
            names(list).for_each(&mut take);
        }
    }
}

/// The members of a comma-separated list of field names.
fn names(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == b',').map(trim_ows).filter(|name| !name.is_empty())
}

/// Fields that a stored response needs for its meaning or for the cache.
const INDISPENSABLE: [&str; 13] = [
    "age", "cache-control", "content-encoding", "content-language", "content-length",
    "content-location", "content-range", "content-type", "date", "etag", "expires",
    "last-modified", "vary",
];

#[cfg(test)]
#[path = "../tests/control.rs"]
mod tests;
