//! The answers to requests that no upstream is asked for.

use std::rc::Rc;

use crate::http::head::RequestHead;
use crate::http::status::Status;
use crate::policy::cache_status::CacheStatus;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::Client;
use crate::proxy::context::Context;
use crate::proxy::exchange::{acme, admin, connect, forward, own, purge, synthetic};
use crate::proxy::facts::Facts;
use crate::proxy::respond::Added;
use crate::proxy::routed::Way;

/// Answers a request that has no route to an upstream.
pub(super) async fn answer<C: Client>(
    context: &Rc<Context>,
    client: &mut C,
    (request, way): (&RequestHead, &Way),
    facts: &mut Facts,
) -> Result<(), CloseReason> {
    let (status, text, extra) = match way {
        Way::Purge => return purge::answer(context, client, request, facts).await,
        Way::Admin => return Box::pin(admin::answer(context, client, request, facts)).await,
        Way::Synthetic(own) => (own.status, own.text, ALLOW),
        Way::Denied(reason) => {
            facts.reason = reason.word();
            (reason.status(), reason.sentence(), &[][..])
        }
        Way::Forbidden(refusal) => return forward::refuse(client, *refusal, facts).await,
        Way::ProxySettings => return forward::settings(client, request, facts).await,
        Way::Connect(host) => return Box::pin(connect::answer(context, client, host, facts)).await,
        Way::Acme(token) => return Box::pin(acme::answer(context, client, token, facts)).await,
        Way::ToHttps(to) => return own::to_https(client, request, *to, facts).await,
        Way::Own(changed) => return own::answer(context, client, changed, facts).await,
        Way::Refused(flaw) => {
            facts.reason = flaw.word();
            (flaw.status(), flaw.word(), &[][..])
        }
        // The others have a route, or may have one.
        Way::Unrouted | Way::Route(_) | Way::Unverified(_) => {
            (Status(404), "no site or route is configured for this", &[][..])
        }
    };
    let added = Added::new(CacheStatus::own(), None, None);
    synthetic::answer(client, status, text, extra, &added, facts).await
}

const ALLOW: &[(&str, &str)] = &[("Allow", "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH")];
