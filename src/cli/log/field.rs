//! The fields of a request that a filter can ask for.

use std::borrow::Cow;

use crate::log::format::Record;

/// The text of a field.
pub(in crate::cli) type Get = for<'r> fn(&Record<'r>) -> Cow<'r, [u8]>;

/// A number of a request; `None` if it has none.
type GetNumber = fn(&Record<'_>) -> Option<u64>;

/// A field with its name.
pub(super) enum Field {
    Status,
    Client,
    Text(&'static str, Get),
    Bytes(&'static str, GetNumber),
    /// In microseconds.
    Time(&'static str, GetNumber),
}

impl Field {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Client => "client",
            Self::Text(name, _) | Self::Bytes(name, _) | Self::Time(name, _) => name,
        }
    }
}

/// All fields.
pub(super) const FIELDS: &[Field] = &[
    Field::Status,
    Field::Text("method", |record| Cow::Borrowed(record.method)),
    Field::Text("host", |record| Cow::Borrowed(without_port(record.host))),
    Field::Text("path", |record| Cow::Borrowed(split(record.target).0)),
    Field::Text("query", |record| Cow::Borrowed(split(record.target).1)),
    Field::Text("target", |record| Cow::Borrowed(record.target)),
    Field::Client,
    Field::Text("agent", |record| Cow::Borrowed(record.user_agent)),
    Field::Text("version", |record| Cow::Borrowed(record.version.as_bytes())),
    Field::Text("verdict", |record| Cow::Borrowed(record.verdict.as_bytes())),
    Field::Text("reason", |record| Cow::Borrowed(record.reason.as_bytes())),
    Field::Text("upstream", |record| Cow::Borrowed(record.upstream.as_bytes())),
    Field::Text("server", |record| Cow::Borrowed(record.server.as_bytes())),
    Field::Text("close", |record| Cow::Borrowed(record.close.as_bytes())),
    Field::Text("id", |record| Cow::Owned(format!("{:032x}", record.request_id).into_bytes())),
    Field::Bytes("bytes", |record| Some(record.body_bytes)),
    Field::Bytes("sent", |record| Some(record.sent_bytes)),
    Field::Bytes("received", |record| Some(record.received_bytes)),
    Field::Time("total", |record| record.times.total_us),
    Field::Time("head", |record| record.times.head_us),
    Field::Time("body", |record| record.times.body_us),
    Field::Time("lookup", |record| record.times.lookup_us),
    Field::Time("queue", |record| record.times.queue_us),
    Field::Time("connect", |record| record.times.connect_us),
    Field::Time("first_byte", |record| record.times.first_byte_us),
    Field::Time("answer", |record| record.times.answer_us),
];

/// A host without its port.
fn without_port(host: &[u8]) -> &[u8] {
    let is_port = |port: &[u8]| port.iter().all(u8::is_ascii_digit);
    match memchr::memrchr(b':', host) {
        Some(at) if is_port(&host[at + 1..]) => &host[..at],
        _ => host,
    }
}

/// The path and the query of a target.
fn split(target: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, b""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_in_the_manual() {
        let manual = include_str!("../../../man/ktrix.8");
        let fields = manual.split(".\\\" The fields of a filter.\n").nth(1).unwrap();
        let fields = fields.split(".\\\" End.\n").next().unwrap();
        for field in FIELDS {
            let is_there = fields.split_whitespace().any(|word| word == field.name());
            assert!(is_there, "{}", field.name());
        }
    }

    #[test]
    fn a_host_has_no_port_and_an_address_keeps_its_colons() {
        for (host, name) in [("a:80", "a"), ("a", "a"), ("[::1]:8080", "[::1]"), ("[::1]", "[::1]")]
        {
            assert_eq!(without_port(host.as_bytes()), name.as_bytes());
        }
    }
}
