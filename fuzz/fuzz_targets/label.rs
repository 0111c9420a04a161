//! Any tags, groups and URLs of a purge are read without a panic, within their limit.
#![no_main]

use ktrix::http::fields::Fields;
use ktrix::http::scheme::Scheme;
use ktrix::policy::purge::prefix::prefix_text;
use ktrix::policy::purge::surrogate::{SurrogateKeys, groups_of, primary_of, tags_of};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut fields = Fields::new();
    for (line, name) in input.split(|&byte| byte == b'\n').zip(NAMES.iter().cycle()) {
        fields.push(name, line);
    }
    assert!(tags_of(&fields).all(|tag| !tag.is_empty()));
    let _ = groups_of(&fields, "cache-groups");
    let surrogates = SurrogateKeys::of(&fields, Scheme::Http, b"example.org", 7);
    assert_eq!(surrogates, SurrogateKeys::of(&fields, Scheme::Http, b"example.org", 7));
    let _ = prefix_text(input);
    assert!(input.starts_with(primary_of(input)));
});

const NAMES: [&[u8]; 4] = [b"Cache-Tag", b"Surrogate-Key", b"xkey", b"Cache-Groups"];
