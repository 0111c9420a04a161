//! Whole configurations: their meaning, and the messages about invalid ones.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::config::error::ConfigErrors;
use crate::config::matching::PathPattern;
use crate::http::scheme::Scheme;
use crate::http::status::Status;
use crate::policy::key::key_text;

const ORIGINAL: &str = "log : /tmp/hnie/log\ncache : /tmp/hnie/cache/\nupstream : 192.168.0.1\n";

fn read(text: &str) -> Result<Config, ConfigErrors> {
    Config::load_for(Path::new("k.yaml"), text, 4)
}

fn errors(text: &str) -> Vec<String> {
    match read(text) {
        Ok(config) => panic!("{text:?} is taken: {config:?}"),
        Err(errors) => errors.0.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn three_lines_are_a_whole_configuration() {
    let config = read(ORIGINAL).unwrap();
    let cache = config.cache.unwrap();
    assert_eq!(cache.path, Path::new("/tmp/hnie/cache/"));
    assert_eq!((cache.size_bytes, cache.objects), (1 << 30, 100_000));
    assert_eq!((cache.memory_bytes, cache.object_bytes_max), (64 << 20, 1 << 29));
    assert_eq!(cache.memory_object_bytes_max, 1 << 20);
    let access = config.log.access.unwrap();
    assert_eq!(access.file, Path::new("/tmp/hnie/log"));
    assert_eq!((access.format, access.when_full), (LogFormat::Combined, WhenFull::Spill));
    assert_eq!((access.buffer_bytes, access.spill_bytes), (256 << 10, 256 << 20));
    assert_eq!((config.log.error, config.log.level), (ErrorSink::Auto, log::LevelFilter::Info));
    assert_eq!(config.pid.as_deref(), Some(Path::new("/tmp/hnie/cache/ktrix.pid")));
    assert_eq!(config.workers, 4);
    let listens: Vec<_> = config.listen.iter().map(|l| l.address.to_string()).collect();
    assert_eq!(listens, ["0.0.0.0:8080", "[::]:8080"]);
    assert_eq!(config.default_upstream, Some(UpstreamId(0)));
    let upstream = &config.upstreams[0];
    assert_eq!(upstream.servers[0].address.to_string(), "192.168.0.1:80");
    let connections = upstream.servers[0].connections;
    assert_eq!((connections, upstream.pending, upstream.retries), (256, 10_000, 2));
    assert_eq!((upstream.keep_open, upstream.requests, upstream.retry_budget), (0, 0, 20));
    assert_eq!((upstream.balance, &upstream.sticky), (Method::RoundRobin, &None));
    assert_eq!(upstream.pending_timeout, Duration::from_secs(10));
    assert_eq!(upstream.skip, Duration::from_secs(10));
    assert_eq!(config.timeouts.client_head, Duration::from_secs(10));
    assert_eq!((config.limits.head_bytes, config.limits.headers), (32 << 10, 100));
    assert_eq!((config.limits.route.body_bytes, config.limits.connections), (1 << 30, 16_384));
}

#[test]
fn the_full_form_is_read() {
    let config = read(concat!(
        "user: ktrix\nworkers: 3\npid: off\nlisten: [\"127.0.0.1:0\", {address: \"[::1]:81\"}]\n",
        "log:\n  access: {file: /a.log, format: json, when-full: drop, buffer: 100 KiB}\n",
        "  error: syslog\n  level: warn\n",
        "cache: {path: /c, size: 10 GiB, objects: 1000000, memory: 1 MiB, memory-object: 99 KiB, object: 5 GiB}\n",
        "upstreams:\n  app:\n    balance: least-connections\n    sticky: {cookie: route}\n    keep-open: 2\n    requests: 100\n    retry-on: [connect, 503]\n    retry-budget: 5%\n    connections: 9\n    pending: 0\n",
        "    pending-timeout: 1s\n    skip: 0s\n    retries: 0\n",
        "    servers:\n      - 10.0.0.1:8080\n      - {address: web.lan, weight: 2, connections: 7, backup: on, drain: on}\n",
        "  static: {servers: \"unix:/run/s.sock\"}\n",
        "upstream: static\n",
        "sites:\n  - hosts: [www.Example.com, \"*.example.org\"]\n    routes:\n",
        "      - {path: /up, upstream: app, cache: off, request-buffering: off}\n",
        "      - {path: /}\n  - {hosts: a.b, upstream: app, cache: off}\n",
        "timeouts: {client-head: 1s, stop: 0s}\nlimits: {head: 16 KiB, target: 4 KiB}\n",
    ))
    .unwrap();
    assert_eq!((config.workers, config.pid, config.listen.len()), (3, None, 2));
    let access = config.log.access.unwrap();
    assert_eq!((access.format, access.buffer_bytes), (LogFormat::Json, 128 << 10));
    assert_eq!((config.log.error, config.log.level), (ErrorSink::Syslog, log::LevelFilter::Warn));
    assert_eq!(config.upstreams[0].servers[1].weight, 2);
    assert_eq!(config.upstreams[0].balance, Method::LeastConnections);
    let app = &config.upstreams[0];
    assert_eq!((app.keep_open, app.requests, app.sticky.as_deref()), (2, 100, Some("route")));
    assert_eq!((app.retry_on.connect, &app.retry_on.statuses[..]), (true, &[503][..]));
    assert_eq!((app.retry_on.broken, app.retry_budget), (false, 5));
    let server = &app.servers[1];
    assert_eq!((server.connections, server.is_backup, app.servers[0].connections), (7, true, 9));
    assert_eq!(server.setting, Setting::Draining);
    assert_eq!(
        (config.upstreams[1].name.as_str(), config.default_upstream),
        ("static", Some(UpstreamId(1)))
    );
    let route = |path: &str, upstream, cache, request_buffering| RouteConfig {
        matching: Matching::of_path(PathPattern::Prefix(path.to_owned())),
        upstream: UpstreamId(upstream),
        cache,
        tells_client: false,
        rules: Rc::default(),
        request_buffering,
        response_buffering: ResponseBuffering::File,
        upgrade: true,
        limits: RouteLimits { head_bytes: config.limits.head_bytes, ..LIMITS },
        timeouts: config.timeouts.route,
        changes: None,
    };
    assert_eq!(config.sites[0].hosts[1], HostPattern::Below(".example.org".into()));
    assert_eq!(config.sites[0].routes, [route("/up", 0, false, false), route("/", 1, true, true)]);
    assert_eq!(config.sites[1].routes, [route("/", 0, false, true)]);
}

/// The default limits of a route.
const LIMITS: RouteLimits = RouteLimits {
    head_bytes: 32 << 10,
    body_bytes: 1 << 30,
    response_memory_bytes: 256 << 10,
    response_file_bytes: 1 << 30,
};

#[test]
fn fields_of_the_operator_select_variants() {
    let config = read(concat!(
        "cache: {path: /c, rules: {key: {headers: [X-Key]}}}\nupstream: a\nsites:\n  - routes:\n",
        "      - {path: /a, request-fields: {set: {X-Set: a}}}\n",
        "      - {path: /b, request-fields: {add: {X-Add: a}}}\n",
        "      - {path: /c, rewrite: {strip: /c}, request-fields: {set: {X-Set: a, X-Id: \"{request-id}\", X-Client: \"a {client}\", X-Both: \"{client} {path}\"}}}\n",
        "      - {path: /d, cache: off, request-fields: {add: {X-Add: a}}}\n",
    ))
    .unwrap();
    let chosen = |route: usize| {
        let names = config.sites[0].routes[route].rules.key.chosen.clone().unwrap();
        names.names().collect::<Vec<_>>().join(" ")
    };
    assert_eq!([0, 1, 2, 3].map(chosen), ["x-key", "x-add x-key", "x-both x-key x-set", "x-key"]);
}

#[test]
fn rules_below_change_only_the_keys_that_they_set() {
    let config = read(concat!(
        "cache: {path: /c, rules: {ttl-min: 5s, ttl-status: {404: 1m, 5xx: 2s, any: 1500ms}}}\n",
        "upstream: a\n",
        "sites:\n  - hosts: a\n    cache: {stale-if-error: 1h, object: 1 MiB}\n    routes:\n",
        "      - {path: /x, cache: {ttl-min: 0s, ttl-status: {200: 9s}}}\n",
        "      - {path: /y, cache: off}\n      - {path: /z, cache: on}\n",
        "  - {hosts: b, cache: off}\n",
    ))
    .unwrap();
    let rules = |site: usize, route: usize| &*config.sites[site].routes[route].rules;
    let ttl = |rules: &Rules, code| rules.ttl_status.of(Status(code));
    let [x, y, z] = [rules(0, 0), rules(0, 1), rules(0, 2)];
    assert_eq!((x.ttl_min_s, ttl(x, 200), ttl(x, 404)), (0, Some(9), None));
    assert_eq!((x.stale_if_error_s, x.object_bytes_max), (3_600, 1 << 20));
    assert_eq!(
        [200, 404, 503].map(|code| ttl(z, code)),
        [Some(2), Some(60), Some(2)],
        "a part of a second counts as one"
    );
    assert_eq!((z.ttl_min_s, z.stale_if_error_s), (5, 3_600));
    assert_eq!(y, z);
    let caches: Vec<bool> = config.sites[0].routes.iter().map(|route| route.cache).collect();
    assert_eq!(caches, [true, false, true]);
    assert!(!config.sites[1].routes[0].cache);
    assert_eq!(config.cache.unwrap().rules.ttl_min_s, 5);
}

#[test]
fn a_key_is_what_its_parts_are() {
    let config = read(concat!(
        "cache: {path: /c, rules: {vary-ignore: [User-Agent, x]}}\nupstream: a\n",
        "sites:\n  - cache: {key: {path: off, query-drop: [utm_*, x], cookies: Tier}}\n    routes:\n",
        "      - {path: /x}\n      - {path: /y, cache: {key: {headers: [X-A, x-a], scheme: off}}}\n",
        "      - {path: /z, cache: {ttl-min: 1s}}\n",
    ))
    .unwrap();
    let rules = |route: usize| &*config.sites[0].routes[route].rules;
    let text = |route: usize| {
        let mut out = Vec::new();
        key_text(&rules(route).key, Scheme::Http, b"h", b"/x/y?utm_id=1&b", &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(text(0), "GET http://h/x *?b");
    assert_eq!(text(1), "GET //h/x/y?utm_id=1&b");
    assert_eq!(text(2), "GET http://h/z *?b");
    let chosen = |route: usize| {
        let chosen = rules(route).key.chosen.as_ref().unwrap();
        chosen.names().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!((chosen(0), chosen(1)), (vec!["cookie=Tier".to_owned()], vec!["x-a".to_owned()]));
    assert_eq!(rules(2).vary_ignored, ["user-agent".into(), "x".into()]);
}

#[test]
fn lists_of_a_route_can_be_off() {
    let config = read(concat!(
        "cache: {path: /c, rules: {targeted: off, strip: [no], cache-status: [off]}}\nupstream: a\n",
        "sites: [{cache: {targeted: [X-Cache-Control], strip: [A, b], cache-status: key}}]\n",
    ))
    .unwrap();
    let rules = config.cache.as_ref().unwrap().rules.as_ref();
    assert!(rules.targets.is_empty() && rules.stripped.is_empty() && !rules.report.is_on);
    let rules = &config.sites[0].routes[0].rules;
    assert_eq!(rules.targets, ["x-cache-control".into()]);
    assert_eq!(rules.stripped, ["a".into(), "b".into()]);
    assert!(rules.report.is_on && rules.report.key && !rules.report.ttl);
}

#[test]
fn a_route_can_reset_the_lists_of_its_site() {
    let config = read(concat!(
        "cache: {path: /c, admission: yes, rules: {ttl-status: {any: 1s}}}\nupstream: a\n",
        "sites:\n  - cache: {pass-if: cookie a, refresh-if: header B, ignore: expires, ",
        "vary-ignore: c}\n    routes:\n      - {path: /x}\n      - path: /y\n        cache: ",
        "{pass-if: off, refresh-if: [no], ignore: none, vary-ignore: off, ttl-status: off}\n",
    ))
    .unwrap();
    let rules = |route: usize| &*config.sites[0].routes[route].rules;
    let n_said = |rules: &Rules| {
        let ttls = rules.ttl_status.of(Status(200)).iter().count();
        let lists = [rules.pass_if.len(), rules.refresh_if.len()];
        (lists, rules.ignored.len(), rules.vary_ignored.len(), ttls)
    };
    assert_eq!(n_said(rules(0)), ([1, 1], 1, 1, 1));
    assert_eq!(n_said(rules(1)), ([0, 0], 0, 0, 0));
    assert_eq!(config.cache.unwrap().admission, Admission::On);
}

#[test]
fn invalid_rules_are_refused() {
    let faults = |rules: &str| {
        let text = format!("cache: {{path: /c, rules: {rules}}}\nupstream: a\n");
        read(&text).unwrap_err().to_string()
    };
    for (rules, expected) in [
        ("{ttl-status: {1xx: 5s}}", "cache.rules.ttl-status.1xx: is not a final status"),
        ("{ttl-status: {404: 5}}", "cache.rules.ttl-status.404: \"5\" has no unit"),
        ("{ttl-status: {any: 1s, any: 2s}}", "is set twice"),
        ("{ttl-status: 5s}", "expects a mapping, not a single value"),
        ("{ttl-min: 10s, ttl-max: 5s}", "makes ttl-min larger"),
        ("{heuristic-percent: 101}", "out of range"),
        ("{ttl: 5s}", "is not a known key"),
        ("{vary-ignore: [a b]}", "\"a b\" is not the name of a field"),
        ("{key: {query-keep: a*b}}", "cache.rules.key.query-keep: \"a*b\" is not a name"),
        ("{key: {headers: [X-Forwarded-For]}}", "is not a field that goes to the origin"),
        ("{key: {cookies: [\"a;b\"]}}", "is not the name of a cookie"),
        ("{ignore: [Set-Cookie]}", "is not a field that can be ignored"),
        ("{pass-if: [path /x]}", "cache.rules.pass-if[0]: \"path /x\" is not a condition"),
        ("{min-uses: 0}", "out of range"),
        ("{set-cookie: on}", "is not known (try pass, strip, store)"),
        ("{cache-status: [ttl, age]}", "cache.rules.cache-status[1]: \"age\" is not known"),
        ("{strip: \"a b\"}", "is not the name of a field"),
        ("{key: {host: off}}", "is not a known key"),
        ("off", "1:26: cache.rules: \"off\" is not a mapping of rules (a site or route without"),
        ("{ttl-status: {5XX: 3s, 5xx: 20s}}", "ttl-status.5xx: is set twice (first in line 1)"),
        ("{ttl-status: {404: 3s, 5xx: 1s, 404: 4s}}", "404: is set twice (first in line 1)"),
        ("{ttl-status: {404: 3s, any: 1s, any: 4s}}", "any: is set twice (first in line 1)"),
        ("{ttl-status: {404: 3s, 404: 3s}}", "ttl-status.404: is set twice (first in line 1)"),
        ("{targeted: [off, cache-control]}", "targeted[0]: \"off\" is mixed with other values"),
        ("{strip: [a, none]}", "strip[1]: \"none\" is mixed with other values (off must be alone)"),
        ("{pass-if: [off, cookie a]}", "pass-if[0]: \"off\" is mixed with other values"),
        ("{ignore: on}", "ignore: \"on\" is not a field that can be ignored"),
        ("{vary-ignore: yes}", "vary-ignore: \"yes\" is not the name of a field"),
        ("{strip: on}", "strip: \"on\" is not the name of a field"),
        ("{cache-status: [off, ttl]}", "cache-status[0]: \"off\" is mixed with other values"),
        ("{cache-status: on}", "\"on\" is not known (try off, fwd-status"),
        ("{pass-if: {cookie: session}}", "pass-if: expects conditions such as \"cookie session\""),
        ("{query-sort: on}", "query-sort: is not a known key (it belongs below key)"),
        ("{key: {no-vary-search: on}}", "cache.rules.key.no-vary-search: is not a known key"),
        ("{fetch-whole: off}", "fetch-whole: \"off\" is not a size (try \"0 B\" for none)"),
        ("{ttl-min: none}", "ttl-min: \"none\" is not a time (try \"0s\" for none)"),
        ("{object: 2 GiB}", "object: \"2 GiB\" is larger than cache.object (512 MiB)"),
        ("{key: {query: off, query-keep: a}}", "key.query-keep: has no effect, since query is off"),
        ("{key: {query: off, query-drop: a}}", "key.query-drop: has no effect, since query is off"),
        (
            "{key: {query: off, query-sort: on}}",
            "key.query-sort: has no effect, since query is off",
        ),
    ] {
        let found = faults(rules);
        assert!(found.contains(expected) && !found.contains('\n'), "{rules}: {found}");
    }
    let text = "cache: /c\nupstream: a\nsites: [{cache: {object: 600 MiB}}]\n";
    let found = read(text).unwrap_err().to_string();
    assert!(found.contains("3:26: sites[0].cache.object: \"600 MiB\" is larger than"), "{found}");
    let text = "upstream: a\nsites: [{cache: {ttl-min: 5s}}]\n";
    let found = read(text).unwrap_err().to_string();
    assert!(found.contains("sites[0].cache: needs a cache, but none is configured"), "{found}");
}

#[test]
fn the_load_tests_configuration_is_read() {
    let config = read(concat!(
        "workers: 1\nlisten: [\"127.0.0.1:18080\"]\nlog: {access: off, error: stderr}\n",
        "cache: {path: /tmp/b/cache, size: 4 GiB, objects: 200000, memory: 128 MiB}\n",
        "timeouts: {client-idle: 600s, idle: 600s}\n",
        "upstreams:\n  origin: {servers: [\"127.0.0.1:18081\"]}\n",
        "sites:\n  - routes:\n      - {path: /c/, upstream: origin}\n",
        "      - {path: /, upstream: origin, cache: off}\n",
    ))
    .unwrap();
    assert_eq!((config.log.access, config.log.error), (None, ErrorSink::Stderr));
    assert_eq!(config.timeouts.client_idle, Duration::from_secs(600));
    assert_eq!(config.timeouts.idle, Duration::from_secs(600));
    let caches: Vec<bool> = config.sites[0].routes.iter().map(|route| route.cache).collect();
    assert_eq!(caches, [true, false]);
    assert_eq!(config.default_upstream, None);
}

#[test]
fn a_site_with_an_upstream_answers_all_other_paths() {
    let text =
        "upstreams: {a: {servers: [h]}}\nsites:\n  - upstream: a\n    routes: [{path: /x}]\n";
    let paths = |config: Config| -> Vec<String> {
        config.sites[0].routes.iter().map(|it| it.matching.path.text().to_owned()).collect()
    };
    assert_eq!(read(text).map(paths), Ok(vec!["/x".to_owned(), "/".to_owned()]));
}

#[test]
fn every_mistake_is_reported_at_once() {
    let text = concat!(
        "wrokers: 3\nworkers: 65\nlisten: [\"localhost:80\"]\n",
        "timeouts: {connect: 5, idle: 5 parsecs}\n",
        "upstreams:\n  web: {servers: []}\n  static: {servers: [\"ftps://a\"], weight: 1}\n",
        "sites:\n  - hosts: [a.b]\n    routes:\n      - {path: up, upstream: api}\n",
        "  - hosts: [A.B]\n    upstream: web\n",
        "limits: {head: 1 TiB}\nlimits: {}\n",
    );
    assert_eq!(
        errors(text),
        [
            "k.yaml:1:1: wrokers: is not a known key (did you mean \"workers\"?)",
            "k.yaml:2:10: workers: \"65\" is out of range (from 1 to 62)",
            "k.yaml:3:10: listen[0]: \"localhost:80\" is not an IP address (try \"0.0.0.0:80\", \
             \"[::1]:80\", \"80\" or \"unix:/run/ktrix.sock\")",
            "k.yaml:4:21: timeouts.connect: \"5\" has no unit (try \"5s\")",
            "k.yaml:4:30: timeouts.idle: \"5 parsecs\" has an unknown unit \"parsecs\" \
             (known are ms, s, m, h, d)",
            "k.yaml:6:18: upstreams.web.servers: is empty (add an entry, or leave the key out)",
            "k.yaml:7:22: upstreams.static.servers[0]: \"ftps://a\" has an unknown scheme (try \"10.0.0.1:8080\", \"app.example:8080\" or \
             \"unix:/run/app.sock\")",
            "k.yaml:7:35: upstreams.static.weight: is not a known key (it belongs below servers[])",
            "k.yaml:11:16: sites[0].routes[0].path: \"up\" does not begin with a slash \
             (try \"/up\")",
            "k.yaml:11:30: sites[0].routes[0].upstream: \"api\" is not defined \
             (try one of: static, web)",
            "k.yaml:12:13: sites[1].hosts[0]: \"A.B\" is already claimed by sites[0] (line 9)",
            "k.yaml:14:16: limits.head: \"1 TiB\" is out of range (from 1 KiB to 1 MiB)",
            "k.yaml:15:1: limits: is set twice (first in line 14)",
        ]
    );
}

#[test]
fn each_mistake_has_its_place_and_its_key() {
    for (text, error) in [
        ("", "1:1: upstream: is missing"),
        ("- a\n", "1:1: expects a mapping, not a list"),
        ("hello\n", "1:1: expects a mapping, not a single value"),
        ("a: [\n", "1:4: "),
        (
            "listen: 80\nupstream: a\n\tcache: /x\n",
            "3:1: the line is indented by a tab (use spaces)",
        ),
        ("upstream: a\nsites:\n  - hosts: a\n\t- hosts: b\n", "4:1: the line is indented by a tab"),
        ("listen: 80\ncache /x\nupstream: a\n", "2:1: a colon and a space are missing"),
        ("log:\n  error /b\n  level: info\n", "2:3: a colon and a space are missing"),
        ("upstream: \"a\ncache: /x\n", "2:1: the text in quotes that begins before this line"),
        ("upstream: a\n cache: /x\n", "2:7: a key does not belong here"),
        ("upstream: a\nuser: \"x y\"\n", "2:7: user: \"x y\" is not the name"),
        (
            "upstream: a\ntrusted-proxies: [10.0.0.1/8]\n",
            "2:19: trusted-proxies[0]: \"10.0.0.1/8\" has bits set beyond its prefix length",
        ),
        ("upstream: a\nworkers: 0\n", "2:10: workers: \"0\" is out of range"),
        ("upstream: a\nworkers: many\n", "2:10: workers: \"many\" is not auto or a number"),
        ("upstream: a\nworkers: [1]\n", "2:10: workers: expects auto or a number from 1 to 62"),
        ("upstream: a\nworkers:\n", "2:1: workers: has no value"),
        ("upstream: a\nlisten: []\n", "2:9: listen: is empty"),
        ("upstream: a\nlisten: [{port: 1}]\n", "2:10: listen[0].address: is missing"),
        ("upstream: a\nlisten: [80, \"*:80\"]\n", "2:14: listen[1]: \"*:80\" is listed twice"),
        (
            "upstream: a\nlisten: [0.0.0.0:80, 127.0.0.1:80]\n",
            "2:22: listen[1]: \"127.0.0.1:80\" overlaps 0.0.0.0:80, which is listed before it",
        ),
        ("upstream: a\nlisten: [\"[::1]:80\", 80]\n", "listen[1]: \"80\" overlaps [::1]:80"),
        ("upstream: a\nlisten: [\"unix:/s\", \"unix:/s\"]\n", "\"unix:/s\" is listed twice"),
        (
            "upstream: a\nlisten: [{address: 80, permissions: 0600}]\n",
            "listen[0].permissions: \"0600\" has no effect",
        ),
        (
            "upstream: a\nlisten: [{address: \"unix:/s\", permissions: 999}]\n",
            "\"999\" is not a mode",
        ),
        ("upstream: a\nlisten: [{address: \"unix:/s\", owner: \"a b\"}]\n", "is not an owner"),
        (
            "upstream: a\nlisten: [{address: 80, proxy-protocol: [x]}]\n",
            "listen[0].proxy-protocol[0]: \"x\" is not a network",
        ),
        (
            "upstream: {servers: x, keep-open: 2, proxy-protocol: v2}\n",
            "upstream.keep-open: has no effect, since a connection with a PROXY header",
        ),
        ("upstream: a\nlog: {level: loud}\n", "2:14: log.level: \"loud\" is not known (try off,"),
        ("upstream: a\nlog: {access: {format: json}}\n", "log.access.file: is missing"),
        ("upstream: a\nlog: {slow: {over: 1s}}\n", "log.slow.file: is missing"),
        ("upstream: a\nlog: {slow: {file: /a, over: 0s}}\n", "log.slow.over: "),
        (
            "upstream: a\nlog: {access: /a, slow: /a}\n",
            "log.slow: \"/a\" is the file of log.access",
        ),
        ("upstream: a\nlog: {error: off}\n", "2:14: log.error: \"off\" is not a sink"),
        ("upstream: a\ncache: on\n", "2:8: cache: \"on\" is a switch, but a path is expected (try"),
        ("upstream: a\ncache: true\n", "cache: \"true\" is a switch"),
        ("upstream: a\ncache: {path: off}\n", "cache.path: \"off\" is a switch"),
        ("upstream: off\n", "1:11: upstream: \"off\" is a switch, but an address is expected (try"),
        ("upstream: {servers: [on]}\n", "servers[0]: \"on\" is a switch"),
        ("upstream: a\nlog: on\n", "2:6: log: \"on\" is a switch, but a path is expected"),
        ("upstream: a\nlog: {access: Yes}\n", "a path, or \"./Yes\")"),
        ("upstream: a\nlog: {access: {file: off}}\n", "log.access.file: \"off\" is a switch"),
        ("upstream: a\nlog: {error: on}\n", "log.error: \"on\" is a switch"),
        ("upstream: a\npid: on\n", "2:6: pid: \"on\" is a switch"),
        (
            "upstream: a\ncache: {path: /c, purge: [off, unix]}\n",
            "2:27: cache.purge[0]: \"off\" is mixed with other values (off must be alone)",
        ),
        (
            "upstream: a\ncache: {path: /c, ttl-min: 5s}\n",
            "ttl-min: is not a known key (it belongs below rules)",
        ),
        (
            "upstream: a\nsites: [{ttl-min: 5s}]\n",
            "ttl-min: is not a known key (it belongs below cache)",
        ),
        ("upstream: a\nsize: 1 GiB\n", "2:1: size: is not a known key (it belongs below cache)"),
        (
            "upstream: a\nservers: [a]\n",
            "servers: is not a known key (it belongs below upstreams.NAME)",
        ),
        ("upstream: a\nlimits: {heads: 1}\n", "limits.heads: is not a known key (did you mean"),
        ("upstream: a\ncache: {size: 1 GiB}\n", "2:8: cache.path: is missing"),
        (
            "upstream: a\ncache: {path: /c, memory: 2 MiB, memory-object: 1 MiB}\n",
            "2:49: cache.memory-object: \"1 MiB\" is larger than a quarter of cache.memory",
        ),
        ("upstream: a\ncache: {path: /c, size: 1 MiB, object: 2 MiB}\n", "larger than cache.size"),
        ("upstream: a\ncache: {path: /c, objects: 1e6}\n", "\"1e6\" is not a number from 1000"),
        ("upstream: \"\"\n", "1:11: upstream: \"\" is neither"),
        ("upstream: {}\n", "upstream.servers: is missing"),
        ("upstreams: {a: {servers: [x]}}\n", "1:1: upstream: is missing"),
        ("upstreams: {1: {servers: [x]}}\nupstream: x\n", "1:13: upstreams.1: is not a name"),
        (
            "upstreams: {app: {servers: [x]}}\nupstream: ap\n",
            "2:11: upstream: \"ap\" is not defined (did you mean \"app\"?)",
        ),
        (
            "upstreams: {default: {servers: [x]}}\nupstream: 1.1.1.1\n",
            "1:13: upstreams.default: is the name",
        ),
        (
            "upstream: {servers: [x], balance: fastest}\n",
            "1:35: upstream.balance: \"fastest\" is not known (try round-robin, least-connections, random, rtt, most-idle, hash, source, first, none)",
        ),
        (
            "upstream: {servers: [{address: x, weight: 1001}]}\n",
            "upstream.servers[0].weight: \"1001\" is out of range",
        ),
        (
            "upstream: {servers: [{address: x, weight: 0}, {address: y, drain: on}]}\n",
            "1:22: upstream.servers: has no server that takes clients",
        ),
        (
            "upstream: {servers: [{address: x, disabled: on}]}\n",
            "1:22: upstream.servers: has no server that takes clients (all have weight 0, drain or disabled)",
        ),
        (
            "upstream: {servers: [x, {address: y, disabled: on, drain: on}]}\n",
            "upstream.servers[1].drain: has no effect, since the server is disabled",
        ),
        (
            "upstream: {servers: x, balance: hash, hash: header}\n",
            "1:45: upstream.hash: \"header\" is not known (try key, client, header NAME",
        ),
        (
            "upstream: {servers: x, hash: client}\n",
            "upstream.hash: has no effect, since balance is round-robin",
        ),
        ("upstream: {servers: x, sticky: on}\n", "upstream.sticky: "),
        (
            "upstream: {servers: x, sticky: {cookie: \"a b\"}}\n",
            "upstream.sticky.cookie: \"a b\" is not the name of a cookie",
        ),
        (
            "upstream: {servers: x, retry-on: [connect, 200]}\n",
            "upstream.retry-on[1]: \"200\" is not known (try connect, timeout, broken, or a status",
        ),
        (
            "upstream: {servers: x, retry-budget: 20}\n",
            "upstream.retry-budget: \"20\" is not a share from 0% to 1000%",
        ),
        (
            "upstream: {servers: x, check: {expect: ok}}\n",
            "upstream.check.expect: has no effect without path",
        ),
        (
            "upstream: {servers: x, check: {path: up}}\n",
            "upstream.check.path: \"up\" is not a path (it begins with a slash and has no spaces)",
        ),
        (
            "upstream: {servers: x, check: {path: /, host: \"a b\"}}\n",
            "upstream.check.host: \"a b\" is not a host",
        ),
        (
            "upstream: {servers: x, check: {path: /, status: [200, 100]}}\n",
            "upstream.check.status[1]: \"100\" is not a final status (try 200, 2xx or any)",
        ),
        (
            "upstream: {servers: x, check: {path: /, method: HEAD, expect: ok}}\n",
            "upstream.check.expect: \"ok\" has no effect, since the answer to HEAD has no body",
        ),
        (
            "upstream: {servers: x, check: {path: /, expect: \"\"}}\n",
            "upstream.check.expect: \"\" is in every body",
        ),
        (
            "upstream: {servers: x, check: {path: /, expect-regex: \"(\"}}\n",
            "upstream.check.expect-regex: \"(\" is not a regular expression, or too large",
        ),
        (
            "upstream: {servers: x, check: {path: /, expect: a, expect-regex: b}}\n",
            "upstream.check.expect-regex: cannot stand beside expect",
        ),
        (
            "upstream: {servers: x, check: {interval: 5ms}}\n",
            "upstream.check.interval: \"5ms\" is out of range (from 100ms to 1d)",
        ),
        ("upstream: {servers: x, check: on}\n", "upstream.check: "),
        ("upstream: {servers: x, resolve: 0s}\n", "upstream.resolve: \"0s\" is out of range"),
        ("upstream: {servers: [{weight: 1}]}\n", "upstream.servers[0].address: is missing"),
        ("sites: [{hosts: [a]}]\n", "1:9: sites[0].upstream: is missing"),
        ("sites: [{routes: [{path: /}]}]\n", "sites[0].routes[0].upstream: is missing"),
        ("upstream: a\nsites: [{routes: [{cache: off}]}]\n", "sites[0].routes[0].path: is missing"),
        (
            "upstream: a\nsites: [{routes: [{path: /}, {path: /}]}]\n",
            "2:37: sites[0].routes[1].path: \"/\" is already a route",
        ),
        ("upstream: a\nsites: [{routes: [{path: /a b}]}]\n", "contains ' '"),
        (
            "upstream: a\nsites: [{routes: [{path: /a//b}]}]\n",
            "2:26: sites[0].routes[0].path: \"/a//b\" can never match: the path that is meant is \"/a/b\"",
        ),
        (
            "upstream: a\nsites: [{routes: [{path: {exact: /a;x}}]}]\n",
            "sites[0].routes[0].path.exact: \"/a;x\" can never match",
        ),
        (
            "upstream: a\nsites: [{routes: [{path: {regex: \"^/(\"}}]}]\n",
            "2:34: sites[0].routes[0].path.regex: \"^/(\" is not a regular expression: unclosed group",
        ),
        (
            "upstream: a\nsites: [{routes: [{path: {regex: \"(a{999}){999}\"}}]}]\n",
            "is too large a regular expression (more than 256 KiB)",
        ),
        (
            "upstream: a\nsites: [{routes: [{path: {exact: /a, glob: /b}}]}]\n",
            "sites[0].routes[0].path: has to be one of exact, prefix, glob and regex",
        ),
        (
            "upstream: a\nsites: [{routes: [{path: /a, methods: [GET, POST]}, {path: /a, methods: GET}]}]\n",
            "2:60: sites[0].routes[1].path: \"/a\" can never match: the route in line 2 takes all",
        ),
        (
            "upstream: a\nsites: [{routes: [{path: /a, clients: 10.0.0.0/8}, {path: /a, clients: 10.1.0.0/16}]}]\n",
            "\"/a\" can never match",
        ),
        (
            "upstream: a\nsites: [{routes: [{path: /, methods: TRACE}]}]\n",
            "routes[0].methods: \"TRACE\" is not a method that is routed",
        ),
        (
            "upstream: a\nsites: [{routes: [{path: /, headers: {\"a b\": x}}]}]\n",
            "is not a value for a name",
        ),
        (
            "upstream: a\nsites: [{routes: [{path: /, clients: nowhere}]}]\n",
            "sites[0].routes[0].clients: \"nowhere\"",
        ),
        (
            "sites: [{routes: [{path: /, redirect: {to: \"{hots}\"}}]}]\n",
            "1:44: sites[0].routes[0].redirect.to: \"{hots}\" names an unknown variable (did you mean",
        ),
        (
            "sites: [{routes: [{path: /, redirect: {to: /$1}}]}]\n",
            "redirect.to: \"/$1\" names $1, but the expression has 0 captures",
        ),
        (
            "sites: [{routes: [{path: /, redirect: {to: /, status: 200}}]}]\n",
            "redirect.status: \"200\" is not a status for this (try 301, 302, 303, 307, 308)",
        ),
        ("sites: [{routes: [{path: /, redirect: {}}]}]\n", "redirect.to: is missing"),
        (
            "sites: [{routes: [{path: /, answer: {body: \"{cache}\"}}]}]\n",
            "answer.body: \"{cache}\" names {cache}, which is not known before the answer",
        ),
        (
            "sites: [{routes: [{path: /, answer: {type: html}}]}]\n",
            "answer.type: \"html\" is not a media type",
        ),
        (
            "sites: [{routes: [{path: /, deny: 200}]}]\n",
            "routes[0].deny: \"200\" is not a status for this (try 400 to 599)",
        ),
        (
            "sites: [{routes: [{path: /, deny: 403, answer: {}}]}]\n",
            "sites[0].routes[0].deny: excludes answer",
        ),
        (
            "upstream: a\nsites: [{routes: [{path: /, deny: 403, rewrite: {strip: /a}}]}]\n",
            "routes[0].rewrite: has no effect, since the route answers itself",
        ),
        (
            "upstream: a\nsites: [{routes: [{path: /, rewrite: {strip: /a, to: /b}}]}]\n",
            "routes[0].rewrite: has to be strip and add, or regex and to",
        ),
        (
            "upstream: a\nsites: [{routes: [{path: /, rewrite: {strip: a}}]}]\n",
            "rewrite.strip: \"a\" is not a path",
        ),
        (
            "upstream: a\nsites: [{routes: [{path: /, rewrite: {regex: \"(\", to: /}}]}]\n",
            "rewrite.regex: \"(\" is not a regular expression",
        ),
        (
            "upstream: a\nsites: [{routes: [{path: /, rewrite: {regex: ^/, to: \"/a#b\"}}]}]\n",
            "rewrite.to: \"/a#b\" has what a target cannot have (percent-encode it)",
        ),
        (
            "upstream: a\nsites: [{routes: [{path: /, rewrite: {regex: ^/, to: \"/a b\"}}]}]\n",
            "rewrite.to: \"/a b\" has what a target cannot have (percent-encode it)",
        ),
        (
            "upstream: a\nsites: [{routes: [{path: /, rewrite: {regex: ^/, to: /é}}]}]\n",
            "has what a target cannot have (percent-encode it)",
        ),
        (
            "upstream: a\nsites: [{routes: [{path: /, rewrite: {regex: ^/, to: \"/{client}\"}}]}]\n",
            "rewrite.to: \"/{client}\" names {client}, {request-id} or {tls-...}, which no purge",
        ),
        (
            "sites: [{routes: [{path: /, redirect: {to: \"https://{path}\"}}]}]\n",
            "redirect.to: \"https://{path}\" names the host by what a client sends (write it, or {host})",
        ),
        (
            "upstream: a\nsites: [{routes: [{path: /, request-fields: {set: {Host: b}}}]}]\n",
            "request-fields.set.Host: is written by ktrix, from what it knows of the client",
        ),
        (
            "cache: /c\nupstream: a\nsites: [{routes: [{path: /, request-fields: {add: {A: 1, B: 1, C: 1, D: 1, \
             E: 1, F: 1, G: 1, H: 1, I: 1, J: 1, K: 1, L: 1, M: 1, N: 1, O: 1, P: 1, Q: 1}}}]}]\n",
            "3:45: sites[0].routes[0].request-fields: has too many or too long fields",
        ),
        (
            "upstream: a\nsites: [{routes: [{path: /, response-fields: {add: {Content-Length: 1}}}]}]\n",
            "response-fields.add.Content-Length: is written by ktrix",
        ),
        (
            "upstream: a\nsites: [{routes: [{path: /, response-fields: {remove: [\"a b\"]}}]}]\n",
            "response-fields.remove[0]: \"a b\" is not the name of a field",
        ),
        (
            "upstream: a\nsites: [{routes: [{path: /, error-pages: {200: /x}}]}]\n",
            "error-pages.200: is not the status of an error (try 502)",
        ),
        (
            "upstream: a\nsites: [{routes: [{path: /, error-pages: {502: /nowhere}}]}]\n",
            "error-pages.502: \"/nowhere\" cannot be read",
        ),
        ("upstream: a\nsites: [{routes: [{path: /, internal: x}]}]\n", "neither on nor off"),
        (
            "upstream: a\nsites: [{routes: [{path: /, host: a b}]}]\n",
            "routes[0].host: \"a b\" is not a host (try client, upstream or",
        ),
        (
            "upstream: \"unix:/s\"\nsites: [{routes: [{path: /, host: upstream}]}]\n",
            "routes[0].host: \"upstream\" is not possible",
        ),
        ("upstream: a\nsites: [{cache: on}]\n", "2:17: sites[0].cache: \"on\" needs a cache"),
        ("upstream: a\nsites: [{cache: maybe}]\n", "\"maybe\" is neither on nor off"),
        ("upstream: a\nsites: [{}, {hosts: [x]}, {}]\n", "sites[2]: names no hosts, but sites[0]"),
        (
            "upstream: a\nsites: [{hosts: [x, x]}]\n",
            "2:21: sites[0].hosts[1]: \"x\" is already claimed",
        ),
        (
            "upstream: a\nsites: [{limits: {head: 64 KiB}}]\n",
            "sites[0].limits.head: \"64 KiB\" is larger than limits.head (32 KiB)",
        ),
        (
            "upstream: a\nlimits: {target: 64 KiB}\n",
            "limits.target: \"64 KiB\" is larger than limits.head (32 KiB)",
        ),
        (
            "upstream: a\nlimits: {head: 4 KiB}\n",
            "limits.head: \"4 KiB\" is smaller than limits.target (8 KiB)",
        ),
        ("upstream: a\ntimeouts: 5s\n", "2:11: timeouts: expects a mapping"),
        ("upstream: a\n\"we\\nird\": 5s\n", "2:1: \"we\\nird\": is not a known key"),
    ] {
        let all = errors(text);
        assert!(all.iter().any(|e| e.contains(error)), "{text:?}: {all:#?}");
        for line in all {
            assert!(line.starts_with("k.yaml:") && !line.contains('\n'), "{line}");
        }
    }
}

#[test]
fn listeners_that_share_no_connection_stand_beside_each_other() {
    for text in [
        "[0.0.0.0:80, \"[::]:80\"]",
        "[\"127.0.0.1:0\", \"127.0.0.1:0\"]",
        "[127.0.0.1:80, 127.0.0.2:80, 0.0.0.0:81]",
    ] {
        read(&format!("upstream: a\nlisten: {text}\n")).unwrap();
    }
}

#[test]
fn an_integer_key_does_not_hide_a_duplicate_key() {
    let text = "upstream: a\n0x1: b\nlimits: {}\nlimits: {}\n";
    assert!(errors(text).iter().any(|e| e.contains("0x1")));
}

#[test]
fn a_cache_that_is_off_is_absent() {
    for text in ["upstream: a\n", "upstream: a\ncache: off\n", "upstream: a\ncache: no\n"] {
        let config = read(text).unwrap();
        assert_eq!((config.cache, config.pid), (None, None), "{text}");
    }
    let config = read("upstream: a\nsites: [{}]\n").unwrap();
    assert!(!config.sites[0].routes[0].cache);
}

/// Texts similar to a configuration: its keys, values and punctuation in any order.
fn near_configurations() -> impl Strategy<Value = String> {
    let keys = schema::DIRECTIVES.iter().map(|row| format!("{}: ", row.key));
    let values = "off|5s|1 GiB|a|*.b|[|]|{|}|, |\n|\n  - |- |\
                  &x |*x|10.0.0.1:80|/|unix:/s|65|\"|\n    |~|<<: ";
    let words: Vec<String> = keys.chain(values.split('|').map(str::to_owned)).collect();
    proptest::collection::vec(proptest::sample::select(words), 0..40)
        .prop_map(|words| words.concat())
}

/// The sample with some of its text replaced.
fn damaged_samples() -> impl Strategy<Value = String> {
    const SAMPLE: &str = include_str!("../../etc/ktrix.yaml");
    let damage = (0..SAMPLE.len(), 0usize..20, "[ \\PC\n\t:\\-\\[\\]{}&*'\"]{0,6}");
    proptest::collection::vec(damage, 1..6).prop_map(|damages| {
        let mut text = SAMPLE.as_bytes().to_vec();
        for (at, len, new) in damages {
            let at = at.min(text.len());
            let end = (at + len).min(text.len());
            text.splice(at..end, new.into_bytes());
        }
        String::from_utf8_lossy(&text).into_owned()
    })
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn no_damaged_sample_panics(text in damaged_samples()) {
        let _ = read(&text);
    }

    #[test]
    fn no_text_similar_to_a_configuration_panics(text in near_configurations()) {
        match read(&text) {
            Ok(config) => prop_assert!(!config.listen.is_empty() && !config.upstreams.is_empty()),
            Err(errors) => {
                prop_assert!(!errors.0.is_empty());
                for error in errors.0 {
                    prop_assert!(error.line > 0 && error.column > 0);
                    prop_assert!(!error.to_string().contains('\n'));
                }
            }
        }
    }
}
