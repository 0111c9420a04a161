//! Names that workers want to have looked up, and the addresses that the keeper finds.
//!
//! Each process slot has some slots for names. A worker writes a name into one of its own and wakes the
//! keeper, which writes the addresses into the same slot and wakes the worker. A slot has one writer at
//! a time, by its word:
//!
//! ```text
//! free ── worker: ask ──▶ asked ── keeper: answer ──▶ writing ──▶ answered ── worker: take ──▶ free
//!   ▲                       │
//!   └── worker: reset ──────┴─ (and from answered)
//! ```
//!
//! The word also counts the uses of the slot, so that no answer to an earlier question is taken for one
//! to a later. A keeper that is killed while it writes leaves its slot as it is, and no worker uses it.
//!
//! | bytes | field | meaning |
//! | --- | --- | --- |
//! | 0..4 | word | uses << 2 \| state: 0 free, 1 asked, 2 writing, 3 answered |
//! | 4..8 | keeper | the process slot of the keeper that is asked |
//! | 8..12 | n_name | bytes of the name |
//! | 12..16 | n_addresses | addresses of the answer; 0 if the name has none |
//! | 16..272 | name | the name |
//! | 272..528 | addresses | 16 bytes each; an IPv4 address is mapped |

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::sys::shm::{SharedMap, SharedSlice, shared_struct};

/// Names that a worker can ask for at once.
pub(crate) const N_NAMES: usize = 64;

/// Addresses of an answer.
pub(crate) const N_ADDRESSES_MAX: usize = 16;

/// Bytes of the longest name.
const NAME_BYTES_MAX: usize = 256;

const WORD_BYTES: usize = size_of::<u64>();
const N_ADDRESS_WORDS: usize = 2;

shared_struct! {
    /// A name: see the module's field table.
    struct NameSlot: 576 bytes, aligned 64 {
        word: AtomicU32,
        keeper: AtomicU32,
        n_name: AtomicU32,
        n_addresses: AtomicU32,
        name: [AtomicU64; NAME_BYTES_MAX / WORD_BYTES],
        addresses: [AtomicU64; N_ADDRESSES_MAX * N_ADDRESS_WORDS],
        _rest: [AtomicU64; 6],
    }
}

const FREE: u32 = 0;
const ASKED: u32 = 1;
const WRITING: u32 = 2;
const ANSWERED: u32 = 3;
const STATE_BITS: u32 = 2;
const STATE_MASK: u32 = (1 << STATE_BITS) - 1;

/// The slots of all processes.
#[derive(Debug)]
pub(crate) struct Names {
    slots: SharedSlice<NameSlot>,
    /// How often each process slot has asked, so that a keeper need not read slots without questions.
    n_asked: SharedSlice<AtomicU32>,
    /// The process slot of the keeper of the configuration in use.
    keeper: SharedSlice<AtomicU32>,
}

impl std::fmt::Debug for NameSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NameSlot").field("word", &self.word).finish_non_exhaustive()
    }
}

/// A question that a keeper has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AskedName {
    /// The name.
    pub(crate) name: String,
    /// The process slot of the worker.
    pub(crate) process_slot: usize,
    number: usize,
    word: u32,
}

impl Names {
    /// Slots for the processes of `n_process_slots`.
    ///
    /// # Errors
    /// When the kernel refuses the memory.
    pub(crate) fn create(n_process_slots: usize) -> io::Result<Self> {
        let n = n_process_slots * N_NAMES;
        let n_bytes = n * size_of::<NameSlot>();
        let n_counts = n_process_slots * size_of::<AtomicU32>();
        let map = SharedMap::anonymous(n_bytes + n_counts + size_of::<AtomicU32>())?;
        Ok(Self {
            slots: map.slice(0, n)?,
            n_asked: map.slice(n_bytes, n_process_slots)?,
            keeper: map.slice(n_bytes + n_counts, 1)?,
        })
    }

    /// Sets the process slot of the keeper that workers ask, those of older generations too.
    pub(crate) fn set_keeper(&self, keeper_slot: usize) {
        self.keeper[0].store(keeper_slot as u32, Ordering::Relaxed);
    }

    /// The process slot of the keeper that is asked.
    pub(crate) fn keeper(&self) -> usize {
        self.keeper[0].load(Ordering::Relaxed) as usize
    }

    fn slots_of(&self, process_slot: usize) -> &[NameSlot] {
        &self.slots[process_slot * N_NAMES..][..N_NAMES]
    }

    /// Gives up all questions of a process slot: a worker does so when it begins, for those of the
    /// process before it.
    pub(crate) fn reset(&self, process_slot: usize) {
        if self.n_asked[process_slot].load(Ordering::Relaxed) == 0 {
            return;
        }
        for slot in self.slots_of(process_slot) {
            let free = |word: u32| (word & STATE_MASK != WRITING).then(|| next_use(word));
            let _ = slot.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free);
        }
    }

    /// Asks the keeper for a name, and gives the number of the slot. The caller wakes the keeper.
    /// `None` if all slots are in use, or the name is too long to be one.
    pub(crate) fn ask(&self, process_slot: usize, name: &str) -> Option<usize> {
        let is_free = |slot: &NameSlot| slot.word.load(Ordering::Relaxed) & STATE_MASK == FREE;
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return None;
        }
        let number = self.slots_of(process_slot).iter().position(is_free)?;
        let slot = &self.slots_of(process_slot)[number];
        for (word, bytes) in slot.name.iter().zip(name.as_bytes().chunks(WORD_BYTES)) {
            let mut padded = [0; WORD_BYTES];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(padded), Ordering::Relaxed);
        }
        slot.n_name.store(name.len() as u32, Ordering::Relaxed);
        slot.keeper.store(self.keeper() as u32, Ordering::Relaxed);
        let word = slot.word.load(Ordering::Relaxed);
        slot.word.store(word & !STATE_MASK | ASKED, Ordering::Release);
        self.n_asked[process_slot].fetch_add(1, Ordering::Release);
        Some(number)
    }

    /// The addresses that the keeper has found for the name in a slot, which is free then; `None` if
    /// there is no answer yet.
    pub(crate) fn take(&self, process_slot: usize, number: usize) -> Option<Vec<IpAddr>> {
        let slot = self.slots_of(process_slot).get(number)?;
        let word = slot.word.load(Ordering::Acquire);
        if word & STATE_MASK != ANSWERED {
            return None;
        }
        let n_addresses = slot.n_addresses.load(Ordering::Relaxed) as usize;
        let pairs = slot.addresses.chunks_exact(N_ADDRESS_WORDS).take(n_addresses);
        let addresses = pairs.map(|pair| {
            let word = |n: usize| u128::from(pair[n].load(Ordering::Relaxed));
            IpAddr::V6(Ipv6Addr::from_bits(word(0) << 64 | word(1))).to_canonical()
        });
        let addresses = addresses.collect();
        slot.word.store(next_use(word), Ordering::Relaxed);
        Some(addresses)
    }

    /// Takes a question back; its slot is free then, unless the keeper writes the answer.
    pub(crate) fn cancel(&self, process_slot: usize, number: usize) {
        let free = |word: u32| (word & STATE_MASK != WRITING).then(|| next_use(word));
        if let Some(slot) = self.slots_of(process_slot).get(number) {
            let _ = slot.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free);
        }
    }

    /// The questions to a keeper that have no answer yet, of the process slots that have asked since
    /// the last call. `seen` is empty at the first one.
    pub(crate) fn asked(&self, keeper_slot: usize, seen: &mut Vec<u32>) -> Vec<AskedName> {
        seen.resize(self.n_asked.len(), 0);
        let mut asked = Vec::new();
        for (process_slot, (count, seen)) in self.n_asked.iter().zip(seen).enumerate() {
            let count = count.load(Ordering::Acquire);
            if std::mem::replace(seen, count) != count {
                self.asked_by(process_slot, keeper_slot, &mut asked);
            }
        }
        asked
    }

    fn asked_by(&self, process_slot: usize, keeper_slot: usize, asked: &mut Vec<AskedName>) {
        for (n, slot) in self.slots_of(process_slot).iter().enumerate() {
            let word = slot.word.load(Ordering::Acquire);
            let is_own = slot.keeper.load(Ordering::Relaxed) == keeper_slot as u32;
            if word & STATE_MASK != ASKED || !is_own {
                continue;
            }
            let n_name = (slot.n_name.load(Ordering::Relaxed) as usize).min(NAME_BYTES_MAX);
            let words = slot.name.iter().map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
            let bytes: Vec<u8> = words.flatten().take(n_name).collect();
            // A worker that began meanwhile may have written half of another name.
            if slot.word.load(Ordering::Acquire) == word
                && let Ok(name) = String::from_utf8(bytes)
            {
                asked.push(AskedName { name, process_slot, number: n, word });
            }
        }
    }

    /// Answers a question, with no address if the name has none. An answer to a worker that has ended
    /// is dropped. The caller wakes the worker.
    pub(crate) fn answer(&self, asked: &AskedName, addresses: &[IpAddr]) {
        let slot = &self.slots_of(asked.process_slot)[asked.number];
        let writing = asked.word & !STATE_MASK | WRITING;
        let (order, failed) = (Ordering::Acquire, Ordering::Relaxed);
        if slot.word.compare_exchange(asked.word, writing, order, failed).is_err() {
            return;
        }
        let pairs = slot.addresses.chunks_exact(N_ADDRESS_WORDS);
        for (address, pair) in addresses.iter().zip(pairs) {
            let bits = match address {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
                IpAddr::V6(v6) => v6.to_bits(),
            };
            pair[0].store((bits >> 64) as u64, Ordering::Relaxed);
            pair[1].store(bits as u64, Ordering::Relaxed);
        }
        let n_addresses = addresses.len().min(N_ADDRESSES_MAX) as u32;
        slot.n_addresses.store(n_addresses, Ordering::Relaxed);
        slot.word.store(writing & !STATE_MASK | ANSWERED, Ordering::Release);
    }
}

/// The word of a slot that is free for another use.
const fn next_use(word: u32) -> u32 {
    (word & !STATE_MASK).wrapping_add(1 << STATE_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEPER: usize = 1;

    fn created(n_process_slots: usize) -> Names {
        let names = Names::create(n_process_slots).unwrap();
        names.set_keeper(KEEPER);
        names
    }

    fn asked_of(names: &Names) -> Vec<AskedName> {
        names.asked(KEEPER, &mut Vec::new())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_answer_comes_back_to_the_worker_that_asked() {
        let names = created(3);
        let first = names.ask(0, "a.example").unwrap();
        let second = names.ask(2, "b.example").unwrap();
        assert_eq!(names.asked(KEEPER + 1, &mut Vec::new()), []);
        let asked = asked_of(&names);
        let read: Vec<_> = asked.iter().map(|it| (&*it.name, it.process_slot)).collect();
        assert_eq!(read, [("a.example", 0), ("b.example", 2)]);
        assert_eq!(names.take(0, first), None);
        let addresses = [address("192.0.2.1"), address("2001:db8::1")];
        names.answer(&asked[0], &addresses);
        names.answer(&asked[1], &[]);
        assert_eq!(asked_of(&names), []);
        assert_eq!(names.take(0, first).unwrap(), addresses);
        assert_eq!(names.take(2, second), Some(Vec::new()));
        assert_eq!(names.take(0, first), None, "it is free");
        let mut seen = Vec::new();
        names.ask(0, "c.example").unwrap();
        assert_eq!(names.asked(KEEPER, &mut seen).len(), 1);
        assert_eq!(names.asked(KEEPER, &mut seen), [], "it was given");
    }

    #[test]
    fn an_answer_to_an_ended_worker_reaches_no_other() {
        let names = created(2);
        let number = names.ask(0, "old").unwrap();
        let old = asked_of(&names).remove(0);
        names.reset(0);
        assert_eq!(names.ask(0, "new"), Some(number));
        names.answer(&old, &[address("192.0.2.1")]);
        assert_eq!(names.take(0, number), None);
        names.answer(&asked_of(&names)[0], &[address("192.0.2.2")]);
        assert_eq!(names.take(0, number).unwrap(), [address("192.0.2.2")]);
    }

    #[test]
    fn a_question_that_is_taken_back_has_no_answer() {
        let names = created(1);
        let number = names.ask(0, "slow").unwrap();
        let asked = asked_of(&names).remove(0);
        names.cancel(0, number);
        assert_eq!(names.ask(0, "next"), Some(number));
        names.answer(&asked, &[address("192.0.2.1")]);
        assert_eq!(names.take(0, number), None);
    }

    #[test]
    fn a_slot_that_is_being_written_is_not_used_again() {
        let names = created(1);
        let number = names.ask(0, "a").unwrap();
        let asked = asked_of(&names).remove(0);
        let writing = asked.word & !STATE_MASK | WRITING;
        names.slots[number].word.store(writing, Ordering::Relaxed);
        names.reset(0);
        assert_eq!(names.slots[number].word.load(Ordering::Relaxed), writing);
        assert_ne!(names.ask(0, "b"), Some(number));
    }

    #[test]
    fn a_worker_has_some_slots_and_names_a_longest_length() {
        let names = created(1);
        assert_eq!(names.ask(0, &"a".repeat(NAME_BYTES_MAX + 1)), None);
        assert_eq!(names.ask(0, ""), None);
        let longest = "x".repeat(NAME_BYTES_MAX);
        (0..N_NAMES).for_each(|n| assert_eq!(names.ask(0, &longest), Some(n)));
        assert_eq!(names.ask(0, "one-more"), None);
        assert!(asked_of(&names).iter().all(|asked| asked.name == longest));
        let many = vec![address("::1"); N_ADDRESSES_MAX + 4];
        names.answer(&asked_of(&names)[0], &many);
        assert_eq!(names.take(0, 0).unwrap().len(), N_ADDRESSES_MAX);
    }
}
