//! The names that a purge can have for a stored response.
//!
//! They are its URL, its host, every prefix of its URL, and the tags and groups (RFC 9875) that its
//! origin gave it. The key text has the URL, the host and the prefixes. The tags and groups are
//! stored beside the response as [`SurrogateKeys`], with the number of the last purge before the
//! origin was asked.

use std::rc::Rc;

use crate::base::chars::trim_ows;
use crate::http::authority;
use crate::http::fields::Fields;
use crate::http::list::members;
use crate::http::scheme::Scheme;
use crate::policy::key::host::Hosts;
use crate::policy::purge::hash::{PurgeHash, PurgeKind, RunningHash};

/// The names and the purge epoch that are stored with a response for later purges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SurrogateKeys {
    /// The number of the last purge before its origin was asked; 0 if that is not known.
    pub purge_epoch: u64,
    /// The hashes of its tags and groups, sorted and unique; at most [`TAGS_MAX`].
    pub tags: Rc<[u64]>,
    /// It had more of them, so that every purge of a tag or a group names it.
    pub is_cut: bool,
}

impl SurrogateKeys {
    /// Those of the response to a request for this scheme and authority that was sent after the
    /// purge `purge_epoch`.
    pub fn of(response: &Fields, scheme: Scheme, authority: &[u8], purge_epoch: u64) -> Self {
        let mut tags = Vec::new();
        let mut is_cut = false;
        let mut take = |hash: PurgeHash| match tags.len() < TAGS_MAX {
            true => tags.push(hash.0),
            false => is_cut = true,
        };
        tags_of(response).for_each(|tag| take(PurgeHash::of(PurgeKind::Tag, tag)));
        for group in groups_of(response, "cache-groups") {
            take(PurgeHash::of(PurgeKind::Group, &group_text(scheme, authority, &group)));
        }
        tags.sort_unstable();
        tags.dedup();
        Self { purge_epoch, tags: tags.into(), is_cut }
    }

    /// These with the tags and groups of a stored part that they are joined with, and that no purge
    /// names: a further part of a response need not repeat them.
    #[must_use]
    pub fn with_tags_of(self, other: &Self) -> Self {
        let mut tags = [&*self.tags, &*other.tags].concat();
        tags.sort_unstable();
        tags.dedup();
        let is_cut = self.is_cut || other.is_cut || tags.len() > TAGS_MAX;
        tags.truncate(TAGS_MAX);
        Self { tags: tags.into(), is_cut, ..self }
    }

    /// Those of a response that a 304 or the answer to a HEAD has updated: without a tag or a group
    /// in it, the stored ones stay, also those that only an earlier part had.
    #[must_use]
    pub fn renewed(self, old: &Self, answer: &Fields) -> Self {
        let has_none = TAG_FIELDS.iter().chain(&["cache-groups"]).all(|it| !answer.contains(it));
        if has_none { self.with_tags_of(old) } else { self }
    }

    /// Those of a marker or a list, which have no tags.
    pub fn untagged(purge_epoch: u64) -> Self {
        Self { purge_epoch, ..Self::default() }
    }
}

/// Most tags and groups that are stored of a response.
pub const TAGS_MAX: usize = 256;

const TAG_FIELDS: [&str; 3] = ["cache-tag", "surrogate-key", "xkey"];

/// The tags in the fields of a response or of a request to purge: members of `Cache-Tag`,
/// `Surrogate-Key` and `xkey`, between white space or commas.
pub fn tags_of(fields: &Fields) -> impl Iterator<Item = &[u8]> {
    TAG_FIELDS.into_iter().flat_map(|name| fields.get_all(name)).flat_map(tags_in)
}

/// The tags in one value.
pub fn tags_in(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| matches!(byte, b' ' | b'\t' | b',')).filter(|tag| !tag.is_empty())
}

/// The groups in a field of this name, `Cache-Groups` or `Cache-Group-Invalidation` (RFC 9875
/// sections 2 and 3): a list of strings, which is ignored as a whole if any of it is malformed (RFC
/// 9651 section 4.2). Parameters are ignored.
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

/// The text for the hash of a group: a group belongs to its origin (RFC 9875 section 2.1).
pub fn group_text(scheme: Scheme, authority: &[u8], group: &[u8]) -> Vec<u8> {
    let mut text = scheme.word().as_bytes().to_vec();
    text.extend_from_slice(b"://");
    text.extend(authority::normalised(scheme, authority));
    text.push(b'\n');
    text.extend_from_slice(group);
    text
}

/// The set of lengths of the prefixes that were purged.
pub trait Lengths {
    /// The longest; 0 if there is none.
    fn longest(&self) -> usize;
    /// Whether a prefix has this length.
    fn has(&self, len: usize) -> bool;
}

/// Calls `take` with each name of a stored response with this key text and these keys, until it
/// returns `false`. The prefixes are those of these lengths.
pub fn each_name(
    key_text: &[u8],
    surrogates: &SurrogateKeys,
    lengths: &impl Lengths,
    mut take: impl FnMut(PurgeHash) -> bool,
) {
    let url = primary_of(key_text);
    let hosts = Hosts::of(url.strip_prefix(b"GET ").unwrap_or(url));
    let is_open = [PurgeHash::of(PurgeKind::All, b""), PurgeHash::of(PurgeKind::Url, url)]
        .into_iter()
        .chain(hosts.each().map(|(host, port)| PurgeHash::of_host(host, port)))
        .all(&mut take);
    if !is_open || !surrogates.tags.iter().all(|&tag| take(PurgeHash(tag))) {
        return;
    }
    let rest = memchr::memmem::find(url, b"//").and_then(|at| url.get(at..)).unwrap_or_default();
    let mut running = RunningHash::new(PurgeKind::Prefix);
    for (at, &byte) in rest.iter().take(lengths.longest()).enumerate() {
        running.push(byte);
        if lengths.has(at + 1) && !take(running.hash()) {
            return;
        }
    }
}

/// The primary key text within that of a variant or a part.
pub fn primary_of(key_text: &[u8]) -> &[u8] {
    key_text.split(|&byte| byte == b'\n').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::key::host::NamedHost;
    use crate::policy::purge::prefix::prefix_text;
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

    fn is_named(key_text: &str, kind: PurgeKind, text: &[u8]) -> bool {
        let wanted = PurgeHash::of(kind, text);
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
        assert!(surrogates.tags.contains(&PurgeHash::of(PurgeKind::Tag, b"e").0));
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
        assert_ne!(PurgeHash::of(PurgeKind::Tag, b"a"), PurgeHash::of(PurgeKind::Group, b"a"));
    }

    #[test]
    fn too_many_tags_are_cut() {
        let value: Vec<String> = (0..TAGS_MAX + 1).map(|n| n.to_string()).collect();
        let surrogates =
            SurrogateKeys::of(&fields(&[("xkey", &value.join(" "))]), Scheme::Http, b"h", 0);
        assert!(surrogates.is_cut && surrogates.tags.len() == TAGS_MAX);
    }

    #[test]
    fn joined_parts_have_the_tags_of_both() {
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
    fn an_update_replaces_the_tags_or_has_none() {
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
    fn a_response_is_named_by_its_url_its_host_and_its_prefixes() {
        let text = "GET http://a.example:81/x/y?z\naccept: b";
        assert!(is_named(text, PurgeKind::Url, b"GET http://a.example:81/x/y?z"));
        assert!(!is_named(text, PurgeKind::Url, b"GET http://a.example:81/x/y"));
        let is_of = |text: &str, host: &str| {
            is_named(text, PurgeKind::Host, &NamedHost::parse(host.as_bytes()).unwrap().text())
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
            assert_eq!(is_named(text, PurgeKind::Prefix, &prefix), expected, "{url}");
        }
        assert!(is_named(text, PurgeKind::All, b""));
    }

    proptest! {
        #[test]
        fn a_prefix_names_what_begins_with_it_and_nothing_else(
            path in "/[a-c/]{0,12}", other in "/[a-c/]{0,12}",
        ) {
            let text = format!("GET http://h{path}");
            let prefix = prefix_text(format!("http://h{other}").as_bytes()).unwrap();
            prop_assert_eq!(is_named(&text, PurgeKind::Prefix, &prefix), path.starts_with(&other));
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
