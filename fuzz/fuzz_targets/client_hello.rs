//! A ClientHello is read the same however much follows it, and its name is one of a host.
#![no_main]

use ktrix::tls::client_hello::{Hello, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let whole = read(input);
    if let Ok(Some(Hello::Named(name))) = &whole {
        assert!(!name.is_empty() && name.bytes().all(|octet| octet.is_ascii_graphic()));
    }
    let before = read(input.get(..input.len() / 2).unwrap_or_default());
    assert!(before == Ok(None) || before == whole);
});
