//! Tests of fills by what the client gets, what the cache has then, and what a next request finds.

use std::fs;
use std::time::Duration;

use crate::cache::hot::MEMORY_BODY_MAX;
use crate::cache::sample::purge;
use crate::policy::purge::hash::PurgeKind;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::fake::End;
use crate::proxy::tests::sample::{Asked, Begun, Scene, response, settle};
use crate::reactor::clock::run_by_test_clock;
use crate::reactor::timer;

/// The head of a response with a body of this many bytes, too large to come as a whole.
fn large_head(len: usize, fields: &str) -> Vec<u8> {
    let fields: String = fields.lines().map(|line| format!("{line}\r\n")).collect();
    let fields = format!("Cache-Control: max-age=60\r\n{fields}");
    format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n{fields}\r\n").into_bytes()
}

/// Begins an exchange for `/x`, whose response has `len` bytes and came as far as its 1000th.
async fn begin_large(scene: &Scene, len: usize, fields: &str) -> (Begun, Asked) {
    let begun = scene.begin("GET /x");
    let asked = scene.origin.answer(&large_head(len, fields)).await;
    asked.say(&[b'x'; 1_000]).await;
    settle().await;
    let is_streamed = len as u64 > MEMORY_BODY_MAX;
    assert_eq!(begun.remote.n_received(), if is_streamed { 1_000 } else { 0 });
    (begun, asked)
}

/// The length of a response that is streamed.
const LEN: usize = 200_000;

#[test]
fn a_response_that_breaks_off_is_not_stored_and_its_readers_see_it() {
    run_by_test_clock(async {
        let scene = Scene::new("");
        let (begun, asked) = begin_large(&scene, LEN, "").await;
        let readers = [begun, scene.begin("GET /x"), scene.begin_at_other("GET /x")];
        settle().await;
        asked.say(&[b'x'; 9_000]).await;
        drop(asked);
        // The other worker is told of the end together with these bytes, and does not read them.
        for (reader, n_bytes) in readers.into_iter().zip([10_000, 10_000, 1_000]) {
            let answer = reader.end().await;
            assert_eq!(answer.logged(), "200 miss incomplete");
            assert_eq!(answer.client.end, Some(End::Aborted));
            assert_eq!(answer.client.sent.len(), n_bytes);
        }
        settle().await;
        assert_eq!((scene.stored("/x").await, scene.n_temporary()), (None, 0));
        assert!(scene.is_idle("/x") && scene.origin.n_asked() == 1);
    });
}

#[test]
fn a_response_that_breaks_off_before_its_first_bytes_are_sent_is_502() {
    for said in
        ["", "HTTP/1.1 200 OK\r\nContent-", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"]
    {
        run_by_test_clock(async {
            let scene = Scene::new("");
            let begun = scene.begin("GET /x");
            let said = said.replace("\r\n\r\n", "\r\nCache-Control: max-age=60\r\n\r\n");
            let asked = scene.origin.answer(said.as_bytes()).await;
            let follower = scene.begin("GET /x");
            settle().await;
            drop(asked);
            for reader in [begun, follower] {
                let answer = reader.end().await;
                assert!(answer.client.is_answered() && answer.client.status() == 502, "{said}");
            }
            assert_eq!((scene.stored("/x").await, scene.is_idle("/x")), (None, true));
            assert_eq!(scene.origin.n_asked(), 1, "the follower gets the same failure");
        });
    }
}

#[test]
fn a_response_that_is_too_large_is_passed_on_and_noted() {
    let len = (100 << 10) + 1;
    let known = large_head(len, "");
    let chunked =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nCache-Control: max-age=60\r\n\r\n";
    let chunk = |body: &[u8]| [format!("{len:x}\r\n").as_bytes(), body, b"\r\n0\r\n\r\n"].concat();
    let body = vec![b'x'; len];
    for (said, logged) in [
        ([known, body.clone()].concat(), "200 pass too-large"),
        ([chunked.to_vec(), chunk(&body)].concat(), "200 miss"),
    ] {
        run_by_test_clock(async {
            let scene = Scene::new("object: 100 KiB");
            let answer = scene.get_by("GET /x", &said).await;
            assert_eq!((&*answer.logged(), answer.client.sent.len()), (logged, len));
            assert!(answer.client.is_answered());
            assert_eq!(scene.stored("/x").await, Some((0, String::new())));
            assert_eq!(scene.n_temporary(), 0);
            // The next requests are not held up for each other.
            let both = [scene.begin("GET /x"), scene.begin("GET /x")];
            for _ in 0..2 {
                scene.origin.answer(&response(200, "Cache-Control: max-age=60", "a")).await;
            }
            let [leader, other] = both;
            leader.end().await.expect("200 miss", "a");
            other.end().await.expect("200 pass remembered", "a");
            scene.get("GET /x").await.expect("200 hit", "a");
        });
    }
}

#[test]
fn the_note_that_nothing_is_to_be_stored_ends_after_a_minute() {
    for (status, fields, reason, is_noted) in [
        (200, "Cache-Control: no-store", "no-store", true),
        (200, "Cache-Control: private", "private", true),
        (200, "Cache-Control: max-age=60\nSet-Cookie: a=b", "set-cookie", true),
        (200, "Cache-Control: max-age=60\nVary: *", "vary-star", true),
        (404, "Cache-Control: no-store", "no-store", true),
        (403, "Cache-Control: no-store", "no-store", false),
        (500, "Cache-Control: no-store", "no-store", false),
    ] {
        run_by_test_clock(async {
            let scene = Scene::new("");
            let answer = scene.get_by("GET /x", &response(status, fields, "mine")).await;
            answer.expect(&format!("{status} pass {reason}"), "mine");
            let detail = format!("ktrix; fwd=uri-miss; detail={reason}");
            assert_eq!(answer.cache_status(), detail);
            let note = is_noted.then(|| (0, String::new()));
            assert_eq!(scene.stored("/x").await, note, "{fields}");
            timer::sleep(Duration::from_secs(60)).await;
            let all = response(200, "Cache-Control: max-age=60", "all");
            scene.get_by("GET /x", &all).await.expect("200 miss", "all");
        });
    }
}

/// Puts a file where the cache makes its temporary ones, so that the disk refuses each write.
fn refuse_writes(scene: &Scene) {
    let tmp = scene.dir().join("tmp");
    fs::remove_dir_all(&tmp).unwrap();
    fs::write(&tmp, "").unwrap();
}

#[test]
fn a_disk_that_refuses_costs_no_answer() {
    for len in [10, LEN] {
        run_by_test_clock(async {
            let scene = Scene::new("");
            refuse_writes(&scene);
            let begun = scene.begin("GET /x");
            let asked = scene.origin.answer(&large_head(len, "")).await;
            asked.say(&vec![b'x'; len]).await;
            let answer = begun.end().await;
            assert!(answer.client.is_answered() && answer.client.sent.len() == len);
            assert!(!answer.cache_status().contains("stored"), "{}", answer.cache_status());
            settle().await;
            assert!(scene.is_idle("/x") && scene.found("/x").await.object().is_none());
        });
    }
}

#[test]
fn what_is_purged_while_it_is_filled_is_not_stored() {
    for (kind, text) in [(PurgeKind::All, ""), (PurgeKind::Tag, "t")] {
        for len in [2_000, LEN] {
            run_by_test_clock(async {
                let scene = Scene::new("");
                let (begun, asked) = begin_large(&scene, len, "Surrogate-Key: t").await;
                purge(scene.cache(), kind, text, false);
                let late = scene.begin("GET /x");
                settle().await;
                asked.say(&vec![b'x'; len - 1_000]).await;
                drop(asked);
                let answer = begun.end().await;
                assert_eq!((&*answer.logged(), answer.client.sent.len()), ("200 miss", len));
                settle().await;
                assert_eq!((scene.stored("/x").await, scene.n_temporary()), (None, 0), "{text}");
                // A request after the purge gets nothing from before it.
                let new = response(200, "Cache-Control: max-age=60", "new");
                scene.origin.answer(&new).await;
                late.end().await.expect("200 miss", "new");
                assert_eq!(scene.stored("/x").await, Some((200, "new".to_owned())));
            });
        }
    }
}

#[test]
fn a_fill_goes_on_for_one_client_and_ends_with_the_last() {
    run_by_test_clock(async {
        let len = 9_000_000;
        let scene = Scene::new("");
        let (first, mut asked) = begin_large(&scene, len, "").await;
        let readers = [scene.begin("GET /x"), scene.begin_at_other("GET /x"), first];
        settle().await;
        for reader in readers {
            asked.say(b"yy").await;
            settle().await;
            assert!(!scene.is_idle("/x"), "somebody reads it");
            assert!(reader.remote.n_received() > 1_000);
            reader.remote.leave();
            assert_eq!(reader.end().await.facts.close, Some(CloseReason::ClientGone));
        }
        settle().await;
        assert!(scene.is_idle("/x"));
        asked.0.end().await;
        assert_eq!((scene.stored("/x").await, scene.n_temporary()), (None, 0));
    });
}

#[test]
fn a_fill_that_is_nearly_done_is_stored_without_its_clients() {
    run_by_test_clock(async {
        let scene = Scene::new("");
        let (begun, asked) = begin_large(&scene, LEN, "").await;
        begun.remote.leave();
        assert_eq!(begun.end().await.logged(), "200 miss client-gone");
        asked.say(&[b'x'; LEN - 1_000]).await;
        settle().await;
        assert_eq!(scene.stored("/x").await, Some((200, "x".repeat(LEN))));
    });
}
