//! Lists of revoked certificates (CRLs, RFC 5280 section 5) as they are in their files.
//!
//! rustls reads the list itself. Here are the facts that decide whether a list is taken at all: its
//! issuer, its times, and its signature.

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject as _;
use x509_cert::Certificate;
use x509_cert::der::asn1::{AnyRef, BitStringRef};
use x509_cert::der::{Decode as _, Encode as _, Error, Reader as _, Tag};
use x509_cert::time::Time;

use crate::tls::certificate::sentence;

/// The lists of a file, in PEM or DER; at least one.
///
/// # Errors
/// Why the file cannot be used, in one line.
pub fn lists(text: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    if memchr::memmem::find(text, b"-----BEGIN").is_none() && text.first() == Some(&SEQUENCE) {
        return Ok(vec![CertificateRevocationListDer::from(text.to_vec())]);
    }
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(text).collect();
    match lists {
        Ok(lists) if lists.is_empty() => Err(NO_LIST.to_owned()),
        Ok(lists) => Ok(lists),
        Err(error) => Err(format!("is no PEM file: {}", sentence(&error))),
    }
}

/// The facts of a list.
#[derive(Debug)]
pub struct Facts<'d> {
    /// The name of the issuer, in DER.
    pub(super) issuer: &'d [u8],
    /// When it was made, in seconds since 1970.
    pub(super) made_s: u64,
    /// When the next one is made at the latest.
    pub(super) expires_s: Option<u64>,
    signed: &'d [u8],
    algorithm: &'d [u8],
    signature: &'d [u8],
}

impl<'d> Facts<'d> {
    /// The facts of a list in DER.
    ///
    /// # Errors
    /// When it is none.
    pub fn of(der: &'d [u8]) -> Result<Self, Error> {
        let (signed, algorithm, signature) = AnyRef::from_der(der)?.sequence(|list| {
            let signed = list.tlv_bytes()?;
            let algorithm = AnyRef::decode(list)?.value();
            Ok::<_, Error>((signed, algorithm, BitStringRef::decode(list)?))
        })?;
        AnyRef::from_der(signed)?.sequence(|list| {
            if Tag::peek(list)? == Tag::Integer {
                list.tlv_bytes()?;
            }
            list.tlv_bytes()?;
            let issuer = list.tlv_bytes()?;
            let made_s = seconds(Time::decode(list)?);
            let has_next = !list.is_finished()
                && matches!(Tag::peek(list)?, Tag::UtcTime | Tag::GeneralizedTime);
            let expires_s = has_next.then(|| Time::decode(list).map(seconds)).transpose()?;
            list.drain(list.remaining_len())?;
            let signature = signature.raw_bytes();
            Ok(Self { issuer, made_s, expires_s, signed, algorithm, signature })
        })
    }

    /// Whether one of these certificates has signed the list; `None` if none is of its issuer, so
    /// that only a handshake can tell.
    pub(super) fn is_signed_by(
        &self,
        authorities: &[Certificate],
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Option<bool> {
        let is_issuer = |it: &&Certificate| {
            it.tbs_certificate().subject().to_der().is_ok_and(|name| name == self.issuer)
        };
        let mut issuers = authorities.iter().filter(is_issuer).peekable();
        issuers.peek()?;
        let has_signed = |issuer: &Certificate| {
            let key = issuer.tbs_certificate().subject_public_key_info();
            let key = key.subject_public_key.raw_bytes();
            let known = algorithms.all.iter();
            known.filter(|it| *it.signature_alg_id() == *self.algorithm).any(|algorithm| {
                algorithm.verify_signature(key, self.signed, self.signature).is_ok()
            })
        };
        Some(issuers.any(has_signed))
    }
}

fn seconds(time: Time) -> u64 {
    time.to_unix_duration().as_secs()
}

/// The first byte of a list in DER.
const SEQUENCE: u8 = 0x30;

const NO_LIST: &str = "has no list of revoked certificates (-----BEGIN X509 CRL-----)";
