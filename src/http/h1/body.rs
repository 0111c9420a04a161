//! Bodies from bytes: where the data is, and where the message ends (RFC 9112 sections 6 and 7).

use std::ops::Range;

use crate::base::chars;
use crate::http::fields::Fields;
use crate::http::flaw::Flaw;
use crate::http::h1::head::parse_fields;
use crate::http::head::BodyLength;
use crate::http::trailer;

/// The limits of a trailer section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrailerLimits {
    /// Bytes of all lines together.
    pub bytes: usize,
    /// Number of fields.
    pub fields: usize,
}

impl Default for TrailerLimits {
    fn default() -> Self {
        Self { bytes: 8 << 10, fields: 64 }
    }
}

/// The result of [`Decoder::decode`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Data of the body.
    Data {
        /// Where in the input it is; never empty.
        range: Range<usize>,
        /// How much of the input to drop when the data was taken.
        consumed: usize,
    },
    /// All of the input was used, and more is needed.
    More {
        /// How much of the input to drop: all of it.
        consumed: usize,
    },
    /// The message is over.
    End {
        /// How much of the input to drop; what follows belongs to the next message.
        consumed: usize,
    },
}

/// Finds data and end of one body. Holds no data but the trailers.
///
/// ```text
/// Known ─ all seen ─▶ End        UntilClose ─ the connection closes ─▶ (at_eof)
///
/// Size ─ ";" ─▶ Extension ─┐
///   │                      ▼
///   └──── CR ──────────▶ SizeLf ── n > 0 ─▶ Data ─▶ DataCr ─▶ DataLf ─▶ Size
///                          └────── n = 0 ─▶ Trailers ─ CR ─▶ EndLf ─▶ End
///                                            ▲   │ other
///                                            LF ─┴▶ TrailerLine
/// ```
#[derive(Debug)]
pub struct Decoder {
    state: State,
    limits: TrailerLimits,
    /// Of all chunks.
    n_extension_bytes: u32,
    /// Allocated at the first trailer, since most bodies have none.
    trailers: Option<Box<Trailers>>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Known { left: u64 },
    UntilClose,
    Size { size: u64, n_digits: u8 },
    Extension { size: u64, n_bytes: u32 },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    Trailers,
    TrailerLine,
    EndLf,
    End,
    Broken(Flaw),
}

#[derive(Debug, Default)]
struct Trailers {
    lines: Vec<u8>,
    fields: Fields,
}

impl Decoder {
    /// For a body of this length.
    pub const fn new(length: BodyLength, limits: TrailerLimits) -> Self {
        let state = match length {
            BodyLength::None | BodyLength::Known(0) => State::End,
            BodyLength::Known(left) => State::Known { left },
            BodyLength::Chunked => State::Size { size: 0, n_digits: 0 },
            BodyLength::UntilClose => State::UntilClose,
        };
        Self { state, limits, n_extension_bytes: 0, trailers: None }
    }

    /// The next range of data, or the end; call again with the rest of the input.
    ///
    /// # Errors
    /// The first flaw of the framing, and the same one from then on.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, Flaw> {
        let mut at = 0;
        loop {
            let rest = input.len() - at;
            let data = match self.state {
                State::End => return Ok(Decoded::End { consumed: at }),
                State::Broken(flaw) => return Err(flaw),
                State::UntilClose => rest,
                State::Known { left } | State::Data { left } => {
                    usize::try_from(left).map_or(rest, |left| left.min(rest))
                }
                _ => 0,
            };
            if data > 0 {
                self.skip(data as u64);
                return Ok(Decoded::Data { range: at..at + data, consumed: at + data });
            }
            let Some(octet) = input.get(at) else { return Ok(Decoded::More { consumed: at }) };
            self.state = match self.after(*octet) {
                Ok(state) => state,
                Err(flaw) => State::Broken(flaw),
            };
            at += 1;
        }
    }

    /// Skips this many bytes of data that went past without [`Decoder::decode`], by splice.
    pub fn skip(&mut self, n: u64) {
        self.state = match self.state {
            State::Known { left } if left > n => State::Known { left: left - n },
            State::Known { .. } => State::End,
            State::Data { left } if left > n => State::Data { left: left - n },
            State::Data { .. } => State::DataCr,
            other => other,
        };
    }

    /// The trailers after the last chunk, without those that may not be trailers.
    pub fn take_trailers(&mut self) -> Fields {
        self.trailers.take().map_or_else(Fields::new, |trailers| trailers.fields)
    }

    /// Whether the body may end with the connection.
    ///
    /// # Errors
    /// [`Flaw::Truncated`] where it may not.
    pub const fn at_eof(&self) -> Result<(), Flaw> {
        match self.state {
            State::End | State::UntilClose => Ok(()),
            State::Broken(flaw) => Err(flaw),
            _ => Err(Flaw::Truncated),
        }
    }

    /// Whether all of the body was seen.
    pub const fn is_end(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// How many bytes are still to come, where that is known.
    pub const fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Known { left } => Some(left),
            State::End => Some(0),
            _ => None,
        }
    }

    /// The state after an octet that is not data.
    fn after(&mut self, octet: u8) -> Result<State, Flaw> {
        match (self.state, octet) {
            (State::Size { size, n_digits }, _) => self.after_size(size, n_digits, octet),
            (State::Extension { size, .. }, b'\r') => Ok(State::SizeLf { size }),
            (State::Extension { size, n_bytes }, _) => self.after_extension(size, n_bytes, octet),
            (State::SizeLf { size: 0 }, b'\n') => Ok(State::Trailers),
            (State::SizeLf { size }, b'\n') => Ok(State::Data { left: size }),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { size: 0, n_digits: 0 }),
            (State::DataCr, b'\n') => Err(Flaw::BareLf),
            (State::DataCr, _) => Err(Flaw::BadChunkEnd),
            (State::Trailers, b'\r') => Ok(State::EndLf),
            (State::Trailers | State::TrailerLine, _) => self.after_trailer(octet),
            (State::EndLf, b'\n') => self.finish(),
            (State::SizeLf { .. } | State::DataLf | State::EndLf, _) => Err(Flaw::BareCr),
            (other, _) => Ok(other),
        }
    }

    const fn after_size(&self, size: u64, n_digits: u8, octet: u8) -> Result<State, Flaw> {
        match (octet, chars::hex_value(octet)) {
            (_, Some(digit)) if n_digits < SIZE_DIGITS_MAX => {
                Ok(State::Size { size: size << 4 | digit as u64, n_digits: n_digits + 1 })
            }
            (b'\r', _) if n_digits > 0 => Ok(State::SizeLf { size }),
            (b';', _) if n_digits > 0 => Ok(State::Extension { size, n_bytes: 0 }),
            (b'\n', _) => Err(Flaw::BareLf),
            _ => Err(Flaw::BadChunkSize),
        }
    }

    fn after_extension(&mut self, size: u64, n_bytes: u32, octet: u8) -> Result<State, Flaw> {
        self.n_extension_bytes += 1;
        if n_bytes >= EXTENSION_BYTES_MAX || self.n_extension_bytes > EXTENSIONS_BYTES_MAX {
            return Err(Flaw::ChunkExtensionTooLarge);
        }
        match octet {
            b'\n' => Err(Flaw::BareLf),
            _ if chars::is_value_char(octet) => Ok(State::Extension { size, n_bytes: n_bytes + 1 }),
            _ => Err(Flaw::BadChunkExtension),
        }
    }

    fn after_trailer(&mut self, octet: u8) -> Result<State, Flaw> {
        let lines = &mut self.trailers.get_or_insert_default().lines;
        if lines.len() >= self.limits.bytes {
            return Err(Flaw::TrailersTooLarge);
        }
        let before = lines.last().copied();
        lines.push(octet);
        match (self.state, octet, before) {
            (State::Trailers, b'\n', _) => Err(Flaw::BareLf),
            (State::TrailerLine, b'\n', Some(b'\r')) => Ok(State::Trailers),
            (_, b'\n', _) => Err(Flaw::BareLf),
            _ => Ok(State::TrailerLine),
        }
    }

    /// Parses the trailers, if there are any.
    fn finish(&mut self) -> Result<State, Flaw> {
        let Some(trailers) = self.trailers.as_deref_mut() else { return Ok(State::End) };
        let lines = std::mem::take(&mut trailers.lines);
        trailers.fields = match parse_fields(&lines, self.limits.fields) {
            Err(Flaw::TooManyFields) => return Err(Flaw::TrailersTooLarge),
            parsed => parsed?,
        };
        trailers.fields.retain(|name, _| trailer::is_allowed(name));
        Ok(State::End)
    }
}

/// Begins a chunk of this many bytes; the data and [`CHUNK_END`] follow.
///
/// Writes nothing for an empty chunk, which would end the body.
pub fn write_chunk_head(out: &mut Vec<u8>, len: usize) {
    if len == 0 {
        return;
    }
    let n_digits = (usize::BITS - len.leading_zeros()).div_ceil(4);
    for digit in (0..n_digits).rev() {
        let value = (len >> (digit * 4)) & 0xf;
        out.push(chars::HEX_DIGITS.get(value).copied().unwrap_or_default());
    }
    out.extend_from_slice(CHUNK_END);
}

/// The bytes after the data of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// The end of a body with these trailers.
pub fn write_last_chunk(out: &mut Vec<u8>, trailers: &Fields) {
    out.extend_from_slice(b"0\r\n");
    trailers.write_to(out);
    out.extend_from_slice(b"\r\n");
}

/// Sixteen digits are 64 bits; leading zeros count.
const SIZE_DIGITS_MAX: u8 = 16;

/// The limit for one chunk.
const EXTENSION_BYTES_MAX: u32 = 1 << 10;

/// Of all chunks of a body.
const EXTENSIONS_BYTES_MAX: u32 = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Data, whether the end was reached, and what was left of the input.
    fn decode(decoder: &mut Decoder, pieces: &[&[u8]]) -> Result<(Vec<u8>, bool, usize), Flaw> {
        let (mut data, mut pending) = (Vec::new(), Vec::new());
        for piece in pieces {
            pending.extend_from_slice(piece);
            loop {
                match decoder.decode(&pending)? {
                    Decoded::Data { range, consumed } => {
                        assert!(!range.is_empty());
                        data.extend_from_slice(&pending[range]);
                        pending.drain(..consumed);
                    }
                    Decoded::More { consumed } => {
                        assert_eq!(consumed, pending.len());
                        pending.clear();
                        break;
                    }
                    Decoded::End { consumed } => {
                        pending.drain(..consumed);
                        break;
                    }
                }
            }
        }
        Ok((data, decoder.is_end(), pending.len()))
    }

    fn chunked(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool, usize), Flaw> {
        decode(&mut Decoder::new(BodyLength::Chunked, TrailerLimits::default()), pieces)
    }

    #[test]
    fn every_split_of_the_input_means_the_same() {
        let input = b"4;a=b\r\nWiki\r\n5\r\npedia\r\n00A;x\r\n0123456789\r\n0\r\nFoo: bar\r\nX: \r\n\r\nrest";
        for cut in 0..=input.len() {
            let (head, tail) = input.split_at(cut);
            let mut decoder = Decoder::new(BodyLength::Chunked, TrailerLimits::default());
            let found = decode(&mut decoder, &[head, tail]);
            assert_eq!(found, Ok((b"Wikipedia0123456789".to_vec(), true, 4)), "cut at {cut}");
            assert_eq!(decoder.take_trailers(), [("Foo", "bar"), ("X", "")].into_iter().collect());
        }
        let octets: Vec<_> = input.chunks(1).collect();
        assert_eq!(chunked(&octets), Ok((b"Wikipedia0123456789".to_vec(), true, 4)));
    }

    #[test]
    fn a_cut_body_is_truncated_wherever_it_is_cut() {
        let input = b"4;a=b\r\nWiki\r\n0\r\nFoo: bar\r\n\r\n";
        for cut in 0..input.len() {
            let mut decoder = Decoder::new(BodyLength::Chunked, TrailerLimits::default());
            decode(&mut decoder, &[&input[..cut]]).unwrap();
            assert_eq!(decoder.at_eof(), Err(Flaw::Truncated), "cut at {cut}");
            assert!(!decoder.is_end());
        }
    }

    #[test]
    fn bad_chunks_are_refused_at_every_split() {
        let table: [(&[u8], Flaw); 40] = [
            (b"\r\n", Flaw::BadChunkSize),
            (b"\n", Flaw::BareLf),
            (b"+1\r\na\r\n", Flaw::BadChunkSize),
            (b"-1\r\na\r\n", Flaw::BadChunkSize),
            (b"0x1\r\na\r\n", Flaw::BadChunkSize),
            (b"0X1\r\na\r\n", Flaw::BadChunkSize),
            (b"1h\r\na\r\n", Flaw::BadChunkSize),
            (b" 1\r\na\r\n", Flaw::BadChunkSize),
            (b"\t1\r\na\r\n", Flaw::BadChunkSize),
            (b"1 \r\na\r\n", Flaw::BadChunkSize),
            (b"1\t\r\na\r\n", Flaw::BadChunkSize),
            (b"1 ;a\r\na\r\n", Flaw::BadChunkSize),
            (b"1 1\r\na\r\n", Flaw::BadChunkSize),
            (b"1_0\r\na\r\n", Flaw::BadChunkSize),
            (b"1,1\r\na\r\n", Flaw::BadChunkSize),
            (b"1.0\r\na\r\n", Flaw::BadChunkSize),
            (b"\"1\"\r\na\r\n", Flaw::BadChunkSize),
            (b"\xd9\xa1\r\na\r\n", Flaw::BadChunkSize),
            (b"1\0\r\na\r\n", Flaw::BadChunkSize),
            (b";a\r\na\r\n", Flaw::BadChunkSize),
            (b"00000000000000001\r\na\r\n", Flaw::BadChunkSize),
            (b"10000000000000000\r\na\r\n", Flaw::BadChunkSize),
            (b"fffffffffffffffff\r\na\r\n", Flaw::BadChunkSize),
            (b"1\na\r\n", Flaw::BareLf),
            (b"1\r\r\na\r\n", Flaw::BareCr),
            (b"1\ra\r\n", Flaw::BareCr),
            (b"1;a\na\r\n", Flaw::BareLf),
            (b"1;a\rb\r\na\r\n", Flaw::BareCr),
            (b"1;a\0\r\na\r\n", Flaw::BadChunkExtension),
            (b"1;a\x7f\r\na\r\n", Flaw::BadChunkExtension),
            (b"1;a\x0b\r\na\r\n", Flaw::BadChunkExtension),
            (b"1\r\nab\r\n", Flaw::BadChunkEnd),
            (b"1\r\na1\r\n", Flaw::BadChunkEnd),
            (b"1\r\na\n", Flaw::BareLf),
            (b"1\r\na\r0\r\n", Flaw::BareCr),
            (b"1\r\na\r\n\r\n", Flaw::BadChunkSize),
            (b"0\r\n\n", Flaw::BareLf),
            (b"0\r\n\rx", Flaw::BareCr),
            (b"0\n\r\n", Flaw::BareLf),
            (b"0\r\nA: b\n\r\n", Flaw::BareLf),
        ];
        for (input, flaw) in table {
            for cut in 0..=input.len() {
                let found = chunked(&[&input[..cut], &input[cut..]]);
                assert_eq!(found, Err(flaw), "{} cut at {cut}", input.escape_ascii());
            }
        }
    }

    #[test]
    fn bad_trailers_are_refused() {
        let table: [(&str, Flaw); 8] = [
            (" A: b", Flaw::FoldedField),
            ("A: b\r\n c", Flaw::FoldedField),
            ("A : b", Flaw::SpaceBeforeColon),
            ("A", Flaw::BadFieldName),
            (": b", Flaw::BadFieldName),
            ("A: b\rc", Flaw::BareCr),
            ("A: b\0", Flaw::Nul),
            ("A: \u{7f}", Flaw::BadFieldValue),
        ];
        for (lines, flaw) in table {
            let input = format!("0\r\n{lines}\r\n\r\n");
            assert_eq!(chunked(&[input.as_bytes()]), Err(flaw), "{lines:?}");
        }
    }

    #[test]
    fn trailers_that_would_change_a_decision_are_dropped() {
        let mut decoder = Decoder::new(BodyLength::Chunked, TrailerLimits::default());
        let input = b"0\r\nContent-Length: 5\r\nSum: 1\r\nHOST: b\r\n\r\n";
        assert_eq!(decode(&mut decoder, &[input]), Ok((Vec::new(), true, 0)));
        assert_eq!(decoder.take_trailers(), [("Sum", "1")].into_iter().collect());
        assert!(decoder.take_trailers().is_empty());
    }

    #[test]
    fn extensions_and_trailers_have_limits() {
        let extended = |len: usize| format!("1;{}\r\na\r\n", "x".repeat(len));
        assert!(chunked(&[extended(1024).as_bytes()]).is_ok());
        let flaw = Err(Flaw::ChunkExtensionTooLarge);
        assert_eq!(chunked(&[extended(1025).as_bytes()]), flaw);
        assert!(chunked(&[extended(1000).repeat(16).as_bytes()]).is_ok());
        assert_eq!(chunked(&[extended(1000).repeat(17).as_bytes()]), flaw);

        let limits = TrailerLimits { bytes: 12, fields: 2 };
        let parse = |lines: &str| {
            let text = format!("0\r\n{lines}\r\n");
            decode(&mut Decoder::new(BodyLength::Chunked, limits), &[text.as_bytes()])
        };
        assert!(parse("a: b\r\nc: d\r\n").is_ok());
        assert_eq!(parse("a:\r\nb:\r\nc:\r\n"), Err(Flaw::TrailersTooLarge));
        assert_eq!(parse("a: bbbbbbbb\r\n"), Err(Flaw::TrailersTooLarge));
        let endless = [&b"0\r\n"[..], &b"a".repeat(13)].concat();
        let mut decoder = Decoder::new(BodyLength::Chunked, limits);
        assert_eq!(decode(&mut decoder, &[&endless]), Err(Flaw::TrailersTooLarge));
        assert_eq!(decoder.decode(b"\r\n\r\n"), Err(Flaw::TrailersTooLarge), "once broken");
    }

    #[test]
    fn a_known_length_ends_where_it_says() {
        let mut decoder = Decoder::new(BodyLength::Known(5), TrailerLimits::default());
        assert_eq!(decoder.remaining(), Some(5));
        assert_eq!(decoder.at_eof(), Err(Flaw::Truncated));
        assert_eq!(decode(&mut decoder, &[b"ab"]), Ok((b"ab".to_vec(), false, 0)));
        decoder.skip(1);
        assert_eq!(decoder.remaining(), Some(2));
        assert_eq!(decode(&mut decoder, &[b"cdGET"]), Ok((b"cd".to_vec(), true, 3)));
        assert_eq!((decoder.at_eof(), decoder.remaining()), (Ok(()), Some(0)));
        assert_eq!(decoder.decode(b"GET"), Ok(Decoded::End { consumed: 0 }));
    }

    #[test]
    fn an_absent_body_ends_at_once() {
        for length in [BodyLength::None, BodyLength::Known(0)] {
            let mut decoder = Decoder::new(length, TrailerLimits::default());
            assert!(decoder.is_end());
            assert_eq!(decoder.decode(b"GET"), Ok(Decoded::End { consumed: 0 }));
        }
    }

    #[test]
    fn the_close_ends_a_body_without_other_end() {
        let mut decoder = Decoder::new(BodyLength::UntilClose, TrailerLimits::default());
        assert_eq!(decode(&mut decoder, &[b"ab", b"", b"c"]), Ok((b"abc".to_vec(), false, 0)));
        assert_eq!((decoder.at_eof(), decoder.remaining()), (Ok(()), None));
    }

    #[test]
    fn skipped_chunk_data_leaves_the_framing() {
        let mut decoder = Decoder::new(BodyLength::Chunked, TrailerLimits::default());
        assert_eq!(decoder.decode(b"3\r\n"), Ok(Decoded::More { consumed: 3 }));
        decoder.skip(3);
        assert_eq!(decode(&mut decoder, &[b"\r\n0\r\n\r\n"]), Ok((Vec::new(), true, 0)));
    }

    #[test]
    fn chunk_heads_are_plain_hexadecimal() {
        for (len, text) in
            [(0, ""), (1, "1\r\n"), (15, "f\r\n"), (16, "10\r\n"), (0xabcde, "abcde\r\n")]
        {
            let mut out = Vec::new();
            write_chunk_head(&mut out, len);
            assert_eq!(out, text.as_bytes());
        }
        let mut out = Vec::new();
        write_last_chunk(&mut out, &Fields::new());
        assert_eq!(out, b"0\r\n\r\n");
    }

    proptest! {
        #[test]
        fn written_chunks_read_back(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..8),
            has_trailer in any::<bool>(),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let trailers: Fields = has_trailer.then_some(("Sum", "1")).into_iter().collect();
            let mut text = Vec::new();
            for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                write_chunk_head(&mut text, chunk.len());
                text.extend_from_slice(chunk);
                text.extend_from_slice(CHUNK_END);
            }
            write_last_chunk(&mut text, &trailers);
            text.extend_from_slice(b"GET");
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            let mut decoder = Decoder::new(BodyLength::Chunked, TrailerLimits::default());
            let found = decode(&mut decoder, &pieces);
            prop_assert_eq!(found, Ok((chunks.concat(), true, 3)));
            prop_assert_eq!(decoder.take_trailers(), trailers);
        }

        #[test]
        fn no_bytes_panic_and_no_split_matters(
            text in proptest::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'2'), Just(b';'), Just(b':'), any::<u8>()],
                0..60,
            ),
            cut in any::<prop::sample::Index>(),
        ) {
            let whole = chunked(&[&text]);
            let (head, tail) = text.split_at(cut.index(text.len() + 1));
            prop_assert_eq!(chunked(&[head, tail]), whole);
        }
    }
}
