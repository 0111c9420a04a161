//! A normalised path has no dot segments, and a second pass changes only encodings.
#![no_main]

use ktrix::http::target::normalise;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let path = [b"/", input].concat();
    let means = normalise(&path);
    assert_eq!(means.first(), Some(&b'/'));
    assert!(!means.split(|&byte| byte == b'/').any(|part| part == b"." || part == b".."));
    assert!(means.len() <= path.len() + 1);
});
