//! The list of the variants of a key.
//!
//! A variant has a key of its own and is found without the list. The list bounds their number to
//! [`VARIANTS_MAX`]. For a request that selects none of them, it gives their entity tags, so that
//! the origin can name one that would do (RFC 9111 sections 4.1 and 4.3.1). The list may be
//! wrong: it may name a variant that is gone, and the tag of one that it lacks is not sent.
//!
//! ```text
//! version, 1 byte; then for each variant, the first to go first:
//!     2 bytes  length of its selecting fields, as in its key text
//!     1 byte   length of its entity tag; 0 if it has no strong one
//!     1 byte   length of its Content-Language; 0 if it has none, or several
//!     -        the three
//! ```

use std::collections::VecDeque;

use crate::http::fields::Fields;
use crate::http::validator::EntityTag;

/// Most variants of a key that are kept.
pub const VARIANTS_MAX: usize = 64;

/// Most bytes of a list.
pub const LIST_BYTES_MAX: usize = 64 << 10;

/// Most bytes of the selecting fields of a variant, so that a list has room for any single one.
pub const CHOSEN_BYTES_MAX: usize = LIST_BYTES_MAX - 1 - VARIANT_HEAD_LEN - 2 * TEXT_BYTES_MAX;

/// Most bytes of the tags of other variants in a fetch, well within what servers accept in a field
/// line. Tags of the usual lengths all fit.
const TAGS_BYTES_MAX: usize = 4 << 10;

/// One stored variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Its selecting fields with their normalised values: the text between the primary key and the
    /// mark of the marker in its key text.
    pub chosen: Box<[u8]>,
    /// Its entity tag, if that is strong: several variants may have the same weak one (RFC 9110
    /// section 8.8.1).
    pub tag: Box<[u8]>,
    /// Its language, in lower case, if it has just one.
    pub language: Box<[u8]>,
}

impl Variant {
    /// The variant of a response with these fields; `None` if its selecting fields are too long.
    pub fn of(chosen: &[u8], response: &Fields) -> Option<Self> {
        let is_strong = EntityTag::of(response).is_some_and(|tag| !tag.is_weak);
        let tag = response.get("etag").filter(|tag| is_strong && tag.len() <= TEXT_BYTES_MAX);
        let mut languages = response.list("content-language");
        let language = match (languages.next(), languages.next()) {
            (Some(language), None) if language.len() <= TEXT_BYTES_MAX => language,
            _ => &[],
        };
        (chosen.len() <= CHOSEN_BYTES_MAX).then(|| Self {
            chosen: chosen.into(),
            tag: tag.unwrap_or_default().into(),
            language: language.to_ascii_lowercase().into(),
        })
    }

    /// Its bytes in a list.
    fn len(&self) -> usize {
        VARIANT_HEAD_LEN + self.chosen.len() + self.tag.len() + self.language.len()
    }
}

/// The variants of a key, in the order in which they were stored or spared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variants {
    list: Vec<Variant>,
}

impl Variants {
    /// Reads a list; a malformed one, or one of another version, reads as empty.
    pub fn decode(bytes: &[u8]) -> Self {
        let Some((&VERSION, mut rest)) = bytes.split_first() else { return Self::default() };
        let mut list = Vec::new();
        while !rest.is_empty() && list.len() < VARIANTS_MAX {
            let Some((variant, tail)) = take(rest) else { return Self::default() };
            list.push(variant);
            rest = tail;
        }
        Self { list }
    }

    /// The list as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        for variant in &self.list {
            out.extend_from_slice(&(variant.chosen.len() as u16).to_le_bytes());
            out.extend_from_slice(&[variant.tag.len() as u8, variant.language.len() as u8]);
            for text in [&variant.chosen, &variant.tag, &variant.language] {
                out.extend_from_slice(text);
            }
        }
        out
    }

    /// Whether this variant is in the list as it is.
    pub fn has(&self, variant: &Variant) -> bool {
        self.list.contains(variant)
    }

    /// Enters a variant as the newest and gives out those that have no room any more; `None` if it
    /// is in the list as it is.
    ///
    /// The oldest goes first. One that was used is spared once, as the newest but one. `takes_mark`
    /// says whether a variant was used since it was asked last.
    pub fn enter(
        &mut self,
        variant: Variant,
        mut takes_mark: impl FnMut(&Variant) -> bool,
    ) -> Option<Vec<Variant>> {
        if self.has(&variant) {
            return None;
        }
        self.list.retain(|other| other.chosen != variant.chosen);
        let mut bytes = 1 + variant.len() + self.list.iter().map(Variant::len).sum::<usize>();
        let mut n_to_ask = self.list.len();
        let mut others = VecDeque::from(std::mem::take(&mut self.list));
        let mut gone = Vec::new();
        while others.len() >= VARIANTS_MAX || bytes > LIST_BYTES_MAX {
            let Some(oldest) = others.pop_front() else { break };
            if n_to_ask > 0 && takes_mark(&oldest) {
                others.push_back(oldest);
            } else {
                bytes -= oldest.len();
                gone.push(oldest);
            }
            n_to_ask = n_to_ask.saturating_sub(1);
        }
        self.list = others.into();
        self.list.push(variant);
        Some(gone)
    }

    /// The entity tags for a fetch, each once, that of the newest variant first, without those that
    /// make the field longer than 4 KiB.
    pub fn tags(&self) -> Vec<&[u8]> {
        let mut tags: Vec<&[u8]> = Vec::new();
        let mut bytes_left = TAGS_BYTES_MAX;
        for variant in self.list.iter().rev().filter(|variant| !variant.tag.is_empty()) {
            // With a comma and a space.
            let left = bytes_left.checked_sub(variant.tag.len() + 2);
            if let Some(left) = left.filter(|_| !tags.contains(&&*variant.tag)) {
                tags.push(&variant.tag);
                bytes_left = left;
            }
        }
        tags
    }

    /// The newest variant with the entity tag of a 304 (RFC 9111 section 4.3.4). A 304 without a
    /// tag confirms none of them, since the fetch had tags.
    pub fn named_by(&self, not_modified: &Fields) -> Option<&Variant> {
        let theirs = EntityTag::of(not_modified)?;
        self.list
            .iter()
            .rev()
            .find(|variant| EntityTag::parse(&variant.tag).is_some_and(|t| t.is_strongly(&theirs)))
    }

    /// The variants, the oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Variant> {
        self.list.iter()
    }

    /// Removes the variants for which `keep` is false.
    pub fn retain(&mut self, keep: impl FnMut(&Variant) -> bool) {
        self.list.retain(keep);
    }

    /// Whether it has no variant.
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

fn take(bytes: &[u8]) -> Option<(Variant, &[u8])> {
    let (chosen_len, rest) = bytes.split_first_chunk()?;
    let (&[tag_len, language_len], rest) = rest.split_first_chunk()?;
    let (chosen, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*chosen_len)))?;
    let (tag, rest) = rest.split_at_checked(usize::from(tag_len))?;
    let (language, rest) = rest.split_at_checked(usize::from(language_len))?;
    let variant = Variant { chosen: chosen.into(), tag: tag.into(), language: language.into() };
    Some((variant, rest))
}

const VERSION: u8 = 1;

/// The bytes of the lengths before each variant.
const VARIANT_HEAD_LEN: usize = 4;

/// Most bytes of a tag or a language; longer ones are left out.
const TEXT_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample::fields;
    use proptest::prelude::*;

    fn variant(chosen: &str, tag: &str) -> Variant {
        Variant::of(chosen.as_bytes(), &fields(&[("ETag", tag)])).unwrap()
    }

    #[test]
    fn only_strong_tags_and_single_languages_are_kept() {
        let of = |list: &[(&str, &str)]| Variant::of(b"x", &fields(list)).unwrap();
        assert_eq!(&*of(&[("etag", "\"a\"")]).tag, b"\"a\"");
        assert_eq!(&*of(&[("etag", "W/\"a\"")]).tag, b"");
        assert_eq!(&*of(&[("etag", "a")]).tag, b"");
        assert_eq!(&*of(&[("content-language", "de-AT")]).language, b"de-at");
        assert_eq!(&*of(&[("content-language", "de, en")]).language, b"");
        assert_eq!(Variant::of(&[0; 1 << 16], &fields(&[])), None);
    }

    #[test]
    fn the_oldest_go_if_they_are_too_many() {
        let mut variants = Variants::default();
        for n in 0..VARIANTS_MAX {
            assert_eq!(variants.enter(variant(&n.to_string(), ""), unused), Some(vec![]));
        }
        assert_eq!(variants.enter(variant("5", ""), unused), None, "it is in the list");
        assert_eq!(
            variants.enter(variant("0", "\"a\""), unused),
            Some(vec![]),
            "it is the newest now"
        );
        assert_eq!(variants.enter(variant("x", ""), unused), Some(vec![variant("1", "")]));
        assert_eq!(variants.list.len(), VARIANTS_MAX);
        assert_eq!(Variants::decode(&variants.encode()), variants);
    }

    fn unused(_: &Variant) -> bool {
        false
    }

    #[test]
    fn a_variant_that_was_used_is_spared_once() {
        let mut variants = Variants::default();
        for n in 0..VARIANTS_MAX {
            variants.enter(variant(&n.to_string(), ""), unused);
        }
        let mut marks = vec![variant("0", ""), variant("2", "")];
        let mut enter = |name: &str| {
            variants.enter(variant(name, ""), |asked| {
                let n_before = marks.len();
                marks.retain(|marked| marked != asked);
                marks.len() < n_before
            })
        };
        assert_eq!(enter("x"), Some(vec![variant("1", "")]));
        assert_eq!(enter("y"), Some(vec![variant("3", "")]));
        let names: Vec<_> = variants.iter().rev().take(4).map(|it| it.chosen.to_vec()).collect();
        assert_eq!(names, [b"y", b"2", b"x", b"0"]);
        let gone = variants.enter(variant("z", ""), |_| true);
        assert_eq!(gone, Some(vec![variant("4", "")]), "all are used: the oldest goes");
        assert_eq!(variants.list.len(), VARIANTS_MAX);
    }

    #[test]
    fn the_oldest_go_if_they_have_too_many_bytes() {
        let long = |n: u8| Variant::of(&[n; 20 << 10], &fields(&[])).unwrap();
        let mut variants = Variants::default();
        for n in 0..3 {
            assert_eq!(variants.enter(long(n), unused), Some(vec![]));
        }
        assert_eq!(variants.enter(long(3), unused), Some(vec![long(0)]));
        let longest = Variant::of(&[9; CHOSEN_BYTES_MAX], &fields(&[])).unwrap();
        assert_eq!(variants.enter(longest.clone(), unused), Some(vec![long(1), long(2), long(3)]));
        assert!(variants.encode().len() <= LIST_BYTES_MAX);
        assert_eq!(Variants::decode(&variants.encode()).list, [longest]);
        assert_eq!(Variant::of(&[9; CHOSEN_BYTES_MAX + 1], &fields(&[])), None);
    }

    #[test]
    fn tags_are_sent_once_and_find_their_variant() {
        let mut variants = Variants::default();
        for (chosen, tag) in [("a", "\"1\""), ("b", ""), ("c", "\"2\""), ("d", "\"1\"")] {
            variants.enter(variant(chosen, tag), unused);
        }
        assert_eq!(variants.tags(), [b"\"1\"", b"\"2\""]);
        let named = |tag: &str| {
            let found = variants.named_by(&fields(&[("etag", tag)]));
            found.map(|variant| String::from_utf8(variant.chosen.to_vec()).unwrap())
        };
        assert_eq!(named("\"1\"").as_deref(), Some("d"));
        assert_eq!(named("\"2\"").as_deref(), Some("c"));
        assert_eq!(named("W/\"2\""), None);
        assert_eq!(named("\"3\""), None);
        assert_eq!(variants.named_by(&fields(&[])), None);
    }

    #[test]
    fn all_tags_that_fit_in_a_field_are_sent() {
        let sent = |tag: &dyn Fn(usize) -> String| {
            let mut variants = Variants::default();
            for n in 0..VARIANTS_MAX {
                variants.enter(variant(&n.to_string(), &tag(n)), unused);
            }
            let tags = variants.tags();
            assert_eq!(tags[0], tag(VARIANTS_MAX - 1).as_bytes(), "the newest first");
            (tags.len(), tags.join(&b", "[..]).len())
        };
        assert_eq!(sent(&|n| format!("\"{n:032}\"")), (VARIANTS_MAX, VARIANTS_MAX * 36 - 2));
        let (n_long, bytes) = sent(&|n| format!("\"{n:0250}\""));
        assert!(n_long < VARIANTS_MAX, "{n_long}");
        assert!((TAGS_BYTES_MAX - 254..TAGS_BYTES_MAX).contains(&bytes), "{bytes}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..60), v: bool) {
            if let (true, Some(first)) = (v, bytes.first_mut()) {
                *first = VERSION;
            }
            let variants = Variants::decode(&bytes);
            prop_assert_eq!(Variants::decode(&variants.encode()), variants);
        }
    }
}
