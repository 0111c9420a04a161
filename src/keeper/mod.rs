//! The keeper: one process for the chores that must not be done by every worker.
//!
//! It evicts objects, compares the index with the files after anything but a clean stop, removes
//! the temporary files of dead fills, and resolves the names of servers. It is woken by workers
//! that need room, by the master, by the resolver, and every second. Each chore is done in short
//! steps, so that a message never waits for long.

pub(crate) mod resolver;
mod chores;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::keeper::chores::{Chores, Pace};
use crate::keeper::resolver::{Resolver, getaddrinfo, names_in};
use crate::worker::inherited::Inherited;
use crate::worker::message::{Received, notify_ready, notify_scrubbed, receive};

/// Runs the keeper until the master drains it or dies, and gives its exit code.
pub(crate) fn run(inherited: Inherited) -> i32 {
    let resolver = match Resolver::start(names_in(&inherited.config), getaddrinfo) {
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
    let chores = Chores::new(&inherited);
    let code = Keeper { inherited: &inherited, resolver, chores }.keep();
    if let Some(cache) = &inherited.cache {
        cache.index.detach();
    }
    code
}

struct Keeper<'a> {
    inherited: &'a Inherited,
    resolver: Resolver,
    chores: Option<Chores>,
}

impl Keeper<'_> {
    fn keep(mut self) -> i32 {
        loop {
            let pace =
                self.chores.as_mut().map_or(Pace::Idle, |chores| chores.step(Instant::now()));
            if self.chores.as_mut().is_some_and(Chores::take_scrubbed) {
                // If the master is dead, the loop below notices it.
                let _ = notify_scrubbed(self.inherited.channel.as_fd());
            }
            self.wait(match pace {
                Pace::Busy => Duration::ZERO,
                Pace::After(pause) => pause.min(TICK),
                Pace::Idle => TICK,
            });
            crate::log::error::tick();
            self.resolver.publish(&self.inherited.servers);
            // A wake-up that cannot be read now is read at the next tick.
            let _ = self.inherited.wakes.drain(self.inherited.process_slot);
            loop {
                match receive(self.inherited.channel.as_fd()) {
                    Received::Nothing => break,
                    Received::Drain | Received::Closed => return 0,
                    Received::ErrorLog(file) => crate::log::error::reopen(file),
                    Received::AccessLog(_) | Received::TakeOver(_) | Received::Release(_) => {}
                }
            }
        }
    }

    fn wait(&self, timeout: Duration) {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let wake = self.inherited.wakes.fd(self.inherited.process_slot);
        let fds = [Some(self.inherited.channel.as_fd()), wake, self.resolver.fd()];
        let fds = fds.into_iter().flatten();
        let mut polled: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // The loop checks everything, whatever is readable.
        let _ = poll(&mut polled, timeout);
    }
}

/// The longest sleep: the limits are checked at least this often.
const TICK: Duration = Duration::from_secs(1);
