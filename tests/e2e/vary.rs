//! Variants: one key, several answers, selected by the fields of the request.

use crate::support::{Ask, Origin, PATIENCE, Plan, Response, until_ok, until_true};

fn by(name: &'static str) -> Origin {
    Origin::answering(move |request| {
        let value = request.field(name).unwrap_or("none").to_owned();
        Response::ok(value).field("Vary", name).cache("max-age=60")
    })
}

#[test]
fn each_variant_is_stored_beside_the_others() {
    let origin = by("accept-language");
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let ask = |language| ktrix.ask(&Ask::get("/a").field("Accept-Language", language));
    for language in ["de", "en", "fr"] {
        ask(language).expect_body(language).expect_miss();
        until_true("a hit of this variant", || {
            ask(language).expect_status(200).expect_body(language).is_hit()
        });
    }
    for _ in 0..5 {
        for language in ["de", "en", "fr"] {
            ask(language).expect_hit().expect_body(language);
        }
    }
    ktrix.get("/a").expect_miss().expect_body("none");
    origin.expect_requests(4);
}

#[test]
fn a_variant_is_never_given_to_another_request_while_it_is_filled() {
    let origin = by("x-who");
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let threads: Vec<_> = (0..32)
        .map(|i| {
            let address = plan.address.clone();
            std::thread::spawn(move || {
                let who = format!("client-{}", i % 8);
                let mut client = crate::support::Client::connect(&address);
                for _ in 0..10 {
                    client.ask(&Ask::get("/a").field("X-Who", &who)).expect_body(&who);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    drop(ktrix);
}

#[test]
fn fields_that_are_not_named_make_no_variant() {
    let origin = by("accept-language");
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.ask(&Ask::get("/a").field("Accept-Language", "de"));
    let ask = Ask::get("/a").field("accept-language", "  de ").field("User-Agent", "other");
    until_true("a hit", || ktrix.ask(&ask).expect_body("de").is_hit());
    origin.expect_requests(1);
}

#[test]
fn a_value_that_the_origin_may_tell_apart_is_another_variant() {
    let origin = by("origin");
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let values =
        ["https://app.test,", "https://app.test", "https://app.test , x", "https://app.test, x"];
    for value in values {
        let ask = Ask::get("/a").field("Origin", value);
        ktrix.ask(&ask).expect_body(value).expect_miss();
        until_true("a hit of this variant", || ktrix.ask(&ask).expect_body(value).is_hit());
    }
    origin.expect_requests(values.len());
}

#[test]
fn languages_in_another_order_are_another_variant() {
    let origin = by("accept-language");
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let ask = |value| ktrix.ask(&Ask::get("/a").field("Accept-Language", value));
    ask("de, en").expect_body("de, en");
    ask("en, de").expect_body("en, de").expect_miss();
    until_true("a hit of the first", || ask("DE ,en;q=1").expect_body("de, en").is_hit());
    origin.expect_requests(2);
}

#[test]
fn two_named_fields_choose_together() {
    let origin = Origin::answering(|request| {
        let of = |name| request.field(name).unwrap_or("-").to_owned();
        let body = of("a") + &of("b");
        Response::ok(body).field("Vary", "B, A").cache("max-age=60")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for a in ["1", "2"] {
        for b in ["3", "4"] {
            let ask = Ask::get("/a").field("A", a).field("B", b);
            let body = format!("{a}{b}");
            ktrix.ask(&ask).expect_body(&body);
            until_true("a hit", || ktrix.ask(&ask).expect_body(&body).is_hit());
        }
    }
    origin.expect_requests(4);
}

#[test]
fn a_changed_vary_is_followed() {
    let origin = Origin::answering(|request| {
        let name = if request.number == 0 { "A" } else { "B" };
        let body = request.field(name).unwrap_or("-").to_owned();
        Response::ok(body).field("Vary", name).cache("max-age=60")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.ask(&Ask::get("/a").field("A", "1")).expect_body("1");
    ktrix.ask(&Ask::get("/a").field("A", "2").field("B", "3")).expect_body("3");
    until_true("a hit by the newer rule", || {
        ktrix.ask(&Ask::get("/a").field("A", "9").field("B", "3")).expect_body("3").is_hit()
    });
}

/// Answers in German and English, by tag where the request names it; all other requests get
/// English.
fn bilingual() -> Origin {
    Origin::answering(|request| {
        let language = match request.field("accept-language") {
            Some("de") => "de",
            _ => "en",
        };
        let tag = format!("\"{language}\"");
        let is_known = request.field("if-none-match").is_some_and(|tags| tags.contains(&tag));
        let response = if is_known { Response::status(304) } else { Response::ok(language) };
        response.field("ETag", tag).field("Vary", "Accept-Language").cache("max-age=60")
    })
}

#[test]
fn the_origin_is_asked_about_all_variants_at_once() {
    let origin = bilingual();
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let ask = |language| ktrix.ask(&Ask::get("/a").field("Accept-Language", language));
    for language in ["de", "en"] {
        ask(language).expect_body(language).expect_miss();
        until_true("a hit of this variant", || ask(language).is_hit());
    }
    let answer = ask("fr").expect_status(200).expect_body("en");
    assert!(answer.field("cache-status").is_some_and(|it| it.contains("fwd-status=304")));
    assert_eq!(origin.last().field("if-none-match"), Some("\"en\", \"de\""));
    let n = origin.n_requests();
    for (language, body) in [("fr", "en"), ("de", "de"), ("en", "en")] {
        until_true("a hit of this variant", || ask(language).expect_body(body).is_hit());
    }
    origin.expect_requests(n);
}

#[test]
fn a_304_that_names_none_of_several_variants_is_no_answer() {
    let origin = Origin::answering(|request| {
        if request.has("if-none-match") {
            return Response::status(304).cache("max-age=60");
        }
        let language = request.field("accept-language").unwrap_or("-").to_owned();
        let tag = format!("\"{language}\"");
        Response::ok(language)
            .field("ETag", tag)
            .field("Vary", "Accept-Language")
            .cache("max-age=60")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    for language in ["de", "en", "fr"] {
        let ask = Ask::get("/a").field("Accept-Language", language);
        ktrix.ask(&ask).expect_status(200).expect_body(language);
    }
}

#[test]
fn a_304_that_adds_a_field_to_vary_has_the_whole_fetched() {
    let origin = Origin::answering(|request| {
        let body = request.field("x-who").unwrap_or("-").to_owned();
        let is_first = request.number == 0;
        let response = match request.has("if-none-match") {
            true => Response::status(304),
            false => Response::ok(body),
        };
        let response = response.field("ETag", "\"one\"");
        match is_first {
            true => response.cache("max-age=0"),
            false => response.cache("max-age=60").field("Vary", "X-Who"),
        }
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let ask = |who: &str| ktrix.ask(&Ask::get("/a").field("X-Who", who));
    ask("first").expect_body("first");
    ask("second").expect_body("second");
    origin.expect_requests(3);
    until_true("a hit of this variant", || ask("second").expect_body("second").is_hit());
    assert!(!ask("third").is_hit());
}

#[test]
fn a_304_with_a_part_of_vary_changes_no_choice() {
    let origin = Origin::answering(|request| {
        let body = request.field("x-who").unwrap_or("-").to_owned();
        let tag = format!("\"{body}\"");
        match request.has("if-none-match") {
            true => Response::status(304).field("Vary", "X-Other"),
            false => Response::ok(body).field("Vary", "X-Who, X-Other"),
        }
        .field("ETag", tag)
        .cache("max-age=0")
    });
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let ask = |who: &str| ktrix.ask(&Ask::get("/a").field("X-Who", who)).expect_body(who);
    ask("one");
    for _ in 0..3 {
        ask("one");
        assert!(origin.last().has("if-none-match"));
    }
    origin.expect_requests(4);
    ask("two");
}

#[test]
fn a_key_has_a_bounded_number_of_variants() {
    let origin = by("x-who");
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let who = |n: usize| Ask::get("/a").field("X-Who", n);
    for n in 0..120 {
        ktrix.ask(&who(n)).expect_body(n.to_string()).expect_miss();
    }
    until_ok("64 variants, what names them and their list", PATIENCE, || {
        let n_files = plan.cache_files().len();
        if n_files <= 64 + 2 { Ok(()) } else { Err(format!("{n_files} files")) }
    });
    until_true("a hit of the newest", || ktrix.ask(&who(119)).is_hit());
    ktrix.ask(&who(0)).expect_miss().expect_body("0");
    plan.verify_cache();
}

#[test]
fn a_variant_that_is_used_stays() {
    let origin = by("x-who");
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let who = |n: usize| Ask::get("/a").field("X-Who", n);
    ktrix.ask(&who(0)).expect_body("0");
    for n in 1..150 {
        until_true("a hit of the one in use", || ktrix.ask(&who(0)).expect_body("0").is_hit());
        ktrix.ask(&who(n)).expect_body(n.to_string()).expect_miss();
    }
    assert!(ktrix.ask(&who(0)).is_hit());
    let n_stored = origin.requests().iter().filter(|it| it.field("x-who") == Some("0")).count();
    // A slow disk may hold the first answer up until the second is asked for.
    assert!(n_stored <= 2, "{n_stored} requests");
    ktrix.ask(&who(1)).expect_miss().expect_body("1");
    plan.verify_cache();
}

#[test]
fn variants_that_long_values_choose_are_bounded_by_their_bytes() {
    let origin = by("x-who");
    let plan = Plan::new(&origin).set("limits", "{head: 128 KiB}");
    let ktrix = plan.start();
    let ask = |len: usize, n: usize| {
        let who = n.to_string() + &"w".repeat(len);
        ktrix.ask(&Ask::get("/a").field("X-Who", &who)).expect_body(who)
    };
    for n in 0..14 {
        ask(10 << 10, n).expect_miss();
    }
    until_true("the limit of six variants, which fill the list", || {
        plan.cache_files().len() <= 6 + 2
    });
    until_true("a hit of the newest", || ask(10 << 10, 13).is_hit());
    // A variant without a place in the list would be unbounded.
    for n in 0..3 {
        ask(80 << 10, n);
    }
    until_true("a hit of a later one", || ask(10 << 10, 20).is_hit());
    until_true("the limit of six variants", || plan.cache_files().len() <= 6 + 2);
    plan.verify_cache();
}

#[test]
fn with_language_best_the_preferred_language_answers() {
    let origin = Origin::answering(|request| {
        let is_german = request.field("accept-language").is_some_and(|it| it.contains("de"));
        let language = if is_german { "de" } else { "en" };
        let response = Response::ok(language).field("Content-Language", language);
        response.field("Vary", "Accept-Language").cache("max-age=60")
    });
    for (word, is_enough) in [("exact", false), ("best", true)] {
        let rules =
            format!("[{{routes: [{{path: /, upstream: app, cache: {{vary-language: {word}}}}}]}}]");
        let plan = Plan::new(&origin).set("sites", &rules);
        let ktrix = plan.start();
        let ask = |languages| ktrix.ask(&Ask::get("/a").field("Accept-Language", languages));
        ask("en, de").expect_body("de").expect_miss();
        let is_hit = || ask("fr;q=0.5, de").expect_body("de").is_hit();
        // The list of variants is written behind the answer.
        match is_enough {
            true => until_true("a hit by the list", is_hit),
            false => assert!(!is_hit()),
        }
        ask("fr, en;q=0.5").expect_body("en").expect_miss();
    }
}
