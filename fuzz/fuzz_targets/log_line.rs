//! No bytes of a client break a line of the access log: it stays one line, printable or valid JSON,
//! and short enough for every ring.
#![no_main]

use ktrix::base::chars;
use ktrix::config::LogFormat;
use ktrix::log::format::{LINE_BYTES_MAX, LineWriter, Record, Times};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.split(|&byte| byte == b'|');
    let mut part = || parts.next().unwrap_or_default();
    let number = data.iter().fold(0u64, |n, &byte| n.rotate_left(8) ^ u64::from(byte));
    let record = Record {
        time_us: number,
        client: Some((number as u128).to_be_bytes().into()),
        request_line: part(),
        method: part(),
        host: part(),
        target: part(),
        status: number as u16,
        body_bytes: number,
        referer: part(),
        user_agent: part(),
        tls_server_name: std::str::from_utf8(part()).unwrap_or_default(),
        tls_client_subject: std::str::from_utf8(part()).unwrap_or_default(),
        times: Times { total_us: Some(number), ..Times::default() },
        ..Record::default()
    };
    for format in [LogFormat::Common, LogFormat::Combined, LogFormat::Json, LogFormat::Text] {
        let mut line = Vec::new();
        LineWriter::new(format).write(&record, &mut line);
        assert!(line.len() <= LINE_BYTES_MAX);
        let Some((b'\n', text)) = line.split_last() else { panic!("no newline at the end") };
        let text = std::str::from_utf8(text).expect("a line is UTF-8");
        assert!(!text.chars().any(chars::is_unprintable));
        match format {
            LogFormat::Common => assert_eq!(text.matches('"').count(), 2),
            LogFormat::Combined => assert_eq!(text.matches('"').count(), 6),
            LogFormat::Json => assert!(is_flat_object(text), "{text}"),
            LogFormat::Text => {
                assert!(text.starts_with("time=") && text.matches('"').count() % 2 == 0)
            }
        }
    }
});

/// Whether the text, outside of its strings, is an object without nested objects or arrays.
fn is_flat_object(text: &str) -> bool {
    let (mut outside, mut in_string, mut is_escaped) = (String::new(), false, false);
    for char in text.chars() {
        match char {
            _ if is_escaped => is_escaped = false,
            '\\' if in_string => is_escaped = true,
            '"' => in_string = !in_string,
            _ if in_string => {}
            _ => outside.push(char),
        }
    }
    let Some(inner) = outside.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
        return false;
    };
    !in_string
        && inner.split(',').all(|member| {
            let value = member.strip_prefix(':');
            value.is_some_and(|value| value.is_empty() || value.parse::<f64>().is_ok())
        })
}
