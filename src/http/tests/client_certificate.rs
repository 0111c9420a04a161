use proptest::prelude::*;
use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair, SerialNumber, date_time_ymd};

use super::*;

fn certificate(change: impl FnOnce(&mut CertificateParams)) -> ClientCertificate {
    let mut params = CertificateParams::new([]).unwrap();
    change(&mut params);
    let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    ClientCertificate::new([&made.der()[..]]).unwrap()
}

#[test]
fn a_certificate_is_told_in_words() {
    let client = certificate(|params| {
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CountryName, "DE");
        params.distinguished_name.push(DnType::OrganizationName, "M\u{fc}ller, \"Sohn\"+");
        params.distinguished_name.push(DnType::CommonName, "a\r\nadmin");
        params.serial_number = Some(SerialNumber::from_slice(&[0, 0xab, 1]));
        params.not_before = date_time_ymd(2026, 1, 2);
        params.not_after = date_time_ymd(2036, 3, 4);
    });
    let subject = r#"CN=a\0d\0aadmin,O=M\C3\BCller\, \"Sohn\"\+,C=DE"#;
    assert_eq!((client.subject(), client.issuer()), (subject, subject));
    assert_eq!(client.serial(), "AB01");
    let (begins, expires) = ("2026-01-02T00:00:00Z", "2036-03-04T00:00:00Z");
    assert_eq!((client.not_before(), client.not_after()), (begins, expires));
    assert_eq!((client.sha256().len(), client.sha1().len()), (64, 40));
    assert_eq!(client.chain_field(), "");
    let field = client.field();
    assert!(field.starts_with(":MII") && field.ends_with(':'), "{field}");
    let with_chain = ClientCertificate::new([&b"a"[..], b"bc", b"def"]).unwrap();
    assert_eq!(with_chain.field(), ":YQ==:");
    assert_eq!(with_chain.chain_field(), ":YmM=:, :ZGVm:");
    assert_eq!(with_chain.subject(), "");
    assert_eq!(ClientCertificate::new([]), None);
}

#[test]
fn extensions_are_texts_where_no_other_value_is_written_alike() {
    let long = [&b"\x0c\x82\x20\x00"[..], &[b'x'; 8192]].concat();
    let text = "x".repeat(8192);
    for (der, expected) in [
        (&b"\x0c\x05admin"[..], "admin"),
        (b"\x16\x03a@b", "a@b"),
        (b"\x13\x01x", "x"),
        (b"\x0c\x03\xc3\xbcx", "\u{fc}x"),
        (b"\x02\x02\x01\x00", "256"),
        (b"\x02\x01\xff", "-1"),
        (b"\x01\x01\xff", ":AQH/:"),
        (b"\x0c\x02a\n", ":DAJhCg==:"),
        (b"\x0c\x02 a", ":DAIgYQ==:"),
        (b"\x0c\x06:YQ==:", ":DAY6WVE9PTo=:"),
        (b"\x0c\x00", ":DAA=:"),
        (b"\x0c\x05ad", ":DAVhZA==:"),
        (&long, &text),
    ] {
        let client = certificate(|params| {
            let of = |last| CustomExtension::from_oid_content(&[1, 2, 3, last], der.to_vec());
            params.custom_extensions = vec![of(4)];
        });
        assert_eq!(client.extension(Oid::new_unwrap("1.2.3.4")), expected);
        assert_eq!(client.extension(Oid::new_unwrap("1.2.3.5")), "");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic_and_no_text_ends_a_line(at in any::<usize>(), byte: u8, cut in 0..40_usize) {
        thread_local! {
            static SAMPLE: ClientCertificate = certificate(|params| {
                params.distinguished_name.push(DnType::OrganizationName, "an organization");
                let der = b"\x0c\x05admin".to_vec();
                params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], der)];
            });
        }
        let mut der = SAMPLE.with(|sample| sample.leaf.to_vec());
        let len = der.len();
        der[at % len] = byte;
        der.truncate(len - cut % len);
        let client = ClientCertificate::new([&der[..]]).unwrap();
        let extension = client.extension(Oid::new_unwrap("1.2.3.4"));
        for text in [client.subject(), client.issuer(), client.serial(), &extension] {
            prop_assert!(!text.contains(char::is_control));
        }
    }
}
