//! The action of a route, and its changes of requests and answers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use crate::config::template::Template;
use crate::config::variables::Variable;
use crate::http::status::Status;

/// An answer that a route gives without an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnAnswer {
    /// Another URL.
    Redirect {
        /// The URL.
        to: Template,
        /// A status of redirection.
        status: Status,
    },
    /// A text.
    Text {
        /// A final status.
        status: Status,
        /// The text.
        body: Template,
        /// Its media type.
        kind: Box<str>,
    },
    /// A refusal.
    Deny(Status),
}

/// The changes that a route makes, besides the upstream of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The answer in the place of an upstream's.
    pub own: Option<OwnAnswer>,
    /// The target for the origin.
    pub rewrite: Option<Rewrite>,
    /// The regular expression of the route's paths, whose captures templates name.
    pub captures: Option<Box<str>>,
    /// The fields of requests to the origin.
    pub request: FieldChanges,
    /// The fields of answers to clients.
    pub response: FieldChanges,
    /// Whether the origin gets the certificate of the client in Client-Cert.
    pub client_cert: bool,
    /// The bodies of answers that ktrix makes itself, by status.
    pub error_pages: BTreeMap<u16, ErrorPage>,
    /// Whether only an internal redirect leads here.
    pub is_internal: bool,
    /// The `Host` for the origin, if it is not that of the client.
    pub host: Option<Box<str>>,
    /// The addresses of the upstream's servers, by which its answers may name themselves.
    pub origins: Vec<Box<str>>,
}

/// Changes of fields, in this order: remove, set, add.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldChanges {
    /// Names that are removed, lower-case.
    pub remove: Vec<Box<str>>,
    /// Fields that replace all of their name.
    pub set: Vec<(Box<str>, Template)>,
    /// Fields beside others of their name.
    pub add: Vec<(Box<str>, Template)>,
}

impl FieldChanges {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// The names of the fields that tell who a client is.
    pub fn identities(&self) -> impl Iterator<Item = &str> {
        let all = self.set.iter().chain(&self.add);
        let told = all.filter(|(_, value)| value.names_any(Variable::is_identity));
        told.map(|(name, _)| &**name)
    }
}

/// How the target for the origin is made of the one that the client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// The prefix of the path is replaced.
    Prefix {
        /// The prefix, decoded; may be empty.
        strip: Box<str>,
        /// The text in its place; may be empty.
        add: Box<str>,
    },
    /// The target is made by a regular expression, if it matches the path.
    Regex {
        /// The expression.
        regex: Box<str>,
        /// The target, perhaps with a query.
        to: Template,
    },
}

/// A page for an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    /// The file that it was read from.
    pub file: PathBuf,
    /// The bytes.
    pub body: Rc<[u8]>,
    /// The media type, by the ending of the file.
    pub kind: &'static str,
}
