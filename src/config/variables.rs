//! Every variable that a text of the configuration can name in braces, in one table: for resolving,
//! for the manual, and beside the members of the JSON access log.
//!
//! A new variable is a row here, its line where a request renders it, and its line in the manual.

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
    /// The name of the upstream.
    Upstream,
    /// The server that answered.
    Server,
    /// How the cache took part.
    Cache,
}

/// The facts of a client and its connection that no URL holds. An origin may log them, and a value for
/// each client would fill the cache.
#[rustfmt::skip]
pub const OF_A_CLIENT: &[Variable] = &[
    Variable::Client, Variable::RequestId, Variable::TlsVersion, Variable::TlsCipher,
    Variable::TlsServerName,
];

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
