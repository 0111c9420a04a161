//! Stored parts: the requests that they answer, their growth, and their end.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::origin::Request;
use crate::support::{
    Answer, Ask, Client, Gate, Ktrix, Origin, Plan, Response, alone, pattern, until, until_true,
};

/// More than is fetched whole for a request for a part.
const LEN: usize = 6 << 20;

/// A representation that can be requested in parts.
#[derive(Clone)]
struct Film {
    body: Arc<[u8]>,
    version: Arc<AtomicUsize>,
    control: &'static str,
}

impl Film {
    fn new(len: usize) -> Self {
        Self { body: pattern(len).into(), version: Arc::default(), control: "max-age=600" }
    }

    fn tag(&self) -> String {
        format!("\"v{}\"", self.version.load(Ordering::SeqCst))
    }

    /// The answer of a server that supports Range and If-Range.
    fn answer(&self, request: &Request) -> Response {
        let (len, tag) = (self.body.len(), self.tag());
        if request.field("if-none-match") == Some(&tag) {
            return Response::status(304).field("ETag", tag).cache(self.control);
        }
        let holds = request.field("if-range").is_none_or(|it| it == tag);
        let part = request.field("range").filter(|_| holds).map(|it| parse(it, len));
        match part {
            Some(part) => {
                let place = format!("bytes {}-{}/{len}", part.start, part.end - 1);
                let response = Response::ok(&self.body[part]).with_status(206);
                response.field("Content-Range", place)
            }
            None => Response::shared(&self.body),
        }
        .field("ETag", tag)
        .cache(self.control)
    }

    fn origin(&self) -> Origin {
        let film = self.clone();
        Origin::answering(move |request| film.answer(request))
    }
}

fn parse(value: &str, len: usize) -> Range<usize> {
    let (first, last) = value.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => first..(last + 1).min(len),
        (Ok(first), Err(_)) => first..len,
        (Err(_), Ok(n)) => len - n.min(len)..len,
        _ => panic!("{value}"),
    }
}

fn part(range: &str) -> Ask {
    Ask::get("/film").field("Range", format!("bytes={range}"))
}

/// The ranges of the requests to the origin, `-` for the whole.
fn asked(origin: &Origin) -> Vec<String> {
    let range = |it: &Request| it.field("range").unwrap_or("-").replace("bytes=", "");
    origin.requests().iter().map(range).collect()
}

/// Requests until stored parts answer: their publication follows the last byte.
fn wait_part(ktrix: &Ktrix<'_>, range: &str) -> Answer {
    until("a hit for a part", Duration::from_secs(20), || {
        let answer = ktrix.ask(&part(range).field("Cache-Control", "only-if-cached"));
        answer.is_hit().then_some(answer)
    })
}

#[test]
fn a_stored_part_answers_requests_within_it() {
    let film = Film::new(LEN);
    let origin = film.origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let first = ktrix.ask(&part("1000000-1999999")).expect_status(206).expect_miss();
    first
        .expect_field("content-range", &format!("bytes 1000000-1999999/{LEN}"))
        .expect_body(&film.body[1_000_000..2_000_000]);
    wait_part(&ktrix, "1000000-1999999");
    let mut client = ktrix.client();
    for (text, range) in [
        ("1000000-1000000", 1_000_000..1_000_001),
        ("1999000-1999999", 1_999_000..2_000_000),
        ("1234567-1300000", 1_234_567..1_300_001),
    ] {
        let place = format!("bytes {}-{}/{LEN}", range.start, range.end - 1);
        let answer = client.ask(&part(text)).expect_status(206).expect_hit();
        answer.expect_field("content-range", &place).expect_body(&film.body[range]);
    }
    let two = client.ask(&part("1000000-1000009,1500000-1500009")).expect_status(206).expect_hit();
    assert!(two.body.windows(10).any(|it| it == &film.body[1_500_000..1_500_010]));
    let same = part("1000000-1000009").field("If-Range", film.tag());
    client.ask(&same).expect_status(206).expect_hit();
    let unmodified = part("1000000-1000009").field("If-None-Match", film.tag());
    client.ask(&unmodified).expect_status(304);
    client.ask(&part("9999999-")).expect_status(416);
    let head = client.ask(&Ask::new("HEAD", "/film")).expect_status(200).expect_hit();
    head.expect_field("content-length", &LEN.to_string()).expect_no_field("content-range");
    let absent = part("0-5").field("Cache-Control", "only-if-cached");
    client.ask(&absent).expect_status(504);
    origin.expect_requests(1);
    plan.verify_cache();
}

#[test]
fn parts_grow_and_are_completed_by_the_missing_bytes() {
    let film = Film::new(LEN);
    let origin = film.origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for range in ["1000000-1999999", "3000000-3999999"] {
        ktrix.ask(&part(range)).expect_status(206);
        wait_part(&ktrix, range);
    }
    let across = ktrix.ask(&part("1500000-3499999")).expect_status(206);
    across.expect_body(&film.body[1_500_000..3_500_000]);
    assert_eq!(asked(&origin)[2..], ["2000000-2999999"]);
    assert_eq!(origin.last().field("if-range"), Some(&*film.tag()));
    wait_part(&ktrix, "1000000-3999999").expect_body(&film.body[1_000_000..4_000_000]);
    let whole = ktrix.get("/film").expect_status(200);
    whole.expect_body(&film.body).expect_no_field("content-range");
    assert_eq!(asked(&origin)[3..], ["0-999999", "4000000-"]);
    ktrix.wait_hit("/film").expect_status(200).expect_body(&film.body);
    ktrix.ask(&part("-100")).expect_hit().expect_body(&film.body[LEN - 100..]);
    origin.expect_requests(5);
    plan.verify_cache();
}

#[test]
fn parts_of_a_changed_object_are_dropped() {
    let film = Film::new(LEN);
    let origin = film.origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.ask(&part("0-999999")).expect_status(206);
    wait_part(&ktrix, "0-999999");
    film.version.store(1, Ordering::SeqCst);
    // The rest is requested under the old validator, and the whole of the new one comes.
    let answer = ktrix.ask(&part("500000-1499999")).expect_status(206);
    answer.expect_field("etag", "\"v1\"").expect_body(&film.body[500_000..1_500_000]);
    assert_eq!(asked(&origin), ["0-999999", "1000000-1499999"]);
    let old = ktrix.ask(&part("0-9").field("If-Range", "\"v0\"")).expect_status(200);
    old.expect_field("etag", "\"v1\"");
    ktrix.wait_hit("/film").expect_field("etag", "\"v1\"");
}

#[test]
fn an_origin_that_ignores_if_range_mixes_nothing_up() {
    let film = Film::new(LEN);
    let other: Arc<[u8]> = film.body.iter().map(|byte| !byte).collect();
    let (script, bodies) = (film.clone(), [Arc::clone(&film.body), Arc::clone(&other)]);
    let origin = Origin::answering(move |request| {
        let mut film = script.clone();
        film.body = Arc::clone(&bodies[film.version.load(Ordering::SeqCst)]);
        let mut request = request.clone();
        request.head.fields.retain(|(name, _)| !name.eq_ignore_ascii_case("if-range"));
        film.answer(&request)
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.ask(&part("0-999999")).expect_body(&film.body[..1_000_000]);
    wait_part(&ktrix, "0-999999");
    film.version.store(1, Ordering::SeqCst);
    ktrix.ask(&part("500000-1499999")).expect_status(206).expect_body(&other[500_000..1_500_000]);
    ktrix.get("/film").expect_status(200).expect_body(&other);
}

#[test]
fn a_part_of_unknown_whole_does_not_cost_the_others_their_place() {
    let film = Film::new(LEN);
    let script = film.clone();
    let origin = Origin::answering(move |request| {
        let mut response = script.answer(request);
        if request.number > 0 {
            let range = parse(request.field("range").unwrap(), LEN);
            let place = format!("bytes {}-{}/*", range.start, range.end - 1);
            response = Response::ok(&script.body[range]).with_status(206);
            response = response.field("Content-Range", place).field("ETag", script.tag());
        }
        response.cache("max-age=600")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.ask(&part("0-9999")).expect_status(206);
    let other = ktrix.ask(&part("20000-29999")).expect_status(206);
    other
        .expect_body(&film.body[20_000..30_000])
        .expect_field("content-range", "bytes 20000-29999/*");
    assert_eq!(asked(&origin), ["0-9999", "20000-29999", "20000-29999"]);
    let absent = part("0-9999").field("Cache-Control", "only-if-cached");
    ktrix.ask(&absent).expect_status(206).expect_hit().expect_body(&film.body[..10_000]);
    plan.verify_cache();
}

#[test]
fn contradictory_parts_are_not_combined() {
    let film = Film::new(LEN);
    let head = |body: Response| {
        let place = format!("bytes 1000000-1499999/{LEN}");
        body.with_status(206).field("Content-Range", place).field("ETag", "\"v0\"")
    };
    for (n_sent, is_chunked) in [(400_000, false), (600_000, false), (600_000, true)] {
        let script = film.clone();
        let origin = Origin::answering(move |request| match (request.number, is_chunked) {
            (1, false) => head(Response::ok(vec![b'#'; n_sent])).cache("max-age=600"),
            (1, true) => {
                // It is usable within its own range.
                let mut body = script.body[1_000_000..1_500_000].to_vec();
                body.resize(n_sent, b'#');
                head(Response::chunked(&[&body])).cache("max-age=600")
            }
            _ => script.answer(request),
        });
        let plan = Plan::new(&origin);
        let ktrix = plan.start();
        ktrix.ask(&part("0-999999")).expect_status(206);
        wait_part(&ktrix, "0-999999");
        let across = ktrix.ask(&part("500000-1999999")).expect_status(206);
        across.expect_body(&film.body[500_000..2_000_000]);
        plan.verify_cache();
    }
}

#[test]
fn parts_without_a_validator_are_not_combined() {
    let body: Arc<[u8]> = pattern(LEN).into();
    let script = Arc::clone(&body);
    let origin = Origin::answering(move |request| match request.field("range") {
        Some(range) => {
            let range = parse(range, LEN);
            let place = format!("bytes {}-{}/{LEN}", range.start, range.end - 1);
            let response = Response::ok(&script[range]).with_status(206);
            response.field("Content-Range", place).cache("max-age=60")
        }
        None => Response::shared(&script).cache("max-age=60"),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.ask(&part("0-999999")).expect_status(206);
    wait_part(&ktrix, "0-99").expect_body(&body[..100]);
    ktrix.ask(&part("500000-1499999")).expect_body(&body[500_000..1_500_000]);
    assert_eq!(asked(&origin), ["0-999999", "500000-1499999"]);
    ktrix.get("/film").expect_status(200).expect_body(&body);
    assert_eq!(asked(&origin).last().map(String::as_str), Some("-"), "the whole, in the end");
    ktrix.wait_hit("/film").expect_body(&body);
}

#[test]
fn an_origin_that_ignores_range_has_its_whole_stored() {
    const LEN: usize = 3 << 20;
    let origin = Origin::answering(|_| Response::ok(pattern(LEN)).cache("max-age=60"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let answer = ktrix.ask(&part("1000-1999")).expect_status(206);
    answer.expect_body(&pattern(LEN)[1000..2000]);
    ktrix.wait_hit("/film").expect_body(pattern(LEN));
    origin.expect_requests(1);
}

#[test]
fn a_part_of_a_small_object_brings_the_whole() {
    let film = Film::new(2 << 20);
    let origin = film.origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let answer = ktrix.ask(&part("1000000-1000999")).expect_status(206);
    answer.expect_body(&film.body[1_000_000..1_001_000]);
    until("the whole in one file", Duration::from_secs(20), || {
        let whole = Ask::get("/film").field("Cache-Control", "only-if-cached");
        let answer = ktrix.ask(&whole);
        (answer.is_hit() && plan.cache_files().len() == 1).then_some(answer)
    })
    .expect_status(200)
    .expect_body(&film.body)
    .expect_no_field("content-range");
    assert_eq!(asked(&origin), ["1000000-1000999", "0-999999", "1001000-"]);
    plan.verify_cache();
}

#[test]
fn a_route_may_turn_off_background_fetches_and_parts() {
    let film = Film::new(2 << 20);
    let origin = film.origin();
    let sites = "[{routes: [{path: /film, upstream: app, cache: {fetch-whole: 0 B}}, \
                 {path: /, upstream: app, cache: {parts: off}}]}]";
    let plan = Plan::new(&origin).set("sites", sites);
    let ktrix = plan.start();
    ktrix.ask(&part("1000-1999")).expect_status(206);
    wait_part(&ktrix, "1000-1999");
    let whole = Ask::get("/other").field("Range", "bytes=1000-1999");
    ktrix.ask(&whole).expect_status(206).expect_body(&film.body[1000..2000]);
    assert_eq!(asked(&origin), ["1000-1999", "-"]);
}

#[test]
fn a_part_of_unknown_length_is_the_whole_only_if_it_ends_there() {
    for (n_sent, is_whole) in [(1000, true), (999, false), (1001, false)] {
        let origin = Origin::answering(move |request| {
            let body = &pattern(2000)[..n_sent];
            match request.has("range") {
                true => Response::chunked(&[&body[..500], &body[500..]])
                    .with_status(206)
                    .field("Content-Range", "bytes 0-999/1000"),
                false => Response::ok("the whole"),
            }
            .field("ETag", "\"1\"")
            .cache("max-age=600")
        });
        let plan = Plan::new(&origin);
        let ktrix = plan.start();
        ktrix.ask(&part("0-")).expect_status(206).expect_body(&pattern(2000)[..n_sent]);
        if is_whole {
            ktrix.wait_hit("/film").expect_status(200).expect_body(&pattern(2000)[..1000]);
            continue;
        }
        let absent = Ask::get("/film").field("Cache-Control", "only-if-cached");
        ktrix.ask(&absent).expect_status(504);
        ktrix.get("/film").expect_status(200).expect_body("the whole");
    }
}

#[test]
fn bytes_from_before_the_origins_death_are_kept() {
    let film = Film::new(LEN);
    let script = film.clone();
    let origin = Origin::answering(move |request| match request.number {
        0 => script.answer(request).cut_at(1 << 20),
        _ => script.answer(request),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.send(&part("0-4194303"));
    let (status, _) = client.answer_head();
    assert_eq!(status, 206);
    let (bytes, _) = client.read_to_end("a part that breaks off");
    assert!(bytes.len() <= 1 << 20 && film.body.starts_with(&bytes));
    wait_part(&ktrix, "0-99999");
    ktrix.ask(&part("0-4194303")).expect_status(206).expect_body(&film.body[..4 << 20]);
    assert_eq!(asked(&origin)[1..], [format!("{}-4194303", 1 << 20)]);
    plan.verify_cache();
}

#[test]
fn bytes_sent_to_a_client_that_left_are_kept() {
    let film = Film::new(LEN);
    let (script, gate) = (film.clone(), Gate::new());
    let held = gate.clone();
    let origin = Origin::answering(move |request| match request.number {
        0 => {
            let pause = Duration::from_millis(20);
            script.answer(request).gated_at(1 << 20, &held).slowly(256 << 10, pause)
        }
        _ => script.answer(request),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.send(&part("0-"));
    assert_eq!(client.answer_head().0, 206);
    let mut n_read = 0;
    while n_read < 1 << 20 {
        n_read += client.read().len();
    }
    client.reset();
    // The rest is slow: ktrix sees that it has no reader before it is over.
    gate.open();
    wait_part(&ktrix, "0-999999").expect_body(&film.body[..1_000_000]);
}

#[test]
fn many_at_once_for_one_part_cost_one_request() {
    alone();
    let film = Film::new(LEN);
    let (script, gate) = (film.clone(), Gate::new());
    let held = gate.clone();
    let origin = Origin::answering(move |request| script.answer(request).gated_at(100_000, &held));
    let plan = Plan::new(&origin).set("workers", "4");
    let ktrix = plan.start();
    let mut clients: Vec<Client> = (0..20).map(|_| ktrix.client()).collect();
    for client in &mut clients {
        client.send(&part("1000000-1999999"));
    }
    for client in &mut clients {
        let (status, head) = client.answer_head();
        assert_eq!(status, 206, "{head:?}");
    }
    gate.open();
    for client in &mut clients {
        let mut body = Vec::new();
        while body.len() < 1_000_000 {
            let bytes = client.read();
            assert!(!bytes.is_empty(), "ended after {}", body.len());
            body.extend_from_slice(&bytes);
        }
        assert!(body == film.body[1_000_000..2_000_000]);
    }
    origin.expect_requests(1);
}

#[test]
fn many_at_once_for_many_parts_get_their_own() {
    alone();
    let film = Film::new(LEN);
    let origin = film.origin();
    let plan = Plan::new(&origin).set("workers", "4");
    let ktrix = plan.start();
    let threads: Vec<_> = (0..20_usize)
        .map(|n| {
            let (address, film) = (plan.address.clone(), film.clone());
            thread::spawn(move || {
                let range = n * 300_000..(n + 1) * 300_000;
                let mut client = Client::connect(&address);
                for _ in 0..3 {
                    let ask = part(&format!("{}-{}", range.start, range.end - 1));
                    client.ask(&ask).expect_status(206).expect_body(&film.body[range.clone()]);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("a client"));
    // A slow machine may have lost a part whose place in the list was taken for too long.
    for n in 0..20 {
        let range = format!("{}-{}", n * 300_000, (n + 1) * 300_000 - 1);
        until_true("a stored part", || ktrix.ask(&part(&range)).is_hit());
    }
    let n_before = origin.n_requests();
    ktrix.get("/film").expect_status(200).expect_body(&film.body);
    ktrix.wait_hit("/film").expect_body(&film.body);
    assert_eq!(asked(&origin)[n_before..], ["6000000-"], "only the gap is fetched");
    plan.verify_cache();
}

#[test]
fn a_worker_that_is_killed_amid_a_part_leaves_nothing_wrong() {
    let film = Film::new(LEN);
    let (script, gate) = (film.clone(), Gate::new());
    let held = gate.clone();
    let origin = Origin::answering(move |request| match request.number {
        0 => script.answer(request).gated_at(500_000, &held),
        _ => script.answer(request),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let mut client = ktrix.client();
    client.send(&part("0-999999"));
    assert_eq!(client.answer_head().0, 206);
    for worker in ktrix.workers() {
        worker.signal(Signal::SIGKILL);
    }
    client.read_to_end("a connection of the killed worker");
    gate.open();
    let answer = until("an answer from the next workers", Duration::from_secs(20), || {
        let mut client = Client::try_connect(&plan.address).ok()?;
        client.try_ask(&part("0-999999")).ok()
    });
    answer.expect_status(206).expect_body(&film.body[..1_000_000]);
    wait_part(&ktrix, "0-999999").expect_body(&film.body[..1_000_000]);
    ktrix.get("/film").expect_status(200).expect_body(&film.body);
    plan.verify_cache();
}

#[test]
fn stale_parts_are_validated() {
    let film = Film { control: "max-age=0", ..Film::new(LEN) };
    let origin = film.origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.ask(&part("0-999999")).expect_status(206);
    until_true("a validation", || {
        let answer = ktrix.ask(&part("100-199")).expect_status(206);
        answer.expect_body(&film.body[100..200]).cache_status().contains("fwd-status=304")
    });
    // The request for the missing bytes shows whether the rest is still valid.
    let n_before = origin.n_requests();
    ktrix.ask(&part("500000-1499999")).expect_body(&film.body[500_000..1_500_000]);
    assert_eq!(asked(&origin)[n_before..], ["1000000-1499999"]);
    film.version.store(1, Ordering::SeqCst);
    let changed = ktrix.ask(&part("100-199")).expect_status(206);
    changed.expect_field("etag", "\"v1\"").expect_body(&film.body[100..200]);
}

#[test]
fn a_part_that_came_during_a_validation_is_not_lost() {
    let film = Film { control: "max-age=0", ..Film::new(LEN) };
    let (script, gate) = (film.clone(), Gate::new());
    let held = gate.clone();
    let origin = Origin::answering(move |request| match request.number {
        1 => script.answer(request).gated(&held),
        _ => script.answer(request),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.ask(&part("0-9999")).expect_status(206);
    let mut validating = ktrix.client();
    validating.send(&part("0-99"));
    origin.wait_requests(2);
    ktrix.ask(&part("20000-29999")).expect_body(&film.body[20_000..30_000]);
    gate.open();
    validating.answer().expect_status(206).expect_body(&film.body[..100]);
    ktrix.ask(&part("20000-29999")).expect_body(&film.body[20_000..30_000]);
    assert!(origin.last().has("if-none-match"), "{:?}", asked(&origin));
    plan.verify_cache();
}

const BEHIND: &str = "max-age=0, stale-while-revalidate=600";

#[test]
fn stale_parts_are_refreshed_behind_by_a_part() {
    let film = Film { control: BEHIND, ..Film::new(LEN) };
    let origin = film.origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.ask(&part("0-9999")).expect_status(206);
    ktrix.ask(&part("100-199")).expect_status(206).expect_hit();
    origin.wait_requests(2);
    assert!(origin.last().has("if-none-match"));
    film.version.store(1, Ordering::SeqCst);
    until_true("what took its place", || {
        let answer = ktrix.ask(&part("100-199").field("Cache-Control", "only-if-cached"));
        answer.is_hit() && answer.field("etag") == Some("\"v1\"")
    });
    let asked = asked(&origin);
    assert!(asked.iter().all(|it| it == "0-9999"), "{asked:?}");
    plan.verify_cache();
}

#[test]
fn a_large_response_is_not_fetched_whole_in_the_background() {
    let gate = Gate::new();
    let film = Film { control: BEHIND, ..Film::new(LEN) };
    let (script, held) = (film.clone(), gate.clone());
    let origin = Origin::answering(move |request| match request.number {
        0 => script.answer(request),
        _ => Response::shared(&script.body).cache("max-age=600").gated_at(1 << 20, &held),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.ask(&part("0-9999")).expect_status(206);
    ktrix.ask(&part("100-199")).expect_status(206).expect_hit();
    origin.wait_requests(2);
    until_true("the end of what is no longer true", || plan.cache_files().is_empty());
    assert_eq!(plan.unfinished_files(), Vec::<std::path::PathBuf>::new());
    gate.open();
}

#[test]
fn a_background_fetch_ends_at_its_stated_end() {
    let gate = Gate::new();
    let film = Film::new(2 << 20);
    let (script, held) = (film.clone(), gate.clone());
    let origin = Origin::answering(move |request| {
        if request.number == 0 {
            return script.answer(request);
        }
        let endless = Response::chunked(&[&pattern(4 << 20)]).with_status(206);
        let part = endless.field("Content-Range", format!("bytes 0-999999/{}", 2 << 20));
        let slow = part.slowly(256 << 10, Duration::from_millis(20)).gated_at(2 << 20, &held);
        slow.field("ETag", script.tag()).cache("max-age=600")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.ask(&part("1000000-1009999")).expect_status(206);
    until_true("what is fetched behind", || !plan.unfinished_files().is_empty());
    until_true("its end", || plan.unfinished_files().is_empty());
    ktrix.ask(&part("1000000-1009999")).expect_hit().expect_body(&film.body[1_000_000..1_010_000]);
    gate.open();
    plan.verify_cache();
}

#[test]
fn an_unsafe_request_removes_parts() {
    let film = Film::new(LEN);
    let script = film.clone();
    let origin = Origin::answering(move |request| match &*request.method {
        "POST" => Response::status(204),
        _ => script.answer(request),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.ask(&part("0-999999"));
    wait_part(&ktrix, "0-99");
    ktrix.ask(&Ask::post("/film", "x")).expect_status(204);
    let absent = part("0-99").field("Cache-Control", "only-if-cached");
    ktrix.ask(&absent).expect_status(504);
}

#[test]
fn a_purge_removes_the_parts() {
    let film = Film::new(LEN);
    let origin = film.origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.ask(&part("0-999999"));
    wait_part(&ktrix, "0-99");
    ktrix.ask(&Ask::new("PURGE", "/film")).expect_status(200);
    let absent = part("0-99").field("Cache-Control", "only-if-cached");
    ktrix.ask(&absent).expect_status(504);
    for range in ["0-499999", "500000-999999"] {
        ktrix.ask(&part(range)).expect_status(206);
        wait_part(&ktrix, range);
    }
    wait_part(&ktrix, "0-999999").expect_body(&film.body[..1_000_000]);
    origin.expect_requests(3);
}

#[test]
fn a_tag_that_only_the_first_part_had_names_them_all() {
    let film = Film::new(LEN);
    let script = film.clone();
    let origin = Origin::answering(move |request| {
        let response = script.answer(request);
        // A server need not repeat the fields that the client has (RFC 9110 section 15.3.7).
        match request.field("if-range") {
            None => response.field("Cache-Tag", "films"),
            Some(_) => response,
        }
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for range in ["0-999999", "500000-1499999"] {
        ktrix.ask(&part(range)).expect_status(206);
        wait_part(&ktrix, range);
    }
    assert_eq!(asked(&origin), ["0-999999", "1000000-1499999"]);
    ktrix.ask(&Ask::new("PURGE", "/film").field("Cache-Tag", "films")).expect_status(200);
    let absent = part("0-99").field("Cache-Control", "only-if-cached");
    ktrix.ask(&absent).expect_status(504);
}

#[test]
fn a_range_joins_a_fill_that_is_under_way() {
    let film = Film::new(LEN);
    let (script, gate) = (film.clone(), Gate::new());
    let held = gate.clone();
    let origin = Origin::answering(move |request| match request.has("range") {
        false => script.answer(request).gated_at(2 << 20, &held),
        true => script.answer(request),
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let mut first = ktrix.client();
    first.send(&Ask::get("/film"));
    assert_eq!(first.answer_head().0, 200);
    let mut n_read = 0;
    while n_read < 2 << 20 {
        n_read += first.read().len();
    }
    let there = ktrix.ask(&part("1000-1999")).expect_status(206);
    let place = format!("bytes 1000-1999/{LEN}");
    there.expect_field("content-range", &place).expect_body(&film.body[1000..2000]);
    origin.expect_requests(1);
    // Bytes far ahead are not waited for.
    let far = ktrix.ask(&part("6000000-6000999")).expect_status(206);
    far.expect_body(&film.body[6_000_000..6_001_000]);
    assert_eq!(asked(&origin), ["-", "6000000-6000999"]);
    gate.open();
    while n_read < LEN {
        n_read += first.read().len();
    }
    ktrix.wait_hit("/film").expect_body(&film.body);
}
