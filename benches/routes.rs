//! The cost of finding a route, with ten routes and with 10,000: `cargo bench --bench routes`.
//!
//! `cargo bench --bench routes -- config 10000 127.0.0.1:8081` prints the upstreams and sites of a
//! configuration with that many routes, with weights, checks and fields, to be served by a ktrix that a
//! load generator asks.

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use ktrix::config::Config;
use ktrix::route::Router;
use ktrix::route::asked::Asked;

const N_LOOKUPS: usize = 1_000_000;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["config", n_routes, server] => {
            print!("{}", configuration(n_routes.parse().expect("a number"), server));
        }
        _ => time_all(),
    }
}

/// Everything below `/c/` is stored, all else is passed on.
fn configuration(n_routes: usize, server: &str) -> String {
    let mut text = format!(
        "upstreams:
  origin:
    servers: [{{address: \"{server}\", weight: 3}}, {{address: \"{server}\", weight: 5}}]
    check: {{interval: 10s}}
sites:
  - upstream: origin
    routes:
      - {{path: /c/}}
      - {{path: /, cache: off, request-fields: {{set: {{X-Route: none}}}}}}
"
    );
    for n in 0..n_routes {
        let path = match n % 4 {
            0 => format!("{{exact: /app/{n}/page}}"),
            1 => format!("/app/{n}/"),
            2 => format!("{{glob: \"/app/{n}/*.html\"}}"),
            _ => format!("{{regex: \"^/app/{n}/[a-z]+$\"}}"),
        };
        let fields = format!("request-fields: {{set: {{X-Route: \"{n}\"}}}}");
        let _ =
            writeln!(text, "      - {{path: {path}, methods: [GET, HEAD], cache: off, {fields}}}");
    }
    text
}

fn time_all() {
    for (name, path) in [
        ("exact", "{exact: /app/N/page}"),
        ("prefix", "/app/N/"),
        ("glob", "{glob: \"/app/N/*.html\"}"),
        ("regex", "{regex: \"^/app/N/[a-z]+$\"}"),
    ] {
        for n_routes in [10, 10_000] {
            time(name, path, n_routes);
        }
    }
}

fn time(name: &str, path: &str, n_routes: usize) {
    let mut text = String::from("upstream: 127.0.0.1\nsites:\n  - hosts: h\n    routes:\n");
    for n in 0..n_routes {
        let _ = writeln!(text, "      - {{path: {}}}", path.replace('N', &n.to_string()));
    }
    let begun = Instant::now();
    let config = Config::load_for(Path::new("k"), &text, 1).expect("the routes are right");
    let router = Router::new(&config);
    let made_ms = begun.elapsed().as_secs_f64() * 1e3;
    let ending = if name == "glob" { "page.html" } else { "page" };
    let paths: Vec<_> = (0..64).map(|n| format!("/app/{}/{ending}", n * 7 % n_routes)).collect();
    let begun = Instant::now();
    let mut n_found = 0;
    for n in 0..N_LOOKUPS {
        let asked = Asked::of_url(b"h", paths[n % paths.len()].as_bytes());
        n_found += usize::from(black_box(router.find(&asked)).is_some());
    }
    let each_ns = begun.elapsed().as_secs_f64() * 1e9 / N_LOOKUPS as f64;
    println!(
        "{name:8} {n_routes:6} routes {each_ns:8.1} ns ({n_found} found, {made_ms:.0} ms to read)"
    );
}
