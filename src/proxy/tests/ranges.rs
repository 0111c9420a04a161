//! Tests of answers from parts: by what the origin is asked for, and by every byte that a client
//! gets.

use std::ops::Range;
use std::time::Duration;

use crate::policy::reason::close::CloseReason;
use crate::proxy::client::fake::End;
use crate::proxy::tests::sample::{Answer, Asked, Scene, pass_seconds, response, settle};
use crate::reactor::clock::run_by_test_clock;
use crate::reactor::timer;

/// Bytes of the representation.
const LEN: usize = 100;

/// A route that fetches nothing but the parts that are asked for.
const PARTS: &str = "fetch-whole: 0 B";

/// The representation with this tag.
fn data(tag: char) -> String {
    (0..LEN).map(|at| if at % 10 == 0 { tag } else { char::from(b'0' + (at / 10) as u8) }).collect()
}

/// A part of the representation with this tag, which says that it is this range of this many bytes.
fn part(tag: char, range: Range<usize>, said: &str) -> Vec<u8> {
    let fields = format!("ETag: \"{tag}\"\nCache-Control: max-age=60\nContent-Range: bytes {said}");
    response(206, &fields, &data(tag)[range])
}

/// The same, of an honest origin.
fn honest_part(tag: char, range: Range<usize>) -> Vec<u8> {
    let said = format!("{}-{}/{LEN}", range.start, range.end - 1);
    part(tag, range, &said)
}

/// The whole representation with this tag.
fn whole(tag: char) -> Vec<u8> {
    response(200, &format!("ETag: \"{tag}\"\nCache-Control: max-age=60"), &data(tag))
}

/// The range that the origin was asked for.
fn range_of(asked: &Asked) -> Option<Range<usize>> {
    asked.field("range")?.strip_prefix("bytes=").map(parsed)
}

/// A range as it is written in a request.
fn parsed(text: &str) -> Range<usize> {
    let (first, last) = text.split_once('-').unwrap();
    let last: usize = if last.is_empty() { LEN - 1 } else { last.parse().unwrap() };
    first.parse().unwrap()..last + 1
}

/// Answers the next request as an honest origin, and gives what it asked for.
async fn serve(scene: &Scene, tag: char) -> Option<Range<usize>> {
    let asked = scene.origin.asked().await;
    let range = range_of(&asked);
    let is_same = asked.field("if-range").is_none_or(|it| it == format!("\"{tag}\""));
    let said = match range.clone().filter(|_| is_same) {
        Some(range) => honest_part(tag, range),
        None => whole(tag),
    };
    asked.say(&said).await;
    range
}

/// A scene that has these parts.
async fn with_parts(rules: &str, ranges: &str) -> Scene {
    let scene = Scene::new(rules);
    for range in ranges.split(',').map(parsed) {
        let request = get(&range);
        let begun = scene.begin(&request);
        assert_eq!(serve(&scene, 'X').await, Some(range.clone()));
        begun.end().await.expect("206 miss", &data('X')[range.clone()]);
        settle().await;
    }
    scene
}

fn get(range: &Range<usize>) -> String {
    format!("GET /x\nRange: bytes={}-{}", range.start, range.end - 1)
}

/// Asserts that an answer is this part of the representation with this tag.
#[track_caller]
fn expect_part(answer: &Answer, logged: &str, tag: char, range: Range<usize>) {
    let place = format!("bytes {}-{}/{LEN}", range.start, range.end - 1);
    answer.expect(logged, &data(tag)[range]);
    assert_eq!(answer.client.field("content-range"), Some(&*place));
}

/// The ranges that are on the list of what is stored.
async fn listed(scene: &Scene) -> Vec<String> {
    let Some((206, text)) = scene.stored("/x").await else { return Vec::new() };
    let parts = text.lines().skip(1).filter_map(|line| line.split(' ').next());
    parts.map(str::to_owned).collect()
}

#[test]
fn a_part_is_fetched_and_answers_within_itself() {
    run_by_test_clock(async {
        let scene = Scene::new(PARTS);
        let begun = scene.begin("GET /x\nRange: bytes=10-29\nIf-None-Match: \"z\"");
        let asked = scene.origin.answer(&honest_part('X', 10..30)).await;
        assert_eq!((asked.line(), asked.field("range")), ("GET /x", Some("bytes=10-29")));
        assert_eq!((asked.field("if-range"), asked.field("if-none-match")), (None, None));
        let fetched = begun.end().await;
        expect_part(&fetched, "206 miss", 'X', 10..30);
        assert_eq!(fetched.cache_status(), "ktrix; fwd=uri-miss; stored");
        assert_eq!(listed(&scene).await, ["10-29"]);
        for range in [10..30, 15..20, 29..30] {
            expect_part(&scene.get(&get(&range)).await, "206 hit", 'X', range);
        }
        let over = scene.get("GET /x\nRange: bytes=100-").await;
        assert_eq!(
            (&*over.logged(), over.client.field("content-range")),
            ("416 hit", Some("bytes */100"))
        );
        assert_eq!(scene.origin.n_asked(), 1);
    });
}

#[test]
fn only_what_is_missing_between_parts_is_fetched() {
    for (wanted, gaps) in [
        (0..30, "10-19"),
        (5..25, "10-19"),
        (5..50, "10-19,30-39"),
        (45..70, "50-69"),
        (0..LEN, "10-19,30-39,50-99"),
    ] {
        run_by_test_clock(async {
            let scene = with_parts(PARTS, "0-9,20-29,40-49").await;
            let begun = scene.begin(&get(&wanted));
            let gaps: Vec<_> = gaps.split(',').map(parsed).collect();
            for gap in &gaps {
                let asked = scene.origin.answer(&honest_part('X', gap.clone())).await;
                assert_eq!(range_of(&asked), Some(gap.clone()));
                assert_eq!(asked.field("if-range"), Some("\"X\""));
            }
            let answer = begun.end().await;
            expect_part(&answer, "206 miss", 'X', wanted.clone());
            assert_eq!(answer.cache_status(), "ktrix; fwd=partial; stored");
            assert!(answer.facts.server.is_some());
            settle().await;
            expect_part(&scene.get(&get(&wanted)).await, "206 hit", 'X', wanted);
            assert_eq!(scene.origin.n_asked(), 3 + gaps.len());
        });
    }
}

#[test]
fn a_request_for_the_whole_completes_the_parts_to_one_file() {
    run_by_test_clock(async {
        let scene = with_parts(PARTS, "0-49").await;
        let begun = scene.begin("GET /x");
        assert_eq!(serve(&scene, 'X').await, Some(50..LEN));
        begun.end().await.expect("200 miss", &data('X'));
        settle().await;
        assert_eq!(scene.stored("/x").await, Some((200, data('X'))));
        scene.get("GET /x").await.expect("200 hit", &data('X'));
    });
}

#[test]
fn a_part_of_what_is_small_brings_the_whole_behind_it() {
    run_by_test_clock(async {
        let scene = with_parts("", "10-29").await;
        assert_eq!(serve(&scene, 'X').await, Some(0..10));
        assert_eq!(serve(&scene, 'X').await, Some(30..LEN));
        settle().await;
        assert_eq!(scene.stored("/x").await, Some((200, data('X'))));
        assert_eq!(scene.origin.n_asked(), 3);
    });
}

#[test]
fn an_origin_that_ignores_range_has_its_whole_stored() {
    run_by_test_clock(async {
        let scene = Scene::new("");
        let answer = scene.get_by(&get(&(10..30)), &whole('X')).await;
        expect_part(&answer, "206 miss", 'X', 10..30);
        assert_eq!(scene.stored("/x").await, Some((200, data('X'))));
    });
}

#[test]
fn parts_of_two_representations_are_never_mixed() {
    for ignores_if_range in [false, true] {
        for request in ["GET /x", "GET /x\nRange: bytes=0-29", "GET /x\nRange: bytes=0-4,15-19"] {
            run_by_test_clock(async {
                let scene = with_parts(PARTS, "0-9,20-29").await;
                let begun = scene.begin(request);
                let asked = scene.origin.asked().await;
                let gap = range_of(&asked).unwrap();
                match ignores_if_range {
                    true => asked.say(&honest_part('Z', gap)).await,
                    false => asked.say(&whole('Z')).await,
                }
                while !begun.is_over() {
                    settle().await;
                    if scene.origin.is_asked() {
                        serve(&scene, 'Z').await;
                    }
                }
                let answer = begun.end().await;
                assert!(answer.client.is_answered(), "{answer:?}");
                assert!(!answer.body().contains('X'), "{request}: {}", answer.body());
                assert_eq!(answer.client.field("etag"), Some("\"Z\""));
                settle().await;
                let stored = scene.get("GET /x\nRange: bytes=0-4\nCache-Control: only-if-cached");
                assert!(!stored.await.body().contains('X'));
            });
        }
    }
}

#[test]
fn several_ranges_are_answered_from_parts_and_what_is_fetched() {
    for (ranges, gap) in [("0-4,20-24", None), ("0-4,40-44", Some(40..45))] {
        run_by_test_clock(async {
            let scene = with_parts(PARTS, "0-9,20-29").await;
            let begun = scene.begin(&format!("GET /x\nRange: bytes={ranges}"));
            if let Some(gap) = &gap {
                assert_eq!(serve(&scene, 'X').await.as_ref(), Some(gap));
            }
            let answer = begun.end().await;
            let logged = if gap.is_some() { "206 miss" } else { "206 hit" };
            assert_eq!(answer.logged(), logged, "{ranges}");
            assert!(answer.client.is_answered());
            let kind = answer.client.field("content-type").unwrap_or_default();
            let mark = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
            let parts: Vec<&str> = answer.body().split(&format!("--{mark}")).skip(1).collect();
            for (part, range) in parts.iter().zip(ranges.split(',')) {
                let bytes = &data('X')[parsed(range)];
                let expected = format!("Content-Range: bytes {range}/{LEN}\r\n\r\n{bytes}\r\n");
                assert!(part.ends_with(&expected), "{part}");
            }
            assert_eq!((parts.len(), parts.last()), (3, Some(&"--\r\n")));
            assert_eq!(scene.origin.n_asked(), 2 + usize::from(gap.is_some()));
        });
    }
}

#[test]
fn if_range_decides_between_the_part_and_the_whole() {
    run_by_test_clock(async {
        let scene = with_parts(PARTS, "0-9").await;
        let if_range = |tag: char| format!("{}\nIf-Range: \"{tag}\"", get(&(0..5)));
        expect_part(&scene.get(&if_range('X')).await, "206 hit", 'X', 0..5);
        assert_eq!(scene.origin.n_asked(), 1);
        let begun = scene.begin(&if_range('Z'));
        assert_eq!(serve(&scene, 'X').await, Some(10..LEN));
        begun.end().await.expect("200 miss", &data('X'));
        // Where nothing is stored, the origin decides.
        let scene = Scene::new(PARTS);
        let begun = scene.begin(&if_range('Z'));
        let asked = scene.origin.answer(&whole('X')).await;
        assert_eq!(range_of(&asked).zip(asked.field("if-range")), Some((0..5, "\"Z\"")));
        begun.end().await.expect("200 miss", &data('X'));
    });
}

#[test]
fn an_origin_that_lies_about_a_gap_is_found_out() {
    let gap = 10..20;
    let all = 0..20;
    for (lie, asked_next, logged) in [
        // It is stored for what it says that it is, and the gap is still there.
        (part('X', gap.clone(), "30-39/100"), &gap, "206 miss"),
        (part('X', 10..15, "10-19/100"), &all, "206 miss"),
        (part('X', gap.clone(), "10-19/200"), &all, "206 miss"),
        (part('X', gap.clone(), "10-19/*"), &all, "206 miss"),
        (part('X', gap.clone(), "nonsense"), &all, "206 miss"),
        (response(416, "Content-Range: bytes */100", ""), &all, "206 miss"),
        // No answer to this question.
        (response(304, "ETag: \"X\"", ""), &all, "206 miss"),
        // Less than was asked for.
        (honest_part('X', 10..15), &(15..20), "206 miss"),
    ] {
        run_by_test_clock(async {
            let scene = with_parts(PARTS, "0-9").await;
            let begun = scene.begin(&get(&all));
            scene.origin.answer(&lie).await;
            assert_eq!(serve(&scene, 'X').await.as_ref(), Some(asked_next));
            expect_part(&begun.end().await, logged, 'X', all.clone());
            assert_eq!(scene.origin.n_asked(), 3);
        });
    }
}

#[test]
fn a_gap_that_breaks_off_breaks_the_answer_off() {
    run_by_test_clock(async {
        let scene = with_parts(PARTS, "0-9").await;
        let begun = scene.begin(&get(&(0..20)));
        let said = honest_part('X', 10..20);
        let asked = scene.origin.answer(&said[..said.len() - 3]).await;
        // The gap is streamed once it does not come as a whole.
        timer::sleep(Duration::from_millis(50)).await;
        assert_eq!(begun.remote.n_received(), 17);
        drop(asked);
        let answer = begun.end().await;
        assert_eq!((&*answer.logged(), answer.body()), ("206 miss incomplete", &data('X')[..17]));
        assert_eq!(answer.client.end, Some(End::Aborted));
        settle().await;
        assert_eq!((listed(&scene).await, scene.n_temporary()), (vec!["0-9".to_owned()], 0));
    });
}

#[test]
fn bytes_of_a_part_that_broke_off_are_kept() {
    run_by_test_clock(async {
        let scene = Scene::new(PARTS);
        let begun = scene.begin("GET /x\nRange: bytes=0-99999");
        let fields =
            "ETag: \"X\"\r\nCache-Control: max-age=60\r\nContent-Range: bytes 0-99999/200000";
        let head = format!("HTTP/1.1 206 It\r\nContent-Length: 100000\r\n{fields}\r\n\r\n");
        let asked = scene.origin.answer(head.as_bytes()).await;
        asked.say(&[b'x'; 50_000]).await;
        settle().await;
        drop(asked);
        let answer = begun.end().await;
        assert_eq!(answer.facts.close, Some(CloseReason::Incomplete));
        assert_eq!(answer.client.sent.len(), 50_000);
        settle().await;
        assert_eq!(listed(&scene).await, ["0-49999"]);
        let part = scene.get("GET /x\nRange: bytes=40000-49999").await;
        part.expect("206 hit", &"x".repeat(10_000));
    });
}

#[test]
fn stale_parts_are_renewed_by_a_304_or_replaced() {
    let renewal = response(304, "ETag: \"X\"\nCache-Control: max-age=60", "");
    for (said, logged, tag) in [
        (renewal, "206 revalidated", 'X'),
        (honest_part('Z', 0..5), "206 miss", 'Z'),
        (whole('Z'), "206 miss", 'Z'),
    ] {
        run_by_test_clock(async {
            let scene = with_parts(PARTS, "0-9").await;
            pass_seconds(61).await;
            let begun = scene.begin(&get(&(0..5)));
            let asked = scene.origin.answer(&said).await;
            assert_eq!(
                (range_of(&asked), asked.field("if-none-match")),
                (Some(0..5), Some("\"X\""))
            );
            expect_part(&begun.end().await, logged, tag, 0..5);
            settle().await;
            expect_part(&scene.get(&get(&(0..5))).await, "206 hit", tag, 0..5);
            assert_eq!(scene.origin.n_asked(), 2);
        });
    }
}

#[test]
fn a_range_joins_a_fill_of_the_whole() {
    run_by_test_clock(async {
        let scene = Scene::new(PARTS);
        let first = scene.begin("GET /x");
        let head = "HTTP/1.1 200 It\r\nContent-Length: 200000\r\nCache-Control: max-age=60\r\n\r\n";
        let asked = scene.origin.answer(head.as_bytes()).await;
        asked.say(&[b'x'; 50_000]).await;
        settle().await;
        let readers = [get(&(0..10)), get(&(40_000..60_000))]
            .map(|request| [scene.begin(&request), scene.begin_at_other(&request)]);
        settle().await;
        let received = readers.iter().flatten().map(|it| it.remote.n_received());
        assert_eq!(received.collect::<Vec<_>>(), [10, 10, 10_000, 10_000]);
        asked.say(&[b'y'; 150_000]).await;
        let [near, far] = readers;
        for reader in near {
            reader.end().await.expect("206 miss", &"x".repeat(10));
        }
        for reader in far {
            reader.end().await.expect("206 miss", &("x".repeat(10_000) + &"y".repeat(10_000)));
        }
        assert_eq!((first.end().await.client.sent.len(), scene.origin.n_asked()), (200_000, 1));
    });
}

#[test]
fn clients_that_want_the_same_part_share_its_fetch() {
    run_by_test_clock(async {
        let scene = with_parts(PARTS, "0-9").await;
        let requests = [0..20, 5..20, 10..20].map(|range| get(&range));
        let readers = requests.each_ref().map(|request| scene.begin(request));
        let asked = scene.origin.asked().await;
        settle().await;
        assert_eq!(range_of(&asked), Some(10..20));
        asked.say(&honest_part('X', 10..20)).await;
        // Those who have waited find it stored.
        let logged = ["206 miss", "206 hit", "206 hit"];
        for ((reader, start), logged) in readers.into_iter().zip([0, 5, 10]).zip(logged) {
            expect_part(&reader.end().await, logged, 'X', start..20);
        }
        assert_eq!(scene.origin.n_asked(), 2);
    });
}

#[test]
fn an_unsafe_request_removes_parts() {
    run_by_test_clock(async {
        let scene = with_parts(PARTS, "0-9,20-29").await;
        scene.get_by("POST /x", &response(200, "", "")).await.expect("200 pass method", "");
        assert_eq!(scene.stored("/x").await, None);
        let begun = scene.begin(&get(&(0..10)));
        assert_eq!(serve(&scene, 'Z').await, Some(0..10));
        expect_part(&begun.end().await, "206 miss", 'Z', 0..10);
        assert_eq!(listed(&scene).await, ["0-9"]);
    });
}
