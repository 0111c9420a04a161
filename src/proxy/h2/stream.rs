//! The task of a stream: one request and its answer.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::Request;
use http::request::Parts;

use crate::base::time::Now;
use crate::http::flaw::Flaw;
use crate::http::h2::Place;
use crate::policy::cache_status::CacheStatus;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::Client as _;
use crate::proxy::exchange::{self, synthetic};
use crate::proxy::facts::Facts;
use crate::proxy::finish::{self, Asked, Sent};
use crate::proxy::h2::request;
use crate::proxy::h2::response::H2Response;
use crate::proxy::h2::shared::{Running, Shared};
use crate::proxy::respond::Added;
use crate::proxy::routed::Routed;
use crate::reactor;

/// Serves one request, and ends its stream.
pub(super) async fn serve(
    running: Running,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    began: Now,
) {
    let shared = &running.shared;
    // Tasks run in turn: those of streams that were reset before this one came have counted that.
    let is_reset = poll_fn(|task| Poll::Ready(respond.poll_reset(task).is_ready())).await;
    if is_reset || shared.budget.borrow().spent().is_some() {
        shared.note_reset();
        return respond.send_reset(Reason::REFUSED_STREAM);
    }
    let (parts, body) = request.into_parts();
    let front = &shared.connection().front;
    let place = Place {
        // A proxy may have had the request by another scheme.
        scheme: (!front.is_trusted).then_some(front.scheme),
        is_end: body.is_end_stream(),
    };
    let response = H2Response::new(shared, body, respond, began.mono_ms());
    match request::head(&parts, place, &shared.context.client_head) {
        Ok(head) => {
            drop(parts);
            let routed = Routed::new(&shared.context, front, head);
            answer(shared, response, &routed, began).await;
        }
        Err(flaw) => refuse(shared, response, &parts, flaw, began).await,
    }
}

async fn answer(shared: &Shared, response: H2Response<'_>, routed: &Routed, began: Now) {
    let mut response = response.to(routed, began.mono_ms());
    let mut facts = Facts { began, head_us: reactor::now().mono_us, ..Facts::default() };
    let result = exchange::run(&shared.context, &mut response, routed, &mut facts).await;
    facts.close = result.err();
    end(shared, &mut response, Asked::Head(&routed.head), &mut facts).await;
}

/// Answers a request that breaks the protocol; nothing of it reaches an origin.
async fn refuse(
    shared: &Shared,
    mut response: H2Response<'_>,
    parts: &Parts,
    flaw: Flaw,
    began: Now,
) {
    let close = Some(CloseReason::BadRequest);
    let mut facts = Facts { began, reason: flaw.word(), close, ..Facts::default() };
    let added = Added::new(CacheStatus::own(), None, None);
    let (status, text) = (flaw.status(), flaw.word());
    let given = synthetic::answer(&mut response, status, text, &[], &added, &mut facts).await;
    if let Err(reason) = given {
        facts.close = Some(reason);
    }
    end(shared, &mut response, Asked::Bytes(&request::refused(parts)), &mut facts).await;
}

/// Ends an exchange: its line is prepared before its stream ends.
async fn end(shared: &Shared, response: &mut H2Response<'_>, asked: Asked<'_>, facts: &mut Facts) {
    let context = &shared.context;
    context.log_room().await;
    match facts.close {
        None => shared.budget.borrow_mut().note_answer(),
        Some(CloseReason::ClientGone) => {
            shared.note_reset();
            facts.close = shared.close.get().or(facts.close);
        }
        Some(CloseReason::BadRequest) => shared.note_reset(),
        Some(_) => {}
    }
    let sent = Sent { body_bytes: response.sent_bytes(), bytes: response.n_bytes() };
    finish::finish(context, response.front(), asked, facts, sent);
    response.end();
    finish::commit(context);
}
