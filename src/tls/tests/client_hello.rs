use std::sync::Arc;

use proptest::prelude::*;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

/// The first flight of a real client that asks for this name or address.
fn flight(name: &str) -> Vec<u8> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn vector16(parts: &[u8]) -> Vec<u8> {
    [&(parts.len() as u16).to_be_bytes(), parts].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    let entry = [&[HOST_NAME][..], &vector16(name)].concat();
    [&[0, 0][..], &vector16(&vector16(&entry))].concat()
}

/// A ClientHello with these extensions, without its type and length.
fn body(extensions: &[u8]) -> Vec<u8> {
    [&[3, 3][..], &[7; 32], &[0], &vector16(&[0x13, 1]), &[1, 0], &vector16(extensions)].concat()
}

/// This body in records of at most `len` bytes.
fn records(body: &[u8], len: usize) -> Vec<u8> {
    let size = (body.len() as u32).to_be_bytes();
    let message = [&[CLIENT_HELLO][..], &size[1..], body].concat();
    let record = |part: &[u8]| [&[HANDSHAKE, 3, 1][..], &vector16(part)].concat();
    message.chunks(len).flat_map(record).collect()
}

fn named(name: &str) -> Result<Option<Hello>, BadHello> {
    Ok(Some(Hello::Named(name.to_owned())))
}

#[test]
fn a_real_client_is_read_at_every_split_and_in_every_size_of_records() {
    for (name, expected) in
        [("a.example", Hello::Named("a.example".into())), ("192.0.2.1", Hello::Nameless)]
    {
        let whole = flight(name);
        for at in 0..whole.len() {
            assert_eq!(read(&whole[..at]), Ok(None), "{at} bytes");
        }
        assert_eq!(read(&whole), Ok(Some(expected.clone())));
        for len in [1, 2, 3, 4, 5, 63, 1000] {
            let split = records(&whole[9..], len);
            assert_eq!(read(&split), Ok(Some(expected.clone())), "records of {len}");
            assert_eq!(read(&split[..split.len() - 1]), Ok(None));
        }
    }
}

#[test]
fn names_are_those_of_hosts() {
    let of = |name: &[u8]| read(&records(&body(&server_name(name)), 5000));
    assert_eq!(of(b"A.Example"), named("a.example"));
    assert_eq!(of(b"_x-1.a"), named("_x-1.a"));
    for wrong in
        [&b""[..], b".", b"a.", b".a", b"a..b", b"a b", b"a\0", b"\xc3\xa4", &[b'a'; 64], b"a/b"]
    {
        assert_eq!(of(wrong), Err(BadHello), "{wrong:?}");
    }
    let long = [&[b'a'; 63][..]; 4].join(&b'.');
    assert_eq!(of(&long), Err(BadHello), "255 bytes");
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let twice = [server_name(b"a"), server_name(b"b")].concat();
    let two_names = {
        let entry = |name: &[u8]| [&[HOST_NAME][..], &vector16(name)].concat();
        let list = [entry(b"a"), entry(b"b")].concat();
        [&[0, 0][..], &vector16(&vector16(&list))].concat()
    };
    let other_type = [&[0, 0][..], &vector16(&vector16(&[1, 0, 1, b'a']))].concat();
    let behind = [&body(&server_name(b"a"))[..], b"x"].concat();
    let behind_list = {
        let entry = [&[HOST_NAME][..], &vector16(b"a")].concat();
        [&[0, 0][..], &vector16(&[vector16(&entry), vec![9]].concat())].concat()
    };
    let mut odd_suites = body(&server_name(b"a"));
    odd_suites[36] = 1;
    for wrong in
        [body(&twice), body(&two_names), body(&other_type), body(&behind_list), behind, odd_suites]
    {
        assert_eq!(read(&records(&wrong, 5000)), Err(BadHello), "{wrong:?}");
    }
    let good = records(&body(&server_name(b"a")), 5000);
    assert_eq!(read(&good), named("a"));
    for (at, octet) in [(1, 2), (5, 2), (6, 1)] {
        let mut damaged = good.clone();
        damaged[at] = octet;
        assert_eq!(read(&damaged), Err(BadHello), "byte {at}");
    }
    let empty_record = [&[HANDSHAKE, 3, 1, 0, 0][..], &good].concat();
    assert_eq!(read(&empty_record), Err(BadHello));
    assert_eq!(read(&[HANDSHAKE, 3, 1, 0x40, 1]), Err(BadHello), "a record that is too long");
}

#[test]
fn no_extensions_mean_no_name_and_no_record_means_no_tls() {
    let mut old = body(b"");
    old.truncate(old.len() - 2);
    assert_eq!(read(&records(&old, 5000)), Ok(Some(Hello::Nameless)));
    assert_eq!(read(&records(&body(b""), 5000)), Ok(Some(Hello::Nameless)));
    assert_eq!(read(b""), Ok(None));
    assert_eq!(read(b"SSH-2.0-x\r\n"), Ok(Some(Hello::Foreign)));
}

#[test]
fn a_hello_is_bounded() {
    let endless = records(&vec![0; HELLO_BYTES_MAX], 1);
    assert_eq!(read(&endless[..HELLO_BYTES_MAX - 1]), Ok(None));
    assert_eq!(read(&endless[..HELLO_BYTES_MAX]), Err(BadHello));
    let announced = [HANDSHAKE, 3, 1, 0, 4, CLIENT_HELLO, 1, 0, 0];
    assert_eq!(read(&announced), Err(BadHello), "before it has come");
}

proptest! {
    #[test]
    fn no_answer_changes_with_more_bytes(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        at in 0..200_usize,
        len in 1..400_usize,
    ) {
        let mut hello = body(&server_name(b"a.example"));
        for (place, octet) in hello.iter_mut().skip(at).zip(bytes.iter().take(2)) {
            *place = *octet;
        }
        for input in [records(&hello, len), [&[HANDSHAKE, 3][..], &bytes].concat(), bytes] {
            let mut before = Ok(None);
            for end in 0..=input.len() {
                let now = read(&input[..end]);
                prop_assert!(before == Ok(None) || now == before, "{} {:?} {:?}", end, before, now);
                before = now;
            }
        }
    }
}
