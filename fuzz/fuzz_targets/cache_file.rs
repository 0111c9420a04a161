//! Any bytes as a cache file: no panic, and an accepted file is covered by its checksums.
#![no_main]

use ktrix::cache::files::object::{HEADER_LEN, HEADERS_LEN, Header, parse_whole};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = parse_whole(data);
    // With the checksums of the headers made right, so that the fields behind them are reached.
    let mut file = data.to_vec();
    let Some(headers) = file.first_chunk_mut::<HEADERS_LEN>() else { return };
    for (header, parity) in headers.chunks_exact_mut(HEADER_LEN).zip([1, 0]) {
        header[..8].copy_from_slice(b"ktrixobj");
        header[8..12].copy_from_slice(&2_u32.to_le_bytes());
        header[12] = header[12] & !1 | parity;
        let crc = crc32c::crc32c(&header[..60]);
        header[60..].copy_from_slice(&crc.to_le_bytes());
    }
    let Ok(header) = Header::parse(&file) else { return };
    assert!(header.body_at < 1 << 20);
    if header.check_len(file.len() as u64).is_err() {
        return;
    }
    // And those of the parts: what is of this length and these places is whole then.
    let part = |at: u64, len: u64| &file[at as usize..(at + len) as usize];
    let key = part(HEADERS_LEN as u64, header.key_len.into());
    let front = part(header.head_at, header.head_end() - header.head_at);
    let body = part(header.body_at.into(), header.body_len.unwrap_or(0));
    let front_crc = crc32c::crc32c_append(crc32c::crc32c(key), front);
    let header = Header { front_crc, body_crc: Some(crc32c::crc32c(body)), ..header };
    let at = if header.sequence % 2 == 1 { 0 } else { HEADER_LEN };
    file[at..at + HEADER_LEN].copy_from_slice(&header.bytes());
    let (found, [key, _, _, body]) = parse_whole(&file).expect("it is whole");
    assert_eq!(found, header);
    let Some(next) = header.renewed([key, b"meta", b"head"]) else { return };
    let (key, body) = (key.to_vec(), body.to_vec());
    for (at, bytes) in next.writes(b"meta", b"head") {
        let (at, end) = (at as usize, at as usize + bytes.len());
        file.resize(file.len().max(end), 0);
        file[at..end].copy_from_slice(&bytes);
    }
    let (found, parts) = parse_whole(&file).expect("it is renewed");
    assert_eq!((found, parts), (next, [&key[..], b"meta", b"head", &body]));
});
