//! Ranges lie within the representation and do not overlap; a written Content-Range reads back.
#![no_main]

use ktrix::http::content_range::ContentRange;
use ktrix::http::range::{Ranges, resolve};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((length, value)) = input.split_first_chunk::<8>() else { return };
    let length = u64::from_le_bytes(*length) >> (1 + length[0] % 63);
    for value in [value, &[b"bytes=", value].concat()] {
        let found = match resolve(value, length) {
            Ranges::One(range) => vec![range],
            Ranges::Many(found) => found,
            Ranges::Whole | Ranges::Unsatisfiable => continue,
        };
        let mut sum = 0u64;
        for range in found.iter().cloned() {
            assert!(range.start < range.end && range.end <= length);
            sum += range.end - range.start;
            let part = ContentRange { range, complete: Some(length) };
            assert_eq!(ContentRange::parse(part.text().as_bytes()), Some(part));
        }
        assert!(sum <= length && found.len() <= 16);
    }
    if let Some(part) = ContentRange::parse(&[b"bytes ", value].concat()) {
        assert!(part.range.start < part.range.end);
        assert!(part.complete.is_none_or(|complete| part.range.end <= complete));
        assert_eq!(ContentRange::parse(part.text().as_bytes()), Some(part));
    }
});
