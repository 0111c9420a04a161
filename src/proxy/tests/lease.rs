//! Tests that the right to fill a key is free again however a fill ends, wherever it was.

use std::time::Duration;

use crate::cache::sample::lead;
use crate::proxy::tests::sample::{Asked, Begun, Scene, response, settle};
use crate::reactor::clock::run_by_test_clock;
use crate::reactor::timer;

const MINUTE: &str = "Cache-Control: max-age=60\nETag: \"1\"";

/// Asserts that no fill of `/x` is left, and that the next request leads one that is stored.
async fn expect_free(scene: &Scene, step: &str) {
    settle().await;
    assert!(scene.is_idle("/x"), "{step}");
    assert_eq!(scene.n_temporary(), 0, "{step}");
    let n_before = scene.origin.n_asked();
    let begun = scene.begin_at_other("GET /x");
    scene.origin.answer(&response(200, MINUTE, "next")).await;
    begun.end().await.expect("200 miss", "next");
    assert_eq!(scene.origin.n_asked(), n_before + 1, "{step}");
    assert_eq!(scene.stored("/x").await, Some((200, "next".to_owned())), "{step}");
}

/// A response too large to be stored without its clients once it has begun.
fn large_head() -> String {
    "HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\nCache-Control: max-age=60\r\n\r\n".to_owned()
}

/// What the origin says at each step of a fetch, and how long it then waits, in milliseconds.
fn steps() -> [(&'static str, String, u64); 7] {
    let small = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nCache-Control: max-age=60\r\n\r\nabc";
    [
        ("before the head", String::new(), 1),
        ("in the head", "HTTP/1.1 200 OK\r\nContent-".to_owned(), 1),
        ("after an interim response", "HTTP/1.1 103 Hints\r\n\r\n".to_owned(), 1),
        ("before a whole body has come", small.to_owned(), 1),
        ("after the wait for a whole body", small.to_owned(), 50),
        ("before the body", large_head(), 1),
        ("in the body", large_head() + &"x".repeat(100_000), 1),
    ]
}

/// Has the origin take a request, say something and wait.
async fn play(scene: &Scene, said: &str, pause_ms: u64) -> Asked {
    let asked = scene.origin.answer(said.as_bytes()).await;
    timer::sleep(Duration::from_millis(pause_ms)).await;
    asked
}

#[test]
fn an_exchange_that_is_dropped_frees_its_key() {
    for (step, said, pause_ms) in steps() {
        run_by_test_clock(async {
            let scene = Scene::new("");
            let begun = scene.begin("GET /x");
            let mut asked = play(&scene, &said, pause_ms).await;
            assert!(!scene.is_idle("/x"), "{step}");
            drop(begun);
            asked.0.end().await;
            expect_free(&scene, step).await;
        });
    }
}

#[test]
fn an_exchange_that_is_dropped_while_its_client_takes_nothing_frees_its_key() {
    run_by_test_clock(async {
        let scene = Scene::new("");
        let begun = scene.begin("GET /x");
        begun.remote.set_stuck(true);
        let mut asked = play(&scene, &(large_head() + "abc"), 1).await;
        drop(begun);
        asked.0.end().await;
        expect_free(&scene, "while it sends").await;
    });
}

#[test]
fn a_worker_that_ends_frees_its_keys() {
    for (step, said, pause_ms) in steps() {
        let left = run_by_test_clock(async {
            let scene = Scene::new("");
            let _begun = scene.begin("GET /x");
            let _asked = play(&scene, &said, pause_ms).await;
            assert!(!scene.is_idle("/x"), "{step}");
            scene.left()
        });
        run_by_test_clock(async { expect_free(&Scene::after(left), step).await });
    }
}

#[test]
fn a_refresh_that_nobody_waits_for_frees_its_key_when_it_ends() {
    for said in ["", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nCache-Control: max-age=60\r\n\r\nabc"]
    {
        run_by_test_clock(async {
            let scene = Scene::new("stale-while-revalidate: 1h");
            scene.get_by("GET /x", &response(200, MINUTE, "old")).await.expect("200 miss", "old");
            timer::sleep(Duration::from_secs(61)).await;
            scene.get("GET /x").await.expect("200 stale", "old");
            let asked = play(&scene, said, 1).await;
            assert!(!scene.is_idle("/x"));
            drop(asked);
            settle().await;
            assert!(scene.is_idle("/x"));
            scene.get("GET /x").await.expect("200 stale", "old");
            scene.origin.answer(&response(200, MINUTE, "new")).await;
            settle().await;
            scene.get("GET /x").await.expect("200 hit", "new");
        });
    }
}

#[test]
fn what_stores_beside_a_fill_frees_its_key_when_it_is_dropped() {
    let post = "POST /x\nContent-Length: 0";
    let here = "Content-Location: /x\r\nCache-Control: max-age=60\r\n";
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n{here}\r\n");
    for said in [head.clone(), head + "abc"] {
        run_by_test_clock(async {
            let scene = Scene::new("");
            let begun: Begun = scene.begin(post);
            let asked = play(&scene, &said, 1).await;
            assert!(!scene.is_idle("/x"), "a POST stores its answer");
            drop((begun, asked));
            expect_free(&scene, &said).await;
        });
    }
}

#[test]
fn a_follower_that_is_dropped_leaves_the_fill_alone() {
    run_by_test_clock(async {
        let scene = Scene::new("");
        let begun = scene.begin("GET /x");
        let asked = scene.origin.asked().await;
        let followers = [scene.begin("GET /x"), scene.begin_at_other("GET /x")];
        settle().await;
        drop(followers);
        settle().await;
        asked.say(&response(200, MINUTE, "abc")).await;
        begun.end().await.expect("200 miss", "abc");
        assert_eq!(scene.stored("/x").await, Some((200, "abc".to_owned())));
    });
}

#[test]
fn a_lease_is_free_as_soon_as_it_is_dropped() {
    run_by_test_clock(async {
        let scene = Scene::new("");
        let found = scene.found("/x").await;
        let lease = lead(scene.cache(), &found);
        assert!(!scene.is_idle("/x"));
        drop(lease);
        drop(lead(scene.cache(), &found));
        expect_free(&scene, "at once").await;
    });
}
