//! What a purge can name stored responses by, as 64-bit hashes.
//!
//! A response is named by its URL, its host, every beginning of its URL, the tags that its origin
//! gave it, and its groups (RFC 9875). URL, host and beginnings follow from the key text; tags and
//! groups are kept beside the response as [`SurrogateKeys`], together with when its origin was asked. Two
//! things with one hash are purged together: too much is purged then, never too little.

use std::rc::Rc;

use crate::base::chars::{is_target_char, trim_ows};
use crate::http::fields::Fields;
use crate::http::list::members;
use crate::http::scheme::Scheme;
use crate::policy::key::host::{Hosts, NamedHost};
use crate::policy::key::without_default_port;

/// By what a purge names responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Everything that is stored.
    All,
    /// The host, with its port or for all ports.
    Host,
    /// How the URL begins, whatever its scheme.
    Prefix,
    /// A tag of `Cache-Tag`, `Surrogate-Key` or `xkey`.
    Tag,
    /// A group of `Cache-Groups`, within one origin.
    Group,
    /// The URL, with all variants.
    Url,
}

impl Kind {
    /// Every kind.
    pub const EACH: [Self; 6] =
        [Self::All, Self::Host, Self::Prefix, Self::Tag, Self::Group, Self::Url];

    /// The word in commands, listings and the log.
    pub const fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Host => "host",
            Self::Prefix => "prefix",
            Self::Tag => "tag",
            Self::Group => "group",
            Self::Url => "url",
        }
    }

    /// Its number in what is stored; never 0.
    pub const fn code(self) -> u8 {
        match self {
            Self::All => 1,
            Self::Host => 2,
            Self::Prefix => 3,
            Self::Tag => 4,
            Self::Group => 5,
            Self::Url => 6,
        }
    }

    /// The kind of a number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::EACH.into_iter().find(|kind| kind.code() == code)
    }
}

/// The hash of what responses are named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SurrogateHash(pub u64);

impl SurrogateHash {
    /// The hash of `text` as a name of this kind.
    pub fn of(kind: Kind, text: &[u8]) -> Self {
        let mut running = Running::new(kind);
        text.iter().for_each(|&byte| running.push(byte));
        running.hash()
    }

    /// The hash of a host as [`NamedHost::text`] has it.
    fn of_host(host: &[u8], port: Option<u16>) -> Self {
        let mut running = Running::new(Kind::Host);
        host.iter().for_each(|&byte| running.push(byte));
        if let Some(port) = port {
            running.push(b':');
            let digits = [10_000, 1_000, 100, 10, 1].map(|place| (port / place % 10) as u8);
            let first = digits.iter().position(|digit| *digit > 0).unwrap_or(4);
            digits.iter().skip(first).for_each(|digit| running.push(b'0' + digit));
        }
        running.hash()
    }
}

/// A hash that grows byte by byte (FNV-1a, mixed at its end), so that all beginnings of a text
/// cost one pass over it.
#[derive(Clone, Copy, Debug)]
struct Running(u64);

impl Running {
    fn new(kind: Kind) -> Self {
        let mut running = Self(0xcbf2_9ce4_8422_2325);
        running.push(kind.code());
        running
    }

    fn push(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }

    fn hash(self) -> SurrogateHash {
        let mixed = (self.0 ^ self.0 >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        SurrogateHash(mixed ^ mixed >> 33)
    }
}

/// What is kept of a stored response for the purges that come after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SurrogateKeys {
    /// The number of the last purge before its origin was asked; 0 when nobody noted it.
    pub purge_epoch: u64,
    /// Its tags and groups, sorted, none twice; at most [`TAGS_MAX`].
    pub tags: Rc<[u64]>,
    /// It had more of them, so that every purge of a tag or group names it.
    pub is_cut: bool,
}

impl SurrogateKeys {
    /// What is kept of a response that was asked for after the purge `purge_epoch`, for a request
    /// to this scheme and authority.
    pub fn of(response: &Fields, scheme: Scheme, authority: &[u8], purge_epoch: u64) -> Self {
        let mut tags = Vec::new();
        let mut is_cut = false;
        let mut take = |hash: SurrogateHash| match tags.len() < TAGS_MAX {
            true => tags.push(hash.0),
            false => is_cut = true,
        };
        tags_of(response).for_each(|tag| take(SurrogateHash::of(Kind::Tag, tag)));
        for group in groups_of(response, "cache-groups") {
            take(SurrogateHash::of(Kind::Group, &group_text(scheme, authority, &group)));
        }
        tags.sort_unstable();
        tags.dedup();
        Self { purge_epoch, tags: tags.into(), is_cut }
    }

    /// These with the tags and groups of what it was put together with, which no purge names: a
    /// further part of a response need not repeat them.
    #[must_use]
    pub fn with_tags_of(self, other: &Self) -> Self {
        let mut tags = [&*self.tags, &*other.tags].concat();
        tags.sort_unstable();
        tags.dedup();
        let is_cut = self.is_cut || other.is_cut || tags.len() > TAGS_MAX;
        tags.truncate(TAGS_MAX);
        Self { tags: tags.into(), is_cut, ..self }
    }

    /// These of what a 304 or a HEAD has renewed: an `answer` that names no tag and no group takes
    /// none away, also none that only an earlier part of the response had.
    #[must_use]
    pub fn renewed(self, old: &Self, answer: &Fields) -> Self {
        let is_silent = TAG_FIELDS.iter().chain(&["cache-groups"]).all(|it| !answer.contains(it));
        if is_silent { self.with_tags_of(old) } else { self }
    }

    /// Those of a marker or another note of ours, which has no tags.
    pub fn untagged(purge_epoch: u64) -> Self {
        Self { purge_epoch, ..Self::default() }
    }
}

/// Most tags and groups that are kept of a response.
pub const TAGS_MAX: usize = 256;

const TAG_FIELDS: [&str; 3] = ["cache-tag", "surrogate-key", "xkey"];

/// The tags in these fields, be they an origin's or those of a request to purge: members of
/// `Cache-Tag`, `Surrogate-Key` and `xkey`, between white space or commas.
pub fn tags_of(fields: &Fields) -> impl Iterator<Item = &[u8]> {
    TAG_FIELDS.into_iter().flat_map(|name| fields.get_all(name)).flat_map(tags_in)
}

/// The tags in one value.
pub fn tags_in(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| matches!(byte, b' ' | b'\t' | b',')).filter(|tag| !tag.is_empty())
}

/// The groups in a field of this name, `Cache-Groups` or `Cache-Group-Invalidation` (RFC 9875
/// sections 2 and 3): a list of strings, of which nothing counts if any of it is malformed (RFC
/// 9651 section 4.2). Parameters mean nothing.
pub fn groups_of(fields: &Fields, name: &str) -> Vec<Vec<u8>> {
    let mut groups = Vec::new();
    for value in fields.get_all(name) {
        if trim_ows(value).ends_with(b",") {
            return Vec::new();
        }
        for member in members(value) {
            match string_of(member) {
                Some(group) => groups.push(group),
                None => return Vec::new(),
            }
        }
    }
    groups
}

/// The string that an item begins with (RFC 9651 section 4.2.5).
fn string_of(item: &[u8]) -> Option<Vec<u8>> {
    let mut rest = item.strip_prefix(b"\"")?.iter();
    let mut text = Vec::new();
    loop {
        match rest.next()? {
            b'"' => break,
            b'\\' => match rest.next()? {
                byte @ (b'"' | b'\\') => text.push(*byte),
                _ => return None,
            },
            byte @ 0x20..=0x7e => text.push(*byte),
            _ => return None,
        }
    }
    matches!(rest.as_slice().first(), None | Some(b';')).then_some(text)
}

/// The text that a group is hashed by: the same group of another origin is another one (RFC 9875
/// section 2.1).
pub fn group_text(scheme: Scheme, authority: &[u8], group: &[u8]) -> Vec<u8> {
    let mut text = scheme.word().as_bytes().to_vec();
    text.extend_from_slice(b"://");
    text.extend(without_default_port(scheme, authority).iter().map(u8::to_ascii_lowercase));
    text.push(b'\n');
    text.extend_from_slice(group);
    text
}

/// Why a text is no beginning of URLs that could be purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPrefix {
    /// It does not begin as a URL does, or has what no URL has.
    #[error("it is no beginning of a URL (try \"http://host/path\")")]
    Url,
    /// Its host is none, or a wildcard.
    #[error("it does not begin with one whole host")]
    Host,
    /// It has no scheme, and a port that is one's own.
    #[error("whether its port counts depends on the scheme: begin with http:// or https://")]
    Port,
}

/// The text that a beginning of URLs is hashed by: `//host/path`, from a URL with or without its
/// scheme. The host is whole: `http://a` begins what is on `a`, and nothing on `a.example`.
///
/// # Errors
/// Why it would name nothing.
pub fn prefix_text(url: &[u8]) -> Result<Vec<u8>, NoPrefix> {
    let url = url.split(|&byte| byte == b'#').next().unwrap_or_default();
    let at = memchr::memmem::find(url, b"//").ok_or(NoPrefix::Url)?;
    let (scheme, rest) = url.split_at_checked(at).unwrap_or_default();
    let scheme = match scheme {
        [] => None,
        [name @ .., b':'] => Some(Scheme::parse(name).ok_or(NoPrefix::Url)?),
        _ => return Err(NoPrefix::Url),
    };
    if !url.iter().all(|&byte| is_target_char(byte)) {
        return Err(NoPrefix::Url);
    }
    let rest = rest.get(2..).unwrap_or_default();
    let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).unwrap_or_default();
    let host = NamedHost::parse(authority).ok_or(NoPrefix::Host)?;
    if scheme.is_none() && matches!(host.port(), Some(80 | 443)) {
        return Err(NoPrefix::Port);
    }
    let mut text = b"//".to_vec();
    text.extend(without_default_port(scheme, authority).iter().map(u8::to_ascii_lowercase));
    if !path.starts_with(b"/") {
        text.push(b'/');
    }
    text.extend_from_slice(path);
    Ok(text)
}

/// A set of lengths that beginnings of URLs have.
pub trait Lengths {
    /// The longest, 0 if there is none.
    fn longest(&self) -> usize;
    /// Whether this is one of them.
    fn has(&self, len: usize) -> bool;
}

/// Calls `take` with everything that a stored response of this key text and these labels is named
/// by, until it says `false`: beginnings are named only at the lengths that count.
pub fn each_name(
    key_text: &[u8],
    surrogates: &SurrogateKeys,
    lengths: &impl Lengths,
    mut take: impl FnMut(SurrogateHash) -> bool,
) {
    let url = primary_of(key_text);
    let hosts = Hosts::of(url.strip_prefix(b"GET ").unwrap_or(url));
    let is_open = [SurrogateHash::of(Kind::All, b""), SurrogateHash::of(Kind::Url, url)]
        .into_iter()
        .chain(hosts.each().map(|(host, port)| SurrogateHash::of_host(host, port)))
        .all(&mut take);
    if !is_open || !surrogates.tags.iter().all(|&tag| take(SurrogateHash(tag))) {
        return;
    }
    let rest = memchr::memmem::find(url, b"//").and_then(|at| url.get(at..)).unwrap_or_default();
    let mut running = Running::new(Kind::Prefix);
    for (at, &byte) in rest.iter().take(lengths.longest()).enumerate() {
        running.push(byte);
        if lengths.has(at + 1) && !take(running.hash()) {
            return;
        }
    }
}

/// The key text without what tells variants and parts apart.
pub fn primary_of(key_text: &[u8]) -> &[u8] {
    key_text.split(|&byte| byte == b'\n').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample::fields;
    use proptest::prelude::*;
    use std::collections::HashSet;

    struct Set(Vec<usize>);

    impl Lengths for Set {
        fn longest(&self) -> usize {
            self.0.iter().copied().max().unwrap_or(0)
        }

        fn has(&self, len: usize) -> bool {
            self.0.contains(&len)
        }
    }

    fn is_named(key_text: &str, kind: Kind, text: &[u8]) -> bool {
        let wanted = SurrogateHash::of(kind, text);
        let mut is_named = false;
        each_name(key_text.as_bytes(), &SurrogateKeys::default(), &Set(vec![text.len()]), |hash| {
            is_named |= hash == wanted;
            true
        });
        is_named
    }

    #[test]
    fn tags_are_read_alike_from_every_field() {
        let response = fields(&[
            ("Cache-Tag", "a, b"),
            ("Surrogate-Key", "c  d"),
            ("XKey", "e,f\tg"),
            ("Cache-Tag", ",,h"),
        ]);
        let tags: HashSet<_> = tags_of(&response).collect();
        let expected: HashSet<&[u8]> =
            [b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h"].map(|tag: &[u8; 1]| &tag[..]).into();
        assert_eq!(tags, expected);
        let surrogates = SurrogateKeys::of(&response, Scheme::Http, b"h", 7);
        assert_eq!(
            (surrogates.tags.len(), surrogates.purge_epoch, surrogates.is_cut),
            (8, 7, false)
        );
        assert!(surrogates.tags.contains(&SurrogateHash::of(Kind::Tag, b"e").0));
    }

    #[test]
    fn groups_are_strings_and_belong_to_their_origin() {
        let groups = |value| groups_of(&fields(&[("cache-groups", value)]), "cache-groups");
        assert_eq!(groups("\"a\", \"b, \\\"c\\\"\";x=1"), [b"a".to_vec(), b"b, \"c\"".to_vec()]);
        for malformed in ["a", "\"a\", b", "\"a", "\"a\\x\"", "\"a\"x", "\"\u{e9}\"", "\"a\","] {
            assert!(groups(malformed).is_empty(), "{malformed}");
        }
        let response = fields(&[("cache-groups", "\"a\"")]);
        let surrogates = |authority| SurrogateKeys::of(&response, Scheme::Http, authority, 0);
        assert_eq!(surrogates(b"A.example:80"), surrogates(b"a.example"));
        assert_ne!(surrogates(b"a.example"), surrogates(b"b.example"));
        assert_ne!(SurrogateHash::of(Kind::Tag, b"a"), SurrogateHash::of(Kind::Group, b"a"));
    }

    #[test]
    fn too_many_tags_are_noted_and_cut() {
        let value: Vec<String> = (0..TAGS_MAX + 1).map(|n| n.to_string()).collect();
        let surrogates =
            SurrogateKeys::of(&fields(&[("xkey", &value.join(" "))]), Scheme::Http, b"h", 0);
        assert!(surrogates.is_cut && surrogates.tags.len() == TAGS_MAX);
    }

    #[test]
    fn what_is_put_together_has_the_tags_of_both() {
        let surrogates = |tags: &str, seq| {
            SurrogateKeys::of(&fields(&[("xkey", tags)]), Scheme::Http, b"h", seq)
        };
        assert_eq!(
            surrogates("b c", 7).with_tags_of(&surrogates("a b", 5)),
            surrogates("a b c", 7)
        );
        let many = |from: usize| {
            let names: Vec<String> = (from..from + TAGS_MAX).map(|n| n.to_string()).collect();
            surrogates(&names.join(" "), 0)
        };
        assert_eq!(many(0).with_tags_of(&many(0)), many(0));
        let both = many(0).with_tags_of(&many(1));
        assert!(both.is_cut && both.tags.len() == TAGS_MAX && both.tags.is_sorted());
        assert!(surrogates("a", 0).with_tags_of(&both).is_cut);
    }

    #[test]
    fn who_renews_may_say_other_tags_or_be_silent() {
        let surrogates = |tags: &str, seq| {
            SurrogateKeys::of(&fields(&[("xkey", tags)]), Scheme::Http, b"h", seq)
        };
        let silent =
            surrogates("b", 7).renewed(&surrogates("a b", 5), &fields(&[("etag", "\"x\"")]));
        assert_eq!(silent, surrogates("a b", 7));
        for name in ["xkey", "surrogate-key", "cache-tag", "cache-groups"] {
            let told = surrogates("b", 7).renewed(&surrogates("a b", 5), &fields(&[(name, "b")]));
            assert_eq!(told, surrogates("b", 7), "{name}");
        }
    }

    #[test]
    fn a_response_is_named_by_its_url_its_host_and_its_beginnings() {
        let text = "GET http://a.example:81/x/y?z\naccept: b";
        assert!(is_named(text, Kind::Url, b"GET http://a.example:81/x/y?z"));
        assert!(!is_named(text, Kind::Url, b"GET http://a.example:81/x/y"));
        let is_of = |text: &str, host: &str| {
            is_named(text, Kind::Host, &NamedHost::parse(host.as_bytes()).unwrap().text())
        };
        assert!(is_of(text, "a.example") && is_of(text, "a.example:81"));
        assert!(!is_of(text, "a.example:82") && !is_of(text, "a.example:80"));
        assert!(is_of("GET //[::1]:8/", "[::1]") && is_of("GET http://a./", "A."));
        for port in ["0", "7", "80", "8080", "65535"] {
            assert!(is_of(&format!("GET http://a:{port}/"), &format!("a:{port}")), "{port}");
        }
        assert!(is_of("GET http://a/x", "a:80") && !is_of("GET http://a/x", "a:443"));
        assert!(is_of("GET https://a/x", "a:443") && !is_of("GET https://a/x", "a:80"));
        assert!(is_of("GET //a/x", "a:443") && is_of("GET //a/x", "a:80"));
        let prefixes = [
            ("http://A.example:81/x", true),
            ("https://a.example:81/x/y?z", true),
            ("//a.example:81", true),
            ("http://a.example:81/x/y?za", false),
            ("http://a.example/x", false),
            ("http://a.exa", false),
        ];
        for (url, expected) in prefixes {
            let prefix = prefix_text(url.as_bytes()).unwrap();
            assert_eq!(is_named(text, Kind::Prefix, &prefix), expected, "{url}");
        }
        assert_eq!(prefix_text(b"HTTPS://a:443?b#c").unwrap(), b"//a/?b");
        for (reason, urls) in [
            (NoPrefix::Url, &["a.example/x", "/x", "http//a", "ftp://a/", "http://a/b c"][..]),
            (NoPrefix::Host, &["http:///x", "http://*.test/", "//*", "http://a:/", "http://u@a/"]),
            (NoPrefix::Port, &["//a:80/x", "//a:443"]),
        ] {
            for url in urls {
                assert_eq!(prefix_text(url.as_bytes()), Err(reason), "{url}");
            }
        }
        assert!(is_named(text, Kind::All, b""));
    }

    #[test]
    fn every_kind_has_its_word_and_code() {
        for kind in Kind::EACH {
            assert_eq!(Kind::from_code(kind.code()), Some(kind));
        }
        let words: HashSet<_> = Kind::EACH.map(Kind::word).into();
        assert_eq!(words.len(), Kind::EACH.len());
        assert_eq!(Kind::from_code(0), None);
    }

    proptest! {
        #[test]
        fn every_beginning_names_and_nothing_else_does(
            path in "/[a-c/]{0,12}", other in "/[a-c/]{0,12}",
        ) {
            let text = format!("GET http://h{path}");
            let prefix = prefix_text(format!("http://h{other}").as_bytes()).unwrap();
            prop_assert_eq!(is_named(&text, Kind::Prefix, &prefix), path.starts_with(&other));
        }

        #[test]
        fn no_field_panics(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut response = Fields::new();
            for name in ["cache-groups", "cache-tag", "xkey"] {
                response.push(name.as_bytes(), &value);
            }
            let surrogates = SurrogateKeys::of(&response, Scheme::Http, &value, 1);
            each_name(&value, &surrogates, &Set(vec![3]), |_| true);
            let _ = prefix_text(&value);
        }
    }
}
