//! The chores of a worker: it flushes its log, receives the wake-ups of other workers' fills,
//! closes files of removed objects, counts hits, closes idle connections to origins, gives memory
//! back, and shows the master that it is alive.

use std::rc::Rc;
use std::time::Duration;

use crate::cache::Cache;
use crate::log::access::Flushed;
use crate::log::error;
use crate::proxy::context::Context;
use crate::reactor::readable::Readable;
use crate::reactor::{self, timer};
use crate::shared::beats::Beats;
use crate::sys::memory;

/// The longest that a line stays in the ring while the file is free.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// How often idle connections to origins are looked at.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// How often open files are compared with the index.
const CLOSE_EVERY: Duration = Duration::from_secs(1);

/// How often hits are counted where others see them, and how many objects are looked at in one go.
const COUNT_EVERY: Duration = Duration::from_secs(1);
const COUNT_AT_ONCE: usize = 2_048;

/// How often memory that nothing uses is given back to the system.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(20);

/// How often a sign of life is given.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// Starts the chores.
pub(super) fn start(context: &Rc<Context>, beats: Rc<Beats>, process_slot: usize) {
    reactor::spawn(beat(beats, process_slot));
    if context.access.is_some() {
        reactor::spawn(flush_always(Rc::clone(context)));
    }
    if let Some(cache) = &context.cache {
        reactor::spawn(hear_of_fills(Rc::clone(cache)));
        reactor::spawn(forget_gone(Rc::clone(cache)));
        reactor::spawn(count_hits(Rc::clone(cache)));
    }
    reactor::spawn(expire(Rc::clone(context)));
    reactor::spawn(give_back());
}

/// Flushes everything that is in the ring, to the spill file if need be, for at most `patience_ms`.
pub(super) async fn flush_log(context: &Context, patience_ms: u64) {
    let until_ms = reactor::now().mono_ms() + patience_ms;
    while let Some(retry) = flush(context)
        && reactor::now().mono_ms() < until_ms
    {
        if context.access.as_ref().is_some_and(|access| access.borrow_mut().spill_rest()) {
            return;
        }
        timer::sleep(retry).await;
    }
}

async fn flush_always(context: Rc<Context>) {
    loop {
        let since = context.log_due.version();
        match flush(&context) {
            None => {
                // Elapsed or due: flush in either case.
                let _ = timer::timeout(FLUSH_EVERY, context.log_due.after(since)).await;
            }
            Some(retry) => timer::sleep(retry).await,
        }
    }
}

/// Flushes once; gives when to try again if the file was busy.
fn flush(context: &Context) -> Option<Duration> {
    let access = context.access.as_ref()?;
    let flushed = access.borrow_mut().flush();
    match flushed {
        Flushed::Done => {
            context.log_flushed.notify();
            None
        }
        Flushed::Busy { retry_ms } | Flushed::Failed { retry_ms } => {
            Some(Duration::from_millis(retry_ms))
        }
    }
}

/// Other workers post the counter when a fill that this worker follows has progressed.
async fn hear_of_fills(cache: Rc<Cache>) {
    let Some(Ok(fd)) = cache.wake_fd().map(|fd| fd.try_clone_to_owned()) else { return };
    let counter = Readable::new(fd);
    while counter.readable().await.is_ok() {
        cache.woken();
    }
}

/// The disk frees the space of a removed file only when no process has it open.
async fn forget_gone(cache: Rc<Cache>) {
    loop {
        timer::sleep(CLOSE_EVERY).await;
        cache.close_removed();
    }
}

/// Adds the hits from this worker's hot tier to those that the index counts.
async fn count_hits(cache: Rc<Cache>) {
    loop {
        timer::sleep(COUNT_EVERY).await;
        let mut next = Some(0);
        while let Some(start) = next {
            next = cache.count_hits(start, COUNT_AT_ONCE);
            reactor::yield_now().await;
        }
    }
}

/// Shows the master that the loop turns.
async fn beat(beats: Rc<Beats>, process_slot: usize) {
    loop {
        beats.beat(process_slot);
        timer::sleep(BEAT_EVERY).await;
    }
}

async fn give_back() {
    let mut free = 0;
    loop {
        timer::sleep(GIVE_BACK_EVERY).await;
        memory::give_back(&mut free);
    }
}

async fn expire(context: Rc<Context>) {
    loop {
        timer::sleep(EXPIRE_EVERY).await;
        context.pools.expire();
        error::tick();
    }
}
