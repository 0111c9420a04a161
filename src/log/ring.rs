//! The rings: lines on their way to the file, in memory that outlives the worker that wrote them.
//!
//! There is one ring per process slot (a process's number). Its owner appends lines and moves them
//! to the file; after the owner's death another process moves the rest. Positions only ever grow; a
//! byte's place is its position modulo the ring's size.
//!
//! ```text
//!         moved to the file │ committed │ prepared │ free
//! ──────────────────────── head ────── tail ──── end ──────
//! ```
//!
//! A line is *prepared* before its answer goes out and *committed* after that. A line that is
//! prepared when its owner dies counts, since the answer may have left.
//!
//! Beside its positions each ring has an [`Intent`]: the bytes that its owner is writing, and the
//! file and offset they go to. It is set before the first byte is written and cleared after the
//! last, both under the file's lock. A process that holds the lock and finds another's intent knows
//! that its owner died in the middle, and finishes the write (`append.rs`).
//!
//! | word of a process slot | meaning |
//! | --- | --- |
//! | 0, 1, 2 | head, tail, end: positions |
//! | 3 | lines dropped because the ring was full |
//! | 4 to 8 | the intent: device, inode, offset in the file, first and last position |
//! | 9 | the intent: when the inode was made |
//! | 10, 11 | a note of the owner that belongs to a line, and the position behind that line |
//!
//! The intents' states stand apart, one word per process slot, so that looking for one reads few
//! lines. The last two words belong to all: whether the spill file has lines, and how the log does
//! ([`Trouble`]).

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::log::format::LINE_BYTES_MAX;
use crate::sys::ring_map::RingMap;

/// The smallest ring, in bytes: the longest line fits it twice.
pub const RING_BYTES_MIN: usize = 2 * LINE_BYTES_MAX;

/// All rings, in memory shared by fork.
#[derive(Debug)]
pub struct Rings {
    map: RingMap,
    n_slots: usize,
    bytes_each: usize,
}

impl Rings {
    /// Makes empty rings for `n_slots` processes, of `bytes_each` bytes, rounded up to a power of
    /// two and to [`RING_BYTES_MIN`] at least. Called before the first fork, and once for the life
    /// of the master: a process that writes a file looks for interrupted writes in these rings
    /// only.
    ///
    /// # Errors
    /// When the memory is refused, or the sizes overflow.
    pub fn create(n_slots: usize, bytes_each: usize) -> io::Result<Self> {
        let overflow = || io::Error::new(io::ErrorKind::InvalidInput, "log rings are too large");
        let bytes_each =
            bytes_each.max(RING_BYTES_MIN).checked_next_power_of_two().ok_or_else(overflow)?;
        let n_words = n_slots.checked_mul(WORDS_EACH + 1).ok_or_else(overflow)?;
        let n_words = n_words.checked_add(N_COMMON).ok_or_else(overflow)?;
        let n_bytes = n_slots.checked_mul(bytes_each).ok_or_else(overflow)?;
        Ok(Self { map: RingMap::create(n_words, n_bytes)?, n_slots, bytes_each })
    }

    /// How many rings there are.
    pub fn n_slots(&self) -> usize {
        self.n_slots
    }

    /// The ring of a process slot, if there is such a process slot.
    pub fn ring(&self, slot: usize) -> Option<Ring<'_>> {
        let (states, words) = self.map.words().split_at_checked(self.n_slots)?;
        let state = states.get(slot)?;
        let words = words.chunks_exact(WORDS_EACH).nth(slot)?.try_into().ok()?;
        let bytes_at = slot * self.bytes_each;
        Some(Ring { state, words, map: &self.map, bytes_at, len: self.bytes_each })
    }

    /// The process slots with an intent: their process is writing, or died while writing.
    pub fn with_intent(&self) -> impl Iterator<Item = (usize, Ring<'_>)> {
        let states = self.map.words().get(..self.n_slots).unwrap_or_default();
        let slots = states.iter().enumerate();
        slots
            .filter(|(_, state)| state.load(Ordering::Acquire) != STATE_IDLE)
            .filter_map(|(slot, _)| Some((slot, self.ring(slot)?)))
    }
}

/// The state of lines while the log does not take them; the worst of all workers counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// They stay in the rings, and requests wait when those are full.
    Wait = 1,
    /// They go to the spill file.
    Spill = 2,
    /// They are dropped.
    Drop = 3,
}

impl Rings {
    /// Whether the spill file may have lines, or a process is moving them.
    pub fn is_spill_in_use(&self) -> bool {
        self.common(SPILL).is_some_and(|word| word.load(Ordering::Acquire) != 0)
    }

    /// Only under the lock of the spill file, or before the first fork.
    pub fn set_spill_in_use(&self, is_in_use: bool) {
        if let Some(word) = self.common(SPILL) {
            word.store(u64::from(is_in_use), Ordering::Release);
        }
    }

    /// Notes that the log takes no lines; whether no process has noted that, or worse, before.
    pub(super) fn note(&self, trouble: Trouble) -> bool {
        let word = self.common(TROUBLE);
        word.is_some_and(|word| word.fetch_max(trouble as u64, Ordering::AcqRel) < trouble as u64)
    }

    /// Notes that the log takes lines; whether a process has noted before that it does not.
    pub(super) fn note_recovery(&self) -> bool {
        let word = self.common(TROUBLE).filter(|word| word.load(Ordering::Acquire) != 0);
        word.is_some_and(|word| word.swap(0, Ordering::AcqRel) != 0)
    }

    fn common(&self, which: usize) -> Option<&AtomicU64> {
        self.map.words().get(self.n_slots * (WORDS_EACH + 1) + which)
    }
}

/// The ring of one process slot.
#[derive(Clone, Copy, Debug)]
pub struct Ring<'a> {
    state: &'a AtomicU64,
    words: &'a [AtomicU64; WORDS_EACH],
    map: &'a RingMap,
    bytes_at: usize,
    len: usize,
}

/// The positions of a ring: `head <= tail <= end <= head + len`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Bytes before it have been moved to the file.
    pub head: u64,
    /// Bytes before it have been committed.
    pub tail: u64,
    /// Bytes before it have been prepared.
    pub end: u64,
}

/// The bytes `from..to` of a ring are being appended to a file from its `offset` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The file.
    pub file: FileId,
    /// The file's length before the first byte, in bytes.
    pub offset: u64,
    /// Position of the first byte.
    pub from: u64,
    /// Position behind the last byte.
    pub to: u64,
}

/// Identifies a file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// Number of the device.
    pub device: u64,
    /// Number of the inode.
    pub inode: u64,
    /// When the inode was made, in nanoseconds since 1970, since its number may be used again;
    /// 0 where the file system does not know.
    pub born_ns: u64,
}

impl Ring<'_> {
    /// Appends a line to the prepared ones. False if there is no room for it.
    #[must_use]
    pub fn prepare(&self, line: &[u8]) -> bool {
        if !self.has_room(line.len()) {
            return false;
        }
        let end = self.load(END);
        let (first, second) = line.split_at(line.len().min(self.len - self.place(end)));
        self.map.copy_in(self.bytes_at + self.place(end), first);
        self.map.copy_in(self.bytes_at, second);
        // Release: a process that sees the new end sees the bytes before it.
        self.words[END].store(end.wrapping_add(line.len() as u64), Ordering::Release);
        true
    }

    /// As [`Self::prepare`], with a note of the owner that is in force only if the line is: it is
    /// written first, and names the position behind the line.
    #[must_use]
    pub fn prepare_noted(&self, line: &[u8], note: u64) -> bool {
        let end = self.load(END).wrapping_add(line.len() as u64);
        self.words[NOTED_AT].store(end, Ordering::Release);
        self.words[NOTE].store(note, Ordering::Release);
        self.prepare(line)
    }

    /// Takes the note of the last line out of the ring of a dead process, if there is one.
    pub fn take_note(&self) -> Option<u64> {
        let is_in_force =
            self.words[NOTED_AT].swap(NO_POSITION, Ordering::AcqRel) == self.load(END);
        is_in_force.then(|| self.load(NOTE))
    }

    /// Commits the prepared lines.
    pub fn commit(&self) {
        self.words[TAIL].store(self.load(END), Ordering::Release);
    }

    /// Drops the prepared lines.
    pub fn cancel(&self) {
        self.words[END].store(self.load(TAIL), Ordering::Release);
    }

    /// Whether `len` more bytes can be prepared.
    pub fn has_room(&self, len: usize) -> bool {
        let held = self.load(END).saturating_sub(self.load(HEAD));
        held.saturating_add(len as u64) <= self.len as u64
    }

    /// The ring's size in bytes.
    pub fn size(&self) -> usize {
        self.len
    }

    /// Bytes that are committed and not in the file.
    pub fn waiting(&self) -> u64 {
        self.load(TAIL).saturating_sub(self.load(HEAD))
    }

    /// Whether so much waits that it is to be flushed.
    pub fn is_half_full(&self) -> bool {
        self.waiting() >= self.len as u64 / 2
    }

    /// The positions of the ring; `None` if they contradict each other, which only a faulty process
    /// can cause.
    pub fn span(&self) -> Option<Span> {
        let span = Span { head: self.load(HEAD), tail: self.load(TAIL), end: self.load(END) };
        let is_sound = span.head <= span.tail
            && span.tail <= span.end
            && span.end - span.head <= self.len as u64;
        is_sound.then_some(span)
    }

    /// Appends the bytes from position `from` on, `len` of them and at most a ring's, to `out`.
    pub fn copy_out(&self, from: u64, len: usize, out: &mut Vec<u8>) {
        let len = len.min(self.len);
        let first = len.min(self.len - self.place(from));
        self.map.copy_out(self.bytes_at + self.place(from), first, out);
        self.map.copy_out(self.bytes_at, len - first, out);
    }

    /// Frees the bytes before `head`: they are in the file.
    pub fn free_before(&self, head: u64) {
        self.words[HEAD].store(head, Ordering::Release);
    }

    /// Empties the ring and clears its intent.
    pub fn clear(&self) {
        self.end_intent();
        let end = self.load(END);
        self.words[TAIL].store(end, Ordering::Release);
        self.words[HEAD].store(end, Ordering::Release);
    }

    /// Counts a line that was dropped.
    pub fn count_dropped(&self) {
        self.words[DROPPED].fetch_add(1, Ordering::Relaxed);
    }

    /// Lines dropped in this process slot since the rings were made.
    pub fn dropped(&self) -> u64 {
        self.words[DROPPED].load(Ordering::Relaxed)
    }

    /// Sets the intent before a write. Only under the lock of the intent's file.
    pub fn set_intent(&self, intent: &Intent) {
        let Intent { file, offset, from, to } = *intent;
        for (word, value) in [
            (DEVICE, file.device),
            (INODE, file.inode),
            (BORN, file.born_ns),
            (OFFSET, offset),
            (FROM, from),
            (TO, to),
        ] {
            self.words[word].store(value, Ordering::Relaxed);
        }
        self.state.store(STATE_WRITING, Ordering::Release);
    }

    /// Clears the intent after a write.
    pub fn end_intent(&self) {
        self.state.store(STATE_IDLE, Ordering::Release);
    }

    /// The write in progress, or the one that its writer's death interrupted.
    pub fn intent(&self) -> Option<Intent> {
        if self.state.load(Ordering::Acquire) == STATE_IDLE {
            return None;
        }
        Some(Intent {
            file: FileId {
                device: self.load(DEVICE),
                inode: self.load(INODE),
                born_ns: self.load(BORN),
            },
            offset: self.load(OFFSET),
            from: self.load(FROM),
            to: self.load(TO),
        })
    }

    fn load(&self, word: usize) -> u64 {
        self.words[word].load(Ordering::Acquire)
    }

    /// Where in the ring a position is; its size is a power of two.
    fn place(&self, position: u64) -> usize {
        (position & (self.len as u64 - 1)) as usize
    }
}

/// Words per process slot: two cache lines, so that no two process slots share one.
const WORDS_EACH: usize = 16;
/// Words for all process slots together.
const N_COMMON: usize = 2;
const SPILL: usize = 0;
const TROUBLE: usize = 1;
const HEAD: usize = 0;
const TAIL: usize = 1;
const END: usize = 2;
const DROPPED: usize = 3;
const DEVICE: usize = 4;
const INODE: usize = 5;
const OFFSET: usize = 6;
const FROM: usize = 7;
const TO: usize = 8;
const BORN: usize = 9;
const NOTE: usize = 10;
const NOTED_AT: usize = 11;
/// No line ends at this position.
const NO_POSITION: u64 = u64::MAX;

const STATE_IDLE: u64 = 0;
const STATE_WRITING: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn held(ring: &Ring<'_>) -> Vec<u8> {
        let span = ring.span().unwrap();
        let mut out = Vec::new();
        ring.copy_out(span.head, (span.end - span.head) as usize, &mut out);
        out
    }

    #[test]
    fn a_note_is_in_force_once_its_line_is() {
        let rings = Rings::create(1, 1).unwrap();
        let ring = rings.ring(0).unwrap();
        assert!(ring.prepare_noted(b"one\n", 7) && ring.prepare_noted(b"two\n", 8));
        assert_eq!((ring.take_note(), ring.take_note()), (Some(8), None));
        assert!(ring.prepare_noted(b"three\n", 9));
        // The process dies before the line is in the ring.
        ring.words[NOTED_AT].store(ring.load(END) + 5, Ordering::Release);
        ring.words[NOTE].store(10, Ordering::Release);
        assert_eq!(ring.take_note(), None);
    }

    #[test]
    fn prepared_lines_count_once_committed() {
        let rings = Rings::create(2, 1).unwrap();
        let ring = rings.ring(1).unwrap();
        assert_eq!(ring.size(), RING_BYTES_MIN);
        assert!(ring.prepare(b"one\n"));
        assert_eq!(ring.waiting(), 0);
        ring.commit();
        assert!(ring.prepare(b"two\n"));
        assert_eq!(ring.waiting(), 4);
        assert_eq!(held(&ring), b"one\ntwo\n");
        ring.cancel();
        assert_eq!(held(&ring), b"one\n");
        assert_eq!(rings.ring(0).unwrap().waiting(), 0);
        assert!(rings.ring(2).is_none());
    }

    #[test]
    fn a_full_ring_takes_nothing_until_it_is_freed() {
        let rings = Rings::create(1, RING_BYTES_MIN).unwrap();
        let ring = rings.ring(0).unwrap();
        let line = vec![b'x'; LINE_BYTES_MAX];
        assert!(ring.prepare(&line) && ring.prepare(&line));
        ring.commit();
        assert!(!ring.prepare(b"y") && !ring.has_room(1) && ring.has_room(0));
        ring.free_before(10);
        assert!(ring.prepare(b"0123456789"));
        assert!(!ring.prepare(b"z"));
        assert!(held(&ring).ends_with(b"xx0123456789"));
    }

    #[test]
    fn an_intent_is_seen_until_it_ends() {
        let rings = Rings::create(3, 1).unwrap();
        let ring = rings.ring(2).unwrap();
        let file = FileId { device: 1, inode: 2, born_ns: 3 };
        let intent = Intent { file, offset: 3, from: 4, to: 5 };
        assert_eq!((ring.intent(), rings.with_intent().count()), (None, 0));
        ring.set_intent(&intent);
        assert_eq!(ring.intent(), Some(intent));
        assert_eq!(rings.with_intent().map(|(slot, _)| slot).collect::<Vec<_>>(), [2]);
        ring.end_intent();
        assert_eq!((ring.intent(), rings.with_intent().count()), (None, 0));
    }

    #[test]
    fn positions_that_contradict_each_other_are_noticed_and_can_be_cleared() {
        let rings = Rings::create(1, 1).unwrap();
        let ring = rings.ring(0).unwrap();
        ring.free_before(u64::MAX);
        assert_eq!(ring.span(), None);
        assert!(ring.has_room(1));
        ring.clear();
        assert!(ring.span().is_some());
        assert!(ring.prepare(b"fine\n"));
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(
            lines in proptest::collection::vec(1usize..20_000, 1..40)
        ) {
            let rings = Rings::create(1, 1).unwrap();
            let ring = rings.ring(0).unwrap();
            let mut byte = 0u8;
            for len in lines {
                let line: Vec<u8> = (0..len).map(|_| { byte = byte.wrapping_add(7); byte }).collect();
                if !ring.prepare(&line) {
                    ring.free_before(ring.span().unwrap().end);
                    prop_assert!(ring.prepare(&line));
                }
                ring.commit();
                prop_assert!(held(&ring).ends_with(&line));
            }
        }
    }
}
