//! Answers to clients: the fields that a client gets, whatever the answer is made of, and answers
//! from a stored response: the whole of it, ranges of it, or 304.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::iter;
use std::ops::Range;
use std::rc::Rc;

use crate::cache::hot::{Body, HotObject};
use crate::config::Config;
use crate::http::byteranges::ByteRanges;
use crate::http::content_range::{self, ContentRange};
use crate::http::date;
use crate::http::fields::Fields;
use crate::http::head::{BodyLength, RequestHead};
use crate::http::range::Ranges;
use crate::http::status::Status;
use crate::policy::cache_status::{CacheStatus, CacheVerdict, Handling, Report};
use crate::policy::reason::close::CloseReason;
use crate::policy::rfc9111::answer::{self, Answer};
use crate::policy::rfc9111::freshness::Lifetimes;
use crate::policy::rfc9111::partial::Form;
use crate::policy::rfc9111::rules::Rules;
use crate::proxy::client::Client;
use crate::proxy::facts::Facts;
use crate::reactor;
use crate::route::changed::{AnswerFacts, Changed};

/// The fields that are added to an answer, and the rules that say which of all its fields are sent.
#[derive(Clone, Debug)]
pub struct Added {
    /// The member of ktrix in `Cache-Status`.
    pub status: CacheStatus<'static>,
    /// Fields of the origin's answer that are for this client alone.
    pub private: Fields,
    key: Option<Rc<[u8]>>,
    rules: Option<Rc<Rules>>,
    /// The changes of the route in the answer.
    changed: Option<AnswerChange>,
}

/// The change of an answer by its route.
#[derive(Clone, Debug)]
struct AnswerChange {
    request: Rc<Changed>,
    config: Rc<Config>,
}

impl Added {
    /// `rules` are those of the route, if the request has one. `key` is the text of the key, which
    /// `Cache-Status` names if the rules say so.
    pub fn new(
        status: CacheStatus<'static>,
        rules: Option<&Rc<Rules>>,
        key: Option<&Rc<[u8]>>,
    ) -> Self {
        let (key, rules) = (key.cloned(), rules.cloned());
        Self { status, private: Fields::new(), key, rules, changed: None }
    }

    /// With the changes of a route, if it has any.
    pub fn changed_by(self, request: Option<&Rc<Changed>>, config: &Rc<Config>) -> Self {
        let changed = request
            .map(|request| AnswerChange { request: Rc::clone(request), config: Rc::clone(config) });
        Self { changed, ..self }
    }

    /// The value of `Age`, in seconds. A response that was fetched for this very request keeps the
    /// age that it came with, although a second of the clock may end before it is passed on.
    pub fn age_s(&self, lifetimes: &Lifetimes, now_s: u64) -> u64 {
        let is_for_it = matches!(self.status.handling, Handling::Fwd(_)) && !self.status.collapsed;
        let is_new = is_for_it && now_s.saturating_sub(lifetimes.received_s) <= 1;
        lifetimes.current_age_s(if is_new { lifetimes.received_s } else { now_s })
    }

    /// The fields that the route does not strip.
    pub(crate) fn served<'f>(&self, fields: &'f Fields) -> Cow<'f, Fields> {
        self.rules.as_ref().map_or(Cow::Borrowed(fields), |rules| rules.served(fields))
    }

    /// Changes fields as the route says.
    pub(crate) fn change(&self, fields: &mut Cow<'_, Fields>, facts: &Facts) {
        let Some(AnswerChange { request, config }) = &self.changed else { return };
        let (upstream, server) = facts.names(config);
        let cache = facts.verdict.map_or("", CacheVerdict::word);
        request.change_answer(fields.to_mut(), AnswerFacts { upstream, server: &server, cache });
    }

    /// Adds `Cache-Status` (RFC 9211) as the route configures it. The field is a list, and the
    /// member of ktrix follows those of the caches before it.
    fn push_cache_status(&self, sent: Status, fields: &mut Fields) {
        let report = self.rules.as_ref().map_or_else(Report::default, |rules| rules.report);
        let status = self.status.sent_as(sent).with_report(report);
        if status.is_sent() {
            let mut text = Vec::with_capacity(64);
            CacheStatus { key: self.key.as_deref(), ..status }.write(&mut text);
            fields.push(b"Cache-Status", &text);
        }
    }
}

/// Begins an answer with these fields and `Cache-Status`, without the fields that the route strips.
pub fn start<C: Client>(
    client: &mut C,
    status: Status,
    mut fields: Fields,
    length: BodyLength,
    added: &Added,
    facts: &mut Facts,
) {
    let served = served(status, &mut fields, added, facts);
    client.start(status, &served, length);
}

/// The fields of an answer as the client gets them.
pub(crate) fn served<'f>(
    status: Status,
    fields: &'f mut Fields,
    added: &Added,
    facts: &mut Facts,
) -> Cow<'f, Fields> {
    facts.status = status.0;
    added.push_cache_status(status, fields);
    let mut served = added.served(fields);
    if let Some(carried) = &facts.carried {
        carried.apply(status, served.to_mut());
    }
    added.change(&mut served, facts);
    served
}

/// Answers a request with an object, in the form that it asks for, RFC 9110 section 13.2.2.
pub async fn with_object<C: Client>(
    client: &mut C,
    request: &RequestHead,
    object: &HotObject,
    added: &Added,
    facts: &mut Facts,
) -> Result<(), CloseReason> {
    let now_s = reactor::now().unix_s();
    let age_s = added.age_s(&object.lifetimes, now_s);
    let len = object.body_len;
    let (form, ranges) = match answer::answer(request, object.status, &object.fields, len) {
        Answer::NotModified => {
            let fields = not_modified(&object.fields, age_s, added);
            return whole(client, Status(304), fields, b"", added, facts).await;
        }
        Answer::Unsatisfiable | Answer::Partial(Ranges::Unsatisfiable) => {
            return unsatisfiable(client, len, added, facts).await;
        }
        Answer::Full | Answer::Partial(Ranges::Whole) => {
            (Form::Whole, iter::once(0..len).collect())
        }
        Answer::Partial(Ranges::One(range)) => (Form::One, vec![range]),
        Answer::Partial(Ranges::Many(ranges)) => (Form::Several, ranges),
    };
    let mut fields = stored_fields(&object.fields, age_s, added);
    let around = Around::new(form, &ranges, Some(len), &mut fields);
    let status = if form == Form::Whole { object.status } else { around.status };
    start(client, status, fields, around.length, added, facts);
    if !client.wants_no_body() {
        for (head, range) in around.heads.iter().zip(ranges) {
            client.push(head);
            send_range(client, object, range).await?;
        }
        client.push(&around.end);
    }
    client.finish(&Fields::new()).await
}

/// What is sent around the ranges of an answer.
pub(crate) struct Around {
    pub(crate) status: Status,
    /// Of all of the body.
    pub(crate) length: BodyLength,
    /// Before each range.
    pub(crate) heads: Vec<Vec<u8>>,
    /// After the last one.
    pub(crate) end: Vec<u8>,
}

impl Around {
    /// Gives an answer the fields of its form (RFC 9110 section 14.6). `complete` is the length of
    /// the whole, if it is known.
    pub(crate) fn new(
        form: Form,
        ranges: &[Range<u64>],
        complete: Option<u64>,
        fields: &mut Fields,
    ) -> Self {
        let bytes = ranges.iter().map(|range| range.end - range.start).sum();
        let plain = |status| Self {
            status,
            length: BodyLength::Known(bytes),
            heads: vec![Vec::new()],
            end: Vec::new(),
        };
        match form {
            Form::Whole => plain(Status(200)),
            Form::One => {
                let range = ranges.first().cloned().unwrap_or_default();
                let place = ContentRange { range, complete };
                fields.set("Content-Range", place.text().as_bytes());
                plain(Status(206))
            }
            Form::Several => {
                let (kind, mark) = (fields.get("content-type"), unguessable());
                let around = ByteRanges::new(ranges, complete.unwrap_or_default(), kind, mark);
                fields.set("Content-Type", around.content_type.as_bytes());
                let ByteRanges { length, heads, end, .. } = around;
                Self { status: Status(206), length: BodyLength::Known(length), heads, end }
            }
        }
    }
}

/// The fields of a stored response as they are sent now.
pub fn stored_fields(stored: &Fields, age_s: u64, added: &Added) -> Fields {
    let mut fields = stored.clone();
    fields.set("Age", itoa::Buffer::new().format(age_s).as_bytes());
    for (name, value) in added.private.iter() {
        fields.push(name, value);
    }
    fields
}

/// The fields of a 304 made from a stored response, RFC 9110 section 15.4.5.
pub fn not_modified(stored: &Fields, age_s: u64, added: &Added) -> Fields {
    stored_fields(&answer::not_modified_fields(stored), age_s, added)
}

/// Answers 416: no range lies within `length` bytes, RFC 9110 section 15.5.17.
pub async fn unsatisfiable<C: Client>(
    client: &mut C,
    length: u64,
    added: &Added,
    facts: &mut Facts,
) -> Result<(), CloseReason> {
    let mut fields = Fields::new();
    fields.push(b"Content-Range", content_range::unsatisfied(length).as_bytes());
    fields.push(b"Date", &date::format(reactor::now().unix_s()));
    whole(client, Status(416), fields, b"", added, facts).await
}

/// Answers with a body in memory.
pub async fn whole<C: Client>(
    client: &mut C,
    status: Status,
    fields: Fields,
    body: &[u8],
    added: &Added,
    facts: &mut Facts,
) -> Result<(), CloseReason> {
    start(client, status, fields, BodyLength::Known(body.len() as u64), added, facts);
    client.push(body);
    client.finish(&Fields::new()).await
}

/// A number that no client and no origin can predict.
fn unguessable() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    // The hasher's keys are secret, but may be older than the fork and then the same in all
    // workers.
    hasher.write_u32(std::process::id());
    hasher.finish()
}

/// Sends a range of an object's body.
pub async fn send_range<C: Client>(
    client: &mut C,
    object: &HotObject,
    range: Range<u64>,
) -> Result<(), CloseReason> {
    match &object.body {
        Body::File(file) => {
            let offset = file.body_offset() + range.start;
            client.send_file(&file.file, offset, range.end - range.start).await
        }
        Body::Large(body) => {
            let range = range.start as usize..range.end as usize;
            client.send_shared(body, range).await
        }
        Body::Memory => {
            client.send(b"").await?;
            object.with_body(|body| {
                client.push(body.get(range.start as usize..range.end as usize).unwrap_or_default());
            });
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::head::{HeadLimits, parse_request};
    use crate::policy::cache_status::CacheStatus;
    use crate::policy::key::key_of;
    use crate::policy::reason::forward::Fwd;
    use crate::policy::rfc9111::freshness::Lifetimes;
    use crate::proxy::client::fake::FakeClient;

    #[test]
    fn a_304_repeats_only_what_a_cache_needs() {
        let stored: Fields =
            [("Content-Type", "text/html"), ("ETag", "\"1\""), ("Cache-Control", "max-age=5")]
                .into_iter()
                .collect();
        let fields = not_modified(&stored, 3, &Added::new(CacheStatus::hit(2), None, None));
        assert_eq!(fields.get("etag"), Some(&b"\"1\""[..]));
        assert_eq!(fields.get("age"), Some(&b"3"[..]));
        assert!(!fields.contains("content-type"));
    }

    /// A client's answer to a request with this method and these lines, from an object that has ten
    /// bytes and is three seconds old.
    fn answered(method: &str, lines: &str) -> FakeClient {
        let text = format!("{method} / HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
        let (head, _) = parse_request(text.as_bytes(), &HeadLimits::default()).unwrap().unwrap();
        let mut client = FakeClient { is_head: method == "HEAD", ..FakeClient::new() };
        let run = reactor::run(async {
            let fields = [("ETag", "\"1\""), ("Content-Type", "text/plain")].into_iter().collect();
            let received_s = reactor::now().unix_s() - 3;
            let lifetimes = Lifetimes { received_s, ..Lifetimes::default() };
            let key = key_of(b"k");
            let body = b"0123456789";
            let object = HotObject::in_memory(key, None, Status(200), lifetimes, fields, body);
            let (added, mut facts) =
                (Added::new(CacheStatus::hit(2), None, None), Facts::default());
            let result = with_object(&mut client, &head, &object, &added, &mut facts).await;
            assert_eq!(result, Ok(()));
            assert_eq!(facts.status, client.status());
        });
        run.unwrap();
        assert!(client.is_answered(), "{client:?}");
        assert_eq!(client.field("cache-status"), Some("ktrix; hit; ttl=2"));
        client
    }

    #[test]
    fn an_object_answers_with_what_is_asked_of_it() {
        let cases = [
            ("GET", "", 200, "0123456789", None),
            ("HEAD", "", 200, "", None),
            ("GET", "Range: bytes=2-4\r\n", 206, "234", Some("bytes 2-4/10")),
            ("GET", "Range: bytes=2-4\r\nIf-Range: \"2\"\r\n", 200, "0123456789", None),
            ("GET", "Range: bytes=10-\r\n", 416, "", Some("bytes */10")),
            ("GET", "If-None-Match: \"1\"\r\n", 304, "", None),
        ];
        for (method, lines, status, body, content_range) in cases {
            let client = answered(method, lines);
            assert_eq!((client.status(), &*client.sent), (status, body.as_bytes()), "{lines}");
            assert_eq!(client.field("content-range"), content_range, "{lines}");
            assert_eq!(client.field("age"), (status != 416).then_some("3"), "{lines}");
        }
    }

    #[test]
    fn several_parts_are_sent_between_their_heads() {
        let client = answered("GET", "Range: bytes=0-1,8-\r\n");
        let kind = client.field("content-type").unwrap();
        let mark = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
        let text = String::from_utf8(client.sent.clone()).unwrap();
        let parts: Vec<&str> = text.split(&format!("--{mark}")).collect();
        assert!(parts[1].ends_with("Content-Range: bytes 0-1/10\r\n\r\n01\r\n"), "{text}");
        assert!(parts[2].ends_with("Content-Range: bytes 8-9/10\r\n\r\n89\r\n"), "{text}");
        assert_eq!((client.status(), parts[3]), (206, "--\r\n"), "{text}");
    }

    #[test]
    fn a_fetched_response_keeps_the_age_that_it_came_with() {
        let lifetimes = Lifetimes { age_s: 30, received_s: 100, ..Lifetimes::default() };
        let fetched = CacheStatus::forward(Fwd::UriMiss);
        let collapsed = CacheStatus { collapsed: true, ..fetched };
        for (status, now_s, age_s) in [
            (fetched, 100, 30),
            (fetched, 101, 30),
            // A stale answer after a fetch that failed.
            (fetched, 102, 32),
            (collapsed, 101, 31),
            (CacheStatus::hit(5), 101, 31),
        ] {
            let added = Added::new(status, None, None);
            assert_eq!(added.age_s(&lifetimes, now_s), age_s, "{status:?} at {now_s}");
        }
    }

    /// An answer with these values, as a client gets it.
    fn served(status: CacheStatus<'static>, rules: Option<Rules>, key: Option<&str>) -> FakeClient {
        let (rules, key) = (rules.map(Rc::new), key.map(|key| Rc::from(key.as_bytes())));
        let added = Added::new(status, rules.as_ref(), key.as_ref());
        let fields = [("A", "1"), ("B", "2"), ("Cache-Status", "other; hit")].into_iter().collect();
        let (mut client, mut facts) = (FakeClient::new(), Facts::default());
        start(&mut client, Status(200), fields, BodyLength::None, &added, &mut facts);
        assert_eq!((facts.status, client.status()), (200, 200));
        client
    }

    #[test]
    fn fields_that_the_route_strips_are_not_sent() {
        let rules = |stripped: &str, report| Rules {
            stripped: vec![stripped.into()],
            report,
            ..Rules::default()
        };
        let all = |client: FakeClient| {
            let (_, fields, _) = client.started.unwrap();
            let text = |part: &[u8]| String::from_utf8(part.to_vec()).unwrap();
            fields.iter().map(|(name, value)| text(name) + ": " + &text(value)).collect::<Vec<_>>()
        };
        let told = served(CacheStatus::hit(5), None, Some("k"));
        let own = "Cache-Status: ktrix; hit; ttl=5";
        assert_eq!(all(told), ["A: 1", "B: 2", "Cache-Status: other; hit", own]);
        let none = Report { is_on: false, ..Report::default() };
        let told = served(CacheStatus::hit(5), Some(rules("a", none)), None);
        assert_eq!(all(told), ["B: 2", "Cache-Status: other; hit"]);
        let told = served(CacheStatus::hit(5), Some(rules("cache-status", none)), None);
        assert_eq!(all(told), ["A: 1", "B: 2"]);
        let told = served(CacheStatus::hit(5), Some(rules("b", Report::with_all(true))), Some("k"));
        let own = "Cache-Status: ktrix; hit; ttl=5; key=\"k\"";
        assert_eq!(all(told), ["A: 1", "Cache-Status: other; hit", own]);
    }
}
