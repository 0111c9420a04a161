//! A certificate with its chain and its private key, as they are in their files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::config::tls::CertificateFiles;
use crate::http::date;
use crate::tls::sources::Sources;

/// A certificate, its key, and what they are for.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    /// The DNS names of its subjectAltName, in lower case.
    pub(super) names: Vec<Box<str>>,
    /// The file of the certificate.
    pub(crate) file: PathBuf,
    /// When it expires, in seconds since 1970.
    pub(crate) expires_s: u64,
    /// Of both files.
    pub(crate) digest: Digest,
    /// The warnings about it.
    pub(super) warnings: Vec<Finding>,
}

/// SHA-256 of the bytes that something was made of.
pub(crate) type Digest = [u8; 32];

/// A mistake or a warning: the key of the configuration, and the sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) key: String,
    pub(crate) message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

impl Finding {
    pub(super) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

impl Certificate {
    /// The certificate and key of these files, or `before` if that was made of the same bytes;
    /// `now_s` is the time since 1970.
    pub(crate) fn load(
        files: &CertificateFiles,
        sources: &Sources,
        before: Option<&Rc<Self>>,
        now_s: u64,
    ) -> Result<Rc<Self>, Finding> {
        let of_certificate = format!("{}.certificate", files.path);
        let wrong = |why: &str| Finding::new(&*of_certificate, named(&files.certificate, why));
        let text = sources.read(&files.certificate, FILE_BYTES_MAX).map_err(|it| wrong(&it))?;
        let key_text = sources
            .read(&files.key, FILE_BYTES_MAX)
            .map_err(|why| Finding::new(format!("{}.key", files.path), named(&files.key, &why)))?;
        let digest = digest_of([text.as_slice(), key_text.as_slice()]);
        if let Some(before) = before.filter(|before| before.digest == digest) {
            return Ok(Rc::clone(before));
        }
        let chain = chain(&text).map_err(|why| wrong(&why))?;
        let parsed: Result<Vec<_>, _> =
            chain.iter().map(|der| x509_cert::Certificate::from_der(der)).collect();
        let parsed =
            parsed.map_err(|error| wrong(&format!("has an invalid certificate: {error}")))?;
        let leaf = parsed.first().map(x509_cert::Certificate::tbs_certificate);
        let leaf = leaf.ok_or_else(|| wrong(NO_CERTIFICATE))?;
        let key = private_key(files, &key_text)?;
        let key = CertifiedKey::new(chain, key);
        if key.keys_match().is_err() {
            let why = format!("does not match the certificate ({})", files.certificate.display());
            return Err(Finding::new(format!("{}.key", files.path), named(&files.key, &why)));
        }
        let mut warnings = Vec::new();
        let mut warn = |why: &str| warnings.push(wrong(why));
        let validity = leaf.validity();
        let begins_s = validity.not_before.to_unix_duration().as_secs();
        let expires_s = validity.not_after.to_unix_duration().as_secs();
        if now_s > expires_s {
            warn(&format!("expired on {}", day(expires_s)));
        } else if now_s < begins_s {
            warn(&format!("is not valid before {}", day(begins_s)));
        }
        for (number, pair) in (1..).zip(parsed.windows(2)) {
            let [subject, issuer] = pair else { continue };
            if subject.tbs_certificate().issuer() != issuer.tbs_certificate().subject() {
                let next = number + 1;
                warn(&format!(
                    "has its chain out of order: certificate {next} is not the issuer of certificate {number}"
                ));
            }
        }
        let (names, file) = (dns_names(leaf), files.certificate.clone());
        Ok(Rc::new(Self { key: Arc::new(key), names, file, expires_s, digest, warnings }))
    }

    /// The warning that it names no host, which a certificate of a listener should.
    pub(super) fn namelessness(&self, files: &CertificateFiles) -> Option<Finding> {
        let why = "names no host (subjectAltName): clients get it only by default";
        let finding =
            || Finding::new(format!("{}.certificate", files.path), named(&files.certificate, why));
        self.names.is_empty().then(finding)
    }

    /// Whether one of its names is this host, in lower case.
    pub(crate) fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| match name.strip_prefix('*') {
            Some(parent) => parent_of(host) == Some(parent),
            None => **name == *host,
        })
    }
}

/// The part of a host behind its first label, with the dot: what a wildcard stands for.
pub(super) fn parent_of(host: &str) -> Option<&str> {
    host.find('.').filter(|at| *at > 0).map(|at| &host[at..])
}

/// The certificates of a PEM file; at least one.
pub(super) fn chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(NO_CERTIFICATE.to_owned()),
        Ok(chain) => Ok(chain),
        Err(error) => Err(format!("is no PEM file: {}", sentence(&error))),
    }
}

fn private_key(
    files: &CertificateFiles,
    text: &[u8],
) -> Result<Arc<dyn rustls::sign::SigningKey>, Finding> {
    let wrong = |why: &str| Finding::new(format!("{}.key", files.path), named(&files.key, why));
    let is_encrypted = [&b"BEGIN ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"]
        .iter()
        .any(|mark| memchr::memmem::find(text, mark).is_some());
    if is_encrypted {
        return Err(wrong("is encrypted (decrypt it with \"openssl pkey -in KEY -out PLAIN\")"));
    }
    let key = PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound => wrong("has no private key (-----BEGIN PRIVATE KEY-----)"),
        error => wrong(&format!("is no PEM file: {}", sentence(&error))),
    })?;
    any_supported_type(&key).map_err(|_| {
        wrong("has a key that is not supported (RSA, ECDSA P-256, P-384 or P-521, or Ed25519)")
    })
}

fn dns_names(leaf: &x509_cert::TbsCertificate) -> Vec<Box<str>> {
    let Ok(Some((_, SubjectAltName(names)))) = leaf.get_extension::<SubjectAltName>() else {
        return Vec::new();
    };
    let dns = names.iter().filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.as_str().trim_end_matches('.')),
        _ => None,
    });
    // A wildcard is a whole label, the first one, RFC 9525 section 6.3.
    let is_usable = |name: &&str| !name.strip_prefix("*.").unwrap_or(name).contains('*');
    dns.filter(is_usable).map(|name| name.to_ascii_lowercase().into()).collect()
}

pub(super) fn sentence(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section does not end".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a section does not begin".to_owned(),
        pem::Error::Base64Decode(_) => "a section is not base64".to_owned(),
        error => error.to_string(),
    }
}

/// The digest of texts, each with its length.
pub(super) fn digest_of<'t>(texts: impl IntoIterator<Item = &'t [u8]>) -> Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    for text in texts {
        context.update(&text.len().to_be_bytes());
        context.update(text);
    }
    context.finish().as_ref().first_chunk().copied().unwrap_or_default()
}

fn named(file: &Path, why: &str) -> String {
    format!("{} {why}", file.display())
}

/// The date of a time as in `Sun, 06 Nov 1994`.
pub(crate) fn day(unix_s: u64) -> String {
    date::format(unix_s).iter().take(16).map(|&byte| char::from(byte)).collect()
}

const NO_CERTIFICATE: &str = "has no certificate (-----BEGIN CERTIFICATE-----)";

/// A longer file is no certificate.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
#[path = "tests/certificate.rs"]
mod tests;
