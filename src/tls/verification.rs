//! How the certificates of clients are verified under one policy: the authorities, the lists of
//! revoked certificates, and the most certificates between.
//!
//! A certificate between a client and an authority is revoked, or not, by the list of its issuer. As
//! with OpenSSL, an issuer without a list is no better than an expired one: the client is refused.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use thiserror::Error as ThisError;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::name::Name;

use crate::config::tls::ClientPolicy;
use crate::tls::certificate::{Digest, FILE_BYTES_MAX, Finding, chain, day, digest_of};
use crate::tls::crl::{Facts, lists};
use crate::tls::parts::Part;
use crate::tls::sources::{Sources, Text};
use crate::tls::tickets::Until;

/// How the certificates of clients are verified.
#[derive(Debug)]
pub(crate) struct Verification {
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    /// Of all that it depends on.
    pub(super) digest: Digest,
    /// Until when its lists are valid, in seconds since 1970.
    pub(super) until_s: u64,
    /// The newest list of each issuer, and when it expires.
    pub(super) lists: Vec<(PathBuf, u64)>,
    pub(super) warnings: Vec<Finding>,
}

impl Part for Verification {
    fn digest(&self) -> Digest {
        self.digest
    }
}

impl Verification {
    /// The verification by the files of a policy, or `before` if that was made of the same bytes.
    pub(super) fn load(
        policy: &ClientPolicy,
        sources: &Sources,
        before: Option<&Rc<Self>>,
        now_s: u64,
    ) -> Result<Rc<Self>, Finding> {
        let of_ca = Files { key: format!("{}.client-ca", policy.path), sources };
        let of_crl = Files { key: format!("{}.client-crl", policy.path), sources };
        let authorities = of_ca.read(&policy.authorities, is_of_authority, FILE_BYTES_MAX)?;
        let revoked = of_crl.read(&policy.lists, is_of_list, LISTS_BYTES_MAX)?;
        let n_authorities = authorities.len().to_be_bytes();
        let own = [u8::from(policy.is_required), policy.depth as u8];
        let texts = authorities.iter().chain(&revoked).map(|(_, text)| &text[..]);
        let digest = digest_of([&own[..], &n_authorities].into_iter().chain(texts));
        if let Some(before) = before.filter(|before| before.digest == digest) {
            return Ok(Rc::clone(before));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (roots, certificates) = of_ca.authorities(&authorities)?;
        let lists = of_crl.lists(&revoked, &certificates, &provider)?;
        let newest = lists.newest();
        let expired = newest.iter().filter(|it| it.expires_s < now_s);
        let warnings = expired.map(|it| {
            let day = day(it.expires_s);
            of_crl
                .wrong(it.file, &format!("expired on {day}: the clients of its issuer are refused"))
        });
        let warnings = warnings.collect();
        let until_s = newest.iter().map(|it| it.expires_s).min().unwrap_or(u64::MAX);
        let build = |lists: Vec<CertificateRevocationListDer<'static>>| {
            let roots = Arc::new(roots.clone());
            let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
            let builder = builder.with_crls(lists).enforce_revocation_expiration();
            match policy.is_required {
                true => builder.build(),
                false => builder.allow_unauthenticated().build(),
            }
        };
        let all = lists.0.iter().map(|it| it.der.clone());
        let inner = build(all.collect()).map_err(|error| {
            let is_bad = |it: &&List<'_>| build(vec![it.der.clone()]).is_err();
            match lists.0.iter().find(is_bad) {
                Some(list) => of_crl.wrong(list.file, &format!("cannot be used: {error}")),
                None => Finding::new(&*policy.path, error.to_string()),
            }
        })?;
        let subjects = certificates.iter().map(|it| it.tbs_certificate().subject().clone());
        let verifier =
            Arc::new(Bounded { inner, subjects: subjects.collect(), depth: policy.depth });
        let newest = newest.iter().map(|it| (it.file.to_owned(), it.expires_s)).collect();
        Ok(Rc::new(Self { verifier, digest, until_s, lists: newest, warnings }))
    }
}

/// The files that a key of the configuration names.
struct Files<'a> {
    key: String,
    sources: &'a Sources,
}

impl Files<'_> {
    fn wrong(&self, file: &Path, why: &str) -> Finding {
        Finding::new(&*self.key, format!("{} {why}", file.display()))
    }

    /// The bytes of all files, those of the folders among them that end so, in the order of their names.
    fn read(
        &self,
        paths: &[PathBuf],
        is_own: fn(&[u8]) -> bool,
        bytes_max: u64,
    ) -> Result<Vec<(PathBuf, Text)>, Finding> {
        let mut texts = Vec::new();
        for path in paths {
            let folder = self.sources.files_in(path).map_err(|why| self.wrong(path, &why))?;
            let files = match folder {
                None => vec![path.clone()],
                Some(files) => files.into_iter().filter(|file| ends_so(file, is_own)).collect(),
            };
            if files.is_empty() {
                return Err(self.wrong(path, "has no files with the names of such files"));
            }
            for file in files {
                let text = self.sources.read(&file, bytes_max);
                let text = text.map_err(|why| self.wrong(&file, &why))?;
                texts.push((file, text));
            }
        }
        Ok(texts)
    }

    fn authorities(
        &self,
        texts: &[(PathBuf, Text)],
    ) -> Result<(RootCertStore, Vec<Certificate>), Finding> {
        let (mut roots, mut certificates) = (RootCertStore::empty(), Vec::new());
        for (file, text) in texts {
            for der in chain(text).map_err(|why| self.wrong(file, &why))? {
                let wrong = |why: &dyn fmt::Display| {
                    self.wrong(file, &format!("has an invalid certificate: {why}"))
                };
                let certificate = Certificate::from_der(&der).map_err(|error| wrong(&error))?;
                // Folders name a certificate twice, by a link of its hash.
                if !certificates.contains(&certificate) {
                    roots.add(der).map_err(|error| wrong(&error))?;
                    certificates.push(certificate);
                }
            }
        }
        Ok((roots, certificates))
    }

    fn lists<'t>(
        &self,
        texts: &'t [(PathBuf, Text)],
        authorities: &[Certificate],
        provider: &CryptoProvider,
    ) -> Result<Lists<'t>, Finding> {
        let mut all: Vec<List<'_>> = Vec::new();
        for (file, text) in texts {
            for der in lists(text).map_err(|why| self.wrong(file, &why))? {
                let facts = Facts::of(&der).map_err(|error| {
                    self.wrong(
                        file,
                        &format!("has an invalid list of revoked certificates: {error}"),
                    )
                })?;
                let algorithms = &provider.signature_verification_algorithms;
                if facts.is_signed_by(authorities, algorithms) == Some(false) {
                    return Err(self.wrong(file, "has a signature that is not of its issuer"));
                }
                let Facts { issuer, made_s, expires_s, .. } = facts;
                let (issuer, expires_s) = (issuer.to_vec(), expires_s.unwrap_or(u64::MAX));
                all.push(List { file, issuer, made_s, expires_s, der });
            }
        }
        // Of several lists of an issuer, rustls takes the first.
        all.sort_by_key(|list| std::cmp::Reverse(list.made_s));
        Ok(Lists(all))
    }
}

/// A list of revoked certificates.
struct List<'t> {
    file: &'t Path,
    issuer: Vec<u8>,
    made_s: u64,
    expires_s: u64,
    der: CertificateRevocationListDer<'static>,
}

/// Lists, the newest first.
struct Lists<'t>(Vec<List<'t>>);

impl Lists<'_> {
    /// The newest of each issuer.
    fn newest(&self) -> Vec<&List<'_>> {
        let mut seen = HashSet::new();
        self.0.iter().filter(|list| seen.insert(&list.issuer)).collect()
    }
}

/// Whether a file of a folder is one to read, by what is behind the last dot of its name. Others are for
/// people, or are being written.
fn ends_so(file: &Path, is_own: fn(&[u8]) -> bool) -> bool {
    let is_hidden = file.file_name().unwrap_or_default().as_encoded_bytes().starts_with(b".");
    let end = file.extension().unwrap_or_default().as_encoded_bytes();
    !is_hidden && is_own(&end.to_ascii_lowercase())
}

/// The digit is that of a link by openssl-rehash(1).
const fn is_of_authority(end: &[u8]) -> bool {
    matches!(end, b"pem" | b"crt" | b"cer" | b"der" | [b'0'..=b'9'])
}

const fn is_of_list(end: &[u8]) -> bool {
    matches!(end, b"pem" | b"crl" | b"der" | [b'r', b'0'..=b'9'])
}

/// Verifies as another verifier does, with a bound on the certificates between a client's and an
/// authority.
#[derive(Debug)]
struct Bounded {
    inner: Arc<dyn ClientCertVerifier>,
    /// The names of the authorities.
    subjects: Vec<Name>,
    depth: usize,
}

/// The chain of a client has more certificates than `client-depth`.
#[derive(ThisError)]
#[error("the chain of certificates is longer than client-depth")]
struct TooDeep;

/// rustls shows it in this form.
impl fmt::Debug for TooDeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Bounded {
    /// The certificates between a client's and an authority, by their names, from the client's on. The
    /// client may have sent others, and an authority itself.
    fn between<'c>(
        &self,
        end_entity: &Certificate,
        sent: &'c [CertificateDer<'c>],
    ) -> Result<Vec<CertificateDer<'c>>, CertificateError> {
        let mut known = Vec::with_capacity(sent.len());
        for der in sent {
            let parsed = Certificate::from_der(der).map_err(|_| CertificateError::BadEncoding)?;
            known.push((der, parsed));
        }
        let mut path = Vec::new();
        let mut issuer = end_entity.tbs_certificate().issuer();
        while !self.subjects.contains(issuer) {
            let found = known.iter().find(|(_, it)| it.tbs_certificate().subject() == issuer);
            let (der, parsed) = found.ok_or(CertificateError::UnknownIssuer)?;
            if path.len() == self.depth {
                return Err(CertificateError::Other(OtherError(Arc::new(TooDeep))));
            }
            path.push((*der).clone());
            issuer = parsed.tbs_certificate().issuer();
        }
        Ok(path)
    }
}

impl ClientCertVerifier for Bounded {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // Origins are told of the certificate by the same parser.
        let parsed =
            Certificate::from_der(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        let sent = match intermediates.len() <= self.depth {
            true => intermediates,
            false => &self.between(&parsed, intermediates)?,
        };
        let others =
            sent.iter().map(|der| Certificate::from_der(der).map_or(0, |it| not_after(&it)));
        Until::set(others.fold(not_after(&parsed), u64::min));
        self.inner.verify_client_cert(end_entity, sent, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// When a certificate expires, in seconds since 1970.
fn not_after(certificate: &Certificate) -> u64 {
    certificate.tbs_certificate().validity().not_after.to_unix_duration().as_secs()
}

/// A longer file is no list.
const LISTS_BYTES_MAX: u64 = 64 << 20;

#[cfg(test)]
#[path = "tests/verification.rs"]
mod tests;
