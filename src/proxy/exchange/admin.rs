//! The answers of the admin listener: the metrics, the status, and a page for people.

use std::rc::Rc;

use crate::http::head::RequestHead;
use crate::http::method::Method;
use crate::http::status::Status;
use crate::metrics::text::MEDIA_TYPE;
use crate::policy::cache_status::CacheStatus;
use crate::policy::purge::request::is_forwarded;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::Client;
use crate::proxy::context::{Admin, Context};
use crate::proxy::exchange::synthetic;
use crate::proxy::facts::Facts;
use crate::proxy::respond::Added;
use crate::status::page;
use crate::status::report::Status as Report;
use crate::status::values::values;
use crate::status::view::View;

/// An answer that is not an error: its type and its content.
type Content = (&'static str, Vec<u8>);

/// Answers a request to the admin listener.
pub(super) async fn answer<C: Client>(
    context: &Rc<Context>,
    client: &mut C,
    request: &RequestHead,
    facts: &mut Facts,
) -> Result<(), CloseReason> {
    let added = Added::new(CacheStatus::own(), None, None);
    let content = match refusal(context, client, request) {
        Some((status, text)) => Err((status, text)),
        None => content(context, request).ok_or((Status(404), "there is no such page here")),
    };
    let (kind, body) = match content {
        Ok(content) => content,
        Err((status, text)) => {
            let extra = if status.0 == 405 { ALLOW } else { GUARDS };
            return synthetic::answer(client, status, text, extra, &added, facts).await;
        }
    };
    let policy = if kind == page::MEDIA_TYPE { page::policy() } else { page::NO_CONTENT };
    let mut extra = vec![("Content-Security-Policy", policy)];
    extra.extend(GUARDS);
    let is_stopping = request.target.path() == HEALTH && is_stopping(context);
    let status = if is_stopping { Status(503) } else { Status(200) };
    synthetic::content(client, (status, Some(kind), &body[..]), &extra, &added, facts).await
}

/// Why a request gets no answer.
fn refusal<C: Client>(
    context: &Context,
    client: &C,
    request: &RequestHead,
) -> Option<(Status, &'static str)> {
    let Some(Admin { config, .. }) = &context.admin else {
        return Some((Status(404), "there is no admin listener"));
    };
    if !config.admits(client.front().client, is_forwarded(&request.fields)) {
        return Some((Status(403), "this client is not in admin.allow"));
    }
    if !config.answers_for(request.host()) {
        let text = "the host is no address, not localhost, and not in admin.hosts";
        return Some((Status::MISDIRECTED_REQUEST, text));
    }
    let is_read = matches!(request.method, Method::Get | Method::Head);
    (!is_read).then_some((Status(405), "only GET and HEAD are answered here"))
}

fn content(context: &Context, request: &RequestHead) -> Option<Content> {
    let Admin { servers, metrics, .. } = context.admin.as_ref()?;
    let cache = context.cache.as_ref().map(|cache| cache.level());
    let master = std::os::unix::process::parent_id();
    let view = View::new(master, servers, metrics).with_cache(cache);
    match request.target.path() {
        METRICS => Some((MEDIA_TYPE, values(&view).text().into_bytes())),
        STATUS => {
            let report = Report::of(&view, &values(&view));
            Some(("application/json", serde_json::to_vec(&report).unwrap_or_default()))
        }
        HEALTH if is_stopping(context) => Some((TEXT, b"stopping\n".to_vec())),
        HEALTH => Some((TEXT, b"ok\n".to_vec())),
        PAGE => {
            let report = Report::of(&view, &values(&view));
            Some((page::MEDIA_TYPE, page::page(&report).into_bytes()))
        }
        _ => None,
    }
}

/// Whether this ktrix stops. A worker that others have replaced does not say so.
fn is_stopping(context: &Context) -> bool {
    context.is_draining.get() && !context.is_replaced.get()
}

const METRICS: &[u8] = b"/metrics";
const STATUS: &[u8] = b"/status";
const HEALTH: &[u8] = b"/healthz";
const PAGE: &[u8] = b"/";
const TEXT: &str = "text/plain; charset=utf-8";

/// The fields that keep other sites from reading or framing the status.
const GUARDS: &[(&str, &str)] = &[
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
];
const ALLOW: &[(&str, &str)] = &[("Allow", "GET, HEAD"), ("Cache-Control", "no-store")];
