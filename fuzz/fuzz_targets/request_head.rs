//! A request head is refused, incomplete, or means the same when it is written again.
#![no_main]

use ktrix::http::h1::head::{HeadLimits, parse_request, write_request};
use ktrix::http::head::BodyLength;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let limits = HeadLimits { head_bytes: 4096, fields: 32, target_bytes: 1024 };
    let Ok(Some((head, len))) = parse_request(input, &limits) else { return };
    let text = &input[..len];
    assert!(text.ends_with(b"\r\n\r\n") && !text.contains(&0));
    assert!(head.length != BodyLength::UntilClose);
    assert!(head.fields.count("host") <= 1);
    assert!(!(head.fields.contains("content-length") && head.fields.contains("transfer-encoding")));
    assert!(!matches!(parse_request(&input[..len - 1], &limits), Ok(Some(_))));

    let mut written = Vec::new();
    write_request(&mut written, &head.method_text, head.target.as_sent(), &head.fields);
    let limits = HeadLimits { head_bytes: 8192, ..limits };
    // Only HTTP/1.0 may lack a host, or have fields that 1.1 forbids.
    if let Ok(again) = parse_request(&written, &limits) {
        let (again, len) = again.expect("a whole head was written");
        assert_eq!(len, written.len());
        assert_eq!(again.fields, head.fields);
        assert_eq!(again.target, head.target);
        assert_eq!(again.authority(), head.authority());
        assert_eq!(again.length, head.length);
    } else {
        assert!(head.version < ktrix::http::version::Version::Http11);
    }
});
