//! The end of an exchange, over any protocol: it is counted, and gets its line in the access log.
//!
//! The line is prepared before the last byte of an answer goes out, and counts once it is committed.

use crate::base::time::Now;
use crate::http::h1::rejected::Rejected;
use crate::http::head::RequestHead;
use crate::log::access::Written;
use crate::log::format::{Record, Times};
use crate::policy::cache_status::CacheVerdict;
use crate::proxy::client::front::Front;
use crate::proxy::context::Context;
use crate::proxy::facts::Facts;
use crate::reactor;

/// How many bytes an answer had.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Bytes of body.
    pub body_bytes: u64,
    /// All bytes.
    pub bytes: u64,
}

/// The request of an exchange.
#[derive(Clone, Copy, Debug)]
pub enum Asked<'r> {
    /// Its head.
    Head(&'r RequestHead),
    /// The bytes of a request that is refused.
    Bytes(&'r [u8]),
    /// None: a connection of TCP, whose client asked for this name.
    Stream(&'r str),
}

/// Ends an exchange, on the hot path or not: counts it and prepares its line in the access log. The
/// caller has checked that there is room for a line ([`Context::log_has_room`]); it then sends the
/// end of the answer and calls [`commit`].
pub fn finish(context: &Context, front: &Front, asked: Asked<'_>, facts: &Facts, sent: Sent) {
    if let (Some(object), Some(cache)) = (&facts.hit, &context.cache) {
        cache.count_hit(object);
    }
    let Some(access) = &context.access else { return };
    // The time of the turn is as exact as a log needs, but shows a hit as no time at all.
    let now = match access.borrow().is_live() {
        true => reactor::refresh_now(),
        false => reactor::now(),
    };
    let mut record = Record {
        time_us: now.unix_us,
        client: front.client,
        status: facts.logged_status(),
        body_bytes: sent.body_bytes + facts.tunnel_bytes,
        sent_bytes: sent.bytes + facts.tunnel_bytes,
        received_bytes: facts.received_bytes,
        request_id: match facts.request_id {
            0 => context.next_request_id(),
            known => known,
        },
        verdict: facts.verdict.map_or("", CacheVerdict::word),
        reason: reason(facts),
        times: times(facts, now),
        close: facts.close.map_or("", |close| close.word()),
        ..Record::default()
    };
    if let Some(tls) = &front.tls {
        (record.tls_version, record.tls_cipher) = (tls.version, tls.cipher);
        record.tls_server_name = &tls.server_name;
        if let Some(client) = &tls.client {
            record.tls_client_subject = client.subject();
            record.tls_client_serial = client.serial();
        }
    }
    match asked {
        Asked::Head(head) => request(&mut record, head),
        Asked::Bytes(bytes) => rejected(&mut record, bytes),
        Asked::Stream(name) => {
            (record.request_line, record.method) = (b"TCP", b"TCP");
            record.host = name.as_bytes();
        }
    }
    let server;
    (record.upstream, server) = facts.names(&context.config);
    record.server = &server;
    let written = access.borrow_mut().prepare(&record);
    debug_assert!(written != Written::Full, "a line is prepared only where there is room");
}

/// Commits the prepared lines, once their answers are sent.
pub fn commit(context: &Context) {
    let Some(access) = &context.access else { return };
    let mut access = access.borrow_mut();
    access.commit();
    if access.needs_flush() {
        context.log_due.notify();
    }
}

/// Fills in the fields that come from the request.
fn request<'r>(record: &mut Record<'r>, head: &'r RequestHead) {
    record.request_line = head.request_line();
    record.method = &head.method_text;
    record.host = head.host();
    record.target = head.target.path_and_query();
    record.version = head.version.as_str();
    record.referer = head.fields.get("referer").unwrap_or_default();
    record.user_agent = head.fields.get("user-agent").unwrap_or_default();
}

/// Fills in what can be read of a refused request.
fn rejected<'r>(record: &mut Record<'r>, bytes: &'r [u8]) {
    let read = Rejected::of(bytes);
    record.request_line = read.line;
    (record.method, record.target) = (read.method, read.target);
    (record.version, record.host) = (read.version, read.host);
}

/// Why an exchange failed, or passed the cache, for the log.
pub(crate) fn reason(facts: &Facts) -> &'static str {
    match facts.verdict {
        Some(CacheVerdict::Pass(reason)) if facts.reason.is_empty() => reason.word(),
        _ => facts.reason,
    }
}

fn times(facts: &Facts, now: Now) -> Times {
    let since = |end: u64, start: u64| (end >= start && start > 0).then(|| end - start);
    Times {
        head_us: since(facts.head_us, facts.began.mono_us),
        body_us: since(facts.body_us, facts.head_us),
        connect_us: since(facts.connected_us, facts.head_us),
        first_byte_us: since(facts.first_byte_us, facts.connected_us),
        total_us: since(now.mono_us, facts.began.mono_us),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::http::h1::head::{HeadLimits, parse_request};
    use crate::log::flusher::Flushed;
    use crate::policy::reason::close::CloseReason;
    use crate::proxy::client::fake::FakeClient;
    use crate::proxy::context::tests::context;

    #[test]
    fn an_exchange_has_a_line_once_it_is_committed() {
        let dir = tempfile::tempdir().unwrap();
        let run = reactor::run(async {
            let log = dir.path().join("log");
            let log = format!("log: {{access: {{file: {}, format: json}}}}\n", log.display());
            let context = context(dir.path(), &log);
            let raw = b"GET /a HTTP/1.1\r\nHost: h\r\nUser-Agent: it\r\n\r\n";
            let (head, _) = parse_request(raw, &HeadLimits::default()).unwrap().unwrap();
            let facts = Facts { status: 200, verdict: Some(CacheVerdict::Hit), ..Facts::default() };
            let front = FakeClient::new().front;
            let flushed = || {
                let access = context.access.as_ref().unwrap();
                assert_eq!(access.borrow_mut().flush(), Flushed::Done);
                fs::read_to_string(dir.path().join("log")).unwrap()
            };
            finish(
                &context,
                &front,
                Asked::Head(&head),
                &facts,
                Sent { body_bytes: 5, bytes: 105 },
            );
            assert_eq!(flushed(), "");
            commit(&context);
            let line = flushed();
            for part in [
                r#""client":"192.0.2.1","method":"GET""#,
                r#""status":200,"body_bytes":5,"sent_bytes":105"#,
                r#""user_agent":"it""#,
                r#""verdict":"hit""#,
            ] {
                assert!(line.contains(part), "{part} in {line}");
            }
            // A client that leaves before its answer begins, and bytes that are no request.
            let gone = Facts { close: Some(CloseReason::ClientGone), ..Facts::default() };
            finish(
                &context,
                &front,
                Asked::Bytes(b"GET /b"),
                &gone,
                Sent { body_bytes: 0, bytes: 0 },
            );
            commit(&context);
            let lines = flushed();
            let last = lines.lines().last().unwrap();
            assert_eq!(lines.lines().count(), 2);
            assert!(last.contains(r#""status":499"#) && last.contains("client-gone"), "{last}");
            assert!(
                last.contains(r#""method":"GET""#) && last.contains(r#""target":"/b""#),
                "{last}"
            );
        });
        run.unwrap();
    }
}
