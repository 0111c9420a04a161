//! A response head is refused, incomplete, or means the same when it is written again.
#![no_main]

use ktrix::http::h1::head::{HeadLimits, parse_response, write_response};
use ktrix::http::head::BodyLength;
use ktrix::http::method::Method;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let limits = HeadLimits { head_bytes: 4096, fields: 32, target_bytes: 1024 };
    for method in [Method::Get, Method::Head, Method::Connect] {
        let Ok(Some((head, len))) = parse_response(input, &limits, method) else { continue };
        assert!(head.status.0 >= 100 && head.status.0 <= 999);
        assert!(!head.status.has_no_body(method) || head.length == BodyLength::None);
        assert!(!(head.length == BodyLength::UntilClose && head.keeps_alive));
        assert!(!matches!(parse_response(&input[..len - 1], &limits, method), Ok(Some(_))));

        let mut written = Vec::new();
        write_response(&mut written, head.status, &head.reason, &head.fields);
        let limits = HeadLimits { head_bytes: 8192, ..limits };
        let again =
            parse_response(&written, &limits, method).expect("an accepted head stays accepted");
        let (again, len) = again.expect("a whole head was written");
        assert_eq!(len, written.len());
        assert_eq!((again.status, &again.reason), (head.status, &head.reason));
        assert_eq!(again.fields, head.fields);
        assert_eq!((again.length, again.content_length), (head.length, head.content_length));
    }
});
