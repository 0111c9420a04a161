//! Field lines and dates read back as written, and no forwarded value can break out of its line.
#![no_main]

use ktrix::http::forward::{Peer, request_fields, strip_hop_by_hop};
use ktrix::http::h1::head::{HeadLimits, parse_fields, parse_request};
use ktrix::http::head::BodyLength;
use ktrix::http::scheme::Scheme;
use ktrix::http::{date, range, validator};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(mut fields) = parse_fields(input, 64) else { return };
    let mut block = Vec::new();
    fields.write_to(&mut block);
    assert_eq!(parse_fields(&block, 64).as_ref(), Ok(&fields));

    let tag = validator::EntityTag::of(&fields);
    let date_s = fields.get("date").and_then(date::parse);
    assert_eq!(date_s.and_then(|unix_s| date::parse(&date::format(unix_s))), date_s);
    let _ = range::of(&fields, 1000);
    let _ = validator::if_none_match(&fields, tag.as_ref());
    let _ = validator::if_range(&fields, tag.as_ref(), date_s, date_s);

    let head = [b"GET / HTTP/1.0\r\n", &block[..], b"\r\n"].concat();
    if let Ok(Some((head, _))) = parse_request(&head, &HeadLimits::default()) {
        let peer = Peer::new(Some([192, 0, 2, 1].into()), Scheme::Http, head.authority(), "k");
        let sent = request_fields(&head, &peer, BodyLength::None);
        let mut block = Vec::new();
        sent.write_to(&mut block);
        assert_eq!(parse_fields(&block, 128).as_ref(), Ok(&sent));
        assert!(sent.get("forwarded").is_some_and(|it| it.ends_with(b";proto=http")));
        assert!(!sent.contains("transfer-encoding") && !sent.contains("upgrade"));
    }
    strip_hop_by_hop(&mut fields);
    assert!(!fields.contains("connection"));
});
