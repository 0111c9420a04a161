//! Any bytes as Vary and as the fields that it names: names stay within their bounds, a normal form
//! is its own normal form, and a variant's text begins with its primary text.
#![no_main]

use ktrix::http::fields::Fields;
use ktrix::policy::key::normalise::normalise;
use ktrix::policy::key::variant_text;
use ktrix::policy::key::vary::VaryNames;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let cut = data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len());
    let (names, value) = data.split_at(cut);
    let value = value.get(1..).unwrap_or_default();

    for name in ["accept", "accept-encoding", "accept-language", "cookie"] {
        let mut once = Vec::new();
        normalise(name, [value].into_iter(), &mut once);
        let mut twice = Vec::new();
        normalise(name, [once.as_slice()].into_iter(), &mut twice);
        assert_eq!(once, twice);
    }

    let mut response = Fields::new();
    response.push(b"Vary", names);
    let Ok(Some(vary)) = VaryNames::parse(&response) else { return };
    assert!(vary.names().count() <= VaryNames::COUNT_MAX);
    assert_eq!(VaryNames::from_sorted(vary.names()).as_ref(), Some(&vary));

    let mut request = Fields::new();
    for name in vary.names() {
        request.push(name.as_bytes(), value);
    }
    let mut text = Vec::new();
    variant_text(b"GET http://h/", &vary, &request, &mut text);
    assert!(text.starts_with(b"GET http://h/\n"));
    // One line for each name: no value can forge another.
    assert_eq!(text.split(|&byte| byte == b'\n').count(), vary.names().count() + 1);
});
