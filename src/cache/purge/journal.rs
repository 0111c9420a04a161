//! The journal of purges: names, origins and times of the last purges.
//!
//! A ring of records of 256 bytes, for people: only the table decides what is purged. The record of
//! purge `n` is at place `n` modulo the ring's length. An undo has a number and a record too.
//!
//! | bytes | field | meaning |
//! | --- | --- | --- |
//! | 0..8 | number | of the purge; 0 = empty, or being written |
//! | 8..16 | facts | time 32 (Unix seconds), undoes 1, soft 1, undone 1, kind 8 |
//! | 16..24 | hash | of the name; for an undo, the number of the undone purge |
//! | 24..32 | crc | CRC-32C of all the rest |
//! | 32..64 | who | text, zeros at its end |
//! | 64..256 | name | text, zeros at its end; a longer one is cut |

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use ::log::info;

use crate::log::limit::UNLIMITED;
use crate::policy::purge::hash::{PurgeHash, PurgeKind};
use crate::sys::shm::shared_struct;

/// Records of the ring. This many purges can be listed and undone.
pub const RECORDS: usize = 1024;

shared_struct! {
    /// A record: see the module's field table.
    #[derive(Debug)]
    pub(super) struct Line: 256 bytes, aligned 64 {
        words: [AtomicU64; WORDS],
    }
}

/// The record of a purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub number: u64,
    /// When, in Unix seconds.
    pub time_s: u64,
    /// The kind of its name.
    pub kind: PurgeKind,
    /// Whether it is a soft purge.
    pub is_soft: bool,
    /// Whether it was undone.
    pub is_undone: bool,
    /// The purge that this record undoes, if it is an undo.
    pub undoes: Option<u64>,
    /// The name as it was given, cut to [`NAME_BYTES_MAX`].
    pub name: String,
    /// The client or user that requested it.
    pub who: String,
    /// The hash of the name.
    pub(super) hash: PurgeHash,
}

/// The most bytes of a name that are kept.
pub const NAME_BYTES_MAX: usize = 192;

impl Record {
    /// Writes it to the error log, without a rate limit.
    pub fn log(&self) {
        info!(target: UNLIMITED, "{self}");
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let soft = if self.is_soft { "soft " } else { "" };
        let (number, kind, name, who) = (self.number, self.kind.word(), &self.name, &self.who);
        match self.undoes {
            None => write!(f, "{soft}purge {number} of {kind} {name:?}, by {who}"),
            Some(undone) => write!(
                f,
                "{soft}purge {undone} of {kind} {name:?} is undone, by {who} (number {number})"
            ),
        }
    }
}

impl Line {
    /// Writes a record, under the table's lock.
    pub(super) fn write(&self, record: &Record) {
        let mut words = [0; WORDS];
        words[1] = record.time_s.min(u64::from(u32::MAX)) << 32
            | if record.is_undone { UNDONE } else { 0 }
            | if record.is_soft { SOFT } else { 0 }
            | if record.undoes.is_some() { UNDOES } else { 0 }
            | u64::from(record.kind.code());
        words[2] = record.undoes.unwrap_or(record.hash.0);
        put(&mut words[4..8], record.who.as_bytes());
        put(&mut words[8..], record.name.as_bytes());
        words[0] = record.number;
        words[3] = crc_of(&words);
        self.words[0].store(0, Ordering::Release);
        for (word, value) in self.words.iter().zip(words).skip(1) {
            word.store(value, Ordering::Release);
        }
        self.words[0].store(words[0], Ordering::Release);
    }

    /// The record, if there is a complete one.
    pub(super) fn read(&self) -> Option<Record> {
        let words: [u64; WORDS] = std::array::from_fn(|i| self.words[i].load(Ordering::Acquire));
        if words[0] == 0 || words[3] != crc_of(&words) {
            return None;
        }
        Some(Record {
            number: words[0],
            time_s: words[1] >> 32,
            kind: PurgeKind::from_code(words[1] as u8)?,
            is_soft: words[1] & SOFT != 0,
            is_undone: words[1] & UNDONE != 0,
            undoes: (words[1] & UNDOES != 0).then_some(words[2]),
            name: text(&words[8..]),
            who: text(&words[4..8]),
            hash: PurgeHash(words[2]),
        })
    }
}

fn put(words: &mut [u64], text: &[u8]) {
    for (word, part) in words.iter_mut().zip(text.chunks(8)) {
        let mut bytes = [0; 8];
        bytes[..part.len()].copy_from_slice(part);
        *word = u64::from_le_bytes(bytes);
    }
}

fn text(words: &[u64]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let end = memchr::memchr(0, &bytes).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

fn crc_of(words: &[u64; WORDS]) -> u64 {
    let others = words.iter().enumerate().filter(|(at, _)| *at != 3);
    u64::from(others.fold(0, |crc, (_, word)| crc32c::crc32c_append(crc, &word.to_le_bytes())))
}

const WORDS: usize = 32;
const UNDONE: u64 = 1 << 16;
const SOFT: u64 = 1 << 17;
const UNDOES: u64 = 1 << 18;
const _: () = assert!(8 * (WORDS - 8) == NAME_BYTES_MAX, "the name fills the record");
