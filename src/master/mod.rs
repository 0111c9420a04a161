//! The master: one process that keeps the sockets and the shared memory, and restarts its children.
//!
//! It reads the configuration, binds the sockets, makes the shared tables, forks, and then sleeps
//! in poll(2) until a signal, a child or a deadline needs it. It has one thread and speaks no HTTP.
//!
//! ```text
//! HUP   ─▶ reload: a new generation beside the old one; the old drains once the new is ready
//! CHLD  ─▶ reap: clear what the dead held, write its log, fork its successor
//! USR1  ─▶ reopen the log files
//! USR2  ─▶ upgrade: a new master beside this one; Replaced once it serves: everybody drains
//! QUIT  ─▶ Quitting: everybody drains, within timeouts.stop
//! TERM, INT ─▶ Stopping: everybody ends now
//! ```

pub(crate) mod access_check;
pub(crate) mod unusual;
pub(crate) mod configuration;
pub(crate) mod backoff;
pub(crate) mod process_slots;
pub(crate) mod socket_takeover;
pub(crate) mod running;
pub(crate) mod reload_report;
pub(crate) mod pidfile;
pub(crate) mod signals;
pub(crate) mod program;
pub(crate) mod service_manager;
pub mod listeners;
pub(crate) mod files;
pub(crate) mod pulse;
pub(crate) mod child;
pub(crate) mod suspects;
pub(crate) mod dead_rings;
pub(crate) mod shared_tables;
pub mod cache;
pub(crate) mod succession;
pub(crate) mod generation;
mod file_watch;
mod expiry;
mod tls_watch;
mod stuck_workers;
pub(crate) mod sandbox;
mod spawn;
mod crashes;
mod child_exit;
mod reload;
mod upgrade;
mod stop;
pub(crate) mod start;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::master::dead_rings::DeadRings;
use crate::master::file_watch::FileWatch;
use crate::master::generation::{Generation, Phase};
use crate::master::listeners::Listeners;
use crate::master::pidfile::PidFile;
use crate::master::process_slots::ProcessSlots;
use crate::master::program::Program;
use crate::master::service_manager::ServiceManager;
use crate::master::shared_tables::SharedTables;
use crate::master::signals::{Request, Signals};
use crate::master::succession::{Predecessor, Successor, ToOld};
use crate::master::suspects::Suspects;
use crate::master::tls_watch::TlsWatch;
use crate::shared::meter;
use crate::sys::daemonize::ReadyPipe;
use crate::sys::memory::ResidentMemory;
use crate::worker::inherited::{Reconcile, Role};

/// The master; made by [`Master::start`].
#[derive(Debug)]
pub(crate) struct Master {
    /// The file that a reload reads; `None` if ktrix was started without one.
    file: Option<PathBuf>,
    /// The program that an upgrade runs; `None` if ktrix was started without a file.
    program: Option<Program>,
    is_detached: bool,
    service_manager: ServiceManager,
    tables: SharedTables,
    memory: Option<ResidentMemory>,
    process_slots: ProcessSlots,
    dead_rings: DeadRings,
    listeners: Listeners,
    /// Oldest first.
    generations: Vec<Generation>,
    mode: Mode,
    reload: Reload,
    is_upgrade_wanted: bool,
    file_watch: FileWatch,
    tls_watch: TlsWatch,
    suspects: Suspects,
    workers_looked_at: Instant,
    /// Connections of older generations that were passed on.
    n_passed_on: usize,
    /// The ktrix that this one has taken the place of, while that drains.
    predecessor: Option<Predecessor>,
    /// The ktrix that is to take the place of this one, or has.
    successor: Option<Successor>,
    /// These three are `None` in children.
    signals: Option<Signals>,
    pid_file: Option<PidFile>,
    ready_pipe: Option<ReadyPipe>,
    was_ready: bool,
    exit_code: i32,
}

/// The mode of the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Dead children are restarted.
    Serving,
    /// Another master serves. Children finish what they began, but for tunnels that last until then.
    Replaced { tunnels_until: Option<Instant> },
    /// Children finish what they began, until then.
    Quitting { until: Instant },
    /// Children end; those that have not by then are killed.
    Stopping { until: Instant },
}

/// A reload that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reload {
    /// None.
    None,
    /// To be done as soon as there is room for another generation.
    Wanted,
    /// As `Wanted`, and the error log has the reason for the delay.
    Waiting,
}

impl Master {
    /// Serves until it is told to end, and gives the exit code.
    pub(crate) fn run(mut self) -> i32 {
        loop {
            self.run_timers(Instant::now());
            if self.is_over() {
                self.tables.page.release();
                return self.finish();
            }
            self.wait();
            for request in self.signals.as_mut().map(Signals::take).unwrap_or_default() {
                self.handle(request, Instant::now());
            }
            self.receive_messages(Instant::now());
        }
    }

    fn handle(&mut self, request: Request, now: Instant) {
        match request {
            Request::Reap => self.reap(now),
            Request::Stop => self.stop(now),
            Request::Quit => self.quit(now),
            Request::Reload | Request::Upgrade | Request::Reopen
                if matches!(self.mode, Mode::Replaced { .. }) =>
            {
                self.pass_on_signal(request);
            }
            Request::Reopen => self.reopen(),
            Request::Reload if self.mode == Mode::Serving => self.reload = Reload::Wanted,
            Request::Upgrade if self.mode == Mode::Serving => self.want_upgrade(),
            Request::Reload | Request::Upgrade => {}
        }
    }

    /// Sleeps until a signal, a message of a child, or the next deadline.
    fn wait(&self) {
        let left = self
            .next_deadline()
            .map_or(SLEEP_MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        // Rounded up: waking a little early would only mean to sleep again.
        let left = left.min(SLEEP_MAX) + Duration::from_millis(1);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let children = self.generations.iter().flat_map(|generation| &generation.children);
        let channels = children.filter_map(|child| child.process.as_ref()?.channel.as_ref());
        let channels = channels.map(|channel| channel.as_fd());
        let masters = self.predecessor.as_ref().map(Predecessor::fd);
        let masters = masters.into_iter().chain(self.successor.as_ref().and_then(Successor::fd));
        let fds = channels.chain(self.signals.as_ref().map(Signals::fd)).chain(self.tls_watch.fd());
        let fds = fds.chain(masters);
        let mut polled: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // The loop checks everything, whatever poll(2) returns. After EINTR the signal is on the
        // pipe.
        let _ = poll(&mut polled, timeout);
    }

    fn receive_messages(&mut self, now: Instant) {
        self.hear_successor(now);
        let mut handed_over = self.hear_predecessor();
        for index in 0..self.generations.len() {
            let mut is_new = false;
            let generation = &mut self.generations[index];
            for child in &mut generation.children {
                let messages = child.receive();
                is_new |= messages.is_ready;
                handed_over.extend(messages.handed_over);
                if messages.has_missed_tls {
                    self.tls_watch.owe();
                }
                if messages.is_scrubbed
                    && let Some(cache) = &mut generation.cache
                {
                    cache.reconcile = Reconcile::None;
                }
            }
            if is_new && generation.is_complete() {
                self.complete(index, now);
            }
        }
        let current = self.generations.iter().find(|it| it.phase == Phase::Current);
        for (listener, connection) in handed_over {
            self.n_passed_on = self.n_passed_on.wrapping_add(1);
            match (current, &self.successor) {
                (Some(current), _) => current.pass_on(self.n_passed_on, listener, &connection),
                (None, Some(new)) => new.pass_on(listener, &connection),
                (None, None) => {}
            }
        }
    }

    /// All children of a generation serve, maybe not for the first time.
    fn complete(&mut self, index: usize, now: Instant) {
        if matches!(self.generations[index].phase, Phase::Starting { .. }) {
            self.switch_over(index, now);
        } else if !self.was_ready && self.mode == Mode::Serving {
            if let Err(error) = self.take_over() {
                return self.abort_start(&error.to_string(), now);
            }
            self.was_ready = true;
            log::info!("ready, {} workers running", self.generations[index].config.workers);
            if let Some(ready_pipe) = self.ready_pipe.take() {
                ready_pipe.ready();
            }
            match self.predecessor {
                // It tells the service manager first.
                Some(_) => self.report_reload(""),
                None => self.begin_managed(),
            }
        }
    }

    /// Does the work that is due.
    fn run_timers(&mut self, now: Instant) {
        for slot in self.dead_rings.settle(now) {
            self.process_slots.free(slot);
        }
        self.memory.iter().for_each(meter::note_memory);
        self.suspects.expire(&self.tables.in_flight, now);
        crate::log::error::tick();
        self.remove_ended_generations();
        match self.mode {
            Mode::Serving => {
                self.abort_late_generation(now);
                self.abort_late_upgrade(now);
                self.reload_if_wanted(now);
                self.upgrade_if_wanted(now);
                self.watch_files(now);
                self.watch_tls(now);
                self.spawn_due(now);
                self.watch_workers(now);
                self.update_takeovers(now);
            }
            Mode::Replaced { tunnels_until: Some(until) } if now >= until => self.end_all_tunnels(),
            Mode::Quitting { until } if now >= until => self.stop(now),
            Mode::Stopping { until } if now >= until => self.kill_all(now),
            Mode::Replaced { .. } | Mode::Quitting { .. } | Mode::Stopping { .. } => {}
        }
        self.tell_manager(now);
    }

    /// Shows what ktrix does, and gives a sign of life while all workers give theirs.
    fn tell_manager(&mut self, now: Instant) {
        let current = self.generations.iter().find(|it| it.phase == Phase::Current);
        let workers = || current.iter().flat_map(|it| &it.children).filter(|it| it.is_worker());
        let status = match (self.mode, current) {
            (Mode::Serving, _) if self.is_upgrading() => "serving, upgrading".to_owned(),
            (Mode::Serving, _) if self.starting().is_some() => "serving, reloading".to_owned(),
            (Mode::Serving, Some(current)) if self.was_ready => format!(
                "serving, {} workers, generation {}",
                workers().filter(|it| it.is_serving()).count(),
                current.number
            ),
            (Mode::Serving, _) => "starting".to_owned(),
            (Mode::Replaced { .. } | Mode::Quitting { .. }, _) => "draining".to_owned(),
            (Mode::Stopping { .. }, _) => "stopping".to_owned(),
        };
        if workers().all(|it| !it.is_weak()) {
            self.service_manager.beat(now);
        }
        self.service_manager.show(status);
    }

    fn next_deadline(&self) -> Option<Instant> {
        let now = Instant::now();
        let mode = match self.mode {
            Mode::Serving => self.successor.as_ref().and_then(|new| new.until),
            Mode::Replaced { tunnels_until } => tunnels_until,
            Mode::Quitting { until } | Mode::Stopping { until } => Some(until),
        };
        let phases = self.generations.iter().filter_map(|generation| match generation.phase {
            Phase::Starting { until } => Some(until),
            Phase::Current | Phase::Draining => None,
        });
        let living = self.generations.iter().filter(|g| g.phase != Phase::Draining);
        let children = living
            .flat_map(|generation| &generation.children)
            .flat_map(|child| [child.restart_at, child.takeover_at(now).filter(|at| *at > now)]);
        let children = children.flatten().filter(|_| self.mode == Mode::Serving);
        mode.into_iter()
            .chain(phases)
            .chain(children)
            .chain(self.dead_rings.next_try())
            .chain(self.suspects.next_end())
            .chain(self.next_look())
            .chain([self.tls_watch.look_at()])
            .chain(self.service_manager.next_beat().filter(|at| *at > now))
            .min()
    }

    /// Forks every child that is due.
    fn spawn_due(&mut self, now: Instant) {
        for index in 0..self.generations.len() {
            for which in 0..self.generations[index].children.len() {
                let restart_at = self.generations[index].children[which].restart_at;
                if restart_at.is_some_and(|at| at <= now)
                    && let Err(error) = self.spawn(index, which, now)
                {
                    let child = &mut self.generations[index].children[which];
                    log::error!("cannot start {}: {error}; retrying in 1 s", child.role);
                    child.restart_at = Some(now + FORK_PAUSE);
                }
            }
        }
    }

    /// Tells living workers to listen for those that are down.
    fn update_takeovers(&mut self, now: Instant) {
        let Some(generation) = self.generations.iter_mut().find(|g| g.phase == Phase::Current)
        else {
            return;
        };
        let mut ready = Vec::new();
        let mut down = Vec::new();
        for child in &generation.children {
            match (child.role, child.takeover_at(now)) {
                (Role::Worker(number), None) => ready.push(number),
                (Role::Worker(number), Some(at)) if at <= now => down.push(number),
                (Role::Worker(_), Some(_)) | (Role::Keeper, _) => {}
            }
        }
        for (to, message) in generation.takeovers.update(&ready, &down) {
            log::debug!("worker {to}: {}", message.text());
            generation.children[to].send(message);
        }
    }

    /// Removes the generations that have ended.
    fn remove_ended_generations(&mut self) {
        let process_slots = &mut self.process_slots;
        self.generations.retain(|generation| {
            let is_gone = generation.phase == Phase::Draining && generation.is_empty();
            if is_gone {
                process_slots.free(generation.keeper_slot);
                log::debug!("all processes of generation {} have exited", generation.number);
            }
            !is_gone
        });
    }

    fn reopen(&mut self) {
        self.tell_predecessor(&ToOld::Reopen);
        let mut is_done = true;
        for generation in &mut self.generations {
            if let Err(error) = generation.reopen_logs() {
                log::error!("{error}; the log files in use stay open");
                is_done = false;
                continue;
            }
            for log in generation.logs.requests.iter().flatten() {
                self.dead_rings.reopened(log);
            }
            if generation.phase == Phase::Current {
                crate::log::error::reopen(generation.logs.error_copy());
            }
        }
        if is_done {
            log::info!("log files reopened");
        }
    }
}

/// The longest sleep: suppressed messages are reported no later than this.
const SLEEP_MAX: Duration = Duration::from_secs(10);
/// The pause after a fork that failed.
const FORK_PAUSE: Duration = Duration::from_secs(1);
