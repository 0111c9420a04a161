//! The answer of a route without an upstream: a redirect, a text or a refusal.

use std::rc::Rc;

use crate::config::tls::ToHttps;
use crate::http::head::RequestHead;
use crate::http::method::Method;
use crate::http::status::Status;
use crate::policy::cache_status::CacheStatus;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::Client;
use crate::proxy::context::Context;
use crate::proxy::exchange::synthetic;
use crate::proxy::facts::Facts;
use crate::proxy::respond::Added;
use crate::route::changed::Changed;

/// Answers as the route says.
pub(crate) async fn answer<C: Client>(
    context: &Rc<Context>,
    client: &mut C,
    changed: &Rc<Changed>,
    facts: &mut Facts,
) -> Result<(), CloseReason> {
    facts.request_id = changed.id();
    let added = Added::new(CacheStatus::own(), None, None);
    let added = added.changed_by(Some(changed), &context.config);
    // The route answers itself: this is why the request has no other way.
    let Some(own) = changed.own() else { return Ok(()) };
    if let Some((body, kind)) = own.body {
        let (kind, body) = match own.status.has_no_body(Method::Get) {
            true => (None, &b""[..]),
            false => (Some(&*kind), &body[..]),
        };
        let content = (own.status, kind, body);
        return synthetic::content(client, content, &[], &added, facts).await;
    }
    let location = own.location.map(|url| String::from_utf8_lossy(&url).into_owned());
    let location = location.as_deref().map(|url| [("Location", url)]);
    let extra = location.as_ref().map_or(&[][..], |extra| extra);
    let (sentence, page) = match extra {
        [] => (DENIED, changed.error_page(own.status)),
        _ => ("", None),
    };
    if extra.is_empty() {
        facts.reason = DENIED_WORD;
    }
    synthetic::answer_by(client, own.status, (sentence, page), extra, &added, facts).await
}

/// Answers a request in the clear with its URL of https.
pub(crate) async fn to_https<C: Client>(
    client: &mut C,
    request: &RequestHead,
    to_https: ToHttps,
    facts: &mut Facts,
) -> Result<(), CloseReason> {
    let added = Added::new(CacheStatus::own(), None, None);
    if request.host().is_empty() {
        let why = "a request without a host cannot be redirected to https";
        return synthetic::answer(client, Status(400), why, &[], &added, facts).await;
    }
    let url = to_https.url(request.host(), request.target.path_and_query());
    let extra = [("Location", &*url)];
    synthetic::answer(client, to_https.status, "", &extra, &added, facts).await
}

/// The text for a refused client.
const DENIED: &str = "this is not allowed here";

/// The reason in the access log of a request that a route refuses.
const DENIED_WORD: &str = "denied";
