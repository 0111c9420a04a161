//! Upgrade: the program, as it is now on the disk, starts beside this one and takes its place.
//!
//! ```text
//! Serving ─ USR2 ─▶ a new master starts ─ it serves ─▶ Replaced: the children drain ─▶ end
//!    ▲                    └─ it fails, ends, or takes longer than timeouts.upgrade
//!    └────────────────────────────────────┘ (it is killed)
//! ```
//!
//! The new master has the listening sockets, the lock of the cache directory and the secrets of session
//! tickets from its start; the index is a file that both use. It reads the configuration, forks its
//! children, and when all serve it writes its own pid file over that of the old one.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::base::units::format_duration;
use crate::cache::index::table::NEW_NAME;
use crate::config::Config;
use crate::master::generation::{Generation, Phase};
use crate::master::pidfile::{PidFile, PidFileError};
use crate::master::signals::{IGNORED_BY_CHILDREN, Request};
use crate::master::succession::{self, FromOld, Successor, ToOld};
use crate::master::{Master, Mode};
use crate::shared::server_names::ServerNames;
use crate::shared::wake::ProcessSet;
use crate::sys::daemonize::ReadyPipe;
use crate::sys::process::{self, ExitStatus};
use crate::sys::socket;
use crate::worker::inherited::Reconcile;
use crate::worker::message::ControlMessage;

impl Master {
    /// Notes that an upgrade is wanted.
    pub(super) fn want_upgrade(&mut self) {
        match &self.successor {
            None => self.is_upgrade_wanted = true,
            Some(new) => {
                log::warn!("upgrade refused: another one is under way (pid {})", new.pid);
            }
        }
    }

    /// Passes a signal on to the master that serves in the place of this one.
    pub(super) fn pass_on_signal(&self, request: Request) {
        let signal = match request {
            Request::Reload => Signal::SIGHUP,
            Request::Reopen => Signal::SIGUSR1,
            _ => Signal::SIGUSR2,
        };
        if let Some(new) = &self.successor {
            let _ = process::send_signal(new.pid, signal);
        }
    }

    /// Starts the new master, unless a reload or a start is under way.
    pub(super) fn upgrade_if_wanted(&mut self, now: Instant) {
        if !self.is_upgrade_wanted || self.starting().is_some() || !self.was_ready {
            return;
        }
        self.is_upgrade_wanted = false;
        self.service_manager.reloading();
        match self.start_successor(now) {
            Ok(successor) => {
                log::info!("upgrade: starting the new program as pid {}", successor.pid);
                self.successor = Some(successor);
            }
            Err(why) => self.refuse_upgrade(&why),
        }
    }

    fn start_successor(&mut self, now: Instant) -> Result<Successor, String> {
        let current = self.generations.iter().find(|it| it.phase == Phase::Current);
        let (Some(program), Some(current)) = (&self.program, current) else {
            return Err("ktrix was started without a configuration file".to_owned());
        };
        let cannot = |error| format!("cannot start {}: {error}", program.path().display());
        let n_children = Generation::n_children(&current.config);
        let Some(n_spare) = self.process_slots.n_free().checked_sub(n_children) else {
            return Err(
                "too many workers are still draining after earlier upgrades and reloads".to_owned()
            );
        };
        // Some are kept for children that die meanwhile.
        let slots = self.process_slots.lend(n_spare.min(n_children));
        let (ours, theirs) = socket::channel().map_err(cannot)?;
        let pid = process::fork_child(&IGNORED_BY_CHILDREN, || {
            let (channel, error) = program.exec(&self.named(current, slots, theirs.as_fd()));
            if let Some(channel) = channel {
                ReadyPipe::over(channel).failed(&cannot(error));
            }
            1
        });
        let until = now + current.config.timeouts.upgrade;
        Ok(Successor::new(pid.map_err(cannot)?, ours, until))
    }

    /// The descriptors that the new master takes over, with names.
    fn named<'a>(
        &'a self,
        current: &'a Generation,
        slots: u128,
        channel: BorrowedFd<'a>,
    ) -> Vec<(String, BorrowedFd<'a>)> {
        let mut named = vec![(succession::CHANNEL.to_owned(), channel)];
        let mut add = |name: &str, fd| named.push((name.to_owned(), fd));
        if let Some(cache) = &current.cache {
            let is_checked = cache.reconcile != Reconcile::Check;
            let name = if is_checked { succession::LOCK } else { succession::LOCK_UNCHECKED };
            add(name, cache.lock.as_fd());
            if let Some(file) = cache.shared.uses.file() {
                add(succession::USES, file.as_fd());
            }
        }
        if let Some(pid_file) = &self.pid_file {
            add(succession::PID_FILE, pid_file.as_fd());
        }
        if let Some(file) = current.servers.file() {
            add(succession::SERVERS, file.as_fd());
        }
        named.extend(self.tables.named_for_upgrade(slots));
        named.extend(self.listeners.named());
        named
    }

    /// Does what the new master asks for.
    pub(super) fn hear_successor(&mut self, now: Instant) {
        while let Some(message) = self.successor.as_mut().and_then(Successor::hear) {
            let is_starting = self.is_upgrading();
            match message {
                ToOld::Ready if is_starting => self.be_replaced(now),
                ToOld::Failed(why) if is_starting => self.abort_upgrade(&why),
                ToOld::Quit | ToOld::Stop if is_starting => {
                    self.abort_upgrade("the new program was told to end");
                }
                ToOld::Reopen => self.reopen(),
                ToOld::Quit => self.quit(now),
                ToOld::Stop => self.stop(now),
                ToOld::Ready | ToOld::Failed(_) => {}
            }
        }
    }

    /// Whether a new master has been started and does not serve yet.
    pub(super) fn is_upgrading(&self) -> bool {
        self.successor.as_ref().is_some_and(|new| new.until.is_some())
    }

    /// Whether this master is to take the place of another one, and does not serve yet.
    pub(super) fn is_taking_over(&self) -> bool {
        self.predecessor.is_some() && !self.was_ready
    }

    /// Gives up a new master that takes too long.
    pub(super) fn abort_late_upgrade(&mut self, now: Instant) {
        let until = self.successor.as_ref().and_then(|new| new.until);
        if until.is_some_and(|until| now >= until) {
            self.hear_successor(now);
            if self.is_upgrading() {
                let current = self.generations.iter().find(|it| it.phase == Phase::Current);
                let bound = current.map(|it| format_duration(it.config.timeouts.upgrade));
                let bound = bound.unwrap_or_default();
                self.abort_upgrade(&format!("it did not serve within {bound} (timeouts.upgrade)"));
            }
        }
    }

    /// The new master has ended.
    pub(super) fn reap_successor(&mut self, status: ExitStatus, now: Instant) {
        // Its messages from before its end count.
        self.hear_successor(now);
        let is_starting = self.is_upgrading();
        let Some(new) = self.successor.take() else { return };
        if is_starting {
            self.refuse_upgrade(&format!("the new program (pid {}) {status}", new.pid));
        } else if self.mode != Mode::Serving {
            log::warn!("the new master (pid {}) {status}", new.pid);
        }
    }

    /// Ends a new master that does not serve.
    pub(super) fn abort_upgrade(&mut self, why: &str) {
        if let Some(new) = self.successor.take() {
            let _ = process::send_signal(new.pid, Signal::SIGKILL);
        }
        self.refuse_upgrade(why);
    }

    /// Ends a new master that does not serve, before the end of this one.
    pub(super) fn give_up_upgrade(&mut self) {
        if let Some(new) = self.successor.take_if(|new| new.until.is_some()) {
            log::warn!("upgrade given up, because ktrix is to end");
            let _ = process::send_signal(new.pid, Signal::SIGKILL);
            self.report_reload("ktrix was told to end");
        }
    }

    fn refuse_upgrade(&mut self, why: &str) {
        for line in why.lines() {
            log::error!(target: crate::log::limit::UNLIMITED, "{line}");
        }
        log::error!("upgrade failed; this ktrix goes on (pid {})", std::process::id());
        self.process_slots.take_back();
        // It may have begun an index, in whatever state it is.
        let dirs = self.generations.iter().filter_map(|it| it.cache.as_ref());
        for dir in dirs.map(|cache| cache.shared.store.dir()) {
            let _ = fs::remove_file(dir.join(NEW_NAME));
        }
        self.report_reload(why);
        self.service_manager.ready();
    }

    /// The new master serves: all children drain.
    fn be_replaced(&mut self, now: Instant) {
        let Some(new) = &mut self.successor else { return };
        new.until = None;
        self.service_manager.replaced_by(new.pid);
        self.service_manager.mute();
        new.tell_main();
        log::info!("upgraded: pid {} serves in the place of this ktrix, which drains", new.pid);
        let current = self.generations.iter().find(|it| it.phase == Phase::Current);
        let tunnel_drain = current.map(|it| it.config.timeouts.tunnel_drain).unwrap_or_default();
        self.mode = Mode::Replaced { tunnels_until: Some(now + tunnel_drain) };
        if self.reload != super::Reload::None {
            self.reload = super::Reload::None;
            self.pass_on_signal(Request::Reload);
        }
        for generation in &mut self.generations {
            generation.drain(ControlMessage::Retire);
        }
        self.listeners = super::Listeners::default();
        self.pid_file.take().into_iter().for_each(PidFile::remove_for_another);
    }

    /// After the time for tunnels: no tunnel may go on.
    pub(super) fn end_all_tunnels(&mut self) {
        self.generations.iter_mut().for_each(Generation::end_tunnels);
        self.mode = Mode::Replaced { tunnels_until: None };
    }
}

impl Master {
    /// In the new master, when all its children serve: takes the place of the old one.
    ///
    /// # Errors
    /// When the pid file cannot be written, or is another ktrix's.
    pub(super) fn take_over(&mut self) -> Result<(), PidFileError> {
        let Some(old) = &mut self.predecessor else { return Ok(()) };
        let Some(current) = self.generations.first() else { return Ok(()) };
        self.pid_file = pid_file_after(&current.config, old.pid_file.take())?;
        if let Some(cache) = &current.cache
            && let Err(error) = cache.shared.take_place()
        {
            log::error!("{error}; \"ktrix cache\" does not see the index in use");
        }
        if let Some(servers) = old.servers.take() {
            // A command may have changed a server meanwhile.
            current.take_over_settings(&ServerNames::of(&servers));
        }
        Ok(())
    }

    /// Does what the old master asks for; gives the connections that it has passed on.
    pub(super) fn hear_predecessor(&mut self) -> Vec<(std::net::SocketAddr, std::os::fd::OwnedFd)> {
        let mut connections = Vec::new();
        while let Some(message) = self.predecessor.as_ref().and_then(|old| old.hear()) {
            match message {
                FromOld::Adopt(listener, connection) => connections.push((listener, connection)),
                FromOld::Main => self.begin_managed(),
                FromOld::Ended => {
                    // It may have died before this one was ready.
                    if !self.was_ready
                        && let Err(error) = self.take_over()
                    {
                        log::error!("{error}");
                    }
                    self.predecessor = None;
                    self.free_slots_of_old();
                    log::info!("the ktrix before this one has ended");
                    self.begin_managed();
                }
            }
        }
        connections
    }

    /// Ends the fills of the old children, and takes their process slots.
    fn free_slots_of_old(&mut self) {
        let old = ProcessSet(std::mem::take(&mut self.tables.slots_of_old));
        for slot in old.iter() {
            self.tables.wakes.wake_all(self.tables.fills.abandon_all_of(slot));
            self.process_slots.free(slot);
        }
    }

    /// Tells the service manager that ktrix serves, and what to keep.
    pub(super) fn begin_managed(&mut self) {
        self.service_manager.unmute();
        if self.was_ready && self.mode == Mode::Serving {
            self.service_manager.ready();
            for (name, fd) in self.tables.named() {
                self.service_manager.discard(name);
                self.service_manager.keep(name, &[fd]);
            }
            self.listeners.store(&self.service_manager);
        }
    }

    pub(super) fn tell_predecessor(&self, message: &ToOld) {
        if let Some(old) = &self.predecessor {
            old.tell(message);
        }
    }
}

/// The pid file of the new master. The file of the old one is replaced, so that there is one at any
/// time; another name is locked as at any start.
fn pid_file_after(
    config: &Config,
    before: Option<fs::File>,
) -> Result<Option<PidFile>, PidFileError> {
    let Some(path) = &config.pid else { return Ok(None) };
    let is_same = before.is_some_and(|file| crate::sys::file::is_at(&file, path));
    let locked = if is_same { PidFile::replace(path) } else { PidFile::lock(path) };
    locked.map(Some)
}
