//! The task of a stream: one request and its answer.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::Request;
use http::request::Parts;

use crate::base::time::Now;
use crate::http::flaw::Flaw;
use crate::http::h2::Place;
use crate::policy::cache_status::CacheStatus;
use crate::policy::reason::close::CloseReason;
use crate::proxy::exchange::{self, synthetic};
use crate::proxy::facts::Facts;
use crate::proxy::finish::Asked;
use crate::proxy::h2::end::end;
use crate::proxy::h2::payload::Payload;
use crate::proxy::h2::quick::{self, Quick};
use crate::proxy::h2::request;
use crate::proxy::h2::response::H2Response;
use crate::proxy::h2::shared::{Running, Shared};
use crate::proxy::respond::Added;
use crate::proxy::routed::Routed;
use crate::reactor;
use crate::shared::in_flight;

/// Starts the exchange of a request, in a task of its own unless its answer is in memory.
pub(super) fn start(
    shared: &Rc<Shared>,
    request: Request<RecvStream>,
    respond: SendResponse<Payload>,
    began: Now,
) {
    let (parts, body) = request.into_parts();
    let front = &shared.connection().front;
    let place = Place {
        // A proxy may have had the request by another scheme.
        scheme: (!front.is_trusted).then_some(front.scheme),
        is_end: body.is_end_stream(),
    };
    let running = Running::new(shared);
    match request::head(&parts, place, &shared.context.client_head) {
        Ok(head) => {
            let entry = shared.context.enter(&head, began);
            let begun = in_flight::during(entry.as_ref(), || {
                let routed = Box::new(Routed::new(&shared.context, front, head));
                let quick = quick::answer(shared, &routed, respond);
                (routed, quick)
            });
            drop(entry);
            let (routed, quick) = begun;
            match quick {
                Quick::Answered => {}
                Quick::Rest(rest) => {
                    reactor::spawn(quick::send_rest(running, routed, rest, body, began));
                }
                Quick::No(respond) => {
                    reactor::spawn(answer(running, routed, body, respond, began));
                }
            }
        }
        Err(flaw) => reactor::spawn(refuse(running, parts, flaw, body, respond, began)),
    }
}

/// Whether a request must not begin: its stream was reset meanwhile, or a budget is spent. Tasks run in
/// turn, so that those of streams that were reset before this one came have counted that.
async fn is_over(shared: &Shared, respond: &mut SendResponse<Payload>) -> bool {
    let is_reset = poll_fn(|task| Poll::Ready(respond.poll_reset(task).is_ready())).await;
    let is_over = is_reset || shared.budget.borrow().spent().is_some();
    if is_over {
        shared.note_reset();
        respond.send_reset(Reason::REFUSED_STREAM);
    }
    is_over
}

async fn answer(
    running: Running,
    routed: Box<Routed>,
    body: RecvStream,
    mut respond: SendResponse<Payload>,
    began: Now,
) {
    let shared = &running.shared;
    if is_over(shared, &mut respond).await {
        return;
    }
    let response = H2Response::new(shared, body, respond, began.mono_ms());
    let mut response = response.to(&routed, began.mono_ms());
    let entry = shared.context.enter(&routed.head, began);
    let mut facts = routed.facts(began, entry.as_ref());
    let result = {
        let mut run = pin!(exchange::run(&shared.context, &mut response, &routed, &mut facts));
        poll_fn(|task| in_flight::during(entry.as_ref(), || run.as_mut().poll(task))).await
    };
    facts.close = result.err();
    end(shared, &mut response, Asked::Head(&routed.head), &mut facts).await;
}

/// Answers a request that breaks the protocol; nothing of it reaches an origin.
async fn refuse(
    running: Running,
    parts: Parts,
    flaw: Flaw,
    body: RecvStream,
    mut respond: SendResponse<Payload>,
    began: Now,
) {
    let shared = &running.shared;
    if is_over(shared, &mut respond).await {
        return;
    }
    let mut response = H2Response::new(shared, body, respond, began.mono_ms());
    let close = Some(CloseReason::BadRequest);
    let mut facts = Facts { began, reason: flaw.word(), close, ..Facts::default() };
    let added = Added::new(CacheStatus::own(), None, None);
    let (status, text) = (flaw.status(), flaw.word());
    let given = synthetic::answer(&mut response, status, text, &[], &added, &mut facts).await;
    if let Err(reason) = given {
        facts.close = Some(reason);
    }
    end(shared, &mut response, Asked::Bytes(&request::refused(&parts)), &mut facts).await;
}
