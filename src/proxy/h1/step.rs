//! A step on a client's connection that needs no wait: reading, and answering hot requests.

use std::io;
use std::rc::Rc;

use crate::base::time::Now;
use crate::http::flaw::Flaw;
use crate::http::h1::head as h1_head;
use crate::policy::reason::close::CloseReason;
use crate::proxy::context::Context;
use crate::proxy::finish;
use crate::proxy::h1::link::{Link, READ_BYTES};
use crate::proxy::h1::quick::{self, Quick};
use crate::proxy::routed::Routed;
use crate::reactor::{self, scratch};

/// Answers that are due are written before more are added, once they have this many bytes.
const DUE_BYTES_MAX: usize = 32 << 10;

/// The next thing to do on a connection.
pub(super) enum Step {
    /// The next request needs an exchange.
    Exchange(Box<Routed>),
    /// More bytes are needed.
    Read,
    /// Due bytes must be written before anything else.
    Write,
    /// Due bytes must be written, and the connection ends.
    Finish,
    /// The access log has no room.
    Log,
    /// A request broke the protocol.
    Flaw(Flaw),
    /// The connection speaks HTTP/2; the inbox holds all that was read of it.
    Http2,
    /// The connection has ended.
    End(CloseReason),
}

/// The request that a connection waits for, or has read in part.
pub(super) struct NextRequest {
    /// When its first byte was read; 0 before that.
    pub(super) began: Now,
    /// Until when the connection waits, in milliseconds of the monotonic clock; 0 if that is not set
    /// yet.
    pub(super) deadline_ms: u64,
    /// How many bytes of the inbox were searched for the end of the head.
    searched: usize,
    /// Whether the inbox is empty or holds the beginning of a head, so that more bytes are needed.
    needs_bytes: bool,
    /// Whether the connection has waited between two requests, and no byte has come since.
    is_between: bool,
}

impl NextRequest {
    /// The first request of a connection, which has `timeouts.client-head` to come, unless the
    /// connection was idle at another worker before.
    pub(super) fn new(context: &Context, was_idle: bool) -> Self {
        let deadline_ms = match was_idle {
            true => 0,
            false => reactor::now().mono_ms() + context.head_ms(),
        };
        Self {
            began: Now::default(),
            deadline_ms,
            searched: 0,
            needs_bytes: true,
            is_between: was_idle,
        }
    }

    /// The wait for bytes has ended.
    pub(super) fn resume(&mut self, link: &Link, is_between: bool) {
        link.connection().set_busy();
        self.is_between = is_between;
    }

    /// Bytes have come. TLS may be woken without any: by a part of a record, or by a key update.
    fn arrived(&mut self) {
        if std::mem::take(&mut self.is_between) {
            // A head that begins on an idle connection has the whole of `timeouts.client-head`.
            self.deadline_ms = 0;
        }
    }

    pub(super) fn reset(&mut self) {
        self.began = Now::default();
        self.deadline_ms = 0;
        self.searched = 0;
        self.needs_bytes = false;
    }
}

/// Reads what there is, answers what is hot, and returns what to do next.
pub(super) fn step(context: &Rc<Context>, link: &mut Link, next: &mut NextRequest) -> Step {
    if link.out.len() > DUE_BYTES_MAX {
        return Step::Write;
    }
    if !next.needs_bytes && !link.inbox.is_empty() {
        return step_inbox(context, link, next);
    }
    let result = scratch::with_scratch(|scratch| {
        let room = scratch.len().min(READ_BYTES);
        let n_read = link.connection().transport.try_read(&mut scratch[..room])?;
        let read = &scratch[..n_read];
        next.arrived();
        if n_read == 0 || !link.inbox.is_empty() {
            link.inbox.extend_from_slice(read);
            return Ok((n_read, None));
        }
        let (used, step) = answer_hot(context, link, next, read);
        link.keep(read.get(used..).unwrap_or_default());
        Ok((n_read, Some(step)))
    });
    next.needs_bytes = false;
    match result {
        // A client that has closed its own direction still reads.
        Ok((0, _)) if !link.out.is_empty() => Step::Write,
        Err(error) if is_cut(&error) && !link.out.is_empty() => Step::Write,
        Ok((0, _)) => Step::End(end_reason(link)),
        Ok((_, Some(step))) => step,
        Ok((_, None)) => step_inbox(context, link, next),
        Err(error) if matches_would_block(&error) => {
            next.needs_bytes = true;
            Step::Read
        }
        Err(_) => Step::End(end_reason(link)),
    }
}

fn step_inbox(context: &Rc<Context>, link: &mut Link, next: &mut NextRequest) -> Step {
    let inbox = std::mem::take(&mut link.inbox);
    let (used, step) = answer_hot(context, link, next, &inbox);
    link.inbox = inbox;
    link.inbox.drain(..used);
    step
}

fn matches_would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Whether the client has closed its direction without a close_notify of TLS. The requests before it
/// were whole.
fn is_cut(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
}

/// The reason to close after the client has closed its direction. Complete requests were answered,
/// so that bytes that are left are the beginning of one.
fn end_reason(link: &Link) -> CloseReason {
    match link.inbox.is_empty() {
        true => CloseReason::ClientClosed,
        false => CloseReason::ClientGone,
    }
}

/// Answers the hot requests at the beginning of `bytes`. Returns how many bytes were used, and what
/// to do next.
fn answer_hot(
    context: &Rc<Context>,
    link: &mut Link,
    next: &mut NextRequest,
    bytes: &[u8],
) -> (usize, Step) {
    let mut at = 0;
    let step = loop {
        let rest = bytes.get(at..).unwrap_or_default();
        if rest.is_empty() {
            next.needs_bytes = true;
            break Step::Read;
        }
        if next.began == Now::default() {
            next.began = reactor::turn_began();
        }
        match next_head(context, link, next, rest) {
            Ok(Next::Answered(used)) => {
                at += used;
                next.reset();
                if link.out.len() > DUE_BYTES_MAX {
                    break Step::Write;
                }
                if !context.log_has_room(&link.connection().front) {
                    break Step::Log;
                }
            }
            Ok(Next::Last(used)) => {
                at += used;
                break Step::Finish;
            }
            Ok(Next::Exchange(routed, used)) => {
                at += used;
                break Step::Exchange(routed);
            }
            Ok(Next::More) => {
                next.needs_bytes = true;
                break Step::Read;
            }
            Ok(Next::Flaw(_)) if begins_http2(link, rest) => break Step::Http2,
            Ok(Next::Flaw(flaw)) => break Step::Flaw(flaw),
            Err(reason) => break Step::End(reason),
        }
    };
    let flushed = match link.inbox.is_empty() && matches!(step, Step::Read) {
        true => link.flush_now(),
        false => Ok(()),
    };
    finish::commit(context);
    if let Some(in_flight) = &context.in_flight {
        in_flight.end_head();
    }
    match flushed {
        Ok(()) => (at, step),
        Err(reason) => (at, Step::End(reason)),
    }
}

/// The outcome for the next request.
enum Next {
    /// It was hot, and its answer is written or due.
    Answered(usize),
    /// As `Answered`, and it was the last one on this connection.
    Last(usize),
    /// It needs an exchange.
    Exchange(Box<Routed>, usize),
    /// Its head is not complete.
    More,
    /// It breaks the protocol.
    Flaw(Flaw),
}

fn next_head(
    context: &Rc<Context>,
    link: &mut Link,
    next: &mut NextRequest,
    bytes: &[u8],
) -> Result<Next, CloseReason> {
    let Some(end) = h1_head::find_end(bytes, next.searched) else {
        if bytes.len() < context.client_head.head_bytes {
            next.searched = bytes.len().saturating_sub(3);
            return Ok(match flaw_of_partial(context, bytes) {
                Some(flaw) => Next::Flaw(flaw),
                None => Next::More,
            });
        }
        let flaw = h1_head::parse_request(bytes, &context.client_head).err();
        return Ok(Next::Flaw(flaw.unwrap_or(Flaw::HeadTooLarge)));
    };
    let raw = bytes.get(..end).unwrap_or_default();
    let is_last = end == bytes.len();
    if let Some(in_flight) = &context.in_flight {
        in_flight.begin_head(raw);
    }
    let may_be_quick = !context.is_draining.get();
    // A request that is suspected is looked at.
    if may_be_quick && !context.is_guarding() {
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
    let routed = Routed::new(context, &link.connection().front, head);
    if may_be_quick {
        match quick::answer_parsed(context, link, &routed, raw, is_last)? {
            Quick::No => {}
            Quick::Answered => return Ok(Next::Answered(used)),
            Quick::Last => return Ok(Next::Last(used)),
        }
    }
    Ok(Next::Exchange(Box::new(routed), used))
}

/// Whether a client begins to speak HTTP/2 by prior knowledge (RFC 9113 section 3.3), which TLS has no
/// need for. To HTTP/1 the beginning of its preface is a head of an unknown version.
fn begins_http2(link: &Link, bytes: &[u8]) -> bool {
    bytes.starts_with(b"PRI * HTTP/2.0\r\n\r\n")
        && link.n_bytes() == 0
        && link.connection().front.listen.http2
        && link.connection().front.tls.is_none()
}

/// The flaw of an incomplete head that cannot become valid.
fn flaw_of_partial(context: &Context, bytes: &[u8]) -> Option<Flaw> {
    h1_head::parse_request(bytes, &context.client_head).err()
}
