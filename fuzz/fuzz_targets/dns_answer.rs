//! Any message of a name server is read without a panic.
#![no_main]

use ktrix::upstream::dns::least_ttl_s;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|message: &[u8]| {
    let _ = least_ttl_s(message);
});
