//! The chores of a worker: it receives the wake-ups of other workers' fills,
//! closes files of removed objects, counts hits, closes idle connections to origins, gives memory back, and
//! shows the master that it is alive.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use crate::cache::Cache;
use crate::disk;
use crate::log::error;
use crate::proxy::context::Context;
use crate::reactor::readable::Readable;
use crate::reactor::{self, timer};
use crate::shared::beats::Beats;
use crate::shared::meter;
use crate::shared::wake::Wakes;
use crate::sys::memory::{self, ResidentMemory};

/// How often idle connections to origins are looked at.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// How often open files are compared with the index.
const CLOSE_EVERY: Duration = Duration::from_secs(1);

/// How often hits are counted where others see them, and how many objects are looked at in one go.
const COUNT_EVERY: Duration = Duration::from_secs(1);
const COUNT_AT_ONCE: usize = 2_048;

/// How often memory that nothing uses is given back to the system.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(20);

/// How often the memory of this process is looked at.
const MEMORY_EVERY: Duration = Duration::from_secs(10);

/// How often a sign of life is given.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// Starts the chores.
pub(super) fn start(context: &Rc<Context>, wakes: &Wakes, beats: Rc<Beats>, process_slot: usize) {
    reactor::spawn(beat(beats, process_slot));
    if let Some(Ok(fd)) = wakes.fd(process_slot).map(|fd| fd.try_clone_to_owned()) {
        reactor::spawn(hear(Rc::clone(context), Readable::new(fd)));
    }
    if let Some(cache) = &context.cache {
        reactor::spawn(count_hits(Rc::clone(cache)));
    }
    reactor::spawn(close_removed(context.cache.clone()));
    reactor::spawn(expire(Rc::clone(context)));
    reactor::spawn(give_back());
    reactor::spawn(note_memory());
}

/// Other workers post the counter when a fill that this worker follows has progressed, and the keeper
/// does when it has looked up a name.
async fn hear(context: Rc<Context>, counter: Readable<OwnedFd>) {
    while counter.readable().await.is_ok() {
        // What is posted now is looked at below, or makes the counter readable again.
        let mut posted = [0; 8];
        let _ = nix::unistd::read(counter.fd(), &mut posted);
        if let Some(cache) = &context.cache {
            cache.woken();
        }
        context.pools.woken();
    }
}

/// The disk frees the space of a removed file only when no process has it open.
async fn close_removed(cache: Option<Rc<Cache>>) {
    loop {
        timer::sleep(CLOSE_EVERY).await;
        if let Some(cache) = &cache {
            cache.forget_gone();
        }
        disk::file::close_waiting();
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

/// Shows how much memory this process has.
async fn note_memory() {
    let Ok(memory) = ResidentMemory::new() else { return };
    loop {
        meter::note_memory(&memory);
        timer::sleep(MEMORY_EVERY).await;
    }
}

async fn expire(context: Rc<Context>) {
    loop {
        timer::sleep(EXPIRE_EVERY).await;
        context.pools.expire();
        if !context.is_draining.get() {
            context.pools.open_ahead();
        }
        error::tick();
    }
}
