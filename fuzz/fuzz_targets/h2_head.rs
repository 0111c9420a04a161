//! The head of an HTTP/2 request: whatever is accepted is one request over HTTP/1 too.
#![no_main]

use ktrix::http::h1::head::{HeadLimits, parse_request, write_request};
use ktrix::http::h2::{Place, Pseudo, request_head};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|octet| *octet == 0xff);
    let mut next = || lines.next().filter(|line| !line.is_empty());
    let pseudo = Pseudo {
        protocol: None,
        method: next().unwrap_or_default(),
        scheme: next(),
        authority: next(),
        path: next(),
    };
    let pairs: Vec<&[u8]> = lines.collect();
    let fields = || pairs.chunks_exact(2).map(|pair| (pair[0], pair[1]));
    let (limits, place) = (HeadLimits::default(), Place { scheme: None, is_end: true });
    let Ok(head) = request_head(&pseudo, fields, place, &limits) else { return };
    let mut bytes = Vec::new();
    write_request(&mut bytes, &head.method_text, head.target.path_and_query(), &head.fields);
    let limits = HeadLimits { head_bytes: 1 << 20, fields: 1_000, target_bytes: 1 << 20 };
    let (again, used) = parse_request(&bytes, &limits).expect("no flaw").expect("a whole head");
    assert_eq!(used, bytes.len());
    assert_eq!((again.method, again.authority()), (head.method, head.authority()));
    assert_eq!(again.target.path_and_query(), head.target.path_and_query());
    assert_eq!(again.fields.len(), head.fields.len());
});
