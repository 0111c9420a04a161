//! A PROXY header is refused, incomplete, or read from exactly its own bytes.
#![no_main]

use ktrix::http::proxy_protocol::{HEADER_BYTES_MAX, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(Some((header, len))) = parse(input) else { return };
    assert!(len <= input.len() && len <= HEADER_BYTES_MAX);
    assert_eq!(parse(&input[..len]), Ok(Some((header, len))));
    assert_eq!(parse(&input[..len - 1]), Ok(None));
});
