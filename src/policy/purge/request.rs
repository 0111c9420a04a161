//! The targets of a request with the method PURGE.
//!
//! | field | meaning |
//! | --- | --- |
//! | (none) | purge the URL, with all variants |
//! | `Ktrix-Purge: prefix`, `host`, `all` | purge all with this prefix, all on this host, or all |
//! | `Ktrix-Purge: soft`, `Soft-Purge: 1`, `Fastly-Soft-Purge: 1` | only make stale |
//! | `Cache-Tag`, `Surrogate-Key`, `xkey`, `xkey-purge` | purge all with one of these tags |
//! | `xkey-softpurge` | make all with one of these tags stale |
//! | `Cache-Groups` | purge all in one of these groups of the URL's origin (RFC 9875) |
//!
//! Tags and groups replace the URL. A request with a mistake is refused as a whole, since the
//! operator would not notice that another purge was made.

use crate::base::chars::eq_ignore_case;
use crate::http::fields::Fields;
use crate::http::scheme::Scheme;
use crate::policy::key::host::NamedHost;
use crate::policy::purge::hash::PurgeKind;
use crate::policy::purge::prefix::prefix_text;
use crate::policy::purge::surrogate;

/// The method of a request to purge.
pub const METHOD: &[u8] = b"PURGE";

/// Whether the request comes from another client than the one that is connected, as behind a proxy
/// on the same machine.
pub fn is_forwarded(fields: &Fields) -> bool {
    ["x-forwarded-for", "forwarded", "via"].iter().any(|name| fields.contains(name))
}

/// The kind of name of a purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeTarget {
    /// The kind of the name.
    pub kind: PurgeKind,
    /// The text for the hash ([`PurgeHash::of`](crate::policy::purge::hash::PurgeHash::of)); empty
    /// for a URL, where the key of its route is hashed.
    pub text: Vec<u8>,
    /// The name for people.
    pub name: String,
    /// Whether responses only become stale.
    pub is_soft: bool,
}

/// Why a request to purge is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeRefusal {
    /// A word of `Ktrix-Purge` is unknown, or two of them exclude each other.
    Word,
    /// A field for tags or groups has none, or is malformed.
    Empty,
    /// It has more targets than [`TARGETS_MAX`].
    TooMany,
    /// The URL has no host, or a wildcard for one.
    Host,
    /// The keys of the route do not preserve the prefix.
    PrefixNotInKey,
}

impl PurgeRefusal {
    /// The sentence for the client.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Word => "Ktrix-Purge takes one of url, prefix, host and all, and soft",
            Self::Empty => "a field for tags or groups has none, or is malformed",
            Self::TooMany => "more tags and groups than one request may purge",
            Self::Host => "the URL must have one whole host, not a wildcard",
            Self::PrefixNotInKey => {
                "the keys of this route leave out or reorder components of the prefix: purge the \
                 URL, the host, or the path of the route"
            }
        }
    }
}

/// Most targets of one request.
pub const TARGETS_MAX: usize = 256;

/// The targets of a request to purge. `scheme`, `authority` and `path_and_query` are those of its
/// URL.
///
/// # Errors
/// Why it is refused.
pub fn targets(
    fields: &Fields,
    scheme: Scheme,
    authority: &[u8],
    path_and_query: &[u8],
) -> Result<Vec<PurgeTarget>, PurgeRefusal> {
    let (kind, is_soft) = words(fields)?;
    let mut targets = Vec::new();
    let mut take = |kind: PurgeKind, text: Vec<u8>, name: &[u8], is_soft: bool| {
        let name = String::from_utf8_lossy(name).into_owned();
        targets.push(PurgeTarget { kind, text, name, is_soft });
        if targets.len() > TARGETS_MAX { Err(PurgeRefusal::TooMany) } else { Ok(()) }
    };
    let host = || NamedHost::parse(authority).ok_or(PurgeRefusal::Host);
    let mut names_others = false;
    for (name, makes_soft) in TAG_FIELDS {
        for value in fields.get_all(name) {
            names_others = true;
            for tag in surrogate::tags_in(value) {
                take(PurgeKind::Tag, tag.to_vec(), tag, is_soft || makes_soft)?;
            }
        }
    }
    for group in surrogate::groups_of(fields, "cache-groups") {
        host()?;
        let text = surrogate::group_text(scheme, authority, &group);
        let name = [&group, &b" of "[..], scheme.word().as_bytes(), b"://", authority].concat();
        take(PurgeKind::Group, text, &name, is_soft)?;
    }
    names_others |= fields.contains("cache-groups");
    if names_others {
        // A kind contradicts the tags and groups.
        return match (targets.is_empty(), kind) {
            (true, _) => Err(PurgeRefusal::Empty),
            (false, Some(_)) => Err(PurgeRefusal::Word),
            (false, None) => Ok(targets),
        };
    }
    let url = [scheme.word().as_bytes(), b"://", authority, path_and_query].concat();
    let kind = kind.unwrap_or(PurgeKind::Url);
    let text = match kind {
        PurgeKind::Host => host()?.text(),
        PurgeKind::Prefix => prefix_text(&url).map_err(|_| PurgeRefusal::Host)?,
        // A request of HTTP/1.0 may have no host, and its response is stored without one.
        PurgeKind::Url if !authority.is_empty() => host().map(|_| Vec::new())?,
        _ => Vec::new(),
    };
    let name = match kind {
        PurgeKind::All => &b""[..],
        PurgeKind::Host => authority,
        _ => &url,
    };
    take(kind, text, name, is_soft)?;
    Ok(targets)
}

/// The kind and the softness in `Ktrix-Purge` and in the fields of other products.
fn words(fields: &Fields) -> Result<(Option<PurgeKind>, bool), PurgeRefusal> {
    let is_one = |name: &str| fields.get(name) == Some(b"1");
    let mut is_soft = is_one("soft-purge") || is_one("fastly-soft-purge");
    let mut kind = None;
    for word in fields.list("ktrix-purge") {
        if eq_ignore_case(word, b"soft") {
            is_soft = true;
            continue;
        }
        let named = [PurgeKind::Url, PurgeKind::Prefix, PurgeKind::Host, PurgeKind::All];
        let found = named.into_iter().find(|kind| eq_ignore_case(word, kind.word().as_bytes()));
        if found.is_none() || kind.is_some() {
            return Err(PurgeRefusal::Word);
        }
        kind = found;
    }
    Ok((kind, is_soft))
}

/// Fields of a request with tags, and whether such a purge is always soft.
const TAG_FIELDS: [(&str, bool); 5] = [
    ("cache-tag", false),
    ("surrogate-key", false),
    ("xkey", false),
    ("xkey-purge", false),
    ("xkey-softpurge", true),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample::fields;

    fn asked(list: &[(&str, &str)]) -> Result<Vec<(PurgeKind, String, bool)>, PurgeRefusal> {
        let targets = targets(&fields(list), Scheme::Http, b"A.example:80", b"/x?y")?;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ok(targets.into_iter().map(|it| (it.kind, text(it.text), it.is_soft)).collect())
    }

    #[test]
    fn fields_give_the_targets() {
        let one = |kind, text: &str, is_soft| Ok(vec![(kind, text.to_owned(), is_soft)]);
        assert_eq!(asked(&[]), one(PurgeKind::Url, "", false));
        assert_eq!(asked(&[("Ktrix-Purge", "url")]), one(PurgeKind::Url, "", false));
        assert_eq!(asked(&[("Soft-Purge", "1")]), one(PurgeKind::Url, "", true));
        assert_eq!(asked(&[("Fastly-Soft-Purge", "0")]), one(PurgeKind::Url, "", false));
        let prefix = [("Ktrix-Purge", "Prefix, soft")];
        assert_eq!(asked(&prefix), one(PurgeKind::Prefix, "//a.example/x?y", true));
        assert_eq!(asked(&[("ktrix-purge", "host")]), one(PurgeKind::Host, "a.example:80", false));
        assert_eq!(asked(&[("ktrix-purge", "all")]), one(PurgeKind::All, "", false));
        let tag = |text: &str, is_soft| (PurgeKind::Tag, text.to_owned(), is_soft);
        assert_eq!(
            asked(&[("surrogate-key", "a b"), ("xkey-softpurge", "c"), ("cache-tag", "d,e")]),
            Ok(vec![
                tag("d", false),
                tag("e", false),
                tag("a", false),
                tag("b", false),
                tag("c", true)
            ])
        );
        let group = "http://a.example\ng";
        assert_eq!(asked(&[("cache-groups", "\"g\"")]), one(PurgeKind::Group, group, false));
    }

    #[test]
    fn targets_have_whole_names_for_people() {
        for (field, name) in [
            (("xkey", "a"), "a"),
            (("cache-groups", "\"g\""), "g of http://A.example:80"),
            (("ktrix-purge", "host"), "A.example:80"),
            (("ktrix-purge", "prefix"), "http://A.example:80/x?y"),
        ] {
            let targets =
                targets(&fields(&[field]), Scheme::Http, b"A.example:80", b"/x?y").unwrap();
            assert_eq!(targets.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), [name]);
        }
    }

    #[test]
    fn malformed_requests_are_refused() {
        for list in [[("ktrix-purge", "everything")], [("ktrix-purge", "host, all")]] {
            assert_eq!(asked(&list), Err(PurgeRefusal::Word), "{list:?}");
        }
        assert_eq!(asked(&[("ktrix-purge", "all"), ("xkey", "a")]), Err(PurgeRefusal::Word));
        assert_eq!(asked(&[("xkey", " ,")]), Err(PurgeRefusal::Empty));
        assert_eq!(asked(&[("cache-groups", "g")]), Err(PurgeRefusal::Empty));
        let of = |host: &str, list: &[(&str, &str)]| {
            targets(&fields(list), Scheme::Http, host.as_bytes(), b"/").map(|targets| targets.len())
        };
        for list in
            [[("ktrix-purge", "host")], [("ktrix-purge", "prefix")], [("cache-groups", "\"g\"")]]
        {
            assert_eq!(of("", &list), Err(PurgeRefusal::Host), "{list:?}");
            assert_eq!(of("*.test", &list), Err(PurgeRefusal::Host), "{list:?}");
        }
        assert_eq!((of("*.test", &[]), of("", &[])), (Err(PurgeRefusal::Host), Ok(1)));
        assert_eq!(of("*.test", &[("xkey", "a")]), Ok(1));
        let many = "x ".repeat(TARGETS_MAX + 1);
        assert_eq!(asked(&[("xkey", &many)]), Err(PurgeRefusal::TooMany));
    }
}
