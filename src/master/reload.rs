//! Reload: a generation of the new configuration starts beside the old one, then replaces it.
//!
//! Nothing of the old generation changes until every child of the new one has sent `ready`. If
//! anything fails before, the old one goes on.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::config::Config;
use crate::log::limit::UNLIMITED;
use crate::master::configuration;
use crate::master::generation::{CacheFiles, Generation, Phase};
use crate::master::pidfile::PidFile;
use crate::master::{Master, Reload, files, reload_report};
use crate::metrics::table::Metric;
use crate::shared::meter;
use crate::shared::server_names::ServerNames;
use crate::shared::servers::TablePhase;
use crate::sys::file;
use crate::tls::sources::Sources;
use crate::worker::message::ControlMessage;

impl Master {
    /// Starts the reload that was asked for, unless one is still under way.
    pub(super) fn reload_if_wanted(&mut self, now: Instant) {
        if self.reload == Reload::None || self.is_changing() {
            return;
        }
        if self.reload == Reload::Wanted {
            self.service_manager.reloading();
        }
        let config = match self.file.clone().map(|file| read_config(&file)) {
            Some(Ok(config)) => config,
            Some(Err(why)) => return self.refuse_reload(&why),
            None => {
                return self.refuse_reload("ktrix was started without a configuration file");
            }
        };
        if self.process_slots.n_free() < Generation::n_children(&config) {
            if self.reload == Reload::Wanted {
                log::warn!(
                    "reload delayed: too many workers are still draining after earlier reloads"
                );
                self.end_oldest_tunnels("to make room for the new workers");
            }
            self.reload = Reload::Waiting;
            return;
        }
        self.reload = Reload::None;
        if let Err(why) = self.begin_generation(config, now) {
            log::error!("{why}; keeping the current configuration");
            count(Outcome::Failed);
            self.report_reload(&why);
            self.service_manager.ready();
        }
    }

    fn refuse_reload(&mut self, why: &str) {
        self.reload = Reload::None;
        for line in why.lines() {
            log::error!(target: UNLIMITED, "{line}");
        }
        log::error!("reload failed; keeping the current configuration");
        count(Outcome::Failed);
        self.report_reload(why);
        self.service_manager.ready();
    }

    /// Tells `ktrix -s reload` or `ktrix -s upgrade`; an empty refusal is none.
    pub(super) fn report_reload(&self, refusal: &str) {
        if let Some(pid_file) = &self.pid_file
            && let Err(error) = reload_report::write(pid_file.path(), refusal)
        {
            log::debug!("cannot write the outcome of the reload: {error}");
        }
    }

    pub(super) fn begin_generation(&mut self, config: Config, now: Instant) -> Result<(), String> {
        self.warn_what_needs_restart(&config);
        let mark = self.listeners.mark();
        let listening = self.listeners.ensure(&config.listen, config.workers);
        let locked = listening.map_err(|error| error.to_string()).and_then(|()| {
            let is_other = |path: &&Path| self.pid_file.as_ref().map(PidFile::path) != Some(*path);
            let other = config.pid.as_deref().filter(is_other);
            other.map(PidFile::lock).transpose().map_err(|error| error.to_string())
        });
        let prepared = locked.and_then(|pid_file| {
            let number = self.generations.last().map_or(1, |last| last.number + 1);
            let keeper_slot = self.take_process_slot().map_err(|error| error.to_string())?;
            let others = &self.generations;
            let prepared =
                Generation::prepare(config, number, keeper_slot, others, None, &self.tables, now);
            match prepared {
                Ok(generation) => Ok((generation, pid_file)),
                Err(error) => {
                    self.process_slots.free(keeper_slot);
                    pid_file.into_iter().for_each(PidFile::remove);
                    Err(error.to_string())
                }
            }
        });
        match prepared {
            Ok((mut generation, pid_file)) => {
                generation.phase = Phase::Starting { until: now + STARTING_MAX };
                generation.pid_file = pid_file;
                generation.mark = Some(mark);
                self.generations.push(generation);
                Ok(())
            }
            Err(why) => {
                self.listeners.roll_back(&mark);
                Err(why)
            }
        }
    }

    /// Checks the mapped files. A new generation opens the cache again if it was given up.
    pub(super) fn watch_files(&mut self, now: Instant) {
        // A generation or a master that starts may be about to replace the index or the pid file.
        if self.is_changing() {
            return;
        }
        let current = self.generations.iter_mut().find(|it| it.phase == Phase::Current);
        let Some(current) = current else { return };
        self.file_watch.check(self.pid_file.as_mut(), current, now);
        let has_room = self.process_slots.n_free() >= Generation::n_children(&current.config);
        if current.cache_files == CacheFiles::Lost && has_room {
            current.cache_files = CacheFiles::InPlace;
            let config = (*current.config).clone();
            if let Err(why) = self.begin_generation(config, now) {
                log::error!("{why}; running without a cache");
            }
        }
    }

    /// Takes up what has changed in the files of certificates. A generation that starts has its own.
    pub(super) fn watch_tls(&mut self, now: Instant) {
        if self.starting().is_some() {
            return;
        }
        let current = self.generations.iter_mut().find(|it| it.phase == Phase::Current);
        if let Some(current) = current {
            self.tls_watch.look(current, &self.tables, now);
        }
    }

    /// Logs which settings cannot change while ktrix is running.
    fn warn_what_needs_restart(&self, config: &Config) {
        if let Some(access) = &config.log.access
            && access.buffer_bytes != self.tables.ring_bytes
        {
            log::warn!("a changed \"log.access.buffer\" takes effect only after a restart");
        }
    }

    /// All children of the new generation serve: the old generations drain.
    pub(super) fn switch_over(&mut self, index: usize, now: Instant) {
        if let Some(cache) = &self.generations[index].cache
            && let Err(error) = cache.shared.take_place()
        {
            log::error!("{error}; \"ktrix cache\" does not see the index in use");
        }
        let current = self.generations.iter().find(|it| it.phase == Phase::Current);
        if let Some(current) = current {
            // A command may have changed a server since the new generation was prepared.
            let before = ServerNames::of(&current.servers);
            self.generations[index].take_over_settings(&before);
        }
        // Before the old keepers end, so that no worker asks one of them.
        self.tables.names.set_keeper(self.generations[index].keeper_slot);
        let config = std::rc::Rc::clone(&self.generations[index].config);
        for generation in &mut self.generations[..index] {
            generation.retire(&config);
        }
        self.bound_generations(index);
        let generation = &mut self.generations[index];
        if let Err(finding) = generation.use_ticket_secrets(&Sources::of_disk(), &self.tables) {
            log::error!("{finding}; keeping the one in use");
        }
        generation.phase = Phase::Current;
        generation.servers.set_phase(generation.number, TablePhase::Current);
        generation.mark = None;
        files::write_error_log(&config, &generation.logs, self.is_detached, "master");
        self.listeners.keep_only(&config.listen);
        self.service_manager.ready();
        self.listeners.store(&self.service_manager);
        log::info!("configuration reloaded, {} workers running", config.workers);
        count(Outcome::Done);
        self.report_reload("");
        let is_same = self.pid_file.as_ref().map(PidFile::path) == config.pid.as_deref();
        if !is_same {
            let pid_file = self.generations[index].pid_file.take();
            let old = std::mem::replace(&mut self.pid_file, pid_file);
            old.into_iter().for_each(PidFile::remove_for_another);
        }
        self.update_takeovers(now);
    }

    /// Has the workers of the oldest generations end their tunnels, if there are too many before `index`.
    fn bound_generations(&mut self, index: usize) {
        let n_max = self.generations[index].config.limits.generations;
        while self.generations[..index].iter().filter(|it| !it.is_ending).count() > n_max {
            self.end_oldest_tunnels("limits.generations is reached");
        }
    }

    /// Has the oldest generation that drains end its tunnels.
    fn end_oldest_tunnels(&mut self, why: &str) {
        let mut draining = self.generations.iter_mut().filter(|it| it.phase == Phase::Draining);
        let Some(oldest) = draining.find(|it| !it.is_ending) else { return };
        log::warn!("closing the tunnels of configuration {}: {why}", oldest.number);
        oldest.end_tunnels();
    }

    /// The new generation cannot be completed: it ends, and the old one goes on.
    pub(super) fn abort_generation(&mut self, index: usize) {
        let generation = &mut self.generations[index];
        generation.phase = Phase::Draining;
        if let Some(cache) = &generation.cache {
            cache.shared.withdraw();
        }
        for child in &mut generation.children {
            child.restart_at = None;
            child.signal(Signal::SIGKILL);
        }
        generation.pid_file.take().into_iter().for_each(PidFile::remove);
        if let Some(mark) = generation.mark.take() {
            self.listeners.roll_back(&mark);
        }
        count(Outcome::Failed);
        self.report_reload("the new processes did not start; see the error log");
        self.service_manager.ready();
    }

    /// Gives up a generation that takes too long.
    pub(super) fn abort_late_generation(&mut self, now: Instant) {
        let Some(index) = self.starting() else { return };
        if let Phase::Starting { until } = self.generations[index].phase
            && now >= until
        {
            log::error!(
                "reload failed: the new workers were not ready within {} s; keeping the current configuration",
                STARTING_MAX.as_secs()
            );
            self.abort_generation(index);
        }
    }

    /// Whether a generation or a master starts. The ktrix that serves after an upgrade reloads.
    fn is_changing(&self) -> bool {
        self.starting().is_some() || self.is_upgrading() || self.is_taking_over()
    }

    pub(super) fn starting(&self) -> Option<usize> {
        self.generations.iter().position(|g| matches!(g.phase, Phase::Starting { .. }))
    }
}

impl Generation {
    /// Tells every child that another generation has taken its place, and which routes and listeners that
    /// has too.
    fn retire(&mut self, new: &Config) {
        let unchanged = self.config.unchanged_settings(new);
        let bytes: Vec<u8> = unchanged.into_iter().map(u8::from).collect();
        let file = file::in_memory("ktrix-unchanged", &bytes);
        let file = file
            .inspect_err(|error| log::warn!("cannot tell old workers what is unchanged: {error}"));
        self.drain_with(ControlMessage::Retire, file.ok().as_ref().map(AsFd::as_fd));
    }

    /// Tells the children of a generation that drains to let no tunnel go on.
    pub(super) fn end_tunnels(&mut self) {
        self.is_ending = true;
        self.children.iter_mut().for_each(|child| child.send(ControlMessage::Drain));
    }

    /// Tells every child to drain, by one of the two messages for that. No child of this generation is
    /// forked any more.
    pub(super) fn drain(&mut self, message: ControlMessage) {
        self.drain_with(message, None);
    }

    fn drain_with(&mut self, message: ControlMessage, file: Option<BorrowedFd<'_>>) {
        if self.phase == Phase::Draining {
            return;
        }
        self.phase = Phase::Draining;
        self.servers.set_phase(self.number, TablePhase::Draining);
        for child in &mut self.children {
            child.restart_at = None;
            child.send_with(message, file);
        }
    }
}

/// How a reload has ended: the places in the label of the metric.
enum Outcome {
    Done,
    Failed,
}

fn count(outcome: Outcome) {
    meter::count(Metric::Reloads.at(outcome as usize));
}

/// The configuration in the file, or all its errors.
fn read_config(file: &Path) -> Result<Config, String> {
    let bytes = std::fs::read(file)
        .map_err(|error| format!("cannot read \"{}\": {error}", file.display()))?;
    configuration::text_of(file, bytes)
        .and_then(|text| configuration::load(file, &text))
        .map_err(|errors| errors.to_string())
}

/// The longest time until the children of a new generation serve.
const STARTING_MAX: Duration = Duration::from_secs(30);
