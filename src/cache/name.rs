//! The names of stored objects: the text of a key, its MD5, and the names derived from it.
//!
//! | what | its key text |
//! | --- | --- |
//! | the one response of a key, or the marker of its variants | the text before Vary |
//! | a variant | that, a line for each field that chooses, `#` and the marker's mark |
//! | the list of a key's variants | the text before Vary, `#` and the marker's mark |
//! | a part | the text of its whole, `@` and the number of the fill that stored it |
//!
//! A new marker has a new mark, so that removing a marker makes all its variants unreachable.

use std::rc::Rc;

use crate::http::fields::Fields;
use crate::http::forward;
use crate::http::head::RequestHead;
use crate::http::scheme::Scheme;
use crate::http::status::Status;
use crate::policy::key::variants::CHOSEN_BYTES_MAX;
use crate::policy::key::vary::VaryNames;
use crate::policy::key::{self, Key, KeyComponents, ROUTE};

/// The status in the files of markers and of lists of variants, which no response has.
pub(crate) const MARKER_STATUS: Status = Status(0);

/// The status of parts, and of the list of a key's parts, which is stored under the key itself.
pub(crate) const PART_STATUS: Status = Status(206);

/// A key and the text it was made of.
#[derive(Clone, Debug)]
pub struct Name {
    /// The text, which a cache file repeats.
    pub text: Rc<[u8]>,
    /// Its MD5.
    pub key: Key,
}

impl Name {
    /// Names a text.
    pub fn of(text: &[u8]) -> Self {
        Self { text: text.into(), key: key::key_of(text) }
    }

    /// The name of a request's target, before Vary.
    pub fn of_request(components: &KeyComponents, scheme: Scheme, head: &RequestHead) -> Self {
        let mut text = Vec::with_capacity(128);
        let target = head.target.path_and_query();
        key::key_text(components, scheme, head.authority(), target, &mut text);
        Self::of(&text)
    }

    /// The name of the variant that `request` selects below this one, by the marker that has this
    /// mark.
    ///
    /// The origin does not see a field that the request's Connection names, so such a field does
    /// not select.
    pub fn variant(&self, vary: &VaryNames, mark: &[u8], request: &Fields) -> Self {
        let mut text = Vec::with_capacity(self.text.len() + 128);
        match request.contains("connection") {
            false => key::variant_text(&self.text, vary, request, &mut text),
            true => {
                let mut passed_on = request.clone();
                forward::strip_hop_by_hop(&mut passed_on);
                key::variant_text(&self.text, vary, &passed_on, &mut text);
            }
        }
        text.extend_from_slice(MARK);
        text.extend_from_slice(mark);
        Self::of(&text)
    }

    /// The name of the list of the variants below this one.
    pub fn variant_list(&self, marker: &Marker) -> Self {
        VariantText { primary: &self.text, chosen: b"", mark: &marker.mark }.name()
    }

    /// The name that `request` selects beside another variant of this name; `None` if `other` is
    /// no variant of it.
    pub fn beside(&self, other: &Self, vary: &VaryNames, request: &Fields) -> Option<Self> {
        let rest = other.text.strip_prefix(&*self.text)?;
        let mark = memchr::memmem::rfind(rest, MARK)? + MARK.len();
        Some(self.variant(vary, rest.get(mark..)?, request))
    }

    /// Whether the name is too long for a list of variants. Without a list, the number of such
    /// variants would have no bound.
    pub fn is_too_long(&self) -> bool {
        VariantText::of(&self.text).is_some_and(|text| text.chosen.len() > CHOSEN_BYTES_MAX)
    }

    /// The name of the part of this one that has this number.
    pub fn part(&self, id: u64) -> Self {
        Self::of(&[&*self.text, PART, format!("{id:x}").as_bytes()].concat())
    }

    /// The name of what this is a part of; `None` if it is no part.
    pub fn of_whole(&self) -> Option<Self> {
        let end = memchr::memmem::rfind(&self.text, PART)?;
        self.text.get(..end).map(Self::of)
    }
}

/// The marker that selects among the variants of a key.
#[derive(Clone, Debug)]
pub struct Marker {
    /// The request fields that select.
    pub names: VaryNames,
    /// The marker's own mark, part of its variants' names.
    pub mark: Rc<[u8]>,
}

/// The components of a variant's key text.
#[derive(Clone, Copy)]
pub(crate) struct VariantText<'t> {
    pub(crate) primary: &'t [u8],
    pub(crate) chosen: &'t [u8],
    pub(crate) mark: &'t [u8],
}

impl<'t> VariantText<'t> {
    /// Splits the key text of a variant; `None` for any other text.
    pub(crate) fn of(text: &'t [u8]) -> Option<Self> {
        let url = memchr::memchr(b'\n', text)?;
        // The conditions of a route belong to the primary text.
        let end = match text.get(url..)?.strip_prefix(ROUTE) {
            Some(word) => url + ROUTE.len() + memchr::memchr(b'\n', word)?,
            None => url,
        };
        let (primary, rest) = text.split_at_checked(end)?;
        let (chosen, mark) = rest.split_at_checked(memchr::memmem::rfind(rest, MARK)?)?;
        (!chosen.is_empty()).then(|| Self { primary, chosen, mark: &mark[MARK.len()..] })
    }

    pub(crate) fn name(&self) -> Name {
        Name::of(&[self.primary, self.chosen, MARK, self.mark].concat())
    }

    pub(crate) fn list_name(&self) -> Name {
        Self { chosen: b"", ..*self }.name()
    }
}

/// The separator before the number of a part.
const PART: &[u8] = b"\n@";

/// The separator between a variant's fields and its marker's mark.
const MARK: &[u8] = b"\n#";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_of_another_marker_have_other_names() {
        let primary = Name::of(b"GET http://example.org/");
        let response: Fields = [("Vary", "accept-language")].into_iter().collect();
        let names = VaryNames::parse(&response).unwrap().unwrap();
        let request: Fields = [("Accept-Language", "de")].into_iter().collect();
        let first = primary.variant(&names, b"1", &request);
        assert_eq!(first.key, primary.variant(&names, b"1", &request).key);
        assert_ne!(first.key, primary.variant(&names, b"2", &request).key);
    }

    #[test]
    fn the_key_text_of_a_variant_is_split_into_its_components() {
        let text = b"GET http://a/x\naccept:b\nfoo:#c\n#12";
        let parts = VariantText::of(text).unwrap();
        assert_eq!(parts.chosen, b"\naccept:b\nfoo:#c");
        assert_eq!(parts.name().text, Name::of(text).text);
        assert_eq!(&*parts.list_name().text, b"GET http://a/x\n#12");
        assert!(VariantText::of(&parts.list_name().text).is_none(), "a list is in no list");
        assert!(VariantText::of(b"GET http://a/x").is_none());
        let parts = VariantText::of(b"GET http://a/x\n!header a=b\naccept:b\n#12").unwrap();
        assert_eq!(parts.primary, b"GET http://a/x\n!header a=b");
        assert_eq!(parts.chosen, b"\naccept:b");
        assert!(VariantText::of(&parts.list_name().text).is_none(), "a list is in no list");
    }
}
