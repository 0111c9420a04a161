//! Parts of objects.

use crate::support::{Ask, Origin, Plan, Response, pattern};

const LEN: usize = 100_000;

fn origin() -> Origin {
    Origin::answering(|_| Response::ok(pattern(LEN)).field("ETag", "\"one\"").cache("max-age=60"))
}

#[test]
fn a_part_comes_from_the_stored_whole() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a").expect_status(200);
    ktrix.wait_hit("/a");
    let whole = pattern(LEN);
    let cases = [
        ("bytes=0-0", 0..1),
        ("bytes=0-99", 0..100),
        ("bytes=70000-70999", 70_000..71_000),
        ("bytes=99999-", 99_999..LEN),
        ("bytes=5000-", 5000..LEN),
        ("bytes=-10", LEN - 10..LEN),
        ("bytes=-200000", 0..LEN),
        ("bytes=99000-999999", 99_000..LEN),
    ];
    let mut client = ktrix.client();
    for (text, part) in cases {
        let answer = client.ask(&Ask::get("/a").field("Range", text)).expect_status(206);
        let place = format!("bytes {}-{}/{LEN}", part.start, part.end - 1);
        let answer = answer.expect_field("content-range", &place).expect_field("etag", "\"one\"");
        answer.expect_body(&whole[part]);
    }
    origin.expect_requests(1);
}

#[test]
fn a_part_outside_is_416_and_nonsense_is_ignored() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a");
    ktrix.wait_hit("/a");
    let mut client = ktrix.client();
    for text in ["bytes=100000-", "bytes=200000-300000", "bytes=-0"] {
        let answer = client.ask(&Ask::get("/a").field("Range", text)).expect_status(416);
        answer.expect_field("content-range", &format!("bytes */{LEN}"));
    }
    for text in ["bytes=9-1", "lines=1-2", "bytes=a-b", "bytes", "bytes=", "bytes=1"] {
        let answer = client.ask(&Ask::get("/a").field("Range", text));
        answer.expect_status(200).expect_body(pattern(LEN));
    }
    client.ask(&Ask::new("HEAD", "/a").field("Range", "bytes=0-1")).expect_status(200);
    origin.expect_requests(1);
}

#[test]
fn a_range_holds_only_if_the_validator_does() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a");
    ktrix.wait_hit("/a");
    let ask = |validator| Ask::get("/a").field("Range", "bytes=1-2").field("If-Range", validator);
    let mut client = ktrix.client();
    client.ask(&ask("\"one\"")).expect_status(206).expect_body(&pattern(LEN)[1..3]);
    client.ask(&ask("\"two\"")).expect_status(200).expect_body(pattern(LEN));
    client.ask(&ask("W/\"one\"")).expect_status(200).expect_body(pattern(LEN));
    let unmodified = Ask::get("/a").field("Range", "bytes=1-2").field("If-None-Match", "\"one\"");
    client.ask(&unmodified).expect_status(304);
}

#[test]
fn several_parts_come_as_multipart_or_as_the_whole() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a");
    ktrix.wait_hit("/a");
    let whole = pattern(LEN);
    let answer = ktrix.ask(&Ask::get("/a").field("Range", "bytes=10-19, 500-549,-5"));
    let kind = answer.field("content-type").expect("Content-Type").to_owned();
    assert!(kind.starts_with("multipart/byteranges; boundary="), "{kind}");
    let answer = answer.expect_status(206).expect_no_field("content-range");
    for part in [10..20, 500..550, LEN - 5..LEN] {
        let place = format!("bytes {}-{}/{LEN}\r\n", part.start, part.end - 1);
        let has = |bytes: &[u8]| answer.body.windows(bytes.len()).any(|w| w == bytes);
        assert!(has(place.as_bytes()) && has(&whole[part]), "{place}");
    }
    let ask = |ranges: &str| ktrix.ask(&Ask::get("/a").field("Range", format!("bytes={ranges}")));
    ask("10-19,15-29,30-39").expect_status(206).expect_body(&whole[10..40]);
    ask("0-,0-,-1,0-").expect_status(206).expect_body(&whole);
    let many = (0..2000).map(|i| format!("{0}-{0}", i * 2)).collect::<Vec<_>>().join(",");
    ask(&many).expect_status(200);
    let same = vec!["0-99"; 900].join(",");
    ask(&same).expect_status(200);
    origin.expect_requests(1);
}

#[test]
fn multipart_boundaries_are_unpredictable() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/a");
    ktrix.wait_hit("/a");
    let mark = || {
        let answer = ktrix.ask(&Ask::get("/a").field("Range", "bytes=0-1,5-6"));
        answer.expect_status(206).field("content-type").expect("Content-Type").to_owned()
    };
    assert_ne!(mark(), mark());
}

#[test]
fn a_part_of_a_cold_object_never_becomes_the_whole() {
    let origin = Origin::answering(|request| {
        let whole = pattern(LEN);
        if request.field("range") == Some("bytes=10-19") {
            let response = Response::ok(&whole[10..20]).with_status(206);
            let place = format!("bytes 10-19/{LEN}");
            return response.field("Content-Range", place).cache("max-age=60");
        }
        Response::ok(whole).cache("max-age=60")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for _ in 0..2 {
        // The whole is a correct answer as well: it is the object that will be stored.
        let answer = ktrix.ask(&Ask::get("/a").field("Range", "bytes=10-19"));
        match answer.status {
            206 => drop(answer.expect_body(&pattern(LEN)[10..20])),
            _ => drop(answer.expect_status(200).expect_body(pattern(LEN))),
        }
    }
    ktrix.get("/a").expect_status(200).expect_body(pattern(LEN));
    ktrix.wait_hit("/a").expect_status(200).expect_body(pattern(LEN));
}
