//! The feed: the last requests of each process, in memory, for commands that follow them live.
//!
//! The master makes it before the first fork and keeps its file open, so that `ktrix log` can map it
//! ([`FILE_NAME`]). In an upgrade, the processes of both masters write to it, each in its own process slot.
//! There is no lock, and a process that writes never waits.
//!
//! ```text
//! header   8 words: magic, version, process slots, records of each, deadline, 3 unused
//! ends     1 word for each process slot: how many records its processes have written
//! records  for each process slot N_RECORDS of N_WORDS words
//! ```
//!
//! A follower announces itself: it moves the deadline on, which is a time of the monotonic clock in
//! microseconds. Processes write only before that, so a follower that is killed costs nothing soon.
//!
//! Record n of a process slot is at n modulo N_RECORDS. Its first word is 2n + 1 while it is written, and
//! 2n + 2 after that. A reader copies the record and looks at the word before and after it: if it is
//! another one, the record was overwritten, and the reader has missed it.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::log::format::{Record, Times};
use crate::sys::shm::{SharedMap, SharedSlice};

/// The name of the feed's file, by which a command finds it among the open files of the master.
pub(crate) const FILE_NAME: &str = "ktrix-feed";

/// How many records of a process slot are kept.
const N_RECORDS: usize = 1_024;
/// Words of a record, its first one included.
const N_WORDS: usize = 96;
const RECORD_BYTES: usize = (N_WORDS - 1) * 8;
const N_WORDS_HEADER: usize = 8;
const DEADLINE: usize = 4;
const MAGIC: u64 = u64::from_le_bytes(*b"ktrixfee");
const VERSION: u64 = 1;

/// The feed of all processes.
#[derive(Debug)]
pub struct Feed {
    header: SharedSlice<AtomicU64>,
    ends: SharedSlice<AtomicU64>,
    words: SharedSlice<AtomicU64>,
    /// Keeps the file open in the master.
    map: SharedMap,
}

impl Feed {
    /// A feed for `n` process slots; call before forking. Memory that is not used costs nothing.
    ///
    /// # Errors
    /// When the kernel refuses the memory.
    pub(crate) fn create(n: usize) -> io::Result<Self> {
        let feed = Self::over(SharedMap::named(FILE_NAME, n_bytes(n))?, n)?;
        for (word, value) in feed.header.iter().zip([MAGIC, VERSION, n as u64, N_RECORDS as u64]) {
            word.store(value, Ordering::Relaxed);
        }
        Ok(feed)
    }

    /// The feed of `n` process slots of the ktrix before this one, which has passed its file.
    ///
    /// # Errors
    /// When it is another one, or of another version.
    pub(crate) fn passed(fd: OwnedFd, n: usize) -> io::Result<Self> {
        Self::checked(SharedMap::passed(fd, n_bytes(n))?)
    }

    /// Its file, for a ktrix that takes the place of this one.
    pub(crate) fn file(&self) -> Option<&File> {
        self.map.opened_file()
    }

    /// The feed in a file that a running master has open.
    ///
    /// # Errors
    /// When it is no feed of this version.
    pub(crate) fn open(file: &File) -> io::Result<Self> {
        let len = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        // Allocating the file would take all its memory.
        Self::checked(SharedMap::sparse(file, len)?)
    }

    fn checked(map: SharedMap) -> io::Result<Self> {
        let not_one = || io::Error::new(io::ErrorKind::InvalidData, "no feed of this version");
        let len = map.len();
        let header = map.slice::<AtomicU64>(0, N_WORDS_HEADER)?;
        let value = |n: usize| header[n].load(Ordering::Relaxed);
        let n = usize::try_from(value(2)).ok().filter(|n| *n < len).ok_or_else(not_one)?;
        let is_one = (value(0), value(1), value(3)) == (MAGIC, VERSION, N_RECORDS as u64);
        if is_one && n_bytes(n) == len { Self::over(map, n) } else { Err(not_one()) }
    }

    fn over(map: SharedMap, n: usize) -> io::Result<Self> {
        let ends = N_WORDS_HEADER * 8;
        Ok(Self {
            header: map.slice(0, N_WORDS_HEADER)?,
            ends: map.slice(ends, n)?,
            words: map.slice(ends + n * 8, n * N_RECORDS * N_WORDS)?,
            map,
        })
    }

    /// Whether somebody follows now.
    pub(crate) fn is_followed(&self, now_mono_us: u64) -> bool {
        self.header[DEADLINE].load(Ordering::Relaxed) > now_mono_us
    }

    /// Somebody follows until then. Another follower may stay longer.
    pub(crate) fn follow_until(&self, mono_us: u64) {
        self.header[DEADLINE].fetch_max(mono_us, Ordering::Relaxed);
    }

    /// Writes a record; only the process in this process slot may.
    pub(crate) fn write(&self, slot: usize, record: &Record<'_>) {
        let Some(end) = self.ends.get(slot) else { return };
        let n = end.load(Ordering::Relaxed);
        let Some((sequence, words)) = self.record(slot, n).and_then(|it| it.split_first()) else {
            return;
        };
        let mut bytes = [0; RECORD_BYTES];
        let len = encode(record, &mut bytes);
        sequence.store(2 * n + 1, Ordering::Relaxed);
        // A reader that sees a new word sees the odd sequence too.
        fence(Ordering::Release);
        for (word, chunk) in words.iter().zip(bytes[..len].chunks(8)) {
            let mut value = [0; 8];
            value[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_le_bytes(value), Ordering::Relaxed);
        }
        sequence.store(2 * n + 2, Ordering::Release);
        end.store(n + 1, Ordering::Release);
    }

    /// How many process slots there are.
    pub(crate) fn n_slots(&self) -> usize {
        self.ends.len()
    }

    /// How many records were written in a process slot.
    pub(crate) fn end(&self, slot: usize) -> u64 {
        self.ends.get(slot).map_or(0, |end| end.load(Ordering::Acquire))
    }

    /// The number of the oldest record that is likely to be there still.
    pub(crate) fn oldest(&self, slot: usize) -> u64 {
        self.end(slot).saturating_sub(N_RECORDS as u64 - 1)
    }

    /// Record `n` of a process slot; `None` if it is overwritten.
    pub(crate) fn read(&self, slot: usize, n: u64) -> Option<Fed> {
        let (sequence, words) = self.record(slot, n)?.split_first()?;
        if sequence.load(Ordering::Acquire) != 2 * n + 2 {
            return None;
        }
        let mut bytes = Box::new([0; RECORD_BYTES]);
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        fence(Ordering::Acquire);
        (sequence.load(Ordering::Relaxed) == 2 * n + 2).then_some(Fed { bytes })
    }

    fn record(&self, slot: usize, n: u64) -> Option<&[AtomicU64]> {
        let at = (slot * N_RECORDS + (n % N_RECORDS as u64) as usize) * N_WORDS;
        self.words.get(at..at + N_WORDS)
    }
}

const fn n_bytes(n_slots: usize) -> usize {
    8 * (N_WORDS_HEADER + n_slots + n_slots * N_RECORDS * N_WORDS)
}

/// A record as it was read, whole.
#[derive(Clone, Debug)]
pub(crate) struct Fed {
    bytes: Box<[u8; RECORD_BYTES]>,
}

impl Fed {
    /// Its facts. Long texts are cut and end in `...`; the request line, the referer and most facts of
    /// TLS are not there.
    pub(crate) fn record(&self) -> Record<'_> {
        decode(&self.bytes[..])
    }
}

/// The time of a phase that a request did not have.
const NO_TIME: u64 = u64::MAX;

/// Where a text is cut, in bytes; the user agent gets what is left.
const TEXT_BYTES_MAX: [usize; 11] = [16, 12, 16, 40, 40, 64, 24, 12, 100, 280, usize::MAX];

const _: () = {
    let (mut sum, mut n) = (14 * 8 + 2 + 1 + 16, 0);
    while n < TEXT_BYTES_MAX.len() - 1 {
        sum += 2 + TEXT_BYTES_MAX[n];
        n += 1;
    }
    assert!(sum + 2 <= RECORD_BYTES, "all texts fit");
};

/// Gives the length.
fn encode(record: &Record<'_>, bytes: &mut [u8; RECORD_BYTES]) -> usize {
    let mut rest: &mut [u8] = bytes;
    let numbers = [
        record.time_us,
        record.body_bytes,
        record.sent_bytes,
        record.received_bytes,
        (record.request_id >> 64) as u64,
        record.request_id as u64,
    ];
    let times = record.times.named().map(|(_, time_us)| time_us.unwrap_or(NO_TIME));
    for number in numbers.into_iter().chain(times) {
        put(&mut rest, &number.to_le_bytes());
    }
    put(&mut rest, &record.status.to_le_bytes());
    put(&mut rest, &[u8::from(record.client.is_some())]);
    let client = match record.client {
        Some(IpAddr::V4(address)) => address.to_ipv6_mapped(),
        Some(IpAddr::V6(address)) => address,
        None => Ipv6Addr::UNSPECIFIED,
    };
    put(&mut rest, &client.octets());
    let texts: [&[u8]; TEXT_BYTES_MAX.len()] = [
        record.method,
        record.version.as_bytes(),
        record.verdict.as_bytes(),
        record.reason.as_bytes(),
        record.upstream.as_bytes(),
        record.server.as_bytes(),
        record.close.as_bytes(),
        record.tls_version.as_bytes(),
        record.host,
        record.target,
        record.user_agent,
    ];
    for (text, max) in texts.into_iter().zip(TEXT_BYTES_MAX) {
        let max = max.min(rest.len().saturating_sub(2));
        let len = text.len().min(max);
        put(&mut rest, &(len as u16).to_le_bytes());
        if text.len() <= max {
            put(&mut rest, text);
        } else {
            let dots = &b"..."[..max.min(3)];
            put(&mut rest, &text[..max - dots.len()]);
            put(&mut rest, dots);
        }
    }
    let left = rest.len();
    RECORD_BYTES - left
}

/// Appends what fits.
fn put(rest: &mut &mut [u8], bytes: &[u8]) {
    let n = bytes.len().min(rest.len());
    let (place, after) = std::mem::take(rest).split_at_mut(n);
    place.copy_from_slice(&bytes[..n]);
    *rest = after;
}

fn decode(mut rest: &[u8]) -> Record<'_> {
    let numbers: [u64; 6] = std::array::from_fn(|_| take_number(&mut rest));
    let [time_us, body_bytes, sent_bytes, received_bytes, id_high, id_low] = numbers;
    let times: [Option<u64>; 8] =
        std::array::from_fn(|_| Some(take_number(&mut rest)).filter(|it| *it != NO_TIME));
    let [head_us, body_us, lookup_us, queue_us, connect_us, first_byte_us, answer_us, total_us] =
        times;
    let status = u16::from_le_bytes(take_array(&mut rest));
    let [has_client] = take_array(&mut rest);
    let client = Ipv6Addr::from(take_array::<16>(&mut rest)).to_canonical();
    let [
        method,
        version,
        verdict,
        reason,
        upstream,
        server,
        close,
        tls_version,
        host,
        target,
        user_agent,
    ] = std::array::from_fn(|_| {
        let len = usize::from(u16::from_le_bytes(take_array(&mut rest)));
        take(&mut rest, len)
    });
    Record {
        time_us,
        client: (has_client == 1).then_some(client),
        method,
        host,
        target,
        version: text(version),
        status,
        body_bytes,
        sent_bytes,
        received_bytes,
        user_agent,
        request_id: u128::from(id_high) << 64 | u128::from(id_low),
        verdict: text(verdict),
        reason: text(reason),
        upstream: text(upstream),
        server: text(server),
        tls_version: text(tls_version),
        times: Times {
            head_us,
            body_us,
            lookup_us,
            queue_us,
            connect_us,
            first_byte_us,
            answer_us,
            total_us,
        },
        close: text(close),
        ..Record::default()
    }
}

fn take<'b>(rest: &mut &'b [u8], n: usize) -> &'b [u8] {
    let (taken, after) = rest.split_at(n.min(rest.len()));
    *rest = after;
    taken
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    take(rest, N).try_into().unwrap_or([0; N])
}

fn take_number(rest: &mut &[u8]) -> u64 {
    u64::from_le_bytes(take_array(rest))
}

/// A text of ktrix itself, which may be cut within a character.
fn text(bytes: &[u8]) -> &str {
    bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Record<'static> {
        Record {
            time_us: 1_795_230_282_000_123,
            client: Some("192.0.2.7".parse().unwrap()),
            method: b"GET",
            host: b"example.com",
            target: b"/a?b",
            version: "HTTP/1.1",
            status: 200,
            body_bytes: 1024,
            sent_bytes: 1300,
            user_agent: b"curl/8",
            request_id: 1 << 100 | 31,
            verdict: "miss",
            upstream: "app",
            server: "10.0.0.1:8080",
            times: Times { head_us: Some(0), total_us: Some(2_345_678), ..Times::default() },
            ..Record::default()
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let feed = Feed::create(2).unwrap();
        assert!(feed.read(1, 0).is_none());
        feed.write(1, &sample());
        assert_eq!((feed.end(0), feed.end(1), feed.oldest(1)), (0, 1, 0));
        let fed = feed.read(1, 0).unwrap();
        assert_eq!(format!("{:?}", fed.record()), format!("{:?}", sample()));
        feed.write(2, &sample());
        assert_eq!(feed.end(2), 0, "there is no such process slot");
    }

    #[test]
    fn an_overwritten_record_is_missed_and_not_mixed() {
        let feed = Feed::create(1).unwrap();
        let n = N_RECORDS as u64 + 10;
        for status in 0..n {
            feed.write(0, &Record { status: status as u16, ..sample() });
        }
        assert!(feed.read(0, 9).is_none() && feed.read(0, n).is_none());
        assert_eq!(feed.oldest(0), 11);
        assert_eq!(feed.read(0, 11).unwrap().record().status, 11);
        assert_eq!(feed.read(0, n - 1).unwrap().record().status, n as u16 - 1);
    }

    #[test]
    fn a_command_opens_the_file_and_is_a_follower_until_its_deadline() {
        let feed = Feed::create(3).unwrap();
        let file = feed.file().unwrap();
        let opened = Feed::open(file).unwrap();
        assert_eq!(opened.n_slots(), 3);
        assert!(!feed.is_followed(0));
        opened.follow_until(2_000);
        opened.follow_until(1_000);
        assert!(feed.is_followed(1_999) && !feed.is_followed(2_000));
        feed.write(2, &sample());
        assert!(opened.read(2, 0).is_some());
        assert!(Feed::open(&tempfile::tempfile().unwrap()).is_err());
        let fd = || OwnedFd::from(feed.file().unwrap().try_clone().unwrap());
        assert_eq!(Feed::passed(fd(), 3).unwrap().end(2), 1);
        assert!(Feed::passed(fd(), 2).is_err());
        feed.header[1].store(VERSION + 1, Ordering::Relaxed);
        assert!(Feed::passed(fd(), 3).is_err());
    }

    #[test]
    fn a_reader_beside_a_writer_sees_whole_records_only() {
        let feed = Feed::create(1).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..60_000_u64 {
                    let text = [b'a' + (n % 26) as u8; 200];
                    let record = Record { time_us: n, target: &text, ..Record::default() };
                    feed.write(0, &record);
                }
            });
            let mut next = 0;
            while next < 60_000 {
                let end = feed.end(0);
                next = next.max(feed.oldest(0));
                for n in next..end {
                    if let Some(fed) = feed.read(0, n) {
                        let record = fed.record();
                        assert_eq!(record.time_us, n);
                        assert_eq!(record.target, [b'a' + (n % 26) as u8; 200]);
                    }
                }
                next = end;
            }
        });
    }

    proptest! {
        #[test]
        fn long_texts_are_cut_and_any_bytes_can_be_read(
            target in proptest::collection::vec(any::<u8>(), 0..2_000),
            agent in proptest::collection::vec(any::<u8>(), 0..2_000),
            upstream in ".{0,80}",
            damage in proptest::collection::vec(any::<u8>(), RECORD_BYTES),
        ) {
            let record =
                Record { target: &target, user_agent: &agent, upstream: &upstream, ..sample() };
            let mut bytes = [0; RECORD_BYTES];
            let len = encode(&record, &mut bytes);
            prop_assert!(len <= RECORD_BYTES);
            let read = decode(&bytes);
            prop_assert_eq!(read.status, 200);
            if target.len() <= 280 {
                prop_assert_eq!(read.target, &target[..]);
            } else {
                prop_assert!(read.target.len() == 280 && read.target.ends_with(b"..."));
            }
            prop_assert!(upstream.starts_with(read.upstream.trim_end_matches("...")));
            let _ = decode(&damage);
        }
    }
}
