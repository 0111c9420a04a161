//! The certificate that a client has shown, in the words in which an origin is told of it.
//!
//! Names are those of RFC 4514, in ASCII: any other byte is a backslash and two hexadecimal digits.
//! Bytes are a byte sequence of RFC 9651: base64 between colons, as RFC 9440 has them.

use std::cell::OnceCell;

use aws_lc_rs::digest::{self, Algorithm};
use x509_cert::Certificate;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::{Decode as _, Tag, Tagged as _};
use x509_cert::name::Name;

/// The object identifier of an extension.
pub type Oid = ObjectIdentifier;

/// The certificates of a client, in DER: its own, and those of issuers that it sent behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    leaf: Box<[u8]>,
    others: Vec<Box<[u8]>>,
    texts: OnceCell<Box<Texts>>,
}

/// The facts of a certificate, which are read once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Texts {
    subject: String,
    issuer: String,
    serial: String,
    not_before: String,
    not_after: String,
}

impl ClientCertificate {
    /// The first is the client's own; `None` without one.
    pub fn new<'c>(chain: impl IntoIterator<Item = &'c [u8]>) -> Option<Self> {
        let mut chain = chain.into_iter().map(Box::from);
        let leaf = chain.next()?;
        Some(Self { leaf, others: chain.collect(), texts: OnceCell::new() })
    }

    /// The name of its subject.
    pub fn subject(&self) -> &str {
        &self.texts().subject
    }

    /// The name of its issuer.
    pub fn issuer(&self) -> &str {
        &self.texts().issuer
    }

    /// Its serial number, in hexadecimal digits.
    pub fn serial(&self) -> &str {
        &self.texts().serial
    }

    /// When it begins to be valid, as in `2026-11-22T07:00:00Z`.
    pub fn not_before(&self) -> &str {
        &self.texts().not_before
    }

    /// When it expires.
    pub fn not_after(&self) -> &str {
        &self.texts().not_after
    }

    /// The common name of its subject, as it stands there; empty without one.
    pub fn common_name(&self) -> String {
        let parsed = Certificate::from_der(&self.leaf).ok();
        let name = parsed.and_then(|it| it.tbs_certificate().subject().common_name().ok()?);
        name.map_or_else(String::new, String::from)
    }

    /// Its SHA-256, in hexadecimal digits.
    pub fn sha256(&self) -> String {
        hex_digest(&digest::SHA256, &self.leaf)
    }

    /// Its SHA-1, in hexadecimal digits.
    pub fn sha1(&self) -> String {
        hex_digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &self.leaf)
    }

    /// The value of Client-Cert, RFC 9440 section 2.2.
    pub fn field(&self) -> String {
        byte_sequence(&self.leaf)
    }

    /// The value of Client-Cert-Chain, RFC 9440 section 2.3; empty without other certificates.
    pub fn chain_field(&self) -> String {
        let others: Vec<_> = self.others.iter().map(|der| byte_sequence(der)).collect();
        others.join(", ")
    }

    /// The value of an extension: a text or a small number as such, anything else as the bytes of its
    /// DER; empty if the certificate does not have the extension.
    pub fn extension(&self, oid: Oid) -> String {
        let Ok(parsed) = Certificate::from_der(&self.leaf) else { return String::new() };
        let mut all = parsed.tbs_certificate().extensions().into_iter().flatten();
        let Some(found) = all.find(|it| it.extn_id == oid) else { return String::new() };
        let der = found.extn_value.as_bytes();
        plain(der).unwrap_or_else(|| byte_sequence(der))
    }

    fn texts(&self) -> &Texts {
        self.texts.get_or_init(|| {
            // A certificate that cannot be read is refused in the handshake.
            let parsed = Certificate::from_der(&self.leaf).ok();
            Box::new(parsed.as_ref().map_or_else(Texts::default, Texts::of))
        })
    }
}

impl Texts {
    fn of(certificate: &Certificate) -> Self {
        let tbs = certificate.tbs_certificate();
        let validity = tbs.validity();
        let serial = tbs.serial_number().as_bytes();
        let zeros = serial.iter().take_while(|byte| **byte == 0).count();
        let serial = serial.get(zeros.min(serial.len().saturating_sub(1))..).unwrap_or_default();
        Self {
            subject: name(tbs.subject()),
            issuer: name(tbs.issuer()),
            serial: serial.iter().map(|byte| format!("{byte:02X}")).collect(),
            not_before: validity.not_before.to_date_time().to_string(),
            not_after: validity.not_after.to_date_time().to_string(),
        }
    }
}

fn name(name: &Name) -> String {
    let mut text = String::new();
    for byte in name.to_string().bytes() {
        match byte {
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\{byte:02X}")),
        }
    }
    text
}

/// The value of an extension that is a text or a number, if no other value is written alike.
fn plain(der: &[u8]) -> Option<String> {
    let value = AnyRef::from_der(der).ok()?;
    if value.tag() == Tag::Integer {
        return value.decode_as::<i64>().ok().map(|number| number.to_string());
    }
    let kinds = [Tag::Utf8String, Tag::PrintableString, Tag::Ia5String, Tag::VisibleString];
    let text = str::from_utf8(value.value()).ok().filter(|_| kinds.contains(&value.tag()))?;
    let is_plain = !text.is_empty()
        && text.trim() == text
        && !text.starts_with(':')
        && !text.contains(char::is_control);
    is_plain.then(|| text.to_owned())
}

fn hex_digest(algorithm: &'static Algorithm, der: &[u8]) -> String {
    digest::digest(algorithm, der).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes as RFC 9651 section 4.1.8 writes them.
fn byte_sequence(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4 + 2);
    text.push(':');
    for part in bytes.chunks(3) {
        let byte = |at: usize| part.get(at).map_or(0, |byte| u32::from(*byte));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = DIGITS.get((bits >> (18 - 6 * place) & 63) as usize);
            let digit = digit.filter(|_| place <= part.len()).copied().unwrap_or(b'=');
            text.push(char::from(digit));
        }
    }
    text.push(':');
    text
}

#[cfg(test)]
#[path = "tests/client_certificate.rs"]
mod tests;
