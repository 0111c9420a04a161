//! The keeper: one process for the chores that must not be done by every worker.
//!
//! It evicts objects, compares the index with the files after anything but a clean stop, removes
//! the temporary files of dead fills, resolves the names of servers, and checks the servers. It is a process on the
//! reactor. The chores of the cache run in its main future, which workers wake when they need room and which
//! also runs every second. Each chore is done in short steps, so that no task waits for long.

pub(crate) mod resolver;
mod lookups;
mod chores;
mod checks;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::keeper::chores::{Chores, Pace};
use crate::keeper::lookups::Lookups;
use crate::keeper::resolver::{Resolver, dns_ttl, getaddrinfo, names_in};
use crate::reactor;
use crate::reactor::event::Event;
use crate::reactor::readable::Readable;
use crate::reactor::timer;
use crate::shared::meter;
use crate::shared::servers::ServerTable;
use crate::sys::memory::ResidentMemory;
use crate::sys::pinned::Race;
use crate::worker::inherited::Inherited;
use crate::worker::message::{Received, ask_again_for_tls, notify_ready, notify_scrubbed, receive};

/// Runs the keeper until the master drains it or dies, and gives its exit code.
pub(crate) fn run(inherited: Inherited) -> i32 {
    match reactor::run(keep(Rc::new(inherited))) {
        Ok(code) => code,
        Err(error) => {
            log::error!("cannot create the event loop: {error}");
            1
        }
    }
}

async fn keep(inherited: Rc<Inherited>) -> i32 {
    let resolver = match Resolver::start(names_in(&inherited.config), getaddrinfo, dns_ttl) {
        Ok(resolver) => resolver,
        Err(error) => {
            log::error!("cannot start the resolver: {error}");
            return 1;
        }
    };
    if let Err(error) = notify_ready(inherited.channel.as_fd()) {
        log::debug!("control channel closed: {error}");
        return 0;
    }
    let needed = Rc::new(Event::default());
    reactor::spawn(hear_of_needs(Rc::clone(&inherited), Rc::clone(&needed)));
    reactor::spawn(publish_names(resolver, Rc::clone(&inherited.servers)));
    if let Some(forward) = &inherited.config.forward {
        let Inherited { names, wakes, process_slot, .. } = &*inherited;
        let (names, wakes) = (Rc::clone(names), Rc::clone(wakes));
        match Lookups::start(names, wakes, *process_slot, forward.resolve, getaddrinfo) {
            Ok(lookups) => reactor::spawn(look_up(lookups, Rc::clone(&needed))),
            Err(error) => {
                log::error!("cannot start the lookups of the forward proxy: {error}");
                return 1;
            }
        }
    }
    reactor::spawn(rotate_secrets(Rc::clone(&inherited)));
    checks::start(&inherited.config, &inherited.servers, &inherited.tls.clients);
    // A task that panics ends alone, but a keeper without its chores is no use: these two are the
    // main future, with which the process ends.
    Race::new(handle_messages(&inherited), do_chores(&inherited, &needed)).await;
    if let Some(cache) = &inherited.cache {
        cache.index.detach();
    }
    0
}

/// Handles the messages of the master, until `drain` or the end of the channel.
async fn handle_messages(inherited: &Inherited) {
    let Some(channel) = readable(Some(inherited.channel.as_fd())) else { return };
    while channel.readable().await.is_ok() {
        loop {
            match receive(inherited.channel.as_fd()) {
                Received::Nothing => break,
                Received::Drain | Received::Retire(_) | Received::Closed => return,
                Received::ErrorLog(file) => crate::log::error::reopen(file),
                Received::Tls(file) => {
                    let taken = inherited.tls.renew_by(&inherited.config, &inherited.secrets, file);
                    ask_again_for_tls(inherited.channel.as_fd(), taken);
                }
                Received::RequestLog(..)
                | Received::TakeOver(_)
                | Received::Release(_)
                | Received::Adopt(..) => {}
            }
        }
    }
}

/// Wakes the chores when a worker posts the keeper's eventfd.
async fn hear_of_needs(inherited: Rc<Inherited>, needed: Rc<Event>) {
    let Some(wake) = readable(inherited.wakes.fd(inherited.process_slot)) else { return };
    while wake.readable().await.is_ok() {
        // A wake-up that cannot be read now is read at the next one; the chores run each second.
        let _ = inherited.wakes.drain(inherited.process_slot);
        needed.notify();
    }
}

/// Makes new secrets for session tickets. With three of them, one opens tickets for two times longer
/// than it is the newest.
async fn rotate_secrets(inherited: Rc<Inherited>) {
    let every = inherited.config.tickets.lifetime / 2;
    let pause = (every / 8).clamp(Duration::from_millis(100), Duration::from_secs(60));
    loop {
        match inherited.secrets.rotate(reactor::now().unix_s(), every.as_secs()) {
            Ok(true) => log::debug!("made a new secret for TLS session tickets"),
            Ok(false) => {}
            Err(error) => log::error!("cannot make a secret for TLS session tickets: {error}"),
        }
        timer::sleep(pause).await;
    }
}

/// Writes the answers of the resolver to the table of servers.
async fn publish_names(mut resolver: Resolver, servers: Rc<ServerTable>) {
    let Some(answered) = readable(resolver.fd()) else { return };
    while answered.readable().await.is_ok() {
        resolver.publish(&servers, reactor::now());
    }
}

/// Answers the workers that ask for names.
async fn look_up(mut lookups: Lookups, needed: Rc<Event>) {
    let Some(answered) = readable(Some(lookups.fd())) else { return };
    loop {
        let since = needed.version();
        lookups.read_questions();
        lookups.publish();
        let _ = Race::new(answered.readable(), needed.after(since)).await;
    }
}

/// Does the chores of the cache, and those of the error log.
async fn do_chores(inherited: &Inherited, needed: &Event) {
    let mut chores = Chores::new(inherited);
    let memory = ResidentMemory::new().ok();
    loop {
        let since = needed.version();
        let pace = chores.as_mut().map_or(Pace::Idle, |chores| chores.step(Instant::now()));
        // A step may take long, and pauses and checks count from now.
        reactor::refresh_now();
        if chores.as_mut().is_some_and(Chores::take_scrubbed) {
            // If the master is dead, the end of its channel shows it.
            let _ = notify_scrubbed(inherited.channel.as_fd());
        }
        match pace {
            Pace::Busy => reactor::yield_now().await,
            Pace::After(pause) => {
                let _ = timer::timeout(pause.min(TICK), needed.after(since)).await;
            }
            Pace::Idle => {
                memory.iter().for_each(meter::note_memory);
                let _ = timer::timeout(TICK, needed.after(since)).await;
            }
        }
        crate::log::error::tick();
    }
}

/// A copy of a descriptor that a task waits for; `None` if there is none, or no descriptor is left.
fn readable(fd: Option<BorrowedFd<'_>>) -> Option<Readable<OwnedFd>> {
    fd.and_then(|fd| fd.try_clone_to_owned().ok()).map(Readable::new)
}

/// The longest sleep of the chores: the limits are checked at least this often.
const TICK: Duration = Duration::from_secs(1);
