use super::*;
use proptest::prelude::*;

fn line(format: LogFormat, record: &Record<'_>) -> String {
    let mut out = Vec::new();
    LineWriter::new(format).write(record, &mut out);
    String::from_utf8(out).unwrap()
}

fn sample() -> Record<'static> {
    Record {
        time_us: 1_795_230_282_000_123,
        client: Some("192.0.2.7".parse().unwrap()),
        request_line: b"GET /a?b HTTP/1.1",
        method: b"GET",
        host: b"example.com",
        target: b"/a?b",
        version: "HTTP/1.1",
        status: 200,
        body_bytes: 1024,
        sent_bytes: 1300,
        referer: b"http://example.com/\"",
        user_agent: b"curl/8",
        request_id: 0x1f,
        verdict: "miss",
        reason: "absent",
        upstream: "app",
        server: "10.0.0.1:8080",
        times: Times {
            head_us: Some(12),
            connect_us: Some(1_000_001),
            total_us: Some(2_345_678),
            ..Times::default()
        },
        close: "",
        ..Record::default()
    }
}

#[test]
fn the_three_forms_of_a_record() {
    let common = "192.0.2.7 - - [21/Nov/2026:03:04:42 +0000] \"GET /a?b HTTP/1.1\" 200 1024";
    assert_eq!(line(LogFormat::Common, &sample()), format!("{common}\n"));
    assert_eq!(
        line(LogFormat::Combined, &sample()),
        format!("{common} \"http://example.com/\\x22\" \"curl/8\"\n")
    );
    assert_eq!(
        line(LogFormat::Json, &sample()),
        concat!(
            r#"{"time":"2026-11-21T03:04:42.000123Z","client":"192.0.2.7","method":"GET","#,
            r#""host":"example.com","target":"/a?b","version":"HTTP/1.1","status":200,"#,
            r#""body_bytes":1024,"sent_bytes":1300,"referer":"http://example.com/\"","#,
            r#""user_agent":"curl/8","request_id":"0000000000000000000000000000001f","#,
            r#""verdict":"miss","reason":"absent","upstream":"app","#,
            r#""server":"10.0.0.1:8080","head_s":0.000012,"connect_s":1.000001,"#,
            r#""total_s":2.345678}"#,
            "\n"
        )
    );
}

#[test]
fn a_line_of_the_slow_log_has_the_phases_first_and_quotes_what_needs_it() {
    assert_eq!(
        line(LogFormat::Text, &sample()),
        concat!(
            "time=2026-11-21T03:04:42.000123Z head=0.000012 connect=1.000001 total=2.345678 ",
            "client=192.0.2.7 method=GET host=example.com target=/a?b status=200 bytes=1024 ",
            "verdict=miss reason=absent upstream=app server=10.0.0.1:8080 ",
            "id=0000000000000000000000000000001f\n"
        )
    );
    let hostile = Record { host: b"a b=\"c\n", target: b"/\x1b[2J", ..Record::default() };
    let text = line(LogFormat::Text, &hostile);
    assert!(text.contains(r#" host="a b=\x22c\x0A" target="/\x1B[2J" "#), "{text}");
}

#[test]
fn an_empty_record_is_a_line_too() {
    let record = Record::default();
    assert_eq!(
        line(LogFormat::Combined, &record),
        "- - - [01/Jan/1970:00:00:00 +0000] \"-\" 000 0 \"-\" \"-\"\n"
    );
    assert!(is_json_object(line(LogFormat::Json, &record).trim_end()));
}

#[test]
fn addresses_are_shown_in_their_own_form() {
    for (address, text) in [
        ("255.0.10.1", "255.0.10.1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1"),
    ] {
        let record = Record { client: Some(address.parse().unwrap()), ..sample() };
        assert!(line(LogFormat::Common, &record).starts_with(&format!("{text} - - ")));
    }
}

#[test]
fn the_worst_record_fits_a_line() {
    let worst = vec![0u8; 64 * 1024];
    let text = "\0".repeat(64 * 1024);
    let record = Record {
        request_line: &worst,
        method: &worst,
        host: &worst,
        target: &worst,
        version: &text,
        referer: &worst,
        user_agent: &worst,
        verdict: &text,
        reason: &text,
        upstream: &text,
        server: &text,
        close: &text,
        ..sample()
    };
    for form in [LogFormat::Common, LogFormat::Combined, LogFormat::Json] {
        let line = line(form, &record);
        assert!(line.len() <= LINE_BYTES_MAX, "{form:?}: {}", line.len());
        assert_eq!(line.matches('\n').count(), 1);
    }
}

/// Whether `text` is one flat JSON object of strings and numbers.
fn is_json_object(text: &str) -> bool {
    fn string(text: &str) -> Option<&str> {
        let mut rest = text.strip_prefix('"')?.chars();
        loop {
            match rest.next()? {
                '"' => return Some(rest.as_str()),
                '\\' => match rest.next()? {
                    'u' => {
                        let digits = rest.as_str().get(..4)?;
                        u16::from_str_radix(digits, 16).ok()?;
                        rest = rest.as_str()[4..].chars();
                    }
                    '"' | '\\' | 'n' | 'r' | 't' => {}
                    _ => return None,
                },
                char if char < ' ' => return None,
                _ => {}
            }
        }
    }
    fn members(mut rest: &str) -> Option<()> {
        rest = rest.strip_prefix('{')?;
        loop {
            rest = string(rest)?.strip_prefix(':')?;
            rest = match rest.starts_with('"') {
                true => string(rest)?,
                false => {
                    let end = rest.find([',', '}'])?;
                    rest[..end].parse::<f64>().ok()?;
                    &rest[end..]
                }
            };
            match rest.strip_prefix(',') {
                Some(tail) => rest = tail,
                None => return (rest == "}").then_some(()),
            }
        }
    }
    members(text).is_some()
}

proptest! {
    #[test]
    fn no_bytes_break_a_line(
        bytes in proptest::collection::vec(any::<u8>(), 0..60),
        more in proptest::collection::vec(any::<u8>(), 0..60),
        status in any::<u16>(),
        time_us in any::<u64>(),
    ) {
        let record = Record {
            time_us, status, request_line: &bytes, target: &bytes, host: &more,
            referer: &more, user_agent: &bytes, ..sample()
        };
        let combined = line(LogFormat::Combined, &record);
        prop_assert_eq!(combined.matches('"').count(), 6);
        prop_assert_eq!(combined.find('\n'), Some(combined.len() - 1));
        let json = line(LogFormat::Json, &record);
        prop_assert_eq!(json.find('\n'), Some(json.len() - 1));
        prop_assert!(is_json_object(json.trim_end()), "{}", json);
    }
}

fn text(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    push_text(&mut out, bytes, 1000);
    String::from_utf8(out).unwrap()
}

fn json(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    push_json(&mut out, bytes, 1000);
    String::from_utf8(out).unwrap()
}

/// The bytes that a text of [`push_text`] or the content of a JSON string stands for.
fn unescaped(text: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'\\' {
            out.push(u8::from_str_radix(std::str::from_utf8(&tail[1..3]).unwrap(), 16).unwrap());
            rest = &tail[3..];
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    out
}

#[test]
fn text_is_escaped_as_nginx_does() {
    for (bytes, expected) in [
        (&b""[..], ""),
        (b"GET /a?b=c HTTP/1.1", "GET /a?b=c HTTP/1.1"),
        (b"a\"b\\c", "a\\x22b\\x5Cc"),
        (b"\r\n\x00\x7f\xff", "\\x0D\\x0A\\x00\\x7F\\xFF"),
        ("grün".as_bytes(), "gr\\xC3\\xBCn"),
    ] {
        assert_eq!(text(bytes), expected);
    }
}

#[test]
fn json_keeps_utf_8_and_shows_other_bytes_as_hex() {
    for (bytes, expected) in [
        (&b""[..], ""),
        (b"plain", "plain"),
        (b"a\"b\\c", "a\\\"b\\\\x5Cc"),
        (b"\r\n\t\x00\x7f\x1b", "\\r\\n\\t\\u0000\\u007F\\u001B"),
        ("grün\u{1F600}".as_bytes(), "grün\u{1F600}"),
        (b"a\xffb\xc3", "a\\\\xFFb\\\\xC3"),
        (b"a\\xFF", "a\\\\x5CxFF"),
        ("\u{85}\u{2028}\u{2029}".as_bytes(), "\\u0085\\u2028\\u2029"),
        ("a\u{202E}b\u{2066}\u{61C}".as_bytes(), "a\\u202Eb\\u2066\\u061C"),
    ] {
        assert_eq!(json(bytes), expected);
    }
}

#[test]
fn a_long_field_is_cut_and_says_so() {
    let mut out = Vec::new();
    push_text(&mut out, b"abcdef", 6);
    push_text(&mut out, b"abcdef", 3);
    push_json(&mut out, "aü".as_bytes(), 2);
    assert_eq!(String::from_utf8(out).unwrap(), "abcdefabc...a\\\\xC3...");
}

proptest! {
    #[test]
    fn text_is_printable_ascii_and_can_be_undone(
        bytes in proptest::collection::vec(any::<u8>(), 0..200)
    ) {
        let text = text(&bytes);
        prop_assert!(text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'"'));
        prop_assert_eq!(unescaped(&text), bytes);
    }

    #[test]
    fn json_is_printable_and_can_be_undone(
        parts in proptest::collection::vec(prop_oneof![
            any::<char>().prop_map(|char| char.to_string().into_bytes()),
            proptest::collection::vec(any::<u8>(), 0..4),
            Just(b"\\xFF".to_vec()),
            Just("\u{202E}".as_bytes().to_vec()),
        ], 0..50)
    ) {
        let bytes = parts.concat();
        let text = json(&bytes);
        prop_assert!(!text.chars().any(chars::is_unprintable));
        let read: String = serde_json::from_str(&format!("\"{text}\"")).unwrap();
        prop_assert_eq!(unescaped(&read), bytes);
    }
}
