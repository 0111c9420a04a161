use proptest::prelude::*;
use rcgen::{CertificateParams, DnType, KeyPair};

use super::*;
use crate::http::client_certificate::ClientCertificate;

const V4: &str = "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n";

fn client(source: &str, destination: &str) -> ProxyHeader {
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    ProxyHeader::Client { source, destination }
}

fn binary(command: u8, family: u8, variable: &[u8]) -> Vec<u8> {
    let len = (variable.len() as u16).to_be_bytes();
    [SIGNATURE, &[command, family], &len, variable].concat()
}

/// The variable part of a header with IPv4 addresses, and these type-length-values.
fn inet_with(values: &[u8]) -> Vec<u8> {
    [&[192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb], values].concat()
}

#[test]
fn a_text_header_gives_both_addresses() {
    let expected = client("192.0.2.1:56324", "198.51.100.2:443");
    let bytes = [V4.as_bytes(), b"GET / HTTP/1.1"].concat();
    assert_eq!(parse(&bytes), Ok(Some((expected, V4.len()))));
    let longest = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    let all_ones = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
    assert_eq!(parse(longest.as_bytes()), Ok(Some((client(all_ones, all_ones), longest.len()))));
    for unknown in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN whatever  it says\r\n"] {
        assert_eq!(parse(unknown.as_bytes()), Ok(Some((ProxyHeader::Local, unknown.len()))));
    }
}

#[test]
fn a_text_header_that_can_be_read_in_two_ways_is_refused() {
    for line in [
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\n",
        "PROXY TCP4  192.0.2.1 198.51.100.2 56324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 \r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 1\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 056324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 +1 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
        "PROXY TCP4 192.0.02.1 198.51.100.2 1 2\r\n",
        "PROXY TCP4 192.0.2 198.51.100.2 1 2\r\n",
        "PROXY TCP4 ::1 ::2 1 2\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY TCP5 192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\r\n",
        "PROXY \r\n",
    ] {
        assert_eq!(parse(line.as_bytes()), Err(ProxyFlaw::Malformed), "{line:?}");
    }
    for start in ["GET / HTTP/1.1\r\n", "proxy TCP4 ", "PROXY\t", "\r\n\r\n\r\n", "\x16\x03\x01"] {
        assert_eq!(parse(start.as_bytes()), Err(ProxyFlaw::Missing), "{start:?}");
    }
    assert_eq!(parse(&[b"PROXY UNKNOWN ", &[b'x'; 100][..]].concat()), Err(ProxyFlaw::TooLong));
}

#[test]
fn a_binary_header_gives_both_addresses() {
    let expected = client("192.0.2.1:56324", "198.51.100.2:443");
    let bytes = binary(0x21, 0x11, &inet_with(b""));
    assert_eq!(parse(&bytes), Ok(Some((expected, 28))));
    let mut variable = [Ipv6Addr::LOCALHOST.octets(), Ipv6Addr::UNSPECIFIED.octets()].concat();
    variable.extend([0, 1, 0, 2]);
    let bytes = binary(0x21, 0x21, &variable);
    assert_eq!(parse(&bytes), Ok(Some((client("[::1]:1", "[::]:2"), 52))));
    for (command, family, variable) in [
        (0x20, 0x00, vec![]),
        (0x20, 0x11, inet_with(b"")),
        (0x20, 0x11, b"short".to_vec()),
        (0x20, 0xff, b"anything".to_vec()),
        (0x21, 0x00, b"anything".to_vec()),
        (0x21, 0x12, inet_with(b"")),
        (0x21, 0x31, vec![0; 216]),
    ] {
        let bytes = binary(command, family, &variable);
        assert_eq!(parse(&bytes), Ok(Some((ProxyHeader::Local, bytes.len()))), "{family:#x}");
    }
}

#[test]
fn a_binary_header_out_of_order_is_refused() {
    for (command, family, variable) in [
        (0x11, 0x11, inet_with(b"")),
        (0x22, 0x11, inet_with(b"")),
        (0x21, 0x41, inet_with(b"")),
        (0x21, 0x13, inet_with(b"")),
        (0x21, 0x11, inet_with(b"").split_off(1)),
        (0x21, 0x21, inet_with(b"")),
        (0x21, 0x11, inet_with(&[0x04])),
        (0x21, 0x11, inet_with(&[0x04, 0, 2, 0])),
        (0x21, 0x11, inet_with(&[0x03, 0, 3, 0, 0, 0])),
    ] {
        let bytes = binary(command, family, &variable);
        assert_eq!(parse(&bytes), Err(ProxyFlaw::Malformed), "{command:#x} {family:#x}");
    }
    let long = binary(0x21, 0x11, &vec![0; HEADER_BYTES_MAX]);
    assert_eq!(parse(long.get(..16).unwrap()), Err(ProxyFlaw::TooLong), "before it has come");
}

#[test]
fn type_length_values_are_skipped_and_their_checksum_is_checked() {
    let values =
        [&[0x01, 0, 2][..], b"h2", &[0xe0, 0, 0, TYPE_CRC32C, 0, 4, 0, 0, 0, 0, 0x04, 0, 1, 0]];
    let mut bytes = binary(0x21, 0x11, &inet_with(&values.concat()));
    assert_eq!(parse(&bytes), Err(ProxyFlaw::Checksum));
    let crc = crc32c::crc32c(&bytes).to_be_bytes();
    let at = bytes.len() - 8;
    bytes[at..at + 4].copy_from_slice(&crc);
    let expected = client("192.0.2.1:56324", "198.51.100.2:443");
    assert_eq!(parse(&bytes), Ok(Some((expected, bytes.len()))));
    // Of another type, the checksum is none.
    let at_type = at - 3;
    for at in (16..bytes.len()).filter(|at| *at != at_type) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert_ne!(parse(&damaged), Ok(Some((expected, bytes.len()))), "byte {at}");
    }
}

/// The values behind the addresses of a header, of which each has a type and its bytes.
fn values(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some((value, rest)) = next_value(bytes) {
        all.push((bytes[0], value.to_vec()));
        bytes = rest;
    }
    assert!(bytes.is_empty());
    all
}

fn shown_by(common_name: &str) -> ClientCertificate {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    ClientCertificate::new([&made.der()[..]]).unwrap()
}

#[test]
fn an_upstream_is_told_of_the_clients_tls_and_of_the_request() {
    let (version, cipher) = ("TLSv1.3", "TLS_AES_128_GCM_SHA256");
    let tls = TlsFacts { version, cipher, ..TlsFacts::default() };
    let addresses = Some(("192.0.2.1:56324".parse().unwrap(), "198.51.100.2:443".parse().unwrap()));
    let (unique_id, protocol) = (b"id", b"http/1.1");
    let told = Told { addresses, unique_id, tls: Some(&tls), protocol, authority: b"a.example" };
    let header = Version::V2.header(&told);
    let expected = client("192.0.2.1:56324", "198.51.100.2:443");
    assert_eq!(parse(&header), Ok(Some((expected, header.len()))));
    let all = values(&header[FIXED_BYTES + 12..]);
    let value = |kind| all.iter().find(|(it, _)| *it == kind).unwrap().1.clone();
    assert_eq!(value(TYPE_UNIQUE_ID), b"id");
    assert_eq!(value(TYPE_ALPN), b"http/1.1");
    assert_eq!(value(TYPE_AUTHORITY), b"a.example");
    let (client, inner) =
        value(TYPE_TLS).split_at_checked(5).map(|(a, b)| (a.to_vec(), b.to_vec())).unwrap();
    assert_eq!(client, [1, 0, 0, 0, 1], "TLS, and no verified certificate");
    let expected =
        [(TYPE_TLS_VERSION, version.into()), (TYPE_TLS_CIPHER, cipher.as_bytes().to_vec())];
    assert_eq!(values(&inner), expected);
    let name = "Jos\u{e9}";
    for (common_name, told_name) in [(name, Some(name.into())), (&"x".repeat(600), None)] {
        let tls = TlsFacts { client: Some(shown_by(common_name)), ..tls.clone() };
        let header = Version::V2.header(&Told { tls: Some(&tls), ..told });
        let all = values(&header[FIXED_BYTES + 12..]);
        let value = &all.iter().find(|(kind, _)| *kind == TYPE_TLS).unwrap().1;
        assert_eq!(value[..5], [5, 0, 0, 0, 0], "TLS, and a certificate that was verified");
        let inner = values(&value[5..]);
        let inner = inner.into_iter().find(|(kind, _)| *kind == TYPE_TLS_COMMON_NAME);
        assert_eq!(inner.map(|(_, name)| name), told_name);
    }
    assert_eq!(Version::V1.header(&told), V4.as_bytes());
    // Without TLS nothing is said of it, and an unknown address is no reason to leave out the id.
    let plain = Version::V2.header(&Told { tls: None, addresses: None, authority: b"", ..told });
    assert_eq!(parse(&plain), Ok(Some((ProxyHeader::Local, plain.len()))));
    assert_eq!(values(&plain[FIXED_BYTES..]), [(TYPE_UNIQUE_ID, b"id".to_vec())]);
}

fn addresses() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let address = any::<(IpAddr, u16)>().prop_map(|(ip, port)| SocketAddr::new(ip, port));
    (address.clone(), address)
}

proptest! {
    #[test]
    fn a_written_header_means_the_same_when_it_is_read(
        (source, destination) in addresses(),
        id in proptest::collection::vec(any::<u8>(), 0..300),
        behind in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let (source, destination) = canonical((source, destination));
        let addresses = Some((source, destination));
        let told = Told { addresses, unique_id: &id, ..Told::default() };
        for header in [Version::V1.header(&told), Version::V2.header(&told)] {
            let len = header.len();
            for at in 0..len {
                prop_assert_eq!(parse(&header[..at]), Ok(None), "{}", at);
            }
            let bytes = [header, behind.clone()].concat();
            prop_assert_eq!(parse(&bytes), Ok(Some((ProxyHeader::Client { source, destination }, len))));
        }
    }

    #[test]
    fn no_bytes_are_read_beyond_the_header_and_no_answer_changes_with_more(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        start in 0..3usize,
    ) {
        let bytes = [[&b""[..], TEXT_START, SIGNATURE][start], &bytes].concat();
        if let Ok(Some((header, len))) = parse(&bytes) {
            prop_assert!(len <= bytes.len());
            prop_assert_eq!(parse(&bytes[..len]), Ok(Some((header, len))));
            prop_assert_eq!(parse(&bytes[..len - 1]), Ok(None));
        }
    }
}

#[test]
fn a_header_without_usable_addresses_is_still_one() {
    let nothing = Told::default();
    for text in [Version::V1.local(), Version::V1.header(&nothing)] {
        assert_eq!(text, b"PROXY UNKNOWN\r\n");
    }
    for (binary, command) in [(Version::V2.local(), LOCAL), (Version::V2.header(&nothing), PROXY)] {
        assert_eq!(binary[12], command);
        assert_eq!(parse(&binary), Ok(Some((ProxyHeader::Local, 16))));
    }
    let mapped = |ip: &str, port| SocketAddr::new(ip.parse().unwrap(), port);
    let addresses = Some((mapped("::ffff:192.0.2.1", 1), mapped("192.0.2.2", 2)));
    let text = Version::V1.header(&Told { addresses, ..nothing });
    assert_eq!(text, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
}
