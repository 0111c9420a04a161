//! Any bytes as lines of a structured dictionary: refused as a whole, or the same in one line as in
//! several.
#![no_main]

use ktrix::http::structured::dictionary;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let lines: Vec<&[u8]> = input.split(|&byte| byte == b'\n').collect();
    let joined = lines.join(&b", "[..]);
    let apart = dictionary(lines.iter().copied());
    if let Some(members) = &apart
        && lines.iter().all(|line| line.iter().any(|byte| !b" \t".contains(byte)))
    {
        let together = dictionary([joined.as_slice()].into_iter());
        assert_eq!(together.map(|it| it.len()), Some(members.len()));
    }
});
