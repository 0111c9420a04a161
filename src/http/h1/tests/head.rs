use super::*;
use proptest::prelude::*;

const TYPICAL: &[u8] = b"GET /a/b?c=d HTTP/1.1\r\nHost: Example.COM:8080\r\n\
    User-Agent: test/1.0\r\nAccept: */*\r\nAccept-Encoding: gzip, br\r\nX-Empty: \r\n\r\n";

fn request(text: &[u8]) -> Result<Option<(RequestHead, usize)>, Flaw> {
    parse_request(text, &HeadLimits::default())
}

#[test]
fn a_typical_request_is_taken_apart() {
    let (head, len) = request(TYPICAL).unwrap().unwrap();
    assert_eq!(len, TYPICAL.len());
    assert_eq!((head.method, head.version), (Method::Get, Version::Http11));
    assert_eq!(&*head.method_text, b"GET");
    assert_eq!(head.request_line(), b"GET /a/b?c=d HTTP/1.1");
    assert_eq!(head.host(), b"example.com");
    assert_eq!(head.authority(), b"example.com:8080");
    assert_eq!(head.target.path(), b"/a/b");
    assert_eq!(head.length, BodyLength::None);
    assert!(head.wants_keep_alive() && !head.expects_continue());
    assert_eq!((head.fields.len(), head.fields.get("x-empty")), (5, Some(&b""[..])));
}

#[test]
fn every_cut_request_needs_more_bytes() {
    for cut in 0..TYPICAL.len() {
        assert!(matches!(request(&TYPICAL[..cut]), Ok(None)), "cut at {cut}");
    }
    let pipelined = [TYPICAL, b"GET"].concat();
    assert_eq!(request(&pipelined).unwrap().unwrap().1, TYPICAL.len());
}

#[test]
fn the_end_is_found_from_anywhere_before_it() {
    let text = b"a\r\n\r\nb";
    for from in 0..5 {
        assert_eq!(find_end(text, from), Some(5), "from {from}");
    }
    for end in 0..5 {
        assert_eq!(find_end(&text[..end], 0), None);
    }
    assert_eq!(find_end(text, 9), None);
}

#[test]
fn two_empty_lines_before_a_request_are_skipped() {
    for n in 0..=2 {
        let text = [&b"\r\n".repeat(n), TYPICAL].concat();
        assert_eq!(request(&text).unwrap().unwrap().1, text.len());
        for cut in 0..text.len() {
            assert!(matches!(request(&text[..cut]), Ok(None)), "{n} lines, cut at {cut}");
        }
    }
    let text = [b"\r\n\r\n\r\n", TYPICAL].concat();
    assert_eq!(request(&text).unwrap_err(), Flaw::BadMethod);
}

#[test]
fn an_absolute_target_overrides_host() {
    let text = b"GET http://A.example:81?q HTTP/1.1\r\nHost: b\r\n\r\n";
    let (head, _) = request(text).unwrap().unwrap();
    assert_eq!((head.host(), head.authority()), (&b"a.example"[..], &b"a.example:81"[..]));
    assert_eq!(head.target.path_and_query(), b"/?q");
}

#[test]
fn the_old_version_has_no_host_and_no_persistence() {
    let (head, _) = request(b"GET / HTTP/1.0\r\n\r\n").unwrap().unwrap();
    assert_eq!((head.host(), head.wants_keep_alive()), (&b""[..], false));
    let text = b"GET / HTTP/1.0\r\nHost: a.\r\nConnection: x, Keep-Alive\r\n\r\n";
    let (head, _) = request(text).unwrap().unwrap();
    assert_eq!((head.host(), head.wants_keep_alive()), (&b"a"[..], true));
    assert_eq!(head.authority(), b"a.");
}

#[test]
fn a_later_minor_version_is_as_1_1() {
    for digit in 2..=9 {
        let text = format!("GET / HTTP/1.{digit}\r\nHost: a\r\n\r\n");
        let (head, len) = request(text.as_bytes()).unwrap().unwrap();
        assert_eq!((head.version, len), (Version::Http11, text.len()));
        assert_eq!(head.request_line(), &text.as_bytes()[..14], "as sent");
        assert!(head.wants_keep_alive());
        let text = format!("HTTP/1.{digit} 200 OK\r\nContent-Length: 3\r\n\r\n");
        let parsed = parse_response(text.as_bytes(), &HeadLimits::default(), Method::Get);
        let (head, len) = parsed.unwrap().unwrap();
        assert_eq!((head.version, head.keeps_alive), (Version::Http11, true));
        assert_eq!((head.length, len), (BodyLength::Known(3), text.len()));
    }
    let flaw = |version: &str, fields: &str| {
        request(format!("GET / {version}\r\n{fields}\r\n").as_bytes()).unwrap_err()
    };
    assert_eq!(flaw("HTTP/1.2", ""), Flaw::HostMissing);
    assert_eq!(flaw("HTTP/1.2", "Host : a\r\n"), Flaw::SpaceBeforeColon);
    for version in ["HTTP/0.9", "HTTP/2.0", "HTTP/2", "HTTP/3.1"] {
        assert_eq!(flaw(version, "Host: a\r\n"), Flaw::UnknownVersion, "{version}");
    }
    for version in ["HTTP/1.10", "HTTP/1.", "http/1.2", "HTTP/1.2 "] {
        assert_eq!(flaw(version, "Host: a\r\n"), Flaw::BadRequestLine, "{version}");
    }
}

#[test]
fn a_method_has_a_limit() {
    let text = |len: usize| format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(len));
    let (head, _) = request(text(64).as_bytes()).unwrap().unwrap();
    assert_eq!(head.method_text.len(), 64);
    for text in [text(65), text(9000), text(40_000), "M".repeat(65)] {
        assert_eq!(request(text.as_bytes()).unwrap_err(), Flaw::MethodTooLong);
    }
    assert!(matches!(request("M".repeat(64).as_bytes()), Ok(None)));
}

#[test]
fn close_ends_persistence() {
    for connection in ["close", "CLOSE", "keep-alive, close", "x,close"] {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\n\r\n");
        assert!(!request(text.as_bytes()).unwrap().unwrap().0.wants_keep_alive());
    }
}

#[test]
fn continue_is_expected_only_with_a_body() {
    let with = |fields: &str, version: &str| {
        let text =
            format!("POST / HTTP/{version}\r\nHost: a\r\nExpect: 100-Continue\r\n{fields}\r\n");
        request(text.as_bytes()).unwrap().unwrap().0.expects_continue()
    };
    assert!(with("Content-Length: 1\r\n", "1.1"));
    assert!(with("Transfer-Encoding: Chunked\r\n", "1.1"));
    assert!(!with("Content-Length: 0\r\n", "1.1"));
    assert!(!with("", "1.1"));
    assert!(!with("Content-Length: 1\r\n", "1.0"));
}

#[test]
fn limits_have_their_flaws() {
    let limits = HeadLimits { head_bytes: 200, fields: 3, target_bytes: 20 };
    let parse = |text: &str| match parse_request(text.as_bytes(), &limits) {
        Ok(found) => Ok(found.is_some()),
        Err(flaw) => Err(flaw),
    };
    let target = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(len - 1));
    assert_eq!(parse(&target(20)), Ok(true));
    assert_eq!(parse(&target(21)), Err(Flaw::TargetTooLong));
    assert_eq!(parse(&format!("GET /{}", "a".repeat(100))), Err(Flaw::TargetTooLong));
    assert_eq!(parse(&target(190)), Err(Flaw::TargetTooLong));
    let fields =
        |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(n - 1));
    assert_eq!(parse(&fields(3)), Ok(true));
    assert_eq!(parse(&fields(4)), Err(Flaw::TooManyFields));
    let sized = |len: usize| {
        let start = "GET / HTTP/1.1\r\nHost: a\r\na: ";
        format!("{start}{}\r\n\r\n", "b".repeat(len - start.len() - 4))
    };
    assert_eq!(sized(200).len(), 200);
    assert_eq!(parse(&sized(200)), Ok(true));
    assert_eq!(parse(&sized(201)), Err(Flaw::HeadTooLarge));
    assert_eq!(parse(&sized(300)), Err(Flaw::HeadTooLarge));
    assert_eq!(parse(&sized(300)[..199]), Ok(false));
    assert_eq!(parse(&sized(300)[..200]), Err(Flaw::HeadTooLarge));
}

#[test]
fn more_fields_than_the_stack_holds_are_parsed_within_the_limit() {
    let fields = "a: b\r\n".repeat(300);
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let limits = HeadLimits { fields: 301, ..HeadLimits::default() };
    let (head, _) = parse_request(text.as_bytes(), &limits).unwrap().unwrap();
    assert_eq!(head.fields.len(), 301);
    let limits = HeadLimits { fields: 300, ..HeadLimits::default() };
    assert_eq!(parse_request(text.as_bytes(), &limits).unwrap_err(), Flaw::TooManyFields);
}

#[test]
fn a_response_is_taken_apart_at_every_split() {
    let text = b"HTTP/1.1 404 Not here\r\nContent-Length: 5\r\nConnection: close\r\n\r\n";
    let parse = |text| parse_response(text, &HeadLimits::default(), Method::Get);
    for cut in 0..text.len() {
        assert!(matches!(parse(&text[..cut]), Ok(None)), "cut at {cut}");
    }
    let (head, len) = parse(&text[..]).unwrap().unwrap();
    assert_eq!((head.status, &*head.reason, len), (Status(404), &b"Not here"[..], text.len()));
    assert_eq!((head.length, head.content_length), (BodyLength::Known(5), Some(5)));
    assert!(!head.keeps_alive);
}

#[test]
fn stored_lines_are_read_as_strictly() {
    let parse = |block: &str| parse_fields(block.as_bytes(), 2).map(|fields| fields.len());
    assert_eq!(parse(""), Ok(0));
    assert_eq!(parse("A: b\r\nC: d\r\n"), Ok(2));
    assert_eq!(parse("A: b\r\nC: d\r\nE: f\r\n"), Err(Flaw::TooManyFields));
    assert_eq!(parse("A: b\n"), Err(Flaw::BareLf));
    assert_eq!(parse("A : b\r\n"), Err(Flaw::SpaceBeforeColon));
    for block in ["A: b", "\r\n", "A: b\r\n\r\n", "A: b\r\n\r\nC: d\r\n", "\0"] {
        assert!(parse(block).is_err(), "{block:?}");
    }
    let many = "A: b\r\n".repeat(300);
    assert_eq!(parse_fields(many.as_bytes(), 300).map(|fields| fields.len()), Ok(300));
}

#[test]
fn the_length_of_a_response_follows_the_rules() {
    use BodyLength::{Chunked, Known, None as Nothing, UntilClose};
    let table: [(Method, &str, BodyLength, Option<u64>, bool); 15] = [
        (Method::Get, "1.1 200 OK\r\nContent-Length: 3", Known(3), Some(3), true),
        (Method::Get, "1.1 200\r\nTransfer-Encoding: chunked", Chunked, None, true),
        (Method::Get, "1.1 200 \r\nX: y", UntilClose, None, false),
        (Method::Get, "1.0 200 OK\r\nContent-Length: 3", Known(3), Some(3), false),
        (
            Method::Get,
            "1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive",
            Known(3),
            Some(3),
            true,
        ),
        (Method::Get, "1.0 200 OK\r\nConnection: keep-alive", UntilClose, None, false),
        (Method::Head, "1.1 200 OK\r\nContent-Length: 3", Nothing, Some(3), true),
        (Method::Head, "1.1 200 OK\r\nTransfer-Encoding: chunked", Nothing, None, true),
        (Method::Head, "1.1 200 OK\r\nX: y", Nothing, None, true),
        (Method::Get, "1.1 304 Not Modified\r\nContent-Length: 9", Nothing, Some(9), true),
        (Method::Get, "1.1 204 No Content\r\nContent-Length: 0", Nothing, None, true),
        (Method::Get, "1.1 100 Continue\r\nX: y", Nothing, None, true),
        (Method::Get, "1.1 101 Switching Protocols\r\nUpgrade: y", Nothing, None, false),
        (Method::Connect, "1.1 200 OK\r\nContent-Length: 3", Nothing, Some(3), false),
        (Method::Connect, "1.1 403 No\r\nContent-Length: 3", Known(3), Some(3), true),
    ];
    for (method, text, length, content_length, keeps_alive) in table {
        let text = format!("HTTP/{text}\r\n\r\n");
        let parsed = parse_response(text.as_bytes(), &HeadLimits::default(), method);
        let (head, _) = parsed.unwrap().unwrap();
        assert_eq!(head.length, length, "{text}");
        assert_eq!(head.content_length, content_length, "{text}");
        assert_eq!(head.keeps_alive, keeps_alive, "{text}");
    }
}

fn name() -> impl Strategy<Value = String> {
    "x-[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}"
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let octet = prop_oneof![8 => 0x21u8..0x7f, 1 => 0x80u8..=0xff, 1 => Just(b' ')];
    proptest::collection::vec(octet, 0..40).prop_map(|value| chars::trim_ows(&value).to_vec())
}

proptest! {
    #[test]
    fn a_written_request_reads_back(
        method in "[A-Z]{1,9}",
        path in "/[!-\"$-~]{0,30}",
        pairs in proptest::collection::vec((name(), value()), 0..20),
        tail in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        prop_assume!(method != "CONNECT");
        let mut fields: Fields = pairs.into_iter().collect();
        fields.push(b"Host", b"a.example");
        let mut text = Vec::new();
        write_request(&mut text, method.as_bytes(), path.as_bytes(), &fields);
        let len = text.len();
        for cut in 0..len {
            prop_assert!(matches!(request(&text[..cut]), Ok(None)));
        }
        text.extend(tail);
        let (head, consumed) = request(&text).unwrap().unwrap();
        prop_assert_eq!(consumed, len);
        prop_assert_eq!(&*head.method_text, method.as_bytes());
        prop_assert_eq!(head.target.path_and_query(), path.as_bytes());
        prop_assert_eq!(head.fields, fields);
    }

    #[test]
    fn a_written_response_reads_back(
        code in 200u16..=999,
        reason in "[ -~]{0,20}",
        pairs in proptest::collection::vec((name(), value()), 0..20),
    ) {
        let fields: Fields = pairs.into_iter().collect();
        let mut text = Vec::new();
        write_response(&mut text, Status(code), reason.as_bytes(), &fields);
        let parsed = parse_response(&text, &HeadLimits::default(), Method::Get);
        let (head, consumed) = parsed.unwrap().unwrap();
        prop_assert_eq!((head.status, consumed), (Status(code), text.len()));
        prop_assert_eq!(&*head.reason, reason.as_bytes());
        prop_assert_eq!(&head.fields, &fields);
        let mut block = Vec::new();
        fields.write_to(&mut block);
        prop_assert_eq!(parse_fields(&block, 20), Ok(fields));
    }

    /// An accepted head has CRLF line ends only, no NUL, and one host at most.
    #[test]
    fn a_damaged_request_is_refused_or_clean(
        at in 0usize..TYPICAL.len(),
        octets in proptest::collection::vec(any::<u8>(), 0..4),
        n_dropped in 0usize..4,
    ) {
        let mut text = TYPICAL.to_vec();
        text.splice(at..(at + n_dropped).min(TYPICAL.len()), octets);
        if let Ok(Some((head, len))) = request(&text) {
            let text = &text[..len];
            let n_lf = text.iter().filter(|octet| **octet == b'\n').count();
            let n_crlf = text.windows(2).filter(|pair| pair == b"\r\n").count();
            let n_cr = text.iter().filter(|octet| **octet == b'\r').count();
            prop_assert_eq!((n_lf, n_cr), (n_crlf, n_crlf));
            prop_assert!(!text.contains(&0));
            prop_assert!(head.fields.count("host") == 1);
        }
    }

    #[test]
    fn no_bytes_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = request(&text);
        let _ = parse_response(&text, &HeadLimits::default(), Method::Get);
        let _ = parse_response(&[b"HTTP/1.1 200 ", &text[..]].concat(), &HeadLimits::default(), Method::Get);
    }
}
