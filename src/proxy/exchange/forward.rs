//! The answers that a forward proxy gives itself: refusals, and the settings that browsers read.

use std::rc::Rc;

use crate::http::authority::Authority;
use crate::http::head::RequestHead;
use crate::http::scheme::Scheme;
use crate::http::status::Status;
use crate::policy::cache_status::CacheStatus;
use crate::policy::reason::close::CloseReason;
use crate::policy::reason::refusal::ForwardRefusal;
use crate::proxy::client::Client;
use crate::proxy::context::Context;
use crate::proxy::exchange::synthetic;
use crate::proxy::facts::Facts;
use crate::proxy::respond::Added;

/// Compares the credentials of a request.
///
/// # Errors
/// Why the client is refused.
pub(super) async fn verify<C: Client>(
    context: &Rc<Context>,
    client: &C,
    request: &RequestHead,
) -> Result<(), ForwardRefusal> {
    let credentials = context.forward.as_ref().and_then(|it| it.credentials.as_ref());
    match credentials {
        Some(credentials) => credentials.check(&request.fields, client.front().client).await,
        None => Ok(()),
    }
}

/// Refuses a request.
pub(super) async fn refuse<C: Client>(
    client: &mut C,
    refusal: ForwardRefusal,
    facts: &mut Facts,
) -> Result<(), CloseReason> {
    facts.reason = refusal.word();
    let extra: &[_] = match refusal {
        ForwardRefusal::Unauthorized => &[CHALLENGE],
        ForwardRefusal::Throttled => &[("Retry-After", "60")],
        _ => &[],
    };
    let added = Added::new(CacheStatus::own(), None, None);
    synthetic::answer(client, refusal.status(), refusal.sentence(), extra, &added, facts).await
}

/// RFC 7617 section 2.
const CHALLENGE: (&str, &str) = ("Proxy-Authenticate", "Basic realm=\"ktrix\", charset=\"UTF-8\"");

/// Answers with a script by which a browser finds the proxy (a PAC file): all but the names of the local
/// network go through it.
pub(super) async fn settings<C: Client>(
    client: &mut C,
    request: &RequestHead,
    facts: &mut Facts,
) -> Result<(), CloseReason> {
    let front = client.front();
    let (kind, scheme) = match front.tls {
        None => ("PROXY", Scheme::Http),
        Some(_) => ("HTTPS", Scheme::Https),
    };
    let proxy = match (request.authority(), front.local) {
        ([], Some(local)) => local.to_string(),
        (named, local) => {
            let has_port = Authority::parse(named).is_ok_and(|it| it.port.is_some());
            let named = String::from_utf8_lossy(named);
            let port = local.map_or(scheme.default_port(), |local| local.port());
            if has_port { named.into_owned() } else { format!("{named}:{port}") }
        }
    };
    let script = format!(
        "function FindProxyForURL(url, host) {{\n  \
         if (isPlainHostName(host) || shExpMatch(host, \"127.*\") || host == \"[::1]\")\n    \
         return \"DIRECT\";\n  \
         return \"{kind} {proxy}\";\n}}\n"
    );
    let content = (Status(200), Some("application/x-ns-proxy-autoconfig"), script.as_bytes());
    let added = Added::new(CacheStatus::own(), None, None);
    synthetic::content(client, content, &[], &added, facts).await
}
