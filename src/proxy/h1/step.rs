//! What can be done at once on a client's connection: read, and answer what is hot.

use std::io;
use std::rc::Rc;

use crate::base::time::Now;
use crate::http::flaw::Flaw;
use crate::http::h1::head as h1_head;
use crate::http::head::RequestHead;
use crate::policy::reason::close::CloseReason;
use crate::proxy::context::Context;
use crate::proxy::finish;
use crate::proxy::h1::link::{Link, READ_BYTES};
use crate::proxy::h1::quick::{self, Quick};
use crate::reactor::{self, scratch};

/// Answers that are due are written before more are added to so many bytes.
const DUE_BYTES_MAX: usize = 32 << 10;

/// What is to be done next on a connection.
pub(super) enum Step {
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

/// What a connection waits for.
pub(super) struct Wait {
    /// When the first byte of the request under way was read; 0 before it.
    pub(super) began: Now,
    /// When the present wait is over, in milliseconds of the monotonic clock.
    pub(super) deadline_ms: u64,
    /// So much of the inbox was searched for the end of a head in vain.
    searched: usize,
    /// The inbox holds nothing that more bytes are not needed for.
    is_starved: bool,
}

impl Wait {
    /// A new connection has as long for its first head as for any.
    pub(super) fn new(context: &Context) -> Self {
        let deadline_ms = reactor::now().mono_ms() + context.head_ms();
        Self { began: Now::default(), deadline_ms, searched: 0, is_starved: true }
    }

    /// Bytes have come, or so it seems.
    pub(super) fn resume(&mut self, link: &Link, is_between: bool) {
        link.connection().set_busy();
        if is_between {
            // The head that begins now has its own time.
            self.deadline_ms = 0;
        }
    }

    pub(super) fn next_request(&mut self) {
        self.began = Now::default();
        self.deadline_ms = 0;
        self.searched = 0;
        self.is_starved = false;
    }
}

/// Does what can be done at once: reads, and answers what is hot.
pub(super) fn step(context: &Rc<Context>, link: &mut Link, wait: &mut Wait) -> Step {
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
