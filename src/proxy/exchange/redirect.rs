//! Internal redirects: an answer of an origin with `X-Accel-Redirect` leads to another route of the
//! site, whose answer the client gets.

use std::rc::Rc;

use crate::http::status::Status;
use crate::origin::fetch::Response;
use crate::policy::cache_status::CacheStatus;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::Client;
use crate::proxy::context::Context;
use crate::proxy::exchange::{Exchange, run_once, synthetic};
use crate::proxy::facts::Facts;
use crate::proxy::respond::Added;
use crate::proxy::routed::Routed;

/// How many internal redirects one request may have.
const REDIRECTS_MAX: usize = 10;

impl<C: Client> Exchange<'_, C> {
    /// Whether an answer leads to another route. Its target, and the fields that the client gets
    /// all the same, are noted then, and nothing is sent.
    pub(crate) fn notes_redirect(&mut self, response: &Response) -> bool {
        if !self.route.rules.may_redirect {
            return false;
        }
        let sent = &response.head.fields;
        let Some(target) = sent.get("x-accel-redirect") else { return false };
        self.facts.redirect = Some(target.into());
        let mut fields = sent.clone();
        if let Some(cookie) = &response.set_cookie {
            fields.push(b"Set-Cookie", cookie.as_bytes());
        }
        // The client gets of them what it would get of an answer of this route.
        let added = self.added_with(CacheStatus::own(), None);
        let mut served = added.served(&fields);
        added.change(&mut served, self.facts);
        self.facts.carried.get_or_insert_default().add(&served);
        true
    }
}

/// Answers with the route of a target, and of the targets that its answers lead to.
pub(crate) async fn follow<C: Client>(
    context: &Rc<Context>,
    client: &mut C,
    routed: &Routed,
    facts: &mut Facts,
    target: Box<[u8]>,
) -> Result<(), CloseReason> {
    let (mut target, mut last) = (target, None);
    for _ in 0..REDIRECTS_MAX {
        let before: &Routed = last.as_ref().unwrap_or(routed);
        let next = before.internal(context, client.front(), &target);
        let Some(next) = next.filter(|_| target.starts_with(b"/")) else { break };
        let next = last.insert(next);
        run_once(context, client, next, facts).await?;
        match facts.redirect.take() {
            Some(next) => target = next,
            None => return Ok(()),
        }
    }
    facts.reason = "internal-redirect";
    let text = "the answer of the origin leads nowhere, or in a circle";
    let added = Added::new(CacheStatus::own(), None, None);
    synthetic::answer(client, Status(502), text, &[], &added, facts).await
}
