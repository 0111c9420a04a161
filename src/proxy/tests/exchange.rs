//! Tests of exchanges by what the client gets, what the origin is asked, what the cache has then, and
//! what the log says.

use crate::http::flaw::Flaw;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::ClientError;
use crate::proxy::client::fake::{End, FakeClient};
use crate::proxy::tests::sample::{Begun, Scene, pass_seconds, response, settle};
use crate::reactor::clock::run_by_test_clock;

/// Fresh for a minute, with a validator.
const MINUTE: &str = "Cache-Control: max-age=60\nETag: \"1\"";

/// A scene in which `/x` is stored with the body `old`, and the last of its minute has passed.
async fn stale(rules: &str) -> Scene {
    let scene = Scene::new(rules);
    scene.get_by("GET /x", &response(200, MINUTE, "old")).await.expect("200 miss", "old");
    pass_seconds(61).await;
    scene
}

fn stored(body: &str) -> Option<(u16, String)> {
    Some((200, body.to_owned()))
}

#[test]
fn a_miss_is_stored_and_then_a_hit() {
    run_by_test_clock(async {
        let scene = Scene::new("");
        let begun = scene.begin("GET /x?q\nX-A: b\nConnection: x-a");
        let asked = scene.origin.answer(&response(200, MINUTE, "abc")).await;
        assert_eq!((asked.line(), asked.field("host")), ("GET /x?q", Some("a.example")));
        assert_eq!(asked.field("x-a"), None, "it is for the connection alone");
        let miss = begun.end().await;
        miss.expect("200 miss", "abc");
        assert_eq!(miss.cache_status(), "ktrix; fwd=uri-miss; stored");
        assert!(miss.facts.hit.is_none() && miss.facts.server.is_some());
        assert_eq!(scene.stored("/x?q").await, stored("abc"));
        pass_seconds(10).await;
        let hit = scene.get("GET /x?q").await;
        hit.expect("200 hit", "abc");
        assert_eq!(
            (hit.cache_status(), hit.client.field("age")),
            ("ktrix; hit; ttl=50", Some("10"))
        );
        assert!(hit.facts.hit.is_some() && hit.facts.server.is_none());
        assert_eq!(scene.origin.n_asked(), 1);
    });
}

#[test]
fn a_304_renews_what_is_stored() {
    run_by_test_clock(async {
        let scene = stale("").await;
        let begun = scene.begin("GET /x");
        let renewal = "Cache-Control: max-age=30\nETag: \"1\"\nX-New: 1";
        let asked = scene.origin.answer(&response(304, renewal, "")).await;
        assert_eq!((asked.line(), asked.field("if-none-match")), ("GET /x", Some("\"1\"")));
        let renewed = begun.end().await;
        renewed.expect("200 revalidated", "old");
        assert_eq!(renewed.cache_status(), "ktrix; fwd=stale; fwd-status=304; stored");
        settle().await;
        assert_eq!(scene.stored("/x").await, stored("old"));
        let found = scene.found("/x").await;
        assert!(found.object().unwrap().fields.contains("x-new"), "the file has the new head");
        pass_seconds(29).await;
        scene.get("GET /x").await.expect("200 hit", "old");
        assert_eq!(scene.origin.n_asked(), 2);
    });
}

#[test]
fn a_new_response_replaces_the_stale_one() {
    run_by_test_clock(async {
        let scene = stale("").await;
        let answer = scene.get_by("GET /x", &response(200, MINUTE, "new")).await;
        answer.expect("200 miss", "new");
        assert_eq!(answer.cache_status(), "ktrix; fwd=stale; stored");
        assert_eq!(scene.stored("/x").await, stored("new"));
    });
}

#[test]
fn stale_while_revalidate_answers_first_and_then_fetches_once() {
    run_by_test_clock(async {
        let scene = stale("stale-while-revalidate: 10s").await;
        for _ in 0..3 {
            let answer = scene.get("GET /x").await;
            answer.expect("200 stale", "old");
            assert_eq!(answer.cache_status(), "ktrix; hit; ttl=-1");
        }
        let asked = scene.origin.answer(&response(200, MINUTE, "new")).await;
        assert_eq!(asked.field("if-none-match"), Some("\"1\""));
        settle().await;
        scene.get("GET /x").await.expect("200 hit", "new");
        assert_eq!((scene.stored("/x").await, scene.origin.n_asked()), (stored("new"), 2));
    });
}

#[test]
fn a_failing_origin_is_answered_for_by_stale_if_error() {
    let failures = [response(503, MINUTE, "down"), b"HTTP/1.1 nonsense\r\n\r\n".into(), b"".into()];
    let without = ["503 miss", "502 - bad-response", "502 - origin-closed"];
    for (said, without) in failures.iter().zip(without) {
        run_by_test_clock(async {
            let scene = stale("stale-if-error: 10s").await;
            let answer = scene.get_by("GET /x", said).await;
            answer.expect("200 stale", "old");
            assert_eq!(scene.stored("/x").await, stored("old"));
            pass_seconds(10).await;
            let late = scene.get_by("GET /x", said).await;
            assert_eq!(late.logged(), without, "{}", String::from_utf8_lossy(said));
            assert_eq!(scene.origin.n_asked(), 3);
        });
    }
}

#[test]
fn a_stored_response_is_held_through_an_outage() {
    run_by_test_clock(async {
        let scene = stale("outage-hold: 1h").await;
        scene.get_by("GET /x", &response(503, "", "no")).await.expect("503 pass no-lifetime", "no");
        scene.get_by("GET /x", &response(200, MINUTE, "old")).await.expect("200 miss", "old");
        pass_seconds(3_600).await;
        scene.origin.refuse();
        // The second request is answered without asking: the server is known to be down.
        for way in ["fwd=stale", "hit"] {
            let answer = scene.get("GET /x").await;
            answer.expect("200 stale outage", "old");
            assert_eq!(answer.cache_status(), format!("ktrix; {way}; ttl=-3540; detail=outage"));
        }
        pass_seconds(60).await;
        assert_eq!(scene.get("GET /x").await.logged(), "502 - connect-failed");
        assert_eq!(scene.stored("/x").await, stored("old"));
    });
}

#[test]
fn only_if_cached_asks_no_origin() {
    run_by_test_clock(async {
        let only = "GET /x\nCache-Control: only-if-cached";
        let scene = Scene::new("");
        assert_eq!(scene.get(only).await.logged(), "504 -");
        scene.get_by("GET /x", &response(200, MINUTE, "abc")).await.expect("200 miss", "abc");
        scene.get(only).await.expect("200 hit", "abc");
        pass_seconds(61).await;
        assert_eq!(scene.get(only).await.logged(), "504 -");
        assert_eq!(scene.origin.n_asked(), 1);
    });
}

#[test]
fn a_request_of_pass_if_goes_round_the_cache() {
    run_by_test_clock(async {
        let scene = Scene::new("pass-if: [cookie session]");
        scene.get_by("GET /x", &response(200, MINUTE, "all")).await.expect("200 miss", "all");
        let begun = scene.begin("GET /x\nCookie: session=1");
        let asked = scene.origin.answer(&response(200, MINUTE, "mine")).await;
        assert_eq!((asked.line(), asked.field("cookie")), ("GET /x", Some("session=1")));
        let mine = begun.end().await;
        mine.expect("200 pass pass-if", "mine");
        assert_eq!(mine.cache_status(), "ktrix; fwd=bypass; detail=pass-if");
        scene.get("GET /x").await.expect("200 hit", "all");
        assert_eq!(scene.origin.n_asked(), 2);
    });
}

#[test]
fn a_head_is_passed_or_answered_from_a_stored_get() {
    run_by_test_clock(async {
        let scene = Scene::new("");
        let begun = scene.begin("HEAD /x");
        let said = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nCache-Control: max-age=60\r\n\r\n";
        assert_eq!(scene.origin.answer(said).await.line(), "HEAD /x");
        begun.end().await.expect("200 pass method", "");
        assert_eq!(scene.stored("/x").await, None);
        scene.get_by("GET /x", &response(200, MINUTE, "abc")).await.expect("200 miss", "abc");
        scene.get("HEAD /x").await.expect("200 hit", "");
        assert_eq!(scene.origin.n_asked(), 2);
    });
}

#[test]
fn a_head_that_is_passed_renews_or_removes_what_is_stored() {
    let confirms = "Content-Length: 3\r\nETag: \"1\"\r\nCache-Control: max-age=60\r\n";
    let denies = "Content-Length: 4\r\nETag: \"2\"\r\nCache-Control: max-age=60\r\n";
    for (fields, left) in [(confirms, stored("old")), (denies, None)] {
        run_by_test_clock(async {
            let scene = stale("").await;
            let said = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            scene.get_by("HEAD /x", said.as_bytes()).await.expect("200 pass method", "");
            assert_eq!(scene.stored("/x").await, left);
            let is_fresh = scene.found("/x").await.object().is_some_and(|it| it.is_fresh(now_s()));
            assert_eq!((is_fresh, scene.is_idle("/x")), (left.is_some(), true));
        });
    }
}

#[test]
fn a_head_with_content_or_a_condition_changes_nothing_that_is_stored() {
    let denies =
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nETag: \"2\"\r\nCache-Control: max-age=60\r\n\r\n";
    for (request, body) in [
        ("HEAD /x\nIf-Match: \"1\"", &[][..]),
        ("HEAD /x\nIf-None-Match: \"3\"\nCache-Control: no-store", &[]),
        ("HEAD /x\nContent-Length: 2", &["ab"]),
    ] {
        run_by_test_clock(async {
            let scene = stale("").await;
            let begun = scene.begin_with(request, body);
            let mut asked = scene.origin.asked().await;
            asked.0.take(body.concat().len()).await.unwrap();
            asked.say(denies).await;
            let answer = begun.end().await;
            assert!(answer.logged().starts_with("200 pass "), "{request}: {}", answer.logged());
            assert_eq!(scene.stored("/x").await, stored("old"), "{request}");
        });
    }
}

fn now_s() -> u64 {
    crate::reactor::now().unix_s()
}

#[test]
fn a_successful_post_invalidates_and_a_failed_one_does_not() {
    for (status, left) in [(200, None), (500, stored("old"))] {
        run_by_test_clock(async {
            let scene = Scene::new("");
            scene.get_by("GET /x", &response(200, MINUTE, "old")).await.expect("200 miss", "old");
            let begun = scene.begin_with("POST /x\nContent-Length: 2", &["a", "b"]);
            let mut asked = scene.origin.asked().await;
            assert_eq!((asked.line(), asked.field("content-length")), ("POST /x", Some("2")));
            assert_eq!(asked.0.take(2).await.unwrap(), b"ab");
            asked.say(&response(status, MINUTE, "done")).await;
            begun.end().await.expect(&format!("{status} pass method"), "done");
            assert_eq!(scene.stored("/x").await, left);
        });
    }
}

/// Bodies of requests go to the origin as they come.
const STREAMED: &str = "sites: [{upstream: u, request-buffering: off}]\n";

#[test]
fn a_body_is_streamed_or_received_first() {
    for (lines, field, is_streamed) in [
        (STREAMED, "Content-Length: 4", true),
        (STREAMED, "Transfer-Encoding: chunked", true),
        ("", "Content-Length: 4", false),
        ("", "Transfer-Encoding: chunked", false),
        ("limits: {body-memory: 0 B}\n", "Content-Length: 4", false),
    ] {
        run_by_test_clock(async {
            let scene = Scene::with("", lines);
            let begun = scene.begin_with(&format!("PUT /x\n{field}"), &["ab", "cd"]);
            // Between the pieces.
            begun.remote.set_pieces(1);
            settle().await;
            assert_eq!(scene.origin.n_asked(), usize::from(is_streamed), "{lines} {field}");
            begun.remote.set_pieces(1);
            let mut asked = scene.origin.asked().await;
            let (framing, body) = match is_streamed && field.starts_with('T') {
                true => ("Transfer-Encoding: chunked", "2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"),
                false => ("Content-Length: 4", "abcd"),
            };
            assert!(asked.head.contains(framing), "{}", asked.head);
            assert_eq!(asked.0.take(body.len()).await.unwrap(), body.as_bytes());
            asked.say(&response(201, "", "")).await;
            assert_eq!(begun.end().await.client.status(), 201);
        });
    }
}

#[test]
fn a_body_that_is_too_large_or_breaks_off_is_refused() {
    let late = Err(ClientError::Closed(CloseReason::BodyTimeout));
    let gone = Err(ClientError::Closed(CloseReason::ClientGone));
    let flaw = Err(ClientError::Flaw(Flaw::BadChunkSize));
    let (known, chunked) = ("Content-Length: 4", "Transfer-Encoding: chunked");
    let long = || Ok(b"cdefghi".to_vec());
    for (lines, field, then, logged) in [
        ("", "Content-Length: 9", long(), "413 - body-too-large bad-request"),
        ("", chunked, long(), "413 - body-too-large bad-request"),
        ("", known, late.clone(), "408 - body-timeout"),
        ("", known, gone.clone(), "499 client-gone"),
        ("", chunked, flaw.clone(), "400 - bad-chunk-size bad-request"),
        (STREAMED, known, late, "408 pass request-body body-timeout"),
        (STREAMED, known, gone, "499 pass request-body client-gone"),
        (STREAMED, chunked, flaw, "400 pass bad-chunk-size bad-request"),
    ] {
        run_by_test_clock(async {
            let scene = Scene::with("", &format!("limits: {{body: 4 B}}\n{lines}"));
            let body = [Ok(b"ab".to_vec()), then].into();
            let client = FakeClient { body, ..FakeClient::new() };
            let begun = Begun::new(&scene.context, &format!("POST /x\n{field}"), client);
            assert_eq!(begun.end().await.logged(), logged, "{field}");
            if lines.is_empty() {
                settle().await;
                assert_eq!(scene.origin.n_asked(), 0);
            }
        });
    }
}

#[test]
fn a_client_that_leaves_before_the_head_ends_its_fetch() {
    for request in ["GET /x", "GET /x\nAuthorization: a", "HEAD /x"] {
        run_by_test_clock(async {
            let scene = Scene::new("");
            let begun = scene.begin(request);
            let mut asked = scene.origin.asked().await;
            begun.remote.leave();
            let answer = begun.end().await;
            assert!(answer.logged().starts_with("499 "), "{}", answer.logged());
            assert!(answer.client.started.is_none());
            asked.0.end().await;
            settle().await;
            assert_eq!((scene.stored("/x").await, scene.is_idle("/x")), (None, true));
        });
    }
}

#[test]
fn a_client_that_leaves_within_the_body_ends_its_fetch() {
    for field in ["Cache-Control: max-age=60", "Cache-Control: no-store"] {
        run_by_test_clock(async {
            let scene = Scene::new("");
            let begun = scene.begin("GET /x");
            let said = format!("HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n{field}\r\n\r\nabc");
            let mut asked = scene.origin.answer(said.as_bytes()).await;
            settle().await;
            assert_eq!(begun.remote.n_received(), 3, "{field}");
            begun.remote.leave();
            let answer = begun.end().await;
            assert!(answer.logged().ends_with("client-gone"), "{}", answer.logged());
            assert_eq!((answer.client.status(), answer.client.end), (200, None::<End>));
            asked.0.end().await;
            settle().await;
            assert!(scene.is_idle("/x"));
        });
    }
}
