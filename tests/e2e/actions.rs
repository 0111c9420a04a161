//! Routes that act: own answers, rewriting, changes of fields, pages for errors, internal redirects.

use std::fs;

use crate::support::socket::Address;
use crate::support::{Ask, Origin, Plan, Response};

/// The authority of a ktrix.
fn host(plan: &Plan) -> String {
    match &plan.address {
        Address::Ip(ip) => ip.to_string(),
        Address::Unix(path) => path.display().to_string(),
    }
}

#[test]
fn a_route_answers_without_an_upstream() {
    let origin = Origin::answering(|_| Response::ok("origin"));
    let plan = Plan::new(&origin).set(
        "sites",
        "[{upstream: app, routes: [\
         {path: {regex: \"^/blog/(.*)$\"}, redirect: {to: \"https://blog.example/$1\", status: 301}}, \
         {path: /same, redirect: {to: \"{path}{query}\"}}, \
         {path: /ping, answer: {status: 203, body: \"pong {method}\", type: text/x}, \
          response-fields: {set: {X-Own: \"{scheme} {host}\"}}}, \
         {path: /.git, deny: 403}]}]",
    );
    let ktrix = plan.start();
    let moved = ktrix.get("/blog/7?x=y").expect_status(301);
    moved.expect_field("location", "https://blog.example/7");
    // No capture ends a line or names another host.
    let moved = ktrix.get("/blog/%0d%0aX-Evil:%20b/%2e%2e//c").expect_status(301);
    let moved = moved.expect_field("location", "https://blog.example/c");
    moved.expect_no_field("x-evil");
    let moved = ktrix.get("/blog/a%0d%0aX-Evil:b").expect_status(301).expect_no_field("x-evil");
    moved.expect_field("location", "https://blog.example/a%0D%0AX-Evil:b");
    let moved = ktrix.get("//same.example/same?a").expect_status(302);
    moved.expect_field("location", "/same.example/same?a");
    let moved = ktrix.get("/same/..;/same//evil").expect_status(302);
    moved.expect_field("location", "/same/..;/same//evil");
    let pong = ktrix.ask(&Ask::get("/ping").field("Host", "www.example:80")).expect_status(203);
    let pong = pong.expect_body("pong GET").expect_field("content-type", "text/x");
    pong.expect_field("x-own", "http www.example");
    for target in ["/.git/config", "/%2egit/config", "/x/../.git", "//.git", "/.git;x"] {
        ktrix.get(target).expect_status(403).expect_no_field("location");
    }
    let lines = ktrix.wait_access_lines(11);
    let n_denied = lines.iter().filter(|line| line.contains("\"reason\":\"denied\"")).count();
    assert_eq!(n_denied, 5, "{lines:#?}");
    let config = plan.config_path().display().to_string();
    let explained = plan.run(&["explain", "http://h/blog/7", "--config", &config]);
    let text = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(text.contains("301 to https://blog.example/7"), "{text}");
}

#[test]
fn a_configuration_without_any_upstream_answers_itself() {
    let origin = Origin::answering(|_| Response::ok("origin"));
    let plan = Plan::new(&origin)
        .without("upstreams")
        .set("sites", "[{routes: [{path: /, answer: {body: hello}}]}]");
    let ktrix = plan.start();
    ktrix.get("/").expect_status(200).expect_body("hello");
    origin.expect_requests(0);
}

#[test]
fn a_prefix_is_rewritten_there_and_back() {
    let origin = Origin::answering(|request| {
        let response = Response::ok(&request.target).cache("max-age=600");
        let host = request.field("host").unwrap_or_default().to_owned();
        response
            .field("Location", "/v2/next?a=b")
            .field("Content-Location", format!("http://{host}/v2/this"))
            .field("Refresh", "5; url=/v2/later")
            .field("X-Cookie", "a=b; Path=/v2")
    });
    let plan = Plan::new(&origin)
        .set("sites", "[{upstream: app, routes: [{path: /up, rewrite: {strip: /up, add: /v2}}]}]");
    let ktrix = plan.start();
    for (target, body) in [
        ("/up/a%2Fb?c=d", "/v2/a%2Fb?c=d"),
        ("/%75p/a%2Fb?c=d", "/v2/a%2Fb?c=d"),
        ("/x/../up/y", "/v2/y"),
        ("/up", "/v2/"),
        ("/v2/a", "/v2/a"),
    ] {
        ktrix.get(target).expect_status(200).expect_body(body);
    }
    let host = host(&plan);
    let hit = ktrix.wait_hit("/up/y").expect_body("/v2/y").expect_field("location", "/up/next?a=b");
    let hit = hit.expect_field("content-location", &format!("http://{host}/up/this"));
    hit.expect_field("refresh", "5; url=/up/later");
    // The spellings of one meaning are one object, and so is the URL for a purge.
    let n_requests = origin.n_requests();
    ktrix.get("/%75p/y").expect_hit();
    // The URL that the rewriting makes is another route's.
    ktrix.get("/v2/y").expect_miss().expect_field("location", "/v2/next?a=b");
    ktrix.ask(&Ask::new("PURGE", "/up/y")).expect_status(200);
    ktrix.get("/up/y").expect_miss();
    assert_eq!(origin.n_requests(), n_requests + 2);
    // An unsafe request invalidates its own URL.
    ktrix.ask(&Ask::new("DELETE", "/up/y")).expect_status(200);
    ktrix.get("/up/y").expect_miss();
    ktrix.ask(&Ask::new("PURGE", "/up/").field("Ktrix-Purge", "prefix")).expect_status(400);
}

#[test]
fn fields_are_set_added_and_removed_both_ways() {
    let origin = Origin::answering(|request| {
        let seen: Vec<_> = ["x-id", "x-who", "x-debug", "proxy", "x-real-ip", "x-capture"]
            .iter()
            .map(|name| format!("{name}={}", request.field(name).unwrap_or("-")))
            .collect();
        Response::ok(seen.join(" ")).cache("max-age=600").field("Server", "s").field("X-A", "1")
    });
    let plan = Plan::new(&origin).set(
        "sites",
        "[{upstream: app, routes: [{path: {regex: \"^/f/(.*)$\"}, \
         request-fields: {set: {X-Id: \"{request-id}\", X-Real-IP: \"{client}\", X-Capture: \"<$1>\"}, \
         add: {X-Who: \"{method} {path}\"}, remove: [X-Debug]}, \
         response-fields: {set: {X-Cache: \"{cache} {upstream}\"}, add: {X-A: \"2\"}, remove: [Server]}}]}]",
    );
    let ktrix = plan.start();
    let ask = |target: &str| {
        Ask::get(target).field("X-Debug", "1").field("Proxy", "evil").field("X-Real-IP", "evil")
    };
    let answer = ktrix.ask(&ask("/f/a%0d%0ab")).expect_status(200);
    let answer = answer.expect_no_field("server").expect_field("x-cache", "miss app");
    let text = answer.text();
    assert!(text.contains("x-who=GET /f/a%0d%0ab x-debug=- proxy=- x-real-ip=127.0.0.1"), "{text}");
    assert!(text.ends_with("x-capture=<ab>"), "{text}");
    let id = text.split_whitespace().next().unwrap().strip_prefix("x-id=").unwrap().to_owned();
    let line = ktrix.wait_access_lines(1).remove(0);
    assert!(line.contains(&format!("\"request_id\":\"{id}\"")), "{id} in {line}");
    // A hit has the same changes; what is stored is the origin's.
    let hit = ktrix.wait_hit("/f/a%0d%0ab").expect_no_field("server");
    hit.expect_field("x-cache", "hit");
    let key = format!("http://{}/f/a%0d%0ab", host(&plan));
    let config = plan.config_path().display().to_string();
    let shown = plan.run(&["cache", "show", &key, "--config", &config]);
    let shown = String::from_utf8_lossy(&shown.stdout).to_lowercase();
    assert!(shown.contains("server: s") && !shown.contains("x-cache"), "{shown}");
}

#[test]
fn no_client_changes_a_field_of_the_operator_for_others() {
    let origin = Origin::answering(|request| {
        let values = |name: &str| {
            let same = |own: &str| own.to_lowercase().replace('_', "-") == name;
            let of_it = request.head.fields.iter().filter(|(own, _)| same(own));
            of_it.map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(",")
        };
        let text = format!("{};{};{}", values("x-role"), values("x-add"), values("x-tenant"));
        Response::ok(text).cache("max-age=600")
    });
    let plan = Plan::new(&origin).set(
        "sites",
        "[{upstream: app, routes: [\
         {path: /set, request-fields: {set: {X-Role: guest}, remove: [X-Tenant]}}, \
         {path: /add, request-fields: {add: {X-Add: a}}}, \
         {path: {regex: \"^/t/([a-z]+)/\"}, rewrite: {regex: \"^/t/[a-z]+/(.*)$\", to: \"/$1\"}, \
          request-fields: {set: {X-Tenant: $1}}}]}]",
    );
    let ktrix = plan.start();
    let named = Ask::get("/set").field("Connection", "X-Role, close").field("X_Role", "admin");
    ktrix.ask(&named.field("X_Tenant", "b")).expect_body("guest;;");
    ktrix.get("/set").expect_body("guest;;");
    ktrix.ask(&Ask::get("/add").field("X-Add", "b").field("X_Add", "c")).expect_body(";b,a;");
    ktrix.get("/add").expect_body(";a;");
    ktrix.wait_hit("/add").expect_body(";a;");
    ktrix.get("/t/alice/x").expect_body(";;alice");
    ktrix.wait_hit("/t/alice/x").expect_body(";;alice");
    ktrix.get("/t/bob/x").expect_body(";;bob");
    ktrix.wait_hit("/t/bob/x").expect_body(";;bob");
}

#[test]
fn a_purge_finds_what_a_rewriting_by_the_host_stored() {
    let origin = Origin::answering(|request| Response::ok(&request.target).cache("max-age=600"));
    let plan = Plan::new(&origin).set(
        "sites",
        "[{upstream: app, routes: [{path: /, rewrite: {regex: ^, to: \"/by/{host}{path}\"}}]}]",
    );
    let ktrix = plan.start();
    let ask = |method: &str| ktrix.ask(&Ask::new(method, "/a?b").field("Host", "shop.test:80"));
    ask("GET").expect_body("/by/shop.test/a?b");
    assert_eq!(origin.n_requests(), 1);
    ask("PURGE").expect_status(200);
    ask("GET").expect_body("/by/shop.test/a?b");
    assert_eq!(origin.n_requests(), 2, "the stored answer is purged");
}

#[test]
fn own_pages_stand_for_errors() {
    let origin = Origin::answering(|_| Response::status(502));
    let plan = Plan::new(&origin);
    fs::write(plan.dir().join("502.html"), "<p>sorry</p>").unwrap();
    let plan = plan.set(
        "upstreams",
        &format!(
            "{{app: {{servers: [\"{}\"]}}, gone: {{servers: [\"127.0.0.1:1\"]}}}}",
            origin.name()
        ),
    );
    let plan = plan.set(
        "sites",
        "[{upstream: app, routes: [{path: /gone, upstream: gone, \
         error-pages: {502: $DIR/502.html, 503: $DIR/502.html}}, \
         {path: /no, deny: 403, error-pages: {403: $DIR/502.html}}]}]",
    );
    let ktrix = plan.start();
    let sorry = ktrix.get("/gone").expect_status(502).expect_body("<p>sorry</p>");
    sorry.expect_field("content-type", "text/html; charset=utf-8");
    ktrix.get("/no").expect_status(403).expect_body("<p>sorry</p>");
    // What an origin says is its own.
    ktrix.get("/x").expect_status(502).expect_body("");
}

#[test]
fn an_answer_leads_to_an_internal_route() {
    let origin = Origin::answering(|request| match request.target.as_str() {
        "/auth" => Response::ok("not seen").field("X-Accel-Redirect", "/files/a"),
        "/auth-cached" => {
            Response::ok("not seen").cache("max-age=600").field("X-Accel-Redirect", "/files/b")
        }
        "/auth-head" => Response::ok("not seen").field("X-Accel-Redirect", "/files/c"),
        "/c" => Response::ok("").field("X-Method", &request.method),
        "/loop" => Response::ok("not seen").field("X-Accel-Redirect", "/loop"),
        "/nowhere" => Response::ok("not seen").field("X-Accel-Redirect", "https://evil/"),
        target => Response::ok(format!("{} {target}", request.method)).cache("max-age=600"),
    });
    let plan = Plan::new(&origin).set(
        "sites",
        "[{upstream: app, routes: [{path: /files/, internal: on, rewrite: {strip: /files}}]}]",
    );
    let ktrix = plan.start();
    ktrix.get("/files/a").expect_status(404);
    ktrix.get("/%66iles/a").expect_status(404);
    ktrix.get("/auth").expect_status(200).expect_body("GET /a").expect_no_field("x-accel-redirect");
    ktrix.ask(&Ask::post("/auth", "x")).expect_status(200).expect_body("GET /a");
    for _ in 0..2 {
        ktrix.get("/auth-cached").expect_status(200).expect_body("GET /b");
    }
    assert_eq!(origin.count("/auth-cached"), 2, "each client is checked");
    assert_eq!(origin.count("/b"), 1, "the file is stored");
    ktrix.ask(&Ask::new("HEAD", "/auth-head")).expect_field("x-method", "HEAD");
    ktrix.get("/loop").expect_status(502);
    ktrix.get("/nowhere").expect_status(502);
    assert_eq!(origin.count("/loop"), 11);
}

#[test]
fn what_an_answer_that_leads_on_says_of_a_file_reaches_its_client_alone() {
    let origin = Origin::answering(|request| match &*request.target {
        "/download" => Response::ok("not seen")
            .field("X-Accel-Redirect", "/files/report")
            .field("Content-Type", "application/pdf")
            .field("Content-Disposition", "attachment; filename=report.pdf")
            .field("Set-Cookie", format!("of={}", request.field("x-user").unwrap_or("-")))
            .field("ETag", "\"not seen\"")
            .cache("private"),
        "/missing" => Response::ok("not seen")
            .field("X-Accel-Redirect", "/files/missing")
            .field("Content-Type", "application/pdf"),
        "/files/report" => {
            Response::ok("%PDF").field("Content-Type", "text/plain").cache("max-age=600")
        }
        _ => Response::ok("none").with_status(404).field("Content-Type", "text/plain"),
    });
    let plan = Plan::new(&origin).set(
        "sites",
        "[{upstream: app, routes: [{path: /files, internal: on}, {path: /open, rewrite: \
         {strip: /open, add: /files}}]}]",
    );
    let ktrix = plan.start();
    for user in ["ann", "bob", "cid"] {
        let answer = ktrix.ask(&Ask::get("/download").field("X-User", user));
        let answer = answer.expect_status(200).expect_body("%PDF");
        let answer = answer.expect_field("content-type", "application/pdf");
        let answer = answer.expect_field("cache-control", "private").expect_no_field("etag");
        let answer = answer.expect_field("content-disposition", "attachment; filename=report.pdf");
        answer.expect_field("set-cookie", &format!("of={user}"));
    }
    assert_eq!(origin.count("/files/report"), 1, "it is stored");
    for _ in 0..2 {
        let answer = ktrix.get("/open/report").expect_body("%PDF");
        let answer = answer.expect_no_field("set-cookie").expect_no_field("content-disposition");
        answer.expect_field("content-type", "text/plain");
    }
    let part = ktrix.ask(&Ask::get("/download").field("Range", "bytes=0-0,2-2"));
    let part = part.expect_status(206);
    assert!(part.field("content-type").unwrap().starts_with("multipart/byteranges"));
    let missing = ktrix.get("/missing").expect_status(404);
    missing.expect_field("content-type", "text/plain");
}

#[test]
fn what_the_first_route_strips_or_removes_does_not_come_with_the_file() {
    let origin = Origin::answering(|request| match &*request.target {
        "/download" | "/stripped" => Response::ok("not seen")
            .field("X-Accel-Redirect", "/files/report")
            .field("Set-Cookie", "a=b")
            .field("Content-Disposition", "attachment"),
        _ => Response::ok("%PDF").field("Content-Type", "application/pdf"),
    });
    let strips = "cache: {strip: [set-cookie]}, response-fields: {remove: [Content-Disposition]}";
    let plan = Plan::new(&origin).set(
        "sites",
        &format!(
            "[{{upstream: app, routes: [{{path: /files, internal: on}}, {{path: /stripped, {strips}}}]}}]"
        ),
    );
    let ktrix = plan.start();
    let answer = ktrix.get("/download").expect_body("%PDF").expect_field("set-cookie", "a=b");
    answer.expect_field("content-disposition", "attachment");
    let answer = ktrix.get("/stripped").expect_body("%PDF").expect_no_field("set-cookie");
    answer.expect_no_field("content-disposition").expect_field("content-type", "application/pdf");
}

#[test]
fn an_origin_gets_the_host_of_its_route() {
    let origin = Origin::answering(|request| {
        let said = |name: &str| request.field(name).unwrap_or("-").to_owned();
        let location = format!("http://{}/next", said("host"));
        let response = Response::ok(format!("{} {}", said("host"), said("x-forwarded-host")));
        response.field("Location", location).field("Set-Cookie", "a=b; Domain=app.example")
    });
    let plan = Plan::new(&origin).set(
        "sites",
        "[{upstream: app, routes: [{path: /up, host: upstream}, \
         {path: /name, host: \"App.example:81\"}, {path: /own, host: client}]}]",
    );
    let ktrix = plan.start();
    let ask = |target: &str| ktrix.ask(&Ask::get(target).field("Host", "shop.test"));
    let body = format!("{} shop.test", origin.name());
    ask("/up").expect_body(body).expect_field("location", "/next");
    let answer = ask("/name").expect_body("app.example:81 shop.test");
    let answer = answer.expect_field("location", "/next");
    answer.expect_field("set-cookie", "a=b; Domain=shop.test");
    ask("/own")
        .expect_body("shop.test shop.test")
        .expect_field("location", "http://shop.test/next");
}

#[test]
fn bounds_are_those_of_the_route_and_the_upstream() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let silent = Origin::wired(|connection| {
        let _ = connection.request();
        connection.wait_closed();
    });
    let plan = Plan::new(&origin).set(
        "upstreams",
        &format!(
            "{{app: {{servers: [\"{}\"]}}, \
             slow: {{servers: [\"{}\"], timeouts: {{first-byte: 100ms}}}}}}",
            origin.name(),
            silent.name()
        ),
    );
    let plan = plan.set(
        "sites",
        "[{upstream: app, limits: {body: 8 B}, routes: [{path: /large, limits: {body: 16 B}}, \
         {path: /slow, upstream: slow}]}]",
    );
    let ktrix = plan.start();
    ktrix.ask(&Ask::post("/", "12345678")).expect_status(200);
    ktrix.ask(&Ask::post("/", "123456789")).expect_status(413);
    ktrix.ask(&Ask::post("/large", "1234567890123456")).expect_status(200);
    ktrix.ask(&Ask::post("/large", "12345678901234567")).expect_status(413);
    ktrix.get("/slow").expect_status(504);
}
