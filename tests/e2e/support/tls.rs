//! Certificates, and clients with TLS.
//!
//! With `KTRIX_E2E_TLS=1` every [`Plan`](super::Plan) listens with TLS and every client speaks it, so that
//! the conversations about HTTP run over HTTPS:
//!
//! ```text
//! KTRIX_E2E_TLS=1 cargo test --test e2e -- caching:: ranges:: revalidation:: strictness::
//! ```
//!
//! Those that open sockets themselves, or compare texts with `http`, need the clear.

use std::collections::HashSet;
use std::fs;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::client::WantsClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ConfigBuilder, RootCertStore, StreamOwned};

/// Authorities have different names, so that clients keep them apart.
static N_AUTHORITIES: AtomicUsize = AtomicUsize::new(0);

/// A certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("parameters");
        let number = N_AUTHORITIES.fetch_add(1, Ordering::Relaxed);
        let name = format!("test authority {number}");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("an issuer") }
    }

    pub fn pem(&self) -> String {
        self.issuer.as_ref().pem()
    }

    /// Writes `NAME.pem` and `NAME.key` for these hosts.
    pub fn write(&self, dir: &Path, name: &str, hosts: &[&str]) {
        self.write_with(dir, name, hosts, |_| {});
    }

    /// As [`Self::write`], with other parameters.
    pub fn write_with(
        &self,
        dir: &Path,
        name: &str,
        hosts: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) {
        let hosts: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("names");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        fs::write(dir.join(format!("{name}.pem")), certificate.pem()).expect("write it");
        fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).expect("write its key");
    }

    /// The certificate of a client, and its key.
    pub fn identity(&self, name: &str, serial: u64) -> Identity {
        self.identity_with(name, serial, |_| {})
    }

    /// As [`Self::identity`], with other parameters.
    pub fn identity_with(
        &self,
        name: &str,
        serial: u64,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let mut params = CertificateParams::new([]).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { certificate: certificate.der().clone(), key: key.serialize_der() }
    }

    /// A list of revoked certificates, which expires in this year.
    pub fn crl(&self, serials: &[u64], expires: i32) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(expires, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("a list").pem().expect("PEM")
    }

    /// A client that trusts this authority.
    pub fn client(&self) -> ClientConfig {
        self.client_of(rustls::ALL_VERSIONS)
    }

    /// A client that trusts both.
    pub fn client_and(&self, other: &Self) -> ClientConfig {
        Self::trusting([self, other], rustls::ALL_VERSIONS).with_no_client_auth()
    }

    pub fn client_of(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> ClientConfig {
        Self::trusting([self], versions).with_no_client_auth()
    }

    /// A client that trusts this authority and shows a certificate.
    pub fn client_as(
        &self,
        identity: &Identity,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> ClientConfig {
        let Identity { certificate, key } = identity;
        let key = PrivateKeyDer::try_from(key.clone()).expect("a key");
        Self::trusting([self], versions)
            .with_client_auth_cert(vec![certificate.clone()], key)
            .expect("a client")
    }

    fn trusting<const N: usize>(
        authorities: [&Self; N],
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority.issuer.as_ref().der().clone()).expect("a root");
        }
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots)
    }
}

/// The certificate of a client, and its key.
pub struct Identity {
    pub certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Identity {
    /// Writes `NAME.pem` with both.
    pub fn write(&self, dir: &Path, name: &str) {
        let pem = |kind: &str, der: &[u8]| {
            let text = base64(der);
            format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
        };
        let text = pem("CERTIFICATE", &self.certificate) + &pem("PRIVATE KEY", &self.key);
        fs::write(dir.join(format!("{name}.pem")), text).expect("write it");
    }
}

/// Bytes in base64, RFC 4648 section 4.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let byte = |at: usize| u32::from(part.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= part.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// The authority of the certificates that every plan has.
pub fn authority() -> &'static Authority {
    static AUTHORITY: LazyLock<Authority> = LazyLock::new(Authority::new);
    &AUTHORITY
}

/// The listeners whose clients speak TLS.
static SECURED: LazyLock<Mutex<HashSet<SocketAddr>>> = LazyLock::new(Mutex::default);

pub fn secure(ip: SocketAddr) {
    SECURED.lock().expect("no test panics here").insert(ip);
}

/// A new plan has no TLS yet; the port may have been that of an earlier one, which had.
pub fn unsecure(ip: &SocketAddr) {
    SECURED.lock().expect("no test panics here").remove(ip);
}

pub fn is_secured(ip: &SocketAddr) -> bool {
    SECURED.lock().expect("no test panics here").contains(ip)
}

/// Whether every plan has TLS.
pub fn is_everywhere() -> bool {
    std::env::var_os("KTRIX_E2E_TLS").is_some()
}

/// A client of any plan.
pub fn any_client() -> ClientConnection {
    static CLIENT: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| Arc::new(authority().client()));
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(Arc::clone(&CLIENT), name).expect("a client")
}

/// A connection that has shaken hands.
pub struct Secured(StreamOwned<ClientConnection, TcpStream>);

impl Secured {
    /// # Errors
    /// The error of the socket, or `InvalidData` with that of TLS.
    pub fn shake(mut stream: TcpStream, mut tls: ClientConnection) -> io::Result<Self> {
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Ok(Self(StreamOwned::new(tls, stream)))
    }

    pub fn connection(&self) -> &ClientConnection {
        &self.0.conn
    }

    pub fn stream(&self) -> &TcpStream {
        &self.0.sock
    }

    /// The protocol that ktrix has chosen.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.0.conn.alpn_protocol()
    }

    /// Ends the sending side without a close_notify.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.sock.shutdown(how)
    }
}

impl Read for Secured {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Secured {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n_written = self.0.write(buf)?;
        self.0.flush()?;
        Ok(n_written)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let n_written = self.0.write_vectored(bufs)?;
        self.0.flush()?;
        Ok(n_written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
