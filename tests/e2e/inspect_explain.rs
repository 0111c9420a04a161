//! `ktrix explain` predicts what a running ktrix then does, and names the rule of each step.

use crate::support::ktrix::text;
use crate::support::socket::Address;
use crate::support::{Ask, Ktrix, Origin, Plan, Request, Response, date_from_now, until, until_ok};

const SITES: &str = "\
[{routes: [\
{path: /, upstream: app, cache: {pass-if: cookie session, refresh-if: header X-Preview}}, \
{path: /q, upstream: app, cache: {key: {query-drop: [utm_*], headers: X-Country}}}, \
{path: /rule, upstream: app, cache: {ttl-status: {any: 60s}, stale-while-revalidate: 5m}}, \
{path: /off/, upstream: app, cache: off}, \
{path: /part, upstream: app, cache: {fetch-whole: 0 B}}, \
{path: /told, upstream: app, cache: {ignore: expires, cache-status: [key]}}, \
{path: /best, upstream: app, cache: {vary-language: best}}]}]";

/// The target's answer: each has an ETag, and a 304 has the same fields.
fn answer(request: &Request) -> Response {
    if let Some(range) = request.field("range").filter(|_| request.target.starts_with("/part")) {
        let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap_or(9));
        let place = format!("bytes {first}-{last}/10");
        let part = Response::ok(&"0123456789"[first..=last]).with_status(206);
        return part.field("Content-Range", place).cache("max-age=600").field("ETag", "\"x\"");
    }
    let control = match request.target.split(['/', '?']).nth(1).unwrap_or_default() {
        "old" => "max-age=60",
        "must" => "max-age=60, must-revalidate",
        "swr" => "max-age=60, stale-while-revalidate=6000",
        "sie" => "max-age=60, stale-if-error=6000",
        "immutable" => "max-age=600, immutable",
        "nocache" => "no-cache",
        "nostore" => "no-store",
        "rule" => "public",
        "told" => "max-age=1",
        "best-old" => "max-age=60",
        _ => "max-age=600",
    };
    let is_old = ["/old", "/must", "/swr", "/sie", "/best-old"]
        .iter()
        .any(|it| request.target.starts_with(it));
    let response = match request.has("if-none-match") {
        true => Response::status(304),
        false => Response::ok("0123456789"),
    };
    let is_in_languages = ["/vary", "/best"].iter().any(|it| request.target.starts_with(it));
    let response = match (is_in_languages, request.field("accept-language")) {
        (true, Some(language)) => {
            response.field("Vary", "Accept-Language").field("Content-Language", language)
        }
        _ => response,
    };
    let response = match request.target.starts_with("/told") {
        true => response.field("CDN-Cache-Control", "max-age=500").field("Expires", "0"),
        false => response,
    };
    let age = if is_old { 1000 } else { 0 };
    response.cache(control).field("Age", age).field("ETag", "\"x\"")
}

/// One request: the request, the expected verdict, and a rule or line that must be named.
struct Case {
    method: &'static str,
    target: &'static str,
    fields: &'static [(&'static str, &'static str)],
    verdict: &'static str,
    because: &'static str,
}

const fn case(
    method: &'static str,
    target: &'static str,
    fields: &'static [(&'static str, &'static str)],
    verdict: &'static str,
    because: &'static str,
) -> Case {
    Case { method, target, fields, verdict, because }
}

const CONTROL: &str = "Cache-Control";
const LANGUAGE: &str = "Accept-Language";

const CASES: &[Case] = &[
    case("GET", "/a", &[], "hit", "RFC 9111 section 4.2"),
    case("HEAD", "/a", &[], "hit", "RFC 9111 section 4.2"),
    case("GET", "/a", &[("If-None-Match", "\"x\"")], "hit", "RFC 9110 section 13.2.2"),
    case("GET", "/a", &[("Range", "bytes=2-4")], "hit", "RFC 9110 section 14.2"),
    case("GET", "/a", &[("Range", "bytes=90-")], "hit", "RFC 9110 section 15.5.17"),
    case("GET", "/a", &[(CONTROL, "no-cache")], "validate", "RFC 9111 section 5.2.1.4"),
    case("GET", "/a", &[("Pragma", "no-cache")], "validate", "RFC 9111 section 5.2.1.4"),
    case("GET", "/a", &[(CONTROL, "max-age=0")], "validate", "RFC 9111 section 5.2.1.1"),
    case("GET", "/a", &[(CONTROL, "min-fresh=900")], "validate", "RFC 9111 section 5.2.1.3"),
    case("GET", "/a", &[("If-Match", "\"x\"")], "pass", "RFC 9111 section 4.3.2"),
    case("GET", "/a", &[("Cookie", "session=1")], "pass", "pass-if"),
    case("GET", "/a", &[("X-Preview", "1")], "validate", "refresh-if"),
    case("GET", "/immutable", &[(CONTROL, "max-age=0")], "hit", "RFC 8246 section 2"),
    case("GET", "/old", &[], "validate", "RFC 9111 section 4.2.4"),
    case("HEAD", "/old", &[], "pass", "RFC 9111 section 3"),
    case("GET", "/old", &[(CONTROL, "max-stale")], "stale", "RFC 9111 section 5.2.1.2"),
    case("GET", "/old", &[(CONTROL, "max-stale=9")], "validate", "RFC 9111 section 4.2.4"),
    case("GET", "/old", &[(CONTROL, "only-if-cached")], "not-cached", "RFC 9111 section 5.2.1.7"),
    case("GET", "/must", &[(CONTROL, "max-stale")], "validate", "RFC 9111 section 5.2.2.2"),
    case("GET", "/swr", &[], "stale", "RFC 5861 section 3"),
    case("GET", "/sie", &[], "validate", "RFC 5861 section 4"),
    case("GET", "/nocache", &[], "validate", "RFC 9111 section 5.2.2.4"),
    case("GET", "/nostore", &[], "miss", "hit-for-miss"),
    case("GET", "/nostore", &[("If-None-Match", "\"x\"")], "pass", "hit-for-miss"),
    case("GET", "/rule", &[], "hit", "ttl-status"),
    case("GET", "/vary", &[("Accept-Language", "de")], "hit", "RFC 9111 section 4.1"),
    case("GET", "/vary", &[("Accept-Language", "fr")], "validate", "RFC 9111 section 4.1"),
    case("GET", "/best", &[(LANGUAGE, "fr;q=0.5, de")], "hit", "routes[6].cache.vary-language"),
    case("GET", "/best", &[(LANGUAGE, "fr, de")], "validate", "RFC 9111 section 4.1"),
    case("GET", "/best-old", &[(LANGUAGE, "fr;q=0.5, de")], "validate", "RFC 9111 section 4.1"),
    case("GET", "/vary", &[(LANGUAGE, "fr;q=0.5, de")], "validate", "RFC 9111 section 4.1"),
    case("GET", "/q?b=1&utm_x=2", &[("X-Country", "de")], "hit", "sites[0].routes[1].cache.key"),
    case("GET", "/q?b=1", &[("X-Country", "fr"), ("X-Host", "z")], "validate", "cache.key"),
    case("GET", "/new", &[("X-Host", "evil")], "miss", "RFC 9111 section 4"),
    case("GET", "/part", &[("Range", "bytes=1-2")], "hit", "RFC 9111 section 3.3"),
    case("GET", "/part", &[("Range", "bytes=20-")], "hit", "RFC 9110 section 15.5.17"),
    case("GET", "/part", &[("If-None-Match", "\"x\"")], "hit", "RFC 9110 section 13.2.2"),
    case("GET", "/part", &[("Range", "bytes=1-2"), (CONTROL, "no-cache")], "validate", "5.2.1.4"),
    case("GET", "/part", &[("Range", "bytes=2-8")], "partial", "RFC 9111 section 3.4"),
    case("GET", "/part3", &[("Range", "bytes=5-7")], "miss", "RFC 9111 section 4"),
    case("GET", "/new2", &[(CONTROL, "only-if-cached")], "not-cached", "section 5.2.1.7"),
    case("HEAD", "/new3", &[], "pass", "RFC 9111 section 3"),
    case("POST", "/new4", &[], "pass", "RFC 9111 section 3"),
    case("GET", "/off/x", &[], "pass", "sites[0].routes[3].cache"),
    case("GET", "/q/../off/x", &[], "pass", "sites[0].routes[3].cache"),
    case("GET", "/told", &[], "hit", "RFC 9213 section 2.2"),
    case("GET", "/told", &[], "hit", "sites[0].routes[5].cache.ignore"),
    case("TRACE", "/a", &[], "own", "RFC 9110 section 9.3"),
    case("OPTIONS", "/a", &[("Max-Forwards", "0")], "own", "RFC 9110 section 9.3"),
    case("PURGE", "/q?utm_x=2&b=1", &[("X-Country", "de")], "own", "purge url GET http://"),
    case("PURGE", "/a", &[("xkey", "a b"), ("Soft-Purge", "1")], "own", "make stale tag b"),
    case("PURGE", "/a", &[("Ktrix-Purge", "everything")], "own", "purge nothing: Ktrix-Purge"),
];

/// Stores objects first: one request for each target with a stored object.
fn prime(ktrix: &Ktrix<'_>) {
    let stored = [
        "/a", "/told", "/immutable", "/old", "/must", "/swr", "/sie", "/nocache", "/nostore",
        "/rule", "/vary", "/best", "/best-old", "/q?b=1",
    ];
    let ask = |target: &str| {
        let ask = Ask::get(target).field("Accept-Language", "de").field("X-Country", "de");
        ktrix.ask(&ask).expect_status(200);
    };
    stored.iter().for_each(|target| ask(target));
    ktrix.ask(&Ask::get("/part").field("Range", "bytes=0-3")).expect_status(206);
    // Variants have further files: the marker and the list.
    let is_note =
        |line: &str| [" vary ", " list ", " part "].iter().any(|word| line.contains(word));
    until_ok("all of it to be stored", crate::support::PATIENCE, || {
        let config = ktrix.plan.config_path().display().to_string();
        let listed = text(&ktrix.plan.run(&["cache", "list", "-c", &config]));
        let n_ready = listed.lines().filter(|line| !is_note(line)).count();
        if n_ready == stored.len() + 2 {
            return Ok(());
        }
        // A response that a slow disk holds up is not stored.
        let is_missing = |target: &&&str| !listed.contains(&format!("{target}\n"));
        stored.iter().filter(is_missing).for_each(|target| ask(target));
        Err(listed)
    });
}

fn explained(plan: &Plan, case: &Case) -> serde_json::Value {
    let Address::Ip(ip) = plan.address else { panic!("not on TCP") };
    let url = format!("http://{ip}{}", case.target);
    let fields: Vec<String> = case.fields.iter().map(|(n, v)| format!("{n}: {v}")).collect();
    let config = plan.config_path().display().to_string();
    let mut args = vec!["explain", &url, "-X", case.method, "--json", "-c", &config];
    for field in &fields {
        args.extend(["-H", field]);
    }
    let output = plan.run(&args);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output));
    serde_json::from_str(&text(&output)).unwrap()
}

/// The parameters of a `Cache-Status` member; `ttl` without its value, since the clock goes on.
fn parameters(status: &str) -> Vec<String> {
    let own = status.rsplit(", ").next().unwrap_or_default();
    let name =
        |part: &str| if part.starts_with("ttl=") { "ttl".to_owned() } else { part.to_owned() };
    own.split("; ").map(name).collect()
}

#[test]
fn explanations_match_the_behaviour() {
    let origin = Origin::answering(answer);
    let plan = Plan::new(&origin).set("sites", SITES);
    let ktrix = plan.start();
    prime(&ktrix);
    for case in CASES {
        let name = format!("{} {} {:?}", case.method, case.target, case.fields);
        let explained = explained(&plan, case);
        assert_eq!(explained["verdict"], case.verdict, "{name}: {explained:#}");
        let steps = explained["steps"].to_string();
        assert!(steps.contains(case.because), "{name}: {} in {explained:#}", case.because);
        let n_before = origin.n_requests();
        let mut ask = Ask::new(case.method, case.target);
        for (field, value) in case.fields {
            ask = ask.field(field, value);
        }
        let answer = ktrix.ask(&ask);
        if let Some(status) = explained["status"].as_u64() {
            assert_eq!(u64::from(answer.status), status, "{name}: {explained:#}");
        }
        let (said, done) = (&explained["cache_status"], answer.cache_status());
        let done = parameters(&done);
        for part in parameters(said.as_str().unwrap_or_default()) {
            assert!(done.contains(&part), "{name}: {said} and then {done:?}");
        }
        assert_eq!(
            done.contains(&"hit".to_owned()),
            said.as_str().unwrap_or_default().contains("hit")
        );
        match explained["origin_request"].as_str() {
            Some(request) => {
                origin.wait_requests(n_before + 1);
                let seen = String::from_utf8(origin.last().head.raw).unwrap();
                assert_eq!(seen.trim_end().replace("\r\n", "\n"), request.trim_end(), "{name}");
            }
            // Missing bytes are shown as a range.
            None if case.verdict == "partial" => {}
            None => assert_eq!(origin.n_requests(), n_before, "{name}"),
        }
    }
}

#[test]
fn ages_lifetimes_and_lines_are_explained() {
    let origin = Origin::answering(|_| {
        let expires = date_from_now(500);
        Response::ok("x").field("Expires", expires).field("Age", 30).field("Date", date_from_now(0))
    });
    let plan =
        Plan::new(&origin).set("sites", "[{hosts: [a.example, \"*.b.example\"], upstream: app}]");
    plan.put("cache", "{path: $DIR/cache, rules: {ttl-max: 100s}}");
    let ktrix = plan.start();
    let mut client = ktrix.client().host("www.b.example");
    client.get("/x").expect_status(200);
    let config = plan.config_path().display().to_string();
    let line = |key: &str| {
        let config = plan.config();
        let line = config.lines().position(|line| line.starts_with(key)).unwrap() + 1;
        format!("{}:{line}: ", plan.config_path().display())
    };
    let args = ["explain", "http://www.b.example/x", "-c", &config];
    let explained = until("a hit", crate::support::PATIENCE, || {
        let explained = text(&plan.run(&args));
        explained.contains("verdict: hit").then_some(explained)
    });
    for part in [
        format!("*.b.example  ({}sites[0].hosts[1])", line("sites")),
        format!("({}sites[0].upstream)", line("sites")),
        "30 s when received".to_owned(),
        "by Expires  (RFC 9111 section 5.3)".to_owned(),
        format!("cut to 100 s  ({}cache.rules.ttl-max)", line("cache")),
        "GET http://www.b.example/x".to_owned(),
    ] {
        assert!(explained.contains(&part), "{part:?} in\n{explained}");
    }
    let text_of = |url: &str| text(&plan.run(&["explain", url, "-c", &config]));
    assert!(
        text_of("http://c.example/").contains("status: 404"),
        "{}",
        text_of("http://c.example/")
    );
    assert!(text_of("http://a.example/b c").contains("refused: bad-request-line"));
    let not_one = plan.run(&["explain", "a.example", "-c", &config]);
    assert_eq!(not_one.status.code(), Some(1));
}

#[test]
fn permitted_purgers_are_named_with_their_line() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin);
    let purge = || explained(&plan, &case("PURGE", "/x", &[], "own", ""));
    for (cache, status, who, because) in [
        ("{path: $DIR/cache}", 200, "local may", "\"default\":\"cache.purge\""),
        ("{path: $DIR/cache, purge: 10.0.0.0/8}", 403, "10.0.0.0/8 may", "\"key\":\"cache.purge\""),
        ("{path: $DIR/cache, purge: off}", 403, "no client may", "\"key\":\"cache.purge\""),
    ] {
        plan.put("cache", cache);
        let ktrix = plan.start();
        let explained = purge();
        let steps = explained["steps"].to_string();
        assert!(steps.contains(who) && steps.contains(because), "{explained:#}");
        assert_eq!(explained["status"], status, "{explained:#}");
        let asked = ktrix.ask(&Ask::new("PURGE", "/x"));
        assert_eq!(u64::from(asked.status), status, "{cache}");
    }
    plan.put("cache", "off");
    plan.write_config();
    let passed = explained(&plan, &case("PURGE", "/x", &[], "pass", ""));
    assert_eq!((&passed["verdict"], &passed["reason"]), (&"pass".into(), &"off".into()));
    assert!(passed["steps"].to_string().contains("PURGE has no meaning"), "{passed:#}");
}

#[test]
fn purged_objects_are_explained_as_they_count() {
    let origin = Origin::answering(answer);
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let Address::Ip(ip) = plan.address else { panic!("not on TCP") };
    let config = plan.config_path().display().to_string();
    for target in ["/soft", "/hard"] {
        ktrix.get(target);
        ktrix.wait_hit(target);
    }
    let cases = [
        ("/soft", Some("--soft"), "validate", "made stale by soft purge 1", "stale", "fwd=stale"),
        ("/hard", None, "miss", "by purge 2", "purged", "fwd=uri-miss"),
    ];
    for (target, soft, verdict, told, state, fwd) in cases {
        let url = format!("http://{ip}{target}");
        let args: Vec<&str> =
            ["cache", "purge", &url, "-c", &config].into_iter().chain(soft).collect();
        let purged = plan.run(&args);
        assert!(purged.status.success(), "{}", text(&purged));
        let explained = explained(&plan, &case("GET", target, &[], verdict, ""));
        assert_eq!(explained["verdict"], verdict, "{explained:#}");
        let told = format!("{told} of url {url}, ");
        assert!(explained.to_string().contains(&told), "{told}: {explained:#}");
        assert!(!explained.to_string().contains("by other rules"), "{explained:#}");
        let cut = explained.to_string().contains("before that, by the purge");
        assert_eq!(cut, soft.is_some(), "{explained:#}");
        let told = told.trim_start_matches("made stale ").trim_start_matches("by ");
        let shown = text(&plan.run(&["cache", "show", &url, "-c", &config]));
        let how = if soft.is_some() { "made stale" } else { "purged" };
        assert!(shown.contains(&format!("\n{how}: {told}")), "{shown}");
        let listed = text(&plan.run(&["cache", "list", "--prefix", target, "-c", &config]));
        assert!(listed.contains(&format!(" {state} ")), "{listed}");
        let cat = plan.run(&["cache", "cat", &url, "-c", &config]);
        assert_eq!(cat.status.success(), soft.is_some(), "{}", text(&cat));
        let done = parameters(&ktrix.get(target).cache_status());
        assert!(done.iter().any(|part| part == fwd), "{fwd}: {done:?}");
    }
    // Purges that removed it and purges that only made it stale are shown apart, one beside the
    // other.
    for soft in [Some("--soft"), None] {
        let args: Vec<&str> = ["cache", "purge", "--host", "127.0.0.1", "-c", &config]
            .into_iter()
            .chain(soft)
            .collect();
        assert!(plan.run(&args).status.success());
    }
    let explained = explained(&plan, &case("GET", "/soft", &[], "miss", "")).to_string();
    for part in ["\"made stale by soft purge 3 of host", "\"by purge 4 of host"] {
        assert!(explained.contains(part), "{part}: {explained}");
    }
}

#[test]
fn a_request_can_be_explained_before_ktrix_ever_ran() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin);
    plan.write_config();
    let explained = explained(&plan, &case("GET", "/x", &[], "miss", ""));
    assert_eq!(explained["verdict"], "miss", "{explained:#}");
    assert!(!plan.cache_dir().exists(), "explaining made something");
}

#[test]
fn a_damaged_object_is_explained_as_a_miss() {
    let origin = Origin::answering(|_| Response::ok("x").cache("max-age=600"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/x");
    ktrix.wait_hit("/x");
    drop(ktrix);
    let file = plan.cache_files().pop().unwrap();
    std::fs::write(&file, "nonsense").unwrap();
    let explained = explained(&plan, &case("GET", "/x", &[], "miss", ""));
    assert_eq!(explained["verdict"], "miss", "{explained:#}");
    assert!(explained.to_string().contains("not usable"), "{explained:#}");
    let ktrix = plan.start();
    ktrix.get("/x").expect_miss();
}
