//! What a request with the method PURGE asks for.
//!
//! | field | meaning |
//! | --- | --- |
//! | (none) | purge the URL, with all variants |
//! | `Ktrix-Purge: prefix`, `host`, `all` | purge what begins like the URL, is on its host, everything |
//! | `Ktrix-Purge: soft`, `Soft-Purge: 1`, `Fastly-Soft-Purge: 1` | make stale only |
//! | `Cache-Tag`, `Surrogate-Key`, `xkey`, `xkey-purge` | purge what has one of these tags |
//! | `xkey-softpurge` | make stale what has one of these tags |
//! | `Cache-Groups` | purge what is in one of these groups of the URL's origin (RFC 9875) |
//!
//! Tags and groups take the place of the URL. What is not understood is refused as a whole: a
//! purge that did something else than was meant would go unnoticed.

use crate::base::chars::eq_ignore_case;
use crate::http::fields::Fields;
use crate::http::scheme::Scheme;
use crate::policy::key::host::NamedHost;
use crate::policy::purge::surrogate::{self, Kind};

/// One thing to purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// By what it is named.
    pub kind: Kind,
    /// The text that is hashed, see [`label`]; for a URL the caller's, who knows the route.
    pub text: Vec<u8>,
    /// What is named, for people.
    pub name: String,
    /// Make stale only.
    pub is_soft: bool,
}

/// Why a request to purge is not obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A word of `Ktrix-Purge` that means nothing, or two that exclude each other.
    Word,
    /// A field with tags or groups holds none, or is malformed.
    Empty,
    /// More things than [`WISHES_MAX`].
    TooMany,
    /// The URL has no host, or a wildcard for one.
    Host,
    /// The keys of the route do not tell what begins so.
    Untold,
}

impl Refusal {
    /// What is wrong.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Word => "Ktrix-Purge takes one of url, prefix, host and all, and soft",
            Self::Empty => "a field that names tags or groups names none",
            Self::TooMany => "more tags and groups than one request may purge",
            Self::Host => "to be purged is what is on one host, and no wildcard names one",
            Self::Untold => {
                "the keys of this route leave out or reorder what the prefix consists of: purge \
                 the URL, the host, or the path of the route"
            }
        }
    }
}

/// Most things that one request purges.
pub const WISHES_MAX: usize = 256;

/// What a request to purge asks for. `scheme`, `authority` and `path_and_query` are those of its
/// URL.
///
/// # Errors
/// Why nothing is to be purged.
pub fn wishes(
    fields: &Fields,
    scheme: Scheme,
    authority: &[u8],
    path_and_query: &[u8],
) -> Result<Vec<Wish>, Refusal> {
    let (kind, is_soft) = words(fields)?;
    let mut wishes = Vec::new();
    let mut take = |kind: Kind, text: Vec<u8>, name: &[u8], is_soft: bool| {
        let name = String::from_utf8_lossy(name).into_owned();
        wishes.push(Wish { kind, text, name, is_soft });
        if wishes.len() > WISHES_MAX { Err(Refusal::TooMany) } else { Ok(()) }
    };
    let host = || NamedHost::parse(authority).ok_or(Refusal::Host);
    let mut names_others = false;
    for (name, makes_soft) in TAG_FIELDS {
        for value in fields.get_all(name) {
            names_others = true;
            for tag in surrogate::tags_in(value) {
                take(Kind::Tag, tag.to_vec(), tag, is_soft || makes_soft)?;
            }
        }
    }
    for group in surrogate::groups_of(fields, "cache-groups") {
        host()?;
        let text = surrogate::group_text(scheme, authority, &group);
        let name = [&group, &b" of "[..], scheme.word().as_bytes(), b"://", authority].concat();
        take(Kind::Group, text, &name, is_soft)?;
    }
    names_others |= fields.contains("cache-groups");
    if names_others {
        // With another kind the request contradicts itself.
        return match (wishes.is_empty(), kind) {
            (true, _) => Err(Refusal::Empty),
            (false, Some(_)) => Err(Refusal::Word),
            (false, None) => Ok(wishes),
        };
    }
    let url = [scheme.word().as_bytes(), b"://", authority, path_and_query].concat();
    let kind = kind.unwrap_or(Kind::Url);
    let text = match kind {
        Kind::Host => host()?.text(),
        Kind::Prefix => surrogate::prefix_text(&url).map_err(|_| Refusal::Host)?,
        // An old client's request may have no host, and is stored without one.
        Kind::Url if !authority.is_empty() => host().map(|_| Vec::new())?,
        _ => Vec::new(),
    };
    let name = match kind {
        Kind::All => &b""[..],
        Kind::Host => authority,
        _ => &url,
    };
    take(kind, text, name, is_soft)?;
    Ok(wishes)
}

/// Kind and softness, as `Ktrix-Purge` and the fields of others say them.
fn words(fields: &Fields) -> Result<(Option<Kind>, bool), Refusal> {
    let is_one = |name: &str| fields.get(name) == Some(b"1");
    let mut is_soft = is_one("soft-purge") || is_one("fastly-soft-purge");
    let mut kind = None;
    for word in fields.list("ktrix-purge") {
        if eq_ignore_case(word, b"soft") {
            is_soft = true;
            continue;
        }
        let named = [Kind::Url, Kind::Prefix, Kind::Host, Kind::All];
        let found = named.into_iter().find(|kind| eq_ignore_case(word, kind.word().as_bytes()));
        if found.is_none() || kind.is_some() {
            return Err(Refusal::Word);
        }
        kind = found;
    }
    Ok((kind, is_soft))
}

/// Fields of a request that name tags, and whether they are soft by themselves.
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

    fn asked(list: &[(&str, &str)]) -> Result<Vec<(Kind, String, bool)>, Refusal> {
        let wishes = wishes(&fields(list), Scheme::Http, b"A.example:80", b"/x?y")?;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ok(wishes.into_iter().map(|it| (it.kind, text(it.text), it.is_soft)).collect())
    }

    #[test]
    fn fields_say_what_is_purged() {
        let one = |kind, text: &str, is_soft| Ok(vec![(kind, text.to_owned(), is_soft)]);
        assert_eq!(asked(&[]), one(Kind::Url, "", false));
        assert_eq!(asked(&[("Ktrix-Purge", "url")]), one(Kind::Url, "", false));
        assert_eq!(asked(&[("Soft-Purge", "1")]), one(Kind::Url, "", true));
        assert_eq!(asked(&[("Fastly-Soft-Purge", "0")]), one(Kind::Url, "", false));
        let prefix = [("Ktrix-Purge", "Prefix, soft")];
        assert_eq!(asked(&prefix), one(Kind::Prefix, "//a.example/x?y", true));
        assert_eq!(asked(&[("ktrix-purge", "host")]), one(Kind::Host, "a.example:80", false));
        assert_eq!(asked(&[("ktrix-purge", "all")]), one(Kind::All, "", false));
        let tag = |text: &str, is_soft| (Kind::Tag, text.to_owned(), is_soft);
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
        assert_eq!(asked(&[("cache-groups", "\"g\"")]), one(Kind::Group, group, false));
    }

    #[test]
    fn what_is_named_is_told_with_all_that_makes_it_so() {
        for (field, name) in [
            (("xkey", "a"), "a"),
            (("cache-groups", "\"g\""), "g of http://A.example:80"),
            (("ktrix-purge", "host"), "A.example:80"),
            (("ktrix-purge", "prefix"), "http://A.example:80/x?y"),
        ] {
            let wishes = wishes(&fields(&[field]), Scheme::Http, b"A.example:80", b"/x?y").unwrap();
            assert_eq!(wishes.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), [name]);
        }
    }

    #[test]
    fn what_is_not_understood_purges_nothing() {
        for list in [[("ktrix-purge", "everything")], [("ktrix-purge", "host, all")]] {
            assert_eq!(asked(&list), Err(Refusal::Word), "{list:?}");
        }
        assert_eq!(asked(&[("ktrix-purge", "all"), ("xkey", "a")]), Err(Refusal::Word));
        assert_eq!(asked(&[("xkey", " ,")]), Err(Refusal::Empty));
        assert_eq!(asked(&[("cache-groups", "g")]), Err(Refusal::Empty));
        let of = |host: &str, list: &[(&str, &str)]| {
            wishes(&fields(list), Scheme::Http, host.as_bytes(), b"/").map(|wishes| wishes.len())
        };
        for list in
            [[("ktrix-purge", "host")], [("ktrix-purge", "prefix")], [("cache-groups", "\"g\"")]]
        {
            assert_eq!(of("", &list), Err(Refusal::Host), "{list:?}");
            assert_eq!(of("*.test", &list), Err(Refusal::Host), "{list:?}");
        }
        assert_eq!((of("*.test", &[]), of("", &[])), (Err(Refusal::Host), Ok(1)));
        assert_eq!(of("*.test", &[("xkey", "a")]), Ok(1));
        let many = "x ".repeat(WISHES_MAX + 1);
        assert_eq!(asked(&[("xkey", &many)]), Err(Refusal::TooMany));
    }
}
