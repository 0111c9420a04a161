//! The master: one process that holds what must outlive its children, and keeps them alive.
//!
//! It reads the configuration, binds the sockets, makes the shared tables, forks, and then sleeps
//! in poll(2) until a signal, a child or a deadline needs it. It has one thread, speaks no HTTP and
//! serves nobody.
//!
//! ```text
//! HUP   ─▶ reload: a new generation beside the old one; the old drains once the new is ready
//! CHLD  ─▶ reap: clear what the dead held, write its log, fork its successor
//! USR1  ─▶ reopen the log files
//! QUIT  ─▶ Quitting: everybody drains, within timeouts.stop
//! TERM, INT ─▶ Stopping: everybody ends now
//! ```

pub mod configuration;
pub mod backoff;
pub mod process_slots;
pub mod socket_takeover;
pub mod pidfile;
pub mod signals;
pub mod listeners;
pub mod files;
pub mod child;
pub mod dead_rings;
pub mod shared_tables;
pub mod cache;
pub mod generation;
pub mod start;
mod spawn;
mod child_exit;
mod reload;
mod stop;
mod file_watch;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::config::{Config, ErrorSink};
use crate::log::error::Sink;
use crate::master::child::Down;
use crate::master::dead_rings::Estates;
use crate::master::file_watch::Watch;
use crate::master::generation::{Generation, Phase};
use crate::master::listeners::Listeners;
use crate::master::pidfile::PidFile;
use crate::master::process_slots::Seats;
use crate::master::shared_tables::Tree;
use crate::master::signals::{Request, Signals};
use crate::master::socket_takeover::Order as Adoption;
use crate::sys::daemonize::Announcer;
use crate::worker::inherited::{Role, ScrubNeed};
use crate::worker::message::Order;

/// The master; made by [`Master::start`].
#[derive(Debug)]
pub struct Master {
    /// What a reload reads; `None` when ktrix runs by its arguments alone.
    file: Option<PathBuf>,
    is_detached: bool,
    tree: Tree,
    seats: Seats,
    estates: Estates,
    listeners: Listeners,
    /// Oldest first.
    generations: Vec<Generation>,
    mode: Mode,
    reload: Reload,
    watch: Watch,
    /// These three are `None` in children.
    signals: Option<Signals>,
    pid_file: Option<PidFile>,
    announcer: Option<Announcer>,
    has_announced: bool,
    exit_code: i32,
}

/// What the master is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Keeping its children alive.
    Serving,
    /// Waiting for them to finish what they began, until then.
    Quitting { until: Instant },
    /// Waiting for them to end; whoever has not by then is killed.
    Stopping { until: Instant },
}

/// A reload that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reload {
    /// None.
    None,
    /// To be done as soon as there is room for another generation.
    Wanted,
    /// The same, and the error log has said what it waits for.
    Waiting,
}

impl Master {
    /// Serves until it is told to end, and gives the exit code.
    pub fn run(mut self) -> i32 {
        loop {
            self.keep_time(Instant::now());
            if self.is_over() {
                return self.finish();
            }
            self.wait();
            for request in self.signals.as_mut().map(Signals::take).unwrap_or_default() {
                self.obey(request, Instant::now());
            }
            self.hear_children(Instant::now());
        }
    }

    fn obey(&mut self, request: Request, now: Instant) {
        match request {
            Request::Reap => self.reap(now),
            Request::Stop => self.stop(now),
            Request::Quit => self.quit(now),
            Request::Reopen => self.reopen(),
            Request::Reload if self.mode == Mode::Serving => self.reload = Reload::Wanted,
            Request::Reload => {}
        }
    }

    /// Sleeps until a signal, a word of a child, or the next deadline.
    fn wait(&self) {
        let left = self
            .next_deadline()
            .map_or(SLEEP_MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        // Rounded up: waking a little early would only mean to sleep again.
        let left = left.min(SLEEP_MAX) + Duration::from_millis(1);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let posts = self.generations.iter().flat_map(|generation| &generation.posts);
        let channels = posts.filter_map(|post| post.child()?.channel.as_ref());
        let fds =
            channels.map(|channel| channel.as_fd()).chain(self.signals.as_ref().map(Signals::fd));
        let mut polled: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // Whatever it says, the loop looks at everything; EINTR is a signal, which is on the pipe.
        let _ = poll(&mut polled, timeout);
    }

    fn hear_children(&mut self, now: Instant) {
        for index in 0..self.generations.len() {
            let mut n_new = 0;
            let generation = &mut self.generations[index];
            for post in &mut generation.posts {
                let said = post.hear();
                n_new += usize::from(said.is_ready);
                if let (true, Some(cache)) = (said.is_scrubbed, &mut generation.cache) {
                    cache.needs_scrub = ScrubNeed::None;
                }
            }
            if n_new > 0 && self.generations[index].is_complete() {
                self.complete(index, now);
            }
        }
    }

    /// All children of a generation serve, maybe not for the first time.
    fn complete(&mut self, index: usize, now: Instant) {
        if matches!(self.generations[index].phase, Phase::Starting { .. }) {
            self.succeed(index, now);
        } else if !self.has_announced {
            self.has_announced = true;
            log::info!("serves with {} workers", self.generations[index].config.workers);
            if let Some(announcer) = self.announcer.take() {
                announcer.ready();
            }
        }
    }

    /// Does what is due by the clock.
    fn keep_time(&mut self, now: Instant) {
        for seat in self.estates.settle(&self.tree.rings, now) {
            self.seats.free(seat);
        }
        crate::log::error::tick();
        self.bury_generations();
        match self.mode {
            Mode::Serving => {
                self.expire_starting(now);
                self.reload_if_wanted(now);
                self.watch(now);
                self.raise_vacant(now);
                self.settle_adoptions(now);
            }
            Mode::Quitting { until } if now >= until => self.stop(now),
            Mode::Stopping { until } if now >= until => self.kill_all(now),
            Mode::Quitting { .. } | Mode::Stopping { .. } => {}
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let now = Instant::now();
        let mode = match self.mode {
            Mode::Serving => None,
            Mode::Quitting { until } | Mode::Stopping { until } => Some(until),
        };
        let phases = self.generations.iter().filter_map(|generation| match generation.phase {
            Phase::Starting { until } => Some(until),
            Phase::Current | Phase::Draining => None,
        });
        let living = self.generations.iter().filter(|g| g.phase != Phase::Draining);
        let posts = living.flat_map(|generation| &generation.posts).flat_map(|post| {
            let down_at = match post.is_down(now) {
                Down::At(at) => Some(at),
                Down::No | Down::Yes => None,
            };
            [post.restart_at(), down_at]
        });
        let posts = posts.flatten().filter(|_| self.mode == Mode::Serving);
        mode.into_iter().chain(phases).chain(posts).chain(self.estates.next_try()).min()
    }

    /// Forks for every post whose time has come.
    fn raise_vacant(&mut self, now: Instant) {
        for index in 0..self.generations.len() {
            for post in 0..self.generations[index].posts.len() {
                let is_due = |at: Instant| at <= now;
                if !self.generations[index].posts[post].restart_at().is_some_and(is_due) {
                    continue;
                }
                if let Err(error) = self.raise(index, post, now) {
                    let role = self.generations[index].posts[post].role;
                    log::error!("cannot start {role}: {error}; tried again in 1 s");
                    let restart_at = Some(now + FORK_PAUSE);
                    self.generations[index].posts[post].vacate(restart_at, now);
                }
            }
        }
    }

    /// Has living workers listen for those that are down.
    fn settle_adoptions(&mut self, now: Instant) {
        let Some(generation) = self.generations.iter_mut().find(|g| g.phase == Phase::Current)
        else {
            return;
        };
        let mut ready = Vec::new();
        let mut down = Vec::new();
        for post in &generation.posts {
            match (post.role, post.is_down(now)) {
                (Role::Worker(number), Down::No) => ready.push(number),
                (Role::Worker(number), Down::Yes) => down.push(number),
                (Role::Worker(_), Down::At(_)) | (Role::Keeper, _) => {}
            }
        }
        for order in generation.adoptions.settle(&ready, &down) {
            let (to, order) = match order {
                Adoption::Adopt { to, of } => (to, Order::Adopt(of)),
                Adoption::Release { to, of } => (to, Order::Release(of)),
            };
            log::debug!("worker {to}: {}", order.text());
            generation.posts[to].tell(order);
        }
    }

    /// Forgets the generations that have ended.
    fn bury_generations(&mut self) {
        let seats = &mut self.seats;
        self.generations.retain(|generation| {
            let is_gone = generation.phase == Phase::Draining && generation.is_empty();
            if is_gone {
                seats.free(generation.keeper_seat);
                log::debug!("generation {} has ended", generation.number);
            }
            !is_gone
        });
    }

    fn reopen(&mut self) {
        for generation in &mut self.generations {
            let config = &generation.config;
            if let Err(error) = files::prepare_logs(config, generation.account.as_ref()) {
                log::error!("{error}");
            }
            for post in &mut generation.posts {
                post.tell(Order::Reopen);
            }
        }
        match crate::log::error::reopen() {
            Ok(()) => log::info!("log files opened again"),
            Err(error) => log::error!("cannot open the error log again: {error}"),
        }
    }
}

/// Where the error log goes: a daemon that is detached has no stderr any more.
fn error_sink(config: &Config, is_detached: bool) -> Sink {
    match &config.log.error {
        ErrorSink::File(path) => Sink::File(path.clone()),
        ErrorSink::Auto | ErrorSink::Stderr if !is_detached => Sink::Stderr,
        ErrorSink::Auto | ErrorSink::Stderr | ErrorSink::Syslog => Sink::syslog(),
    }
}

/// The longest sleep: what the error log kept back is told no later than this.
const SLEEP_MAX: Duration = Duration::from_secs(10);
/// The pause after a fork that failed.
const FORK_PAUSE: Duration = Duration::from_secs(1);
