use super::*;
use proptest::prelude::*;

fn response(lines: &[&str]) -> ResponseControl {
    ResponseControl::parse(lines.iter().map(|line| line.as_bytes()))
}

fn request(fields: &[(&str, &str)]) -> RequestControl {
    let mut list = Fields::new();
    for (name, value) in fields {
        list.push(name.as_bytes(), value.as_bytes());
    }
    RequestControl::of(&list)
}

#[test]
fn malformed_max_age_is_zero() {
    let cases: &[(&[&str], Option<u32>)] = &[
        (&[], None),
        (&["max-age=60"], Some(60)),
        (&["MaX-AgE=60"], Some(60)),
        (&["max-age=\"60\""], Some(60)),
        (&["max-age='60'"], Some(0)),
        (&["max-age=-60"], Some(0)),
        (&["max-age=60.0"], Some(0)),
        (&["max-age"], Some(0)),
        (&["max-age="], Some(0)),
        (&["max-age =60"], Some(0)),
        (&["max-age= 60"], Some(0)),
        (&["max-age=60a"], Some(0)),
        (&["max-age=2147483648"], Some(SECONDS_MAX)),
        (&["max-age=999999999999999999999"], Some(SECONDS_MAX)),
        (&["max-age=60, max-age=1"], Some(1)),
        (&["max-age=1, max-age=60"], Some(1)),
        (&["max-age=60", "max-age=1"], Some(1)),
        (&["max-age=60, max-age=x"], Some(0)),
        (&["ext=\"max-age=60\", max-age=1"], Some(1)),
        (&["max-age=1, ext=\"max-age=60\""], Some(1)),
        (&["ext=\"max-age=60\""], None),
        (&["foobar, max-age=60"], Some(60)),
        (&["x-max-age=60", "max-agee=60"], None),
    ];
    for (lines, expected) in cases {
        assert_eq!(response(lines).max_age, *expected, "{lines:?}");
    }
}

#[test]
fn directives_are_found_anywhere_and_in_any_case() {
    let control = response(&[
        "public, No-Store",
        "x=1,MUST-revalidate , proxy-revalidate",
        "must-understand,no-transform, immutable=1",
    ]);
    assert!(control.no_store && control.public && control.must_revalidate);
    assert!(control.proxy_revalidate && control.must_understand);
    assert!(control.no_transform && control.immutable);
    assert!(!response(&["no-storee, xno-store, ext=\"no-store\""]).no_store);
    assert!(response(&["ext=\"open, no-store"]).no_store, "an open quote hides nothing");
}

#[test]
fn pragma_counts_only_without_cache_control() {
    assert!(request(&[("Pragma", "no-cache")]).no_cache);
    assert!(request(&[("pragma", "x, No-Cache")]).no_cache);
    assert!(!request(&[("Pragma", "no-cache"), ("Cache-Control", "max-age=9")]).no_cache);
    assert!(!request(&[("Pragma", "nocache")]).no_cache);
    let control = request(&[
        ("cache-control", "max-age=5, min-fresh=2"),
        ("CACHE-CONTROL", "only-if-cached, min-fresh=7, max-age=3, no-store"),
    ]);
    assert_eq!((control.max_age, control.min_fresh), (Some(3), Some(7)));
    assert!(control.only_if_cached && control.no_store && !control.no_cache);
    assert_eq!(request(&[("cache-control", "min-fresh=x")]).min_fresh, Some(0));
}

#[test]
fn max_stale_takes_the_smallest_bound() {
    let cases: &[(&str, Option<u32>)] = &[
        ("no-transform", None),
        ("max-stale", Some(u32::MAX)),
        ("max-stale=5", Some(5)),
        ("max-stale, max-stale=5", Some(5)),
        ("max-stale=5, max-stale", Some(5)),
        ("max-stale=x", Some(0)),
    ];
    for (line, expected) in cases {
        assert_eq!(request(&[("cache-control", line)]).max_stale, *expected, "{line:?}");
    }
}

proptest! {
    #[test]
    fn order_and_layout_of_directives_are_ignored(
        mut members in proptest::collection::vec(
            prop_oneof![
                Just("no-store"), Just("public"), Just("max-age=7"), Just("max-age=9"),
                Just("s-maxage=\"3\""), Just("private=\"x\""), Just("no-cache"), Just("odd"),
            ],
            0..6,
        ),
        by_line: bool,
    ) {
        let forward = response(&[&members.join(",")]);
        members.reverse();
        let backward = if by_line {
            response(&members)
        } else {
            response(&[&members.join(" ,\t")])
        };
        prop_assert_eq!(forward, backward);
    }

    #[test]
    fn no_bytes_panic(line in proptest::collection::vec(any::<u8>(), 0..120)) {
        ResponseControl::parse([line.as_slice()].into_iter());
        RequestControl::default().take_line(&line);
    }
}

fn parsed(line: &str) -> Vec<(String, String)> {
    directives(line.as_bytes())
        .map(|directive| {
            let argument = match directive.argument {
                Argument::None => "-".to_owned(),
                Argument::Bad => "bad".to_owned(),
                Argument::Text(text) => format!("<{}>", String::from_utf8_lossy(text)),
            };
            (String::from_utf8_lossy(directive.name).into_owned(), argument)
        })
        .collect()
}

#[test]
fn a_line_has_its_directives() {
    let cases: &[(&str, &[(&str, &str)])] = &[
        ("", &[]),
        (" , ,\t,", &[]),
        ("no-store", &[("no-store", "-")]),
        ("a, b ,c\t", &[("a", "-"), ("b", "-"), ("c", "-")]),
        ("max-age=5,public", &[("max-age", "<5>"), ("public", "-")]),
        ("max-age=\"5\"", &[("max-age", "<5>")]),
        ("max-age =5", &[("max-age", "bad")]),
        ("max-age= 5", &[("max-age", "bad")]),
        ("max-age=", &[("max-age", "bad")]),
        ("=5", &[("", "<5>")]),
        ("a=b=c", &[("a", "<b=c>")]),
        ("x=\"a, no-store\", y", &[("x", "<a, no-store>"), ("y", "-")]),
        ("x=\"a\\\", b\", y", &[("x", "<a\\\", b>"), ("y", "-")]),
        ("x=\"open, no-store", &[("x", "bad"), ("no-store", "-")]),
        ("x=\"a\"b, y", &[("x", "bad"), ("y", "-")]),
        ("x=\"a\\", &[("x", "bad")]),
        ("x=\"a, b, x=\"a", &[("x", "bad"), ("b", "-"), ("x", "bad")]),
        ("\"a, b\"", &[("\"a", "-"), ("b\"", "-")]),
        ("x=\"\"", &[("x", "<>")]),
        ("x=\"", &[("x", "bad")]),
    ];
    for (line, expected) in cases {
        let expected: Vec<_> =
            expected.iter().map(|(n, a)| ((*n).to_owned(), (*a).to_owned())).collect();
        assert_eq!(parsed(line), expected, "{line:?}");
    }
}

#[test]
fn seconds_are_digits_and_capped() {
    let cases: &[(&str, Option<u32>)] = &[
        ("0", Some(0)),
        ("003600", Some(3600)),
        ("2147483647", Some((1 << 31) - 1)),
        ("2147483648", Some(SECONDS_MAX)),
        ("4294967296", Some(SECONDS_MAX)),
        ("99999999999999999999999", Some(SECONDS_MAX)),
        ("-1", None),
        ("+1", None),
        ("1.0", None),
        ("1a", None),
        ("a1", None),
        ("'1'", None),
        (" 1", None),
        ("", None),
    ];
    for (text, expected) in cases {
        assert_eq!(delta_seconds(text.as_bytes()), *expected, "{text:?}");
    }
}

proptest! {
    #[test]
    fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
        for directive in directives(&line) {
            prop_assert!(directive.seconds().unwrap_or(0) <= SECONDS_MAX);
        }
    }

    #[test]
    fn a_quoted_string_hides_its_commas(inside in "[a-z, =]{0,20}") {
        let line = format!("ext=\"{inside}\", last");
        let names: Vec<_> =
            directives(line.as_bytes()).map(|directive| directive.name.to_vec()).collect();
        prop_assert_eq!(names, vec![b"ext".to_vec(), b"last".to_vec()]);
    }
}

fn scopes(line: &str) -> (Scope, Scope) {
    let control = ResponseControl::parse([line.as_bytes()].into_iter());
    (control.private, control.no_cache)
}

#[test]
fn a_scope_is_whole_unless_its_list_is_valid_and_dispensable() {
    let cases: &[(&str, Scope)] = &[
        ("", Scope::Absent),
        ("private", Scope::Whole),
        ("private=\"\"", Scope::Whole),
        ("private=", Scope::Whole),
        ("private=\" , \"", Scope::Whole),
        ("private=\"x-user\"", Scope::Fields),
        ("private=x-user", Scope::Fields),
        ("private=\"x-user, Set-Cookie\"", Scope::Fields),
        ("private=\"x user\"", Scope::Whole),
        ("private=\"a\\\"b\"", Scope::Whole),
        ("private=\"x-user, Content-Encoding\"", Scope::Whole),
        ("private=\"x-user\", private", Scope::Whole),
        ("private, private=\"x-user\"", Scope::Whole),
        ("private=\"x-user", Scope::Whole),
    ];
    for (line, expected) in cases {
        assert_eq!(scopes(line).0, *expected, "{line:?}");
        let line = line.replace("private", "no-cache");
        assert_eq!(scopes(&line).1, *expected, "{line:?}");
    }
}

#[test]
fn listed_fields_are_those_of_valid_lists() {
    let line = b"private=\"a, B\", no-cache=c, ext=\"d\", no-cache=\"etag, e\"".as_slice();
    let mut found = Vec::new();
    listed_fields([line].into_iter(), |name| found.push(name.to_vec()));
    assert_eq!(found, [b"a", b"B", b"c"]);
}
