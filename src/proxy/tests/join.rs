//! Tests of clients that share one fetch.

use std::rc::Rc;

use crate::cache::sample::lead;
use crate::http::head::BodyLength;
use crate::origin::tests::scripted::Peer;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::fake::End;
use crate::proxy::progress::Progress;
use crate::proxy::tests::sample::{Begun, Scene, response, settle};
use crate::reactor::clock::run_by_test_clock;

const MINUTE: &str = "Cache-Control: max-age=60";
const LEN: usize = 200_000;

/// The head of a response that is streamed.
fn large_head() -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n{MINUTE}\r\n\r\n").into_bytes()
}

/// The bytes of its body up to this one.
fn body(end: usize) -> String {
    (0..end).map(|at| char::from(b'a' + (at / 1_000 % 26) as u8)).collect()
}

/// Has the origin go on with that body.
async fn say(peer: &Peer, from: usize, to: usize) {
    peer.say(&body(LEN).as_bytes()[from..to]).await;
    settle().await;
}

fn received(readers: &[Begun]) -> Vec<u64> {
    readers.iter().map(|reader| reader.remote.n_received()).collect()
}

#[test]
fn followers_in_all_workers_share_one_small_answer() {
    run_by_test_clock(async {
        let scene = Scene::new("");
        let leader = scene.begin("GET /x");
        let asked = scene.origin.asked().await;
        let followers = [
            scene.begin("GET /x"),
            scene.begin("GET /x\nX-Any: 1"),
            scene.begin_at_other("GET /x"),
        ];
        settle().await;
        asked.say(&response(200, MINUTE, "abc")).await;
        let led = leader.end().await;
        led.expect("200 miss", "abc");
        assert!(led.facts.server.is_some());
        for follower in followers {
            let answer = follower.end().await;
            answer.expect("200 miss", "abc");
            assert_eq!(answer.cache_status(), "ktrix; fwd=uri-miss; stored; collapsed");
            assert!(answer.facts.server.is_none(), "no server answered it");
        }
        assert_eq!(scene.origin.n_asked(), 1);
    });
}

#[test]
fn a_follower_that_comes_in_mid_stream_gets_all_of_it() {
    run_by_test_clock(async {
        let scene = Scene::new("");
        let first = scene.begin("GET /x");
        let asked = scene.origin.answer(&large_head()).await;
        say(&asked, 0, 70_000).await;
        let readers = [first, scene.begin("GET /x"), scene.begin_at_other("GET /x")];
        settle().await;
        assert_eq!(received(&readers), [70_000; 3]);
        say(&asked, 70_000, LEN).await;
        for reader in readers {
            let answer = reader.end().await;
            answer.expect("200 miss", &body(LEN));
            let (_, _, length) = answer.client.started.as_ref().unwrap();
            assert_eq!(*length, BodyLength::Known(LEN as u64));
        }
        assert_eq!(scene.origin.n_asked(), 1);
        assert_eq!(scene.stored("/x").await, Some((200, body(LEN))));
    });
}

#[test]
fn a_slow_reader_holds_no_other() {
    run_by_test_clock(async {
        let scene = Scene::new("");
        let slow = scene.begin("GET /x");
        slow.remote.set_stuck(true);
        let asked = scene.origin.answer(&large_head()).await;
        settle().await;
        let quick = [scene.begin("GET /x"), scene.begin_at_other("GET /x")];
        settle().await;
        say(&asked, 0, LEN).await;
        drop(asked);
        for reader in quick {
            reader.end().await.expect("200 miss", &body(LEN));
        }
        assert!(!slow.is_over() && slow.remote.n_received() == 0);
        scene.get("GET /x").await.expect("200 hit", &body(LEN));
        // What is removed meanwhile is still sent to its end.
        scene.get_by("POST /x", &response(200, "", "")).await.expect("200 pass method", "");
        assert_eq!(scene.stored("/x").await, None);
        slow.remote.set_stuck(false);
        slow.end().await.expect("200 miss", &body(LEN));
    });
}

#[test]
fn followers_go_on_without_the_leaders_client() {
    for n_bytes in [0, 1_000] {
        run_by_test_clock(async {
            let scene = Scene::new("");
            let leader = scene.begin("GET /x");
            let asked = scene.origin.asked().await;
            let followers = [scene.begin("GET /x"), scene.begin_at_other("GET /x")];
            settle().await;
            if n_bytes > 0 {
                asked.say(&large_head()).await;
                say(&asked, 0, n_bytes).await;
            }
            leader.remote.leave();
            assert_eq!(leader.end().await.facts.close, Some(CloseReason::ClientGone));
            settle().await;
            if n_bytes == 0 {
                asked.say(&large_head()).await;
            }
            say(&asked, n_bytes, LEN).await;
            for follower in followers {
                follower.end().await.expect("200 miss", &body(LEN));
            }
            assert_eq!((scene.origin.n_asked(), scene.is_idle("/x")), (1, true));
        });
    }
}

#[test]
fn the_next_request_leads_again_after_a_failure() {
    for said in [&b""[..], b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"] {
        run_by_test_clock(async {
            let scene = Scene::new("");
            let leader = scene.begin("GET /x");
            let asked = scene.origin.asked().await;
            let follower = scene.begin("GET /x");
            settle().await;
            asked.say(said).await;
            drop(asked);
            assert!(leader.end().await.client.status() >= 500);
            if !said.is_empty() {
                // An answer that is not stored was for the leader alone.
                scene.origin.answer(said).await;
            }
            assert!(follower.end().await.client.status() >= 500);
            let n_before = scene.origin.n_asked();
            let answer = scene.get_by("GET /x", &response(200, MINUTE, "abc")).await;
            answer.expect("200 miss", "abc");
            assert_eq!(answer.cache_status(), "ktrix; fwd=uri-miss; stored");
            assert_eq!(scene.origin.n_asked(), n_before + 1);
        });
    }
}

#[test]
fn a_follower_of_a_fill_that_is_lost_leads_itself() {
    run_by_test_clock(async {
        let scene = Scene::new("");
        let lease = lead(scene.cache(), &scene.found("/x").await);
        let follower = scene.begin_at_other("GET /x");
        settle().await;
        assert_eq!(scene.origin.n_asked(), 0);
        drop(lease);
        scene.origin.answer(&response(200, MINUTE, "abc")).await;
        follower.end().await.expect("200 miss", "abc");
    });
}

#[test]
fn a_demanded_validation_begins_after_its_request() {
    run_by_test_clock(async {
        let scene = Scene::new("");
        let etag = format!("{MINUTE}\nETag: \"x\"");
        scene.get_by("GET /x", &response(200, &etag, "abc")).await.expect("200 miss", "abc");
        // A fill that the origin has answered writes to a slow disk.
        let found = scene.found("/x").await;
        let lease = lead(scene.cache(), &found);
        let fill = scene.context.fills.add(lease.at);
        fill.set(Progress::Object(Rc::clone(found.stored().unwrap())));
        let follower = scene.begin("GET /x\nCache-Control: no-cache");
        settle().await;
        assert!(!follower.is_over() && scene.origin.n_asked() == 1);
        scene.context.fills.remove(lease.at);
        lease.done();
        fill.end();
        scene.origin.answer(&response(304, &etag, "")).await;
        follower.end().await.expect("200 revalidated", "abc");
        assert_eq!(scene.origin.n_asked(), 2);
    });
}

#[test]
fn a_variant_for_others_is_not_joined() {
    run_by_test_clock(async {
        let scene = Scene::new("");
        let leader = scene.begin("GET /x\nAccept-Language: de");
        let asked = scene.origin.asked().await;
        let followers = [
            scene.begin("GET /x\nAccept-Language: en"),
            scene.begin_at_other("GET /x\nAccept-Language: en"),
            scene.begin("GET /x\nAccept-Language: de"),
        ];
        settle().await;
        let vary = format!("{MINUTE}\nVary: Accept-Language");
        asked.say(&response(200, &vary, "de")).await;
        drop(asked);
        leader.end().await.expect("200 miss", "de");
        let own = scene.origin.answer(&response(200, &vary, "en")).await;
        assert_eq!(own.field("accept-language"), Some("en"));
        let [first, second, same] = followers;
        for follower in [first, second] {
            assert_eq!(follower.end().await.body(), "en");
        }
        same.end().await.expect("200 hit", "de");
        assert_eq!(scene.origin.n_asked(), 2);
    });
}

#[test]
fn an_answer_for_one_client_is_given_to_no_other() {
    run_by_test_clock(async {
        let scene = Scene::new("");
        let leader = scene.begin("GET /x");
        let asked = scene.origin.asked().await;
        let followers = [scene.begin("GET /x"), scene.begin_at_other("GET /x")];
        settle().await;
        asked.say(&response(200, "Cache-Control: private", "1")).await;
        drop(asked);
        leader.end().await.expect("200 pass private", "1");
        for said in ["2", "3"] {
            scene.origin.answer(&response(200, "Cache-Control: private", said)).await;
        }
        let mut bodies = Vec::new();
        for (follower, reason) in followers.into_iter().zip(["remembered", "remembered"]) {
            let answer = follower.end().await;
            assert_eq!(answer.logged(), format!("200 pass {reason}"));
            bodies.push(answer.body().to_owned());
        }
        bodies.sort();
        assert_eq!((bodies, scene.origin.n_asked()), (vec!["2".into(), "3".into()], 3));
    });
}

#[test]
fn one_of_the_followers_leads_if_the_answer_was_for_the_leader_alone() {
    for (fields, reason) in
        [("Authorization: x", "200 pass authorization"), ("X-Odd: 1", "403 pass no-lifetime")]
    {
        run_by_test_clock(async {
            let scene = Scene::new("");
            let leader = scene.begin(&format!("GET /x\n{fields}"));
            let asked = scene.origin.asked().await;
            let followers =
                [scene.begin("GET /x"), scene.begin("GET /x"), scene.begin_at_other("GET /x")];
            settle().await;
            let (status, field) = match reason.starts_with("200") {
                true => (200, MINUTE),
                false => (403, "X: y"),
            };
            asked.say(&response(status, field, "own")).await;
            drop(asked);
            leader.end().await.expect(reason, "own");
            scene.origin.answer(&response(200, MINUTE, "all")).await;
            for follower in followers {
                assert_eq!(follower.end().await.body(), "all");
            }
            assert_eq!(scene.origin.n_asked(), 2);
        });
    }
}

#[test]
fn a_request_whose_answer_must_not_be_stored_leads_nobody() {
    run_by_test_clock(async {
        let scene = Scene::new("");
        let alone = scene.begin("GET /x\nCache-Control: no-store");
        let own = scene.origin.asked().await;
        let leader = scene.begin("GET /x");
        let asked = scene.origin.asked().await;
        let follower = scene.begin_at_other("GET /x");
        settle().await;
        asked.say(&response(200, MINUTE, "all")).await;
        drop(asked);
        leader.end().await.expect("200 miss", "all");
        follower.end().await.expect("200 miss", "all");
        own.say(&response(200, MINUTE, "own")).await;
        drop(own);
        alone.end().await.expect("200 pass request-no-store", "own");
        assert_eq!(scene.origin.n_asked(), 2);
    });
}

#[test]
fn nobody_waits_for_more_than_two_answers_for_others() {
    run_by_test_clock(async {
        let scene = Scene::new("");
        let begun: Vec<_> = (0..5).map(|_| scene.begin("GET /x\nAuthorization: x")).collect();
        for _ in 0..2 {
            scene.origin.answer(&response(200, MINUTE, "own")).await;
            settle().await;
        }
        // The others ask all at once.
        let mut asked = Vec::new();
        for _ in 0..3 {
            asked.push(scene.origin.asked().await);
        }
        for one in asked {
            one.say(&response(200, MINUTE, "own")).await;
        }
        for one in begun {
            assert_eq!(one.end().await.body(), "own");
        }
    });
}

#[test]
fn an_answer_that_is_not_stored_leaves_the_stale_one_and_holds_up_nobody() {
    run_by_test_clock(async {
        let scene = Scene::new("");
        let old = "Cache-Control: max-age=0, stale-if-error=600";
        scene.get_by("GET /x", &response(200, old, "old")).await.expect("200 miss", "old");
        let private = response(200, "Cache-Control: private", "mine");
        scene.get_by("GET /x", &private).await.expect("200 pass private", "mine");
        let both = [scene.begin("GET /x"), scene.begin_at_other("GET /x")];
        let asked = [scene.origin.asked().await, scene.origin.asked().await];
        for one in asked {
            one.say(&private).await;
        }
        for one in both {
            assert_eq!(one.end().await.body(), "mine");
        }
        let answer = scene.get_by("GET /x", &response(503, "", "no")).await;
        answer.expect("200 stale", "old");
        assert_eq!(answer.cache_status(), "ktrix; fwd=stale; fwd-status=503; ttl=0");
        let gone = response(404, "Cache-Control: no-store", "gone");
        scene.get_by("GET /x", &gone).await.expect("404 pass no-store", "gone");
        scene.get_by("GET /x", &response(503, "", "no")).await.expect("503 pass no-lifetime", "no");
    });
}

#[test]
fn a_follower_past_the_limit_of_storing_goes_on_by_itself() {
    run_by_test_clock(async {
        let scene = Scene::new("object: 100 KiB");
        let leader = scene.begin("GET /x");
        let chunked = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{MINUTE}\r\n\r\n");
        let asked = scene.origin.answer(chunked.as_bytes()).await;
        asked.say(format!("{LEN:x}\r\n").as_bytes()).await;
        say(&asked, 0, 90_000).await;
        let followers = [scene.begin("GET /x"), scene.begin_at_other("GET /x")];
        settle().await;
        assert_eq!(received(&followers), [90_000; 2]);
        say(&asked, 90_000, LEN).await;
        asked.say(b"\r\n0\r\n\r\n").await;
        leader.end().await.expect("200 miss", &body(LEN));
        let [same, changed] = followers;
        for (follower, body) in [(same, body(LEN)), (changed, "x".repeat(LEN))] {
            let again = scene.origin.answer(&response(200, MINUTE, &body)).await;
            assert_eq!((again.line(), again.field("range")), ("GET /x", None));
            let answer = follower.end().await;
            if body.starts_with('a') {
                answer.expect("200 miss", &body);
            } else {
                assert_eq!(answer.client.end, Some(End::Aborted), "it is another response now");
            }
        }
    });
}
