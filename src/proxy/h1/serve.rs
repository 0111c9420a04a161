//! The task of a client's connection: one request after the other until the connection ends.
//!
//! ```text
//! read ─▶ a complete head? ─ no ─▶ write what is due, wait ─▶ read
//!            │ yes
//!            ├─ hot: its answer joins what is due ──────▶ next head
//!            └─ else: an exchange of its own ───────────▶ next head, or the end
//! ```
//!
//! Answers to pipelined requests gather and go out in one write.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;

use crate::base::time::Now;
use crate::http::status::Status;
use crate::policy::cache_status::CacheStatus;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::Client as _;
use crate::proxy::client::connections::Counted;
use crate::proxy::client::linger;
use crate::proxy::client::pace::Pace;
use crate::proxy::context::Context;
use crate::proxy::exchange::{self, synthetic};
use crate::proxy::facts::Facts;
use crate::proxy::finish::{self, Asked, Sent};
use crate::proxy::h1::link::Link;
use crate::proxy::h1::response::{H1Response, ResponseOptions};
use crate::proxy::h1::step::{NextRequest, Step, step};
use crate::proxy::h2::connection;
use crate::proxy::respond::Added;
use crate::proxy::routed::Routed;
use crate::reactor;
use crate::shared::in_flight;

/// Serves a client's connection to its end; `was_idle` if it was idle at another worker before.
pub(crate) fn serve(
    context: Rc<Context>,
    counted: Counted,
    was_idle: bool,
) -> impl Future<Output = ()> {
    // A value that is moved into a future after its first wait takes its room twice.
    let mut link = Link::new(counted);
    let mut next = NextRequest::new(&context, was_idle);
    async move {
        let Some(reason) = serve_requests(&context, &mut link, &mut next).await else {
            let (counted, read) = link.into_parts();
            return reactor::spawn(connection::serve(context, counted, read));
        };
        link.connection().count_end(reason);
        if link.is_broken {
            link.connection().transport.reset();
        } else if is_client_sending(reason, &link) {
            Box::pin(write_and_linger(&context, &mut link)).await;
        } else if !link.connection().transport.finish() {
            Box::pin(linger::finish(&link.connection().transport)).await;
        }
    }
}

/// Refuses a client that began to speak HTTP in the clear to a listener with TLS.
pub(crate) async fn refuse_plain(context: Rc<Context>, counted: Counted, first: Vec<u8>) {
    let mut link = Link::new(counted);
    link.inbox = first;
    link.connection().count_end(CloseReason::BadRequest);
    refuse(&context, &mut link, Status(400), PLAIN_TO_TLS).await;
    write_and_linger(&context, &mut link).await;
}

/// The answer to such a client, and the reason in the access log.
const PLAIN_TO_TLS: &str = "plain HTTP request sent to a TLS port";

async fn write_and_linger(context: &Context, link: &mut Link) {
    if link.write(b"", context.send_ms()).await.is_ok() {
        linger::linger(&link.connection().transport).await;
    }
}

/// Whether the client may still be sending bytes that are not going to be read.
fn is_client_sending(reason: CloseReason, link: &Link) -> bool {
    match reason {
        CloseReason::BadRequest
        | CloseReason::Drain
        | CloseReason::ServerGone
        | CloseReason::TunnelTimeout => true,
        reason if reason.is_late() => true,
        CloseReason::Finished => !link.inbox.is_empty(),
        _ => false,
    }
}

/// Serves the requests of a connection; `None` if they come by HTTP/2.
async fn serve_requests(
    context: &Rc<Context>,
    link: &mut Link,
    next: &mut NextRequest,
) -> Option<CloseReason> {
    loop {
        reactor::breathe().await;
        let step = match context.log_has_room(&link.connection().front) {
            true => step(context, link, next),
            false => Step::Log,
        };
        let result = match step {
            Step::Exchange(routed) => {
                link.connection().set_busy();
                let result = Box::pin(answer(context, link, &routed, next.began)).await;
                next.reset();
                result
            }
            Step::Read if !link.out.is_empty() => write_due(context, link).await,
            Step::Read => {
                let is_between = link.inbox.is_empty();
                let deadline_ms = prepare_wait(context, link, next);
                match link.connection().transport.readable(deadline_ms).await {
                    Ok(()) if link.connection().is_given() => Err(CloseReason::ClientGone),
                    Ok(()) => {
                        next.resume(link, is_between);
                        Ok(())
                    }
                    Err(error) => Err(Box::pin(end_of_wait(context, link, &error)).await),
                }
            }
            Step::Write => write_due(context, link).await,
            Step::Finish => write_due(context, link).await.and(Err(CloseReason::Finished)),
            Step::Log => {
                Box::pin(context.log_room(&link.connection().front)).await;
                Ok(())
            }
            Step::Flaw(flaw) => {
                Box::pin(refuse(context, link, flaw.status(), flaw.word())).await;
                Err(CloseReason::BadRequest)
            }
            Step::Http2 => return None,
            Step::End(reason) => Err(reason),
        };
        if let Err(reason) = result {
            return Some(reason);
        }
    }
}

/// Writes everything that is due. The future is boxed, because it is rare and would make the task
/// of every connection larger.
fn write_due<'l>(
    context: &Context,
    link: &'l mut Link,
) -> Pin<Box<dyn Future<Output = Result<(), CloseReason>> + 'l>> {
    Box::pin(link.write(b"", context.send_ms()))
}

/// Prepares to wait for bytes; returns the deadline in milliseconds of the monotonic clock.
fn prepare_wait(context: &Context, link: &mut Link, next: &mut NextRequest) -> u64 {
    let now_ms = reactor::now().mono_ms();
    let is_between = link.inbox.is_empty();
    if next.deadline_ms == 0 {
        let timeout_ms = if is_between { context.idle_ms() } else { context.head_ms() };
        next.deadline_ms = now_ms + timeout_ms;
    }
    if is_between {
        link.free_empty_buffers();
        link.connection().set_between(now_ms);
    }
    next.deadline_ms
}

/// The reason to close after a wait for bytes has failed. A client that has sent a part of a head
/// is answered.
async fn end_of_wait(context: &Rc<Context>, link: &mut Link, error: &io::Error) -> CloseReason {
    if error.kind() != io::ErrorKind::TimedOut {
        return CloseReason::ClientGone;
    }
    if link.inbox.is_empty() {
        return CloseReason::IdleTimeout;
    }
    refuse(context, link, Status(408), "the request's head did not come in time").await;
    CloseReason::HeadTimeout
}

/// Serves one request that is not hot.
async fn answer(
    context: &Rc<Context>,
    link: &mut Link,
    routed: &Routed,
    began: Now,
) -> Result<(), CloseReason> {
    let head = &routed.head;
    let entry = context.enter(head, began);
    let mut facts = routed.facts(began, entry.as_ref());
    let n_bytes_before = link.n_bytes();
    let timeouts = routed.timeouts(context);
    let options = ResponseOptions {
        may_keep_alive: !context.is_draining.get(),
        is_logged: context.is_logged(),
        pace: Pace::new(timeouts, &context.config.limits, began.mono_ms()),
    };
    link.take_buffer();
    let mut response = H1Response::new(link, timeouts, routed, options);
    let result = {
        let mut run = pin!(exchange::run(context, &mut response, routed, &mut facts));
        poll_fn(|task| in_flight::during(entry.as_ref(), || run.as_mut().poll(task))).await
    };
    let is_cut = matches!(
        result,
        Err(CloseReason::ClientGone | CloseReason::SendTimeout | CloseReason::Incomplete)
    );
    let (sent_body, written_body) = (response.sent_bytes(), response.written_body_bytes());
    let result = match (result, response.keeps_alive()) {
        (Ok(()), true) => Ok(()),
        (Ok(()), false) if response.is_body_unread() => Err(CloseReason::BadRequest),
        (Ok(()), false) if head.wants_keep_alive() => Err(CloseReason::Drain),
        (Ok(()), false) => Err(CloseReason::Finished),
        (Err(reason), _) => Err(reason),
    };
    facts.close = result.err();
    // The client must not take what it got for the whole.
    link.is_broken |= is_cut;
    let (body_bytes, bytes) = match is_cut {
        true => (written_body, link.n_written()),
        false => (sent_body, link.n_bytes()),
    };
    let sent = Sent { body_bytes, bytes: bytes.saturating_sub(n_bytes_before) };
    end(context, link, Some(routed), &facts, sent).await
}

/// Answers bytes that are no valid request. The connection ends.
async fn refuse(context: &Rc<Context>, link: &mut Link, status: Status, sentence: &'static str) {
    let close = Some(CloseReason::BadRequest);
    let mut facts = Facts { began: reactor::now(), reason: sentence, close, ..Facts::default() };
    let n_bytes_before = link.n_bytes();
    let mut response = H1Response::to_no_request(link, &context.config.timeouts.route);
    let added = Added::new(CacheStatus::own(), None, None);
    let given = synthetic::answer(&mut response, status, sentence, &[], &added, &mut facts).await;
    debug_assert_eq!(given, Ok(()), "nothing is written yet");
    let body_bytes = response.sent_bytes();
    let sent = Sent { body_bytes, bytes: link.n_bytes().saturating_sub(n_bytes_before) };
    // The connection ends in any case.
    let _ = end(context, link, None, &facts, sent).await;
}

/// Ends an exchange: its line is prepared before the last byte of its answer goes out. Without a head
/// the inbox begins with the request, which is refused.
async fn end(
    context: &Rc<Context>,
    link: &mut Link,
    routed: Option<&Routed>,
    facts: &Facts,
    sent: Sent,
) -> Result<(), CloseReason> {
    let told = routed.and_then(|routed| routed.front.as_deref());
    let front = told.unwrap_or(&link.connection().front);
    context.log_room(front).await;
    let asked = routed.map_or(Asked::Bytes(&link.inbox), |routed| Asked::Head(&routed.head));
    finish::finish(context, front, asked, facts, sent);
    let flushed = match link.inbox.is_empty() {
        true => link.flush_now(),
        false => Ok(()),
    };
    finish::commit(context);
    let Some(reason) = facts.close else { return flushed };
    if !link.is_broken {
        link.write(b"", context.send_ms()).await?;
    }
    Err(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what a function's future keeps between its waits.
    fn future_bytes<F>(_task: impl FnOnce(Rc<Context>, Counted, bool) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_is_a_small_task() {
        // Together with its Connection and its slot in the reactor it must stay under a kilobyte.
        // Exchanges are boxed while they run.
        let bytes = future_bytes(serve);
        assert!(bytes <= TASK_BYTES_MAX, "{bytes} bytes");
    }

    const TASK_BYTES_MAX: usize = 400;
}
