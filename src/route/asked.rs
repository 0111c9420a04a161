//! The facts of a request that choose its route.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::config::matching::Matching;
use crate::http::head::RequestHead;
use crate::http::target;
use crate::policy::purge::request::is_forwarded;

/// The facts of a request that choose its route.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// The host without its port, in any case; empty where a request has none.
    pub host: &'a [u8],
    /// The normalised path.
    pub path: Cow<'a, [u8]>,
    /// The request; `None` where only its URL is known, which meets no condition.
    pub head: Option<&'a RequestHead>,
    /// The address of the client; a unix socket has none.
    pub client: Option<IpAddr>,
}

/// The first condition that a request does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// The path does not match the glob or the regular expression.
    Path,
    /// The method is another one.
    Method,
    /// A field is missing or has another value.
    Header,
    /// A parameter of the query is missing or has another value.
    Query,
    /// The client is in no network of the route.
    Client,
}

impl Unmet {
    /// The key of the configuration.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Method => "methods",
            Self::Header => "headers",
            Self::Query => "query",
            Self::Client => "clients",
        }
    }
}

impl<'a> Asked<'a> {
    /// A request from a client.
    pub fn of(head: &'a RequestHead, client: Option<IpAddr>) -> Self {
        let path = target::normalise(head.target.path());
        Self { host: head.host(), path, head: Some(head), client }
    }

    /// A URL; its path need not be normalised and has no query.
    pub fn of_url(host: &'a [u8], path: &'a [u8]) -> Self {
        let path = target::normalise(path);
        Self { host, path, head: None, client: None }
    }

    /// The condition of a route that is not met, its path aside.
    pub(crate) fn unmet(&self, matching: &Matching) -> Option<Unmet> {
        let Some(head) = self.head else {
            return (matching.n_conditions() > 0).then_some(Unmet::Header);
        };
        let Matching { methods, headers, query, clients, .. } = matching;
        let is_in = |list: &[Box<str>]| list.iter().any(|it| it.as_bytes() == &*head.method_text);
        if !methods.is_empty() && !is_in(methods) {
            return Some(Unmet::Method);
        }
        if !headers.iter().all(|condition| condition.holds(head)) {
            return Some(Unmet::Header);
        }
        if !query.iter().all(|condition| condition.holds(head)) {
            return Some(Unmet::Query);
        }
        let is_near = || {
            let is_forwarded = is_forwarded(&head.fields);
            clients.iter().any(|network| network.contains(self.client, is_forwarded))
        };
        (!clients.is_empty() && !is_near()).then_some(Unmet::Client)
    }
}
