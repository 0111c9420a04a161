//! The end of an exchange, over any protocol: it is counted, and gets its line in the access log, and
//! in the slow log if it took long; those who follow the requests see it.
//!
//! The line is prepared before the last byte of an answer goes out, and counts once it is committed. A
//! worker may be killed between its line and its count. So the count is noted with the line, as the value
//! that the cell then has, and the master sets the cell of a dead worker to it (`log::ring`).

use std::rc::Rc;

use crate::base::time::Now;
use crate::config::ListenMode;
use crate::config::request_log::RequestLog;
use crate::http::h1::rejected::Rejected;
use crate::http::head::RequestHead;
use crate::log::access::Written;
use crate::log::feed::Feed;
use crate::log::format::{Record, Times};
use crate::metrics::label::{self, Set};
use crate::metrics::table::{Cell, Metric};
use crate::policy::cache_status::CacheVerdict;
use crate::policy::reason::own::OwnReason;
use crate::proxy::client::front::Front;
use crate::proxy::context::{Context, WorkerLog};
use crate::proxy::facts::Facts;
use crate::reactor;
use crate::shared::meter::{self, Meter};
use crate::shared::metrics::Page;

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
    // The requests of the admin listener are no traffic of a site.
    if front.listen.mode == ListenMode::Admin {
        return;
    }
    if let (Some(object), Some(cache)) = (&facts.hit, &context.cache) {
        cache.count_hit(object);
    }
    if context.is_guarding()
        && let Asked::Head(head) = asked
        && facts.reason != OwnReason::CrashGuard.word()
    {
        context.note_answered(head);
    }
    let of_turn = reactor::now();
    let feed = context.feed.as_ref().filter(|(feed, _)| feed.is_followed(of_turn.mono_us));
    // The clock is read after some tasks only, which is as exact as the metrics need.
    let now = if feed.is_some() { reactor::refresh_now() } else { of_turn };
    let meter = meter::current();
    let counted = meter.map(|meter| Counted::of(meter, facts, sent, now));
    let note = counted.map_or(0, Counted::note);
    let written = prepare(context, front, asked, (facts, sent), (feed, now), note);
    let (Some(meter), Some(Counted { cell, value })) = (meter, counted) else { return };
    meter.page.set(cell, value);
    match written {
        Some(Written::Accepted) => {}
        None => meter.page.add(Metric::Unlogged.cell(), 1),
        Some(_) => meter.page.add(Metric::LogDropped.cell(), 1),
    }
}

/// The cell that counts an exchange, and its value with that exchange.
#[derive(Clone, Copy, Debug)]
struct Counted {
    cell: Cell,
    value: u64,
}

impl Counted {
    /// Counts an exchange but for this one cell. A hit costs six additions.
    #[inline]
    fn of(Meter { page, rows }: &Meter, facts: &Facts, sent: Sent, now: Now) -> Self {
        let verdict = label::verdict(facts.verdict);
        let bytes = sent.bytes + facts.tunnel_bytes;
        let size = page.add_to_sum(Metric::AnswerSize, verdict, bytes);
        page.add(size, 1);
        let (site, status) = (rows.site(facts.site as usize), label::status(facts.logged_status()));
        page.add(Metric::SiteRequests.at_both(site, status), 1);
        page.add(Metric::SiteSent.at(site), bytes);
        if let Some(CacheVerdict::Pass(reason)) = facts.verdict {
            page.add(Metric::Passes.at(reason as usize), 1);
        }
        if !facts.reason.is_empty() {
            reason_cell(facts.reason).into_iter().for_each(|cell| page.add(cell, 1));
        }
        let time_us = now.mono_us.saturating_sub(facts.began.mono_us);
        let cell = page.add_to_sum(Metric::RequestDuration, verdict, time_us);
        Self { cell, value: page.value(cell) + 1 }
    }

    /// The note of the line: the number of the cell and the lower bits of its value.
    fn note(self) -> u64 {
        (self.cell.0 as u64) << VALUE_BITS | self.value & VALUE_MASK
    }
}

/// Does what the note of a dead worker's last line says.
pub(crate) fn settle(page: &Page, note: u64) {
    let (cell, value) = (Cell((note >> VALUE_BITS) as usize), note & VALUE_MASK);
    page.set(cell, page.value(cell).max(value));
}

const VALUE_BITS: u32 = 48;
const VALUE_MASK: u64 = (1 << VALUE_BITS) - 1;

/// The counter of a failure with this word.
fn reason_cell(word: &str) -> Option<Cell> {
    let metrics = [Metric::RequestFailures, Metric::Refusals, Metric::Flaws];
    metrics.into_iter().find_map(|metric| {
        let Set::Words(words) = metric.row().labels.first()?.set else { return None };
        Some(metric.at(words.iter().position(|it| *it == word)?))
    })
}

/// Prepares the lines of an exchange, and shows it to those who follow; `None` if there is no access
/// log.
fn prepare(
    context: &Context,
    front: &Front,
    asked: Asked<'_>,
    (facts, sent): (&Facts, Sent),
    (feed, now): (Option<&(Rc<Feed>, usize)>, Now),
    note: u64,
) -> Option<Written> {
    let access = context.logs[RequestLog::Access].as_ref();
    let slow = context.logs[RequestLog::Slow].as_ref();
    let slow = slow.filter(|it| is_slow(it, asked, facts, now));
    if access.is_none() && slow.is_none() && feed.is_none() {
        return None;
    }
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
    let prepare = |log: &WorkerLog, note| {
        let written = log.lines.borrow_mut().prepare(&record, note);
        debug_assert!(written != Written::Full, "a line is prepared only where there is room");
        written
    };
    if let Some(slow) = slow {
        // The ring counts a line that it drops.
        let _ = prepare(slow, 0);
    }
    if let Some((feed, slot)) = feed {
        feed.write(*slot, &record);
    }
    access.map(|access| prepare(access, note))
}

/// Whether an exchange has a line in the slow log. A tunnel takes as long as its peers want.
fn is_slow(log: &WorkerLog, asked: Asked<'_>, facts: &Facts, now: Now) -> bool {
    let total_us = now.mono_us.saturating_sub(facts.began.mono_us);
    let is_tunnel =
        matches!(asked, Asked::Stream(_)) || facts.verdict == Some(CacheVerdict::Tunnel);
    log.lines.borrow().takes(total_us) && !is_tunnel
}

/// Commits the prepared lines, once their answers are sent.
pub fn commit(context: &Context) {
    for log in context.logs.iter().flatten() {
        let mut lines = log.lines.borrow_mut();
        lines.commit();
        if lines.needs_flush() {
            log.due.notify();
        }
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
    // A request that goes on while its body comes in is received later than its server is asked.
    let received_us = facts.head_us.max(facts.body_us);
    let from_us = if facts.asked_us > 0 { facts.asked_us } else { facts.head_us };
    Times {
        head_us: since(facts.head_us, facts.began.mono_us),
        body_us: since(facts.body_us, facts.head_us),
        lookup_us: since(facts.asked_us, received_us),
        queue_us: (facts.queue_us > 0).then_some(facts.queue_us),
        connect_us: since(facts.connected_us, from_us + facts.queue_us),
        first_byte_us: since(facts.first_byte_us, facts.connected_us),
        answer_us: since(now.mono_us, facts.first_byte_us),
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
    fn the_phases_of_a_request_make_up_its_whole() {
        let at = |mono_us| Now { mono_us, unix_us: 0 };
        let facts = Facts {
            began: at(1_000),
            head_us: 1_001,
            body_us: 1_003,
            asked_us: 1_007,
            queue_us: 8,
            connected_us: 1_031,
            first_byte_us: 1_063,
            ..Facts::default()
        };
        let phases = times(&facts, at(1_127)).named().map(|(_, time_us)| time_us.unwrap());
        assert_eq!(phases, [1, 2, 4, 8, 16, 32, 64, 127]);
        // A hit has no server, and a body that is received while it is sent on no look-up of its own.
        let hit =
            Facts { asked_us: 0, queue_us: 0, connected_us: 0, first_byte_us: 0, ..facts.clone() };
        let phases = times(&hit, at(1_127)).named().map(|(_, time_us)| time_us);
        assert_eq!(phases, [Some(1), Some(2), None, None, None, None, None, Some(127)]);
        let streamed = Facts { body_us: 1_100, ..facts };
        assert_eq!(times(&streamed, at(1_127)).lookup_us, None);
    }

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
                let access = context.logs[RequestLog::Access].as_ref().unwrap();
                assert_eq!(access.lines.borrow_mut().flush(), Flushed::Done);
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
