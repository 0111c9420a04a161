//! How TLS is spoken. Files are named here and not opened: only the master may read a key.

use std::path::PathBuf;
use std::time::Duration;

/// How a listener speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenTls {
    /// Its own certificates; those of the sites follow.
    pub certificates: Vec<CertificateFiles>,
    /// The versions that clients may speak.
    pub versions: Versions,
    /// The key of the listener in messages: `listen[0].tls`.
    pub path: String,
}

/// A certificate with its chain, and its private key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// A PEM file with the certificate, and those of its issuers behind it.
    pub certificate: PathBuf,
    /// A PEM file with the private key; it may be the same.
    pub key: PathBuf,
    /// The mapping in messages: `listen[0].tls.certificates[0]`.
    pub path: String,
}

/// The session tickets of all listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketConfig {
    /// How long one is good at least.
    pub lifetime: Duration,
    /// The file of their secrets; without one ktrix makes secrets itself.
    pub keys: Option<PathBuf>,
}

/// Versions of TLS, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Versions {
    /// 1.2 alone.
    Tls12,
    /// 1.3 alone.
    Tls13,
    /// Both.
    Both,
}
