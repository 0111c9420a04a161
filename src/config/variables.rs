//! Every variable that a text of the configuration can name in braces, in one table: for resolving,
//! for the manual, and beside the members of the JSON access log.
//!
//! A new variable is a row here, its line where a request renders it, and its line in the manual.

use crate::http::client_certificate::Oid;

/// One variable.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its meaning to the code.
    pub variable: Variable,
    /// Its name in braces.
    pub name: &'static str,
    /// When it is known.
    pub phase: Phase,
    /// The member of the JSON access log with the same fact; empty if there is none.
    pub member: &'static str,
    /// Its value, in one sentence.
    pub meaning: &'static str,
}

/// When a variable is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// As soon as the request has a route.
    Request,
    /// When an answer begins.
    Answer,
}

/// A fact of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variable {
    /// The client's address.
    Client,
    /// The scheme of the request.
    Scheme,
    /// The host with its port, as the client asked for it.
    Host,
    /// The path, as the client sent it.
    Path,
    /// The query with its question mark.
    Query,
    /// The method.
    Method,
    /// The id of the request.
    RequestId,
    /// The version of the client's TLS.
    TlsVersion,
    /// The cipher suite of the client's TLS.
    TlsCipher,
    /// The name that the client asked for in its TLS handshake.
    TlsServerName,
    /// The name of the subject of the client's certificate.
    TlsClientSubject,
    /// The name of its issuer.
    TlsClientIssuer,
    /// Its serial number.
    TlsClientSerial,
    /// When it begins to be valid.
    TlsClientNotBefore,
    /// When it expires.
    TlsClientNotAfter,
    /// Its SHA-256.
    TlsClientSha256,
    /// Its SHA-1.
    TlsClientSha1,
    /// The certificate.
    TlsClientCert,
    /// One of its extensions.
    TlsClientOid(Oid),
    /// The name of the upstream.
    Upstream,
    /// The server that answered.
    Server,
    /// How the cache took part.
    Cache,
}

impl Variable {
    /// Whether it tells who a client is, by its certificate.
    pub const fn is_identity(self) -> bool {
        matches!(
            self,
            Self::TlsClientSubject
                | Self::TlsClientIssuer
                | Self::TlsClientSerial
                | Self::TlsClientNotBefore
                | Self::TlsClientNotAfter
                | Self::TlsClientSha256
                | Self::TlsClientSha1
                | Self::TlsClientCert
                | Self::TlsClientOid(_)
        )
    }

    /// Whether it is a fact of a client and its connection that no URL holds. An origin may log it,
    /// and a value for each client would fill the cache.
    pub const fn is_of_a_client(self) -> bool {
        let is_of_connection = matches!(
            self,
            Self::Client
                | Self::RequestId
                | Self::TlsVersion
                | Self::TlsCipher
                | Self::TlsServerName
        );
        is_of_connection || self.is_identity()
    }

    /// The variable of this name in braces, and its row.
    pub fn named(name: &str) -> Option<(Self, &'static Row)> {
        let oid = name.strip_prefix(OF_OID).and_then(|oid| Oid::new(oid).ok());
        let row_name = oid.map_or(name, |_| OID_ROW);
        let row = VARIABLES.iter().find(|row| row.name == row_name)?;
        match (row.variable, oid) {
            (Self::TlsClientOid(_), oid) => Some((Self::TlsClientOid(oid?), row)),
            (variable, _) => Some((variable, row)),
        }
    }
}

/// The beginning of the name of an extension's variable.
const OF_OID: &str = "tls-client-oid:";

/// The name of these in the table.
const OID_ROW: &str = "tls-client-oid:OID";

/// Any object identifier.
const ANY_OID: Oid = Oid::new_unwrap("2.5.29.17");

/// The table.
#[rustfmt::skip]
pub const VARIABLES: &[Row] = &[
    row(Variable::Client, "client", Phase::Request, "client", "the address of the client; empty for a unix socket"),
    row(Variable::Scheme, "scheme", Phase::Request, "", "http or https"),
    row(Variable::Host, "host", Phase::Request, "host", "the host that the client asked for, with its port unless that is the scheme's own"),
    row(Variable::Path, "path", Phase::Request, "", "the path as the client sent it"),
    row(Variable::Query, "query", Phase::Request, "", "the query as the client sent it, with its question mark; empty without one"),
    row(Variable::Method, "method", Phase::Request, "method", "the method"),
    row(Variable::RequestId, "request-id", Phase::Request, "request_id", "the id of the request, 32 hexadecimal digits"),
    row(Variable::TlsVersion, "tls-version", Phase::Request, "tls_version", "the version of the client's TLS, TLSv1.2 or TLSv1.3; empty without TLS"),
    row(Variable::TlsCipher, "tls-cipher", Phase::Request, "tls_cipher", "the cipher suite of the client's TLS, by its name at IANA; empty without TLS"),
    row(Variable::TlsServerName, "tls-server-name", Phase::Request, "tls_server_name", "the name that the client asked for in its TLS handshake (SNI); empty if it asked for none"),
    row(Variable::TlsClientSubject, "tls-client-subject", Phase::Request, "tls_client_subject", "the name of the subject of the client's certificate (RFC 4514); empty without one, as all of these"),
    row(Variable::TlsClientIssuer, "tls-client-issuer", Phase::Request, "", "the name of its issuer"),
    row(Variable::TlsClientSerial, "tls-client-serial", Phase::Request, "tls_client_serial", "its serial number, in hexadecimal digits"),
    row(Variable::TlsClientNotBefore, "tls-client-not-before", Phase::Request, "", "when it begins to be valid, as in 2026-11-22T07:00:00Z"),
    row(Variable::TlsClientNotAfter, "tls-client-not-after", Phase::Request, "", "when it expires"),
    row(Variable::TlsClientSha256, "tls-client-sha256", Phase::Request, "", "its SHA-256, in hexadecimal digits"),
    row(Variable::TlsClientSha1, "tls-client-sha1", Phase::Request, "", "its SHA-1, in hexadecimal digits"),
    row(Variable::TlsClientCert, "tls-client-cert", Phase::Request, "", "the certificate itself, base64 between colons, as in Client-Cert (RFC 9440)"),
    row(Variable::TlsClientOid(ANY_OID), OID_ROW, Phase::Request, "", "the value of its extension with this object identifier, as in {tls-client-oid:1.2.3.4}: a text or a small number as such, anything else as base64 of its DER between colons"),
    row(Variable::Upstream, "upstream", Phase::Answer, "upstream", "the upstream that was asked; empty if none was"),
    row(Variable::Server, "server", Phase::Answer, "server", "the server that answered; empty if none was asked"),
    row(Variable::Cache, "cache", Phase::Answer, "verdict", "how the cache took part: hit, miss, stale, revalidated or pass"),
];

const fn row(
    variable: Variable,
    name: &'static str,
    phase: Phase,
    member: &'static str,
    meaning: &'static str,
) -> Row {
    Row { variable, name, phase, member, meaning }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_is_in_the_manual() {
        let manual = include_str!("../../man/ktrix.yaml.5");
        for Row { name, meaning, .. } in VARIABLES {
            let entry = format!(".It Li {{{name}}}\n");
            let text = manual.split(&entry).nth(1).unwrap_or_else(|| panic!("{name} is missing"));
            let text = text.split("\n.").next().unwrap_or_default().replace('\n', " ");
            assert!(text.to_lowercase().starts_with(&meaning.to_lowercase()), "{name}: {text}");
        }
    }
}
