use super::*;
use crate::http::h1::head::{self, HeadLimits, parse_request, parse_response};
use proptest::prelude::*;

fn request(text: &str) -> RequestHead {
    parse_request(text.as_bytes(), &HeadLimits::default()).unwrap().unwrap().0
}

fn written(fields: &Fields) -> String {
    let mut out = Vec::new();
    fields.write_to(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn claims_of_other_hops_are_removed_except_for() {
    for (sent, kept) in [
        ("for=1.1.1.1;host=evil;proto=evil, for=2.2.2.2;host=a", "for=1.1.1.1, for=2.2.2.2;host=a"),
        ("host=evil, FOR=\"[::1];x\\\";y\" ; by=evil, for=b", "FOR=\"[::1];x\\\";y\", for=b"),
        ("for=b;host=\"a,b\"", "for=b;host=\"a,b\""),
    ] {
        let mut fields: Fields = [("Forwarded", sent)].into_iter().collect();
        forget_claims(&mut fields);
        assert_eq!(fields.get("forwarded"), Some(kept.as_bytes()), "{sent}");
    }
    let mut fields = Fields::new();
    forget_claims(&mut fields);
    assert!(fields.is_empty());
}

#[test]
fn a_for_pair_is_no_claim() {
    for (sent, is_claim) in [
        ("for=a", false),
        ("FOR=\"[::1]:80\", for=unknown", false),
        ("for=\"a;host=b\"", false),
        ("for=a;host=b", true),
        ("for=a, host=b", true),
        ("proto=https", true),
        ("", false),
    ] {
        let fields: Fields = [("Forwarded", sent)].into_iter().collect();
        assert_eq!(has_claims(&fields), is_claim, "{sent}");
    }
    assert!(!has_claims(&Fields::new()));
}

fn forwarded(text: &str, client: &str, framing: BodyLength) -> String {
    let head = request(text);
    let peer = Peer::new(client.parse().ok(), Scheme::Http, head.authority(), "ktrix");
    let peer = peer.trusted(head.fields.contains("x-trusted"));
    written(&request_fields(&head, &peer, framing))
}

#[test]
fn a_plain_request_names_its_client() {
    let text = "GET / HTTP/1.1\r\nAccept: */*\r\nConnection: close\r\nHost: A.example:80\r\n\r\n";
    assert_eq!(
        forwarded(text, "192.0.2.1", BodyLength::None),
        "Host: a.example\r\nAccept: */*\r\nX-Forwarded-For: 192.0.2.1\r\n\
         X-Forwarded-Host: a.example\r\nX-Forwarded-Proto: http\r\n\
         Forwarded: for=192.0.2.1;host=a.example;proto=http\r\nVia: 1.1 ktrix\r\n"
    );
}

#[test]
fn an_origin_gets_the_host_as_keys_have_it() {
    for (text, host) in [
        ("GET / HTTP/1.1\r\nHost: WWW.test:\r\n\r\n", "www.test"),
        ("GET / HTTP/1.1\r\nHost: www.test:8080\r\n\r\n", "www.test:8080"),
        ("GET / HTTP/1.1\r\nHost: www.test:443\r\n\r\n", "www.test:443"),
        ("GET http://A.test:80/ HTTP/1.1\r\nHost: b\r\n\r\n", "a.test"),
    ] {
        let head = request(text);
        let peer = Peer::new(None, Scheme::Http, head.authority(), "ktrix");
        let fields = request_fields(&head, &peer, BodyLength::None);
        for name in ["host", "x-forwarded-host"] {
            let values: Vec<_> = fields.get_all(name).collect();
            assert_eq!(values, [host.as_bytes()], "{name} of {text}");
        }
    }
}

#[test]
fn chains_grow_and_claims_are_replaced() {
    let text = "GET / HTTP/1.0\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nx-forwarded-for: 2.2.2.2, \
                3.3.3.3\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
                Forwarded: for=1.1.1.1\r\nVia: 1.0 fred\r\n\r\n";
    assert_eq!(
        forwarded(text, "2001:db8::1", BodyLength::None),
        "Host: a\r\nVia: 1.0 fred\r\nX-Forwarded-For: 2001:db8::1\r\n\
         X-Forwarded-Host: a\r\nX-Forwarded-Proto: http\r\n\
         Forwarded: for=\"[2001:db8::1]\";host=a;proto=http\r\nVia: 1.0 ktrix\r\n"
    );
    let text = text.replace("\r\n\r\n", "\r\nX-Trusted: 1\r\n\r\n");
    assert_eq!(
        forwarded(&text, "2001:db8::1", BodyLength::None),
        "Host: a\r\nVia: 1.0 fred\r\nX-Trusted: 1\r\n\
         X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 2001:db8::1\r\n\
         X-Forwarded-Host: a\r\nX-Forwarded-Proto: http\r\n\
         Forwarded: for=1.1.1.1, for=\"[2001:db8::1]\";host=a;proto=http\r\nVia: 1.0 ktrix\r\n"
    );
}

#[test]
fn other_spellings_of_rewritten_fields_are_dropped() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_Host: evil\r\nx_forwarded-proto: evil\r\n\
                X_Forwarded_For: evil\r\nContent_Length: 666\r\nX_Other: b\r\n\r\n";
    let fields = forwarded(text, "192.0.2.1", BodyLength::None);
    assert!(
        fields.starts_with("Host: a\r\nX_Other: b\r\nX-Forwarded-For: 192.0.2.1\r\n"),
        "{fields}"
    );
    assert!(!fields.contains("evil") && !fields.contains("666"), "{fields}");
}

#[test]
fn an_open_quote_swallows_nothing() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nX-Trusted: 1\r\nForwarded: for=\"1.1.1.1\r\n\r\n";
    let fields = forwarded(text, "::ffff:192.0.2.1", BodyLength::None);
    assert!(fields.contains("\r\nForwarded: for=192.0.2.1;host=a;proto=http\r\n"), "{fields}");
}

#[test]
fn client_of_a_unix_socket_is_unknown() {
    let fields = forwarded("GET / HTTP/1.0\r\n\r\n", "", BodyLength::None);
    let expected = "Host: \r\nX-Forwarded-Proto: http\r\nForwarded: for=unknown;proto=http\r\nVia: 1.0 ktrix\r\n";
    assert_eq!(fields, expected);
}

#[test]
fn the_framing_is_that_of_the_body_as_sent() {
    let text = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\
                Expect: 100-continue\r\nConnection: content-length, x-a\r\nX-A: b\r\n\r\n";
    let start = |framing| {
        let fields = forwarded(text, "192.0.2.1", framing);
        fields.split("X-Forwarded").next().unwrap().to_owned()
    };
    assert_eq!(start(BodyLength::Known(7)), "Host: a\r\nContent-Length: 7\r\n");
    assert_eq!(start(BodyLength::Chunked), "Host: a\r\nTransfer-Encoding: chunked\r\n");
    assert_eq!(start(BodyLength::None), "Host: a\r\nContent-Length: 0\r\n");
}

#[test]
fn an_absolute_target_names_the_host() {
    let text = "GET http://b.example:81/ HTTP/1.1\r\nHost: a\r\n\r\n";
    assert!(forwarded(text, "", BodyLength::None).starts_with("Host: b.example:81\r\n"));
}

#[test]
fn trailers_are_asked_for_hop_by_hop() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers, gzip\r\nConnection: TE\r\n\r\n";
    let fields = forwarded(text, "", BodyLength::None);
    assert!(fields.contains("\r\nTE: trailers\r\nConnection: te\r\n"), "{fields}");
}

#[test]
fn forwards_are_counted_down() {
    for (method, sent, passed) in [("OPTIONS", "5", "4"), ("TRACE", "x", "x"), ("GET", "5", "5")] {
        let text = format!("{method} / HTTP/1.1\r\nHost: a\r\nMax-Forwards: {sent}\r\n\r\n");
        let fields = forwarded(&text, "", BodyLength::None);
        assert!(fields.contains(&format!("\r\nMax-Forwards: {passed}\r\n")), "{fields}");
    }
    assert_eq!(max_forwards(&request("TRACE / HTTP/1.0\r\nMax-Forwards: 0\r\n\r\n")), Some(0));
}

#[test]
fn a_response_loses_its_connection_and_gains_a_date() {
    let text = "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive, x-a\r\nX-A: b\r\n\
                Keep-Alive: x\r\nETag: \"e\"\r\nVia: 1.1 o\r\n\r\n";
    let parsed = parse_response(text.as_bytes(), &HeadLimits::default(), Method::Get);
    let mut head = parsed.unwrap().unwrap().0;
    let now = Now { unix_us: 784_111_777_000_000, mono_us: 0 };
    assert_eq!(
        written(&response_fields(&head, "ktrix", now)),
        "ETag: \"e\"\r\nVia: 1.1 o\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nVia: 1.0 ktrix\r\n"
    );
    head.fields.push(b"date", b"whatever");
    assert!(!written(&response_fields(&head, "ktrix", now)).contains("Sun"));
}

fn line() -> impl Strategy<Value = (String, String)> {
    let name = prop::sample::select(vec![
        "Accept", "Connection", "X-A", "TE", "Trailer", "Upgrade", "Proxy", "Keep-Alive", "Via",
        "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "Cookie", "Max-Forwards", "Expect",
    ]);
    let value = prop_oneof![
        "[ -~]{0,20}",
        prop::sample::select(vec!["host, via, x-a", "100-continue", "trailers", "for=\"a"])
            .prop_map(str::to_owned),
    ];
    (name.prop_map(str::to_owned), value)
}

proptest! {
    /// Whatever a client sends, the origin gets one host, the framing that ktrix understood,
    /// and no field of the connection.
    #[test]
    fn forwarded_request_is_unambiguous(
        lines in proptest::collection::vec(line(), 0..12),
        method in prop::sample::select(vec!["GET", "POST", "OPTIONS", "BREW"]),
        framing in prop_oneof![
            Just(BodyLength::None),
            any::<u32>().prop_map(|length| BodyLength::Known(length.into())),
            Just(BodyLength::Chunked),
        ],
    ) {
        let mut text = format!("{method} / HTTP/1.1\r\nHost: a.example\r\n");
        for (name, value) in lines {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let parsed = parse_request(text.as_bytes(), &HeadLimits::default());
        let Ok(Some((head, _))) = parsed else { return Ok(()) };
        let client = Some(IpAddr::from([192, 0, 2, 1]));
        let peer = Peer::new(client, Scheme::Https, b"a.example", "ktrix");
        let fields = request_fields(&head, &peer, framing);
        let mut out = Vec::new();
        head::write_request(&mut out, &head.method_text, b"/", &fields);
        let (again, len) = parse_request(&out, &HeadLimits::default()).unwrap().unwrap();
        prop_assert_eq!(len, out.len());
        let framing = match framing {
            BodyLength::None if head.method == Method::Post => BodyLength::Known(0),
            other => other,
        };
        prop_assert_eq!(again.length, framing);
        prop_assert_eq!(again.host(), b"a.example");
        prop_assert_eq!(&again.fields, &fields);
        let chain = fields.get("x-forwarded-for").unwrap();
        prop_assert!(chain.ends_with(b"192.0.2.1"));
        let last = fields.list("forwarded").last().unwrap().to_vec();
        prop_assert_eq!(last, b"for=192.0.2.1;host=a.example;proto=https".to_vec());
        for (name, _) in fields.iter() {
            let is_ours = [&b"TE"[..], b"Connection", b"Transfer-Encoding"].contains(&name);
            prop_assert!(is_ours || !is_hop_by_hop(name));
        }
    }
}

fn stripped(pairs: &[(&str, &str)]) -> Vec<String> {
    let mut fields: Fields = pairs.iter().copied().collect();
    let passing: Vec<_> = {
        let hop = Hop::of(&fields);
        let names = fields.iter().map(|(name, _)| name);
        names.filter(|name| hop.passes(name)).map(<[u8]>::to_vec).collect()
    };
    strip_hop_by_hop(&mut fields);
    let names = fields.iter().map(|(name, _)| name);
    let left: Vec<_> = names.map(<[u8]>::to_vec).collect();
    let without_te: Vec<_> = left.iter().filter(|name| *name != b"TE").cloned().collect();
    assert_eq!(passing, without_te, "both ways agree");
    left.into_iter().map(|name| String::from_utf8(name).unwrap()).collect()
}

#[test]
fn the_fixed_list_goes_no_further() {
    let pairs = [
        ("Host", "a"),
        ("Connection", "keep-alive"),
        ("KEEP-ALIVE", "timeout=5"),
        ("Proxy-Connection", "x"),
        ("Proxy-Authenticate", "x"),
        ("Proxy-Authorization", "x"),
        ("Proxy-Authentication-Info", "x"),
        ("Proxy", "x"),
        ("TE", "gzip"),
        ("Trailer", "x"),
        ("Transfer-Encoding", "chunked"),
        ("Upgrade", "x"),
        ("HTTP2-Settings", "x"),
        ("Proxy-Status", "x"),
        ("Accept", "y"),
    ];
    assert_eq!(stripped(&pairs), ["Host", "Proxy-Status", "Accept"]);
}

#[test]
fn fields_named_by_connection_go_no_further() {
    let pairs = [
        ("Connection", "close, X-a,, \t x-B"),
        ("X-A", "1"),
        ("x-b", "2"),
        ("x-c", "3"),
        ("X-A", "4"),
        ("connection", "X-D, x-nowhere"),
        ("x-d", "5"),
    ];
    assert_eq!(stripped(&pairs), ["x-c"]);
}

#[test]
fn connection_cannot_remove_a_deciding_field() {
    for name in END_TO_END {
        assert_eq!(stripped(&[("Connection", name), (name, "x")]), [name]);
    }
    assert!(END_TO_END.is_sorted());
}

#[test]
fn trailers_may_still_be_asked_for() {
    assert_eq!(stripped(&[("TE", "gzip;q=0.5, Trailers"), ("A", "b")]), ["A", "TE"]);
}
