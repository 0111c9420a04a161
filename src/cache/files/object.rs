//! The format of a cache file, and how it is checked.
//!
//! ```text
//! header A (64 bytes) | header B (64 bytes) | key text | meta | head | body | room
//! ```
//!
//! | bytes | header field | meaning |
//! | --- | --- | --- |
//! | 0..8 | magic | `ktrixobj` |
//! | 8..12 | version | 2 |
//! | 12..16 | sequence | 1, and one more with each head; odd in header A, even in B |
//! | 16..18 | status | of the response |
//! | 18..20 | flags | 1 = finished |
//! | 20..24 | key length | of the full key text |
//! | 24..28 | meta length | what policy remembers |
//! | 28..32 | head length | fields as `name: value\r\n` |
//! | 32..40 | body length | all ones while unknown |
//! | 40..48 | head offset | where meta and head are |
//! | 48..52 | body offset | where the body is |
//! | 52..56 | front crc | CRC-32C of key text, meta and head |
//! | 56..60 | body crc | CRC-32C of the body; 0 while unfinished |
//! | 60..64 | header crc | CRC-32C of bytes 0 to 59 |
//!
//! Of the headers with a right checksum, the one with the higher sequence number counts. A file
//! begins with header A, and with meta and head before the body. A new head changes neither the body
//! nor what counts before ([`Header::writes`]): its meta and head are written into the room behind the
//! body, then its header into the block that does not count, and then the header that counted is
//! blanked. A writer that is killed at any moment leaves the old head or the new one.
//!
//! Numbers are little-endian. Nothing in it depends on where the file is, so that it may be copied.
//! A reader checks everything before it uses it: lengths are bounded before memory is allocated,
//! and compared with the length of the file.

/// Length of a header.
pub const HEADER_LEN: usize = 64;
/// Length of both headers.
pub const HEADERS_LEN: usize = 2 * HEADER_LEN;
/// The longest key text.
pub const KEY_BYTES_MAX: u32 = 256 << 10;
/// The longest meta part.
pub const META_BYTES_MAX: u32 = 64 << 10;
/// The longest head part.
pub const HEAD_BYTES_MAX: u32 = 256 << 10;
/// The most room behind the body. A new head is written at the end of the body or, where it would
/// touch the head that counts, behind that one, which then begins within less than a head's length.
pub const ROOM_BYTES_MAX: u64 = 3 * (META_BYTES_MAX as u64 + HEAD_BYTES_MAX as u64);
/// A body length that is not known yet.
pub const UNKNOWN_LEN: u64 = u64::MAX;

/// A fault of a cache file. Each makes a miss, and the file is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Shorter than its header says.
    Cut,
    /// Longer than its header allows.
    TooLong,
    /// Not a cache file.
    NotOurs,
    /// Of another version of ktrix.
    Version,
    /// The checksums of both headers are wrong.
    HeaderDamaged,
    /// A part is longer than its limit.
    Limits,
    /// The checksum of key text, meta and head is wrong.
    FrontDamaged,
    /// The checksum of the body is wrong.
    BodyDamaged,
    /// A fill did not end.
    Unfinished,
    /// Its key text is not the expected one.
    ForeignKey,
    /// A directory, a link, a pipe or a device stands in its place.
    NoFile,
}

impl Fault {
    /// The word used in logs and by `ktrix cache verify`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::TooLong => "too-long",
            Self::NotOurs => "not-ours",
            Self::Version => "version",
            Self::HeaderDamaged => "header-damaged",
            Self::Limits => "limits",
            Self::FrontDamaged => "front-damaged",
            Self::BodyDamaged => "body-damaged",
            Self::Unfinished => "unfinished",
            Self::ForeignKey => "foreign-key",
            Self::NoFile => "no-file",
        }
    }
}

/// A header, parsed and within limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How many headers the file has had, this one included.
    pub sequence: u32,
    /// Status of the response.
    pub status: u16,
    /// Bytes of key text.
    pub key_len: u32,
    /// Bytes of meta.
    pub meta_len: u32,
    /// Bytes of the head.
    pub head_len: u32,
    /// Bytes of the body; `None` while unknown.
    pub body_len: Option<u64>,
    /// Where meta and head are.
    pub head_at: u64,
    /// Where the body is.
    pub body_at: u32,
    /// CRC-32C of key text, meta and head.
    pub front_crc: u32,
    /// CRC-32C of the body, once it is finished.
    pub body_crc: Option<u32>,
}

impl Header {
    /// The first header of a file with this key text, meta and head, whose body is still to come.
    /// `None` if a part is longer than it may be.
    pub fn begin(status: u16, front: [&[u8]; 3], body_len: Option<u64>) -> Option<Self> {
        let limits = [KEY_BYTES_MAX, META_BYTES_MAX, HEAD_BYTES_MAX];
        let mut lens = [0; 3];
        for ((len, part), max) in lens.iter_mut().zip(front).zip(limits) {
            *len = u32::try_from(part.len()).ok().filter(|&len| len <= max)?;
        }
        let front_crc = front.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part));
        let [key_len, meta_len, head_len] = lens;
        let head_at = HEADERS_LEN as u32 + key_len;
        Some(Self {
            sequence: 1,
            status,
            key_len,
            meta_len,
            head_len,
            body_len,
            head_at: head_at.into(),
            body_at: head_at + meta_len + head_len,
            front_crc,
            body_crc: None,
        })
    }

    /// The next header of a finished file, for the same body under another meta and head. `None` if
    /// the file has to be written again for that.
    pub fn renewed(&self, front: [&[u8]; 3]) -> Option<Self> {
        let body_end = self.body_end().filter(|_| self.body_crc.is_some())?;
        let next = Self::begin(self.status, front, self.body_len)?;
        let len = u64::from(next.meta_len + next.head_len);
        let head_at = match self.head_at.checked_sub(body_end) {
            Some(distance) if len > distance => self.head_end(),
            _ => body_end,
        };
        let sequence = self.sequence.checked_add(1).filter(|_| next.key_len == self.key_len)?;
        Some(Self { sequence, head_at, body_at: self.body_at, body_crc: self.body_crc, ..next })
    }

    /// The writes that put this header, with this meta and head, in force: offsets and bytes, in
    /// the order in which they must be done.
    pub fn writes(&self, meta: &[u8], head: &[u8]) -> [(u64, Vec<u8>); 3] {
        let (own, other) = match self.sequence % 2 {
            1 => (0, HEADER_LEN as u64),
            _ => (HEADER_LEN as u64, 0),
        };
        [
            (self.head_at, [meta, head].concat()),
            (own, self.bytes().to_vec()),
            // Magic and version stay, so that file(1) still knows the format.
            (other + 12, vec![0; HEADER_LEN - 12]),
        ]
    }

    /// Parses and checks the headers at the beginning of `bytes`, and gives the one that counts.
    ///
    /// # Errors
    ///
    /// The [`Fault`] of the first one, if none counts.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let (blocks, _) = bytes.as_chunks();
        let [first, second, ..] = blocks else { return Err(Fault::Cut) };
        match (Self::parse_one(first, 1), Self::parse_one(second, 0)) {
            (Ok(first), Ok(second)) if second.sequence > first.sequence => Ok(second),
            (Err(_), Ok(second)) => Ok(second),
            (first, _) => first,
        }
    }

    fn parse_one(bytes: &[u8; HEADER_LEN], parity: u32) -> Result<Self, Fault> {
        if bytes[..8] != MAGIC {
            return Err(Fault::NotOurs);
        }
        if u32_at(bytes, 60) != crc32c::crc32c(&bytes[..60]) {
            return Err(Fault::HeaderDamaged);
        }
        if u32_at(bytes, 8) != VERSION {
            return Err(Fault::Version);
        }
        let facts = u32_at(bytes, 16);
        let u64_at = |at| u64::from(u32_at(bytes, at + 4)) << 32 | u64::from(u32_at(bytes, at));
        let header = Self {
            sequence: u32_at(bytes, 12),
            status: facts as u16,
            key_len: u32_at(bytes, 20),
            meta_len: u32_at(bytes, 24),
            head_len: u32_at(bytes, 28),
            body_len: Some(u64_at(32)).filter(|&len| len != UNKNOWN_LEN),
            head_at: u64_at(40),
            body_at: u32_at(bytes, 48),
            front_crc: u32_at(bytes, 52),
            body_crc: (facts >> 16 & FINISHED != 0).then(|| u32_at(bytes, 56)),
        };
        let is_right = header.sequence % 2 == parity && header.is_within_limits();
        if is_right { Ok(header) } else { Err(Fault::Limits) }
    }

    fn is_within_limits(&self) -> bool {
        let front = HEADERS_LEN as u64 + u64::from(self.key_len);
        let front_max = front + u64::from(META_BYTES_MAX + HEAD_BYTES_MAX);
        let body_at = u64::from(self.body_at);
        let is_before = self.head_at == front && self.head_end() == body_at;
        let is_behind = |end| self.head_at >= end && self.head_end() <= end + ROOM_BYTES_MAX;
        self.key_len <= KEY_BYTES_MAX
            && self.meta_len <= META_BYTES_MAX
            && self.head_len <= HEAD_BYTES_MAX
            && self.body_len.is_none_or(|len| len <= i64::MAX as u64 - (1 << 32))
            && (front..=front_max).contains(&body_at)
            && (is_before || self.body_end().is_some_and(is_behind))
    }

    /// The header as bytes.
    pub fn bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[32..40].copy_from_slice(&self.body_len.unwrap_or(UNKNOWN_LEN).to_le_bytes());
        bytes[40..48].copy_from_slice(&self.head_at.to_le_bytes());
        let flags = if self.body_crc.is_some() { FINISHED } else { 0 };
        let words = [
            (8, VERSION),
            (12, self.sequence),
            (16, u32::from(self.status) | flags << 16),
            (20, self.key_len),
            (24, self.meta_len),
            (28, self.head_len),
            (48, self.body_at),
            (52, self.front_crc),
            (56, self.body_crc.unwrap_or(0)),
        ];
        for (at, word) in words {
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Where meta and head end.
    pub const fn head_end(&self) -> u64 {
        self.head_at.saturating_add(self.meta_len as u64).saturating_add(self.head_len as u64)
    }

    /// Where the body ends; `None` while its length is unknown.
    fn body_end(&self) -> Option<u64> {
        Some(self.body_len?.saturating_add(u64::from(self.body_at)))
    }

    /// Checks key text, and meta and head one after the other.
    ///
    /// # Errors
    ///
    /// [`Fault::FrontDamaged`].
    pub fn check_front(&self, key_text: &[u8], meta_and_head: &[u8]) -> Result<(), Fault> {
        let crc = crc32c::crc32c_append(crc32c::crc32c(key_text), meta_and_head);
        if crc == self.front_crc { Ok(()) } else { Err(Fault::FrontDamaged) }
    }

    /// Checks that the file is whole, by its length in bytes, and gives the length of its body.
    ///
    /// # Errors
    ///
    /// [`Fault::Unfinished`], [`Fault::Cut`] or [`Fault::TooLong`].
    pub fn check_len(&self, file_len: u64) -> Result<u64, Fault> {
        let (Some(body_len), Some(body_end), Some(_)) =
            (self.body_len, self.body_end(), self.body_crc)
        else {
            return Err(Fault::Unfinished);
        };
        if file_len < body_end.max(self.head_end()) {
            Err(Fault::Cut)
        } else if file_len > body_end.saturating_add(ROOM_BYTES_MAX) {
            // A writer that was killed may have left bytes in the room.
            Err(Fault::TooLong)
        } else {
            Ok(body_len)
        }
    }
}

/// A whole cache file in memory, taken apart into key text, meta, head and body.
///
/// # Errors
///
/// The [`Fault`] found first.
pub fn parse_whole(bytes: &[u8]) -> Result<(Header, [&[u8]; 4]), Fault> {
    let header = Header::parse(bytes)?;
    let body_len = header.check_len(bytes.len() as u64)?;
    let part = |at: u64, len: u64| {
        let rest = bytes.get(usize::try_from(at).ok()?..)?;
        rest.get(..usize::try_from(len).ok()?)
    };
    let key = part(HEADERS_LEN as u64, header.key_len.into()).ok_or(Fault::Cut)?;
    let front_len = u64::from(header.meta_len) + u64::from(header.head_len);
    let front = part(header.head_at, front_len).ok_or(Fault::Cut)?;
    let body = part(header.body_at.into(), body_len).ok_or(Fault::Cut)?;
    header.check_front(key, front)?;
    if header.body_crc != Some(crc32c::crc32c(body)) {
        return Err(Fault::BodyDamaged);
    }
    let (meta, head) = front.split_at_checked(header.meta_len as usize).ok_or(Fault::Cut)?;
    Ok((header, [key, meta, head, body]))
}

pub(crate) const MAGIC: [u8; 8] = *b"ktrixobj";
const VERSION: u32 = 2;
const FINISHED: u32 = 1;

fn u32_at(bytes: &[u8; HEADER_LEN], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |it| u32::from_le_bytes(*it))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(key: &[u8], meta: &[u8], head: &[u8], body: &[u8]) -> Vec<u8> {
        let mut header = Header::begin(200, [key, meta, head], Some(body.len() as u64)).unwrap();
        header.body_crc = Some(crc32c::crc32c(body));
        [&header.bytes()[..], &[0; HEADER_LEN], key, meta, head, body].concat()
    }

    fn write(file: &mut Vec<u8>, at: u64, bytes: &[u8]) {
        let end = at as usize + bytes.len();
        file.resize(file.len().max(end), 0);
        file[at as usize..end].copy_from_slice(bytes);
    }

    /// Gives a file another head.
    fn renew(file: &mut Vec<u8>, meta: &[u8], head: &[u8]) {
        let (header, [key, ..]) = parse_whole(file).unwrap();
        let next = header.renewed([key, meta, head]).unwrap();
        for (at, bytes) in next.writes(meta, head) {
            write(file, at, &bytes);
        }
    }

    const KEY: &[u8] = b"GET http://a/";
    const BODY: &[u8] = b"body of it";

    const ALL: [Fault; 11] = [
        Fault::Cut,
        Fault::TooLong,
        Fault::NotOurs,
        Fault::Version,
        Fault::HeaderDamaged,
        Fault::Limits,
        Fault::FrontDamaged,
        Fault::BodyDamaged,
        Fault::Unfinished,
        Fault::ForeignKey,
        Fault::NoFile,
    ];

    proptest! {
        #[test]
        fn a_file_is_read_as_it_was_written(
            key in "[a-z]{0,40}", meta in any::<Vec<u8>>(), head in "[a-z]{0,40}",
            body in any::<Vec<u8>>(),
        ) {
            let file = whole(key.as_bytes(), &meta, head.as_bytes(), &body);
            let (header, parts) = parse_whole(&file).unwrap();
            prop_assert_eq!(header.status, 200);
            prop_assert_eq!(parts, [key.as_bytes(), &meta, head.as_bytes(), &body]);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in any::<Vec<u8>>(), at in 8..60_usize) {
            let _ = parse_whole(&bytes);
            for is_renewed in [false, true] {
                let mut file = whole(b"k", b"m", b"h", b"b");
                if is_renewed {
                    renew(&mut file, b"n", b"i");
                }
                let block = usize::from(is_renewed) * HEADER_LEN;
                for (old, new) in file[block + at..block + 60].iter_mut().zip(&bytes) {
                    *old = *new;
                }
                let crc = crc32c::crc32c(&file[block..block + 60]);
                file[block + 60..block + 64].copy_from_slice(&crc.to_le_bytes());
                let _ = parse_whole(&file);
            }
        }

        #[test]
        fn heads_of_any_lengths_take_turns_within_the_room(
            lens in prop::collection::vec((0..2_000_usize, 0..6_000_usize), 1..60),
        ) {
            let mut file = whole(KEY, b"meta", b"a: b\r\n", BODY);
            let len = file.len();
            let longest = lens.iter().map(|(meta, head)| meta + head).max().unwrap();
            for (n, (meta, head)) in lens.into_iter().enumerate() {
                let (meta, head) = (vec![n as u8; meta], vec![n as u8; head]);
                renew(&mut file, &meta, &head);
                prop_assert_eq!(parse_whole(&file).unwrap().1, [KEY, &meta, &head, BODY]);
            }
            prop_assert!(file.len() <= len + 3 * longest, "{} of {longest}", file.len());
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_a_fault() {
        let file = whole(KEY, b"meta", b"a: b\r\n", BODY);
        for at in 0..file.len() {
            assert!(parse_whole(&file[..at]).is_err(), "cut at {at}");
            // The second header is still unused.
            for bit in (0..8).filter(|_| !(HEADER_LEN..HEADERS_LEN).contains(&at)) {
                let mut file = file.clone();
                file[at] ^= 1 << bit;
                assert!(parse_whole(&file).is_err(), "bit {bit} of byte {at}");
            }
        }
        let grown = |n: u64| [&file[..], &vec![0; n as usize]].concat();
        assert!(parse_whole(&grown(ROOM_BYTES_MAX)).is_ok(), "the room may hold anything");
        assert_eq!(parse_whole(&grown(ROOM_BYTES_MAX + 1)), Err(Fault::TooLong));
    }

    #[test]
    fn damage_to_a_renewed_file_gives_no_other_head_than_the_one_that_counts() {
        let mut file = whole(KEY, b"meta", b"a: b\r\n", BODY);
        for (meta, head) in
            [(b"later", b"c: d\r\n"), (b"again", b"e: f\r\n"), (b"third", b"g: h\r\n")]
        {
            renew(&mut file, meta, head);
            let parts: [&[u8]; 4] = [KEY, meta, head, BODY];
            let end = parse_whole(&file).unwrap().0.head_end() as usize;
            for at in 0..file.len() {
                match parse_whole(&file[..at]) {
                    Ok((_, found)) => assert!(at >= end && found == parts, "cut at {at}"),
                    Err(_) => assert!(at < end, "cut at {at}"),
                }
                for bit in 0..8 {
                    let mut file = file.clone();
                    file[at] ^= 1 << bit;
                    let found = parse_whole(&file);
                    assert!(found.is_err() || found.unwrap().1 == parts, "bit {bit} of {at}");
                }
            }
        }
    }

    #[test]
    fn a_writer_killed_between_any_two_bytes_leaves_the_old_head_or_the_new() {
        let mut file = whole(KEY, b"meta 0", b"a: 0\r\n", BODY);
        for n in 1..6_u8 {
            let (_, old) = parse_whole(&file).unwrap();
            let old = old.map(<[u8]>::to_vec);
            // Different lengths, so that the heads are at different offsets of the room.
            let meta = vec![n; 5 + usize::from(n) * 7 % 11];
            let head = format!("a: {}\r\n", "x".repeat(usize::from(n) * 5 % 13)).into_bytes();
            let next = Header::parse(&file).unwrap().renewed([KEY, &meta, &head]).unwrap();
            let mut has_changed = false;
            for (at, bytes) in next.writes(&meta, &head) {
                for n_written in 0..=bytes.len() {
                    write(&mut file, at, &bytes[..n_written]);
                    let (_, found) = parse_whole(&file).unwrap();
                    let is_new = found == [KEY, &meta, &head, BODY];
                    assert!(is_new || found == old.each_ref().map(Vec::as_slice) && !has_changed);
                    has_changed = is_new;
                }
            }
            assert!(has_changed);
        }
    }

    #[test]
    fn a_thousand_renewals_keep_a_file_short() {
        let mut file = whole(KEY, b"meta", b"a: b\r\n", BODY);
        let len = file.len();
        for n in 1..=1_000_u32 {
            renew(&mut file, &n.to_le_bytes(), b"a: c\r\n");
            let header = parse_whole(&file).unwrap().0;
            assert_eq!((header.sequence, header.body_at as usize), (n + 1, len - BODY.len()));
            assert!(file.len() <= len + 20, "two heads of ten bytes");
        }
    }

    #[test]
    fn a_head_that_does_not_fit_is_refused() {
        let unfinished = Header::begin(200, [b"k", b"m", b"h"], Some(1)).unwrap();
        assert_eq!(unfinished.renewed([b"k", b"m", b"h"]), None);
        let header = Header { body_crc: Some(7), ..unfinished };
        assert!(header.renewed([b"k", b"n", b"i"]).is_some());
        assert_eq!(header.renewed([b"key", b"n", b"i"]), None, "another's");
        assert_eq!(header.renewed([b"k", b"n", &vec![0; 1 << 20]]), None);
        let last = Header { sequence: u32::MAX, ..header };
        assert_eq!(last.renewed([b"k", b"n", b"i"]), None);
    }

    #[test]
    fn a_part_past_its_limit_is_refused_both_ways() {
        let long = vec![0; META_BYTES_MAX as usize + 1];
        assert!(Header::begin(200, [b"k", &long, b""], None).is_none());
        let parse = |header: Header| Header::parse(&[header.bytes(), [0; HEADER_LEN]].concat());
        let header = Header::begin(200, [b"k", b"m", b"h"], None).unwrap();
        assert_eq!(parse(header).unwrap().check_len(131), Err(Fault::Unfinished));
        let limits = Err(Fault::Limits);
        let (meta_len, body_at) = (META_BYTES_MAX + 1, header.body_at + META_BYTES_MAX);
        assert_eq!(parse(Header { meta_len, body_at, ..header }), limits);
        assert_eq!(parse(Header { head_at: 128, ..header }), limits);
        let header = Header { body_len: Some(9), body_crc: Some(7), ..header };
        let renewed = header.renewed([b"k", b"m", b"h"]).unwrap();
        let parse = |header: Header| Header::parse(&[[0; HEADER_LEN], header.bytes()].concat());
        assert_eq!(parse(renewed), Ok(renewed));
        for head_at in [0, renewed.head_at - 1, renewed.head_at + ROOM_BYTES_MAX, u64::MAX] {
            assert_eq!(parse(Header { head_at, ..renewed }), Err(Fault::NotOurs), "{head_at}");
        }
    }

    #[test]
    fn a_file_of_an_older_version_is_a_version_fault() {
        let mut file = whole(KEY, b"meta", b"a: b\r\n", BODY);
        file[8] = 1;
        let crc = crc32c::crc32c(&file[..60]);
        file[60..64].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(parse_whole(&file), Err(Fault::Version));
    }

    #[test]
    fn every_fault_has_its_own_word() {
        let words: std::collections::HashSet<_> = ALL.iter().map(|it| it.word()).collect();
        assert_eq!(words.len(), ALL.len());
    }
}
