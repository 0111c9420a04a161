//! The meta section of a cache file: what the policy must know of a stored response, as bytes.
//!
//! ```text
//! offset  bytes  what
//!      0      1  version, 2
//!      1      1  flags: 1 must-revalidate, 2 no-cache, 4 immutable, 8 Vary names follow,
//!                16 there were more tags than are stored
//!      2      4  age when received, seconds
//!      6      8  received, Unix seconds
//!     14      8  fresh until
//!     22      8  stale-while-revalidate until
//!     30      8  stale-if-error until
//!     38      8  the last purge before the origin was asked
//!     46      2  number of tags
//!     48      -  the tags, 8 bytes each, ascending
//!      -      -  with flag 8: the Vary names, lower-case, sorted, a line feed between each two
//! ```
//!
//! Numbers are little-endian. Other bytes, such as those of a later version or an unknown flag, are
//! refused, and their file is a miss.

use crate::policy::key::vary::VaryNames;
use crate::policy::purge::surrogate::{SurrogateKeys, TAGS_MAX};
use crate::policy::rfc9111::freshness::Lifetimes;

/// The bytes are not a meta section of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// Written by another version of ktrix.
    #[error("version {0} of the meta section is not known")]
    Version(u8),
    /// Too short, too long, or not written by [`encode`].
    #[error("the meta section is malformed")]
    Malformed,
}

/// Most bytes that [`encode`] writes.
pub const META_BYTES_MAX: usize = FIXED_BYTES + 8 * TAGS_MAX + VaryNames::BYTES_MAX;

/// Appends the meta section to `out`.
pub fn encode(lifetimes: &Lifetimes, out: &mut Vec<u8>) {
    let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
    let flags = flag(lifetimes.must_revalidate, MUST_REVALIDATE)
        | flag(lifetimes.no_cache, NO_CACHE)
        | flag(lifetimes.immutable, IMMUTABLE)
        | flag(lifetimes.vary.is_some(), VARY)
        | flag(lifetimes.surrogates.is_cut, CUT);
    out.extend_from_slice(&[VERSION, flags]);
    out.extend_from_slice(&lifetimes.age_s.to_le_bytes());
    for moment_s in [
        lifetimes.received_s, lifetimes.fresh_until_s, lifetimes.swr_until_s, lifetimes.sie_until_s,
    ] {
        out.extend_from_slice(&moment_s.to_le_bytes());
    }
    let SurrogateKeys { purge_epoch, tags, .. } = &lifetimes.surrogates;
    out.extend_from_slice(&purge_epoch.to_le_bytes());
    // A file with more tags than TAGS_MAX would be a miss.
    let n_tags = u16::try_from(tags.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&n_tags.to_le_bytes());
    tags.iter().for_each(|tag| out.extend_from_slice(&tag.to_le_bytes()));
    let names = lifetimes.vary.iter().flat_map(VaryNames::names);
    for (at, name) in names.enumerate() {
        if at > 0 {
            out.push(b'\n');
        }
        out.extend_from_slice(name.as_bytes());
    }
}

/// Reads a whole meta section.
///
/// # Errors
///
/// [`MetaError`] if [`encode`] does not write such bytes.
pub fn decode(bytes: &[u8]) -> Result<Lifetimes, MetaError> {
    let (&version, rest) = bytes.split_first().ok_or(MetaError::Malformed)?;
    if version != VERSION {
        return Err(MetaError::Version(version));
    }
    read(rest).ok_or(MetaError::Malformed)
}

/// Reads what follows the version.
fn read(bytes: &[u8]) -> Option<Lifetimes> {
    let (&flags, bytes) = bytes.split_first()?;
    if flags & !(MUST_REVALIDATE | NO_CACHE | IMMUTABLE | VARY | CUT) != 0 {
        return None;
    }
    let (age_s, bytes) = bytes.split_first_chunk()?;
    let (received_s, bytes) = bytes.split_first_chunk()?;
    let (fresh_until_s, bytes) = bytes.split_first_chunk()?;
    let (swr_until_s, bytes) = bytes.split_first_chunk()?;
    let (sie_until_s, bytes) = bytes.split_first_chunk()?;
    let (surrogates, names) = read_surrogates(bytes, flags & CUT != 0)?;
    let vary = if flags & VARY == 0 {
        names.is_empty().then_some(None)?
    } else {
        Some(VaryNames::from_sorted(str::from_utf8(names).ok()?.split('\n'))?)
    };
    Some(Lifetimes {
        received_s: u64::from_le_bytes(*received_s),
        age_s: u32::from_le_bytes(*age_s),
        fresh_until_s: u64::from_le_bytes(*fresh_until_s),
        swr_until_s: u64::from_le_bytes(*swr_until_s),
        sie_until_s: u64::from_le_bytes(*sie_until_s),
        must_revalidate: flags & MUST_REVALIDATE != 0,
        no_cache: flags & NO_CACHE != 0,
        immutable: flags & IMMUTABLE != 0,
        vary,
        surrogates,
    })
}

/// Reads the surrogate keys, and gives what follows them.
fn read_surrogates(bytes: &[u8], is_cut: bool) -> Option<(SurrogateKeys, &[u8])> {
    let (purge_epoch, bytes) = bytes.split_first_chunk()?;
    let (n_tags, bytes) = bytes.split_first_chunk()?;
    let n_tags = usize::from(u16::from_le_bytes(*n_tags));
    let (tags, rest) = bytes.split_at_checked(n_tags.checked_mul(8)?)?;
    let (tags, _) = tags.as_chunks();
    let tags: Vec<u64> = tags.iter().map(|tag| u64::from_le_bytes(*tag)).collect();
    let is_ascending = tags.is_sorted_by(|first, second| first < second);
    let surrogates =
        SurrogateKeys { purge_epoch: u64::from_le_bytes(*purge_epoch), tags: tags.into(), is_cut };
    (is_ascending && n_tags <= TAGS_MAX).then_some((surrogates, rest))
}

const VERSION: u8 = 2;
const MUST_REVALIDATE: u8 = 1;
const NO_CACHE: u8 = 2;
const IMMUTABLE: u8 = 4;
const VARY: u8 = 8;
const CUT: u8 = 16;

/// Bytes before the tags.
const FIXED_BYTES: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(lifetimes: &Lifetimes) -> Vec<u8> {
        let mut out = Vec::new();
        encode(lifetimes, &mut out);
        out
    }

    fn any_lifetimes() -> impl Strategy<Value = Lifetimes> {
        let names = proptest::collection::btree_set("[a-z-]{1,20}", 0..VaryNames::COUNT_MAX);
        let tags = proptest::collection::btree_set(any::<u64>(), 0..20);
        let surrogates =
            (any::<u64>(), tags, any::<bool>()).prop_map(|(purge_epoch, tags, is_cut)| {
                SurrogateKeys { purge_epoch, tags: tags.into_iter().collect(), is_cut }
            });
        (any::<[u64; 4]>(), any::<u32>(), any::<[bool; 3]>(), names, surrogates).prop_map(
            |(moments, age_s, [must_revalidate, no_cache, immutable], names, surrogates)| {
                let [received_s, fresh_until_s, swr_until_s, sie_until_s] = moments;
                Lifetimes {
                    received_s,
                    age_s,
                    fresh_until_s,
                    swr_until_s,
                    sie_until_s,
                    must_revalidate,
                    no_cache,
                    immutable,
                    vary: VaryNames::from_sorted(names.iter().map(String::as_str)),
                    surrogates,
                }
            },
        )
    }

    #[test]
    fn the_fixed_bytes_have_their_number() {
        assert_eq!(encoded(&Lifetimes::default()).len(), FIXED_BYTES);
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = encoded(&Lifetimes::default());
        bytes[0] = 1;
        assert_eq!(decode(&bytes), Err(MetaError::Version(1)));
        bytes[0] = VERSION;
        bytes[1] = 32;
        assert_eq!(decode(&bytes), Err(MetaError::Malformed));
        assert_eq!(decode(b""), Err(MetaError::Malformed));
    }

    proptest! {
        #[test]
        fn a_meta_section_reads_back(lifetimes in any_lifetimes()) {
            let bytes = encoded(&lifetimes);
            prop_assert!(bytes.len() <= META_BYTES_MAX);
            prop_assert_eq!(decode(&bytes), Ok(lifetimes));
        }

        #[test]
        fn a_cut_or_longer_section_is_refused(lifetimes in any_lifetimes(), cut in 0..FIXED_BYTES) {
            let mut bytes = encoded(&lifetimes);
            prop_assert!(decode(&bytes[..cut]).is_err());
            bytes.push(b'\n');
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), v: bool) {
            if let (true, Some(first)) = (v, bytes.first_mut()) {
                *first = VERSION;
            }
            if let Ok(lifetimes) = decode(&bytes) {
                prop_assert_eq!(encoded(&lifetimes), bytes);
            }
        }
    }
}
