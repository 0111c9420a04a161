//! `vary-language: best`: if the variant that a request selects is not stored, a stored variant in
//! the language that it prefers to all others answers.
//!
//! RFC 9111 section 4.1 requires that the origin is asked. The operator of a route allows this.

use crate::cache::found::{Found, Lookup};
use crate::cache::name::{Marker, Name, VariantText};
use crate::cache::variants;
use crate::cache::worker::Cache;
use crate::http::head::RequestHead;
use crate::policy::cache_status::CacheVerdict;
use crate::policy::decide::{self, Action};
use crate::policy::key::variants::{Variant, Variants};
use crate::policy::rfc9111::rules::Rules;
use crate::reactor;

/// The fresh variant in the preferred language, where a look-up found nothing; for a route that
/// selects languages.
pub async fn select(
    cache: &Cache,
    found: &Found,
    request: &RequestHead,
    rules: &Rules,
) -> Option<Found> {
    let marker = found.marker.as_ref().filter(|_| matches!(found.lookup, Lookup::Miss { .. }))?;
    let list = variants::read(cache, &found.primary.variant_list(marker)).await;
    let name = name_in_language(&list, &found.primary, marker, &found.name)?;
    let lookup = Lookup::Stored(variants::find_whole(cache, &name).await?);
    let other = Found { name, lookup, ..found.clone() };
    is_hit(decide::decide(request, other.cached(), rules, reactor::now().unix_s()).0)
        .then_some(other)
}

/// The name of the listed variant in the preferred language of a request that selects `name`.
pub fn name_in_language(
    list: &Variants,
    primary: &Name,
    marker: &Marker,
    name: &Name,
) -> Option<Name> {
    let parts = VariantText::of(&name.text)?;
    let chosen = &in_language(list, parts.chosen)?.chosen;
    Some(VariantText { primary: &primary.text, chosen, mark: &marker.mark }.name())
}

/// Whether a variant that the request does not select may answer: only if it is fresh and needs no
/// validation.
pub const fn is_hit(action: Action) -> bool {
    matches!(action, Action::Answer { verdict: CacheVerdict::Hit, refreshes: false, .. })
}

/// The newest variant that differs from the one which `chosen` selects by Accept-Language alone,
/// and is in the one language that this request prefers to every other. The origin cannot have a
/// better one.
fn in_language<'v>(list: &'v Variants, chosen: &[u8]) -> Option<&'v Variant> {
    let (others, accepted) = split_language(chosen)?;
    let preferred = preferred(accepted)?;
    list.iter().rev().find(|variant| {
        *variant.language == *preferred
            && split_language(&variant.chosen).is_some_and(|(own, _)| own == others)
    })
}

/// The selecting fields of a variant without Accept-Language, and the normal form of
/// Accept-Language.
fn split_language(chosen: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    const NAME: &[u8] = b"\naccept-language:";
    let at = memchr::memmem::find(chosen, NAME)?;
    let (before, rest) = chosen.split_at_checked(at)?;
    let value = rest.get(NAME.len()..)?;
    let end = memchr::memchr(b'\n', value).unwrap_or(value.len());
    let (value, after) = value.split_at_checked(end)?;
    Some(([before, after].concat(), value))
}

/// The language range with the highest weight in a normalised Accept-Language; `None` if there is
/// no single one, or it is `*`, or the value is malformed.
fn preferred(accepted: &[u8]) -> Option<&[u8]> {
    let mut members = accepted.split(|&byte| byte == b',').map(weighted);
    let (name, weight) = members.next()??;
    // The heaviest comes first, see `policy/key/normalise.rs`.
    let is_first = members.next().is_none_or(|second| second.is_some_and(|(_, w)| w < weight));
    let is_sound = members.all(|member| member.is_some());
    let is_wanted = name != b"*" && weight > *b"0.000";
    (is_first && is_sound && is_wanted).then_some(name)
}

/// A member of the normal form as its name and its weight in digits.
fn weighted(member: &[u8]) -> Option<(&[u8], [u8; 5])> {
    let (name, weight) = match memchr::memmem::find(member, b";q=") {
        Some(at) => (member.get(..at)?, member.get(at + 3..)?.try_into().ok()?),
        None => (member, *b"1.000"),
    };
    let is_range = |byte: &u8| byte.is_ascii_alphanumeric() || b"-*".contains(byte);
    (!name.is_empty() && name.iter().all(is_range)).then_some((name, weight))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample::fields;

    #[test]
    fn a_language_is_selected_only_if_it_outweighs_all_others() {
        let mut variants = Variants::default();
        for (chosen, language) in [
            ("\naccept-language:de,en", "DE"),
            ("\na:1\naccept-language:fr", "fr"),
            ("\naccept-language:x\nb:2", "fr"),
        ] {
            let fields = fields(&[("Content-Language", language)]);
            variants.enter(Variant::of(chosen.as_bytes(), &fields).unwrap(), |_| false);
        }
        let found = |chosen: &str| in_language(&variants, chosen.as_bytes()).is_some();
        assert!(found("\naccept-language:de,fr;q=0.500"));
        assert!(found("\naccept-language:de;q=0.700,*;q=0.100"));
        assert!(found("\na:1\naccept-language:fr"));
        assert!(found("\naccept-language:fr\nb:2"));
        for chosen in [
            "\naccept-language:de,fr", "\naccept-language:de;q=0.000", "\naccept-language:*",
            "\naccept-language:en", "\naccept-language:de-at", "\naccept-language:fr",
            "\na:2\naccept-language:fr", "\naccept-language:de;q=5,fr", "\naccept-language", "",
        ] {
            assert!(!found(chosen), "{chosen:?}");
        }
    }
}
