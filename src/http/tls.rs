//! The facts of a client's TLS that requests, routes and the log know.

/// The facts of a connection with TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// The version, as OpenSSL and nginx name it: `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite, as IANA names it.
    pub cipher: &'static str,
    /// The name that the client asked for (SNI), in lower case; empty if it asked for none.
    pub server_name: Box<str>,
}
