//! The task of a client's connection: request after request until it ends.
//!
//! ```text
//! read ─▶ whole heads? ─ no ─▶ write what is due, wait ─▶ read
//!            │ yes
//!            ├─ hot: its answer joins what is due ──────▶ next head
//!            └─ else: an exchange of its own ───────────▶ next head, or the end
//! ```
//!
//! Answers to pipelined requests gather and go out in one write.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use crate::base::time::Now;
use crate::http::flaw::Flaw;
use crate::http::h1::head as h1_head;
use crate::http::head::RequestHead;
use crate::http::status::Status;
use crate::policy::cache_status::CacheStatus;
use crate::policy::reason::close::CloseReason;
use crate::proxy::added::Added;
use crate::proxy::client::Client as _;
use crate::proxy::client::connections::Counted;
use crate::proxy::context::Context;
use crate::proxy::exchange::Exchange;
use crate::proxy::facts::Facts;
use crate::proxy::finish::{self, Sent};
use crate::proxy::h1::link::{Link, READ_BYTES};
use crate::proxy::h1::quick::{self, Quick};
use crate::proxy::h1::response::{H1Response, ResponseOptions};
use crate::proxy::synthetic;
use crate::reactor::{self, scratch};

/// Answers that are due are written before more are added to so many bytes.
const DUE_BYTES_MAX: usize = 32 << 10;

/// What is read and thrown away after the last answer, so that the client can read it.
const LINGER_BYTES: usize = 256 << 10;

/// How long that may take.
const LINGER: Duration = Duration::from_secs(2);

/// Serves a client's connection to its end.
pub fn serve(context: Rc<Context>, counted: Counted) -> impl Future<Output = ()> {
    // What is moved into a future after its first wait is kept there twice.
    let mut link = Link::new(counted);
    let mut wait = Wait::new(&context);
    async move {
        let reason = converse(&context, &mut link, &mut wait).await;
        if link.is_broken {
            link.connection().transport.reset();
        } else if is_client_sending(reason, &link) {
            Box::pin(linger(&context, &mut link)).await;
        }
    }
}

/// Whether there may be bytes on their way that nobody will read.
fn is_client_sending(reason: CloseReason, link: &Link) -> bool {
    match reason {
        CloseReason::BadRequest | CloseReason::BodyTimeout | CloseReason::Drain => true,
        CloseReason::Finished => !link.inbox.is_empty(),
        _ => false,
    }
}

/// What is to be done next on a connection.
enum Step {
    /// An exchange, for which there may be more to do than can be done at once.
    Exchange(Box<RequestHead>),
    /// More bytes are needed.
    Read,
    /// What is due must be written before anything else.
    Write,
    /// What is due must be written, and nothing follows it.
    Finish,
    /// The access log has no room.
    Log,
    /// A request broke the protocol.
    Flaw(Flaw),
    /// The connection has ended.
    End(CloseReason),
}

async fn converse(context: &Rc<Context>, link: &mut Link, wait: &mut Wait) -> CloseReason {
    loop {
        reactor::breathe().await;
        let step = match context.log_has_room() {
            true => step(context, link, wait),
            false => Step::Log,
        };
        let result = match step {
            Step::Exchange(head) => {
                link.connection().set_busy();
                let result = Box::pin(exchange(context, link, &head, wait.began)).await;
                wait.next_request();
                result
            }
            Step::Read if !link.out.is_empty() => write_due(context, link).await,
            Step::Read => {
                let is_between = link.inbox.is_empty();
                let deadline_ms = settle(context, link, wait);
                match link.connection().transport.readable(deadline_ms).await {
                    Ok(()) => {
                        wait.resume(link, is_between);
                        Ok(())
                    }
                    Err(error) => Err(Box::pin(give_up(context, link, &error)).await),
                }
            }
            Step::Write => write_due(context, link).await,
            Step::Finish => write_due(context, link).await.and(Err(CloseReason::Finished)),
            Step::Log => {
                Box::pin(context.log_room()).await;
                Ok(())
            }
            Step::Flaw(flaw) => {
                Box::pin(refuse(context, link, flaw.status(), flaw.word())).await;
                Err(CloseReason::BadRequest)
            }
            Step::End(reason) => Err(reason),
        };
        if let Err(reason) = result {
            return reason;
        }
    }
}

/// What a connection waits for.
struct Wait {
    /// When the first byte of the request under way was read; 0 before it.
    began: Now,
    /// When the present wait is over, in milliseconds of the monotonic clock.
    deadline_ms: u64,
    /// So much of the inbox was searched for the end of a head in vain.
    searched: usize,
    /// The inbox holds nothing that more bytes are not needed for.
    is_starved: bool,
}

impl Wait {
    /// A new connection has as long for its first head as for any.
    fn new(context: &Context) -> Self {
        let deadline_ms = reactor::now().mono_ms() + context.head_ms();
        Self { began: Now::default(), deadline_ms, searched: 0, is_starved: true }
    }

    /// Bytes have come, or so it seems.
    fn resume(&mut self, link: &Link, is_between: bool) {
        link.connection().set_busy();
        if is_between {
            // The head that begins now has its own time.
            self.deadline_ms = 0;
        }
    }

    fn next_request(&mut self) {
        self.began = Now::default();
        self.deadline_ms = 0;
        self.searched = 0;
        self.is_starved = false;
    }
}

/// Does what can be done at once: reads, and answers what is hot.
fn step(context: &Rc<Context>, link: &mut Link, wait: &mut Wait) -> Step {
    if link.out.len() > DUE_BYTES_MAX {
        return Step::Write;
    }
    if !wait.is_starved && !link.inbox.is_empty() {
        return step_inbox(context, link, wait);
    }
    let result = scratch::with_scratch(|scratch| {
        let room = scratch.len().min(READ_BYTES);
        let n_read = link.connection().transport.try_read(&mut scratch[..room])?;
        let read = &scratch[..n_read];
        if n_read == 0 || !link.inbox.is_empty() {
            link.inbox.extend_from_slice(read);
            return Ok((n_read, None));
        }
        let (used, step) = answer_hot(context, link, wait, read);
        link.inbox.extend_from_slice(read.get(used..).unwrap_or_default());
        Ok((n_read, Some(step)))
    });
    wait.is_starved = false;
    match result {
        // Who has said everything may still be listening.
        Ok((0, _)) if !link.out.is_empty() => Step::Write,
        Ok((0, _)) => Step::End(end_reason(link)),
        Ok((_, Some(step))) => step,
        Ok((_, None)) => step_inbox(context, link, wait),
        Err(error) if matches_would_block(&error) => {
            wait.is_starved = true;
            Step::Read
        }
        Err(_) => Step::End(end_reason(link)),
    }
}

fn step_inbox(context: &Rc<Context>, link: &mut Link, wait: &mut Wait) -> Step {
    let inbox = std::mem::take(&mut link.inbox);
    let (used, step) = answer_hot(context, link, wait, &inbox);
    link.inbox = inbox;
    link.inbox.drain(..used);
    step
}

fn matches_would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// The client has ended its side. Whole requests were answered before, so what is left is none.
fn end_reason(link: &Link) -> CloseReason {
    match link.inbox.is_empty() {
        true => CloseReason::ClientClosed,
        false => CloseReason::ClientGone,
    }
}

/// Answers the hot requests at the beginning of `bytes`; how many bytes were used, and what is to
/// be done about the rest.
fn answer_hot(
    context: &Rc<Context>,
    link: &mut Link,
    wait: &mut Wait,
    bytes: &[u8],
) -> (usize, Step) {
    let mut at = 0;
    let step = loop {
        let rest = bytes.get(at..).unwrap_or_default();
        if rest.is_empty() {
            wait.is_starved = true;
            break Step::Read;
        }
        if wait.began == Now::default() {
            wait.began = reactor::now();
        }
        match next_head(context, link, wait, rest) {
            Ok(Next::Answered(used)) => {
                at += used;
                wait.next_request();
                if link.out.len() > DUE_BYTES_MAX {
                    break Step::Write;
                }
                if !context.log_has_room() {
                    break Step::Log;
                }
            }
            Ok(Next::Last(used)) => {
                at += used;
                break Step::Finish;
            }
            Ok(Next::Exchange(head, used)) => {
                at += used;
                break Step::Exchange(head);
            }
            Ok(Next::More) => {
                wait.is_starved = true;
                break Step::Read;
            }
            Ok(Next::Flaw(flaw)) => break Step::Flaw(flaw),
            Err(reason) => break Step::End(reason),
        }
    };
    let flushed = match link.inbox.is_empty() && matches!(step, Step::Read) {
        true => link.flush_now(),
        false => Ok(()),
    };
    finish::commit(context);
    match flushed {
        Ok(()) => (at, step),
        Err(reason) => (at, Step::End(reason)),
    }
}

/// What the next request is.
enum Next {
    /// It was hot and its answer is due or gone.
    Answered(usize),
    /// As that, and it was the last one.
    Last(usize),
    /// It needs an exchange.
    Exchange(Box<RequestHead>, usize),
    /// Its head is not whole.
    More,
    /// It breaks the protocol.
    Flaw(Flaw),
}

fn next_head(
    context: &Rc<Context>,
    link: &mut Link,
    wait: &mut Wait,
    bytes: &[u8],
) -> Result<Next, CloseReason> {
    let Some(end) = h1_head::find_end(bytes, wait.searched) else {
        if bytes.len() < context.client_head.head_bytes {
            wait.searched = bytes.len().saturating_sub(3);
            return Ok(match obviously_wrong(context, bytes) {
                Some(flaw) => Next::Flaw(flaw),
                None => Next::More,
            });
        }
        let flaw = h1_head::parse_request(bytes, &context.client_head).err();
        return Ok(Next::Flaw(flaw.unwrap_or(Flaw::HeadTooLarge)));
    };
    let raw = bytes.get(..end).unwrap_or_default();
    let is_last = end == bytes.len();
    let may_be_quick = !context.is_draining.get();
    if may_be_quick {
        match quick::answer_raw(context, link, raw, is_last)? {
            Quick::No => {}
            Quick::Answered => return Ok(Next::Answered(end)),
            Quick::Last => return Ok(Next::Last(end)),
        }
    }
    let (head, used) = match h1_head::parse_request(bytes, &context.client_head) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return Ok(Next::More),
        Err(flaw) => return Ok(Next::Flaw(flaw)),
    };
    let raw = bytes.get(..used).unwrap_or_default();
    let is_last = used == bytes.len();
    if may_be_quick {
        match quick::answer_parsed(context, link, &head, raw, is_last)? {
            Quick::No => {}
            Quick::Answered => return Ok(Next::Answered(used)),
            Quick::Last => return Ok(Next::Last(used)),
        }
    }
    Ok(Next::Exchange(Box::new(head), used))
}

/// A head that cannot become a right one is refused before it is whole.
fn obviously_wrong(context: &Context, bytes: &[u8]) -> Option<Flaw> {
    h1_head::parse_request(bytes, &context.client_head).err()
}

/// Writes everything that is due. Boxed, for it is rare and would make every connection larger.
fn write_due<'l>(
    context: &Context,
    link: &'l mut Link,
) -> Pin<Box<dyn Future<Output = Result<(), CloseReason>> + 'l>> {
    Box::pin(link.write(b"", context.send_ms()))
}

/// Prepares to wait for bytes; gives until when.
fn settle(context: &Context, link: &mut Link, wait: &mut Wait) -> u64 {
    let now_ms = reactor::now().mono_ms();
    let is_between = link.inbox.is_empty();
    if wait.deadline_ms == 0 {
        let timeout_ms = if is_between { context.idle_ms() } else { context.head_ms() };
        wait.deadline_ms = now_ms + timeout_ms;
    }
    if is_between {
        link.rest();
        link.connection().set_idle(now_ms);
    }
    wait.deadline_ms
}

/// Why the wait for bytes ends the connection; who began a head is told.
async fn give_up(context: &Rc<Context>, link: &mut Link, error: &io::Error) -> CloseReason {
    if error.kind() != io::ErrorKind::TimedOut {
        return CloseReason::ClientGone;
    }
    if link.inbox.is_empty() {
        return CloseReason::IdleTimeout;
    }
    refuse(context, link, Status(408), "the request's head did not come in time").await;
    CloseReason::HeadTimeout
}

/// One request that is not hot.
async fn exchange(
    context: &Rc<Context>,
    link: &mut Link,
    head: &RequestHead,
    began: Now,
) -> Result<(), CloseReason> {
    let mut facts = Facts { began, head_us: reactor::now().mono_us, ..Facts::default() };
    let begun = link.n_bytes();
    let options = ResponseOptions {
        may_keep_alive: !context.is_draining.get(),
        is_logged: context.access.is_some(),
    };
    let mut response = H1Response::new(link, &context.config.timeouts, head, options);
    let result = Exchange::new(context, &mut response, head, &mut facts).run().await;
    let body_bytes = response.sent_bytes();
    let result = match (result, response.keeps_alive()) {
        (Ok(()), true) => Ok(()),
        (Ok(()), false) if response.is_body_unread() => Err(CloseReason::BadRequest),
        (Ok(()), false) if head.wants_keep_alive() => Err(CloseReason::Drain),
        (Ok(()), false) => Err(CloseReason::Finished),
        (Err(reason), _) => Err(reason),
    };
    facts.close = result.err();
    let sent = Sent { body_bytes, bytes: link.n_bytes().saturating_sub(begun) };
    end(context, link, Some(head), &facts, sent).await
}

/// Answers what is no request; the connection ends.
async fn refuse(context: &Rc<Context>, link: &mut Link, status: Status, sentence: &'static str) {
    let close = Some(CloseReason::BadRequest);
    let mut facts = Facts { began: reactor::now(), reason: sentence, close, ..Facts::default() };
    let begun = link.n_bytes();
    let mut response = H1Response::to_no_request(link, &context.config.timeouts);
    let added = Added::new(CacheStatus::own(), None, None);
    let given = synthetic::answer(&mut response, status, sentence, &[], &added, &mut facts).await;
    debug_assert_eq!(given, Ok(()), "nothing is written yet");
    let body_bytes = response.sent_bytes();
    let sent = Sent { body_bytes, bytes: link.n_bytes().saturating_sub(begun) };
    // The connection ends in any case.
    let _ = end(context, link, None, &facts, sent).await;
}

/// Ends an exchange: its line is prepared before the last byte of its answer goes out.
async fn end(
    context: &Rc<Context>,
    link: &mut Link,
    head: Option<&RequestHead>,
    facts: &Facts,
    sent: Sent,
) -> Result<(), CloseReason> {
    context.log_room().await;
    finish::finish(context, &link.connection().front, head, facts, sent);
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

/// A close while the client's bytes lie unread would send a reset, and the client would lose the
/// answer that is still on its way. So the end is announced, and what comes is thrown away.
async fn linger(context: &Rc<Context>, link: &mut Link) {
    if link.write(b"", context.send_ms()).await.is_err()
        || link.connection().transport.shutdown_write().is_err()
    {
        return;
    }
    let deadline_ms = reactor::now().mono_ms() + LINGER.as_millis() as u64;
    let mut n_left = LINGER_BYTES;
    while n_left > 0 {
        link.inbox.clear();
        match link.read(deadline_ms).await {
            Ok(0) | Err(_) => return,
            Ok(n_read) => n_left = n_left.saturating_sub(n_read),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what a function's future keeps between its waits.
    fn future_bytes<F>(_task: impl FnOnce(Rc<Context>, Counted) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_is_a_small_task() {
        // With its socket, its place among the clients and its slot in the reactor it must stay
        // under a kilobyte; the exchanges themselves are boxed while they run.
        let bytes = future_bytes(serve);
        assert!(bytes <= TASK_BYTES_MAX, "{bytes} bytes");
    }

    const TASK_BYTES_MAX: usize = 400;
}
