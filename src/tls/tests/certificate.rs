use std::fs;

use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::*;
use crate::tls::sample::{Authority, server, shake};

const NOW_S: u64 = 1_800_000_000;

fn files(dir: &TempDir, certificate: &str, key: &str) -> CertificateFiles {
    let (certificate, key) = (dir.path().join(certificate), dir.path().join(key));
    CertificateFiles { certificate, key, path: "listen[0].tls.certificates[0]".to_owned() }
}

fn load(files: &CertificateFiles) -> Result<Rc<Certificate>, Finding> {
    Certificate::load(files, &Sources::of_disk(), None, NOW_S)
}

fn sample() -> (TempDir, Authority) {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    authority.write(dir.path(), "a", &["A.example", "*.b.example", "10.0.0.1"]);
    authority.write(dir.path(), "other", &["other.example"]);
    (dir, authority)
}

#[test]
fn a_certificate_has_its_names_in_lower_case() {
    let (dir, _) = sample();
    let certificate = load(&files(&dir, "a.pem", "a.key")).unwrap();
    assert_eq!(certificate.names, ["a.example".into(), Box::<str>::from("*.b.example")]);
    assert_eq!(certificate.warnings, []);
    for (host, is_covered) in [
        ("a.example", true),
        ("x.a.example", false),
        ("b.example", false),
        ("x.b.example", true),
        ("x.y.b.example", false),
        ("*.b.example", true),
        (".b.example", false),
    ] {
        assert_eq!(certificate.covers(host), is_covered, "{host}");
    }
}

#[test]
fn files_that_cannot_be_used_are_named_with_their_reason() {
    let (dir, _) = sample();
    let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    put("empty", "");
    put("text", "-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n");
    put("cut", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    put(
        "encrypted",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    put("der", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
    put("badkey", "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n");
    for (certificate, key, of, why) in [
        ("a.pem", "other.key", "key", "other.key does not match the certificate ("),
        ("none", "a.key", "certificate", "none cannot be read: No such file"),
        ("a.pem", "none", "key", "none cannot be read: No such file"),
        ("empty", "a.key", "certificate", "empty has no certificate"),
        ("a.pem", "empty", "key", "empty has no private key"),
        ("text", "a.key", "certificate", "text is no PEM file: a section is not base64"),
        ("cut", "a.key", "certificate", "cut is no PEM file: a section does not end"),
        ("der", "a.key", "certificate", "der has an invalid certificate: "),
        ("a.pem", "encrypted", "key", "encrypted is encrypted (decrypt it"),
        ("a.pem", "badkey", "key", "badkey has a key that is not supported"),
    ] {
        let finding = load(&files(&dir, certificate, key)).unwrap_err();
        assert_eq!(finding.key, format!("listen[0].tls.certificates[0].{of}"));
        let text = finding.message.replace(&format!("{}/", dir.path().display()), "");
        assert!(text.starts_with(why), "{text}");
    }
}

#[test]
fn a_certificate_that_clients_may_refuse_is_a_warning() {
    let (dir, authority) = sample();
    let key = KeyPair::generate().unwrap();
    fs::write(dir.path().join("k"), key.serialize_pem()).unwrap();
    let params = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        CertificateParams::new(names).unwrap()
    };
    let warnings = |pem: String| {
        fs::write(dir.path().join("c"), pem).unwrap();
        let files = files(&dir, "c", "k");
        let certificate = load(&files).unwrap();
        let mut found = certificate.warnings.clone();
        found.extend(certificate.namelessness(&files));
        let text: Vec<_> = found.into_iter().map(|found| found.message).collect();
        text.join("\n").replace(&format!("{}/", dir.path().display()), "")
    };
    let mut old = params(&["x.example"]);
    old.not_after = date_time_ymd(2020, 2, 1);
    let old = authority.sign_params(old, &key);
    assert_eq!(warnings(old), "c expired on Sat, 01 Feb 2020");
    let mut early = params(&["x.example"]);
    early.not_before = date_time_ymd(2040, 2, 1);
    let early = authority.sign_params(early, &key);
    assert_eq!(warnings(early), "c is not valid before Wed, 01 Feb 2040");
    let nameless = authority.sign_params(params(&[]), &key);
    assert!(warnings(nameless).starts_with("c names no host"));
    let leaf = authority.sign(&["x.example"], &key);
    assert_eq!(warnings(format!("{leaf}{}", authority.pem())), "");
    let mut stranger = params(&["x.example"]);
    stranger.distinguished_name.push(rcgen::DnType::CommonName, "a stranger");
    let stranger = authority.sign_params(stranger, &key);
    let found = warnings(format!("{leaf}{stranger}"));
    assert!(found.contains("certificate 2 is not the issuer of certificate 1"), "{found}");
}

#[test]
fn the_name_that_a_client_asks_for_chooses() {
    let (dir, authority) = sample();
    authority.write(dir.path(), "b", &["www.b.example"]);
    let tls = "{certificates: [{certificate: $DIR/other.pem, key: $DIR/other.key}, \
               {certificate: $DIR/a.pem, key: $DIR/a.key}, {certificate: $DIR/b.pem, key: $DIR/b.key}]}";
    let server = server(dir.path(), tls);
    let run = crate::reactor::run(async {
        for (asked, is_known) in [
            ("other.example", true),
            ("a.example", true),
            ("A.EXAMPLE", true),
            ("x.b.example", true),
            ("www.b.example", true),
            ("b.example", false),
            ("x.y.b.example", false),
            ("unknown.example", false),
        ] {
            let (client, accepted) = shake(&server, authority.client(), asked).await;
            // The client refuses a certificate of another name.
            assert_eq!(client.is_ok(), is_known, "{asked}");
            if let Ok(accepted) = accepted {
                assert_eq!(*accepted.facts.server_name, asked.to_lowercase());
            }
        }
        // An address is no name: the default.
        let mut client = authority.client();
        client.enable_sni = false;
        let (client, accepted) = shake(&server, client, "other.example").await;
        assert!(client.is_ok());
        let facts = accepted.unwrap().facts;
        assert_eq!((facts.version, &*facts.server_name), ("TLSv1.3", ""));
        assert!(facts.cipher.starts_with("TLS_AES_"), "{facts:?}");
    });
    run.unwrap();
}

#[test]
fn a_client_gets_the_certificate_of_a_key_that_it_can_verify() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    fs::write(dir.path().join("rsa.pem"), authority.sign(&["a.example"], &rsa)).unwrap();
    fs::write(dir.path().join("rsa.key"), rsa.serialize_pem()).unwrap();
    authority.write(dir.path(), "ec", &["a.example"]);
    let tls = "{certificates: [{certificate: $DIR/rsa.pem, key: $DIR/rsa.key}, \
               {certificate: $DIR/ec.pem, key: $DIR/ec.key}], versions: 1.2}";
    let server = server(dir.path(), tls);
    let run = crate::reactor::run(async {
        for (kind, expected) in [
            ("", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
            ("RSA", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
        ] {
            let mut provider = rustls::crypto::aws_lc_rs::default_provider();
            let suits = |suite: &rustls::SupportedCipherSuite| {
                suite.suite().as_str().unwrap_or_default().contains(kind)
            };
            provider.cipher_suites.retain(suits);
            let client = authority.client_by(provider);
            let (_client, accepted) = shake(&server, client, "a.example").await;
            assert_eq!(accepted.unwrap().facts.cipher, expected);
        }
    });
    run.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn damaged_files_never_panic(at in 0usize..4_000, byte: u8, cut in 0usize..4_000) {
        thread_local! {
            static SAMPLE: (TempDir, Authority) = sample();
        }
        SAMPLE.with(|(dir, authority)| {
            let text = fs::read(dir.path().join("a.pem")).unwrap();
            let mut text = [text, authority.pem().into_bytes()].concat();
            let len = text.len();
            text[at % len] = byte;
            text.truncate(len - cut % len);
            fs::write(dir.path().join("damaged"), text).unwrap();
            let _ = load(&files(dir, "damaged", "a.key"));
            let key = fs::read(dir.path().join("a.key")).unwrap();
            let mut key = key;
            let len = key.len();
            key[at % len] = byte;
            fs::write(dir.path().join("damaged.key"), key).unwrap();
            let _ = load(&files(dir, "a.pem", "damaged.key"));
        });
    }
}
