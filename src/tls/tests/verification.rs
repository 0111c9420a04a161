use std::fs;

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;

use super::*;

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn params(name: &str, is_ca: bool) -> CertificateParams {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2000, 1, 1);
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

fn root(name: &str) -> Issuer {
    CertifiedIssuer::self_signed(params(name, true), KeyPair::generate().unwrap()).unwrap()
}

fn below(name: &str, issuer: &Issuer) -> Issuer {
    CertifiedIssuer::signed_by(params(name, true), KeyPair::generate().unwrap(), issuer).unwrap()
}

fn client(serial: u64, issuer: &Issuer) -> CertificateDer<'static> {
    let mut params = params("a client", false);
    params.serial_number = Some(SerialNumber::from(serial));
    params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()
}

/// A list with one certificate; it was made and expires in these years.
fn list(issuer: &Issuer, serial: u64, (made, expires): (i32, i32)) -> String {
    let revoked = RevokedCertParams {
        serial_number: SerialNumber::from(serial),
        revocation_time: date_time_ymd(2020, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(made, 1, 1),
        next_update: date_time_ymd(expires, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(issuer).unwrap().pem().unwrap()
}

/// In 2026.
const NOW_S: u64 = 1_795_000_000;

struct Sample {
    dir: TempDir,
    root: Issuer,
    policy: ClientPolicy,
}

impl Sample {
    fn new() -> Self {
        let (dir, root) = (tempfile::tempdir().unwrap(), root("a root"));
        let file = |name| dir.path().join(name);
        fs::write(file("ca.pem"), root.pem()).unwrap();
        let authorities = vec![file("ca.pem")];
        let (path, lists) = ("listen.tls".to_owned(), Vec::new());
        let policy = ClientPolicy { is_required: true, authorities, depth: 1, lists, path };
        Self { dir, root, policy }
    }

    fn with_list(text: impl FnOnce(&Issuer) -> String) -> Self {
        let mut sample = Self::new();
        sample.write("crl", text(&sample.root).as_bytes());
        sample.policy.lists = vec![sample.dir.path().join("crl")];
        sample
    }

    fn write(&self, name: &str, text: &[u8]) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn load(&self) -> Result<Rc<Verification>, Finding> {
        Verification::load(&self.policy, &Sources::of_disk(), None, NOW_S)
    }

    /// The sentence about a file that cannot be used.
    fn fault(&self) -> String {
        let finding = self.load().unwrap_err();
        finding.to_string().replace(&format!("{}/", self.dir.path().display()), "")
    }

    fn verify(&self, chain: &[CertificateDer<'static>]) -> Result<(), String> {
        self.verify_at(chain, NOW_S)
    }

    fn verify_at(&self, chain: &[CertificateDer<'static>], now_s: u64) -> Result<(), String> {
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now_s));
        let (leaf, others) = chain.split_first().unwrap();
        let verifier = Arc::clone(&self.load().unwrap().verifier);
        let verified = verifier.verify_client_cert(leaf, others, now);
        verified.map(drop).map_err(|error| error.to_string())
    }
}

#[test]
fn a_certificate_of_another_authority_or_time_is_refused() {
    let sample = Sample::new();
    let own = client(1, &sample.root);
    assert_eq!(sample.verify(std::slice::from_ref(&own)), Ok(()));
    let far_s = NOW_S + (80_000 << 20);
    for (chain, now_s, why) in [
        (vec![client(1, &root("another root"))], NOW_S, "UnknownIssuer"),
        (vec![client(1, &root("a root"))], NOW_S, "BadSignature"),
        (vec![own.clone()], 1_000, "not valid yet"),
        (vec![CertificateDer::from(own[..own.len() - 1].to_vec())], NOW_S, "BadEncoding"),
        (vec![own], far_s, "expired"),
    ] {
        let found = sample.verify_at(&chain, now_s).unwrap_err();
        assert!(found.contains(why), "{why}: {found}");
    }
    assert!(sample.load().unwrap().verifier.client_auth_mandatory());
}

#[test]
fn a_chain_is_as_long_as_the_depth_and_may_hold_more_than_is_needed() {
    let mut sample = Sample::new();
    let one = below("one", &sample.root);
    let two = below("two", &one);
    let (of_one, of_two) = (client(1, &one), client(2, &two));
    let [one, two, root] = [&one, &two, &sample.root].map(|it| it.der().clone());
    let stray = self::root("a stray").der().clone();
    let deep = [of_two.clone(), two.clone(), one.clone()];
    assert_eq!(sample.verify(&[of_one.clone(), one.clone()]), Ok(()));
    assert_eq!(sample.verify(&[of_one.clone(), stray, root.clone(), one.clone()]), Ok(()));
    for chain in [&deep[..], &[of_two.clone(), two.clone(), one.clone(), root]] {
        let found = sample.verify(chain).unwrap_err();
        assert!(found.contains("longer than client-depth"), "{found}");
    }
    assert!(sample.verify(std::slice::from_ref(&of_one)).unwrap_err().contains("UnknownIssuer"));
    sample.policy.depth = 0;
    assert!(sample.verify(&[of_one, one]).is_err());
    sample.policy.depth = 2;
    assert_eq!(sample.verify(&deep), Ok(()));
}

#[test]
fn a_session_lasts_until_the_first_certificate_of_the_chain_expires() {
    let sample = Sample::new();
    let until_of = |seconds| {
        let mut until = Until::new();
        until.step(|| Until::set(seconds));
        until
    };
    let until = |year: i32| {
        let mut params = params("between", true);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let between = Issuer::signed_by(params, key, &sample.root).unwrap();
        let mut leaf = self::params("a client", false);
        leaf.not_after = date_time_ymd(2040, 1, 1);
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &between).unwrap();
        let mut until = Until::new();
        let verify = || sample.verify(&[leaf.der().clone(), between.der().clone()]);
        assert_eq!(until.step(verify), Ok(()));
        until
    };
    assert_eq!(until(2030), until_of(1_893_456_000));
    assert_eq!(until(2050), until_of(2_208_988_800));
}

#[test]
fn a_certificate_is_good_by_a_list_of_its_issuer_alone() {
    let sample = Sample::with_list(|root| list(root, 7, (2026, 2040)));
    assert_eq!(sample.verify(&[client(1, &sample.root)]), Ok(()));
    let found = sample.verify(&[client(7, &sample.root)]).unwrap_err();
    assert!(found.contains("Revoked"), "{found}");
    // The certificate between is good by the list of the root, and the client's by none.
    let between = below("between", &sample.root);
    let found = sample.verify(&[client(1, &between), between.der().clone()]).unwrap_err();
    assert!(found.contains("UnknownRevocationStatus"), "{found}");
    let both = list(&sample.root, 7, (2026, 2040)) + &list(&between, 9, (2026, 2040));
    sample.write("crl", both.as_bytes());
    assert_eq!(sample.verify(&[client(1, &between), between.der().clone()]), Ok(()));
    assert!(sample.verify(&[client(9, &between), between.der().clone()]).is_err());
    // With an expired list no client is known to be good.
    let sample = Sample::with_list(|root| list(root, 7, (2020, 2021)));
    let found = sample.verify(&[client(1, &sample.root)]).unwrap_err();
    assert!(found.contains("expired"), "{found}");
    let loaded = sample.load().unwrap();
    let warning = loaded.warnings[0].to_string();
    assert!(warning.contains("crl expired on Fri, 01 Jan 2021: the clients of"), "{warning}");
    assert!(loaded.until_s < NOW_S);
}

#[test]
fn the_newest_list_of_a_folder_counts() {
    let mut sample = Sample::new();
    let folder = sample.dir.path().join("lists");
    fs::create_dir(&folder).unwrap();
    sample.policy.lists = vec![folder];
    assert!(sample.fault().ends_with("lists has no files with the names of such files"));
    sample.write("lists/b.pem", list(&sample.root, 7, (2026, 2040)).as_bytes());
    sample.write("lists/a.CRL", list(&sample.root, 8, (2020, 2021)).as_bytes());
    for stray in [".part.pem", "README", "b.pem~", "b.crl.new", "b.tmp", "b.rx", "b.0"] {
        sample.write(&format!("lists/{stray}"), b"garbage");
    }
    assert_eq!(sample.verify(&[client(8, &sample.root)]), Ok(()));
    assert!(sample.verify(&[client(7, &sample.root)]).is_err());
    assert_eq!(sample.load().unwrap().warnings, []);
    let before = sample.load().unwrap();
    let again =
        Verification::load(&sample.policy, &Sources::of_disk(), Some(&before), NOW_S).unwrap();
    assert!(Rc::ptr_eq(&before, &again));
    sample.write("lists/c.r0", list(&sample.root, 1, (2025, 2040)).as_bytes());
    assert_ne!(sample.load().unwrap().digest, before.digest);
}

#[test]
fn files_that_cannot_be_used_are_named_with_their_reason() {
    let sample = Sample::with_list(|root| list(root, 7, (2026, 2040)));
    let forged = list(&root("a root"), 7, (2026, 2040));
    let der = CertificateRevocationListDer::from_pem_slice(forged.as_bytes()).unwrap();
    for (text, why) in [
        (&b""[..], "crl has no list of revoked certificates"),
        (b"hello", "crl has no list of revoked certificates"),
        (b"-----BEGIN X509 CRL-----\nAAAA\n", "crl is no PEM file: a section does not end"),
        (b"0\x03\x02\x01\x00", "crl has an invalid list of revoked certificates: "),
        (forged.as_bytes(), "crl has a signature that is not of its issuer"),
        (&der[..], "crl has a signature that is not of its issuer"),
    ] {
        sample.write("crl", text);
        let found = sample.fault();
        assert!(found.starts_with(&format!("listen.tls.client-crl: {why}")), "{found}");
    }
    sample.write("ca.pem", b"");
    assert!(sample.fault().starts_with("listen.tls.client-ca: ca.pem has no certificate"));
    fs::remove_file(sample.dir.path().join("ca.pem")).unwrap();
    assert!(sample.fault().starts_with("listen.tls.client-ca: ca.pem cannot be"));
}

/// A list with another issuer may be that of a certificate between, which only a handshake knows. It
/// leaves the clients of the real issuer without a list.
#[test]
fn a_list_that_is_damaged_in_any_byte_lets_in_no_client() {
    let sample = Sample::with_list(|root| list(root, 7, (2026, 2040)));
    let pem = list(&sample.root, 7, (2026, 2040));
    let der = CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).unwrap();
    for at in 0..der.len() {
        for bit in [1, 128] {
            let mut damaged = der.to_vec();
            damaged[at] ^= bit;
            sample.write("crl", &damaged);
            let is_refused = || {
                [1, 7].iter().all(|serial| sample.verify(&[client(*serial, &sample.root)]).is_err())
            };
            assert!(sample.load().is_err() || is_refused(), "byte {at}");
        }
        sample.write("crl", &der[..at]);
        assert!(sample.load().is_err(), "{at} bytes");
    }
    for at in 0..pem.len() {
        let mut damaged = pem.clone().into_bytes();
        damaged[at] ^= 2;
        sample.write("crl", &damaged);
        if sample.load().is_ok() {
            assert!(sample.verify(&[client(7, &sample.root)]).is_err(), "byte {at}");
        }
    }
}

proptest! {
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = lists(&bytes);
        let _ = Facts::of(&bytes);
    }
}
