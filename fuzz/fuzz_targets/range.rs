//! Ranges lie within what there is, and do not overlap.
#![no_main]

use ktrix::http::range::{Ranges, content_range, resolve};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((length, value)) = input.split_first_chunk::<8>() else { return };
    let length = u64::from_le_bytes(*length) >> (length[0] % 64);
    for value in [value, &[b"bytes=", value].concat()] {
        let found = match resolve(value, length) {
            Ranges::One(range) => vec![range],
            Ranges::Many(found) => found,
            Ranges::Whole | Ranges::Unsatisfiable => continue,
        };
        let mut sum = 0u64;
        for range in &found {
            assert!(range.start < range.end && range.end <= length);
            sum += range.end - range.start;
            assert!(content_range(range, length).starts_with("bytes "));
        }
        assert!(sum <= length && found.len() <= 16);
    }
});
