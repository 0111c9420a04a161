//! One request with what its route changes: the request that the origin gets, and the fields that the
//! client gets.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::IpAddr;
use std::rc::Rc;

use regex::bytes::Regex;

use crate::base::chars::{eq_as_variable, eq_ignore_case};
use crate::config::action::{Changes, ErrorPage, FieldChanges, OwnAnswer};
use crate::config::matching;
use crate::config::template::{Template, Values};
use crate::config::variables::Variable;
use crate::http::authority;
use crate::http::client_certificate::ClientCertificate;
use crate::http::fields::Fields;
use crate::http::forward;
use crate::http::head::RequestHead;
use crate::http::method::Method;
use crate::http::scheme::Scheme;
use crate::http::status::Status;
use crate::http::target::{self, Target};
use crate::http::tls::TlsFacts;
use crate::route::rewrite::Rewriter;
use crate::route::seen::Seen;

/// The changes of a route, ready to be used.
#[derive(Debug)]
pub struct Prepared {
    changes: Rc<Changes>,
    rewriter: Option<Rewriter>,
    captures: Option<Regex>,
}

impl Prepared {
    /// The changes of a configuration.
    pub fn new(changes: &Rc<Changes>) -> Self {
        let compile = |text: &str| matching::compile(text).ok();
        let rewrite = changes.rewrite.as_ref();
        Self {
            changes: Rc::clone(changes),
            rewriter: rewrite.and_then(|rewrite| Rewriter::new(rewrite, compile)),
            captures: changes.captures.as_deref().and_then(compile),
        }
    }

    /// Whether only an internal redirect leads to the route.
    pub fn is_internal(&self) -> bool {
        self.changes.is_internal
    }

    /// Whether the route answers without an upstream.
    pub fn answers_itself(&self) -> bool {
        self.changes.own.is_some()
    }

    /// The rewriting to undo in answers.
    fn seen(&self) -> Option<&Rewriter> {
        static NONE: Rewriter = Rewriter::Prefix { strip: String::new(), add: String::new() };
        self.rewriter.as_ref().or(self.changes.host.as_ref().map(|_| &NONE))
    }

    /// The path and query for the origin of a GET of a URL.
    pub fn target(&self, url: &AskedUrl<'_>) -> Option<Vec<u8>> {
        let (path, query) = split(url.path_and_query);
        Some(self.rewriter.as_ref()?.target(path, query, url))
    }
}

/// A request with what its route changes.
#[derive(Debug)]
pub struct Changed {
    prepared: Rc<Prepared>,
    /// As the client sent it.
    sent: RequestHead,
    /// As the origin gets it, and keys are made of it.
    pub asked: RequestHead,
    peer: RequestPeer,
    captures: Vec<Vec<u8>>,
}

/// The facts of a request beside its head.
#[derive(Clone, Debug)]
pub struct RequestPeer {
    /// The address of the client.
    pub client: Option<IpAddr>,
    /// The scheme of the request.
    pub scheme: Scheme,
    /// The id of the request.
    pub id: u128,
    /// The facts of the client's TLS, if it has any.
    pub tls: Option<Rc<TlsFacts>>,
}

/// The facts of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnswerFacts<'a> {
    /// The upstream that was asked.
    pub upstream: &'a str,
    /// The server that answered.
    pub server: &'a str,
    /// How the cache took part.
    pub cache: &'a str,
}

/// The parts of an answer that a route gives without an upstream.
#[derive(Debug)]
pub struct Own {
    /// The status.
    pub status: Status,
    /// The URL in Location.
    pub location: Option<Vec<u8>>,
    /// The text and its media type; `None` for the usual text of the status.
    pub body: Option<(Vec<u8>, Box<str>)>,
}

impl Changed {
    /// Changes a request.
    pub fn new(prepared: &Rc<Prepared>, sent: &RequestHead, peer: RequestPeer) -> Self {
        let path = target::normalise(sent.target.path());
        let found = prepared.captures.as_ref().and_then(|regex| regex.captures(&path));
        let captures = found.iter().flat_map(|found| found.iter());
        let captures =
            captures.map(|it| it.map_or(&b""[..], |it| it.as_bytes()).to_vec()).collect();
        let (mut asked, sent) = (sent.clone(), sent.clone());
        asked.origin_host.clone_from(&prepared.changes.host);
        asked.told_tls = peer.tls.clone().filter(|_| prepared.changes.client_cert);
        let mut changed = Self { prepared: Rc::clone(prepared), sent, asked, peer, captures };
        changed.change_request();
        changed
    }

    fn change_request(&mut self) {
        let prepared = Rc::clone(&self.prepared);
        if let Some(rewriter) = &prepared.rewriter
            && self.sent.target.path().starts_with(b"/")
        {
            let (path, query) = split(self.sent.target.path_and_query());
            let target = rewriter.target(path, query, &self.values(AnswerFacts::default()));
            if let Ok(target) = Target::parse(Method::Get, &target) {
                self.asked.target = target;
            }
        }
        if prepared.changes.request.is_empty() {
            return;
        }
        let mut fields = std::mem::take(&mut self.asked.fields);
        // Before the operator's fields are there, so that the client cannot name them.
        forward::strip_hop_by_hop(&mut fields);
        self.apply(&prepared.changes.request, &mut fields, AnswerFacts::default());
        self.asked.fields = fields;
    }

    /// The id of the request.
    pub const fn id(&self) -> u128 {
        self.peer.id
    }

    /// The answer that the route gives without an upstream, if it does.
    pub fn own(&self) -> Option<Own> {
        let values = self.values(AnswerFacts::default());
        Some(match self.prepared.changes.own.as_ref()? {
            OwnAnswer::Redirect { to, status } => {
                Own { status: *status, location: Some(to.url(&values)), body: None }
            }
            OwnAnswer::Text { status, body, kind } => {
                let body = Some((body.body(&values), kind.clone()));
                Own { status: *status, location: None, body }
            }
            OwnAnswer::Deny(status) => Own { status: *status, location: None, body: None },
        })
    }

    /// The page for an error that ktrix answers itself.
    pub fn error_page(&self, status: Status) -> Option<&ErrorPage> {
        self.prepared.changes.error_pages.get(&status.0)
    }

    /// Changes the fields of an answer to what the client gets.
    pub fn change_answer(&self, fields: &mut Fields, facts: AnswerFacts<'_>) {
        self.show_references(fields);
        self.apply(&self.prepared.changes.response, fields, facts);
    }

    /// Changes the references of an answer to what the client sees.
    pub fn show_references(&self, fields: &mut Fields) {
        let origins = &self.prepared.changes.origins;
        if let Some(rewriter) = self.prepared.seen() {
            let (authority, host) = (self.sent.authority(), self.sent.host());
            Seen { rewriter, authority, host, origins }.apply(fields);
        }
    }

    fn apply(&self, changes: &FieldChanges, fields: &mut Fields, facts: AnswerFacts<'_>) {
        // An origin may not distinguish `X_Role` from `X-Role`.
        for name in &changes.remove {
            fields.retain(|own, _| !eq_as_variable(own, name.as_bytes()));
        }
        let values = self.values(facts);
        for (name, value) in &changes.set {
            fields.retain(|own, _| !eq_as_variable(own, name.as_bytes()));
            push(fields, name, value, &values);
        }
        for (name, value) in &changes.add {
            // Keys hold the field in this spelling alone.
            let name_bytes = name.as_bytes();
            fields.retain(|own, _| {
                eq_ignore_case(own, name_bytes) || !eq_as_variable(own, name_bytes)
            });
            push(fields, name, value, &values);
        }
    }

    const fn values<'a>(&'a self, facts: AnswerFacts<'a>) -> KnownValues<'a> {
        KnownValues { request: self, facts }
    }
}

/// Adds a field, unless its value is empty.
fn push(fields: &mut Fields, name: &str, value: &Template, values: &KnownValues<'_>) {
    let value = value.field_value(values);
    if !value.is_empty() {
        fields.push(name.as_bytes(), &value);
    }
}

fn split(path_and_query: &[u8]) -> (&[u8], &[u8]) {
    let at = memchr::memchr(b'?', path_and_query).unwrap_or(path_and_query.len());
    path_and_query.split_at(at)
}

/// The values of a request, and of its answer if that has begun.
struct KnownValues<'a> {
    request: &'a Changed,
    facts: AnswerFacts<'a>,
}

impl Values for KnownValues<'_> {
    fn variable(&self, variable: Variable, out: &mut Vec<u8>) {
        let Changed { sent, peer, .. } = self.request;
        let tls = |fact: fn(&TlsFacts) -> &str| peer.tls.as_deref().map_or("", fact);
        if variable.is_identity() {
            let client = peer.tls.as_deref().and_then(|tls| tls.client.as_ref());
            let told = client.map(|client| identity(client, variable)).unwrap_or_default();
            return out.extend_from_slice(told.as_bytes());
        }
        match variable {
            Variable::Client => {
                let _ = peer.client.map(|client| write!(out, "{}", client.to_canonical()));
            }
            Variable::Scheme => out.extend_from_slice(peer.scheme.word().as_bytes()),
            Variable::Host => {
                let host = authority::without_default_port(peer.scheme, sent.authority());
                out.extend_from_slice(host);
            }
            Variable::Path => out.extend_from_slice(sent.target.path()),
            Variable::Query => {
                out.extend_from_slice(split(sent.target.path_and_query()).1);
            }
            Variable::Method => out.extend_from_slice(&sent.method_text),
            Variable::RequestId => {
                let _ = write!(out, "{:032x}", peer.id);
            }
            Variable::TlsVersion => out.extend_from_slice(tls(|tls| tls.version).as_bytes()),
            Variable::TlsCipher => out.extend_from_slice(tls(|tls| tls.cipher).as_bytes()),
            Variable::TlsServerName => {
                out.extend_from_slice(tls(|tls| &tls.server_name).as_bytes());
            }
            Variable::Upstream => out.extend_from_slice(self.facts.upstream.as_bytes()),
            Variable::Server => out.extend_from_slice(self.facts.server.as_bytes()),
            Variable::Cache => out.extend_from_slice(self.facts.cache.as_bytes()),
            _ => {}
        }
    }

    fn capture(&self, number: usize, out: &mut Vec<u8>) {
        let capture = self.request.captures.get(number);
        out.extend_from_slice(capture.map_or(b"", |capture| capture));
    }
}

/// A fact of the certificate of a client.
fn identity(client: &ClientCertificate, variable: Variable) -> Cow<'_, str> {
    match variable {
        Variable::TlsClientSubject => client.subject().into(),
        Variable::TlsClientIssuer => client.issuer().into(),
        Variable::TlsClientSerial => client.serial().into(),
        Variable::TlsClientNotBefore => client.not_before().into(),
        Variable::TlsClientNotAfter => client.not_after().into(),
        Variable::TlsClientSha256 => client.sha256().into(),
        Variable::TlsClientSha1 => client.sha1().into(),
        Variable::TlsClientCert => client.field().into(),
        Variable::TlsClientOid(oid) => client.extension(oid).into(),
        _ => Cow::default(),
    }
}

/// A URL that a client asks for, where no more of its request is known.
#[derive(Clone, Copy, Debug)]
pub struct AskedUrl<'a> {
    /// The scheme.
    pub scheme: Scheme,
    /// The host with its port, in lower case.
    pub authority: &'a [u8],
    /// The host alone.
    pub host: &'a [u8],
    /// The path with its query.
    pub path_and_query: &'a [u8],
}

impl<'a> AskedUrl<'a> {
    /// The URL of a request.
    pub fn of(scheme: Scheme, head: &'a RequestHead) -> Self {
        let path_and_query = head.target.path_and_query();
        Self { scheme, authority: head.authority(), host: head.host(), path_and_query }
    }
}

impl Values for AskedUrl<'_> {
    fn variable(&self, variable: Variable, out: &mut Vec<u8>) {
        let (path, query) = split(self.path_and_query);
        out.extend_from_slice(match variable {
            Variable::Scheme => self.scheme.word().as_bytes(),
            Variable::Host => authority::without_default_port(self.scheme, self.authority),
            Variable::Path => path,
            Variable::Query => query,
            Variable::Method => b"GET",
            _ => b"",
        });
    }

    fn capture(&self, _: usize, _: &mut Vec<u8>) {}
}
