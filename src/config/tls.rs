//! How TLS is spoken. Files are named here and not opened: only the master may read a key.

use std::path::PathBuf;
use std::time::Duration;

use crate::http::status::Status;
use crate::http::tls::PolicyId;

/// How a listener speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenTls {
    /// Its own certificates; those of the sites follow.
    pub certificates: Vec<CertificateFiles>,
    /// The versions that clients may speak.
    pub versions: Versions,
    /// How clients are asked for a certificate, where the site does not say it.
    pub policy: PolicyId,
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

/// How clients are asked for a certificate, and by what it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPolicy {
    /// Whether a client without a certificate is refused.
    pub is_required: bool,
    /// Files with the authorities that issue them, and folders of such files.
    pub authorities: Vec<PathBuf>,
    /// The most certificates between that of a client and an authority.
    pub depth: usize,
    /// Files with lists of revoked certificates, and folders of such files.
    pub lists: Vec<PathBuf>,
    /// The mapping in messages, of those that say the same the first: `listen[0].tls`.
    pub path: String,
}

/// How the clients of a site are asked for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SitePolicy {
    /// The policy.
    pub id: PolicyId,
    /// Whether a client without a certificate is refused.
    pub is_required: bool,
}

/// The redirect of requests in the clear to https.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToHttps {
    /// The status of the answer.
    pub status: Status,
    /// The port of https.
    pub port: u16,
}

impl ToHttps {
    /// The URL of https for a host without its port, and a path with its query.
    pub fn url(self, host: &[u8], path_and_query: &[u8]) -> String {
        let (host, path) = (String::from_utf8_lossy(host), String::from_utf8_lossy(path_and_query));
        match self.port {
            443 => format!("https://{host}{path}"),
            port => format!("https://{host}:{port}{path}"),
        }
    }
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

/// How the servers of an upstream are spoken to over TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    /// The name that is asked for (SNI) and verified; `None` for the host of a server's address.
    pub name: Option<String>,
    /// Whether the certificate of a server is verified.
    pub verify: bool,
    /// A PEM file with the authorities that are trusted; `None` for those of the system.
    pub ca: Option<PathBuf>,
    /// The certificate that ktrix shows to a server that asks for one.
    pub certificate: Option<CertificateFiles>,
    /// The key in messages: `upstreams.app.tls`.
    pub path: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_https_has_its_own_port() {
        let url = |port| ToHttps { status: Status(301), port }.url(b"a.example", b"/x?y=z");
        assert_eq!(url(443), "https://a.example/x?y=z");
        assert_eq!(url(8443), "https://a.example:8443/x?y=z");
    }
}
