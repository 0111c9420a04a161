//! Any bytes as the meta part of a cache file: refused, or written back unchanged.
#![no_main]

use ktrix::policy::meta::{META_BYTES_MAX, decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(lifetimes) = decode(data) else { return };
    let mut bytes = Vec::new();
    encode(&lifetimes, &mut bytes);
    assert_eq!(bytes, data);
    assert!(bytes.len() <= META_BYTES_MAX);
});
