use super::*;
use proptest::prelude::*;

fn text(scheme: Scheme, authority: &str, path: &str) -> String {
    let mut out = Vec::new();
    let components = KeyComponents::default();
    key_text(&components, scheme, authority.as_bytes(), path.as_bytes(), &mut out);
    String::from_utf8(out).unwrap()
}

fn fields(list: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in list {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    fields
}

fn variant(names: &str, request: &[(&str, &str)]) -> String {
    let vary = VaryNames::parse(&fields(&[("vary", names)])).unwrap().unwrap();
    let mut out = Vec::new();
    variant_text(b"GET http://h/", &vary, &fields(request), &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn equal_uris_have_equal_texts() {
    let cases = [
        (Scheme::Http, "a.example", "/", "GET http://a.example/"),
        (Scheme::Http, "A.Example:80", "/", "GET http://a.example/"),
        (Scheme::Http, "a.example:", "", "GET http://a.example/"),
        (Scheme::Http, "a.example:443", "/", "GET http://a.example:443/"),
        (Scheme::Http, "a.example:8080", "/", "GET http://a.example:8080/"),
        (Scheme::Https, "a.example:443", "/x?y=Z", "GET https://a.example/x?y=Z"),
        (Scheme::Https, "a.example:80", "?q", "GET https://a.example:80/?q"),
        (Scheme::Http, "[::80]:80", "/", "GET http://[::80]/"),
        (Scheme::Http, "[::80]", "/%7E", "GET http://[::80]/%7E"),
        (Scheme::Http, "", "/", "GET http:///"),
    ];
    for (scheme, authority, path, expected) in cases {
        assert_eq!(text(scheme, authority, path), expected);
    }
}

#[test]
fn the_host_is_in_every_text() {
    let components = KeyComponents {
        scheme: false,
        path: PathComponent::Route("/".into()),
        query: QueryComponent { is_on: false, ..QueryComponent::default() },
        ..KeyComponents::default()
    };
    let mut out = Vec::new();
    key_text(&components, Scheme::Http, b"A.example:80", b"/x?y", &mut out);
    assert_eq!(out, b"GET //a.example/ *");
}

#[test]
fn cookies_of_the_operator_select_a_variant() {
    let names = VaryNames::chosen(["x"].into_iter(), ["tier"].into_iter()).unwrap();
    let text = |request: &[(&str, &str)]| {
        let mut out = Vec::new();
        variant_text(b"GET http://h/", &names, &fields(request), &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        text(&[("Cookie", "a=b; tier=gold"), ("X", "1")]),
        "GET http://h/\ncookie=tier:gold\nx:1"
    );
    assert_eq!(text(&[("Cookie", "tier=")]), "GET http://h/\ncookie=tier:\nx");
    assert_eq!(text(&[("Cookie", "Tier=gold")]), "GET http://h/\ncookie=tier\nx");
    let two = text(&[("Cookie", "tier=gold; a=b; tier=silver"), ("Cookie", "tier=")]);
    assert_eq!(two, "GET http://h/\ncookie=tier:gold;silver;\nx");
    assert_eq!(text(&[("Cookie", "tier; tier")]), "GET http://h/\ncookie=tier: ; \nx");
}

#[test]
fn a_key_is_the_md5_in_hex() {
    let key = key_of(b"");
    assert_eq!(key.to_string(), "d41d8cd98f00b204e9800998ecf8427e");
    assert_eq!(Key::from_hex(&key.hex()), Some(key));
    assert_eq!(Key::from_hex(b"D41D8CD98F00B204E9800998ECF8427E"), Some(key));
    assert_eq!(Key::from_hex(b"d41d8cd98f00b204e9800998ecf8427"), None);
    assert_eq!(Key::from_hex(b"d41d8cd98f00b204e9800998ecf8427g"), None);
}

#[test]
fn values_of_fields_select_a_variant() {
    assert_eq!(
        variant("Accept-Encoding, Foo", &[("FOO", "1"), ("accept-encoding", "br, gzip")]),
        "GET http://h/\naccept-encoding:br,gzip\nfoo:1"
    );
    assert_eq!(variant("foo", &[]), "GET http://h/\nfoo");
    assert_eq!(variant("foo", &[("foo", "")]), "GET http://h/\nfoo:");
    assert_eq!(
        variant("foo", &[("foo", "1"), ("bar", "x"), ("foo", "2")]),
        variant("FOO", &[("Foo", "1, 2")])
    );
    assert_ne!(variant("foo", &[("foo", "1")]), variant("foo", &[("foo", "1,")]));
    assert_ne!(variant("foo", &[("foo", "1,2")]), variant("foo", &[("foo", "2,1")]));
    assert_ne!(variant("foo", &[("foo", "a")]), variant("foo", &[("foo", "A")]));
}

proptest! {
    #[test]
    fn hex_reads_back(bytes: [u8; 16]) {
        prop_assert_eq!(Key::from_hex(&Key(bytes).hex()), Some(Key(bytes)));
    }
}

fn patterns(names: &[&str]) -> Vec<Pattern> {
    names.iter().map(|name| Pattern::parse(name).unwrap()).collect()
}

fn query(is_sorted: bool, kept: &[&str], dropped: &[&str]) -> QueryComponent {
    QueryComponent { is_on: true, is_sorted, kept: patterns(kept), dropped: patterns(dropped) }
}

fn target_text(components: &KeyComponents, path_and_query: &str) -> String {
    let mut out = Vec::new();
    components.push(path_and_query.as_bytes(), &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_query_is_sorted_and_filtered() {
    let off = QueryComponent { is_on: false, ..QueryComponent::default() };
    let cases: &[(QueryComponent, &str, &str)] = &[
        (query(false, &[], &[]), "?b=2&&a=1", "?b=2&&a=1"),
        (query(false, &[], &[]), "?", "?"),
        (off, "?b=2", ""),
        (query(true, &[], &[]), "?b=2&&a=1&", "?a=1&b=2"),
        (query(true, &[], &[]), "?b=2&a=2&b=1&a=1", "?a=2&a=1&b=2&b=1"),
        (query(true, &[], &[]), "?", ""),
        (query(false, &[], &["utm_*"]), "?utm_id=1&b=2&utm_x&a=1", "?b=2&a=1"),
        (query(false, &[], &["utm_*"]), "?%75tm_id=1", ""),
        (query(false, &["id", "p*"], &[]), "?x=1&page=2&id=3&identity=4", "?page=2&id=3"),
        (query(false, &["a[]"], &[]), "?a%5B%5d=1&a[]=2&a=3", "?a%5B%5d=1&a[]=2"),
        (query(true, &["p*"], &["pw"]), "?pw=1&q=2&p=3", "?p=3"),
        (query(true, &[], &[]), "?a&%", "?%&a"),
        (query(true, &[], &[]), "", ""),
    ];
    for (component, given, expected) in cases {
        let found = component.of(given.as_bytes()).into_owned();
        assert_eq!(String::from_utf8(found).unwrap(), *expected, "{component:?} {given}");
    }
}

#[test]
fn a_prefix_must_be_in_the_key() {
    let has = |components: &KeyComponents, text: &str| components.preserve_prefix(text.as_bytes());
    let whole = KeyComponents::default();
    assert!(has(&whole, "/a") && has(&whole, "/a?b=c"));
    let route =
        KeyComponents { path: PathComponent::Route("/img/".into()), ..KeyComponents::default() };
    assert!(has(&route, "/") && has(&route, "/im") && has(&route, "/img/"));
    assert!(!has(&route, "/img/a") && !has(&route, "/img/?a"));
    let off = QueryComponent { is_on: false, ..QueryComponent::default() };
    for query in [off, query(true, &[], &[]), query(false, &["a"], &[]), query(false, &[], &["a"])]
    {
        let components = KeyComponents { query, ..KeyComponents::default() };
        assert!(has(&components, "/a") && !has(&components, "/a?") && !has(&components, "/a?a=1"));
    }
}

#[test]
fn a_key_without_the_path_has_that_of_the_route() {
    let mut components = KeyComponents::default();
    assert_eq!(target_text(&components, "/up/x?y"), "/up/x?y");
    assert_eq!(target_text(&components, "?y"), "/?y");
    components.path = PathComponent::Route("/up".into());
    assert_eq!(target_text(&components, "/up/x?y"), "/up *?y");
    assert_eq!(target_text(&components, "/upper?y"), target_text(&components, "/up/x?y"));
}

#[test]
fn the_origin_gets_the_query_of_the_key() {
    let mut components =
        KeyComponents { path: PathComponent::Route("/".into()), ..KeyComponents::default() };
    assert!(matches!(components.origin_target(b"/x?b&a"), Cow::Borrowed(b"/x?b&a")));
    components.query = query(true, &[], &["b"]);
    assert_eq!(&*components.origin_target(b"/x?c&b&a"), b"/x?a&c");
    assert_eq!(&*components.origin_target(b"/x?b"), b"/x");
    assert_eq!(&*components.origin_target(b"/x"), b"/x");
    components.query.is_on = false;
    assert_eq!(&*components.origin_target(b"/x?c&b&a"), b"/x");
}

proptest! {
    #[test]
    fn filtering_twice_changes_nothing(
        given in "(\\?[a-c=&%2]{0,16})?", is_sorted: bool, kept: bool, dropped: bool,
    ) {
        let kept: &[&str] = if kept { &["a*", "c"] } else { &[] };
        let component = query(is_sorted, kept, if dropped { &["ab*"] } else { &[] });
        let once = component.of(given.as_bytes()).into_owned();
        prop_assert_eq!(&*component.of(&once), &*once);
    }

    #[test]
    fn sorting_ignores_the_order_of_different_names(mut names in
        proptest::collection::btree_map("[a-d]{1,2}", "[0-9]", 0..5).prop_map(
            |map| map.into_iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>())) {
        let component = query(true, &[], &[]);
        let forward = component.of(format!("?{}", names.join("&")).as_bytes()).into_owned();
        names.reverse();
        let backward = component.of(format!("?{}", names.join("&")).as_bytes()).into_owned();
        prop_assert_eq!(forward, backward);
    }
}
