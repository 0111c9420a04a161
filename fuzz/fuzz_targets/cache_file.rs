//! Any bytes as a cache file: no panic, and an accepted file is covered by its checksums.
#![no_main]

use ktrix::cache::files::object::{HEADER_LEN, Header, parse_whole};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = parse_whole(data);
    // With a correct checksum, so that the fields behind it are reached.
    let Some((start, rest)) = data.split_first_chunk::<HEADER_LEN>() else { return };
    let mut start = *start;
    start[..8].copy_from_slice(b"ktrixobj");
    start[8..12].copy_from_slice(&1_u32.to_le_bytes());
    let crc = crc32c::crc32c(&start[..60]);
    start[60..].copy_from_slice(&crc.to_le_bytes());
    if let Ok(header) = Header::parse(&start) {
        assert!(header.body_offset() < 1 << 20);
        let _ = header.check_len(data.len() as u64);
    }
    let file = [&start[..], rest].concat();
    if let Ok((header, [key, meta, head, body])) = parse_whole(&file) {
        assert_eq!(header.body_len, Some(body.len() as u64));
        assert_eq!(HEADER_LEN + key.len() + meta.len() + head.len() + body.len(), file.len());
    }
});
