//! One entry of the index: 64 bytes that answer "is this a fresh hit?" by themselves.
//!
//! | word | bits | field |
//! | --- | --- | --- |
//! | 0, 1 | | the key, big-endian halves |
//! | 2 | 63..32 | generation: of this publication alone, never 0 |
//! | 2 | 31..0 | stamp: of the file as it was last verified; 0 = not verified |
//! | 3 | 63..32, 31..0 | stored at; fresh until |
//! | 4 | 63..32, 31..0 | stale-while-revalidate until; stale-if-error until |
//! | 5 | | body length |
//! | 6 | 63..32, 31..0 | file bytes beside the body; age when stored, seconds |
//! | 7 | 63..32 | CRC-32C of words 0 to 6 (stamp as 0) and of the low half of 7 |
//! | 7 | 31..0 | status 16, state 8, flags 8 |
//!
//! Times are Unix seconds in 32 bits, which end in 2106; later ones are cut to that. A slot of
//! zeros is empty.

use crate::cache::name::MARKER_STATUS;
use crate::http::status::Status;
use crate::policy::key::Key;
use crate::policy::rfc9111::freshness::Lifetimes;

/// The words of a slot.
pub const WORDS: usize = 8;
/// The word that holds generation and stamp.
pub const GENERATION_WORD: usize = 2;

/// The state of a key in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A file holds the response.
    Ready,
    /// A file names the request fields that choose among variants.
    Vary,
    /// A hit-for-miss: the response cannot be stored, so requests do not wait for one another. No
    /// file.
    Pass,
}

impl State {
    const fn code(self) -> u64 {
        match self {
            Self::Ready => 1,
            Self::Vary => 2,
            Self::Pass => 3,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Ready),
            2 => Some(Self::Vary),
            3 => Some(Self::Pass),
            _ => None,
        }
    }

    /// Whether it has a cache file.
    pub const fn has_file(self) -> bool {
        !matches!(self, Self::Pass)
    }
}

/// Flag: never to be served stale (`must-revalidate`, `proxy-revalidate`, `s-maxage`).
pub const MUST_REVALIDATE: u8 = 1;
/// Flag: reusable only after validation (`no-cache`).
pub const NO_CACHE: u8 = 2;

/// A slot to publish. Times are Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewSlot {
    /// MD5 of the key text.
    pub key: Key,
    /// Its state.
    pub state: State,
    /// Any of [`MUST_REVALIDATE`], [`NO_CACHE`]; other bits are the caller's.
    pub flags: u8,
    /// Status of the stored response; 0 for a pass.
    pub status: u16,
    /// When the response was stored.
    pub stored_s: u64,
    /// Until when it is fresh.
    pub fresh_until_s: u64,
    /// Until when it may be served while it is revalidated.
    pub swr_until_s: u64,
    /// Until when it may be served if the origin fails.
    pub sie_until_s: u64,
    /// Its age when it was stored, in seconds.
    pub age_s: u32,
    /// Bytes of the file that are not of the body.
    pub head_len: u32,
    /// Bytes of the body.
    pub body_len: u64,
    /// Stamp of the verified file, or 0.
    pub stamp: u32,
}

impl NewSlot {
    /// The slot of a file with this status; its lengths and its stamp are still to be filled in.
    pub fn of(key: Key, status: Status, lifetimes: &Lifetimes) -> Self {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        Self {
            key,
            state: if status == MARKER_STATUS { State::Vary } else { State::Ready },
            flags: flag(lifetimes.must_revalidate, MUST_REVALIDATE)
                | flag(lifetimes.no_cache, NO_CACHE),
            status: status.0,
            stored_s: lifetimes.received_s,
            fresh_until_s: lifetimes.fresh_until_s,
            swr_until_s: lifetimes.swr_until_s,
            sie_until_s: lifetimes.sie_until_s,
            age_s: lifetimes.age_s,
            head_len: 0,
            body_len: 0,
            stamp: 0,
        }
    }

    /// The bytes that it costs on the disk: its file in whole blocks.
    pub const fn weight_bytes(&self) -> u64 {
        weight(self.state, self.head_len, self.body_len)
    }

    /// Its words, under this generation.
    pub fn words(&self, generation: u32) -> [u64; WORDS] {
        let [high, low] = halves(&self.key);
        let facts = u64::from(self.status) << 16 | self.state.code() << 8 | u64::from(self.flags);
        let mut words = [
            high,
            low,
            pair(generation, self.stamp),
            pair(seconds(self.stored_s), seconds(self.fresh_until_s)),
            pair(seconds(self.swr_until_s), seconds(self.sie_until_s)),
            self.body_len,
            pair(self.head_len, self.age_s),
            facts,
        ];
        words[7] |= u64::from(crc_of(&words)) << 32;
        words
    }
}

/// The place of a slot, for a cheap second look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotAt(pub(crate) u32);

impl SlotAt {
    /// Its number, from 0.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// A publication: the slot that it went to, and its generation there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRef {
    /// The slot.
    pub at: SlotAt,
    /// The generation, which no other publication in this slot has.
    pub generation: u32,
}

/// A consistent copy of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// The published slot, with its present stamp.
    pub slot: NewSlot,
    /// The generation, which no other publication in this slot has.
    pub generation: u32,
    /// Whether it was used since eviction last looked.
    pub is_visited: bool,
    /// Where it is.
    pub at: SlotAt,
}

impl std::ops::Deref for SlotView {
    type Target = NewSlot;

    fn deref(&self) -> &NewSlot {
        &self.slot
    }
}

impl SlotView {
    /// The publication that this is a copy of.
    pub const fn slot_ref(&self) -> SlotRef {
        SlotRef { at: self.at, generation: self.generation }
    }

    /// From a slot's words; `None` for an empty or a torn one.
    pub fn from_words(words: &[u64; WORDS], is_visited: bool, at: SlotAt) -> Option<Self> {
        let state = State::from_code((words[7] >> 8) as u8)?;
        let (generation, stamp) = unpair(words[GENERATION_WORD]);
        if generation == 0 || (words[7] >> 32) as u32 != crc_of(words) {
            return None;
        }
        let (stored_s, fresh_until_s) = unpair(words[3]);
        let (swr_until_s, sie_until_s) = unpair(words[4]);
        let (head_len, age_s) = unpair(words[6]);
        let slot = NewSlot {
            key: key_of_halves(words[0], words[1]),
            state,
            flags: words[7] as u8,
            status: (words[7] >> 16) as u16,
            stored_s: u64::from(stored_s),
            fresh_until_s: u64::from(fresh_until_s),
            swr_until_s: u64::from(swr_until_s),
            sie_until_s: u64::from(sie_until_s),
            age_s,
            head_len,
            body_len: words[5],
            stamp,
        };
        Some(Self { slot, generation, is_visited, at })
    }
}

/// Whether these words are a whole slot or an empty one.
pub fn is_sound(words: &[u64; WORDS]) -> bool {
    words.iter().all(|&word| word == 0) || SlotView::from_words(words, false, SlotAt(0)).is_some()
}

/// The key's two halves, as the first two words hold them.
#[inline]
pub fn halves(key: &Key) -> [u64; 2] {
    let both = u128::from_be_bytes(key.0);
    [(both >> 64) as u64, both as u64]
}

/// The generation in a slot's generation word.
#[inline]
pub const fn generation_of(word: u64) -> u32 {
    (word >> 32) as u32
}

/// A generation word.
#[inline]
pub const fn generation_word(generation: u32, stamp: u32) -> u64 {
    pair(generation, stamp)
}

/// Bytes on the disk of a file of these lengths, in whole blocks of [`BLOCK_BYTES`].
pub const fn weight(state: State, head_len: u32, body_len: u64) -> u64 {
    if !state.has_file() {
        return 0;
    }
    let len = body_len.saturating_add(head_len as u64);
    len.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES)
}

/// The block that files are counted in.
pub const BLOCK_BYTES: u64 = 4096;

fn key_of_halves(high: u64, low: u64) -> Key {
    Key((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
}

/// The stamp is left out: it changes by itself, and a wrong one only costs a verification.
fn crc_of(words: &[u64; WORDS]) -> u32 {
    let mut bytes = [0; WORDS * 8];
    for (index, (bytes, &word)) in bytes.chunks_exact_mut(8).zip(words).enumerate() {
        let mask = if index == GENERATION_WORD { HIGH } else { u64::MAX };
        let mask = if index == WORDS - 1 { LOW } else { mask };
        bytes.copy_from_slice(&(word & mask).to_le_bytes());
    }
    crc32c::crc32c(&bytes)
}

const LOW: u64 = 0xffff_ffff;
const HIGH: u64 = !LOW;

const fn pair(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

const fn unpair(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

fn seconds(unix_s: u64) -> u32 {
    u32::try_from(unix_s).unwrap_or(u32::MAX)
}

/// Why a slot was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// This process did not attach.
    #[error("this process is not attached to the cache index")]
    NotAttached,
    /// The cache is more than 5 % above its size; eviction must catch up first.
    #[error("the cache is full")]
    NoRoom,
    /// Another writer kept the bucket for too long.
    #[error("a bucket of the cache index stayed locked")]
    Busy,
    /// The slot to publish over has changed.
    #[error("the slot was replaced or removed")]
    Replaced,
}

/// The outcome of publishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Where it is.
    pub slot: SlotRef,
    /// Whether the key had a slot before.
    pub replaced: bool,
    /// Another key that was evicted for it, and its disk bytes. The caller must unlink its file.
    pub evicted: Option<(Key, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slots() -> impl Strategy<Value = NewSlot> {
        let times = (0..=u64::from(u32::MAX), 0..=u64::from(u32::MAX), any::<u32>(), any::<u32>());
        let facts = (any::<[u8; 16]>(), 0..3_usize, any::<u8>(), any::<u16>());
        (facts, times, any::<(u32, u32, u64, u32)>()).prop_map(|(facts, times, lens)| NewSlot {
            key: Key(facts.0),
            state: [State::Ready, State::Vary, State::Pass][facts.1],
            flags: facts.2,
            status: facts.3,
            stored_s: times.0,
            fresh_until_s: times.1,
            swr_until_s: u64::from(times.2),
            sie_until_s: u64::from(times.3),
            age_s: lens.0,
            head_len: lens.1,
            body_len: lens.2,
            stamp: lens.3,
        })
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(slot in slots(), generation in 1..=u32::MAX) {
            let words = slot.words(generation);
            let view = SlotView::from_words(&words, true, SlotAt(5)).unwrap();
            prop_assert_eq!(view.slot, slot);
            prop_assert_eq!(view.generation, generation);
            prop_assert!(is_sound(&words));
        }

        #[test]
        fn any_flipped_bit_but_the_stamps_is_noticed(
            slot in slots(), generation in 1..=u32::MAX, word in 0..8_usize, bit in 0..64_u32,
        ) {
            let mut words = slot.words(generation);
            words[word] ^= 1 << bit;
            let is_stamp = word == GENERATION_WORD && bit < 32;
            prop_assert_eq!(SlotView::from_words(&words, false, SlotAt(0)).is_some(), is_stamp);
        }

        #[test]
        fn any_words_are_read_without_a_panic(words in any::<[u64; 8]>()) {
            let _ = SlotView::from_words(&words, false, SlotAt(0));
        }
    }

    #[test]
    fn times_past_2106_are_cut() {
        assert_eq!(seconds(u64::MAX), u32::MAX);
        assert_eq!(seconds(5), 5);
    }

    #[test]
    fn files_weigh_whole_blocks_and_a_pass_nothing() {
        assert_eq!(weight(State::Ready, 1, 0), 4096);
        assert_eq!(weight(State::Ready, 96, 4001), 8192);
        assert_eq!(weight(State::Pass, 96, 4001), 0);
        assert!(weight(State::Ready, 1, u64::MAX) > u64::MAX - 4096);
    }
}
