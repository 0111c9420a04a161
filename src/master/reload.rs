//! Reload: a generation by the new configuration beside the old one, then instead of it.
//!
//! Until every child of the new generation has said that it serves, nothing of the old one has
//! changed: whatever goes wrong before, the old one goes on.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::config::Config;
use crate::master::configuration;
use crate::master::generation::{CacheFiles, Generation, Phase};
use crate::master::{Master, Reload, files};
use crate::worker::message::ControlMessage;

impl Master {
    /// Starts the reload that was asked for, unless one is still under way.
    pub(super) fn reload_if_wanted(&mut self, now: Instant) {
        if self.reload == Reload::None || self.starting().is_some() {
            return;
        }
        let Some(file) = self.file.clone() else {
            log::warn!("cannot reload: ktrix was started without a configuration file");
            self.reload = Reload::None;
            return;
        };
        let Some(config) = read_config(&file) else {
            self.reload = Reload::None;
            return;
        };
        if self.seats.n_free() < Generation::n_children(&config) {
            if self.reload == Reload::Wanted {
                log::warn!(
                    "reload delayed: too many workers are still draining after earlier reloads"
                );
            }
            self.reload = Reload::Waiting;
            return;
        }
        self.reload = Reload::None;
        if let Err(why) = self.begin_generation(config, now) {
            log::error!("{why}; keeping the current configuration");
        }
    }

    pub(super) fn begin_generation(&mut self, config: Config, now: Instant) -> Result<(), String> {
        self.warn_what_needs_restart(&config);
        let mark = self.listeners.mark();
        let listening = self.listeners.ensure(&config.listen, config.workers);
        let prepared = listening.map_err(|error| error.to_string()).and_then(|()| {
            let number = self.generations.last().map_or(1, |last| last.number + 1);
            let keeper_seat = self.take_seat().map_err(|error| error.to_string())?;
            let others = &self.generations;
            Generation::prepare(config, number, keeper_seat, others, &self.tables, now).map_err(
                |error| {
                    self.seats.free(keeper_seat);
                    error.to_string()
                },
            )
        });
        match prepared {
            Ok(mut generation) => {
                generation.phase = Phase::Starting { until: now + STARTING_MAX };
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

    /// Checks the files in use; a new generation opens a cache again that was given up.
    pub(super) fn watch_files(&mut self, now: Instant) {
        // A generation that starts may be about to replace the index.
        if self.starting().is_some() {
            return;
        }
        let current = self.generations.iter_mut().find(|it| it.phase == Phase::Current);
        let Some(current) = current else { return };
        self.file_watch.check(self.pid_file.as_mut(), current, now);
        let has_room = self.seats.n_free() >= Generation::n_children(&current.config);
        if current.cache_files == CacheFiles::Lost && has_room {
            current.cache_files = CacheFiles::InPlace;
            let config = (*current.config).clone();
            if let Err(why) = self.begin_generation(config, now) {
                log::error!("{why}; running without a cache");
            }
        }
    }

    /// Says what cannot change while ktrix runs.
    fn warn_what_needs_restart(&self, config: &Config) {
        let pid_path = self.pid_file.as_ref().map(|file| file.path());
        if config.pid.as_deref() != pid_path {
            log::warn!("a changed \"pid\" takes effect only after a restart");
        }
        if let Some(access) = &config.log.access
            && access.buffer_bytes != self.tables.ring_bytes
        {
            log::warn!("a changed \"log.access.buffer\" takes effect only after a restart");
        }
    }

    /// All of the new generation serve: the old ones drain.
    pub(super) fn switch_over(&mut self, index: usize, now: Instant) {
        if let Some(cache) = &self.generations[index].cache
            && let Err(error) = cache.shared.take_place()
        {
            log::error!("{error}; \"ktrix cache\" does not see the index in use");
        }
        for generation in &mut self.generations[..index] {
            generation.drain();
        }
        let generation = &mut self.generations[index];
        generation.phase = Phase::Current;
        generation.mark = None;
        let config = std::rc::Rc::clone(&generation.config);
        files::write_error_log(&config, &generation.logs, self.is_detached, "master");
        self.listeners.keep_only(&config.listen);
        log::info!("configuration reloaded, {} workers running", config.workers);
        self.update_takeovers(now);
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
        if let Some(mark) = generation.mark.take() {
            self.listeners.roll_back(&mark);
        }
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

    fn starting(&self) -> Option<usize> {
        self.generations.iter().position(|g| matches!(g.phase, Phase::Starting { .. }))
    }
}

impl Generation {
    /// Has every child finish what it began; nobody is forked for this generation any more.
    pub(super) fn drain(&mut self) {
        if self.phase == Phase::Draining {
            return;
        }
        self.phase = Phase::Draining;
        for child in &mut self.children {
            child.restart_at = None;
            child.send(ControlMessage::Drain);
        }
    }
}

/// The configuration in the file; `None` when it has errors, which have been logged.
fn read_config(file: &Path) -> Option<Config> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            let name = file.display();
            log::error!("cannot read \"{name}\": {error}; keeping the current configuration");
            return None;
        }
    };
    match configuration::load(file, &text) {
        Ok(config) => Some(config),
        Err(errors) => {
            for line in errors.to_string().lines() {
                log::error!("{line}");
            }
            log::error!(
                "configuration file \"{}\" is invalid; keeping the current configuration",
                file.display()
            );
            None
        }
    }
}

/// So long the children of a new generation may take until they serve.
const STARTING_MAX: Duration = Duration::from_secs(30);
