//! The facts of a client's TLS that requests, routes and the log know.

use crate::http::client_certificate::ClientCertificate;

/// The number of a policy: how clients are asked for a certificate, and by what it is verified. The
/// clients of connections with the same number were verified alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PolicyId(pub u8);

impl PolicyId {
    /// Clients are not asked.
    pub const NONE: Self = Self(0);
}

/// The facts of a connection with TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// The version, as OpenSSL and nginx name it: `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite, as IANA names it.
    pub cipher: &'static str,
    /// The name that the client asked for (SNI), in lower case; empty if it asked for none.
    pub server_name: Box<str>,
    /// How the client was asked for a certificate.
    pub policy: PolicyId,
    /// The verified certificate of the client, if it has shown one.
    pub client: Option<ClientCertificate>,
}
