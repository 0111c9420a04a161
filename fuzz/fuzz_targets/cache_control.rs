//! Any bytes as Cache-Control: both parsers end, and their results never overstate.
#![no_main]

use ktrix::http::fields::Fields;
use ktrix::policy::rfc9111::control::{
    RequestControl, ResponseControl, SECONDS_MAX, Scope, directives, listed_fields,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    let response = ResponseControl::parse([line].into_iter());
    assert!(response.max_age.unwrap_or(0) <= SECONDS_MAX);
    assert!(response.s_maxage.unwrap_or(0) <= SECONDS_MAX);

    // A directive that forbids holds wherever it is added.
    let after = [line, b", no-store, private"].concat();
    let before = [b"no-store, private, ", line].concat();
    for text in [after, before] {
        // A quoted string that the addition completes may hide it; that needs a quote.
        if !line.contains(&b'"') {
            let both = ResponseControl::parse([text.as_slice()].into_iter());
            assert!(both.no_store && both.private == Scope::Whole);
        }
    }
    // On a line of its own it always holds.
    let lines = [line, b"no-store".as_slice()];
    assert!(ResponseControl::parse(lines.into_iter()).no_store);

    let mut n_listed = 0;
    listed_fields([line].into_iter(), |name| {
        assert!(!name.is_empty());
        n_listed += 1;
    });
    assert!(n_listed <= line.len());
    assert!(directives(line).count() <= line.len());

    let mut fields = Fields::new();
    fields.push(b"Cache-Control", line);
    fields.push(b"Pragma", line);
    RequestControl::of(&fields);
});
