//! A chunked body means the same at every split, and when it is written again.
#![no_main]

use ktrix::http::fields::Fields;
use ktrix::http::flaw::Flaw;
use ktrix::http::h1::body::{
    CHUNK_END, Decoded, Decoder, TrailerLimits, write_chunk_head, write_last_chunk,
};
use ktrix::http::head::BodyLength;
use libfuzzer_sys::fuzz_target;

/// Data, trailers, whether the end was reached, and bytes left over.
type Body = (Vec<u8>, Fields, bool, usize);

fn decode(pieces: &[&[u8]], limits: TrailerLimits) -> Result<Body, Flaw> {
    let mut decoder = Decoder::new(BodyLength::Chunked, limits);
    let (mut data, mut n_left) = (Vec::new(), 0);
    for piece in pieces {
        let mut rest = *piece;
        loop {
            match decoder.decode(rest)? {
                Decoded::Data { range, consumed } => {
                    assert!(!range.is_empty());
                    data.extend_from_slice(&rest[range]);
                    rest = &rest[consumed..];
                }
                Decoded::More { consumed } => {
                    assert_eq!(consumed, rest.len());
                    break;
                }
                Decoded::End { consumed } => {
                    n_left += rest.len() - consumed;
                    break;
                }
            }
        }
    }
    assert_eq!(decoder.is_end(), decoder.at_eof().is_ok());
    Ok((data, decoder.take_trailers(), decoder.is_end(), n_left))
}

fuzz_target!(|input: &[u8]| {
    let Some((cut, input)) = input.split_first() else { return };
    let limits = TrailerLimits { bytes: 512, fields: 8 };
    let whole = decode(&[input], limits);
    let (head, tail) = input.split_at(usize::from(*cut).min(input.len()));
    assert_eq!(decode(&[head, tail], limits), whole);
    let octets: Vec<_> = input.chunks(1).collect();
    assert_eq!(decode(&octets, limits), whole);

    let Ok((data, trailers, true, _)) = whole else { return };
    let mut written = Vec::new();
    if !data.is_empty() {
        write_chunk_head(&mut written, data.len());
        written.extend_from_slice(&data);
        written.extend_from_slice(CHUNK_END);
    }
    write_last_chunk(&mut written, &trailers);
    let limits = TrailerLimits { bytes: 1024, ..limits };
    assert_eq!(decode(&[&written], limits), Ok((data, trailers, true, 0)));
});
