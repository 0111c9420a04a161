//! Session tickets (RFC 8446 section 4.6.1, RFC 5077) that every worker can open.
//!
//! A resumed session is not checked again: the certificate of its client lies in the ticket. A
//! ticket is therefore sealed with a key that is made of a secret and of the policy by which the
//! client was checked, and opens only under the same policy.
//!
//! ```text
//! id of the secret (8) | salt (32) | AES-256-GCM of the rest, with its tag (16)
//!                                    until when it opens (8) | session
//! ```
//!
//! A ticket opens as long as all certificates that the client sent are valid. With an expired ticket the
//! client shakes hands in full, and may show a new certificate.
//!
//! The salt is random and a part of what the key is made of, so that each ticket has a key of its own. One
//! key with random nonces would seal only 2^32 tickets safely, and machines that share a file share it.

use std::cell::Cell;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{digest, hkdf, rand};
use rustls::pki_types::UnixTime;
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

use crate::config::source;
use crate::tls::secrets::{SECRETS_MAX, SecretBytes, Secrets};

/// A digest of what a client was checked by.
pub(super) type Policy = [u8; 32];

/// Makes and opens the tickets of one policy.
#[derive(Debug)]
pub(super) struct Tickets {
    pub(super) secrets: Arc<Secrets>,
    pub(super) policy: Policy,
    pub(super) lifetime_s: u32,
    /// Until when a session may be resumed at all, in seconds since 1970: the lists of revoked
    /// certificates are good until then.
    pub(super) until_s: u64,
}

/// Until when the session of a handshake may be resumed, in seconds since 1970: the certificates of its
/// client are valid until then.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Until(u64);

thread_local! {
    /// That of the handshake that takes a step now. Outside of a step no ticket is made that opens.
    static UNTIL_S: Cell<u64> = const { Cell::new(0) };
}

impl Until {
    /// That of a client that has shown no certificate.
    pub(super) const fn new() -> Self {
        Self(u64::MAX)
    }

    /// Takes a step of the handshake, in which rustls may verify the client, and open and make tickets.
    /// rustls does not say to which connection they belong.
    pub(super) fn step<T>(&mut self, step: impl FnOnce() -> T) -> T {
        UNTIL_S.set(self.0);
        let result = step();
        self.0 = UNTIL_S.replace(0);
        result
    }

    /// Within a step: the client has shown certificates.
    pub(super) fn set(until_s: u64) {
        UNTIL_S.set(until_s);
    }
}

impl Tickets {
    /// The key that a secret gives for this policy and the salt of a ticket. No process keeps it when the
    /// secret is erased.
    fn key(&self, secret: &SecretBytes, of_ticket: &[u8; SALT_BYTES]) -> Option<LessSafeKey> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"ktrix session tickets");
        let secret = salt.extract(secret);
        let info = [&self.policy[..], of_ticket];
        let key = secret.expand(&info, &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(key)))
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.lifetime_s
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        let secret = self.secrets.newest()?;
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).ok()?;
        let id = secret.id.to_be_bytes();
        let mut sealed = [&UNTIL_S.get().to_be_bytes()[..], session].concat();
        let key = self.key(&secret.bytes, &salt)?;
        key.seal_in_place_append_tag(only_nonce(), Aad::from(id), &mut sealed).ok()?;
        Some([&id[..], &salt, &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (id, rest) = ticket.split_first_chunk::<8>()?;
        let (salt, sealed) = rest.split_first_chunk::<SALT_BYTES>()?;
        let secret = self.secrets.find(u64::from_be_bytes(*id))?;
        let key = self.key(&secret.bytes, salt)?;
        let mut sealed = sealed.to_vec();
        let opened = key.open_in_place(only_nonce(), Aad::from(*id), &mut sealed).ok()?;
        let (until_s, session) = opened.split_first_chunk::<8>()?;
        let until_s = u64::from_be_bytes(*until_s);
        if UnixTime::now().as_secs() > until_s.min(self.until_s) {
            return None;
        }
        Until::set(until_s);
        Some(session.to_vec())
    }
}

/// The nonce of a key that seals one ticket.
fn only_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

const SALT_BYTES: usize = 32;

/// Reads a file of secrets: each line is one in base64, of at least 32 bytes; the first makes
/// tickets.
///
/// # Errors
/// Why it cannot be used, in one line.
pub(super) fn read(path: &std::path::Path) -> Result<Zeroizing<Vec<SecretBytes>>, String> {
    let text = Zeroizing::new(source::read(path, FILE_BYTES_MAX)?);
    parse(&text)
}

fn parse(text: &[u8]) -> Result<Zeroizing<Vec<SecretBytes>>, String> {
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    // With room for all: a vector that grows leaves copies behind.
    let mut secrets = Zeroizing::new(Vec::with_capacity(text.len() / SECRET_BYTES_MIN + 1));
    for (number, line) in (1..).zip(lines) {
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let bytes = base64(line).filter(|bytes| bytes.len() >= SECRET_BYTES_MIN);
        let Some(bytes) = bytes else {
            return Err(format!(
                "has no secret of {SECRET_BYTES_MIN} bytes or more in base64 in line {number} (make one with \
                 \"openssl rand -base64 48\")"
            ));
        };
        let digest = digest::digest(&digest::SHA256, &bytes);
        secrets.extend(digest.as_ref().first_chunk::<32>());
    }
    match secrets.len() {
        0 => Err("has no secret (make one with \"openssl rand -base64 48\")".to_owned()),
        n if n > SECRETS_MAX => Err(format!("has {n} secrets, and {SECRETS_MAX} are the most")),
        _ => Ok(secrets),
    }
}

/// The bytes of base64 text (RFC 4648 section 4), with or without its padding.
fn base64(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let text = text.strip_suffix(b"=").unwrap_or(text);
    let text = text.strip_suffix(b"=").unwrap_or(text);
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let (mut bits, mut n_bits) = (0_u32, 0);
    for byte in text {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        n_bits += 6;
        if n_bits >= 8 {
            n_bits -= 8;
            bytes.push((bits >> n_bits) as u8);
        }
    }
    Some(bytes)
}

/// Fewer bytes could be guessed.
const SECRET_BYTES_MIN: usize = 32;

/// A longer file is none of secrets.
const FILE_BYTES_MAX: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tickets(secrets: &Arc<Secrets>, policy: u8) -> Tickets {
        let (policy, until_s) = ([policy; 32], u64::MAX);
        Tickets { secrets: Arc::clone(secrets), policy, lifetime_s: 60, until_s }
    }

    /// A ticket of a client without a certificate.
    fn seal(own: &Tickets, session: &[u8]) -> Vec<u8> {
        Until::new().step(|| own.encrypt(session)).unwrap()
    }

    #[test]
    fn a_ticket_opens_as_long_as_the_certificates_of_its_client_are_valid() {
        let secrets = Arc::new(Secrets::create(0).unwrap());
        let own = tickets(&secrets, 1);
        let sealed_until = |until_s| {
            let mut until = Until::new();
            until.step(|| Until::set(until_s));
            until.step(|| own.encrypt(b"a session")).unwrap()
        };
        assert_eq!(own.decrypt(&sealed_until(1_000_000)), None, "it has expired");
        assert_eq!(own.decrypt(&own.encrypt(b"a session").unwrap()), None, "in no handshake");
        let far_s = UnixTime::now().as_secs() + 1_000_000;
        let mut resumed = Until::new();
        let first = sealed_until(far_s);
        assert_eq!(resumed.step(|| own.decrypt(&first)).as_deref(), Some(&b"a session"[..]));
        assert_eq!(resumed.0, far_s, "the tickets of a resumed session open no longer");
    }

    #[test]
    fn a_ticket_opens_under_its_policy_and_secret_alone() {
        let secrets = Arc::new(Secrets::create(0).unwrap());
        let (own, other) = (tickets(&secrets, 1), tickets(&secrets, 2));
        let ticket = seal(&own, b"a session");
        assert_ne!(ticket, seal(&own, b"a session"), "each has its key");
        assert_eq!(own.decrypt(&ticket).as_deref(), Some(&b"a session"[..]));
        assert_eq!(other.decrypt(&ticket), None, "another policy");
        let expired = Tickets { until_s: 1_000_000, ..tickets(&secrets, 1) };
        assert_eq!(expired.decrypt(&ticket), None, "the list has expired");
        let elsewhere = Arc::new(Secrets::create(0).unwrap());
        assert_eq!(tickets(&elsewhere, 1).decrypt(&ticket), None, "another machine");
        secrets.use_file(&[[7; 32]], 1).unwrap();
        elsewhere.use_file(&[[8; 32], [7; 32]], 1).unwrap();
        assert_eq!(own.decrypt(&ticket), None, "its secret is gone");
        let shared = seal(&own, b"shared");
        let opened = tickets(&elsewhere, 1).decrypt(&shared);
        assert_eq!(opened.as_deref(), Some(&b"shared"[..]));
    }

    #[test]
    fn damaged_tickets_do_not_open() {
        let secrets = Arc::new(Secrets::create(0).unwrap());
        let own = tickets(&secrets, 1);
        let ticket = seal(&own, b"a session");
        for at in 0..ticket.len() {
            for bit in [1, 128] {
                let mut damaged = ticket.clone();
                damaged[at] ^= bit;
                assert_eq!(own.decrypt(&damaged), None, "byte {at}");
            }
            assert_eq!(own.decrypt(&ticket[..at]), None, "{at} bytes");
        }
        assert_eq!(own.decrypt(&[&ticket[..], b"x"].concat()), None);
    }

    #[test]
    fn a_file_of_secrets_is_read_by_its_lines() {
        let line = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=";
        assert_eq!(
            base64(line.as_bytes()).unwrap().as_slice(),
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef"
        );
        let other = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZn";
        let text = format!("# secrets\n{line}\r\n\n {other}\n");
        let secrets = parse(text.as_bytes()).unwrap();
        assert_eq!(secrets.len(), 2);
        assert_eq!(parse(line.as_bytes()).unwrap()[..], secrets[..1]);
        for (text, why) in [
            (String::new(), "has no secret ("),
            ("# only\n".to_owned(), "has no secret ("),
            (format!("{line}\nQUJD\n"), "has no secret of 32 bytes or more in base64 in line 2"),
            (format!("{line}!\n"), "has no secret of 32 bytes or more in base64 in line 1"),
            (format!("{line}\n").repeat(4), "has 4 secrets, and 3 are the most"),
        ] {
            let found = parse(text.as_bytes()).unwrap_err();
            assert!(found.starts_with(why), "{found}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let secrets = Arc::new(Secrets::create(0).unwrap());
            prop_assert_eq!(tickets(&secrets, 1).decrypt(&bytes), None);
            let _ = parse(&bytes);
        }
    }
}
