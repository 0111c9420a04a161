//! The form of a cache file: what it says about itself, and how that is checked.
//!
//! ```text
//! header (64 bytes) | key text | meta | head | body
//! ```
//!
//! | bytes | header field | meaning |
//! | --- | --- | --- |
//! | 0..8 | magic | `ktrixobj` |
//! | 8..12 | version | 1 |
//! | 12..16 | flags | 1 = finished |
//! | 16..18 | status | of the response |
//! | 18..20 | - | 0 |
//! | 20..24 | key length | of the full key text |
//! | 24..28 | meta length | what policy remembers |
//! | 28..32 | head length | fields as `name: value\r\n` |
//! | 32..40 | body length | all ones while unknown |
//! | 40..44 | front crc | CRC-32C of key text, meta and head |
//! | 44..48 | body crc | CRC-32C of the body; 0 while unfinished |
//! | 48..60 | - | 0 |
//! | 60..64 | header crc | CRC-32C of bytes 0 to 59 |
//!
//! Numbers are little-endian. Nothing in it depends on where the file is, so that it may be copied.
//! A reader believes nothing that it has not checked: lengths are bounded before memory is taken,
//! and are compared with the file's own.

/// Length of the header.
pub const HEADER_LEN: usize = 64;
/// The longest key text.
pub const KEY_BYTES_MAX: u32 = 256 << 10;
/// The longest meta part.
pub const META_BYTES_MAX: u32 = 64 << 10;
/// The longest head part.
pub const HEAD_BYTES_MAX: u32 = 256 << 10;
/// A body length that is not known yet.
pub const UNKNOWN_LEN: u64 = u64::MAX;

/// What is wrong with a cache file. Each is a miss, and a reason to remove it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Shorter than its header says.
    Cut,
    /// Longer than its header says.
    TooLong,
    /// Not a cache file.
    NotOurs,
    /// Of another version of ktrix.
    Version,
    /// The header's checksum is wrong.
    HeaderDamaged,
    /// A part is longer than any may be.
    Limits,
    /// The checksum of key text, meta and head is wrong.
    FrontDamaged,
    /// The checksum of the body is wrong.
    BodyDamaged,
    /// A fill did not end.
    Unfinished,
    /// Its key text is not the one that was asked for.
    ForeignKey,
    /// A directory, a link, a pipe or a device stands in its place.
    NoFile,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 11] = [
        Self::Cut,
        Self::TooLong,
        Self::NotOurs,
        Self::Version,
        Self::HeaderDamaged,
        Self::Limits,
        Self::FrontDamaged,
        Self::BodyDamaged,
        Self::Unfinished,
        Self::ForeignKey,
        Self::NoFile,
    ];

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
    /// CRC-32C of key text, meta and head.
    pub front_crc: u32,
    /// CRC-32C of the body, once it is finished.
    pub body_crc: Option<u32>,
}

impl Header {
    /// The header of a file with this front, whose body is still to come. `None` if a part is
    /// longer than it may be.
    pub fn begin(status: u16, front: [&[u8]; 3], body_len: Option<u64>) -> Option<Self> {
        let limits = [KEY_BYTES_MAX, META_BYTES_MAX, HEAD_BYTES_MAX];
        let mut lens = [0; 3];
        for ((len, part), max) in lens.iter_mut().zip(front).zip(limits) {
            *len = u32::try_from(part.len()).ok().filter(|&len| len <= max)?;
        }
        let front_crc = front.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part));
        let [key_len, meta_len, head_len] = lens;
        Some(Self { status, key_len, meta_len, head_len, body_len, front_crc, body_crc: None })
    }

    /// Parses and checks the header at the beginning of `bytes`.
    ///
    /// # Errors
    ///
    /// The [`Fault`] found first.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let bytes = bytes.first_chunk::<HEADER_LEN>().ok_or(Fault::Cut)?;
        if bytes[..8] != MAGIC {
            return Err(Fault::NotOurs);
        }
        if u32_at(bytes, 60) != crc32c::crc32c(&bytes[..60]) {
            return Err(Fault::HeaderDamaged);
        }
        if u32_at(bytes, 8) != VERSION {
            return Err(Fault::Version);
        }
        let is_finished = u32_at(bytes, 12) & FINISHED != 0;
        let body_len = u64::from(u32_at(bytes, 36)) << 32 | u64::from(u32_at(bytes, 32));
        let header = Self {
            status: u32_at(bytes, 16) as u16,
            key_len: u32_at(bytes, 20),
            meta_len: u32_at(bytes, 24),
            head_len: u32_at(bytes, 28),
            body_len: (body_len != UNKNOWN_LEN).then_some(body_len),
            front_crc: u32_at(bytes, 40),
            body_crc: is_finished.then(|| u32_at(bytes, 44)),
        };
        let is_within = header.key_len <= KEY_BYTES_MAX
            && header.meta_len <= META_BYTES_MAX
            && header.head_len <= HEAD_BYTES_MAX
            && header.body_len.is_none_or(|len| len <= i64::MAX as u64 - (1 << 32));
        if is_within { Ok(header) } else { Err(Fault::Limits) }
    }

    /// The header as bytes.
    pub fn bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[32..40].copy_from_slice(&self.body_len.unwrap_or(UNKNOWN_LEN).to_le_bytes());
        let flags = if self.body_crc.is_some() { FINISHED } else { 0 };
        let words = [
            (8, VERSION),
            (12, flags),
            (16, u32::from(self.status)),
            (20, self.key_len),
            (24, self.meta_len),
            (28, self.head_len),
            (40, self.front_crc),
            (44, self.body_crc.unwrap_or(0)),
        ];
        for (at, word) in words {
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Where the body begins: the length of all that is before it, under 1 MiB.
    pub const fn body_offset(&self) -> u32 {
        HEADER_LEN as u32 + self.key_len + self.meta_len + self.head_len
    }

    /// Checks key text, meta and head, which `front` holds one after another.
    ///
    /// # Errors
    ///
    /// [`Fault::FrontDamaged`].
    pub fn check_front(&self, front: &[u8]) -> Result<(), Fault> {
        if crc32c::crc32c(front) == self.front_crc { Ok(()) } else { Err(Fault::FrontDamaged) }
    }

    /// Checks that the file is whole, by its length in bytes.
    ///
    /// # Errors
    ///
    /// [`Fault::Unfinished`], [`Fault::Cut`] or [`Fault::TooLong`].
    pub fn check_len(&self, file_len: u64) -> Result<u64, Fault> {
        let (Some(body_len), Some(_)) = (self.body_len, self.body_crc) else {
            return Err(Fault::Unfinished);
        };
        match file_len.cmp(&body_len.saturating_add(u64::from(self.body_offset()))) {
            std::cmp::Ordering::Less => Err(Fault::Cut),
            std::cmp::Ordering::Greater => Err(Fault::TooLong),
            std::cmp::Ordering::Equal => Ok(body_len),
        }
    }
}

/// A whole cache file in memory, taken apart: for the fuzzer and the curious.
///
/// # Errors
///
/// The [`Fault`] found first.
pub fn parse_whole(bytes: &[u8]) -> Result<(Header, [&[u8]; 4]), Fault> {
    let header = Header::parse(bytes)?;
    header.check_len(bytes.len() as u64)?;
    let rest = bytes.get(HEADER_LEN..).ok_or(Fault::Cut)?;
    let (key, rest) = rest.split_at_checked(header.key_len as usize).ok_or(Fault::Cut)?;
    let (meta, rest) = rest.split_at_checked(header.meta_len as usize).ok_or(Fault::Cut)?;
    let (head, body) = rest.split_at_checked(header.head_len as usize).ok_or(Fault::Cut)?;
    header.check_front(&bytes[HEADER_LEN..header.body_offset() as usize])?;
    if header.body_crc != Some(crc32c::crc32c(body)) {
        return Err(Fault::BodyDamaged);
    }
    Ok((header, [key, meta, head, body]))
}

const MAGIC: [u8; 8] = *b"ktrixobj";
const VERSION: u32 = 1;
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
        [&header.bytes(), key, meta, head, body].concat()
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
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
            let mut file = whole(b"k", b"m", b"h", b"b");
            for (old, new) in file[at..60].iter_mut().zip(&bytes) {
                *old = *new;
            }
            let crc = crc32c::crc32c(&file[..60]);
            file[60..64].copy_from_slice(&crc.to_le_bytes());
            let _ = parse_whole(&file);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_a_fault() {
        let file = whole(b"GET http://a/", b"meta", b"a: b\r\n", b"body of it");
        for at in 0..file.len() {
            assert!(parse_whole(&file[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut file = file.clone();
                file[at] ^= 1 << bit;
                assert!(parse_whole(&file).is_err(), "bit {bit} of byte {at}");
            }
        }
        assert_eq!(parse_whole(&[&file[..], b"x"].concat()), Err(Fault::TooLong));
    }

    #[test]
    fn a_part_past_its_limit_is_refused_both_ways() {
        let long = vec![0; META_BYTES_MAX as usize + 1];
        assert!(Header::begin(200, [b"k", &long, b""], None).is_none());
        let mut header = Header::begin(200, [b"k", b"m", b"h"], None).unwrap();
        header.meta_len = META_BYTES_MAX + 1;
        assert_eq!(Header::parse(&header.bytes()), Err(Fault::Limits));
        header.meta_len = 1;
        assert_eq!(Header::parse(&header.bytes()).unwrap().check_len(67), Err(Fault::Unfinished));
    }

    #[test]
    fn every_fault_has_its_own_word() {
        let words: std::collections::HashSet<_> = Fault::ALL.iter().map(|it| it.word()).collect();
        assert_eq!(words.len(), Fault::ALL.len());
    }
}
