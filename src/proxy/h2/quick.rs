//! The quick way of a request whose answer is in memory: from its head to the end of its stream in the
//! connection's own task, or in a small one if the body is large.

use std::rc::Rc;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Response, StatusCode};

use crate::base::time::Now;
use crate::cache::hot::{Body, HotObject};
use crate::http::fields::Fields;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::Client as _;
use crate::proxy::finish::{self, Asked, Sent};
use crate::proxy::h2::end::end;
use crate::proxy::h2::fields::fields_of_lines;
use crate::proxy::h2::payload::Payload;
use crate::proxy::h2::response::{H2Response, Kept, Stage};
use crate::proxy::h2::shared::{Running, Shared};
use crate::proxy::hot_hit;
use crate::proxy::routed::{Routed, Way};
use crate::reactor;

/// The largest body that is answered at once: a copy of it waits in the library.
const BODY_BYTES_MAX: u64 = 16 << 10;

/// The outcome of the quick way.
pub(super) enum Quick {
    /// The request needs an exchange.
    No(SendResponse<Payload>),
    /// Its stream has ended.
    Answered,
    /// The body is large, or the client's windows have no room for it.
    Rest(Box<Rest>),
}

/// An answer that is not whole yet.
pub(super) struct Rest {
    object: Rc<HotObject>,
    respond: SendResponse<Payload>,
    stage: Stage,
    n_head: u64,
}

/// Answers a request with the whole of a hot object, if it asks for that.
pub(super) fn answer(
    shared: &Shared,
    routed: &Routed,
    mut respond: SendResponse<Payload>,
) -> Quick {
    let context = &shared.context;
    let (Some(cache), Way::Route(route)) = (&context.cache, &routed.way) else {
        return Quick::No(respond);
    };
    let now_s = reactor::now().unix_s();
    let is_in_memory = |body: &Body| !matches!(body, Body::File(_));
    let hit = hot_hit::full_hit(cache, route, &routed.head, now_s, is_in_memory);
    let Some((object, _)) = hit else {
        return Quick::No(respond);
    };
    if !context.log_has_room(&shared.connection().front) || shared.budget.borrow().spent().is_some()
    {
        return Quick::No(respond);
    }
    let is_large = object.body_len > BODY_BYTES_MAX;
    let (head, body) = object.with_parts(now_s, |head, body| {
        let body = if is_large { &[] } else { body };
        (Bytes::copy_from_slice(head), Bytes::copy_from_slice(body))
    });
    let n_head = head.len() as u64;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(object.status.0).unwrap_or_default();
    *response.headers_mut() = fields_of_lines(&head);
    let log = |close| {
        let facts = hot_hit::facts(&object, routed.site, close);
        let front = routed.front.as_deref().unwrap_or(&shared.connection().front);
        let sent = Sent { body_bytes: object.body_len, bytes: n_head + object.body_len };
        finish::finish(context, front, Asked::Head(&routed.head), &facts, sent);
        finish::commit(context);
        shared.budget.borrow_mut().note_answer();
    };
    if is_large {
        let stage = Stage::Begun(Box::new(response));
        return Quick::Rest(Box::new(Rest { object, respond, stage, n_head }));
    }
    if body.is_empty() {
        // The head is all of the answer, and goes out at the end of the turn, behind its line.
        let sent = respond.send_response(response, true);
        log(sent.err().map(|_| CloseReason::ClientGone));
        return Quick::Answered;
    }
    let Ok(mut stream) = respond.send_response(response, false) else {
        log(Some(CloseReason::ClientGone));
        return Quick::Answered;
    };
    stream.reserve_capacity(body.len());
    if stream.capacity() < body.len() {
        let stage = Stage::Open(stream);
        return Quick::Rest(Box::new(Rest { object, respond, stage, n_head }));
    }
    shared.budget.borrow_mut().note_data(body.len());
    let sent = stream.send_data(body.into(), true);
    log(sent.err().map(|_| CloseReason::ClientGone));
    Quick::Answered
}

/// Sends the body as the client's windows have room for it.
pub(super) async fn send_rest(
    running: Running,
    routed: Box<Routed>,
    rest: Box<Rest>,
    body: RecvStream,
    began: Now,
) {
    let shared = &running.shared;
    let Rest { object, respond, stage, n_head } = *rest;
    let response = H2Response::new(shared, body, respond, began.mono_ms());
    let response = response.to(&routed, began.mono_ms());
    let mut response = response.resumed(stage, object.body_len, n_head);
    let mut facts = hot_hit::facts(&object, routed.site, None);
    facts.close = response.send_hot(&object).await.err();
    end(shared, &mut response, Asked::Head(&routed.head), &mut facts).await;
}

impl H2Response<'_> {
    /// Sends all of a body in memory, and ends the answer.
    pub(super) async fn send_hot(&mut self, object: &HotObject) -> Result<(), CloseReason> {
        match &object.body {
            Body::Large(body) => self.send_shared(body, 0..body.len()).await?,
            _ => self.send_copies(object).await?,
        }
        self.finish(&Fields::new()).await
    }

    /// Sends all of a body that lies behind its head in parts that are copied one after the other.
    async fn send_copies(&mut self, object: &HotObject) -> Result<(), CloseReason> {
        let end = self.count(object.body_len) as usize;
        let mut at = 0;
        while at < end {
            let range = at..at + self.capacity(end - at, Kept::Own).await?;
            at = range.end;
            let part = object.with_body(|body| body.get(range).map(Bytes::copy_from_slice));
            self.give(self.held(part.unwrap_or_default()), at == end)?;
        }
        Ok(())
    }
}
